package wire

// The records of DTLS 1.3 (RFC 9147 section 4). Those without keys have the form of
// 1.2, DTLSPlaintext, and are read by ParseRecord.

import (
	"encoding/binary"

	"golang.org/x/crypto/cryptobyte"
)

// VersionDTLS13 is the version of DTLS 1.3 in supported_versions. Records and hellos say
// VersionDTLS12 (RFC 9147 sections 4 and 5.3).
const VersionDTLS13 uint16 = 0xfefc

// ContentACK is the type of a record with acknowledgments (RFC 9147 section 7).
const ContentACK ContentType = 26

// RecordForm is what the first byte of a record says of its header.
type RecordForm uint8

// The forms of RFC 9147 section 4.1.
const (
	// FormNone is that of no record.
	FormNone RecordForm = iota
	// FormPlain has the header of RecordHeaderLen bytes: records of DTLS 1.2, sealed or
	// not, and those of 1.3 without keys.
	FormPlain
	// FormCID is that of ContentCID.
	FormCID
	// FormUnified has the unified header of 1.3, for ParseUnifiedRecord.
	FormUnified
)

// RecordFormOf classifies a record, and a datagram, by the first byte (RFC 9147 section
// 4.1). A bare record of ContentReturnRoutability has no form: who checks paths was given
// a connection ID, and records to it have ContentCID or a unified header.
func RecordFormOf(first byte) RecordForm {
	switch t := ContentType(first); {
	case t >= ContentChangeCipherSpec && t <= ContentApplicationData, t == ContentACK:
		return FormPlain
	case t == ContentCID:
		return FormCID
	case first&unifiedMask == unifiedFixed:
		return FormUnified
	}
	return FormNone
}

// The first byte of a unified header: 0 0 1 C S L E E (RFC 9147 section 4).
const (
	unifiedMask   = 0b111_00000
	unifiedFixed  = 0b001_00000
	unifiedCID    = 0b000_10000 // a connection ID is there
	unifiedSeq16  = 0b000_01000 // the sequence number has 16 bits, else 8
	unifiedLength = 0b000_00100 // a length is there
	unifiedEpoch  = 0b000_00011 // the low bits of the epoch
)

// UnifiedRecord is one sealed record of DTLS 1.3, DTLSCiphertext (RFC 9147 section 4). Its
// sequence number is encrypted.
type UnifiedRecord struct {
	EpochBits uint8  // the low two bits of the epoch
	CID       []byte // not nil: the record has one
	Seq       []byte // one or two bytes of Header, encrypted
	Header    []byte // as it came. With Seq decrypted it is the additional data
	Raw       []byte // the whole record: Header and Payload
	Payload   []byte // what is sealed. Perhaps too short to be: section 4.2.3
}

// SeqAt returns where in Header the sequence number is.
func (r *UnifiedRecord) SeqAt() int { return 1 + len(r.CID) }

// ParseUnifiedRecord splits the first record, with a unified header, off a datagram. A
// record without length takes all of the datagram; else the length must lie within. A
// connection ID has cidLen bytes, which no header says.
func ParseUnifiedRecord(datagram []byte, cidLen int) (r UnifiedRecord, rest []byte, ok bool) {
	s := cryptobyte.String(datagram)
	var first uint8
	if !s.ReadUint8(&first) || first&unifiedMask != unifiedFixed {
		return UnifiedRecord{}, nil, false
	}
	seqLen := 1
	if first&unifiedSeq16 != 0 {
		seqLen = 2
	}
	if first&unifiedCID != 0 && !s.ReadBytes(&r.CID, cidLen) || !s.ReadBytes(&r.Seq, seqLen) {
		return UnifiedRecord{}, nil, false
	}
	length := len(s)
	if first&unifiedLength != 0 {
		var said uint16
		if !s.ReadUint16(&said) || int(said) > len(s) {
			return UnifiedRecord{}, nil, false
		}
		length = int(said)
	}
	head := len(datagram) - len(s)
	end := head + length
	r.EpochBits = first & unifiedEpoch
	r.CID = r.CID[:len(r.CID):len(r.CID)]
	r.Seq = r.Seq[:seqLen:seqLen]
	r.Header = datagram[:head:head]
	r.Raw = datagram[:end:end]
	r.Payload = datagram[head:end:end]
	return r, datagram[end:], true
}

// AppendUnifiedHeader appends the header of a record with length bytes of payload. The
// low 16 bits of the sequence number are written as they are, to be encrypted when the
// payload is there, at SeqAt. An empty connection ID is none.
func AppendUnifiedHeader(dst []byte, epoch uint16, seq uint64, cid []byte, length int) []byte {
	dst = appendUnifiedHeader(dst, unifiedSeq16|unifiedLength, epoch, seq, cid)
	return binary.BigEndian.AppendUint16(dst, uint16(length))
}

// AppendUnifiedHeaderLast is AppendUnifiedHeader without a length, for the last record of
// a datagram.
func AppendUnifiedHeaderLast(dst []byte, epoch uint16, seq uint64, cid []byte) []byte {
	return appendUnifiedHeader(dst, unifiedSeq16, epoch, seq, cid)
}

func appendUnifiedHeader(dst []byte, flags byte, epoch uint16, seq uint64, cid []byte) []byte {
	if len(cid) > 0 {
		flags |= unifiedCID
	}
	dst = append(dst, unifiedFixed|flags|byte(epoch)&unifiedEpoch)
	dst = append(dst, cid...)
	return binary.BigEndian.AppendUint16(dst, uint16(seq))
}

// UnifiedHeaderLen returns the length of a header that AppendUnifiedHeader writes with a
// connection ID of cidLen bytes. That of AppendUnifiedHeaderLast is two less.
func UnifiedHeaderLen(cidLen int) int { return 1 + cidLen + 2 + 2 }

// SplitInnerPlaintext reads what a record held, DTLSInnerPlaintext (RFC 9147 section 4):
// the content, its type, and padding of zeros. It fails when all are zeros.
func SplitInnerPlaintext(inner []byte) (content []byte, t ContentType, ok bool) {
	last := len(inner) - 1
	for last >= 0 && inner[last] == 0 {
		last--
	}
	if last < 0 {
		return nil, 0, false
	}
	return inner[:last:last], ContentType(inner[last]), true
}
