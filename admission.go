package dtlsserver

import (
	crand "crypto/rand"
	"math/rand/v2"
	"time"
)

// Which handshake gives way when there are as many as may be. The aim is that
// what there is room for gets done: a handshake that is young for the round trip
// of its client, or whose client has answered, stays, and newcomers try again;
// and that nobody who never goes on keeps others out.

// class is what a handshake waits for.
type class uint8

// The classes: nothing of the client's, but a hook or our work; the client's first
// answer, by its round trip, which the cookie has measured; its next ones.
const (
	busy class = iota
	within5ms
	within100ms
	within2s
	beyond2s
	answered
	numClasses
)

// classOf is the class of a handshake whose client has a round trip.
func classOf(roundTrip time.Duration) class {
	switch {
	case roundTrip < 5*time.Millisecond:
		return within5ms
	case roundTrip < 100*time.Millisecond:
		return within100ms
	case roundTrip < 2*time.Second:
		return within2s
	default:
		return beyond2s
	}
}

// patience is how long a handshake may stand in a class before it is overdue.
var patience = [numClasses]time.Duration{
	within5ms: 15 * time.Millisecond, within100ms: 300 * time.Millisecond, within2s: 4 * time.Second, beyond2s: 12 * time.Second,
	answered: 4 * time.Second,
}

// waiting are the handshakes of a class.
type waiting struct {
	first *Session // a ring, by when they entered it
	count int
}

// crowd is how many handshakes are in each class, in all or of a source.
type crowd [numClasses]struct {
	count          int
	oldest, newest *Session
}

// crowd returns all that wait for clients.
func (h *handshakes) crowd() (all crowd) {
	for c := range all {
		if w := &h.classes[c]; w.first != nil {
			all[c].count, all[c].oldest, all[c].newest = w.count, w.first, w.first.inClass.prev
		}
	}
	return all
}

// crowd returns those of the source, and the newest of those that wait for us.
// If it has very many, which only no limit allows, some are looked at.
func (src *source) crowd() (all crowd, newestBusy *Session) {
	const maxLooks = 512
	for s, n := src.handshakes, min(src.count, maxLooks); n > 0; s, n = s.inGroup.next, n-1 {
		if s.class == busy {
			newestBusy = s
			continue
		}
		c := &all[s.class]
		c.count++
		if c.oldest == nil || s.since < c.oldest.since {
			c.oldest = s
		}
		if c.newest == nil || s.since >= c.newest.since {
			c.newest = s
		}
	}
	return all, newestBusy
}

// lateness is how long a handshake has stood in its class, in multiples of the
// patience. Beyond 1 it is overdue.
func (s *Session) lateness(now time.Duration) float64 {
	return float64(now-s.since) / float64(patience[s.class])
}

// makeWay returns the handshake that gives way to a newcomer of a class and a
// source, or reports that there is room. With neither, the newcomer is refused:
// its client will try again.
func (h *handshakes) makeWay(src *source, c class, most, mostOfSource int, now time.Duration) (givesWay *Session, room bool) {
	if mostOfSource > 0 && int(src.count) >= mostOfSource {
		all, _ := src.crowd()
		return h.fromCrowd(&all, c, mostOfSource, now), false
	}
	if h.count < most {
		return nil, true
	}
	if first := h.most[0]; first != src && int64(first.count)*src.weight() >= 2*int64(src.count+1)*first.weight() {
		return first.loses(now), false
	}
	all := h.crowd()
	return h.fromCrowd(&all, c, most, now), false
}

// loses returns the handshake that a source loses that has too many: the most
// overdue, or else the newest of its largest class, or else the newest.
func (src *source) loses(now time.Duration) *Session {
	all, newestBusy := src.crowd()
	late, largest := 1.0, 0
	var overdue, newest *Session
	for c := range all {
		if all[c].count == 0 {
			continue
		}
		if l := all[c].oldest.lateness(now); l > late {
			overdue, late = all[c].oldest, l
		}
		if all[c].count > largest {
			newest, largest = all[c].newest, all[c].count
		}
	}
	switch {
	case overdue != nil:
		return overdue
	case newest != nil:
		return newest
	default:
		return newestBusy
	}
}

// fromCrowd returns the handshake of a crowd that gives way to a newcomer. Of the
// oldest of the newcomer's class, and of the classes that have more than their
// share, it is the most overdue, with a probability that grows to 1 at twice its
// patience: so nobody keeps a place by timing its hellos. Or else, if the
// newcomer's class has less than its share, it is the newest of the largest
// slower class that has more: so nobody keeps fast clients out by pretending
// to be slow.
func (h *handshakes) fromCrowd(all *crowd, c class, most int, now time.Duration) *Session {
	share := most / int(answered)
	late, largest := 1.0, share
	var overdue, slower *Session
	for i := range all {
		if all[i].count == 0 {
			continue
		}
		if l := all[i].oldest.lateness(now); l > late && (class(i) == c || all[i].count > share) {
			overdue, late = all[i].oldest, l
		}
		if class(i) > c && class(i) != answered && all[i].count > largest {
			slower, largest = all[i].newest, all[i].count
		}
	}
	switch {
	case overdue != nil && h.coin.Float64() < late-1:
		return overdue
	case all[c].count < share:
		return slower
	default:
		return nil
	}
}

// newCoin returns what decides where chance does.
func newCoin() *rand.Rand {
	var seed [32]byte
	_, _ = crand.Read(seed[:]) // never fails
	return rand.New(rand.NewChaCha8(seed))
}
