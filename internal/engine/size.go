package engine

import "github.com/dtlsserver/dtlsserver/internal/wire"

// How large the datagrams of a flight are. A flight that was lost is retransmitted in one
// record a datagram, since some clients take no more of one. When that has no answer
// either, the path may be one that loses long datagrams without a word, and the longest
// get smaller (RFC 6347 section 4.1.1.1). What the client has answered stays the size
// until the association ends.

// sameSize is how often a flight is retransmitted in records of the same size: for a loss
// that is just that, smaller ones are only more of them to be lost.
const sameSize = 1

// sizes are those that are tried below Config.MTU, in bytes of UDP payload: what
// IPv6 carries, what each host with IPv4 must take (RFC 1122 section 3.3.2), and
// less than any path of today needs.
var sizes = [...]uint16{1200, 548, 256}

// leastPiece is how many bytes of a message go into a datagram of their own, though it
// gets longer than it should. A client's connection ID may leave no room for any.
const leastPiece = wire.VerifyDataLen

// mtu is the size in bytes of the largest datagram.
func (e *Engine) mtu() int {
	if e.size == 0 {
		return e.cfg.MTU
	}
	return int(e.size)
}

// shrink takes the next size that makes a datagram of n bytes shorter, and at last one
// record a datagram. It reports whether there is one.
func (e *Engine) shrink(n int) bool {
	for _, size := range sizes {
		if int(size) < min(n, e.mtu()) {
			e.size = size
			return true
		}
	}
	last := !e.single
	e.single = true
	return last
}

// TooLong tells the engine that the system has not sent a datagram of n bytes to
// the client for its length. If it was one of the flight, that is retransmitted in
// smaller ones, at once.
func (e *Engine) TooLong(n int) {
	if len(e.flight.bytes) == 0 || n != int(e.longest) || !e.shrink(n) {
		return
	}
	e.backwards = false // nothing of it has left
	e.flight.rewind()
}

// cut returns how many bytes of a message's body go into the next record, from an
// offset on, when the datagram has used bytes already. It fails when the record
// begins another datagram. The message stands at a place in the flight.
func (e *Engine) cut(m message, at, offset, used int) (n int, fits bool) {
	if e.size == 0 && !e.single {
		return e.cutLarge(m, offset, used)
	}
	n = e.recut(m, at, offset)
	return n, used == 0 || !e.single && used+e.recordLen(m, n) <= e.mtu()
}

// recordLen is the length of a record with n bytes of a message's body.
func (e *Engine) recordLen(m message, n int) int {
	if m.Type == changeCipherSpec {
		return e.overhead(m.epoch) + len(changeCipherSpecBody)
	}
	return e.overhead(m.epoch) + wire.HandshakeHeaderLen + n
}

// most is how many bytes of a message's body one record holds in a datagram of so
// many bytes.
func (e *Engine) most(m message, size int) int {
	limit := e.limit
	if m.epoch == 0 {
		limit = e.plainLimit
	}
	return min(size-e.overhead(m.epoch), int(limit)) - wire.HandshakeHeaderLen
}

// cutLarge is cut for datagrams of Config.MTU, which are filled. A message that
// fits a datagram of its own is not split to fill the one before.
func (e *Engine) cutLarge(m message, offset, used int) (n int, fits bool) {
	if m.Type == changeCipherSpec {
		return 0, used+e.recordLen(m, 0) <= e.cfg.MTU
	}
	left, room := len(m.Body)-offset, e.most(m, e.cfg.MTU-used)
	if used == 0 {
		room = max(room, leastPiece)
	}
	if left > room && used > 0 {
		const worthwhile = 64 // bytes of a fragment
		if left <= e.most(m, e.cfg.MTU) || room < worthwhile {
			return 0, false
		}
	}
	return min(left, room), true
}

// recut is cut for smaller datagrams. Where a message has been cut before, in larger
// ones, it is cut again: there are clients, pion's among them, that never put
// together what was cut otherwise at first and has come in part.
func (e *Engine) recut(m message, at, offset int) (n int) {
	if e.backwards && offset < len(m.Body) {
		offset = len(m.Body) - offset - 1 // the last byte of the piece
	}
	from, to := e.largePiece(at, offset)
	for _, size := range sizes {
		if e.size == 0 || int(size) >= e.cfg.MTU || size < e.size {
			continue
		}
		if most := max(e.most(m, int(size)), leastPiece); to-from > most {
			from += (offset - from) / most * most
			to = min(to, from+most)
		}
	}
	return to - from
}

// largePiece returns from where to where in its body the piece of a message reaches
// that cutLarge makes of it and that holds the byte at the offset.
func (e *Engine) largePiece(at, offset int) (from, to int) {
	f := &e.flight
	used := 0
	for next := 0; ; {
		m, rest := f.message(next)
		n, fits := e.cutLarge(m, from, used)
		if !fits {
			used = 0
			continue
		}
		to = from + n
		if next == at && (offset < to || to == len(m.Body)) {
			return from, to
		}
		used += e.recordLen(m, n)
		if from = to; to == len(m.Body) {
			next, from = len(f.bytes)-len(rest), 0
		}
	}
}
