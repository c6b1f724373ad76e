package dtlsserver

import (
	"bytes"
	"context"
	"errors"
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
