package dtlsnet

// nettest over UDP sockets, with a client that others wrote at the other end.

import (
	"net"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/net/nettest"
)

// inFlight is how many datagrams nettest's server may have on the way. The
// socket buffers of the client hold them, and all that they are answered with
// fits the connection's queue.
const inFlight = 32

// serverSocket is a UDP socket that is full when too much is on the way, so
// that the kernel drops nothing. BasicIO needs each of its 1024 messages; and
// FutureTimeout and ConcurrentMethods wait for the last of many.
type serverSocket struct {
	*net.UDPConn
	onTheWay *atomic.Int64
}

func (s serverSocket) WriteTo(b []byte, to net.Addr) (int, error) {
	const alert = 64 // bytes: close_notify, which is not sent twice, has less
	if s.onTheWay.Load() >= inFlight && len(b) > alert {
		return 0, syscall.ENOBUFS
	}
	n, err := s.UDPConn.WriteTo(b, to)
	if err == nil {
		s.onTheWay.Add(1)
	}
	return n, err
}

type countingSocket struct {
	net.Conn
	onTheWay *atomic.Int64
}

func (c countingSocket) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == nil {
		c.onTheWay.Add(-1)
	}
	return n, err
}

// TestUDP: the contract of net.Conn over UDP sockets.
func TestUDP(t *testing.T) {
	t.Parallel()
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		onTheWay := new(atomic.Int64)
		server := newServer()
		server.ListenPacket = func(network, address string) (net.PacketConn, error) {
			addr, err := net.ResolveUDPAddr(network, address)
			if err != nil {
				return nil, err
			}
			conn, err := net.ListenUDP(network, addr)
			return serverSocket{conn, onTheWay}, err
		}
		listener, err := Listen("udp", "127.0.0.1:0", server)
		if err != nil {
			return nil, nil, nil, err
		}
		socket, err := net.Dial("udp", listener.Addr().String())
		if err != nil {
			return nil, nil, nil, err
		}
		client, err := handshake(countingSocket{socket, onTheWay})
		if err != nil {
			return nil, nil, nil, err
		}
		conn, err := listener.Accept()
		return conn, client, func() {
			client.Close()
			conn.Close()
			listener.Close()
		}, err
	})
}
