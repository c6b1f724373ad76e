// Client is a client for examples/server. It sends each line of its standard input
// as a datagram and prints each reply as a line.
//
//	go run ./examples/client -addr 127.0.0.1:4433 -psk Client_identity=1a2b3c4d5e6f
//
// It is built on the DTLS client of github.com/pion/dtls/v2, and ends at the
// end of its input or when the server closes.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"time"

	"github.com/dtlsserver/dtlsserver/console"
	"github.com/dtlsserver/dtlsserver/examples/internal/pskclient"
	"github.com/dtlsserver/dtlsserver/examples/internal/pskflag"
	"github.com/pion/dtls/v2"
)

const (
	handshakeTimeout = 10 * time.Second
	// grace is how long replies are waited for after the end of the input.
	grace = 2 * time.Second
	// maxDatagram is the largest that pion's client reads.
	maxDatagram = 8192
	// maxLine is the longest line that is sent, in bytes. It leaves room for
	// what DTLS adds, so that an echo can be read.
	maxLine = 8000
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the program. It returns the exit status.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()

	flags := flag.NewFlagSet("client", flag.ContinueOnError)
	flags.SetOutput(stderr)
	addr := flags.String("addr", "127.0.0.1:4433", "`address` of the server")
	psk := flags.String("psk", pskflag.Default, "identity and key, as `IDENTITY=HEXKEY`")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "client: unexpected argument %q\n", flags.Arg(0))
		return 2
	}
	identity, key, err := pskflag.Parse(*psk)
	if err != nil {
		fmt.Fprintln(stderr, "client: -psk:", err)
		return 2
	}

	conn, err := dial(ctx, *addr, identity, key)
	if err != nil {
		fmt.Fprintln(stderr, "client:", err)
		return 1
	}
	defer conn.Close() // sends close_notify
	switch err := talk(ctx, conn, stdin, stdout); {
	case errors.Is(err, errServerClosed):
		fmt.Fprintln(stderr, "client:", err)
	case err != nil:
		fmt.Fprintln(stderr, "client:", err)
		return 1
	}
	return 0
}

func dial(ctx context.Context, addr, identity string, key []byte) (*dtls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	udp, err := new(net.Dialer).DialContext(ctx, "udp", addr)
	if err != nil {
		return nil, err
	}
	conn, err := dtls.ClientWithContext(ctx, udp, pskclient.Config(identity, key))
	if err != nil {
		udp.Close()
		if errors.Is(err, context.DeadlineExceeded) {
			// Servers ignore what does not open.
			err = fmt.Errorf("%w (nobody answers, or the identity or the key is wrong)", err)
		}
		return nil, fmt.Errorf("no connection with %s: %w", addr, err)
	}
	return conn, nil
}

var errServerClosed = errors.New("the server has closed the connection")

// talk sends the lines of input and prints the replies to output.
func talk(ctx context.Context, conn *dtls.Conn, input io.Reader, output io.Writer) error {
	done := make(chan struct{}) // ends the goroutines, but for a read of input that blocks
	defer close(done)
	lines, inputErr := readLines(input, done)
	replies, connErr := readReplies(conn, done)

	sent, received := 0, 0
	var timeout <-chan time.Time // nil until the input ends
	for lines != nil || received < sent {
		select {
		case line, ok := <-lines:
			if !ok {
				lines, timeout = nil, time.After(grace)
				if err := <-inputErr; err != nil {
					return err
				}
				continue
			}
			if _, err := conn.Write(line); err != nil {
				return ended(err)
			}
			sent++
		case reply := <-replies:
			received++
			if _, err := fmt.Fprintln(output, console.Printable(string(reply))); err != nil {
				return err
			}
		case err := <-connErr:
			return ended(err)
		case <-timeout:
			return nil // replies may be lost
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// ended says why the connection has ended.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, dtls.ErrConnClosed) {
		return errServerClosed
	}
	return err
}

// readLines returns the lines of input without their ends. After the last, the
// channel is closed, and errs says why there are no more.
func readLines(input io.Reader, done <-chan struct{}) (lines <-chan []byte, errs <-chan error) {
	out, outErr := make(chan []byte), make(chan error, 1)
	go func() {
		defer close(out)
		scanner := bufio.NewScanner(input)
		scanner.Buffer(nil, maxLine+len("\r\n"))
		for scanner.Scan() {
			select {
			case out <- append([]byte(nil), scanner.Bytes()...):
			case <-done:
				return
			}
		}
		err := scanner.Err()
		if errors.Is(err, bufio.ErrTooLong) {
			err = fmt.Errorf("a line is longer than %d bytes", maxLine)
		}
		outErr <- err
	}()
	return out, outErr
}

// readReplies returns what comes from conn, and why nothing more comes.
func readReplies(conn *dtls.Conn, done <-chan struct{}) (replies <-chan []byte, errs <-chan error) {
	out, outErr := make(chan []byte), make(chan error, 1)
	go func() {
		buf := make([]byte, maxDatagram)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				outErr <- err
				return
			}
			select {
			case out <- append([]byte(nil), buf[:n]...):
			case <-done:
				return
			}
		}
	}()
	return out, outErr
}
