package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/dtlsservertest"
	"github.com/dtlsserver/dtlsserver/examples/internal/pskflag"
)

func TestLines(t *testing.T) {
	t.Parallel()
	addr := serve(t, dtlsserver.HandlerFuncs{OnDatagramReceived: answer})
	var stdout, stderr bytes.Buffer
	stdin := strings.NewReader("hello\n\n\x1b[2J\nno end of line")
	if status := run(t.Context(), []string{"-addr", addr}, stdin, &stdout, &stderr); status != 0 {
		t.Errorf("exit status %d: %s", status, stderr.String())
	}
	want(t, stdout.String(), "you said hello\nyou said \nyou said \\x1b[2J\nyou said no end of line\n")
	want(t, stderr.String(), "")
}

func TestNoInput(t *testing.T) {
	t.Parallel()
	addr := serve(t, dtlsserver.HandlerFuncs{OnDatagramReceived: answer})
	var stdout, stderr bytes.Buffer
	if status := run(t.Context(), []string{"-addr", addr}, strings.NewReader(""), &stdout, &stderr); status != 0 {
		t.Errorf("exit status %d: %s", status, stderr.String())
	}
	want(t, stdout.String()+stderr.String(), "")
}

func TestServerDoesNotAnswer(t *testing.T) {
	t.Parallel()
	addr := serve(t, dtlsserver.NopHandler{})
	var stdout, stderr bytes.Buffer
	if status := run(t.Context(), []string{"-addr", addr}, strings.NewReader("hello\n"), &stdout, &stderr); status != 0 {
		t.Errorf("exit status %d: %s", status, stderr.String())
	}
	want(t, stdout.String()+stderr.String(), "")
}

// The input is still open when the server closes.
func TestServerCloses(t *testing.T) {
	t.Parallel()
	addr := serve(t, dtlsserver.HandlerFuncs{OnDatagramReceived: func(s *dtlsserver.Session, _, _ []byte) { s.Close() }})
	stdin, input := io.Pipe()
	defer input.Close()
	go fmt.Fprintln(input, "hello")
	var stdout, stderr bytes.Buffer
	if status := run(t.Context(), []string{"-addr", addr}, stdin, &stdout, &stderr); status != 0 {
		t.Errorf("exit status %d, not 0", status)
	}
	want(t, stdout.String(), "")
	want(t, stderr.String(), "client: the server has closed the connection\n")
}

func TestWrongKey(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	// When the server warns, nothing more will come of the handshake.
	addr := serve(t, dtlsserver.HandlerFuncs{OnWarning: func(dtlsserver.Event) { cancel() }})
	var stdout, stderr bytes.Buffer
	status := run(ctx, []string{"-addr", addr, "-psk", "Client_identity=5ec2e7"}, strings.NewReader("hello\n"), &stdout, &stderr)
	if status != 1 {
		t.Errorf("exit status %d, not 1", status)
	}
	if message := stderr.String(); !strings.HasPrefix(message, "client: no connection with "+addr) || strings.Contains(message, "5ec2e7") {
		t.Errorf("standard error: %q", message)
	}
}

func TestLongLine(t *testing.T) {
	t.Parallel()
	addr := serve(t, dtlsserver.HandlerFuncs{OnDatagramReceived: answer})
	for length, status := range map[int]int{maxLine: 0, maxLine + 10: 1} {
		var stdout, stderr bytes.Buffer
		line := strings.Repeat("x", length)
		if got := run(t.Context(), []string{"-addr", addr}, strings.NewReader(line+"\n"), &stdout, &stderr); got != status {
			t.Errorf("exit status %d for a line of %d bytes: %s", got, length, stderr.String())
		}
		if status == 0 {
			want(t, stdout.String(), "you said "+line+"\n")
		}
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		args   []string
		status int
		stderr string // a part of it
	}{
		{"help", []string{"-h"}, 0, "-psk"},
		{"unknown flag", []string{"-frob"}, 2, "-frob"},
		{"argument", []string{"here"}, 2, `"here"`},
		{"key without identity", []string{"-psk", "5ec2e7"}, 2, "-psk: "},
		{"key not hexadecimal", []string{"-psk", "me=5ec2e7x"}, 2, "-psk: "},
		{"address", []string{"-addr", "127.0.0.1:port"}, 1, "port"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			if status := run(t.Context(), test.args, strings.NewReader(""), &stdout, &stderr); status != test.status {
				t.Errorf("exit status %d, not %d", status, test.status)
			}
			if !strings.Contains(stderr.String(), test.stderr) || strings.Contains(stderr.String(), "5ec2e7") {
				t.Errorf("standard error: %q", stderr.String())
			}
		})
	}
}

// answer answers each datagram.
func answer(s *dtlsserver.Session, _, plainText []byte) {
	_, _ = fmt.Fprintf(s, "you said %s", plainText)
}

// serve runs a server until the test's end and returns its address.
func serve(t *testing.T, handler dtlsserver.EventHandler) string {
	t.Helper()
	identity, key, err := pskflag.Parse(pskflag.Default)
	if err != nil {
		t.Fatal(err)
	}
	return dtlsservertest.StartServer(t, &dtlsserver.Server{
		Handler: handler,
		PSK:     dtlsserver.StaticPSK(map[string][]byte{identity: key}),
	}).Addr().String()
}

func want(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
