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

// ParseClientHelloFixed reads the part of a ClientHello in front of its
// extensions. What follows is returned unread: body may be the first fragment
// of a longer message.
func ParseClientHelloFixed(body []byte) (h ClientHello, rest []byte, ok bool) {
	s := cryptobyte.String(body)
	if !s.ReadUint16(&h.Version) ||
		!s.ReadBytes(&h.Random, RandomLen) ||
		!vector8(&s, &h.SessionID) || len(h.SessionID) > 32 ||
		!vector8(&s, &h.Cookie) ||
		!vector16(&s, &h.CipherSuites) || len(h.CipherSuites) == 0 || len(h.CipherSuites)%2 != 0 ||
		!vector8(&s, &h.CompressionMethods) || len(h.CompressionMethods) == 0 {
		return ClientHello{}, nil, false
	}
	return h, s, true
}

// ParseClientHello reads a whole ClientHello. The extensions block may be
// absent; its content is for ParseClientExtensions.
func ParseClientHello(body []byte) (ClientHello, bool) {
	h, rest, ok := ParseClientHelloFixed(body)
	if !ok {
		return ClientHello{}, false
	}
	s := cryptobyte.String(rest)
	if !s.Empty() && (!vector16(&s, &h.Extensions) || !s.Empty()) {
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

// The extensions of a hello that have a meaning here.
const (
	extensionECPointFormats       uint16 = 11
	extensionExtendedMasterSecret uint16 = 23
	extensionRenegotiationInfo    uint16 = 0xff01
)

// ClientExtensions are the extensions of a ClientHello that have a meaning
// here; every other is skipped.
type ClientExtensions struct {
	ExtendedMasterSecret bool   // RFC 7627
	RenegotiationInfo    bool   // RFC 5746
	RenegotiatedInfo     []byte // renegotiated_connection: empty in an initial handshake
	ECPointFormats       []byte // RFC 8422 section 5.1.2, nil when not sent
}

// ParseClientExtensions reads the content of an extensions block. An extension
// that comes twice (RFC 5246 section 7.4.1.4) and one that is malformed make
// it fail.
func ParseClientExtensions(block []byte) (e ClientExtensions, ok bool) {
	var seen [1 << 16 / 64]uint64
	s := cryptobyte.String(block)
	for !s.Empty() {
		var id uint16
		var data cryptobyte.String
		if !s.ReadUint16(&id) || !s.ReadUint16LengthPrefixed(&data) ||
			seen[id/64]&(1<<(id%64)) != 0 || !e.read(id, data) {
			return ClientExtensions{}, false
		}
		seen[id/64] |= 1 << (id % 64)
	}
	return e, true
}

func (e *ClientExtensions) read(id uint16, data cryptobyte.String) bool {
	switch id {
	case extensionExtendedMasterSecret:
		e.ExtendedMasterSecret = true
	case extensionRenegotiationInfo:
		e.RenegotiationInfo = true
		if !vector8(&data, &e.RenegotiatedInfo) {
			return false
		}
	case extensionECPointFormats:
		if !vector8(&data, &e.ECPointFormats) || len(e.ECPointFormats) == 0 {
			return false
		}
	default:
		return true
	}
	return data.Empty()
}

// ServerHello is the body of a ServerHello (RFC 5246 section 7.4.1.3), with the
// extensions that this server sends. Compression is always null.
type ServerHello struct {
	Version              uint16
	Random               []byte // RandomLen bytes
	SessionID            []byte
	CipherSuite          uint16
	RenegotiationInfo    bool // an empty renegotiation_info
	ExtendedMasterSecret bool
}

// Append appends the body. Without extensions there is no extensions block.
func (h *ServerHello) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, h.Version)
	dst = append(dst, h.Random...)
	dst = append(dst, byte(len(h.SessionID)))
	dst = append(dst, h.SessionID...)
	dst = binary.BigEndian.AppendUint16(dst, h.CipherSuite)
	dst = append(dst, 0)
	start := len(dst)
	dst = append(dst, 0, 0)
	if h.RenegotiationInfo {
		dst = binary.BigEndian.AppendUint16(dst, extensionRenegotiationInfo)
		dst = append(dst, 0, 1, 0)
	}
	if h.ExtendedMasterSecret {
		dst = binary.BigEndian.AppendUint16(dst, extensionExtendedMasterSecret)
		dst = append(dst, 0, 0)
	}
	if len(dst) == start+2 {
		return dst[:start]
	}
	binary.BigEndian.PutUint16(dst[start:], uint16(len(dst)-start-2))
	return dst
}
