// Server is a DTLS server with pre-shared keys, a certificate or both, that
// answers each datagram and prints what happens.
//
//	go run ./examples/server -addr 127.0.0.1:4433 -psk Client_identity=1a2b3c4d5e6f
//
// Its client is examples/client, or any other DTLS 1.2 client:
//
//	openssl s_client -dtls1_2 -connect 127.0.0.1:4433 -psk_identity Client_identity -psk 1a2b3c4d5e6f
//
// With -cert and -key, there is no pre-shared key unless -psk is given too. With
// -client-ca, clients need a certificate of that authority:
//
//	go run ./examples/server -cert server.pem -key server.key -client-ca ca.pem
//	openssl s_client -dtls1_2 -connect 127.0.0.1:4433 -CAfile ca.pem -cert client.pem -key client.key
//
// It ends on SIGINT and SIGTERM, and sends close_notify to its peers.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/console"
)

// grace is how long handshakes in progress may go on after a signal.
const grace = 2 * time.Second

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program: it serves until ctx is done or a signal comes, and
// returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the program at once

	opts, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	if err := serve(ctx, opts, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, "server:", err)
		return 1
	}
	return 0
}

// openKeyLog opens a file for secrets, which must be nobody else's to read.
func openKeyLog(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if mode := info.Mode(); err == nil && mode.IsRegular() && mode.Perm()&0o077 != 0 && runtime.GOOS != "windows" {
		err = fmt.Errorf("key log %s: its mode is %v, others may read it; want %v", name, mode.Perm(), os.FileMode(0o600))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// serve serves until ctx is done.
func serve(ctx context.Context, opts *options, stdout, stderr io.Writer) error {
	out := console.New(stdout)
	h := &handler{EventHandler: out, out: out, reply: opts.reply, stopped: make(chan error, 1)}
	if opts.quiet {
		h.EventHandler = dtlsserver.NopHandler{}
	}
	server := opts.server
	server.Handler = h
	if opts.keyLog != "" {
		f, err := openKeyLog(opts.keyLog)
		if err != nil {
			return err
		}
		defer f.Close()
		server.KeyLogWriter = f
	}
	if err := server.Listen("udp", opts.addr); err != nil {
		return err
	}

	if opts.stats > 0 {
		statsCtx, cancel := context.WithCancel(ctx)
		var group sync.WaitGroup
		group.Go(func() { printStats(statsCtx, stderr, server, opts.stats) })
		defer group.Wait()
		defer cancel()
	}

	select {
	case err := <-h.stopped: // the socket has failed
		return err
	case <-ctx.Done():
	}
	// A handshake that is not complete after the grace is given up, which is
	// no failure of ours.
	graceCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	_ = server.Shutdown(graceCtx)
	return <-h.stopped
}

// handler answers datagrams and calls the embedded EventHandler, which prints.
type handler struct {
	dtlsserver.EventHandler
	out     *console.Handler
	reply   func(s *dtlsserver.Session, plainText []byte)
	stopped chan error // receives why the server has stopped: nil after Shutdown
}

// Info prints most events as they are. That the server can be reached is a
// line that scripts can wait for, printed in any case.
func (h *handler) Info(e dtlsserver.Event) {
	if e.Kind == dtlsserver.KindListening {
		h.out.Printf("listening on %v", e.Local)
		return
	}
	h.EventHandler.Info(e)
	if e.Kind == dtlsserver.KindStopped {
		h.stopped <- e.Err
	}
}

// Error does not tell of KindListenFailed, which is what Listen returns.
func (h *handler) Error(e dtlsserver.Event) {
	if e.Kind != dtlsserver.KindListenFailed {
		h.EventHandler.Error(e)
	}
}

// DatagramReceived prints a datagram and answers it.
func (h *handler) DatagramReceived(s *dtlsserver.Session, cipherText, plainText []byte) {
	h.EventHandler.DatagramReceived(s, cipherText, plainText)
	h.reply(s, plainText)
}

// acknowledge answers as the DTLS server example of Qt does. A reply that
// cannot be sent is lost, as any datagram may be, and the server reports it in
// an event.
func acknowledge(s *dtlsserver.Session, _ []byte) {
	_, _ = fmt.Fprintf(s, "to %v: ACK", s.RemoteAddr())
}

// echo sends a datagram back.
func echo(s *dtlsserver.Session, plainText []byte) {
	_, _ = s.Write(plainText)
}

// printStats writes a line of JSON each time that a period is over.
func printStats(ctx context.Context, w io.Writer, server *dtlsserver.Server, period time.Duration) {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	lines := json.NewEncoder(w)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		var memory runtime.MemStats
		runtime.ReadMemStats(&memory)
		_ = lines.Encode(struct {
			Stats      dtlsserver.Stats `json:"stats"`
			Heap       uint64           `json:"heap"` // bytes
			Goroutines int              `json:"goroutines"`
		}{server.Stats(), memory.HeapAlloc, runtime.NumGoroutine()})
	}
}
