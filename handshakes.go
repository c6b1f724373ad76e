package dtlsserver

import (
	"container/heap"
	"container/list"
	"net/netip"
)

// handshakes are the handshakes in progress, by source, so that a source that
// begins many pushes out its own. The zero handshakes is empty.
type handshakes struct {
	count   int
	sources map[netip.Addr]*source
	most    sourceHeap
}

// source is an IPv4 address or an IPv6 /64 with handshakes in progress.
type source struct {
	addr     netip.Addr
	sessions list.List // of *Session, the oldest first
	place    int       // in the heap
}

func (s *source) oldest() *Session { return s.sessions.Front().Value.(*Session) }

// add adds a handshake.
func (h *handshakes) add(s *Session) {
	h.count++
	addr := sourceOf(s.remote.Addr())
	if src := h.sources[addr]; src != nil {
		s.source, s.inSource = src, src.sessions.PushBack(s)
		heap.Fix(&h.most, src.place)
		return
	}
	if h.sources == nil {
		h.sources = make(map[netip.Addr]*source)
	}
	src := &source{addr: addr}
	s.source, s.inSource = src, src.sessions.PushBack(s)
	h.sources[addr] = src
	heap.Push(&h.most, src)
}

// remove removes a handshake that was added.
func (h *handshakes) remove(s *Session) {
	h.count--
	src := s.source
	if src.sessions.Len() == 1 { // the heap compares what is there
		heap.Remove(&h.most, src.place)
		delete(h.sources, src.addr)
	}
	src.sessions.Remove(s.inSource)
	s.source, s.inSource = nil, nil
	if src.sessions.Len() > 0 {
		heap.Fix(&h.most, src.place)
	}
}

// oldestOf returns the oldest handshake of an address's source when the source
// has as many as are allowed.
func (h *handshakes) oldestOf(a netip.Addr, allowed int) *Session {
	src := h.sources[sourceOf(a)]
	if src == nil || allowed < 0 || src.sessions.Len() < allowed {
		return nil
	}
	return src.oldest()
}

// oldestOfMost returns the oldest handshake of the source that has most.
func (h *handshakes) oldestOfMost() *Session { return h.most[0].oldest() }

// sourceHeap has the source with most handshakes first, and of several the one
// whose oldest is oldest.
type sourceHeap []*source

func (h sourceHeap) Len() int { return len(h) }

func (h sourceHeap) Less(i, j int) bool {
	if a, b := h[i].sessions.Len(), h[j].sessions.Len(); a != b {
		return a > b
	}
	return h[i].oldest().started.Before(h[j].oldest().started)
}

func (h sourceHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

func (h *sourceHeap) Push(x any) {
	s := x.(*source)
	s.place = len(*h)
	*h = append(*h, s)
}

func (h *sourceHeap) Pop() any {
	last := len(*h) - 1
	s := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return s
}
