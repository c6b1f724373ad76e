// Tests of every kind of socket on loopback, whatever the system, and of a
// net.PacketConn that is no socket at all.

package udpio

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// patience bounds every wait of these tests, so that a datagram that never
// comes fails one instead of hanging it.
const patience = 10 * time.Second

// kind is a way to read and write datagrams, which has a name and makes a Conn.
type kind struct {
	name string
	new  func(net.PacketConn, func(Sent)) (*Conn, error)
}

// kinds are all that this system has. What is wrapped is foreign.
var kinds = append(systemKinds[:len(systemKinds):len(systemKinds)], kind{"foreign", func(pc net.PacketConn, sent func(Sent)) (*Conn, error) {
	return New(struct{ net.PacketConn }{pc}, sent)
}})

// opener makes a Conn of some kind and a deadline for what it receives.
type opener func(t testing.TB, network, address string) *testConn

// eachSocket runs a test with every kind of socket.
func eachSocket(t *testing.T, test func(*testing.T, opener)) {
	t.Helper()
	eachOf(t, kinds, test)
}

func eachOf(t *testing.T, kinds []kind, test func(*testing.T, opener)) {
	t.Helper()
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			test(t, k.open)
		})
	}
}

// testConn is a Conn that keeps what it tells of datagrams sent.
type testConn struct {
	*Conn
	sends atomic.Int64

	mu    sync.Mutex // guards all following
	told  []Sent
	taken int64
}

func (k kind) open(t testing.TB, network, address string) *testConn {
	t.Helper()
	pc, err := net.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	c := new(testConn)
	if c.Conn, err = k.new(pc, c.sent); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		c.takeTold()
		if c.taken != c.sends.Load() {
			t.Errorf("told of %d datagrams, sent %d", c.taken, c.sends.Load())
		}
	})
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *testConn) sent(s Sent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told = append(c.told, s)
}

// takeTold returns what was told since the last call.
func (c *testConn) takeTold() []Sent {
	c.mu.Lock()
	defer c.mu.Unlock()
	told := c.told
	c.told, c.taken = nil, c.taken+int64(len(told))
	return told
}

func (c *testConn) Send(b []byte, remote netip.AddrPort, local netip.Addr) error {
	c.sends.Add(1)
	return c.Conn.Send(b, remote, local)
}

// receive receives one datagram.
func receive(c *Conn, m *Message) error {
	ms := []Message{*m}
	n, err := c.Receive(ms)
	*m = ms[0]
	if err == nil && n != 1 {
		err = fmt.Errorf("Receive = %d datagrams", n)
	}
	return err
}

// dial returns a client's socket that takes datagrams of that one address only,
// so an answer from another address never arrives.
func dial(t testing.TB, to string) *net.UDPConn {
	t.Helper()
	conn, err := net.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.UDPConn)
}

// needIPv6 skips where loopback has no IPv6.
func needIPv6(t *testing.T) {
	t.Helper()
	pc, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		t.Skipf("no IPv6 on loopback: %v", err)
	}
	pc.Close()
}

func addrOf(conn *net.UDPConn) netip.AddrPort {
	return unmap(conn.LocalAddr().(*net.UDPAddr).AddrPort())
}

func write(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := conn.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

func wantRead(t *testing.T, conn net.Conn, want string) {
	t.Helper()
	buf := make([]byte, 100)
	n, err := conn.Read(buf)
	if err != nil || string(buf[:n]) != want {
		t.Fatalf("the client reads %q, %v, want %q", buf[:n], err, want)
	}
}

// wantReceive receives a datagram and checks all of the message but Local.
func wantReceive(t *testing.T, c *Conn, from net.Addr, text string) Message {
	t.Helper()
	// What an earlier datagram may have left behind must be overwritten.
	m := Message{Buf: make([]byte, 100), N: 99, Remote: netip.MustParseAddrPort("192.0.2.1:1"), Local: netip.MustParseAddr("192.0.2.2"), Truncated: true}
	if err := receive(c, &m); err != nil {
		t.Fatal(err)
	}
	if string(m.Buf[:m.N]) != text {
		t.Errorf("received %q, want %q", m.Buf[:m.N], text)
	}
	if want := netip.MustParseAddrPort(from.String()); m.Remote != want {
		t.Errorf("Remote = %v, want %v", m.Remote, want)
	}
	if m.Truncated {
		t.Error("Truncated")
	}
	return m
}

// sender is a Conn or a testConn.
type sender interface {
	Send(b []byte, remote netip.AddrPort, local netip.Addr) error
}

func mustSend(t *testing.T, c sender, text string, m Message) {
	t.Helper()
	if err := c.Send([]byte(text), m.Remote, m.Local); err != nil {
		t.Fatalf("Send to %v from %v: %v", m.Remote, m.Local, err)
	}
}

// TestEcho is on sockets with one address, which have no packet info.
func TestEcho(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, network, address string }{
		{"IPv4", "udp4", "127.0.0.1:0"},
		{"IPv6", "udp6", "[::1]:0"},
		{"IPv4 by the generic network", "udp", "127.0.0.1:0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if test.network == "udp6" {
				needIPv6(t)
			}
			eachSocket(t, func(t *testing.T, open opener) {
				c := open(t, test.network, test.address)
				if want, _, _ := net.SplitHostPort(test.address); c.LocalAddr().Addr().String() != want || c.LocalAddr().Port() == 0 {
					t.Errorf("LocalAddr() = %v", c.LocalAddr())
				}
				client := dial(t, c.LocalAddr().String())
				for _, text := range []string{"one", "", "three"} {
					write(t, client, text)
					m := wantReceive(t, c.Conn, client.LocalAddr(), text)
					if m.Local.IsValid() {
						t.Errorf("Local = %v of a socket with one address", m.Local)
					}
					mustSend(t, c, "re: "+text, m)
					wantRead(t, client, "re: "+text)
				}
				mustSend(t, c, "", Message{Remote: addrOf(client)})
				wantRead(t, client, "")
			})
		})
	}
}

// TestReceiveMany: what waits in the socket comes in order, however many one
// call brings.
func TestReceiveMany(t *testing.T) {
	t.Parallel()
	eachSocket(t, func(t *testing.T, open opener) {
		const many = 100
		c := open(t, "udp4", "127.0.0.1:0")
		client := dial(t, c.LocalAddr().String())
		for i := range many {
			write(t, client, strings.Repeat("x", i))
		}
		ms := c.NewMessages()
		for next := 0; next < many; {
			n, err := c.Receive(ms)
			if err != nil || n == 0 {
				t.Fatalf("Receive = %d, %v", n, err)
			}
			for _, m := range ms[:n] {
				if m.N != next || m.Remote != addrOf(client) || m.Truncated {
					t.Errorf("datagram %d has %d bytes, Remote %v, Truncated %v", next, m.N, m.Remote, m.Truncated)
				}
				next++
			}
		}
	})
}

// TestNewMessages: buffers that truncate nothing, and do not run into each other.
func TestNewMessages(t *testing.T) {
	t.Parallel()
	eachSocket(t, func(t *testing.T, open opener) {
		ms := open(t, "udp4", "127.0.0.1:0").NewMessages()
		for i := range ms {
			if len(ms[i].Buf) != MaxDatagram || cap(ms[i].Buf) != MaxDatagram {
				t.Errorf("buffer %d: length %d, capacity %d", i, len(ms[i].Buf), cap(ms[i].Buf))
			}
			ms[i].Buf[0], ms[i].Buf[MaxDatagram-1] = byte(i), byte(i)
		}
		for i := range ms {
			if ms[i].Buf[0] != byte(i) || ms[i].Buf[MaxDatagram-1] != byte(i) {
				t.Errorf("buffer %d is another's, too", i)
			}
		}
	})
}

// TestReadDeadline has a Receive that waits, and wakes it.
func TestReadDeadline(t *testing.T) {
	t.Parallel()
	eachSocket(t, func(t *testing.T, open opener) {
		c := open(t, "udp4", "127.0.0.1:0")
		done := startReceive(c.Conn)
		if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		wantError(t, done, os.ErrDeadlineExceeded)
		for range 3 { // it stays past, even when there is something to read
			write(t, dial(t, c.LocalAddr().String()), "early")
			if err := receive(c.Conn, &Message{Buf: make([]byte, 100)}); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("Receive after the deadline = %v", err)
			}
		}

		// A deadline that was taken back lets datagrams through again.
		if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := receive(c.Conn, &Message{Buf: make([]byte, 100)}); err != nil {
				t.Fatal(err)
			}
		}
		client := dial(t, c.LocalAddr().String())
		write(t, client, "again")
		wantReceive(t, c.Conn, client.LocalAddr(), "again")
	})
}

// startReceive has a goroutine call Receive as the server does.
func startReceive(c *Conn) <-chan error {
	done := make(chan error, 1)
	started := make(chan struct{})
	go func() {
		ms := c.NewMessages()
		close(started)
		_, err := c.Receive(ms)
		done <- err
	}()
	<-started
	return done
}

func wantError(t *testing.T, done <-chan error, want error) {
	t.Helper()
	select {
	case err := <-done:
		if !errors.Is(err, want) {
			t.Errorf("Receive = %v, want %v", err, want)
		}
	case <-time.After(patience):
		t.Fatal("Receive did not wake")
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	eachSocket(t, func(t *testing.T, open opener) {
		c := open(t, "udp4", "127.0.0.1:0")
		holdAndSend(c, 3, c.LocalAddr()) // what it leaves behind must not be told again
		done := startReceive(c.Conn)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-done: // of a datagram, or of the end
		case <-time.After(patience):
			t.Fatal("Receive did not wake")
		}
		if err := receive(c.Conn, &Message{Buf: make([]byte, 100)}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Receive after Close = %v", err)
		}
		if err := c.Send([]byte("text"), c.LocalAddr(), netip.Addr{}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Send after Close = %v", err)
		}
		c.takeTold()
		holdAndSend(c, 2, c.LocalAddr())
		wantTold(t, c, 2, net.ErrClosed)
	})
}

// TestCloseWakes: also a Receive that nothing comes for.
func TestCloseWakes(t *testing.T) {
	t.Parallel()
	eachSocket(t, func(t *testing.T, open opener) {
		c := open(t, "udp4", "127.0.0.1:0")
		done := startReceive(c.Conn)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		wantError(t, done, net.ErrClosed)
	})
}

// holdAndSend sends datagrams that may leave together.
func holdAndSend(c *testConn, n int, to netip.AddrPort) {
	c.Hold()
	defer c.Release()
	for i := range n {
		_ = c.Send(make([]byte, i), to, netip.Addr{})
	}
}

// wantTold checks that n datagrams, of 0, 1 and so on bytes, were told of with
// that error.
func wantTold(t *testing.T, c *testConn, n int, want error) {
	t.Helper()
	told := c.takeTold()
	if len(told) != n {
		t.Errorf("told of %d datagrams, want %d", len(told), n)
	}
	for i, s := range told {
		if s.Len != i || !errors.Is(s.Err, want) {
			t.Errorf("datagram %d: told of %d bytes, %v, want %v", i, s.Len, s.Err, want)
		}
	}
}

// TestWriteDeadline: a socket may be given with one, and then sends nothing.
func TestWriteDeadline(t *testing.T) {
	t.Parallel()
	eachSocket(t, func(t *testing.T, open opener) {
		c := open(t, "udp4", "127.0.0.1:0")
		holdAndSend(c, 5, c.LocalAddr())
		wantTold(t, c, 5, nil)
		if err := c.pc.SetWriteDeadline(time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		holdAndSend(c, 3, c.LocalAddr())
		wantTold(t, c, 3, os.ErrDeadlineExceeded)
		if err := c.pc.SetWriteDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		holdAndSend(c, 4, c.LocalAddr())
		wantTold(t, c, 4, nil)
	})
}

// TestHold: what may leave together comes in order and is told of, one hold
// after another.
func TestHold(t *testing.T) {
	t.Parallel()
	eachSocket(t, func(t *testing.T, open opener) {
		c := open(t, "udp4", "127.0.0.1:0")
		client := dial(t, c.LocalAddr().String())
		for _, n := range []int{0, 1, 40, 2, 0, 33} { // with an empty datagram each
			holdAndSend(c, n, addrOf(client))
			for i := range n {
				wantRead(t, client, string(make([]byte, i)))
			}
			wantTold(t, c, n, nil)
		}
		c.Release() // without Hold
	})
}

// TestHoldEnds: whoever holds may forget to release, or wait for the answer to
// what is kept.
func TestHoldEnds(t *testing.T) {
	t.Parallel()
	eachSocket(t, func(t *testing.T, open opener) {
		c := open(t, "udp4", "127.0.0.1:0")
		client := dial(t, c.LocalAddr().String())
		for range 2 {
			c.Hold()
			to := Message{Remote: addrOf(client)}
			mustSend(t, c, "first", to)
			mustSend(t, c, "second", to)
			wantRead(t, client, "first")
			wantRead(t, client, "second")
			mustSend(t, c, "third", to)
			if told := c.takeTold(); len(told) != 3 {
				t.Errorf("told of %d datagrams, the last of which was to leave at once", len(told))
			}
			wantRead(t, client, "third")
		}
	})
}

func TestCloseSendsKept(t *testing.T) {
	t.Parallel()
	eachSocket(t, func(t *testing.T, open opener) {
		c := open(t, "udp4", "127.0.0.1:0")
		client := dial(t, c.LocalAddr().String())
		c.Hold()
		for i := range 5 {
			mustSend(t, c, string(make([]byte, i)), Message{Remote: addrOf(client)})
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		wantTold(t, c, 5, nil)
		for i := range 5 {
			wantRead(t, client, string(make([]byte, i)))
		}
	})
}

// TestHoldRace has several hold, send and release as they like.
func TestHoldRace(t *testing.T) {
	t.Parallel()
	for _, closed := range []bool{false, true} {
		t.Run(fmt.Sprintf("closed meanwhile %v", closed), func(t *testing.T) {
			t.Parallel()
			eachSocket(t, func(t *testing.T, open opener) {
				const each = 90 // of 1, 2 and so on bytes
				c := open(t, "udp4", "127.0.0.1:0")
				clients := make([]*net.UDPConn, 4)
				var all sync.WaitGroup
				for g := range clients {
					clients[g] = dial(t, c.LocalAddr().String())
					to := addrOf(clients[g])
					all.Go(func() {
						for i := range each {
							if i%(7+g) == 0 {
								c.Hold()
							}
							_ = c.Send(make([]byte, i+1), to, netip.Addr{})
							if i%(5+g) == 0 {
								c.Release()
							}
							if closed && g == 0 && i == each/2 {
								c.Close()
							}
						}
						c.Release()
					})
				}
				all.Wait()
				told := make(map[netip.AddrPort]int)
				for _, s := range c.takeTold() {
					if told[s.Remote]++; s.Len != told[s.Remote] {
						t.Fatalf("told of %d bytes to %v, want %d", s.Len, s.Remote, told[s.Remote])
					}
					if s.Err != nil && !(closed && errors.Is(s.Err, net.ErrClosed)) {
						t.Errorf("%d bytes to %v: %v", s.Len, s.Remote, s.Err)
					}
				}
				for _, client := range clients {
					if n := told[addrOf(client)]; n != each {
						t.Errorf("told of %d datagrams to %v, want %d", n, addrOf(client), each)
					}
					for i := range each {
						if closed {
							break
						}
						wantRead(t, client, string(make([]byte, i+1)))
					}
				}
			})
		})
	}
}

func TestSetBuffers(t *testing.T) {
	t.Parallel()
	eachSocket(t, func(t *testing.T, open opener) {
		if err := open(t, "udp4", "127.0.0.1:0").SetBuffers(1<<17, 1<<17); err != nil {
			t.Error(err)
		}
	})
	if err := mustNew(t, newFake("127.0.0.1:1000")).SetBuffers(1<<17, 1<<17); err != nil {
		t.Errorf("a net.PacketConn without buffers: %v", err)
	}
}

// textAddr is an address of a type that nobody knows.
type textAddr string

func (a textAddr) Network() string { return "fake" }
func (a textAddr) String() string  { return string(a) }

// packet is a datagram of the fake, with the other end's address.
type packet struct {
	data []byte
	addr net.Addr
}

// fake is a net.PacketConn made of channels.
type fake struct {
	local         net.Addr
	in, out       chan packet
	closed        chan struct{}
	deadline      time.Time
	writeDeadline time.Time
}

func newFake(local textAddr) *fake {
	return &fake{local: local, in: make(chan packet, 10), out: make(chan packet, 10), closed: make(chan struct{})}
}

func mustNew(t *testing.T, pc net.PacketConn) *Conn {
	t.Helper()
	c, err := New(pc, func(Sent) {})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// timeoutError is a net.Error that is not os.ErrDeadlineExceeded.
type timeoutError struct{}

func (timeoutError) Error() string   { return "too late" }
func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return true }

func (f *fake) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case p := <-f.in:
		if p.addr == nil {
			return 0, nil, timeoutError{}
		}
		return copy(b, p.data), p.addr, nil
	case <-f.closed:
		return 0, nil, net.ErrClosed
	}
}

func (f *fake) WriteTo(b []byte, addr net.Addr) (int, error) {
	f.out <- packet{append([]byte(nil), b...), addr}
	return len(b), nil
}

func (f *fake) Close() error                        { close(f.closed); return nil }
func (f *fake) LocalAddr() net.Addr                 { return f.local }
func (f *fake) SetDeadline(time.Time) error         { return errors.ErrUnsupported }
func (f *fake) SetReadDeadline(at time.Time) error  { f.deadline = at; return nil }
func (f *fake) SetWriteDeadline(at time.Time) error { f.writeDeadline = at; return nil }

func TestForeign(t *testing.T) {
	t.Parallel()
	f := newFake("127.0.0.1:1000")
	c := mustNew(t, f)
	if want := netip.MustParseAddrPort("127.0.0.1:1000"); c.LocalAddr() != want {
		t.Errorf("LocalAddr() = %v, want %v", c.LocalAddr(), want)
	}
	for _, test := range []struct {
		name string
		from net.Addr
		want string
	}{
		{"UDPAddr of 4 bytes", &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1).To4(), Port: 5}, "192.0.2.1:5"},
		{"UDPAddr of 16 bytes with an IPv4 address", &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1).To16(), Port: 5}, "192.0.2.1:5"},
		{"UDPAddr of IPv6 with a zone", &net.UDPAddr{IP: net.ParseIP("fe80::1"), Port: 5, Zone: "eth7"}, "[fe80::1%eth7]:5"},
		{"another type", textAddr("192.0.2.1:5"), "192.0.2.1:5"},
		{"another type, mapped", textAddr("[::ffff:192.0.2.1]:5"), "192.0.2.1:5"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f.in <- packet{[]byte("question"), test.from}
			m := wantReceive(t, c, textAddr(test.want), "question")
			if m.Local.IsValid() {
				t.Errorf("Local = %v, which a net.PacketConn does not tell", m.Local)
			}
			mustSend(t, c, "answer", m)
			got := <-f.out
			if _, ok := got.addr.(*net.UDPAddr); !ok || string(got.data) != "answer" || got.addr.String() != test.want {
				t.Errorf("sent %q to %T %v, want %v", got.data, got.addr, got.addr, test.want)
			}
		})
	}

	f.in <- packet{[]byte("question"), textAddr("nowhere")}
	if m := (Message{Buf: make([]byte, 100), Remote: netip.MustParseAddrPort("192.0.2.1:5")}); receive(c, &m) != nil || m.Remote.IsValid() {
		t.Errorf("a sender without address and port is %v", m.Remote)
	}
	f.in <- packet{}
	if err := receive(c, &Message{Buf: make([]byte, 100)}); err != os.ErrDeadlineExceeded {
		t.Errorf("a timeout is %v", err)
	}
	deadline := time.Unix(12345, 0)
	if err := c.SetReadDeadline(deadline); err != nil || !f.deadline.Equal(deadline) {
		t.Errorf("SetReadDeadline passed on %v, %v", f.deadline, err)
	}
	if c.StopWaiting(deadline); !f.writeDeadline.Equal(deadline) {
		t.Errorf("StopWaiting passed on %v", f.writeDeadline)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := receive(c, &Message{Buf: make([]byte, 100)}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Receive after Close = %v", err)
	}
}

func TestForeignWithoutAddress(t *testing.T) {
	t.Parallel()
	if _, err := New(newFake("nowhere"), func(Sent) {}); err == nil {
		t.Error("New takes a net.PacketConn that has no address and port")
	}
}

// BenchmarkEcho has datagrams received and answered, of which a window is
// always under way.
func BenchmarkEcho(b *testing.B) {
	const window = 32
	for _, k := range kinds {
		b.Run(k.name, func(b *testing.B) {
			open := func(k kind) *Conn {
				pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
				if err != nil {
					b.Fatal(err)
				}
				c, err := k.new(pc, func(Sent) {})
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() { c.Close() })
				return c
			}
			// The client is the same for all kinds.
			server, client := open(k), open(systemKinds[0])
			var done sync.WaitGroup
			done.Go(func() {
				ms := client.NewMessages()
				for {
					if _, err := echo(client, ms); err != nil {
						return // closed
					}
				}
			})
			defer done.Wait()
			defer client.Close()
			client.Hold()
			for range window {
				if err := client.Send(make([]byte, 100), server.LocalAddr(), netip.Addr{}); err != nil {
					b.Fatal(err)
				}
			}
			client.Release()
			ms := server.NewMessages()
			b.ReportAllocs()
			b.ResetTimer()
			left, calls := b.N, 0
			for ; left > 0; calls++ {
				if calls%1024 == 0 {
					if err := server.SetReadDeadline(time.Now().Add(patience)); err != nil {
						b.Fatal(err)
					}
				}
				n, err := echo(server, ms)
				if err != nil {
					b.Fatal(err)
				}
				left -= n
			}
			b.StopTimer()
			b.ReportMetric(float64(b.N-left)/float64(calls), "datagrams/call")
		})
	}
}

// echo receives and answers, as the server does.
func echo(c *Conn, ms []Message) (int, error) {
	n, err := c.Receive(ms)
	if n > 1 {
		c.Hold()
		defer c.Release()
	}
	for i := range n {
		if err := c.Send(ms[i].Buf[:ms[i].N], ms[i].Remote, ms[i].Local); err != nil {
			return n, err
		}
	}
	return n, err
}
