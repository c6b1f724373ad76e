package dtlsservertest

// The client behind Client and Connect is that of github.com/pion/dtls/v2. Neither
// its types nor its errors leave this file, so that another can take its place.

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/dtls/v2"
	//lint:ignore SA1019 the errors of pion/dtls v2 are still this package's
	"github.com/pion/transport/v2/connctx"

	"github.com/dtlsserver/dtlsserver"
)

// maxMessage is the size of pion's buffer for a datagram: no message is longer.
const maxMessage = 8192

// clientConn is the client's end of a session.
type clientConn struct {
	conn   *dtls.Conn
	socket *clientSocket
	closed atomic.Bool // by Close
}

// connect completes a handshake over conn, which it closes if it cannot.
func (c *clientConn) connect(ctx context.Context, conn net.Conn, config *ClientConfig) (err error) {
	if config == nil {
		config = new(ClientConfig)
	}
	if config.Key == nil && config.Identity != "" {
		conn.Close()
		return errors.New("a client with an Identity needs a Key")
	}
	c.socket = &clientSocket{Conn: conn}
	if c.conn, err = dtls.ClientWithContext(ctx, c.socket, config.pion(conn)); err != nil {
		conn.Close()
		return plain(err)
	}
	return nil
}

// pion returns the configuration for a client over conn as pion has it.
func (c *ClientConfig) pion(conn net.Conn) *dtls.Config {
	config := &dtls.Config{
		ServerName:           c.ServerName,
		SupportedProtocols:   c.NextProtos,
		FlightInterval:       max(c.RetransmitTimeout, 0),
		ExtendedMasterSecret: dtls.RequireExtendedMasterSecret,
		MTU:                  handshakeMTU(conn),
		LoggerFactory:        quiet{},
	}
	for _, id := range c.CipherSuites {
		config.CipherSuites = append(config.CipherSuites, dtls.CipherSuiteID(id))
	}
	if c.Key != nil {
		config.PSK = func([]byte) ([]byte, error) { return c.Key, nil }
		config.PSKIdentityHint = []byte(c.Identity) // pion's name for a client's identity
		if config.CipherSuites == nil {
			config.CipherSuites = []dtls.CipherSuiteID{
				dtls.TLS_PSK_WITH_AES_128_GCM_SHA256, dtls.TLS_PSK_WITH_AES_128_CCM,
				dtls.TLS_PSK_WITH_AES_128_CCM_8, dtls.TLS_PSK_WITH_AES_256_CCM_8,
			}
		}
		return config
	}
	if config.CipherSuites == nil {
		config.CipherSuites = []dtls.CipherSuiteID{
			dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, dtls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			dtls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, dtls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			dtls.TLS_ECDHE_ECDSA_WITH_AES_128_CCM, dtls.TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8,
		}
	}
	config.RootCAs = c.RootCAs
	// One of Config.Certificates is not sent to servers that name other
	// authorities.
	config.GetClientCertificate = func(*dtls.CertificateRequestInfo) (*tls.Certificate, error) { return &c.Certificate, nil }
	if net.ParseIP(c.ServerName) != nil { // which pion does not compare
		config.VerifyPeerCertificate = func(_ [][]byte, chains [][]*x509.Certificate) error {
			return chains[0][0].VerifyHostname(c.ServerName)
		}
	}
	return config
}

// handshakeMTU returns pion's MTU for a conn, which counts the bytes of a handshake
// message, without the headers and what sealing adds. Zero is pion's own.
func handshakeMTU(conn net.Conn) int {
	const overhead = 13 + 12 + 8 + 16
	if s, ok := conn.(*connectedSocket); ok {
		if mtu := s.network.mtu(); mtu > overhead {
			return mtu - overhead
		}
	}
	return 0
}

// Read reads the next message of the server. If it is longer than b, the rest of
// the message is lost, and io.ErrShortBuffer is returned with what fits. The
// client takes messages of up to 8 KB.
//
// The error is io.EOF after the server has ended the session, net.ErrClosed after
// Close, and os.ErrDeadlineExceeded at the deadline.
func (c *clientConn) Read(b []byte) (int, error) {
	whole := b
	if len(b) < maxMessage {
		whole = make([]byte, maxMessage) // pion keeps nothing of what does not fit
	}
	n, err := c.conn.Read(whole)
	switch {
	case c.closed.Load() && err != nil:
		return 0, net.ErrClosed
	case err != nil:
		return 0, ioError(err)
	case n > len(b):
		return copy(b, whole), io.ErrShortBuffer
	}
	return copy(b, whole[:n]), nil
}

// Write sends b as one message. That it succeeds does not say that the message
// arrives. The error is net.ErrClosed after either end has closed the session, and
// os.ErrDeadlineExceeded after the deadline.
func (c *clientConn) Write(b []byte) (int, error) {
	if _, err := c.conn.Write(b); err != nil {
		return 0, ioError(err)
	}
	return len(b), nil
}

// Close closes the client and sends close_notify. Closing again returns
// net.ErrClosed.
func (c *clientConn) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	c.socket.awaitLast()
	return ioError(c.conn.Close())
}

// LocalAddr returns the client's address.
func (c *clientConn) LocalAddr() net.Addr { return c.conn.LocalAddr() }

// RemoteAddr returns the server's address, as the client knows it.
func (c *clientConn) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

// SetDeadline sets the deadlines of Read and of Write, as net.Conn has them.
func (c *clientConn) SetDeadline(t time.Time) error { return ioError(c.conn.SetDeadline(t)) }

// SetReadDeadline sets the deadline of Read, also of one that waits. The zero Time
// is none.
func (c *clientConn) SetReadDeadline(t time.Time) error { return ioError(c.conn.SetReadDeadline(t)) }

// SetWriteDeadline sets the deadline of Write. The zero Time is none.
func (c *clientConn) SetWriteDeadline(t time.Time) error { return ioError(c.conn.SetWriteDeadline(t)) }

// ioError returns what a net.Conn returns for an error of pion's after the
// handshake.
func ioError(err error) error {
	switch {
	case errors.Is(err, dtls.ErrConnClosed), errors.Is(err, connctx.ErrClosing):
		return net.ErrClosed
	case errors.Is(err, context.DeadlineExceeded):
		return os.ErrDeadlineExceeded
	}
	return plain(err)
}

// plain returns what is in an error of pion's.
func plain(err error) error {
	// An alert that has come, whose type has no name outside of pion.
	var alert interface {
		error
		IsFatalOrCloseNotify() bool
		Marshal() ([]byte, error)
	}
	if errors.As(err, &alert) {
		if b, err := alert.Marshal(); err == nil && len(b) == 2 {
			return &dtlsserver.AlertError{Code: b[1]}
		}
	}
	for {
		switch e := err.(type) {
		case *dtls.HandshakeError:
			err = e.Err
		case *dtls.FatalError:
			err = e.Err
		case *dtls.InternalError:
			err = e.Err
		case *dtls.TemporaryError:
			err = e.Err
		case *dtls.TimeoutError:
			err = e.Err
		default:
			return err
		}
	}
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
