package dtlsnet

import (
	"context"
	"net"
	"time"

	"github.com/dtlsserver/dtlsserver/dtlsservertest"
)

// handshake makes a client of a connected socket, which it closes if it cannot.
func handshake(conn net.Conn) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return dtlsservertest.Connect(ctx, conn, &dtlsservertest.ClientConfig{
		Identity: "sensor-1",
		Key:      []byte("sixteen byte key"),
	})
}
