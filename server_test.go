package dtlsserver

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// TestLife follows one session through its events, in order.
func TestLife(t *testing.T) {
	t.Parallel()
	inBubble(t, func(s *Server) {
		s.PSKIdentityHint = "a hint"
		s.Handler.(*recorder).then.OnDatagramReceived = func(s *Session, _, plainText []byte) {
			fmt.Fprintf(s, "to %v: %s", s, plainText)
		}
	}, func(b *bubble) {
		p := b.peer(1)
		p.establish()
		if string(p.Hint) != "a hint" {
			t.Errorf("hint %q", p.Hint)
		}
		p.send(p.Sealed(wire.ContentApplicationData, []byte("hello")))
		p.receive()
		if want := fmt.Sprintf("to %v: hello", p.pipe.addr); len(p.Data) != 1 || string(p.Data[0]) != want {
			t.Errorf("client got %q, want %q", p.Data, want)
		}
		s, ok := b.server.SessionByAddr(p.pipe.addr, anyLocal)
		if !ok || s.RemoteAddr() != p.pipe.addr || s.LocalAddr() != serverAddr {
			t.Fatalf("Session: %v %v", s, ok)
		}
		state := s.ConnectionState()
		if CipherSuiteName(state.CipherSuite) != "TLS_PSK_WITH_AES_128_GCM_SHA256" || state.PSKIdentity != testIdentity || !state.HandshakeComplete || !state.ExtendedMasterSecret || state.Version != VersionDTLS12 {
			t.Errorf("ConnectionState %+v", state)
		}
		ctx := s.Context()
		p.send(p.Sealed(wire.ContentAlert, []byte{1, 0}))
		p.receive()
		if len(p.Alerts) != 1 || p.Alerts[0].Description != wire.AlertCloseNotify {
			t.Errorf("close_notify was answered with %v", p.Alerts)
		}
		if ctx.Err() == nil || context.Cause(ctx) != ErrPeerClosed {
			t.Errorf("the session's context: %v, cause %v", ctx.Err(), context.Cause(ctx))
		}
		if _, err := s.Write([]byte("late")); err != ErrSessionClosed || !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write after close_notify: %v", err)
		}
		if _, ok := b.server.SessionByAddr(p.pipe.addr, anyLocal); ok {
			t.Error("the session is still found")
		}
		b.server.Close()
		synctest.Wait()
		want := []string{"Listening", "HelloVerifyRequestSent", "HelloVerified", "PSKRequested", "HandshakeComplete", "data", "SessionClosed", "Stopped"}
		if !slices.Equal(b.rec.log, want) {
			t.Errorf("events %v\nwant   %v", b.rec.log, want)
		}
		if e := b.rec.want(t, KindSessionClosed, 1, "in the end"); e.Err != ErrPeerClosed || e.Session != s || e.Identity != testIdentity {
			t.Errorf("SessionClosed: %+v", e)
		}
		stats := b.server.Stats()
		if stats.Sessions != 0 || stats.Handshakes != 0 || stats.HandshakesCompleted != 1 || stats.SessionsClosed != 1 || stats.MessagesReceived != 1 || stats.MessagesSent != 1 || stats.Dropped != (Drops{}) {
			t.Errorf("Stats %+v", stats)
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

// TestLossOfEachDatagram drops, doubles and delays each single datagram of the
// handshake with pion's client, in turn. All complete, a loss costing what the
// retransmission of RFC 6347 section 4.2.4.1 takes, and data flows after.
func TestLossOfEachDatagram(t *testing.T) {
	t.Parallel()
	const datagrams = 6 // hello, HelloVerifyRequest, hello, flights 4, 5 and 6
	fates := []struct {
		name string
		fate []time.Duration
		want time.Duration // at the most
	}{
		{"dropped", nil, time.Second},
		{"doubled", []time.Duration{0, 0}, 0},
		{"doubled later", []time.Duration{0, 300 * time.Millisecond}, 0},
		{"delayed", []time.Duration{300 * time.Millisecond}, 300 * time.Millisecond},
		{"delayed past a retransmission", []time.Duration{1500 * time.Millisecond}, 1500 * time.Millisecond},
	}
	for _, fate := range fates {
		for which := range datagrams {
			t.Run(fmt.Sprintf("%s/%d", fate.name, which), func(t *testing.T) {
				t.Parallel()
				inBubble(t, nil, func(b *bubble) {
					n := -1
					b.network.carry = func(netip.AddrPort, netip.AddrPort, []byte) []time.Duration {
						if n++; n == which {
							return fate.fate
						}
						return []time.Duration{0}
					}
					start := time.Now()
					c, err := dialPion(t, b.network.dial(clientAddr(1), serverAddr), pionConfig(testIdentity, testKey), time.Minute)
					if err != nil {
						t.Fatalf("pion: %v; server: %v", err, b.rec.lines())
					}
					defer c.Close()
					if took := time.Since(start); took > fate.want {
						t.Errorf("took %v, want at most %v", took, fate.want)
					}
					c.Write([]byte("after it"))
					time.Sleep(3 * time.Second) // virtual: what is still under way arrives
					synctest.Wait()
					if b.rec.want(t, KindHandshakeComplete, 1, "with one session"); len(b.rec.data) != 1 {
						t.Errorf("data %q", b.rec.data)
					}
				})
			})
		}
	}
}

// TestReorderedFlight5 delays each of the client's last three records past the
// others.
func TestReorderedFlight5(t *testing.T) {
	t.Parallel()
	for _, order := range [][3]int{{0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			t.Parallel()
			inBubble(t, nil, func(b *bubble) {
				p := b.peer(1)
				p.verify()
				var records [3][]byte
				records[0], records[1], records[2] = p.KeyExchange()
				p.send(records[order[0]], records[order[1]], records[order[2]])
				if p.receive(); !p.Complete {
					t.Error("not complete")
				}
			})
		})
	}
}

// TestRetransmissionTimes: a client that is silent after its hello gets the
// first flight again after RetransmitTimeout, and then after twice the time
// before, up to a minute, until HandshakeTimeout.
func TestRetransmissionTimes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		first, giveUp time.Duration
		want          []time.Duration
	}{
		{0, 0, []time.Duration{1250 * time.Millisecond, 3750 * time.Millisecond, 8750 * time.Millisecond, 18750 * time.Millisecond}},
		{time.Second, 0, []time.Duration{time.Second, 3 * time.Second, 7 * time.Second, 15 * time.Second}},
		{9 * time.Second, 0, []time.Duration{9 * time.Second, 27 * time.Second}},
		{50 * time.Millisecond, 400 * time.Millisecond, []time.Duration{50 * time.Millisecond, 150 * time.Millisecond, 350 * time.Millisecond}},
		{25 * time.Second, 200 * time.Second, []time.Duration{25 * time.Second, 75 * time.Second, 135 * time.Second, 195 * time.Second}},
		{0, time.Second, nil},
	}
	for _, tt := range tests {
		inBubble(t, func(s *Server) { s.RetransmitTimeout, s.HandshakeTimeout = tt.first, tt.giveUp }, func(b *bubble) {
			p := b.peer(1)
			p.verify()
			start := time.Now()
			giveUp := cmp.Or(tt.giveUp, DefaultHandshakeTimeout)
			var at []time.Duration
			for time.Since(start) < giveUp+time.Second {
				time.Sleep(50 * time.Millisecond) // virtual
				if p.receive() > 0 {
					at = append(at, time.Since(start))
				}
			}
			if !slices.Equal(at, tt.want) {
				t.Errorf("RetransmitTimeout %v: retransmitted after %v, want %v", tt.first, at, tt.want)
			}
			e := b.rec.want(t, KindHandshakeFailed, 1, "in the end")
			if e.Err != ErrHandshakeTimeout || e.Time.Sub(start) != giveUp {
				t.Errorf("given up after %v: %v", e.Time.Sub(start), e.Err)
			}
			if stats := b.server.Stats(); stats.Handshakes != 0 {
				t.Errorf("%d handshakes left", stats.Handshakes)
			}
		})
	}
}

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
