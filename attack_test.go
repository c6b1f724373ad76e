package dtlsserver

// Attacks on the server as a whole, by who has no key: floods, replays and
// spoofing.

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"regexp"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// attacks are datagrams of an attacker who knows a peer's address, and has seen
// some of its records, but has no key. None may have an effect, or an answer.
func attacks(seen ...[]byte) (all [][]byte) {
	record := func(t wire.ContentType, epoch uint16, seq uint64, payload []byte) {
		r := wire.AppendRecordHeader(nil, t, wire.VersionDTLS12, epoch, seq, len(payload))
		all = append(all, append(r, payload...))
	}
	for _, alert := range [][]byte{{1, 0}, {2, 0}, {2, 40}, {2, 80}, {1, 90}} {
		record(wire.ContentAlert, 0, 99, alert)
		record(wire.ContentAlert, 1, 99, alert)
	}
	record(wire.ContentApplicationData, 0, 9, []byte("data"))
	record(wire.ContentApplicationData, 1, 9, bytes.Repeat([]byte{5}, 60))
	record(wire.ContentChangeCipherSpec, 0, 9, []byte{1})
	record(wire.ContentChangeCipherSpec, 1, 9, []byte{1})
	record(wire.ContentHandshake, 0, 9, testpeer.Message(wire.TypeFinished, 3, make([]byte, 12)))
	record(wire.ContentHandshake, 1, 9, testpeer.Message(wire.TypeFinished, 3, make([]byte, 12)))
	for typ := range 25 { // every handshake message, empty, declared huge, and junk
		t := wire.HandshakeType(typ)
		if t != wire.TypeClientHello {
			record(wire.ContentHandshake, 0, 9, testpeer.Message(t, 2, nil))
			record(wire.ContentHandshake, 0, 9, testpeer.Message(t, 3, []byte("junk")))
		}
		record(wire.ContentHandshake, 0, 9, wire.AppendHandshakeHeader(nil, t, 1<<24-1, 2, 0, 0))
		record(wire.ContentHandshake, 0, 9, append(wire.AppendHandshakeHeader(nil, t, 1<<24-1, 2, 1<<24-3, 1), 7))
	}
	for _, t := range []wire.ContentType{0, 19, 20, 21, 22, 23, 24, 25, 255} {
		for _, epoch := range []uint16{0, 1, 2, 0xffff} {
			record(t, epoch, wire.MaxSequence, []byte("junk junk junk junk junk junk junk"))
			record(t, epoch, 0, nil)
		}
	}
	all = append(all, nil, []byte{22}, []byte("GET / HTTP/1.0\r\n\r\n"), make([]byte, 1400))
	for _, b := range seen { // replayed, damaged, of another epoch
		all = append(all, b)
		if len(b) > 20 {
			damaged, old, far := bytes.Clone(b), bytes.Clone(b), bytes.Clone(b)
			damaged[len(b)-1] ^= 1
			old[4], far[3] = 0, 0x80
			all = append(all, damaged, old, far)
		}
	}
	return all
}

// TestTenThousandSessions: every session is attacked in every way that an
// attacker without its key has, and none notices.
func TestTenThousandSessions(t *testing.T) {
	t.Parallel()
	sessions := 10_000
	if raceEnabled || testing.Short() {
		sessions = 500
	}
	d := newDirect(t, nil)
	clients := make([]*testpeer.Client, sessions)
	seen := make([][][]byte, sessions)
	for n := range clients {
		c := testpeer.New(testIdentity, []byte(testKey), uint64(n))
		clients[n] = c
		d.establish(c, clientAddr(n))
		data := c.Sealed(wire.ContentApplicationData, []byte("once"))
		d.exchange(c, clientAddr(n), data)
		flight := c.Plain(wire.ContentChangeCipherSpec, []byte{1})
		seen[n] = [][]byte{data, flight}
	}
	d.rec.want(t, KindHandshakeComplete, uint64(sessions), "at first")
	delivered := len(d.rec.data)
	answers := 0
	for n := range clients {
		from := clientAddr(n)
		for _, b := range attacks(seen[n]...) {
			if answer := d.receive(from, b); len(answer) > 0 {
				t.Fatalf("%x\nwas answered with\n%x", b, answer)
			}
		}
		bare := testpeer.New("", nil, 1)
		for range 2 { // without a cookie, and with one that is made up
			answer := d.receive(from, bare.Hello())
			if len(answer) != 1 || len(answer[0]) != 60 || answer[0][13] != byte(wire.TypeHelloVerifyRequest) {
				t.Fatalf("a hello was answered with %x", answer)
			}
			bare.Cookie = bytes.Repeat([]byte{answer[0][28]}, 32)
			answers++
		}
	}
	if len(d.rec.data) != delivered {
		t.Errorf("%d datagrams were delivered that nobody sent", len(d.rec.data)-delivered)
	}
	d.rec.want(t, KindSessionClosed, 0, "after the attacks")
	if stats := d.s.Stats(); stats.Sessions != sessions || stats.Handshakes != 0 {
		t.Errorf("%d sessions, %d handshakes", stats.Sessions, stats.Handshakes)
	}
	for n, c := range clients {
		from := clientAddr(n)
		d.exchange(c, from, c.Sealed(wire.ContentApplicationData, []byte("still there")))
		session, ok := d.s.SessionByAddr(from, anyLocal)
		if !ok {
			t.Fatalf("%v has no session", from)
		}
		d.out = nil
		if _, err := session.Write([]byte("and you")); err != nil {
			t.Fatal(err)
		}
		if err := c.Receive(d.out[0]); err != nil || string(c.Data[0]) != "and you" {
			t.Fatalf("client %v got %q, %v", from, c.Data, err)
		}
	}
	if len(d.rec.data) != delivered+sessions {
		t.Errorf("%d of %d sessions still deliver", len(d.rec.data)-delivered, sessions)
	}
	if n := len(d.rec.of(KindRecordDropped)); n > 100 {
		t.Errorf("%d events for what was dropped", n)
	}
}

// TestManyFailingHandshakes: 100,000 handshakes fail in all ways; then a good
// one completes, and nothing is left of the others.
func TestManyFailingHandshakes(t *testing.T) {
	t.Parallel()
	n := 100_000
	if raceEnabled || testing.Short() {
		n = 3_000
	}
	d := newDirect(t, func(s *Server) { s.MaxHandshakes = 600 })
	for i := range n {
		c := testpeer.New(testIdentity, []byte("wrong"), uint64(i))
		c.MessageSeq = 1
		if i%4 == 1 {
			c.Suites = []uint16{0xc02b} // none in common
		}
		from := clientAddr(i)
		verdict, answer := d.l.cfg.verifier.Verify(nil, c.Hello(), from, d.now)
		if verdict != VerdictChallenge {
			t.Fatal(verdict)
		}
		c.Cookie = cookieOf(t, answer)
		c.MessageSeq = 1
		d.exchange(c, from, c.Hello())
		switch i % 4 {
		case 2: // malformed
			d.exchange(c, from, c.Plain(wire.ContentHandshake, testpeer.Message(wire.TypeClientKeyExchange, 2, []byte{9})))
		case 3: // wrong key
			d.exchange(c, from, c.Flight())
		}
		if i%1000 == 0 {
			d.advance(31 * time.Second)
		}
	}
	d.advance(31 * time.Second)
	d.establish(testpeer.New(testIdentity, []byte(testKey), 1<<40), clientAddr(1<<20))
	stats := d.s.Stats()
	if stats.HandshakesStarted != uint64(n)+1 || stats.HandshakesFailed != uint64(n) || stats.Handshakes != 0 || stats.Sessions != 1 {
		t.Errorf("%+v", stats)
	}
	d.s.Close()
	d.settle()
	if left := d.l.left(); left != "" {
		t.Errorf("left: %s", left)
	}
}

// TestSpoofedPlaintext: from an established peer's address come plaintext
// alerts, data, and junk; nothing is answered, delivered or ended.
func TestSpoofedPlaintext(t *testing.T) {
	t.Parallel()
	inBubble(t, func(s *Server) { s.Handler.(*recorder).then.OnDatagramReceived = echo }, func(b *bubble) {
		p := b.peer(1)
		p.establish()
		spoof := testpeer.New("", nil, 5)
		p.send(
			spoof.Plain(wire.ContentAlert, []byte{2, 40}),
			spoof.Plain(wire.ContentAlert, []byte{1, 0}),
			spoof.Plain(wire.ContentApplicationData, []byte("data")),
			spoof.Plain(wire.ContentChangeCipherSpec, []byte{1}),
			spoof.Plain(wire.ContentHandshake, testpeer.Message(wire.TypeFinished, 3, make([]byte, 12))),
			[]byte("junk"), nil, make([]byte, 2000),
		)
		if n := p.receive(); n != 0 {
			t.Errorf("%d answers", n)
		}
		p.send(p.Sealed(wire.ContentApplicationData, []byte("x")))
		if p.receive(); len(p.Data) != 1 {
			t.Error("the session no longer answers")
		}
		if len(b.rec.data) != 1 {
			t.Errorf("delivered %q", b.rec.data)
		}
		if d := b.server.Stats().Dropped; d.Unauthenticated != 3 || d.Repeated != 2 || d.Malformed != 2 {
			t.Errorf("Dropped %+v", d)
		}
	})
}

// TestBadRecordInDatagram: good, bad, good in one datagram.
func TestBadRecordInDatagram(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(b *bubble) {
		p := b.peer(1)
		p.establish()
		bad := p.Sealed(wire.ContentApplicationData, []byte("bad"))
		bad[len(bad)-1] ^= 1
		p.send(bytes.Join([][]byte{
			p.Sealed(wire.ContentApplicationData, []byte("one")), bad,
			p.Sealed(wire.ContentApplicationData, []byte("two")),
		}, nil))
		want := []string{fmt.Sprintf("%v: one", p.pipe.addr), fmt.Sprintf("%v: two", p.pipe.addr)}
		if !slices.Equal(b.rec.data, want) {
			t.Errorf("got %q, want %q", b.rec.data, want)
		}
	})
}

// TestReplayedHelloAgainstHandshake: an older verified hello, replayed, neither
// ends a handshake that is under way, nor keeps the honest client out for long.
func TestReplayedHelloAgainstHandshake(t *testing.T) {
	t.Parallel()
	t.Run("ends none", func(t *testing.T) {
		t.Parallel()
		inBubble(t, func(s *Server) {
			s.PSK = func(ctx context.Context, req PSKRequest) (PSK, error) {
				time.Sleep(8 * time.Second)
				return testPSK(ctx, req)
			}
		}, func(b *bubble) {
			old := b.peer(1)
			old.send(old.Hello())
			old.receive()
			captured := old.Hello()
			honest := old.again(77)
			honest.verify()
			honest.send(honest.Flight())
			for range 6 {
				time.Sleep(time.Second)
				honest.send(captured)
			}
			time.Sleep(3 * time.Second)
			if honest.receive(); !honest.Complete {
				t.Errorf("the handshake was ended: %v", b.rec.lines())
			}
		})
	})
	// lockout tries to keep a client that has restarted out, by what the
	// attacker sends every second, and wants it answered within 6 s.
	lockout := func(t *testing.T, begin func(p *peer) (attack []byte)) {
		inBubble(t, nil, func(b *bubble) {
			p := b.peer(1)
			attack := begin(p)
			honest := p.again(77)
			honest.send(honest.Hello())
			honest.receive()
			start := time.Now()
			for {
				p.send(attack)
				p.drain()
				honest.send(honest.Hello())
				if p.drain() > 0 {
					break
				}
				time.Sleep(time.Second)
			}
			if took := time.Since(start); took > 6*time.Second {
				t.Errorf("the honest client was answered after %v", took)
			}
		})
	}
	t.Run("keeps nobody out", func(t *testing.T) {
		t.Parallel()
		lockout(t, func(p *peer) []byte {
			p.send(p.Hello())
			p.receive()
			captured := p.Hello()
			p.send(captured)
			p.drain()
			return captured
		})
	})
	t.Run("nor does ChangeCipherSpec", func(t *testing.T) {
		t.Parallel()
		lockout(t, func(p *peer) []byte {
			p.verify()
			return p.Plain(wire.ContentChangeCipherSpec, []byte{1})
		})
	})
}

// TestSpoofedAlertWithSlowHook: a plaintext alert does not shorten the time of
// the PSK hook, and what it has shortened is forgotten when the client answers.
func TestSpoofedAlertWithSlowHook(t *testing.T) {
	t.Parallel()
	inBubble(t, func(s *Server) {
		s.PSK = func(ctx context.Context, req PSKRequest) (PSK, error) {
			time.Sleep(8 * time.Second)
			return testPSK(ctx, req)
		}
	}, func(b *bubble) {
		p := b.peer(1)
		p.verify()
		alert := p.Plain(wire.ContentAlert, []byte{2, 40})
		p.send(alert)
		time.Sleep(4 * time.Second)
		p.send(p.Flight(), alert)
		for range 8 {
			time.Sleep(time.Second)
			p.send(alert)
		}
		synctest.Wait()
		if p.receive(); !p.Complete {
			t.Errorf("the handshake was ended: %v", b.rec.lines())
		}
	})
}

// floodConn is a net.PacketConn that receives one bare hello from each of many
// addresses and then, once told so, is closed.
type floodConn struct {
	hello     []byte
	next      uint32
	n         uint32
	flooded   chan struct{}
	closed    chan struct{}
	answers   int
	wrongSize int
	from      net.UDPAddr
}

func (c *floodConn) ReadFrom(b []byte) (int, net.Addr, error) {
	if c.next == c.n {
		close(c.flooded)
		<-c.closed
		return 0, nil, net.ErrClosed
	}
	c.next++
	c.from.IP = append(c.from.IP[:0], 10, byte(c.next>>16), byte(c.next>>8), byte(c.next))
	return copy(b, c.hello), &c.from, nil
}

func (c *floodConn) WriteTo(b []byte, _ net.Addr) (int, error) {
	c.answers++
	if len(b) != 60 {
		c.wrongSize++
	}
	return len(b), nil
}

func (c *floodConn) Close() error                     { close(c.closed); return nil }
func (c *floodConn) LocalAddr() net.Addr              { return net.UDPAddrFromAddrPort(serverAddr) }
func (c *floodConn) SetDeadline(time.Time) error      { return nil }
func (c *floodConn) SetReadDeadline(time.Time) error  { return nil }
func (c *floodConn) SetWriteDeadline(time.Time) error { return nil }

// TestFloodKeepsNothing: 100,000 bare hellos from as many addresses leave no
// goroutine, no session and no memory behind, and get 60 bytes each. Not
// parallel, since it counts goroutines and heap.
func TestFloodKeepsNothing(t *testing.T) {
	const n = 100_000
	rec := &recorder{}
	s := &Server{PSK: testPSK, Handler: rec}
	conn := &floodConn{
		hello: testpeer.New("", nil, 1).Hello(), n: n,
		flooded: make(chan struct{}), closed: make(chan struct{}), from: net.UDPAddr{Port: 5000},
	}
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	goroutines, before := goroutineIDs(), heap()
	done := make(chan error)
	go func() { done <- s.Serve(conn) }()
	<-conn.flooded
	l := s.current()
	if after := heap(); after > before+512<<10 { // the loop's own buffers are 128 KiB
		t.Errorf("the heap grew by %d bytes", after-before)
	}
	begun := goroutineIDs()
	for id := range goroutines {
		delete(begun, id)
	}
	if len(begun) != 1 {
		t.Errorf("%d goroutines begun, want that of Serve", len(begun))
	}
	l.mu.Lock()
	peers := len(l.peers.byRemote)
	l.mu.Unlock()
	if peers != 0 || l.timerCount() != 0 {
		t.Errorf("%d peers, %d timers", peers, l.timerCount())
	}
	if conn.answers != n || conn.wrongSize != 0 {
		t.Errorf("%d answers, %d not of 60 bytes", conn.answers, conn.wrongSize)
	}
	s.Close()
	<-done
	rec.want(t, KindHelloVerifyRequestSent, n, "after the flood")
	if lines := len(rec.of(KindHelloVerifyRequestSent)); lines > 20 {
		t.Errorf("%d events for the flood", lines)
	}
}

// goroutineIDs are the numbers of all goroutines. Others may end at any time.
func goroutineIDs() map[string]bool {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	ids := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(?m)^goroutine (\d+) `).FindAllSubmatch(buf, -1) {
		ids[string(m[1])] = true
	}
	return ids
}

// TestFragmentFlood: fragments that never make a message take no more memory
// than one message may have.
func TestFragmentFlood(t *testing.T) {
	d := newDirect(t, nil)
	c, from := testpeer.New(testIdentity, []byte(testKey), 1), clientAddr(1)
	d.exchange(c, from, c.Hello())
	d.exchange(c, from, c.Hello())
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for i := range 100_000 {
		var h []byte
		switch i % 3 {
		case 0: // empty
			h = wire.AppendHandshakeHeader(nil, wire.TypeClientKeyExchange, 1000, 2, i%1000, 0)
		case 1: // one byte, every second one
			h = append(wire.AppendHandshakeHeader(nil, wire.TypeClientKeyExchange, 1000, 2, 2*(i%499), 1), 1)
		case 2: // declared as long as can be
			h = append(wire.AppendHandshakeHeader(nil, wire.TypeClientKeyExchange, 1<<24-1, 2, i, 1), 1)
		}
		d.receive(from, c.Plain(wire.ContentHandshake, h))
	}
	if after := heap(); after > before+256<<10 {
		t.Errorf("the heap grew by %d bytes", after-before)
	}
	d.exchange(c, from, c.Flight())
	if !c.Complete {
		t.Error("the handshake does not complete any more")
	}
}
