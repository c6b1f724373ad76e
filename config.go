package dtlsserver

import (
	"cmp"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/engine"
)

// The defaults of Server's fields.
const (
	DefaultMaxPSKIdentity = 256 // bytes

	DefaultMaxClientCertificates = 16 << 10 // bytes
	DefaultHandshakeTimeout      = 30 * time.Second
	DefaultIdleTimeout           = 10 * time.Minute
	DefaultMaxSessions           = 100_000
	DefaultMaxHandshakes         = 2_000
	// DefaultMaxHandshakesPerSource leaves room for many clients behind one
	// address.
	DefaultMaxHandshakesPerSource = 200
	DefaultMaxHandshakeMemory     = 16 << 20 // bytes
	DefaultMTU                    = 1200     // bytes of UDP payload
	DefaultReadBuffer             = 4 << 20  // bytes
	DefaultWriteBuffer            = 4 << 20  // bytes
)

// maxHint bounds PSKIdentityHint: it must fit the first flight.
const maxHint = 1 << 10

// maxHandshakeMessage is the length of the longest handshake message.
const maxHandshakeMessage = 1<<24 - 1

// maxMTU is the largest UDP payload of IPv4.
const maxMTU = 65507

// DefaultCipherSuites returns the cipher suites that a Server offers when
// CipherSuites is nil, in order of preference, as IANA numbers them.
func DefaultCipherSuites() []uint16 { return engine.DefaultSuites() }

// CipherSuiteName returns the name that IANA has registered for a cipher suite of
// DefaultCipherSuites, and the number in hex for any other.
func CipherSuiteName(id uint16) string { return engine.SuiteName(id) }

// config is what a Server's fields come to while it serves.
type config struct {
	handler        EventHandler
	psk            PSKFunc
	maxPSKIdentity int
	verifier       *Verifier
	idleTimeout    time.Duration

	chooseCertificate func(*engine.HelloInfo) *engine.Certificate
	getCertificate    func(*ClientHelloInfo) (*tls.Certificate, error)
	clientAuth        tls.ClientAuthType
	clientCAs         *x509.CertPool
	verifyConnection  func(ConnectionState) error
	maxSessions       int
	maxHandshakes     int
	maxPerSource      int // negative: no limit
	maxMemory         int // bytes
	readBuffer        int
	writeBuffer       int
	engine            *engine.Config
}

// config checks the fields and returns what they come to, or all that is
// wrong.
func (s *Server) config() (*config, error) {
	var errs []error
	refuse := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("dtlsserver: Server."+field+" "+format, args...))
	}
	count := func(field string, value, standard int) int {
		if value < 0 {
			refuse(field, "is negative: %d", value)
		}
		return cmp.Or(value, standard)
	}
	duration := func(field string, value, standard time.Duration) time.Duration {
		if value < 0 {
			refuse(field, "is negative: %v", value)
		}
		return cmp.Or(value, standard)
	}

	cfg := &config{
		handler:        s.Handler,
		psk:            s.PSK,
		maxPSKIdentity: count("MaxPSKIdentity", s.MaxPSKIdentity, DefaultMaxPSKIdentity),
		verifier:       s.Verifier,
		idleTimeout:    duration("IdleTimeout", s.IdleTimeout, DefaultIdleTimeout),
		maxSessions:    count("MaxSessions", s.MaxSessions, DefaultMaxSessions),
		maxHandshakes:  count("MaxHandshakes", s.MaxHandshakes, DefaultMaxHandshakes),
		readBuffer:     count("ReadBuffer", s.ReadBuffer, DefaultReadBuffer),
		writeBuffer:    count("WriteBuffer", s.WriteBuffer, DefaultWriteBuffer),
	}
	cfg.maxPerSource = cmp.Or(s.MaxHandshakesPerSource, DefaultMaxHandshakesPerSource)
	cfg.maxMemory = count("MaxHandshakeMemory", s.MaxHandshakeMemory, DefaultMaxHandshakeMemory)
	if cfg.handler == nil {
		cfg.handler = NopHandler{}
	}
	if cfg.psk == nil && len(s.Certificates) == 0 && s.GetCertificate == nil {
		refuse("PSK", "is nil, and there are no Certificates: there is nothing to authenticate with")
	}
	cfg.getCertificate, cfg.clientAuth, cfg.clientCAs, cfg.verifyConnection = s.GetCertificate, s.ClientAuth, s.ClientCAs, s.VerifyConnection
	var certificates []*engine.Certificate
	for i := range s.Certificates {
		c, err := newCertificate(&s.Certificates[i])
		if err != nil {
			refuse(fmt.Sprintf("Certificates[%d]", i), "%w", err)
		}
		certificates = append(certificates, c)
	}
	cfg.chooseCertificate = chooseCertificate(certificates)
	if s.ClientAuth < tls.NoClientCert || s.ClientAuth > tls.RequireAndVerifyClientCert {
		refuse("ClientAuth", "is unknown: %d", s.ClientAuth)
	}
	if s.ClientAuth != tls.NoClientCert && len(s.Certificates) == 0 && s.GetCertificate == nil {
		refuse("ClientAuth", "is %v, but there are no Certificates: clients are asked for theirs in suites with certificates only", s.ClientAuth)
	}
	groups := engine.DefaultGroups()
	if s.CurvePreferences != nil {
		groups = nil
	}
	for _, id := range s.CurvePreferences {
		if groups = append(groups, uint16(id)); !engine.HasGroup(uint16(id)) {
			refuse("CurvePreferences", "has %v, which is not supported", id)
		}
	}
	for _, p := range s.NextProtos {
		if len(p) == 0 || len(p) > 255 {
			refuse("NextProtos", "has a name of %d bytes, not 1 to 255", len(p))
		}
	}
	maxClientCertificates := count("MaxClientCertificates", s.MaxClientCertificates, DefaultMaxClientCertificates)
	if maxClientCertificates > maxHandshakeMessage {
		refuse("MaxClientCertificates", "is %d, more than %d", maxClientCertificates, maxHandshakeMessage)
	}
	if cfg.maxPSKIdentity > maxPSK {
		refuse("MaxPSKIdentity", "is %d, more than %d", cfg.maxPSKIdentity, maxPSK)
	}
	if len(s.PSKIdentityHint) > maxHint {
		refuse("PSKIdentityHint", "has %d bytes, more than %d", len(s.PSKIdentityHint), maxHint)
	}
	if s.Verifier != nil && s.Verifier.secrets == nil {
		refuse("Verifier", "is not from NewVerifier")
	}
	ids := s.CipherSuites
	if ids == nil {
		ids = DefaultCipherSuites()
	}
	suites, unknown := engine.Suites(ids)
	for _, id := range unknown {
		refuse("CipherSuites", "has %#04x, which is not supported", id)
	}
	if len(ids) == 0 {
		refuse("CipherSuites", "is empty but not nil")
	} else if len(unknown) == 0 && !slices.ContainsFunc(suites, func(suite *engine.Suite) bool {
		if engine.UsesCertificate(suite) {
			return s.GetCertificate != nil || slices.ContainsFunc(certificates, func(c *engine.Certificate) bool {
				return c != nil && c.Serves(suite)
			})
		}
		return s.PSK != nil
	}) {
		refuse("CipherSuites", "has none that PSK or Certificates could serve")
	}
	mtu := count("MTU", s.MTU, DefaultMTU)
	if mtu >= 0 && (mtu < engine.MinMTU || mtu > maxMTU) {
		refuse("MTU", "is %d, not between %d and %d", mtu, engine.MinMTU, maxMTU)
	}
	handshakeTimeout := duration("HandshakeTimeout", s.HandshakeTimeout, DefaultHandshakeTimeout)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}

	cfg.engine = &engine.Config{
		Suites:           suites,
		PSK:              cfg.psk != nil,
		PSKIdentityHint:  []byte(s.PSKIdentityHint),
		MaxPSKIdentity:   cfg.maxPSKIdentity,
		MTU:              mtu,
		HandshakeTimeout: handshakeTimeout,
		Rand:             rand.Reader,
		KeyLog:           s.keyLog(),
		Reserve:          reserver(cfg.maxMemory),

		AskCertificate:           s.GetCertificate != nil,
		Groups:                   groups,
		NextProtos:               slices.Clone(s.NextProtos),
		RequestClientCertificate: s.ClientAuth != tls.NoClientCert,
		RequireClientCertificate: s.ClientAuth == tls.RequireAnyClientCert || s.ClientAuth == tls.RequireAndVerifyClientCert,
		MaxClientCertificates:    maxClientCertificates,
		AskVerdict:               s.VerifyConnection != nil || s.ClientAuth >= tls.VerifyClientCertIfGiven,
	}
	if !s.SessionTicketsDisabled {
		cfg.engine.Tickets = &s.tickets
	}
	if len(certificates) > 0 || s.GetCertificate != nil {
		cfg.engine.Certificate = cfg.chooseCertificate
	}
	return cfg, nil
}

// reserver returns a function that hands out bytes up to a bound, and takes them
// back as negative ones.
func reserver(bound int) func(int) bool {
	var used atomic.Int64
	return func(bytes int) bool {
		if used.Add(int64(bytes)) > int64(bound) && bytes > 0 {
			used.Add(int64(-bytes))
			return false
		}
		return true
	}
}

// keyLog returns the function that writes lines of the NSS key log format.
func (s *Server) keyLog() func(clientRandom, masterSecret []byte) {
	if s.KeyLogWriter == nil {
		return nil
	}
	w := &lockedWriter{mu: &s.keyLogMu, w: s.KeyLogWriter}
	return func(clientRandom, masterSecret []byte) {
		fmt.Fprintf(w, "CLIENT_RANDOM %x %x\n", clientRandom, masterSecret)
	}
}

// lockedWriter keeps the lines of two loops apart.
type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
