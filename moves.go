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
	// maxChallenges bounds how often a candidate is asked (RFC 9853 section 5).
	maxChallenges = 3
	// challengeTimeout is how long each answer may take (RFC 9853 section 5.3).
	challengeTimeout = time.Second
	// amplification is how many times what has come from an address may be sent there
	// before it is proven (RFC 9147 section 11).
	amplification = 3
	// maxPathResponses bounds, in a second, the answers to a peer's challenges.
	maxPathResponses = 8
)

// moving is what a session has while its peer's address is in question, or the peer
// questions ours.
type moving struct {
	candidate path   // that the newest record came from; zero: none
	received  uint32 // bytes of records from there that have opened
	sent      uint32 // bytes to there

	check pathCheck
	old        [8]byte                // cookie of the challenge for the address that the session has
	cookies    [maxChallenges][8]byte // of those for the candidate
	challenges uint8
	checkAt    time.Duration // when the check goes on, since loop.base

	responses      uint8 // to the peer's challenges
	responsesSince time.Duration
}

// pathCheck is how far the return routability check has come.
type pathCheck uint8

const (
	checkNone pathCheck = iota
	checkOld            // the address that the session has was asked (RFC 9853 section 5.2)
	checkNew            // the candidate was asked (RFC 9853 section 5.1)
)

// in reports whether there is a candidate.
func (m *moving) hasCandidate() bool { return m != nil && m.candidate.remote.IsValid() }

// isCandidate reports whether a path is the candidate.
func (m *moving) isCandidate(at path) bool { return m.hasCandidate() && m.candidate == at }

// affords reports whether a datagram of n bytes may go to the candidate.
func (m *moving) affords(n int) bool {
	return m.hasCandidate() && int64(m.sent)+int64(n) <= amplification*int64(m.received)
}

// forget lets go of the candidate.
func (m *moving) forget() {
	m.candidate, m.received, m.sent = path{}, 0, 0
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
	if at == pathOf(s) {
		s.cameFromOldLocked(now, result)
	} else {
		s.cameFromNewLocked(now, at, n, result)
	}
	if result.Path != nil && result.Path.Type == engine.PathChallenge {
		s.answerChallengeLocked(now, at, n, result.Path)
	}
}

// cameFromOldLocked takes a record from the address that the session has. The newest
// record being from there, there is no candidate, but by the peer's word that it has
// left (RFC 9853 section 5.2).
func (s *Session) cameFromOldLocked(now time.Time, result *engine.Result) {
	m := s.moving
	if !m.hasCandidate() {
		return
	}
	answers := result.Path != nil && m.check != checkNone && m.old != [8]byte{} && result.Path.Cookie == m.old
	switch {
	case answers && result.Path.Type == engine.PathDrop:
		if m.check == checkOld {
			s.checkNewLocked(now)
		}
	case result.Newest || answers && result.Path.Type == engine.PathResponse && m.check == checkOld:
		m.forget()
	}
}

// cameFromNewLocked takes a record from another address.
func (s *Session) cameFromNewLocked(now time.Time, at path, n int, result *engine.Result) {
	policy := s.loop.cfg.connectionIDs.Move
	switch {
	case policy == MoveNever:
		return
	case s.moving.isCandidate(at):
		s.moving.received += uint32(n)
	case !result.Newest:
		return
	case policy == MoveAtOnce:
		s.moveLocked(now, at)
		return
	default:
		m := s.movingLocked()
		m.forget()
		m.candidate, m.received = at, uint32(n)
		if s.eng.ChecksPaths() {
			s.beginCheckLocked(now)
		}
	}
	if r := result.Path; r != nil && r.Type == engine.PathResponse && s.moving.proves(r) {
		s.moveLocked(now, at)
	}
}

// proves reports whether a response from the candidate answers a challenge that went
// there.
func (m *moving) proves(response *engine.PathMessage) bool {
	if m.check != checkNew {
		return false
	}
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
	m := s.moving
	m.check = checkOld
	s.challengeLocked(now, &m.old, pathOf(s))
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
	m.challenges++
	s.challengeLocked(now, &m.cookies[m.challenges-1], m.candidate)
}

// challengeLocked sends a challenge to a path, if it may, and waits for the answer.
func (s *Session) challengeLocked(now time.Time, cookie *[8]byte, to path) {
	m := s.moving
	if _, err := io.ReadFull(s.loop.cfg.engine.Rand, cookie[:]); err != nil {
		m.forget()
		return
	}
	m.checkAt = s.loop.since(now.Add(challengeTimeout))
	s.loop.outbox.putItem(item{kind: itemSooner, session: s})
	s.sendPathLocked(to, engine.PathMessage{Type: engine.PathChallenge, Cookie: *cookie}, 0)
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
	if s.moving == nil || s.moving.check == checkNone {
		return time.Time{}, false
	}
	return s.loop.time(s.moving.checkAt), true
}

// answerChallengeLocked answers a challenge where it came from, in a record of n bytes.
func (s *Session) answerChallengeLocked(now time.Time, at path, n int, challenge *engine.PathMessage) {
	m, since := s.movingLocked(), s.loop.since(now)
	if since-m.responsesSince >= time.Second {
		m.responsesSince, m.responses = since, 0
	}
	if m.responses == maxPathResponses {
		return
	}
	m.responses++
	s.sendPathLocked(at, engine.PathMessage{Type: engine.PathResponse, Cookie: challenge.Cookie}, n)
}

// sendPathLocked sends a message to a path: if that is not the session's, then no more
// than may go to the candidate, or to an address from which n bytes have come.
func (s *Session) sendPathLocked(to path, message engine.PathMessage, n int) {
	buf := writeBuffers.Get().(*[]byte)
	defer writeBuffers.Put(buf)
	datagram, err := s.eng.SealPath((*buf)[:0], message)
	*buf = datagram[:0]
	switch m := s.moving; {
	case err != nil:
		return
	case to == pathOf(s):
	case m.isCandidate(to) && m.affords(len(datagram)):
		m.sent += uint32(len(datagram))
	case m.isCandidate(to) || len(datagram) > amplification*n:
		return
	}
	_ = s.loop.conn.Send(datagram, to.remote, to.local) // counted; the peer, or the check, asks again
}

// sendLocked sends a datagram to the peer. While the newest record is from a candidate,
// it goes there too, as far as may be: the peer gets it wherever it is. Only if
// neither was sent, there is an error.
func (s *Session) sendLocked(datagram []byte) error {
	err := s.loop.conn.Send(datagram, s.remote, s.local.Addr())
	if m := s.moving; m.affords(len(datagram)) {
		m.sent += uint32(len(datagram))
		if s.loop.conn.Send(datagram, m.candidate.remote, m.candidate.local) == nil {
			err = nil
		}
	}
	return err
}

// sendCandidateLocked sends a datagram to the candidate only.
func (s *Session) sendCandidateLocked(datagram []byte) error {
	m := s.moving
	switch {
	case !m.hasCandidate():
		return ErrNoCandidate
	case !m.affords(len(datagram)):
		return udpio.ErrFull
	}
	m.sent += uint32(len(datagram))
	return s.loop.conn.Send(datagram, m.candidate.remote, m.candidate.local)
}

// moveLocked moves the session to a path.
func (s *Session) moveLocked(now time.Time, to path) {
	previous := s.remote
	s.loop.move(s, to)
	if s.moving != nil {
		s.moving.forget() // and not what bounds the answers to challenges
	}
	s.loop.counters.peersMoved.Add(1)
	s.raise(Event{Kind: KindPeerMoved, Time: now, PreviousRemote: previous})
}

// move has an open session found at another path.
func (l *loop) move(s *Session, to path) {
	l.mu.Lock()
	defer l.mu.Unlock()
	from := pathOf(s)
	l.unlinkLocked(s)
	s.remote = to.remote
	if to.local.IsValid() {
		s.local = netip.AddrPortFrom(to.local, l.conn.LocalAddr().Port())
	}
	l.peers.place(s)
	l.peers.fill(from)
	if src := l.sources.of(to.remote.Addr()); src != s.source {
		l.changeSourceLocked(s, src)
	}
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

// CandidateAddr returns the address that the peer's newest record came from, and
// reports whether that is another than RemoteAddr, to which the session has not moved
// because it is not proven. It needs a connection ID and MoveWhenProven.
func (s *Session) CandidateAddr() (netip.AddrPort, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.moving.hasCandidate() {
		return netip.AddrPort{}, false
	}
	return s.moving.candidate.remote, true
}

// ConfirmAddr moves the session to addr, if that is what CandidateAddr returns, and
// reports whether addr is now its RemoteAddr. It is for applications that have found
// out themselves that the peer receives there: something that WriteCandidate has sent,
// and that cannot be guessed, has come back. The Echo option of CoAP (RFC 9175) is made
// for that. KindPeerMoved follows.
func (s *Session) ConfirmAddr(addr netip.AddrPort) bool {
	addr = unmapped(addr)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.moving.hasCandidate() && s.moving.candidate.remote == addr && !s.eng.Closed() {
		s.moveLocked(time.Now(), s.moving.candidate)
	}
	return s.remote == addr
}
