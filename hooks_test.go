package dtlsserver

import (
	"context"
	"crypto/tls"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testcert"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// occupy takes all places of a lane until the channel is closed.
func (l *loop) occupy(lane *lane, until chan struct{}) {
	for n := range lane.most {
		l.bareSession(n).submitWorkLocked(lane, func(context.Context) func(time.Time) {
			<-until
			return func(time.Time) {}
		})
	}
}

// bareSession returns a session that is good only to ask one question for, or
// more one after the other.
func (l *loop) bareSession(n int) *Session {
	return &Session{loop: l, remote: clientAddr(n), standing: standing{settled: true}}
}

func (l *loop) waitingIn(lane *lane) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return lane.waiting.Len()
}

// laneBubble runs f with a server of ten handshakes at a time, that has a
// certificate, and with an open session.
func laneBubble(t *testing.T, f func(b *bubble, p *peer, s *Session)) {
	cert := testcert.NewAuthority().Issue("localhost", testcert.NewKey("P-256"))
	inBubble(t, func(s *Server) {
		s.Certificates = []tls.Certificate{cert}
		s.MaxHandshakes = 10
	}, func(b *bubble) {
		p := b.peer(1)
		p.establish()
		s, _ := b.server.SessionByAddr(p.pipe.addr, anyLocal)
		f(b, p, s)
		synctest.Wait()
		l := s.loop
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, lane := range []*lane{&l.hookLane, &l.workLane, &l.chainLane} {
			if lane.busy() || lane.waiting.Len() != 0 || len(lane.waiting.sources) != 0 {
				t.Errorf("left in a lane: %+v", lane)
			}
		}
	})
}

// greet makes the cookie exchange and sends the verified hello, for a suite.
func (p *peer) greet(suite uint16) {
	p.Suites = []uint16{suite}
	p.send(p.Hello())
	p.receive()
	p.send(p.Hello())
	p.receive()
}

// TestWorkDelaysNobody: while key pairs, signatures and secrets are computed, or
// wait for that, others are served, however many ask for them.
func TestWorkDelaysNobody(t *testing.T) {
	t.Parallel()
	laneBubble(t, func(b *bubble, open *peer, s *Session) {
		l := s.loop
		agrees := b.peer(2)
		agrees.greet(ecdheCert)
		computed := make(chan struct{})
		l.occupy(&l.workLane, computed)
		agrees.send(agrees.Flight())
		b.peer(3).establish()
		if agrees.receive() != 0 {
			t.Error("answered without a secret")
		}
		close(computed)
		if agrees.receive(); !agrees.Complete {
			t.Error("the one whose secret waited is not complete")
		}

		computed = make(chan struct{})
		l.occupy(&l.workLane, computed)
		var last *peer
		const waiting = 9 // and a place for one more
		for n := range waiting {
			last = b.peer(100 + n)
			last.greet([]uint16{0xd001, ecdheCert}[n%2])
			if last.HelloDone || len(last.Alerts) > 0 {
				t.Fatalf("peer %d: flight %v, alerts %v", n, last.HelloDone, last.Alerts)
			}
			b.peer(200 + n).establish()
			open.send(open.Sealed(wire.ContentApplicationData, []byte("hello")))
		}
		if len(b.rec.data) != waiting {
			t.Errorf("got %q", b.rec.data)
		}
		if n := l.waitingIn(&l.workLane); n != waiting {
			t.Errorf("%d wait", n)
		}
		close(computed)
		if last.receive(); !last.HelloDone {
			t.Fatal("the one that waited has no flight")
		}
		last.send(last.Flight())
		if last.receive(); !last.Complete {
			t.Error("the one that waited is not complete")
		}
		b.rec.want(t, KindHandshakeComplete, 3+waiting+1, "all that have gone on")
	})
}

// TestWorkOfTheGoneIsNotDone: a handshake that ends waits for nothing.
func TestWorkOfTheGoneIsNotDone(t *testing.T) {
	t.Parallel()
	laneBubble(t, func(b *bubble, open *peer, s *Session) {
		l := s.loop
		computed := make(chan struct{})
		defer close(computed)
		l.occupy(&l.workLane, computed)
		for n := range 5 {
			b.peer(100 + n).greet(ecdheCert)
		}
		if n := l.waitingIn(&l.workLane); n != 5 {
			t.Errorf("%d wait", n)
		}
		for i, handshake := range b.rec.of(KindHelloVerified)[1:] {
			handshake.Session.Close()
			if n := l.waitingIn(&l.workLane); n != 4-i {
				t.Errorf("%d wait", n)
			}
		}
	})
}

// TestHooksDelayNoWork: hooks that block do not hold up what only computes.
func TestHooksDelayNoWork(t *testing.T) {
	t.Parallel()
	laneBubble(t, func(b *bubble, open *peer, s *Session) {
		p := b.peer(2)
		p.greet(ecdheCert)
		answered := make(chan struct{})
		defer close(answered)
		s.loop.occupy(&s.loop.hookLane, answered)
		p.send(p.Flight())
		if p.receive(); !p.Complete {
			t.Error("not complete")
		}
	})
}

// TestLane: of questions that are asked together, those that block hold up no
// other while fewer than most of them do, and one that ends its goroutine none
// at all.
func TestLane(t *testing.T) {
	t.Parallel()
	for blocking, asked := range map[int]int{0: 40, 1: 40, 9: 40, 10: 10, 15: 10} {
		laneBubble(t, func(b *bubble, open *peer, s *Session) {
			l := s.loop
			lane, until := &l.hookLane, make(chan struct{})
			var begun, running, most atomic.Int32
			for n := range 40 {
				l.bareSession(n).submitWorkLocked(lane, func(context.Context) func(time.Time) {
					begun.Add(1)
					defer running.Add(-1)
					for now := running.Add(1); ; {
						if was := most.Load(); now <= was || most.CompareAndSwap(was, now) {
							break
						}
					}
					if n < blocking {
						<-until
					} else if n == 30 {
						runtime.Goexit()
					}
					return func(time.Time) {}
				})
			}
			synctest.Wait()
			if n := int(begun.Load()); n != asked {
				t.Errorf("%d of 40 block: %d were asked, want %d", blocking, n, asked)
			}
			close(until)
			synctest.Wait()
			if n := begun.Load(); n != 40 || most.Load() > int32(lane.most) {
				t.Errorf("%d of 40 block: %d were asked in the end, %d at a time", blocking, n, most.Load())
			}
		})
	}
}
