package dtlsserver

import (
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
		if i > 0 && l.told { // and what handlers do may have taken its time
			l.told = false
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
	if hello, ok := l.hellos.Read(datagram); ok {
		l.receiveHello(now, m, &hello)
		return
	}
	s := l.lookup(m.Remote, m.Local)
	if s == nil {
		if l.justClosed(m.Remote, m.Local) {
			l.counters.drop(engine.DropClosed)
			return
		}
		l.counters.drop(dropJunk)
		l.outbox.put(Event{Kind: KindJunk, Time: now, Remote: m.Remote, Local: l.conn.LocalAddr()})
		return
	}
	l.receiveRecords(now, s, datagram)
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
	case verdict == VerdictAnswer:
		l.counters.helloVerifyRequests.Add(1)
		_ = l.conn.Send(request, m.Remote, m.Local) // counted; the client asks again
		l.outbox.put(Event{Kind: KindHelloVerifyRequest, Time: now, Remote: m.Remote, Local: l.conn.LocalAddr()})
		return
	case verdict == VerdictWrongCookie:
		l.counters.drop(dropWrongCookie)
		l.refusedHello(now, m, errWrongCookie)
		return
	}
	cookie := newCookieTime(now, roundTrip)
	var first, second, open *Session
	if known := l.lookup(m.Remote, m.Local); known != nil {
		first, second, open = l.family(known)
	}
	newest := first
	if second != nil {
		newest = second
	}
	switch {
	case open != nil && open.sameHello(hello, cookie):
		l.counters.drop(dropReplayedHello)
	case first == nil:
		l.startHandshake(now, m, hello, roundTrip, nil)
	case newest.sameHello(hello, cookie):
		if newest.awaitsHello() { // a part of it was lost, or has overtaken
			l.receiveVerified(now, newest, m, hello)
		} else {
			newest.helloAgain(now)
		}
	case cookie.after(newest.cookie):
		// The client begins anew: it has restarted, or given up. An old hello
		// that is replayed is older than the newest.
		l.startHandshake(now, m, hello, roundTrip, displaced(first, second))
	case newest.stale(now.Add(-staleHandshake)): // or the clock has been set back
		l.startHandshake(now, m, hello, roundTrip, newest)
	default:
		l.counters.drop(dropReplayedHello)
	}
}

// displaced returns which of an address's handshakes makes room for a newer one,
// or nil if there is one at most. The one that has come further stays, so that
// not even somebody who receives at the address of another can end what that
// one has begun.
func displaced(first, second *Session) *Session {
	if second != nil && second.answered() && !first.answered() {
		return first
	}
	return second
}

// startHandshake makes a session for a verified hello, in the place of another of
// its address if one is given, and lets it answer. Others that go on beside it
// send nothing more: the client would take it for the new one's. Where there is
// no room for one more, it takes the place of one that its client has left
// without an answer.
func (l *loop) startHandshake(now time.Time, m *udpio.Message, hello *engine.Hello, roundTrip time.Duration, replaces *Session) {
	s := &Session{
		loop:      l,
		remote:    m.Remote,
		started:   l.since(now),
		roundTrip: classOf(roundTrip),
		cookie:    newCookieTime(now, roundTrip),
	}
	s.timer.Owner, s.idle.Owner = s, s
	if m.Local.IsValid() {
		s.local = netip.AddrPortFrom(m.Local, l.conn.LocalAddr().Port())
	}
	l.findIdler()
	evicted, err := l.admit(now, s, replaces, hello)
	if first := l.firstHandshake(m); err != nil && first != nil {
		first.mute() // in any case
		if err == errMaxHandshakes && !first.answered() {
			replaces = first
			evicted, err = l.admit(now, s, replaces, hello)
		}
	}
	if err != nil {
		l.counters.drop(dropRefused)
		l.outbox.put(Event{Kind: KindLimit, Time: now, Remote: s.remote, Local: s.LocalAddr(), Err: err})
		return
	}
	if replaces != nil {
		replaces.end(ErrReconnected, false)
	}
	if evicted != nil {
		l.evict(evicted, errMaxHandshakes)
	}
	if first, _, _ := l.family(s); first != s {
		first.mute()
	}
	l.counters.handshakesStarted.Add(1)
	l.outbox.put(Event{Kind: KindHelloVerified, Time: now, Remote: s.remote, Local: s.LocalAddr(), Session: s})
	l.receiveVerified(now, s, m, hello)
}

// firstHandshake returns what the sender has of handshakes, or the older of two,
// or nil.
func (l *loop) firstHandshake(m *udpio.Message) *Session {
	known := l.lookup(m.Remote, m.Local)
	if known == nil {
		return nil
	}
	first, _, _ := l.family(known)
	return first
}

// admit begins the handshake, if the session is admitted. Whoever finds the
// session before that has to wait.
func (l *loop) admit(now time.Time, s, replaces *Session, hello *engine.Hello) (evicted *Session, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if evicted, err = l.add(s, replaces); err == nil {
		s.eng.Begin(l.cfg.engine, (*memory)(s), now, hello)
	}
	return evicted, err
}

// receiveRecords gives the records of a datagram to a session, and what each
// leads to to the handler before the next is opened.
//
// A bad record costs that record and not the datagram, but a datagram made of
// bad records is not read to its end: of long ones, which take as long to find
// out, fewer are read. Of those that only repeat in plaintext what has been
// received, which takes no time to find out, more are: behind the fragments of
// a flight that comes again there is the Finished, which must be answered (RFC
// 6347 section 4.2.4).
func (l *loop) receiveRecords(now time.Time, s *Session, datagram []byte) {
	const (
		repeat = 1
		bad    = 16
		most   = 16 * bad
	)
	again := false
	for sum := 0; len(datagram) > 0 && sum < most; {
		r, rest, ok := engine.NextRecord(datagram)
		if !ok {
			s.countDrop(now, engine.DropMalformed)
			break
		}
		datagram = rest
		if again && s.isOver() { // and the record before may have opened another in its place
			if next := l.lookup(s.remote, s.local.Addr()); next != nil {
				s = next
			}
		}
		again = true
		switch drop := l.receiveRecord(now, s, r); {
		case drop == engine.DropNone:
		case drop == engine.DropRepeated && r.Epoch == 0:
			sum += repeat
		default:
			sum += bad * (1 + len(r.Payload)>>10)
		}
		l.endGivingWay()
		l.deliver()
	}
}

// receiveRecord gives a record to those of a peer's sessions that it may be for,
// until one takes it. What is plaintext is for the handshakes: the newest first,
// unless the other has been answered. What is sealed is tried by the handshakes
// that have keys, then by the open session, and last by handshakes that may have
// keys soon. A record that does not open marks no replay window. ChangeCipherSpec
// is for both handshakes, and the newest first: if it completes that one, the
// other is over. It returns why the record was of no use, or engine.DropNone.
func (l *loop) receiveRecord(now time.Time, s *Session, r engine.Record) engine.Drop {
	first, second, open := l.family(s)
	var order [3]*Session
	newer, older := second, first
	if second == nil {
		newer, older = first, nil
	}
	switch {
	case first == nil:
		order = [3]*Session{open}
	case second == nil && open == nil:
		order = [3]*Session{first}
	case r.Epoch == 0 && older != nil && !engine.IsUnnumbered(r) && older.answered():
		order = [3]*Session{older, newer}
	case r.Epoch == 0:
		order = [3]*Session{newer, older}
	case newer.opening() && (older == nil || older.opening()):
		order = [3]*Session{newer, older, open}
	case newer.opening():
		order = [3]*Session{newer, open, older}
	case older != nil && older.opening():
		order = [3]*Session{older, open, newer}
	default:
		order = [3]*Session{open, newer, older}
	}
	drop, at, taken := engine.DropNone, (*Session)(nil), false
	for _, s := range order {
		if s == nil {
			continue
		}
		drop = s.receive(now, r, l.plain)
		if at == nil {
			at = s // who tells
		}
		if engine.IsUnnumbered(r) { // it is for both
			taken = taken || drop == engine.DropNone
			continue
		}
		if r.Epoch == 0 && !notTaken(drop) || r.Epoch > 0 && !notOpened(drop) {
			break
		}
	}
	for _, h := range [...]*Session{first, second} {
		if h != nil {
			l.schedule(h)
		}
	}
	if taken {
		drop = engine.DropNone
	}
	if drop != engine.DropNone {
		at.countDrop(now, drop)
	}
	return drop
}

// notTaken reports whether a plaintext record may be for another handshake of the
// same address.
func notTaken(drop engine.Drop) bool {
	return drop == engine.DropUnexpected || drop == engine.DropRepeated
}

// notOpened reports whether a record may belong to another association of the
// same address. One may have used a sequence number that is new to the other.
func notOpened(drop engine.Drop) bool {
	return drop == engine.DropForged || drop == engine.DropReplayed
}
