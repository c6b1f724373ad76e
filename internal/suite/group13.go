package suite

import (
	"crypto/ecdh"
	"crypto/mlkem"
	"errors"
	"fmt"
	"io"
	"slices"
)

// GroupX25519MLKEM768 is ML-KEM-768 (FIPS 203) and X25519 side by side, for key shares
// of TLS 1.3 (draft-ietf-tls-ecdhe-mlkem): the client's share is an encapsulation key
// and the server's a ciphertext, each with 32 bytes of X25519 behind it, and the secret
// has those of both in the same order. An attacker must break both.
const GroupX25519MLKEM768 uint16 = 0x11ec

// Groups13 returns the numbers of the groups of TLS 1.3 that serve unless others are
// asked for, in order of preference.
func Groups13() []uint16 {
	return []uint16{GroupX25519MLKEM768, GroupX25519, GroupP256, GroupP384}
}

// HasGroup13 reports whether there is a group of TLS 1.3 with the number: P-521 too,
// which must be asked for.
func HasGroup13(group uint16) bool { return group == GroupX25519MLKEM768 || Curve(group) != nil }

// ErrKeyShare is in the errors of a peer's share that has a wrong length, is no point of
// the curve or no encapsulation key, or makes the secret of X25519 zero (RFC 8446
// sections 4.2.8.2 and 7.4.2). Its peer gets illegal_parameter.
var ErrKeyShare = errors.New("suite: bad key share")

// ServerShare answers a client's share of a group with the server's, and returns the
// secret that they make. Both are the caller's own. The random source is what
// ecdh.Curve.GenerateKey makes of it; ML-KEM has its own.
func ServerShare(random io.Reader, group uint16, clientShare []byte) (share, secret []byte, err error) {
	if group != GroupX25519MLKEM768 {
		return ecdhShare(random, group, clientShare)
	}
	if len(clientShare) != mlkem.EncapsulationKeySize768+x25519Len {
		return nil, nil, fmt.Errorf("%w: length %d", ErrKeyShare, len(clientShare))
	}
	kem, err := mlkem.NewEncapsulationKey768(clientShare[:mlkem.EncapsulationKeySize768])
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrKeyShare, err)
	}
	ours, shared, err := ecdhShare(random, GroupX25519, clientShare[mlkem.EncapsulationKeySize768:])
	if err != nil {
		return nil, nil, err
	}
	encapsulated, ciphertext := kem.Encapsulate()
	return append(ciphertext, ours...), joined(encapsulated, shared), nil
}

// x25519Len is the length of a public key of X25519, and of a secret.
const x25519Len = 32

// joined returns the secrets one behind the other, and clears them.
func joined(a, b []byte) []byte {
	defer clear(a)
	defer clear(b)
	return slices.Concat(a, b)
}

func ecdhShare(random io.Reader, group uint16, clientShare []byte) (share, secret []byte, err error) {
	curve := Curve(group)
	if curve == nil {
		return nil, nil, errGroup
	}
	theirs, err := curve.NewPublicKey(clientShare)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrKeyShare, err)
	}
	ours, err := curve.GenerateKey(random)
	if err != nil {
		return nil, nil, err
	}
	if secret, err = ours.ECDH(theirs); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrKeyShare, err)
	}
	return ours.PublicKey().Bytes(), secret, nil
}

var errGroup = errors.New("suite: there is no such group")

// KeyShare is a client's key share, for clients in tests.
type KeyShare struct {
	ecdh *ecdh.PrivateKey
	kem  *mlkem.DecapsulationKey768 // nil: the group has none
}

// NewKeyShare makes a key share of a group. The random source is as for ServerShare.
func NewKeyShare(random io.Reader, group uint16) (*KeyShare, error) {
	k := new(KeyShare)
	if group == GroupX25519MLKEM768 {
		var err error
		if k.kem, err = mlkem.GenerateKey768(); err != nil {
			return nil, err
		}
		group = GroupX25519
	}
	curve := Curve(group)
	if curve == nil {
		return nil, errGroup
	}
	var err error
	k.ecdh, err = curve.GenerateKey(random)
	return k, err
}

// Bytes returns what goes to the server, in memory of its own.
func (k *KeyShare) Bytes() []byte {
	public := k.ecdh.PublicKey().Bytes()
	if k.kem == nil {
		return public
	}
	return append(k.kem.EncapsulationKey().Bytes(), public...)
}

// Secret returns the secret that the share makes with the server's, in memory of its
// own.
func (k *KeyShare) Secret(serverShare []byte) ([]byte, error) {
	var encapsulated []byte
	if k.kem != nil {
		if len(serverShare) != mlkem.CiphertextSize768+x25519Len {
			return nil, fmt.Errorf("%w: length %d", ErrKeyShare, len(serverShare))
		}
		var err error
		if encapsulated, err = k.kem.Decapsulate(serverShare[:mlkem.CiphertextSize768]); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrKeyShare, err)
		}
		serverShare = serverShare[mlkem.CiphertextSize768:]
	}
	theirs, err := k.ecdh.Curve().NewPublicKey(serverShare)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeyShare, err)
	}
	shared, err := k.ecdh.ECDH(theirs)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeyShare, err)
	}
	return joined(encapsulated, shared), nil
}
