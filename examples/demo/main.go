// Demo shows a DTLS server and what its operator sees, in one process and on
// this machine only: a client that sends datagrams, and three that fail.
//
//	go run ./examples/demo
//
// It prints events as they happen, in colour on a terminal unless NO_COLOR is set,
// and checks that they are the expected ones. If not, it exits with status 1.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"time"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/console"
	"github.com/dtlsserver/dtlsserver/examples/internal/pskclient"
	"github.com/pion/dtls/v2"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	if len(args) > 0 {
		fmt.Fprintln(stderr, "usage: demo (it takes no arguments)")
		return 2
	}
	if err := demonstrate(ctx, console.New(stdout)); err != nil {
		fmt.Fprintln(stderr, "demo:", err)
		return 1
	}
	return 0
}

const (
	identity = "Client_identity"
	key      = "\x1a\x2b\x3c\x4d\x5e\x6f"

	// patience is how long the demo waits for what must happen.
	patience = 10 * time.Second
	// A client that fails gives up before the server does, so that it does not
	// talk to a server that has forgotten it. The server waits long enough to
	// tell first of the client's retransmission, which is a second after the
	// handshake's begin, and folded, which is another second.
	clientTimeout    = 1500 * time.Millisecond
	handshakeTimeout = 2200 * time.Millisecond
)

var messages = []string{
	"hello",
	"Grüße, 世界",
	"", // a datagram may be empty
	"\x1b[2Jcontrol sequences do not reach the operator's terminal",
}

// demo is a server that is watched.
type demo struct {
	server *dtlsserver.Server
	events watcher // its events
	out    *console.Handler
}

// demonstrate runs the server and its clients. It prints to out and returns
// what did not happen as it should.
func demonstrate(ctx context.Context, out *console.Handler) error {
	events := make(watcher, 256)
	server := &dtlsserver.Server{
		Handler: dtlsserver.MultiHandler(out, dtlsserver.HandlerFuncs{
			OnError:            events.put,
			OnWarning:          events.put,
			OnInfo:             events.put,
			OnDatagramReceived: acknowledge,
		}),
		PSK:              lookUp,
		PSKIdentityHint:  "Qt DTLS example server",
		HandshakeTimeout: handshakeTimeout,
	}
	if err := server.Listen("udp", "127.0.0.1:0"); err != nil {
		return err
	}
	defer func() { // when something fails; after it nothing more is printed
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		_ = server.Shutdown(ctx)
	}()
	d := &demo{server, events, out}
	if _, err := d.await(ctx, dtlsserver.KindListening); err != nil {
		return err
	}

	out.Printf("\n1. a client with the right key")
	client, err := d.dial(ctx, identity, key, patience)
	if err != nil {
		return fmt.Errorf("the client with the right key does not connect: %w", err)
	}
	defer client.Close()
	if err := d.exchange(ctx, client); err != nil {
		return err
	}

	// Events that peers can cause are folded: the first of a kind and address
	// is delivered at once, then at most one a second. All clients have the same
	// address, so without a pause the next client's events would come late.
	select {
	case <-time.After(1100 * time.Millisecond):
	case <-ctx.Done():
		return context.Cause(ctx)
	}

	for i, attempt := range []struct {
		title         string
		identity, key string
		want          dtlsserver.EventKind
	}{
		{"a client with a wrong key", identity, "wrong key", dtlsserver.KindPSKRequested},
		{"a client with an identity that the server does not know", "nobody", key, dtlsserver.KindUnknownPSKIdentity},
		{"a client whose key cannot be looked up", "broken-database", key, dtlsserver.KindPSKFailed},
	} {
		out.Printf("\n%d. %s", i+2, attempt.title)
		if err := d.refuse(ctx, attempt.identity, attempt.key, attempt.want); err != nil {
			return err
		}
	}

	out.Printf("\n5. the server closes, and tells the first client")
	return d.close(ctx, client)
}

// lookUp is the server's PSK hook. It may block, as a database query would.
func lookUp(_ context.Context, req dtlsserver.PSKRequest) (dtlsserver.PSK, error) {
	switch req.Identity {
	case identity:
		return dtlsserver.PSK{Key: []byte(key)}, nil
	case "broken-database":
		return dtlsserver.PSK{}, errors.New("the database does not answer")
	default:
		return dtlsserver.PSK{}, dtlsserver.ErrUnknownPSKIdentity
	}
}

// acknowledge answers a datagram. A reply that cannot be sent is lost, as any
// datagram may be, and the server reports it in an event.
func acknowledge(s *dtlsserver.Session, _, _ []byte) {
	_, _ = fmt.Fprintf(s, "to %v: ACK", s.RemoteAddr())
}

// exchange checks that the server has told of the client's handshake, sends it
// messages and checks the replies.
func (d *demo) exchange(ctx context.Context, client *dtls.Conn) error {
	for _, kind := range []dtlsserver.EventKind{
		dtlsserver.KindHelloVerifyRequestSent,
		dtlsserver.KindHelloVerified,
		dtlsserver.KindPSKRequested,
		dtlsserver.KindHandshakeComplete,
	} {
		if _, err := d.await(ctx, kind); err != nil {
			return err
		}
	}
	want := fmt.Sprintf("to %v: ACK", client.LocalAddr())
	for _, message := range messages {
		reply, err := ask(client, message)
		if err != nil {
			return fmt.Errorf("no reply to message %q: %w", message, err)
		}
		if reply != want {
			return fmt.Errorf("the reply to message %q is %q, not %q", message, reply, want)
		}
		d.out.Printf("the client has received %q", reply)
	}
	return nil
}

// ask sends a message and returns the reply.
func ask(client *dtls.Conn, message string) (string, error) {
	if _, err := client.Write([]byte(message)); err != nil {
		return "", err
	}
	if err := client.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	buf := make([]byte, 2048)
	n, err := client.Read(buf)
	return string(buf[:n]), err
}

// refuse lets a client fail and checks that the server reports why: by an event
// of a kind, then by the handshake's failure. The client cannot tell the cases
// apart.
func (d *demo) refuse(ctx context.Context, identity, key string, want dtlsserver.EventKind) error {
	client, err := d.dial(ctx, identity, key, clientTimeout)
	if err == nil {
		return errors.Join(fmt.Errorf("a client with identity %q has connected", identity), client.Close())
	}
	d.out.Printf("the client has given up: %v", err)
	e, err := d.await(ctx, want)
	if err != nil {
		return err
	}
	if e.Identity != identity {
		return fmt.Errorf("event %v is about identity %q, not %q", want, e.Identity, identity)
	}
	e, err = d.await(ctx, dtlsserver.KindHandshakeFailed)
	if err != nil {
		return err
	}
	if !errors.Is(e.Err, dtlsserver.ErrWrongPSK) {
		return fmt.Errorf("the handshake has failed for another reason than the key: %w", e.Err)
	}
	return nil
}

// close closes the server and checks that the client learns of it.
func (d *demo) close(ctx context.Context, client *dtls.Conn) error {
	if err := d.server.Close(); err != nil {
		return err
	}
	if err := client.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := client.Read(make([]byte, 2048)); err != io.EOF {
		return fmt.Errorf("the client was not told that the server closes: its Read returns %v", err)
	}
	d.out.Printf("the client has been told")
	e, err := d.await(ctx, dtlsserver.KindSessionClosed)
	if err != nil {
		return err
	}
	if !errors.Is(e.Err, dtlsserver.ErrServerClosed) {
		return fmt.Errorf("the session has ended for another reason than the server's end: %w", e.Err)
	}
	e, err = d.await(ctx, dtlsserver.KindStopped)
	if err != nil {
		return err
	}
	if e.Err != nil {
		return fmt.Errorf("the server has ended with an error: %w", e.Err)
	}

	stats := d.server.Stats()
	if n := uint64(len(messages)); stats.MessagesReceived != n || stats.MessagesSent != n {
		return fmt.Errorf("%d messages received and %d sent, not %d", stats.MessagesReceived, stats.MessagesSent, n)
	}
	d.out.Printf("\nAll as it should be: %d messages answered, %d handshake completed, %d failed.",
		stats.MessagesSent, stats.HandshakesCompleted, stats.HandshakesFailed)
	return nil
}

// dial connects a client.
func (d *demo) dial(ctx context.Context, identity, key string, timeout time.Duration) (*dtls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return dtls.DialWithContext(ctx, "udp", net.UDPAddrFromAddrPort(d.server.Addr()), pskclient.Config(identity, []byte(key)))
}

// watcher holds the events that the demo has not looked at yet.
type watcher chan dtlsserver.Event

func (w watcher) put(e dtlsserver.Event) { w <- e }

// await returns the next event of a kind. It passes over others, but for
// errors, which nobody expects unless they are awaited.
func (d *demo) await(ctx context.Context, kind dtlsserver.EventKind) (dtlsserver.Event, error) {
	timeout := time.After(patience)
	for {
		select {
		case e := <-d.events:
			if e.Kind == kind {
				return e, nil
			}
			if e.Kind.Level() == slog.LevelError {
				return e, fmt.Errorf("unexpected event %v: %v", e.Kind, e)
			}
		case <-timeout:
			return dtlsserver.Event{}, fmt.Errorf("there was no event %v", kind)
		case <-ctx.Done():
			return dtlsserver.Event{}, context.Cause(ctx)
		}
	}
}
