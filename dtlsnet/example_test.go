package dtlsnet_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"time"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/dtlsnet"
	"github.com/dtlsserver/dtlsserver/dtlsservertest"
)

// A service answers each message, with one goroutine for each peer.
func Example() {
	key := []byte("a random key, 32 bytes or more..")
	server := &dtlsserver.Server{
		PSK: dtlsserver.StaticPSK(map[string][]byte{"sensor-1": key}),
	}
	listener, err := dtlsnet.Listen("udp", "127.0.0.1:0", server)
	if err != nil {
		log.Fatal(err)
	}
	// listener.Close would leave the connections to their peers, one of which
	// may have gone without a word.
	defer server.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // net.ErrClosed: the server is closed
			}
			go serve(conn.(*dtlsnet.Conn))
		}
	}()

	socket, err := net.Dial("udp", listener.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	client, err := dtlsservertest.Connect(ctx, socket, &dtlsservertest.ClientConfig{Identity: "sensor-1", Key: key})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	fmt.Fprint(client, "world")
	client.SetReadDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 100)
	n, err := client.Read(b)
	fmt.Println(string(b[:n]), err)
	// Output: hello sensor-1, world <nil>
}

// serve answers a peer until it closes the connection or is silent for a minute,
// or the server is closed.
func serve(conn *dtlsnet.Conn) {
	defer conn.Close()
	identity := conn.Session().ConnectionState().PSKIdentity
	message := make([]byte, 1<<14)
	for {
		conn.SetReadDeadline(time.Now().Add(time.Minute))
		n, err := conn.Read(message)
		switch {
		case err == nil:
			fmt.Fprintf(conn, "hello %s, %s", identity, message[:n])
		case err == io.EOF, errors.Is(err, net.ErrClosed):
			return
		default:
			log.Print(err)
			return
		}
	}
}
