package engine

// What the engine hands out as EventWork, and what it does until that is done.

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// holding returns a driver that holds what EventWork asks for. The suite's
// server has a certificate, and with chain so has the client.
func holding(t *testing.T, id uint16, chain bool) *driver {
	cfg := newConfig()
	cfg.Certificate = func(*HelloInfo) *Certificate { return testCertificate }
	cfg.MaxClientCertificateBytes = 8 << 10
	cfg.RequestClientCertificate = chain
	d := newDriver(t, cfg)
	d.hold = true
	d.client.Suites = []uint16{id}
	if chain {
		d.client.Chain, d.client.Signer = testCertificate.Chain, testCertificate.Key
	}
	return d
}

// toFlight takes the handshake to where the client says its last flight.
func (d *driver) toFlight() {
	d.t.Helper()
	d.hello()
	d.work()
	d.toClient()
	if !d.client.HelloDone {
		d.t.Fatal("no ServerHelloDone")
	}
}

// asked returns how often work was asked for, and whether it may block.
func (d *driver) asked() (works []bool) {
	for _, ev := range d.events {
		if ev.Kind == EventWork {
			works = append(works, ev.Blocks)
		}
	}
	return works
}

// opaque is a private key of which nothing is known.
type opaque struct{ crypto.Signer }

// TestWork: what takes long is handed out, and nothing else is; only a key that
// is not known may block.
func TestWork(t *testing.T) {
	t.Parallel()
	token := *testCertificate
	token.Key = opaque{testCertificate.Key}
	tests := []struct {
		name        string
		suite       uint16
		chain       bool
		certificate *Certificate
		want        []bool // Blocks
	}{
		{"psk", suite.PSKWithAES128GCM, false, testCertificate, nil},
		{"ecdhe-psk", ecdhePSK, false, testCertificate, []bool{false, false}},
		{"certificate", ecdheCert, false, testCertificate, []bool{false, false}},
		{"client certificate", ecdheCert, true, testCertificate, []bool{false, false, false, false}},
		{"token", ecdheCert, false, &token, []bool{true, false}},
	}
	for _, tt := range tests {
		d := holding(t, tt.suite, tt.chain)
		d.cfg.Certificate = func(*HelloInfo) *Certificate { return tt.certificate }
		d.hello()
		d.work()
		d.toClient()
		d.receive(d.client.Flight())
		for range tt.want {
			d.work()
		}
		d.wantEstablished(tt.name)
		if got := d.asked(); !slices.Equal(got, tt.want) {
			t.Errorf("%s: asked for work %v, want %v", tt.name, got, tt.want)
		}
		if d.toClient(); !d.client.Complete {
			t.Errorf("%s: the client is not complete", tt.name)
		}
	}
}

// TestOrderOfClientFlightWhileWorking gives the client's flight in every order,
// in whole and in fragments, with the work done at each point of it.
func TestOrderOfClientFlightWhileWorking(t *testing.T) {
	t.Parallel()
	run := func(order []int, at int, fragments bool) {
		d := holding(t, ecdheCert, true)
		d.toFlight()
		records := d.client.Records()
		where := fmt.Sprintf("order %v, work at %d, fragments %v", order, at, fragments)
		for i, n := range order {
			if i == at {
				d.work() // of Certificate, if it has come, or else of ClientKeyExchange
			}
			r, _, _ := wire.ParseRecord(records[n], 0)
			if f, _, ok := wire.ParseFragment(r.Payload); fragments && ok && r.Epoch == 0 {
				d.receive(d.client.Plain(wire.ContentHandshake, fragment(f.Type, f.MessageSeq, f.Body, 10, len(f.Body))))
				d.receive(d.client.Plain(wire.ContentHandshake, fragment(f.Type, f.MessageSeq, f.Body, 0, 20)))
			} else {
				d.receive(records[n])
			}
			d.wantSilent(where)
		}
		d.wantOpen(where)
		for range 3 {
			d.work()
		}
		d.wantEstablished(where)
		if d.reserved != 0 {
			t.Errorf("%s: %d bytes are still reserved", where, d.reserved)
		}
		if d.toClient(); !d.client.Complete {
			t.Errorf("%s: the client is not complete", where)
		}
	}
	var permute func(order, left []int)
	permute = func(order, left []int) {
		if len(left) == 0 {
			for at := range len(order) {
				run(order, at, at%2 == 1)
			}
		}
		for i, n := range left {
			permute(append(slices.Clone(order), n), slices.Delete(slices.Clone(left), i, i+1))
		}
	}
	permute(nil, []int{0, 1, 2, 3, 4})
}

// TestForgedWhileWorking: what strangers say while the engine waits does not
// stand in the way of what the client says then.
func TestForgedWhileWorking(t *testing.T) {
	t.Parallel()
	d := holding(t, ecdheCert, true)
	d.toFlight()
	records := d.client.Records()
	r, _, _ := wire.ParseRecord(records[2], 0)
	verify, _, _ := wire.ParseFragment(r.Payload)
	forge := func(t wire.HandshakeType, seq uint16, body []byte, from, to int) []Drop {
		return d.receive(d.client.Plain(wire.ContentHandshake, fragment(t, seq, body, from, to)))
	}
	wrong := bytes.Repeat([]byte{1}, 300)
	d.receive(records[0])
	d.work()
	d.receive(records[1])
	for range 3 {
		forge(verify.Type, verify.MessageSeq, wrong, 0, 300)
		forge(verify.Type, verify.MessageSeq, wrong[:100], 0, 100)
		forge(verify.Type, verify.MessageSeq, wrong[:200], 100, 150)
		d.receive(d.client.Plain(wire.ContentAlert, []byte{2, 40}))
		for _, typ := range []wire.HandshakeType{wire.TypeClientHello, wire.TypeCertificate, wire.TypeClientKeyExchange, wire.TypeFinished} {
			if drops := forge(typ, verify.MessageSeq, wrong, 0, 300); !slices.Equal(drops, []Drop{DropUnexpected}) {
				t.Errorf("message %d was dropped for %v", typ, drops)
			}
			if drops := forge(typ, verify.MessageSeq-1, wrong, 0, 300); !slices.Equal(drops, []Drop{DropRepeated}) {
				t.Errorf("message %d behind the next was dropped for %v", typ, drops)
			}
		}
	}
	d.advance(10 * time.Second) // longer than an alert leaves
	d.receive(records[2])
	d.receive(records[3])
	d.work()
	if d.e.state != awaitVerification {
		t.Fatalf("in state %s", stateNames[d.e.state])
	}
	forge(verify.Type, verify.MessageSeq, wrong, 0, 300)
	d.receive(d.client.Plain(wire.ContentAlert, []byte{2, 40}))
	d.advance(10 * time.Second)
	d.receive(records[4])
	d.wantSilent("while working")
	d.work()
	d.wantEstablished("after what was forged")
	if d.reserved != 0 {
		t.Errorf("%d bytes are still reserved", d.reserved)
	}
}

// TestWrongPoint: no handshake with a key that is no point of the group, nor
// with one that leads to a secret that all know (RFC 8422 section 5.11).
func TestWrongPoint(t *testing.T) {
	t.Parallel()
	point := append([]byte{4}, bytes.Repeat([]byte{9}, 64)...)
	tests := []struct {
		name  string
		suite uint16
		group uint16
		key   []byte
	}{
		{"certificate, off the curve", ecdheCert, suite.GroupP256, point},
		{"certificate, infinity", ecdheCert, suite.GroupP256, []byte{0}},
		{"certificate, of another length", ecdheCert, suite.GroupP384, point},
		{"certificate, low order", ecdheCert, suite.GroupX25519, make([]byte, 32)},
		{"psk, off the curve", ecdhePSK, suite.GroupP256, point},
	}
	for _, tt := range tests {
		d := holding(t, tt.suite, false)
		d.client.Groups = []uint16{tt.group}
		d.toFlight()
		d.events = nil
		body := append([]byte{byte(len(tt.key))}, tt.key...)
		if tt.suite == ecdhePSK {
			body = append(append([]byte{0, byte(len(identity))}, identity...), body...)
		}
		m := fragment(wire.TypeClientKeyExchange, d.e.hs.nextReceive, body, 0, len(body))
		d.receive(d.client.Plain(wire.ContentHandshake, m))
		d.wantOpen(tt.name)
		d.work()
		if ev := d.wantClosed(CauseHandshake, tt.name); ev.Alert != wire.AlertIllegalParameter {
			t.Errorf("%s: alert %d", tt.name, ev.Alert)
		}
		for _, ev := range d.events {
			if ev.Kind == EventPSKNeeded {
				t.Errorf("%s: the key was asked for", tt.name)
			}
		}
		d.toClient()
		if want := []wire.Alert{{Level: wire.LevelFatal, Description: wire.AlertIllegalParameter}}; !slices.Equal(d.client.Alerts, want) {
			t.Errorf("%s: the client got %v", tt.name, d.client.Alerts)
		}
	}
}

// TestWrongCertificateVerify: a signature of something else ends the handshake,
// also when it had to wait.
func TestWrongCertificateVerify(t *testing.T) {
	t.Parallel()
	d := holding(t, ecdheCert, true)
	d.client.WrongVerify = true
	d.toFlight()
	d.receive(d.client.Flight())
	d.work()
	d.work()
	d.wantOpen("before the verification")
	d.work()
	if ev := d.wantClosed(CauseHandshake, "after it"); ev.Alert != wire.AlertDecryptError {
		t.Errorf("alert %d", ev.Alert)
	}
}

// TestWorkThatFails: without a signature there is no flight.
func TestWorkThatFails(t *testing.T) {
	t.Parallel()
	mute := *testCertificate
	mute.Key = mutePrivateKey{testCertificate.Key}
	d := holding(t, ecdheCert, false)
	d.cfg.Certificate = func(*HelloInfo) *Certificate { return &mute }
	d.hello()
	d.work()
	if ev := d.wantClosed(CauseInternal, "without a signature"); ev.Err == nil || ev.Alert != wire.AlertInternalError {
		t.Errorf("%+v", ev)
	}
	if len(d.sent) != 1 {
		t.Errorf("%d datagrams, want an alert", len(d.sent))
	}
}

// mutePrivateKey signs nothing.
type mutePrivateKey struct{ crypto.Signer }

func (mutePrivateKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("the token is gone")
}

// workingStates are the states in which an engine waits for work, and how to
// get there.
var workingStates = []struct {
	state state
	reach func(d *driver)
}{
	{awaitServerKeyExchange, func(d *driver) { d.hello() }},
	{awaitParsing, func(d *driver) { d.toFlight(); d.receive(d.client.Flight()) }},
	{awaitSecret, func(d *driver) { d.toFlight(); d.receive(d.client.Flight()); d.work() }},
	{awaitVerification, func(d *driver) { d.toFlight(); d.receive(d.client.Flight()); d.work(); d.work() }},
}

// TestEndWhileWorking: work that is done after the end does nothing, and the
// end leaves nothing behind.
func TestEndWhileWorking(t *testing.T) {
	t.Parallel()
	ends := []struct {
		name  string
		end   func(d *driver)
		cause Cause
		sends int
	}{
		{"Close", func(d *driver) { d.e.Close() }, CauseLocal, 1},
		{"Abandon", func(d *driver) { d.e.Abandon() }, CauseLocal, 0},
		{"time", func(d *driver) { d.advance(time.Minute) }, CauseTimeout, 0},
	}
	for _, s := range workingStates {
		for _, tt := range ends {
			d := holding(t, ecdheCert, true)
			s.reach(d)
			if d.e.state != s.state {
				t.Fatalf("in state %s, want %s", stateNames[d.e.state], stateNames[s.state])
			}
			where := tt.name + " in " + stateNames[s.state]
			d.sent = nil
			tt.end(d)
			d.pump()
			d.wantClosed(tt.cause, where)
			if len(d.sent) != tt.sends {
				t.Errorf("%s: %d datagrams, want %d", where, len(d.sent), tt.sends)
			}
			told := len(d.events)
			d.sent = nil
			d.work()
			d.wantSilent(where)
			if d.wantClosed(tt.cause, where); len(d.events) != told || d.reserved != 0 {
				t.Errorf("%s: %d events after the end, %d bytes are still reserved", where, len(d.events)-told, d.reserved)
			}
		}
	}
}

// TestScheduleWhileWorking: nothing is sent meanwhile, whoever asks for it, and
// how long the work took does not show in when flight 4 is repeated.
func TestScheduleWhileWorking(t *testing.T) {
	t.Parallel()
	for _, took := range []time.Duration{0, 300 * time.Millisecond, 999 * time.Millisecond} {
		d := holding(t, ecdheCert, true)
		d.toFlight()
		records := d.client.Records()
		d.advance(700 * time.Millisecond)
		from := d.now
		for _, r := range records[:3] { // all in epoch 0: a Finished would end it
			d.receive(r)
		}
		for range 3 { // a third of the time for each
			d.advance(took / 3)
			for _, r := range records[:3] {
				d.receive(r)
			}
			d.e.HelloAgain(d.now)
			d.pump()
			d.wantSilent("while working")
			d.work()
		}
		if d.e.state != awaitFinished {
			t.Fatalf("in state %s", stateNames[d.e.state])
		}
		var at []time.Duration
		for d.now.Before(from.Add(20 * time.Second)) {
			if d.advance(time.Millisecond); len(d.sent) > 0 {
				at, d.sent = append(at, d.now.Sub(from).Round(10*time.Millisecond)), nil
			}
		}
		if want := []time.Duration{time.Second, 3 * time.Second, 7 * time.Second, 15 * time.Second}; !slices.Equal(at, want) {
			t.Errorf("work of %v: sent again after %v, want %v", took, at, want)
		}
		d.receive(records[3])
		d.receive(records[4])
		d.wantEstablished("at last")
	}
	// When the work has taken longer than the time out, the rhythm is kept.
	d := holding(t, ecdheCert, true)
	d.toFlight()
	records := d.client.Records()
	from := d.now
	for _, r := range records[:3] {
		d.receive(r)
	}
	d.work()
	d.advance(1500 * time.Millisecond)
	d.work()
	d.advance(2 * time.Second)
	d.wantSilent("after 3.5 s")
	d.work()
	if at := d.e.Deadline().Sub(from); at != 4*time.Second {
		t.Errorf("sent again after %v, want 4 s", at)
	}
}

// TestWorkBesideTheEngine does the work on another goroutine, while the engine
// is in use, for the race detector.
func TestWorkBesideTheEngine(t *testing.T) {
	t.Parallel()
	d := holding(t, ecdheCert, true)
	beside := func() {
		done := make(chan func(time.Time), 1)
		work := d.works[len(d.works)-1]
		go func() { done <- work() }()
		for _, r := range append(d.client.Seen, Record{Type: wire.ContentAlert, Payload: []byte{2, 40}}) {
			d.receive(d.client.Plain(r.Type, r.Payload)) // our own words: of no use
		}
		d.advance(10 * time.Millisecond)
		d.e.HelloAgain(d.now)
		d.pump()
		(<-done)(d.now)
		d.pump()
	}
	d.hello()
	beside()
	d.toClient()
	flight := d.client.Flight()
	d.receive(flight)
	beside()
	d.receive(flight)
	beside()
	d.receive(flight)
	beside()
	d.wantEstablished("with work beside it")
}
