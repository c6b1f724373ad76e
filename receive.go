package dtlsserver

import (
	"bytes"
	"errors"
	"net/netip"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/engine"
	"github.com/dtlsserver/dtlsserver/internal/udpio"
)

// The way of datagrams from the socket to the sessions.

// receiveBatch routes datagrams. The answers to several leave together.
func (l *loop) receiveBatch(now time.Time, ms []udpio.Message) {
	if len(ms) > 1 {
		l.conn.Hold()
		defer l.conn.Release()
	}
	for i := range ms {
		if i > 0 && l.called { // and what handlers do may have taken its time
			l.called = false
			if l.isClosing() {
				break
			}
			if t := time.Now(); t.Sub(now) > maxBatchTime {
				now = t
				l.housekeep(now)
			}
		}
		l.receive(now, &ms[i])
	}
}

// receive routes one datagram.
func (l *loop) receive(now time.Time, m *udpio.Message) {
	l.now = now
	l.datagram++
	l.counters.datagramsReceived.Add(1)
	l.counters.bytesReceived.Add(uint64(m.N))
	if m.Truncated {
		l.counters.drop(dropTruncated)
		return
	}
	if !m.Remote.IsValid() { // a foreign net.PacketConn's
		l.counters.drop(dropJunk)
		return
	}
	datagram := m.Buf[:m.N]
	if engine.HasConnectionID(datagram) {
		l.receiveByConnectionID(now, m, datagram)
		return
	}
	if hello, ok := l.hellos.Read(datagram); ok {
		l.receiveHello(now, m, &hello)
		return
	}
	f := l.familyOf(m.Remote, m.Local)
	if f == (family{}) {
		l.dropUnknown(now, m, dropJunk)
		return
	}
	l.receiveRecords(now, &arrival{path: path{m.Remote, m.Local}}, f, datagram)
}

// dropUnknown drops a datagram of nobody that is known.
func (l *loop) dropUnknown(now time.Time, m *udpio.Message, why dropReason) {
	if l.justClosed(m.Remote, m.Local) {
		l.counters.drop(engine.DropClosed)
		return
	}
	l.counters.drop(why)
	ev := Event{Kind: KindUnexpectedDatagram, Time: now, Remote: m.Remote, Local: l.conn.LocalAddr()}
	if why == dropUnknownConnectionID {
		ev.Err, ev.variant = errUnknownConnectionID, 1
	}
	l.outbox.put(ev)
}

var errUnknownConnectionID = errors.New("has the connection ID of a session that has ended")

// receiveByConnectionID takes a datagram that begins with a record with a connection
// ID. It is looked up before anything else is done: what is junk costs little, and
// nobody is told.
func (l *loop) receiveByConnectionID(now time.Time, m *udpio.Message, datagram []byte) {
	r, _, ok := l.nextRecord(datagram)
	if !ok {
		l.dropUnknown(now, m, dropJunk)
		return
	}
	at := path{m.Remote, m.Local}
	switch f, s := l.byConnectionID(r); {
	case s == nil && l.connectionIDs.made(r.CID()):
		l.dropUnknown(now, m, dropUnknownConnectionID)
	case s == nil:
		l.dropUnknown(now, m, dropJunk)
	case f.first != nil && at != pathOf(s): // a handshake is where it began
		f.countDrop(l, now, engine.DropConnectionID)
		l.deliver()
	default:
		l.receiveRecords(now, &arrival{path: at, session: s, cid: r.CID()}, f, datagram)
	}
}

// nextRecord splits the first record off a datagram.
func (l *loop) nextRecord(datagram []byte) (r engine.Record, rest []byte, ok bool) {
	return engine.NextRecord(datagram, l.cfg.engine.ConnectionIDLen)
}

// receiveHello takes a ClientHello. Whoever sends it, whatever is known of the
// address: without a right cookie it gets a new one and changes nothing (RFC
// 6347 sections 4.2.1 and 4.2.8).
func (l *loop) receiveHello(now time.Time, m *udpio.Message, hello *engine.Hello) {
	verdict, roundTrip, request := l.cfg.verifier.verifyHello(l.request[:0], hello, m.Remote, now)
	switch {
	case verdict != VerdictVerified && !hello.Negotiable():
		l.refuseVersion(now, m, hello)
		return
	case verdict == VerdictChallenge:
		l.counters.helloVerifyRequests.Add(1)
		_ = l.conn.Send(request, m.Remote, m.Local) // counted; the client asks again
		l.outbox.put(Event{Kind: KindHelloVerifyRequestSent, Time: now, Remote: m.Remote, Local: l.conn.LocalAddr()})
		return
	case verdict == VerdictWrongCookie:
		l.counters.drop(dropWrongCookie)
		l.refusedHello(now, m, errWrongCookie)
		return
	}
	cookie := newCookieTime(now, roundTrip)
	f := l.familyOf(m.Remote, m.Local)
	newest := f.newest()
	switch {
	case f.open != nil && f.open.sameHello(hello, cookie):
		l.counters.drop(dropReplayedHello)
	case newest == nil:
		l.startHandshake(now, m, hello, roundTrip, nil)
	case newest.sameHello(hello, cookie):
		if newest.awaitsHello() { // a part of it was lost, or has overtaken
			l.receiveVerified(now, newest, m, hello)
		} else {
			newest.helloAgain(now)
		}
	case !newest.cookie.after(cookie):
		// The client begins anew: it has restarted, or given up. An old hello
		// that is replayed is older than the newest.
		l.startHandshake(now, m, hello, roundTrip, nil)
	case newest.stale(now.Add(-staleHandshake)): // or the clock has been set back
		l.startHandshake(now, m, hello, roundTrip, newest)
	default:
		l.counters.drop(dropReplayedHello)
	}
}

// startHandshake makes a session for a verified hello, in the place of a stale one
// of its address if that is given, and lets it answer.
func (l *loop) startHandshake(now time.Time, m *udpio.Message, hello *engine.Hello, roundTrip time.Duration, stale *Session) {
	s := &Session{
		loop:     l,
		remote:   m.Remote,
		started:  l.since(now),
		standing: standing{roundTrip: classOf(roundTrip)},
		cookie:   newCookieTime(now, roundTrip),
	}
	s.timer.Owner, s.idle.Owner = s, s
	if m.Local.IsValid() {
		s.local = netip.AddrPortFrom(m.Local, l.conn.LocalAddr().Port())
	}
	l.findEvictable()
	replaces, givesWay, err := l.admit(now, s, stale, hello)
	if err != nil {
		l.counters.drop(dropRefused)
		l.outbox.put(Event{Kind: KindLimitReached, Time: now, Remote: s.remote, Local: s.localAddr(), Err: err})
		if f := l.familyOf(m.Remote, m.Local); f.first != nil { // which its client has left
			f.newest().silence()
		}
		return
	}
	if replaces != nil {
		replaces.end(ErrReconnected, silently)
	}
	if givesWay != nil {
		l.evict(givesWay, errMaxHandshakes)
	}
	l.counters.handshakesStarted.Add(1)
	l.outbox.put(Event{Kind: KindHelloVerified, Time: now, Remote: s.remote, Local: s.localAddr(), Session: s})
	l.receiveVerified(now, s, m, hello)
}

// admit begins the handshake, if the session is admitted. Whoever finds the
// session before that has to wait.
func (l *loop) admit(now time.Time, s, stale *Session, hello *engine.Hello) (replaces, givesWay *Session, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if replaces, givesWay, err = l.add(s, stale); err == nil {
		s.eng.Begin(l.cfg.engine, (*memory)(s), now, hello)
	}
	return replaces, givesWay, err
}

// receiveRecords gives the records of a datagram to a peer's sessions, and what
// each leads to to the handler before the next is opened. If the datagram began
// with a hello, what is plaintext is for its handshake only.
//
// A bad record costs that record and not the datagram, but a datagram made of
// bad records is not read to its end: of long ones, which take as long to find
// out, fewer are read. Records that have come before are found out at once, and
// what is new may be behind many: a flight in small fragments, of which the last
// were lost.
//
// Records with a connection ID are for the session that has it, and no other. In a
// datagram that began with such a record, each must have that (RFC 9146 section 3).
// Behind one that is another's, nothing is read.
func (l *loop) receiveRecords(now time.Time, a *arrival, f family, datagram []byte) {
	const maxBad, maxRepeated = 16, 256
	for bad, repeated := 0, 0; len(datagram) > 0 && bad < maxBad && repeated < maxRepeated; {
		r, rest, ok := l.nextRecord(datagram)
		datagram = rest
		if !ok {
			f.countDrop(l, now, engine.DropMalformed)
			l.deliver()
			return
		}
		to, ok := l.recipient(a, f, r)
		if !ok {
			f.countDrop(l, now, engine.DropConnectionID)
			l.deliver()
			return
		}
		switch l.receiveRecord(now, a, to, r) {
		case engine.DropNone:
		case engine.DropRepeated, engine.DropClosed:
			repeated++
		default:
			bad += 1 + len(r.Payload)>>10
		}
		l.endGivingWay()
		l.deliver()
		if len(datagram) > 0 {
			f = l.familyAt(a) // which may be another now
		}
	}
}

// arrival is how a datagram has come in.
type arrival struct {
	path
	session *Session // by whose connection ID; nil: by its path
	cid     []byte   // that
	only    *Session // the handshake whose hello the datagram began with, or nil
}

// familyAt returns those that a datagram may be for.
func (l *loop) familyAt(a *arrival) family {
	if a.session == nil {
		return l.familyOf(a.remote, a.local)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.aloneLocked(a.session)
}

// aloneLocked returns a session with a connection ID as a family of its own. It is
// empty if the session is over.
func (l *loop) aloneLocked(s *Session) (f family) {
	switch {
	case s == nil || !s.hasCID:
	case s.halfOpen:
		f.first = s
	default:
		f.open = s
	}
	return f
}

// recipient returns those of a family that a record may be for, and fails if it is for
// none of them by its connection ID.
func (l *loop) recipient(a *arrival, f family, r engine.Record) (to family, ok bool) {
	switch {
	case f == family{}: // the session is over
		return f, true
	case a.session != nil:
		return f, bytes.Equal(r.CID(), a.cid)
	case !r.HasCID():
		return f, true
	}
	to, s := l.byConnectionID(r)
	return to, s != nil && (s == f.open || s == f.first || s == f.second)
}

// countDrop counts a record that is none of any session's. Behind the record that
// has ended its session, it is one that comes too late.
func (f *family) countDrop(l *loop, now time.Time, why engine.Drop) {
	switch {
	case f.open != nil:
		f.open.countDrop(now, why)
	case f.first != nil:
		f.newest().countDrop(now, why)
	default:
		l.counters.drop(engine.DropClosed)
	}
}

// receiveRecord gives a record to those of a peer's sessions that it may be for.
// What is plaintext is offered to both handshakes, as it does not say for which
// it is, but not to an older one that has not been answered when the newest has.
// What is sealed is tried by the handshakes that have keys, the newest first, and
// then by the open session; if none opens it, handshakes that may have keys soon
// keep it. A record that does not open marks no replay window. It returns why the
// record was of no use, if it was not.
func (l *loop) receiveRecord(now time.Time, a *arrival, f family, r engine.Record) engine.Drop {
	if f == (family{}) {
		l.counters.drop(engine.DropClosed)
		return engine.DropClosed
	}
	var order [4]*Session
	n, keepers := 0, 0 // the last ones
	add := func(s *Session) {
		order[n] = s
		n++
	}
	handshakes := [...]*Session{f.second, f.first}
	switch {
	case f.first == nil:
		add(f.open)
	case !r.Sealed() && a.only != nil:
		add(a.only)
	case !r.Sealed():
		add(f.newest())
		if f.second != nil && !f.second.awaitsHello() {
			add(f.first)
		}
	default:
		var keep [2]*Session
		for _, h := range handshakes {
			if h != nil && h.opening() {
				add(h)
			} else if h != nil {
				keep[keepers] = h
				keepers++
			}
		}
		if f.open != nil {
			add(f.open)
		}
		for _, h := range keep[:keepers] {
			add(h)
		}
	}
	useful, why, at := false, engine.DropNone, (*Session)(nil) // whose event it is
	for i, s := range order[:n] {
		drop := s.receive(now, &a.path, r, l.plain)
		if drop == engine.DropNone {
			useful = true
		} else if at == nil || s == f.open {
			why, at = drop, s
		}
		if r.Sealed() && i < n-keepers && !notOpened(drop) {
			break // one that has its key has taken it
		}
		if !r.Sealed() && s == f.second && !engine.IsUnnumbered(r) && l.goesOnAlone(s) {
			break
		}
	}
	for _, h := range handshakes {
		if h != nil {
			l.schedule(h)
		}
	}
	if useful {
		return engine.DropNone
	}
	at.countDrop(now, why)
	return why
}

// notOpened reports whether a record may belong to another association of the
// same address. One may have used a sequence number that is new to the other, and one
// may have a connection ID.
func notOpened(drop engine.Drop) bool {
	return drop == engine.DropForged || drop == engine.DropReplayed || drop == engine.DropConnectionID
}
