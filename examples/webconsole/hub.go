package main

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"sync"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/console"
)

const (
	// keep is how many events, messages and samples are kept each: what a new
	// browser gets first, and how far one that is slow may fall behind.
	keep = 200
	// maxShown is how many bytes of a datagram are shown.
	maxShown = 1500
	// maxBrowsers is how many may be connected at a time.
	maxBrowsers = 32
)

// event is a line of the server's information.
type event struct {
	Time  int64  `json:"time"` // Unix, in milliseconds, as all times here
	Level string `json:"level"`
	Text  string `json:"text"`
}

// message is a datagram from a peer, or text sent to one.
type message struct {
	Time   int64          `json:"time"`
	Peer   netip.AddrPort `json:"peer"`
	Sent   bool           `json:"sent"`
	Record record         `json:"record"` // of what was received
	Text   text           `json:"text"`
}

// record and text are what a peer sent, made readable not on the server's loop
// but when a browser is told.
type (
	record excerpt
	text   excerpt
)

// MarshalText returns r in hexadecimal.
func (r record) MarshalText() ([]byte, error) {
	return []byte(hex.EncodeToString(r.beginning) + excerpt(r).rest()), nil
}

// MarshalText returns t with what does not print escaped.
func (t text) MarshalText() ([]byte, error) {
	return []byte(console.Printable(string(t.beginning)) + excerpt(t).rest()), nil
}

// excerpt is the beginning of some bytes.
type excerpt struct {
	beginning []byte
	length    int // of all
}

// excerptOf copies the beginning of b.
func excerptOf(b []byte) excerpt {
	return excerpt{append([]byte(nil), b[:min(len(b), maxShown)]...), len(b)}
}

// rest says how much there is, if the beginning is not all.
func (e excerpt) rest() string {
	if e.length == len(e.beginning) {
		return ""
	}
	return fmt.Sprintf("… (%d bytes)", e.length)
}

// sample is the server's figures at a time.
type sample struct {
	Time  int64            `json:"time"`
	Stats dtlsserver.Stats `json:"stats"`
}

// hub keeps what happened last, for all browsers: they come for it at their
// own pace, so none of them holds up the server, and each finds out what it
// has missed. The zero value is ready to use.
type hub struct {
	mu       sync.Mutex // guards all following fields
	events   ring[event]
	messages ring[message]
	samples  ring[sample]
	peers    []netip.AddrPort
	browsers map[chan struct{}]bool
}

func (h *hub) putEvent(e event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events.put(e)
	h.wakeLocked()
}

func (h *hub) putMessage(m message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.messages.put(m)
	h.wakeLocked()
}

func (h *hub) putSample(s sample, peers []netip.AddrPort) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.samples.put(s)
	h.peers = peers // a new slice each time
	h.wakeLocked()
}

func (h *hub) wakeLocked() {
	for news := range h.browsers {
		select {
		case news <- struct{}{}:
		default: // it knows already
		}
	}
}

// join returns a channel that receives when there is news, and a function to
// call when it is not wanted any more. It fails when there are too many.
func (h *hub) join() (news <-chan struct{}, leave func(), ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.browsers) >= maxBrowsers {
		return nil, nil, false
	}
	c := make(chan struct{}, 1)
	if h.browsers == nil {
		h.browsers = make(map[chan struct{}]bool)
	}
	h.browsers[c] = true
	return c, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.browsers, c)
	}, true
}

// cursor says how much of everything a browser has been told.
type cursor struct{ events, messages, samples uint64 }

// String returns the cursor as the ID of a server-sent event.
func (c cursor) String() string { return fmt.Sprintf("%d.%d.%d", c.events, c.messages, c.samples) }

// parseCursor is the inverse of String. Whatever is no cursor is the beginning.
func parseCursor(id string) (c cursor) {
	if n, _ := fmt.Sscanf(id, "%d.%d.%d", &c.events, &c.messages, &c.samples); n != 3 {
		return cursor{}
	}
	return c
}

// batch is what a browser is told at a time.
type batch struct {
	Listening      string           `json:"listening"` // the address, or empty
	Peers          []netip.AddrPort `json:"peers"`     // some, which have a session
	Events         []event          `json:"events"`
	Messages       []message        `json:"messages"`
	Samples        []sample         `json:"samples"`
	MissedEvents   uint64           `json:"missedEvents"` // before Events
	MissedMessages uint64           `json:"missedMessages"`
}

// after returns what happened after c, and the cursor after that.
func (h *hub) after(c cursor) (b batch, next cursor) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b.Events, b.MissedEvents = h.events.after(c.events)
	b.Messages, b.MissedMessages = h.messages.after(c.messages)
	b.Samples, _ = h.samples.after(c.samples)
	b.Peers = h.peers
	return b, cursor{h.events.total, h.messages.total, h.samples.total}
}

// ring keeps the last values that were put into it.
type ring[T any] struct {
	last  []T // up to keep; the value number n at n modulo keep
	total uint64
}

func (r *ring[T]) put(v T) {
	if len(r.last) < keep {
		r.last = append(r.last, v)
	} else {
		r.last[r.total%keep] = v
	}
	r.total++
}

// after returns a copy of the values after the first n, and how many of these
// are gone.
func (r *ring[T]) after(n uint64) (kept []T, missed uint64) {
	if n > r.total { // not from here
		n = 0
	}
	if first := r.total - uint64(len(r.last)); n < first {
		n, missed = first, first-n
	}
	for ; n < r.total; n++ {
		kept = append(kept, r.last[n%keep])
	}
	return kept, missed
}
