package wire

import (
	"encoding/binary"
	"iter"

	"golang.org/x/crypto/cryptobyte"
)

// RecordNumber names a record (RFC 9147 section 4).
type RecordNumber struct {
	Epoch    uint64
	Sequence uint64
}

// recordNumberLen is the length of a RecordNumber in an ACK.
const recordNumberLen = 16

// ACK is the list of record numbers in the content of a record of ContentACK, 16 bytes
// each (RFC 9147 section 7).
type ACK []byte

// ParseACK reads the content of a record of ContentACK. The list may be empty, and a
// number may say any 64 bits.
func ParseACK(content []byte) (a ACK, ok bool) {
	s := cryptobyte.String(content)
	if !vector16(&s, (*[]byte)(&a)) || len(a)%recordNumberLen != 0 || !s.Empty() {
		return nil, false
	}
	return a, true
}

// Len returns how many numbers there are.
func (a ACK) Len() int { return len(a) / recordNumberLen }

// All gives the numbers in the order in which they were sent.
func (a ACK) All() iter.Seq[RecordNumber] {
	return func(yield func(RecordNumber) bool) {
		for ; len(a) >= recordNumberLen; a = a[recordNumberLen:] {
			if !yield(RecordNumber{binary.BigEndian.Uint64(a), binary.BigEndian.Uint64(a[8:])}) {
				return
			}
		}
	}
}

// AppendACK appends the content of a record of ContentACK, with at most 4095 numbers. The
// sender sorts them (RFC 9147 section 7).
func AppendACK(dst []byte, numbers []RecordNumber) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(numbers)*recordNumberLen))
	for _, n := range numbers {
		dst = binary.BigEndian.AppendUint64(dst, n.Epoch)
		dst = binary.BigEndian.AppendUint64(dst, n.Sequence)
	}
	return dst
}
