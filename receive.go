package dtlsserver

import (
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
	if hello, ok := engine.ParseHello(datagram); ok {
		l.receiveHello(now, m, &hello)
		return
	}
	s := l.lookup(m.Remote, m.Local)
	if s == nil {
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
	switch verdict {
	case VerdictAnswer:
		l.counters.helloVerifyRequests.Add(1)
		_ = l.conn.Send(request, m.Remote, m.Local) // counted; the client asks again
		l.outbox.put(Event{Kind: KindHelloVerifyRequest, Time: now, Remote: m.Remote, Local: l.conn.LocalAddr()})
		return
	case VerdictWrongCookie:
		l.counters.drop(dropWrongCookie)
		l.outbox.put(Event{Kind: KindHelloRefused, Time: now, Remote: m.Remote, Local: l.conn.LocalAddr(), Err: errWrongCookie})
		return
	}
	var handshake, open *Session
	if known := l.lookup(m.Remote, m.Local); known != nil {
		handshake, open = l.split(known)
	}
	switch {
	case open != nil && open.sameHello(hello):
		l.counters.drop(dropReplayedHello)
	case handshake == nil:
		l.startHandshake(now, m, hello, roundTrip, nil)
	case handshake.sameHello(hello):
		handshake.helloAgain(now)
	case handshake.stale(now.Add(-staleHandshake)):
		l.startHandshake(now, m, hello, roundTrip, handshake)
	default:
		l.counters.drop(dropReplayedHello)
	}
}

// errWrongCookie says why a hello was not answered.
var errWrongCookie = errors.New("dtlsserver: returns a new cookie, but not with the hello or from the address that it is for")

// startHandshake makes a session for a verified hello, in the place of a stale
// one if there is one, and lets it answer.
func (l *loop) startHandshake(now time.Time, m *udpio.Message, hello *engine.Hello, roundTrip time.Duration, stale *Session) {
	s := &Session{
		loop:      l,
		remote:    m.Remote,
		started:   l.since(now),
		roundTrip: classOf(roundTrip),
	}
	s.timer.Owner, s.idle.Owner = s, s
	if m.Local.IsValid() {
		s.local = netip.AddrPortFrom(m.Local, l.conn.LocalAddr().Port())
	}
	l.findIdler()
	evicted, err := l.admit(now, s, hello)
	if err != nil {
		l.counters.drop(dropRefused)
		l.outbox.put(Event{Kind: KindLimit, Time: now, Remote: s.remote, Local: s.LocalAddr(), Err: err})
		return
	}
	if stale != nil {
		stale.end(ErrHandshakeTimeout, false)
	}
	if evicted != nil && evicted != stale {
		l.evict(evicted, errMaxHandshakes)
	}
	l.counters.handshakesStarted.Add(1)
	l.outbox.put(Event{Kind: KindHelloVerified, Time: now, Remote: s.remote, Local: s.LocalAddr(), Session: s})
	l.receiveRecords(now, s, m.Buf[:m.N])
}

// admit begins the handshake, if the session is admitted. Whoever finds the
// session before that has to wait.
func (l *loop) admit(now time.Time, s *Session, hello *engine.Hello) (evicted *Session, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if evicted, err = l.add(s); err == nil {
		s.eng.Begin(l.cfg.engine, (*memory)(s), now, hello)
	}
	return evicted, err
}

// receiveRecords gives the records of a datagram to a session, and what each
// leads to to the handler before the next is opened.
//
// A bad record costs that record and not the datagram, but a datagram made of
// bad records is not read to its end: of long ones, which take as long to find
// out, fewer are read.
func (l *loop) receiveRecords(now time.Time, s *Session, datagram []byte) {
	const maxBad = 16
	again := false
	for bad := 0; len(datagram) > 0 && bad < maxBad; {
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
		if !l.receiveRecord(now, s, r) {
			bad += 1 + len(r.Payload)>>10
		}
		l.endGivingWay()
		l.deliver()
	}
}

// receiveRecord gives a record to a session or to the handshake that may
// replace it: what is plaintext to the handshake; what is sealed first to the
// handshake if it has keys, then to the session, and last to the handshake
// that may have keys soon. A record that does not open marks no replay window.
// It reports whether the record was of use.
func (l *loop) receiveRecord(now time.Time, s *Session, r engine.Record) bool {
	handshake, open := l.split(s)
	var drop engine.Drop
	switch {
	case handshake == nil || open == nil:
		drop = s.receive(now, r, l.plain)
	case r.Epoch == 0:
		s = handshake
		drop = handshake.receive(now, r, l.plain)
	case handshake.opening():
		s = handshake
		if drop = handshake.receive(now, r, l.plain); notOpened(drop) {
			drop = open.receive(now, r, l.plain)
		}
	default:
		s = open
		if drop = open.receive(now, r, l.plain); notOpened(drop) {
			drop = handshake.receive(now, r, l.plain)
		}
	}
	if handshake != nil {
		l.schedule(handshake)
	}
	if drop != engine.DropNone {
		s.countDrop(now, drop)
	}
	return drop == engine.DropNone
}

// notOpened reports whether a record may belong to another association of the
// same address. One may have used a sequence number that is new to the other.
func notOpened(drop engine.Drop) bool {
	return drop == engine.DropForged || drop == engine.DropReplayed
}
