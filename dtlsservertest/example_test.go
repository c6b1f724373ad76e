package dtlsservertest_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver"
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

func (t *exampleT) end() {
	for len(t.cleanups) > 0 {
		last := len(t.cleanups) - 1
		t.cleanups[last]()
		t.cleanups = t.cleanups[:last]
	}
}

var echo = dtlsserver.HandlerFuncs{
	OnDatagram: func(s *dtlsserver.Session, _, plainText []byte) { s.Write(plainText) },
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
			OnDatagram: func(s *dtlsserver.Session, _, plainText []byte) {
				fmt.Fprintf(s, "%s said %q", s.ConnectionState().PSKIdentity, plainText)
			},
		},
	})
	client := server.DialPSK("sensor-1", keys["sensor-1"])
	fmt.Println(client.Ask("21.5"))
	// Output:
	// sensor-1 said "21.5"
}

// A network that loses a fifth of the datagrams. Here it runs on the real clock; in
// a bubble of testing/synctest retransmissions cost no time.
func ExampleNetwork() {
	defer t.end() // in a test, by t.Cleanup

	server := dtlsservertest.NewUnstartedServer(t, echo)
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

	server := dtlsservertest.NewUnstartedServer(t, echo)
	server.Authority = dtlsservertest.NewAuthority(t)
	server.ClientAuth = tls.RequireAndVerifyClientCert
	server.Start()

	fmt.Println(server.Dial().Ask("hello"))

	config := server.ClientConfig()
	config.Certificates = []tls.Certificate{server.Authority.Issue("sensor-1")}
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

	server := dtlsservertest.NewUnstartedServer(t, echo)
	server.IgnoreLeak = func(stack string) bool {
		return strings.Contains(stack, "net/http.(*persistConn)") // an HTTP client's idle connection
	}
	server.Start()
	fmt.Println(server.Dial().Ask("hello"))
	// Output:
	// hello
}
