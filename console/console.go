// Package console is an EventHandler for terminals. It writes the events of a
// dtlsserver.Server as lines: errors in crimson, warnings in dark orange, infos
// in dark blue and messages in dark magenta.
//
//	server.Handler = dtlsserver.MultiHandler(console.New(os.Stderr), service)
//
// Terminals interpret control characters, so non-printing characters in what
// peers send are escaped.
package console

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/internal/printable"
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

// Handler is a dtlsserver.EventHandler that writes each event and message.
// Handlers are created by New and are safe for concurrent use.
//
// A Handler writes before it returns, and the server's loop waits for it. A
// terminal is fast enough. If the writer may block, as a pipe may, put a
// buffering writer in front of it.
type Handler struct {
	color atomic.Bool

	mu sync.Mutex // held while w is written
	w  io.Writer
}

var _ dtlsserver.EventHandler = (*Handler)(nil)

// New returns a Handler that writes to w, with one Write for each event. Errors
// of w are ignored. Colours are used if w is a terminal and the environment
// variable NO_COLOR is empty or not set (https://no-color.org). They are meant
// for light backgrounds: on others, set NO_COLOR or call SetColor(false).
func New(w io.Writer) *Handler {
	h := &Handler{w: w}
	h.color.Store(wantsColor(w))
	return h
}

// SetColor turns colours on or off, whatever the writer is. Without colours, the
// Handler writes no escape sequences.
func (h *Handler) SetColor(on bool) { h.color.Store(on) }

// wantsColor takes any character device for a terminal: on others, such as the
// null device, colours do no harm.
func wantsColor(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// Error writes the event as a line.
func (h *Handler) Error(e dtlsserver.Event) { h.event(crimson, "error", e) }

// Warning writes the event as a line.
func (h *Handler) Warning(e dtlsserver.Event) { h.event(darkOrange, "warning", e) }

// Info writes the event as a line.
func (h *Handler) Info(e dtlsserver.Event) { h.event(darkBlue, "info", e) }

// DatagramReceived writes two lines: the peer with up to 256 bytes of the
// plaintext as a quoted string, and up to 64 bytes of the record in hexadecimal.
func (h *Handler) DatagramReceived(s *dtlsserver.Session, cipherText, plainText []byte) {
	h.print(darkMagenta,
		line(time.Now(), "message", fmt.Sprintf("%v: %s", s, printable.Quote(plainText, maxText))),
		strings.Repeat(" ", len(timeLayout)+1)+"record of "+hexadecimal(cipherText))
}

// Printf writes a line of the program between the events, without colour and
// without escaping: pass text from the network through Printable, or format it
// with %q.
func (h *Handler) Printf(format string, args ...any) {
	h.print("", fmt.Sprintf(format, args...))
}

func (h *Handler) event(color, level string, e dtlsserver.Event) {
	// Event.String quotes identities, but a PSK hook may have put anything
	// into its error.
	h.print(color, line(e.Time, level, Printable(e.String())))
}

const timeLayout = "15:04:05.000"

func line(at time.Time, level, text string) string {
	return fmt.Sprintf("%s %-7s %s", at.Format(timeLayout), level, text)
}

// print writes lines at once. Each has the colour for itself, for pagers show
// any part of a text.
func (h *Handler) print(color string, lines ...string) {
	colored := h.color.Load()
	var b strings.Builder
	for _, line := range lines {
		if colored && color != "" {
			line = color + line + reset
		}
		b.WriteString(line + "\n")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	_, _ = io.WriteString(h.w, b.String()) // there is no better place to tell of a failure
}

// Printable returns s with non-printing characters escaped as in a Go string
// literal, including all that a terminal would interpret.
func Printable(s string) string { return printable.Text(s) }

// hexadecimal returns the length of b and its beginning.
func hexadecimal(b []byte) string {
	if len(b) > maxHex {
		return fmt.Sprintf("%d bytes: %x…", len(b), b[:maxHex])
	}
	return fmt.Sprintf("%d bytes: %x", len(b), b)
}
