package dtlsnet

// A Conn on each end of a wire in memory: what can be shown without a server,
// and on virtual time.

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"

	"github.com/dtlsserver/dtlsserver"
)

// wire is a session whose peer is a Conn. Its socket is full when the peer has
// no room.
type wire struct {
	local, remote netip.AddrPort
	peer          *Conn
	ctx           context.Context
	cancel        context.CancelCauseFunc
	full          bool // for good
}

func (w *wire) LocalAddr() netip.AddrPort  { return w.local }
func (w *wire) RemoteAddr() netip.AddrPort { return w.remote }
func (w *wire) Context() context.Context   { return w.ctx }

func (w *wire) Write(b []byte) (int, error) {
	switch {
	case w.ctx.Err() != nil:
		return 0, dtlsserver.ErrSessionClosed
	case w.full || !w.peer.deliver(b):
		return 0, dtlsserver.ErrWriteDropped
	}
	return len(b), nil
}

func (w *wire) Close() error {
	w.cancel(dtlsserver.ErrSessionClosed)
	w.peer.session.(*wire).cancel(dtlsserver.ErrPeerClosed)
	w.peer.end()
	return nil
}

// pair returns two ends that hold up to buffer bytes each.
func pair(buffer int) (a, b *Conn) {
	one, two := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:2")
	l := &Listener{connBuffer: buffer}
	v, w := &wire{local: one, remote: two}, &wire{local: two, remote: one}
	v.ctx, v.cancel = context.WithCancelCause(context.Background())
	w.ctx, w.cancel = context.WithCancelCause(context.Background())
	a, b = newConn(l, v), newConn(l, w)
	v.peer, w.peer = b, a
	return a, b
}

// TestPair: the contract of net.Conn, where no datagram is lost.
func TestPair(t *testing.T) {
	t.Parallel()
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		a, b := pair(DefaultConnBuffer)
		return a, b, func() { a.Close(); b.Close() }, nil
	})
}

// wantError: err is a *net.OpError of op, or one of the bare ones, and is want.
func wantError(t *testing.T, err error, op string, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", op, err, want)
		return
	}
	if bare := want == io.EOF || want == io.ErrShortBuffer; bare {
		if err != want {
			t.Errorf("%s: %#v, want bare %v", op, err, want)
		}
		return
	}
	var opError *net.OpError
	if !errors.As(err, &opError) || opError.Op != op || opError.Net != "dtls" || opError.Addr == nil {
		t.Errorf("%s: %#v is no *net.OpError of it", op, err)
	} else if opError.Timeout() != (want == os.ErrDeadlineExceeded) {
		t.Errorf("%s: %v: Timeout() is %v", op, err, opError.Timeout())
	}
}

func wantRead(t *testing.T, c net.Conn, want string) {
	t.Helper()
	b := make([]byte, 1<<14)
	if n, err := c.Read(b); err != nil || string(b[:n]) != want {
		t.Errorf("Read: %q, %v, want %q", b[:n], err, want)
	}
}

func wantReadError(t *testing.T, c net.Conn, want error) {
	t.Helper()
	n, err := c.Read(make([]byte, 100))
	if n != 0 {
		t.Errorf("Read returned %d bytes and %v", n, err)
	}
	wantError(t, err, "read", want)
}

func wantWriteError(t *testing.T, c net.Conn, want error) {
	t.Helper()
	n, err := c.Write([]byte("late"))
	if n != 0 {
		t.Errorf("Write returned %d and %v", n, err)
	}
	wantError(t, err, "write", want)
}

func write(t *testing.T, c net.Conn, messages ...string) {
	t.Helper()
	for _, m := range messages {
		if n, err := c.Write([]byte(m)); n != len(m) || err != nil {
			t.Fatalf("Write %q: %d, %v", m, n, err)
		}
	}
}

func TestMessageBoundaries(t *testing.T) {
	t.Parallel()
	a, b := pair(DefaultConnBuffer)
	long := string(bytes.Repeat([]byte("0123456789abcdef"), 1<<10))
	write(t, a, "one", "", "three", long)
	for _, want := range []string{"one", "", "three", long} {
		wantRead(t, b, want)
	}

	write(t, a, "too long", "next", "not for nothing", "last")
	short := make([]byte, 3)
	n, err := b.Read(short)
	if string(short[:n]) != "too" {
		t.Errorf("Read into 3 bytes: %q", short[:n])
	}
	wantError(t, err, "read", io.ErrShortBuffer)
	wantRead(t, b, "next")
	n, err = b.Read(nil)
	if n != 0 {
		t.Errorf("Read into nothing: %d", n)
	}
	wantError(t, err, "read", io.ErrShortBuffer)
	wantRead(t, b, "last")
}

// within calls f and checks how long it took.
func within(t *testing.T, what string, want time.Duration, f func()) {
	t.Helper()
	start := time.Now()
	f()
	if took := time.Since(start); took != want {
		t.Errorf("%s took %v, want %v", what, took, want)
	}
}

func TestDeadlines(t *testing.T) {
	t.Parallel()
	in := func(d time.Duration) time.Time { return time.Now().Add(d) }
	tests := []struct {
		name string
		f    func(t *testing.T, a, b *Conn)
	}{
		{"read", func(t *testing.T, a, b *Conn) {
			a.SetReadDeadline(in(time.Second))
			within(t, "Read", time.Second, func() { wantReadError(t, a, os.ErrDeadlineExceeded) })
			write(t, a, "writes are not concerned")
			write(t, b, "kept")
			within(t, "Read", 0, func() { wantReadError(t, a, os.ErrDeadlineExceeded) })
			a.SetReadDeadline(time.Time{})
			wantRead(t, a, "kept")
		}},
		{"put off while it runs", func(t *testing.T, a, _ *Conn) {
			a.SetReadDeadline(in(time.Second))
			time.AfterFunc(time.Second/2, func() { a.SetReadDeadline(in(time.Second)) })
			within(t, "Read", 3*time.Second/2, func() { wantReadError(t, a, os.ErrDeadlineExceeded) })
		}},
		{"set while Read waits", func(t *testing.T, a, _ *Conn) {
			time.AfterFunc(time.Second, func() { a.SetDeadline(in(-time.Second)) })
			within(t, "Read", time.Second, func() { wantReadError(t, a, os.ErrDeadlineExceeded) })
		}},
		{"write to a socket with room", func(t *testing.T, a, b *Conn) {
			a.SetWriteDeadline(in(time.Second))
			write(t, a, "in time")
			time.Sleep(time.Second)
			synctest.Wait()
			wantWriteError(t, a, os.ErrDeadlineExceeded)
			write(t, b, "reads are not concerned")
			wantRead(t, a, "reads are not concerned")
			a.SetWriteDeadline(time.Time{})
			write(t, a, "again")
		}},
		{"write to a full socket", func(t *testing.T, a, b *Conn) {
			a.session.(*wire).full = true
			a.SetDeadline(in(time.Second))
			within(t, "Write", time.Second, func() { wantWriteError(t, a, os.ErrDeadlineExceeded) })
			b.SetReadDeadline(in(time.Second))
			wantReadError(t, b, os.ErrDeadlineExceeded) // nothing was sent
		}},
		{"write that waits for room", func(t *testing.T, a, b *Conn) {
			for range 5 {
				write(t, a, "of 18 bytes, and 2")
			}
			time.AfterFunc(time.Second, func() { wantRead(t, b, "of 18 bytes, and 2") })
			a.SetWriteDeadline(in(time.Minute))
			start := time.Now()
			write(t, a, "of 18 bytes, and 2")
			if took := time.Since(start); took < time.Second || took > time.Second+maxWait {
				t.Errorf("Write took %v", took)
			}
		}},
		{"Close while Write waits", func(t *testing.T, a, _ *Conn) {
			a.session.(*wire).full = true
			time.AfterFunc(time.Second, func() { a.Close() })
			within(t, "Write", time.Second, func() { wantWriteError(t, a, net.ErrClosed) })
		}},
		{"Close while Read waits", func(t *testing.T, a, _ *Conn) {
			a.SetDeadline(in(time.Minute))
			time.AfterFunc(time.Second, func() { a.Close() })
			within(t, "Read", time.Second, func() { wantReadError(t, a, net.ErrClosed) })
			if _, ok := a.writing.Deadline(); ok {
				t.Error("a timer runs on")
			}
			wantError(t, a.SetDeadline(time.Time{}), "set", net.ErrClosed)
			wantError(t, a.SetReadDeadline(time.Time{}), "set", net.ErrClosed)
			wantError(t, a.SetWriteDeadline(time.Time{}), "set", net.ErrClosed)
		}},
		{"the peer's Close while Read waits", func(t *testing.T, a, b *Conn) {
			time.AfterFunc(time.Second, func() { write(t, b, "goodbye"); b.Close() })
			wantRead(t, a, "goodbye")
			within(t, "Read", 0, func() { wantReadError(t, a, io.EOF) })
			wantReadError(t, a, io.EOF)
			wantWriteError(t, a, dtlsserver.ErrPeerClosed)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a, b := pair(100)
				defer b.Close()
				defer a.Close()
				tt.f(t, a, b)
			})
		})
	}
}

// TestTwoReaders: of two messages that come at once, each reader gets one.
func TestTwoReaders(t *testing.T) {
	t.Parallel()
	a, b := pair(DefaultConnBuffer)
	defer a.Close()
	for range 200 {
		got := make(chan int, 2)
		for range 2 {
			go func() {
				n, _ := b.Read(make([]byte, 8))
				got <- n
			}()
		}
		write(t, a, "one", "two")
		for range 2 {
			select {
			case n := <-got:
				if n != 3 {
					t.Fatalf("Read: %d bytes", n)
				}
			case <-time.After(10 * time.Second):
				b.Close()
				t.Fatal("a reader sleeps beside a message")
			}
		}
	}
}

// TestMemory: what a connection costs beyond its session. It is not parallel,
// since it counts what the program allocates.
func TestMemory(t *testing.T) {
	l := &Listener{connBuffer: DefaultConnBuffer}
	want := func(what string, most uint64, f func(c *Conn)) {
		t.Helper()
		const conns = 1000
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range conns {
			f(newConn(l, &wire{}))
		}
		runtime.ReadMemStats(&after)
		each := (after.TotalAlloc - before.TotalAlloc) / conns
		t.Logf("a connection %s takes %d bytes", what, each)
		if each > most {
			t.Errorf("want %d at most", most)
		}
	}
	want("that has received nothing", 1<<10, func(*Conn) {})
	message := make([]byte, 1000)
	want("that has received a message", 3<<10, func(c *Conn) {
		c.deliver(message)
		c.Read(message)
	})
}
