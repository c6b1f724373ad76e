// Package timers holds many deadlines in one structure, so that none costs a
// goroutine or a timer of the runtime. It never asks for the time.
package timers

import (
	"container/heap"
	"time"
)

// Timer is one deadline of its owner. It belongs to at most one Queue and is
// embedded in what it times. The zero Timer is not set.
type Timer[T any] struct {
	Owner T
	at    time.Time
	place int // in the heap, from 1; zero: not set
}

// Queue orders timers by deadline. The zero Queue is empty. It is not safe for
// concurrent use.
type Queue[T any] struct{ heap timerHeap[T] }

// Set sets t to the deadline, or moves it there.
func (q *Queue[T]) Set(t *Timer[T], at time.Time) {
	t.at = at
	if t.place == 0 {
		heap.Push(&q.heap, t)
	} else {
		heap.Fix(&q.heap, t.place-1)
	}
}

// SetNoLater is Set, but leaves alone a timer that is already set to the
// deadline or an earlier one. Deadlines that keep moving on thus cost nothing:
// when the timer comes up, its owner says how much is left.
func (q *Queue[T]) SetNoLater(t *Timer[T], at time.Time) {
	if t.place == 0 || at.Before(t.at) {
		q.Set(t, at)
	}
}

// Unset removes t if it is set.
func (q *Queue[T]) Unset(t *Timer[T]) {
	if t.place != 0 {
		heap.Remove(&q.heap, t.place-1)
	}
}

// Next returns the earliest deadline.
func (q *Queue[T]) Next() (at time.Time, ok bool) {
	if len(q.heap) == 0 {
		return time.Time{}, false
	}
	return q.heap[0].at, true
}

// Expire removes one timer whose deadline is not after now and returns its
// owner.
func (q *Queue[T]) Expire(now time.Time) (owner T, ok bool) {
	if len(q.heap) == 0 || now.Before(q.heap[0].at) {
		return owner, false
	}
	return heap.Pop(&q.heap).(*Timer[T]).Owner, true
}

// Len is the number of timers that are set.
func (q *Queue[T]) Len() int { return len(q.heap) }

type timerHeap[T any] []*Timer[T]

func (h timerHeap[T]) Len() int           { return len(h) }
func (h timerHeap[T]) Less(i, j int) bool { return h[i].at.Before(h[j].at) }

func (h timerHeap[T]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i+1, j+1
}

func (h *timerHeap[T]) Push(x any) {
	t := x.(*Timer[T])
	*h = append(*h, t)
	t.place = len(*h)
}

func (h *timerHeap[T]) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	t.place = 0
	return t
}
