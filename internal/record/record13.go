package record

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// The records of DTLS 1.3 that have keys (RFC 9147 section 4).

var (
	// ErrShort: a record has too few bytes for its sequence number to be encrypted with
	// (RFC 9147 section 4.2.3).
	ErrShort = errors.New("record: too short")
	// ErrTooLong: the content of a record is longer than wire.MaxPlaintext.
	ErrTooLong = errors.New("record: too long")
	// ErrKeyLimit: the key has opened, or failed to open, as many records as it may
	// (RFC 9147 section 4.5.3).
	ErrKeyLimit = errors.New("record: limit of the key reached")
)

// protection13 is one direction's AEAD in one epoch, with its nonce and what encrypts
// sequence numbers.
type protection13 struct {
	method *suite.AEAD13
	protection
	mask suite.Mask
	sn   [suite.MaxKeyLen]byte // the key of mask
}

func (p *protection13) init(method *suite.AEAD13, epoch uint16, keys suite.TrafficKeys) error {
	p.method = method
	if err := p.protection.init(&method.AEAD, keys.Key, keys.IV); err != nil {
		return err
	}
	p.epoch = epoch
	copy(p.sn[:], keys.SN)
	return p.mask.Init(method, keys.SN)
}

// wake makes again what Rest has let go of.
func (p *protection13) wake() error {
	return errors.Join(p.protection.wake(), p.mask.Init(p.method, p.sn[:p.method.KeyLen]))
}

// Rest lets go of the AEAD, which is most of the memory. The next record that is sealed
// or opens makes it anew.
func (p *protection13) Rest() {
	p.protection.Rest()
	p.mask.Forget()
}

// crypt encrypts a sequence number, or decrypts it: the bytes of it that the header has.
func (p *protection13) crypt(number, ciphertext []byte) {
	for i, m := range p.mask.Of(ciphertext[:suite.MaskSampleLen])[:len(number)] {
		number[i] ^= m
	}
}

// Sealer13 makes the records of one epoch of DTLS 1.3, and numbers them. The zero
// Sealer13 has no key yet.
type Sealer13 struct {
	protection13
	next uint64 // sequence number
}

// Init begins an epoch with keys, which are copied.
func (s *Sealer13) Init(method *suite.AEAD13, epoch uint16, keys suite.TrafficKeys) error {
	s.next = 0
	return s.init(method, epoch, keys)
}

// Epoch is the epoch of the records.
func (s *Sealer13) Epoch() uint16 { return s.epoch }

// Sealed is how many records the epoch has had, and so the number of the next.
func (s *Sealer13) Sealed() uint64 { return s.next }

// Left is how many more records the key may seal.
func (s *Sealer13) Left() uint64 { return s.method.SealLimit - s.next }

// Overhead is by how many bytes a record with a connection ID, or with none, which is
// empty, is longer than its content, header included. The last of a datagram is two
// bytes shorter.
func (s *Sealer13) Overhead(cid []byte) int {
	return wire.UnifiedHeaderLen(len(cid)) + 1 + s.method.Overhead()
}

// Place says whether a record has others behind it in its datagram.
type Place bool

const (
	NotLast Place = false // its header says how long it is
	Last    Place = true  // it takes the rest of the datagram
)

// Append appends one record to dst. It holds head and content, which together have at
// most wire.MaxPlaintext bytes. They must not overlap the free room of dst. If cid is
// empty, the record has no connection ID.
func (s *Sealer13) Append(dst, cid []byte, place Place, t wire.ContentType, head, content []byte) ([]byte, error) {
	if s.Left() == 0 {
		return dst, ErrExhausted
	}
	if s.Resting() {
		if err := s.wake(); err != nil {
			return dst, err
		}
	}
	start := len(dst)
	n := len(head) + len(content) + 1
	if place == Last {
		dst = wire.AppendUnifiedHeaderLast(dst, s.epoch, s.next, cid)
	} else {
		dst = wire.AppendUnifiedHeader(dst, s.epoch, s.next, cid, n+s.method.Overhead())
	}
	s.setNonce(s.next)
	s.next++
	at := len(dst)
	dst = append(append(append(dst, head...), content...), byte(t))
	dst = slices.Grow(dst, s.method.Overhead())
	dst = s.aead.Seal(dst[:at], s.nonce[:], dst[at:], dst[start:at])
	number := start + 1 + len(cid)
	s.crypt(dst[number:number+2], dst[at:])
	return dst, nil
}

// Opener13 opens the records of one epoch of DTLS 1.3, each at most once. The zero
// Opener13 has no key yet.
type Opener13 struct {
	protection13
	window Window
	failed uint64
}

// Init begins an epoch with keys, which are copied.
func (o *Opener13) Init(method *suite.AEAD13, epoch uint16, keys suite.TrafficKeys) error {
	o.window, o.failed = Window{}, 0
	return o.init(method, epoch, keys)
}

// Epoch is the epoch of the records.
func (o *Opener13) Epoch() uint16 { return o.epoch }

// Failed is how many records have not opened with the key (RFC 9147 section 4.5.3). At
// the AEAD's OpenLimit, no more are tried.
func (o *Opener13) Failed() uint64 { return o.failed }

// Opened is what a record of DTLS 1.3 holds.
type Opened struct {
	Content []byte // appended to dst
	Type    wire.ContentType
	Seq     uint64
	Newest  bool // no record with a higher number had opened before
}

// Open appends the content of r to dst. Its header is left as it came. A record is
// opened before the window says whether it has come before: a look at that first would
// tell, by the time that it takes, a number that is encrypted (section 4.5.1). Only a
// record that opens marks the window.
func (o *Opener13) Open(dst []byte, r wire.UnifiedRecord) (Opened, error) {
	length := len(r.Payload) - o.method.Overhead()
	switch {
	case len(r.Payload) < suite.MaskSampleLen || length < 0:
		return Opened{}, ErrShort
	case length > wire.MaxPlaintext+1+maxPadding:
		return Opened{}, ErrForged
	case o.failed >= o.method.OpenLimit:
		return Opened{}, ErrKeyLimit
	}
	if o.Resting() {
		if err := o.wake(); err != nil {
			return Opened{}, err
		}
	}
	dst, header := behind(dst, len(r.Payload))
	header = append(header, r.Header...)
	at := r.SeqAt()
	number := header[at : at+len(r.Seq)]
	o.crypt(number, r.Payload)
	seq, ok := o.window.nearest(number)
	if !ok {
		o.failed++
		return Opened{}, ErrForged
	}
	o.setNonce(seq)
	out, err := o.aead.Open(dst, o.nonce[:], r.Payload, header)
	if err != nil {
		o.failed++
		return Opened{}, ErrForged
	}
	if !o.window.Fresh(seq) {
		return Opened{}, ErrReplayed
	}
	newest := seq >= o.window.next
	o.window.Mark(seq)
	content, t, ok := wire.SplitInnerPlaintext(out[len(dst):])
	switch {
	case !ok:
		return Opened{Seq: seq, Newest: newest}, ErrNoType
	case len(content) > wire.MaxPlaintext:
		return Opened{Seq: seq, Newest: newest}, ErrTooLong
	}
	return Opened{out[:len(dst)+len(content)], t, seq, newest}, nil
}

// maxPadding bounds the zeros behind a content of full length that are looked at: a
// record may have no more than 256 bytes beside wire.MaxPlaintext (RFC 8446 section 5.2).
const maxPadding = 255

// nearest returns the sequence number that ends in some bytes and is nearest to the one
// after the highest that has opened; of two, the higher (RFC 9147 section 4.2.2). There
// is none beyond wire.MaxSequence.
func (w *Window) nearest(low []byte) (seq uint64, ok bool) {
	bits := 8 * len(low)
	got := uint64(low[0])
	if len(low) == 2 {
		got = uint64(binary.BigEndian.Uint16(low))
	}
	size := uint64(1) << bits
	seq = w.next&^(size-1) | got
	switch {
	case seq+size/2 <= w.next:
		seq += size
	case seq > w.next+size/2 && seq >= size:
		seq -= size
	}
	return seq, seq <= wire.MaxSequence
}
