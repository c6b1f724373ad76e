// Package record protects and opens the records of one epoch (RFC 6347 section
// 4.1, RFC 5246 section 6.2.3.3, RFC 9146 sections 4 and 5, RFC 9147 section 4) and
// keeps the replay window (RFC 6347 section 4.1.2.6). It appends to what the caller
// gives it and, but after a rest, allocates nothing.
package record

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// The errors of Sealer and Opener.
var (
	// ErrExhausted: the epoch has no sequence number left. They never wrap,
	// since that would repeat a nonce (RFC 6347 section 4.1).
	ErrExhausted = errors.New("record: sequence numbers exhausted")
	// ErrReplayed: the window has seen the record or is past it.
	ErrReplayed = errors.New("record: replayed")
	// ErrForged: the record does not open with the key of its epoch.
	ErrForged = errors.New("record: authentication failed")
	// ErrNoType: the record has opened, but has no type of its own that may stand
	// behind a connection ID (RFC 9146 section 4).
	ErrNoType = errors.New("record: sealed without a type")
)

// additionalLen is the length of the additional data: epoch and sequence,
// type, version, length.
const additionalLen = 13

// protection is one direction's AEAD with its nonce. The scratch arrays live
// here because what an interface method is given escapes.
type protection struct {
	method     *suite.AEAD // nil: there is no key yet
	aead       cipher.AEAD // nil at rest
	key        [suite.MaxKeyLen]byte
	iv         [suite.NonceLen]byte
	nonce      [suite.NonceLen]byte
	additional [additionalLen]byte
	epoch      uint16 // a Sealer's, here for its place in memory
}

func (p *protection) init(method *suite.AEAD, key, iv []byte) error {
	*p = protection{} // which it stays when there is an error
	if len(key) != method.KeyLen || len(iv) != method.FixedIVLen {
		return errKeyLen
	}
	aead, err := method.New(key)
	if err != nil {
		return err
	}
	p.method, p.aead = method, aead
	copy(p.key[:], key)
	copy(p.iv[:], iv)
	return nil
}

var errKeyLen = errors.New("record: key or IV is not as long as the AEAD's")

// wake makes the AEAD again.
func (p *protection) wake() (err error) {
	p.aead, err = p.method.New(p.key[:p.method.KeyLen])
	return err
}

// Rest lets go of the AEAD, which is most of the memory. The next record that
// is sealed or opens makes it anew.
func (p *protection) Rest() { p.aead = nil }

// Resting reports whether nothing was sealed or opened since Rest.
func (p *protection) Resting() bool { return p.aead == nil }

// setNonce makes the nonce of RFC 5288 section 3, with the epoch and sequence
// number as its explicit part, or that of RFC 7905 section 2.
func (p *protection) setNonce(epochAndSeq uint64) {
	p.nonce = p.iv
	tail := p.nonce[suite.NonceLen-8:]
	binary.BigEndian.PutUint64(tail, binary.BigEndian.Uint64(tail)^epochAndSeq)
}

// setAdditional makes the additional data of RFC 5246 section 6.2.3.3.
func (p *protection) setAdditional(epochAndSeq uint64, t wire.ContentType, version uint16, length int) {
	a := p.additional[:0]
	a = binary.BigEndian.AppendUint64(a, epochAndSeq)
	a = append(a, byte(t))
	a = binary.BigEndian.AppendUint16(a, version)
	binary.BigEndian.AppendUint16(a, uint16(length))
}

// appendAdditionalCID appends the additional data of RFC 9146 section 5.3. It begins
// as that of no other record under the key does.
func appendAdditionalCID(dst []byte, epochAndSeq uint64, version uint16, cid []byte, length int) []byte {
	const placeholder = 1<<64 - 1 // of a sequence number
	dst = binary.BigEndian.AppendUint64(dst, placeholder)
	dst = append(dst, byte(wire.ContentCID), byte(len(cid)), byte(wire.ContentCID))
	dst = binary.BigEndian.AppendUint16(dst, version)
	dst = binary.BigEndian.AppendUint64(dst, epochAndSeq)
	dst = append(dst, cid...)
	return binary.BigEndian.AppendUint16(dst, uint16(length))
}

// behind returns dst with room for n more bytes, and for the additional data of a record
// with a connection ID behind them, which is the second result. An array for it would
// escape, or lie in the Sealer of each association that needs none.
func behind(dst []byte, n int) (grown, additional []byte) {
	const most = 8 + 3 + 2 + 8 + wire.MaxCIDLen + 2
	grown = slices.Grow(dst, n+most)
	return grown, grown[len(dst)+n : len(dst)+n]
}

// Plaintext makes the records of epoch 0 and numbers them, from the number that
// it is.
type Plaintext uint64

// Overhead is by how many bytes a record is longer than its content.
func (p *Plaintext) Overhead() int { return wire.RecordHeaderLen }

// Append is Sealer.Append.
func (p *Plaintext) Append(dst []byte, t wire.ContentType, head, content []byte) ([]byte, error) {
	if *p > wire.MaxSequence {
		return dst, ErrExhausted
	}
	dst = wire.AppendRecordHeader(dst, t, wire.VersionDTLS12, 0, uint64(*p), len(head)+len(content))
	*p++
	return append(append(dst, head...), content...), nil
}

// Sealer makes the records of one epoch with keys, and numbers them. The zero
// Sealer has no key yet.
type Sealer struct {
	protection
	next uint64 // sequence number
}

// Init begins an epoch with keys, which are copied.
func (s *Sealer) Init(method *suite.AEAD, epoch uint16, key, iv []byte) error {
	s.next = 0
	err := s.init(method, key, iv)
	s.epoch = epoch
	return err
}

// Overhead is by how many bytes a record with a connection ID, or with none, which
// is empty, is longer than its content, header included.
func (s *Sealer) Overhead(cid []byte) int {
	n := wire.RecordHeaderLen + s.method.Overhead()
	if len(cid) > 0 {
		n += len(cid) + 1 // the record's own type
	}
	return n
}

// Sealed is how many records the epoch has had.
func (s *Sealer) Sealed() uint64 { return s.next }

// Left is how many more records the epoch may have.
func (s *Sealer) Left() uint64 {
	if s.next > wire.MaxSequence {
		return 0
	}
	return wire.MaxSequence - s.next + 1
}

// Append appends one record to dst. It holds head and content, which together
// have at most wire.MaxPlaintext bytes. They must not overlap the free room of
// dst. If cid is empty, the record has no connection ID.
func (s *Sealer) Append(dst, cid []byte, t wire.ContentType, head, content []byte) ([]byte, error) {
	if s.Left() == 0 {
		return dst, ErrExhausted
	}
	if s.Resting() {
		if err := s.wake(); err != nil {
			return dst, err
		}
	}
	n := len(head) + len(content)
	epochAndSeq := uint64(s.epoch)<<48 | s.next
	s.next++
	s.setNonce(epochAndSeq)
	if len(cid) > 0 {
		return s.appendCID(dst, cid, epochAndSeq, t, head, content), nil
	}
	dst = wire.AppendRecordHeader(dst, t, wire.VersionDTLS12, s.epoch, epochAndSeq&wire.MaxSequence, s.method.Overhead()+n)
	s.setAdditional(epochAndSeq, t, wire.VersionDTLS12, n)
	dst = append(dst, s.nonce[s.method.FixedIVLen:]...)
	if len(head) > 0 { // put together at their place, and sealed there
		start := len(dst)
		dst = append(append(dst, head...), content...)
		dst, content = dst[:start], dst[start:]
	}
	return s.aead.Seal(dst, s.nonce[:], content, s.additional[:]), nil
}

// appendCID is Append for a record with a connection ID. Its type is sealed behind the
// content, and no padding.
func (s *Sealer) appendCID(dst, cid []byte, epochAndSeq uint64, t wire.ContentType, head, content []byte) []byte {
	n := len(head) + len(content) + 1
	dst = wire.AppendRecordHeaderCID(dst, wire.VersionDTLS12, s.epoch, epochAndSeq&wire.MaxSequence, cid, s.method.Overhead()+n)
	dst = append(dst, s.nonce[s.method.FixedIVLen:]...)
	start := len(dst)
	dst = append(append(append(dst, head...), content...), byte(t))
	dst, additional := behind(dst, s.method.Overhead())
	additional = appendAdditionalCID(additional, epochAndSeq, wire.VersionDTLS12, cid, n)
	return s.aead.Seal(dst[:start], s.nonce[:], dst[start:], additional)
}

// Opener opens the records of one epoch, each at most once. The zero Opener has
// no key yet.
type Opener struct {
	protection
	window Window
}

// Init begins an epoch with keys, which are copied.
func (o *Opener) Init(method *suite.AEAD, key, iv []byte) error {
	o.window = Window{}
	return o.init(method, key, iv)
}

// Open appends the content of r to dst. Only a record that opens marks the
// replay window. A record with a connection ID has its type from within.
func (o *Opener) Open(dst []byte, r wire.Record) ([]byte, wire.ContentType, error) {
	if !o.window.Fresh(r.Seq) {
		return dst, 0, ErrReplayed
	}
	out, t, err := o.Reopen(dst, r)
	if err == nil || err == ErrNoType {
		o.window.Mark(r.Seq)
	}
	return out, t, err
}

// Newest reports whether a record is newer than all that have opened.
func (o *Opener) Newest(r wire.Record) bool { return r.Seq >= o.window.next }

// Reopen is Open for a record that Open has opened before, or has still to.
func (o *Opener) Reopen(dst []byte, r wire.Record) ([]byte, wire.ContentType, error) {
	most := wire.MaxPlaintext
	if r.HasCID() {
		most++ // the record's own type
	}
	length := len(r.Payload) - o.method.Overhead()
	if length < 0 || length > most {
		return dst, 0, ErrForged
	}
	if o.Resting() {
		if err := o.wake(); err != nil {
			return dst, 0, err
		}
	}
	epochAndSeq := uint64(r.Epoch)<<48 | r.Seq
	o.setNonce(epochAndSeq)
	explicit := o.method.ExplicitNonceLen()
	copy(o.nonce[suite.NonceLen-explicit:], r.Payload[:explicit]) // the peer's choice, RFC 5288 section 3
	if r.HasCID() {
		return o.openCID(dst, r, epochAndSeq, length)
	}
	o.setAdditional(epochAndSeq, r.Type, r.Version, length)
	out, err := o.aead.Open(dst, o.nonce[:], r.Payload[explicit:], o.additional[:])
	if err != nil {
		return dst, 0, ErrForged
	}
	return out, r.Type, nil
}

// openCID opens a record with a connection ID. What it holds is followed by its type
// and perhaps by zeros (RFC 9146 section 4).
func (o *Opener) openCID(dst []byte, r wire.Record, epochAndSeq uint64, length int) ([]byte, wire.ContentType, error) {
	dst, additional := behind(dst, len(r.Payload))
	additional = appendAdditionalCID(additional, epochAndSeq, r.Version, r.CID(), length)
	out, err := o.aead.Open(dst, o.nonce[:], r.Payload[o.method.ExplicitNonceLen():], additional)
	if err != nil {
		return dst, 0, ErrForged
	}
	content, t, ok := wire.SplitInnerPlaintext(out[len(dst):])
	if !ok || t == wire.ContentCID {
		return dst, 0, ErrNoType
	}
	return out[:len(dst)+len(content)], t, nil
}
