package sim

import (
	"bytes"
	"fmt"
	"net/netip"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// What a client does with a session that is open.

// request is a message that a client has sealed.
type request struct {
	by        *attempt
	n         int
	seq       uint64 // of the record
	delivered bool
}

// ask sends a request.
func (a *attempt) ask() {
	d := a.d
	if a.phase != open {
		return
	}
	if until, silent := d.w.night(); silent {
		a.timer = a.w.after(until-d.w.now()+d.r.span(0, 10*time.Second), a.ask)
		return
	}
	if a.missed == 0 {
		a.askedFirst = d.w.now()
	}
	if a.missed == 3 {
		d.w.ledger.forsaken(a)
		d.note("gets no answer, and connects again")
		a.lose(0)
		return
	}
	a.say("request", fmt.Sprintf("%x", d.random(d.r.below(40))))
	a.missed++
	if d.has(asksPaths) && a.checksPaths() && d.r.chance(0.3) {
		for range 1 + d.r.below(12) {
			a.ofPath(wire.PathChallenge, [8]byte(d.random(8)), d.outside())
		}
	}
	if d.has(chatters) && d.w.stormy() && d.r.chance(0.3) {
		a.chatter()
	}
	a.timer.cancel()
	a.timer = a.w.after(d.patience()<<(a.missed-1), a.ask)
}

// say sends a message.
func (a *attempt) say(what, more string) { a.send(a.message(what, more)) }

// message seals a message.
func (a *attempt) message(what, more string) []byte {
	id := 0
	if a.d != nil {
		id = a.d.id
	}
	a.asked++
	q := &request{by: a, n: a.asked}
	var b []byte
	b, q.seq = a.seal(wire.ContentApplicationData, fmt.Appendf(nil, "%s %d %d %d %s", what, id, a.n, q.n, more))
	a.sent[q.n], a.bySeq[q.seq] = q, q
	return b
}

// checksPaths reports whether the server has agreed to check paths.
func (a *attempt) checksPaths() bool {
	_, agreed := a.c.ServerHello.Extensions[extensionPaths]
	return agreed
}

// The numbers of extensions (RFC 9146, RFC 9853).
const (
	extensionCID   = 54
	extensionPaths = 61
)

// ofPath sends a message about a path, from one of the device's addresses.
func (a *attempt) ofPath(t wire.PathMessageType, cookie [8]byte, from netip.AddrPort) {
	m := wire.PathMessage{Type: t, Cookie: cookie}
	b, _ := a.seal(wire.ContentReturnRoutability, m.Append(nil))
	a.w.network.fromDevice(a.d, a, from, b)
}

// path takes a message about a path that has come to one of the device's addresses.
func (a *attempt) path(m wire.PathMessage, at netip.AddrPort) {
	d := a.d
	switch {
	case a.phase != open || m.Type != wire.PathChallenge:
	case at == d.left && at != d.mapped:
		a.ofPath(wire.PathDrop, m.Cookie, at)
	default:
		a.ofPath(wire.PathResponse, m.Cookie, d.outside())
	}
}

// chatter sends many messages at once, which the network puts out of order.
func (a *attempt) chatter() {
	for range 100 {
		a.say("quiet request", "")
	}
}

// answer takes an answer of the service.
func (a *attempt) answer(data []byte) {
	d := a.d
	if echo, ok := bytes.CutPrefix(data, []byte("echo ")); ok {
		a.say("back request", string(echo))
		return
	}
	rest, ok := bytes.CutPrefix(data, []byte("answer to "))
	if !ok {
		return // what the service says of itself
	}
	var id, n, number int
	if _, err := fmt.Sscanf(string(rest), "request %d %d %d", &id, &n, &number); err != nil || id != d.id || n != a.n || a.sent[number] == nil {
		a.w.ledger.violate("answer", d, "%s got %q", a.name(), data)
		return
	}
	a.missed = 0
	a.served++
	d.answered = a.w.now()
	if d.connected == 0 {
		d.connected = d.answered
	}
	a.timer.cancel()
	healed := !d.w.stormy()
	if healed && d.w.now() > d.w.drawn.storm+calm*2/3 {
		a.timer = a.w.after(30*time.Second+d.interval, a.ask)
		return
	}
	switch {
	case healed && d.has(restarts) && !d.homed && d.honest():
		d.homed = true
		d.loseIn = phase(1 + d.r.below(int(open)))
		d.note("is to lose its memory when it %v", d.loseIn)
		d.w.after(d.r.span(0, 2*time.Second), func() {
			if d.a == a && !d.gone {
				d.forget()
			}
		})
	case (d.has(leaves) || d.has(tickets)) && d.r.chance(0.4):
		a.leave()
	case d.has(rekeys) && d.old == nil && d.a == a && d.r.chance(0.3):
		d.note("makes another handshake")
		d.old = a
		a.timer = a.w.after(d.interval/4, a.ask)
		d.connect()
	case d.has(sleeps) && !healed && d.r.chance(0.1):
		a.timer = a.w.after(time.Hour, a.ask)
	default:
		a.timer = a.w.after(d.interval/2+d.r.span(0, d.interval/2), a.ask)
	}
}

// farewell sends an alert that must end the session.
func (a *attempt) farewell(alert []byte) { a.last(wire.ContentAlert, alert) }

// last sends a record after which the session must be over, since it says so, or
// no client would send it.
func (a *attempt) last(t wire.ContentType, content []byte) {
	b, seq := a.seal(t, content)
	a.ends[seq] = true
	a.send(b)
}

// leave closes the session, and connects again after a while.
func (a *attempt) leave() {
	d := a.d
	d.note("leaves")
	if !d.has(leavesQuietly) {
		a.farewell([]byte{1, 0})
	}
	a.left = true
	a.lose(d.r.span(0, d.pause))
}
