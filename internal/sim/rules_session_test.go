package sim

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// The rules of sessions: what is delivered and told, in which order, and that
// all that is honest is served.

// maxEarly is how many requests that have overtaken the client's Finished must
// be kept.
const maxEarly = 4

// flightLife is how long the server keeps its last flight (2 MSL).
const flightLife = 240 * time.Second

// arriveFrom notes what a client's datagram should lead to.
func (l *ledger) arriveFrom(in *arrival, pl *place, all []wire.Record) {
	a := in.attempt
	var waiting *association
	for _, as := range pl.assocs {
		switch {
		case as.attempt != a || as.closed:
		case as.opened:
			in.assoc = as
		default:
			waiting = as
		}
	}
	for _, r := range all {
		if r.Epoch == 0 {
			l.arrivePlain(a, pl, r)
			continue
		}
		if l.elsewhere(&in.assoc, r) {
			continue
		}
		again := a.came[r.Seq] || pl.copied[string(r.Raw)]
		a.came[r.Seq] = true
		if l.inHandshake(a, pl) && a.kind(r) == wire.ContentHandshake {
			a.pieces |= 4
		}
		as := in.assoc
		q := a.bySeq[r.Seq]
		switch {
		case again:
		case as == nil && waiting != nil && q != nil && len(waiting.early) < maxEarly:
			waiting.early = append(waiting.early, q)
		case as == nil:
		case r.Seq+windowSize <= as.highest:
		case a.ends[r.Seq]:
			in.ends = true
		case q != nil:
			in.requests = append(in.requests, q)
		case a.kind(r) == wire.ContentHandshake && !a.c.Resuming && !a.strange[r.Seq] && l.w.now()-as.since < flightLife && !pl.rivaled(as.random):
			in.finished = true
		}
		if as != nil {
			if !again && r.Seq+windowSize > as.highest {
				as.touched, as.surely = l.w.now(), l.w.now()
			}
			as.highest = max(as.highest, r.Seq)
		}
	}
}

// elsewhere reports whether a sealed record is judged by its connection ID, or is for no
// session, for the want of one, or because of it.
func (l *ledger) elsewhere(as **association, r wire.Record) bool {
	return r.CID() != nil && (l.living(r.CID()) != nil || *as != nil) || r.CID() == nil && *as != nil && (*as).cid != nil
}

// windowSize is that of the replay window (RFC 6347 section 4.1.2.6).
const windowSize = 64

// inHandshake reports whether the attempt's handshake may be in progress there.
func (l *ledger) inHandshake(a *attempt, pl *place) bool {
	return pl.addr == a.addr && a.verified >= 0 && l.w.now()-a.verified < l.w.handshakeTimeout()-5*time.Second
}

func (l *ledger) arrivePlain(a *attempt, pl *place, r wire.Record) {
	if !l.inHandshake(a, pl) {
		return
	}
	switch r.Type {
	case wire.ContentAlert:
		if alert, ok := wire.ParseAlert(r.Payload); ok && alert.Description == wire.AlertUnknownCA {
			a.refused = true
		}
	case wire.ContentChangeCipherSpec:
		a.pieces |= 2
	case wire.ContentHandshake:
		if f, _, ok := wire.ParseFragment(r.Payload); ok && f.Type == wire.TypeClientKeyExchange && f.Whole() {
			if a.pieces |= 1; a.answeredIn == 0 {
				a.answeredIn = l.steps
			}
		}
	}
}

// hear judges what the server says to the service.
func (l *ledger) hear(in *arrival, t *told) {
	switch {
	case t.confirm.IsValid():
		if as := l.sessions[t.session]; as != nil {
			l.confirmed(as, t)
		}
	case t.event != nil:
		l.w.trace.event(l.w.now(), t.event.String())
		l.hearEvent(in, t.event)
	case t.session != nil:
		l.w.trace.event(l.w.now(), fmt.Sprintf("delivers %q", t.data))
		l.delivered(t)
	}
}

func (l *ledger) hearEvent(in *arrival, e *dtlsserver.Event) {
	l.books.event(e)
	if l.books.stopped && e.Kind != dtlsserver.KindListening {
		l.violate("order", nil, "told after KindStopped: %v", e)
	}
	switch e.Kind {
	case dtlsserver.KindListening:
		l.books.stopped = false
	case dtlsserver.KindStopped:
		l.books.stopped = true
		for _, as := range l.sessions {
			if as.opened && !as.closed {
				l.violate("order", deviceOf(as.attempt), "KindStopped came before the session was closed")
			}
		}
	case dtlsserver.KindHandshakeComplete:
		l.opened(in, e)
	case dtlsserver.KindSessionClosed:
		l.closed(e)
	case dtlsserver.KindHandshakeFailed:
		l.failed(e)
	case dtlsserver.KindPeerMoved:
		l.moved(e)
	}
	if e.Kind.Level() == slog.LevelError {
		l.errorTold(e)
	}
}

// opened judges a session that is told of.
func (l *ledger) opened(in *arrival, e *dtlsserver.Event) {
	if len(l.logged) == 0 || l.sessions[e.Session] != nil {
		l.violate("order", nil, "%v is complete twice, or without a line of the key log", e.Remote)
		return
	}
	as := l.logged[0]
	l.logged = l.logged[1:]
	l.newcome(e.Remote)
	l.sessions[e.Session] = as
	as.opened, as.since, as.touched, as.surely = true, l.w.now(), l.w.now(), l.w.now()
	as.made = as.since
	pl := l.place(e.Remote)
	as.place = pl
	if as.hello == nil { // its flight is kept back, since its client has begun a newer one
		if !pl.rivaled(as.random) {
			l.violate("keys", nil, "%v is complete, and nothing was sealed", e.Remote)
		}
		pl.add(as)
	}
	a := as.attempt
	switch {
	case a == nil:
		l.violate("authentic", nil, "%v is complete, and nobody has tried to connect", e.Remote)
		return
	case !a.said:
		l.violate("authentic", a.d, "%v is complete, and its client has sent no Finished", e.Remote)
	case a.d != nil && (a.d.has(wrongKey) || a.d.has(unknownIdentity) || a.d.has(wrongUsage) || a.d.has(badCertificate) && !a.d.forgiven()):
		l.violate("authentic", a.d, "%v is complete, without the right key", e.Remote)
	}
	if at, ok := l.masters[string(as.master)]; ok {
		as.made = at // resumed
	} else {
		l.masters[string(as.master)] = as.made
	}
	for seq := range a.came {
		as.highest = max(as.highest, seq)
	}
	l.opens++
	as.openedIn, as.ordinal = l.steps, l.opens
	l.routed(as, e)
	for _, q := range as.early {
		if !q.delivered && q.seq+windowSize > as.highest { // the Finished may be far ahead of it
			in.requests = append(in.requests, q)
		}
	}
}

// closed judges a session that is told to be over: its client must have been
// told too, unless it is gone.
func (l *ledger) closed(e *dtlsserver.Event) {
	as := l.sessions[e.Session]
	if as == nil || !as.opened || as.closed {
		l.violate("order", nil, "%v is closed twice, or before it was complete", e.Remote)
		return
	}
	as.closed = true
	if errors.Is(e.Err, dtlsserver.ErrReconnected) {
		l.replaced = append(l.replaced, as)
	}
	if as.route != nil && e.Remote != as.route.path {
		l.violate("moves", deviceOf(as.attempt), "closed at %v, and it was at %v", e.Remote, as.route.path)
	}
	l.place(e.Remote).last = l.w.now()
	if as.route != nil {
		for addr := range as.route.tabs {
			l.place(addr).last = l.w.now()
		}
	}
	as.endedAt, as.endedOn = l.w.now(), l.w.conn
	switch {
	case errors.Is(e.Err, dtlsserver.ErrServerClosed), errors.Is(e.Err, dtlsserver.ErrSessionClosed), errors.Is(e.Err, dtlsserver.ErrIdleTimeout),
		errors.Is(e.Err, dtlsserver.ErrEvicted), errors.Is(e.Err, dtlsserver.ErrPeerClosed), errors.Is(e.Err, dtlsserver.ErrSessionAge):
		if !as.farewell {
			l.violate("farewell", deviceOf(as.attempt), "closed without close_notify: %v", e.Err)
		}
	case errors.Is(e.Err, dtlsserver.ErrReconnected):
	case l.w.has(readErrors): // which is told by another rule
	default:
		var alert *dtlsserver.AlertError
		if !errors.As(e.Err, &alert) || as.attempt == nil || as.attempt.d != nil {
			l.violate("cause", deviceOf(as.attempt), "closed: %v", e.Err)
		}
	}
	if errors.Is(e.Err, dtlsserver.ErrPeerClosed) && as.attempt != nil && as.attempt.d != nil && !as.attempt.left {
		l.violate("cause", as.attempt.d, "closed by the peer, which has not")
	}
	age, most := l.w.now()-as.made, l.w.server.MaxSessionAge
	if errors.Is(e.Err, dtlsserver.ErrSessionAge) && age < most-time.Second && !l.w.has(slowHandler) { // by which its beginning may be late
		l.violate("cause", deviceOf(as.attempt), "too old after %v, which %v is the limit", age, most)
	}
	if late := time.Second; most > 0 && age > most+late && l.w.now()-as.since > late && l.w.standing == 0 && !l.w.has(slowHandler) && !l.w.has(readErrors) {
		l.violate("aged", deviceOf(as.attempt), "closed after %v, though %v is the limit: %v", age, most, e.Err)
	}
	if errors.Is(e.Err, dtlsserver.ErrEvicted) {
		l.gaveWay++
		l.evicted(as, e)
	}
	if idle := l.w.idleTimeout(); errors.Is(e.Err, dtlsserver.ErrIdleTimeout) && as.heard > 0 && !l.w.has(slowHandler) && l.w.now()-as.heard < idle {
		l.violate("cause", deviceOf(as.attempt), "idle after %v, which %v is the timeout", l.w.now()-as.heard, idle)
	}
}

// evicted judges a session that gave way at MaxSessions: it was the newest, its
// identity had others, or its client was silent for a minute.
func (l *ledger) evicted(as *association, e *dtlsserver.Event) {
	identity, same := e.Session.Identity(), 0
	for session, other := range l.sessions {
		if other == as || other.opened && !other.closed && session.Identity() == identity {
			same++
		}
	}
	const ofOneDevice = 4 // as many as one is granted then
	if d := deviceOf(as.attempt); d != nil && (as.since == l.w.now() && same > ofOneDevice || same > 1 && d.sharesIdentity()) {
		d.hoarded = l.w.now()
	}
	silent := l.w.now() - as.surely
	if silent < time.Minute && same < 2 && as.since != l.w.now() && identity != (dtlsserver.Identity{}) {
		l.violate("evicted", deviceOf(as.attempt), "gave way at MaxSessions, though its client was heard %v ago", silent)
	}
}

// failed judges why a handshake is said to have failed.
func (l *ledger) failed(e *dtlsserver.Event) {
	o := l.source(e.Remote.Addr())
	var alert *dtlsserver.AlertError
	switch {
	case errors.Is(e.Err, dtlsserver.ErrWrongPSK):
		o.wrongKeys++
		if !o.suspect && !l.hasWrongKeys(e) {
			l.violate("cause", l.deviceAt(e), "%v is said to have a wrong key, which nobody there has", e.Remote)
		}
	case errors.As(e.Err, &alert):
		o.alerts[alert.Code]++
	}
}

// hasWrongKeys reports whether a client of the event's source has no right key,
// also since the keys are those of another flight: its hello came again when its
// handshake was over, it took a flight that was not for it, or it has begun anew, and
// what it had said before came to the new handshake, or the other way round.
func (l *ledger) hasWrongKeys(e *dtlsserver.Event) bool {
	at := l.deviceAt(e)
	for _, a := range l.order {
		if a.addr.Addr() != e.Remote.Addr() && (a.d == nil || a.d != at) { // where it was before it roamed
			continue
		}
		begunAnew := l.place(a.addr).rivaled(string(a.c.Random[:]))
		if a.flights > 1 || a.excused() || begunAnew || a.d == nil || a.d.has(wrongKey) || a.d.has(unknownIdentity) {
			return true
		}
	}
	return l.w.has(failingHooks)
}

// deviceAt is the device that the event is about.
func (l *ledger) deviceAt(e *dtlsserver.Event) *device {
	for _, d := range l.w.devices {
		if d != nil && d.identity == e.Identity {
			return d
		}
	}
	if all := l.place(e.Remote).begun; len(all) > 0 {
		return deviceOf(l.attempts[all[len(all)-1].random])
	}
	return nil
}

// errorTold judges an error: something of the server's must have failed.
func (l *ledger) errorTold(e *dtlsserver.Event) {
	w := l.w
	switch e.Kind {
	case dtlsserver.KindReadFailed:
		if w.has(readErrors) {
			return
		}
	case dtlsserver.KindWriteFailed:
		if w.drawn.traits.has(tellingPath) {
			return
		}
	case dtlsserver.KindConnectionIDFailed:
		if l.books.ranOut {
			return
		}
	case dtlsserver.KindPSKFailed:
		if w.has(failingHooks) || w.has(closes) || w.has(shutsDown) {
			return
		}
	}
	l.violate("warning", nil, "an error that nothing has caused: %v", e)
}

// delivered judges a message that is given to the service.
func (l *ledger) delivered(t *told) {
	l.books.delivered++
	as := l.sessions[t.session]
	if as == nil || !as.opened || as.closed {
		l.violate("order", nil, "%v: delivered %q outside of the session's life", t.session, t.data)
		return
	}
	as.heard = l.w.now()
	a := as.attempt
	var id, n, number int
	text := string(bytes.TrimPrefix(bytes.TrimPrefix(t.data, []byte("quiet ")), []byte("back ")))
	if _, err := fmt.Sscanf(text, "request %d %d %d", &id, &n, &number); err != nil || a == nil {
		l.violate("delivery", deviceOf(a), "delivered %q, which nobody has sent", t.data)
		return
	}
	q := a.sent[number]
	switch {
	case a.d != nil && a.d.id != id || a.n != n || q == nil:
		l.violate("delivery", deviceOf(a), "delivered %q in a session of %s", t.data, a.name())
	case q.delivered:
		l.violate("delivery", a.d, "delivered %q twice", t.data)
	default:
		q.delivered = true
	}
}

// arrived judges what a datagram should have led to.
func (l *ledger) arrived(in *arrival) {
	asleep := l.w.has(slowHandler) && !l.w.conn.ready() // in the handler of one, and others wait
	for _, q := range in.requests {
		if !q.delivered && !asleep && (in.assoc == nil || !in.assoc.closed) {
			l.violate("lost", q.by.d, "request %d of %s came, and is not delivered", q.n, q.by.name())
		}
	}
	if in.ends && !in.assoc.closed {
		l.violate("obeys", deviceOf(in.assoc.attempt), "%s has ended its session, or spoilt it, and it is open", in.assoc.attempt.name())
	}
	if in.finished && (in.assoc == nil || !in.assoc.closed) && !l.w.socketFull {
		l.violate("finished", deviceOf(in.attempt), "a Finished that came again is not answered")
	}
}

// unserved is told of a client that was not served in time.
func (l *ledger) unserved(d *device) {
	state := "tries again later"
	if d.a != nil {
		state = d.a.phase.String()
	}
	l.violate("liveness", d, "not served since %v; it %s (%v)", d.since, state, d.traits)
}
