package dtlsservertest

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// sendFrom sends a text, and wants it to come from an address.
func sendFrom(t *testing.T, sender net.Conn, receiver net.PacketConn, text string, from netip.AddrPort) {
	t.Helper()
	if _, err := io.WriteString(sender, text); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	receiver.SetReadDeadline(time.Now().Add(time.Minute))
	n, addr, err := receiver.ReadFrom(b)
	if err != nil || string(b[:n]) != text || addr.String() != from.String() {
		t.Fatalf("got %q from %v, %v, want %q from %v", b[:n], addr, err, text, from)
	}
}

// receive returns what a socket receives within a time that no datagram takes.
func receive(conn net.Conn) (texts []string) {
	conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	for b := make([]byte, 100); ; {
		n, err := conn.Read(b)
		if err != nil {
			return texts
		}
		texts = append(texts, string(b[:n]))
	}
}

// TestRebind: what a socket sends comes from its new address, and what is sent to
// the old one is lost, or not, as the link says.
func TestRebind(t *testing.T) {
	t.Parallel()
	for _, keep := range []bool{false, true} {
		t.Run(fmt.Sprintf("KeepAddrs %v", keep), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { testRebind(t, keep) })
		})
	}
	t.Run("real clock", func(t *testing.T) {
		t.Parallel()
		testRebind(t, false)
	})
}

func testRebind(t *testing.T, keep bool) {
	network := NewNetwork(t, Link{KeepAddrs: keep})
	server, err := network.ListenPacket("udp", ":4433")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	client, err := network.Dial("udp", server.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	addrs := []netip.AddrPort{netip.MustParseAddrPort(client.LocalAddr().String())}
	sendFrom(t, client, server, "before", addrs[0])
	for range 3 {
		addr := network.Rebind(client)
		sendFrom(t, client, server, "after", addr)
		want(t, client.LocalAddr().String(), addrs[0].String())
		addrs = append(addrs, addr)
	}
	for i, addr := range addrs {
		server.WriteTo(fmt.Append(nil, i), net.UDPAddrFromAddrPort(addr))
	}
	want(t, fmt.Sprint(receive(client)), map[bool]string{false: "[3]", true: "[0 1 2 3]"}[keep])
	want(t, network.Stats().Stray, map[bool]uint64{false: 3, true: 0}[keep])

	// Another socket has the addresses that a closed one has had.
	client.Close()
	for _, addr := range addrs {
		again, err := network.ListenPacket("udp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		server.WriteTo([]byte("again"), net.UDPAddrFromAddrPort(addr))
		b := make([]byte, 100)
		again.SetReadDeadline(time.Now().Add(time.Minute))
		if n, _, err := again.ReadFrom(b); err != nil || string(b[:n]) != "again" {
			t.Errorf("at %v: %q, %v", addr, b[:n], err)
		}
		again.Close()
	}
}

// TestRebindUnderWay: what was sent before comes from the old address, and what was
// sent to it is lost.
func TestRebindUnderWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		network := NewNetwork(t, Link{Delay: 10 * time.Millisecond})
		server, err := network.ListenPacket("udp", ":4433")
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		client, err := network.Dial("udp", server.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		server.WriteTo([]byte("to the old address"), client.LocalAddr())
		client.Write([]byte("from the old address"))
		addr := network.Rebind(client)
		b := make([]byte, 100)
		n, from, err := server.ReadFrom(b)
		if err != nil || string(b[:n]) != "from the old address" || from.String() != client.LocalAddr().String() {
			t.Errorf("%q from %v, %v", b[:n], from, err)
		}
		sendFrom(t, client, server, "from the new address", addr)
		want(t, len(receive(client)), 0)
		want(t, network.Stats().Stray, 1)
	})
}

// TestRebindFails: only what is an open socket of the network can be rebound.
func TestRebindFails(t *testing.T) {
	t.Parallel()
	for name, dial := range map[string]func(t testing.TB, network *Network) net.Conn{
		"closed": func(t testing.TB, network *Network) net.Conn {
			conn, _ := network.Dial("udp", "192.0.2.1:1")
			conn.Close()
			return conn
		},
		"of another network": func(t testing.TB, _ *Network) net.Conn {
			conn, _ := NewNetwork(t, Link{}).Dial("udp", "192.0.2.1:1")
			return conn
		},
		"of the system": func(t testing.TB, _ *Network) net.Conn {
			conn, _ := net.Dial("udp", "127.0.0.1:1")
			t.Cleanup(func() { conn.Close() })
			return conn
		},
	} {
		if text, failed := failing(t, func(t testing.TB) {
			network := NewNetwork(t, Link{})
			network.Rebind(dial(t, network))
		}); !failed || !strings.Contains(text, "is the address of no open socket") {
			t.Errorf("%s: failed %v, with %q", name, failed, text)
		}
	}
}

// TestRebindWithoutConnectionID: the session of a client that has no connection ID
// does not survive, and a new one is served.
func TestRebindWithoutConnectionID(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := startOn(t, NewNetwork(t, Link{Delay: time.Millisecond}), echo)
		client := server.Dial()
		want(t, client.Ask("before"), "before")
		addr := server.Network.Rebind(client)
		client.Write([]byte("after"))
		client.SetReadDeadline(time.Now().Add(time.Minute))
		_, err := client.Read(make([]byte, 100))
		wantIs(t, err, os.ErrDeadlineExceeded)
		want(t, server.Events.Want(dtlsserver.KindUnexpectedDatagram, "after Rebind").Remote, addr)
		want(t, client.Session().RemoteAddr().String(), client.LocalAddr().String())
		want(t, server.Stats().PeersMoved, 0)
		want(t, server.Dial().Ask("anew"), "anew")
	})
}

// roamer is a client with a connection ID, driven by hand over a socket of a
// Network.
type roamer struct {
	*testpeer.Client
	t    *testing.T
	conn net.Conn
}

// newRoamer returns a roamer that is connected.
func newRoamer(t *testing.T, server *Server, checkPaths bool) *roamer {
	t.Helper()
	conn, err := server.DialUDP()
	if err != nil {
		t.Fatal(err)
	}
	r := &roamer{testpeer.New(server.Identity, server.Key, 1), t, conn}
	r.CID, r.CheckPaths = []byte{}, checkPaths // it needs none itself
	r.exchange(r.Hello(), func() bool { return r.Cookie != nil })
	r.exchange(r.Hello(), func() bool { return r.HelloDone })
	r.exchange(r.Flight(), func() bool { return r.Complete })
	return r
}

// exchange sends a datagram, and receives until it is done.
func (r *roamer) exchange(datagram []byte, done func() bool) {
	r.t.Helper()
	if _, err := r.conn.Write(datagram); err != nil {
		r.t.Fatal(err)
	}
	r.conn.SetReadDeadline(time.Now().Add(time.Minute))
	for b := make([]byte, 2048); !done(); {
		n, err := r.conn.Read(b)
		if err == nil {
			err = r.Receive(b[:n])
		}
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

// ask sends a message, and wants it back.
func (r *roamer) ask(text string) {
	r.t.Helper()
	r.Data = nil
	r.exchange(r.Sealed(wire.ContentApplicationData, []byte(text)), func() bool { return r.Data != nil })
	want(r.t, string(r.Data[0]), text)
}

// TestRebindWithConnectionID: the session of a client with a connection ID goes on.
// If the client supports the return routability check, the session moves to where it
// is.
func TestRebindWithConnectionID(t *testing.T) {
	t.Parallel()
	for _, checkPaths := range []bool{false, true} {
		t.Run(fmt.Sprintf("check %v", checkPaths), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				server := startOn(t, NewNetwork(t, Link{Delay: time.Millisecond}), echo)
				client := newRoamer(t, server, checkPaths)
				client.ask("before")
				session := server.Events.Want(dtlsserver.KindHandshakeComplete, "after the client's Finished").Session
				before := session.RemoteAddr()
				for i := range 5 {
					addr := server.Network.Rebind(client.conn)
					client.ask(fmt.Sprintf("after %d", i))
					if !checkPaths {
						at, _ := session.CandidateAddr()
						want(t, at, addr)
						continue
					}
					last := len(client.Paths) - 1
					client.exchange(client.Path(wire.PathResponse, client.Paths[last].Cookie), func() bool { return true })
					moved := server.Events.Want(dtlsserver.KindPeerMoved, "after the answer")
					want(t, moved.Remote, addr)
					want(t, moved.PreviousRemote, before)
					before = addr
				}
				want(t, session.RemoteAddr(), before)
				want(t, server.Stats().HandshakesCompleted, 1)
				client.conn.Close()
			})
		})
	}
}
