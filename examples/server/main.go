// Server is a DTLS server with pre-shared keys that answers each datagram and
// prints what happens.
//
//	go run ./examples/server -addr 127.0.0.1:4433 -psk Client_identity=1a2b3c4d5e6f
//
// The other end of it is examples/client, or any DTLS 1.2 client:
//
//	openssl s_client -dtls1_2 -connect 127.0.0.1:4433 -psk_identity Client_identity -psk 1a2b3c4d5e6f
//
// It ends on SIGINT and SIGTERM, and tells its peers.
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
	"github.com/dtlsserver/dtlsserver/examples/internal/console"
	"github.com/dtlsserver/dtlsserver/examples/internal/pskflag"
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

// options are what the flags say.
type options struct {
	addr   string
	keys   map[string][]byte
	hint   string
	reply  func(s *dtlsserver.Session, plainText []byte)
	quiet  bool
	stats  time.Duration
	keyLog string
}

// parse reads the flags. What is wrong with them it tells on stderr.
func parse(args []string, stderr io.Writer) (*options, error) {
	opts := &options{keys: make(map[string][]byte)}
	var psks []string
	var reply string

	flags := flag.NewFlagSet("server", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&opts.addr, "addr", "127.0.0.1:4433", "listen on this UDP `address`")
	// Not parsed yet: package flag shows the values that it cannot set, and
	// these hold keys.
	flags.Func("psk", "accept this `IDENTITY=HEXKEY`; may be repeated (default "+pskflag.Default+")", func(value string) error {
		psks = append(psks, value)
		return nil
	})
	flags.StringVar(&opts.hint, "hint", "Qt DTLS example server", "send clients this `text` to help them choose their identity")
	flags.StringVar(&reply, "reply", "ack", "answer each datagram with `ack or echo`")
	flags.BoolVar(&opts.quiet, "quiet", false, "print no events and no messages")
	flags.DurationVar(&opts.stats, "stats", 0, "print a line of figures to standard error each `duration`")
	flags.StringVar(&opts.keyLog, "keylog", "", "append the secrets of all sessions to this `file`, for packet analyzers")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}

	refuse := func(format string, args ...any) (*options, error) {
		err := fmt.Errorf(format, args...)
		fmt.Fprintln(stderr, "server:", err)
		return nil, err
	}
	if flags.NArg() > 0 {
		return refuse("unexpected argument %q", flags.Arg(0))
	}
	if psks == nil {
		psks = []string{pskflag.Default}
	}
	for i, psk := range psks {
		identity, key, err := pskflag.Parse(psk)
		if err != nil {
			return refuse("-psk number %d: %w", i+1, err)
		}
		opts.keys[identity] = key
	}
	switch reply {
	case "ack":
		opts.reply = acknowledge
	case "echo":
		opts.reply = echo
	default:
		return refuse("-reply %q: want ack or echo", reply)
	}
	if opts.stats < 0 {
		return refuse("-stats %v is negative", opts.stats)
	}
	return opts, nil
}

// serve serves until ctx is done.
func serve(ctx context.Context, opts *options, stdout, stderr io.Writer) error {
	out := console.New(stdout, console.WantsColor(stdout))
	h := &handler{EventHandler: out, out: out, reply: opts.reply, stopped: make(chan error, 1)}
	if opts.quiet {
		h.EventHandler = dtlsserver.NopHandler{}
	}
	server := &dtlsserver.Server{
		Handler:         h,
		PSK:             dtlsserver.StaticPSK(opts.keys),
		PSKIdentityHint: opts.hint,
	}
	if opts.keyLog != "" {
		f, err := os.OpenFile(opts.keyLog, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
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

// handler answers datagrams and tells the embedded EventHandler, which prints.
type handler struct {
	dtlsserver.EventHandler
	out     *console.Console
	reply   func(s *dtlsserver.Session, plainText []byte)
	stopped chan error // receives why the server has stopped: nil after Shutdown
}

// Info tells of most events as they are. That the server can be reached is a
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

// DatagramReceived tells of a datagram and answers it.
func (h *handler) DatagramReceived(s *dtlsserver.Session, cipherText, plainText []byte) {
	h.EventHandler.DatagramReceived(s, cipherText, plainText)
	h.reply(s, plainText)
}

// acknowledge answers as the DTLS server example of Qt does. A reply that
// cannot be sent is lost, as any datagram may be, and the server tells of it in
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
