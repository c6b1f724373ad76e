package sim

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/record"
	"github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// phase is how far an attempt has come: what the client waits for.
type phase int

const (
	forCookie phase = iota + 1
	forFlight
	forFinished
	open
	over
)

var phaseNames = [...]string{forCookie: "waits for a cookie", forFlight: "waits for the server's flight", forFinished: "waits for Finished", open: "open", over: "over"}

func (p phase) String() string { return phaseNames[p] }

// attempt is one handshake of a client, and the session that comes of it. Its
// random tells it from all others.
type attempt struct {
	d    *device // nil: an attacker's
	w    *world
	n    int
	c    *testpeer.Client
	addr netip.AddrPort // when it began

	phase   phase
	flight  [][]byte // the client's, in records, to be said again
	wait    time.Duration
	timer   *event
	end     *event
	hellos  int
	inbox   []inboxRecord // that the client has not taken yet
	offered []byte        // master secret of the ticket that it offers
	sent    map[int]*request
	bySeq   map[uint64]*request
	asked   int // requests
	missed  int // in a row without an answer
	served  int // answered
	left    bool

	// What the ledger knows.
	verified   time.Duration               // when its hello with a right cookie was at the server first; negative: never
	verifiedIn int                         // and the ledger's step
	answeredIn int                         // the step in which its ClientKeyExchange was at the server first; zero: never
	stale      bool                        // it took a flight that was sent before that: another handshake's
	damaged    bool                        // an attacker's datagram may have come in between
	lost       bool                        // there was no server, and its client does not repeat what it has said
	refused    bool                        // its alert that it does not trust the server was at the server
	flights    int                         // ServerHellos that the server made for it
	pieces     int                         // of that: ClientKeyExchange 1, ChangeCipherSpec 2, Finished 4
	said       bool                        // its Finished was sent
	ends       map[uint64]bool             // of them, those that must end the session
	came       map[uint64]bool             // sealed records of it, by sequence number
	strange    map[uint64]bool             // handshake messages in its session that are no Finished
	kinds      map[uint64]wire.ContentType // of sealed records that are no Finished, since the wire may not say it
	askedFirst time.Duration               // when it sent the first request that has no answer yet
}

func newAttempt(w *world, n int, addr netip.AddrPort) *attempt {
	return &attempt{
		w: w, n: n, addr: addr, verified: -1, sent: make(map[int]*request), bySeq: make(map[uint64]*request), came: make(map[uint64]bool),
		ends: make(map[uint64]bool), strange: make(map[uint64]bool), kinds: make(map[uint64]wire.ContentType),
	}
}

// seal seals a record, and returns its sequence number.
func (a *attempt) seal(t wire.ContentType, content []byte) (b []byte, seq uint64) {
	b = a.c.Sealed(t, content)
	r, _, _ := wire.ParseRecord(b, len(a.c.ServerCID))
	a.kinds[r.Seq] = t
	return b, r.Seq
}

// kind is the type of a sealed record of the client's.
func (a *attempt) kind(r wire.Record) wire.ContentType {
	if r.CID() == nil {
		return r.Type
	}
	if t, ok := a.kinds[r.Seq]; ok {
		return t
	}
	return wire.ContentHandshake
}

type inboxRecord struct {
	wire.Record
	parcel *parcel
}

func (a *attempt) name() string {
	if a.d == nil {
		return fmt.Sprintf("attacker's attempt %d", a.n)
	}
	return fmt.Sprintf("%s attempt %d", a.d.name(), a.n)
}

// excused reports whether the attempt cannot succeed, through no fault of the
// server's.
func (a *attempt) excused() bool { return a.stale || a.damaged || a.lost }

func (a *attempt) begin() {
	a.end = a.w.after(a.d.giveUp, func() { a.fail("gives up", false) })
	a.to(forCookie, a.hello)
}

// hello says a new ClientHello.
func (a *attempt) hello() {
	d := a.d
	if a.hellos++; a.hellos > 30 {
		return
	}
	if d.has(freshSessionID) {
		a.c.SessionID = d.random(16)
	} else if a.c.Ticket != nil && a.c.SessionID == nil {
		a.c.SessionID = d.random(8)
	}
	a.fly([][]byte{a.c.Hello()})
}

// fly says a new flight.
func (a *attempt) fly(records [][]byte) {
	a.flight, a.wait = records, a.d.first
	a.transmit()
	a.arm()
}

func (a *attempt) arm() {
	a.timer.cancel()
	if !a.d.has(neverRepeats) {
		a.timer = a.w.after(a.wait, a.timeout)
	}
}

// timeout says the flight again (RFC 6347 section 4.2.4).
func (a *attempt) timeout() {
	if a.phase >= open {
		return
	}
	if len(a.inbox) > 0 { // the timer wakes those who take one record at a time
		if a.read(); a.phase >= open {
			return
		}
	}
	a.again()
	if !a.d.has(fixedTimer) {
		a.wait = min(2*a.wait, time.Minute)
	}
	a.arm()
}

// again says the flight again, in new records.
func (a *attempt) again() {
	for i, r := range a.flight {
		a.flight[i] = a.c.Again(r)
	}
	a.transmit()
}

// transmit sends the flight.
func (a *attempt) transmit() {
	d := a.d
	var records [][]byte
	for _, r := range a.flight {
		size := 0
		hello := r[0] == byte(wire.ContentHandshake) && r[4] == 0 && r[13] == byte(wire.TypeClientHello)
		const headers = wire.RecordHeaderLen + wire.HandshakeHeaderLen
		switch {
		case r[0] != byte(wire.ContentHandshake) || r[4] != 0: // no plaintext message
		case hello && (d.has(splitHello) || d.has(splitHelloInOne)):
			size = 203
		case !hello && d.has(tinyFragments):
			size = d.tiny
		case len(r) > d.mtu:
			size = d.mtu - headers
		}
		if size > 0 {
			records = append(records, a.c.Split(r, size)...)
		} else {
			records = append(records, r)
		}
	}
	if d.has(shuffles) && a.phase == forFinished {
		for i := len(records) - 1; i > 0; i-- {
			j := d.r.below(i + 1)
			records[i], records[j] = records[j], records[i]
		}
	}
	// Behind a record with a connection ID, nothing without one is read.
	separate := d.has(separateRecords) || d.has(shuffles) && a.c.ServerCID != nil || a.phase <= forFlight && !d.has(splitHelloInOne)
	var datagram []byte
	for _, r := range records {
		if len(datagram) > 0 && (separate || len(datagram)+len(r) > d.mtu) {
			a.send(datagram)
			datagram = nil
		}
		datagram = append(datagram, r...)
	}
	a.send(datagram)
}

func (a *attempt) send(datagram []byte) {
	if a.d == nil {
		a.w.attackers.pass(&parcel{from: a.addr, to: serverAddr, b: datagram, attempt: a, genuine: true})
	} else if len(datagram) > 0 {
		a.w.network.toServer(a.d, a, datagram)
	}
}

// read takes what has come, or one record of it.
func (a *attempt) read() {
	for len(a.inbox) > 0 && a.phase < over {
		next := a.inbox[0]
		a.inbox = a.inbox[1:]
		err := a.take(next)
		if old := a.d.old; err != nil && old != nil {
			_ = old.take(next)
		}
		if a.d.has(recordAnEvent) && a.phase < open {
			return
		}
	}
}

var errNotForUs = errors.New("a record of no use")

// take takes a record.
func (a *attempt) take(in inboxRecord) error {
	if a.phase == over {
		return errNotForUs
	}
	c := a.c
	if a.behind(in.Record) {
		return nil
	}
	alerts, cookie := len(c.Alerts), c.Cookie
	err := c.Receive(in.Raw)
	c.Seen = nil
	if !a.stale && a.takesOthers(in) {
		a.d.note("takes a flight of another handshake, which was under way already")
		a.stale = true
	}
	switch {
	case err == nil:
	case errors.Is(err, record.ErrForged), errors.Is(err, record.ErrReplayed), errors.Is(err, testpeer.ErrConnectionID), in.Epoch > 0 && a.phase != forFinished && a.phase != forFlight:
		return errNotForUs
	case err.Error() == "sealed record before the keys":
		return errNotForUs
	case a.phase < open:
		switch {
		case a.excused() || !a.d.honest():
		case a.w.ledger.leftAlone(a):
		case a.flights == 0:
			a.w.ledger.violate("restart", a.d, "%s got another handshake's flight, though its hello was there: %v", a.name(), err)
		case a.flights == 1:
			a.w.ledger.violate("client", a.d, "%s: %v", a.name(), err)
		}
		a.fail("refuses what the server says: "+err.Error(), true)
		return nil
	}
	if len(c.Alerts) > alerts {
		a.alert(c.Alerts[len(c.Alerts)-1], in.Epoch > 0)
	}
	a.react(in, !bytes.Equal(cookie, c.Cookie))
	return nil
}

// takesOthers reports whether a record is of the flight of another handshake, which the
// client cannot tell from its own, since it is in plaintext: one that was sent before
// the client's hello was there, or the ticket of a handshake that the client has left and
// that completes all the same.
func (a *attempt) takesOthers(in inboxRecord) bool {
	f, _, ok := wire.ParseFragment(in.Payload)
	switch {
	case !ok || in.Epoch != 0 || in.Type != wire.ContentHandshake:
		return false
	case f.Type == wire.TypeNewSessionTicket:
		left := a.answeredIn > 0 && a.answeredIn < in.parcel.step // the other handshake, which must be silent
		return a.phase <= forFinished && !left && !a.w.ledger.complete(a, in.parcel.step)
	}
	elsewhere := a.w.has(reusesPorts) && in.parcel.to != a.addr // where somebody else was
	return a.phase < forFinished && f.Type != wire.TypeHelloVerifyRequest && (elsewhere || a.verified < 0 || in.parcel.step < a.verifiedIn)
}

// behind reports whether a record is of what answers a hello before the client's
// last: a HelloVerifyRequest, or a flight. Clients ignore it, since its message_seq is
// behind.
func (a *attempt) behind(r wire.Record) bool {
	f, _, ok := wire.ParseFragment(r.Payload)
	last := a.c.MessageSeq - 1
	switch {
	case !ok || r.Epoch != 0 || r.Type != wire.ContentHandshake:
		return false
	case f.Type == wire.TypeHelloVerifyRequest:
		return f.MessageSeq != last
	}
	return a.phase <= forFlight && f.MessageSeq < last
}

// react goes on with the handshake.
func (a *attempt) react(in inboxRecord, newCookie bool) {
	c := a.c
	repeated := in.Epoch == 0 && in.Type == wire.ContentHandshake && len(in.Payload) > 0 && in.Payload[0] == byte(wire.TypeServerHello)
	switch {
	case a.phase == over:
	case (a.phase == forCookie || a.phase == forFlight && !c.HelloDone && c.ServerHello == nil) && newCookie:
		if i, ok := a.w.ledger.place(a.addr).issued[string(c.Cookie)]; a.d.has(neverRepeats) && ok && i.random != string(c.Random[:]) {
			a.stale = true // of the hello that the client has forgotten, and it will not ask for another
		}
		a.to(forFlight, a.hello)
	case a.phase == forFlight && c.Resuming && c.Complete:
		a.said = true
		a.flight = [][]byte{c.Plain(wire.ContentChangeCipherSpec, []byte{1}), c.Sealed(wire.ContentHandshake, c.FinishedMessage())}
		a.opened()
	case a.phase == forFlight && c.HelloDone:
		a.answerFlight()
	case a.phase == forFinished && c.Complete:
		a.opened()
	case a.phase == forFinished && repeated, a.phase == open && c.Resuming && repeated:
		a.again() // RFC 6347 section 4.2.4: the server has not seen it
	}
	for len(c.Paths) > 0 {
		m := c.Paths[0]
		c.Paths = c.Paths[1:]
		a.path(m, in.parcel.to)
	}
	for len(c.Data) > 0 && a.phase == open {
		data := c.Data[0]
		c.Data = c.Data[1:]
		a.answer(data)
	}
}

// to goes to a phase, unless the device loses its memory there.
func (a *attempt) to(p phase, what func()) {
	a.phase = p
	what()
	d := a.d
	loses := d.has(restarts) && (d.w.stormy() && d.r.chance(0.1) || d.loseIn == p && !d.w.stormy())
	if loses && d.a == a {
		d.loseIn = 0
		d.restart.cancel()
		d.restart = d.w.after(d.r.span(0, 2*d.roundTrip()+3*time.Second), func() {
			if d.a == a {
				d.forget()
			}
		})
	}
	if d.has(alertsAndRetries) && d.w.stormy() && d.a == a && a.phase < open && d.r.chance(0.15) {
		d.w.after(d.r.span(0, d.roundTrip()), func() {
			if d.a == a && a.phase < open {
				a.fail("has enough", true)
			}
		})
	}
}

// answerFlight answers the server's flight.
func (a *attempt) answerFlight() {
	d, c := a.d, a.c
	if d.has(distrusts) && len(c.ServerChain) > 0 {
		d.note("does not trust the server")
		a.send(c.Plain(wire.ContentAlert, []byte{byte(wire.LevelFatal), byte(wire.AlertUnknownCA)}))
		a.finish()
		d.a = nil
		d.later(d.pause + 20*time.Second)
		return
	}
	if suite.ByID(c.ServerHello.Suite).KeyExchange.ECDHE() && c.Group == 0 {
		a.fail("misses ServerKeyExchange", true) // a flight mixed of two
		return
	}
	a.said = true
	a.to(forFinished, func() { a.fly(c.Records()) })
}

// opened is when the client's handshake is complete.
func (a *attempt) opened() {
	d, c := a.d, a.c
	a.timer.cancel()
	a.end.cancel()
	if d.old != nil {
		d.old.finish()
		d.old = nil
	}
	if c.Resuming {
		d.note("resumes")
		a.transmit()
	}
	if d.has(tickets) && len(c.NewTicket) > 0 {
		d.ticket, d.master = c.NewTicket, bytes.Clone(c.Master)
	}
	a.to(open, func() {
		if c.Resuming && d.has(dataBehindFinished) || d.r.chance(0.5) {
			a.ask()
		} else {
			a.timer = a.w.after(d.r.span(0, time.Second), a.ask)
		}
	})
}

// alert takes an alert of the server's.
func (a *attempt) alert(alert wire.Alert, sealed bool) {
	d := a.d
	switch {
	case a.phase == open && sealed && alert.Description == wire.AlertCloseNotify:
		if !d.has(ignoresClose) {
			b, _ := a.seal(wire.ContentAlert, []byte{1, 0})
			a.send(b)
		}
		d.note("is told that the session is closed")
		a.lose(d.pause)
	case a.phase == open && sealed && alert.Level == wire.LevelFatal:
		a.lose(d.pause)
	case a.phase < open && alert.Level == wire.LevelFatal:
		a.fail(fmt.Sprintf("is told alert %d", alert.Description), false)
	}
}

// fail gives the attempt up, and tries again.
func (a *attempt) fail(why string, tell bool) {
	d := a.d
	if a.phase >= open {
		return
	}
	d.note("%s", why)
	if tell {
		a.send(a.c.Plain(wire.ContentAlert, []byte{byte(wire.LevelFatal), byte(wire.AlertUserCanceled)}))
	}
	a.finish()
	if d.old != nil && d.old.phase == open { // the session that there was goes on
		d.a, d.old = d.old, nil
		d.a.inbox = nil
		return
	}
	d.a, d.old = nil, nil
	pause := d.pause
	if d.has(alertsAndRetries) {
		pause, d.keepsPort = 0, true
	}
	if d.traits&dishonest != 0 {
		pause += 20 * time.Second
	}
	d.later(pause)
}

// lose ends a session that is no more, and connects again.
func (a *attempt) lose(after time.Duration) {
	a.finish()
	if a.d.a == a {
		a.d.a = nil
		a.d.later(after)
	}
}

// finish ends the attempt.
func (a *attempt) finish() {
	if a.excused() && a.phase < open {
		a.d.spoiled = a.w.now()
	}
	a.phase = over
	a.timer.cancel()
	a.end.cancel()
}
