package suite

import (
	"encoding/binary"
	"slices"

	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// MasterSecretLen is the length of the master secret (RFC 5246 section 8.1).
const MasterSecretLen = 48

// Secret is a secret that the PRF is computed with, keyed once for all uses.
// What its methods return is its own: it is good until the next call of one. A
// Secret can become one secret after another, which allocates only when the hash
// changes. The zero Secret is for Become. It is not safe for concurrent use.
type Secret struct {
	suite *Suite
	mac   hmac
	// text is A(i), and behind it label and seed: what HMAC is computed of,
	// in one piece.
	text [MaxHashLen + maxSeed]byte
	out  [2 * (MaxKeyLen + NonceLen)]byte
}

// maxSeed is the length of the longest label and seed but for those of Export,
// which need an array of their own.
const maxSeed = len("key expansion") + 2*wire.RandomLen

// NewSecret returns the secret b, which is not kept, for the PRF of the suite.
func (s *Suite) NewSecret(b []byte) *Secret {
	secret := new(Secret)
	secret.Become(s, b)
	return secret
}

// Become makes s the secret b, which is not kept, for the PRF of the suite.
func (s *Secret) Become(suite *Suite, b []byte) {
	s.suite = suite
	s.mac.setKey(suite.Hash, b)
}

// Forget clears the secret and what was made of it.
func (s *Secret) Forget() {
	s.mac.forget()
	clear(s.text[:])
	clear(s.out[:])
}

// prf fills out with PRF(secret, label, seed...) (RFC 5246 section 5).
func (s *Secret) prf(out []byte, label string, seed ...[]byte) []byte {
	size := s.mac.Size()
	text := append(s.text[:size], label...)
	for _, b := range seed {
		text = append(text, b...)
	}
	a := s.mac.sum(text[:0], text[size:]) // A(1) = HMAC(secret, label + seed)
	for rest := out; ; {
		rest = rest[copy(rest, s.mac.sum(s.mac.scratch[:0], text)):]
		if len(rest) == 0 {
			return out
		}
		a = s.mac.sum(a[:0], a)
	}
}

// AppendPSKPremaster appends the premaster secret of the plain PSK key
// exchange: as many zeros as the key has bytes, then the key, each behind its
// length (RFC 4279 section 2).
func AppendPSKPremaster(dst, psk []byte) []byte {
	dst = slices.Grow(dst, 4+2*len(psk)) // at once: no part of it is left elsewhere
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(psk)))
	dst = append(dst, make([]byte, len(psk))...)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(psk)))
	return append(dst, psk...)
}

// AppendECDHEPSKPremaster appends the premaster secret of ECDHE_PSK: the shared
// secret of ECDH, then the key, each behind its length (RFC 5489 section 2).
func AppendECDHEPSKPremaster(dst, shared, psk []byte) []byte {
	dst = slices.Grow(dst, 4+len(shared)+len(psk))
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(shared)))
	dst = append(dst, shared...)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(psk)))
	return append(dst, psk...)
}

// MasterSecret derives the master secret from a premaster secret and the
// hellos' randoms (RFC 5246 section 8.1).
func (s *Secret) MasterSecret(clientRandom, serverRandom []byte) []byte {
	return s.prf(s.out[:MasterSecretLen], "master secret", clientRandom, serverRandom)
}

// ExtendedMasterSecret derives the master secret from a premaster secret and
// the hash of the transcript up to and with ClientKeyExchange (RFC 7627 section
// 4).
func (s *Secret) ExtendedMasterSecret(sessionHash []byte) []byte {
	return s.prf(s.out[:MasterSecretLen], "extended master secret", sessionHash)
}

// Keys are the write keys and IVs of both directions.
type Keys struct {
	ClientKey, ServerKey []byte
	ClientIV, ServerIV   []byte
}

// Keys derives the key block from a master secret (RFC 5246 section 6.3). An
// AEAD has no MAC keys.
func (s *Secret) Keys(clientRandom, serverRandom []byte) Keys {
	keyLen, ivLen := s.suite.KeyLen, s.suite.FixedIVLen
	block := s.prf(s.out[:2*(keyLen+ivLen)], "key expansion", serverRandom, clientRandom)
	take := func(n int) []byte {
		b := block[:n:n]
		block = block[n:]
		return b
	}
	return Keys{take(keyLen), take(keyLen), take(ivLen), take(ivLen)}
}

// Export returns n bytes of keying material for a use of the application's,
// made of a master secret (RFC 5705 section 4), in memory of their own. A nil
// context is none, which is not an empty one.
func (s *Secret) Export(n int, clientRandom, serverRandom []byte, label string, context []byte) []byte {
	seed := [][]byte{clientRandom, serverRandom}
	if context != nil {
		length := binary.BigEndian.AppendUint16(nil, uint16(len(context)))
		seed = append(seed, length, context)
	}
	return s.prf(make([]byte, n), label, seed...)
}

// ClientVerifyData returns verify_data of the client's Finished, made of a
// master secret (RFC 5246 section 7.4.9).
func (s *Secret) ClientVerifyData(transcriptHash []byte) []byte {
	return s.verifyData("client finished", transcriptHash)
}

// ServerVerifyData returns verify_data of the server's Finished.
func (s *Secret) ServerVerifyData(transcriptHash []byte) []byte {
	return s.verifyData("server finished", transcriptHash)
}

func (s *Secret) verifyData(label string, transcriptHash []byte) []byte {
	return s.prf(s.out[:wire.VerifyDataLen], label, transcriptHash)
}
