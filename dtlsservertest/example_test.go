package dtlsservertest_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/dtlsnet"
	"github.com/dtlsserver/dtlsserver/dtlsservertest"
)

// t is what a test function is given. Examples are given nothing, so they have
// this one, whose cleanups they run themselves.
var t = &exampleT{}

type exampleT struct {
	testing.TB
	cleanups []func()
}

func (*exampleT) Helper()                  {}
func (*exampleT) Name() string             { return "Example" }
func (*exampleT) Failed() bool             { return false }
func (*exampleT) Context() context.Context { return context.Background() }
func (t *exampleT) Cleanup(f func())       { t.cleanups = append(t.cleanups, f) }
func (*exampleT) Fatalf(f string, a ...any) {
	panic(fmt.Sprintf(f, a...))
}

func (*exampleT) Fatal(a ...any) { panic(fmt.Sprint(a...)) }

func (t *exampleT) end() {
	for len(t.cleanups) > 0 {
		last := len(t.cleanups) - 1
		t.cleanups[last]()
		t.cleanups = t.cleanups[:last]
	}
}

var echo = dtlsserver.HandlerFuncs{
	OnDatagramReceived: func(s *dtlsserver.Session, _, plainText []byte) { s.Write(plainText) },
}

// A handler, a client, a message and its reply.
func ExampleNewServer() {
	defer t.end() // in a test, by t.Cleanup

	server := dtlsservertest.NewServer(t, echo)
	client := server.Dial()
	fmt.Println(client.Ask("hello"))
	// Output:
	// hello
}

// A server of the caller's own, with keys of its own.
func ExampleStartServer() {
	defer t.end() // in a test, by t.Cleanup

	keys := map[string][]byte{"sensor-1": []byte("a random key, 32 bytes or more..")}
	server := dtlsservertest.StartServer(t, &dtlsserver.Server{
		PSK: dtlsserver.StaticPSK(keys),
		Handler: dtlsserver.HandlerFuncs{
			OnDatagramReceived: func(s *dtlsserver.Session, _, plainText []byte) {
				fmt.Fprintf(s, "%s said %q", s.ConnectionState().PSKIdentity, plainText)
			},
		},
	})
	client := server.DialPSK("sensor-1", keys["sensor-1"])
	fmt.Println(client.Ask("21.5"))
	// Output:
	// sensor-1 said "21.5"
}

// A service with goroutines of its own, which accept connections by dtlsnet: it
// listens, and the test starts with that.
func ExampleStartServer_dtlsnet() {
	defer t.end() // in a test, by t.Cleanup

	keys := map[string][]byte{"sensor-1": []byte("a random key, 32 bytes or more..")}
	service := &dtlsserver.Server{PSK: dtlsserver.StaticPSK(keys)}
	listener, err := dtlsnet.Listen("udp", "127.0.0.1:0", service)
	if err != nil {
		t.Fatalf("%v", err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // the server is closed
			}
			go io.Copy(conn, conn)
		}
	}()

	client := dtlsservertest.StartServer(t, service).DialPSK("sensor-1", keys["sensor-1"])
	fmt.Println(client.Ask("hello"))
	// Output:
	// hello
}

// A client that must be refused. Neither end is told why the other falls silent:
// the client gives up, and so does the server after a HandshakeTimeout that is
// short here.
func ExampleServer_DialContext() {
	defer t.end() // in a test, by t.Cleanup

	server := dtlsservertest.StartServer(t, &dtlsserver.Server{
		PSK:              dtlsserver.StaticPSK(map[string][]byte{"sensor-1": []byte("the right key")}),
		HandshakeTimeout: time.Second,
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := server.DialContext(ctx, &dtlsservertest.ClientConfig{
		Identity: "sensor-1",
		Key:      []byte("a wrong key"),
	})
	fmt.Println(errors.Is(err, context.DeadlineExceeded))
	failed := server.Events.Want(dtlsserver.KindHandshakeFailed, "after a wrong key")
	fmt.Println(errors.Is(failed.Err, dtlsserver.ErrWrongPSK))
	// Output:
	// true
	// true
}

// A client of a server that is not this package's, such as that of a program that
// the test runs.
func ExampleConnect() {
	key := []byte("a random key, 32 bytes or more..")
	program := &dtlsserver.Server{
		PSK:     dtlsserver.StaticPSK(map[string][]byte{"sensor-1": key}),
		Handler: echo,
	}
	if err := program.Listen("udp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	defer program.Close()

	socket, err := net.Dial("udp", program.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	client, err := dtlsservertest.Connect(ctx, socket, &dtlsservertest.ClientConfig{
		Identity: "sensor-1",
		Key:      key,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	fmt.Fprint(client, "hello")
	client.SetReadDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 100)
	n, err := client.Read(b)
	fmt.Println(string(b[:n]), err)
	// Output:
	// hello <nil>
}

// A network that loses a fifth of the datagrams. Here it runs on the real clock; in
// a bubble of testing/synctest retransmissions cost no time.
func ExampleNetwork() {
	defer t.end() // in a test, by t.Cleanup

	server := dtlsservertest.NewUnstartedServer(t, &dtlsserver.Server{Handler: echo})
	server.Network = dtlsservertest.NewNetwork(t, dtlsservertest.Link{
		Loss:  0.2,
		Delay: 5 * time.Millisecond,
		Seed:  7, // of what is lost
	})
	server.Start()
	server.Dial() // which takes longer than without loss
	stats := server.Network.Stats()
	fmt.Println("lost some:", stats.Lost > 0)
	fmt.Println("handshakes:", server.Stats().HandshakesCompleted)
	// Output:
	// lost some: true
	// handshakes: 1
}

// Certificates of an authority that exists for the test only, for the server and
// for its clients.
func ExampleAuthority() {
	defer t.end() // in a test, by t.Cleanup

	server := dtlsservertest.NewUnstartedServer(t, &dtlsserver.Server{Handler: echo})
	server.Authority = dtlsservertest.NewAuthority(t)
	server.ClientAuth = tls.RequireAndVerifyClientCert
	server.Start()

	fmt.Println(server.Dial().Ask("hello"))

	config := server.ClientConfig()
	config.Certificate = server.Authority.Issue("sensor-1")
	client, err := server.DialContext(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	state := client.Session().ConnectionState()
	fmt.Println(state.PeerCertificates[0].Subject)
	// Output:
	// hello
	// CN=sensor-1
}

// What a server tells its operator, without sleeping until it has.
func ExampleRecorder() {
	defer t.end() // in a test, by t.Cleanup

	server := dtlsservertest.NewServer(t, nil)
	client := server.Dial()
	fmt.Fprint(client, "hello")
	server.Events.WantMessage("hello", "after the client has sent it")

	client.Close()
	closed := server.Events.Want(dtlsserver.KindSessionClosed, "after the client's Close")
	fmt.Println(closed.Err)
	server.Events.WantNone(dtlsserver.KindRecordDropped, "of a client that behaves")
	// Output:
	// dtlsserver: closed by the peer
}

// Goroutines that handlers have started and that are meant to stay.
func ExampleServer_ignoreLeak() {
	defer t.end() // in a test, by t.Cleanup

	server := dtlsservertest.NewUnstartedServer(t, &dtlsserver.Server{Handler: echo})
	server.IgnoreLeak = func(stack string) bool {
		return strings.Contains(stack, "net/http.(*persistConn)") // an HTTP client's idle connection
	}
	server.Start()
	fmt.Println(server.Dial().Ask("hello"))
	// Output:
	// hello
}
