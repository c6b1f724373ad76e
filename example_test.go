package dtlsserver_test

// The examples of the documentation. Each runs a server on a free port of the
// loopback interface; the client is that of package dtlsservertest,
// wrapped by dial and ask at the end of this file.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/dtlsservertest"
)

// greeter is an EventHandler that handles infos and datagrams only.
type greeter struct{ dtlsserver.NopHandler }

func (greeter) Info(e dtlsserver.Event) { fmt.Println("event:", e.Kind) }

func (greeter) DatagramReceived(s *dtlsserver.Session, cipherText, plainText []byte) {
	fmt.Printf("received %q from %q\n", plainText, s.Identity().Value)
	fmt.Fprintf(s, "hello, %s", plainText)
}

// A server with its own handler, from Listen to Shutdown, and one client.
func Example() {
	server := &dtlsserver.Server{
		Handler: greeter{},
		PSK:     dtlsserver.StaticPSK(map[string][]byte{"sensor-1": []byte("a random key, 32 bytes or more..")}),
	}
	if err := server.Listen("udp", "127.0.0.1:0"); err != nil {
		log.Fatal(err)
	}

	client := dial(server.Addr(), "sensor-1", "a random key, 32 bytes or more..")
	defer client.Close()
	reply := ask(client, "world")

	// Shutdown returns when all events have been delivered.
	if err := server.Shutdown(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("the client has received %q\n", reply)

	// Output:
	// event: Listening
	// event: HelloVerifyRequestSent
	// event: HelloVerified
	// event: PSKRequested
	// event: HandshakeComplete
	// received "world" from "sensor-1"
	// event: SessionClosed
	// event: Stopped
	// the client has received "hello, world"
}

// A complete service that echoes messages.
func ExampleServer_echo() {
	server := &dtlsserver.Server{
		PSK: dtlsserver.StaticPSK(map[string][]byte{"Client_identity": []byte("\x1a\x2b\x3c\x4d\x5e\x6f")}),
		Handler: dtlsserver.HandlerFuncs{
			OnDatagramReceived: func(s *dtlsserver.Session, _, plainText []byte) {
				s.Write(plainText)
			},
		},
	}
	if err := server.Listen("udp", "127.0.0.1:0"); err != nil {
		log.Fatal(err)
	}
	defer server.Close()

	client := dial(server.Addr(), "Client_identity", "\x1a\x2b\x3c\x4d\x5e\x6f")
	defer client.Close()
	fmt.Println(ask(client, "hello"))
	// Output: hello
}

// Shutdown waits for the handshakes in progress, sends close_notify to every peer,
// and waits for the handler. A program would call it on a signal.
func ExampleServer_Shutdown() {
	server := &dtlsserver.Server{
		PSK: dtlsserver.StaticPSK(map[string][]byte{"sensor-1": []byte("secret")}),
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(conn) }()
	client := dial(conn.LocalAddr().(*net.UDPAddr).AddrPort(), "sensor-1", "secret")
	defer client.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	fmt.Println("Shutdown:", server.Shutdown(ctx))
	fmt.Println("Serve:", <-served)
	fmt.Println("listening:", server.IsListening())
	_, err = client.Read(make([]byte, 100))
	fmt.Println("client:", err)
	// Output:
	// Shutdown: <nil>
	// Serve: dtlsserver: server closed
	// listening: false
	// client: EOF
}

// A hook may block: it runs in its own goroutine, and its context is done when the
// handshake is given up. The Value that it returns becomes Session.Value once the
// client has proven that it has the key.
func ExamplePSKFunc() {
	type account struct {
		name string
		key  []byte
	}
	errNoRows := errors.New("no rows")
	query := func(ctx context.Context, identity string) (*account, error) { // stands for a database
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case identity != "sensor-1":
			return nil, errNoRows
		}
		return &account{"greenhouse", []byte("secret")}, nil
	}
	lookUp := func(ctx context.Context, req dtlsserver.PSKRequest) (dtlsserver.PSK, error) {
		a, err := query(ctx, req.Identity)
		switch {
		case errors.Is(err, errNoRows):
			return dtlsserver.PSK{}, dtlsserver.ErrUnknownPSKIdentity // a Warning
		case err != nil:
			return dtlsserver.PSK{}, err // an Error event
		}
		return dtlsserver.PSK{Key: a.key, Value: a}, nil
	}

	server := &dtlsserver.Server{
		PSK: lookUp,
		Handler: dtlsserver.HandlerFuncs{
			OnDatagramReceived: func(s *dtlsserver.Session, _, plainText []byte) {
				fmt.Fprintf(s, "%s: %s", s.Value().(*account).name, plainText)
			},
		},
	}
	if err := server.Listen("udp", "127.0.0.1:0"); err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	client := dial(server.Addr(), "sensor-1", "secret")
	defer client.Close()
	fmt.Println(ask(client, "21.5 degrees"))

	_, err := lookUp(context.Background(), dtlsserver.PSKRequest{Identity: "nobody"})
	fmt.Println(err)
	// Output:
	// greenhouse: 21.5 degrees
	// dtlsserver: unknown PSK identity
}

// Events are logged with log/slog. ReplaceAttr removes what differs between runs.
func ExampleLogHandler() {
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		Level: slog.LevelDebug, // datagrams, too
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			switch a.Key {
			case slog.TimeKey, "duration":
				return slog.Attr{}
			case "remote", "local":
				if address, err := netip.ParseAddrPort(a.Value.String()); err == nil {
					a.Value = slog.StringValue(address.Addr().String())
				}
			}
			return a
		},
	}))
	events := dtlsserver.LogHandler(logger) // as a Server.Handler it logs warnings and errors, too
	server := &dtlsserver.Server{
		Handler: dtlsserver.HandlerFuncs{
			OnInfo: events.Info,
			OnDatagramReceived: func(s *dtlsserver.Session, cipherText, plainText []byte) {
				events.DatagramReceived(s, cipherText, plainText)
				s.Write(plainText)
			},
		},
		PSK: dtlsserver.StaticPSK(map[string][]byte{"sensor-1": []byte("secret")}),
	}
	if err := server.Listen("udp", "127.0.0.1:0"); err != nil {
		log.Fatal(err)
	}
	client := dial(server.Addr(), "sensor-1", "secret")
	defer client.Close()
	ask(client, "hello")
	if err := server.Shutdown(context.Background()); err != nil {
		log.Fatal(err)
	}

	// Output:
	// level=INFO msg=listening kind=Listening local=127.0.0.1
	// level=INFO msg="not verified yet, sent a cookie" kind=HelloVerifyRequestSent remote=127.0.0.1 local=127.0.0.1
	// level=INFO msg="verified, starting a handshake" kind=HelloVerified remote=127.0.0.1 local=127.0.0.1
	// level=INFO msg="asking for the pre-shared key" kind=PSKRequested remote=127.0.0.1 local=127.0.0.1 identity=sensor-1
	// level=INFO msg="handshake complete" kind=HandshakeComplete remote=127.0.0.1 local=127.0.0.1 identity=sensor-1 suite=TLS_PSK_WITH_AES_128_GCM_SHA256 resumed=false
	// level=DEBUG msg="datagram received" remote=127.0.0.1 record=42 length=5
	// level=INFO msg="session closed" kind=SessionClosed remote=127.0.0.1 local=127.0.0.1 identity=sensor-1 received=1 sent=1 err="dtlsserver: server closed"
	// level=INFO msg="stopped listening" kind=Stopped local=127.0.0.1
}

// Two handlers receive the same events: one counts them, the other prints them.
func ExampleMultiHandler() {
	count := 0
	server := &dtlsserver.Server{
		Handler: dtlsserver.MultiHandler(
			dtlsserver.HandlerFuncs{OnInfo: func(dtlsserver.Event) { count++ }},
			dtlsserver.HandlerFuncs{OnInfo: func(e dtlsserver.Event) { fmt.Println(count, e.Kind) }},
		),
		PSK: dtlsserver.StaticPSK(nil),
	}
	if err := server.Listen("udp", "127.0.0.1:0"); err != nil {
		log.Fatal(err)
	}
	if err := server.Shutdown(context.Background()); err != nil {
		log.Fatal(err)
	}
	// Output:
	// 1 Listening
	// 2 Stopped
}

// A Verifier is used alone, in front of a socket loop of the program. It keeps no
// state for a client that has not proven its address.
func ExampleVerifier() {
	verifier, err := dtlsserver.NewVerifier([]byte("read at least 32 random bytes from crypto/rand"))
	if err != nil {
		log.Fatal(err)
	}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	go connect(ctx, conn.LocalAddr().String()) // sends "no hello" and then the hellos of a client

	datagram, answer := make([]byte, 1<<16), make([]byte, 0, 64)
	for {
		n, remote, err := conn.ReadFromUDPAddrPort(datagram)
		if err != nil {
			log.Fatal(err)
		}
		verdict, answer := verifier.Verify(answer[:0], datagram[:n], remote, time.Now())
		fmt.Printf("%v, %d bytes to send\n", verdict, len(answer))
		switch verdict {
		case dtlsserver.VerdictChallenge:
			if _, err := conn.WriteToUDPAddrPort(answer, remote); err != nil {
				log.Fatal(err)
			}
		case dtlsserver.VerdictVerified:
			return // a server would start a handshake with this hello
		}
	}
	// Output:
	// NotHello, 0 bytes to send
	// Challenge, 60 bytes to send
	// Verified, 0 bytes to send
}

// connect sends a datagram that is no hello to address, and then begins a
// handshake.
func connect(ctx context.Context, address string) {
	conn, err := net.Dial("udp4", address)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("no hello")); err != nil {
		log.Fatal(err)
	}
	config := &dtlsservertest.ClientConfig{Identity: "sensor-1", Key: []byte("secret")}
	_, _ = dtlsservertest.Connect(ctx, conn, config) // nobody completes it
}

// dial connects a client.
func dial(server netip.AddrPort, identity, key string) net.Conn {
	conn, err := net.Dial("udp", server.String())
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	client, err := dtlsservertest.Connect(ctx, conn, &dtlsservertest.ClientConfig{Identity: identity, Key: []byte(key)})
	if err != nil {
		log.Fatal(err)
	}
	return client
}

// ask sends a message and returns the reply.
func ask(client net.Conn, message string) string {
	if _, err := io.WriteString(client, message); err != nil {
		log.Fatal(err)
	}
	if err := client.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		log.Fatal(err)
	}
	b := make([]byte, 2048)
	n, err := client.Read(b)
	if err != nil {
		log.Fatal(err)
	}
	return string(b[:n])
}
