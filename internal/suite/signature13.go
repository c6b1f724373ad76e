package suite

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"io"
	"slices"
)

// Schemes13 returns the numbers of the signature schemes of TLS 1.3's CertificateVerify
// in order of preference. They are all of Schemes but PKCS #1, which signs nothing but
// certificates in 1.3 (RFC 8446 section 4.2.3).
func Schemes13() []uint16 {
	return []uint16{
		ECDSAWithSHA256, ECDSAWithSHA384, ECDSAWithSHA512, Ed25519,
		PSSWithSHA256, PSSWithSHA384, PSSWithSHA512,
	}
}

// CanSign13 reports whether a key can make signatures of the scheme in TLS 1.3, where
// those of ECDSA name a curve too (RFC 8446 section 4.2.3).
func CanSign13(public crypto.PublicKey, scheme uint16) bool {
	if !slices.Contains(Schemes13(), scheme) || !CanSign(public, scheme) {
		return false
	}
	key, ok := public.(*ecdsa.PublicKey)
	if !ok {
		return true
	}
	switch scheme {
	case ECDSAWithSHA256:
		return key.Curve == elliptic.P256()
	case ECDSAWithSHA384:
		return key.Curve == elliptic.P384()
	case ECDSAWithSHA512:
		return key.Curve == elliptic.P521()
	}
	return false
}

// ServerSigned returns what the signature of the server's CertificateVerify is made of,
// of the hash of the transcript up to and with its Certificate (RFC 8446 section 4.4.3).
// DTLS has the context strings of TLS.
func ServerSigned(transcriptHash []byte) []byte {
	return signed("TLS 1.3, server CertificateVerify", transcriptHash)
}

// ClientSigned returns what the signature of the client's CertificateVerify is made of,
// as ServerSigned does.
func ClientSigned(transcriptHash []byte) []byte {
	return signed("TLS 1.3, client CertificateVerify", transcriptHash)
}

func signed(context string, transcriptHash []byte) []byte {
	b := make([]byte, 64, 64+len(context)+1+len(transcriptHash))
	for i := range b {
		b[i] = ' '
	}
	b = append(b, context...)
	b = append(b, 0)
	return append(b, transcriptHash...)
}

// Sign13 signs what ServerSigned or ClientSigned returned.
func Sign13(random io.Reader, key crypto.Signer, scheme uint16, message []byte) ([]byte, error) {
	if !CanSign13(key.Public(), scheme) {
		return nil, errors.New("suite: the key does not make signatures of this scheme in TLS 1.3")
	}
	return Sign(random, key, scheme, message)
}

// Verify13 reports whether the signature of what ServerSigned or ClientSigned returned is
// the key's.
func Verify13(public crypto.PublicKey, scheme uint16, message, signature []byte) bool {
	return CanSign13(public, scheme) && Verify(public, scheme, message, signature)
}
