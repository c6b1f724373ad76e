// Tests of what only Linux offers: many datagrams with one system call, packet
// info on wildcard sockets, all of 127.0.0.0/8 as local addresses, truncation
// and size errors. Elsewhere the system chooses the address that an answer
// leaves from.

package udpio

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var systemKinds = []kind{
	{"batched", func(pc net.PacketConn, sent func(Sent)) (*Conn, error) {
		return newConn(pc, sent, func(p *plain) socket { return newBatched(p, sent) })
	}},
	{"plain", func(pc net.PacketConn, sent func(Sent)) (*Conn, error) {
		return newConn(pc, sent, func(p *plain) socket { return p })
	}},
}

func newConn(pc net.PacketConn, sent func(Sent), from func(*plain) socket) (*Conn, error) {
	local, err := addrPort(pc.LocalAddr())
	if err != nil {
		return nil, err
	}
	p, err := newPlain(pc.(*net.UDPConn), local.Addr())
	if err != nil {
		return nil, err
	}
	return &Conn{pc: pc, local: local, socket: from(p), sent: sent}, nil
}

// eachSystemSocket runs a test with every kind of UDP socket of the system.
func eachSystemSocket(t *testing.T, test func(*testing.T, opener)) {
	t.Helper()
	eachOf(t, systemKinds, test)
}

// plainOf returns what is in a socket of the system of any kind.
func plainOf(c *testConn) *plain {
	if b, ok := c.socket.(*batched); ok {
		return b.plain
	}
	return c.socket.(*plain)
}

// holdOn begins a hold that does not end of itself, and reports whether
// datagrams are kept.
func holdOn(t *testing.T, c *testConn) bool {
	t.Helper()
	c.Hold()
	b, ok := c.socket.(*batched)
	if !ok {
		return false
	}
	for start := time.Now(); !b.timer.Stop(); c.Hold() { // it has ended already
		if time.Since(start) > patience {
			t.Fatal("no hold can be stopped from ending")
		}
	}
	return true
}

// wantNothing checks that nothing has come.
func wantNothing(t *testing.T, conn *net.UDPConn) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var came error
	if err := raw.Read(func(fd uintptr) bool {
		_, _, came = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return true
	}); err != nil || came != unix.EAGAIN {
		t.Errorf("a read that does not wait: %v, %v, want EAGAIN", err, came)
	}
}

// listenOn returns a receiver of datagrams from anywhere, and a deadline.
func listenOn(t *testing.T, address string) (*net.UDPConn, netip.AddrPort) {
	t.Helper()
	pc, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	if err := pc.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	conn := pc.(*net.UDPConn)
	return conn, addrOf(conn)
}

// TestNewKind: New chooses batches for a UDP socket of the system only.
func TestNewKind(t *testing.T) {
	t.Parallel()
	c := kind{"", New}.open(t, "udp4", "127.0.0.1:0")
	if _, ok := c.socket.(*batched); !ok || len(c.NewMessages()) != batchLen {
		t.Errorf("New makes a %T of %d messages", c.socket, len(c.NewMessages()))
	}
	for _, k := range kinds[1:] {
		if c := k.open(t, "udp4", "127.0.0.1:0"); len(c.NewMessages()) != 1 {
			t.Errorf("%s: %d messages", k.name, len(c.NewMessages()))
		}
	}
}

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
			eachSystemSocket(t, func(t *testing.T, open opener) {
				c := open(t, wildcard.network, wildcard.address)
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
					questions[i] = wantReceive(t, c.Conn, clients[i].LocalAddr(), "to "+address)
					if questions[i].Local != netip.MustParseAddr(address) {
						t.Errorf("Local = %v, want %v", questions[i].Local, address)
					}
				}
				for i, address := range addresses {
					mustSend(t, c, "from "+address, questions[i])
					wantRead(t, clients[i], "from "+address)
				}
				c.takeTold()

				// And once more, all together.
				kept := holdOn(t, c)
				for n := range 3 {
					for i, address := range addresses {
						mustSend(t, c, fmt.Sprint(n, " from ", address), questions[i])
					}
				}
				if kept {
					for _, client := range clients {
						wantNothing(t, client)
					}
					if told := c.takeTold(); len(told) != 0 {
						t.Errorf("told of %v, which is kept", told)
					}
				}
				c.Release()
				told := c.takeTold()
				if len(told) != 3*len(addresses) {
					t.Fatalf("told of %v", told)
				}
				for n := range 3 {
					for i, address := range addresses {
						text := fmt.Sprint(n, " from ", address)
						wantRead(t, clients[i], text)
						if want := (Sent{questions[i].Remote, questions[i].Local, len(text), nil}); told[n*len(addresses)+i] != want {
							t.Errorf("told of %v, want %v", told[n*len(addresses)+i], want)
						}
					}
				}
			})
		})
	}
}

// TestReceiveBatch has the places of a batch taken in turn by datagrams of
// other senders and families, to other addresses, longer and shorter.
func TestReceiveBatch(t *testing.T) {
	t.Parallel()
	needIPv6(t)
	eachSystemSocket(t, func(t *testing.T, open opener) {
		const size = 100
		c := open(t, "udp", ":0")
		locals := []string{"127.0.0.1", "::1", "127.0.0.2", "127.1.2.3"}
		clients := make([]*net.UDPConn, len(locals))
		for i, local := range locals {
			clients[i] = dial(t, netip.AddrPortFrom(netip.MustParseAddr(local), c.LocalAddr().Port()).String())
		}
		ms := c.NewMessages()
		for i := range ms {
			ms[i].Buf = ms[i].Buf[:size]
		}
		next, full, start := 0, false, time.Now()
		for round := 0; round < 200/len(ms) || !full; round++ {
			if time.Since(start) > patience { // a call may bring fewer than have been written
				t.Fatal("no call brings a whole batch")
			}
			var who []int
			var texts []string
			for i := range len(ms) {
				who = append(who, (round+i)%len(clients))
				texts = append(texts, (fmt.Sprint(next) + strings.Repeat(".", size+20))[:next*37%150*(size+20)/150])
				write(t, clients[who[i]], texts[i])
				next++
			}
			for got := 0; got < len(who); {
				n, err := c.Receive(ms)
				if err != nil || n == 0 || got+n > len(who) {
					t.Fatalf("Receive = %d, %v", n, err)
				}
				full = full || n == len(ms)
				for _, m := range ms[:n] {
					text, from := texts[got], who[got]
					got++
					if want := text[:min(len(text), size)]; string(m.Buf[:m.N]) != want || m.Truncated != (len(text) > size) {
						t.Fatalf("received %q, Truncated %v, want %q of %d bytes", m.Buf[:m.N], m.Truncated, want, len(text))
					}
					if want := addrOf(clients[from]); m.Remote != want || m.Local != netip.MustParseAddr(locals[from]) {
						t.Fatalf("Remote = %v, Local = %v, want %v, %v", m.Remote, m.Local, want, locals[from])
					}
				}
			}
		}
	})
}

// TestReceiveFew: of what waits, Receive takes as many as there are messages,
// and as much of each as there is room for.
func TestReceiveFew(t *testing.T) {
	t.Parallel()
	eachSystemSocket(t, func(t *testing.T, open opener) {
		c := open(t, "udp4", "127.0.0.1:0")
		client := dial(t, c.LocalAddr().String())
		for i := range 3 * batchLen {
			write(t, client, fmt.Sprint(i))
		}
		next := 0
		for call, few := range []int{1, 2, 3, batchLen, 2 * batchLen} {
			ms := make([]Message, few)
			for i := range ms {
				ms[i].Buf = make([]byte, 1+call%2*(1+i%2)) // which changes from call to call
			}
			n, err := c.Receive(ms)
			if err != nil || n < 1 || n > min(few, batchLen) {
				t.Fatalf("Receive of up to %d = %d, %v", few, n, err)
			}
			for _, m := range ms[:n] {
				text := fmt.Sprint(next)
				if want := text[:min(len(text), len(m.Buf))]; string(m.Buf[:m.N]) != want || m.Truncated != (want != text) {
					t.Errorf("received %q, Truncated %v, want %q of %s", m.Buf[:m.N], m.Truncated, want, text)
				}
				next++
			}
			for _, m := range ms[n:] {
				if m.N != 0 || m.Remote.IsValid() {
					t.Errorf("a message that was not received: %v", m)
				}
			}
		}
	})
}

// TestSendWithoutLocal: a wildcard socket with no local address to send from
// lets the system choose, after a datagram that had one.
func TestSendWithoutLocal(t *testing.T) {
	t.Parallel()
	eachSystemSocket(t, func(t *testing.T, open opener) {
		for _, hold := range []bool{false, true} {
			c := open(t, "udp4", ":0")
			receiver, to := listenOn(t, "127.0.0.1:0")
			for _, test := range []struct{ local, want string }{{"127.0.0.2", "127.0.0.2"}, {"", "127.0.0.1"}} {
				var local netip.Addr
				if test.local != "" {
					local = netip.MustParseAddr(test.local)
				}
				if hold { // each takes the first place
					c.Hold()
				}
				if err := c.Send([]byte("text"), to, local); err != nil {
					t.Fatal(err)
				}
				c.Release()
				_, from, err := receiver.ReadFrom(make([]byte, 100))
				if want := netip.AddrPortFrom(netip.MustParseAddr(test.want), c.LocalAddr().Port()); err != nil || from.String() != want.String() {
					t.Errorf("sent from %v, %v, want %v", from, err, want)
				}
			}
		}
	})
}

// TestKeepsNoMore: what is too much to be kept leaves early, and in order.
func TestKeepsNoMore(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		sizes []int
		kept  int // at the end, where any are
	}{
		{"many", repeat(8, 3*batchLen+5), 5},
		{"as many as leave at once", repeat(8, batchLen), batchLen},
		{"much", repeat(20000, 5), 2},
		{"the longest", []int{8, 65507, 30}, 1},
		{"the longest first", []int{65507, 8, 8}, 3},
		{"to the last byte, then nothing", []int{65507, keptBytes - 65507, 0, 0}, 4},
		{"one more byte", []int{65507, keptBytes - 65507, 1, 0}, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			eachSystemSocket(t, func(t *testing.T, open opener) {
				c := open(t, "udp4", ":0")
				receiver, to := listenOn(t, "127.0.0.1:0")
				if err := receiver.SetReadBuffer(1 << 20); err != nil {
					t.Fatal(err)
				}
				data, n := make([]byte, 65507), len(test.sizes)
				kept := holdOn(t, c)
				for i, size := range test.sizes {
					for j := range data[:size] {
						data[j] = byte(i)
					}
					if err := c.Send(data[:size], to, netip.AddrFrom4([4]byte{127, 0, 0, byte(1 + i)})); err != nil {
						t.Fatal(err)
					}
				}
				told := c.takeTold()
				if kept && len(told) != n-test.kept {
					t.Errorf("told of %d of %d datagrams before Release, want %d", len(told), n, n-test.kept)
				}
				c.Release()
				told = append(told, c.takeTold()...)
				if len(told) != n {
					t.Fatalf("told of %d of %d datagrams", len(told), n)
				}
				buf := make([]byte, MaxDatagram)
				for i, size := range test.sizes {
					got, from, err := receiver.ReadFromUDPAddrPort(buf)
					want := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(1 + i)}), c.LocalAddr().Port())
					if err != nil || got != size || unmap(from) != want {
						t.Fatalf("datagram %d: %d bytes from %v, %v, want %d from %v", i, got, from, err, size, want)
					}
					for _, b := range buf[:got] {
						if b != byte(i) {
							t.Fatalf("datagram %d holds bytes of %d", i, b)
						}
					}
					if want := (Sent{to, want.Addr(), size, nil}); told[i] != want {
						t.Errorf("told of %v, want %v", told[i], want)
					}
				}
			})
		})
	}
}

func repeat(size, n int) []int {
	sizes := make([]int, n)
	for i := range sizes {
		sizes[i] = size
	}
	return sizes
}

// TestRefused: what the system refuses, or what cannot be kept, does not hold up
// the rest, and is told as without a hold.
func TestRefused(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ network, loopback, notOurs, otherFamily string }{
		{"udp4", "127.0.0.1", "198.51.100.1", "[::1]:9"},
		{"udp6", "::1", "2001:db8::1", "127.0.0.1:9"},
	} {
		t.Run(test.network, func(t *testing.T) {
			t.Parallel()
			if test.network == "udp6" {
				needIPv6(t)
			}
			eachSystemSocket(t, func(t *testing.T, open opener) {
				c := open(t, test.network, ":0")
				loopback := netip.MustParseAddr(test.loopback)
				receiver, to := listenOn(t, netip.AddrPortFrom(loopback, 0).String())
				type send struct {
					data   []byte
					remote netip.AddrPort
					local  netip.Addr
				}
				good := send{[]byte("good"), to, loopback}
				bad := []send{
					{[]byte("to port 0"), netip.AddrPortFrom(loopback, 0), netip.Addr{}},
					{[]byte("from elsewhere"), to, netip.MustParseAddr(test.notOurs)},
					{make([]byte, MaxDatagram), to, loopback},
					{make([]byte, keptBytes+1), to, loopback},
					{[]byte("other family"), netip.MustParseAddrPort(test.otherFamily), netip.Addr{}},
				}
				want := make([]error, len(bad))
				for i, s := range bad {
					if want[i] = c.Send(s.data, s.remote, s.local); want[i] == nil {
						t.Fatalf("the system sends %.20q from %v to %v", s.data, s.local, s.remote)
					}
				}
				if !errors.Is(want[2], ErrTooLong) || !errors.Is(want[3], ErrTooLong) {
					t.Errorf("sends of too much: %v, %v", want[2], want[3])
				}
				c.takeTold()
				for _, order := range [][]int{ // -1: good
					{-1, 0, -1, 1, 2, 3, -1, 4, -1},
					{0, -1, -1, 4, 1, 3, 2},
					{0, 1, 0, 1, 2},
					{-1, -1, -1, 0},
				} {
					holdOn(t, c)
					for _, i := range order {
						s := good
						if i >= 0 {
							s = bad[i]
						}
						err := c.Send(s.data, s.remote, s.local) // or told later
						if err != nil && (i < 0 || err.Error() != want[i].Error()) {
							t.Errorf("Send of %.20q while holding = %v", s.data, err)
						}
					}
					c.Release()
					told := c.takeTold()
					if len(told) != len(order) {
						t.Fatalf("told of %v", told)
					}
					for n, i := range order {
						s, err := good, error(nil)
						if i >= 0 {
							s, err = bad[i], want[i]
						}
						if got := told[n]; got.Remote != s.remote || got.Local != s.local || got.Len != len(s.data) || fmt.Sprint(got.Err) != fmt.Sprint(err) {
							t.Errorf("%v: told of %v, want %d bytes from %v to %v, %v", order, got, len(s.data), s.local, s.remote, err)
						}
						if i < 0 {
							wantRead(t, receiver, "good")
						}
					}
					wantNothing(t, receiver)
				}
			})
		})
	}
}

// TestZone: a link-local address needs its interface, and an answer to it goes
// after what is kept.
func TestZone(t *testing.T) {
	t.Parallel()
	local := linkLocal(t)
	eachSystemSocket(t, func(t *testing.T, open opener) {
		for _, address := range []string{"[::]:0", netip.AddrPortFrom(local, 0).String()} {
			c := open(t, "udp6", address)
			client := dial(t, netip.AddrPortFrom(local, c.LocalAddr().Port()).String())
			write(t, client, "question")
			m := wantReceive(t, c.Conn, client.LocalAddr(), "question")
			if m.Remote.Addr().Zone() != local.Zone() {
				t.Errorf("Remote = %v, want zone %s", m.Remote, local.Zone())
			}
			mustSend(t, c, "answer", m)
			wantRead(t, client, "answer")
			holdOn(t, c)
			mustSend(t, c, "to itself", Message{Remote: netip.AddrPortFrom(local.WithZone(""), 9)}) // whether or not it may
			mustSend(t, c, "another answer", m)
			told := c.takeTold()
			c.Release()
			if told = append(told, c.takeTold()...); len(told) != 3 || told[1].Len != len("to itself") || told[2].Remote != m.Remote || told[2].Err != nil {
				t.Errorf("told of %v", told)
			}
			wantRead(t, client, "another answer")
		}
	})
}

// linkLocal returns an address of this machine with its zone.
func linkLocal(t *testing.T) netip.Addr {
	t.Helper()
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil || i.Flags&net.FlagUp == 0 {
			continue
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() {
				return p.Addr().WithZone(i.Name)
			}
		}
	}
	t.Skip("no link-local address")
	return netip.Addr{}
}

// TestAddress: what the system says of a sender.
func TestAddress(t *testing.T) {
	t.Parallel()
	b := kind{"", New}.open(t, "udp4", "127.0.0.1:0").socket.(*batched)
	loopback, err := net.InterfaceByIndex(1)
	if err != nil {
		t.Skip(err)
	}
	for _, test := range []struct {
		family uint16
		addr   string
		scope  uint32
		want   string
	}{
		{unix.AF_INET6, "fe80::1", 1, "[fe80::1%" + loopback.Name + "]:258"},
		{unix.AF_INET6, "fe80::1", 1, "[fe80::1%" + loopback.Name + "]:258"},
		{unix.AF_INET6, "fe80::1", 1 << 30, "[fe80::1%1073741824]:258"}, // gone
		{unix.AF_INET6, "2001:db8::1", 0, "[2001:db8::1]:258"},
		{unix.AF_INET6, "::ffff:192.0.2.1", 0, "192.0.2.1:258"},
		{unix.AF_UNIX, "::", 0, "invalid AddrPort"},
	} {
		name := unix.RawSockaddrInet6{Family: test.family, Addr: netip.MustParseAddr(test.addr).As16(), Scope_id: test.scope}
		setPort(&name.Port, 258)
		if got := b.address(&name); got.String() != test.want {
			t.Errorf("address of %v = %v, want %v", name, got, test.want)
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
			eachSystemSocket(t, func(t *testing.T, open opener) {
				c := open(t, wildcard.network, wildcard.address)
				client, _ := listenOn(t, "127.0.0.1:0")
				to := netip.AddrPortFrom(netip.MustParseAddr("127.255.255.255"), c.LocalAddr().Port())
				if _, err := client.WriteToUDPAddrPort([]byte("anyone?"), to); err != nil {
					t.Skipf("loopback has no broadcast address: %v", err)
				}
				m := wantReceive(t, c.Conn, client.LocalAddr(), "anyone?")
				mustSend(t, c, "here", m)
				wantRead(t, client, "here")
			})
		})
	}
}

func TestTruncated(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"127.0.0.1:0", ":0"} {
		t.Run(address, func(t *testing.T) {
			t.Parallel()
			eachSystemSocket(t, func(t *testing.T, open opener) {
				c := open(t, "udp4", address)
				client := dial(t, fmt.Sprintf("127.0.0.1:%d", c.LocalAddr().Port()))
				write(t, client, "0123456789")
				write(t, client, "01234567")
				for i, truncated := range []bool{true, false} {
					m := Message{Buf: make([]byte, 8)}
					if err := receive(c.Conn, &m); err != nil {
						t.Fatal(err)
					}
					if m.N != 8 || string(m.Buf) != "01234567" || m.Truncated != truncated {
						t.Errorf("datagram %d: %q, Truncated %v, want %v", i, m.Buf[:m.N], m.Truncated, truncated)
					}
				}
			})
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
			eachOf(t, kinds, func(t *testing.T, open opener) {
				c := open(t, "udp", address)
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
				if err := receive(c.Conn, &m); err != nil || m.N != 65507 || m.Truncated {
					t.Errorf("received %d bytes, truncated %v, %v", m.N, m.Truncated, err)
				}
			})
		})
	}
}

func TestSendToOtherFamily(t *testing.T) {
	t.Parallel()
	eachSystemSocket(t, func(t *testing.T, open opener) {
		c := open(t, "udp4", "127.0.0.1:0")
		if err := c.Send([]byte("text"), netip.MustParseAddrPort("[::1]:9"), netip.Addr{}); !errors.Is(err, syscall.EAFNOSUPPORT) {
			t.Errorf("Send to IPv6 from an IPv4 socket = %v", err)
		}
	})
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

// TestFull: it must be said that a socket is full, instead of waiting for room.
// On loopback a UDP socket never fills up, so the descriptor of a TCP
// connection that nobody reads takes its place; it ignores the address.
func TestFull(t *testing.T) {
	t.Parallel()
	eachSystemSocket(t, func(t *testing.T, open opener) {
		for _, hold := range []bool{false, true} {
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
			c := open(t, "udp4", "127.0.0.1:0")
			if plainOf(c).raw, err = stream.(*net.TCPConn).SyscallConn(); err != nil {
				t.Fatal(err)
			}
			full := false
			for range 1 << 16 {
				kept := hold && holdOn(t, c)
				for range 2 {
					if err := c.Send(make([]byte, 1<<14), c.LocalAddr(), netip.Addr{}); err != nil && (kept || err != ErrFull) {
						t.Fatalf("Send = %v", err)
					}
				}
				c.Release()
				told := c.takeTold()
				if len(told) != 2 {
					t.Fatalf("told of %v", told)
				}
				if full = told[1].Err == ErrFull; full {
					break
				}
			}
			if !full {
				t.Error("never told of ErrFull")
			}
		}
	})
}

// TestNewClosed: a closed wildcard socket cannot be asked for packet info.
func TestNewClosed(t *testing.T) {
	t.Parallel()
	for _, address := range []string{":0", "127.0.0.1:0"} {
		pc, err := net.ListenPacket("udp4", address)
		if err != nil {
			t.Fatal(err)
		}
		pc.Close()
		if _, err := New(pc, func(Sent) {}); err == nil {
			t.Errorf("New takes a closed socket of %s", address)
		}
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
		for _, k := range systemKinds {
			for _, count := range []int{1, batchLen} {
				t.Run(fmt.Sprintf("%s/%s/%d", test.name, k.name, count), func(t *testing.T) {
					if test.to == "::1" {
						needIPv6(t)
					}
					c := k.open(t, test.network, test.address).Conn // tells no testConn
					told := 0
					c.sent = func(Sent) { told++ }
					if b, ok := c.socket.(*batched); ok {
						b.sent = c.sent
					}
					// The socket writes to itself: what comes in goes out once more.
					local := netip.MustParseAddr(test.to)
					self := netip.AddrPortFrom(local, c.LocalAddr().Port())
					if !c.LocalAddr().Addr().IsUnspecified() {
						local = netip.Addr{}
					}
					for range count {
						if err := c.Send(make([]byte, 64), self, local); err != nil {
							t.Fatal(err)
						}
					}
					ms := c.NewMessages()
					const runs = 200
					allocs := testing.AllocsPerRun(runs, func() {
						for left := count; left > 0; {
							n, err := echo(c, ms[:min(left, len(ms))])
							if err != nil {
								t.Fatal(err)
							}
							left -= n
						}
					})
					if allocs != 0 {
						t.Errorf("%v allocations for Receive and Send, want 0", allocs)
					}
					if m := ms[0]; m.N != 64 || m.Remote != self || m.Local != local {
						t.Errorf("the last message has %d bytes, Remote %v, Local %v", m.N, m.Remote, m.Local)
					}
					c.Release()
					if want := count * (runs + 2); told != want { // one run is to warm up
						t.Errorf("told of %d datagrams, want %d", told, want)
					}
				})
			}
		}
	}
}
