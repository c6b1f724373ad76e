package main

import (
	"strings"
	"testing"
	"time"
)

// TestSoak: three seconds of everything leave nothing behind.
func TestSoak(t *testing.T) {
	var out strings.Builder
	err := run(t.Context(), 3*time.Second, 5000, &out)
	t.Log(out.String())
	if err != nil {
		t.Fatal(err)
	}
}
