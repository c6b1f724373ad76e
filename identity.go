package dtlsserver

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"iter"
	"slices"

	"github.com/dtlsserver/dtlsserver/internal/engine"
)

// IdentityKind says what an Identity is.
type IdentityKind uint8

// The kinds of identity.
const (
	// IdentityNone is the kind of the zero Identity: the peer has shown none.
	IdentityNone IdentityKind = iota
	// IdentityPSK: Value is the PSK identity, any bytes (RFC 4279).
	IdentityPSK
	// IdentityCertificate: Value is the SHA-256 of the public key of the peer's
	// certificate, in 32 bytes.
	IdentityCertificate
)

// Identity is what the peer of a session has proven to have: the key of a PSK
// identity or of a certificate. Peers that share a key share their identity.
// Identities may be compared, and be keys of a map.
type Identity struct {
	Kind  IdentityKind
	Value string
}

// PSKIdentity returns the Identity of clients with a PSK identity.
func PSKIdentity(identity string) Identity { return Identity{IdentityPSK, identity} }

// CertificateIdentity returns the Identity of clients with the certificate, or
// with another of the same public key.
func CertificateIdentity(c *x509.Certificate) Identity {
	hash := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return Identity{IdentityCertificate, string(hash[:])}
}

// String returns the PSK identity, quoted, or the hash in hex.
func (id Identity) String() string {
	switch id.Kind {
	case IdentityPSK:
		return fmt.Sprintf("psk:%q", id.Value)
	case IdentityCertificate:
		return fmt.Sprintf("key:%x", id.Value)
	default:
		return "none"
	}
}

// Identity is who the peer has proven to be: its PSK identity, or the key of its
// certificate. It is zero before the handshake is complete, for a peer that has
// sent no certificate in a suite with certificates, and for one whose
// certificate nobody verifies, neither as Server.ClientAuth says nor by
// VerifyConnection.
func (s *Session) Identity() Identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.complete {
		return Identity{}
	}
	return s.provenLocked()
}

// provenLocked is the identity of a complete handshake.
func (s *Session) provenLocked() Identity {
	p := s.eng.Parameters()
	switch {
	case !engine.UsesCertificate(p.Suite):
		return PSKIdentity(p.Identity)
	case p.PeerKeyHash != [sha256.Size]byte{} && (s.loop.cfg.chains != nil || s.loop.cfg.verifyConnection != nil):
		return Identity{IdentityCertificate, string(p.PeerKeyHash[:])}
	default:
		return Identity{}
	}
}

// SessionsOf returns the sessions of an identity that are open when it is
// called, in no order. There are none of the zero Identity.
func (s *Server) SessionsOf(id Identity) iter.Seq[*Session] {
	l := s.current()
	if l == nil {
		return func(func(*Session) bool) {}
	}
	return slices.Values(l.sessionsOf(id))
}

func (l *loop) sessionsOf(id Identity) (all []*Session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	who := l.open.identities[id]
	if who == nil {
		return nil
	}
	for p := who.pairs; ; {
		for s := p.sessions; ; {
			all = append(all, s)
			if s = s.inGroup.next; s == p.sessions {
				break
			}
		}
		if p = p.ofIdentity.next; p == who.pairs {
			return all
		}
	}
}
