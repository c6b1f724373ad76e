package suite

import (
	"crypto/hmac"
	"crypto/sha512"
	"encoding/binary"
	"hash"

	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// MasterSecretLen is the length of the master secret (RFC 5246 section 8.1).
const MasterSecretLen = 48

// Secret is a secret that the PRF is computed with, keyed once for all uses. It
// is not safe for concurrent use.
type Secret struct {
	suite    *Suite
	mac      hash.Hash // HMAC with the secret
	a, block [sha512.Size384]byte
	seed     [80]byte // label and seed; those of Export may be longer
}

// NewSecret returns the secret b, which is not kept, for the PRF of the suite.
func (s *Suite) NewSecret(b []byte) *Secret {
	secret := &Secret{suite: s}
	secret.Become(b)
	return secret
}

// Become makes s the secret b, which is not kept.
func (s *Secret) Become(b []byte) { s.mac = hmac.New(s.suite.Hash, b) }

// prf fills out with PRF(secret, label, seed...) (RFC 5246 section 5).
func (s *Secret) prf(out []byte, label string, seed ...[]byte) {
	labelled := append(s.seed[:0], label...)
	for _, b := range seed {
		labelled = append(labelled, b...)
	}
	a := s.hmac(s.a[:0], labelled, nil) // A(1) = HMAC(secret, label + seed)
	for {
		n := copy(out, s.hmac(s.block[:0], a, labelled))
		if out = out[n:]; len(out) == 0 {
			return
		}
		a = s.hmac(a[:0], a, nil)
	}
}

// hmac appends HMAC(secret, b + more) to dst.
func (s *Secret) hmac(dst, b, more []byte) []byte {
	s.mac.Reset()
	s.mac.Write(b)
	s.mac.Write(more)
	return s.mac.Sum(dst)
}

// PSKPremaster returns the premaster secret of the plain PSK key exchange:
// as many zeros as the key has bytes, then the key, each behind its length
// (RFC 4279 section 2).
func PSKPremaster(psk []byte) []byte {
	return ECDHEPSKPremaster(make([]byte, len(psk)), psk)
}

// ECDHEPSKPremaster returns the premaster secret of ECDHE_PSK: the shared
// secret of ECDH, then the key, each behind its length (RFC 5489 section 2).
func ECDHEPSKPremaster(shared, psk []byte) []byte {
	out := make([]byte, 0, 4+len(shared)+len(psk))
	out = binary.BigEndian.AppendUint16(out, uint16(len(shared)))
	out = append(out, shared...)
	out = binary.BigEndian.AppendUint16(out, uint16(len(psk)))
	return append(out, psk...)
}

// MasterSecret derives the master secret from a premaster secret and the
// hellos' randoms (RFC 5246 section 8.1).
func (s *Secret) MasterSecret(clientRandom, serverRandom []byte) []byte {
	out := make([]byte, MasterSecretLen)
	s.prf(out, "master secret", clientRandom, serverRandom)
	return out
}

// ExtendedMasterSecret derives the master secret from a premaster secret and
// the hash of the transcript up to and with ClientKeyExchange (RFC 7627 section
// 4).
func (s *Secret) ExtendedMasterSecret(sessionHash []byte) []byte {
	out := make([]byte, MasterSecretLen)
	s.prf(out, "extended master secret", sessionHash)
	return out
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
	block := make([]byte, 2*(keyLen+ivLen))
	s.prf(block, "key expansion", serverRandom, clientRandom)
	take := func(n int) []byte {
		b := block[:n:n]
		block = block[n:]
		return b
	}
	return Keys{take(keyLen), take(keyLen), take(ivLen), take(ivLen)}
}

// Export returns n bytes of keying material for a use of the application's,
// made of a master secret (RFC 5705 section 4). A nil context is none, which is
// not an empty one.
func (s *Secret) Export(n int, clientRandom, serverRandom []byte, label string, context []byte) []byte {
	out := make([]byte, n)
	seed := [][]byte{clientRandom, serverRandom}
	if context != nil {
		length := binary.BigEndian.AppendUint16(nil, uint16(len(context)))
		seed = append(seed, length, context)
	}
	s.prf(out, label, seed...)
	return out
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
	out := make([]byte, wire.VerifyDataLen)
	s.prf(out, label, transcriptHash)
	return out
}
