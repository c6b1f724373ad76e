package dtlsserver

import (
	"container/heap"
	"net/netip"
)

// turns are the questions of a lane, those that wait and those that are being
// asked, by source, so that a source that asks much makes itself wait. The next
// one is of the source with fewest being asked, and of several the one whose
// turn is longest ago; of a source, the one that has waited longest. The zero
// turns is empty.
type turns struct {
	waiting int
	sources map[netip.Addr]*asker // that have any
	next    askerHeap             // that have some that wait
	turn    uint64                // the last one
	spare   []*asker              // for sources to come
}

// asker is a source with questions.
type asker struct {
	addr        netip.Addr
	first, last *question // that wait
	asking      int       // that are being asked
	turn        uint64    // when it had its last one, or came
	place       int       // in the heap, while any wait
}

// Len returns how many questions wait.
func (t *turns) Len() int { return t.waiting }

// push adds a question.
func (t *turns) push(q *question) {
	addr := sourceOf(q.session.remote.Addr())
	a := t.sources[addr]
	if a == nil {
		a = t.come(addr)
	}
	q.asker, q.before, q.after = a, a.last, nil
	t.waiting++
	a.last = q
	if q.before != nil {
		q.before.after = q
		return
	}
	a.first = q
	heap.Push(&t.next, a)
}

// pop takes out the question that is to be asked next, if any waits.
func (t *turns) pop() (q *question, ok bool) {
	if len(t.next) == 0 {
		return nil, false
	}
	a := t.next[0]
	q = a.first
	a.asking++
	t.turn++
	a.turn = t.turn
	t.remove(q)
	return q, true
}

// remove takes out a question that waits.
func (t *turns) remove(q *question) {
	a := q.asker
	t.waiting--
	if q.before != nil {
		q.before.after = q.after
	} else {
		a.first = q.after
	}
	if q.after != nil {
		q.after.before = q.before
	} else {
		a.last = q.before
	}
	q.before, q.after = nil, nil
	if a.first != nil {
		heap.Fix(&t.next, a.place)
		return
	}
	heap.Remove(&t.next, a.place)
	t.leave(a)
}

// answered notes that a question is no longer being asked.
func (t *turns) answered(q *question) {
	a := q.asker
	a.asking--
	if a.first != nil {
		heap.Fix(&t.next, a.place)
	}
	t.leave(a)
}

// come makes room for a source, whose turn is after all others'.
func (t *turns) come(addr netip.Addr) *asker {
	if t.sources == nil {
		t.sources = make(map[netip.Addr]*asker)
	}
	var a *asker
	if n := len(t.spare); n > 0 {
		a, t.spare = t.spare[n-1], t.spare[:n-1]
	} else {
		a = new(asker)
	}
	t.turn++
	*a = asker{addr: addr, turn: t.turn}
	t.sources[addr] = a
	return a
}

// leave forgets a source that has no questions.
func (t *turns) leave(a *asker) {
	const maxSpare = 64
	if a.first != nil || a.asking > 0 {
		return
	}
	delete(t.sources, a.addr)
	if len(t.spare) < maxSpare {
		t.spare = append(t.spare, a)
	}
}

// askerHeap has the source first whose turn it is.
type askerHeap []*asker

func (h askerHeap) Len() int { return len(h) }

func (h askerHeap) Less(i, j int) bool {
	if a, b := h[i].asking, h[j].asking; a != b {
		return a < b
	}
	return h[i].turn < h[j].turn
}

func (h askerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

func (h *askerHeap) Push(x any) {
	a := x.(*asker)
	a.place = len(*h)
	*h = append(*h, a)
}

func (h *askerHeap) Pop() any {
	last := len(*h) - 1
	a := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return a
}
