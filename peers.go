package dtlsserver

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
)

// The peer map of a loop. A peer is the pair of its address and the local
// address that it writes to. It may have an open session and two handshakes: the
// one that has come furthest, and the newest. The first of these that there is
// is in the map; a handshake beside an open session is its successor, and the
// newer of two is the rival of the other.

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
//
// A session with a connection ID is found by that, from its ServerHello on. Several
// such may be at one path. One of them, and of them only the one that came last, is
// found by it; the others are beside it, the newest in the map, from which the older
// hang. None of them has the place of a handshake, or of a session that is found in no
// other way.
type peers struct {
	byRemote map[netip.AddrPort]*Session
	byBoth   map[path]*Session
	byCID    map[connectionID]*Session
	beside   map[path]*Session
}

func newPeers() peers {
	return peers{
		byRemote: make(map[netip.AddrPort]*Session),
		byBoth:   make(map[path]*Session),
		byCID:    make(map[connectionID]*Session),
		beside:   make(map[path]*Session),
	}
}

// path is what a peer is known by: two may write from one remote address, to
// different local ones. What counts against a source, which is its remote address
// without the port, stands apart, in sources.
type path struct {
	remote netip.AddrPort
	local  netip.Addr
}

func pathOf(s *Session) path { return path{s.remote, s.local.Addr()} }

func (p *peers) lookup(remote netip.AddrPort, local netip.Addr) *Session {
	s := p.byRemote[remote]
	if s == nil || s.local.Addr() == local {
		return s
	}
	if s.older == nil {
		return nil
	}
	return p.byBoth[path{remote, local}]
}

func (p *peers) insert(s *Session) {
	newest := p.byRemote[s.remote]
	p.byRemote[s.remote] = s
	if newest == nil {
		return
	}
	if newest.older == nil {
		p.byBoth[pathOf(newest)] = newest
	}
	p.byBoth[pathOf(s)] = s
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
	if p.byBoth[pathOf(s)] == s { // and not what has taken its place
		delete(p.byBoth, pathOf(s))
	}
	if newest.older == nil {
		delete(p.byBoth, pathOf(newest))
	}
}

// place gives an open session with a connection ID a place at its path.
func (p *peers) place(s *Session) {
	there := p.lookup(s.remote, s.local.Addr())
	switch {
	case there == nil:
	case there.halfOpen || !there.hasCID || there.successor != nil:
		p.putBeside(s)
		return
	default:
		p.delete(there)
		p.putBeside(there)
	}
	p.insert(s)
}

// putBeside adds a session, which is in no map of paths, to those beside another.
func (p *peers) putBeside(s *Session) {
	newest := p.beside[pathOf(s)]
	if s.older = newest; newest != nil {
		newest.newer = s
	}
	p.beside[pathOf(s)] = s
}

// takeOut takes an open session out of the maps of paths if it is in one.
func (p *peers) takeOut(s *Session) {
	if p.lookup(s.remote, s.local.Addr()) == s {
		p.delete(s)
		return
	}
	switch {
	case s.newer != nil:
		s.newer.older = s.older
	case p.beside[pathOf(s)] != s:
		return
	case s.older != nil:
		p.beside[pathOf(s)] = s.older
	default:
		delete(p.beside, pathOf(s))
	}
	if s.older != nil {
		s.older.newer = s.newer
	}
	s.newer, s.older = nil, nil
}

// fill has the newest session beside a path found by it, if nothing else is.
func (p *peers) fill(at path) {
	if s := p.beside[at]; s != nil && p.lookup(at.remote, at.local) == nil {
		p.takeOut(s)
		p.insert(s)
	}
}

// family is what there is of a peer.
type family struct {
	open   *Session
	first  *Session // the handshake that has come furthest
	second *Session // a newer one
}

// familyOf returns what there is of a peer.
func (l *loop) familyOf(remote netip.AddrPort, local netip.Addr) family {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.familyLocked(remote, local)
}

func (l *loop) familyLocked(remote netip.AddrPort, local netip.Addr) (f family) {
	switch s := l.peers.lookup(remote, local); {
	case s == nil:
	case s.halfOpen:
		f.first = s
	default:
		f.open, f.first = s, s.successor
	}
	if f.first != nil {
		f.second = f.first.rival
	}
	return f
}

// newest returns the newest handshake, or nil.
func (f *family) newest() *Session {
	if f.second != nil {
		return f.second
	}
	return f.first
}

// displacedLocked returns which of two handshakes makes room for a newer one, or nil if
// there are not two. The one that the client has answered stays, so that not even
// somebody who receives at the address of another can end what that one has
// begun.
func (f *family) displacedLocked() *Session {
	if f.second != nil && f.second.answered && !f.first.answered {
		return f.first
	}
	return f.second
}

// goesOnAlone reports whether the client has answered the newest handshake, and not
// the one before.
func (l *loop) goesOnAlone(newest *Session) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return newest.answered && newest.rival != nil && !newest.rival.answered
}

// isMuted reports whether a session is a handshake beside which its client has
// begun a newer one. It sends nothing more, unless it completes: the client
// would take it for the newer one's.
func (l *loop) isMuted(s *Session) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return s.halfOpen && s.rival != nil && !s.second
}

// isLeft reports whether the client has gone on with a newer handshake, and not
// with this one.
func (l *loop) isLeft(s *Session) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return s.halfOpen && s.rival != nil && !s.second && s.rival.answered
}

// openSession returns the open session of a remote address and a local one: the
// newest if that is zero.
func (l *loop) openSession(remote netip.AddrPort, local netip.AddrPort) (*Session, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.peers.byRemote[remote]
	if s != nil && local.IsValid() && s.older != nil {
		s = l.peers.openAt(l.peers.byBoth[path{remote, local.Addr()}])
		return s, s != nil && s.localAddr() == local
	}
	for ; s != nil; s = s.older {
		if open := l.peers.openAt(s); open != nil && (!local.IsValid() || open.localAddr() == local) {
			return open, true
		}
	}
	return nil, false
}

// openAt returns the open session of a path by what is found there: that itself, or, if
// it is a handshake or nil, the newest beside it.
func (p *peers) openAt(s *Session) *Session {
	if s == nil || !s.halfOpen {
		return s
	}
	return p.beside[pathOf(s)]
}

// selection says which of the sessions are meant.
type selection bool

const (
	openOnly       selection = false
	withHandshakes selection = true
)

// sessions returns the open sessions, and perhaps the handshakes too.
func (l *loop) sessions(which selection) []*Session {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]*Session, 0, l.open.count+l.handshakes.count)
	for _, s := range l.peers.byRemote {
		for ; s != nil; s = s.older {
			if which == withHandshakes || !s.halfOpen {
				all = append(all, s)
			}
			if which == openOnly {
				continue
			}
			f := l.familyLocked(s.remote, s.local.Addr())
			for _, h := range []*Session{f.first, f.second} {
				if h != nil && h != s {
					all = append(all, h)
				}
			}
		}
	}
	for _, s := range l.peers.beside {
		for ; s != nil; s = s.older {
			all = append(all, s)
		}
	}
	return all
}

// everySession returns the sessions and the handshakes in the order of their
// addresses, so that what Close says does not depend on that of a map.
func (l *loop) everySession() []*Session {
	all := l.sessions(withHandshakes)
	slices.SortStableFunc(all, func(a, b *Session) int {
		return cmp.Or(a.RemoteAddr().Compare(b.RemoteAddr()), cmp.Compare(a.started, b.started))
	})
	return all
}

// add admits a handshake, beside what its address has, or says why not. The
// caller has to end what it replaces there: a stale handshake that it is to take
// the place of, or one of two; and what gives way for it at
// MaxHandshakesPerSource or MaxHandshakes.
func (l *loop) add(s, stale *Session) (replaces, givesWay *Session, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	src, now := l.sources.of(s.remote.Addr()), l.since(l.now)
	f := l.familyLocked(s.remote, s.local.Addr())
	replaces = f.displacedLocked()
	if stale != nil && !stale.answered && (stale == f.first || stale == f.second) {
		replaces = stale
	}
	switch {
	case l.closing:
		err = ErrServerClosed
	case l.drained != nil:
		err = errShuttingDown
	case f.open == nil && !l.mayOpenLocked(src):
		err = errMaxSessions
	case replaces == nil:
		room := false
		givesWay, room = l.handshakes.makeWay(src, s.roundTrip, l.cfg.maxHandshakes, l.cfg.maxPerSource, now)
		switch {
		case givesWay != nil || room:
		case f.first != nil && !f.first.answered:
			replaces = f.first
		default:
			err = errMaxHandshakes
		}
	}
	if err != nil {
		l.sources.forget(src)
		return nil, nil, err
	}
	if replaces != nil {
		l.unlinkLocked(replaces)
	}
	s.halfOpen, s.source = true, src
	l.handshakes.add(s, s.roundTrip, now)
	l.linkLocked(s)
	return replaces, givesWay, nil
}

// linkLocked gives a handshake its place in its family, which has one at most.
func (l *loop) linkLocked(s *Session) {
	f := l.familyLocked(s.remote, s.local.Addr())
	s.predecessor = f.open
	switch {
	case f.second != nil:
		panic("dtlsserver: three handshakes of one address")
	case f.first != nil:
		f.first.rival, s.rival, s.second = s, f.first, true
	case f.open != nil:
		f.open.successor = s
	default:
		l.peers.insert(s)
	}
}

// unlinkLocked takes a session out of its family. What hangs from it takes its
// place.
func (l *loop) unlinkLocked(s *Session) {
	switch {
	case !s.halfOpen:
		l.peers.takeOut(s)
		if first := s.successor; first != nil {
			first.predecessor = nil
			if first.rival != nil {
				first.rival.predecessor = nil
			}
			l.peers.insert(first)
		}
	case s.second:
		s.rival.rival = nil
	case s.predecessor != nil:
		if s.predecessor.successor = s.rival; s.rival != nil {
			s.rival.rival, s.rival.second = nil, false
		}
	default:
		l.peers.delete(s)
		if s.rival != nil {
			s.rival.rival, s.rival.second = nil, false
			l.peers.insert(s.rival)
		}
	}
	s.predecessor, s.successor, s.rival, s.second = nil, nil, nil, false
}

// promote makes a handshake an open session. It returns what it replaces, which
// the caller has to end: the open session, and an older handshake. A newer one
// goes on beside it. An open session with a connection ID may be of another peer, whose
// address this one has got: if it is not known to be of the same, it stays.
func (l *loop) promote(s *Session, id Identity) (replaced [2]*Session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	open, newer := s.predecessor, s.rival
	if s.second {
		replaced[1], newer = s.rival, nil
		l.unlinkLocked(s.rival)
	}
	if newer != nil {
		l.unlinkLocked(newer)
	}
	if open != nil {
		open.successor = nil
		l.unlinkLocked(open)
		s.predecessor = nil
		l.peers.insert(s)
		if open.hasCID && (id == (Identity{}) || open.pair.identity == nil || open.pair.identity.id != id) {
			l.peers.putBeside(open)
		} else {
			replaced[0] = open
		}
	}
	l.leaveHandshakesLocked(s)
	l.open.add(s, id)
	l.handshakes.weighed(s.source)
	if newer != nil {
		l.linkLocked(newer)
	}
	return replaced
}

// remove forgets a session that is over and puts its last event into the
// outbox, in one step: the loop must not end between them.
func (l *loop) remove(s *Session, last Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.outbox.put(last)
	l.outbox.putItem(item{kind: itemGone, session: s})
	l.takeBackLocked(s)
	l.unlinkLocked(s)
	l.peers.fill(pathOf(s))
	l.unregisterLocked(s)
	if s.halfOpen {
		l.leaveHandshakesLocked(s)
	} else {
		l.open.remove(s)
		l.handshakes.weighed(s.source)
		l.closed.put(pathOf(s), l.since(last.Time))
		if s.moving.hasCandidate() {
			l.closed.put(s.moving.candidate, l.since(last.Time))
		}
	}
	l.sources.forget(s.source)
}

// knows reports whether there is a session or a handshake of a remote address.
func (l *loop) knows(remote netip.AddrPort) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.peers.byRemote[remote] != nil
}

// justClosed reports whether a session of the addresses was closed a while ago.
func (l *loop) justClosed(remote netip.AddrPort, local netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed.has(remote, local, l.since(l.now))
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
