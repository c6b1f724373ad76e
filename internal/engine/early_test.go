package engine

// Records of epoch 1 that come before their turn.

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// junkRecord is a record of epoch 1 of so many bytes that nobody has sealed.
func junkRecord(t wire.ContentType, seq uint64, length int) []byte {
	payload := make([]byte, length-wire.RecordHeaderLen)
	return append(wire.AppendRecordHeader(nil, t, wire.VersionDTLS12, 1, seq, len(payload)), payload...)
}

// TestFinishedInManyRecords: a Finished in as many records as it has bytes is kept
// while the key exchange is computed or the key looked up, beside others that are
// forged, and the handshake waits for no timer.
func TestFinishedInManyRecords(t *testing.T) {
	t.Parallel()
	for _, id := range []uint16{suite.PSKWithAES128GCM, ecdhePSK, ecdheCert} {
		for _, size := range []int{1, 2, 5, wire.VerifyDataLen} {
			for _, backwards := range []bool{false, true} {
				d := holding(t, id, false)
				d.answer = nil
				d.toFlight()
				flight := d.client.Records()
				finished := d.client.FinishedMessage()
				var pieces [][]byte
				for from := 0; from < wire.VerifyDataLen; from += size {
					to := min(from+size, wire.VerifyDataLen)
					pieces = append(pieces, d.client.Sealed(wire.ContentHandshake, part(finished, from, to)))
				}
				if backwards {
					slices.Reverse(pieces)
				}
				for i := range maxEarly - len(pieces) {
					d.receive(junkRecord(wire.ContentHandshake, uint64(1000+i), 64))
				}
				d.receive(slices.Concat(slices.Concat(flight[:len(flight)-1]...), slices.Concat(pieces...)))
				d.work()
				d.e.AnswerPSK(d.now, []byte(key))
				d.pump()
				d.wantEstablished(fmt.Sprintf("suite %#04x, pieces of %d bytes, backwards %v", id, size, backwards))
				if d.toClient(); !d.client.Complete || d.reserved != 0 {
					t.Errorf("complete %v, %d bytes are still reserved", d.client.Complete, d.reserved)
				}
			}
		}
	}
}

// TestEarlyRecordsAreReserved: what is kept beyond what a handshake has of its own
// counts for the budget, is refused when there is none left, and given back.
func TestEarlyRecordsAreReserved(t *testing.T) {
	t.Parallel()
	for _, granted := range []bool{true, false} {
		d := newDriver(t, newConfig())
		reserved, most := 0, 0
		d.budget = budgetFunc(func(n int) bool {
			if n > 0 && !granted {
				return false
			}
			reserved += n
			most = max(most, reserved)
			return true
		})
		d.hello()
		d.toClient()
		kept := 0
		for i := range 2 * maxEarly {
			if drops := d.receive(junkRecord(wire.ContentHandshake, uint64(100+i), 100)); drops == nil {
				kept++
			}
		}
		want, wantMost := maxEarly, maxEarlyBytes
		if !granted {
			want, wantMost = ownEarlyBytes/100, 0
		}
		if kept != want || most > wantMost || granted && most == 0 || cap(d.e.hs.early) > ownEarlyBytes+most {
			t.Errorf("granted %v: %d records are kept, %d bytes reserved, %d held; want %d records", granted, kept, most, cap(d.e.hs.early), want)
		}
		for _, length := range []int{maxEarlyLen + 1, 5000} {
			if drops := d.receive(junkRecord(wire.ContentHandshake, 999, length)); !slices.Equal(drops, []Drop{DropLimit}) {
				t.Errorf("a record of %d bytes: %v", length, drops)
			}
		}
		d.receive(d.client.Flight())
		d.receive(d.client.Sealed(wire.ContentHandshake, d.client.FinishedMessage()))
		d.wantEstablished("after junk")
		if reserved != 0 {
			t.Errorf("granted %v: %d bytes are still reserved", granted, reserved)
		}
	}
}

// TestEarlyAlert: what the client says behind its Finished is heard, also when all
// of it comes while the key is looked up.
func TestEarlyAlert(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		alert []byte
		cause Cause
		sent  []wire.Alert // by the server
	}{
		{"close_notify", []byte{1, 0}, CausePeerClosed, []wire.Alert{{Level: wire.LevelWarning}}},
		{"fatal", []byte{2, 48}, CausePeerAlert, nil},
	}
	for _, tt := range tests {
		for _, first := range []bool{false, true} {
			d := newDriver(t, newConfig())
			d.answer = nil
			d.hello()
			d.toClient()
			flight := d.client.Flight()
			alert := d.client.Sealed(wire.ContentAlert, tt.alert)
			if first { // it has overtaken the flight
				d.receive(alert)
			}
			d.receive(flight)
			d.receive(alert)
			d.wantOpen("while the key is looked up")
			d.e.AnswerPSK(d.now, []byte(key))
			d.pump()
			ev := d.wantClosed(tt.cause, tt.name)
			if ev.Alert != wire.AlertDescription(tt.alert[1]) || !slices.ContainsFunc(d.events, func(ev Event) bool { return ev.Kind == EventEstablished }) {
				t.Errorf("%s: %+v", tt.name, d.events)
			}
			if d.toClient(); !slices.Equal(d.client.Alerts, tt.sent) {
				t.Errorf("%s: the server sent %v", tt.name, d.client.Alerts)
			}
		}
	}
}

// TestDataOvertakesFinished: in an abbreviated handshake the client goes on behind
// its Finished. In whatever order that comes, also when the Finished is lost and
// comes again, all data is handed out once, in the order in which it came, and none
// before the Finished; also what ends it is heard in its place.
func TestDataOvertakesFinished(t *testing.T) {
	t.Parallel()
	resumption := scenes[slices.IndexFunc(scenes, func(s *scene) bool { return s.name == "resumption" })]
	const ccs, finished, one, two, bye = 0, 1, 2, 3, 4
	var try func(order []int)
	try = func(order []int) {
		if len(order) < 5 {
			for i := range 5 {
				if !slices.Contains(order, i) {
					try(append(slices.Clone(order), i))
				}
			}
			return
		}
		if slices.Index(order, bye) < max(slices.Index(order, one), slices.Index(order, two)) {
			return // what comes behind it is not heard, RFC 5246 section 7.2.1
		}
		for _, lost := range []bool{false, true} {
			w := newWorld(t, resumption)
			w.play([]string{"hello"})
			c := w.client
			records := [5][]byte{
				c.Plain(wire.ContentChangeCipherSpec, []byte{1}), c.Sealed(wire.ContentHandshake, c.FinishedMessage()),
				c.Sealed(wire.ContentApplicationData, []byte("one")), c.Sealed(wire.ContentApplicationData, []byte("two")),
				c.Sealed(wire.ContentAlert, []byte{1, 0}),
			}
			var want []string
			come := 0
			w.events, w.data = nil, nil
			for _, i := range order {
				if i == one || i == two {
					want = append(want, []string{"one", "two"}[i-one])
				}
				if i != finished || !lost {
					come |= 1 << i
					for range 2 { // and once more, for the window
						w.receive(records[i])
					}
				}
				if come&3 != 3 && len(w.data) > 0 {
					t.Fatalf("order %v: %q before the handshake is complete", order, w.data)
				}
			}
			if lost { // the client says it again when it sees our flight again
				if w.e.Established() || w.e.Closed() {
					t.Fatalf("order %v without Finished: %v", order, w.events)
				}
				w.receive(c.Sealed(wire.ContentHandshake, c.FinishedMessage()))
			}
			if !slices.Equal(w.data, want) {
				t.Errorf("order %v, lost %v: got %q, want %q", order, lost, w.data, want)
			}
			w.wantClosed(CausePeerClosed, fmt.Sprintf("order %v, lost %v", order, lost))
			if w.events[0].Kind != EventEstablished {
				t.Errorf("order %v, lost %v: %+v", order, lost, w.events)
			}
		}
	}
	try(nil)
}

// TestOvertakingDataIsBounded: in records, in bytes, and by the budget; only what
// the client has sealed takes room; and nothing is left of it when no Finished
// comes.
func TestOvertakingDataIsBounded(t *testing.T) {
	t.Parallel()
	resumption := scenes[slices.IndexFunc(scenes, func(s *scene) bool { return s.name == "resumption" })]
	tests := []struct {
		name    string
		length  int // of the data
		forged  bool
		granted bool
		kept    int
	}{
		{"many", 10, false, true, maxEarly},
		{"long", 1200, false, true, maxOvertakingBytes / (1200 + 37)},
		{"longer than all", wire.MaxPlaintext, false, true, 0},
		{"no memory", 100, false, false, ownEarlyBytes / (100 + 37)},
		{"forged", 10, true, true, 0},
	}
	for _, tt := range tests {
		for _, early := range []bool{true, false} { // before ChangeCipherSpec, or after it
			for _, complete := range []bool{true, false} {
				w := newWorld(t, resumption)
				reserved, most := 0, 0
				w.play([]string{"hello"})
				budget := budgetFunc(func(n int) bool {
					if n > 0 && !tt.granted {
						return false
					}
					reserved += n
					most = max(most, reserved)
					return true
				})
				w.e.hs.host = testHost{budget}
				if !early {
					w.step("ccs")
				}
				finished := w.client.Sealed(wire.ContentHandshake, w.client.FinishedMessage())
				for i := range 3 * maxEarly {
					if tt.forged {
						w.receive(junkRecord(wire.ContentApplicationData, uint64(i), 100))
						continue
					}
					w.receive(w.client.Sealed(wire.ContentApplicationData, bytes.Repeat([]byte{byte(i)}, tt.length)))
				}
				if n := len(w.e.hs.early); n > maxOvertakingBytes || most > maxOvertakingBytes || cap(w.e.hs.early) > ownEarlyBytes+reserved {
					t.Errorf("%s: %d bytes are kept in %d, %d reserved", tt.name, n, cap(w.e.hs.early), reserved)
				}
				if complete {
					w.step("ccs")
					// It is too old for the window after so many others.
					w.receive(w.client.Sealed(wire.ContentHandshake, w.client.FinishedMessage()))
					w.wantEstablished(tt.name)
					if len(w.data) != tt.kept {
						t.Errorf("%s: %d records are handed out, want %d", tt.name, len(w.data), tt.kept)
					}
					w.receive(finished)
				} else {
					w.advance(w.cfg.HandshakeTimeout)
					if w.wantClosed(CauseTimeout, tt.name); len(w.data) > 0 {
						t.Errorf("%s: data was handed out", tt.name)
					}
				}
				if reserved != 0 {
					t.Errorf("%s: %d bytes are still reserved", tt.name, reserved)
				}
			}
		}
	}
	// In a full handshake the client has nothing to say before our Finished.
	d := newDriver(t, newConfig())
	d.hello()
	d.toClient()
	d.client.KeyExchange()
	if drops := d.receive(d.client.Sealed(wire.ContentApplicationData, []byte("data"))); !slices.Equal(drops, []Drop{DropEpoch}) {
		t.Errorf("data in a full handshake: %v", drops)
	}
}

// TestAuthentic: what is only kept, and may be anybody's, says nothing of the peer;
// what opens does.
func TestAuthentic(t *testing.T) {
	t.Parallel()
	d := newDriver(t, newConfig())
	d.hello()
	d.toClient()
	receive := func(b []byte) Result {
		r, _, ok := NextRecord(b, 0)
		if !ok {
			t.Fatal("no record")
		}
		d.datagrams++
		return d.e.Receive(d.now, d.datagrams, r, nil)
	}
	forged := append(wire.AppendRecordHeader(nil, wire.ContentHandshake, wire.VersionDTLS12, 1, 9, 40), make([]byte, 40)...)
	if got := receive(forged); got.Drop != DropNone || got.Authentic {
		t.Errorf("kept for later: %+v", got)
	}
	d.receive(d.client.Flight())
	d.toClient()
	d.wantEstablished("in spite of that")
	if got := receive(d.client.Sealed(wire.ContentApplicationData, []byte("data"))); string(got.Data) != "data" || !got.Authentic {
		t.Errorf("data: %+v", got)
	}
	if got := receive(forged); got.Drop != DropForged || got.Authentic {
		t.Errorf("forged: %+v", got)
	}
}
