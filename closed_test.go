package dtlsserver

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// TestAnswersToCloseAreNoJunk: what a client sends when its session has been
// closed counts as that, without a warning, and as junk when it is late.
func TestAnswersToCloseAreNoJunk(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		end  func(b *bubble, p *peer)
	}{
		{"by the server", func(b *bubble, p *peer) {
			s, _ := b.server.SessionByAddr(p.pipe.addr, anyLocal)
			s.Close()
		}},
		{"by the client", func(_ *bubble, p *peer) { p.send(p.Sealed(wire.ContentAlert, []byte{1, 0})) }},
		{"for being idle", func(*bubble, *peer) { time.Sleep(DefaultIdleTimeout) }},
	} {
		inBubble(t, nil, func(b *bubble) {
			p := b.peer(1)
			p.establish()
			tt.end(b, p)
			synctest.Wait()
			b.rec.want(t, KindSessionClosed, 1, tt.name)
			answer := p.Sealed(wire.ContentAlert, []byte{1, 0})
			wantDropped := func(closed, junk uint64) {
				t.Helper()
				if d := b.server.Stats().Dropped; d.Closed != closed || d.Junk != junk {
					t.Errorf("closed %s: %d and %d datagrams were dropped as closed and as junk, want %d and %d", tt.name, d.Closed, d.Junk, closed, junk)
				}
			}
			p.send(answer)
			b.peer(2).send(answer) // a stranger
			wantDropped(1, 1)
			b.rec.want(t, KindUnexpectedDatagram, 1, tt.name)
			time.Sleep(closedFor)
			p.send(answer)
			wantDropped(1, 2)
		})
	}
}

// TestClosedSessions: what is remembered of a session, and for how long.
func TestClosedSessions(t *testing.T) {
	t.Parallel()
	var c closedSessions
	s := &Session{remote: clientAddr(1)}
	c.put(s, time.Second)
	for _, tt := range []struct {
		after time.Duration
		want  bool
	}{{0, true}, {closedFor - 1, true}, {closedFor, false}} {
		if got := c.has(clientAddr(1), netip.Addr{}, time.Second+tt.after); got != tt.want {
			t.Errorf("after %v: %v", tt.after, got)
		}
	}
	if c.has(clientAddr(2), netip.Addr{}, time.Second) || c.has(clientAddr(1), local(1).Addr(), time.Second) {
		t.Error("another address is taken for it")
	}
	const many = 200 // at once
	for n := range many {
		c.put(&Session{remote: clientAddr(n)}, time.Second)
	}
	for n := range many {
		if !c.has(clientAddr(n), netip.Addr{}, time.Second) {
			t.Errorf("of %d, number %d is forgotten", many, n)
		}
	}
}

// troubledConn is an end whose first reads fail.
type troubledConn struct {
	*end
	err  error
	left atomic.Int32
}

func (c *troubledConn) ReadFrom(b []byte) (int, net.Addr, error) {
	if c.left.Add(-1) >= 0 {
		return 0, nil, &net.OpError{Op: "read", Net: "udp", Err: os.NewSyscallError("recvfrom", c.err)}
	}
	return c.end.ReadFrom(b)
}

// TestReadErrorsOfPeers: reads that fail for what happened to datagrams on their
// way to peers, however many in a row, end nothing.
func TestReadErrorsOfPeers(t *testing.T) {
	t.Parallel()
	for _, errno := range []syscall.Errno{syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EHOSTUNREACH, syscall.ENETUNREACH} {
		synctest.Test(t, func(t *testing.T) {
			n, rec := newNetwork(), &recorder{}
			conn := &troubledConn{end: n.listen(serverAddr), err: errno}
			conn.left.Store(20 * maxReadFailures)
			s := &Server{PSK: testPSK, Handler: rec}
			served := make(chan error)
			go func() { served <- s.Serve(conn) }()
			time.Sleep(time.Second)
			b := &bubble{t: t, network: n, server: s, rec: rec}
			b.peer(1).establish()
			if e := rec.want(t, KindReadFailed, 20*maxReadFailures, "all together"); !errors.Is(e.Err, errno) {
				t.Errorf("%v", e)
			}
			s.Close()
			if err := <-served; err != ErrServerClosed {
				t.Errorf("%v: Serve: %v", errno, err)
			}
		})
	}
}
