// Package timers holds many deadlines in one structure, so that none costs a
// goroutine or a timer of the runtime. It never asks for the time.
package timers

import "time"

// Timer is one deadline of its owner. It belongs to at most one Queue and is
// embedded in what it times. The zero Timer is not set.
type Timer[T any] struct {
	Owner T
	place int // in the heap, from 1; zero: not set
}

// Queue orders timers by deadline. The zero Queue is empty. It is not safe for
// concurrent use.
//
// It is a heap of four children a node. The deadlines stand in the heap itself,
// so that to compare those of a node's children is to look at one line of the
// processor's cache, however many timers there are.
type Queue[T any] struct {
	base time.Time // what deadlines are counted from
	heap []entry[T]
}

type entry[T any] struct {
	at    time.Duration // since base
	timer *Timer[T]
}

// Set sets t to the deadline, or moves it there.
func (q *Queue[T]) Set(t *Timer[T], at time.Time) {
	if q.base.IsZero() {
		q.base = at
	}
	e := entry[T]{at.Sub(q.base), t}
	if t.place == 0 {
		q.heap = append(q.heap, e)
		t.place = len(q.heap)
	}
	q.fix(t.place-1, e)
}

// SetNoLater is Set, but leaves alone a timer that is already set to the
// deadline or an earlier one. Deadlines that keep moving on thus cost nothing:
// when the timer comes up, its owner says how much is left.
func (q *Queue[T]) SetNoLater(t *Timer[T], at time.Time) {
	if t.place == 0 || at.Sub(q.base) < q.heap[t.place-1].at {
		q.Set(t, at)
	}
}

// Unset removes t if it is set.
func (q *Queue[T]) Unset(t *Timer[T]) {
	if t.place == 0 {
		return
	}
	i, last := t.place-1, len(q.heap)-1
	t.place = 0
	e := q.heap[last]
	q.heap[last] = entry[T]{}
	q.heap = q.heap[:last]
	if i < last {
		q.fix(i, e)
	}
}

// Next returns the earliest deadline.
func (q *Queue[T]) Next() (at time.Time, ok bool) {
	if len(q.heap) == 0 {
		return time.Time{}, false
	}
	return q.base.Add(q.heap[0].at), true
}

// Expire removes one timer whose deadline is not after now and returns its
// owner.
func (q *Queue[T]) Expire(now time.Time) (owner T, ok bool) {
	if len(q.heap) == 0 || now.Sub(q.base) < q.heap[0].at {
		return owner, false
	}
	t := q.heap[0].timer
	q.Unset(t)
	return t.Owner, true
}

// Len is the number of timers that are set.
func (q *Queue[T]) Len() int { return len(q.heap) }

// children is how many a node of the heap has.
const children = 4

// fix puts e where it belongs, given that the i-th place is free.
func (q *Queue[T]) fix(i int, e entry[T]) {
	for i > 0 {
		parent := (i - 1) / children
		if q.heap[parent].at <= e.at {
			break
		}
		q.put(i, q.heap[parent])
		i = parent
	}
	for {
		first := i*children + 1
		if first >= len(q.heap) {
			break
		}
		least := first
		for c := first + 1; c < min(first+children, len(q.heap)); c++ {
			if q.heap[c].at < q.heap[least].at {
				least = c
			}
		}
		if e.at <= q.heap[least].at {
			break
		}
		q.put(i, q.heap[least])
		i = least
	}
	q.put(i, e)
}

func (q *Queue[T]) put(i int, e entry[T]) {
	q.heap[i] = e
	e.timer.place = i + 1
}
