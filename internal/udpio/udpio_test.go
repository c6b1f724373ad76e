// Tests of the socket on loopback, whatever the system, and of a net.PacketConn
// that is no socket at all.

package udpio

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

// patience bounds every wait of these tests, so that a datagram that never
// comes fails one instead of hanging it.
const patience = 10 * time.Second

// listen returns a Conn and a deadline for what it receives.
func listen(t *testing.T, network, address string) *Conn {
	t.Helper()
	pc, err := net.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(pc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

// dial returns a client's socket that takes datagrams of that one address only,
// so an answer from another address never arrives.
func dial(t *testing.T, to string) *net.UDPConn {
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
	if err := c.Receive(&m); err != nil {
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

func mustSend(t *testing.T, c *Conn, text string, m Message) {
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
			c := listen(t, test.network, test.address)
			if want, _, _ := net.SplitHostPort(test.address); c.LocalAddr().Addr().String() != want || c.LocalAddr().Port() == 0 {
				t.Errorf("LocalAddr() = %v", c.LocalAddr())
			}
			client := dial(t, c.LocalAddr().String())
			for _, text := range []string{"one", "", "three"} {
				write(t, client, text)
				m := wantReceive(t, c, client.LocalAddr(), text)
				if m.Local.IsValid() {
					t.Errorf("Local = %v of a socket with one address", m.Local)
				}
				mustSend(t, c, "re: "+text, m)
				wantRead(t, client, "re: "+text)
			}
			mustSend(t, c, "", Message{Remote: netip.MustParseAddrPort(client.LocalAddr().String())})
			wantRead(t, client, "")
		})
	}
}

// TestReadDeadline has a Receive that waits, and wakes it.
func TestReadDeadline(t *testing.T) {
	t.Parallel()
	c := listen(t, "udp4", "127.0.0.1:0")
	done := make(chan error, 1)
	started := make(chan struct{})
	go func() {
		m := Message{Buf: make([]byte, 100)}
		close(started)
		done <- c.Receive(&m)
	}()
	<-started
	if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	wantError(t, done, os.ErrDeadlineExceeded)

	// A deadline that was taken back lets datagrams through again.
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	client := dial(t, c.LocalAddr().String())
	write(t, client, "again")
	wantReceive(t, c, client.LocalAddr(), "again")
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
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(pc)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	started := make(chan struct{})
	go func() {
		m := Message{Buf: make([]byte, 100)}
		close(started)
		done <- c.Receive(&m)
	}()
	<-started
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	wantError(t, done, net.ErrClosed)
	if err := c.Receive(&Message{Buf: make([]byte, 100)}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Receive after Close = %v", err)
	}
	if err := c.Send([]byte("text"), c.LocalAddr(), netip.Addr{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Send after Close = %v", err)
	}
}

func TestSetBuffers(t *testing.T) {
	t.Parallel()
	if err := listen(t, "udp4", "127.0.0.1:0").SetBuffers(1<<17, 1<<17); err != nil {
		t.Error(err)
	}
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
	local    net.Addr
	in, out  chan packet
	closed   chan struct{}
	deadline time.Time
}

func newFake(local textAddr) *fake {
	return &fake{local: local, in: make(chan packet, 10), out: make(chan packet, 10), closed: make(chan struct{})}
}

func mustNew(t *testing.T, pc net.PacketConn) *Conn {
	t.Helper()
	c, err := New(pc)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (f *fake) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case p := <-f.in:
		return copy(b, p.data), p.addr, nil
	case <-f.closed:
		return 0, nil, net.ErrClosed
	}
}

func (f *fake) WriteTo(b []byte, addr net.Addr) (int, error) {
	f.out <- packet{append([]byte(nil), b...), addr}
	return len(b), nil
}

func (f *fake) Close() error                       { close(f.closed); return nil }
func (f *fake) LocalAddr() net.Addr                { return f.local }
func (f *fake) SetDeadline(time.Time) error        { return errors.ErrUnsupported }
func (f *fake) SetReadDeadline(at time.Time) error { f.deadline = at; return nil }
func (f *fake) SetWriteDeadline(time.Time) error   { return errors.ErrUnsupported }

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
	if m := (Message{Buf: make([]byte, 100), Remote: netip.MustParseAddrPort("192.0.2.1:5")}); c.Receive(&m) != nil || m.Remote.IsValid() {
		t.Errorf("a sender without address and port is %v", m.Remote)
	}
	deadline := time.Unix(12345, 0)
	if err := c.SetReadDeadline(deadline); err != nil || !f.deadline.Equal(deadline) {
		t.Errorf("SetReadDeadline passed on %v, %v", f.deadline, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Receive(&Message{Buf: make([]byte, 100)}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Receive after Close = %v", err)
	}
}

func TestForeignWithoutAddress(t *testing.T) {
	t.Parallel()
	if _, err := New(newFake("nowhere")); err == nil {
		t.Error("New takes a net.PacketConn that has no address and port")
	}
}
