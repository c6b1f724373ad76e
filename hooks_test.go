package dtlsserver

// What is done off the loop: hooks, which may block, and public key
// cryptography. Neither holds up anybody else.

import (
	"context"
	"crypto"
	"crypto/tls"
	"io"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testcert"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
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

// TestBlockedPSKHook: one client's hook blocks for 10 s; the others do not
// notice, and its own handshake completes after it.
func TestBlockedPSKHook(t *testing.T) {
	t.Parallel()
	inBubble(t, func(s *Server) {
		s.PSK = func(ctx context.Context, req PSKRequest) (PSK, error) {
			if req.Remote == clientAddr(1) {
				time.Sleep(10 * time.Second)
			}
			return testPSK(ctx, req)
		}
	}, func(b *bubble) {
		start := time.Now()
		slow := b.peer(1)
		slow.verify()
		slow.send(slow.Flight())
		for n := 2; n < 50; n++ {
			b.peer(n).establish()
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("the others took %v", took)
		}
		if slow.receive(); slow.Complete {
			t.Error("complete without the key")
		}
		time.Sleep(10 * time.Second)
		if n := slow.receive(); n != 1 || !slow.Complete {
			t.Errorf("after 10 s: %d datagrams, complete %v", n, slow.Complete)
		}
	})
}

// TestSlowSigner: a key that takes its time to sign delays nobody else.
func TestSlowSigner(t *testing.T) {
	t.Parallel()
	ca := testcert.NewAuthority()
	cert := ca.Issue("localhost", testcert.NewKey("P-256"))
	cert.PrivateKey = slowSigner{cert.PrivateKey.(crypto.Signer)}
	inBubble(t, func(s *Server) { s.Certificates = []tls.Certificate{cert} }, func(b *bubble) {
		p := b.peer(1)
		p.Suites = []uint16{ecdheCert}
		p.send(p.Hello())
		p.receive()
		p.send(p.Hello())
		start := time.Now()
		for n := range 20 {
			b.peer(10 + n).establish()
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("the others took %v", took)
		}
		if p.receive() != 0 {
			t.Error("half a flight was sent")
		}
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if p.receive(); !p.HelloDone {
			t.Fatal("no flight")
		}
		p.send(p.Flight())
		if p.receive(); !p.Complete {
			t.Error("not complete")
		}
	})
}

type slowSigner struct{ crypto.Signer }

func (s slowSigner) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	time.Sleep(4 * time.Second)
	return s.Signer.Sign(r, digest, o)
}

// TestHooksAreBounded: no more hooks run than MaxHandshakes allows, whatever
// has become of their handshakes, and all is well once they return.
func TestHooksAreBounded(t *testing.T) {
	t.Parallel()
	var running, most atomic.Int64
	var release chan struct{}
	inBubble(t, func(s *Server) {
		release = make(chan struct{})
		s.MaxHandshakes = 3
		s.PSK = PSKFromCallback(func([]byte) ([]byte, error) {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			<-release
			return []byte(testKey), nil
		})
	}, func(b *bubble) {
		for n := range 3 {
			p := b.peer(n)
			p.verify()
			p.send(p.Flight())
		}
		late := b.peer(9)
		for _, p := range []*peer{b.peer(10), b.peer(11), late} {
			p.send(p.Hello())
			p.receive()
			p.send(p.Hello())
			p.receive()
		}
		if most.Load() != 3 || late.HelloDone {
			t.Errorf("%d hooks at a time; another handshake began: %v", most.Load(), late.HelloDone)
		}
		if d := b.server.Stats().Dropped; d.Refused != 3 {
			t.Errorf("%d hellos refused", d.Refused)
		}
		time.Sleep(time.Minute) // the handshakes are given up, their hooks still hang
		late.send(late.Hello())
		if late.receive(); late.HelloDone || most.Load() != 3 {
			t.Errorf("with hooks hanging: %d at a time, another handshake %v", most.Load(), late.HelloDone)
		}
		close(release)
		b.peer(20).establish()
	})
}

// TestHookQuestionsWait: handshakes that were admitted while hooks were free
// wait for one; those that end meanwhile ask nobody.
func TestHookQuestionsWait(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex // guards asked
	var asked []netip.AddrPort
	wantAsked := func(why string, want ...netip.AddrPort) {
		t.Helper()
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if !slices.Equal(asked, want) {
			t.Errorf("%s: asked for %v, want %v", why, asked, want)
		}
	}
	inBubble(t, func(s *Server) {
		s.MaxHandshakes = 2
		s.PSK = func(ctx context.Context, req PSKRequest) (PSK, error) {
			mu.Lock()
			asked = append(asked, req.Remote)
			mu.Unlock()
			time.Sleep(3 * time.Second)
			return testPSK(ctx, req)
		}
	}, func(b *bubble) {
		first, second, third := b.peer(1), b.peer(2), b.peer(3)
		first.verify()
		first.send(first.Flight())
		second.verify()
		second.send(second.Flight())
		b.rec.of(KindHelloVerified)[0].Session.Close() // its hook runs on
		third.verify()
		third.send(third.Flight()) // must wait
		wantAsked("at first", first.pipe.addr, second.pipe.addr)
		b.rec.of(KindHelloVerified)[1].Session.Close()
		gone := b.peer(4)
		gone.verify()
		gone.send(gone.Flight())
		b.rec.of(KindHelloVerified)[3].Session.Close() // asks nobody
		time.Sleep(3 * time.Second)
		wantAsked("when hooks have returned", first.pipe.addr, second.pipe.addr, third.pipe.addr)
		time.Sleep(3 * time.Second)
		if third.receive(); !third.Complete {
			t.Error("the one that waited is not complete")
		}
	})
}

// TestOneSourceFillsNoHooks: whoever makes hooks slow keeps out its own source.
func TestOneSourceFillsNoHooks(t *testing.T) {
	t.Parallel()
	const perSource = 5
	edit := func(s *Server) {
		s.MaxHandshakes, s.MaxHandshakesPerSource = 50, perSource
		s.PSK = func(_ context.Context, req PSKRequest) (PSK, error) {
			if req.Identity == "slow" {
				time.Sleep(time.Minute)
			}
			return PSK{Key: []byte(testKey)}, nil
		}
	}
	inBubble(t, edit, func(b *bubble) {
		asked := 0
		from := func(n int) *peer {
			addr := netip.AddrPortFrom(clientAddr(1).Addr(), uint16(6000+n))
			return &peer{testpeer.New("slow", []byte(testKey), uint64(n)), t, b.network.dial(addr, serverAddr)}
		}
		for n := range 60 {
			p := from(n)
			p.send(p.Hello())
			p.receive()
			p.send(p.Hello())
			if p.receive(); p.HelloDone {
				p.send(p.Flight())
				asked++
			}
		}
		if asked != perSource {
			t.Errorf("%d hooks for one source, want %d", asked, perSource)
		}
		b.peer(99).establish()
		time.Sleep(2 * time.Minute)
		if p := from(99); true {
			p.send(p.Hello())
			p.receive()
			p.send(p.Hello())
			if p.receive(); !p.HelloDone {
				t.Error("the source is still refused when its hooks have ended")
			}
		}
	})
}

// TestHookThatExits: a hook that ends its goroutine, as a test does by FailNow,
// costs its handshake and nobody else's.
func TestHookThatExits(t *testing.T) {
	t.Parallel()
	edit := func(s *Server) {
		s.MaxHandshakes = 4
		s.PSK = func(_ context.Context, req PSKRequest) (PSK, error) {
			if req.Identity == "exit" {
				runtime.Goexit()
			}
			return PSK{Key: []byte(testKey)}, nil
		}
	}
	inBubble(t, edit, func(b *bubble) {
		for n := range 3 {
			p := b.peer(n)
			p.Identity = "exit"
			p.verify()
			p.send(p.Flight())
		}
		b.peer(9).establish()
	})
}

// TestHookContextEnds with the hook.
func TestHookContextEnds(t *testing.T) {
	t.Parallel()
	var hook context.Context
	d := newDirect(t, func(s *Server) {
		s.PSK = func(ctx context.Context, req PSKRequest) (PSK, error) {
			if hook = ctx; ctx.Err() != nil {
				t.Errorf("the context is over before the hook: %v", ctx.Err())
			}
			return testPSK(ctx, req)
		}
	})
	d.establish(testpeer.New(testIdentity, []byte(testKey), 1), clientAddr(1))
	if hook.Err() == nil {
		t.Error("the context is good after the hook")
	}
}

// TestCertificateContext: the context of GetCertificate ends with the server.
func TestCertificateContext(t *testing.T) {
	t.Parallel()
	var cause error
	inBubble(t, func(s *Server) {
		s.GetCertificate = func(hello *ClientHelloInfo) (*tls.Certificate, error) {
			<-hello.Context().Done()
			cause = context.Cause(hello.Context())
			return nil, cause
		}
	}, func(b *bubble) {
		b.peer(1).greet(ecdheCert)
		b.server.Close()
		synctest.Wait()
		if cause != ErrServerClosed {
			t.Errorf("its cause is %v", cause)
		}
	})
}
