// Package printable makes what a peer has sent fit for a terminal or a log.
package printable

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Text returns s with what does not print escaped as in a Go string literal, among
// it all that a terminal would act upon.
func Text(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if invalid := r == utf8.RuneError && n == 1; invalid || !strconv.IsPrint(r) {
			literal := strconv.Quote(s[:n])
			b.WriteString(literal[1 : len(literal)-1])
		} else {
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}

// Quote returns the beginning of b, of at most so many bytes, as a Go string
// literal, and how long b is if that is longer.
func Quote(b []byte, most int) string {
	if len(b) > most {
		return fmt.Sprintf("%q… (%d bytes)", b[:most], len(b))
	}
	return fmt.Sprintf("%q", b)
}
