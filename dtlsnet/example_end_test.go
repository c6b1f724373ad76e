package dtlsnet_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/dtlsnet"
	"github.com/dtlsserver/dtlsserver/dtlsservertest"
)

// TestExampleEndsWithoutCloseNotify: the goroutines of the example end with its
// server also when the client has gone without a word.
func TestExampleEndsWithoutCloseNotify(t *testing.T) {
	t.Parallel()
	key := []byte("a random key, 32 bytes or more..")
	server := &dtlsserver.Server{PSK: dtlsserver.StaticPSK(map[string][]byte{"sensor-1": key})}
	listener, err := dtlsnet.Listen("udp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		if conn, err := listener.Accept(); err == nil {
			serve(conn.(*dtlsnet.Conn))
		}
	}()

	socket, err := net.Dial("udp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	client, err := dtlsservertest.Connect(ctx, socket, &dtlsservertest.ClientConfig{Identity: "sensor-1", Key: key})
	if err != nil {
		t.Fatal(err)
	}
	client.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := client.Write([]byte("world")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if n, err := client.Read(b); err != nil || string(b[:n]) != "hello sensor-1, world" {
		t.Fatalf("Read: %q, %v", b[:n], err)
	}
	socket.Close() // nothing more is sent
	client.Close()

	if err := listener.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if n := listener.Stats().Conns; n != 1 || !server.IsListening() {
		t.Errorf("after the listener's Close there are %d connections, listening: %v", n, server.IsListening())
	}
	server.Close()
	select {
	case <-served:
	case <-time.After(20 * time.Second):
		t.Error("the server's Close does not end serve")
	}
}
