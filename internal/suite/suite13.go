package suite

import (
	"crypto"

	"golang.org/x/crypto/chacha20poly1305"
)

// The suites of TLS 1.3 (RFC 8446 section B.4) by their registered numbers. There
// is no CCM_8, of which no number of failed records is safe (RFC 9147 section
// 4.5.3).
const (
	AES128GCM uint16 = 0x1301
	AES256GCM uint16 = 0x1302
	ChaCha20  uint16 = 0x1303
	AES128CCM uint16 = 0x1304
)

// AEAD13 is a way to protect records of DTLS 1.3. All of its nonce is implicit:
// FixedIVLen is 12, and the sequence number is XORed into the IV (RFC 8446 section
// 5.3). Keys for sequence numbers have KeyLen bytes too (RFC 9147 section 4.2.3).
type AEAD13 struct {
	AEAD
	// SealLimit is how many records may be sealed with one key, and OpenLimit how
	// many records that do not open it may be tried on (RFC 9147 section 4.5.3).
	SealLimit, OpenLimit uint64

	chaCha20 bool // what masks sequence numbers; else AES
}

// The limits of RFC 9147 section 4.5.3 and appendix B, and RFC 8446 section 5.5.
const (
	gcmSealLimit    = 23_726_566 // 2^24.5
	ccmSealLimit    = 1 << 23
	numberSealLimit = 1<<48 - 1 // sequence numbers end before the key of ChaCha20-Poly1305 does
	openLimit       = 1 << 36
	ccmOpenLimit    = 11_863_283 // 2^23.5
)

// Suite13 is one cipher suite of TLS 1.3: a hash and an AEAD. How the peers agree on
// a secret and authenticate is no part of it, and all go with each.
type Suite13 struct {
	ID   uint16
	Name string      // as IANA registers it
	Hash crypto.Hash // of the key schedule and of the transcript
	*AEAD13
}

// all13 is in order of preference. CCM is last: its limits are low, and one who
// forges records gets to that of failed ones in a minute.
var all13 = []*Suite13{
	{AES128GCM, "TLS_AES_128_GCM_SHA256", crypto.SHA256, &AEAD13{
		AEAD: AEAD{16, NonceLen, 16, newGCM}, SealLimit: gcmSealLimit, OpenLimit: openLimit}},
	{AES256GCM, "TLS_AES_256_GCM_SHA384", crypto.SHA384, &AEAD13{
		AEAD: AEAD{32, NonceLen, 16, newGCM}, SealLimit: gcmSealLimit, OpenLimit: openLimit}},
	{ChaCha20, "TLS_CHACHA20_POLY1305_SHA256", crypto.SHA256, &AEAD13{
		AEAD: AEAD{32, NonceLen, 16, chacha20poly1305.New}, SealLimit: numberSealLimit, OpenLimit: openLimit, chaCha20: true}},
	{AES128CCM, "TLS_AES_128_CCM_SHA256", crypto.SHA256, &AEAD13{
		AEAD: AEAD{16, NonceLen, 16, newCCM16}, SealLimit: ccmSealLimit, OpenLimit: ccmOpenLimit}},
}

// All13 returns every suite of TLS 1.3 in order of preference.
func All13() []*Suite13 { return append([]*Suite13(nil), all13...) }

// ByID13 returns the suite of TLS 1.3 with the number, or nil.
func ByID13(id uint16) *Suite13 {
	for _, s := range all13 {
		if s.ID == id {
			return s
		}
	}
	return nil
}
