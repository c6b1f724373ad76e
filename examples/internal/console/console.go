// Package console is the terminal sink of the examples: it prints the events of
// a dtlsserver.Server as they happen, errors in crimson, warnings in dark
// orange, infos in dark blue and messages in dark magenta.
package console

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/dtlsserver/dtlsserver"
)

// The colours, as terminals with 24-bit colour take them.
const (
	crimson     = "\x1b[38;2;220;20;60m" // #DC143C
	darkOrange  = "\x1b[38;2;255;140;0m" // #FF8C00
	darkBlue    = "\x1b[38;2;0;0;139m"   // #00008B
	darkMagenta = "\x1b[38;2;139;0;139m" // #8B008B
	reset       = "\x1b[0m"
)

// How many bytes of a datagram are shown.
const (
	maxHex  = 64
	maxText = 256
)

// Console is a dtlsserver.EventHandler that prints what it is told. What peers
// send is escaped, so that they cannot control the terminal. It is safe for
// concurrent use.
//
// It writes before it returns, on the server's loop: a terminal is fast enough.
// A service whose log may block would hand the lines to a goroutine.
type Console struct {
	color bool

	mu sync.Mutex // held while w is written
	w  io.Writer
}

var _ dtlsserver.EventHandler = (*Console)(nil)

// New returns a Console that writes to w, one Write for each event. Without
// color it writes no escape sequence at all.
func New(w io.Writer, color bool) *Console { return &Console{w: w, color: color} }

// WantsColor reports whether what is written to w should have colours: w is a
// terminal and the environment variable NO_COLOR is empty or not set
// (https://no-color.org).
func WantsColor(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// Error prints e in crimson.
func (c *Console) Error(e dtlsserver.Event) { c.event(crimson, "error", e) }

// Warning prints e in dark orange.
func (c *Console) Warning(e dtlsserver.Event) { c.event(darkOrange, "warning", e) }

// Info prints e in dark blue.
func (c *Console) Info(e dtlsserver.Event) { c.event(darkBlue, "info", e) }

// DatagramReceived prints the plaintext as text and the record in hexadecimal,
// in dark magenta.
func (c *Console) DatagramReceived(s *dtlsserver.Session, cipherText, plainText []byte) {
	c.print(darkMagenta,
		line(time.Now(), "message", fmt.Sprintf("%v: %s", s, quoted(plainText))),
		strings.Repeat(" ", len(timeLayout)+1)+"record of "+hexadecimal(cipherText))
}

// Printf prints lines of the program's own among the events, without colour.
// What came from the network must be quoted by the caller.
func (c *Console) Printf(format string, args ...any) {
	c.print("", fmt.Sprintf(format, args...))
}

func (c *Console) event(color, level string, e dtlsserver.Event) {
	// Event.String quotes identities, but a PSK hook may have put anything
	// into its error.
	c.print(color, line(e.Time, level, Printable(e.String())))
}

const timeLayout = "15:04:05.000"

func line(at time.Time, level, text string) string {
	return fmt.Sprintf("%s %-7s %s", at.Format(timeLayout), level, text)
}

// print writes lines at once. Each has the colour for itself, for pagers show
// any part of a text.
func (c *Console) print(color string, lines ...string) {
	var b strings.Builder
	for _, line := range lines {
		if c.color && color != "" {
			line = color + line + reset
		}
		b.WriteString(line + "\n")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = io.WriteString(c.w, b.String()) // there is no better place to tell of a failure
}

// Printable returns s with what does not print escaped as in a Go string
// literal, among it all that a terminal would act upon.
func Printable(s string) string {
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

// quoted returns the beginning of b as a Go string literal.
func quoted(b []byte) string {
	if len(b) > maxText {
		return fmt.Sprintf("%q… (%d bytes)", b[:maxText], len(b))
	}
	return fmt.Sprintf("%q", b)
}

// hexadecimal returns the length of b and its beginning.
func hexadecimal(b []byte) string {
	if len(b) > maxHex {
		return fmt.Sprintf("%d bytes: %x…", len(b), b[:maxHex])
	}
	return fmt.Sprintf("%d bytes: %x", len(b), b)
}
