package suite

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"io"
)

// The signature schemes (RFC 5246 section 7.4.1.4.1, RFC 8446 section 4.2.3,
// RFC 8422 section 5.10) by their registered numbers. In TLS 1.2 those of ECDSA
// name a hash and no curve.
const (
	PKCS1WithSHA256 uint16 = 0x0401
	PKCS1WithSHA384 uint16 = 0x0501
	PKCS1WithSHA512 uint16 = 0x0601
	ECDSAWithSHA256 uint16 = 0x0403
	ECDSAWithSHA384 uint16 = 0x0503
	ECDSAWithSHA512 uint16 = 0x0603
	PSSWithSHA256   uint16 = 0x0804
	PSSWithSHA384   uint16 = 0x0805
	PSSWithSHA512   uint16 = 0x0806
	Ed25519         uint16 = 0x0807
)

// Schemes returns the numbers of all signature schemes in order of preference.
func Schemes() []uint16 {
	return []uint16{
		ECDSAWithSHA256, ECDSAWithSHA384, ECDSAWithSHA512, Ed25519,
		PSSWithSHA256, PSSWithSHA384, PSSWithSHA512,
		PKCS1WithSHA256, PKCS1WithSHA384, PKCS1WithSHA512,
	}
}

// schemeHash returns the hash of a scheme; zero: the message is signed itself.
func schemeHash(scheme uint16) crypto.Hash {
	switch scheme {
	case PKCS1WithSHA256, ECDSAWithSHA256, PSSWithSHA256:
		return crypto.SHA256
	case PKCS1WithSHA384, ECDSAWithSHA384, PSSWithSHA384:
		return crypto.SHA384
	case PKCS1WithSHA512, ECDSAWithSHA512, PSSWithSHA512:
		return crypto.SHA512
	}
	return 0
}

// KeyExchangeOf returns the key exchange of the suites that a certificate with
// the public key serves, or zero.
func KeyExchangeOf(public crypto.PublicKey) KeyExchange {
	switch public.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return ECDHEECDSA
	case *rsa.PublicKey:
		return ECDHERSA
	}
	return 0
}

// CanSign reports whether a key can make signatures of the scheme.
func CanSign(public crypto.PublicKey, scheme uint16) bool {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		return scheme == ECDSAWithSHA256 || scheme == ECDSAWithSHA384 || scheme == ECDSAWithSHA512
	case ed25519.PublicKey:
		return scheme == Ed25519
	case *rsa.PublicKey:
		switch scheme {
		case PKCS1WithSHA256, PKCS1WithSHA384, PKCS1WithSHA512:
			return true
		case PSSWithSHA256, PSSWithSHA384, PSSWithSHA512:
			return (key.N.BitLen()+6)/8 >= 2*schemeHash(scheme).Size()+2 // RFC 8017 section 9.1.1
		}
	}
	return false
}

func digest(scheme uint16, message []byte) ([]byte, crypto.Hash) {
	hash := schemeHash(scheme)
	if hash == 0 {
		return message, hash
	}
	h := hash.New()
	h.Write(message)
	return h.Sum(nil), hash
}

func pssOptions(scheme uint16, hash crypto.Hash) *rsa.PSSOptions {
	switch scheme {
	case PSSWithSHA256, PSSWithSHA384, PSSWithSHA512:
		return &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
	}
	return nil
}

// Sign signs the message.
func Sign(random io.Reader, key crypto.Signer, scheme uint16, message []byte) ([]byte, error) {
	if !CanSign(key.Public(), scheme) {
		return nil, errors.New("suite: the key does not make signatures of this scheme")
	}
	signed, hash := digest(scheme, message)
	if options := pssOptions(scheme, hash); options != nil {
		return key.Sign(random, signed, options)
	}
	return key.Sign(random, signed, hash)
}

// Verify reports whether the signature of the message is the key's.
func Verify(public crypto.PublicKey, scheme uint16, message, signature []byte) bool {
	if !CanSign(public, scheme) {
		return false
	}
	signed, hash := digest(scheme, message)
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, signed, signature)
	case ed25519.PublicKey:
		return ed25519.Verify(key, signed, signature)
	case *rsa.PublicKey:
		if options := pssOptions(scheme, hash); options != nil {
			return rsa.VerifyPSS(key, hash, signed, signature, options) == nil
		}
		return rsa.VerifyPKCS1v15(key, hash, signed, signature) == nil
	}
	return false
}
