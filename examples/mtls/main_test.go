package main

import (
	"bytes"
	"context"
	"testing"
)

func TestRun(t *testing.T) {
	t.Parallel()
	var stdout bytes.Buffer
	if err := run(t.Context(), &stdout); err != nil {
		t.Fatal(err)
	}
	if want := "\"sensor-1\" has connected\nthe client has received \"hello\"\n"; stdout.String() != want {
		t.Errorf("printed %q, not %q", stdout.String(), want)
	}
}

func TestInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout bytes.Buffer
	if err := run(ctx, &stdout); err == nil {
		t.Error("no error")
	}
}
