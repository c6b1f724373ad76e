package dtlsserver

import "time"

// Sessions in the order of their peers' last word, so that at MaxSessions the
// longest silent can make room.

// evictIdle is how long a peer must have been silent for its session to give
// way at MaxSessions.
const evictIdle = time.Minute

// makeRoom notes a new open session, and beyond MaxSessions closes the one whose
// peer has been silent longest.
func (l *loop) makeRoom(s *Session) {
	now := s.lastHeard()
	l.idle.Set(&s.idle, now)
	if !l.crowded() {
		return
	}
	if victim := l.findIdler(now); victim != nil {
		l.counters.drop(dropIdler)
		victim.end(ErrEvicted, true)
		l.outbox.put(Event{Kind: KindLimit, Time: now, Remote: victim.remote, Local: victim.LocalAddr(), Err: errMaxSessions})
	}
}

// findIdler returns the session whose peer has been silent longest, if that is
// evictIdle or more, and leaves for add whether there is one. It only looks
// when the server is full, and then at a bounded number of sessions: those that
// turn out to have been heard since are moved back.
func (l *loop) findIdler(now time.Time) (victim *Session) {
	const maxLooks = 64
	if !l.full() {
		return nil
	}
	for range maxLooks {
		at, ok := l.idle.Next()
		if !ok {
			break
		}
		s, _ := l.idle.Expire(at)
		heard := s.lastHeard()
		l.idle.Set(&s.idle, heard)
		if !heard.After(at) {
			if now.Sub(heard) >= evictIdle {
				victim = s
			}
			break
		}
	}
	l.mu.Lock()
	l.idler = victim != nil
	l.mu.Unlock()
	return victim
}

// full reports whether there are as many open sessions as may be.
func (l *loop) full() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open >= l.cfg.maxSessions
}

// crowded reports whether there are more open sessions than may be.
func (l *loop) crowded() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open > l.cfg.maxSessions
}
