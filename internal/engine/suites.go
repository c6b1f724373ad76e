package engine

import (
	"crypto"
	"fmt"

	"github.com/dtlsserver/dtlsserver/internal/suite"
)

// CanAuthenticate reports whether a certificate with the key is of use.
func CanAuthenticate(public crypto.PublicKey) bool { return suite.KeyExchangeOf(public) != 0 }

// DefaultGroups returns the numbers of all groups in order of preference.
func DefaultGroups() []uint16 { return suite.Groups() }

// HasGroup reports whether there is a group with the number.
func HasGroup(id uint16) bool { return suite.Curve(id) != nil }

// UsesCertificate reports whether a suite needs a certificate, and not a
// pre-shared key.
func UsesCertificate(s *suite.Suite) bool { return !s.KeyExchange.WithPSK() }

// Serves reports whether the certificate is what the suite authenticates with.
func (c *Certificate) Serves(s *Suite) bool {
	return suite.KeyExchangeOf(c.Key.Public()) == s.KeyExchange
}

// Kind is what decides which clients can make use of a certificate: any two of
// a kind suit the same ones.
type Kind struct {
	exchange suite.KeyExchange
	schemes  uint16 // that the key can sign with: a bit each of suite.Schemes
}

// Kind returns the certificate's kind.
func (c *Certificate) Kind() Kind {
	k := Kind{exchange: suite.KeyExchangeOf(c.Key.Public())}
	for i, scheme := range suite.Schemes() {
		if suite.CanSign(c.Key.Public(), scheme) {
			k.schemes |= 1 << i
		}
	}
	return k
}

// Suits reports whether the client can make use of the certificates of each
// kind. It reads the hello's lists once, however many kinds there are.
func (hello *HelloInfo) Suits(kinds []Kind) []bool {
	var suites, schemes numbers
	suites.add(hello.CipherSuites)
	schemes.add(hello.Schemes)
	var can uint16
	for i, scheme := range suite.Schemes() {
		if schemes.has(scheme) {
			can |= 1 << i
		}
	}
	suits := make([]bool, len(kinds))
	for _, s := range suite.All() {
		if suites.has(s.ID) {
			for i, k := range kinds {
				suits[i] = suits[i] || s.KeyExchange == k.exchange && can&k.schemes != 0
			}
		}
	}
	return suits
}

// Suite is a cipher suite.
type Suite = suite.Suite

// Suites returns the cipher suites with the numbers, in their order, and the
// numbers that name none.
func Suites(ids []uint16) (suites []*suite.Suite, unknown []uint16) {
	for _, id := range ids {
		if s := suite.ByID(id); s != nil {
			suites = append(suites, s)
		} else {
			unknown = append(unknown, id)
		}
	}
	return suites, unknown
}

// SuiteName returns the registered name of a cipher suite, or its number in hex.
func SuiteName(id uint16) string {
	if s := suite.ByID(id); s != nil {
		return s.Name
	}
	return fmt.Sprintf("%#04x", id)
}

// DefaultSuites returns the numbers of all cipher suites in order of
// preference.
func DefaultSuites() []uint16 {
	var ids []uint16
	for _, s := range suite.All() {
		ids = append(ids, s.ID)
	}
	return ids
}
