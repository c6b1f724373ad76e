package engine

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// The client's certificates (RFC 5246 section 7.4.6). Parsed, they hold up to
// eighty times their bytes, and parsing takes up to a millisecond. So it is
// done as work, and what the engine keeps is the bytes, and of the leaf what
// the handshake needs.

// MaxClientChain is how many certificates a client may have at most.
const MaxClientChain = 10

// What a stranger may make the server compute and keep is bounded.
const (
	// The cost of an RSA signature grows with the square of the key's length
	// in bits, and with the exponent's.
	maxRSA         = 4096
	maxRSAExponent = 1<<16 + 1
	// maxNamesakes is how many certificates may have one subject: whoever
	// looks for a chain tries each of them for all that name it their issuer.
	maxNamesakes = 2
	// peerRoom is, in bytes, more than the leaf's public key takes.
	peerRoom = 1 << 10
)

// Chain is a chain of certificates, the leaf first, as the body of a
// Certificate message. The empty Chain has none.
type Chain []byte

// list returns the certificates, which alias the chain.
func (c Chain) list() [][]byte {
	if len(c) == 0 {
		return nil
	}
	list, _ := wire.ParseCertificate(c)
	return list
}

// Parse parses the certificates, which alias the chain.
func (c Chain) Parse() (certificates []*x509.Certificate, err error) {
	for _, der := range c.list() {
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		certificates = append(certificates, certificate)
	}
	return certificates, nil
}

// peer is what a handshake needs to know of the client's certificates.
type peer struct {
	key      crypto.PublicKey // the leaf's
	keyHash  [sha256.Size]byte
	notAfter time.Time // the leaf's
	maySign  bool      // the leaf
	parsed   int       // bytes that the parsed certificates hold, at most
}

// examine parses the certificates of a chain, which has one to MaxClientChain. It
// returns the alert for what cannot be used, and why.
func (c Chain) examine() (p *peer, alert wire.AlertDescription, why string) {
	p = new(peer)
	subjects := make(map[string]int)
	for i, der := range c.list() {
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, wire.AlertBadCertificate, "malformed client certificate"
		}
		if key, ok := certificate.PublicKey.(*rsa.PublicKey); ok && (key.N.BitLen() > maxRSA || key.E > maxRSAExponent) {
			return nil, wire.AlertBadCertificate, "a client certificate's RSA key is too long"
		}
		if subjects[string(certificate.RawSubject)]++; subjects[string(certificate.RawSubject)] > maxNamesakes {
			return nil, wire.AlertBadCertificate, "too many client certificates of one name"
		}
		p.parsed += parsedSize(certificate)
		if i == 0 {
			p.key, p.notAfter = certificate.PublicKey, certificate.NotAfter
			p.maySign = MaySign(certificate)
			p.keyHash = sha256.Sum256(certificate.RawSubjectPublicKeyInfo)
		}
	}
	if suite.KeyExchangeOf(p.key) == 0 {
		return nil, wire.AlertUnsupportedCert, "the client certificate's key is of no known kind"
	}
	if !p.maySign {
		return nil, wire.AlertUnsupportedCert, "the client certificate's keyUsage lacks digitalSignature"
	}
	return p, 0, ""
}

// MaySign reports whether a certificate's key is for signatures: if it has
// keyUsage, that must have digitalSignature (RFC 5246 sections 7.4.2 and 7.4.6, RFC
// 5280 section 4.2.1.3).
func MaySign(c *x509.Certificate) bool {
	keyUsage := asn1.ObjectIdentifier{2, 5, 29, 15}
	return c.KeyUsage&x509.KeyUsageDigitalSignature != 0 ||
		!slices.ContainsFunc(c.Extensions, func(x pkix.Extension) bool { return x.Id.Equal(keyUsage) })
}

// parsedSize is how many bytes a parsed certificate holds beside its own, at
// most: a struct, the public key, and for each name, extension and policy a
// value of a size that its encoding does not tell.
func parsedSize(c *x509.Certificate) int {
	const (
		fixed = 2 << 10
		// Slices grow by a quarter or more, and allocations are rounded up.
		perURI       = 192
		perExtension = 128
		perAttribute = 224 // of a name, which is there twice, once as an interface
		perNet       = 128
		perValue     = 64 // a string, an address, an object identifier
		perArc       = 10 // a byte each in the encoding
	)
	n := fixed + 2*len(c.Raw)
	n += perURI * len(c.URIs)
	n += perNet * (len(c.PermittedIPRanges) + len(c.ExcludedIPRanges))
	for _, name := range []*pkix.Name{&c.Subject, &c.Issuer} {
		n += perAttribute * len(name.Names)
		for i := range name.Names {
			n += perArc * len(name.Names[i].Type)
		}
	}
	for i := range c.Extensions {
		n += perExtension + perArc*len(c.Extensions[i].Id)
	}
	for _, ids := range [][]asn1.ObjectIdentifier{c.UnknownExtKeyUsage, c.PolicyIdentifiers, c.UnhandledCriticalExtensions} {
		for _, id := range ids {
			n += perValue + perArc*len(id)
		}
	}
	for _, list := range [][]string{
		c.DNSNames, c.EmailAddresses, c.OCSPServer, c.IssuingCertificateURL, c.CRLDistributionPoints,
		c.PermittedDNSDomains, c.ExcludedDNSDomains, c.PermittedEmailAddresses, c.ExcludedEmailAddresses,
		c.PermittedURIDomains, c.ExcludedURIDomains,
	} {
		n += perValue * len(list)
	}
	return n + perValue*(len(c.IPAddresses)+len(c.ExtKeyUsage)+len(c.Policies)+2*len(c.PolicyMappings))
}

// PeerChain are the client's certificates, none once the handshake is over:
// whoever wants them longer takes them when asked for a verdict.
func (e *Engine) PeerChain() Chain {
	if e.hs == nil {
		return nil
	}
	return e.hs.chain
}

// certified reports whether the client has sent a certificate.
func (e *Engine) certified() bool { return len(e.PeerChain()) > 0 }

// reserve reserves memory until the end of the handshake, if there is any left.
func (e *Engine) reserve(bytes int) bool {
	if e.hs.host != nil && !e.hs.host.Reserve(bytes) {
		return false
	}
	e.hs.reserved += bytes
	return true
}

// unreserve gives back what reserve has reserved.
func (e *Engine) unreserve() {
	if e.hs.host != nil && e.hs.reserved > 0 {
		e.hs.host.Reserve(-e.hs.reserved)
	}
	e.hs.reserved = 0
}

// affords reserves what the next message will have the handshake hold. A
// message that it cannot hold now is dropped: the client will send it again.
func (e *Engine) affords(t wire.HandshakeType, body []byte) bool {
	const none = 3 // bytes of a Certificate without certificates
	switch {
	case t == wire.TypeClientHello && len(body) > maxKept: // while it is answered, and for CertificateVerify
		return e.reserve(2 * len(body))
	case t == wire.TypeCertificate && len(body) > none:
		return e.reserve(len(body) + peerRoom)
	case t == wire.TypeFinished && e.hs.resumed == nil && e.cfg.AskVerdict: // which will be on the parsed certificates
		return e.hs.parsed == 0 || e.reserve(e.hs.parsed)
	}
	return true
}

// learn takes what the certificates say.
func (e *Engine) learn(p *peer) {
	e.hs.peerKey, e.hs.parsed = p.key, p.parsed
	e.parameters.PeerKeyHash = p.keyHash
}
