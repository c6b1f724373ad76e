package dtlsserver

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"iter"
	"slices"

	"github.com/dtlsserver/dtlsserver/internal/engine"
)

// IdentityKind is the kind of an Identity.
type IdentityKind uint8

// The kinds of identity.
const (
	// IdentityNone is the kind of the zero Identity: the peer has not proven any.
	IdentityNone IdentityKind = iota
	// IdentityPSK means that Value is the PSK identity, which may be any bytes (RFC
	// 4279).
	IdentityPSK
	// IdentityCertificate means that Value is the SHA-256 hash, in 32 bytes, of the
	// public key of the peer's certificate.
	IdentityCertificate
)

// Identity identifies the peer of a session by the key that it has proven to
// have: that of a PSK identity or of a certificate. Peers that share a key share
// their identity. Identities are comparable and may be used as map keys.
type Identity struct {
	Kind  IdentityKind
	Value string
}

// PSKIdentity returns the Identity of clients with the given PSK identity.
func PSKIdentity(identity string) Identity { return Identity{IdentityPSK, identity} }

// CertificateIdentity returns the Identity of clients with the given certificate,
// or with another certificate for the same public key.
func CertificateIdentity(c *x509.Certificate) Identity {
	hash := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return Identity{IdentityCertificate, string(hash[:])}
}

// String returns the quoted PSK identity after "psk:", the hash in hexadecimal
// after "key:", or "none".
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

// Identity returns the identity that the peer has proven: its PSK identity, or
// the key of its certificate. It returns the zero Identity before the handshake
// is complete, for a peer without a certificate in a cipher suite with
// certificates, and for a peer whose certificate is verified neither by
// Server.ClientAuth nor by VerifyConnection.
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

// SessionsOf returns the sessions of an identity that are open at the time of the
// call, in no particular order. For the zero Identity it returns none.
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
