package main

import (
	"strings"
	"testing"
	"time"
)

// TestSoak: three seconds of everything leave nothing behind, with datagrams in
// batches, where there are such, and one at a time.
func TestSoak(t *testing.T) {
	for name, plain := range map[string]bool{"batched": false, "plain": true} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			err := run(t.Context(), 3*time.Second, 5000, plain, &out)
			t.Log(out.String())
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}
