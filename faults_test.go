package dtlsserver

// Faults below and above the server: sockets that fail in the ways that the
// system's do, and handlers that panic, block or close.

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// faultyConn is an end that fails as it is told to.
type faultyConn struct {
	*end
	readErr  atomic.Pointer[error] // the next read fails once
	writeErr atomic.Pointer[error] // writes fail while it is set
	shorten  atomic.Int64          // so many bytes reads cut off datagrams
}

func (c *faultyConn) ReadFrom(b []byte) (int, net.Addr, error) {
	if err := c.readErr.Swap(nil); err != nil {
		return 0, nil, *err
	}
	n, from, err := c.end.ReadFrom(b)
	return max(0, n-int(c.shorten.Load())), from, err
}

func (c *faultyConn) WriteTo(b []byte, to net.Addr) (int, error) {
	if err := c.writeErr.Load(); err != nil {
		return 0, *err
	}
	return c.end.WriteTo(b, to)
}

// opError is what package net makes of an error of the system's.
func opError(op string, errno syscall.Errno) error {
	return &net.OpError{Op: op, Net: "udp", Addr: net.UDPAddrFromAddrPort(serverAddr), Err: os.NewSyscallError(op, errno)}
}

// inFaultyBubble is inBubble on a socket that can fail. Serve must return what
// is wanted; nil: ErrServerClosed.
func inFaultyBubble(t *testing.T, edit func(*Server), f func(b *bubble, c *faultyConn) (wantServe error)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{t: t, network: newNetwork(), rec: &recorder{}, served: make(chan error, 1)}
		b.server = &Server{PSK: testPSK, Handler: b.rec}
		if edit != nil {
			edit(b.server)
		}
		c := &faultyConn{end: b.network.listen(serverAddr)}
		go func() { b.served <- b.server.Serve(c) }()
		synctest.Wait()
		want := ErrServerClosed
		defer func() { // also when f ends by FailNow
			b.server.Close()
			if err := <-b.served; !errors.Is(err, want) {
				t.Errorf("Serve: %v, want %v", err, want)
			}
		}()
		if err := f(b, c); err != nil {
			want = err
		}
	})
}

// wantEchoed sends text to a server that echoes, and wants it back.
func (p *peer) wantEchoed(text string) {
	p.t.Helper()
	before := len(p.Data)
	p.send(p.Sealed(wire.ContentApplicationData, []byte(text)))
	if p.receive(); len(p.Data) != before+1 || string(p.Data[before]) != text {
		p.t.Fatalf("echo of %q: %q", text, p.Data[before:])
	}
}

func echoes(s *Server) { s.Handler.(*recorder).then.OnDatagramReceived = echo }

// TestReadFaults: a read that fails now and then is told and costs nothing
// else.
func TestReadFaults(t *testing.T) {
	t.Parallel()
	for _, errno := range []syscall.Errno{syscall.ECONNREFUSED, syscall.EAGAIN, syscall.ENOBUFS, syscall.EINTR, syscall.ENETDOWN} {
		t.Run(errno.Error(), func(t *testing.T) {
			t.Parallel()
			inFaultyBubble(t, echoes, func(b *bubble, c *faultyConn) error {
				p := b.peer(1)
				p.establish()
				err := opError("read", errno)
				const times = 3 * maxReadFailures // though never so many in a row
				for range times {
					// It is the read before the datagram's, or the one after it.
					c.readErr.Store(&err)
					before := len(p.Data)
					p.send(p.Sealed(wire.ContentApplicationData, []byte("despite it")))
					time.Sleep(200 * time.Millisecond)
					if p.receive(); len(p.Data) != before+1 {
						t.Fatalf("%d echoes", len(p.Data)-before)
					}
				}
				time.Sleep(2 * time.Second)
				if errno.Timeout() { // the deadline, as far as it can be told
					b.rec.want(t, KindReadFailed, 0, "after timeouts")
				} else if e := b.rec.want(t, KindReadFailed, times, "after the failures"); !errors.Is(e.Err, errno) {
					t.Errorf("KindReadFailed says %v", e.Err)
				}
				b.rec.want(t, KindSessionClosed, 0, "after the failures")
				b.peer(2).establish()
				return nil
			})
		})
	}
}

// TestReadTruncates: what a socket cuts off costs that datagram, and neither
// the session nor the loop.
func TestReadTruncates(t *testing.T) {
	t.Parallel()
	inFaultyBubble(t, echoes, func(b *bubble, c *faultyConn) error {
		p := b.peer(1)
		p.establish()
		before := len(b.rec.data)
		for _, n := range []int64{1, 13, 30, 1 << 16} {
			c.shorten.Store(n)
			p.send(p.Sealed(wire.ContentApplicationData, []byte("cut off")))
		}
		c.shorten.Store(0)
		if len(b.rec.data) != before {
			t.Errorf("delivered %q", b.rec.data[before:])
		}
		p.wantEchoed("whole")
		return nil
	})
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

// TestWriteFaults: a datagram that the socket does not take is lost as in the
// network. Session.Write says so, the session lives, and a handshake is repaired
// by retransmission.
func TestWriteFaults(t *testing.T) {
	t.Parallel()
	tests := []struct {
		errno   syscall.Errno
		want    error     // of Session.Write
		kind    EventKind // that tells of it
		counted func(Drops) uint64
	}{
		{syscall.ENOBUFS, ErrWriteDropped, KindWriteDropped, func(d Drops) uint64 { return d.SendFull }},
		{syscall.EAGAIN, ErrWriteDropped, KindWriteDropped, func(d Drops) uint64 { return d.SendFull }},
		{syscall.EMSGSIZE, ErrMessageTooLong, 0, func(d Drops) uint64 { return d.SendFailed }},
		{syscall.EPERM, syscall.EPERM, KindWriteFailed, func(d Drops) uint64 { return d.SendFailed }},
		{syscall.ECONNREFUSED, syscall.ECONNREFUSED, KindWriteFailed, func(d Drops) uint64 { return d.SendFailed }},
	}
	for _, tt := range tests {
		t.Run(tt.errno.Error(), func(t *testing.T) {
			t.Parallel()
			inFaultyBubble(t, echoes, func(b *bubble, c *faultyConn) error {
				fault := opError("write", tt.errno)
				p := b.peer(1)
				p.establish()
				session, _ := b.server.SessionByAddr(p.pipe.addr, anyLocal)
				c.writeErr.Store(&fault)
				if n, err := session.Write([]byte("lost")); n != 0 || !errors.Is(err, tt.want) {
					t.Errorf("Write: %d, %v, want %v", n, err, tt.want)
				}
				synctest.Wait()
				if tt.kind != 0 {
					b.rec.want(t, tt.kind, 1, "after Write")
				}
				if n := tt.counted(b.server.Stats().Dropped); n != 1 {
					t.Errorf("%d datagrams are counted as lost", n)
				}
				c.writeErr.Store(nil)
				p.wantEchoed("the session lives")

				late := b.peer(2)
				late.send(late.Hello())
				late.receive()
				c.writeErr.Store(&fault)
				late.send(late.Hello())
				if late.receive(); late.ServerHello != nil {
					t.Fatal("flight 4 was sent")
				}
				c.writeErr.Store(nil)
				time.Sleep(DefaultRetransmitTimeout)
				if late.receive(); !late.HelloDone {
					t.Fatal("flight 4 was not sent again")
				}
				c.writeErr.Store(&fault)
				late.send(late.Flight())
				c.writeErr.Store(nil)
				time.Sleep(time.Second)
				late.send(late.Sealed(wire.ContentHandshake, late.FinishedMessage()))
				if late.receive(); !late.Complete {
					t.Error("flight 6 was not sent again")
				}

				// A cookie that cannot be sent is asked for again.
				c.writeErr.Store(&fault)
				third := b.peer(3)
				third.send(third.Hello())
				c.writeErr.Store(nil)
				third.establish()
				return nil
			})
		})
	}
}

// TestSocketClosedBelow: a socket that another closes ends Serve with its
// error, and every session with it.
func TestSocketClosedBelow(t *testing.T) {
	t.Parallel()
	inFaultyBubble(t, nil, func(b *bubble, c *faultyConn) error {
		p := b.peer(1)
		p.establish()
		session, _ := b.server.SessionByAddr(p.pipe.addr, anyLocal)
		b.peer(2).verify() // a handshake in progress
		c.end.Close()
		synctest.Wait()
		if b.server.IsListening() {
			t.Error("listening")
		}
		b.rec.want(t, KindSessionClosed, 1, "when the socket is closed")
		b.rec.want(t, KindHandshakeFailed, 1, "when the socket is closed")
		if e := b.rec.want(t, KindStopped, 1, "when the socket is closed"); !errors.Is(e.Err, net.ErrClosed) || e.Err == ErrServerClosed {
			t.Errorf("KindStopped says %v", e.Err)
		}
		if _, err := session.Write(nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write: %v", err)
		}
		return net.ErrClosed
	})
}

// panicsIn names, in the environment, that this process is the one to panic.
const panicsIn = "DTLSSERVER_TEST_PANICS"

// TestHandlerPanics: a handler's panic is not recovered and ends the program.
func TestHandlerPanics(t *testing.T) {
	t.Parallel()
	if os.Getenv(panicsIn) != "" {
		inBubble(t, func(s *Server) {
			s.Handler.(*recorder).then.OnDatagramReceived = func(*Session, []byte, []byte) { panic("the handler's own fault") }
		}, func(b *bubble) {
			p := b.peer(1)
			p.establish()
			p.send(p.Sealed(wire.ContentApplicationData, []byte("now")))
			time.Sleep(time.Minute)
		})
		return
	}
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.run=^TestHandlerPanics$")
	cmd.Env = append(os.Environ(), panicsIn+"=1")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 {
		t.Errorf("the program ended with %v, want exit status 2", err)
	}
	if !strings.Contains(string(out), "panic: the handler's own fault") {
		t.Errorf("the program said:\n%s", out)
	}
}

// TestHandlerBlocks: a handler that takes its time holds the loop up and
// nobody else; what comes meanwhile waits in the socket.
func TestHandlerBlocks(t *testing.T) {
	t.Parallel()
	var release chan struct{}
	inBubble(t, func(s *Server) {
		release = make(chan struct{})
		s.Handler.(*recorder).then.OnDatagramReceived = func(s *Session, c, p []byte) {
			if string(p) == "block" {
				<-release
			}
			echo(s, c, p)
		}
	}, func(b *bubble) {
		p, other := b.peer(1), b.peer(2)
		p.establish()
		other.establish()
		session, _ := b.server.SessionByAddr(other.pipe.addr, anyLocal)
		p.send(p.Sealed(wire.ContentApplicationData, []byte("block")))
		other.send(other.Sealed(wire.ContentApplicationData, []byte("waits")))
		time.Sleep(5 * time.Second)
		if other.receive(); len(other.Data) != 0 {
			t.Error("the loop went on without its handler")
		}
		if _, err := session.Write([]byte("from elsewhere")); err != nil {
			t.Errorf("Write: %v", err)
		}
		if stats := b.server.Stats(); stats.Sessions != 2 {
			t.Errorf("%d sessions", stats.Sessions)
		}
		close(release)
		if p.receive(); len(p.Data) != 1 {
			t.Error("the handler's answer did not arrive")
		}
		if other.receive(); len(other.Data) != 2 || string(other.Data[1]) != "waits" {
			t.Errorf("the other client got %q", other.Data)
		}
	})
}

// TestHandlerBlocksInBatch: what was written before a handler blocks, and what
// others write meanwhile, leaves all the same.
func TestHandlerBlocksInBatch(t *testing.T) {
	t.Parallel()
	const datagrams = 8
	answered := make(chan struct{})
	handled := 0
	h := HandlerFuncs{OnDatagramReceived: func(s *Session, _, plainText []byte) {
		_, _ = s.Write(plainText)
		if handled++; handled == datagrams/2 {
			go s.Write([]byte("from elsewhere"))
			select {
			case <-answered:
			case <-time.After(10 * time.Second):
				t.Error("no answers while the handler blocks")
			}
		}
	}}
	w := newWired(t, h)
	now := time.Now()
	c := w.establish(now, nil)
	var sealed [][]byte
	for range datagrams {
		sealed = append(sealed, c.Sealed(wire.ContentApplicationData, []byte("text")))
	}
	go func() {
		buf := make([]byte, 2048)
		for range datagrams/2 + 1 {
			w.answer(buf)
		}
		close(answered)
	}()
	w.give(now, sealed...)
	buf := make([]byte, 2048)
	for range datagrams / 2 {
		w.answer(buf)
	}
	if handled != datagrams {
		t.Errorf("%d datagrams handled", handled)
	}
}

// TestCloseWithHandlerBlocked: Close does not wait for a handler, Shutdown does,
// until its context is done.
func TestCloseWithHandlerBlocked(t *testing.T) {
	t.Parallel()
	var release chan struct{}
	inBubble(t, func(s *Server) {
		release = make(chan struct{})
		s.Handler.(*recorder).then.OnDatagramReceived = func(*Session, []byte, []byte) { <-release }
	}, func(b *bubble) {
		p := b.peer(1)
		p.establish()
		p.send(p.Sealed(wire.ContentApplicationData, []byte("block")))
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		start := time.Now()
		if err := b.server.Shutdown(ctx); err != context.DeadlineExceeded || time.Since(start) != 3*time.Second {
			t.Errorf("Shutdown: %v after %v", err, time.Since(start))
		}
		b.server.Close()
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("Close took until %v", took)
		}
		b.rec.want(t, KindStopped, 0, "while the handler blocks")
		close(release)
		synctest.Wait()
		b.rec.want(t, KindSessionClosed, 1, "when the handler has returned")
		b.rec.want(t, KindStopped, 1, "when the handler has returned")
	})
}

// TestHandlerCloses: a handler that closes the server gets the rest told, in
// order, and nothing after KindStopped.
func TestHandlerCloses(t *testing.T) {
	t.Parallel()
	inBubble(t, func(s *Server) {
		s.Handler.(*recorder).then.OnDatagramReceived = func(*Session, []byte, []byte) {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}, func(b *bubble) {
		p, other := b.peer(1), b.peer(2)
		p.establish()
		other.establish()
		data := p.Sealed(wire.ContentApplicationData, []byte("close"))
		p.send(append(data, p.Sealed(wire.ContentApplicationData, []byte("too late"))...))
		b.rec.want(t, KindSessionClosed, 2, "when the handler has closed the server")
		b.rec.want(t, KindStopped, 1, "when the handler has closed the server")
		if last := b.rec.log[len(b.rec.log)-1]; last != KindStopped.String() {
			t.Errorf("the last event is %v", last)
		}
		if len(b.rec.data) != 1 {
			t.Errorf("delivered %q", b.rec.data)
		}
		for _, c := range []*peer{p, other} {
			if c.receive(); len(c.Alerts) != 1 || c.Alerts[0].Description != wire.AlertCloseNotify {
				t.Errorf("%v got alerts %v", c.pipe.addr, c.Alerts)
			}
		}
	})
}

// noEntropy is a source of random bytes that has none.
type noEntropy struct{}

func (noEntropy) Read([]byte) (int, error) { return 0, errors.New("no entropy") }

// TestEntropyFailsAtServer: without random bytes a handshake fails, is told of
// and leaves nothing behind; open sessions live, and all is well again when
// there are some.
func TestEntropyFailsAtServer(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	open := testpeer.New(testIdentity, []byte(testKey), 1)
	d.establish(open, clientAddr(1))
	source := d.l.cfg.engine.Rand
	d.l.cfg.engine.Rand = noEntropy{}
	c := testpeer.New(testIdentity, []byte(testKey), 2)
	d.exchange(c, clientAddr(2), c.Hello())
	d.exchange(c, clientAddr(2), c.Hello())
	if len(c.Alerts) != 1 || c.Alerts[0] != (wire.Alert{Level: wire.LevelFatal, Description: wire.AlertInternalError}) {
		t.Errorf("the client got alerts %v", c.Alerts)
	}
	if e := d.rec.want(t, KindEntropyFailed, 1, "without entropy"); e.Err == nil {
		t.Error("KindEntropyFailed has no error")
	}
	if stats := d.s.Stats(); stats.Sessions != 1 || stats.Handshakes != 0 || stats.HandshakesFailed != 1 {
		t.Errorf("%+v", stats)
	}
	d.exchange(open, clientAddr(1), open.Sealed(wire.ContentApplicationData, []byte("still there")))
	if len(d.rec.data) != 1 {
		t.Error("the open session no longer delivers")
	}
	d.l.cfg.engine.Rand = source
	d.establish(testpeer.New(testIdentity, []byte(testKey), 3), clientAddr(3))
}
