package engine

import (
	"slices"

	"github.com/dtlsserver/dtlsserver/internal/wire"
)

const (
	// maxClientHello bounds a ClientHello, and maxClientKeyExchange a
	// ClientKeyExchange whose identity is not allowed to be longer.
	maxClientHello       = 16 << 10
	maxClientKeyExchange = 2 << 10
	maxCertificateVerify = 2 << 10
	// maxPieces bounds how many separate pieces of a message are kept track
	// of. Fragments that come in order make one.
	maxPieces = 32
)

// piece is a run of bytes that has been received.
type piece struct{ start, end int }

// reassembler puts the fragments of one message together (RFC 6347 section
// 4.2.3). They may come in any order, repeat and overlap. Its memory is bounded
// before it is taken, by the length that the fragments declare. They must agree
// in it: one that does not begins anew.
type reassembler struct {
	typ    wire.HandshakeType
	body   []byte  // nil: no fragment yet
	pieces []piece // sorted, apart from each other
	whole  bool    // the message is there, and waits for its turn
	// reserve is asked before memory is taken, and told with a negative
	// number when it is given back. Nil: there is no bound for all.
	reserve func(bytes int) bool
}

// take sets memory aside for the message, if there is any left.
func (a *reassembler) take(length int) bool {
	if a.reserve != nil && !a.reserve(length) {
		return false
	}
	a.body = make([]byte, length)
	return true
}

// reset forgets the message and gives its memory back.
func (a *reassembler) reset() {
	if a.reserve != nil && a.body != nil {
		a.reserve(-len(a.body))
	}
	*a = reassembler{reserve: a.reserve}
}

// add takes a fragment and returns the body of the message once it is whole,
// in which case it starts anew.
func (a *reassembler) add(f wire.Fragment, maxLen int) (body []byte, drop Drop) {
	switch {
	case int(f.Length) > maxLen:
		return nil, DropLimit
	case f.Whole(): // also when fragments of it, or of a forgery, came before
		a.reset()
		return f.Body, DropNone
	case len(f.Body) == 0:
		return nil, DropMalformed
	case a.whole:
		return nil, DropRepeated
	}
	if a.body != nil && (f.Type != a.typ || int(f.Length) != len(a.body)) {
		// One of the two is forged. The genuine message will be sent again, so
		// the newer one is followed.
		a.reset()
	}
	if a.body == nil {
		if !a.take(int(f.Length)) {
			return nil, DropLimit
		}
		a.typ = f.Type
	}
	start := int(f.Offset)
	if !a.mark(piece{start, start + len(f.Body)}) {
		return nil, DropLimit
	}
	copy(a.body[start:], f.Body)
	if a.pieces[0] != (piece{0, len(a.body)}) {
		return nil, DropNone
	}
	body = a.body
	a.reset()
	return body, DropNone
}

// keep keeps a message that came before its turn.
func (a *reassembler) keep(t wire.HandshakeType, body []byte) Drop {
	a.reset()
	if !a.take(len(body)) {
		return DropLimit
	}
	copy(a.body, body)
	a.typ, a.whole = t, true
	return DropNone
}

// kept returns the message that was kept, or nil.
func (a *reassembler) kept() (wire.HandshakeType, []byte) {
	if !a.whole {
		return 0, nil
	}
	return a.typ, a.body
}

// mark adds a piece, joined with all that it touches, unless that would make
// too many.
func (a *reassembler) mark(p piece) bool {
	from := 0
	for from < len(a.pieces) && a.pieces[from].end < p.start {
		from++
	}
	to := from
	for to < len(a.pieces) && a.pieces[to].start <= p.end {
		p.start = min(p.start, a.pieces[to].start)
		p.end = max(p.end, a.pieces[to].end)
		to++
	}
	if from == to && len(a.pieces) == maxPieces {
		return false
	}
	a.pieces = slices.Replace(a.pieces, from, to, p)
	return true
}
