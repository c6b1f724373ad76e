package wire

import (
	"iter"

	"golang.org/x/crypto/cryptobyte"
)

// ClientExtensions13 are the extensions of a ClientHello that have a meaning here in DTLS
// 1.3; every other is skipped, however malformed.
type ClientExtensions13 struct {
	// ClientExtensions are those that 1.2 has too. Those that only 1.2 has are skipped:
	// max_fragment_length, ec_point_formats, extended_master_secret, session_ticket and
	// renegotiation_info.
	ClientExtensions

	KeyShares              KeyShareList // RFC 8446 section 4.2.8: nil when not sent, else perhaps empty
	PSKs                   OfferedPSKs  // RFC 8446 section 4.2.11
	PSKModes               []byte       // RFC 8446 section 4.2.9: one byte each
	Cookie                 []byte       // RFC 8446 section 4.2.2
	EarlyData              bool         // RFC 8446 section 4.2.10
	CertificateAuthorities []byte       // RFC 8446 section 4.2.4: names, each behind its length of two bytes

	// Duplicate says that an extension came twice, known or not: the first one is here,
	// and what the others hold was not read (RFC 8446 section 4.2).
	Duplicate bool
	// DuplicateShare says that KeyShares has a group twice (RFC 8446 section 4.2.8).
	DuplicateShare bool
	// PSKNotLast says that another extension comes behind pre_shared_key (RFC 8446 section
	// 4.2.11).
	PSKNotLast bool
}

// ParseClientExtensions13 reads the content of an extensions block as DTLS 1.3 does. What is
// malformed makes it fail; what breaks a rule of more than one extension is reported, since
// another alert is due.
func ParseClientExtensions13(block []byte) (e ClientExtensions13, ok bool) {
	var seen numberSet
	s := cryptobyte.String(block)
	for !s.Empty() {
		var id uint16
		var data cryptobyte.String
		if !readExtension(&s, &id, &data) {
			return ClientExtensions13{}, false
		}
		e.PSKNotLast = e.PSKs.Identities != nil
		if !seen.add(id) {
			e.Duplicate = true
			continue
		}
		if !e.read13(id, data) {
			return ClientExtensions13{}, false
		}
		if id == extensionPreSharedKey {
			e.PSKs.BindersAt = len(block) - len(s) - len(e.PSKs.Binders) - 2
		}
	}
	return e, true
}

func (e *ClientExtensions13) read13(id uint16, data cryptobyte.String) bool {
	switch id {
	case extensionServerName, extensionStatusRequest, extensionSupportedGroups, extensionSignatureAlgorithms, extensionALPN,
		extensionSCT, extensionRecordSizeLimit, extensionSupportedVersions, extensionCertificateSchemes,
		extensionConnectionID, extensionReturnRoutability:
		return e.read(id, data)
	case extensionPreSharedKey:
		if !e.PSKs.read(&data) {
			return false
		}
	case extensionEarlyData:
		e.EarlyData = true
	case extensionCookie:
		if !vector16(&data, &e.Cookie) || len(e.Cookie) == 0 {
			return false
		}
	case extensionPSKModes:
		if !vector8(&data, &e.PSKModes) || len(e.PSKModes) == 0 {
			return false
		}
	case extensionCertificateAuthorities:
		if !names16(&data, &e.CertificateAuthorities) {
			return false
		}
	case extensionKeyShare:
		if !e.readKeyShares(&data) {
			return false
		}
	default:
		return true
	}
	return data.Empty()
}

// KeyShare is a public key of a group (RFC 8446 section 4.2.8).
type KeyShare struct {
	Group uint16
	Key   []byte // key_exchange: not empty
}

// KeyShareList is the client_shares of a ClientHello: KeyShareEntries.
type KeyShareList []byte

func readKeyShare(s *cryptobyte.String, k *KeyShare) bool {
	return s.ReadUint16(&k.Group) && vector16(s, &k.Key) && len(k.Key) > 0
}

func (e *ClientExtensions13) readKeyShares(data *cryptobyte.String) bool {
	if !vector16(data, (*[]byte)(&e.KeyShares)) {
		return false
	}
	var seen numberSet
	for list := cryptobyte.String(e.KeyShares); !list.Empty(); {
		var share KeyShare
		if !readKeyShare(&list, &share) {
			return false
		}
		if !seen.add(share.Group) {
			e.DuplicateShare = true
		}
	}
	return true
}

// All gives the shares of a list that was parsed, in the client's order.
func (l KeyShareList) All() iter.Seq[KeyShare] {
	return func(yield func(KeyShare) bool) {
		for list := cryptobyte.String(l); ; {
			var share KeyShare
			if !readKeyShare(&list, &share) || !yield(share) {
				return
			}
		}
	}
}

// Key returns the first key of a group in a list that was parsed, or nil.
func (l KeyShareList) Key(group uint16) []byte {
	for share := range l.All() {
		if share.Group == group {
			return share.Key
		}
	}
	return nil
}

// OfferedPSKs is the pre_shared_key of a ClientHello (RFC 8446 section 4.2.11).
type OfferedPSKs struct {
	Identities []byte // PskIdentities: not empty, and nil when the extension was not sent
	Binders    []byte // PskBinderEntries: not empty, each behind its length of one byte
	// IdentityCount and BinderCount are how many there are. They should be equal.
	IdentityCount, BinderCount int
	// BindersAt is where in the block the length of Binders is: the binders are of the
	// ClientHello up to there, which still says its whole length in front (RFC 8446
	// section 4.2.11.2). When pre_shared_key is last, as it must be, the two bytes of the
	// length and Binders are the end of the message.
	BindersAt int
}

// OfferedPSK is one identity and its binder.
type OfferedPSK struct {
	Identity      []byte // not empty
	ObfuscatedAge uint32 // obfuscated_ticket_age
	Binder        []byte // 32 to 255 bytes
}

// minBinderLen is the length of the shortest binder (RFC 8446 section 4.2.11).
const minBinderLen = 32

func readIdentity(s *cryptobyte.String, p *OfferedPSK) bool {
	return vector16(s, &p.Identity) && len(p.Identity) > 0 && s.ReadUint32(&p.ObfuscatedAge)
}

func readBinder(s *cryptobyte.String, p *OfferedPSK) bool {
	return vector8(s, &p.Binder) && len(p.Binder) >= minBinderLen
}

func (o *OfferedPSKs) read(data *cryptobyte.String) bool {
	if !vector16(data, &o.Identities) || len(o.Identities) == 0 || !vector16(data, &o.Binders) || len(o.Binders) == 0 {
		return false
	}
	var p OfferedPSK
	for list := cryptobyte.String(o.Identities); !list.Empty(); o.IdentityCount++ {
		if !readIdentity(&list, &p) {
			return false
		}
	}
	for list := cryptobyte.String(o.Binders); !list.Empty(); o.BinderCount++ {
		if !readBinder(&list, &p) {
			return false
		}
	}
	return true
}

// All gives the identities that have a binder, in the client's order, with the index that
// a ServerHello names one by.
func (o *OfferedPSKs) All() iter.Seq2[int, OfferedPSK] {
	return func(yield func(int, OfferedPSK) bool) {
		identities, binders := cryptobyte.String(o.Identities), cryptobyte.String(o.Binders)
		for i := 0; ; i++ {
			var p OfferedPSK
			if !readIdentity(&identities, &p) || !readBinder(&binders, &p) || !yield(i, p) {
				return
			}
		}
	}
}
