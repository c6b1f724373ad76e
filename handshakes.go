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
	people     int32    // identities that its open sessions have
	maxWeight  int32
	memory     int64 // bytes that its handshakes have reserved
	strangers  *pair // of pairs: the sessions without an identity

	placed, placedByMemory int32
}

// sources are those that have something.
type sources struct {
	byKey     map[sourceKey]*source
	maxWeight int
}

// newSources returns sources that count for as much as the handshakes that each
// may have.
func newSources(maxPerSource int) sources {
	if maxPerSource < 0 {
		maxPerSource = DefaultMaxHandshakesPerSource
	}
	return sources{make(map[sourceKey]*source), maxPerSource}
}

// of returns the source of an address, which is new if it was not there.
func (all *sources) of(a netip.Addr) *source {
	key := sourceKeyOf(a)
	src := all.byKey[key]
	if src == nil {
		src = &source{key: key, maxWeight: int32(all.maxWeight)}
		all.byKey[key] = src
	}
	return src
}

// forget forgets a source that has nothing.
func (all *sources) forget(src *source) {
	if src.count == 0 && src.open == 0 {
		delete(all.byKey, src.key)
	}
}

// weight is what a source counts for: a network of many devices is granted more
// than a single host. Who has one key counts once, however many sessions it
// opens with it.
func (src *source) weight() int64 { return 1 + int64(min(src.people, src.maxWeight)) }

// before has the source first that has most handshakes for its weight.
func (src *source) before(other *source) bool {
	return int64(src.count)*other.weight() > int64(other.count)*src.weight()
}

func (src *source) place() *int32 { return &src.placed }

// byMemory has the source first that has reserved most for its weight.
type byMemory struct{ *source }

func (src byMemory) before(other byMemory) bool {
	return src.memory*other.weight() > other.memory*src.weight()
}

func (src byMemory) place() *int32 { return &src.placedByMemory }

// handshakes are the handshakes in progress, by source, so that a source that
// begins many pushes out its own, and the memory that they have reserved. The
// zero handshakes is empty, and needs a coin.
type handshakes struct {
	count        int
	classes      [numClasses]waiting
	most         ranking[*source]
	memory       int64 // bytes, without what gives way
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

// overdueMemory is how long a handshake that holds memory may stand without
// progress before it may have to give way to others that need some. It is longer
// than honest clients take to say something again.
const overdueMemory = 5 * time.Second

// reserve notes that a handshake sets bytes aside, or, if they are negative,
// gives them back. At the bound it returns the handshakes that give way for it:
// of the source that has reserved most, if that is twice what this one's would
// have, the one with most; or else one that holds memory and has made no progress
// for long. If they are not enough, none gives way, and ok is false.
func (h *handshakes) reserve(s *Session, bytes, bound int, now time.Duration) (giveWay []*Session, ok bool) {
	for bytes > 0 && h.memory+int64(bytes) > int64(bound) {
		victim := h.holdsMost(s, bytes)
		if victim == nil {
			victim = h.overdue(s, now)
		}
		if victim == nil {
			for _, v := range giveWay {
				v.givesWay = false
				h.charge(v.source, int(v.reserved))
			}
			return nil, false
		}
		victim.givesWay = true
		h.charge(victim.source, -int(victim.reserved))
		giveWay = append(giveWay, victim)
	}
	if s.reserved == 0 && bytes > 0 {
		inHolder.push(&h.holders, s)
	}
	s.reserved += int32(bytes)
	if s.reserved == 0 && bytes < 0 {
		inHolder.remove(&h.holders, s)
	}
	if !s.givesWay {
		h.charge(s.source, bytes)
	}
	return giveWay, true
}

// charge counts bytes of a source.
func (h *handshakes) charge(src *source, bytes int) {
	h.memory += int64(bytes)
	src.memory += int64(bytes)
	if src.memory > 0 {
		h.mostByMemory.set(byMemory{src})
	} else {
		h.mostByMemory.unset(byMemory{src})
	}
}

// weighed puts a source whose weight has changed where it belongs.
func (h *handshakes) weighed(src *source) {
	if src.count > 0 {
		h.most.set(src)
	}
	if src.memory > 0 {
		h.mostByMemory.set(byMemory{src})
	}
}

// holdsMost returns the handshake with most memory of the source that has
// reserved most, if that is twice what the source of s would have with bytes
// more. Of many handshakes of a source, some are looked at.
func (h *handshakes) holdsMost(s *Session, bytes int) (holds *Session) {
	const maxLooks = 256
	if len(h.mostByMemory) == 0 {
		return nil
	}
	most := h.mostByMemory[0].source
	if most == s.source || most.memory*s.source.weight() < 2*(s.source.memory+int64(bytes))*most.weight() {
		return nil
	}
	for held, n := most.handshakes, min(most.count, maxLooks); n > 0; held, n = held.inGroup.next, n-1 {
		if held.reserved > 0 && !held.givesWay && (holds == nil || held.reserved > holds.reserved) {
			holds = held
		}
	}
	return holds
}

// overdue returns a handshake that holds memory and has made no progress for
// overdueMemory: with a probability that grows, and surely at twice that time,
// lest somebody who times it keeps all others out. It looks at some of those
// that have held memory for longest.
func (h *handshakes) overdue(s *Session, now time.Duration) *Session {
	const maxLooks = 16
	held := h.holders
	for range maxLooks {
		if held == nil {
			break
		}
		if held != s && !held.givesWay {
			if late := now - held.since - overdueMemory; late >= time.Duration(h.coin.Int64N(int64(overdueMemory))) {
				return held
			}
		}
		if held = held.inHolders.next; held == h.holders {
			break
		}
	}
	return nil
}

// endGivingWay ends the handshakes that give way for their memory.
func (l *loop) endGivingWay() {
	for i, s := range l.givingWay {
		l.givingWay[i] = nil
		l.mu.Lock()
		halfOpen := s.halfOpen
		l.mu.Unlock()
		if halfOpen && !s.isOver() { // another goroutine may have ended it
			l.evict(s, errMaxHandshakeMemory)
		}
	}
	l.givingWay = l.givingWay[:0]
}

// evict ends a handshake that gives way to another at a limit.
func (l *loop) evict(s *Session, limit error) {
	l.counters.drop(dropEvicted)
	s.giveWay()
	l.outbox.put(Event{Kind: KindLimitReached, Time: l.now, Remote: s.remote, Local: s.localAddr(), Err: limit})
}

// sourceOf is what counts as one source: an IPv4 address or an IPv6 /64, of
// which anybody may have all the addresses.
func sourceOf(a netip.Addr) netip.Addr {
	if a.Is4() {
		return a
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return netip.Addr{}
	}
	return p.Addr()
}
