package dtlsserver

import (
	"bytes"
	"crypto/x509"
	"weak"

	"github.com/dtlsserver/dtlsserver/internal/engine"
)

// The client's certificates as a session keeps them: their bytes alone, since
// parsed they hold up to eighty times as much.

// clientCertificates are a client's, once they were found good.
type clientCertificates struct {
	chain    engine.Chain
	verified [][]member

	// Guarded by Session.mu.
	parsed weak.Pointer[parsedCertificates]
	held   *parsedCertificates // until KindHandshakeComplete was delivered
}

// member is a certificate of a verified chain.
type member struct {
	place int               // among the client's, when other is nil
	other *x509.Certificate // a root
}

// parsedCertificates are the certificates, parsed. ConnectionState's
// PeerCertificates lie in it: whoever holds those holds all.
type parsedCertificates struct {
	certificates [engine.MaxClientChain]*x509.Certificate
	count        int
}

// newClientCertificates returns what is kept of a chain, of what was parsed of
// it and of the chains that it was verified by.
func newClientCertificates(chain engine.Chain, certificates []*x509.Certificate, verified [][]*x509.Certificate) *clientCertificates {
	c := &clientCertificates{chain: chain, held: newParsedCertificates(certificates)}
	c.parsed = weak.Make(c.held)
	for _, path := range verified {
		members := make([]member, len(path))
		for i, certificate := range path {
			members[i] = memberFor(certificate, certificates, i == len(path)-1)
		}
		c.verified = append(c.verified, members)
	}
	return c
}

// memberFor finds a certificate among the client's. A root is the operator's own,
// and systems that verify by themselves may return copies of the others.
func memberFor(certificate *x509.Certificate, certificates []*x509.Certificate, root bool) member {
	for i, own := range certificates {
		if own == certificate || !root && bytes.Equal(own.Raw, certificate.Raw) {
			return member{place: i}
		}
	}
	return member{other: certificate}
}

func newParsedCertificates(certificates []*x509.Certificate) *parsedCertificates {
	p := new(parsedCertificates)
	p.count = copy(p.certificates[:], certificates)
	return p
}

// fill sets what a ConnectionState says of certificates.
func (c *clientCertificates) fill(state *ConnectionState, p *parsedCertificates) {
	state.PeerCertificates = p.certificates[:p.count:p.count]
	for _, members := range c.verified {
		chain := make([]*x509.Certificate, len(members))
		for i, m := range members {
			if chain[i] = m.other; m.other == nil {
				chain[i] = p.certificates[m.place]
			}
		}
		state.VerifiedChains = append(state.VerifiedChains, chain)
	}
}

// parse returns the certificates, parsed: those that somebody still holds, or
// else anew, without the lock.
func (s *Session) parse(c *clientCertificates) *parsedCertificates {
	lookUp := func() *parsedCertificates {
		s.mu.Lock()
		defer s.mu.Unlock()
		return c.parsed.Value()
	}
	if p := lookUp(); p != nil {
		return p
	}
	certificates, _ := c.chain.Parse() // it was parsed before
	p := newParsedCertificates(certificates)
	s.mu.Lock()
	defer s.mu.Unlock()
	if other := c.parsed.Value(); other != nil {
		return other
	}
	c.parsed = weak.Make(p)
	return p
}

// releaseCertificates lets go of the parsed certificates, now that
// KindHandshakeComplete was delivered.
func (s *Session) releaseCertificates() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clientCertificates != nil {
		s.clientCertificates.held = nil
	}
}
