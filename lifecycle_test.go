package dtlsserver

// Listen, Serve, Close and Shutdown, over sockets of the system where it
// matters and else in memory.

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	piondtls "github.com/pion/dtls/v2"

	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

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

// TestSameWildcard: "udp" and an IPv4 wildcard is IPv4 only, so it is what
// "udp4" binds, and not what "udp" and no address does.
func TestSameWildcard(t *testing.T) {
	t.Parallel()
	w := newWaiter()
	s := listen(t, "udp", "0.0.0.0:0", w)
	l := s.current()
	if err := s.Listen("udp4", fmt.Sprintf(":%d", s.Addr().Port())); err != nil || s.current() != l {
		t.Errorf("udp4 after udp: %v, another socket %v", err, s.current() != l)
	}
	if !hasIPv6() {
		return
	}
	if err := s.Listen("udp", fmt.Sprintf(":%d", s.Addr().Port())); err != nil || s.current() == l {
		t.Errorf("both families after one: %v, another socket %v", err, s.current() != l)
	}
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

// TestListenWhenStopped: a handler that is told that the socket has died
// listens anew.
func TestListenWhenStopped(t *testing.T) {
	t.Parallel()
	result := make(chan error, 1)
	var s *Server
	opened := 0
	s = &Server{PSK: testPSK, ListenPacket: func(network, address string) (net.PacketConn, error) {
		pc, err := net.ListenPacket(network, address)
		if opened++; opened == 1 && err == nil {
			pc = &deadConn{pc}
		}
		return pc, err
	}, Handler: HandlerFuncs{OnInfo: func(e Event) {
		if e.Kind == KindStopped && e.Err != nil {
			if s.IsListening() {
				result <- errors.New("said to be listening")
				return
			}
			result <- s.Listen("udp4", e.Local.String())
		}
	}}}
	if err := s.Listen("udp4", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err != nil || !s.IsListening() {
		t.Errorf("%v, listening %v", err, s.IsListening())
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
}

// deadConn is a socket whose reads fail.
type deadConn struct{ net.PacketConn }

func (c *deadConn) ReadFrom([]byte) (int, net.Addr, error) { return 0, nil, errors.New("dead") }

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

// TestListenInHandlerTellsInOrder: the events of the new socket follow the last
// of the old one, which follow the handler's return.
func TestListenInHandlerTellsInOrder(t *testing.T) {
	t.Parallel()
	w := newWaiter()
	s := &Server{PSK: testPSK, Handler: w}
	w.then.OnDatagramReceived = func(*Session, []byte, []byte) {
		if err := s.Listen("udp4", "127.0.0.1:0"); err != nil {
			t.Error(err)
		}
		for range 1000 {
			runtime.Gosched() // the new loop may run
		}
		if n := len(w.of(KindListening)); n != 1 {
			t.Errorf("%d times listening, inside a handler", n)
		}
	}
	start(t, s, "udp4", "127.0.0.1:0")
	dialUDP(t, "127.0.0.1", s.Addr()).Write([]byte("move"))
	w.wait(t, KindStopped)
	w.wait(t, KindListening)
	w.mu.Lock()
	defer w.mu.Unlock()
	want := "[data SessionClosed Stopped Listening]"
	if got := fmt.Sprint(w.log[len(w.log)-4:]); got != want {
		t.Errorf("events %v, want %v", got, want)
	}
}

// TestCloseTellsAll: the loop, which the first closed session wakes, does not
// cut short what Close tells the others.
func TestCloseTellsAll(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(b *bubble) {
		peers := make([]*peer, 200)
		for n := range peers {
			peers[n] = b.peer(n)
			peers[n].establish()
		}
		b.server.Close()
		for _, p := range peers {
			if p.receive(); len(p.Alerts) != 1 {
				t.Fatalf("%v got alerts %v, want close_notify", p.pipe.addr, p.Alerts)
			}
		}
	})
}

// TestCloseTellsPeers: every session gets close_notify, also on the way of its
// handshake, and the handler is told of each once.
func TestCloseTellsPeers(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(b *bubble) {
		var clients []*piondtls.Conn
		for n := range 3 {
			c, err := dialPion(t, b.network.dial(clientAddr(n), serverAddr), pionConfig(testIdentity, testKey), time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			clients = append(clients, c)
		}
		half := b.peer(9)
		half.verify()
		sessions := slices.Collect(b.server.Sessions())
		if len(sessions) != 3 {
			t.Errorf("%d sessions, want 3", len(sessions))
		}
		b.server.Close()
		if b.server.IsListening() || b.server.Addr().IsValid() {
			t.Error("listening after Close")
		}
		for _, c := range clients {
			if _, err := c.Read(make([]byte, 10)); err == nil {
				t.Error("a client reads on after Close")
			}
			c.Close()
		}
		synctest.Wait()
		if half.receive(); len(half.Alerts) != 1 {
			t.Errorf("the handshake in progress got alerts %v", half.Alerts)
		}
		for _, e := range b.rec.of(KindSessionClosed) {
			if e.Err != ErrServerClosed {
				t.Errorf("closed with %v", e.Err)
			}
			if _, err := e.Session.Write(nil); err != ErrServerClosed {
				t.Errorf("Write: %v", err)
			}
		}
		b.rec.want(t, KindSessionClosed, 3, "after Close")
		if last := b.rec.log[len(b.rec.log)-1]; last != "Stopped" {
			t.Errorf("the last event is %s", last)
		}
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

// TestCloseBehindBlockedWrite: a net.PacketConn whose writes block does not
// keep Close, nor what else is called, until they end by themselves. In real
// time: a goroutine that waits for a lock keeps a bubble's clock from moving.
func TestCloseBehindBlockedWrite(t *testing.T) {
	t.Parallel()
	n := newNetwork()
	conn := &blockingConn{end: n.listen(serverAddr), blocked: make(chan struct{}), expired: make(chan struct{})}
	w := newWaiter()
	s := &Server{PSK: testPSK, Handler: w}
	served := make(chan error)
	go func() { served <- s.Serve(conn) }()
	w.wait(t, KindListening)
	c, err := dialPion(t, n.dial(clientAddr(1), serverAddr), pionConfig(testIdentity, testKey), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	session := w.wait(t, KindHandshakeComplete).Session
	conn.blocks.Store(true)
	go session.Write([]byte("stuck"))
	<-conn.blocked
	go s.Close()
	for s.IsListening() {
		runtime.Gosched()
	}
	s.Stats()
	if err := <-served; err != ErrServerClosed {
		t.Error(err)
	}
}

// blockingConn is an end whose writes block until their deadline.
type blockingConn struct {
	*end
	blocks  atomic.Bool
	once    sync.Once
	blocked chan struct{}
	expired chan struct{}
}

func (c *blockingConn) WriteTo(b []byte, to net.Addr) (int, error) {
	if c.blocks.Load() {
		c.once.Do(func() { close(c.blocked) })
		<-c.expired
		return 0, os.ErrDeadlineExceeded
	}
	return c.end.WriteTo(b, to)
}

func (c *blockingConn) SetWriteDeadline(at time.Time) error {
	time.AfterFunc(time.Until(at), func() { close(c.expired) })
	return nil
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

// TestShutdownAfterClose waits for what Close has left to be told.
func TestShutdownAfterClose(t *testing.T) {
	t.Parallel()
	inBubble(t, func(s *Server) {
		s.Handler.(*recorder).then.OnInfo = func(e Event) {
			if e.Kind == KindStopped {
				time.Sleep(3 * time.Second)
			}
		}
	}, func(b *bubble) {
		start := time.Now()
		b.server.Close()
		if err := b.server.Shutdown(context.Background()); err != nil || time.Since(start) != 3*time.Second {
			t.Errorf("Shutdown: %v after %v", err, time.Since(start))
		}
	})
}
