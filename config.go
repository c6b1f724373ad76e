package dtlsserver

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/engine"
)

// The defaults of Server's fields.
const (
	DefaultMaxPSKIdentity   = 256 // bytes
	DefaultHandshakeTimeout = 30 * time.Second
	DefaultIdleTimeout      = 10 * time.Minute
	DefaultMaxSessions      = 100_000
	DefaultMaxHandshakes    = 2_000
	DefaultMTU              = 1200    // bytes of UDP payload
	DefaultReadBuffer       = 4 << 20 // bytes
	DefaultWriteBuffer      = 4 << 20 // bytes
)

// maxHint bounds PSKIdentityHint: it must fit the first flight.
const maxHint = 1 << 10

// maxMTU is the largest UDP payload of IPv4.
const maxMTU = 65507

// DefaultCipherSuites returns the cipher suites that a Server offers when
// CipherSuites is nil, in order of preference, as IANA numbers them.
func DefaultCipherSuites() []uint16 { return engine.DefaultSuites() }

// config is what a Server's fields come to while it serves.
type config struct {
	handler        EventHandler
	psk            PSKFunc
	maxPSKIdentity int
	verifier       *Verifier
	idleTimeout    time.Duration
	maxSessions    int
	maxHandshakes  int
	readBuffer     int
	writeBuffer    int
	engine         *engine.Config
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
	if cfg.handler == nil {
		cfg.handler = NopHandler{}
	}
	if cfg.psk == nil {
		refuse("PSK", "is nil: there is nothing to authenticate with")
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
		PSKIdentityHint:  []byte(s.PSKIdentityHint),
		MaxPSKIdentity:   cfg.maxPSKIdentity,
		MTU:              mtu,
		HandshakeTimeout: handshakeTimeout,
		Rand:             rand.Reader,
		KeyLog:           s.keyLog(),
	}
	return cfg, nil
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
