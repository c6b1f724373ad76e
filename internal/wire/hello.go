package wire

import (
	"encoding/binary"

	"golang.org/x/crypto/cryptobyte"
)

// ClientHello is the body of a ClientHello (RFC 6347 section 4.2.1).
type ClientHello struct {
	Version            uint16
	Random             []byte // RandomLen bytes
	SessionID          []byte
	Cookie             []byte
	CipherSuites       []byte // two bytes each
	CompressionMethods []byte
	Extensions         []byte // the content of the extensions block, nil without one
}

// ParseClientHelloHead reads the head of a ClientHello, up to the cookie. What
// follows is returned unread: body may be the first fragment of a longer message.
func ParseClientHelloHead(body []byte) (h ClientHello, rest []byte, ok bool) {
	s := cryptobyte.String(body)
	if !s.ReadUint16(&h.Version) ||
		!s.ReadBytes(&h.Random, RandomLen) ||
		!vector8(&s, &h.SessionID) || len(h.SessionID) > 32 ||
		!vector8(&s, &h.Cookie) {
		return ClientHello{}, nil, false
	}
	return h, s, true
}

// ParseClientHello reads a whole ClientHello. The extensions block may be
// absent; its content is for ParseClientExtensions.
func ParseClientHello(body []byte) (ClientHello, bool) {
	h, rest, ok := ParseClientHelloHead(body)
	s := cryptobyte.String(rest)
	if !ok ||
		!vector16(&s, &h.CipherSuites) || len(h.CipherSuites) == 0 || len(h.CipherSuites)%2 != 0 ||
		!vector8(&s, &h.CompressionMethods) || len(h.CompressionMethods) == 0 ||
		!s.Empty() && (!vector16(&s, &h.Extensions) || !s.Empty()) {
		return ClientHello{}, false
	}
	return h, true
}

// OffersSuite reports whether the hello lists the cipher suite.
func (h *ClientHello) OffersSuite(id uint16) bool {
	for s := h.CipherSuites; len(s) >= 2; s = s[2:] {
		if binary.BigEndian.Uint16(s) == id {
			return true
		}
	}
	return false
}

// SuiteEmptyRenegotiationInfo is the signalling cipher suite of RFC 5746
// section 3.3.
const SuiteEmptyRenegotiationInfo uint16 = 0x00ff

// ServerHello is the body of a ServerHello (RFC 5246 section 7.4.1.3).
// Compression is always null.
type ServerHello struct {
	Version     uint16
	Random      []byte // RandomLen bytes
	SessionID   []byte
	CipherSuite uint16
	ServerExtensions
}

// Append appends the body. Without extensions there is no extensions block.
func (h *ServerHello) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, h.Version)
	dst = append(dst, h.Random...)
	dst = append(dst, byte(len(h.SessionID)))
	dst = append(dst, h.SessionID...)
	dst = binary.BigEndian.AppendUint16(dst, h.CipherSuite)
	dst = append(dst, 0)
	return h.ServerExtensions.append(dst)
}
