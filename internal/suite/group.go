package suite

import "crypto/ecdh"

// The groups of ECDHE (RFC 8422 section 5.1.1) by their registered numbers.
const (
	GroupP256   uint16 = 23
	GroupP384   uint16 = 24
	GroupP521   uint16 = 25
	GroupX25519 uint16 = 29
)

// Groups returns the numbers of the groups that serve unless others are asked for,
// in order of preference: P-256 is the cheapest here, and some stacks break on
// X25519 with ECDHE_PSK. P-521 costs some twenty times as much, and no client needs it.
func Groups() []uint16 { return []uint16{GroupP256, GroupX25519, GroupP384} }

// Curve returns the curve of a group, or nil.
func Curve(group uint16) ecdh.Curve {
	switch group {
	case GroupP256:
		return ecdh.P256()
	case GroupP384:
		return ecdh.P384()
	case GroupP521:
		return ecdh.P521()
	case GroupX25519:
		return ecdh.X25519()
	}
	return nil
}
