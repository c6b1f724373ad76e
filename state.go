package dtlsserver

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"github.com/dtlsserver/dtlsserver/internal/engine"
)

// ConnectionState is the result of a handshake. The caller must not modify
// PeerCertificates or any certificate.
type ConnectionState struct {
	Version              uint16      // VersionDTLS12
	CipherSuite          uint16      // IANA number
	CurveID              tls.CurveID // ECDHE group, or zero
	PSKIdentity          string      // any bytes, or empty with certificates
	ServerName           string      // name that the client asked for (SNI)
	NegotiatedProtocol   string      // ALPN, or empty
	ExtendedMasterSecret bool        // RFC 7627
	DidResume            bool        // with a session ticket (RFC 5077)
	HandshakeComplete    bool
	// ConnectionID is what the client's records carry (RFC 9146), or nil. The caller
	// must not modify it.
	ConnectionID      []byte
	ReturnRoutability bool // both sides support the return routability check (RFC 9853)
	// PeerCertificates are the client's certificates, the leaf first.
	// Server.ClientAuth determines whether they have been verified.
	PeerCertificates []*x509.Certificate
	// VerifiedChains are the verified chains, if the client was verified. Each
	// begins with PeerCertificates[0] and ends with one of Server.ClientCAs.
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

// ConnectionState returns the result of the handshake. Until the handshake is
// complete, only PSKIdentity is set, and it is not proven.
//
// The session keeps only the encoded certificates. Each call parses them, unless
// PeerCertificates of an earlier call are still in use.
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
	state.ConnectionID, state.ReturnRoutability = s.eng.ConnectionID(), s.eng.ChecksPaths()
	return state, s.clientCertificates
}

// identityLocked is the PSK identity as events have it. What is longer than it may
// be is cut off.
func (s *Session) identityLocked() string {
	identity := s.eng.Parameters().Identity
	return identity[:min(len(identity), s.loop.cfg.maxPSKIdentity)]
}

// VersionDTLS12 is the value of ConnectionState.Version for DTLS 1.2.
const VersionDTLS12 = 0xfefd

func versionName(v uint16) string {
	if v == VersionDTLS12 {
		return "DTLS 1.2"
	}
	return fmt.Sprintf("version %#04x", v)
}
