// Package suite holds the cipher suites of the server and the key schedules: that
// of TLS 1.2 with the PRF, the master secret, the key block and verify_data
// (RFC 5246 sections 5, 6.3, 7.4.9 and 8.1; RFC 4279; RFC 7627), and that of
// DTLS 1.3 (RFC 8446 section 7.1, RFC 9147). What is of 1.3 alone has 13 in its
// name or in that of its file.
//
// Every suite is an AEAD (RFC 5116): GCM (RFC 5487), CCM and CCM_8 (RFC 6655)
// and ChaCha20-Poly1305 (RFC 7905). There is no CBC.
package suite

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	_ "crypto/sha256" // crypto.SHA256
	"crypto/sha512"   // crypto.SHA384

	"golang.org/x/crypto/chacha20poly1305"
)

// KeyExchange is the way the peers of a suite agree on a premaster secret.
type KeyExchange uint8

// The key exchanges.
const (
	PSK        KeyExchange = iota + 1 // RFC 4279 section 2
	ECDHEPSK                          // RFC 5489
	ECDHEECDSA                        // RFC 8422; Ed25519 keys too
	ECDHERSA                          // RFC 8422
)

// ECDHE reports whether the key exchange is an ephemeral Diffie-Hellman one.
func (k KeyExchange) ECDHE() bool { return k != PSK }

// WithPSK reports whether the peers authenticate by a pre-shared key, and not
// by certificates.
func (k KeyExchange) WithPSK() bool { return k == PSK || k == ECDHEPSK }

const (
	// NonceLen is the length of the nonce of every suite.
	NonceLen = 12
	// MaxKeyLen is the length of the longest key.
	MaxKeyLen = 32
	// MaxHashLen is the length of the longest hash.
	MaxHashLen = sha512.Size384
)

// AEAD is a way to protect records.
type AEAD struct {
	KeyLen int // bytes
	// FixedIVLen is the length of the implicit part of the nonce: 4 bytes
	// with 8 explicit ones in each record (RFC 5288 section 3), or all 12,
	// which the sequence number is XORed into (RFC 7905 section 2).
	FixedIVLen int
	TagLen     int
	cipher     func(key []byte) (cipher.AEAD, error)
}

// ExplicitNonceLen is how many bytes of the nonce travel in each record.
func (a *AEAD) ExplicitNonceLen() int { return NonceLen - a.FixedIVLen }

// Overhead is by how many bytes a sealed record's payload is longer than its
// plaintext.
func (a *AEAD) Overhead() int { return a.ExplicitNonceLen() + a.TagLen }

// New returns the AEAD for a key of KeyLen bytes. It is not safe for concurrent
// use.
func (a *AEAD) New(key []byte) (cipher.AEAD, error) { return a.cipher(key) }

var (
	aes128GCM  = &AEAD{16, 4, 16, newGCM}
	aes256GCM  = &AEAD{32, 4, 16, newGCM}
	chaCha20   = &AEAD{32, 12, 16, chacha20poly1305.New}
	aes128CCM  = &AEAD{16, 4, 16, newCCM16}
	aes256CCM  = &AEAD{32, 4, 16, newCCM16}
	aes128CCM8 = &AEAD{16, 4, 8, newCCM8}
	aes256CCM8 = &AEAD{32, 4, 8, newCCM8}
)

// Suite is one cipher suite: a key exchange, a hash and an AEAD.
type Suite struct {
	ID          uint16
	Name        string // as IANA registers it
	KeyExchange KeyExchange
	Hash        crypto.Hash // of the PRF and of the transcript
	*AEAD
}

// The suites by their registered numbers.
const (
	ECDHEPSKWithAES128GCM  uint16 = 0xd001
	ECDHEPSKWithAES256GCM  uint16 = 0xd002
	ECDHEPSKWithChaCha20   uint16 = 0xccac
	ECDHEPSKWithAES128CCM  uint16 = 0xd005
	ECDHEPSKWithAES128CCM8 uint16 = 0xd003

	PSKWithAES128GCM  uint16 = 0x00a8
	PSKWithAES256GCM  uint16 = 0x00a9
	PSKWithChaCha20   uint16 = 0xccab
	PSKWithAES128CCM  uint16 = 0xc0a4
	PSKWithAES256CCM  uint16 = 0xc0a5
	PSKWithAES128CCM8 uint16 = 0xc0a8
	PSKWithAES256CCM8 uint16 = 0xc0a9

	ECDHEECDSAWithAES128GCM  uint16 = 0xc02b
	ECDHEECDSAWithAES256GCM  uint16 = 0xc02c
	ECDHERSAWithAES128GCM    uint16 = 0xc02f
	ECDHERSAWithAES256GCM    uint16 = 0xc030
	ECDHEECDSAWithChaCha20   uint16 = 0xcca9
	ECDHERSAWithChaCha20     uint16 = 0xcca8
	ECDHEECDSAWithAES128CCM  uint16 = 0xc0ac
	ECDHEECDSAWithAES256CCM  uint16 = 0xc0ad
	ECDHEECDSAWithAES128CCM8 uint16 = 0xc0ae
	ECDHEECDSAWithAES256CCM8 uint16 = 0xc0af
)

// all is in order of preference.
var all = []*Suite{
	{ECDHEPSKWithAES128GCM, "TLS_ECDHE_PSK_WITH_AES_128_GCM_SHA256", ECDHEPSK, crypto.SHA256, aes128GCM},
	{ECDHEPSKWithAES256GCM, "TLS_ECDHE_PSK_WITH_AES_256_GCM_SHA384", ECDHEPSK, crypto.SHA384, aes256GCM},
	{ECDHEPSKWithChaCha20, "TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256", ECDHEPSK, crypto.SHA256, chaCha20},
	{ECDHEPSKWithAES128CCM, "TLS_ECDHE_PSK_WITH_AES_128_CCM_SHA256", ECDHEPSK, crypto.SHA256, aes128CCM},
	{ECDHEPSKWithAES128CCM8, "TLS_ECDHE_PSK_WITH_AES_128_CCM_8_SHA256", ECDHEPSK, crypto.SHA256, aes128CCM8},
	{PSKWithAES128GCM, "TLS_PSK_WITH_AES_128_GCM_SHA256", PSK, crypto.SHA256, aes128GCM},
	{PSKWithAES256GCM, "TLS_PSK_WITH_AES_256_GCM_SHA384", PSK, crypto.SHA384, aes256GCM},
	{PSKWithChaCha20, "TLS_PSK_WITH_CHACHA20_POLY1305_SHA256", PSK, crypto.SHA256, chaCha20},
	{PSKWithAES128CCM, "TLS_PSK_WITH_AES_128_CCM", PSK, crypto.SHA256, aes128CCM},
	{PSKWithAES256CCM, "TLS_PSK_WITH_AES_256_CCM", PSK, crypto.SHA256, aes256CCM},
	{PSKWithAES128CCM8, "TLS_PSK_WITH_AES_128_CCM_8", PSK, crypto.SHA256, aes128CCM8},
	{PSKWithAES256CCM8, "TLS_PSK_WITH_AES_256_CCM_8", PSK, crypto.SHA256, aes256CCM8},
	{ECDHEECDSAWithAES128GCM, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", ECDHEECDSA, crypto.SHA256, aes128GCM},
	{ECDHEECDSAWithAES256GCM, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", ECDHEECDSA, crypto.SHA384, aes256GCM},
	{ECDHERSAWithAES128GCM, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", ECDHERSA, crypto.SHA256, aes128GCM},
	{ECDHERSAWithAES256GCM, "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", ECDHERSA, crypto.SHA384, aes256GCM},
	{ECDHEECDSAWithChaCha20, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", ECDHEECDSA, crypto.SHA256, chaCha20},
	{ECDHERSAWithChaCha20, "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", ECDHERSA, crypto.SHA256, chaCha20},
	{ECDHEECDSAWithAES128CCM, "TLS_ECDHE_ECDSA_WITH_AES_128_CCM", ECDHEECDSA, crypto.SHA256, aes128CCM},
	{ECDHEECDSAWithAES256CCM, "TLS_ECDHE_ECDSA_WITH_AES_256_CCM", ECDHEECDSA, crypto.SHA256, aes256CCM},
	{ECDHEECDSAWithAES128CCM8, "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8", ECDHEECDSA, crypto.SHA256, aes128CCM8},
	{ECDHEECDSAWithAES256CCM8, "TLS_ECDHE_ECDSA_WITH_AES_256_CCM_8", ECDHEECDSA, crypto.SHA256, aes256CCM8},
}

// All returns every suite in order of preference.
func All() []*Suite { return append([]*Suite(nil), all...) }

// ByID returns the suite with the number, or nil.
func ByID(id uint16) *Suite {
	for _, s := range all {
		if s.ID == id {
			return s
		}
	}
	return nil
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func newCCM16(key []byte) (cipher.AEAD, error) { return newCCM(key, 16) }
func newCCM8(key []byte) (cipher.AEAD, error)  { return newCCM(key, 8) }
