package dtlsserver

import (
	"errors"
	"net/netip"
	"slices"
)

// The peer map of a loop. A peer is the pair of its address and the local
// address that it writes to; sessions of one remote address hang together by
// their siblings. While a known peer makes a new handshake, the handshake is
// the successor of the open session, which alone is in the map.

var (
	errMaxSessions   = errors.New("dtlsserver: MaxSessions")
	errMaxHandshakes = errors.New("dtlsserver: MaxHandshakes or MaxHandshakesPerSource")
	errMaxHooks      = errors.New("dtlsserver: MaxHandshakes hooks, or MaxHandshakesPerSource for handshakes that have ended, are running")
	errShuttingDown  = errors.New("dtlsserver: shutting down")
)

// lookup returns the session of a peer: open, or else in handshake.
func (l *loop) lookup(remote netip.AddrPort, local netip.Addr) *Session {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lookupLocked(remote, local)
}

func (l *loop) lookupLocked(remote netip.AddrPort, local netip.Addr) *Session {
	for s := l.peers[remote]; s != nil; s = s.sibling {
		if s.local.Addr() == local {
			return s
		}
	}
	return nil
}

// split says which is the handshake and which the open session of the peer
// whose session, either of them, s is.
func (l *loop) split(s *Session) (handshake, open *Session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.halfOpen {
		return s, s.predecessor
	}
	return s.successor, s
}

// openSession returns the open session of a remote address.
func (l *loop) openSession(remote netip.AddrPort) (*Session, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := l.peers[remote]; s != nil; s = s.sibling {
		if !s.halfOpen {
			return s, true
		}
	}
	return nil, false
}

// sessions returns the open sessions, and on request the handshakes too.
func (l *loop) sessions(handshakes bool) []*Session {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]*Session, 0, l.open+l.handshakes.count)
	for _, s := range l.peers {
		for ; s != nil; s = s.sibling {
			if handshakes || !s.halfOpen {
				all = append(all, s)
			}
			if handshakes && s.successor != nil {
				all = append(all, s.successor)
			}
		}
	}
	return all
}

// everySession returns the sessions and the handshakes in the order of their
// addresses, so that what Close says does not depend on that of a map.
func (l *loop) everySession() []*Session {
	all := l.sessions(true)
	slices.SortStableFunc(all, func(a, b *Session) int { return a.remote.Compare(b.remote) })
	return all
}

// add admits a handshake, beside the open session of its address if there is
// one, or says why not. At MaxHandshakesPerSource and at MaxHandshakes another
// must give way, which the caller has to end.
func (l *loop) add(s *Session) (evicted *Session, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	gives := false // another handshake of the address, which the caller ends
	if open := l.lookupLocked(s.remote, s.local.Addr()); open != nil {
		if gives = open.halfOpen; !gives {
			gives = open.successor != nil
			s.predecessor = open
		}
	}
	switch {
	case l.closing:
		return nil, ErrServerClosed
	case l.drained != nil:
		return nil, errShuttingDown
	case s.predecessor == nil && l.open >= l.cfg.maxSessions && !l.idler:
		return nil, errMaxSessions
	case l.hookLane.asking >= l.hookLane.most,
		l.cfg.maxPerSource > 0 && l.orphans[sourceOf(s.remote.Addr())] >= l.cfg.maxPerSource:
		return nil, errMaxHooks
	}
	if !gives {
		evicted = l.handshakes.oldestOf(s.remote.Addr(), l.cfg.maxPerSource)
		if evicted == nil && l.handshakes.count >= l.cfg.maxHandshakes {
			evicted = l.handshakes.oldestOfMost()
		}
	}
	s.halfOpen = true
	l.handshakes.add(s)
	if s.predecessor != nil {
		s.predecessor.successor = s
	} else {
		l.insertLocked(s)
	}
	return evicted, nil
}

// promote makes a handshake an open session and returns the one that it
// replaces.
func (l *loop) promote(s *Session) (replaced *Session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leaveHandshakesLocked(s)
	l.open++
	if replaced = s.predecessor; replaced != nil {
		s.predecessor, replaced.successor = nil, nil
		l.deleteLocked(replaced)
		l.insertLocked(s)
	}
	return replaced
}

// remove forgets a session that is over and puts its last event into the
// outbox, in one step: the loop must not end between them.
func (l *loop) remove(s *Session, last Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.outbox.put(last)
	l.outbox.putItem(item{kind: kindGone, session: s})
	l.unaskLocked(s)
	if s.halfOpen {
		l.leaveHandshakesLocked(s)
	} else {
		l.open--
	}
	l.deleteLocked(s)
	if open := s.predecessor; open != nil {
		s.predecessor = nil
		if open.successor == s {
			open.successor = nil
		}
	}
	if next := s.successor; next != nil {
		s.successor, next.predecessor = nil, nil
		l.insertLocked(next)
	}
}

func (l *loop) insertLocked(s *Session) {
	s.sibling = l.peers[s.remote]
	l.peers[s.remote] = s
}

// deleteLocked takes s out of the map if it is there.
func (l *loop) deleteLocked(s *Session) {
	first := l.peers[s.remote]
	switch {
	case first == s && s.sibling == nil:
		delete(l.peers, s.remote)
	case first == s:
		l.peers[s.remote] = s.sibling
	default:
		for p := first; p != nil; p = p.sibling {
			if p.sibling == s {
				p.sibling = s.sibling
				break
			}
		}
	}
	s.sibling = nil
}

// leaveHandshakesLocked takes s out of the handshakes in progress.
func (l *loop) leaveHandshakesLocked(s *Session) {
	l.handshakes.remove(s)
	s.halfOpen = false
	l.checkDrainedLocked()
}

// drain refuses new peers from now on and returns a channel that is closed
// when no handshake is in progress.
func (l *loop) drain() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.drained == nil {
		l.drained = make(chan struct{})
		l.checkDrainedLocked()
	}
	return l.drained
}

func (l *loop) checkDrainedLocked() {
	if l.drained != nil && l.handshakes.count == 0 {
		select {
		case <-l.drained:
		default:
			close(l.drained)
		}
	}
}

func (l *loop) isClosing() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closing
}
