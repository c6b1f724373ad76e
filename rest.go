package dtlsserver

import (
	"time"
)

// What a session does when it is silent: it retransmits, rests, and ends. And when
// it is old.

// restAfter is how long a session must have been silent to rest: to hold its
// keys and not what is computed from them.
const restAfter = 30 * time.Second

// timeout does what is due by now and says when the next thing is.
func (s *Session) timeout(now time.Time) (next time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.complete && s.expires != 0 && s.loop.since(now) >= s.expires:
		s.endLocked(s.whyExpiredLocked(), withCloseNotify)
	case s.complete && !now.Before(s.lastHeard().Add(s.loop.cfg.idleTimeout)):
		s.endLocked(ErrIdleTimeout, withCloseNotify)
	default:
		s.checkTimeoutLocked(now)
		s.eng.Timeout(now)
		s.pumpLocked(now)
		s.restLocked(now)
	}
	return s.deadlineLocked()
}

// expireLocked sets when the session must end: when its pre-shared key expires,
// which is there already, or MaxSessionAge after its full handshake.
func (s *Session) expireLocked(now, created time.Time) {
	s.keyEnds = s.expires != 0
	if age := s.loop.cfg.engine.MaxSessionAge; age > 0 {
		if at := s.loop.sinceWall(now, created.Add(age)); s.expires == 0 || at < s.expires {
			s.expires, s.keyEnds = at, false
		}
	}
}

// whyExpiredLocked is the reason of a session that must end.
func (s *Session) whyExpiredLocked() error {
	if s.keyEnds {
		return ErrPSKExpired
	}
	return ErrSessionAge
}

// restLocked has the session rest if it has been silent for long enough.
func (s *Session) restLocked(now time.Time) {
	silent, at := time.Duration(s.heard.Load()), s.loop.since(now)
	switch {
	case s.restAt == 0 || at < s.restAt:
		return
	case s.written: // at a time that Write does not look up
		silent, s.written = at, false
	}
	if s.restAt = silent + restAfter; at >= s.restAt {
		s.eng.Rest()
		s.restAt = 0
		if !s.moving.hasCandidate() {
			s.moving = nil
		}
	}
}

// wakeLocked notes that a record has ended a rest.
func (s *Session) wakeLocked(now time.Time) {
	if s.restAt == 0 && s.complete && !s.eng.Resting() {
		s.restAt = s.loop.since(now.Add(restAfter))
		s.loop.outbox.putItem(item{kind: itemSooner, session: s})
		s.loop.wake()
	}
}

// deadline is when timeout must be called next, and whether the handshake is
// complete.
func (s *Session) deadline() (at time.Time, complete, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok = s.deadlineLocked()
	return at, s.complete, ok
}

func (s *Session) deadlineLocked() (time.Time, bool) {
	if s.eng.Closed() {
		return time.Time{}, false
	}
	at := s.eng.Deadline()
	if s.complete {
		if idle := s.lastHeard().Add(s.loop.cfg.idleTimeout); at.IsZero() || idle.Before(at) {
			at = idle
		}
		if expires := s.loop.time(s.expires); s.expires != 0 && expires.Before(at) {
			at = expires
		}
		if rest := s.loop.time(s.restAt); s.restAt != 0 && rest.Before(at) {
			at = rest
		}
		if check, ok := s.checkDeadlineLocked(); ok && check.Before(at) {
			at = check
		}
	}
	return at, true
}
