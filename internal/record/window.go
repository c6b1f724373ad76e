package record

// windowSize is how far a record may lag behind the newest (RFC 6347 section
// 4.1.2.6).
const windowSize = 64

// Window is the replay window of one epoch. The zero value has seen nothing.
type Window struct {
	next uint64 // one past the highest sequence number marked
	seen uint64 // bit i: next-1-i was marked
}

// Fresh reports whether a record with the sequence number may still be
// accepted. It changes nothing: an unauthenticated record has no say.
func (w *Window) Fresh(seq uint64) bool {
	if seq >= w.next {
		return true
	}
	lag := w.next - 1 - seq
	return lag < windowSize && w.seen&(1<<lag) == 0
}

// Mark notes that a record was accepted.
func (w *Window) Mark(seq uint64) {
	if seq < w.next {
		w.seen |= 1 << (w.next - 1 - seq)
		return
	}
	w.seen = w.seen<<(seq-w.next+1) | 1
	w.next = seq + 1
}
