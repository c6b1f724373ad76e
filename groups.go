package dtlsserver

// Rings and heaps whose links lie in what they hold, so that nothing is
// allocated for a place in one.

// ring is the place of a T in a ring, which is known by its first member. The
// zero ring is in none.
type ring[T any] struct{ next, prev *T }

// at says which of its rings a T is in here.
type at[T any] func(*T) *ring[T]

// push puts x last into the ring.
func (at at[T]) push(first **T, x *T) {
	if *first == nil {
		*first = x
		*at(x) = ring[T]{x, x}
		return
	}
	last := at(*first).prev
	*at(x) = ring[T]{*first, last}
	at(last).next, at(*first).prev = x, x
}

// remove takes x, which must be in it, out of the ring.
func (at at[T]) remove(first **T, x *T) {
	r := at(x)
	switch {
	case r.next == x:
		*first = nil
	case *first == x:
		*first = r.next
	}
	at(r.next).prev, at(r.prev).next = r.prev, r.next
	*r = ring[T]{}
}

// ranked is what a heap holds.
type ranked[T any] interface {
	before(T) bool
	// place is where it stands in the heap, from 1; zero: it is not in it.
	place() *int32
}

// ranking is a heap: its first is before all others.
type ranking[T ranked[T]] []T

// set puts x where it belongs, whether it is in the heap or not.
func (h *ranking[T]) set(x T) {
	if *x.place() == 0 {
		*h = append(*h, x)
		*x.place() = int32(len(*h))
	}
	h.fix(int(*x.place()) - 1)
}

// unset takes x out of the heap if it is in it.
func (h *ranking[T]) unset(x T) {
	i, last := int(*x.place())-1, len(*h)-1
	if i < 0 {
		return
	}
	var none T
	*x.place() = 0
	(*h)[i] = (*h)[last]
	(*h)[last] = none
	*h = (*h)[:last]
	if i < last {
		*(*h)[i].place() = int32(i + 1)
		h.fix(i)
	}
}

// fix puts the i-th where it belongs.
func (h ranking[T]) fix(i int) {
	swap := func(j int) {
		h[i], h[j] = h[j], h[i]
		*h[i].place(), *h[j].place() = int32(i+1), int32(j+1)
		i = j
	}
	for i > 0 && h[i].before(h[(i-1)/2]) {
		swap((i - 1) / 2)
	}
	for {
		first := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(h); c++ {
			if h[c].before(h[first]) {
				first = c
			}
		}
		if first == i {
			return
		}
		swap(first)
	}
}
