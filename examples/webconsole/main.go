// Webconsole is a DTLS server with a web page as its user interface. The page shows
// server information, messages and live statistics, starts and stops listening, and
// sends text to a peer.
//
//	go run ./examples/webconsole
//	go run ./examples/webconsole -demo     # with a few clients that send messages
//
// It prints the address of the page, which contains a token. Without the token, the
// page shows nothing and does nothing. The page is served to this machine only. Like
// examples/server, it answers each datagram with "to <peer>: ACK". It ends on SIGINT
// and SIGTERM.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/netutil"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/examples/internal/pskflag"
)

// grace is how long handshakes and requests may go on after a signal.
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
	if err := serve(ctx, opts, stdout); err != nil {
		fmt.Fprintln(stderr, "webconsole:", err)
		return 1
	}
	return 0
}

// options are what the flags say.
type options struct {
	listen, dtls string
	keys         map[string][]byte
	knownKey     bool // the key is the one of all examples
	demo         bool
}

// parse reads the flags. It reports what is wrong with them on stderr, where no
// part of a key is shown.
func parse(args []string, stderr io.Writer) (*options, error) {
	opts := new(options)
	var psks []string
	flags := flag.NewFlagSet("webconsole", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&opts.listen, "listen", "127.0.0.1:8080", "serve the page on this loopback `address`")
	flags.StringVar(&opts.dtls, "dtls", "127.0.0.1:4433", "begin with the DTLS server on this UDP `address`")
	// Not parsed yet: package flag shows the values that it cannot set, and
	// these hold keys.
	flags.Func("psk", "accept this `IDENTITY=HEXKEY`; may be repeated (default "+pskflag.Default+", on loopback addresses only)", func(value string) error {
		psks = append(psks, value)
		return nil
	})
	flags.BoolVar(&opts.demo, "demo", false, "run a few clients in this process, some of which fail")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}

	var err error
	switch {
	case flags.NArg() > 0: // not shown: after -psk IDENTITY it may be a key
		err = fmt.Errorf("unexpected argument number %d, which is no flag", len(args)-flags.NArg()+1)
	case !isLoopback(opts.listen):
		err = fmt.Errorf("-listen %q: the page is for this machine only: want a loopback address", opts.listen)
	default:
		opts.knownKey = psks == nil
		if opts.knownKey {
			psks = []string{pskflag.Default}
		}
		opts.keys, err = parseKeys(psks)
	}
	if err != nil {
		fmt.Fprintln(stderr, "webconsole:", err)
		return nil, err
	}
	return opts, nil
}

func parseKeys(psks []string) (map[string][]byte, error) {
	keys := make(map[string][]byte)
	for i, psk := range psks {
		identity, key, err := pskflag.Parse(psk)
		if err != nil {
			return nil, fmt.Errorf("-psk number %d: %w", i+1, err)
		}
		keys[identity] = key
	}
	return keys, nil
}

// maxConnections bounds those of all programs of this machine: more than
// maxBrowsers have.
const maxConnections = 128

// newWeb returns a web server that waits for nobody for long: others on this
// machine, who do not have the token, can connect too.
func newWeb(h http.Handler) *http.Server {
	const patience = 5 * time.Second
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: patience,
		ReadTimeout:       patience, // stream sets others
		WriteTimeout:      2 * patience,
		IdleTimeout:       patience,
		MaxHeaderBytes:    16 << 10,
	}
}

// serve serves until ctx is done.
func serve(ctx context.Context, opts *options, stdout io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	c := newConsole(dtlsserver.StaticPSK(opts.keys), opts.knownKey)
	var clients *demo
	if opts.demo {
		clients = newDemo(c.server)
	}
	listener, err := net.Listen("tcp", opts.listen)
	if err != nil {
		return err
	}
	if err := c.listen(opts.dtls); err != nil {
		return errors.Join(err, listener.Close())
	}
	fmt.Fprintf(stdout, "open http://%v/#%s\nthe DTLS server listens on %v\n", listener.Addr(), c.token, c.server.Addr())

	web := newWeb(c.routes())
	web.BaseContext = func(net.Listener) context.Context { return ctx } // ends the streams
	var group sync.WaitGroup
	group.Go(func() { c.sampleEach(ctx, time.Second) })
	if clients != nil {
		group.Go(func() { clients.run(ctx) })
	}
	group.Go(func() {
		<-ctx.Done()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		_ = web.Shutdown(ctx)
		_ = c.server.Shutdown(ctx) // what is not complete by then is given up
	})
	err = web.Serve(netutil.LimitListener(listener, maxConnections))
	cancel()
	group.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
