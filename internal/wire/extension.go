package wire

import (
	"encoding/binary"

	"golang.org/x/crypto/cryptobyte"
)

// The extensions of a hello that have a meaning here.
const (
	extensionServerName           uint16 = 0
	extensionMaxFragmentLength    uint16 = 1
	extensionStatusRequest        uint16 = 5
	extensionSupportedGroups      uint16 = 10
	extensionECPointFormats       uint16 = 11
	extensionSignatureAlgorithms  uint16 = 13
	extensionALPN                 uint16 = 16
	extensionSCT                  uint16 = 18
	extensionExtendedMasterSecret uint16 = 23
	extensionRecordSizeLimit      uint16 = 28
	extensionSessionTicket        uint16 = 35
	extensionSupportedVersions    uint16 = 43
	extensionCertificateSchemes   uint16 = 50
	extensionConnectionID         uint16 = 54
	extensionReturnRoutability    uint16 = 61
	extensionRenegotiationInfo    uint16 = 0xff01
)

// ClientExtensions are the extensions of a ClientHello that have a meaning
// here; every other is skipped. Lists are nil when the extension was not sent
// and else, but where it is said, not empty.
type ClientExtensions struct {
	ServerName           string // RFC 6066 section 3
	MaxFragmentLength    uint8  // RFC 6066 section 4: the code, zero when not sent
	StatusRequest        bool   // RFC 6066 section 8: for OCSP
	SupportedGroups      []byte // RFC 8422 section 5.1.1: two bytes each
	ECPointFormats       []byte // RFC 8422 section 5.1.2
	SignatureAlgorithms  []byte // RFC 5246 section 7.4.1.4.1: two bytes each
	ALPN                 []byte // RFC 7301: names, each behind its length of one byte
	SCT                  bool   // RFC 6962 section 3.3.1
	ExtendedMasterSecret bool   // RFC 7627
	RecordSizeLimit      uint16 // RFC 8449: zero when not sent
	SessionTicket        bool   // RFC 5077
	Ticket               []byte // empty: none yet
	SupportedVersions    []byte // RFC 8446 section 4.2.1: two bytes each
	CertificateSchemes   []byte // RFC 8446 section 4.2.3, signature_algorithms_cert: two bytes each
	ConnectionID         []byte // RFC 9146 section 3: perhaps empty, and nil when not sent
	ReturnRoutability    bool   // RFC 9853 section 3
	RenegotiationInfo    bool   // RFC 5746
	RenegotiatedInfo     []byte // renegotiated_connection: empty in an initial handshake
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
	case extensionServerName:
		if !e.readServerName(&data) {
			return false
		}
	case extensionMaxFragmentLength:
		if !data.ReadUint8(&e.MaxFragmentLength) || e.MaxFragmentLength == 0 {
			return false
		}
	case extensionStatusRequest:
		const ocsp = 1
		var status uint8
		var responders, extensions []byte
		switch {
		case !data.ReadUint8(&status):
			return false
		case status != ocsp: // of a form that is not known
			return true
		case !vector16(&data, &responders) || !vector16(&data, &extensions):
			return false
		}
		e.StatusRequest = true
	case extensionSupportedGroups:
		if !numbers16(&data, &e.SupportedGroups) {
			return false
		}
	case extensionECPointFormats:
		if !vector8(&data, &e.ECPointFormats) || len(e.ECPointFormats) == 0 {
			return false
		}
	case extensionSignatureAlgorithms:
		if !numbers16(&data, &e.SignatureAlgorithms) {
			return false
		}
	case extensionALPN:
		if !e.readALPN(&data) {
			return false
		}
	case extensionSCT:
		e.SCT = true
	case extensionExtendedMasterSecret:
		e.ExtendedMasterSecret = true
	case extensionRecordSizeLimit:
		if !data.ReadUint16(&e.RecordSizeLimit) || e.RecordSizeLimit == 0 {
			return false
		}
	case extensionSessionTicket:
		e.SessionTicket, e.Ticket = true, data
		return true
	case extensionSupportedVersions:
		if !vector8(&data, &e.SupportedVersions) || len(e.SupportedVersions) == 0 || len(e.SupportedVersions)%2 != 0 {
			return false
		}
	case extensionCertificateSchemes:
		if !numbers16(&data, &e.CertificateSchemes) {
			return false
		}
	case extensionConnectionID:
		if !vector8(&data, &e.ConnectionID) {
			return false
		}
	case extensionReturnRoutability:
		e.ReturnRoutability = true
	case extensionRenegotiationInfo:
		e.RenegotiationInfo = true
		if !vector8(&data, &e.RenegotiatedInfo) {
			return false
		}
	default:
		return true
	}
	return data.Empty()
}

// numbers16 reads a vector of numbers of two bytes each, at least one, with a
// length of two bytes.
func numbers16(s *cryptobyte.String, out *[]byte) bool {
	return vector16(s, out) && len(*out) > 0 && len(*out)%2 == 0
}

// readServerName reads the host_name, of which there may be one.
func (e *ClientExtensions) readServerName(data *cryptobyte.String) bool {
	const hostName = 0
	var list cryptobyte.String
	if !data.ReadUint16LengthPrefixed(&list) || list.Empty() {
		return false
	}
	for !list.Empty() {
		var typ uint8
		var name []byte
		if !list.ReadUint8(&typ) || !vector16(&list, &name) || len(name) == 0 || typ == hostName && e.ServerName != "" {
			return false
		}
		if typ == hostName {
			e.ServerName = string(name)
		}
	}
	return true
}

func (e *ClientExtensions) readALPN(data *cryptobyte.String) bool {
	var list cryptobyte.String
	if !data.ReadUint16LengthPrefixed(&list) || list.Empty() {
		return false
	}
	e.ALPN = list
	for !list.Empty() {
		var name []byte
		if !vector8(&list, &name) || len(name) == 0 {
			return false
		}
	}
	return true
}

// SupportedVersions returns the versions of the first supported_versions in the
// content of an extensions block, without a look at what else is there. It
// returns nil where there are none.
func SupportedVersions(block []byte) (versions []byte) {
	s := cryptobyte.String(block)
	for !s.Empty() {
		var id uint16
		var data cryptobyte.String
		if !s.ReadUint16(&id) || !s.ReadUint16LengthPrefixed(&data) {
			return nil
		}
		if id == extensionSupportedVersions {
			if !vector8(&data, &versions) || !data.Empty() || len(versions) == 0 || len(versions)%2 != 0 {
				return nil
			}
			return versions
		}
	}
	return nil
}

// ServerExtensions are the extensions that this server answers with. An empty
// server_name is not among them, against RFC 6066 section 3: some clients
// abort when they see it, and none needs it.
type ServerExtensions struct {
	RenegotiationInfo    bool // empty
	ExtendedMasterSecret bool
	ECPointFormats       bool   // uncompressed
	ALPN                 string // empty: none
	MaxFragmentLength    uint8  // zero: none
	RecordSizeLimit      uint16 // zero: none
	StatusRequest        bool   // a CertificateStatus will follow
	SCTs                 []byte // RFC 6962: a list, behind its length; nil: none
	SessionTicket        bool   // a NewSessionTicket will follow
	ConnectionID         []byte // RFC 9146: at most 255 bytes; nil: none
	ReturnRoutability    bool   // RFC 9853
}

// append appends the extensions block, or nothing when there is none.
func (e *ServerExtensions) append(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, 0, 0)
	add := func(id uint16, data ...byte) {
		dst = binary.BigEndian.AppendUint16(dst, id)
		dst = appendVector16(dst, data)
	}
	if e.RenegotiationInfo {
		add(extensionRenegotiationInfo, 0)
	}
	if e.ExtendedMasterSecret {
		add(extensionExtendedMasterSecret)
	}
	if e.MaxFragmentLength != 0 {
		add(extensionMaxFragmentLength, e.MaxFragmentLength)
	}
	if e.ECPointFormats {
		add(extensionECPointFormats, 1, 0)
	}
	if n := len(e.ALPN); n != 0 { // at most 255
		add(extensionALPN, append([]byte{byte((n + 1) >> 8), byte(n + 1), byte(n)}, e.ALPN...)...)
	}
	if l := e.RecordSizeLimit; l != 0 {
		add(extensionRecordSizeLimit, byte(l>>8), byte(l))
	}
	if e.StatusRequest {
		add(extensionStatusRequest)
	}
	if e.SCTs != nil {
		add(extensionSCT, e.SCTs...)
	}
	if e.SessionTicket {
		add(extensionSessionTicket)
	}
	if e.ConnectionID != nil {
		add(extensionConnectionID, append([]byte{byte(len(e.ConnectionID))}, e.ConnectionID...)...)
	}
	if e.ReturnRoutability {
		add(extensionReturnRoutability)
	}
	if len(dst) == start+2 {
		return dst[:start]
	}
	binary.BigEndian.PutUint16(dst[start:], uint16(len(dst)-start-2))
	return dst
}
