package interop

// The sockets of a client that moves, as one whose NAT gives it another port
// before each datagram.

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// moving is a net.PacketConn to a server, whose address it takes from nobody
// else. It sends from its newest socket and receives on its newest few.
//
// Sockets that it has left stay open for a while, and the first one for ever, as
// the server may still write to them: their ports must not become those of other
// tests.
type moving struct {
	server *net.UDPAddr
	few    int      // sockets to receive on
	out    net.Conn // of a pipe: what the sockets have received, a datagram for each Read
	in     net.Conn // its other end
	wait   sync.WaitGroup

	mu      sync.Mutex   // guards all following
	detour  *net.UDPConn // for the next datagram; nil: none
	first   *socket
	sockets []*socket // to receive on, the newest last
	left    []*socket // the newest last
}

// socket is a socket of moving.
type socket struct {
	*net.UDPConn
	left  atomic.Bool   // what it receives is lost
	ended chan struct{} // closed when nothing is received on it any more
}

// mostLeft bounds moving.left.
const mostLeft = 8

// newMoving begins with a socket, or with a new one if that is nil.
func newMoving(server string, few int, s *net.UDPConn) (*moving, error) {
	addr, err := net.ResolveUDPAddr("udp", server)
	if err != nil {
		return nil, err
	}
	c := &moving{server: addr, few: few}
	c.out, c.in = net.Pipe()
	if _, err := c.move(s); err != nil {
		return nil, err
	}
	return c, nil
}

// move goes on to a socket, or to a new one if that is nil, and returns its
// address.
func (c *moving) move(conn *net.UDPConn) (netip.AddrPort, error) {
	if conn == nil {
		var err error
		if conn, err = net.DialUDP("udp", nil, c.server); err != nil {
			return netip.AddrPort{}, err
		}
	}
	s := &socket{UDPConn: conn, ended: make(chan struct{})}
	c.wait.Go(func() { c.receive(s) })
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.first == nil {
		c.first = s
	}
	c.sockets = append(c.sockets, s)
	if len(c.sockets) > c.few {
		c.leaveLocked(c.sockets[0])
		c.sockets = c.sockets[1:]
	}
	return localAddr(conn), nil
}

// leaveLocked ends receiving on a socket.
func (c *moving) leaveLocked(s *socket) {
	s.left.Store(true)
	s.SetReadDeadline(time.Unix(1, 0)) // Read may return once more what comes just now
	if s == c.first {
		return
	}
	c.left = append(c.left, s)
	if len(c.left) > mostLeft {
		c.left[0].Close()
		c.left = c.left[1:]
	}
}

// give returns the socket that was left last, which is then no longer of the
// client.
func (c *moving) give() *net.UDPConn {
	c.mu.Lock()
	s := c.left[len(c.left)-1]
	c.left = c.left[:len(c.left)-1]
	c.mu.Unlock()
	<-s.ended
	s.SetReadDeadline(time.Time{})
	return s.UDPConn
}

// divert has the next datagram sent from another socket, as if somebody else had
// sent it on, who is faster than the network.
func (c *moving) divert(s *net.UDPConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.detour = s
}

// receive hands on what a socket receives until it is left.
func (c *moving) receive(s *socket) {
	defer close(s.ended)
	b := make([]byte, 1<<16)
	for {
		n, err := s.Read(b)
		if err != nil || s.left.Load() {
			return
		}
		if _, err := c.in.Write(b[:n]); err != nil {
			return
		}
	}
}

func (c *moving) ReadFrom(b []byte) (int, net.Addr, error) {
	n, err := c.out.Read(b)
	return n, c.server, err
}

func (c *moving) WriteTo(b []byte, _ net.Addr) (int, error) {
	c.mu.Lock() // the socket is not left meanwhile
	defer c.mu.Unlock()
	s := c.sockets[len(c.sockets)-1].UDPConn
	if c.detour != nil {
		s, c.detour = c.detour, nil
	}
	return s.Write(b)
}

// addr is where the next datagram is sent from.
func (c *moving) addr() netip.AddrPort {
	c.mu.Lock()
	defer c.mu.Unlock()
	return localAddr(c.sockets[len(c.sockets)-1].UDPConn)
}

func (c *moving) LocalAddr() net.Addr                { return net.UDPAddrFromAddrPort(c.addr()) }
func (c *moving) SetDeadline(t time.Time) error      { return c.SetReadDeadline(t) }
func (c *moving) SetReadDeadline(t time.Time) error  { return c.out.SetReadDeadline(t) }
func (c *moving) SetWriteDeadline(t time.Time) error { return nil } // UDP does not wait

// Close closes the sockets and waits until nothing is received. It may be called
// again, but not together with move.
func (c *moving) Close() error {
	c.mu.Lock()
	c.out.Close()
	for _, s := range slices.Concat([]*socket{c.first}, c.sockets, c.left) {
		s.Close()
	}
	c.mu.Unlock()
	c.wait.Wait()
	return nil
}

func localAddr(s *net.UDPConn) netip.AddrPort { return s.LocalAddr().(*net.UDPAddr).AddrPort() }
