package wire

// What a server of DTLS 1.3 answers to a ClientHello, which is the one of 1.2 (RFC 8446
// sections 4.1.3, 4.1.4 and 4.3.1, RFC 9147 section 5).

import (
	"encoding/binary"

	"golang.org/x/crypto/cryptobyte"
)

const (
	// HelloRetryRequestRandom is the random that makes a ServerHello a HelloRetryRequest
	// (RFC 8446 section 4.1.3).
	HelloRetryRequestRandom = "\xcf\x21\xad\x74\xe5\x9a\x61\x11\xbe\x1d\x8c\x02\x1e\x65\xb8\x91" +
		"\xc2\xa2\x11\x16\x7a\xbb\x8c\x5e\x07\x9e\x09\xe2\xc8\xa8\x33\x9c"
	// DowngradeSentinel is the end of the random of a server that has 1.3 enabled and
	// negotiates 1.2 (RFC 8446 section 4.1.3).
	DowngradeSentinel = "DOWNGRD\x01"
)

// HelloRetryRequest is the body of a HelloRetryRequest (RFC 8446 section 4.1.4). Its
// message is of TypeServerHello.
type HelloRetryRequest struct {
	CipherSuite uint16
	Cookie      []byte // empty: none
	Group       uint16 // of the share that the client is to send; zero: any
}

// Append appends the body, with an empty legacy_session_id_echo (RFC 9147 section 5).
func (h *HelloRetryRequest) Append(dst []byte) []byte {
	dst, start := appendHelloHead13(dst, HelloRetryRequestRandom, nil, h.CipherSuite)
	if len(h.Cookie) > 0 {
		dst = appendExtensionList(dst, extensionCookie, h.Cookie)
	}
	if h.Group != 0 {
		dst = appendExtension(dst, extensionKeyShare, byte(h.Group>>8), byte(h.Group))
	}
	return endVector16(dst, start)
}

// ParseHelloRetryRequest reads the body of a HelloRetryRequest, for test peers. Another
// ServerHello, a version that is not 1.3, and an extension that may not be there (RFC 8446
// section 4.2) make it fail.
func ParseHelloRetryRequest(body []byte) (h HelloRetryRequest, ok bool) {
	head, block, ok := parseHelloHead13(body)
	if !ok || string(head.Random) != HelloRetryRequestRandom || len(head.SessionID) > 0 {
		return HelloRetryRequest{}, false
	}
	h.CipherSuite = head.CipherSuite
	version := uint16(0)
	ok = eachExtension(block, func(id uint16, data *cryptobyte.String) bool {
		switch id {
		case extensionSupportedVersions:
			return data.ReadUint16(&version)
		case extensionCookie:
			return vector16(data, &h.Cookie) && len(h.Cookie) > 0
		case extensionKeyShare:
			return data.ReadUint16(&h.Group) && h.Group != 0
		}
		return false
	})
	if !ok || version != VersionDTLS13 {
		return HelloRetryRequest{}, false
	}
	return h, true
}

// ServerHello13 is the body of a ServerHello of 1.3 that is no HelloRetryRequest (RFC 8446
// section 4.1.3).
type ServerHello13 struct {
	Random            []byte // RandomLen bytes
	SessionID         []byte // legacy_session_id_echo: empty in DTLS (RFC 9147 section 5)
	CipherSuite       uint16
	KeyShare          KeyShare // of group zero: none
	PSK               bool     // pre_shared_key: PSKIndex is chosen
	PSKIndex          uint16
	ConnectionID      []byte // RFC 9146: at most 255 bytes; nil: none
	ReturnRoutability bool   // RFC 9853
}

// Append appends the body.
func (h *ServerHello13) Append(dst []byte) []byte {
	dst, start := appendHelloHead13(dst, string(h.Random), h.SessionID, h.CipherSuite)
	if h.KeyShare.Group != 0 {
		dst = binary.BigEndian.AppendUint16(dst, extensionKeyShare)
		dst = binary.BigEndian.AppendUint16(dst, uint16(4+len(h.KeyShare.Key)))
		dst = binary.BigEndian.AppendUint16(dst, h.KeyShare.Group)
		dst = appendVector16(dst, h.KeyShare.Key)
	}
	if h.PSK {
		dst = appendExtension(dst, extensionPreSharedKey, byte(h.PSKIndex>>8), byte(h.PSKIndex))
	}
	if h.ConnectionID != nil {
		dst = binary.BigEndian.AppendUint16(dst, extensionConnectionID)
		dst = binary.BigEndian.AppendUint16(dst, uint16(1+len(h.ConnectionID)))
		dst = append(append(dst, byte(len(h.ConnectionID))), h.ConnectionID...)
	}
	if h.ReturnRoutability {
		dst = appendExtension(dst, extensionReturnRoutability)
	}
	return endVector16(dst, start)
}

// ParseServerHello13 reads the body of a ServerHello of 1.3, for test peers. A
// HelloRetryRequest, a version that is not 1.3, and an extension that may not be there (RFC
// 8446 section 4.2) make it fail.
func ParseServerHello13(body []byte) (h ServerHello13, ok bool) {
	h, block, ok := parseHelloHead13(body)
	if !ok || string(h.Random) == HelloRetryRequestRandom {
		return ServerHello13{}, false
	}
	version := uint16(0)
	ok = eachExtension(block, func(id uint16, data *cryptobyte.String) bool {
		switch id {
		case extensionSupportedVersions:
			return data.ReadUint16(&version)
		case extensionKeyShare:
			return readKeyShare(data, &h.KeyShare) && h.KeyShare.Group != 0
		case extensionPreSharedKey:
			h.PSK = true
			return data.ReadUint16(&h.PSKIndex)
		case extensionConnectionID:
			return vector8(data, &h.ConnectionID)
		case extensionReturnRoutability:
			h.ReturnRoutability = true
			return true
		}
		return false
	})
	if !ok || version != VersionDTLS13 {
		return ServerHello13{}, false
	}
	return h, true
}

// appendHelloHead13 appends a ServerHello up to supported_versions, its first extension,
// and returns where the length of the extensions is, for endVector16.
func appendHelloHead13(dst []byte, random string, sessionID []byte, suite uint16) (_ []byte, start int) {
	dst = binary.BigEndian.AppendUint16(dst, VersionDTLS12)
	dst = append(dst, random...)
	dst = append(append(dst, byte(len(sessionID))), sessionID...)
	dst = binary.BigEndian.AppendUint16(dst, suite)
	dst = append(dst, 0) // legacy_compression_method
	start = len(dst)
	dst = append(dst, 0, 0)
	return appendExtension(dst, extensionSupportedVersions, byte(VersionDTLS13>>8), byte(VersionDTLS13&0xff)), start
}

// parseHelloHead13 reads a ServerHello up to its extensions, and returns their block's
// content.
func parseHelloHead13(body []byte) (h ServerHello13, block []byte, ok bool) {
	s := cryptobyte.String(body)
	var version uint16
	var compression uint8
	if !s.ReadUint16(&version) || version != VersionDTLS12 ||
		!s.ReadBytes(&h.Random, RandomLen) ||
		!vector8(&s, &h.SessionID) || len(h.SessionID) > 32 ||
		!s.ReadUint16(&h.CipherSuite) ||
		!s.ReadUint8(&compression) || compression != 0 ||
		!vector16(&s, &block) || !s.Empty() {
		return ServerHello13{}, nil, false
	}
	return h, block, true
}

// EncryptedExtensions is the body of an EncryptedExtensions (RFC 8446 section 4.3.1).
type EncryptedExtensions struct {
	ServerName      bool   // the client's was used: RFC 6066 section 3
	SupportedGroups []byte // RFC 8446 section 4.2.7: two bytes each; nil: none
	ALPN            string // RFC 7301: at most 255 bytes; empty: none
	RecordSizeLimit uint16 // RFC 8449: zero: none
}

// Append appends the body.
func (e *EncryptedExtensions) Append(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, 0, 0)
	if e.ServerName {
		dst = appendExtension(dst, extensionServerName)
	}
	dst = appendExtensionList(dst, extensionSupportedGroups, e.SupportedGroups)
	if n := len(e.ALPN); n > 0 {
		dst = binary.BigEndian.AppendUint16(dst, extensionALPN)
		dst = binary.BigEndian.AppendUint16(dst, uint16(n+3))
		dst = binary.BigEndian.AppendUint16(dst, uint16(n+1))
		dst = append(append(dst, byte(n)), e.ALPN...)
	}
	if l := e.RecordSizeLimit; l != 0 {
		dst = appendExtension(dst, extensionRecordSizeLimit, byte(l>>8), byte(l))
	}
	return endVector16(dst, start)
}

// ParseEncryptedExtensions reads the body of an EncryptedExtensions, for test peers. An
// extension that this server does not send makes it fail.
func ParseEncryptedExtensions(body []byte) (e EncryptedExtensions, ok bool) {
	s := cryptobyte.String(body)
	var block []byte
	if !vector16(&s, &block) || !s.Empty() {
		return EncryptedExtensions{}, false
	}
	ok = eachExtension(block, func(id uint16, data *cryptobyte.String) bool {
		switch id {
		case extensionServerName:
			e.ServerName = true
			return true
		case extensionSupportedGroups:
			return numbers16(data, &e.SupportedGroups)
		case extensionALPN:
			var list cryptobyte.String
			var name []byte
			if !data.ReadUint16LengthPrefixed(&list) || !vector8(&list, &name) || len(name) == 0 || !list.Empty() {
				return false
			}
			e.ALPN = string(name)
			return true
		case extensionRecordSizeLimit:
			return data.ReadUint16(&e.RecordSizeLimit) && e.RecordSizeLimit != 0
		}
		return false
	})
	if !ok {
		return EncryptedExtensions{}, false
	}
	return e, true
}
