package engine

import (
	"github.com/dtlsserver/dtlsserver/internal/record"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// flight is what the server last sent, kept for retransmission. Each time its
// records get new sequence numbers, so no nonce is ever used twice.
type flight struct {
	// bytes are the messages, each behind its epoch, in a byte, and the header that
	// it has unfragmented (RFC 6347 section 4.2.6).
	bytes  []byte
	next   uint32 // where in bytes the message is that goes out next
	offset uint32 // and how many bytes of its body have gone out
	held   bool   // it is not whole yet
}

// changeCipherSpec stands in a flight for the one message that is none, but a
// record of its own content type. No message has this type.
const changeCipherSpec wire.HandshakeType = 255

var changeCipherSpecBody = []byte{1} // RFC 5246 section 7.1

// message is one of a flight's, with the epoch that it goes out in.
type message struct {
	wire.Fragment
	epoch uint16
}

func (f *flight) rewind() { f.next, f.offset = 0, 0 }

// leaves reports whether some of the flight is to go out.
func (f *flight) leaves() bool { return !f.held && int(f.next) < len(f.bytes) }

// add adds a message, whose body the function appends; if nil, it has none. It
// returns the message behind its header.
func (f *flight) add(epoch uint8, t wire.HandshakeType, seq uint16, body func([]byte) []byte) []byte {
	f.bytes = append(f.bytes, epoch)
	start := len(f.bytes)
	f.bytes = append(f.bytes, make([]byte, wire.HandshakeHeaderLen)...)
	if body != nil {
		f.bytes = body(f.bytes)
	}
	length := len(f.bytes) - start - wire.HandshakeHeaderLen
	wire.AppendHandshakeHeader(f.bytes[start:start], t, length, seq, 0, length)
	return f.bytes[start:]
}

// Sending reports whether AppendDatagram has something to append.
func (e *Engine) Sending() bool {
	return e.alertPending || e.flight.leaves()
}

// AppendDatagram appends the next datagram to send to dst, or nothing when
// there is none.
func (e *Engine) AppendDatagram(dst []byte) []byte {
	start := len(dst)
	out, err := e.appendFlight(dst)
	if err == nil && len(out) == start && e.alertPending {
		e.alertPending = false
		alert := []byte{byte(e.alert.Level), byte(e.alert.Description)}
		out, err = e.appendRecord(out, e.alertEpoch, wire.ContentAlert, nil, alert)
		if e.state == closed {
			e.flight, e.sealer = flight{}, record.Sealer{} // with its key: that was the last record
		}
	}
	if err != nil {
		// A client may begin with the last sequence number there is.
		e.alertPending = false
		if e.state != closed {
			e.close(Event{Cause: CauseExhausted})
		}
		e.flight, e.sealer = flight{}, record.Sealer{}
		return dst
	}
	return out
}

// appendFlight appends as much of the flight as one datagram holds.
func (e *Engine) appendFlight(dst []byte) ([]byte, error) {
	f := &e.flight
	start := len(dst)
	var err error
	if f.held {
		return dst, nil
	}
	if f.next == 0 && f.offset == 0 {
		e.longest = 0
	}
	for int(f.next) < len(f.bytes) && err == nil {
		at, from := int(f.next), int(f.offset)
		m, rest := f.message(at)
		n, fits := e.cut(m, at, from, len(dst)-start)
		if !fits {
			break
		}
		if m.Type == changeCipherSpec {
			dst, err = e.appendRecord(dst, m.epoch, wire.ContentChangeCipherSpec, nil, changeCipherSpecBody)
		} else {
			if e.backwards {
				from = len(m.Body) - from - n
			}
			var header [wire.HandshakeHeaderLen]byte
			wire.AppendHandshakeHeader(header[:0], m.Type, len(m.Body), m.MessageSeq, from, n)
			dst, err = e.appendRecord(dst, m.epoch, wire.ContentHandshake, header[:], m.Body[from:from+n])
		}
		if f.offset += uint32(n); int(f.offset) == len(m.Body) {
			f.next, f.offset = uint32(len(f.bytes)-len(rest)), 0
		}
	}
	e.longest = max(e.longest, uint16(len(dst)-start))
	return dst, err
}

// message returns the message at a place in bytes, and what follows it.
func (f *flight) message(at int) (m message, rest []byte) {
	fragment, rest, ok := wire.ParseFragment(f.bytes[at+1:])
	if !ok {
		panic("engine: a flight that add has not made")
	}
	return message{fragment, uint16(f.bytes[at])}, rest
}

// appendRecord appends a record of an epoch.
func (e *Engine) appendRecord(dst []byte, epoch uint16, t wire.ContentType, head, content []byte) ([]byte, error) {
	if epoch == 0 {
		return e.plain.Append(dst, t, head, content)
	}
	return e.sealer.Append(dst, e.peerCID(), t, head, content)
}

// overhead is by how many bytes a record of an epoch is longer than its content.
func (e *Engine) overhead(epoch uint16) int {
	if epoch == 0 {
		return e.plain.Overhead()
	}
	return e.sealer.Overhead(e.peerCID())
}
