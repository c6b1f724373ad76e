// Package udpio is the socket of the server: it reads datagrams with the
// address that they were sent to, answers from that address, and never waits
// for a full socket. On Linux it reads and writes many with one system call.
// On systems without packet info, and on a net.PacketConn that is no UDP
// socket of the system, datagrams are read and written plainly.
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

// The errors of Send that a caller distinguishes. Others are the system's.
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
	socket socket
	sent   func(Sent)
}

// socket is a way to read and write datagrams.
type socket interface {
	// batch is how many datagrams one call of receive can bring.
	batch() int
	receive([]Message) (int, error)
	// send may keep a datagram; then it tells Conn.sent later what became of it.
	send(b []byte, remote netip.AddrPort, local netip.Addr) (kept bool, err error)
	stopWaiting(time.Time)
}

// holder is a socket that can keep datagrams to send them together.
type holder interface {
	hold()
	release()
}

// Sent says what became of a datagram that was given to Send.
type Sent struct {
	Remote netip.AddrPort
	Local  netip.Addr
	Len    int // bytes
	Err    error
}

// New takes pc over. On a wildcard socket of the system it turns packet info
// on. Of every datagram that is given to Send, sent is told once what became
// of it; it must not call Send, Hold, Release or Close.
func New(pc net.PacketConn, sent func(Sent)) (*Conn, error) {
	local, err := addrPort(pc.LocalAddr())
	if err != nil {
		return nil, err
	}
	c := &Conn{pc: pc, local: local, socket: foreign{pc}, sent: sent}
	if udp, ok := pc.(*net.UDPConn); ok {
		c.socket, err = newNative(udp, local.Addr(), sent)
	}
	return c, err
}

// NewMessages returns messages for Receive, as many as one call can bring, that
// truncate nothing.
func (c *Conn) NewMessages() []Message {
	// Buffers a whole number of pages apart would share their places in the
	// processor's caches.
	const stride = MaxDatagram + 1 + 5*64
	ms := make([]Message, c.socket.batch())
	room := make([]byte, len(ms)*stride)
	for i := range ms {
		ms[i].Buf = room[i*stride:][:MaxDatagram:MaxDatagram]
	}
	return ms
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
func (c *Conn) StopWaiting(t time.Time) { c.socket.stopWaiting(t) }

// Close closes the socket, after what was kept by Hold has been sent. Receive
// then fails with net.ErrClosed.
func (c *Conn) Close() error {
	c.Release()
	return c.pc.Close()
}

// Receive waits for a datagram and takes as many as are there, up to len(ms).
// It returns how many.
func (c *Conn) Receive(ms []Message) (int, error) { return c.socket.receive(ms) }

// Send sends b to remote, from local when that is valid. It does not wait for
// room in the socket, where the system offers that. Of what is kept because of
// Hold, a copy is, and no error is known yet.
func (c *Conn) Send(b []byte, remote netip.AddrPort, local netip.Addr) error {
	kept, err := c.socket.send(b, remote, local)
	if !kept {
		c.sent(Sent{remote, local, len(b), err})
	}
	return err
}

// Hold lets Send keep datagrams, where they can be sent together, until Release
// or for about a millisecond.
func (c *Conn) Hold() {
	if h, ok := c.socket.(holder); ok {
		h.hold()
	}
}

// Release sends what was kept since Hold.
func (c *Conn) Release() {
	if h, ok := c.socket.(holder); ok {
		h.release()
	}
}

// foreign is a net.PacketConn that is no UDP socket of the system.
type foreign struct{ pc net.PacketConn }

func (foreign) batch() int { return 1 }

func (f foreign) receive(ms []Message) (int, error) {
	m := &ms[0]
	n, from, err := f.pc.ReadFrom(m.Buf)
	if err != nil {
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return 0, os.ErrDeadlineExceeded // which some call differently
		}
		return 0, err
	}
	m.N, m.Local, m.Truncated = n, netip.Addr{}, false
	m.Remote, _ = addrPort(from)
	return 1, nil
}

func (f foreign) send(b []byte, remote netip.AddrPort, _ netip.Addr) (kept bool, err error) {
	_, err = f.pc.WriteTo(b, net.UDPAddrFromAddrPort(remote))
	return false, sendError(err)
}

func (f foreign) stopWaiting(t time.Time) { _ = f.pc.SetWriteDeadline(t) }

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
