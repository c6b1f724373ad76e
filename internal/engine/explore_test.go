package engine

// Every message in every state, held against a table of what the RFCs and the
// rules of this server allow, and every short sequence of messages, none of
// which may open an association without what a handshake is made of.

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/testcert"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

var stateNames = [...]string{
	awaitClientHello:       "awaitClientHello",
	awaitResumptionParsing: "awaitResumptionParsing",
	awaitResumptionPSK:     "awaitResumptionPSK",
	awaitResumptionVerdict: "awaitResumptionVerdict",
	awaitCredential:        "awaitCredential",
	awaitServerKeyExchange: "awaitServerKeyExchange",
	awaitCertificate:       "awaitCertificate",
	awaitParsing:           "awaitParsing",
	awaitClientKeyExchange: "awaitClientKeyExchange",
	awaitSecret:            "awaitSecret",
	awaitPSK:               "awaitPSK",
	awaitCertificateVerify: "awaitCertificateVerify",
	awaitVerification:      "awaitVerification",
	awaitFinished:          "awaitFinished",
	awaitVerdict:           "awaitVerdict",
	established:            "established",
	closed:                 "closed",
}

var handshakeNames = map[wire.HandshakeType]string{
	wire.TypeHelloRequest:       "HelloRequest",
	wire.TypeClientHello:        "ClientHello",
	wire.TypeServerHello:        "ServerHello",
	wire.TypeHelloVerifyRequest: "HelloVerifyRequest",
	wire.TypeNewSessionTicket:   "NewSessionTicket",
	wire.TypeCertificate:        "Certificate",
	wire.TypeServerKeyExchange:  "ServerKeyExchange",
	wire.TypeCertificateRequest: "CertificateRequest",
	wire.TypeServerHelloDone:    "ServerHelloDone",
	wire.TypeCertificateVerify:  "CertificateVerify",
	wire.TypeClientKeyExchange:  "ClientKeyExchange",
	wire.TypeFinished:           "Finished",
	21:                          "CertificateURL",
	255:                         "UnknownMessage",
}

// scene is a kind of handshake, and the steps that lead through it.
type scene struct {
	name    string
	suite   uint16
	edit    func(*Config)
	chain   bool // the client has a certificate
	resumes bool
	path    []string
}

const (
	ecdhePSK  = 0xd001
	ecdheCert = 0xc02b
)

var scenes = []*scene{
	{name: "psk", suite: suite.PSKWithAES128GCM,
		path: []string{"hello", "keyExchange", "psk", "ccs", "finished"}},
	{name: "ecdhe-psk", suite: ecdhePSK,
		path: []string{"hello", "work", "keyExchange", "work", "psk", "ccs", "finished"}},
	{name: "psk-verdict", suite: suite.PSKWithAES128GCM,
		edit: func(c *Config) { c.AskVerdict = true },
		path: []string{"hello", "keyExchange", "psk", "ccs", "finished", "verdict"}},
	{name: "certificate", suite: ecdheCert,
		edit: func(c *Config) { c.AskCertificate = true },
		path: []string{"hello", "credential", "work", "keyExchange", "work", "ccs", "finished"}},
	{name: "client-certificate-verdict", suite: ecdheCert, chain: true,
		edit: func(c *Config) {
			c.AskCertificate, c.AskVerdict = true, true
			c.RequestClientCertificate, c.RequireClientCertificate = true, true
		},
		path: []string{"hello", "credential", "work", "certificate", "work", "keyExchange", "work", "verify", "work", "ccs", "finished", "verdict"}},
	{name: "no-client-certificate", suite: ecdheCert,
		edit: func(c *Config) { c.RequestClientCertificate = true },
		path: []string{"hello", "work", "certificate", "keyExchange", "work", "ccs", "finished"}},
	{name: "resumption", suite: ecdheCert, resumes: true,
		path: []string{"hello", "ccs", "finished"}},
	{name: "resumption-psk-verdict", suite: ecdhePSK, resumes: true,
		edit: func(c *Config) { c.AskVerdict = true },
		path: []string{"hello", "psk", "verdict", "ccs", "finished"}},
	{name: "resumption-client-certificate-verdict", suite: ecdheCert, resumes: true, chain: true,
		edit: func(c *Config) { c.AskVerdict, c.RequestClientCertificate = true, true },
		path: []string{"hello", "work", "verdict", "ccs", "finished"}},
}

// openTickets are tickets that hide nothing.
type openTickets struct{}

func (openTickets) Seal(_ time.Time, state []byte) ([]byte, error) {
	return append([]byte("ticket"), state...), nil
}

func (openTickets) Open(_ time.Time, ticket []byte) ([]byte, bool) {
	state, ok := bytes.CutPrefix(ticket, []byte("ticket"))
	return bytes.Clone(state), ok
}

// testCertificate is the certificate of both peers.
var testCertificate = func() *Certificate {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	template := testcert.Template("localhost")
	leaf := testcert.Sign(template, template, key.Public(), key)
	return &Certificate{Chain: [][]byte{leaf.Raw}, Key: key, Leaf: leaf}
}()

// world is a scene being played: an engine at some point of it, and a client
// that can say anything.
type world struct {
	*driver
	scene *scene
	hello []byte // the verified hello's record
	// messages are the client's of its last flight, once it can make them.
	messages map[wire.HandshakeType][]byte
	keys     bool // the client has them

	kept []string // the steps whose records wait for epoch 1
	key  string   // the step that gave the pre-shared key
}

// newWorld begins a scene. The hello has not been given to the engine.
func newWorld(t *testing.T, s *scene) *world {
	t.Helper()
	cfg := newConfig()
	cfg.Certificate = func(*HelloInfo) *Certificate { return testCertificate }
	cfg.MaxClientCertificateBytes = 8 << 10
	cfg.Tickets = openTickets{}
	if s.edit != nil {
		s.edit(cfg)
	}
	var ticket, master []byte
	if s.resumes {
		full := *s
		full.resumes = false
		full.path = []string{"hello", "work", "certificate", "work", "keyExchange", "work", "verify", "work", "psk", "ccs", "finished", "verdict"}
		first := newWorldOf(t, cfg, &full)
		first.client.AskTicket = true
		first.begin()
		first.play(full.path)
		ticket, master = first.client.NewTicket, first.client.Master
		if len(ticket) == 0 {
			t.Fatal("no ticket")
		}
	}
	w := newWorldOf(t, cfg, s)
	w.client.Ticket, w.client.Master = ticket, master
	w.begin()
	return w
}

func newWorldOf(t *testing.T, cfg *Config, s *scene) *world {
	w := &world{driver: newDriver(t, cfg), scene: s}
	w.answer, w.hold = nil, true
	w.client.Suites = []uint16{s.suite}
	if s.chain {
		w.client.Chain, w.client.Signer = testCertificate.Chain, testCertificate.Key
	}
	return w
}

func (w *world) begin() {
	w.t.Helper()
	w.hello = w.client.Hello()
	hello, ok := parseHello(w.hello)
	if !ok {
		w.t.Fatal("the hello does not parse")
	}
	w.e = new(Engine)
	w.e.Begin(w.cfg, nil, w.now, &hello)
}

// play takes the steps, which those that fall out of place survive.
func (w *world) play(steps []string) {
	w.t.Helper()
	for _, s := range steps {
		w.step(s)
		w.settle()
	}
}

// step does one thing, right or wrong, whatever the state. It reports whether
// it could be done: the client must have what it needs.
func (w *world) step(name string) bool {
	w.t.Helper()
	message := func(t wire.HandshakeType) bool {
		m, ok := w.messages[t]
		if ok {
			w.receive(w.client.Plain(wire.ContentHandshake, m))
		}
		return ok
	}
	sealed := func(t wire.ContentType, content []byte) bool {
		if w.keys {
			w.receive(w.client.Sealed(t, content))
		}
		return w.keys
	}
	edited := func(edit func(m []byte)) (m []byte) {
		if w.keys {
			m = bytes.Clone(w.client.FinishedMessage())
			edit(m)
		}
		return m
	}
	switch name {
	case "hello":
		w.receive(w.hello)
	case "certificate":
		return message(wire.TypeCertificate)
	case "keyExchange":
		return message(wire.TypeClientKeyExchange)
	case "verify":
		return message(wire.TypeCertificateVerify)
	case "ccs":
		w.receive(w.client.Plain(wire.ContentChangeCipherSpec, []byte{1}))
	case "finished":
		return sealed(wire.ContentHandshake, edited(func([]byte) {}))
	case "wrong finished":
		return sealed(wire.ContentHandshake, edited(func(m []byte) { m[len(m)-1] ^= 1 }))
	case "misnumbered finished":
		return sealed(wire.ContentHandshake, edited(func(m []byte) { m[5]-- }))
	case "plain finished":
		m := edited(func([]byte) {})
		if m != nil {
			w.receive(w.client.Plain(wire.ContentHandshake, m))
		}
		return m != nil
	case "forged finished":
		w.receive(forged(wire.ContentHandshake))
	case "data":
		return sealed(wire.ContentApplicationData, []byte("data"))
	case "warning":
		return sealed(wire.ContentAlert, []byte{1, 90})
	case "plain fatal":
		w.receive(w.client.Plain(wire.ContentAlert, []byte{2, 40}))
	case "credential":
		w.e.AnswerCertificate(w.now, testCertificate)
	case "work":
		w.work()
	case "psk":
		w.e.AnswerPSK(w.now, []byte(key))
	case "unknown psk":
		w.e.AnswerPSK(w.now, nil)
	case "verdict":
		w.e.AnswerVerdict(w.now, nil, 0)
	case "hello again":
		w.e.HelloAgain(w.now)
	case "timeout":
		w.now = w.now.Add(100 * time.Millisecond)
		w.e.Timeout(w.now)
	default:
		w.t.Fatalf("no step %q", name)
	}
	w.pump()
	return true
}

// forged is a record of epoch 1 that opens with no key.
func forged(t wire.ContentType) []byte {
	r := wire.AppendRecordHeader(nil, t, wire.VersionDTLS12, 1, 1000, 60)
	return append(r, bytes.Repeat([]byte{5}, 60)...)
}

// settle gives the client what was sent and has it make its last flight when
// it can.
func (w *world) settle() {
	w.t.Helper()
	w.toClient()
	switch c := w.client; {
	case w.keys:
	case c.HelloDone:
		w.messages = make(map[wire.HandshakeType][]byte)
		for _, b := range c.Records() {
			if r, _, _ := wire.ParseRecord(b, 0); r.Epoch == 0 && r.Type == wire.ContentHandshake {
				w.messages[wire.HandshakeType(r.Payload[0])] = r.Payload
			}
		}
		w.keys = true
	case c.Resuming && c.Complete:
		c.FinishedMessage()
		w.keys = true
	}
}

// stateName also tells whether the client's ChangeCipherSpec has come where
// that makes a difference.
func (w *world) stateName() string {
	name := stateNames[w.e.state]
	if w.e.state == awaitFinished && w.e.hs.changeCipherSpec {
		name += "+ccs"
	}
	return name
}

// next is the message_seq of the client's next message.
func (w *world) next() uint16 {
	switch {
	case w.e.hs != nil:
		return w.e.hs.nextReceive
	case w.e.state == established:
		return w.e.finishedSeq + 1
	default:
		return 9
	}
}

// probe is one thing that is done to an engine. Its name is
//
//	protection  message  message_seq  form
type probe struct {
	name string
	// do reports whether it could be done, and why what came of it was dropped.
	do func(w *world) (drops []Drop, ok bool)
}

// body returns a body for a message, well-formed if the client has one.
func (w *world) body(t wire.HandshakeType) []byte {
	if m, ok := w.messages[t]; ok {
		return m[wire.HandshakeHeaderLen:]
	}
	switch t {
	case wire.TypeClientHello:
		return w.client.HelloBody()
	case wire.TypeCertificate:
		return wire.AppendCertificate(nil, w.client.Chain)
	case wire.TypeClientKeyExchange:
		return append([]byte{0, byte(len(identity))}, identity...)
	case wire.TypeCertificateVerify:
		return wire.AppendSignature(nil, 0x0807, make([]byte, 64))
	case wire.TypeFinished:
		if w.keys {
			return w.client.FinishedMessage()[wire.HandshakeHeaderLen:]
		}
		return make([]byte, wire.VerifyDataLen)
	case wire.TypeHelloRequest, wire.TypeServerHelloDone:
		return []byte{}
	default:
		return bytes.Repeat([]byte{3}, 40)
	}
}

// form returns a message of the form. It fails when the message has none such.
func (w *world) form(t wire.HandshakeType, seq uint16, form string) ([]byte, bool) {
	body := bytes.Clone(w.body(t))
	n := len(body)
	header := func(length, offset, fragment int) []byte {
		return wire.AppendHandshakeHeader(nil, t, length, seq, offset, fragment)
	}
	switch form {
	case "good":
	case "empty":
		return header(0, 0, 0), true
	case "cut":
		if n == 0 {
			return nil, false
		}
		body = body[:n-1]
	case "half":
		return append(header(n, 0, n/2), body[:n/2]...), n > 1
	case "void":
		return header(n, 0, 0), n > 0
	case "beyond":
		return append(header(n, n, 1), 7), true
	case "huge":
		return append(header(1<<24-1, 0, 1), 7), true
	case "none":
		if t != wire.TypeCertificate {
			return nil, false
		}
		body = wire.AppendCertificate(nil, nil)
	case "short", "long":
		if t != wire.TypeFinished {
			return nil, false
		}
		if body = append(body, 0); form == "short" {
			body = body[:n-1]
		}
	case "wrong":
		switch t {
		case wire.TypeClientHello:
			body[1] = 0xff // DTLS 1.0
		case wire.TypeCertificate:
			body = wire.AppendCertificate(nil, [][]byte{[]byte("junk")})
		case wire.TypeClientKeyExchange:
			if w.scene.suite == suite.PSKWithAES128GCM || len(body) < 34 {
				return nil, false
			}
			public := body[len(body)-65:] // P-256, the first group
			clear(public[1:])
		case wire.TypeCertificateVerify, wire.TypeFinished:
			body[n-1] ^= 1
		default:
			return nil, false
		}
	}
	return testpeer.Message(t, seq, body), true
}

// probes is every message, in every form.
func probes() (all []probe) {
	record := func(protection, message, form string, t wire.ContentType, content func(w *world) ([]byte, bool)) {
		name := protection + " " + message + " " + form
		all = append(all, probe{name, func(w *world) ([]Drop, bool) {
			c, ok := content(w)
			if !ok {
				return nil, false
			}
			switch protection {
			case "plain":
				return w.receive(w.client.Plain(t, c)), true
			case "sealed":
				if !w.keys {
					return nil, false
				}
				return w.receive(w.client.Sealed(t, c)), true
			case "forged":
				return w.receive(forged(t)), true
			default:
				b := forged(t)
				b[4] = 2
				return w.receive(b), true
			}
		}})
	}
	fixed := func(b ...byte) func(*world) ([]byte, bool) {
		return func(*world) ([]byte, bool) { return b, true }
	}
	for _, protection := range []string{"plain", "sealed", "forged", "future"} {
		unsealed := protection == "forged" || protection == "future"
		for t, name := range handshakeNames {
			seqs := map[string]int{"behind": -1, "next": 0, "ahead1": 1, "ahead2": 2, "ahead3": 3, "far": 0x8000}
			if unsealed {
				seqs = map[string]int{"next": 0}
			}
			for seqName, ahead := range seqs {
				forms := []string{"good"}
				if seqName == "next" && !unsealed {
					forms = []string{"good", "wrong", "none", "short", "long", "empty", "cut", "half", "void", "beyond", "huge"}
				}
				for _, form := range forms {
					record(protection, name+" "+seqName, form, wire.ContentHandshake, func(w *world) ([]byte, bool) {
						return w.form(t, w.next()+uint16(ahead), form)
					})
				}
			}
		}
		record(protection, "ChangeCipherSpec -", "good", wire.ContentChangeCipherSpec, fixed(1))
		record(protection, "Alert -", "warning", wire.ContentAlert, fixed(1, 90))
		record(protection, "Alert -", "fatal", wire.ContentAlert, fixed(2, 40))
		record(protection, "Alert -", "close", wire.ContentAlert, fixed(1, 0))
		record(protection, "ApplicationData -", "good", wire.ContentApplicationData, fixed('h', 'i'))
		record(protection, "Heartbeat -", "good", 24, fixed(1, 0, 1, 0))
		if !unsealed {
			record(protection, "NoMessage -", "empty", wire.ContentHandshake, fixed())
			record(protection, "ChangeCipherSpec -", "malformed", wire.ContentChangeCipherSpec, fixed(1, 1))
			record(protection, "Alert -", "malformed", wire.ContentAlert, fixed(2))
			record(protection, "ApplicationData -", "empty", wire.ContentApplicationData, fixed())
		}
	}
	for call, step := range map[string]string{
		"AnswerCertificate": "credential", "Work": "work", "AnswerPSK": "psk", "AnswerVerdict": "verdict", "HelloAgain": "hello again", "Timeout": "timeout",
	} {
		all = append(all, probe{"call " + call, func(w *world) ([]Drop, bool) { return nil, w.step(step) }})
	}
	slices.SortFunc(all, func(a, b probe) int { return strings.Compare(a.name, b.name) })
	return all
}

var dropNames = [...]string{
	DropNone: "none", DropMalformed: "malformed", DropEpoch: "epoch", DropReplayed: "replayed", DropForged: "forged",
	DropUnauthenticated: "unauthenticated", DropEarlyData: "early data", DropRepeated: "repeated",
	DropUnexpected: "unexpected", DropLimit: "limit", DropClosed: "closed",
}

// react does the probe and puts what came of it into words: "nothing", or what
// was dropped, entered, sent and told.
func (w *world) react(p probe) (reaction string, ok bool) {
	w.t.Helper()
	w.events, w.data = nil, nil
	before, alerts, seen := w.e.state, len(w.client.Alerts), len(w.client.Seen)
	drops, ok := p.do(w)
	if !ok {
		return "", false
	}
	w.toClient()
	var parts []string
	for _, d := range drops {
		parts = append(parts, "drop "+dropNames[d])
	}
	if w.e.state != before {
		parts = append(parts, "-> "+stateNames[w.e.state])
	}
	said := w.client.Alerts[alerts:]
	if len(w.client.Seen)-seen > len(said) {
		parts = append(parts, "flight")
	}
	for _, a := range said {
		level := "warning"
		if a.Level == wire.LevelFatal {
			level = "fatal"
		}
		parts = append(parts, fmt.Sprintf("%s %d", level, a.Description))
	}
	eventNames := map[EventKind]string{
		EventPSKNeeded: "PSKNeeded", EventCertificateNeeded: "CertificateNeeded", EventVerdictNeeded: "VerdictNeeded", EventWork: "Work",
		EventEstablished: "Established", EventWarningAlert: "WarningAlert", EventData: "Data", EventDropped: "Dropped", EventClosed: "Closed",
	}
	for _, ev := range w.events {
		name, ok := eventNames[ev.Kind]
		if !ok {
			name = fmt.Sprint(ev.Kind)
		}
		parts = append(parts, "event "+name)
	}
	for range w.data {
		parts = append(parts, "data")
	}
	if parts == nil {
		return "nothing", true
	}
	return strings.Join(parts, ", "), true
}

// reactions are the table: the first row whose scene, state and message match
// says what is allowed. Alternatives are separated by "|".
var reactions = []struct{ scene, state, message, allowed, because string }{
	// What the caller says counts only when it was asked.
	{"*", "awaitCredential", "call AnswerCertificate", "-> awaitServerKeyExchange, event Work", "RFC 5246 section 7.3"},
	{"client-certificate*|no-client*", "awaitServerKeyExchange", "call Work", "-> awaitCertificate, flight", "RFC 5246 section 7.4.3 and 7.4.4"},
	{"*", "awaitServerKeyExchange", "call Work", "-> awaitClientKeyExchange, flight", "RFC 5246 section 7.4.3"},
	{"*psk*", "awaitSecret", "call Work", "-> awaitPSK, event PSKNeeded", "RFC 5489 section 2"},
	{"client-certificate*", "awaitSecret", "call Work", "-> awaitCertificateVerify", "RFC 5246 section 7.4.8"},
	{"*", "awaitSecret", "call Work", "-> awaitFinished", "RFC 5246 section 7.4.7"},
	{"*", "awaitVerification", "call Work", "-> awaitFinished", "RFC 5246 section 7.4.8"},
	{"*", "awaitParsing", "call Work", "-> awaitClientKeyExchange", "RFC 5246 section 7.4.6"},
	{"*", "awaitResumptionParsing", "call Work", "-> awaitResumptionVerdict, event VerdictNeeded", "RFC 5077 section 3.1, once the caller agrees"},
	{"*", "awaitPSK", "call AnswerPSK", "-> awaitFinished", "RFC 4279 section 2"},
	{"*", "awaitResumptionPSK", "call AnswerPSK", "-> awaitResumptionVerdict, event VerdictNeeded", "RFC 5077 section 3.1, once the caller agrees"},
	{"*", "awaitVerdict", "call AnswerVerdict", "-> established, flight, event Established", "RFC 5246 section 7.3"},
	{"*", "awaitResumptionVerdict", "call AnswerVerdict", "-> awaitFinished, flight", "RFC 5077 section 3.1"},
	{"client-certificate*", "awaitClientKeyExchange", "call HelloAgain", "nothing", "RFC 6347 section 4.2.4: the client has seen flight 4"},
	{"*", "awaitCertificate|awaitClientKeyExchange", "call HelloAgain", "flight", "RFC 6347 section 4.2.4"},
	{"resumption*", "awaitFinished*", "call HelloAgain", "flight", "RFC 6347 section 4.2.4"},
	{"*", "*", "call *", "nothing", "not asked, or nothing is due"},

	{"*", "closed", "*", "drop closed", "RFC 5246 section 7.2.1: data after the closure is ignored"},
	{"*", "*", "future *", "drop epoch", "RFC 6347 section 4.1: records of other epochs are discarded"},

	// An open association, RFC 6347 section 4.2.4 state FINISHED.
	{"*", "established", "plain *", "drop repeated|drop unauthenticated", "RFC 6347 section 4.1: the old epoch has no say"},
	{"*", "established", "sealed ApplicationData *", "data", "RFC 5246 section 10"},
	{"resumption*", "established", "sealed Finished behind good", "nothing", "RFC 6347 section 4.2.4: the last flight was the client's"},
	{"*", "established", "sealed Finished behind good", "flight", "RFC 6347 section 4.2.4: the last flight is sent again"},
	{"*", "established", "sealed ClientHello next beyond", "-> closed, fatal 50, event Closed", "RFC 5246 section 7.2.2: decode_error"},
	{"*", "established", "sealed ClientHello *", "drop unexpected, warning 100|drop unexpected", "RFC 5246 section 7.2.2: no_renegotiation, at a bounded rate"},

	// A Finished counts in epoch 1 only, after ChangeCipherSpec.
	{"resumption*", "awaitFinished+ccs", "sealed Finished next good", "-> established, event Established", "RFC 5077 section 3.1: the client has the last word"},
	{"*verdict", "awaitFinished+ccs", "sealed Finished next good", "-> awaitVerdict, event VerdictNeeded", "RFC 5246 section 7.4.9, once the caller agrees"},
	{"*", "awaitFinished+ccs", "sealed Finished next good", "-> established, flight, event Established", "RFC 5246 section 7.4.9"},
	{"*", "awaitFinished+ccs", "sealed Finished next wrong", "-> closed, fatal 51, event Closed", "RFC 5246 section 7.4.9 and 7.2.2: decrypt_error"},
	{"*", "awaitFinished+ccs", "sealed Finished next short|sealed Finished next long|sealed Finished next empty|sealed Finished next cut|sealed Finished next beyond|sealed Finished next huge", "-> closed, fatal 50, event Closed", "RFC 5246 section 7.2.2: decode_error"},
	{"*", "awaitFinished+ccs", "sealed Finished next half", "nothing", "RFC 6347 section 4.2.3: a fragment"},
	{"*", "awaitFinished+ccs", "sealed Finished next void", "drop malformed", "RFC 6347 section 4.2.3: a fragment of nothing"},
	{"resumption*", "awaitFinished*", "sealed ApplicationData *", "nothing", "RFC 5246 section 7.3: kept for when the Finished has come"},
	{"*", "awaitVerdict|awaitFinished+ccs", "sealed ApplicationData *", "drop early data", "RFC 5246 section 7.4.9: no data before the Finished"},

	// Alerts count where they are authentic.
	{"resumption*", "awaitFinished", "sealed Alert - close", "-> closed, warning 0, event Closed", "RFC 5246 section 7.2.1"},
	{"resumption*", "awaitFinished", "sealed Alert - fatal", "-> closed, event Closed", "RFC 5246 section 7.2"},
	{"resumption*", "awaitFinished", "sealed Alert - warning", "event WarningAlert", "RFC 5246 section 7.2"},
	{"resumption*", "awaitFinished", "sealed Alert - malformed", "-> closed, fatal 50, event Closed", "RFC 5246 section 7.2.2"},
	{"resumption*", "awaitFinished", "forged ApplicationData *|forged Alert *", "drop forged", "RFC 6347 section 4.1.2.7: there are keys"},
	{"*", "established|awaitVerdict|awaitFinished+ccs", "sealed Alert - close", "-> closed, warning 0, event Closed", "RFC 5246 section 7.2.1: answered with close_notify"},
	{"*", "established|awaitVerdict|awaitFinished+ccs", "sealed Alert - fatal", "-> closed, event Closed", "RFC 5246 section 7.2: ends the connection"},
	{"*", "established|awaitVerdict|awaitFinished+ccs", "sealed Alert - warning", "event WarningAlert", "RFC 5246 section 7.2"},
	{"*", "established|awaitVerdict|awaitFinished+ccs", "sealed Alert - malformed", "-> closed, fatal 50, event Closed", "RFC 5246 section 7.2.2: decode_error"},

	// What else is authentic has no place there.
	{"*", "awaitVerdict", "sealed Finished behind good", "drop repeated", "RFC 6347 section 4.2.4: to be answered with the verdict"},
	{"*", "awaitFinished+ccs", "sealed * behind *", "drop repeated", "RFC 6347 section 4.2.2: message_seq below the next is discarded"},
	{"*", "established|awaitVerdict|awaitFinished+ccs", "sealed * next beyond", "-> closed, fatal 50, event Closed", "RFC 5246 section 7.2.2: decode_error"},
	{"*", "established|awaitVerdict|awaitFinished+ccs", "sealed *", "-> closed, fatal 10, event Closed", "RFC 5246 section 7.2.2: unexpected_message"},
	{"*", "established|awaitFinished+ccs", "forged *", "drop forged", "RFC 6347 section 4.1.2.7"},

	// The client's flight is there; only its Finished may come again.
	{"*", "awaitVerdict", "forged *", "drop forged", "RFC 6347 section 4.1.2.7"},

	// Epoch 1 before its keys or its ChangeCipherSpec, and before our hello.
	{"*", "awaitClientHello|awaitResumption*|awaitCredential|awaitServerKeyExchange", "sealed *|forged *", "drop epoch", "RFC 6347 section 4.1: the client cannot have its keys"},
	{"*", "*", "sealed ApplicationData *|forged ApplicationData *", "drop epoch", "RFC 6347 section 4.1"},
	{"*", "*", "sealed Heartbeat *|forged Heartbeat *", "drop epoch", "RFC 6347 section 4.1"},
	{"*", "*", "sealed ChangeCipherSpec *|forged ChangeCipherSpec *", "drop epoch", "RFC 6347 section 4.1"},
	{"*", "*", "sealed *|forged *", "nothing|drop limit", "RFC 6347 section 4.1: may be kept for the next epoch, or not"},

	// Plaintext that is no handshake message.
	{"*", "*", "plain ChangeCipherSpec - good", "nothing", "RFC 6347 section 4.2.2: has no message_seq, may come early and twice"},
	{"*", "*", "plain ChangeCipherSpec - malformed", "drop malformed", "RFC 5246 section 7.1"},
	{"*", "*", "plain Alert - malformed", "drop malformed|drop unauthenticated", "RFC 6347 section 4.1.2.7"},
	{"*", "*", "plain Alert *", "drop unauthenticated", "RFC 6347 section 4.1.2.7: not authentic, at most a hint"},
	{"*", "*", "plain ApplicationData *", "drop unauthenticated", "RFC 5246 section 7.4.9"},
	{"*", "*", "plain Heartbeat *", "drop unauthenticated", "RFC 5246 section 6: unknown content types are ignored"},
	{"*", "*", "plain NoMessage *", "drop malformed", "RFC 5246 section 6.2.1: no empty handshake fragments"},
	{"*", "*", "plain * next beyond", "drop malformed", "RFC 6347 section 4.2.3"},
	{"*", "*", "plain * behind *", "drop repeated", "RFC 6347 section 4.2.2: message_seq below the next is discarded"},

	// The messages that are waited for, at their message_seq.
	{"ecdhe-psk|no-client*", "awaitClientHello", "plain ClientHello next good", "-> awaitServerKeyExchange, event Work", "RFC 5246 section 7.4.3"},
	{"*psk*", "awaitClientHello", "plain ClientHello next good", "-> awaitClientKeyExchange, flight|-> awaitResumptionPSK, event PSKNeeded", "RFC 5246 section 7.4.1.2, RFC 5077 section 3.1"},
	{"resumption", "awaitClientHello", "plain ClientHello next good", "-> awaitFinished, flight", "RFC 5077 section 3.1"},
	{"resumption*", "awaitClientHello", "plain ClientHello next good", "-> awaitResumptionParsing, event Work", "RFC 5077 section 3.1: see TestRefusedTickets"},
	{"*", "awaitClientHello", "plain ClientHello next good", "-> awaitCredential, event CertificateNeeded", "RFC 5246 section 7.4.2"},
	{"*", "awaitClientHello", "plain ClientHello next wrong", "-> closed, fatal 70, event Closed", "RFC 5246 appendix E.1: protocol_version"},
	{"client-certificate*", "awaitCertificate", "plain Certificate next good|plain Certificate next wrong", "-> awaitParsing, event Work", "RFC 5246 section 7.4.6: see TestClientAuth"},
	{"no-client*", "awaitCertificate", "plain Certificate next none", "-> awaitClientKeyExchange", "RFC 5246 section 7.4.6: an empty list"},
	{"*", "awaitCertificate", "plain Certificate next none", "-> closed, fatal 40, event Closed", "RFC 5246 section 7.4.6: handshake_failure"},
	{"no-client*", "awaitCertificate", "plain Certificate next good", "-> awaitClientKeyExchange", "RFC 5246 section 7.4.6: an empty list"},
	{"no-client*", "awaitCertificate", "plain Certificate next wrong", "-> awaitParsing, event Work", "RFC 5246 section 7.4.6: see TestClientAuth"},
	{"*", "awaitCertificate", "plain ClientKeyExchange ahead1 *", "nothing", "RFC 6347 section 4.2.2: may be queued"},
	{"*", "awaitCertificate", "plain CertificateVerify ahead2 *", "nothing", "RFC 6347 section 4.2.2: may be queued"},
	{"psk*", "awaitClientKeyExchange", "plain ClientKeyExchange next good", "-> awaitPSK, event PSKNeeded", "RFC 4279 section 2"},
	{"*", "awaitClientKeyExchange", "plain ClientKeyExchange next good|plain ClientKeyExchange next wrong", "-> awaitSecret, event Work", "RFC 5246 section 7.4.7, RFC 8422 section 5.11: see TestWrongPoint"},
	{"client-certificate*", "awaitClientKeyExchange", "plain CertificateVerify ahead1 *", "nothing", "RFC 6347 section 4.2.2: may be queued"},
	{"*", "awaitCertificateVerify", "plain CertificateVerify next good|plain CertificateVerify next wrong", "-> awaitVerification, event Work", "RFC 5246 section 7.4.8: see TestWrongCertificateVerify"},
	{"*", "awaitParsing", "plain ClientKeyExchange next void", "drop malformed", "RFC 6347 section 4.2.3: a fragment of nothing"},
	{"*", "awaitParsing", "plain ClientKeyExchange next huge", "drop limit", "RFC 5246 section 7.4: beyond what is kept"},
	{"*", "awaitParsing", "plain ClientKeyExchange next *", "nothing", "RFC 6347 section 4.2.2: may be queued"},
	{"*", "awaitParsing", "plain CertificateVerify ahead1 *", "nothing", "RFC 6347 section 4.2.2: may be queued"},
	{"client-certificate*", "awaitSecret", "plain CertificateVerify next good|plain CertificateVerify next wrong|plain CertificateVerify next empty|plain CertificateVerify next cut|plain CertificateVerify next half", "nothing", "RFC 6347 section 4.2.2: may be queued"},
	{"client-certificate*", "awaitSecret", "plain CertificateVerify next void", "drop malformed", "RFC 6347 section 4.2.3: a fragment of nothing"},
	{"client-certificate*", "awaitSecret", "plain CertificateVerify next huge", "drop limit", "RFC 5246 section 7.4: beyond what is kept"},

	// Their malformed and fragmented forms. The four rows before the last are
	// for the message that the state waits for, see awaited.
	{"*", "*", "awaited * next empty", "-> closed, fatal 50, event Closed", "RFC 5246 section 7.2.2: decode_error"},
	{"*", "*", "awaited * next cut", "-> closed, fatal 50, event Closed", "RFC 5246 section 7.2.2: decode_error"},
	{"*", "*", "awaited * next half", "nothing", "RFC 6347 section 4.2.3: a fragment"},
	{"*", "*", "awaited * next void", "drop malformed", "RFC 6347 section 4.2.3: a fragment of nothing"},
	{"*", "*", "awaited * next huge", "drop limit", "RFC 5246 section 7.4: beyond what is kept"},
	{"*", "*", "plain *", "drop unexpected", "RFC 6347 section 4.1.2.7: not its turn, and not authentic"},
}

// awaited is the plaintext message that a state waits for.
var awaited = map[string]string{
	"awaitClientHello":       "ClientHello",
	"awaitCertificate":       "Certificate",
	"awaitClientKeyExchange": "ClientKeyExchange",
	"awaitCertificateVerify": "CertificateVerify",
}

// allowedReaction returns the row of the table for a probe.
func allowedReaction(scene, state, message string) (row int) {
	matches := func(patterns, name string) bool {
		for p := range strings.SplitSeq(patterns, "|") {
			if ok, err := path.Match(p, name); err != nil {
				panic(err)
			} else if ok {
				return true
			}
		}
		return false
	}
	waits := ""
	if m := awaited[state]; m != "" && strings.HasPrefix(message, "plain "+m+" ") {
		waits = "awaited" + strings.TrimPrefix(message, "plain")
	}
	return slices.IndexFunc(reactions, func(r struct{ scene, state, message, allowed, because string }) bool {
		return matches(r.scene, scene) && matches(r.state, state) &&
			(matches(r.message, message) || waits != "" && matches(r.message, waits))
	})
}

// TestEveryMessageInEveryState holds the engine against the table. What is
// dropped must leave no trace: the client's own handshake completes after all
// of it.
func TestEveryMessageInEveryState(t *testing.T) {
	t.Parallel()
	all := probes()
	reached := make(map[state]bool)
	used := make([]bool, len(reactions))
	probed := 0
	for _, s := range scenes {
		for at := range len(s.path) + 2 {
			reach := func() *world {
				w := newWorld(t, s)
				w.play(s.path[:min(at, len(s.path))])
				if at > len(s.path) {
					w.e.Close()
					w.pump()
				}
				// Long enough for an answer to what comes again, not for a
				// retransmission.
				w.advance(300 * time.Millisecond)
				w.settle()
				return w
			}
			w := reach()
			where := w.stateName()
			reached[w.e.state] = true
			for _, p := range all {
				got, ok := w.react(p)
				if !ok {
					continue
				}
				probed++
				row := allowedReaction(s.name, where, p.name)
				if row < 0 {
					t.Fatalf("%s in %s: %s: no row for what is allowed", s.name, where, p.name)
				}
				used[row] = true
				if r := &reactions[row]; !slices.Contains(strings.Split(r.allowed, "|"), got) {
					t.Errorf("%s in %s: %s: %s; allowed is %s (%s)", s.name, where, p.name, got, r.allowed, r.because)
				}
				if !strings.HasPrefix(got, "drop ") || strings.Contains(got, ", ") || w.stateName() != where {
					w = reach()
				}
			}
			if at > len(s.path) {
				continue
			}
			w.play(s.path[at:])
			if !w.e.Established() || !w.client.Complete {
				t.Errorf("%s: the handshake does not complete after all that was dropped in %s", s.name, where)
			}
		}
	}
	for s, name := range stateNames {
		if !reached[state(s)] {
			t.Errorf("no scene reaches %s", name)
		}
	}
	for i, r := range reactions {
		if !used[i] {
			t.Errorf("no message comes to the row %q, %q, %q", r.scene, r.state, r.message)
		}
	}
	t.Logf("%d messages in %d states", probed, len(reached))
}

// explored are the steps that sequences are made of.
var explored = []string{
	"certificate", "keyExchange", "verify", "ccs", "finished", "wrong finished", "misnumbered finished", "plain finished",
	"forged finished", "data", "warning", "plain fatal", "credential", "work", "psk", "unknown psk", "verdict", "hello", "hello again",
}

// exploreSteps plays the steps after the hello, and wants an association to be
// open only when all that makes a handshake was among them. It reports whether
// the last step could be done, and what the engine has become.
func exploreSteps(t *testing.T, s *scene, steps []string) (w *world, ok bool) {
	t.Helper()
	w = newWorld(t, s)
	w.play([]string{"hello"})
	// A scene whose server must be asked first begins with the answers, lest
	// the client never have a flight.
	if !w.keys {
		for _, step := range s.path[1:] {
			if step == "certificate" || step == "keyExchange" || step == "ccs" || w.keys {
				break
			}
			w.play([]string{step})
		}
	}
	w.events, w.data = nil, nil
	for i, step := range steps {
		if ok = w.note(step); !ok {
			return w, false
		}
		w.settle()
		if !w.e.Established() {
			if len(w.data) > 0 && !w.e.Closed() {
				t.Fatalf("%s: data before the end of the handshake, after %q", s.name, steps[:i+1])
			}
			continue
		}
		done := steps[:i+1]
		needs := []string{"ccs", "finished"}
		if !s.resumes {
			needs = append(needs, s.path[slices.Index(s.path, "keyExchange"):]...)
		}
		for _, need := range needs {
			if !slices.Contains(done, need) {
				t.Fatalf("%s: established after %q without %q", s.name, done, need)
			}
		}
		if !w.client.Complete {
			t.Fatalf("%s: established after %q, and the client is not", s.name, done)
		}
	}
	told := 0
	for i, ev := range w.events {
		switch ev.Kind {
		case EventEstablished:
			told++
		case EventClosed:
			if i != len(w.events)-1 {
				t.Fatalf("%s: events after the last, after %q: %v", s.name, steps, w.events)
			}
		}
	}
	if told > 1 || w.e.Established() && told != 1 {
		t.Fatalf("%s: told %d times to be established, after %q", s.name, told, steps)
	}
	return w, true
}

// fingerprint tells what an engine is from what it may become.
func (w *world) fingerprint() string {
	e := w.e
	if e.hs == nil {
		return fmt.Sprint(e.state)
	}
	b := fmt.Appendf(nil, "%d %v %d", e.state, e.hs.changeCipherSpec, e.hs.nextReceive)
	for i := range e.hs.incoming {
		b = fmt.Appendf(b, " %d/%v", e.hs.incoming[i].typ, e.hs.incoming[i].whole)
	}
	return string(fmt.Appendf(b, " %q %q", w.kept, w.key))
}

// note takes a step and notes what it leaves in the engine that does not show.
func (w *world) note(step string) bool {
	before, early := w.e.state, 0
	if w.e.hs != nil {
		early = w.e.hs.earlyRecords
	}
	ok := w.step(step)
	switch {
	case w.e.hs == nil:
	case w.e.hs.earlyRecords == 0:
		w.kept = nil
	case w.e.hs.earlyRecords > early && !slices.Contains(w.kept, step):
		w.kept = append(w.kept, step)
		slices.Sort(w.kept)
	}
	if before == awaitPSK && w.e.state != before {
		w.key = step
	}
	return ok
}

// TestNoShortCut goes breadth first through the sequences of up to six steps,
// where those that lead to the same are continued once, and through all of up
// to four.
func TestNoShortCut(t *testing.T) {
	t.Parallel()
	for _, s := range scenes {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			seen := make(map[string]bool)
			level, depth, tried, opened := [][]string{nil}, 6, 0, 0
			steps := explored
			if s.chain { // which takes more steps, and those take longer
				depth = 9
				steps = []string{"certificate", "keyExchange", "verify", "work", "ccs", "finished", "wrong finished", "plain finished", "data", "verdict"}
			}
			if testing.Short() {
				depth = 4
			}
			for range depth {
				var next [][]string
				for _, before := range level {
					for _, step := range steps {
						steps := append(slices.Clone(before), step)
						w, ok := exploreSteps(t, s, steps)
						if !ok {
							continue
						}
						tried++
						if w.e.state == established {
							opened++
						}
						if mark := w.fingerprint(); !seen[mark] && w.e.state != closed {
							seen[mark] = true
							next = append(next, steps)
						}
					}
				}
				level = next
			}
			if opened == 0 && !testing.Short() {
				t.Error("no sequence opens an association")
			}
			t.Logf("%d sequences to %d states, %d times established", tried, len(seen), opened)
		})
	}
	t.Run("all of four", func(t *testing.T) {
		t.Parallel()
		s, depth, tried := scenes[0], 4, 0
		if testing.Short() {
			depth = 3
		}
		steps := []string{
			"keyExchange", "ccs", "finished", "wrong finished", "plain finished", "forged finished", "data", "warning", "psk", "unknown psk", "hello again",
		}
		var try func(before []string)
		try = func(before []string) {
			for _, step := range steps {
				sequence := append(slices.Clone(before), step)
				if _, ok := exploreSteps(t, s, sequence); !ok {
					continue
				}
				if tried++; len(sequence) < depth {
					try(sequence)
				}
			}
		}
		try(nil)
		t.Logf("%d sequences", tried)
	})
}
