package engine

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"fmt"
	"slices"

	"github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// CanAuthenticate reports whether a certificate with the key is of use.
func CanAuthenticate(public crypto.PublicKey) bool { return suite.KeyExchangeOf(public) != 0 }

// DefaultGroups returns the numbers of the groups that serve unless others are
// asked for, in order of preference.
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

// schemes are the signature schemes that the certificate's key makes: a bit each
// of suite.Schemes.
func (c *Certificate) schemes() (can uint16) {
	for i, scheme := range suite.Schemes() {
		if suite.CanSign(c.Key.Public(), scheme) && (c.Schemes == nil || slices.Contains(c.Schemes, scheme)) {
			can |= 1 << i
		}
	}
	return can
}

// CanSign reports whether there is a signature that the certificate's key makes.
func (c *Certificate) CanSign() bool { return c.schemes() != 0 }

// SCTs returns what Certificate.SCTs has.
func SCTs(timestamps [][]byte) []byte { return wire.AppendSCTs(nil, timestamps) }

// group is that of the certificate's key, which clients must have to verify what
// it signs (RFC 8422 section 4), or zero. Clients say in signature_algorithms
// whether they take Ed25519 (RFC 8422 section 5.1.1).
func (c *Certificate) group() uint16 {
	key, ok := c.Key.Public().(*ecdsa.PublicKey)
	if !ok {
		return 0
	}
	switch key.Curve {
	case elliptic.P256():
		return suite.GroupP256
	case elliptic.P384():
		return suite.GroupP384
	case elliptic.P521():
		return suite.GroupP521
	}
	return unknownGroup
}

// unknownGroup is a number that is reserved (RFC 8422 section 5.1.1), for curves
// that have none here.
const unknownGroup = 0xff00

// serves reports whether the client can verify what the certificate's key signs,
// as far as its group is concerned. A client that does not say has all.
func (c *Certificate) serves(supportedGroups []byte) bool {
	group := c.group()
	return group == 0 || supportedGroups == nil || firstOf([]uint16{group}, supportedGroups, false) != 0
}

// signers are the algorithms of the signatures that a client verifies in the
// chain, a bit each. Nobody verifies what a certificate that is its own issuer
// signs for itself.
func (c *Certificate) signers() (used uint32) {
	for i, der := range c.Chain {
		certificate := c.Leaf
		if i > 0 {
			var err error
			if certificate, err = x509.ParseCertificate(der); err != nil {
				used |= 1 << x509.UnknownSignatureAlgorithm
				continue
			}
		}
		if !bytes.Equal(certificate.RawIssuer, certificate.RawSubject) {
			used |= 1 << certificate.SignatureAlgorithm
		}
	}
	return used
}

// signerSchemes are the signature schemes of an algorithm of certificates, of
// which either will do: that of RSA-PSS depends on how the issuer's key is named
// (RFC 8446 section 4.2.3).
var signerSchemes = map[x509.SignatureAlgorithm][]uint16{
	x509.SHA1WithRSA:      {0x0201},
	x509.SHA256WithRSA:    {suite.PKCS1WithSHA256},
	x509.SHA384WithRSA:    {suite.PKCS1WithSHA384},
	x509.SHA512WithRSA:    {suite.PKCS1WithSHA512},
	x509.ECDSAWithSHA1:    {0x0203},
	x509.ECDSAWithSHA256:  {suite.ECDSAWithSHA256},
	x509.ECDSAWithSHA384:  {suite.ECDSAWithSHA384},
	x509.ECDSAWithSHA512:  {suite.ECDSAWithSHA512},
	x509.SHA256WithRSAPSS: {suite.PSSWithSHA256, 0x0809},
	x509.SHA384WithRSAPSS: {suite.PSSWithSHA384, 0x080a},
	x509.SHA512WithRSAPSS: {suite.PSSWithSHA512, 0x080b},
	x509.PureEd25519:      {suite.Ed25519},
}

// Kind is what decides which clients can make use of a certificate: any two of
// a kind suit the same ones.
type Kind struct {
	exchange suite.KeyExchange
	schemes  uint16 // that the key can sign with: a bit each of suite.Schemes
	group    uint16 // of the key
	signers  uint32 // of the chain: a bit each of x509.SignatureAlgorithm
}

// Kind returns the certificate's kind.
func (c *Certificate) Kind() Kind {
	return Kind{suite.KeyExchangeOf(c.Key.Public()), c.schemes(), c.group(), c.signers()}
}

// Fit is how well a certificate suits a client.
type Fit uint8

// The fits.
const (
	FitNot Fit = iota
	// FitKey: the key suits the client, but it does not say that it knows all
	// signatures in the chain.
	FitKey
	FitChain
)

// Suits says how the certificates of each kind suit the client, in the suites that
// the server has. It reads the hello's lists once, however many kinds there are.
func (hello *HelloInfo) Suits(kinds []Kind, served []*suite.Suite) []Fit {
	suites, schemes, groups := newNumbers(hello.CipherSuites), newNumbers(hello.Schemes), newNumbers(hello.SupportedGroups)
	var can uint16
	for i, scheme := range suite.Schemes() {
		if schemes.has(scheme) {
			can |= 1 << i
		}
	}
	if hello.CertificateSchemes != nil { // RFC 8446 section 4.2.3
		schemes = newNumbers(hello.CertificateSchemes)
	}
	var known uint32
	for algorithm, either := range signerSchemes {
		if slices.ContainsFunc(either, schemes.has) {
			known |= 1 << algorithm
		}
	}
	var exchanges [suite.ECDHERSA + 1]bool
	for _, s := range served {
		exchanges[s.KeyExchange] = exchanges[s.KeyExchange] || suites.has(s.ID)
	}
	fits := make([]Fit, len(kinds))
	for i, k := range kinds {
		switch {
		case !exchanges[k.exchange] || can&k.schemes == 0:
		case k.group != 0 && hello.SupportedGroups != nil && !groups.has(k.group):
		case k.signers&^known != 0:
			fits[i] = FitKey
		default:
			fits[i] = FitChain
		}
	}
	return fits
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
