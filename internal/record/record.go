// Package record protects and opens the records of one epoch (RFC 6347 section
// 4.1, RFC 5246 section 6.2.3.3) and keeps the replay window (RFC 6347 section
// 4.1.2.6). It appends to what the caller gives it and, but after a rest,
// allocates nothing.
package record

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"

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

func (p *protection) setAdditional(epochAndSeq uint64, t wire.ContentType, version uint16, length int) {
	a := p.additional[:0]
	a = binary.BigEndian.AppendUint64(a, epochAndSeq)
	a = append(a, byte(t))
	a = binary.BigEndian.AppendUint16(a, version)
	binary.BigEndian.AppendUint16(a, uint16(length))
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
	epoch uint16
	next  uint64 // sequence number
}

// Init begins an epoch with keys, which are copied.
func (s *Sealer) Init(method *suite.AEAD, epoch uint16, key, iv []byte) error {
	s.epoch, s.next = epoch, 0
	return s.init(method, key, iv)
}

// Overhead is by how many bytes a record is longer than its content, header
// included.
func (s *Sealer) Overhead() int { return wire.RecordHeaderLen + s.method.Overhead() }

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
// dst.
func (s *Sealer) Append(dst []byte, t wire.ContentType, head, content []byte) ([]byte, error) {
	if s.Left() == 0 {
		return dst, ErrExhausted
	}
	if s.Resting() {
		if err := s.wake(); err != nil {
			return dst, err
		}
	}
	n := len(head) + len(content)
	dst = wire.AppendRecordHeader(dst, t, wire.VersionDTLS12, s.epoch, s.next, s.method.Overhead()+n)
	epochAndSeq := uint64(s.epoch)<<48 | s.next
	s.next++
	s.setNonce(epochAndSeq)
	s.setAdditional(epochAndSeq, t, wire.VersionDTLS12, n)
	dst = append(dst, s.nonce[s.method.FixedIVLen:]...)
	if len(head) > 0 { // put together at their place, and sealed there
		start := len(dst)
		dst = append(append(dst, head...), content...)
		dst, content = dst[:start], dst[start:]
	}
	return s.aead.Seal(dst, s.nonce[:], content, s.additional[:]), nil
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
// replay window.
func (o *Opener) Open(dst []byte, r wire.Record) ([]byte, error) {
	if !o.window.Fresh(r.Seq) {
		return dst, ErrReplayed
	}
	out, err := o.Reopen(dst, r)
	if err == nil {
		o.window.Mark(r.Seq)
	}
	return out, err
}

// Reopen is Open for a record that Open has opened before.
func (o *Opener) Reopen(dst []byte, r wire.Record) ([]byte, error) {
	length := len(r.Payload) - o.method.Overhead()
	if length < 0 || length > wire.MaxPlaintext {
		return dst, ErrForged
	}
	if o.Resting() {
		if err := o.wake(); err != nil {
			return dst, err
		}
	}
	epochAndSeq := uint64(r.Epoch)<<48 | r.Seq
	o.setNonce(epochAndSeq)
	explicit := o.method.ExplicitNonceLen()
	copy(o.nonce[suite.NonceLen-explicit:], r.Payload[:explicit]) // the peer's choice, RFC 5288 section 3
	o.setAdditional(epochAndSeq, r.Type, r.Version, length)
	out, err := o.aead.Open(dst, o.nonce[:], r.Payload[explicit:], o.additional[:])
	if err != nil {
		return dst, ErrForged
	}
	return out, nil
}
