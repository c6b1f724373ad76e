package dtlsserver

import (
	"errors"
	"net/netip"
	"slices"
)

// The peer map of a loop. A peer is the pair of its address and the local
// address that it writes to. While a known peer makes a new handshake, the
// handshake is the successor of the open session, which alone is in the map.

var (
	errMaxSessions            = errors.New("dtlsserver: MaxSessions")
	errMaxSessionsPerIdentity = errors.New("dtlsserver: MaxSessionsPerIdentity")
	errMaxSessionsPerSource   = errors.New("dtlsserver: MaxSessionsPerSource")
	errMaxHandshakes          = errors.New("dtlsserver: MaxHandshakes or MaxHandshakesPerSource")
	errMaxHandshakeMemory     = errors.New("dtlsserver: MaxHandshakeMemory")
	errShuttingDown           = errors.New("dtlsserver: shutting down")
)

// peers finds a session, or a handshake of a peer that has none, by its remote
// and its local address. Of most remote addresses there is one, which the
// first map has. Of one that writes to several local addresses it has the
// newest, from which the others hang, and the second map has each.
type peers struct {
	byRemote map[netip.AddrPort]*Session
	byBoth   map[addresses]*Session
}

type addresses struct {
	remote netip.AddrPort
	local  netip.Addr
}

func addressesOf(s *Session) addresses { return addresses{s.remote, s.local.Addr()} }

func (p *peers) lookup(remote netip.AddrPort, local netip.Addr) *Session {
	s := p.byRemote[remote]
	if s == nil || s.local.Addr() == local {
		return s
	}
	if s.older == nil {
		return nil
	}
	return p.byBoth[addresses{remote, local}]
}

func (p *peers) insert(s *Session) {
	newest := p.byRemote[s.remote]
	p.byRemote[s.remote] = s
	if newest == nil {
		return
	}
	if newest.older == nil {
		p.byBoth[addressesOf(newest)] = newest
	}
	p.byBoth[addressesOf(s)] = s
	s.older, newest.newer = newest, s
}

// delete takes s out if it is in.
func (p *peers) delete(s *Session) {
	newest := p.byRemote[s.remote]
	if newest != s && s.newer == nil {
		return
	}
	if newest == s {
		newest = s.older
		p.byRemote[s.remote] = newest
	} else {
		s.newer.older = s.older
	}
	if s.older != nil {
		s.older.newer = s.newer
	}
	s.newer, s.older = nil, nil
	if newest == nil {
		delete(p.byRemote, s.remote)
		return
	}
	delete(p.byBoth, addressesOf(s))
	if newest.older == nil {
		delete(p.byBoth, addressesOf(newest))
	}
}

// lookup returns the session of a peer: open, or else in handshake.
func (l *loop) lookup(remote netip.AddrPort, local netip.Addr) *Session {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.peers.lookup(remote, local)
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

// openSession returns the open session of a remote address and a local one: the
// newest if that is zero.
func (l *loop) openSession(remote netip.AddrPort, local netip.AddrPort) (*Session, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.peers.byRemote[remote]
	if s != nil && local.IsValid() && s.older != nil {
		s = l.peers.byBoth[addresses{remote, local.Addr()}]
		return s, s != nil && !s.halfOpen && s.LocalAddr() == local
	}
	for ; s != nil; s = s.older {
		if !s.halfOpen && (!local.IsValid() || s.LocalAddr() == local) {
			return s, true
		}
	}
	return nil, false
}

// sessions returns the open sessions, and on request the handshakes too.
func (l *loop) sessions(handshakes bool) []*Session {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]*Session, 0, l.open.count+l.handshakes.count)
	for _, s := range l.peers.byRemote {
		for ; s != nil; s = s.older {
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
// may have to give way, which the caller has to end.
func (l *loop) add(s *Session) (givesWay *Session, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	takesPlace := false // of another handshake of the address, which the caller ends
	if open := l.peers.lookup(s.remote, s.local.Addr()); open != nil {
		if takesPlace = open.halfOpen; !takesPlace {
			takesPlace = open.successor != nil
			s.predecessor = open
		}
	}
	src, now := l.sources.of(s.remote.Addr()), l.since(l.now)
	switch {
	case l.closing:
		err = ErrServerClosed
	case l.drained != nil:
		err = errShuttingDown
	case s.predecessor == nil && !l.mayOpenLocked(src):
		err = errMaxSessions
	case !takesPlace:
		room := false
		if givesWay, room = l.handshakes.makeWay(src, s.roundTrip, l.cfg.maxHandshakes, l.cfg.maxPerSource, now); givesWay == nil && !room {
			err = errMaxHandshakes
		}
	}
	if err != nil {
		l.sources.forget(src)
		return nil, err
	}
	s.halfOpen, s.source = true, src
	l.handshakes.add(s, s.roundTrip, now)
	if s.predecessor != nil {
		s.predecessor.successor = s
	} else {
		l.peers.insert(s)
	}
	return givesWay, nil
}

// promote makes a handshake an open session and returns the one that it
// replaces.
func (l *loop) promote(s *Session, id Identity) (replaced *Session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leaveHandshakesLocked(s)
	l.open.add(s, id)
	if replaced = s.predecessor; replaced != nil {
		s.predecessor, replaced.successor = nil, nil
		l.peers.delete(replaced)
		l.peers.insert(s)
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
		l.open.remove(s)
	}
	l.sources.forget(s.source)
	l.peers.delete(s)
	if open := s.predecessor; open != nil {
		s.predecessor = nil
		if open.successor == s {
			open.successor = nil
		}
	}
	if next := s.successor; next != nil {
		s.successor, next.predecessor = nil, nil
		l.peers.insert(next)
	}
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
