package dtlsservertest

import (
	"io"
	"net"
	"sync"
	"time"

	"github.com/pion/dtls/v2"

	"github.com/dtlsserver/dtlsserver"
)

// Client is a client of a Server, a net.Conn. It is that of
// github.com/pion/dtls/v2, which takes datagrams of at most 8192 bytes.
//
// Ask and Receive fail the test and are for its own goroutine; all other methods are
// safe for concurrent use.
type Client struct {
	*dtls.Conn
	server  *Server
	session *dtlsserver.Session
	socket  *clientSocket
}

var _ net.Conn = (*Client)(nil)

// Ask sends a message to the server and returns the next message from it. It
// fails the test when none comes.
func (c *Client) Ask(message string) string {
	t := c.server.t
	t.Helper()
	if _, err := io.WriteString(c, message); err != nil {
		c.server.fatalf("the client cannot send %s: %v", quoted([]byte(message)), err)
	}
	return c.Receive()
}

// Receive returns the next message that the server has sent to the client. It
// fails the test when none comes. Afterwards the client has no read deadline.
func (c *Client) Receive() string {
	t := c.server.t
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(c.server.Timeout)); err != nil {
		c.server.fatalf("the client cannot receive: %v", err)
	}
	b := make([]byte, 1<<16)
	n, err := c.Read(b)
	if err != nil {
		c.server.fatalf("the client has received nothing: %v", err)
	}
	_ = c.SetReadDeadline(time.Time{}) // as it was set a moment ago
	return string(b[:n])
}

// Session returns the client's session at the server, which may be over.
func (c *Client) Session() *dtlsserver.Session { return c.session }

// Close closes the client, and tells the server by close_notify.
func (c *Client) Close() error {
	c.socket.awaitLast()
	return c.Conn.Close()
}

// farewell bounds how long a client's socket waits for the close_notify.
const farewell = time.Second

// clientSocket is a client's socket that stays open until the close_notify was
// sent. Pion's Close sends that and at the same time ends the reader, which closes
// the socket and may be first.
type clientSocket struct {
	net.Conn

	mu     sync.Mutex    // guards all following
	last   chan struct{} // closed when the client has sent its last; nil: it goes on
	sent   bool          // last is closed
	closed bool
}

// awaitLast says that the next datagram is the last.
func (s *clientSocket) awaitLast() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil && !s.closed {
		s.last = make(chan struct{})
	}
}

func (s *clientSocket) Write(b []byte) (int, error) {
	n, err := s.Conn.Write(b)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != nil && !s.sent {
		s.sent = true
		close(s.last)
	}
	return n, err
}

func (s *clientSocket) Close() error {
	s.mu.Lock()
	last := s.last
	s.closed = true
	s.mu.Unlock()
	if last != nil {
		timeout := time.NewTimer(farewell)
		defer timeout.Stop()
		select {
		case <-last:
		case <-timeout.C:
		}
	}
	return s.Conn.Close()
}
