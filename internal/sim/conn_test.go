package sim

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// conn is the server's socket. It has no timer of its own: a read returns when
// the world says so, with a datagram, an error, or since the deadline has come.
// So the server gets one stimulus at a time.
type conn struct {
	addr netip.AddrPort

	mu       sync.Mutex // guards all following
	changed  sync.Cond
	waiting  bool // somebody reads
	granted  *packet
	deadline time.Time
	failing  int // reads that will fail
	closed   bool
	full     bool                            // nothing can be written
	limit    func(remote netip.AddrPort) int // of datagrams to an address, of which the system knows; zero: none
	sent     []packet                        // since take
}

// packet is a datagram that has been sent, or was refused.
type packet struct {
	remote netip.AddrPort
	b      []byte
	err    error     // it did not leave
	at     time.Time // when the server sent it, which may be before the world looks
}

func newConn(addr netip.AddrPort, limit func(netip.AddrPort) int) *conn {
	c := &conn{addr: addr, limit: limit}
	c.changed.L = &c.mu
	return c
}

func (c *conn) ReadFrom(b []byte) (int, net.Addr, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = true
	defer func() { c.waiting = false }()
	for {
		switch p := c.granted; {
		case c.closed:
			return 0, nil, net.ErrClosed
		case c.overdue():
			return 0, nil, os.ErrDeadlineExceeded
		case c.failing > 0:
			c.failing--
			return 0, nil, &net.OpError{Op: "read", Net: "udp", Err: os.NewSyscallError("recvfrom", syscall.ECONNREFUSED)}
		case p != nil:
			c.granted = nil
			return copy(b, p.b), net.UDPAddrFromAddrPort(p.remote), nil
		}
		c.changed.Wait()
	}
}

func (c *conn) overdue() bool { return !c.deadline.IsZero() && !time.Now().Before(c.deadline) }

func (c *conn) WriteTo(b []byte, to net.Addr) (int, error) {
	remote := to.(*net.UDPAddr).AddrPort()
	remote = netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	p := packet{remote: remote, b: bytes.Clone(b), at: time.Now()}
	if c.full {
		p.err = &net.OpError{Op: "write", Net: "udp", Err: os.NewSyscallError("sendto", syscall.ENOBUFS)}
	} else if limit := c.limit(remote); limit > 0 && len(b) > limit {
		p.err = &net.OpError{Op: "write", Net: "udp", Err: os.NewSyscallError("sendto", syscall.EMSGSIZE)}
	}
	c.sent = append(c.sent, p)
	if p.err != nil {
		return 0, p.err
	}
	return len(b), nil
}

func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.changed.Broadcast()
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	if c.overdue() {
		c.changed.Broadcast()
	}
	return nil
}

func (c *conn) LocalAddr() net.Addr              { return net.UDPAddrFromAddrPort(c.addr) }
func (c *conn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

// ready reports whether somebody waits for a datagram.
func (c *conn) ready() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waiting && !c.closed
}

// grant has the read that waits return a datagram.
func (c *conn) grant(p *packet) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.granted = p
	c.changed.Broadcast()
}

// fail has the next reads fail.
func (c *conn) fail(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failing = n
	c.changed.Broadcast()
}

// due is when the read that waits times out.
func (c *conn) due() (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.deadline, c.waiting && !c.closed && !c.deadline.IsZero()
}

// expire ends the read whose deadline has come.
func (c *conn) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changed.Broadcast()
}

func (c *conn) setFull(full bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.full = full
}

// take returns what was sent since it was called last.
func (c *conn) take() []packet {
	c.mu.Lock()
	defer c.mu.Unlock()
	sent := c.sent
	c.sent = nil
	return sent
}
