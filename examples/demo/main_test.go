package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
)

func TestDemo(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	if status := run(t.Context(), nil, &stdout, &stderr); status != 0 {
		t.Fatalf("exit status %d\n%s%s", status, stdout.String(), stderr.String())
	}
	if stderr.Len() > 0 {
		t.Errorf("standard error: %s", stderr.String())
	}
	if strings.ContainsRune(stdout.String(), '\x1b') {
		t.Error("there are escape sequences in what is no terminal's output")
	}
	rest := stdout.String()
	for _, want := range []string{
		"info    listening on 127.0.0.1:",
		"1. a client with the right key",
		"info    127.0.0.1:", ": not verified yet, sent a cookie",
		"info    127.0.0.1:", ": verified, starting a handshake",
		"info    127.0.0.1:", ": asking for the pre-shared key",
		"info    127.0.0.1:", ": handshake complete",
		"message 127.0.0.1:", `: "hello"`,
		"record of ", "bytes: 17fefd0001",
		`the client has received "to 127.0.0.1:`, `: ACK"`,
		"message 127.0.0.1:", `: "\x1b[2J`,
		"2. a client with a wrong key",
		": asking for the pre-shared key",
		"warning 127.0.0.1:", ": handshake failed", "wrong key",
		"3. a client with an identity that the server does not know",
		"warning 127.0.0.1:", ": unknown PSK identity",
		"warning 127.0.0.1:", ": handshake failed", "wrong key",
		"4. a client whose key cannot be looked up",
		"error   127.0.0.1:", "the database does not answer",
		"warning 127.0.0.1:", ": handshake failed", "wrong key",
		"5. the server closes",
		"info    127.0.0.1:", ": session closed",
		"info    stopped listening on 127.0.0.1:",
		"All as it should be: 4 messages answered, 1 handshake completed, 3 failed.",
	} {
		_, after, ok := strings.Cut(rest, want)
		if !ok {
			t.Fatalf("%q does not come where it should in\n%s", want, stdout.String())
		}
		rest = after
	}
}

func TestInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout, stderr bytes.Buffer
	if status := run(ctx, nil, &stdout, &stderr); status != 1 {
		t.Errorf("exit status %d, not 1", status)
	}
}

func TestArguments(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	if status := run(t.Context(), []string{"x"}, &stdout, &stderr); status != 2 || stderr.Len() == 0 {
		t.Errorf("exit status %d with message %q, not 2 with one", status, stderr.String())
	}
}
