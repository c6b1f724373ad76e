package dtlsserver

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"

	"github.com/dtlsserver/dtlsserver/internal/engine"
)

// ClientHelloInfo is the argument of Server.GetCertificate. It describes the
// client.
type ClientHelloInfo struct {
	// ServerName is the name that the client asks for (SNI), or empty.
	ServerName string
	// Remote is the client's address, which it has proven.
	Remote netip.AddrPort
	// Local is the address that the client wrote to.
	Local netip.AddrPort
	// CipherSuites, SupportedCurves and SignatureSchemes are what the client offers.
	// A list that the client does not send is nil.
	CipherSuites     []uint16
	SupportedCurves  []tls.CurveID
	SignatureSchemes []tls.SignatureScheme
	// CertificateSchemes are the signature schemes that the client accepts in
	// certificates, if it sends a separate list (RFC 8446 section 4.2.3). Otherwise
	// it is nil.
	CertificateSchemes []tls.SignatureScheme
	// SupportedProtos are the application protocols that the client offers (ALPN).
	SupportedProtos []string

	ctx context.Context
}

// Context returns a context that is done when the handshake is given up or the
// server closes.
func (h *ClientHelloInfo) Context() context.Context { return h.ctx }

// VerifyRequest is the argument of Server.VerifyConnection.
type VerifyRequest struct {
	// State is the result of the handshake so far. The client's certificates in it
	// have been verified as Server.ClientAuth requires.
	State ConnectionState
	// Remote is the client's address, which it has proven.
	Remote netip.AddrPort
	// Local is the address that the client wrote to.
	Local netip.AddrPort
	// Value becomes Session.Value when the handshake is complete, unless SetValue
	// was called before. It is PSK.Value if the client has a pre-shared key, and
	// otherwise nil. VerifyConnection may set it.
	Value any
}

// newCertificate checks a certificate and its key.
func newCertificate(c *tls.Certificate) (*engine.Certificate, error) {
	if len(c.Certificate) == 0 {
		return nil, errors.New("has no certificate")
	}
	leaf, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		return nil, fmt.Errorf("has a leaf that is no certificate: %w", err)
	}
	key, ok := c.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("has a private key of type %T, which is no crypto.Signer", c.PrivateKey)
	}
	type publicKey interface{ Equal(crypto.PublicKey) bool }
	public, ok := key.Public().(publicKey)
	if !ok || !engine.CanAuthenticate(key.Public()) {
		return nil, fmt.Errorf("has a key of type %T, which is neither ECDSA, RSA nor Ed25519", key.Public())
	}
	if !public.Equal(leaf.PublicKey) {
		return nil, errors.New("has a private key that is not its certificate's")
	}
	if !engine.MaySign(leaf) {
		return nil, errors.New("has a leaf whose keyUsage lacks digitalSignature, which clients refuse")
	}
	certificate := &engine.Certificate{Chain: c.Certificate, Key: key, Leaf: leaf}
	for _, scheme := range c.SupportedSignatureAlgorithms {
		certificate.Schemes = append(certificate.Schemes, uint16(scheme))
	}
	if c.SupportedSignatureAlgorithms != nil && certificate.Schemes == nil || !certificate.CanSign() {
		return nil, errors.New("has SupportedSignatureAlgorithms of which its key makes none")
	}
	if len(c.OCSPStaple) > 0 {
		certificate.Staple = c.OCSPStaple
	}
	total := 0
	for _, timestamp := range c.SignedCertificateTimestamps {
		if total += 2 + len(timestamp); len(timestamp) == 0 || total > maxSCTs {
			return nil, fmt.Errorf("has SignedCertificateTimestamps of which one is empty, or of more than %d bytes", maxSCTs)
		}
	}
	if total > 0 {
		certificate.SCTs = engine.SCTs(c.SignedCertificateTimestamps)
	}
	return certificate, nil
}

// maxSCTs bounds the timestamps of a certificate, in bytes: they must fit the
// extensions of ServerHello.
const maxSCTs = 60_000

// askCertificate asks GetCertificate, and falls back on Certificates.
func (s *Session) askCertificate(ctx context.Context, hello *engine.HelloInfo) (*engine.Certificate, error) {
	cfg := s.loop.cfg
	info := &ClientHelloInfo{
		ctx:                ctx,
		ServerName:         hello.ServerName,
		Remote:             s.remote,
		Local:              s.localAddr(),
		CipherSuites:       engine.Numbers[uint16](hello.CipherSuites),
		SupportedCurves:    engine.Numbers[tls.CurveID](hello.SupportedGroups),
		SignatureSchemes:   engine.Numbers[tls.SignatureScheme](hello.Schemes),
		CertificateSchemes: engine.Numbers[tls.SignatureScheme](hello.CertificateSchemes),
		SupportedProtos:    engine.Names(hello.ALPN),
	}
	c, err := cfg.getCertificate(info)
	switch {
	case err != nil:
		return nil, err
	case c == nil:
		return cfg.certificates.choose(hello), nil
	}
	chosen, err := newCertificate(c)
	if err != nil {
		err = fmt.Errorf("dtlsserver: the certificate for %q %w", hello.ServerName, err)
	}
	return chosen, err
}

// judge parses a client's certificates, and verifies them if they are to be. It
// returns the alert that says why not.
func (cfg *config) judge(chain engine.Chain) (c *clientCertificates, alert engine.AlertDescription, err error) {
	certificates, err := chain.Parse()
	if err != nil { // but it was parsed before
		return nil, engine.AlertBadCertificate, fmt.Errorf("dtlsserver: client certificate: %w", err)
	}
	var verified [][]*x509.Certificate
	if cfg.chains != nil {
		if verified, _, err = cfg.chains.verify(certificates); err != nil {
			return nil, certificateAlert(err), fmt.Errorf("dtlsserver: client certificate: %w", err)
		}
	}
	return newClientCertificates(chain, certificates, verified), 0, nil
}

// certificateAlert is the alert for an error of package x509 (RFC 5246 section
// 7.2.2).
func certificateAlert(err error) engine.AlertDescription {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown):
		return engine.AlertUnknownCA
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return engine.AlertCertExpired
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return engine.AlertUnsupportedCert
	default:
		return engine.AlertBadCertificate
	}
}
