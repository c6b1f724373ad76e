package dtlsserver

import (
	"container/list"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// outbox holds what is still to be delivered to the handler, in order. Anybody may
// put something in, also while holding a session's lock; the loop alone takes
// it out and holds no lock while it calls the handler.
type outbox struct {
	left atomic.Int32 // items that are not taken out yet

	mu    sync.Mutex // guards all following
	items []item
	taken int // items already taken out
	fold  folder
}

// item is what the loop has to do for a handler or for a session. Both of its
// slices are good until the loop receives the next record, and the loop empties the
// outbox before it does.
type item struct {
	kind       itemKind
	event      *Event
	session    *Session
	cipherText []byte
	plainText  []byte
}

type itemKind uint8

const (
	itemEvent  itemKind = iota // its method of the handler is called
	itemData                   // DatagramReceived is called
	itemGone                   // the loop lets go of the session
	itemSooner                 // the session's deadline may have come nearer
)

// put adds an event, folded if its kind is.
func (o *outbox) put(ev Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	ev.Count = max(ev.Count, 1)
	if kinds[ev.Kind].fold != foldNot && !o.fold.first(&ev) {
		return
	}
	kept := new(Event) // only now, since most are folded away
	*kept = ev
	o.putLocked(item{kind: itemEvent, event: kept})
}

// putItem adds what is no Event.
func (o *outbox) putItem(it item) {
	o.mu.Lock()
	o.putLocked(it)
	o.mu.Unlock()
}

func (o *outbox) putLocked(it item) {
	o.items = append(o.items, it)
	o.left.Add(1)
}

// take removes the first item.
func (o *outbox) take() (it item, ok bool) {
	if !o.waiting() {
		return item{}, false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	it = o.items[o.taken]
	o.items[o.taken] = item{}
	if o.taken++; o.taken == len(o.items) {
		o.items, o.taken = o.items[:0], 0
	}
	o.left.Add(-1)
	return it, true
}

// waiting reports whether there is an item.
func (o *outbox) waiting() bool { return o.left.Load() > 0 }

// flushing says which folded events leave their folds.
type flushing bool

const (
	onlyDue    flushing = false
	everything flushing = true
)

// flush adds the folded events that are due by now, or all of them, and says
// when it must be called again.
func (o *outbox) flush(now time.Time, which flushing) (next time.Time, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		ev, next, ok := o.fold.due(now, which)
		if ev == nil {
			return next, ok
		}
		o.putLocked(item{kind: itemEvent, event: ev})
	}
}

const (
	// foldWindow is the least time between two events of one kind and source.
	foldWindow = time.Second
	// maxFolds bounds how many kinds and sources are kept apart. Beyond it,
	// events fold by kind alone.
	maxFolds = 256
)

// foldBy says which events of a kind are folded with each other.
type foldBy uint8

const (
	foldNot    foldBy = iota
	foldSource        // those of one source: the address is proven
	foldServer        // all: anybody can have sent what they tell of
)

// folder makes many events into few. For each kind and source it remembers
// the events of the current window after the first.
type folder struct {
	windows map[foldKey]*list.Element
	order   list.List // of *foldWindowState, by end, the earliest first
}

type foldKey struct {
	kind    EventKind
	variant uint16
	source  netip.Addr // zero: all sources together
}

type foldWindowState struct {
	key     foldKey
	end     time.Time
	pending Event // Count zero: none
}

// first reports whether ev opens a window, so that it is delivered at once.
// Otherwise ev is added to those pending, of which the latest is kept.
func (f *folder) first(ev *Event) bool {
	key := foldKey{kind: ev.Kind, variant: ev.variant}
	if kinds[ev.Kind].fold == foldSource {
		key.source = sourceOf(ev.Remote.Addr())
	}
	w, ok := f.windows[key]
	if !ok && len(f.windows) >= maxFolds {
		key.source = netip.Addr{}
		w, ok = f.windows[key]
	}
	if ok {
		state := w.Value.(*foldWindowState)
		count := state.pending.Count + ev.Count
		state.pending = *ev
		state.pending.Count = count
		return false
	}
	if f.windows == nil {
		f.windows = make(map[foldKey]*list.Element)
	}
	f.windows[key] = f.order.PushBack(&foldWindowState{key: key, end: ev.Time.Add(foldWindow)})
	return true
}

// due ends windows that are over, or all, and returns the first event that was
// pending in one, which opens the next window.
func (f *folder) due(now time.Time, which flushing) (ev *Event, next time.Time, ok bool) {
	for e := f.order.Front(); e != nil; e = f.order.Front() {
		w := e.Value.(*foldWindowState)
		if which == onlyDue && now.Before(w.end) {
			return nil, w.end, true
		}
		if w.pending.Count == 0 {
			f.order.Remove(e)
			delete(f.windows, w.key)
			continue
		}
		out := w.pending
		w.pending = Event{}
		w.end = now.Add(foldWindow)
		f.order.MoveToBack(e)
		return &out, time.Time{}, true
	}
	return nil, time.Time{}, false
}
