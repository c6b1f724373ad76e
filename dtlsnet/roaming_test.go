package dtlsnet

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dtlsserver/dtlsserver/dtlsservertest"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	dtlswire "github.com/dtlsserver/dtlsserver/internal/wire"
)

// TestRoaming: a Conn lives on when its peer's address changes, and what a goroutine
// writes reaches the peer, although nothing has proven the new address. When the
// return routability check has, RemoteAddr is the new one.
func TestRoaming(t *testing.T) {
	t.Parallel()
	for _, checks := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			network := dtlsservertest.NewNetwork(t, dtlsservertest.Link{Delay: 20 * time.Millisecond})
			server := newServer()
			server.ListenPacket = network.ListenPacket
			listener, err := Listen("udp", ":4433", server)
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			socket, err := network.Dial("udp", listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer socket.Close()
			c := testpeer.New("sensor-1", []byte("sixteen byte key"), 1)
			c.CID, c.CheckPaths = []byte{}, checks
			send := func(b []byte) {
				if _, err := socket.Write(b); err != nil {
					t.Fatal(err)
				}
				for buf := make([]byte, 2048); ; {
					socket.SetReadDeadline(time.Now().Add(time.Second))
					n, err := socket.Read(buf)
					if err != nil {
						return
					}
					if err := c.Receive(append([]byte(nil), buf[:n]...)); err != nil {
						t.Fatal(err)
					}
					for _, p := range c.Paths {
						_, _ = socket.Write(c.Path(dtlswire.PathResponse, p.Cookie))
					}
					c.Paths = nil
				}
			}
			send(c.Hello())
			send(c.Hello())
			send(c.Flight())
			conn, err := listener.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			go io.Copy(conn, conn)
			first, last := conn.RemoteAddr().String(), socket.LocalAddr()
			for i := range 5 {
				last = net.UDPAddrFromAddrPort(network.Rebind(socket))
				send(c.Sealed(dtlswire.ContentApplicationData, []byte("from a new address")))
				if len(c.Data) != i+1 {
					t.Fatalf("after %d messages, %d answers", i+1, len(c.Data))
				}
			}
			want := first
			if checks {
				want = last.String()
			}
			if got := conn.RemoteAddr().String(); got != want {
				t.Errorf("with a check: %v. RemoteAddr() = %v, want %v", checks, got, want)
			}
		})
	}
}
