package wire

import (
	"encoding/binary"

	"golang.org/x/crypto/cryptobyte"
)

// HandshakeType is the type of a handshake message (RFC 5246 section 7.4).
type HandshakeType uint8

// The handshake messages of DTLS 1.2.
const (
	TypeHelloRequest       HandshakeType = 0
	TypeClientHello        HandshakeType = 1
	TypeServerHello        HandshakeType = 2
	TypeHelloVerifyRequest HandshakeType = 3
	TypeNewSessionTicket   HandshakeType = 4
	TypeCertificate        HandshakeType = 11
	TypeServerKeyExchange  HandshakeType = 12
	TypeCertificateRequest HandshakeType = 13
	TypeServerHelloDone    HandshakeType = 14
	TypeCertificateVerify  HandshakeType = 15
	TypeClientKeyExchange  HandshakeType = 16
	TypeFinished           HandshakeType = 20
	TypeCertificateStatus  HandshakeType = 22
)

const (
	// HandshakeHeaderLen is the length of a handshake header in DTLS.
	HandshakeHeaderLen = 12
	// RandomLen is the length of a hello's random.
	RandomLen = 32
	// VerifyDataLen is the length of verify_data in Finished.
	VerifyDataLen = 12
)

// Fragment is one fragment of a handshake message, often the only one
// (RFC 6347 section 4.2.3).
type Fragment struct {
	Type       HandshakeType
	Length     uint32 // of the whole message
	MessageSeq uint16
	Offset     uint32
	Body       []byte
}

// Whole reports whether the fragment is the entire message.
func (f *Fragment) Whole() bool { return int(f.Length) == len(f.Body) }

// ParseFragment splits the first fragment off the payload of a handshake
// record. It fails when the fragment reaches past the end of its message.
func ParseFragment(payload []byte) (f Fragment, rest []byte, ok bool) {
	s := cryptobyte.String(payload)
	var length uint32
	if !s.ReadUint8((*uint8)(&f.Type)) ||
		!s.ReadUint24(&f.Length) ||
		!s.ReadUint16(&f.MessageSeq) ||
		!s.ReadUint24(&f.Offset) ||
		!s.ReadUint24(&length) ||
		f.Offset+length > f.Length || // both 24 bits: no wrap
		!s.ReadBytes(&f.Body, int(length)) {
		return Fragment{}, nil, false
	}
	return f, s, true
}

// AppendHandshakeHeader appends the header of a fragment of fragmentLen bytes
// at offset of a message of length bytes.
func AppendHandshakeHeader(dst []byte, t HandshakeType, length int, messageSeq uint16, offset, fragmentLen int) []byte {
	dst = append(dst, byte(t), byte(length>>16), byte(length>>8), byte(length))
	dst = binary.BigEndian.AppendUint16(dst, messageSeq)
	dst = append(dst, byte(offset>>16), byte(offset>>8), byte(offset))
	return append(dst, byte(fragmentLen>>16), byte(fragmentLen>>8), byte(fragmentLen))
}

// AppendHelloVerifyRequest appends the body of a HelloVerifyRequest. The
// cookie has at most 255 bytes.
func AppendHelloVerifyRequest(dst []byte, version uint16, cookie []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, version)
	dst = append(dst, byte(len(cookie)))
	return append(dst, cookie...)
}
