package dtlsserver

import (
	"net/netip"
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
				if d := b.server.Stats().Dropped; d.Closed != closed || d.UnexpectedDatagrams != junk {
					t.Errorf("closed %s: %d and %d datagrams were dropped as closed and as junk, want %d and %d", tt.name, d.Closed, d.UnexpectedDatagrams, closed, junk)
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
	c.put(path{remote: clientAddr(1)}, time.Second)
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
		c.put(path{remote: clientAddr(n)}, time.Second)
	}
	for n := range many {
		if !c.has(clientAddr(n), netip.Addr{}, time.Second) {
			t.Errorf("of %d, number %d is forgotten", many, n)
		}
	}
}
