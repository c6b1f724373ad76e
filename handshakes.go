package dtlsserver

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"time"
)

// sourceKey is what sourceOf returns in fewer bytes.
type sourceKey uint64

func sourceKeyOf(a netip.Addr) sourceKey {
	if a = sourceOf(a); a.Is4() {
		b := a.As4()
		return 0xff<<56 | sourceKey(binary.BigEndian.Uint32(b[:])) // with a prefix of multicast, which is nobody's source
	}
	b := a.As16()
	return sourceKey(binary.BigEndian.Uint64(b[:]))
}

// source is an IPv4 address or an IPv6 /64 that has handshakes in progress or
// open sessions.
type source struct {
	key        sourceKey
	handshakes *Session // a ring, the oldest first
	pairs      *pair    // a ring: its open sessions
	count      int32    // of its handshakes
	open       int32    // of its open sessions
	memory     int      // bytes that its handshakes have reserved

	placed, placedByMemory int32
}

// sources are those that have something.
type sources map[sourceKey]*source

// of returns the source of an address, which is new if it was not there.
func (all sources) of(a netip.Addr) *source {
	key := sourceKeyOf(a)
	src := all[key]
	if src == nil {
		src = &source{key: key}
		all[key] = src
	}
	return src
}

// forget forgets a source that has nothing.
func (all sources) forget(src *source) {
	if src.count == 0 && src.open == 0 {
		delete(all, src.key)
	}
}

// before has the source first that has most handshakes, for each open session that
// it has and one more: a network of many devices is granted more than a single
// host.
func (src *source) before(other *source) bool {
	return int(src.count)*other.weight() > int(other.count)*src.weight()
}

func (src *source) place() *int32 { return &src.placed }

// byMemory has the source first that has reserved most, weighed likewise.
type byMemory struct{ *source }

func (src byMemory) before(other byMemory) bool {
	return src.memory*other.weight() > other.memory*src.weight()
}

func (src byMemory) place() *int32 { return &src.placedByMemory }

func (src *source) weight() int { return 1 + min(int(src.open), DefaultMaxHandshakesPerSource) }

// handshakes are the handshakes in progress, by source, so that a source that
// begins many pushes out its own, and the memory that they have reserved. The
// zero handshakes is empty, and needs a coin.
type handshakes struct {
	count        int
	classes      [numClasses]waiting
	most         ranking[*source]
	memory       int // bytes
	leaving      int // of them, of handshakes that give way
	mostByMemory ranking[byMemory]
	holders      *Session // a ring: those with memory, the longest first
	coin         *rand.Rand
}

// The rings of a Session.
var (
	inGroup  at[Session] = func(s *Session) *ring[Session] { return &s.inGroup }
	inClass  at[Session] = func(s *Session) *ring[Session] { return &s.inClass }
	inHolder at[Session] = func(s *Session) *ring[Session] { return &s.inHolders }
)

// add adds a handshake, whose source is set, to a class.
func (h *handshakes) add(s *Session, c class, now time.Duration) {
	h.count++
	s.source.count++
	inGroup.push(&s.source.handshakes, s)
	h.most.set(s.source)
	s.class = busy
	h.enter(s, c, now)
}

// enter moves a handshake to a class.
func (h *handshakes) enter(s *Session, c class, now time.Duration) {
	if s.class != busy {
		w := &h.classes[s.class]
		w.count--
		inClass.remove(&w.first, s)
	}
	s.class, s.since = c, now
	if c != busy {
		w := &h.classes[c]
		w.count++
		inClass.push(&w.first, s)
	}
}

// remove removes a handshake that was added.
func (h *handshakes) remove(s *Session) {
	h.enter(s, busy, 0)
	h.count--
	src := s.source
	src.count--
	inGroup.remove(&src.handshakes, s)
	if src.count > 0 {
		h.most.set(src)
	} else {
		h.most.unset(src)
	}
}

// overdueMemory is how long a handshake may hold memory before it may have to
// give way to others that need some. It is longer than honest clients take to
// say something again.
const overdueMemory = 5 * time.Second

// reserve notes that a handshake sets bytes aside, or, if they are negative,
// gives them back. At the bound it returns the handshake that gives way for
// it: of the source that has reserved most, if that is twice what this one's
// would have, the oldest; or else the one that has held memory for longest, if
// that is long. If there is none, ok is false.
func (h *handshakes) reserve(s *Session, bytes, bound int, now time.Duration) (givesWay *Session, ok bool) {
	if bytes > 0 && h.memory-h.leaving+bytes > bound {
		if givesWay = h.holdsMost(s, bytes); givesWay == nil {
			if givesWay = h.overdue(s, now); givesWay == nil {
				return nil, false
			}
		}
		givesWay.givesWay = true
		h.leaving += givesWay.reserved
	}
	if s.reserved == 0 && bytes > 0 {
		s.holdsSince = now
		inHolder.push(&h.holders, s)
	}
	s.reserved += bytes
	if s.givesWay {
		h.leaving += bytes
	}
	if s.reserved == 0 && bytes < 0 {
		inHolder.remove(&h.holders, s)
	}
	h.memory += bytes
	s.source.memory += bytes
	if s.source.memory > 0 {
		h.mostByMemory.set(byMemory{s.source})
	} else {
		h.mostByMemory.unset(byMemory{s.source})
	}
	return givesWay, true
}

// holdsMost returns the oldest handshake with memory of the source that has
// reserved most, if that is twice what the source of s would have with bytes
// more.
func (h *handshakes) holdsMost(s *Session, bytes int) *Session {
	if len(h.mostByMemory) == 0 {
		return nil
	}
	most := h.mostByMemory[0].source
	if most == s.source || most.memory*s.source.weight() < 2*(s.source.memory+bytes)*most.weight() {
		return nil
	}
	for held, n := most.handshakes, most.count; n > 0; held, n = held.inGroup.next, n-1 {
		if held.reserved > 0 && !held.givesWay {
			return held
		}
	}
	return nil
}

// overdue returns the handshake that has held memory for longest, if that is
// overdueMemory: with a probability that grows, and surely at twice that time,
// lest somebody who times it keeps all others out.
func (h *handshakes) overdue(s *Session, now time.Duration) *Session {
	held := h.holders
	if held == nil || held == s || held.givesWay {
		return nil
	}
	if late := now - held.holdsSince - overdueMemory; late < time.Duration(h.coin.Int64N(int64(overdueMemory))) {
		return nil
	}
	return held
}

// endGivingWay ends the handshakes that give way for their memory.
func (l *loop) endGivingWay() {
	for i, s := range l.givingWay {
		l.givingWay[i] = nil
		if !s.isOver() {
			l.evict(s, errMaxHandshakeMemory)
		}
	}
	l.givingWay = l.givingWay[:0]
}

// evict ends a handshake that gives way to another at a limit.
func (l *loop) evict(s *Session, limit error) {
	l.counters.drop(dropEvicted)
	s.giveWay()
	l.outbox.put(Event{Kind: KindLimit, Time: l.now, Remote: s.remote, Local: s.LocalAddr(), Err: limit})
}
