// Tests of what only Linux offers: packet info on wildcard sockets, all of
// 127.0.0.0/8 as local addresses, truncation and size errors. Elsewhere the
// system chooses the address that an answer leaves from.

package udpio

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// wildcards are the ways to listen on every address.
var wildcards = []struct {
	name, network, address string
	v4, v6                 bool // families it serves
}{
	{"IPv4", "udp4", ":0", true, false},
	{"IPv6", "udp6", ":0", false, true},
	{"dual stack", "udp", ":0", true, true},
	{"dual stack by the IPv4 wildcard", "udp", "0.0.0.0:0", true, true},
}

// TestAnswersFromAddress: a client that wrote to one of several local addresses
// takes answers from no other.
func TestAnswersFromAddress(t *testing.T) {
	t.Parallel()
	for _, wildcard := range wildcards {
		t.Run(wildcard.name, func(t *testing.T) {
			t.Parallel()
			if wildcard.v6 {
				needIPv6(t)
			}
			c := listen(t, wildcard.network, wildcard.address)
			if !c.LocalAddr().Addr().IsUnspecified() {
				t.Fatalf("LocalAddr() = %v", c.LocalAddr())
			}
			var addresses []string
			if wildcard.v4 {
				addresses = append(addresses, "127.0.0.1", "127.0.0.2", "127.1.2.3")
			}
			if wildcard.v6 {
				addresses = append(addresses, "::1")
			}
			// All ask before any is answered, so that an answer cannot come from
			// the address of the last question by luck.
			clients := make([]*net.UDPConn, len(addresses))
			questions := make([]Message, len(addresses))
			for i, address := range addresses {
				clients[i] = dial(t, netip.AddrPortFrom(netip.MustParseAddr(address), c.LocalAddr().Port()).String())
				write(t, clients[i], "to "+address)
				questions[i] = wantReceive(t, c, clients[i].LocalAddr(), "to "+address)
				if questions[i].Local != netip.MustParseAddr(address) {
					t.Errorf("Local = %v, want %v", questions[i].Local, address)
				}
			}
			for i, address := range addresses {
				mustSend(t, c, "from "+address, questions[i])
				wantRead(t, clients[i], "from "+address)
			}
		})
	}
}

// TestSendWithoutLocal: a wildcard socket with no local address to send from
// lets the system choose, after a datagram that had one.
func TestSendWithoutLocal(t *testing.T) {
	t.Parallel()
	c := listen(t, "udp4", ":0")
	receiver, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer receiver.Close()
	if err := receiver.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	to := netip.MustParseAddrPort(receiver.LocalAddr().String())
	for _, test := range []struct{ local, want string }{{"127.0.0.2", "127.0.0.2"}, {"", "127.0.0.1"}} {
		var local netip.Addr
		if test.local != "" {
			local = netip.MustParseAddr(test.local)
		}
		if err := c.Send([]byte("text"), to, local); err != nil {
			t.Fatal(err)
		}
		_, from, err := receiver.ReadFrom(make([]byte, 100))
		if want := netip.AddrPortFrom(netip.MustParseAddr(test.want), c.LocalAddr().Port()); err != nil || from.String() != want.String() {
			t.Errorf("sent from %v, %v, want %v", from, err, want)
		}
	}
}

// TestBroadcast: a broadcast address is none to answer from. The question goes
// to the broadcast address of loopback.
func TestBroadcast(t *testing.T) {
	t.Parallel()
	for _, wildcard := range wildcards {
		if !wildcard.v4 {
			continue
		}
		t.Run(wildcard.name, func(t *testing.T) {
			t.Parallel()
			if wildcard.v6 {
				needIPv6(t)
			}
			c := listen(t, wildcard.network, wildcard.address)
			pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			client := pc.(*net.UDPConn)
			defer client.Close()
			if err := client.SetDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			to := netip.AddrPortFrom(netip.MustParseAddr("127.255.255.255"), c.LocalAddr().Port())
			if _, err := client.WriteToUDPAddrPort([]byte("anyone?"), to); err != nil {
				t.Skipf("loopback has no broadcast address: %v", err)
			}
			m := wantReceive(t, c, client.LocalAddr(), "anyone?")
			mustSend(t, c, "here", m)
			wantRead(t, client, "here")
		})
	}
}

func TestTruncated(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"127.0.0.1:0", ":0"} {
		t.Run(address, func(t *testing.T) {
			t.Parallel()
			c := listen(t, "udp4", address)
			client := dial(t, fmt.Sprintf("127.0.0.1:%d", c.LocalAddr().Port()))
			write(t, client, "0123456789")
			write(t, client, "01234567")
			for i, truncated := range []bool{true, false} {
				m := Message{Buf: make([]byte, 8)}
				if err := c.Receive(&m); err != nil {
					t.Fatal(err)
				}
				if m.N != 8 || string(m.Buf) != "01234567" || m.Truncated != truncated {
					t.Errorf("datagram %d: %q, Truncated %v, want %v", i, m.Buf[:m.N], m.Truncated, truncated)
				}
			}
		})
	}
}

func TestTooLong(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::1]:0"} {
		t.Run(address, func(t *testing.T) {
			t.Parallel()
			if address == "[::1]:0" {
				needIPv6(t)
			}
			c := listen(t, "udp", address)
			to := c.LocalAddr()
			if to.Addr().IsUnspecified() {
				to = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), to.Port())
			}
			if err := c.Send(make([]byte, 65600), to, netip.Addr{}); !errors.Is(err, ErrTooLong) {
				t.Errorf("Send of 65600 bytes = %v, want ErrTooLong", err)
			}
			// The longest that IPv4 can carry fits a buffer of MaxDatagram.
			if err := c.Send(make([]byte, 65507), to, netip.Addr{}); err != nil {
				t.Fatal(err)
			}
			m := Message{Buf: make([]byte, MaxDatagram)}
			if err := c.Receive(&m); err != nil || m.N != 65507 || m.Truncated {
				t.Errorf("received %d bytes, truncated %v, %v", m.N, m.Truncated, err)
			}
		})
	}
}

func TestSendToOtherFamily(t *testing.T) {
	t.Parallel()
	c := listen(t, "udp4", "127.0.0.1:0")
	if err := c.Send([]byte("text"), netip.MustParseAddrPort("[::1]:9"), netip.Addr{}); !errors.Is(err, syscall.EAFNOSUPPORT) {
		t.Errorf("Send to IPv6 from an IPv4 socket = %v", err)
	}
}

// TestSendErrors: the errors that callers tell apart, and one that they do not.
func TestSendErrors(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ err, want error }{
		{nil, nil},
		{syscall.EAGAIN, ErrFull},
		{syscall.ENOBUFS, ErrFull},
		{syscall.EMSGSIZE, ErrTooLong},
		{&net.OpError{Op: "write", Err: syscall.EMSGSIZE}, ErrTooLong},
		{syscall.EPERM, syscall.EPERM},
	} {
		if got := sendError(test.err); got != test.want {
			t.Errorf("sendError(%v) = %v, want %v", test.err, got, test.want)
		}
	}
}

// TestFull: Send must say that a socket is full instead of waiting for room. On
// loopback a UDP socket never fills up, so the descriptor of a TCP connection
// that nobody reads takes its place; it ignores the address.
func TestFull(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	stream, err := net.Dial("tcp4", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if err := stream.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	c := listen(t, "udp4", "127.0.0.1:0")
	if c.native.raw, err = stream.(*net.TCPConn).SyscallConn(); err != nil {
		t.Fatal(err)
	}
	for range 1 << 16 {
		if err = c.Send(make([]byte, 1<<14), c.LocalAddr(), netip.Addr{}); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrFull) {
		t.Errorf("Send = %v, want ErrFull", err)
	}
}

// TestNewClosed: a closed wildcard socket cannot be asked for packet info.
func TestNewClosed(t *testing.T) {
	t.Parallel()
	pc, err := net.ListenPacket("udp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	pc.Close()
	if _, err := New(pc); err == nil {
		t.Error("New takes a closed wildcard socket")
	}
}

// TestAllocations is not parallel: AllocsPerRun counts the whole process.
func TestAllocations(t *testing.T) {
	for _, test := range []struct{ name, network, address, to string }{
		{"one address", "udp4", "127.0.0.1:0", "127.0.0.1"},
		{"one IPv6 address", "udp6", "[::1]:0", "::1"},
		{"IPv4 wildcard", "udp4", ":0", "127.0.0.2"},
		{"dual stack, IPv4", "udp", ":0", "127.0.0.2"},
		{"dual stack, IPv6", "udp", ":0", "::1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.to == "::1" {
				needIPv6(t)
			}
			c := listen(t, test.network, test.address)
			// The socket writes to itself: what comes in goes out once more.
			local := netip.MustParseAddr(test.to)
			self := netip.AddrPortFrom(local, c.LocalAddr().Port())
			if !c.LocalAddr().Addr().IsUnspecified() {
				local = netip.Addr{}
			}
			if err := c.Send(make([]byte, 64), self, local); err != nil {
				t.Fatal(err)
			}
			m := Message{Buf: make([]byte, 2048)}
			allocs := testing.AllocsPerRun(200, func() {
				if err := c.Receive(&m); err != nil {
					t.Fatal(err)
				}
				if err := c.Send(m.Buf[:m.N], m.Remote, m.Local); err != nil {
					t.Fatal(err)
				}
			})
			if allocs != 0 {
				t.Errorf("%v allocations for Receive and Send, want 0", allocs)
			}
			if m.N != 64 || m.Remote != self || m.Local != local {
				t.Errorf("the last message has %d bytes, Remote %v, Local %v", m.N, m.Remote, m.Local)
			}
		})
	}
}
