package engine

// The whole engine under schedules of datagrams, answers and timeouts that a
// fuzzer makes up, with everything a client with the right keys can say.

import (
	"bytes"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// scheduled are the things that a schedule may ask for, each by its index.
// Those that say so take arguments from the bytes that follow.
var scheduled = []string{
	"hello", "certificate", "keyExchange", "verify", "ccs", "finished",
	"credential", "psk", "verdict",
	"no credential", "unknown psk", "refusal", "hello again", "timeout", "deadline", "seal", "close",
	"wrong finished", "plain finished", "data", "warning", "fatal", "close notify", "renegotiation",
	"fragment",  // message, offset, length
	"any form",  // type, message_seq, form
	"any type",  // content type, epoch, length
	"repeat",    // which datagram
	"corrupt",   // which datagram, which byte
	"joined",    // three datagrams in one
	"plaintext", // content type, a byte
	"work",
}

func scheduleOf(scene int, steps ...string) []byte {
	b := []byte{byte(scene), 255}
	for _, s := range steps {
		for i, name := range scheduled {
			if name == s {
				b = append(b, byte(i))
			}
		}
	}
	return b
}

// schedule is a world under a schedule, and what has come of it.
type schedule struct {
	*world
	rest  []byte
	given map[string]bool // what the engine was given that a handshake needs
	past  [][]byte        // datagrams that it was given
	used  map[recordNumber]bool
	told  []Event

	datagrams uint64 // that the engine was given
}

type recordNumber struct {
	epoch uint16
	seq   uint64
}

// arg is the next byte of the schedule, zero at its end.
func (s *schedule) arg() int {
	if len(s.rest) == 0 {
		return 0
	}
	b := s.rest[0]
	s.rest = s.rest[1:]
	return int(b)
}

// runSchedule holds an engine against what must be true of any.
func runSchedule(t *testing.T, data []byte) *schedule {
	s := &schedule{rest: data, given: make(map[string]bool), used: make(map[recordNumber]bool)}
	s.world = newWorld(t, scenes[s.arg()%len(scenes)])
	s.cfg.MTU = MinMTU + 5*s.arg()
	const maxSteps = 200
	for n := 0; len(s.rest) > 0 && n < maxSteps; n++ {
		over := s.e.Closed()
		s.take(scheduled[s.arg()%len(scheduled)])
		s.collect()
		if over && len(s.sent) > 0 {
			t.Fatalf("sent after the end: %x", s.sent)
		}
		s.settle()
		s.wantBounded()
	}
	s.e.Close()
	s.collect()
	if n := len(s.told); n == 0 || s.told[n-1].Kind != EventClosed {
		t.Fatal("not told of the end")
	}
	return s
}

// take does one thing.
func (s *schedule) take(name string) {
	plain := func(t wire.ContentType, content []byte) { s.give(s.client.Plain(t, content)) }
	sealed := func(t wire.ContentType, content []byte) {
		if s.keys {
			s.give(s.client.Sealed(t, content))
		}
	}
	message := func(t wire.HandshakeType) {
		if m, ok := s.messages[t]; ok {
			plain(wire.ContentHandshake, m)
		}
	}
	finished := func() []byte {
		if !s.keys {
			return make([]byte, wire.HandshakeHeaderLen+wire.VerifyDataLen)
		}
		return bytes.Clone(s.client.FinishedMessage())
	}
	earlier := func() []byte {
		i := s.arg()
		if len(s.past) == 0 {
			return nil
		}
		return bytes.Clone(s.past[i%len(s.past)])
	}
	s.given[name] = true
	switch name {
	case "hello":
		s.give(s.hello)
	case "certificate":
		message(wire.TypeCertificate)
	case "keyExchange":
		message(wire.TypeClientKeyExchange)
	case "verify":
		message(wire.TypeCertificateVerify)
	case "ccs":
		plain(wire.ContentChangeCipherSpec, []byte{1})
	case "finished":
		sealed(wire.ContentHandshake, finished())
	case "wrong finished":
		m := finished()
		m[len(m)-1] ^= 1
		sealed(wire.ContentHandshake, m)
	case "plain finished":
		plain(wire.ContentHandshake, finished())
	case "data":
		sealed(wire.ContentApplicationData, []byte("data"))
	case "warning":
		sealed(wire.ContentAlert, []byte{1, 90})
	case "fatal":
		sealed(wire.ContentAlert, []byte{2, 80})
	case "close notify":
		sealed(wire.ContentAlert, []byte{1, 0})
	case "renegotiation":
		sealed(wire.ContentHandshake, testpeer.Message(wire.TypeClientHello, 0, s.client.HelloBody()))
	case "credential":
		s.e.AnswerCertificate(s.now, testCertificate)
	case "work":
		s.allWork()
	case "no credential":
		s.e.AnswerCertificate(s.now, nil)
	case "psk":
		s.e.AnswerPSK(s.now, []byte(key))
	case "unknown psk":
		s.e.AnswerPSK(s.now, nil)
	case "verdict":
		s.e.AnswerVerdict(s.now, nil, 0)
	case "refusal":
		s.e.AnswerVerdict(s.now, errors.New("unwelcome"), wire.AlertBadCertificate)
	case "hello again":
		s.e.HelloAgain(s.now)
	case "timeout":
		s.now = s.now.Add(100 * time.Millisecond)
		s.e.Timeout(s.now)
	case "deadline":
		if at := s.e.Deadline(); at.After(s.now) {
			s.now = at
		}
		s.e.Timeout(s.now)
	case "seal":
		if out, err := s.e.Seal(nil, []byte("data")); err == nil {
			s.sent = append(s.sent, out)
			s.check(out)
		}
	case "close":
		s.e.Close()
	case "fragment":
		s.fragment(finished())
	case "any form":
		types := []wire.HandshakeType{0, 1, 2, 3, 4, 11, 12, 13, 14, 15, 16, 20, 21, 255}
		forms := []string{"good", "wrong", "none", "short", "long", "empty", "cut", "half", "void", "beyond", "huge"}
		t, seq, form := types[s.arg()%len(types)], s.arg(), forms[s.arg()%len(forms)]
		m, ok := s.form(t, s.next()-1+uint16(seq%6), form)
		if !ok {
			return
		}
		switch t {
		case wire.TypeClientHello:
			s.given["hello"] = true
		case wire.TypeClientKeyExchange:
			s.given["keyExchange"] = true
		}
		if seq >= 128 {
			s.given["finished"] = s.given["finished"] || t == wire.TypeFinished
			sealed(wire.ContentHandshake, m)
		} else {
			plain(wire.ContentHandshake, m)
		}
	case "any type":
		t, epoch, n := s.arg(), s.arg(), s.arg()
		r := wire.AppendRecordHeader(nil, wire.ContentType(t), wire.VersionDTLS12, uint16(epoch%3), uint64(n), n)
		if epoch%3 == 0 && wire.ContentType(t) == wire.ContentChangeCipherSpec {
			s.given["ccs"] = true
		}
		s.give(append(r, bytes.Repeat([]byte{1}, n)...))
	case "repeat":
		s.give(earlier())
	case "corrupt":
		b, at := earlier(), s.arg()
		if len(b) > 0 {
			b[at%len(b)] ^= byte(1 + at)
			// It may have become what it was not.
			s.given["ccs"] = true
			s.give(b)
		}
	case "joined":
		s.give(bytes.Join([][]byte{earlier(), earlier(), earlier()}, nil))
	case "plaintext":
		t, b := s.arg(), s.arg()
		if wire.ContentType(t) == wire.ContentChangeCipherSpec {
			s.given["ccs"] = true
		}
		plain(wire.ContentType(t), []byte{byte(b), 0})
	}
}

// fragment gives a piece of one of the client's messages.
func (s *schedule) fragment(finished []byte) {
	types := []wire.HandshakeType{wire.TypeClientHello, wire.TypeCertificate, wire.TypeClientKeyExchange, wire.TypeCertificateVerify, wire.TypeFinished}
	t, offset, length := types[s.arg()%len(types)], s.arg(), s.arg()
	m := s.messages[t]
	switch t {
	case wire.TypeClientHello:
		s.given["hello"] = true
		m = s.hello[wire.RecordHeaderLen:]
	case wire.TypeFinished:
		s.given["finished"] = true
		m = finished
	case wire.TypeClientKeyExchange:
		s.given["keyExchange"] = true
	}
	if m == nil {
		return
	}
	f, _, _ := wire.ParseFragment(m)
	offset %= len(f.Body) + 1
	length = min(length, len(f.Body)-offset)
	piece := wire.AppendHandshakeHeader(nil, t, len(f.Body), f.MessageSeq, offset, length)
	piece = append(piece, f.Body[offset:offset+length]...)
	if t != wire.TypeFinished {
		s.give(s.client.Plain(wire.ContentHandshake, piece))
	} else if s.keys {
		s.give(s.client.Sealed(wire.ContentHandshake, piece))
	}
}

// give gives the engine a datagram, record by record, as the server does.
func (s *schedule) give(datagram []byte) {
	if len(datagram) < 1<<12 && len(s.past) < 256 {
		s.past = append(s.past, bytes.Clone(datagram))
	}
	buf := make([]byte, 0, 1<<12)
	s.datagrams++
	for len(datagram) > 0 {
		r, rest, ok := NextRecord(datagram, 0)
		if !ok {
			return
		}
		datagram = rest
		over, opened := s.e.Closed(), s.e.Established()
		result := s.e.Receive(s.now, s.datagrams, r, buf)
		data, drop := result.Data, result.Drop
		if over && drop != DropClosed {
			s.t.Fatalf("drop %d after the end", drop)
		}
		if data != nil && !opened {
			s.t.Fatal("data before the end of the handshake")
		}
		s.collect()
	}
}

// collect takes what the engine has to send and to tell.
func (s *schedule) collect() {
	over, alerts, sent := s.e.Closed(), 0, 0
	for {
		datagram := s.e.AppendDatagram(nil)
		if len(datagram) == 0 {
			break
		}
		if len(datagram) > s.cfg.MTU {
			s.t.Fatalf("datagram of %d bytes, MTU is %d", len(datagram), s.cfg.MTU)
		}
		s.check(datagram)
		sent++
		if r, rest, _ := wire.ParseRecord(datagram, 0); over && r.Type == wire.ContentAlert && len(rest) == 0 {
			alerts++
		} else if over && alerts > 0 {
			s.t.Fatalf("sent %x after the last alert", datagram)
		}
		s.sent = append(s.sent, datagram)
	}
	// What had not gone out yet does, and then one alert.
	if over && sent > 0 && alerts != 1 {
		s.t.Fatalf("sent %d alerts after the end, in %d datagrams", alerts, sent)
	}
	for {
		ev, ok := s.e.Event()
		if !ok {
			return
		}
		s.tell(ev)
	}
}

// check wants every record of a datagram to have a number of its own.
func (s *schedule) check(datagram []byte) {
	for len(datagram) > 0 {
		r, rest, ok := wire.ParseRecord(datagram, 0)
		if !ok {
			s.t.Fatalf("sent half a record: %x", datagram)
		}
		datagram = rest
		n := recordNumber{r.Epoch, r.Seq}
		if s.used[n] {
			s.t.Fatalf("record %v was sent twice", n)
		}
		s.used[n] = true
	}
}

// tell wants an event to be one that may follow those before.
func (s *schedule) tell(ev Event) {
	opened := false
	for _, before := range s.told {
		if before.Kind == EventClosed {
			s.t.Fatalf("told %+v after the end", ev)
		}
		opened = opened || before.Kind == EventEstablished
	}
	p := s.e.Parameters()
	switch ev.Kind {
	case EventEstablished:
		if opened {
			s.t.Fatal("told twice to be established")
		}
		needs := []string{"hello", "ccs", "finished"}
		if !p.Resumed {
			needs = append(needs, "keyExchange")
			if p.Suite.KeyExchange.ECDHE() {
				needs = append(needs, "work")
			}
		}
		if p.Suite.KeyExchange.WithPSK() {
			needs = append(needs, "psk")
		}
		if s.cfg.AskVerdict {
			needs = append(needs, "verdict")
		}
		if s.cfg.RequireClientCertificate && p.PeerKeyHash == [32]byte{} {
			s.t.Fatal("established without a certificate")
		}
		for _, need := range needs {
			if !s.given[need] {
				s.t.Fatalf("established without %q", need)
			}
		}
	}
	if ev.Kind == EventData && !opened {
		s.t.Fatal("data before the end of the handshake")
	}
	if ev.Kind == EventWork {
		s.works = append(s.works, sync.OnceValue(ev.Work))
	}
	s.told = append(s.told, ev)
}

// messages is how many messages a flight has.
func messages(flight []byte) (n int) {
	for ; len(flight) > 0; n++ {
		_, flight, _ = wire.ParseFragment(flight)
	}
	return n
}

// wantBounded wants little to be kept of what a client can make up.
func (s *schedule) wantBounded() {
	const maxFlight = 8 // messages
	if n := messages(s.e.flight.bytes); n > maxFlight {
		s.t.Fatalf("flight of %d messages", n)
	}
	hs := s.e.hs
	if (hs == nil) != (s.e.Established() || s.e.Closed()) {
		s.t.Fatalf("in state %s the handshake's memory is %v", stateNames[s.e.state], hs)
	}
	if hs == nil {
		return
	}
	if hs.earlyRecords > maxEarly || len(hs.early) > maxOvertakingBytes {
		s.t.Fatalf("%d records of epoch 1 are kept, in %d bytes", hs.earlyRecords, len(hs.early))
	}
	for i := range hs.incoming {
		if a := &hs.incoming[i]; a.held() > maxClientHello+maxClientHello/8 {
			s.t.Fatalf("%d bytes are kept of a message", a.held())
		}
	}
}

// TestSchedules: the honest schedules of each scene lead to an open
// association, also when everything is said twice.
func TestSchedules(t *testing.T) {
	t.Parallel()
	for i, scene := range scenes {
		var twice []string
		for _, step := range scene.path {
			twice = append(twice, step, step)
		}
		for _, steps := range [][]string{scene.path, twice} {
			opened := false
			for _, ev := range runSchedule(t, scheduleOf(i, steps...)).told {
				opened = opened || ev.Kind == EventEstablished
			}
			if !opened {
				t.Errorf("%s: %q opens no association", scene.name, steps)
			}
		}
	}
}

func FuzzSchedule(f *testing.F) {
	for i, scene := range scenes {
		path := scene.path
		f.Add(scheduleOf(i, path...))
		f.Add(scheduleOf(i, append(path[:len(path):len(path)], "data", "seal", "finished", "renegotiation", "close notify", "data")...))
		f.Add(append(scheduleOf(i, "hello", "credential", "work", "finished", "ccs", "data", "deadline", "verify", "certificate", "keyExchange", "work", "work", "psk", "psk"), 27, 0, 27, 1, 27, 2, 29, 0, 1, 2))
		small := scheduleOf(i, "hello", "unknown psk", "credential")
		small[1] = 0
		f.Add(append(small, 24, 1, 0, 20, 24, 1, 20, 255, 24, 2, 3, 9, 24, 2, 0, 3, 24, 2, 12, 255, 14, 14, 14, 25, 10, 1, 6, 25, 11, 129, 1, 28, 1, 30, 26, 22, 1, 60))
	}
	f.Fuzz(func(t *testing.T, data []byte) { runSchedule(t, data) })
}
