package engine

import (
	"math/bits"

	"github.com/dtlsserver/dtlsserver/internal/wire"
)

const (
	// maxClientKeyExchange bounds a ClientKeyExchange whose identity is not allowed
	// to be longer.
	maxClientKeyExchange = 2 << 10
	maxCertificateVerify = 2 << 10
	// minRoom is the least memory in bytes that a message in parts takes.
	minRoom = 128
)

// Budget grants one engine the memory for messages that come in parts and for
// the client's certificates. With Config.AskVerdict, what the parsed certificates
// hold is reserved from the client's Finished on: whoever gives the verdict may
// hold them that long.
type Budget interface {
	// Reserve is asked before bytes are set aside, and called with a negative
	// number when they are given back, which it must allow.
	Reserve(bytes int) bool
}

// reassembler puts the fragments of one message together (RFC 6347 section
// 4.2.3). They may come in any order, repeat and overlap. They must agree in
// the length that they declare: one that does not begins the message anew, in
// the memory that there is.
//
// Memory is taken up to the last byte that has come, and a bit for each byte
// that is declared. It grows by doubling, so that whoever declares one length
// after the other makes it grow a few times only.
type reassembler struct {
	typ    wire.HandshakeType
	length int      // that the message declares; zero: no fragment yet
	left   int      // bytes that have not come
	body   []byte   // as far as bytes have come
	came   []uint64 // a bit for each byte
	whole  bool     // the message is there, and waits for its turn
	// restarted is the datagram in which the message last began anew.
	restarted uint64
	budget    Budget // nil: there is no bound
}

// reset forgets the message and gives its memory back.
func (a *reassembler) reset() {
	if n := a.held(); n > 0 && a.budget != nil {
		a.budget.Reserve(-n)
	}
	*a = reassembler{budget: a.budget}
}

// forget forgets the message and keeps its memory.
func (a *reassembler) forget() {
	a.length, a.whole = 0, false
	a.body, a.came = a.body[:0], a.came[:0]
}

// held is how many bytes are set aside.
func (a *reassembler) held() int { return cap(a.body) + 8*cap(a.came) }

// take sets memory aside for the first end bytes of a message of length bytes.
func (a *reassembler) take(length, end int) bool {
	words, room := cap(a.came), cap(a.body)
	if n := (length + 63) / 64; n > words {
		words = roundUp(n)
	}
	if end > room {
		room = roundUp(max(end, minRoom))
	}
	more := 8*(words-cap(a.came)) + room - cap(a.body)
	if more > 0 && a.budget != nil && !a.budget.Reserve(more) {
		return false
	}
	if words > cap(a.came) {
		a.came = append(make([]uint64, 0, words), a.came...)
	}
	if room > cap(a.body) {
		a.body = append(make([]byte, 0, room), a.body...)
	}
	return true
}

// begin begins a message, for which memory is set aside.
func (a *reassembler) begin(t wire.HandshakeType, length int) {
	a.came = a.came[:(length+63)/64]
	clear(a.came)
	a.typ, a.length, a.left, a.body = t, length, length, a.body[:0]
}

// roundUp returns the least power of two that is not below n.
func roundUp(n int) int { return 1 << bits.Len(uint(n-1)) }

// add takes a fragment and returns the body of the message once it is whole,
// which is good until the next call.
func (a *reassembler) add(f wire.Fragment, maxLen int, datagram uint64) (body []byte, drop Drop) {
	switch {
	case int(f.Length) > maxLen:
		return nil, DropLimit
	case f.Whole(): // also when fragments of it, or of a forgery, came before
		a.length, a.whole = 0, false
		return f.Body, DropNone
	case len(f.Body) == 0:
		return nil, DropMalformed
	case a.whole:
		return nil, DropRepeated
	}
	start := int(f.Offset)
	end := start + len(f.Body)
	another := f.Type != a.typ || int(f.Length) != a.length
	if another && a.length != 0 && a.restarted == datagram || !a.take(int(f.Length), end) {
		return nil, DropLimit
	}
	if another {
		// If one has begun, one of the two is forged. The genuine message will be
		// sent again, so the newer one is followed, though not more than once
		// in a datagram: that is work for whoever sends it.
		if a.length != 0 {
			a.restarted = datagram
		}
		a.begin(f.Type, int(f.Length))
	}
	if end > len(a.body) {
		a.body = a.body[:end]
	}
	copy(a.body[start:], f.Body)
	a.mark(start, end)
	if a.left > 0 {
		return nil, DropNone
	}
	a.length = 0
	return a.body, DropNone
}

// mark notes that the bytes from start on and before end have come.
func (a *reassembler) mark(start, end int) {
	for i := start / 64; i <= (end-1)/64; i++ {
		mask := ^uint64(0)
		if from := start - 64*i; from > 0 {
			mask <<= from
		}
		if to := end - 64*i; to < 64 {
			mask &= 1<<to - 1
		}
		a.left -= bits.OnesCount64(mask &^ a.came[i])
		a.came[i] |= mask
	}
}

// beginning returns what has come of a message that is not whole, up to the first
// gap.
func (a *reassembler) beginning() []byte {
	for i, came := range a.came {
		if n := 64*i + bits.TrailingZeros64(^came); n < 64*(i+1) {
			return a.body[:n]
		}
	}
	return a.body
}

// keep keeps a message that came before its turn.
func (a *reassembler) keep(t wire.HandshakeType, body []byte) Drop {
	if !a.take(0, len(body)) {
		return DropLimit
	}
	a.body = append(a.body[:0], body...) // which may be the same
	a.typ, a.length, a.whole = t, 0, true
	return DropNone
}

// kept returns the message that was kept, if there is one.
func (a *reassembler) kept() (t wire.HandshakeType, body []byte, ok bool) {
	return a.typ, a.body, a.whole
}
