package dtlsserver

// Listen, Serve, Close and Shutdown, over sockets of the system where it
// matters and else in memory.

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// TestWildcard: on a wildcard socket each client is answered from the address
// that it wrote to. Its socket is connected, so it would not see another.
func TestWildcard(t *testing.T) {
	t.Parallel()
	tests := []struct {
		network, address string
		clients          [][2]string // local address, the server's
	}{
		{"udp4", ":0", [][2]string{{"127.0.0.1", "127.0.0.1"}, {"127.0.0.1", "127.0.0.2"}, {"127.0.0.3", "127.0.0.2"}}},
		{"udp", ":0", [][2]string{{"127.0.0.1", "127.0.0.1"}, {"127.0.0.1", "127.0.0.2"}, {"::1", "::1"}}},
		{"udp6", ":0", [][2]string{{"::1", "::1"}}},
		{"udp", "127.0.0.1:0", [][2]string{{"127.0.0.1", "127.0.0.1"}}},
		{"udp", "[::1]:0", [][2]string{{"::1", "::1"}}},
	}
	for _, tt := range tests {
		t.Run(tt.network+" "+tt.address, func(t *testing.T) {
			t.Parallel()
			if runtime.GOOS != "linux" && len(tt.clients) > 1 {
				t.Skip("packet info and 127.0.0.2 are there on Linux only")
			}
			if tt.network != "udp4" && !hasIPv6() {
				t.Skip("no IPv6 here")
			}
			w := newWaiter()
			w.then.OnDatagramReceived = echo
			s := listen(t, tt.network, tt.address, w)
			for _, c := range tt.clients {
				to := netip.AddrPortFrom(netip.MustParseAddr(c[1]), s.Addr().Port())
				wantEcho(t, dialUDP(t, c[0], to), "from "+c[0]+" to "+c[1])
			}
			var locals []string
			for session := range s.Sessions() {
				locals = append(locals, session.LocalAddr().Addr().String())
				if session.RemoteAddr().Addr().Is4In6() {
					t.Errorf("%v is mapped", session.RemoteAddr())
				}
			}
			var want []string
			for _, c := range tt.clients {
				want = append(want, c[1])
			}
			slices.Sort(locals)
			if slices.Sort(want); !slices.Equal(locals, want) {
				t.Errorf("local addresses %v, want %v", locals, want)
			}
		})
	}
}

// TestTwoLocalAddresses: one client socket, two addresses of the server, two
// sessions.
func TestTwoLocalAddresses(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("packet info is there on Linux only")
	}
	s := &Server{PSK: testPSK, Handler: newWaiter()}
	l := newTestLoop(t, s)
	remote := netip.MustParseAddrPort("127.0.0.1:5000")
	var all []*Session
	for _, local := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"} {
		session := &Session{loop: l, remote: remote, local: netip.AddrPortFrom(netip.MustParseAddr(local), 1)}
		if _, _, err := l.add(session, nil); err != nil {
			t.Fatal(err)
		}
		l.promote(session, PSKIdentity(testIdentity))
		all = append(all, session)
	}
	for _, session := range all {
		if l.known(remote, session.local.Addr()) != session {
			t.Errorf("%v is not found", session.local)
		}
	}
	for i, session := range []*Session{all[1], all[2], all[0]} {
		l.remove(session, Event{Kind: KindSessionClosed})
		if l.known(remote, session.local.Addr()) != nil {
			t.Errorf("%v is still found", session.local)
		}
		if left := len(l.sessions(withHandshakes)); left != 2-i {
			t.Errorf("%d left, want %d", left, 2-i)
		}
	}
	if left := l.left(); left != "" {
		t.Errorf("left: %s", left)
	}
}

// TestListenAgain: on the same address nothing happens, on another the
// sessions are closed and the socket moves, and errors leave everything as it
// was.
func TestListenAgain(t *testing.T) {
	t.Parallel()
	w := newWaiter()
	w.then.OnDatagramReceived = echo
	s := listen(t, "udp", "127.0.0.1:0", w)
	first := s.Addr()
	w.wait(t, KindListening)
	c := dialUDP(t, "127.0.0.1", first)
	wantEcho(t, c, "one")

	for _, same := range []string{first.String(), fmt.Sprintf("localhost:%d", first.Port())} {
		if err := s.Listen("udp4", same); err != nil {
			t.Fatal(err)
		}
	}
	wantEcho(t, c, "two")

	for _, bad := range []struct{ network, address, want string }{
		{"tcp", first.String(), `dtlsserver: listen: network "tcp" is not udp, udp4 or udp6`},
		{"udp", "127.0.0.1:notaport", `dtlsserver: listen udp "127.0.0.1:notaport": lookup udp/notaport: unknown port`},
		{"udp4", "nonsense", `dtlsserver: listen udp4 "nonsense": missing port in address`},
		{"udp6", "127.0.0.1:1", `dtlsserver: listen udp6 "127.0.0.1:1": no suitable address found`},
	} {
		if err := s.Listen(bad.network, bad.address); err == nil || err.Error() != bad.want {
			t.Errorf("%v, want %s", err, bad.want)
		}
	}
	if _, ok := errors.AsType[*net.AddrError](s.Listen("udp", "nonsense")); !ok {
		t.Error("a wrong address is no net.AddrError")
	}
	wantEcho(t, c, "three")

	if err := s.Listen("udp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if s.Addr() == first || !s.IsListening() {
		t.Errorf("listening on %v", s.Addr())
	}
	if e := w.wait(t, KindSessionClosed); e.Err != ErrServerClosed {
		t.Errorf("%v", e)
	}
	if _, err := c.Read(make([]byte, 10)); err == nil {
		t.Error("the client reads on")
	}
	wantEcho(t, dialUDP(t, "127.0.0.1", s.Addr()), "four")

	s.Close()
	s.Close()
	if s.IsListening() {
		t.Error("listening after Close")
	}
	if err := s.Listen("udp", first.String()); err != nil {
		t.Fatalf("Listen after Close: %v", err)
	}
	wantEcho(t, dialUDP(t, "127.0.0.1", first), "five")
}

// TestListenFails: a bind that fails is returned and told once, and the server
// is not listening.
func TestListenFails(t *testing.T) {
	t.Parallel()
	taken := listen(t, "udp", "127.0.0.1:0", newWaiter())
	w := newWaiter()
	s := listen(t, "udp", "127.0.0.1:0", w)
	err := s.Listen("udp", taken.Addr().String())
	if err == nil {
		t.Fatal("two servers on one port")
	}
	if s.IsListening() || s.Addr().IsValid() {
		t.Error("listening after a failed bind")
	}
	if e := w.wait(t, KindListenFailed); !errors.Is(e.Err, err) || e.Local != taken.Addr() {
		t.Errorf("told %+v", e)
	}
	if n := len(w.of(KindListenFailed)); n != 1 {
		t.Errorf("told %d times", n)
	}
	if err := s.Listen("udp", "127.0.0.1:0"); err != nil {
		t.Errorf("Listen after a failed one: %v", err)
	}
}

// TestConfigErrors: all that is wrong is said at once, by field, and a running
// server goes on.
func TestConfigErrors(t *testing.T) {
	t.Parallel()
	s := &Server{
		PSKIdentityHint: strings.Repeat("h", 2000), MaxPSKIdentityLen: -1, MaxSessionAge: -1, Verifier: &Verifier{},
		CipherSuites: []uint16{0x00a8, 0xc027, 0x000a}, HandshakeTimeout: -1, RetransmitTimeout: -1, IdleTimeout: -1,
		MaxSessions: -1, MaxHandshakes: -1, MTU: 100, ReadBuffer: -1, WriteBuffer: -1,
	}
	err := s.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		t.Fatal("no error")
	}
	for _, field := range []string{
		"Server has no credentials: set PSK", "PSKIdentityHint", "MaxPSKIdentityLen", "MaxSessionAge is negative", "Verifier", "CipherSuites has 0xc027", "CipherSuites has 0x000a",
		"HandshakeTimeout", "RetransmitTimeout", "IdleTimeout", "MaxSessions", "MaxHandshakes", "MTU", "ReadBuffer", "WriteBuffer", `network "tcp"`,
	} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("the error does not name %s", field)
		}
	}
	for line := range strings.Lines(err.Error()) {
		if !strings.HasPrefix(line, "dtlsserver: ") {
			t.Errorf("line %q", line)
		}
	}
	if s.IsListening() {
		t.Error("listening")
	}
	if err := (&Server{}).Serve(nil); err == nil || err.Error() != "dtlsserver: Server has no credentials: set PSK, Certificates or GetCertificate" {
		t.Errorf("Serve without credentials: %v", err)
	}
	for _, mtu := range []int{127, 65508, -1} {
		if err := (&Server{PSK: testPSK, MTU: mtu}).Listen("udp", "127.0.0.1:0"); err == nil {
			t.Errorf("MTU %d", mtu)
		}
	}
	for _, s := range []*Server{
		{RetransmitTimeout: 999 * time.Microsecond},
		{RetransmitTimeout: time.Minute + 1, HandshakeTimeout: time.Hour},
		{RetransmitTimeout: DefaultHandshakeTimeout},
		{RetransmitTimeout: time.Second, HandshakeTimeout: time.Second},
	} {
		s.PSK = testPSK
		if err := s.Listen("udp", "127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), "dtlsserver: Server.RetransmitTimeout is ") {
			t.Errorf("RetransmitTimeout %v with HandshakeTimeout %v: %v", s.RetransmitTimeout, s.HandshakeTimeout, err)
		}
	}
	if err := (&Server{PSK: testPSK, CipherSuites: []uint16{}}).Listen("udp", "127.0.0.1:0"); err == nil {
		t.Error("no cipher suites")
	}

	running := listen(t, "udp", "127.0.0.1:0", newWaiter())
	running.MTU = 1 // against the rules, but it must not hurt
	if err := running.Listen("udp", "127.0.0.1:0"); err == nil || !running.IsListening() {
		t.Errorf("Listen with a wrong field: %v, listening %v", err, running.IsListening())
	}
}

// TestServe: twice is refused, and after Close it returns ErrServerClosed.
func TestServe(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(b *bubble) {
		if err := b.server.Serve(b.network.listen(clientAddr(1))); err != ErrAlreadyServing {
			t.Errorf("a second Serve: %v", err)
		}
		if b.server.Addr() != serverAddr {
			t.Errorf("Addr %v", b.server.Addr())
		}
	})
}

// TestNeverListened: every method has an answer.
func TestNeverListened(t *testing.T) {
	t.Parallel()
	var s Server
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if _, ok := s.SessionByAddr(clientAddr(1), anyLocal); ok || s.IsListening() || s.Addr().IsValid() || s.Stats() != (Stats{}) {
		t.Error("a server that has never listened has something to show")
	}
	for range s.Sessions() {
		t.Error("a session")
	}
}

// TestHandlerCallsEverything: a handler may close its session, another, the
// server, and listen anew; the events follow its return.
func TestHandlerCallsEverything(t *testing.T) {
	t.Parallel()
	t.Run("Session.Close", func(t *testing.T) {
		t.Parallel()
		inBubble(t, func(s *Server) {
			rec := s.Handler.(*recorder)
			rec.then.OnDatagramReceived = func(session *Session, _, _ []byte) {
				for other := range s.Sessions() {
					other.Close()
				}
				session.Close()
				rec.mu.Lock()
				defer rec.mu.Unlock()
				rec.log = append(rec.log, "returned")
			}
		}, func(b *bubble) {
			p, q := b.peer(1), b.peer(2)
			p.establish()
			q.establish()
			// Two records: the second comes too late.
			p.send(append(p.Sealed(wire.ContentApplicationData, nil), p.Sealed(wire.ContentApplicationData, nil)...))
			want := []string{"HandshakeComplete", "data", "returned", "SessionClosed", "SessionClosed"}
			if got := b.rec.log[len(b.rec.log)-5:]; !slices.Equal(got, want) {
				t.Errorf("events %v, want %v", got, want)
			}
			p.receive()
			q.receive()
			if len(p.Alerts) != 1 || len(q.Alerts) != 1 {
				t.Errorf("alerts %v %v", p.Alerts, q.Alerts)
			}
		})
	})
	t.Run("Server.Close", func(t *testing.T) {
		t.Parallel()
		for _, kind := range []EventKind{KindListening, KindHelloVerifyRequestSent, KindHelloVerified, KindPSKRequested, KindHandshakeComplete, KindSessionClosed} {
			inBubble(t, func(s *Server) {
				s.Handler.(*recorder).then.OnInfo = func(e Event) {
					if e.Kind == kind {
						s.Close()
						if s.IsListening() {
							t.Error("listening after Close")
						}
					}
				}
			}, func(b *bubble) {
				p := b.peer(1)
				p.send(p.Hello())
				if p.receive(); p.Cookie != nil {
					p.send(p.Hello())
				}
				if p.receive(); p.HelloDone {
					p.send(p.Flight())
				}
				if p.receive(); p.Complete {
					p.send(p.Sealed(wire.ContentAlert, []byte{1, 0}))
				}
				synctest.Wait()
				if last := b.rec.log[len(b.rec.log)-1]; last != "Stopped" {
					t.Errorf("closed at %v: last event %s", kind, last)
				}
				if opened, closed := len(b.rec.of(KindHandshakeComplete)), len(b.rec.of(KindSessionClosed)); opened != closed {
					t.Errorf("closed at %v: %d opened, %d closed", kind, opened, closed)
				}
			})
		}
	})
	t.Run("Listen", func(t *testing.T) {
		t.Parallel()
		w := newWaiter()
		s := &Server{PSK: testPSK, Handler: w}
		failed := make(chan error, 1)
		w.then.OnDatagramReceived = func(*Session, []byte, []byte) {
			taken, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				failed <- err
				return
			}
			defer taken.Close()
			if err := s.Listen("udp", taken.LocalAddr().String()); err == nil {
				failed <- errors.New("bound a port that is taken")
				return
			}
			if n := len(w.of(KindListenFailed)); n != 0 {
				failed <- errors.New("told inside a handler")
				return
			}
			failed <- s.Listen("udp", "127.0.0.1:0")
		}
		start(t, s, "udp", "127.0.0.1:0")
		old := s.Addr()
		c := dialUDP(t, "127.0.0.1", old)
		c.Write([]byte("move"))
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
		w.wait(t, KindListenFailed)
		if s.Addr() == old || !s.IsListening() {
			t.Errorf("listening on %v", s.Addr())
		}
		dialUDP(t, "127.0.0.1", s.Addr())
	})
}

// TestCloseWithBlockedHook: Close does not wait for a PSK hook, whose context
// is done; Shutdown does, as long as its context allows.
func TestCloseWithBlockedHook(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"Close", "Shutdown"} {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork()
			var asked, released atomic.Bool
			s := &Server{PSK: func(ctx context.Context, _ PSKRequest) (PSK, error) {
				asked.Store(true)
				<-ctx.Done()
				time.Sleep(time.Second) // takes its time to notice
				released.Store(true)
				return PSK{Key: []byte(testKey)}, nil
			}}
			served := make(chan error)
			go func() { served <- s.Serve(n.listen(serverAddr)) }()
			b := &bubble{t: t, network: n, server: s}
			p := b.peer(1)
			synctest.Wait()
			p.verify()
			p.send(p.Flight())
			if !asked.Load() {
				t.Fatal("the hook was not asked")
			}
			start := time.Now()
			if how == "Close" {
				s.Close()
				<-served
				if time.Since(start) != 0 {
					t.Errorf("Close took %v", time.Since(start))
				}
				time.Sleep(2 * time.Second)
				return
			}
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			go func() { <-served }()
			if err := s.Shutdown(ctx); err != context.DeadlineExceeded {
				t.Errorf("Shutdown: %v", err)
			}
			if time.Since(start) != 5*time.Second || s.IsListening() {
				t.Errorf("Shutdown took %v", time.Since(start))
			}
			time.Sleep(2 * time.Second)
			if !released.Load() {
				t.Error("the hook's context is not done")
			}
		})
	}
}

// TestShutdown: no new peers, handshakes in progress complete, then the
// sessions are closed; two at once are one.
func TestShutdown(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(b *bubble) {
		open, half := b.peer(1), b.peer(2)
		open.establish()
		half.verify()
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if err := b.server.Shutdown(context.Background()); err != nil {
					t.Errorf("Shutdown: %v", err)
				}
			})
		}
		synctest.Wait()
		if !b.server.IsListening() {
			t.Error("closed before the handshake is over")
		}
		late := b.peer(3)
		late.send(late.Hello())
		late.receive()
		late.send(late.Hello())
		if late.receive(); late.HelloDone {
			t.Error("a new peer while shutting down")
		}
		half.send(half.Flight())
		wg.Wait()
		if half.receive(); !half.Complete || len(half.Alerts) != 1 {
			t.Errorf("the handshake in progress: complete %v, alerts %v", half.Complete, half.Alerts)
		}
		if open.receive(); len(open.Alerts) != 1 {
			t.Errorf("the open session got alerts %v", open.Alerts)
		}
		b.rec.want(t, KindSessionClosed, 2, "after Shutdown")
		b.rec.want(t, KindStopped, 1, "after Shutdown")
	})
}

// failingConn is a socket whose reads fail.
type failingConn struct {
	*end
	err error
}

func (c *failingConn) ReadFrom([]byte) (int, net.Addr, error) { return 0, nil, c.err }

// TestReadFails: a socket that fails for good ends Serve with its error, after
// a few folded events, also when it fails with timeouts that nobody has asked
// for.
func TestReadFails(t *testing.T) {
	t.Parallel()
	for _, broken := range []error{errors.New("the cable is cut"), os.ErrDeadlineExceeded} {
		testReadFails(t, broken)
	}
}

func testReadFails(t *testing.T, broken error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{}
		s := &Server{PSK: testPSK, Handler: rec}
		if err := s.Serve(&failingConn{newNetwork().listen(serverAddr), broken}); err != broken {
			t.Errorf("Serve: %v", err)
		}
		if s.IsListening() {
			t.Error("listening")
		}
		rec.want(t, KindReadFailed, maxReadFailures, "in the end")
		if n := len(rec.of(KindReadFailed)); n > 3 {
			t.Errorf("%d events", n)
		}
		if e := rec.want(t, KindStopped, 1, "in the end"); e.Err != broken {
			t.Errorf("%v", e)
		}
	})
}

// TestKeyLog writes lines that a packet analyzer reads.
func TestKeyLog(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	inBubble(t, func(s *Server) { s.KeyLogWriter = &log }, func(b *bubble) {
		p := b.peer(1)
		p.establish()
		want := fmt.Sprintf("CLIENT_RANDOM %x ", p.Random)
		if line := log.String(); !strings.HasPrefix(line, want) || len(line) != len(want)+96+1 {
			t.Errorf("key log %q", line)
		}
	})
}

// TestCloseUnderFlood: a socket that is closed between the datagrams of a batch,
// again and again.
func TestCloseUnderFlood(t *testing.T) {
	t.Parallel()
	w := newWaiter()
	s := listen(t, "udp4", "127.0.0.1:0", w)
	var addr atomic.Pointer[net.UDPAddr] // another each time, lest another test take the port
	addr.Store(net.UDPAddrFromAddrPort(s.Addr()))
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	flooded := make(chan struct{})
	go func() {
		defer close(flooded)
		hello := testpeer.New("", nil, 1).Hello()
		for {
			if _, err := pc.WriteTo(hello, addr.Load()); errors.Is(err, net.ErrClosed) {
				return
			}
		}
	}()
	for range 100 {
		w.wait(t, KindHelloVerifyRequestSent)
		s.Close()
		if err := s.Listen("udp4", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		addr.Store(net.UDPAddrFromAddrPort(s.Addr()))
	}
	pc.Close()
	<-flooded
	s.Close()
}
