package engine

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// newCIDDriver returns a driver of an engine with connection IDs.
func newCIDDriver(t *testing.T, cid []byte) *driver {
	cfg := newConfig()
	cfg.ConnectionIDLen, cfg.ReturnRoutability = len(ourCID), true
	d := newDriver(t, cfg)
	d.client.CID = cid
	return d
}

// TestNegotiateConnectionID: what is answered with is what was offered and is enabled.
func TestNegotiateConnectionID(t *testing.T) {
	t.Parallel()
	for _, cid := range [][]byte{nil, {}, {1}, bytes.Repeat([]byte{2}, 255)} {
		for _, enabled := range []bool{false, true} {
			for _, offersCheck := range []bool{false, true} {
				for _, checks := range []bool{false, true} {
					d := newCIDDriver(t, cid)
					d.client.CheckPaths = offersCheck
					d.cfg.ReturnRoutability = checks
					if !enabled {
						d.cfg.ConnectionIDLen = 0
					}
					d.establish()
					has := enabled && cid != nil
					if got := d.client.ServerCID != nil; got != has || (d.e.ConnectionID() != nil) != has {
						t.Errorf("offered %x, enabled %v: the client has %x, the engine %x", cid, enabled, d.client.ServerCID, d.e.ConnectionID())
					}
					if _, got := d.client.ServerHello.Extensions[61]; got != (has && offersCheck && checks) || got != d.e.ChecksPaths() {
						t.Errorf("offered %x and rrc %v, enabled %v, %v: rrc %v", cid, offersCheck, enabled, checks, got)
					}
					if _, got := d.client.ServerHello.Extensions[54]; got != has {
						t.Errorf("offered %x, enabled %v: connection_id %v", cid, enabled, got)
					}
					d.receive(d.client.Sealed(wire.ContentApplicationData, []byte("text")))
					if len(d.data) != 1 || d.data[0] != "text" {
						t.Errorf("got %q", d.data)
					}
					b, err := d.e.Seal(nil, []byte("answer"))
					if err != nil {
						t.Fatal(err)
					}
					if err := d.client.Receive(b); err != nil {
						t.Error(err)
					}
				}
			}
		}
	}
}

// TestMalformedConnectionID: the extensions are refused with decode_error.
func TestMalformedConnectionID(t *testing.T) {
	t.Parallel()
	for _, more := range [][]byte{
		{0, 54, 0, 0}, {0, 54, 0, 1, 1}, {0, 54, 0, 2, 0, 0}, {0, 54, 0, 3, 1, 0, 0},
		{0, 54, 0, 1, 0, 0, 61, 0, 1, 0},
		{0, 54, 0, 1, 0, 0, 54, 0, 1, 0},
	} {
		d := newCIDDriver(t, nil)
		d.client.More = more
		d.hello()
		if ev := d.wantClosed(CauseHandshake, fmt.Sprintf("%x", more)); ev.Alert != wire.AlertDecodeError {
			t.Errorf("%x: alert %v", more, ev.Alert)
		}
	}
}

// TestConnectionIDForms: sealed records without the connection ID that was negotiated,
// with one that was not, and plaintext with one are dropped, in each state.
func TestConnectionIDForms(t *testing.T) {
	t.Parallel()
	for _, cid := range [][]byte{nil, []byte("client")} {
		d := newCIDDriver(t, cid)
		wrong := func(when string, states ...Drop) {
			t.Helper()
			other := func(b []byte, epoch uint16, withCID bool) []byte {
				r, _, _ := wire.ParseRecord(b, len(ourCID))
				out := wire.AppendRecordHeader(nil, wire.ContentApplicationData, wire.VersionDTLS12, epoch, r.Seq, len(r.Payload))
				if withCID {
					out = wire.AppendRecordHeaderCID(nil, wire.VersionDTLS12, epoch, r.Seq, []byte(ourCID), len(r.Payload))
				}
				return append(out, r.Payload...)
			}
			junk := wire.AppendRecordHeader(nil, wire.ContentApplicationData, wire.VersionDTLS12, 1, 9, 40)
			junk = append(junk, make([]byte, 40)...)
			datagrams := [][]byte{other(junk, 0, true)}
			if d.e.ConnectionID() == nil {
				datagrams = append(datagrams, other(junk, 1, true), other(junk, 2, true))
			} else {
				datagrams = append(datagrams, other(junk, 1, false), other(junk, 2, false))
			}
			for _, b := range datagrams {
				if drops := d.receive(b); !slices.Equal(drops, []Drop{DropConnectionID}) {
					t.Errorf("%s, client's %q: %x is dropped as %v", when, cid, b[:13], drops)
				}
			}
			d.wantSilent(when)
		}
		d.hello()
		d.toClient()
		wrong("before the flight")
		records := d.client.Records()
		d.receive(records[0])
		wrong("before ChangeCipherSpec")
		d.receive(bytes.Join(records[1:], nil))
		d.toClient()
		d.wantEstablished("in the end")
		wrong("when open")
	}
}

// TestEarlyConnectionID: the client's Finished overtakes what comes before it, and is
// found behind its connection ID, whose records do not say what they are.
func TestEarlyConnectionID(t *testing.T) {
	t.Parallel()
	for _, order := range [][]int{{2, 0, 1}, {2, 1, 0}, {0, 2, 1}, {1, 2, 0}, {3, 2, 0, 1}, {2, 3, 1, 0}, {0, 3, 2, 1}} {
		d := newCIDDriver(t, []byte("client"))
		d.hello()
		d.toClient()
		records := append(d.client.Records(), d.client.Sealed(wire.ContentApplicationData, []byte("early")))
		for _, i := range order {
			if drops := d.receive(records[i]); len(drops) > 0 {
				t.Errorf("%v: record %d is dropped as %v", order, i, drops)
			}
		}
		d.toClient()
		d.wantEstablished(fmt.Sprint(order))
		if len(d.data) > 0 {
			t.Errorf("%v: %q was delivered", order, d.data)
		}
		dropped := 0
		for _, ev := range d.events {
			if ev.Kind == EventDropped && ev.Drop == DropEarlyData {
				dropped++
			}
		}
		if dropped != len(order)-3 {
			t.Errorf("%v: %d records of data are dropped: %v", order, dropped, d.events)
		}
	}
}

// TestWrongKeyConnectionID: a Finished that does not open behind a connection ID is
// still known for one.
func TestWrongKeyConnectionID(t *testing.T) {
	t.Parallel()
	d := newCIDDriver(t, []byte("client"))
	d.client.Key = []byte("another")
	d.hello()
	d.toClient()
	d.receive(d.client.Flight())
	d.advance(time.Hour)
	if ev := d.wantClosed(CauseTimeout, "with a wrong key"); !ev.WrongKey {
		t.Error("the key is not suspected")
	}
}

// TestResumeConnectionID: connection IDs are negotiated afresh, and data that overtakes
// the client's Finished is delivered after it.
func TestResumeConnectionID(t *testing.T) {
	t.Parallel()
	for _, first := range [][]byte{nil, []byte("first")} {
		for _, second := range [][]byte{nil, {}, []byte("second")} {
			for _, order := range []string{"cfd", "fdc", "dfc", "dcf", "fcd", "cdf", "xfdc", "xcfd"} {
				d := newCIDDriver(t, first)
				d.cfg.Tickets = openTickets{}
				d.client.Suites = []uint16{suite.ECDHEPSKWithAES128GCM}
				d.client.AskTicket = true
				d.establish()
				ticket, master := d.client.NewTicket, d.client.Master
				d.client = testpeer.New(identity, []byte(key), 2)
				d.client.MessageSeq, d.client.Seq = 1, 1
				d.client.Suites, d.client.CID = []uint16{suite.ECDHEPSKWithAES128GCM}, second
				d.client.Ticket, d.client.Master, d.client.SessionID = ticket, master, []byte{1}
				d.sent, d.data, d.works = nil, nil, nil
				d.hello()
				d.toClient()
				if !d.client.Resuming || (d.client.ServerCID != nil) != (second != nil) {
					t.Fatalf("resuming %v, connection ID %x", d.client.Resuming, d.client.ServerCID)
				}
				ccs := d.client.Plain(wire.ContentChangeCipherSpec, []byte{1})
				finished := d.client.Sealed(wire.ContentHandshake, d.client.FinishedMessage())
				data := d.client.Sealed(wire.ContentApplicationData, []byte("data"))
				forged := bytes.Clone(data)
				forged[len(forged)-1] ^= 1
				for _, what := range order {
					d.receive(map[rune][]byte{'c': ccs, 'f': finished, 'd': data, 'x': forged}[what])
				}
				d.wantEstablished(order)
				if len(d.data) != 1 || d.data[0] != "data" {
					t.Errorf("after %q, %q, order %s: %q was delivered", first, second, order, d.data)
				}
			}
		}
	}
}

// TestOvertakingTypes: in an abbreviated handshake, only data that overtakes the client's
// Finished is kept for later, whatever else is sealed behind a connection ID.
func TestOvertakingTypes(t *testing.T) {
	t.Parallel()
	for _, order := range []string{"rfdc", "drcf", "rdfc", "rrrdcf", "crfd"} {
		d := newCIDDriver(t, []byte("first"))
		d.cfg.Tickets = openTickets{}
		d.client.Suites = []uint16{suite.ECDHEPSKWithAES128GCM}
		d.client.AskTicket, d.client.CheckPaths = true, true
		d.establish()
		ticket, master := d.client.NewTicket, d.client.Master
		d.client = testpeer.New(identity, []byte(key), 2)
		d.client.MessageSeq, d.client.Seq = 1, 1
		d.client.Suites, d.client.CID, d.client.CheckPaths = []uint16{suite.ECDHEPSKWithAES128GCM}, []byte("second"), true
		d.client.Ticket, d.client.Master, d.client.SessionID = ticket, master, []byte{1}
		d.sent, d.data, d.works = nil, nil, nil
		d.hello()
		d.toClient()
		ccs := d.client.Plain(wire.ContentChangeCipherSpec, []byte{1})
		finished := d.client.Sealed(wire.ContentHandshake, d.client.FinishedMessage())
		data := d.client.Sealed(wire.ContentApplicationData, []byte("data"))
		about := d.client.Path(PathChallenge, [8]byte{1})
		for _, what := range order {
			d.receive(map[rune][]byte{'c': ccs, 'f': finished, 'd': data, 'r': about}[what])
		}
		d.wantEstablished(order)
		if !slices.Equal(d.data, []string{"data"}) {
			t.Errorf("order %s: %q was delivered", order, d.data)
		}
	}
}

// TestPathMessages: messages about paths are handed out when the check was negotiated
// and the association is open, and else are a violation of the protocol or dropped.
func TestPathMessages(t *testing.T) {
	t.Parallel()
	cookie := [8]byte{1, 2, 3}
	open := func(checks bool) *driver {
		d := newCIDDriver(t, []byte("client"))
		d.client.CheckPaths = checks
		d.establish()
		return d
	}
	d := open(true)
	for _, typ := range []wire.PathMessageType{PathChallenge, PathResponse, PathDrop} {
		if drops := d.receive(d.client.Path(typ, cookie)); len(drops) > 0 {
			t.Errorf("type %d is dropped as %v", typ, drops)
		}
		if p := d.result.Path; p == nil || p.Type != typ || p.Cookie != cookie || !d.result.Newest || !d.result.Authentic {
			t.Errorf("type %d: %+v", typ, d.result)
		}
	}
	for _, content := range [][]byte{{}, {0}, {3, 1, 2, 3, 4, 5, 6, 7, 8}, make([]byte, 10)} {
		if drops := d.receive(d.client.Sealed(wire.ContentReturnRoutability, content)); len(drops) > 0 || d.result.Path != nil || !d.result.Newest {
			t.Errorf("%x: %v, %+v", content, drops, d.result)
		}
	}
	b, err := d.e.SealPath(nil, PathMessage{Type: PathChallenge, Cookie: cookie})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.client.Receive(b); err != nil || len(d.client.Paths) != 1 || d.client.Paths[0].Cookie != cookie {
		t.Errorf("the client got %v, %v", d.client.Paths, err)
	}

	d = open(false)
	d.receive(d.client.Path(PathChallenge, cookie))
	d.wantClosed(CauseHandshake, "without the extension")

	d = newCIDDriver(t, []byte("client"))
	d.client.CheckPaths = true
	d.cfg.AskVerdict = true
	d.hello()
	d.toClient()
	d.receive(d.client.Flight())
	if drops := d.receive(d.client.Path(PathChallenge, cookie)); !slices.Equal(drops, []Drop{DropUnexpected}) || d.result.Path != nil {
		t.Errorf("before the end of the handshake: %v, %+v", drops, d.result)
	}
}

// TestNewest: of authentic records those are newest that are newer than all before.
func TestNewest(t *testing.T) {
	t.Parallel()
	d := newCIDDriver(t, []byte("client"))
	d.establish()
	var records [][]byte
	for range 5 {
		records = append(records, d.client.Sealed(wire.ContentApplicationData, []byte("data")))
	}
	forged := bytes.Clone(records[4])
	forged[len(forged)-1] ^= 1
	for _, tt := range []struct {
		record []byte
		newest bool
	}{
		{records[1], true}, {records[0], false}, {records[3], true}, {records[3], false}, {records[2], false}, {forged, false}, {records[4], true},
	} {
		d.receive(tt.record)
		if d.result.Newest != tt.newest {
			t.Errorf("%x: newest %v", tt.record[:13], d.result.Newest)
		}
	}
}

// TestLongConnectionID: the last flight goes out though the client's connection ID
// leaves no room for it in the datagrams that the configuration allows, or that
// retransmission tries.
func TestLongConnectionID(t *testing.T) {
	t.Parallel()
	for _, mtu := range []int{MinMTU, 256, 300, 1200} {
		d := newCIDDriver(t, bytes.Repeat([]byte{7}, 255))
		d.cfg.MTU, d.long = mtu, true
		d.hello()
		d.toClient()
		d.receive(d.client.Flight())
		d.sent = nil // lost
		for range 5 {
			d.advance(10 * time.Second)
			d.receive(d.client.Sealed(wire.ContentHandshake, d.client.FinishedMessage()))
		}
		d.toClient()
		if !d.client.Complete {
			t.Errorf("MTU %d: not connected", mtu)
		}
	}
}

// TestConnectionIDLimit: the type of a record counts as content for the client's
// record_size_limit.
func TestConnectionIDLimit(t *testing.T) {
	t.Parallel()
	for _, cid := range [][]byte{nil, {}, []byte("client")} {
		d := newCIDDriver(t, cid)
		d.client.More = []byte{0, 28, 0, 2, 0, 64}
		d.establish()
		most := 64
		if len(cid) > 0 {
			most--
		}
		if _, err := d.e.Seal(nil, make([]byte, most)); err != nil {
			t.Errorf("%q: %d bytes: %v", cid, most, err)
		}
		if _, err := d.e.Seal(nil, make([]byte, most+1)); err != ErrTooLong {
			t.Errorf("%q: %d bytes: %v", cid, most+1, err)
		}
	}
}
