package dtlsserver

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/engine"
)

// Defaults for the fields of Server.
const (
	DefaultMaxPSKIdentityLen = 256 // bytes

	DefaultMaxClientCertificateBytes = 16 << 10 // bytes
	DefaultHandshakeTimeout          = 30 * time.Second
	DefaultRetransmitTimeout         = engine.DefaultFirstTimeout // 1.25 s
	DefaultIdleTimeout               = 10 * time.Minute
	DefaultMaxSessions               = 100_000
	DefaultMaxHandshakes             = 2_000
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

// minRetransmitTimeout bounds how often the flight of a silent client is sent
// again: the timeout doubles from there.
const minRetransmitTimeout = time.Millisecond

// maxMTU is the largest UDP payload of IPv4.
const maxMTU = 65507

// DefaultCipherSuites returns the IANA numbers of the cipher suites that a Server
// uses if CipherSuites is nil, in order of preference.
func DefaultCipherSuites() []uint16 { return engine.DefaultSuites() }

// CipherSuiteName returns the IANA name of a cipher suite of DefaultCipherSuites,
// and the number in hexadecimal for any other.
func CipherSuiteName(id uint16) string { return engine.SuiteName(id) }

// config is what a Server's fields come to while it serves.
type config struct {
	handler        EventHandler
	psk            PSKFunc
	maxPSKIdentity int
	verifier       *Verifier
	idleTimeout    time.Duration

	certificates           *certificateIndex
	getCertificate         func(*ClientHelloInfo) (*tls.Certificate, error)
	chains                 *chainVerifier // nil: clients' certificates are not verified
	verifyConnection       func(context.Context, *VerifyRequest) error
	connectionIDs          ConnectionIDs
	connectionIDKey        func() []byte // of their MACs
	maxSessions            int
	maxSessionsPerSource   int // zero: no limit
	maxSessionsPerIdentity int // zero: no limit
	maxHandshakes          int
	maxPerSource           int // negative: no limit
	maxMemory              int // bytes
	readBuffer             int
	writeBuffer            int
	engine                 *engine.Config
}

// config checks the fields and returns what they come to, or all that is
// wrong.
func (s *Server) config() (*config, error) {
	var wrong fieldErrors
	if !s.hasCredentials() {
		wrong = append(wrong, errors.New("dtlsserver: Server has no credentials: set PSK, Certificates or GetCertificate"))
	}
	cfg := &config{
		handler:                s.Handler,
		psk:                    s.PSK,
		maxPSKIdentity:         wrong.count("MaxPSKIdentityLen", s.MaxPSKIdentityLen, DefaultMaxPSKIdentityLen),
		verifier:               s.Verifier,
		idleTimeout:            wrong.duration("IdleTimeout", s.IdleTimeout, DefaultIdleTimeout),
		getCertificate:         s.GetCertificate,
		verifyConnection:       s.VerifyConnection,
		connectionIDs:          s.ConnectionIDs,
		maxSessions:            wrong.count("MaxSessions", s.MaxSessions, DefaultMaxSessions),
		maxSessionsPerSource:   wrong.count("MaxSessionsPerSource", s.MaxSessionsPerSource, 0),
		maxSessionsPerIdentity: wrong.count("MaxSessionsPerIdentity", s.MaxSessionsPerIdentity, 0),
		maxHandshakes:          wrong.count("MaxHandshakes", s.MaxHandshakes, DefaultMaxHandshakes),
		maxPerSource:           cmp.Or(s.MaxHandshakesPerSource, DefaultMaxHandshakesPerSource),
		maxMemory:              wrong.count("MaxHandshakeMemory", s.MaxHandshakeMemory, DefaultMaxHandshakeMemory),
		readBuffer:             wrong.count("ReadBuffer", s.ReadBuffer, DefaultReadBuffer),
		writeBuffer:            wrong.count("WriteBuffer", s.WriteBuffer, DefaultWriteBuffer),
	}
	if cfg.handler == nil {
		cfg.handler = NopHandler{}
	}
	if cfg.maxPSKIdentity > maxPSK {
		wrong.add("MaxPSKIdentityLen", "is %d, more than %d", cfg.maxPSKIdentity, maxPSK)
	}
	if len(s.PSKIdentityHint) > maxHint {
		wrong.add("PSKIdentityHint", "has %d bytes, more than %d", len(s.PSKIdentityHint), maxHint)
	}
	if s.Verifier != nil && s.Verifier.secrets == nil {
		wrong.add("Verifier", "is not from NewVerifier")
	}
	certificates := s.certificates(&wrong)
	suites := s.suites(&wrong, certificates)
	cfg.certificates = newCertificateIndex(certificates, suites)
	if s.ClientAuth >= tls.VerifyClientCertIfGiven {
		cfg.chains = newChainVerifier(s.ClientCAs)
	}

	eng := &engine.Config{
		Suites:            suites,
		PSK:               s.PSK != nil,
		PSKIdentityHint:   s.hint(),
		MaxPSKIdentityLen: cfg.maxPSKIdentity,
		MTU:               wrong.count("MTU", s.MTU, DefaultMTU),
		HandshakeTimeout:  wrong.duration("HandshakeTimeout", s.HandshakeTimeout, DefaultHandshakeTimeout),
		MaxSessionAge:     wrong.duration("MaxSessionAge", s.MaxSessionAge, 0),
		FirstTimeout:      wrong.duration("RetransmitTimeout", s.RetransmitTimeout, DefaultRetransmitTimeout),
		Rand:              rand.Reader,
		KeyLog:            s.keyLog(),
		Memory:            new(sync.Pool),

		AskCertificate: s.GetCertificate != nil,
		Groups:         s.groups(&wrong),
		NextProtos:     s.nextProtos(&wrong),
		AskVerdict:     s.VerifyConnection != nil || s.ClientAuth != tls.NoClientCert,

		ConnectionIDLen:   s.connectionIDLen(&wrong),
		ReturnRoutability: s.ConnectionIDs.Move == MoveWhenProven,
	}
	s.requestCertificates(&wrong, eng)
	if eng.MTU >= 0 && (eng.MTU < engine.MinMTU || eng.MTU > maxMTU) {
		wrong.add("MTU", "is %d, not between %d and %d", eng.MTU, engine.MinMTU, maxMTU)
	}
	if t := s.RetransmitTimeout; t > 0 && (t < minRetransmitTimeout || t > engine.MaxTimeout) {
		wrong.add("RetransmitTimeout", "is %v, not between %v and %v", t, minRetransmitTimeout, engine.MaxTimeout)
	} else if t > 0 && eng.HandshakeTimeout >= 0 && t >= eng.HandshakeTimeout {
		wrong.add("RetransmitTimeout", "is %v: no flight would be sent again within HandshakeTimeout, %v", t, eng.HandshakeTimeout)
	}
	if !s.SessionTicketsDisabled {
		eng.Tickets = &s.tickets
	}
	if s.hasCertificates() {
		eng.Certificate = cfg.certificates.choose
	}
	cfg.engine = eng
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	return cfg, nil
}

// fieldErrors is what is wrong with the fields of a Server.
type fieldErrors []error

// add says what is wrong with a field. Its name, and a blank, come before the
// format.
func (wrong *fieldErrors) add(field, format string, args ...any) {
	*wrong = append(*wrong, fmt.Errorf("dtlsserver: Server."+field+" "+format, args...))
}

// count returns the value, or the standard one for zero.
func (wrong *fieldErrors) count(field string, value, standard int) int {
	if value < 0 {
		wrong.add(field, "is negative: %d", value)
	}
	return cmp.Or(value, standard)
}

// duration returns the value, or the standard one for zero.
func (wrong *fieldErrors) duration(field string, value, standard time.Duration) time.Duration {
	if value < 0 {
		wrong.add(field, "is negative: %v", value)
	}
	return cmp.Or(value, standard)
}

// hint returns what PSKIdentityHint and PSKIdentityHintFor come to; nil: none.
func (s *Server) hint() func(serverName string) []byte {
	if ask := s.PSKIdentityHintFor; ask != nil {
		return func(serverName string) []byte {
			hint := ask(serverName)
			if len(hint) > maxHint {
				return nil
			}
			return []byte(hint)
		}
	}
	if s.PSKIdentityHint == "" {
		return nil
	}
	hint := []byte(s.PSKIdentityHint)
	return func(string) []byte { return hint }
}

func (s *Server) hasCredentials() bool { return s.PSK != nil || s.hasCertificates() }

func (s *Server) hasCertificates() bool { return len(s.Certificates) > 0 || s.GetCertificate != nil }

// certificates returns what Certificates come to, with nil for a bad one.
func (s *Server) certificates(wrong *fieldErrors) (certificates []*engine.Certificate) {
	for i := range s.Certificates {
		c, err := newCertificate(&s.Certificates[i])
		if err != nil {
			wrong.add(fmt.Sprintf("Certificates[%d]", i), "%w", err)
		}
		certificates = append(certificates, c)
	}
	return certificates
}

// suites returns what CipherSuites come to.
func (s *Server) suites(wrong *fieldErrors, certificates []*engine.Certificate) []*engine.Suite {
	ids := s.CipherSuites
	if ids == nil {
		ids = DefaultCipherSuites()
	}
	suites, unknown := engine.Suites(ids)
	for _, id := range unknown {
		wrong.add("CipherSuites", "has %#04x, which is not supported", id)
	}
	served := func(suite *engine.Suite) bool {
		if !engine.UsesCertificate(suite) {
			return s.PSK != nil
		}
		return s.GetCertificate != nil || slices.ContainsFunc(certificates, func(c *engine.Certificate) bool {
			return c != nil && c.Serves(suite)
		})
	}
	switch {
	case len(ids) == 0:
		wrong.add("CipherSuites", "is empty but not nil")
	case len(unknown) == 0 && s.hasCredentials() && !slices.ContainsFunc(suites, served):
		wrong.add("CipherSuites", "has none that PSK or Certificates could serve")
	}
	return suites
}

// groups returns what CurvePreferences come to.
func (s *Server) groups(wrong *fieldErrors) []uint16 {
	if s.CurvePreferences == nil {
		return engine.DefaultGroups()
	}
	var groups []uint16
	for _, id := range s.CurvePreferences {
		if groups = append(groups, uint16(id)); !engine.HasGroup(uint16(id)) {
			wrong.add("CurvePreferences", "has %v, which is not supported", id)
		}
	}
	return groups
}

// nextProtos returns a copy of NextProtos.
func (s *Server) nextProtos(wrong *fieldErrors) []string {
	for _, p := range s.NextProtos {
		if len(p) == 0 || len(p) > 255 {
			wrong.add("NextProtos", "has a name of %d bytes, not 1 to 255", len(p))
		}
	}
	return slices.Clone(s.NextProtos)
}

// requestCertificates sets what the engine asks clients for.
func (s *Server) requestCertificates(wrong *fieldErrors, eng *engine.Config) {
	if s.ClientAuth < tls.NoClientCert || s.ClientAuth > tls.RequireAndVerifyClientCert {
		wrong.add("ClientAuth", "is unknown: %d", s.ClientAuth)
	} else if s.ClientAuth != tls.NoClientCert && !s.hasCertificates() {
		wrong.add("ClientAuth", "is %v, but there are no Certificates: clients are asked for theirs in suites with certificates only", s.ClientAuth)
	}
	eng.RequestClientCertificate = s.ClientAuth != tls.NoClientCert
	eng.RequireClientCertificate = s.ClientAuth == tls.RequireAnyClientCert || s.ClientAuth == tls.RequireAndVerifyClientCert
	eng.MaxClientCertificateBytes = wrong.count("MaxClientCertificateBytes", s.MaxClientCertificateBytes, DefaultMaxClientCertificateBytes)
	if eng.MaxClientCertificateBytes > maxHandshakeMessage {
		wrong.add("MaxClientCertificateBytes", "is %d, more than %d", eng.MaxClientCertificateBytes, maxHandshakeMessage)
	}
}

// keyLog returns the function that writes lines of the NSS key log format.
func (s *Server) keyLog() func(label string, clientRandom, secret []byte) {
	if s.KeyLogWriter == nil {
		return nil
	}
	w := &lockedWriter{mu: &s.keyLogMu, w: s.KeyLogWriter}
	return func(label string, clientRandom, secret []byte) {
		fmt.Fprintf(w, "%s %x %x\n", label, clientRandom, secret)
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
