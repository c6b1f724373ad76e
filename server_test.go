package dtlsserver

// The server as a whole: one session from the first hello to the end, with what
// the handler is told of it; many at once; and handshakes among damaged datagrams.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/engine"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/udpio"
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
