package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestDemoClients: among the demo's clients are some for each colour.
func TestDemoClients(t *testing.T) {
	t.Parallel()
	c := newTestConsole(t)
	d := newDemo(c.server)
	d.pace = 20 * time.Millisecond
	if err := c.listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.run(ctx)
	}()
	news, leave, _ := c.hub.join()
	defer leave()
	want := map[string]bool{"error": true, "warning": true, "info": true, "message": true}
	for at := (cursor{}); len(want) > 0; {
		select {
		case <-news:
		case <-ctx.Done():
			t.Fatalf("there was no %v", want)
		}
		var b batch
		b, at = c.hub.after(at)
		for _, e := range b.Events {
			delete(want, e.Level)
		}
		if len(b.Messages) > 0 {
			delete(want, "message")
		}
	}
	cancel()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("the clients do not end")
	}
}

// TestProgram: the program as it is started, from the address that it prints
// to its end.
func TestProgram(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	status := make(chan int, 1)
	var stderr bytes.Buffer
	go func() {
		status <- run(ctx, []string{"-listen", "localhost:0", "-dtls", "127.0.0.1:0", "-psk", identity + "=" + hex.EncodeToString([]byte(key)), "-demo"}, w, &stderr)
		_ = w.Close()
	}()
	stdout := bufio.NewReader(r)
	first, err := stdout.ReadString('\n')
	address, ok := strings.CutPrefix(strings.TrimSpace(first), "open ")
	if err != nil || !ok {
		t.Fatalf("the first line is %q, %v", first, err)
	}
	second, err := stdout.ReadString('\n')
	if err != nil || !strings.HasPrefix(second, "the DTLS server listens on 127.0.0.1:") {
		t.Fatalf("the second line is %q, %v", second, err)
	}

	base, token, _ := strings.Cut(address, "#")
	answer, err := http.Get(base + "events?token=" + token)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	watch := &watcher{t, bufio.NewReader(answer.Body), nil}
	watch.until(func(b told) bool { return b.hasEvent("info", "listening") })

	cancel() // as a signal does
	if _, err := io.Copy(io.Discard, answer.Body); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the stream ends with %v", err)
	}
	select {
	case got := <-status:
		if got != 0 || stderr.Len() > 0 {
			t.Errorf("exit status %d, %s", got, stderr.String())
		}
	case <-time.After(patience):
		t.Fatal("the program does not end")
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	for _, test := range []struct {
		name   string
		args   []string
		status int
		part   string
	}{
		{"help", []string{"-h"}, 0, "-listen"},
		{"unknown flag", []string{"-x"}, 2, "-x"},
		{"argument", []string{"-psk", "me", "5ec3e7"}, 2, "argument number 3"},
		{"page for all", []string{"-listen", ":8080"}, 2, "this machine only"},
		{"page for a network", []string{"-listen", "192.0.2.1:8080"}, 2, "this machine only"},
		{"wrong key", []string{"-psk", "me=5ec3e7x"}, 2, "-psk number 1"},
		{"known key for all", []string{"-listen", "127.0.0.1:0", "-dtls", ":0"}, 1, "loopback"},
		{"wrong address", []string{"-listen", "127.0.0.1:0", "-dtls", "127.0.0.1:x"}, 1, "127.0.0.1:x"},
		{"busy port", []string{"-listen", busy.Addr().String()}, 1, "in use"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if got := run(t.Context(), test.args, &stdout, &stderr); got != test.status || !strings.Contains(stderr.String(), test.part) {
				t.Errorf("exit status %d, %q, want %d, %q", got, stderr.String(), test.status, test.part)
			}
			if strings.Contains(stderr.String(), "5ec3e7") {
				t.Errorf("the key is shown: %s", stderr.String())
			}
		})
	}
}
