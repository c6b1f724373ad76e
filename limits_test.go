package dtlsserver

// Limits on handshakes and their memory: floods, sources that take more than
// their share, and who gives way. Those on open sessions are in sessions_test.go.

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// TestLimits in their simple form: the oldest handshake gives way at
// MaxHandshakes when it is overdue, new peers are refused at MaxSessions.
func TestLimits(t *testing.T) {
	t.Parallel()
	inBubble(t, func(s *Server) { s.MaxHandshakes, s.MaxSessions, s.PSK = 10, 3, anyPSK }, func(b *bubble) {
		oldest := b.peer(100)
		oldest.verify()
		for n := range 9 {
			b.peer(n).verify()
		}
		early := b.peer(99)
		for range 2 {
			early.send(early.Hello())
			early.receive()
		}
		if stats := b.server.Stats(); early.HelloDone || stats.Handshakes != 10 || stats.Dropped.Refused != 1 {
			t.Errorf("Stats %+v", stats)
		}
		time.Sleep(2 * patience[within5ms])
		b.peer(9).verify()
		if stats := b.server.Stats(); stats.Handshakes != 10 || stats.Dropped.Evicted != 1 {
			t.Errorf("Stats %+v", stats)
		}
		if e := b.rec.want(t, KindHandshakeFailed, 1, "at MaxHandshakes"); e.Err != ErrEvicted || e.Remote != oldest.pipe.addr {
			t.Errorf("%v", e)
		}
		for n := range 3 {
			p := b.peer(200 + n)
			p.Identity = fmt.Sprint(n)
			p.establish()
		}
		refused := b.peer(300)
		refused.send(refused.Hello())
		refused.receive()
		refused.send(refused.Hello())
		if refused.receive(); refused.HelloDone {
			t.Error("a fourth session")
		}
		if stats := b.server.Stats(); stats.Sessions != 3 || stats.Dropped.Refused != 2 {
			t.Errorf("Stats %+v", stats)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if stats := b.server.Stats(); stats.Handshakes != 0 {
			t.Errorf("%d handshakes left", stats.Handshakes)
		}
	})
}

// TestFloods: between the datagrams of 200 honest handshakes come 200,000 bare
// hellos of as many addresses, 200,000 junk datagrams, and 10,000 hellos with
// right cookies that are never followed up, from as many addresses or all from
// one. Every honest handshake completes without a retransmission, and in the end
// nothing is left.
func TestFloods(t *testing.T) {
	for _, attacker := range []string{"many sources", "one source"} {
		honest := 200
		if raceEnabled || testing.Short() {
			honest = 10
		}
		d := newDirect(t, func(s *Server) { s.MaxHandshakes = 500 })
		d.rec.then = HandlerFuncs{}
		bare := testpeer.New("", nil, 1).Hello()
		n := 0
		flood := func() {
			for range 250 {
				n++
				d.receive(netip.AddrPortFrom(clientAddr(1<<20+n).Addr(), uint16(n)), bare)
				d.receive(netip.AddrPortFrom(clientAddr(1<<21+n).Addr(), uint16(n)), []byte("junk"))
			}
			for range 13 {
				n++
				from := clientAddr(1<<19 + n)
				if attacker == "one source" {
					from = netip.AddrPortFrom(clientAddr(1<<19).Addr(), uint16(n))
				}
				d.verified(uint64(n), from)
			}
			d.now = d.now.Add(time.Millisecond)
		}
		heap := func() uint64 {
			runtime.GC()
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		before := heap()
		for i := range honest {
			c, from := testpeer.New(testIdentity, []byte(testKey), uint64(i)), clientAddr(i)
			flood()
			d.exchange(c, from, c.Hello())
			flood()
			d.exchange(c, from, c.Hello())
			flood()
			d.exchange(c, from, c.Flight())
			flood()
			if !c.Complete {
				t.Fatalf("%s: honest handshake %d is not complete", attacker, i)
			}
		}
		stats := d.s.Stats()
		if stats.Handshakes > 500 || stats.Dropped.Evicted == 0 || stats.HandshakesCompleted != uint64(honest) {
			t.Errorf("%s: %+v", attacker, stats)
		}
		d.advance(time.Hour) // all is given up or idle
		if left := d.l.left(); left != "" {
			t.Errorf("%s: left: %s", attacker, left)
		}
		events := len(d.rec.events)
		d.rec.events, d.rec.log, d.out = nil, nil, nil
		if after := heap(); after > before+1<<20 {
			t.Errorf("%s: the heap grew by %d bytes", attacker, after-before)
		}
		if limit := 3*honest + 7*maxFolds; events > limit {
			t.Errorf("%s: %d events for %d datagrams", attacker, events, stats.DatagramsReceived)
		}
	}
}

// TestSourceWithMostGivesWay: at MaxHandshakes whoever floods keeps out its own
// newcomers, and makes way for those of others.
func TestSourceWithMostGivesWay(t *testing.T) {
	t.Parallel()
	d := newDirect(t, func(s *Server) { s.MaxHandshakes, s.MaxHandshakesPerSource = 20, -1 })
	var honest []*testpeer.Client
	for n := range 5 {
		honest = append(honest, d.verified(uint64(n), clientAddr(n)))
	}
	for port := range 1000 {
		d.verified(uint64(100+port), netip.AddrPortFrom(clientAddr(99).Addr(), uint16(1+port)))
	}
	if stats := d.s.Stats(); stats.Handshakes != 20 || stats.Dropped.Evicted != 0 || stats.Dropped.Refused != 985 {
		t.Errorf("%+v", stats)
	}
	for n := range 5 {
		honest = append(honest, d.verified(uint64(50+n), clientAddr(5+n)))
	}
	if stats := d.s.Stats(); stats.Handshakes != 20 || stats.Dropped.Evicted != 5 {
		t.Errorf("%+v", stats)
	}
	for n, c := range honest {
		d.exchange(c, clientAddr(n), c.Flight())
		if !c.Complete {
			t.Errorf("the handshake of source %d gave way", n)
		}
	}
	for _, e := range d.rec.of(KindHandshakeFailed) {
		if e.Err != ErrEvicted || e.Remote.Addr() != clientAddr(99).Addr() {
			t.Errorf("%v", e)
		}
	}
}

// TestHandshakesPerSource: a source has its share, by IPv4 address and by IPv6
// /64, and within it who is overdue makes way.
func TestHandshakesPerSource(t *testing.T) {
	t.Parallel()
	d := newDirect(t, func(s *Server) { s.MaxHandshakesPerSource = 3 })
	flood := func(seed, ports int) {
		for port := range ports {
			d.verified(uint64(seed+port), netip.AddrPortFrom(netip.MustParseAddr("192.0.2.9"), uint16(seed+port)))
			six := netip.MustParseAddr("2001:db8:0:7::").As16()
			six[15] = byte(seed + port)
			d.verified(uint64(100+seed+port), netip.AddrPortFrom(netip.AddrFrom16(six), 5000))
		}
	}
	flood(1, 10)
	if stats := d.s.Stats(); stats.Handshakes != 6 || stats.Dropped.Refused != 14 {
		t.Errorf("%+v", stats)
	}
	if n := len(d.l.sources.byKey); n != 2 {
		t.Errorf("%d sources", n)
	}
	d.advance(2 * patience[within5ms]) // and nobody goes on
	flood(30, 3)
	if stats := d.s.Stats(); stats.Handshakes != 6 || stats.Dropped.Refused != 14 || stats.Dropped.Evicted != 6 {
		t.Errorf("%+v", stats)
	}
}

// TestWhoGivesWayIsTold: the client of a handshake that gives way need not wait
// until it gives up.
func TestWhoGivesWayIsTold(t *testing.T) {
	t.Parallel()
	d := newDirect(t, func(s *Server) { s.MaxHandshakes = 1 })
	first, from := d.verified(1, clientAddr(1)), clientAddr(1)
	d.advance(2 * patience[within5ms])
	c := testpeer.New(testIdentity, []byte(testKey), 2)
	d.exchange(c, clientAddr(2), c.Hello())
	d.receive(clientAddr(2), c.Hello())
	for _, b := range d.outTo(from) {
		if err := first.Receive(b); err != nil {
			t.Fatal(err)
		}
	}
	if len(first.Alerts) != 1 || first.Alerts[0] != (wire.Alert{Level: wire.LevelFatal, Description: wire.AlertInternalError}) {
		t.Errorf("alerts %v", first.Alerts)
	}
	if e := d.rec.want(t, KindHandshakeFailed, 1, "for the newcomer"); e.Err != ErrEvicted || e.Remote != from {
		t.Errorf("%v", e)
	}
}

// TestIdleSessionsMakeRoom: at MaxSessions the session whose peer has been
// silent longest is closed for a new one, if that is a minute or more.
func TestIdleSessionsMakeRoom(t *testing.T) {
	t.Parallel()
	d := newDirect(t, func(s *Server) { s.MaxSessions, s.PSK = 3, anyPSK })
	var clients []*testpeer.Client
	for n := range 3 {
		c := testpeer.New(fmt.Sprint(n), []byte(testKey), uint64(n))
		d.establish(c, clientAddr(n))
		clients = append(clients, c)
		d.advance(time.Second)
	}
	if c := d.verified(10, clientAddr(10)); c.HelloDone {
		t.Error("a fourth handshake while nobody is idle")
	}
	d.advance(30 * time.Second)
	d.exchange(clients[0], clientAddr(0), clients[0].Sealed(wire.ContentApplicationData, nil)) // the first is not idle
	d.advance(35 * time.Second)
	late := testpeer.New(testIdentity, []byte(testKey), 11)
	d.exchange(late, clientAddr(11), late.Hello())
	d.exchange(late, clientAddr(11), late.Hello())
	d.rec.want(t, KindSessionClosed, 0, "before the handshake is complete")
	d.out = nil
	d.receive(clientAddr(11), late.Flight())
	e := d.rec.want(t, KindSessionClosed, 1, "for the new session")
	if e.Err != ErrEvicted || e.Remote != clientAddr(1) {
		t.Errorf("%v gave way", e)
	}
	if stats := d.s.Stats(); stats.Sessions != 3 || stats.Dropped.EvictedSessions != 1 || stats.Dropped.Refused != 1 {
		t.Errorf("%+v", stats)
	}
	if d.l.idle.Len() != 3 {
		t.Errorf("%d sessions are watched", d.l.idle.Len())
	}
	d.rec.want(t, KindLimitReached, 2, "for both")
}

// TestHandshakeMemory: what handshakes keep of messages in parts is bounded for
// all together, whole messages need none of it, and it is given back on every
// way a handshake can end.
func TestHandshakeMemory(t *testing.T) {
	t.Parallel()
	d := newDirect(t, func(s *Server) { s.MaxHandshakeMemory, s.HandshakeTimeout = 3*256, 20*time.Second })
	part := func(c *testpeer.Client) []byte { // a byte, and as many bits as are declared
		h := wire.AppendHandshakeHeader(nil, wire.TypeClientKeyExchange, 1000, 2, 0, 1)
		return c.Plain(wire.ContentHandshake, append(h, 0))
	}
	for round := range 3 {
		var clients []*testpeer.Client
		for n := range 5 {
			from := clientAddr(100*round + n)
			c := testpeer.New(testIdentity, []byte(testKey), uint64(100*round+n))
			c.MessageSeq = 0
			d.exchange(c, from, c.Hello())
			d.exchange(c, from, c.Hello())
			d.receive(from, part(c))
			clients = append(clients, c)
		}
		if limit := d.s.Stats().Dropped.Limit; limit != uint64(2*(round+1)) {
			t.Errorf("round %d: %d parts were dropped, want two each round", round, limit)
		}
		for n, c := range clients[:2] { // two complete, the others time out
			d.exchange(c, clientAddr(100*round+n), c.Flight())
			if !c.Complete {
				t.Errorf("round %d: a handshake with whole messages is not complete", round)
			}
		}
		d.advance(time.Minute)
	}
}

// partialHello is a hello without its last bytes, which declares so many.
func partialHello(c *testpeer.Client, declared, last int) []byte {
	body := c.HelloBody()
	body = body[:len(body)-2]
	h := append(wire.AppendHandshakeHeader(nil, wire.TypeClientHello, declared, c.MessageSeq, 0, len(body)), body...)
	if last > 0 { // and bytes of its end, for which room is made in front of them
		h = append(wire.AppendHandshakeHeader(h, wire.TypeClientHello, declared, c.MessageSeq, declared-last, last-1), make([]byte, last-1)...)
	}
	return c.Plain(wire.ContentHandshake, h)
}

// TestHandshakeMemoryIsShared: whoever takes all handshake memory keeps nobody
// out: neither a source that holds more than others, nor many that hold as
// much as each other for long.
func TestHandshakeMemoryIsShared(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name             string
		sources, ports   int
		declared, pieces int
	}{
		{"six sources", 6, 200, 16384, 0},
		{"six sources that make room for the end", 6, 200, 16384, 20},
		{"many sources", 1200, 1, 16384, 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := newDirect(t, nil)
			d.l.cfg.handler = NopHandler{}
			take := func() {
				for n := range tt.sources * tt.ports {
					from := host(203, n%tt.sources, n/tt.sources)
					c := d.verifiedPart(uint64(n), from)
					d.receive(from, partialHello(c, tt.declared, tt.pieces))
					if got := int(d.l.handshakes.memory); got > DefaultMaxHandshakeMemory {
						t.Fatalf("%d bytes are reserved", got)
					}
				}
			}
			take()
			connected := 0
			for n := range 50 {
				c, from := testpeer.New(testIdentity, []byte(testKey), uint64(1)<<40+uint64(n)), clientAddr(n)
				c.More = make([]byte, 4+2500)
				c.More[0], c.More[2], c.More[3] = 0xfa, 2500>>8, 2500&0xff // an unknown extension
				first, second := split(c, c.Hello(), 1200)
				d.exchange(c, from, first)
				d.receive(from, second)
				first, second = split(c, c.Hello(), 1200)
				for range 5 { // at once, and after 1, 2, 4 and 8 s
					d.exchange(c, from, first)
					d.exchange(c, from, second)
					if c.HelloDone {
						break
					}
					take()
					d.advance(2 * time.Second)
				}
				if c.HelloDone {
					d.exchange(c, from, c.Flight())
				}
				if c.Complete {
					connected++
				}
			}
			t.Logf("%d of 50 connected, %+v", connected, d.s.Stats().Dropped)
			if connected != 50 {
				t.Errorf("%d of 50 honest peers are connected", connected)
			}
			d.s.Close()
			d.settle()
			if left := d.l.left(); left != "" {
				t.Errorf("left: %s", left)
			}
		})
	}
}

// TestHandshakeMemoryIsNeverPassed holds handshakes that reserve, give back and
// give way against plain sums.
func TestHandshakeMemoryIsNeverPassed(t *testing.T) {
	t.Parallel()
	const bound = 100_000
	rng := rand.New(rand.NewPCG(5, 6))
	h, all := handshakes{coin: rng}, newSources(200)
	var live []*Session
	largest := 0
	for step := range 50_000 {
		now := time.Duration(step) * 10 * time.Millisecond
		switch k := rng.IntN(10); {
		case k < 3 && len(live) < 100:
			s := &Session{remote: host(10, rng.IntN(8), rng.IntN(1000))}
			s.source = all.of(s.remote.Addr())
			h.add(s, beyond2s, now)
			live = append(live, s)
		case k < 8 && len(live) > 0:
			s := live[rng.IntN(len(live))]
			giveWay, ok := h.reserve(s, 1+rng.IntN(1<<rng.IntN(17)), bound, now)
			if !ok && len(giveWay) > 0 {
				t.Fatal("some give way for nothing")
			}
			for _, v := range giveWay {
				if v == s || !v.givesWay {
					t.Fatal("the newcomer gives way for itself")
				}
				h.reserve(v, -int(v.reserved), bound, now)
				h.remove(v)
				live = slices.DeleteFunc(live, func(s *Session) bool { return s == v })
				all.forget(v.source)
			}
		case k == 8 && len(live) > 0: // weights change
			src := live[rng.IntN(len(live))].source
			src.people = int32(rng.IntN(5))
			h.weighed(src)
		case len(live) > 0:
			i := rng.IntN(len(live))
			s := live[i]
			if s.reserved > 0 {
				h.reserve(s, -int(s.reserved), bound, now)
			}
			h.remove(s)
			live = slices.Delete(live, i, i+1)
			all.forget(s.source)
		}
		sum := 0
		for _, s := range live {
			sum += int(s.reserved)
		}
		if largest = max(largest, sum); int64(sum) != h.memory || sum > bound {
			t.Fatalf("%d bytes are reserved, counted as %d, of at most %d", sum, h.memory, bound)
		}
		for _, src := range all.byKey {
			if src.memory > 0 && (byMemory{src}).before(h.mostByMemory[0]) {
				t.Fatal("the source with most is not the first")
			}
		}
	}
	if largest < bound*9/10 {
		t.Errorf("no more than %d bytes were ever reserved", largest)
	}
}

// TestWhoGivesWayForMemory: a handshake that gives way for its memory ends before
// the next answer is taken, and not if it is complete by then.
func TestWhoGivesWayForMemory(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	d.verified(1, clientAddr(1))
	d.connect(testIdentity, clientAddr(2))
	for n := range 2 {
		s := d.l.known(clientAddr(1+n), netip.Addr{})
		s.givesWay = true
		d.l.givingWay = append(d.l.givingWay, s)
	}
	c := d.verified(3, clientAddr(3))
	d.l.receive(d.now, message(clientAddr(3), c.Flight()))
	d.settle() // the key is there
	if d.l.known(clientAddr(1), netip.Addr{}) != nil || !d.isOpen(clientAddr(2)) || !d.isOpen(clientAddr(3)) || len(d.l.givingWay) > 0 {
		t.Errorf("the handshake is there: %v; open: %v, %v; %d are left", d.l.known(clientAddr(1), netip.Addr{}) != nil, d.isOpen(clientAddr(2)), d.isOpen(clientAddr(3)), len(d.l.givingWay))
	}
}

// verifiedPart makes the cookie exchange of a client whose second hello is the
// caller's to send.
func (d *direct) verifiedPart(n uint64, from netip.AddrPort) *testpeer.Client {
	d.t.Helper()
	c := testpeer.New("", nil, n)
	d.exchange(c, from, c.Hello())
	return c
}
