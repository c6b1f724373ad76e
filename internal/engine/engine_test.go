package engine

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

const (
	identity = "device 7"
	key      = "sixteen byte key"
)

// driver drives an engine as a session does, on a clock of its own.
type driver struct {
	t      *testing.T
	cfg    *Config
	e      *Engine
	client *testpeer.Client
	now    time.Time
	start  time.Time
	sent   [][]byte // datagrams not yet looked at
	events []Event  // not yet looked at
	data   []string // handed out and not yet looked at
	// answer answers EventPSKNeeded at once; nil: the test does.
	answer func(identity string) []byte
	// hold keeps what EventWork asks for in works, where it is done at once
	// otherwise.
	hold      bool
	works     []func() (done func(time.Time))
	datagrams uint64   // that the engine was given
	budget    Budget   // nil: reserved
	reserved  reserved // bytes
	result    Result   // of the last record
	long      bool     // datagrams may be longer than the MTU
}

func newConfig() *Config {
	return &Config{
		Suites:            suite.All(),
		PSK:               true,
		MaxPSKIdentityLen: 64,
		Groups:            suite.Groups(),
		MTU:               1200,
		FirstTimeout:      time.Second,
		HandshakeTimeout:  30 * time.Second,
		Rand:              rand.Reader,
		Memory:            &lent,
	}
}

// lent is the memory that all engines of the tests share. What is put into it
// must hold no secret, and nobody may use it any more: it is scribbled on.
var lent scribbler

type scribbler struct {
	mu   sync.Mutex
	free []*handshake
}

func (m *scribbler) Get() any {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.free) == 0 {
		return nil
	}
	hs := m.free[len(m.free)-1]
	m.free = m.free[:len(m.free)-1]
	return hs
}

func (m *scribbler) Put(v any) {
	hs := v.(*handshake)
	if !reflect.ValueOf(hs.progress).IsZero() {
		panic(fmt.Sprintf("progress that is left: %+v", hs.progress))
	}
	if !reflect.ValueOf(hs.events).IsZero() {
		panic(fmt.Sprintf("events that are left: %+v", hs.events))
	}
	secrets := map[string][]byte{
		"premaster": hs.premaster[:cap(hs.premaster)], "master": hs.master[:], "opened": hs.opened[:],
	}
	schedule := reflect.ValueOf(&hs.secret).Elem()
	for _, name := range []string{"text", "out"} {
		secrets[name] = schedule.FieldByName(name).Bytes()
	}
	for _, name := range []string{"inner", "outer", "pad", "scratch"} {
		secrets[name] = schedule.FieldByName("mac").FieldByName(name).Bytes()
	}
	for what, secret := range secrets {
		if len(bytes.Trim(secret, "\x00")) > 0 {
			panic(fmt.Sprintf("%s that is left: %x", what, secret))
		}
	}
	for _, room := range [][]byte{hs.hello, hs.sessionHash, hs.early, hs.master[:], hs.opened[:], hs.scratch[:], hs.flight[:]} {
		room = room[:cap(room)]
		for i := range room {
			room[i] = 0xa5
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.free = append(m.free, hs)
}

// reserved is a Budget that grants all, and counts it.
type reserved int

func (n *reserved) Reserve(bytes int) bool {
	*n += reserved(bytes)
	return true
}

// budgetFunc is a Budget.
type budgetFunc func(bytes int) bool

func (f budgetFunc) Reserve(bytes int) bool { return f(bytes) }

// ourCID is the connection ID that tests give.
const ourCID = "server-cid"

// testHost is a Host with a Budget, or none.
type testHost struct{ Budget }

func (h testHost) Reserve(bytes int) bool { return h.Budget == nil || h.Budget.Reserve(bytes) }
func (testHost) ConnectionID() []byte     { return []byte(ourCID) }

func newDriver(t *testing.T, cfg *Config) *driver {
	start := time.Unix(1_700_000_000, 0)
	d := &driver{t: t, cfg: cfg, client: testpeer.New(identity, []byte(key), 1), now: start, start: start}
	d.client.MessageSeq, d.client.Seq = 1, 1 // as after a HelloVerifyRequest
	d.answer = func(id string) []byte {
		if id == identity {
			return []byte(key)
		}
		return nil
	}
	return d
}

// hello starts the engine with the client's hello.
func (d *driver) hello() {
	d.t.Helper()
	d.helloDatagram(d.client.Hello())
}

func (d *driver) helloDatagram(datagram []byte) {
	d.t.Helper()
	hello, ok := parseHello(datagram)
	if !ok {
		d.t.Fatal("the hello does not parse")
	}
	d.e = new(Engine)
	if d.budget == nil {
		d.budget = &d.reserved
	}
	d.e.Begin(d.cfg, testHost{d.budget}, d.now, &hello)
	d.receive(datagram)
}

// receive gives the engine a datagram and returns the reasons for drops.
func (d *driver) receive(datagram []byte) []Drop {
	d.t.Helper()
	var drops []Drop
	buf := make([]byte, 0, 1<<15)
	d.datagrams++
	for len(datagram) > 0 {
		r, rest, ok := NextRecord(datagram, d.cfg.ConnectionIDLen)
		if !ok {
			d.t.Fatal("the test sent half a record")
		}
		datagram = rest
		result := d.e.Receive(d.now, d.datagrams, r, buf)
		d.result = result
		data, drop := result.Data, result.Drop
		if drop != DropNone {
			drops = append(drops, drop)
		}
		if data != nil {
			d.data = append(d.data, string(data))
		}
		d.pump()
	}
	return drops
}

// pump does what a caller of the engine must do after each call.
func (d *driver) pump() {
	d.t.Helper()
	for {
		datagram := d.e.AppendDatagram(nil)
		if len(datagram) == 0 {
			break
		}
		if len(datagram) > d.cfg.MTU && !d.long {
			d.t.Errorf("datagram of %d bytes, MTU is %d", len(datagram), d.cfg.MTU)
		}
		d.sent = append(d.sent, datagram)
	}
	for {
		ev, ok := d.e.Event()
		if !ok {
			return
		}
		d.events = append(d.events, ev)
		if ev.Kind == EventData {
			d.data = append(d.data, string(ev.Data))
		}
		if ev.Kind == EventPSKNeeded && d.answer != nil {
			d.e.AnswerPSK(d.now, d.answer(ev.Identity))
			d.pump()
		}
		if ev.Kind == EventWork {
			d.works = append(d.works, sync.OnceValue(ev.Work))
			if !d.hold {
				d.work()
			}
		}
	}
}

// work does what the engine has asked for.
func (d *driver) work() {
	d.t.Helper()
	d.allWork()
	d.pump()
}

// allWork does what the engine has asked for, and what it ever has asked for
// once more, which must have no effect.
func (d *driver) allWork() {
	for _, work := range slices.Backward(d.works) {
		work()(d.now)
	}
}

// advance lets time pass, with the timeouts that fall due.
func (d *driver) advance(by time.Duration) {
	d.t.Helper()
	until := d.now.Add(by)
	for {
		at := d.e.Deadline()
		if at.IsZero() || at.After(until) {
			break
		}
		d.now = at
		d.e.Timeout(d.now)
		d.pump()
	}
	d.now = until
}

// toClient gives the client what the engine has sent.
func (d *driver) toClient() {
	d.t.Helper()
	for _, datagram := range d.sent {
		if err := d.client.Receive(datagram); err != nil {
			d.t.Fatalf("client: %v", err)
		}
	}
	d.sent = nil
}

// establish runs a whole handshake.
func (d *driver) establish() {
	d.t.Helper()
	d.hello()
	d.toClient()
	if !d.client.HelloDone {
		d.t.Fatal("no ServerHelloDone")
	}
	d.receive(d.client.Flight())
	d.toClient()
	d.wantEstablished("after both flights")
	if !d.client.Complete {
		d.t.Fatal("the client got no Finished")
	}
	d.events = nil
}

func (d *driver) wantEstablished(why string) {
	d.t.Helper()
	if !d.e.Established() {
		d.t.Fatalf("not established %s; events %v", why, d.events)
	}
}

func (d *driver) wantOpen(why string) {
	d.t.Helper()
	if d.e.Closed() || d.e.Established() {
		d.t.Fatalf("handshake no longer in progress %s: closed %v, established %v, events %v", why, d.e.Closed(), d.e.Established(), d.events)
	}
}

func (d *driver) wantSilent(why string) {
	d.t.Helper()
	if len(d.sent) > 0 {
		d.t.Fatalf("%s: the server sent %d datagrams, the first %x", why, len(d.sent), d.sent[0])
	}
}

// wantClosed wants the last event to be the closing one, for the cause.
func (d *driver) wantClosed(cause Cause, why string) Event {
	d.t.Helper()
	if !d.e.Closed() || len(d.events) == 0 {
		d.t.Fatalf("%s: not closed, events %v", why, d.events)
	}
	ev := d.events[len(d.events)-1]
	if ev.Kind != EventClosed || ev.Cause != cause {
		d.t.Fatalf("%s: closed with %+v, want cause %d", why, ev, cause)
	}
	return ev
}

// TestHandshake runs the handshake of every suite, with and without the
// extended master secret and a hint, and sends data both ways.
func TestHandshake(t *testing.T) {
	t.Parallel()
	for _, s := range suite.All() {
		if !s.KeyExchange.WithPSK() {
			continue // see TestCertificates
		}
		for _, ems := range []bool{true, false} {
			for _, hint := range []string{"", "Qt DTLS example server"} {
				t.Run(fmt.Sprintf("%s/ems=%v/hint=%v", s.Name, ems, hint != ""), func(t *testing.T) {
					t.Parallel()
					cfg := newConfig()
					cfg.PSKIdentityHint = func(string) []byte { return []byte(hint) }
					var logged []byte
					cfg.KeyLog = func(label string, clientRandom, _ []byte) { logged = append([]byte(label), clientRandom...) }
					d := newDriver(t, cfg)
					d.client.Suites, d.client.NoEMS = []uint16{s.ID}, !ems
					d.establish()
					h := d.client.ServerHello
					if _, got := h.Extensions[23]; got != ems {
						t.Errorf("extended_master_secret in ServerHello: %v, want %v", got, ems)
					}
					if info, got := h.Extensions[0xff01]; !got || !bytes.Equal(info, []byte{0}) {
						t.Errorf("renegotiation_info in ServerHello: %x", info)
					}
					if string(d.client.Hint) != hint {
						t.Errorf("hint %q, want %q", d.client.Hint, hint)
					}
					if want := append([]byte("CLIENT_RANDOM"), d.client.Random[:]...); !bytes.Equal(logged, want) {
						t.Errorf("key log has %q", logged)
					}
					d.wantData("ping")
					d.wantData("")
					out, err := d.e.Seal(nil, []byte("pong"))
					if err != nil {
						t.Fatal(err)
					}
					if err := d.client.Receive(out); err != nil || string(d.client.Data[0]) != "pong" {
						t.Fatalf("client got %q, %v", d.client.Data, err)
					}
				})
			}
		}
	}
}

// wantData sends data from the client and wants it handed out.
func (d *driver) wantData(data string) {
	d.t.Helper()
	d.events, d.data = nil, nil
	record := d.client.Sealed(wire.ContentApplicationData, []byte(data))
	if drops := d.receive(record); drops != nil {
		d.t.Fatalf("data was dropped: %v", drops)
	}
	if len(d.events) != 0 || !slices.Equal(d.data, []string{data}) {
		d.t.Fatalf("data %q led to %q and %+v", data, d.data, d.events)
	}
	d.data = nil
}

// TestServerHelloBytes holds the first flight against RFC 6347 section 4.2.1
// and what clients abort on.
func TestServerHelloBytes(t *testing.T) {
	t.Parallel()
	d := newDriver(t, newConfig())
	d.client.Seq, d.client.MessageSeq = 41, 7
	d.client.Extensions = []byte{}
	d.hello()
	r, rest, ok := wire.ParseRecord(d.sent[0], 0)
	if !ok || r.Seq != 41 {
		t.Errorf("ServerHello has record sequence %d, want that of the hello, 41", r.Seq)
	}
	f, _, _ := wire.ParseFragment(r.Payload)
	if f.MessageSeq != 7 || f.Type != wire.TypeServerHello {
		t.Errorf("first message is %+v", f)
	}
	const fixed = 2 + 32 + 1 + 2 + 1
	if len(f.Body) != fixed {
		t.Errorf("ServerHello to a hello without extensions has %d bytes, want %d", len(f.Body), fixed)
	}
	r, rest, _ = wire.ParseRecord(rest, 0)
	if f, _, _ = wire.ParseFragment(r.Payload); f.Type != wire.TypeServerHelloDone || f.MessageSeq != 8 || r.Seq != 42 {
		t.Errorf("second message is %+v in record %d", f, r.Seq)
	}
	if len(rest) != 0 || len(d.sent) != 1 {
		t.Error("more than ServerHello and ServerHelloDone in one datagram")
	}
}

// TestHelloRefused: what the verified hello may be refused for, and how.
func TestHelloRefused(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		edit  func(c *testpeer.Client, body []byte) []byte
		alert wire.AlertDescription
	}{
		{"DTLS 1.0 only", func(_ *testpeer.Client, b []byte) []byte { b[1] = 0xff; return b }, wire.AlertProtocolVersion},
		{"no suite in common", func(c *testpeer.Client, _ []byte) []byte {
			c.Suites = []uint16{0xc02b, 0x00ae}
			return c.HelloBody()
		}, wire.AlertHandshakeFailure},
		{"renegotiation", func(c *testpeer.Client, _ []byte) []byte {
			c.Extensions = []byte{0xff, 1, 0, 2, 1, 9}
			return c.HelloBody()
		}, wire.AlertHandshakeFailure},
		{"extension twice", func(c *testpeer.Client, _ []byte) []byte {
			c.Extensions = []byte{0, 23, 0, 0, 0, 23, 0, 0}
			return c.HelloBody()
		}, wire.AlertDecodeError},
		{"extension cut short", func(c *testpeer.Client, _ []byte) []byte {
			c.Extensions = []byte{0, 23, 0}
			return c.HelloBody()
		}, wire.AlertDecodeError},
		{"no null compression", func(_ *testpeer.Client, b []byte) []byte {
			i := 2 + 32 + 1 + 1 + 2 + 2
			b[i+1] = 1
			return b
		}, wire.AlertIllegalParameter},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := newDriver(t, newConfig())
			body := tt.edit(d.client, d.client.HelloBody())
			d.helloDatagram(d.client.Plain(wire.ContentHandshake, testpeer.Message(wire.TypeClientHello, 1, body)))
			ev := d.wantClosed(CauseHandshake, "after the hello")
			if ev.Alert != tt.alert || ev.Why == "" {
				t.Errorf("closed with alert %d %q, want %d", ev.Alert, ev.Why, tt.alert)
			}
			d.toClient()
			if len(d.client.Alerts) != 1 || d.client.Alerts[0] != (wire.Alert{Level: wire.LevelFatal, Description: tt.alert}) {
				t.Errorf("the client got alerts %v", d.client.Alerts)
			}
		})
	}
}

// TestVersions: "newer" versions negotiate 1.2 (RFC 5246 appendix E.1).
func TestVersions(t *testing.T) {
	t.Parallel()
	for _, version := range []byte{0xfd, 0xfc, 0xfb, 0x00} {
		d := newDriver(t, newConfig())
		body := d.client.HelloBody()
		body[1] = version
		d.helloDatagram(d.client.Plain(wire.ContentHandshake, testpeer.Message(wire.TypeClientHello, 1, body)))
		d.wantOpen(fmt.Sprintf("after a hello of version fe%02x", version))
		d.toClient()
		if d.client.ServerHello.Version != wire.VersionDTLS12 {
			t.Errorf("server chose %#x", d.client.ServerHello.Version)
		}
	}
}

// TestServerOrderDecides: the client's order and the suites that it cannot use
// do not matter.
func TestServerOrderDecides(t *testing.T) {
	t.Parallel()
	d := newDriver(t, newConfig())
	d.client.Suites = []uint16{0xc02b, 0x00ac, 0xc0a8, 0x00a9, 0x00a8}
	d.establish()
	if d.e.Parameters().Suite.ID != suite.PSKWithAES128GCM {
		t.Errorf("chose %s", d.e.Parameters().Suite.Name)
	}
}

// TestRetransmission: RFC 6347 section 4.2.4.1: 1 s, doubling to 60 s.
func TestRetransmission(t *testing.T) {
	t.Parallel()
	cfg := newConfig()
	cfg.HandshakeTimeout = 200 * time.Second
	d := newDriver(t, cfg)
	d.hello()
	flight := d.sent[0]
	d.sent = nil
	var at []int
	for range 250 {
		d.advance(time.Second)
		if len(d.sent) > 0 {
			at = append(at, int(d.now.Sub(d.start)/time.Second))
			if n := len(slices.Concat(d.sent...)); n != len(flight) {
				t.Errorf("retransmission has %d bytes, the flight %d", n, len(flight))
			}
		}
		d.sent = nil
	}
	if want := []int{1, 3, 7, 15, 31, 63, 123, 183}; !slices.Equal(at, want) {
		t.Errorf("retransmitted at %v s, want %v", at, want)
	}
	d.wantClosed(CauseTimeout, "after 200 s")
}

// TestRetransmittedRecordsAreNumberedAnew: no sequence number is used twice.
func TestRetransmittedRecordsAreNumberedAnew(t *testing.T) {
	t.Parallel()
	d := newDriver(t, newConfig())
	d.hello()
	d.advance(4 * time.Second)
	d.toClient()
	d.receive(d.client.Flight())
	finished := d.client.FinishedMessage()
	for range 5 {
		d.advance(time.Second)
		d.receive(d.client.Sealed(wire.ContentHandshake, finished))
	}
	d.toClient()
	type number struct {
		epoch uint16
		seq   uint64
	}
	seen := make(map[number]bool)
	finisheds := 0
	for _, r := range d.client.Seen {
		n := number{r.Epoch, r.Seq}
		if seen[n] {
			t.Errorf("record %v was sent twice", n)
		}
		seen[n] = true
		if r.Epoch == 1 {
			finisheds++
		}
	}
	if finisheds != 6 {
		t.Errorf("Finished was sent %d times, want once and for each of 5 repetitions", finisheds)
	}
}

// TestLastFlight: the last flight is kept for 240 s and given again, at once, each
// time that the client repeats its own.
func TestLastFlight(t *testing.T) {
	t.Parallel()
	d := newDriver(t, newConfig())
	d.establish()
	finished := d.client.FinishedMessage()
	for n := range 5 {
		d.receive(d.client.Sealed(wire.ContentHandshake, finished))
		if d.finisheds() != n+1 {
			t.Fatalf("%d repetitions got %d answers", n+1, d.finisheds())
		}
	}
	for range 995 {
		d.advance(time.Millisecond)
		d.receive(d.client.Sealed(wire.ContentHandshake, finished))
	}
	if n := d.finisheds(); n != 1000 {
		t.Errorf("1,000 repetitions got %d answers", n)
	}
	d.toClient()
	d.advance(230 * time.Second)
	d.receive(d.client.Sealed(wire.ContentHandshake, finished))
	if len(d.sent) == 0 {
		t.Error("no answer after 231 s")
	}
	d.toClient()
	d.advance(10 * time.Second)
	d.receive(d.client.Sealed(wire.ContentHandshake, finished))
	d.wantSilent("after 240 s")
	d.wantEstablished("after all this")
	if !d.e.Deadline().IsZero() {
		t.Error("a deadline is left")
	}
}

// TestHelloAgain: a repeated hello is answered from the cache, at a bounded
// rate, with the same random, and moves the retransmission.
func TestHelloAgain(t *testing.T) {
	t.Parallel()
	d := newDriver(t, newConfig())
	d.hello()
	d.toClient()
	random := bytes.Clone(d.client.ServerHello.Random)
	for range 100 {
		d.advance(5 * time.Millisecond)
		d.e.HelloAgain(d.now)
		d.pump()
	}
	if n := len(d.sent); n != 2 {
		t.Errorf("100 hellos in half a second got %d answers, want 2", n)
	}
	d.sent = d.sent[:1]
	r, _, _ := wire.ParseRecord(d.sent[0], 0)
	f, _, _ := wire.ParseFragment(r.Payload)
	if !bytes.Equal(f.Body[2:34], random) {
		t.Error("the answer has another random")
	}
	d.receive(d.client.Flight())
	d.wantEstablished("after a repeated hello")
}

// TestOrderOfClientFlight tries every order and every subset of the client's
// three records, with repetitions: only a whole set completes, whatever its
// order, and a missing record completes it later.
func TestOrderOfClientFlight(t *testing.T) {
	t.Parallel()
	var try func(order []int)
	try = func(order []int) {
		d := newDriver(t, newConfig())
		d.hello()
		d.toClient()
		cke, ccs, finished := d.client.KeyExchange()
		records := [][]byte{cke, ccs, finished}
		have := 0
		for _, i := range order {
			d.receive(records[i])
			have |= 1 << i
			if d.e.Established() != (have == 7) {
				t.Fatalf("order %v: established %v with records %03b", order, d.e.Established(), have)
			}
		}
		for i := range records {
			if have&(1<<i) == 0 {
				d.wantOpen(fmt.Sprintf("order %v", order))
				d.receive(records[i])
				have |= 1 << i
			}
		}
		d.wantEstablished(fmt.Sprintf("order %v, then the rest", order))
		if len(order) < 4 {
			for i := range records {
				try(append(slices.Clone(order), i))
			}
		}
	}
	try(nil)
}

// TestWrongMessagesDoNothing sends junk of every type in every state: nothing
// is sent, told or changed.
func TestWrongMessagesDoNothing(t *testing.T) {
	t.Parallel()
	states := []struct {
		name  string
		reach func(d *driver)
	}{
		{"await ClientKeyExchange", func(d *driver) { d.hello(); d.toClient() }},
		{"await PSK", func(d *driver) {
			d.answer = nil
			d.hello()
			d.toClient()
			cke, _, _ := d.client.KeyExchange()
			d.receive(cke)
		}},
		{"await Finished", func(d *driver) {
			d.hello()
			d.toClient()
			cke, ccs, _ := d.client.KeyExchange()
			d.receive(cke)
			d.receive(ccs)
		}},
		{"established", func(d *driver) { d.establish() }},
	}
	for _, state := range states {
		t.Run(state.name, func(t *testing.T) {
			t.Parallel()
			d := newDriver(t, newConfig())
			state.reach(d)
			before := d.e.state
			d.events = nil
			for _, content := range []wire.ContentType{0, 20, 21, 22, 23, 24, 25, 255} {
				for _, epoch := range []uint16{0, 1, 2, 0xffff} {
					for _, payload := range junk() {
						if content == wire.ContentChangeCipherSpec && len(payload) == 1 && payload[0] == 1 && epoch == 0 {
							continue // may come early and twice
						}
						for _, seq := range []uint64{0, 5, wire.MaxSequence} {
							r := wire.AppendRecordHeader(nil, content, wire.VersionDTLS12, epoch, seq, len(payload))
							d.receive(append(r, payload...))
						}
					}
				}
			}
			for typ := range 32 {
				for _, seq := range []uint16{0, 1, 2, 3, 4, 9, 0xffff} {
					if wire.HandshakeType(typ) == wire.TypeClientKeyExchange && seq == d.client.MessageSeq {
						continue // is what is waited for, malformed: decode_error
					}
					for _, body := range junk() {
						d.receive(d.client.Plain(wire.ContentHandshake, testpeer.Message(wire.HandshakeType(typ), seq, body)))
					}
				}
			}
			d.wantSilent("after junk")
			if d.e.state != before || len(d.events) != 0 || len(d.data) != 0 {
				t.Fatalf("junk moved the engine from state %d to %d, events %v, data %q", before, d.e.state, d.events, d.data)
			}
		})
	}
}

func junk() [][]byte {
	return [][]byte{
		{}, {0}, {1}, {2}, {1, 0}, {2, 0}, {2, 40}, {1, 90}, {2, 80}, {2, 40, 0},
		bytes.Repeat([]byte{0xff}, 12), bytes.Repeat([]byte{0}, 12), bytes.Repeat([]byte{7}, 300),
		make([]byte, 1<<14),
	}
}

// TestPlaintextAlertIsAHint: a plaintext fatal alert shortens a handshake to
// 5 s and no more; within them it completes.
func TestPlaintextAlertIsAHint(t *testing.T) {
	t.Parallel()
	for _, alert := range [][]byte{{2, 40}, {1, 0}} {
		d := newDriver(t, newConfig())
		d.hello()
		d.toClient()
		d.receive(d.client.Plain(wire.ContentAlert, alert))
		d.advance(4 * time.Second)
		d.wantOpen("4 s after the alert")
		d.advance(time.Second)
		if ev := d.wantClosed(CauseTimeout, "5 s after the alert"); ev.Alert != wire.AlertDescription(alert[1]) {
			t.Errorf("alert %d is not named: %+v", alert[1], ev)
		}

		d = newDriver(t, newConfig())
		d.hello()
		d.toClient()
		d.receive(d.client.Plain(wire.ContentAlert, alert))
		d.receive(d.client.Flight())
		d.wantEstablished("after a spoofed alert")
	}
}

// TestUnknownIdentityLooksLikeAWrongKey: the same datagrams, by number, length
// and time.
func TestUnknownIdentityLooksLikeAWrongKey(t *testing.T) {
	t.Parallel()
	type sent struct {
		at     time.Duration
		length int
	}
	trace := func(answer []byte) (all []sent) {
		d := newDriver(t, newConfig())
		d.answer = func(string) []byte { return answer }
		look := func() {
			for _, datagram := range d.sent {
				all = append(all, sent{d.now.Sub(d.start), len(datagram)})
			}
			d.toClient()
		}
		d.hello()
		look()
		d.receive(d.client.Flight())
		for range 40 {
			d.advance(time.Second)
			look()
			if !d.e.Closed() {
				d.receive(d.client.Sealed(wire.ContentHandshake, d.client.FinishedMessage()))
			}
		}
		if ev := d.wantClosed(CauseTimeout, "with a wrong key"); !ev.WrongKey {
			t.Error("the reason does not say that the Finished did not open")
		}
		return all
	}
	wrong, unknown := trace([]byte("another key")), trace(nil)
	if !slices.Equal(wrong, unknown) {
		t.Errorf("wrong key:        %v\nunknown identity: %v", wrong, unknown)
	}
	if len(wrong) != 1+4*2 { // once lost, in one record a datagram
		t.Errorf("sent %v, want the flight and four retransmissions", wrong)
	}
}

// TestLateAnswer: while the PSK is looked up nothing is sent, and what has
// come meanwhile is not lost.
func TestLateAnswer(t *testing.T) {
	t.Parallel()
	d := newDriver(t, newConfig())
	d.answer = nil
	d.hello()
	d.toClient()
	d.receive(d.client.Flight())
	d.advance(10 * time.Second)
	d.wantSilent("while the key is looked up")
	d.e.AnswerPSK(d.now, []byte(key))
	d.pump()
	d.wantEstablished("after the answer")
	d.e.AnswerPSK(d.now, []byte("again"))
	d.pump()
	d.toClient()
	d.wantData("still the same keys")
}

// TestIdentityTooLong: it is unknown, without asking.
func TestIdentityTooLong(t *testing.T) {
	t.Parallel()
	d := newDriver(t, newConfig())
	d.client.Identity = string(make([]byte, d.cfg.MaxPSKIdentityLen+1))
	d.answer = nil
	d.hello()
	d.toClient()
	d.receive(d.client.Flight())
	d.wantOpen("after an identity that is too long")
	d.advance(time.Minute)
	if ev := d.wantClosed(CauseTimeout, "with an identity that is too long"); !ev.WrongKey {
		t.Error("not as with a wrong key")
	}
}

// TestEarlyData: application data before Finished is never handed out.
func TestEarlyData(t *testing.T) {
	t.Parallel()
	d := newDriver(t, newConfig())
	d.hello()
	d.toClient()
	cke, ccs, finished := d.client.KeyExchange()
	data := d.client.Sealed(wire.ContentApplicationData, []byte("early"))
	d.receive(data)
	d.receive(cke)
	d.receive(data)
	d.receive(ccs)
	if drops := d.receive(data); !slices.Equal(drops, []Drop{DropEarlyData}) {
		t.Errorf("drops %v", drops)
	}
	d.receive(finished)
	d.wantEstablished("after early data")
	if len(d.data) > 0 {
		t.Error("early data was handed out")
	}
	d.toClient()
	d.wantData("later")
}

// TestReplayedAndForged: each record is taken once, and what does not open
// changes nothing.
func TestReplayedAndForged(t *testing.T) {
	t.Parallel()
	d := newDriver(t, newConfig())
	d.establish()
	record := d.client.Sealed(wire.ContentApplicationData, []byte("once"))
	forged := bytes.Clone(record)
	forged[len(forged)-1] ^= 1
	if drops := d.receive(forged); !slices.Equal(drops, []Drop{DropForged}) {
		t.Errorf("forged record: %v", drops)
	}
	poison := bytes.Clone(record)
	for i := 5; i < 11; i++ {
		poison[i] = 0xff // sequence number 2^48-1
	}
	d.receive(poison)
	poison[3], poison[4] = 0xff, 0xff // epoch
	if drops := d.receive(poison); !slices.Equal(drops, []Drop{DropEpoch}) {
		t.Errorf("record of epoch ffff: %v", drops)
	}
	if drops := d.receive(record); drops != nil || !slices.Equal(d.data, []string{"once"}) {
		t.Errorf("the record itself: %v, %q", drops, d.data)
	}
	if drops := d.receive(record); !slices.Equal(drops, []Drop{DropReplayed}) {
		t.Errorf("the record again: %v", drops)
	}
}

// TestCloseNotify in both directions: answered once, sent once.
func TestCloseNotify(t *testing.T) {
	t.Parallel()
	d := newDriver(t, newConfig())
	d.establish()
	closeNotify := d.client.Sealed(wire.ContentAlert, []byte{1, 0})
	d.receive(closeNotify)
	d.wantClosed(CausePeerClosed, "after close_notify")
	d.toClient()
	d.receive(d.client.Sealed(wire.ContentAlert, []byte{1, 0}))
	d.toClient()
	if want := []wire.Alert{{Level: wire.LevelWarning}}; !slices.Equal(d.client.Alerts, want) {
		t.Errorf("the client got %v, want one close_notify", d.client.Alerts)
	}

	d = newDriver(t, newConfig())
	d.establish()
	d.e.Close()
	d.e.Close()
	d.pump()
	d.wantClosed(CauseLocal, "after Close")
	d.toClient()
	if want := []wire.Alert{{Level: wire.LevelWarning}}; !slices.Equal(d.client.Alerts, want) {
		t.Errorf("the client got %v, want one close_notify", d.client.Alerts)
	}
	if _, err := d.e.Seal(nil, nil); err != ErrClosed {
		t.Errorf("Seal after Close: %v", err)
	}
}

// TestAuthenticatedAlerts: a fatal one ends the association unanswered, a
// warning does not.
func TestAuthenticatedAlerts(t *testing.T) {
	t.Parallel()
	d := newDriver(t, newConfig())
	d.establish()
	d.receive(d.client.Sealed(wire.ContentAlert, []byte{1, 90}))
	d.wantEstablished("after a warning")
	if len(d.events) != 1 || d.events[0].Kind != EventWarningAlert || d.events[0].Alert != wire.AlertUserCanceled {
		t.Errorf("events %v", d.events)
	}
	d.receive(d.client.Sealed(wire.ContentAlert, []byte{2, 80}))
	d.wantClosed(CausePeerAlert, "after a fatal alert")
	d.wantSilent("after a fatal alert")
}

// TestRenegotiationIsRefused: with a warning, at a bounded rate.
func TestRenegotiationIsRefused(t *testing.T) {
	t.Parallel()
	d := newDriver(t, newConfig())
	d.establish()
	d.advance(time.Second)
	for range 1000 {
		hello := testpeer.Message(wire.TypeClientHello, 0, d.client.HelloBody())
		d.receive(d.client.Sealed(wire.ContentHandshake, hello))
	}
	d.toClient()
	if want := []wire.Alert{{Level: wire.LevelWarning, Description: wire.AlertNoRenegotiation}}; !slices.Equal(d.client.Alerts, want) {
		t.Errorf("1,000 hellos got %v, want one no_renegotiation", d.client.Alerts)
	}
	d.wantData("as before")
}

// TestWrongVerifyData: a Finished that opens and is wrong is fatal.
func TestWrongVerifyData(t *testing.T) {
	t.Parallel()
	d := newDriver(t, newConfig())
	d.hello()
	d.toClient()
	cke, ccs, _ := d.client.KeyExchange()
	d.receive(cke)
	d.receive(ccs)
	m := bytes.Clone(d.client.FinishedMessage())
	m[len(m)-1] ^= 1
	d.receive(d.client.Sealed(wire.ContentHandshake, m))
	if ev := d.wantClosed(CauseHandshake, "after a wrong Finished"); ev.Alert != wire.AlertDecryptError {
		t.Errorf("alert %d", ev.Alert)
	}
}

// TestSequenceNumbersEnd: the last number is for close_notify, none repeats.
func TestSequenceNumbersEnd(t *testing.T) {
	t.Parallel()
	t.Run("hello with the last number", func(t *testing.T) {
		t.Parallel()
		d := newDriver(t, newConfig())
		d.client.Seq = wire.MaxSequence
		d.hello()
		d.wantClosed(CauseExhausted, "after the first record")
		d.wantSilent("without numbers for a whole flight")
	})
	t.Run("last message_seq", func(t *testing.T) {
		t.Parallel()
		d := newDriver(t, newConfig())
		d.client.MessageSeq = 0xffff
		d.hello()
		d.advance(time.Minute)
		d.wantClosed(CauseTimeout, "without a client that could go on")
	})
}

// TestEntropyFails: no random bytes, no handshake, no panic.
func TestEntropyFails(t *testing.T) {
	t.Parallel()
	cfg := newConfig()
	cfg.Rand = bytes.NewReader(nil)
	d := newDriver(t, cfg)
	d.hello()
	if ev := d.wantClosed(CauseEntropy, "without random bytes"); ev.Err == nil {
		t.Error("no error")
	}
	cfg = newConfig()
	cfg.Rand = bytes.NewReader(make([]byte, wire.RandomLen))
	d = newDriver(t, cfg)
	d.answer = func(string) []byte { return nil }
	d.hello()
	d.toClient()
	d.receive(d.client.Flight())
	d.wantClosed(CauseEntropy, "without random bytes for an unknown identity")
}
