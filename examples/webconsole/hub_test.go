package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dtlsserver/dtlsserver"
)

func TestRing(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		put, after  uint64
		wantFirst   uint64
		wantKept    int
		wantMissing uint64
	}{
		{0, 0, 0, 0, 0},
		{1, 0, 0, 1, 0},
		{keep, 0, 0, keep, 0},
		{keep, keep, 0, 0, 0},
		{keep + 1, 0, 1, keep, 1},
		{keep + 1, 1, 1, keep, 0},
		{5*keep + 7, 3 * keep, 4*keep + 7, keep, keep + 7},
		{5*keep + 7, 5*keep + 6, 5*keep + 6, 1, 0},
		{3, 4, 0, 3, 0}, // no cursor of this ring
	} {
		t.Run(fmt.Sprintf("%d after %d", test.put, test.after), func(t *testing.T) {
			var r ring[uint64]
			for i := range test.put {
				r.put(i)
			}
			kept, missed := r.after(test.after)
			if len(kept) != test.wantKept || missed != test.wantMissing {
				t.Fatalf("%d values, %d missed, want %d and %d", len(kept), missed, test.wantKept, test.wantMissing)
			}
			for i, v := range kept {
				if v != test.wantFirst+uint64(i) {
					t.Fatalf("value %d is number %d, want %d", i, v, test.wantFirst+uint64(i))
				}
			}
		})
	}
}

func TestCursor(t *testing.T) {
	t.Parallel()
	want := cursor{1, 1 << 63, 3}
	if got := parseCursor(want.String()); got != want {
		t.Errorf("parseCursor(%q) = %v", want, got)
	}
	for _, id := range []string{"", "1", "1.2", "1.2.x", "-1.2.3", "99999999999999999999.1.1"} {
		if got := parseCursor(id); got != (cursor{}) {
			t.Errorf("parseCursor(%q) = %v, want the beginning", id, got)
		}
	}
}

// TestExcerpt: what is shown of a message prints, is bounded and is a copy.
func TestExcerpt(t *testing.T) {
	t.Parallel()
	lent := []byte("a\x1b\n\u202e\xff<b>")
	m := message{Record: record(excerptOf([]byte{0x17, 0xfe})), Text: text(excerptOf(lent))}
	lent[0] = 'X'
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	// JSON escapes the backslashes again, and what HTML would act upon.
	if want := `"record":"17fe","text":"a\\x1b\\n\\u202e\\xff\u003cb\u003e"}`; !strings.HasSuffix(string(b), want) {
		t.Errorf("%s does not end with %s", b, want)
	}
	long, _ := text(excerptOf(bytes.Repeat([]byte{'x'}, maxShown+1))).MarshalText()
	if want := strings.Repeat("x", maxShown) + "… (1501 bytes)"; string(long) != want {
		t.Errorf("of a long text there is %s", long)
	}
}

// stuckBrowser is an http.ResponseWriter whose Flush hands over what was
// written, and blocks until that is taken.
type stuckBrowser struct {
	*httptest.ResponseRecorder
	took chan string
}

func (b *stuckBrowser) SetWriteDeadline(time.Time) error { return nil }

func (b *stuckBrowser) FlushError() error {
	sent := b.Body.String()
	b.Body.Reset()
	b.took <- sent
	return nil
}

// TestSlowBrowser: a browser that takes nothing holds nobody up, and is told
// how much it has missed, once.
func TestSlowBrowser(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newTestConsole(t)
		ctx, cancel := context.WithCancel(t.Context())
		browser := &stuckBrowser{httptest.NewRecorder(), make(chan string)}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			c.stream(browser, httptest.NewRequestWithContext(ctx, http.MethodGet, "/events", nil))
		}()
		synctest.Wait() // it is stuck with its first batch, in which nothing is

		const all = 10*keep + 3
		peer := netip.MustParseAddrPort("192.0.2.1:5684")
		for i := range all {
			c.Info(dtlsserver.Event{Kind: dtlsserver.KindListening, Count: uint64(i)})
			c.hub.putMessage(message{Peer: peer, Text: text(excerptOf(fmt.Append(nil, i)))})
			c.sample()
		}

		first := decode(t, <-browser.took)
		if len(first.Events)+len(first.Messages) > 0 {
			t.Errorf("the first batch has %d events and %d messages", len(first.Events), len(first.Messages))
		}
		second := decode(t, <-browser.took)
		if len(second.Events) != keep || second.MissedEvents != all-keep || len(second.Messages) != keep || second.MissedMessages != all-keep {
			t.Errorf("%d events after %d missed, %d messages after %d missed, want %d after %d",
				len(second.Events), second.MissedEvents, len(second.Messages), second.MissedMessages, keep, all-keep)
		}
		if got, want := second.Messages[keep-1].Text, fmt.Sprint(all-1); got != want {
			t.Errorf("the last message is %q, want %q", got, want)
		}
		c.hub.putMessage(message{Peer: peer})
		third := decode(t, <-browser.took)
		if len(third.Messages) != 1 || third.MissedMessages != 0 {
			t.Errorf("%d messages after %d missed, want 1 after 0", len(third.Messages), third.MissedMessages)
		}

		cancel()
		<-ended
		if len(c.hub.browsers) != 0 {
			t.Error("the browser has not left")
		}
	})
}

// TestTooManyBrowsers: there is a bound, and a place is free again when one
// leaves.
func TestTooManyBrowsers(t *testing.T) {
	t.Parallel()
	var h hub
	var leaves []func()
	for range maxBrowsers {
		_, leave, ok := h.join()
		if !ok {
			t.Fatal("refused too early")
		}
		leaves = append(leaves, leave)
	}
	if _, _, ok := h.join(); ok {
		t.Error("not refused")
	}
	leaves[3]()
	if _, _, ok := h.join(); !ok {
		t.Error("refused though one has left")
	}
}

// told is a batch as browsers get it.
type told struct {
	ID             string `json:"-"`
	Listening      string
	Peers          []string
	Events         []event
	Messages       []struct{ Peer, Record, Text string }
	Samples        []sample
	MissedEvents   uint64
	MissedMessages uint64
}

// decode decodes the one server-sent event in text.
func decode(t *testing.T, text string) (b told) {
	t.Helper()
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if id, ok := strings.CutPrefix(line, "id: "); ok {
			b.ID = id
		} else if data, ok := strings.CutPrefix(line, "data: "); ok {
			if err := json.Unmarshal([]byte(data), &b); err != nil {
				t.Fatal(err)
			}
		} else if line != "" && line != "retry: 1000" {
			t.Fatalf("there is a line %q", line)
		}
	}
	return b
}

func (b told) hasEvent(level, part string) bool {
	return slices.ContainsFunc(b.Events, func(e event) bool {
		return e.Level == level && strings.Contains(e.Text, part)
	})
}
