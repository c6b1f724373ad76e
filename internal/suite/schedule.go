package suite

import (
	"crypto/hmac"
	"encoding/binary"

	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// MasterSecretLen is the length of the master secret (RFC 5246 section 8.1).
const MasterSecretLen = 48

// prf fills out with PRF(secret, label, seed...) (RFC 5246 section 5).
func (s *Suite) prf(out, secret []byte, label string, seed ...[]byte) {
	mac := hmac.New(s.Hash, secret)
	mac.Write([]byte(label))
	for _, b := range seed {
		mac.Write(b)
	}
	a := mac.Sum(nil) // A(1) = HMAC(secret, label + seed)
	var block []byte
	for {
		mac.Reset()
		mac.Write(a)
		mac.Write([]byte(label))
		for _, b := range seed {
			mac.Write(b)
		}
		block = mac.Sum(block[:0])
		n := copy(out, block)
		if out = out[n:]; len(out) == 0 {
			return
		}
		mac.Reset()
		mac.Write(a)
		a = mac.Sum(a[:0])
	}
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

// MasterSecret derives the master secret from the hellos' randoms (RFC 5246
// section 8.1).
func (s *Suite) MasterSecret(premaster, clientRandom, serverRandom []byte) []byte {
	out := make([]byte, MasterSecretLen)
	s.prf(out, premaster, "master secret", clientRandom, serverRandom)
	return out
}

// ExtendedMasterSecret derives the master secret from the hash of the
// transcript up to and with ClientKeyExchange (RFC 7627 section 4).
func (s *Suite) ExtendedMasterSecret(premaster, sessionHash []byte) []byte {
	out := make([]byte, MasterSecretLen)
	s.prf(out, premaster, "extended master secret", sessionHash)
	return out
}

// Keys are the write keys and IVs of both directions.
type Keys struct {
	ClientKey, ServerKey []byte
	ClientIV, ServerIV   []byte
}

// Keys derives the key block (RFC 5246 section 6.3). An AEAD has no MAC keys.
func (s *Suite) Keys(master, clientRandom, serverRandom []byte) Keys {
	block := make([]byte, 2*(s.KeyLen+s.FixedIVLen))
	s.prf(block, master, "key expansion", serverRandom, clientRandom)
	take := func(n int) []byte {
		b := block[:n:n]
		block = block[n:]
		return b
	}
	return Keys{take(s.KeyLen), take(s.KeyLen), take(s.FixedIVLen), take(s.FixedIVLen)}
}

// Export returns n bytes of keying material for a use of the application's
// (RFC 5705 section 4). A nil context is none, which is not an empty one.
func (s *Suite) Export(n int, master, clientRandom, serverRandom []byte, label string, context []byte) []byte {
	out := make([]byte, n)
	seed := [][]byte{clientRandom, serverRandom}
	if context != nil {
		length := binary.BigEndian.AppendUint16(nil, uint16(len(context)))
		seed = append(seed, length, context)
	}
	s.prf(out, master, label, seed...)
	return out
}

// ClientVerifyData returns verify_data of the client's Finished (RFC 5246
// section 7.4.9).
func (s *Suite) ClientVerifyData(master, transcriptHash []byte) []byte {
	return s.verifyData(master, "client finished", transcriptHash)
}

// ServerVerifyData returns verify_data of the server's Finished.
func (s *Suite) ServerVerifyData(master, transcriptHash []byte) []byte {
	return s.verifyData(master, "server finished", transcriptHash)
}

func (s *Suite) verifyData(master []byte, label string, transcriptHash []byte) []byte {
	out := make([]byte, wire.VerifyDataLen)
	s.prf(out, master, label, transcriptHash)
	return out
}
