// Package wire reads and writes the bytes of DTLS 1.2 and 1.3: records (RFC 6347
// section 4.1, RFC 9146 section 4, RFC 9147 section 4), handshake fragments (RFC 6347
// section 4.2.2), the messages a server receives and sends (RFC 5246 section 7.4, RFC
// 4279, RFC 8446 section 4), their extensions, alerts and acknowledgments. It parses and
// appends; it holds no policy, no keys and no state. Where the two versions differ, the
// names of 1.3 end in 13.
//
// Parsers return false for anything that is not exactly the structure they
// name. What they return aliases their input.
package wire

import (
	"encoding/binary"

	"golang.org/x/crypto/cryptobyte"
)

// ContentType is the type of a record (RFC 5246 section 6.2.1).
type ContentType uint8

// The content types that occur in DTLS 1.2.
const (
	ContentChangeCipherSpec ContentType = 20
	ContentAlert            ContentType = 21
	ContentHandshake        ContentType = 22
	ContentApplicationData  ContentType = 23
	// ContentCID is the outer type of a sealed record with a connection ID, tls12_cid
	// (RFC 9146 section 4). Its own type is sealed.
	ContentCID ContentType = 25
	// ContentReturnRoutability is return_routability_check (RFC 9853 section 4).
	ContentReturnRoutability ContentType = 27
)

// Protocol versions as they stand on the wire: the ones' complement of the
// version number (RFC 6347 section 4.1).
const (
	VersionDTLS10 uint16 = 0xfeff
	VersionDTLS12 uint16 = 0xfefd
)

const (
	// RecordHeaderLen is the length of a record header without connection ID.
	RecordHeaderLen = 13
	// MaxPlaintext bounds the content of one record (RFC 5246 section 6.2.1).
	MaxPlaintext = 1 << 14
	// MaxSequence is the highest record sequence number.
	MaxSequence = 1<<48 - 1
	// MaxCIDLen is the length of the longest connection ID (RFC 9146 section 3).
	MaxCIDLen = 255
)

// Record is one record of a datagram.
type Record struct {
	Type    ContentType
	Version uint16
	Epoch   uint16
	Seq     uint64 // 48 bits
	Raw     []byte // the whole record, header included
	Payload []byte // what follows the header
}

// HasCID reports whether a record has a connection ID, which may be empty.
func (r *Record) HasCID() bool { return r.Type == ContentCID }

// CID returns the connection ID of a record, or nil if it has none.
func (r *Record) CID() []byte {
	if !r.HasCID() {
		return nil
	}
	const lengthLen = 2
	end := len(r.Raw) - len(r.Payload) - lengthLen
	return r.Raw[cidAt:end:end]
}

// Sealed reports whether a record is of an epoch with keys.
func (r *Record) Sealed() bool { return r.Epoch > 0 }

// ParseRecord splits the first record off a datagram. Any content type and
// version is accepted; the length must lie within the datagram. A connection ID has
// cidLen bytes, which no header says.
func ParseRecord(datagram []byte, cidLen int) (r Record, rest []byte, ok bool) {
	head := RecordHeaderLen
	if len(datagram) > 0 && ContentType(datagram[0]) == ContentCID {
		head += cidLen
	}
	if len(datagram) < head {
		return Record{}, nil, false
	}
	end := head + int(binary.BigEndian.Uint16(datagram[head-2:]))
	if len(datagram) < end {
		return Record{}, nil, false
	}
	epochAndSeq := binary.BigEndian.Uint64(datagram[3:])
	r.Type = ContentType(datagram[0])
	r.Version = binary.BigEndian.Uint16(datagram[1:])
	r.Epoch = uint16(epochAndSeq >> 48)
	r.Seq = epochAndSeq & MaxSequence
	r.Raw = datagram[:end:end]
	r.Payload = datagram[head:end:end]
	return r, datagram[end:], true
}

// cidAt is where in a record its connection ID is (RFC 9146 section 4).
const cidAt = RecordHeaderLen - 2

// AppendRecordHeader appends the header of a record with length bytes of
// payload.
func AppendRecordHeader(dst []byte, t ContentType, version, epoch uint16, seq uint64, length int) []byte {
	return appendRecordHeader(dst, t, version, epoch, seq, nil, length)
}

// AppendRecordHeaderCID appends the header of a record of ContentCID.
func AppendRecordHeaderCID(dst []byte, version, epoch uint16, seq uint64, cid []byte, length int) []byte {
	return appendRecordHeader(dst, ContentCID, version, epoch, seq, cid, length)
}

func appendRecordHeader(dst []byte, t ContentType, version, epoch uint16, seq uint64, cid []byte, length int) []byte {
	dst = append(dst, byte(t))
	dst = binary.BigEndian.AppendUint16(dst, version)
	dst = binary.BigEndian.AppendUint64(dst, uint64(epoch)<<48|seq)
	dst = append(dst, cid...)
	return binary.BigEndian.AppendUint16(dst, uint16(length))
}

// vector8 reads a vector with a one-byte length.
func vector8(s *cryptobyte.String, out *[]byte) bool {
	return s.ReadUint8LengthPrefixed((*cryptobyte.String)(out))
}

// vector16 reads a vector with a two-byte length.
func vector16(s *cryptobyte.String, out *[]byte) bool {
	return s.ReadUint16LengthPrefixed((*cryptobyte.String)(out))
}

// appendVector16 appends v behind its two-byte length.
func appendVector16(dst, v []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(v)))
	return append(dst, v...)
}
