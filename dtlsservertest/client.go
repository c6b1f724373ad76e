package dtlsservertest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/internal/printable"
)

// ClientConfig says who a client is, and what it offers to a server. It may be
// used for many clients, also at the same time, and must not be changed while they
// connect.
//
// A client with a Key authenticates itself and the server by that. One without, as
// of the zero ClientConfig, wants a certificate of the server.
type ClientConfig struct {
	// Identity and Key are the client's pre-shared key. If Key is nil, the
	// client has none, and Identity must be empty. With a Key, RootCAs and
	// Certificate are not used.
	Identity string
	Key      []byte

	// RootCAs are the authorities that the client trusts with certificates of
	// servers. If nil, they are those of this machine.
	RootCAs *x509.CertPool
	// ServerName is the DNS name or IP address that the server's certificate
	// must be for. A DNS name is sent to the server, with a Key too. If empty,
	// none is sent, and the certificate may be for any name.
	ServerName string
	// Certificate is what the client presents to a server that asks for a
	// certificate, whichever authorities the server names. If it is the zero
	// tls.Certificate, the client presents none.
	Certificate tls.Certificate

	// CipherSuites are the suites that the client offers, as IANA numbers
	// them, in order of preference. If nil, they are all that it has with AES-GCM
	// and AES-CCM. It has none with ECDHE_PSK or ChaCha20-Poly1305; one that it
	// does not have is an error. Those that are not for its credentials are left
	// out.
	CipherSuites []uint16
	// NextProtos are the application protocols that the client offers (ALPN),
	// in order of preference. If nil, it offers none.
	NextProtos []string

	// RetransmitTimeout is how long the client waits for an answer in the
	// handshake before it sends its flight again. If zero, it is a second.
	RetransmitTimeout time.Duration
}

// Connect connects a client to the server at the other end of conn, a connected
// socket for datagrams such as net.Dial or Network.Dial return. It is for servers
// that are not a Server of this package, and takes any socket; for a Server see
// Server.Dial. A nil config is the zero ClientConfig.
//
// The net.Conn that it returns behaves as a Client does. Its Close closes conn, as
// Connect does when it returns an error. The context is that of the handshake
// alone, and nothing else bounds how long that takes: a client with a wrong key
// receives no answer.
//
// The error wraps that of the context, a *dtlsserver.AlertError with the alert by
// which the server has refused the client, or what crypto/x509 says about the
// server's certificate, if it is due to one of these.
func Connect(ctx context.Context, conn net.Conn, config *ClientConfig) (net.Conn, error) {
	client := new(clientConn)
	if err := client.connect(ctx, conn, config); err != nil {
		return nil, fmt.Errorf("dtlsservertest: %w", err)
	}
	return client, nil
}

// Client is a client of a Server, and a net.Conn.
//
// Ask and Receive fail the test and are for its own goroutine; all other methods are
// safe for concurrent use.
type Client struct {
	clientConn
	server  *Server
	session *dtlsserver.Session
}

var _ net.Conn = (*Client)(nil)

// Ask sends a message to the server and returns the next message from it. It
// fails the test when none comes.
func (c *Client) Ask(message string) string {
	t := c.server.t
	t.Helper()
	if _, err := io.WriteString(c, message); err != nil {
		c.server.fatalf("the client cannot send %s: %v", printable.Quote([]byte(message), maxText), err)
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
	b := make([]byte, maxMessage)
	n, err := c.Read(b)
	if err != nil {
		c.server.fatalf("the client has received nothing: %v", err)
	}
	_ = c.SetReadDeadline(time.Time{}) // as it was set a moment ago
	return string(b[:n])
}

// Session returns the client's session at the server, which may be over.
func (c *Client) Session() *dtlsserver.Session { return c.session }
