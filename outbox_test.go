package dtlsserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestLogHandlerJSON: what of an event stands in a line of JSON, and how what a
// peer has chosen is written.
func TestLogHandlerJSON(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	remote := netip.MustParseAddrPort("192.0.2.7:5000")
	for _, tt := range []struct {
		name string
		e    Event
		want map[string]any
	}{
		{"plain identity", Event{Kind: KindPSKRequested, Identity: "sensor-1", Count: 1},
			map[string]any{"level": "INFO", "msg": "asking for the pre-shared key", "kind": "PSKRequested", "identity": "sensor-1"}},
		{"identity that forges a field", Event{Kind: KindPSKRequested, Identity: "x level=ERROR"},
			map[string]any{"level": "INFO", "msg": "asking for the pre-shared key", "kind": "PSKRequested", "identity": `"x level=ERROR"`}},
		{"identity that forges a line", Event{Kind: KindUnknownPSKIdentity, Identity: "x\"}\n\xff", Count: 3},
			map[string]any{"level": "WARN", "msg": "unknown PSK identity", "kind": "UnknownPSKIdentity", "identity": `"x\"}\n\xff"`, "count": 3.0}},
		{"error", Event{Kind: KindPSKFailed, Err: errors.New("no database")},
			map[string]any{"level": "ERROR", "msg": "looking up the pre-shared key failed", "kind": "PSKFailed", "err": "no database"}},
	} {
		var out bytes.Buffer
		tt.e.Time, tt.e.Remote = at, remote
		tell(LogHandler(slog.New(slog.NewJSONHandler(&out, nil)).WithGroup("dtls").With("server", "a")), tt.e)
		tt.want["remote"], tt.want["server"] = "192.0.2.7:5000", "a"
		got := map[string]any{}
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatalf("%s: %v in %q", tt.name, err, out.Bytes())
		}
		if got["time"] != at.Format(time.RFC3339Nano) {
			t.Errorf("%s: time %v, want that of the event", tt.name, got["time"])
		}
		group, _ := got["dtls"].(map[string]any)
		for key, want := range tt.want {
			if have := got[key]; have != want && group[key] != want {
				t.Errorf("%s: %s is %v, want %v, in %s", tt.name, key, have, want, out.Bytes())
			}
		}
		if n := len(got) - 2 + len(group); n != len(tt.want) {
			t.Errorf("%s: %d attributes, want %d, in %s", tt.name, n, len(tt.want), out.Bytes())
		}
	}
}

// TestEventKinds: all have a name and a text, and there are no others.
func TestEventKinds(t *testing.T) {
	t.Parallel()
	var all []EventKind
	for k := range EventKinds() {
		if kinds[k].name == "" || kinds[k].text == "" {
			t.Errorf("%v has no name or no text", k)
		}
		all = append(all, k)
	}
	for k := range EventKinds() {
		if k == KindStopped {
			break // early
		}
	}
	if len(all) == 0 || all[0] != KindListening || all[len(all)-1] != KindEntropyFailed {
		t.Errorf("%v", all)
	}
	for k := EventKind(0); k < 255; k++ {
		if named := !strings.HasPrefix(k.String(), "EventKind("); named != slices.Contains(all, k) {
			t.Errorf("%v is named: %v", k, named)
		}
	}
}

// TestMultiHandler: each is told, in order, and nil ones are left out.
func TestMultiHandler(t *testing.T) {
	t.Parallel()
	var told []string
	handler := func(name string) EventHandler {
		say := func(Event) { told = append(told, name) }
		return HandlerFuncs{say, say, say, func(*Session, []byte, []byte) { say(Event{}) }}
	}
	m := MultiHandler(nil, handler("a"), nil, handler("b"))
	m.Error(Event{})
	m.Warning(Event{})
	m.Info(Event{})
	m.DatagramReceived(nil, nil, nil)
	if want := strings.Fields("a b a b a b a b"); !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
	MultiHandler().Info(Event{})
}

// TestFailuresFoldByReason: events of handshakes that failed for different
// reasons are not one event.
func TestFailuresFoldByReason(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var o outbox
		for range 3 {
			for _, reason := range []error{ErrHandshakeTimeout, ErrWrongPSK, ErrEvicted, &AlertError{Code: 40}, &AlertError{Code: 40, Sent: true}} {
				o.put(Event{Kind: KindHandshakeFailed, Time: time.Now(), Remote: clientAddr(1), Err: reason, variant: failureVariant(reason)})
			}
		}
		o.flush(time.Now(), everything)
		told := map[string]uint64{}
		for it, ok := o.take(); ok; it, ok = o.take() {
			told[it.event.Err.Error()] += it.event.Count
		}
		for text, n := range told {
			if n != 3 {
				t.Errorf("%d of %q, want 3", n, text)
			}
		}
		if len(told) != 5 {
			t.Errorf("%d reasons, want 5: %v", len(told), told)
		}
	})
}
