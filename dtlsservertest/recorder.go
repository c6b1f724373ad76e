package dtlsservertest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/internal/printable"
)

const (
	// defaultTimeout bounds waits on the real clock. Only those that fail
	// take so long.
	defaultTimeout = 10 * time.Second
	// maxLines and maxText bound what a failure shows.
	maxLines = 100
	maxText  = 100
)

// Recorder is a dtlsserver.EventHandler that records events and messages, and waits
// for those to come. A Server has one; for another server make one with NewRecorder.
//
// Each Want method returns the first match that no Want method has returned before,
// however old, and passes over others. The argument why says what should have led to
// it, and is part of the failure.
//
// The Want methods fail the test and are for its own goroutine; all others are
// safe for concurrent use.
type Recorder struct {
	// Timeout bounds each wait. If zero, it is 10 s.
	Timeout time.Duration

	t     testing.TB
	start time.Time
	more  func() string // what else a failure shows; nil: nothing

	mu       sync.Mutex // guards all following
	entries  []entry
	told     chan struct{} // closed when something more is recorded
	wasShown bool
}

var _ dtlsserver.EventHandler = (*Recorder)(nil)

// entry is an event, or a message if its Kind is zero.
type entry struct {
	at      time.Duration // since the Recorder was made
	event   dtlsserver.Event
	message Message
	wanted  bool
}

// Message is application data that a server has received.
type Message struct {
	Session *dtlsserver.Session
	// CipherText is the record as received, and PlainText its content. They
	// are copies.
	CipherText, PlainText []byte
}

// NewRecorder returns a Recorder that fails t when what is wanted does not come.
func NewRecorder(t testing.TB) *Recorder {
	return &Recorder{t: t, start: time.Now(), told: make(chan struct{})}
}

// Error records e.
func (r *Recorder) Error(e dtlsserver.Event) { r.add(entry{event: e}) }

// Warning records e.
func (r *Recorder) Warning(e dtlsserver.Event) { r.add(entry{event: e}) }

// Info records e.
func (r *Recorder) Info(e dtlsserver.Event) { r.add(entry{event: e}) }

// DatagramReceived records a message.
func (r *Recorder) DatagramReceived(s *dtlsserver.Session, cipherText, plainText []byte) {
	r.add(entry{message: Message{s, bytes.Clone(cipherText), bytes.Clone(plainText)}})
}

func (r *Recorder) add(e entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.at = time.Since(r.start)
	r.entries = append(r.entries, e)
	close(r.told)
	r.told = make(chan struct{})
}

// All returns the events that were recorded, in order.
func (r *Recorder) All() []dtlsserver.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	var events []dtlsserver.Event
	for _, e := range r.entries {
		if e.event.Kind != 0 {
			events = append(events, e.event)
		}
	}
	return events
}

// Messages returns the messages that were recorded, in order.
func (r *Recorder) Messages() []Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	var messages []Message
	for _, e := range r.entries {
		if e.event.Kind == 0 {
			messages = append(messages, e.message)
		}
	}
	return messages
}

// Want waits for an event of a kind and returns it. Events that a peer can cause
// are folded (see dtlsserver.EventKind): the first is delivered at once, others within
// a second, in one event with their Count.
func (r *Recorder) Want(kind dtlsserver.EventKind, why string) dtlsserver.Event {
	r.t.Helper()
	e, ok := r.await(func(e *entry) bool { return e.event.Kind == kind }, true)
	if !ok {
		r.fatalf("%s: no event %v within %v", why, kind, r.timeout())
	}
	return e.event
}

// WantMessage waits for a message with that text and returns it.
func (r *Recorder) WantMessage(text, why string) Message {
	r.t.Helper()
	e, ok := r.await(func(e *entry) bool { return e.event.Kind == 0 && string(e.message.PlainText) == text }, true)
	if !ok {
		r.fatalf("%s: no message %s within %v", why, printable.Quote([]byte(text), maxText), r.timeout())
	}
	return e.message
}

// WantNone fails the test if an event of the kind is recorded that no Want has
// returned. It does not wait: in a bubble, call synctest.Wait first; elsewhere,
// Want what comes last.
func (r *Recorder) WantNone(kind dtlsserver.EventKind, why string) {
	r.t.Helper()
	if e, _ := r.take(func(e *entry) bool { return e.event.Kind == kind }, true); e != nil {
		r.fatalf("%s: there is an event %v: %v", why, kind, e.event)
	}
}

func (r *Recorder) timeout() time.Duration {
	if r.Timeout > 0 {
		return r.Timeout
	}
	return defaultTimeout
}

// await waits for an entry that was not wanted before, and notes that it is now.
func (r *Recorder) await(match func(*entry) bool, note bool) (*entry, bool) {
	timeout := time.NewTimer(r.timeout())
	defer timeout.Stop()
	for {
		e, told := r.take(match, note)
		if e != nil {
			return e, true
		}
		select {
		case <-told:
		case <-timeout.C:
			return nil, false
		}
	}
}

// take returns the first entry that matches and was not wanted before, or nil and
// a channel that is closed when there is another entry.
func (r *Recorder) take(match func(*entry) bool, note bool) (*entry, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.entries {
		if e := &r.entries[i]; !e.wanted && match(e) {
			e.wanted = note
			found := *e
			return &found, nil
		}
	}
	return nil, r.told
}

func (r *Recorder) fatalf(format string, args ...any) {
	r.t.Helper()
	r.t.Fatalf("dtlsservertest: %s\n%s", fmt.Sprintf(format, args...), r.report())
}

// shown reports whether a failure has shown what was recorded.
func (r *Recorder) shown() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.wasShown
}

// report says what was recorded, and what else a failure shows.
func (r *Recorder) report() string {
	text := r.record()
	if r.more != nil {
		text += r.more()
	}
	return text
}

// record says what was recorded, for failures. What peers have sent is quoted.
func (r *Recorder) record() string {
	r.mu.Lock()
	entries := slices.Clone(r.entries)
	r.wasShown = true
	r.mu.Unlock()

	var b strings.Builder
	fmt.Fprintf(&b, "recorded: %d\n", len(entries))
	if left := len(entries) - maxLines; left > 0 {
		fmt.Fprintf(&b, "\t... %d before\n", left)
		entries = entries[left:]
	}
	for _, e := range entries {
		kind, text := "message", fmt.Sprintf("%v: %s", e.message.Session, printable.Quote(e.message.PlainText, maxText))
		if e.event.Kind != 0 {
			kind, text = level(e.event.Kind), fmt.Sprintf("%v: %s", e.event.Kind, e.event)
		}
		fmt.Fprintf(&b, "\t%9.3fs %-7s %s\n", e.at.Seconds(), kind, printable.Text(text))
	}
	return b.String()
}

// indent puts a tab before each line.
func indent(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		b.WriteString("\t" + line)
	}
	return b.String()
}
