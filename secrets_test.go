package dtlsserver

// Secrets that were never filled in, and texts that peers make long.

import (
	"fmt"
	"strings"
	"testing"
)

// TestSessionTicketKeysAreChecked: a variable that was never set is no key, and
// a refused call changes nothing.
func TestSessionTicketKeysAreChecked(t *testing.T) {
	t.Parallel()
	one, two := [32]byte{1}, [32]byte{31: 2}
	for _, tt := range []struct {
		name string
		keys [][32]byte
		want string // of the error; empty: none
	}{
		{"none", nil, ""},
		{"one", [][32]byte{one}, ""},
		{"two", [][32]byte{one, two}, ""},
		{"zero", [][32]byte{{}}, "key 0 has only zero bytes"},
		{"zero behind", [][32]byte{one, {}}, "key 1 has only zero bytes"},
		{"twice", [][32]byte{one, two, one}, "key 2 is the same as 0"},
	} {
		var s Server
		if err := s.SetSessionTicketKeys(two); err != nil {
			t.Fatal(err)
		}
		before := s.tickets.keys[0].name
		err := s.SetSessionTicketKeys(tt.keys...)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		if err != nil && (len(s.tickets.keys) != 1 || s.tickets.keys[0].name != before) {
			t.Errorf("%s: the keys were changed", tt.name)
		}
	}
}

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
