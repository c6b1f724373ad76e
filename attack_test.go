package dtlsserver

// Attacks on the server as a whole: replays and spoofing around handshakes,
// hooks that hang, sockets that misbehave, and everything at once.

import (
	"bytes"
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/engine"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/udpio"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

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

// order checks "opened, then datagrams, then closed" and that nothing follows
// KindStopped.
type order struct {
	NopHandler
	t       *testing.T
	mu      sync.Mutex // guards all following
	state   map[*Session]int
	stopped bool
}

func (o *order) Info(e Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stopped {
		o.t.Errorf("after Stopped: %v", e)
	}
	switch e.Kind {
	case KindHandshakeComplete:
		if o.state[e.Session] != 0 {
			o.t.Error("opened twice")
		}
		o.state[e.Session] = 1
	case KindSessionClosed:
		if o.state[e.Session] != 1 {
			o.t.Errorf("closed in state %d", o.state[e.Session])
		}
		o.state[e.Session] = 2
	case KindStopped:
		o.stopped = true
	}
}

func (o *order) DatagramReceived(s *Session, _, plainText []byte) {
	o.mu.Lock()
	if o.state[s] != 1 {
		o.t.Errorf("data in state %d", o.state[s])
	}
	o.mu.Unlock()
	s.Write(plainText)
	if string(plainText) == "bye" {
		go s.Close()
	}
}

// TestEverythingAtOnce: clients come, re-connect and go while other goroutines
// write to and close sessions and at last the server closes. The order of
// events holds, and every session that was opened is closed.
func TestEverythingAtOnce(t *testing.T) {
	t.Parallel()
	rounds := 20
	if testing.Short() {
		rounds = 3
	}
	for round := range rounds {
		n := newNetwork()
		o := &order{t: t, state: make(map[*Session]int)}
		s := &Server{PSK: testPSK, Handler: o}
		conn := n.listen(serverAddr)
		served := make(chan error, 1)
		go func() { served <- s.Serve(conn) }()
		for s.current() == nil {
			runtime.Gosched()
		}
		stop := make(chan struct{})
		var clients, meddlers sync.WaitGroup
		for i := range 4 {
			clients.Go(func() {
				p := n.dial(clientAddr(i), serverAddr)
				defer p.Close()
				for k := range 20 {
					handshakeInHaste(p, uint64(round*1000+i*100+k))
				}
			})
		}
		for range 2 {
			meddlers.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					for session := range s.Sessions() {
						session.Write([]byte("push"))
						session.Stats()
						if rand.IntN(8) == 0 {
							session.Close()
						}
					}
					s.Stats()
					runtime.Gosched()
				}
			})
		}
		if round%3 > 0 {
			clients.Wait()
		}
		if round%2 == 0 {
			s.Close()
		} else {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
			s.Shutdown(ctx)
			cancel()
		}
		if err := <-served; err != ErrServerClosed {
			t.Error(err)
		}
		close(stop)
		clients.Wait()
		meddlers.Wait()
		for session, state := range o.state {
			if state != 2 {
				t.Errorf("round %d: the session of %v is in state %d at the end", round, session, state)
			}
		}
	}
}

// handshakeInHaste tries a handshake and some data, and gives up when no
// answer comes soon.
func handshakeInHaste(p *pipe, seed uint64) {
	c := testpeer.New(testIdentity, []byte(testKey), seed)
	ask := func(b []byte, answered func() bool) bool {
		p.Write(b)
		for !answered() {
			select {
			case d := <-p.in:
				_ = c.Receive(d.b) // may be for the handshake before
			case <-time.After(5 * time.Millisecond):
				return false
			}
		}
		return true
	}
	if !ask(c.Hello(), func() bool { return c.Cookie != nil }) ||
		!ask(c.Hello(), func() bool { return c.HelloDone }) ||
		!ask(c.Flight(), func() bool { return c.Complete }) {
		return
	}
	for range 5 {
		p.Write(c.Sealed(wire.ContentApplicationData, []byte("hello")))
	}
	p.Write(c.Sealed(wire.ContentApplicationData, []byte("bye")))
}

// mutate damages a datagram in one of the ways that parsers trip over.
func mutate(b []byte, r *rand.Rand) []byte {
	b = bytes.Clone(b)
	for range 1 + r.IntN(3) {
		if len(b) == 0 {
			return b
		}
		at := r.IntN(len(b))
		switch r.IntN(5) {
		case 0:
			b[at] ^= 1 << r.IntN(8)
		case 1:
			b[at] = byte(r.Uint32())
		case 2:
			b = b[:at]
		case 3:
			b = append(b, b[at:]...)
		case 4:
			b = append(b[:at:at], append(make([]byte, r.IntN(40)), b[at:]...)...)
		}
	}
	if n := len(b) - wire.RecordHeaderLen; n > 0 && r.IntN(2) == 0 {
		b[11], b[12] = byte(n>>8), byte(n)
	}
	return b
}

// FuzzServer runs handshakes of two addresses with damaged, doubled and
// replayed datagrams between theirs, as a seed chooses them. The order of events
// holds, and in the end nothing is left.
func FuzzServer(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		o := &order{t: t, state: make(map[*Session]int)}
		s := &Server{
			PSK: testPSK, Handler: o,
			MTU: []int{0, engine.MinMTU, 256}[r.IntN(3)], MaxHandshakes: 1 + r.IntN(3), MaxSessions: 1 + r.IntN(3),
			PSKIdentityHint: string(make([]byte, r.IntN(2)*r.IntN(1000))),
		}
		cfg, err := s.config()
		if err != nil {
			t.Fatal(err)
		}
		n := newNetwork()
		l, err := s.adopt(cfg, n.listen(serverAddr), endpoint{})
		if err != nil {
			t.Fatal(err)
		}
		ends := []*pipe{n.dial(clientAddr(0), serverAddr), n.dial(clientAddr(1), serverAddr)}
		now := time.Unix(1_700_000_000, 0)
		var seen [][]byte
		give := func(c *testpeer.Client, p *pipe, b []byte) {
			seen = append(seen, b)
			for _, d := range [][]byte{b, mutate(seen[r.IntN(len(seen))], r), mutate(seen[r.IntN(len(seen))], r)} {
				l.receive(now, &udpio.Message{Buf: bytes.Clone(d), N: len(d), Remote: p.addr})
				l.hooks.Wait()
				l.housekeep(now)
				for len(p.in) > 0 {
					_ = c.Receive((<-p.in).b)
				}
			}
			now = now.Add(time.Duration(r.IntN(2)*r.IntN(3000)) * time.Millisecond)
		}
		for range 1 + r.IntN(4) {
			p := ends[r.IntN(2)]
			c := testpeer.New(testIdentity, []byte(testKey), r.Uint64())
			c.Suites, c.NoEMS = []uint16{DefaultCipherSuites()[r.IntN(7)]}, r.IntN(2) == 0
			c.Seq, c.MessageSeq = uint64(r.Int64N(2)*r.Int64N(1<<40)), uint16(r.IntN(2)*r.IntN(1<<15))
			give(c, p, c.Hello())
			give(c, p, c.Hello())
			if !c.HelloDone || c.ServerHello == nil { // or it was a flight for another
				continue
			}
			cke, ccs, finished := c.KeyExchange()
			for _, b := range [][]byte{cke, ccs, finished} {
				give(c, p, b)
			}
			for range r.IntN(6) {
				content := make([]byte, r.IntN(40))
				for i := range content {
					content[i] = byte(r.IntN(5) * r.IntN(60))
				}
				give(c, p, c.Sealed(wire.ContentType(20+r.IntN(5)), content))
			}
		}
		_ = l.stop(ErrServerClosed)
		l.hooks.Wait()
		_ = l.finish(ErrServerClosed)
		if left := l.left(); left != "" {
			t.Errorf("left: %s", left)
		}
		for _, state := range o.state {
			if state != 2 {
				t.Errorf("a session is in state %d at the end", state)
			}
		}
	})
}
