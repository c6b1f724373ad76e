package sim

import (
	"container/heap"
	"time"
)

// queue holds what will happen, in order of time, and of several at one time
// in the order in which they were put in.
type queue struct {
	events eventHeap
	put    int
}

// event is a thing that will happen. Times are counted from the beginning of
// the world.
type event struct {
	at     time.Duration
	number int
	what   func()
}

// cancel takes the event back. It may be nil.
func (e *event) cancel() {
	if e != nil {
		e.what = nil
	}
}

func (q *queue) add(at time.Duration, what func()) *event {
	q.put++
	e := &event{at, q.put, what}
	heap.Push(&q.events, e)
	return e
}

// next returns the next event without taking it out, or nil.
func (q *queue) next() *event {
	for len(q.events) > 0 {
		if e := q.events[0]; e.what != nil {
			return e
		}
		heap.Pop(&q.events)
	}
	return nil
}

func (q *queue) take() { heap.Pop(&q.events) }

type eventHeap []*event

func (h eventHeap) Len() int { return len(h) }

func (h eventHeap) Less(i, j int) bool {
	if h[i].at != h[j].at {
		return h[i].at < h[j].at
	}
	return h[i].number < h[j].number
}

func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)   { *h = append(*h, x.(*event)) }

func (h *eventHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return e
}
