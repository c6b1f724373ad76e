package wire

// The messages of DTLS 1.3 behind the hellos, but those with certificates (RFC 8446
// section 4, RFC 9147 sections 5 and 9). Their fragments are those of 1.2.

import (
	"encoding/binary"
	"iter"

	"golang.org/x/crypto/cryptobyte"
)

// The handshake messages that only DTLS 1.3 has (RFC 9147 section 5.2).
const (
	TypeEncryptedExtensions HandshakeType = 8
	TypeRequestConnectionID HandshakeType = 9
	TypeNewConnectionID     HandshakeType = 10
	TypeKeyUpdate           HandshakeType = 24
	// TypeMessageHash is never sent: AppendMessageHash.
	TypeMessageHash HandshakeType = 254
)

// TranscriptHeaderLen is the length of a TranscriptHeader.
const TranscriptHeaderLen = 4

// TranscriptHeader returns what stands in front of a message's body of length bytes where
// 1.3 hashes it: type and length as in TLS, without message_seq and fragments (RFC 9147
// section 5.2).
func TranscriptHeader(t HandshakeType, length int) [TranscriptHeaderLen]byte {
	return [...]byte{byte(t), byte(length >> 16), byte(length >> 8), byte(length)}
}

// AppendTranscript appends a message in the form in which 1.3 hashes it.
func AppendTranscript(dst []byte, t HandshakeType, body []byte) []byte {
	head := TranscriptHeader(t, len(body))
	return append(append(dst, head[:]...), body...)
}

// AppendMessageHash appends message_hash, which takes the place of the first ClientHello
// in the transcript when there was a HelloRetryRequest (RFC 8446 section 4.4.1). The hash
// is that of the ClientHello in the form of AppendTranscript.
func AppendMessageHash(dst, hash []byte) []byte {
	return AppendTranscript(dst, TypeMessageHash, hash)
}

// ParseFinished13 reads the body of a Finished, whose verify_data is as long as the hash:
// 32 or 48 bytes (RFC 8446 section 4.4.4).
func ParseFinished13(body []byte) (verifyData []byte, ok bool) {
	if len(body) != 32 && len(body) != 48 {
		return nil, false
	}
	return body[:len(body):len(body)], true
}

// NewSessionTicket13 is the body of a NewSessionTicket (RFC 8446 section 4.6.1).
type NewSessionTicket13 struct {
	Lifetime   uint32 // in seconds
	AgeAdd     uint32
	Nonce      []byte // at most 255 bytes
	Ticket     []byte // not empty
	Extensions []byte // the content of the extensions block
}

// ParseNewSessionTicket13 reads the body of a NewSessionTicket, for test peers. Its
// extensions are whole, and none comes twice.
func ParseNewSessionTicket13(body []byte) (m NewSessionTicket13, ok bool) {
	s := cryptobyte.String(body)
	if !s.ReadUint32(&m.Lifetime) || !s.ReadUint32(&m.AgeAdd) ||
		!vector8(&s, &m.Nonce) ||
		!vector16(&s, &m.Ticket) || len(m.Ticket) == 0 ||
		!vector16(&s, &m.Extensions) || !wholeExtensions(m.Extensions) ||
		!s.Empty() {
		return NewSessionTicket13{}, false
	}
	return m, true
}

// Append appends the body.
func (m *NewSessionTicket13) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, m.Lifetime)
	dst = binary.BigEndian.AppendUint32(dst, m.AgeAdd)
	dst = append(append(dst, byte(len(m.Nonce))), m.Nonce...)
	dst = appendVector16(dst, m.Ticket)
	return appendVector16(dst, m.Extensions)
}

// ParseKeyUpdate reads the body of a KeyUpdate: whether the peer is to update its keys too
// (RFC 8446 section 4.6.3).
func ParseKeyUpdate(body []byte) (requested, ok bool) {
	if len(body) != 1 || body[0] > 1 {
		return false, false
	}
	return body[0] == 1, true
}

// AppendKeyUpdate appends the body of a KeyUpdate.
func AppendKeyUpdate(dst []byte, request bool) []byte {
	if request {
		return append(dst, 1)
	}
	return append(dst, 0)
}

// ParseRequestConnectionID reads the body of a RequestConnectionId: how many connection
// IDs the peer wants (RFC 9147 section 9).
func ParseRequestConnectionID(body []byte) (n uint8, ok bool) {
	if len(body) != 1 {
		return 0, false
	}
	return body[0], true
}

// AppendRequestConnectionID appends the body of a RequestConnectionId.
func AppendRequestConnectionID(dst []byte, n uint8) []byte { return append(dst, n) }

// ConnectionIDUsage says when the connection IDs of a NewConnectionID are to be used.
type ConnectionIDUsage uint8

// The usages of RFC 9147 section 9.
const (
	CIDImmediate ConnectionIDUsage = 0
	CIDSpare     ConnectionIDUsage = 1
)

// NewConnectionID is the body of a NewConnectionId (RFC 9147 section 9).
type NewConnectionID struct {
	CIDs  CIDList
	Usage ConnectionIDUsage
}

// CIDList is a list of connection IDs, each behind its length of one byte.
type CIDList []byte

// ParseNewConnectionID reads the body of a NewConnectionId, with one of the usages that
// there are. The list and each connection ID may be empty.
func ParseNewConnectionID(body []byte) (m NewConnectionID, ok bool) {
	s := cryptobyte.String(body)
	if !vector16(&s, (*[]byte)(&m.CIDs)) || !s.ReadUint8((*uint8)(&m.Usage)) || m.Usage > CIDSpare || !s.Empty() {
		return NewConnectionID{}, false
	}
	for list := cryptobyte.String(m.CIDs); !list.Empty(); {
		var cid []byte
		if !vector8(&list, &cid) {
			return NewConnectionID{}, false
		}
	}
	return m, true
}

// All gives the connection IDs of a list that was parsed.
func (l CIDList) All() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		var cid []byte
		for list := cryptobyte.String(l); vector8(&list, &cid); {
			if !yield(cid[:len(cid):len(cid)]) {
				return
			}
		}
	}
}

// AppendNewConnectionID appends the body of a NewConnectionId. The connection IDs have at
// most 255 bytes each.
func AppendNewConnectionID(dst []byte, cids [][]byte, usage ConnectionIDUsage) []byte {
	start := len(dst)
	dst = append(dst, 0, 0)
	for _, cid := range cids {
		dst = append(append(dst, byte(len(cid))), cid...)
	}
	return append(endVector16(dst, start), byte(usage))
}
