package dtlsnet

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/pion/transport/v2/deadline"
	"github.com/pion/transport/v2/packetio"

	"github.com/dtlsserver/dtlsserver"
)

// session is what a Conn needs of a dtlsserver.Session.
type session interface {
	RemoteAddr() netip.AddrPort
	LocalAddr() netip.AddrPort
	Context() context.Context
	Write(b []byte) (int, error)
	Close() error
}

// Conn is a session as a net.Conn. Its methods are safe for concurrent use. An
// EventHandler must not call Read or Write, which may wait.
//
// The errors named below are wrapped in a *net.OpError, except io.EOF and
// io.ErrShortBuffer.
type Conn struct {
	listener *Listener
	session  session
	once     sync.Once
	closed   chan struct{} // by Close

	// reading is held by the one who waits for a message. If two waited,
	// packetio.Buffer could wake but one of them for two messages.
	reading  sync.Mutex
	messages *packetio.Buffer
	writing  *deadline.Deadline
}

func newConn(l *Listener, s session) *Conn {
	c := &Conn{
		listener: l,
		session:  s,
		closed:   make(chan struct{}),
		messages: packetio.NewBuffer(),
		writing:  deadline.New(),
	}
	c.messages.SetLimitSize(l.connBuffer)
	return c
}

// Session returns the session of the connection, with the peer's identity,
// statistics and keying material. Closing the session ends the connection, which
// must still be closed.
func (c *Conn) Session() *dtlsserver.Session {
	s, _ := c.session.(*dtlsserver.Session)
	return s
}

// Read reads one message, which may be empty. If b is too short, Read returns
// io.ErrShortBuffer and the part that fits; the rest of the message is lost. A
// buffer of 16384 bytes is always large enough.
//
// When the session has ended and all messages have been read, Read returns io.EOF
// if the peer closed the session, and otherwise the reason for its end, for
// example dtlsserver.ErrIdleTimeout. If the session was closed on this side, or
// after Close, the error is net.ErrClosed. After the deadline, it is
// os.ErrDeadlineExceeded.
func (c *Conn) Read(b []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	n, err := c.messages.Read(b)
	switch {
	case c.isClosed():
		return 0, c.opError("read", net.ErrClosed)
	case err == nil, err == io.ErrShortBuffer:
		return n, err
	case err != io.EOF:
		return 0, c.opError("read", os.ErrDeadlineExceeded)
	}
	reason := c.reason()
	if reason == dtlsserver.ErrPeerClosed {
		return 0, io.EOF
	}
	return 0, c.opError("read", reason)
}

// How long Write waits before it tries a full socket again.
const (
	minWait = time.Millisecond
	maxWait = 16 * time.Millisecond
)

// Write sends b as one message, in one record and one datagram. b may be empty.
// Write returning nil does not mean that the message arrives.
//
// Like a write to a UDP socket, Write waits while the server's socket is full. It
// never waits for the peer. If the deadline has passed or passes while Write
// waits, nothing is sent, and Write returns os.ErrDeadlineExceeded. After Close,
// it returns net.ErrClosed. If the session has ended, it returns the reason, for
// example dtlsserver.ErrPeerClosed. After other errors, such as
// dtlsserver.ErrMessageTooLong, the connection stays open.
func (c *Conn) Write(b []byte) (int, error) {
	for wait := minWait; ; wait = min(2*wait, maxWait) {
		switch {
		case c.isClosed():
			return 0, c.opError("write", net.ErrClosed)
		case c.writing.Err() != nil:
			return 0, c.opError("write", os.ErrDeadlineExceeded)
		}
		n, err := c.session.Write(b)
		switch {
		case err == nil:
			return n, nil
		case errors.Is(err, dtlsserver.ErrWriteDropped):
			c.pause(wait)
		default:
			if reason := c.reason(); reason != nil {
				err = reason
			}
			return 0, c.opError("write", err)
		}
	}
}

// pause waits, but not beyond Close or the deadline for writes.
func (c *Conn) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.closed:
	case <-c.writing.Done():
	}
}

// Close closes the connection and its session, and sends close_notify to the
// peer. Messages that have not been read are lost. Closing a connection again
// returns net.ErrClosed.
func (c *Conn) Close() error {
	first := false
	c.once.Do(func() {
		first = true
		close(c.closed)
	})
	if !first {
		return c.opError("close", net.ErrClosed)
	}
	c.session.Close()
	c.end()
	c.messages.SetReadDeadline(time.Time{}) // ends the timers
	c.writing.Set(time.Time{})
	c.listener.forget(c.session)
	return nil
}

// LocalAddr returns the address that the peer writes to, a *net.UDPAddr.
func (c *Conn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.session.LocalAddr()) }

// RemoteAddr returns the peer's address, a *net.UDPAddr. If the client has a connection
// ID, it may change: see dtlsserver.ConnectionIDs. For code that relies on an address
// that stays the same, set ConnectionIDs.Move to MoveNever, or disable connection IDs.
func (c *Conn) RemoteAddr() net.Addr { return net.UDPAddrFromAddrPort(c.session.RemoteAddr()) }

// SetDeadline sets the deadlines of Read and Write, including those of calls in
// progress. The zero time means no deadline.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline sets the deadline of Read.
func (c *Conn) SetReadDeadline(t time.Time) error {
	if c.isClosed() {
		return c.opError("set", net.ErrClosed)
	}
	return c.messages.SetReadDeadline(t)
}

// SetWriteDeadline sets the deadline of Write.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	if c.isClosed() {
		return c.opError("set", net.ErrClosed)
	}
	c.writing.Set(t)
	return nil
}

// deliver queues a message, or drops it and reports that.
func (c *Conn) deliver(message []byte) bool {
	_, err := c.messages.Write(message)
	if err == packetio.ErrFull {
		c.listener.dropped.Add(1)
		return false
	}
	return true
}

// end lets readers have what is queued, and then the reason.
func (c *Conn) end() { c.messages.Close() }

// reason says why the session is over. Nil: it is not.
func (c *Conn) reason() error { return context.Cause(c.session.Context()) }

func (c *Conn) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

func (c *Conn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "dtls", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}
