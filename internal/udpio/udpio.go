// Package udpio is the socket of the server: it reads datagrams with the
// address that they were sent to, answers from that address, and never waits
// for a full socket. On systems without packet info, and on a net.PacketConn
// that is no UDP socket of the system, datagrams are read and written plainly.
package udpio

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"time"
)

// MaxDatagram is the size of a receive buffer that truncates nothing.
const MaxDatagram = 1<<16 - 1

// The errors of Send that a caller tells apart. Others are the system's.
var (
	// ErrFull: the socket could not take the datagram now. It is dropped.
	ErrFull = errors.New("socket buffer full")
	// ErrTooLong: the datagram is longer than the socket can send.
	ErrTooLong = errors.New("datagram too long")
)

// Message is a datagram to be received.
type Message struct {
	Buf       []byte         // the caller's; Receive fills its front
	N         int            // bytes received
	Remote    netip.AddrPort // unmapped; zero when it is no IP address and port
	Local     netip.Addr     // where it was sent to; zero when there is but one address or it is not known
	Truncated bool
}

// Conn reads and writes datagrams. One goroutine at a time may call Receive;
// the other methods are safe for concurrent use.
type Conn struct {
	pc     net.PacketConn
	local  netip.AddrPort
	native *native // nil: pc is a foreign net.PacketConn
}

// New takes pc over. On a wildcard socket of the system it turns packet info
// on.
func New(pc net.PacketConn) (*Conn, error) {
	local, err := addrPort(pc.LocalAddr())
	if err != nil {
		return nil, err
	}
	c := &Conn{pc: pc, local: local}
	if udp, ok := pc.(*net.UDPConn); ok {
		c.native, err = newNative(udp, local.Addr())
	}
	return c, err
}

// LocalAddr is the address that the socket is bound to.
func (c *Conn) LocalAddr() netip.AddrPort { return c.local }

// SetReadDeadline makes Receive fail with os.ErrDeadlineExceeded from t on.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.pc.SetReadDeadline(t) }

// SetBuffers asks the system for socket buffers of the sizes in bytes, where
// the socket has any. The system may give less.
func (c *Conn) SetBuffers(read, write int) error {
	type buffered interface {
		SetReadBuffer(int) error
		SetWriteBuffer(int) error
	}
	b, ok := c.pc.(buffered)
	if !ok {
		return nil
	}
	return errors.Join(b.SetReadBuffer(read), b.SetWriteBuffer(write))
}

// StopWaiting makes writes that wait for room fail from t on. A socket of the
// system does not wait.
func (c *Conn) StopWaiting(t time.Time) {
	if c.native == nil {
		_ = c.pc.SetWriteDeadline(t)
	}
}

// Close closes the socket. Receive then fails with net.ErrClosed.
func (c *Conn) Close() error { return c.pc.Close() }

// Receive waits for one datagram.
func (c *Conn) Receive(m *Message) error {
	if c.native != nil {
		return c.native.receive(m)
	}
	n, from, err := c.pc.ReadFrom(m.Buf)
	if err != nil {
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return os.ErrDeadlineExceeded // which some call differently
		}
		return err
	}
	m.N, m.Local, m.Truncated = n, netip.Addr{}, false
	m.Remote, _ = addrPort(from)
	return nil
}

// Send sends b to remote, from local when that is valid. It does not wait for
// room in the socket, where the system offers that.
func (c *Conn) Send(b []byte, remote netip.AddrPort, local netip.Addr) error {
	if c.native != nil {
		return c.native.send(b, remote, local)
	}
	_, err := c.pc.WriteTo(b, net.UDPAddrFromAddrPort(remote))
	return sendError(err)
}

// addrPort returns the address of a, unmapped.
func addrPort(a net.Addr) (netip.AddrPort, error) {
	if u, ok := a.(*net.UDPAddr); ok {
		return unmap(u.AddrPort()), nil
	}
	ap, err := netip.ParseAddrPort(a.String())
	return unmap(ap), err
}

func unmap(ap netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
