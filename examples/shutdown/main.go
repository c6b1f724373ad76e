// Shutdown shows a graceful end on SIGINT and SIGTERM: new clients are refused,
// handshakes in progress are completed, and clients are sent close_notify.
//
//	go run ./examples/shutdown
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/dtlsserver/dtlsserver"
)

// grace is how long handshakes in progress may go on after a signal.
const grace = 5 * time.Second

func main() {
	server := &dtlsserver.Server{PSK: dtlsserver.StaticPSK(map[string][]byte{"sensor-1": []byte("\x1a\x2b\x3c\x4d\x5e\x6f")})}
	if err := run(context.Background(), server, "127.0.0.1:4433", os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// run serves until ctx is done, a signal comes or the socket fails.
func run(ctx context.Context, server *dtlsserver.Server, address string, stdout io.Writer) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()

	stopped := make(chan error, 1)
	server.Handler = dtlsserver.HandlerFuncs{
		OnInfo: func(e dtlsserver.Event) {
			fmt.Fprintln(stdout, e)
			if e.Kind == dtlsserver.KindStopped { // the last event
				stopped <- e.Err
			}
		},
		OnDatagramReceived: func(s *dtlsserver.Session, _, plainText []byte) { s.Write(plainText) },
	}
	if err := server.Listen("udp", address); err != nil {
		return err
	}
	select {
	case err := <-stopped: // the socket has failed
		return err
	case <-ctx.Done():
		stop() // a second signal ends the program at once
	}

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	err := server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		// Nothing is wrong: a client with a wrong key is a handshake in progress
		// until HandshakeTimeout. The peers are sent close_notify all the same.
		fmt.Fprintf(stdout, "ended before some handshakes, hooks or handlers did, after %v\n", grace)
		return nil
	}
	return errors.Join(err, <-stopped)
}
