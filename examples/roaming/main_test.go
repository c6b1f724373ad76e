package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
)

func TestRoaming(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	if status := run(t.Context(), nil, &stdout, &stderr); status != 0 {
		t.Fatalf("exit status %d\n%s%s", status, stdout.String(), stderr.String())
	}
	if stderr.Len() > 0 {
		t.Errorf("standard error: %s", stderr.String())
	}
	rest := stdout.String()
	for _, want := range []string{
		"info    127.0.0.1:", ": handshake complete",
		`the client has received "message 1 of this session"`,
		"the client is at 127.0.0.1:", "info    127.0.0.1:", ": moved here from 127.0.0.1:",
		"the client is at 127.0.0.1:", "info    127.0.0.1:", ": moved here from 127.0.0.1:",
		"the client is at 127.0.0.1:", "info    127.0.0.1:", ": moved here from 127.0.0.1:",
		"the client is at 127.0.0.1:", "info    127.0.0.1:", ": moved here from 127.0.0.1:",
		"All as it should be: 5 messages from 5 addresses, with one handshake.",
		": session closed",
		"info    stopped listening on 127.0.0.1:",
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
