package engine

import (
	"github.com/dtlsserver/dtlsserver/internal/record"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// message is one message of a flight, unfragmented, without its header.
type message struct {
	typ   wire.HandshakeType
	seq   uint16
	epoch uint16
	body  []byte
	// changeCipherSpec marks the message that is none: a record of its own
	// content type.
	changeCipherSpec bool
}

// flight is what the server last said, kept to be said again. Each time its
// records get new sequence numbers, so no nonce is ever used twice.
type flight struct {
	messages []message
	next     int  // the message that goes out next
	offset   int  // and from where in its body
	held     bool // it is not whole yet
}

func (f *flight) rewind() { f.next, f.offset = 0, 0 }

// Sending reports whether AppendDatagram has something to append.
func (e *Engine) Sending() bool {
	return e.alertPending || !e.flight.held && e.flight.next < len(e.flight.messages)
}

// AppendDatagram appends the next datagram to send to dst, or nothing when
// there is none.
func (e *Engine) AppendDatagram(dst []byte) []byte {
	start := len(dst)
	out, err := e.appendFlight(dst)
	if err == nil && len(out) == start && e.alertPending {
		e.alertPending = false
		alert := []byte{byte(e.alert.Level), byte(e.alert.Description)}
		out, err = e.sealerOf(e.alertEpoch).Append(out, wire.ContentAlert, alert)
		if e.state == closed {
			e.sealer = nil // with its key: that was the last record
		}
	}
	if err != nil {
		// A client may begin with the last sequence number there is.
		e.alertPending = false
		if e.state != closed {
			e.close(Event{Cause: CauseExhausted})
		}
		return dst
	}
	return out
}

// appendFlight appends as much of the flight as one datagram holds. A message
// that fits a datagram of its own is not split to fill the one before.
func (e *Engine) appendFlight(dst []byte) ([]byte, error) {
	f := &e.flight
	start := len(dst)
	var err error
	if f.held {
		return dst, nil
	}
	for f.next < len(f.messages) && err == nil {
		m := &f.messages[f.next]
		sealer := e.sealerOf(m.epoch)
		room := e.cfg.MTU - (len(dst) - start) - sealer.Overhead()
		if m.changeCipherSpec {
			if room < 1 {
				break
			}
			dst, err = sealer.Append(dst, wire.ContentChangeCipherSpec, []byte{1})
			f.next++
			continue
		}
		limit := e.limit
		if m.epoch == 0 {
			limit = e.plainLimit
		}
		room = min(room, limit) - wire.HandshakeHeaderLen
		left := len(m.body) - f.offset
		if left > room && len(dst) > start {
			const worthwhile = 64 // bytes of a fragment
			fits := left <= min(e.cfg.MTU-sealer.Overhead(), limit)-wire.HandshakeHeaderLen
			if fits || room < worthwhile {
				break
			}
		}
		n := min(left, room)
		var header [wire.HandshakeHeaderLen]byte
		wire.AppendHandshakeHeader(header[:0], m.typ, len(m.body), m.seq, f.offset, n)
		dst, err = sealer.AppendMessage(dst, header[:], m.body[f.offset:f.offset+n])
		if f.offset += n; f.offset == len(m.body) {
			f.next, f.offset = f.next+1, 0
		}
	}
	return dst, err
}

func (e *Engine) sealerOf(epoch uint16) *record.Sealer {
	if epoch == 0 {
		return e.plain
	}
	return e.sealer
}
