package dtlsserver

import (
	"io"
	"net/netip"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/engine"
	"github.com/dtlsserver/dtlsserver/internal/udpio"
)

// Where the peer of a session with a connection ID is. Its records may come from
// anywhere, and the newest of them may be a copy that an attacker has sent. So the
// address that it came from is no more than a candidate, until it is proven.

const (
	// maxChallenges bounds how often a candidate is asked (RFC 9853 section 5.3).
	maxChallenges = 3
	// challengeTimeout is how long each answer may take (RFC 9853 section 5.5).
	challengeTimeout = time.Second
	// amplification is how many times what has come from an address may be sent there
	// before it is proven (RFC 9147 section 11, RFC 9853 section 5).
	amplification = 3
	// maxPathResponses bounds, in a second, the answers to a peer's challenges.
	maxPathResponses = 8
	// maxHeld bounds, in bytes, the datagram that waits for a candidate to be proven.
	maxHeld = 1500
)

// moving is what a session has while its peer's address is in question, or the peer
// questions ours.
type moving struct {
	candidate path  // that the newest record came from; zero: none
	received  int64 // bytes of records from there that have opened
	sent      int64 // bytes to there
	asked     bool  // by the application: WriteCandidate has sent something there
	// held is the last datagram that was too much to be sent there, while a check may
	// prove the candidate.
	held []byte

	check      pathCheck
	old        [8]byte                // cookie of the challenge to the address that the session has; zero: none
	cookies    [maxChallenges][8]byte // of those to the candidate
	challenges uint8
	checkAt    time.Duration // when the check goes on, since loop.base

	responses      uint8 // to the peer's challenges
	responsesSince time.Duration
}

// pathCheck is how far the return routability check has come.
type pathCheck uint8

const (
	checkNone  pathCheck = iota
	checkOld             // the address that the session has was asked (RFC 9853 section 5.2)
	checkNew             // the candidate was asked (RFC 9853 section 5.1)
	checkShort           // it is to be asked when more has come from there
)

// hasCandidate reports whether there is a candidate.
func (m *moving) hasCandidate() bool { return m != nil && m.candidate.remote.IsValid() }

// isCandidate reports whether a path is the candidate.
func (m *moving) isCandidate(at path) bool { return m.hasCandidate() && m.candidate == at }

// affords reports whether a datagram of n bytes may go to the candidate.
func (m *moving) affords(n int) bool {
	return m.hasCandidate() && m.sent+int64(n) <= amplification*m.received
}

// forget lets go of the candidate.
func (m *moving) forget() {
	m.candidate, m.received, m.sent, m.asked, m.held = path{}, 0, 0, false, nil
	m.check, m.challenges, m.old = checkNone, 0, [8]byte{}
}

// movingLocked returns s.moving, which is new if there was none.
func (s *Session) movingLocked() *moving {
	if s.moving == nil {
		s.moving = new(moving)
	}
	return s.moving
}

// cameFromLocked notes from where a record of n bytes has come that has opened, in a
// session with a connection ID.
func (s *Session) cameFromLocked(now time.Time, at path, n int, result *engine.Result) {
	m := s.moving
	switch {
	case m.answersOld(result.Path, engine.PathResponse):
		// The peer is where it was, wherever this has come from: who has diverted the
		// record before may have diverted this one too (RFC 9853 section 5.2).
		m.forget()
	case at != pathOf(s):
		s.cameFromNewLocked(now, at, n, result)
	case m.answersOld(result.Path, engine.PathDrop): // the peer has left
		if m.check == checkOld { // and this is not late
			s.checkNewLocked(now)
		}
	case m.hasCandidate() && result.Newest:
		m.forget()
	}
	if result.Path != nil && result.Path.Type == engine.PathChallenge {
		s.answerChallengeLocked(now, at, n, result.Path)
	}
}

// answersOld reports whether a message, or nil, is the answer of a type to the challenge
// that went to the address that the session has.
func (m *moving) answersOld(p *engine.PathMessage, t engine.PathMessageType) bool {
	return p != nil && p.Type == t && m != nil && m.old != [8]byte{} && p.Cookie == m.old
}

// cameFromNewLocked takes a record from another address.
func (s *Session) cameFromNewLocked(now time.Time, at path, n int, result *engine.Result) {
	policy := s.loop.cfg.connectionIDs.Move
	switch {
	case policy == MoveNever:
	case s.moving.isCandidate(at):
		s.moving.received += int64(n)
		if r := result.Path; r != nil && r.Type == engine.PathResponse && s.moving.proves(r) {
			s.moveLocked(now, at)
		} else if s.moving.check == checkShort {
			s.checkNewLocked(now)
		}
	case !result.Newest:
	case policy == MoveAtOnce:
		s.moveLocked(now, at)
	default:
		m := s.movingLocked()
		m.forget()
		m.candidate, m.received = at, int64(n)
		if s.eng.ChecksPaths() {
			s.beginCheckLocked(now)
		}
	}
}

// proves reports whether a response from the candidate answers a challenge that went
// there.
func (m *moving) proves(response *engine.PathMessage) bool {
	for _, cookie := range m.cookies[:m.challenges] {
		if response.Cookie == cookie {
			return true
		}
	}
	return false
}

// beginCheckLocked begins the return routability check.
func (s *Session) beginCheckLocked(now time.Time) {
	if !s.loop.cfg.connectionIDs.EnhancedCheck {
		s.checkNewLocked(now)
		return
	}
	s.moving.check = checkOld
	s.challengeLocked(now, &s.moving.old, pathOf(s))
}

// checkNewLocked begins to ask the candidate.
func (s *Session) checkNewLocked(now time.Time) {
	s.moving.check = checkNew
	s.challengeAgainLocked(now)
}

// challengeAgainLocked asks the candidate, with a cookie of its own each time. If it
// has been asked often enough, it is none any more.
func (s *Session) challengeAgainLocked(now time.Time) {
	m := s.moving
	if m.challenges == maxChallenges {
		m.forget()
		return
	}
	if !s.challengeLocked(now, &m.cookies[m.challenges], m.candidate) {
		m.check = checkShort
		return
	}
	m.challenges++
}

// challengeLocked sends a challenge to a path, if it may, and waits for the answer. It
// reports whether it may.
func (s *Session) challengeLocked(now time.Time, cookie *[8]byte, to path) bool {
	if _, err := io.ReadFull(s.loop.cfg.engine.Rand, cookie[:]); err != nil {
		return false
	}
	if !s.sendPathLocked(to, engine.PathMessage{Type: engine.PathChallenge, Cookie: *cookie}, 0) {
		return false
	}
	s.moving.checkAt = s.loop.since(now.Add(challengeTimeout))
	s.loop.outbox.putItem(item{kind: itemSooner, session: s})
	return true
}

// checkTimeoutLocked goes on with a check whose answer has not come.
func (s *Session) checkTimeoutLocked(now time.Time) {
	at, ok := s.checkDeadlineLocked()
	switch {
	case !ok || now.Before(at):
	case s.moving.check == checkOld:
		s.checkNewLocked(now)
	default:
		s.challengeAgainLocked(now)
	}
}

// checkDeadlineLocked is when a check goes on.
func (s *Session) checkDeadlineLocked() (time.Time, bool) {
	if m := s.moving; m == nil || m.check == checkNone || m.check == checkShort {
		return time.Time{}, false
	}
	return s.loop.time(s.moving.checkAt), true
}

// answerChallengeLocked answers a challenge where it came from, in a record of n bytes.
func (s *Session) answerChallengeLocked(now time.Time, at path, n int, challenge *engine.PathMessage) {
	m, since := s.movingLocked(), s.loop.since(now)
	if m.responses == 0 || since-m.responsesSince >= time.Second {
		m.responsesSince, m.responses = since, 0
	}
	if m.responses == maxPathResponses {
		return
	}
	m.responses++
	s.sendPathLocked(at, engine.PathMessage{Type: engine.PathResponse, Cookie: challenge.Cookie}, n)
}

// sendPathLocked sends a message to a path: if that is not the session's, then no more
// than may go to the candidate, or to an address from which n bytes have come. It
// reports whether it may be sent.
func (s *Session) sendPathLocked(to path, message engine.PathMessage, n int) bool {
	buf := writeBuffers.Get().(*[]byte)
	defer writeBuffers.Put(buf)
	datagram, err := s.eng.SealPath((*buf)[:0], message)
	*buf = datagram[:0]
	switch m := s.moving; {
	case err != nil:
		return false
	case to == pathOf(s):
	case m.isCandidate(to) && m.affords(len(datagram)):
		m.sent += int64(len(datagram))
	case m.isCandidate(to) || len(datagram) > amplification*n:
		return false
	}
	_ = s.loop.conn.Send(datagram, to.remote, to.local) // counted; the peer, or the check, asks again
	return true
}

// sendLocked sends a datagram to the peer. While the newest record is from a candidate,
// it goes there too, as far as may be: the peer gets it wherever it is. Only if
// neither was sent, there is an error.
func (s *Session) sendLocked(datagram []byte) error {
	err := s.loop.conn.Send(datagram, s.remote, s.local.Addr())
	switch m := s.moving; {
	case !m.hasCandidate():
	case m.affords(len(datagram)):
		m.sent += int64(len(datagram))
		if s.loop.conn.Send(datagram, m.candidate.remote, m.candidate.local) == nil {
			err = nil
		}
	case m.check != checkNone && len(datagram) <= maxHeld:
		m.held = append(m.held[:0], datagram...)
	}
	return err
}

// sendCandidateLocked sends a datagram to the candidate only.
func (s *Session) sendCandidateLocked(datagram []byte) error {
	m := s.moving
	if !m.affords(len(datagram)) {
		return udpio.ErrFull
	}
	m.sent += int64(len(datagram))
	m.asked = true
	return s.loop.conn.Send(datagram, m.candidate.remote, m.candidate.local)
}

// moveLocked moves the session to a path, unless too many are there, and sends there
// what has waited for that.
func (s *Session) moveLocked(now time.Time, to path) {
	previous, held := s.remote, []byte(nil)
	if m := s.moving; m != nil {
		held = m.held
		m.forget()
	}
	if !s.loop.move(s, to) {
		s.loop.outbox.put(Event{Kind: KindLimitReached, Time: now, Remote: to.remote, Local: s.localAddr(), Err: errMaxSessionsPerSource})
		return
	}
	if len(held) > 0 {
		_ = s.sendLocked(held) // Write has returned long ago
	}
	s.loop.counters.peersMoved.Add(1)
	s.raise(Event{Kind: KindPeerMoved, Time: now, PreviousRemote: previous})
}

// move has an open session found at another path. It reports whether there may be one
// more session of that source.
func (l *loop) move(s *Session, to path) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if src := l.sources.of(to.remote.Addr()); src != s.source {
		if most := l.cfg.maxSessionsPerSource; most > 0 && int(src.open) >= most {
			l.sources.forget(src)
			return false
		}
		l.changeSourceLocked(s, src)
	}
	from := pathOf(s)
	l.unlinkLocked(s)
	s.remote = to.remote
	if to.local.IsValid() {
		s.local = netip.AddrPortFrom(to.local, l.conn.LocalAddr().Port())
	}
	l.peers.place(s)
	l.peers.fill(from)
	return true
}

// changeSourceLocked has an open session count at another source.
func (l *loop) changeSourceLocked(s *Session, src *source) {
	var id Identity
	if who := s.pair.identity; who != nil {
		id = who.id
	}
	old := s.source
	l.open.remove(s)
	s.source = src
	l.open.add(s, id)
	l.handshakes.weighed(old)
	l.handshakes.weighed(src)
	l.sources.forget(old)
}

// CandidateAddr returns the address that the peer's newest record came from, if it is
// not RemoteAddr, and reports whether there is one. The session has not moved there
// because nothing proves yet that the peer receives there. Only sessions with a
// connection ID have a candidate, and only under MoveWhenProven.
func (s *Session) CandidateAddr() (netip.AddrPort, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.moving.hasCandidate() {
		return netip.AddrPort{}, false
	}
	return s.moving.candidate.remote, true
}

// ConfirmAddr moves the session to addr if CandidateAddr returns addr. It reports
// whether addr is now the session's RemoteAddr. An application calls it when it has
// proof of its own that the peer receives at addr: something that nobody can guess was
// sent to addr with WriteCandidate, and to no other address, and has come back. The Echo
// option of CoAP (RFC 9175) is made for that. It may come back from yet another address,
// so addr must be what WriteCandidate was called with, and not what CandidateAddr then
// returns. Unless WriteCandidate has sent something to addr since addr is the candidate,
// or if MaxSessionsPerSource is reached there, the session does not move. KindPeerMoved
// follows if it does.
func (s *Session) ConfirmAddr(addr netip.AddrPort) bool {
	addr = unmapped(addr)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.moving.hasCandidate() && s.moving.candidate.remote == addr && s.moving.asked && !s.eng.Closed() {
		s.moveLocked(time.Now(), s.moving.candidate)
	}
	return s.remote == addr
}
