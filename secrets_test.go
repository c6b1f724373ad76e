package dtlsserver

// Secrets that were never filled in, and texts that peers make long.

import (
	"fmt"
	"strings"
	"testing"
)

// TestKeyLog writes lines that a packet analyzer reads.
func TestKeyLog(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	inBubble(t, func(s *Server) { s.KeyLogWriter = &log }, func(b *bubble) {
		p := b.peer(1)
		p.establish()
		want := fmt.Sprintf("CLIENT_RANDOM %x ", p.Random)
		if line := log.String(); !strings.HasPrefix(line, want) || len(line) != len(want)+96+1 {
			t.Errorf("key log %q", line)
		}
	})
}
