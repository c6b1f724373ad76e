package wire

// What the extensions of DTLS 1.3 share, whatever message they are in (RFC 8446 section
// 4.2).

import (
	"encoding/binary"

	"golang.org/x/crypto/cryptobyte"
)

// The extensions that have a meaning here in DTLS 1.3 alone.
const (
	extensionPreSharedKey           uint16 = 41
	extensionEarlyData              uint16 = 42
	extensionCookie                 uint16 = 44
	extensionPSKModes               uint16 = 45
	extensionCertificateAuthorities uint16 = 47
	extensionKeyShare               uint16 = 51
)

// numberSet notes which numbers of two bytes have come.
type numberSet [1 << 16 / 64]uint64

// add reports whether n is new.
func (s *numberSet) add(n uint16) bool {
	word, bit := &s[n/64], uint64(1)<<(n%64)
	if *word&bit != 0 {
		return false
	}
	*word |= bit
	return true
}

// readExtension splits the first extension off the content of a block.
func readExtension(s *cryptobyte.String, id *uint16, data *cryptobyte.String) bool {
	return s.ReadUint16(id) && s.ReadUint16LengthPrefixed(data)
}

// eachExtension has read take each extension of a block's content, to its last byte. It
// fails when read does, when an extension is not whole, and when one comes twice.
func eachExtension(block []byte, read func(id uint16, data *cryptobyte.String) bool) bool {
	var seen numberSet
	for s := cryptobyte.String(block); !s.Empty(); {
		var id uint16
		var data cryptobyte.String
		if !readExtension(&s, &id, &data) || !seen.add(id) || !read(id, &data) || !data.Empty() {
			return false
		}
	}
	return true
}

// skipExtension is a reader for eachExtension that takes anything.
func skipExtension(_ uint16, data *cryptobyte.String) bool { return data.Skip(len(*data)) }

// wholeExtensions reports whether a block's content is made of extensions of which none
// comes twice.
func wholeExtensions(block []byte) bool {
	return len(block) == 0 || eachExtension(block, skipExtension)
}

// appendExtension appends an extension.
func appendExtension(dst []byte, id uint16, data ...byte) []byte {
	return appendVector16(binary.BigEndian.AppendUint16(dst, id), data)
}

// appendExtensionList appends an extension that is one vector with a length of two bytes,
// or nothing when the list is nil.
func appendExtensionList(dst []byte, id uint16, list []byte) []byte {
	if list == nil {
		return dst
	}
	dst = binary.BigEndian.AppendUint16(dst, id)
	dst = binary.BigEndian.AppendUint16(dst, uint16(2+len(list)))
	return appendVector16(dst, list)
}

// endVector16 writes the length of a vector whose length field is at start and whose
// content ends with dst.
func endVector16(dst []byte, start int) []byte {
	binary.BigEndian.PutUint16(dst[start:], uint16(len(dst)-start-2))
	return dst
}

// names16 reads a vector, with a length of two bytes, of vectors that are not empty and
// have such lengths too. There is at least one.
func names16(s *cryptobyte.String, out *[]byte) bool {
	if !vector16(s, out) || len(*out) == 0 {
		return false
	}
	for list := cryptobyte.String(*out); !list.Empty(); {
		var name []byte
		if !vector16(&list, &name) || len(name) == 0 {
			return false
		}
	}
	return true
}

// AppendUint16s appends numbers of two bytes each, such as groups and signature schemes.
func AppendUint16s(dst []byte, numbers ...uint16) []byte {
	for _, n := range numbers {
		dst = binary.BigEndian.AppendUint16(dst, n)
	}
	return dst
}

// AppendDistinguishedName appends a name to the list of certificate_authorities (RFC 8446
// section 4.2.4).
func AppendDistinguishedName(dst, name []byte) []byte { return appendVector16(dst, name) }
