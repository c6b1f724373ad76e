package dtlsnet

// The client of github.com/pion/dtls/v2.

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/dtls/v2"

	"github.com/dtlsserver/dtlsserver/dtlsservertest"
)

// handshake makes a client of a connected socket.
func handshake(conn net.Conn) (*dtls.Conn, error) {
	socket := &clientSocket{Conn: conn, closed: make(chan struct{})}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	client, err := dtls.ClientWithContext(ctx, socket, dtlsservertest.PSKConfig("sensor-1", []byte("sixteen byte key")))
	if err != nil {
		conn.Close()
		return nil, err
	}
	socket.open.Store(true)
	return client, nil
}

// clientSocket makes sure that close_notify is sent. Conn.Close first ends the
// client's read, which ends in closing the socket, and then writes to it, if it
// still can.
type clientSocket struct {
	net.Conn
	open   atomic.Bool // the handshake is complete: a deadline means Conn.Close
	once   sync.Once
	closed chan struct{}
}

func (c *clientSocket) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) && c.open.Load() {
		<-c.closed
	}
	return n, err
}

func (c *clientSocket) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
