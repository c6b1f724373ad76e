package dtlsserver

import "time"

// The open sessions by source and identity, so that at a limit one gives way of
// those who have most, and all by their peers' last word.

const (
	// evictIdle is how long a peer must have been silent for its session to
	// give way for no other reason.
	evictIdle = time.Minute
	// maxLooks bounds at how many sessions is looked for the longest silent.
	maxLooks = 64
	// maxEvictableLooks bounds how many are moved back that have been heard since.
	maxEvictableLooks = 16
	// ofOneDevice is how many sessions one device or person may have.
	ofOneDevice = 4
)

// openSessions are the open sessions. It needs identities to be made.
type openSessions struct {
	count        int
	identities   map[Identity]*identity
	mostOfPair   ranking[*pair]     // those with two or more
	mostOfPeople ranking[*identity] // those with two or more
}

// identity is an Identity that has open sessions.
type identity struct {
	id       Identity
	pairs    *pair               // a ring
	bySource map[sourceKey]*pair // nil as long as there is but one
	count    int32
	placed   int32
}

// pair is an identity at a source. All that have none are one pair: nothing
// distinguishes them from one peer.
type pair struct {
	identity *identity // nil: none
	source   *source
	sessions *Session // a ring
	count    int32
	placed   int32

	ofIdentity, ofSource ring[pair]
}

func (p *pair) before(other *pair) bool { return p.count > other.count }
func (p *pair) place() *int32           { return &p.placed }

func (id *identity) before(other *identity) bool { return id.count > other.count }
func (id *identity) place() *int32               { return &id.placed }

var (
	inIdentity at[pair] = func(p *pair) *ring[pair] { return &p.ofIdentity }
	inSource   at[pair] = func(p *pair) *ring[pair] { return &p.ofSource }
)

// add adds a session, whose source is set.
func (o *openSessions) add(s *Session, id Identity) {
	o.count++
	s.source.open++
	p := o.pairOf(s.source, id)
	s.pair = p
	p.count++
	inGroup.push(&p.sessions, s)
	if p.count > 1 {
		o.mostOfPair.set(p)
	}
	if who := p.identity; who != nil {
		if who.count++; who.count > 1 {
			o.mostOfPeople.set(who)
		}
	}
}

// pairOf returns the pair of a source and an identity, which is new if it was
// not there.
func (o *openSessions) pairOf(src *source, id Identity) *pair {
	if id == (Identity{}) {
		if src.strangers == nil {
			src.strangers = &pair{source: src}
			inSource.push(&src.pairs, src.strangers)
		}
		return src.strangers
	}
	who := o.identities[id]
	switch {
	case who == nil:
		who = &identity{id: id}
		o.identities[id] = who
	case who.bySource != nil && who.bySource[src.key] != nil:
		return who.bySource[src.key]
	case who.bySource == nil && who.pairs.source == src:
		return who.pairs
	case who.bySource == nil:
		who.bySource = map[sourceKey]*pair{who.pairs.source.key: who.pairs}
	}
	p := &pair{identity: who, source: src}
	inIdentity.push(&who.pairs, p)
	if who.bySource != nil {
		who.bySource[src.key] = p
	}
	inSource.push(&src.pairs, p)
	src.people++
	return p
}

// remove removes a session that was added.
func (o *openSessions) remove(s *Session) {
	p := s.pair
	s.pair = nil
	o.count--
	p.source.open--
	inGroup.remove(&p.sessions, s)
	if p.count--; p.count > 1 {
		o.mostOfPair.set(p)
	} else {
		o.mostOfPair.unset(p)
	}
	who := p.identity
	if who != nil {
		if who.count--; who.count > 1 {
			o.mostOfPeople.set(who)
		} else {
			o.mostOfPeople.unset(who)
		}
	}
	if p.count > 0 {
		return
	}
	inSource.remove(&p.source.pairs, p)
	if who == nil {
		p.source.strangers = nil
		return
	}
	p.source.people--
	inIdentity.remove(&who.pairs, p)
	delete(who.bySource, p.source.key)
	switch {
	case who.pairs == nil:
		delete(o.identities, who.id)
	case who.pairs.ofIdentity.next == who.pairs:
		who.bySource = nil
	}
}

// search looks for the session whose peer has been silent longest, but for a
// newcomer. Of many, maxLooks are looked at, and others the next time.
type search struct {
	newcomer *Session
	longest  *Session // nil: none yet
	looks    int
}

// over looks at a pair's sessions.
func (f *search) over(p *pair) {
	for range p.count {
		s := p.sessions
		p.sessions = s.inGroup.next
		if s != f.newcomer && (f.longest == nil || s.heard.Load() < f.longest.heard.Load()) {
			f.longest = s
		}
		if f.looks++; f.looks == maxLooks {
			return
		}
	}
}

// longestOf returns the longest silent session of the pairs of a ring.
func longestOf(pairs **pair, in at[pair], newcomer *Session) *Session {
	f := search{newcomer: newcomer}
	for last := in(*pairs).prev; f.looks < maxLooks; {
		p := *pairs
		f.over(p)
		*pairs = in(p).next
		if p == last {
			break
		}
	}
	return f.longest
}

// longest returns the pair's longest silent session.
func (p *pair) longest(newcomer *Session) *Session {
	f := search{newcomer: newcomer}
	f.over(p)
	return f.longest
}

// makeRoom notes a new open session. Where there are more than may be, of its
// identity, of its source or in all, one of them gives way, or else itself.
func (l *loop) makeRoom(s *Session) {
	l.idle.Set(&s.idle, s.lastHeard())
	for _, beyond := range []func(*Session) (*Session, error){l.beyondIdentity, l.beyondSource, l.beyondAll} {
		victim, why := beyond(s)
		if victim == nil {
			continue
		}
		l.counters.drop(dropEvictedSession)
		victim.end(ErrEvicted, withCloseNotify)
		l.outbox.put(Event{Kind: KindLimitReached, Time: l.now, Remote: victim.remote, Local: victim.LocalAddr(), Err: why})
		if victim == s {
			return
		}
	}
}

// beyondIdentity returns the session that gives way at MaxSessionsPerIdentity:
// the longest silent of the newcomer's identity.
func (l *loop) beyondIdentity(s *Session) (*Session, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.pair == nil || s.pair.identity == nil || l.cfg.maxSessionsPerIdentity == 0 {
		return nil, nil
	}
	who := s.pair.identity
	if int(who.count) <= l.cfg.maxSessionsPerIdentity {
		return nil, nil
	}
	return longestOf(&who.pairs, inIdentity, s), errMaxSessionsPerIdentity
}

// beyondSource returns the session that gives way at MaxSessionsPerSource: of
// the newcomer's own identity there, or else the longest silent of the source,
// if that is evictIdle or more, or else the newcomer.
func (l *loop) beyondSource(s *Session) (*Session, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.pair == nil || l.cfg.maxSessionsPerSource == 0 {
		return nil, nil
	}
	src := s.pair.source
	if int(src.open) <= l.cfg.maxSessionsPerSource {
		return nil, nil
	}
	if s.pair.count > 1 {
		return s.pair.longest(s), errMaxSessionsPerSource
	}
	if victim := longestOf(&src.pairs, inSource, s); victim != nil && l.silentFor(victim) >= evictIdle {
		return victim, errMaxSessionsPerSource
	}
	return s, errMaxSessionsPerSource
}

// beyondAll returns the session that gives way at MaxSessions: the longest silent
// of the identity that has most at one source, if that is more than the
// newcomer's has in all; or of the identity that has most, if that is twice
// what the newcomer's has; or of the newcomer's own, if it has another. Of many,
// which are a fleet that shares a key, and of all, nobody gives way who is not
// silent for evictIdle, but rather the newcomer. So whoever has one key takes no
// more than the largest share that another has, and beyond it closes its own
// sessions, wherever they are.
func (l *loop) beyondAll(s *Session) (*Session, error) {
	l.findEvictable()
	l.mu.Lock()
	defer l.mu.Unlock()
	o := &l.open
	if s.pair == nil || o.count <= l.cfg.maxSessions {
		return nil, nil
	}
	own, who := s.pair.count, s.pair.identity
	if who != nil {
		own = who.count
	}
	victim := l.evictable
	switch {
	case len(o.mostOfPair) > 0 && o.mostOfPair[0].count > own:
		return o.mostOfPair[0].longest(s), errMaxSessions
	case len(o.mostOfPeople) > 0 && o.mostOfPeople[0].count >= 2*own:
		return longestOf(&o.mostOfPeople[0].pairs, inIdentity, s), errMaxSessions
	case own > 1 && who == nil:
		return s.pair.longest(s), errMaxSessions
	case own > 1:
		victim = longestOf(&who.pairs, inIdentity, s)
	}
	if victim == nil || victim == s || l.silentFor(victim) < evictIdle && (own == 1 || own > ofOneDevice) {
		victim = s
	}
	return victim, errMaxSessions
}

// mayOpenLocked reports whether a handshake of the source may lead to an open
// session, as far as can be known before its identity is.
func (l *loop) mayOpenLocked(src *source) bool {
	return l.open.count < l.cfg.maxSessions || l.evictable != nil ||
		len(l.open.mostOfPair) > 0 || len(l.open.mostOfPeople) > 0 || src.open > 0
}

// findEvictable leaves in evictable the session whose peer has been silent longest, if
// that is evictIdle or more. It only looks when the server is full and nobody
// gives way for another reason, and then at a bounded number of sessions: those
// that turn out to have been heard since are moved back.
func (l *loop) findEvictable() {
	l.mu.Lock()
	l.evictable = nil
	looks := maxEvictableLooks
	if l.open.count < l.cfg.maxSessions || len(l.open.mostOfPair) > 0 || len(l.open.mostOfPeople) > 0 {
		looks = 0
	}
	l.mu.Unlock()
	for range looks {
		at, ok := l.idle.Next()
		if !ok {
			break
		}
		s, _ := l.idle.Expire(at)
		heard := s.lastHeard()
		l.idle.Set(&s.idle, heard)
		if !heard.After(at) {
			if l.silentFor(s) >= evictIdle {
				l.mu.Lock()
				l.evictable = s
				l.mu.Unlock()
			}
			break
		}
	}
}

// silentFor is for how long nothing has come from the session's peer.
func (l *loop) silentFor(s *Session) time.Duration {
	return l.since(l.now) - time.Duration(s.heard.Load())
}
