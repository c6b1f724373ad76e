package dtlsservertest

// What the package says when something is wrong.

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dtlsserver/dtlsserver"
)

// block waits until the channel is closed: what a stack shows of a handler that
// does not return.
func block(c <-chan struct{}) { <-c }

func TestFailuresTell(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		f     func(t testing.TB, network *Network, end <-chan struct{})
		wants []string
	}{
		{"event that does not come", func(t testing.TB, network *Network, _ <-chan struct{}) {
			server := startOn(t, network, echo)
			server.Dial().Ask("hello\x1b[2J")
			server.Events.Want(dtlsserver.KindSessionClosed, "after Ask")
		}, []string{
			"after Ask: no event SessionClosed within 1m0s",
			"info    Listening: listening on 192.0.2.1:4433",
			"info    HandshakeComplete: 10.0.0.1:5000: handshake complete, encrypted with DTLS 1.2, TLS_PSK_WITH_AES_128_GCM_SHA256, identity \"client-",
			`message 10.0.0.1:5000: "hello\x1b[2J"`,
			"open sessions: 1\n\t10.0.0.1:5000, identity \"client-", "\", 1 messages received, 1 sent, 0 records dropped",
			"goroutines of the server and its clients that do more than wait for datagrams: 0\n",
		}},
		{"event that does not come while a handler works", func(t testing.TB, network *Network, end <-chan struct{}) {
			server := startOn(t, network, dtlsserver.HandlerFuncs{
				OnDatagramReceived: func(*dtlsserver.Session, []byte, []byte) { go block(end) },
			})
			server.Dial().Write([]byte("hello"))
			server.Events.Want(dtlsserver.KindSessionClosed, "after Write")
		}, []string{"that do more than wait for datagrams: 1\n\t1 goroutine(s) in\n\t\t", "dtlsservertest.block "}},
		{"same event twice", func(t testing.TB, network *Network, _ <-chan struct{}) {
			server := startOn(t, network, nil)
			server.Events.Want(dtlsserver.KindListening, "once")
			server.Events.Want(dtlsserver.KindListening, "twice")
		}, []string{"twice: no event Listening within 1m0s"}},
		{"message that does not come", func(t testing.TB, network *Network, _ <-chan struct{}) {
			server := startOn(t, network, echo)
			server.Dial().Ask(strings.Repeat("x", 200))
			server.Events.WantMessage("bye", "after Ask")
		}, []string{`after Ask: no message "bye" within 1m0s`, `xxx"… (200 bytes)`}},
		{"event that must not come", func(t testing.TB, network *Network, _ <-chan struct{}) {
			server := startOn(t, network, echo)
			server.Events.WantNone(dtlsserver.KindListening, "at first")
		}, []string{"at first: there is an event Listening: listening on 192.0.2.1:4433"}},
		{"no reply", func(t testing.TB, network *Network, _ <-chan struct{}) {
			server := startOn(t, network, nil)
			server.Dial().Ask("hello")
		}, []string{"the client has received nothing: ", `message 10.0.0.1:5000: "hello"`}},
		{"dead network", func(t testing.TB, network *Network, _ <-chan struct{}) {
			network.SetLink(Link{Loss: 1})
			startOn(t, network, nil).Dial()
		}, []string{"the client does not connect: ", "context deadline exceeded", "recorded: 1\n"}},
		{"credentials of its own", func(t testing.TB, network *Network, _ <-chan struct{}) {
			server := NewUnstartedServer(t, &dtlsserver.Server{PSK: dtlsserver.StaticPSK(nil)})
			server.Network = network
			server.Start()
			server.Dial()
		}, []string{"the server has credentials of its own"}},
		{"started twice", func(t testing.TB, network *Network, _ <-chan struct{}) {
			startOn(t, network, nil).Start()
		}, []string{"Start was called before"}},
		{"not started", func(t testing.TB, network *Network, _ <-chan struct{}) {
			NewUnstartedServer(t, &dtlsserver.Server{}).Dial()
		}, []string{"the server was not started"}},
		{"not started, key of its own", func(t testing.TB, network *Network, _ <-chan struct{}) {
			NewUnstartedServer(t, &dtlsserver.Server{}).DialPSK("me", []byte("key"))
		}, []string{"dtlsservertest: the client does not connect: the server was not started"}},
		{"nothing that Listen takes", func(t testing.TB, network *Network, _ <-chan struct{}) {
			server := NewUnstartedServer(t, &dtlsserver.Server{MTU: -1})
			server.Start()
		}, []string{"MTU"}},
		{"handler that blocks in between", func(t testing.TB, network *Network, end <-chan struct{}) {
			server := startOn(t, network, dtlsserver.HandlerFuncs{OnInfo: func(e dtlsserver.Event) {
				if e.Kind == dtlsserver.KindHandshakeComplete {
					block(end)
				}
			}})
			server.Dial()
		}, []string{"dtlsservertest: the client does not connect: the client has connected, but the handler was not told within 1m0s: it blocks?", "dtlsservertest.block "}},
		{"handler that blocks", func(t testing.TB, network *Network, end <-chan struct{}) {
			server := startOn(t, network, dtlsserver.HandlerFuncs{
				OnDatagramReceived: func(*dtlsserver.Session, []byte, []byte) { block(end) },
			})
			server.Dial().Write([]byte("hello"))
			synctest.Wait()
		}, []string{"the server does not end: a handler or a hook does not return within 1m0s", "dtlsservertest.block "}},
		{"hook that blocks", func(t testing.TB, network *Network, end <-chan struct{}) {
			server := NewUnstartedServer(t, &dtlsserver.Server{PSK: func(context.Context, dtlsserver.PSKRequest) (dtlsserver.PSK, error) {
				block(end)
				return dtlsserver.PSK{}, errors.New("too late")
			}})
			server.Network = network
			server.Start()
			_, err := server.DialContext(t.Context(), &ClientConfig{Identity: "me", Key: []byte("key")})
			t.Log(err)
		}, []string{"the server does not end", "dtlsservertest.block "}},
		{"goroutine that stays", func(t testing.TB, network *Network, end <-chan struct{}) {
			server := startOn(t, network, dtlsserver.HandlerFuncs{
				OnDatagramReceived: func(*dtlsserver.Session, []byte, []byte) {
					for range 2 {
						go block(end)
					}
				},
			})
			server.Dial().Write([]byte("hello"))
			synctest.Wait()
		}, []string{"goroutines that still run after the server's end", "): 2\n\t2 goroutine(s) in\n\t\t", "dtlsservertest.block ", "failure_test.go:"}},
		{"server that listens for Start", func(t testing.TB, network *Network, _ <-chan struct{}) {
			server := &dtlsserver.Server{PSK: dtlsserver.StaticPSK(nil), ListenPacket: network.ListenPacket}
			if err := server.Listen("udp", ":4433"); err != nil {
				t.Fatal(err)
			}
			StartServer(t, server).Dial()
		}, []string{"the server has credentials of its own"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				end := make(chan struct{})
				network := NewNetwork(t, Link{})
				text, failed := failing(t, func(t testing.TB) { tt.f(t, network, end) })
				close(end)
				if !failed {
					t.Error("does not fail")
				}
				for rest, i := text, 0; i < len(tt.wants); i++ {
					_, after, ok := strings.Cut(rest, tt.wants[i])
					if !ok {
						t.Fatalf("%q does not come where it should in\n%s", tt.wants[i], text)
					}
					rest = after
				}
				if strings.ContainsRune(text, '\x1b') || strings.Contains(text, "%!") {
					t.Errorf("not fit to print: %q", text)
				}
				for _, idle := range []string{"udpio.(*Conn).Receive ", "pion/dtls/v2.(*handshakeFSM).finish "} {
					if strings.Contains(text, idle) {
						t.Errorf("there is %q in\n%s", idle, text)
					}
				}
				if n := strings.Count(text, "recorded: "); n > 1 {
					t.Errorf("the record is shown %d times:\n%s", n, text)
				}
			})
		})
	}
}

// TestOwnFailure: after what a test says itself, the record is enough.
func TestOwnFailure(t *testing.T) {
	t.Parallel()
	text, _ := failing(t, func(t testing.TB) {
		NewServer(t, nil)
		t.Errorf("my own")
	})
	before, after, ok := strings.Cut(text, "recorded: 1\n")
	if !ok || !strings.HasPrefix(before, "my own\n") || strings.Count(strings.TrimSpace(after), "\n") > 0 || !strings.Contains(after, "Listening") {
		t.Error(text)
	}
}

// startOn starts a server on a network.
func startOn(t testing.TB, network *Network, handler dtlsserver.EventHandler) *Server {
	server := NewUnstartedServer(t, &dtlsserver.Server{Handler: handler})
	server.Network = network
	server.Start()
	return server
}

// TestAllowedLeak: what IgnoreLeak knows does not fail the test, and the
// goroutines of one server are not those of another.
func TestAllowedLeak(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		end := make(chan struct{})
		defer close(end)
		network := NewNetwork(t, Link{})
		text, failed := failing(t, func(t testing.TB) {
			leaky := startOn(t, network, dtlsserver.HandlerFuncs{
				OnDatagramReceived: func(*dtlsserver.Session, []byte, []byte) { go block(end) },
			})
			leaky.IgnoreLeak = func(stack string) bool { return strings.Contains(stack, "dtlsservertest.block ") }
			leaky.Dial().Write([]byte("hello"))
			synctest.Wait()
			startOn(t, network, echo)
			leaky.Close()
		})
		if failed {
			t.Error(text)
		}
	})
}

// TestWantWaits: Want returns as soon as it is told, and not at once.
func TestWantWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := NewRecorder(t)
		start := time.Now()
		time.AfterFunc(3*time.Second, func() { r.Warning(dtlsserver.Event{Kind: dtlsserver.KindUnexpectedDatagram}) })
		time.AfterFunc(4*time.Second, func() { r.Error(dtlsserver.Event{Kind: dtlsserver.KindReadFailed}) })
		r.Want(dtlsserver.KindReadFailed, "after 4 s")
		want(t, time.Since(start), 4*time.Second)
		r.Want(dtlsserver.KindUnexpectedDatagram, "after 3 s")
		want(t, time.Since(start), 4*time.Second)
		r.WantNone(dtlsserver.KindUnexpectedDatagram, "when it was wanted")
	})
}

// TestRecorderCopies: what is lent to a handler is not what is recorded.
func TestRecorderCopies(t *testing.T) {
	t.Parallel()
	r := NewRecorder(t)
	lent := []byte("hello")
	r.DatagramReceived(nil, lent, lent)
	copy(lent, "xxxxx")
	m := r.WantMessage("hello", "as it was")
	want(t, string(m.CipherText), "hello")
}

// TestLongRecord: a failure shows no more than is read.
func TestLongRecord(t *testing.T) {
	t.Parallel()
	text, _ := failing(t, func(t testing.TB) {
		r := NewRecorder(t)
		r.Timeout = time.Nanosecond
		for range 10 * maxLines {
			r.Info(dtlsserver.Event{Kind: dtlsserver.KindListening})
		}
		r.Want(dtlsserver.KindStopped, "never")
	})
	want(t, strings.Count(text, "Listening: "), maxLines)
	if !strings.Contains(text, "\t... 900 before\n") {
		t.Error(text)
	}
}
