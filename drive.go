package dtlsserver

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/engine"
)

// How a Session drives its engine: what goes in, what comes out of it, and what
// that means to the handler.

// receive gives a record that has come by a path to the engine. The outbox must be
// emptied before buf is used again.
func (s *Session) receive(now time.Time, at *path, r engine.Record, buf []byte) engine.Drop {
	s.mu.Lock()
	defer s.mu.Unlock()
	result := s.eng.Receive(now, s.loop.datagram, r, buf)
	if result.Authentic {
		s.hear(now)
		s.spoke = s.spoke || s.eng.Established()
		if r.HasCID() {
			s.cameFromLocked(now, *at, len(r.Raw), &result)
		}
	}
	s.wakeLocked(now)
	s.pumpLocked(now)
	s.classLocked(now)
	if result.Data != nil {
		s.dataLocked(r, result.Data)
	}
	return result.Drop
}

// dataLocked has application data delivered to the handler.
func (s *Session) dataLocked(r engine.Record, data []byte) {
	s.messagesReceived++
	s.loop.outbox.putItem(item{kind: itemData, session: s, cipherText: r.Raw, plainText: data})
}

// memory is the engine.Budget of a Session.
type memory Session

// Reserve is called with the session's lock, and for more by the loop only.
func (m *memory) Reserve(bytes int) bool {
	s := (*Session)(m)
	l := s.loop
	l.mu.Lock()
	defer l.mu.Unlock()
	var now time.Duration
	if bytes > 0 {
		now = l.since(l.now)
	}
	giveWay, ok := l.handshakes.reserve(s, bytes, l.cfg.maxMemory, now)
	l.givingWay = append(l.givingWay, giveWay...)
	return ok
}

// classLocked moves a handshake to the class that it is in now.
func (s *Session) classLocked(now time.Time) {
	if s.complete || s.eng.Closed() {
		return
	}
	c := s.roundTrip
	switch _, waits := s.eng.WaitsSince(); {
	case !waits:
		c = busy
	case s.eng.Answered():
		c = answered
	}
	if c != s.class {
		s.loop.mu.Lock()
		s.loop.handshakes.enter(s, c, s.loop.since(now))
		s.answered = s.answered || s.eng.Answered()
		s.loop.mu.Unlock()
	}
}

// countDrop notes a record of no use.
func (s *Session) countDrop(now time.Time, why engine.Drop) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.countDropLocked(now, why)
}

// countDropLocked also raises an event, but for what honest peers cause: a
// repeated flight, and a record that has crossed our close_notify.
func (s *Session) countDropLocked(now time.Time, why engine.Drop) {
	if s.reason != nil {
		why = engine.DropClosed
	}
	s.loop.counters.drop(why)
	s.recordsDropped++
	if why == engine.DropClosed || why == engine.DropRepeated {
		return
	}
	err, variant := dropErrors[why], uint16(why)
	if why == engine.DropForged && s.identityLocked() != "" && !s.complete {
		// Likely the Finished of ErrWrongPSK, which comes at HandshakeTimeout only.
		err, variant = errMaybeWrongPSK, 1<<8|variant
	}
	s.raise(Event{Kind: KindRecordDropped, Time: now, Err: err, variant: variant})
}

var errMaybeWrongPSK = errors.New("does not open: wrong key or unknown identity?")

// helloAgain notes that the verified hello came again.
func (s *Session) helloAgain(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.eng.HelloAgain(now)
	s.pumpLocked(now)
}

// sameHello reports whether the session began with this hello, or with one of
// the same random and a later cookie.
func (s *Session) sameHello(hello *engine.Hello, cookie cookieTime) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Equal(s.eng.ClientRandom()[:], hello.Random) && (s.complete || !cookie.after(s.cookie))
}

// stale reports whether the session is a handshake that has been waiting for
// the client since t or longer.
func (s *Session) stale(t time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	since, waiting := s.eng.WaitsSince()
	return waiting && !since.After(t)
}

// hear notes that the peer has said something of use.
func (s *Session) hear(now time.Time) { s.heard.Store(int64(s.loop.since(now))) }

// lastHeard is when the peer last said something of use, or zero.
func (s *Session) lastHeard() time.Time {
	if heard := s.heard.Load(); heard != 0 {
		return s.loop.time(time.Duration(heard))
	}
	return time.Time{}
}

// isOver reports whether the session has ended.
func (s *Session) isOver() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.eng.Closed()
}

// opening reports whether records of epoch 1 may be tried.
func (s *Session) opening() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.eng.Opening()
}

// cutSmaller retransmits the flight under way in datagrams that the socket may take.
func (s *Session) cutSmaller(now time.Time) {
	s.loop.mu.Lock()
	length := int(s.refused)
	s.refused = 0
	s.loop.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.eng.TooLong(length)
	s.pumpLocked(now)
}

// silence has a handshake send nothing more, unless it completes.
func (s *Session) silence() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silenced = true
}

// mutedLocked reports whether flights are not sent: the client would take them for
// those of the handshake that it has begun since.
func (s *Session) mutedLocked() bool {
	if s.complete {
		return s.silenced && !s.spoke && !s.eng.Closed()
	}
	return s.silenced || s.loop.isMuted(s)
}

// transmitLocked sends what the engine has to send.
func (s *Session) transmitLocked() {
	if !s.eng.Sending() {
		return
	}
	buf := writeBuffers.Get().(*[]byte)
	defer writeBuffers.Put(buf)
	muted := s.mutedLocked()
	for {
		datagram := s.eng.AppendDatagram((*buf)[:0])
		*buf = datagram[:0]
		if len(datagram) == 0 {
			return
		}
		if !muted {
			_ = s.sendLocked(datagram) // repaired by retransmission, if it can be
		}
	}
}

// pumpLocked turns the engine's events into ours and sends what it has to send.
// A peer that learns from it that the session is open finds it open.
func (s *Session) pumpLocked(now time.Time) {
	if s.eng.Closed() { // an alert: whoever hears of the end may close the socket
		s.transmitLocked()
	}
	s.eventsLocked(now)
	s.transmitLocked()
	s.eventsLocked(now) // the sequence numbers may be used up
}

// eventsLocked turns the engine's events into ours.
func (s *Session) eventsLocked(now time.Time) {
	for {
		ev, ok := s.eng.Event()
		if !ok {
			return
		}
		switch ev.Kind {
		case engine.EventPSKNeeded:
			s.askPSKLocked(now, ev.Identity)
		case engine.EventCertificateNeeded:
			s.askCertificateLocked(ev.Hello)
		case engine.EventWork:
			s.submitEngineWorkLocked(ev)
		case engine.EventStartedOver:
			s.nextValue, s.expires = nil, 0
		case engine.EventVerdictNeeded:
			s.askVerdictLocked(now)
		case engine.EventEstablished:
			s.establishedLocked(now, ev.Created)
		case engine.EventData:
			s.dataLocked(ev.Record, ev.Data)
		case engine.EventDropped:
			s.countDropLocked(now, ev.Drop)
		case engine.EventWarningAlert:
			s.raise(Event{Kind: KindAlertReceived, Time: now, Err: &AlertError{Code: uint8(ev.Alert)}})
		case engine.EventClosed:
			s.closedLocked(now, ev)
		}
	}
}

func (s *Session) establishedLocked(now, created time.Time) {
	s.hear(now)
	s.restAt = s.loop.since(now.Add(restAfter))
	// One that was left for a newer one may complete by the answer of a hook or
	// what is for both. It says so only when its client goes on with it.
	s.silenced = s.loop.isLeft(s)
	s.complete = true
	s.expireLocked(now, created)
	if s.value == nil {
		s.value = s.nextValue
	}
	s.nextValue = nil
	for _, old := range s.loop.promote(s, s.provenLocked()) {
		if old != nil { // its peer has forgotten it: there is nobody to tell
			old.end(ErrReconnected, silently)
		}
	}
	s.loop.counters.handshakesCompleted.Add(1)
	s.raise(Event{Kind: KindHandshakeComplete, Time: now, Identity: s.identityLocked()})
}

func (s *Session) closedLocked(now time.Time, ev engine.Event) {
	if s.reason == nil {
		s.reason = closeReason(ev)
	}
	s.reason = withAlert(s.reason, ev)
	if s.cancel != nil {
		s.cancel(s.reason)
	}
	if s.abort != nil {
		s.abort(s.reason)
	}
	if !s.complete {
		s.clientCertificates, s.nextValue = nil, nil
	}
	kind := KindSessionClosed
	switch {
	case s.complete:
		s.loop.counters.sessionsClosed.Add(1)
	case ev.Cause == engine.CauseEntropy:
		kind = KindEntropyFailed
		s.loop.counters.handshakesFailed.Add(1)
	case ev.Cause == engine.CauseInternal:
		kind = KindCertificateFailed
		s.loop.counters.handshakesFailed.Add(1)
	default:
		kind = KindHandshakeFailed
		s.loop.counters.handshakesFailed.Add(1)
	}
	s.loop.remove(s, s.event(Event{Kind: kind, Time: now, Identity: s.identityLocked(), Err: s.reason, variant: failureVariant(s.reason)}))
	s.loop.wake()
}

// failureVariant distinguishes reasons, so that failures are folded with such as
// have the same.
func failureVariant(reason error) uint16 {
	if alert, ok := reason.(*AlertError); ok {
		if alert.Sent {
			return 1<<8 | uint16(alert.Code)
		}
		return 0 // whatever the code, which is the peer's choice
	}
	return 2<<8 | uint16(slices.Index(failures, reason)+1)
}

var failures = []error{ErrHandshakeTimeout, ErrWrongPSK, ErrEvicted, ErrReconnected, ErrSessionClosed, ErrServerClosed}

// closeReason turns the engine's cause into an error.
func closeReason(ev engine.Event) error {
	switch ev.Cause {
	case engine.CausePeerClosed:
		return ErrPeerClosed
	case engine.CausePeerAlert:
		return &AlertError{Code: uint8(ev.Alert)}
	case engine.CauseHandshake:
		return &AlertError{Code: uint8(ev.Alert), Sent: true, Reason: ev.Why}
	case engine.CauseTimeout:
		if ev.WrongKey {
			return ErrWrongPSK
		}
		return ErrHandshakeTimeout
	case engine.CauseExhausted:
		return ErrRecordsExhausted
	case engine.CauseEntropy:
		return fmt.Errorf("dtlsserver: random bytes: %w", ev.Err)
	case engine.CauseInternal:
		return fmt.Errorf("dtlsserver: the certificate's key: %w", ev.Err)
	case engine.CauseRefused:
		return &AlertError{Code: uint8(ev.Alert), Sent: true, Reason: refusal(ev.Err), err: ev.Err}
	default:
		return ErrSessionClosed
	}
}

// refusal is the reason that an error of VerifyConnection, or of the verification
// of certificates, gives in words.
func refusal(err error) string {
	if alert, ok := err.(*AlertError); ok {
		return alert.Reason
	}
	return strings.TrimPrefix(err.Error(), "dtlsserver: ")
}

// withAlert returns why a handshake ended that has timed out when the client had
// said why in plaintext.
func withAlert(reason error, ev engine.Event) error {
	if !ev.Alerted || reason != ErrHandshakeTimeout && reason != ErrWrongPSK {
		return reason
	}
	return &AlertError{Code: uint8(ev.Alert), Reason: strings.TrimPrefix(reason.Error(), "dtlsserver: "), err: reason}
}

// raise puts an event about the session into the outbox.
func (s *Session) raise(ev Event) {
	s.loop.outbox.put(s.event(ev))
	s.loop.wake()
}

// event returns the event with what is the same for all of a session.
func (s *Session) event(ev Event) Event {
	if ev.Time.IsZero() {
		ev.Time = time.Now()
	}
	ev.Session, ev.Remote, ev.Local = s, s.remote, s.localAddr()
	return ev
}

var dropErrors = [...]error{
	engine.DropMalformed:       errors.New("malformed"),
	engine.DropEpoch:           errors.New("epoch that has not begun or is over"),
	engine.DropReplayed:        errors.New("replayed or too old"),
	engine.DropForged:          errors.New("does not open"),
	engine.DropUnauthenticated: errors.New("plaintext"),
	engine.DropEarlyData:       errors.New("application data before the handshake is complete"),
	engine.DropUnexpected:      errors.New("handshake message out of place"),
	engine.DropLimit:           errors.New("beyond what is kept for one handshake"),
	engine.DropConnectionID:    errors.New("connection ID of another session or address, or none where one is due"),
}
