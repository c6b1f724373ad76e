package dtlsserver

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"github.com/dtlsserver/dtlsserver/internal/engine"
)

// ConnectionState is what a handshake has settled. It is the caller's but for
// the certificates, which must not be changed.
type ConnectionState struct {
	Version              uint16      // 0xfefd: DTLS 1.2
	CipherSuite          uint16      // as IANA registers it
	CurveID              tls.CurveID // of ECDHE; zero: none
	PSKIdentity          string      // any bytes; empty with certificates
	ServerName           string      // that the client asked for (SNI)
	NegotiatedProtocol   string      // ALPN; empty: none
	ExtendedMasterSecret bool        // RFC 7627
	DidResume            bool        // by a session ticket (RFC 5077)
	HandshakeComplete    bool
	// PeerCertificates are the client's, the leaf first. Server.ClientAuth says
	// whether they were verified.
	PeerCertificates []*x509.Certificate
	// VerifiedChains begin with PeerCertificates[0] and end with one of
	// Server.ClientCAs, when the client was verified.
	VerifiedChains [][]*x509.Certificate
}

func newConnectionState(p *engine.Parameters) ConnectionState {
	return ConnectionState{
		Version:              VersionDTLS12,
		CipherSuite:          p.Suite.ID,
		CurveID:              tls.CurveID(p.Group),
		PSKIdentity:          p.Identity,
		ServerName:           p.ServerName,
		NegotiatedProtocol:   p.ALPN,
		ExtendedMasterSecret: p.ExtendedMasterSecret,
		DidResume:            p.Resumed,
	}
}

// ConnectionState returns what the handshake has settled. Until it is complete
// all is zero but the PSK identity, which is then no more than a claim.
//
// Of certificates the session keeps the bytes alone. They are parsed each time,
// unless somebody still holds what came of it the last time, in
// PeerCertificates.
func (s *Session) ConnectionState() ConnectionState {
	state, certificates := s.connectionState()
	if certificates != nil {
		certificates.fill(&state, s.parse(certificates))
	}
	return state
}

// connectionState returns all but the certificates, and those apart.
func (s *Session) connectionState() (ConnectionState, *clientCertificates) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.complete {
		return ConnectionState{PSKIdentity: s.identityLocked()}, nil
	}
	state := newConnectionState(s.eng.Parameters())
	state.HandshakeComplete = true
	return state, s.clientCertificates
}

// identityLocked is the PSK identity as events have it. What is longer than it may
// be is cut off.
func (s *Session) identityLocked() string {
	identity := s.eng.Parameters().Identity
	return identity[:min(len(identity), s.loop.cfg.maxPSKIdentity)]
}

// VersionDTLS12 is ConnectionState.Version.
const VersionDTLS12 = 0xfefd

func versionName(v uint16) string {
	if v == VersionDTLS12 {
		return "DTLS 1.2"
	}
	return fmt.Sprintf("version %#04x", v)
}
