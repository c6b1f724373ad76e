package dtlsserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Server is a DTLS 1.2 server on one UDP socket. A Server with a PSK or
// Certificates is ready to Listen; the zero value of every other field is useful.
// The fields must not be changed between Listen, or the call of Serve, and the
// Close that ends it.
//
// A Server must not be copied. Its methods are safe for concurrent use.
type Server struct {
	// Handler receives events and application data. If nil, they are discarded.
	Handler EventHandler

	// PSK finds the pre-shared key of a client. If nil, the server has no pre-shared
	// keys, and Certificates or GetCertificate is required. PSK must not panic: a
	// panic is not recovered and ends the program.
	PSK PSKFunc
	// PSKIdentityHint is sent to clients to help them choose their identity (RFC
	// 4279 section 5.2). It has at most 1024 bytes. If empty, no hint is sent.
	PSKIdentityHint string
	// PSKIdentityHintFor, if not nil, is called instead of using PSKIdentityHint. It
	// returns the hint for a client that asks for serverName (SNI), which is empty
	// if the client sends none. An empty hint, or one of more than 1024 bytes, is
	// not sent. PSKIdentityHintFor runs on the serving loop and delays it. It must
	// not call methods of Server or Session. It must not panic: a panic is not
	// recovered and ends the program.
	PSKIdentityHintFor func(serverName string) string
	// MaxPSKIdentityLen is the length in bytes of the longest identity for which PSK
	// is called, at most 65535. A longer identity is treated as unknown. If zero,
	// DefaultMaxPSKIdentityLen is used.
	MaxPSKIdentityLen int

	// Verifier makes and checks the cookies with which clients prove their address.
	// If nil, the server uses one with a random secret, which is enough for a single
	// server.
	Verifier *Verifier

	// CipherSuites are the cipher suites that may be used, by their IANA numbers, in
	// order of preference. The server's order decides. If nil, DefaultCipherSuites
	// is used.
	CipherSuites []uint16

	// CurvePreferences are the groups for ECDHE, in order of preference. P-256,
	// X25519, P-384 and P-521 are supported. If nil, all but P-521 are used: P-521
	// costs the server about twenty times as much as P-256.
	CurvePreferences []tls.CurveID

	// Certificates are the server's certificates, for cipher suites that
	// authenticate the server with a certificate. Their keys are ECDSA, RSA or
	// Ed25519. A client gets the first certificate that is for the server name it
	// asks for and whose kind of key it supports, or else the first whose kind of
	// key it supports. In both cases, a certificate whose chain has only signatures
	// that the client lists comes before others. Server names are matched with DNS
	// names and IP addresses. OCSPStaple and SignedCertificateTimestamps are sent to
	// clients that ask for them. If SupportedSignatureAlgorithms is not nil, the key
	// signs with no others. If there are no Certificates and GetCertificate is nil,
	// cipher suites with certificates are not used.
	Certificates []tls.Certificate
	// GetCertificate, if not nil, returns the certificate for a client. If it
	// returns nil, the server chooses one of Certificates. If it returns an error,
	// the client gets no certificate. It is not called when a session is resumed;
	// VerifyConnection is. Like PSK, it may block and must not panic.
	GetCertificate func(*ClientHelloInfo) (*tls.Certificate, error)
	// ClientAuth determines, for cipher suites with certificates, whether clients
	// must have a certificate and whether it is verified. A client that does not
	// comply is refused before the handshake is complete. A client that uses a
	// pre-shared key is never asked for a certificate.
	ClientAuth tls.ClientAuthType
	// ClientCAs are the authorities that client certificates are verified against.
	// If nil, those of the system are used. A client may send up to ten
	// certificates: its own first, the others in any order. The signatures between
	// them are verified from ClientCAs down, at most 16 in all. A constraint of the
	// pool (see x509.CertPool.AddCertWithConstraint) is therefore also called with
	// chains that begin with an intermediate certificate instead of the client's.
	ClientCAs *x509.CertPool
	// MaxClientCertificateBytes is the length in bytes of the longest certificate
	// chain that a client may send. Whatever ClientAuth says, a chain has at most
	// ten certificates, at most two with the same subject, and RSA keys of at most
	// 4096 bits. The session keeps the bytes of the chain, and
	// Session.ConnectionState parses them. If zero, DefaultMaxClientCertificateBytes
	// is used.
	MaxClientCertificateBytes int
	// VerifyConnection, if not nil, is called after all other checks, before the
	// handshake is complete. If it returns an error, the client is refused with the
	// alert bad_certificate, or access_denied if it has no certificate. If the error
	// is or wraps an *AlertError with a nonzero Code, that is the alert. Like PSK,
	// VerifyConnection may block, must not panic, and has a context that is done
	// when the handshake is given up or the server is closed.
	//
	// It is also called for clients with a pre-shared key. They have no
	// PeerCertificates: look at len(PeerCertificates) first. When a session is
	// resumed (ConnectionState.DidResume), the client has not proven anything yet in
	// this handshake: whoever has seen a ticket can cause a call of
	// VerifyConnection, but gets no session.
	VerifyConnection func(context.Context, *VerifyRequest) error

	// NextProtos are the application protocols (ALPN, RFC 7301) that the server
	// supports, in order of preference. A client that offers only others is refused.
	// If nil, no protocol is negotiated.
	NextProtos []string

	// SessionTicketsDisabled disables session tickets (RFC 5077). With a ticket, a
	// client resumes a session within 24 hours without another key exchange. Tickets
	// are sent only in sessions with forward secrecy and extended master secret; the
	// server keeps no state for them. PSK and VerifyConnection are called again for
	// each resumption: an identity that no longer exists, or whose key has changed,
	// does not resume a session. See SetSessionTicketKeys.
	SessionTicketsDisabled bool

	// KeyLogWriter receives the secrets of all sessions in the NSS key log format,
	// for debugging with a packet analyzer. Whoever reads it can read the sessions.
	// If nil, no secrets are written. The serving loop calls Write and is delayed by
	// it. Write must not call methods of Server or Session; its errors are ignored.
	KeyLogWriter io.Writer

	// HandshakeTimeout is the longest time from the ClientHello that returns the
	// cookie to the client's Finished. If zero, DefaultHandshakeTimeout is used.
	HandshakeTimeout time.Duration
	// RetransmitTimeout is how long a flight waits for the client's answer before it
	// is retransmitted for the first time. The time doubles with each
	// retransmission, up to a minute (RFC 6347 section 4.2.4.1). Radio links with
	// long round trips need 2 to 9 s (RFC 7925 section 11), data centres less. It
	// should be longer than the clients' timeout, so that clients retransmit first.
	// It must be at least 1 ms and less than HandshakeTimeout. If zero,
	// DefaultRetransmitTimeout is used.
	RetransmitTimeout time.Duration
	// IdleTimeout is how long a session stays open without an authentic record from
	// its peer. If zero, DefaultIdleTimeout is used.
	IdleTimeout time.Duration
	// MaxSessionAge is how long after its handshake a session is closed with
	// ErrSessionAge, even if it is in use. The age of a resumed session counts from
	// the full handshake that its keys come from; otherwise a client could postpone
	// the next full handshake forever. A session of that age is not resumed. If
	// zero, there is no limit.
	MaxSessionAge time.Duration

	// MaxSessions bounds the open sessions. Beyond it, when a handshake completes,
	// one session is closed with ErrEvicted. It is the session whose peer has been
	// silent longest, of the first group of these that applies:
	//   - the sessions of one identity (see Session.Identity) at one source, an IPv4
	//     address or an IPv6 /64, if there are more of them than the identity of the
	//     new session has in all; of several such groups, the largest
	//   - the sessions of the identity that has most, if it has at least twice as
	//     many as the identity of the new session
	//   - the other sessions of the new session's identity; if the identity has more
	//     than four, only one whose peer has been silent for a minute, or else the
	//     new session
	//   - all sessions, but only one whose peer has been silent for a minute, or
	//     else the new session
	//
	// Sessions without an identity count, at each source, as those of one identity.
	// In a group of more than 64, only some are examined. As long as no session
	// could be closed, hellos of new peers are refused. If zero, DefaultMaxSessions
	// is used.
	MaxSessions int
	// MaxSessionsPerSource bounds the open sessions of one source, an IPv4 address
	// or an IPv6 /64. Beyond it, when a handshake completes, one session is closed
	// with ErrEvicted: of the same identity at that source, the one whose peer has
	// been silent longest; or else that of the source, if its peer has been silent
	// for a minute; or else the new one. Of more than 64, only some are examined. A
	// session does not move (see ConnectionIDs) to a source that has as many. If zero,
	// there is no limit per source.
	MaxSessionsPerSource int
	// MaxSessionsPerIdentity bounds the open sessions of one identity. Beyond it,
	// when a handshake completes, the other session of the identity whose peer has
	// been silent longest is closed with ErrEvicted. Of more than 64, only some are
	// examined. Sessions without an identity are not bounded. If zero, there is no
	// limit per identity.
	MaxSessionsPerIdentity int
	// MaxHandshakes bounds the handshakes in progress. At the bound, a new handshake
	// replaces one that is in progress, by the first of these rules that applies:
	//   - The source with the most handshakes, relative to the number of identities
	//     that have sessions there, loses one if it has at least twice as many as
	//     the source of the new one would have.
	//   - A handshake whose client has not answered for a long time, compared with
	//     its round trip, is replaced.
	//   - Of the unanswered handshakes with longer round trips, the newest is
	//     replaced.
	//
	// Otherwise the new hello is refused, and its client tries again. MaxHandshakes
	// also bounds how many hooks run at a time. If zero, DefaultMaxHandshakes is
	// used.
	MaxHandshakes int
	// MaxHandshakesPerSource bounds the handshakes in progress of one source, an
	// IPv4 address or an IPv6 /64. At the bound, a new handshake replaces one of the
	// same source by the last two rules of MaxHandshakes, or its hello is refused.
	// If zero, DefaultMaxHandshakesPerSource is used. If negative, there is no limit
	// per source.
	MaxHandshakesPerSource int
	// MaxHandshakeMemory bounds, in bytes, what all handshakes in progress together
	// keep of incomplete messages, long hellos and client certificates. Certificates
	// count in their parsed form while VerifyConnection runs. At the bound, the
	// source that holds most, relative to the number of identities that have
	// sessions there, loses a handshake if it holds at least twice what the source
	// of the newer one would hold; or else a handshake that holds memory and has
	// made no progress for 5 s may be given up; or else the newer data is dropped,
	// and clients retransmit it. If zero, DefaultMaxHandshakeMemory is used.
	MaxHandshakeMemory int

	// ConnectionIDs configures connection IDs (RFC 9146), by which a session survives
	// a change of its peer's address.
	ConnectionIDs ConnectionIDs

	// MTU is the largest UDP payload, in bytes, that is sent in a handshake, from
	// 128 to 65507. If zero, DefaultMTU is used.
	MTU int
	// ReadBuffer and WriteBuffer are the sizes in bytes of the socket's buffers.
	// They are a request: the system may grant less. If zero, DefaultReadBuffer and
	// DefaultWriteBuffer are used.
	ReadBuffer, WriteBuffer int

	// ListenPacket opens the socket for Listen. It must not call Listen or Serve. If
	// nil, net.ListenPacket is used.
	ListenPacket func(network, address string) (net.PacketConn, error)

	counters counters
	tickets  ticketKeys
	keyLogMu sync.Mutex // held while KeyLogWriter writes
	listenMu sync.Mutex // held while a socket takes another's place; before mu

	mu              sync.Mutex    // guards all following
	loop            *loop         // nil: not listening
	endpoint        endpoint      // of loop
	closing         *loop         // the loop before, which may still be calling its handler
	defaultVerifier *Verifier     // when Verifier is nil
	connectionIDKey func() []byte // of the MACs of connection IDs
}

// endpoint is what two calls of Listen must have in common to mean the same
// socket.
type endpoint struct {
	family int // 4, 6, 0: both, -1: a socket that Serve was given
	addr   netip.AddrPort
}

// Listen binds a UDP socket and starts serving. The network is "udp", "udp4" or
// "udp6"; the address is as for net.ListenPacket. When Listen returns nil,
// clients can connect.
//
// If the server already listens on the address, Listen does nothing and returns
// nil. Addresses are compared after resolution; an address with port 0 is never
// the same. If the server listens on another address, Listen closes every
// session, with close_notify, and the socket, and then binds the new one. If a
// field or the address is invalid, Listen returns an error and a running server
// continues. If the address cannot be bound, Listen returns the error,
// KindListenFailed is raised, and the server is not listening.
//
// After Close, Listen may be called again.
func (s *Server) Listen(network, address string) error {
	cfg, configErr := s.config()
	where, err := resolve(network, address)
	if err = errors.Join(configErr, err); err != nil {
		return err
	}
	l, last, err := s.bind(cfg, network, where)
	if err != nil {
		err = fmt.Errorf("dtlsserver: %w", err) // which names the address
		ev := Event{Kind: KindListenFailed, Time: time.Now(), Local: where.addr, Count: 1, Err: err}
		if last == nil || !last.leave(ev) { // it may be in a handler that called us
			tell(cfg.handler, ev)
		}
		return err
	}
	if l != nil {
		go func() {
			_ = l.run() // reported by KindStopped
			s.ended(l)
		}()
	}
	return nil
}

// bind moves the server to a new socket, unless it has that one. The loop
// returned is to be run; nil: there is nothing to do.
func (s *Server) bind(cfg *config, network string, where endpoint) (l, last *loop, err error) {
	s.listenMu.Lock()
	defer s.listenMu.Unlock()
	if s.serves(where) {
		return nil, nil, nil
	}
	s.Close()
	listen, address := s.ListenPacket, where.addr.String()
	if where.family == 0 { // an address would bind one family only
		address = fmt.Sprintf(":%d", where.addr.Port())
	}
	if listen == nil {
		listen = net.ListenPacket
		network = map[int]string{0: "udp", 4: "udp4", 6: "udp6"}[where.family]
	}
	pc, err := listen(network, address)
	if err == nil {
		l, err = s.adopt(cfg, pc, where)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return l, s.closing, err
}

// serves reports whether the server is where Listen is to take it.
func (s *Server) serves(where endpoint) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loop != nil && where.addr.Port() != 0 && s.endpoint == where
}

// adopt makes a loop for the socket, which it takes over, and makes it the
// server's.
func (s *Server) adopt(cfg *config, pc net.PacketConn, where endpoint) (*loop, error) {
	l, err := newLoop(cfg, &s.counters, pc)
	if err != nil {
		return nil, err
	}
	s.addSecrets(cfg)
	s.mu.Lock()
	defer s.mu.Unlock()
	l.before, l.detach = s.closing, s.detach
	where.addr = netip.AddrPortFrom(where.addr.Addr(), l.conn.LocalAddr().Port())
	s.loop, s.endpoint = l, where
	return l, nil
}

// addSecrets adds the random secrets that outlive Close.
func (s *Server) addSecrets(cfg *config) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cfg.verifier == nil {
		if s.defaultVerifier == nil {
			s.defaultVerifier = newRandomVerifier()
		}
		cfg.verifier = s.defaultVerifier
	}
	if s.connectionIDKey == nil {
		s.connectionIDKey = sync.OnceValue(newConnectionIDKey)
	}
	cfg.connectionIDKey = s.connectionIDKey
}

// Serve serves on conn and takes ownership of it. After Close or Shutdown, when
// the last event has been delivered, Serve returns ErrServerClosed. If the socket
// fails permanently, Serve returns that error. If a field is invalid, or the
// server is already serving (ErrAlreadyServing), Serve returns an error at once
// and leaves conn open.
//
// Serve must not be called from a handler: it would deadlock.
func (s *Server) Serve(conn net.PacketConn) error {
	cfg, err := s.config()
	if err != nil {
		return err
	}
	s.listenMu.Lock()
	var l *loop
	if s.current() != nil {
		err = ErrAlreadyServing
	} else {
		l, err = s.adopt(cfg, conn, endpoint{family: -1})
	}
	s.listenMu.Unlock()
	if err != nil {
		return err
	}
	defer s.ended(l)
	return l.run()
}

// detach takes a loop that is about to end from the server.
func (s *Server) detach(l *loop) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.loop == l {
		s.loop, s.closing = nil, l
	}
}

// ended notes that all events of a loop were delivered.
func (s *Server) ended(l *loop) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing == l {
		s.closing = nil
	}
}

// IsListening reports whether the server has a socket that clients can reach.
func (s *Server) IsListening() bool { return s.current() != nil }

// current is the loop that serves, or nil.
func (s *Server) current() *loop {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loop
}

// Addr returns the address that the server listens on, with the actual port. It
// returns the zero AddrPort if the server is not listening.
func (s *Server) Addr() netip.AddrPort {
	if l := s.current(); l != nil {
		return l.conn.LocalAddr()
	}
	return netip.AddrPort{}
}

// Close closes every session, with close_notify, and the socket. Handshakes in
// progress are given up, and the contexts of their hooks are done. Close does not
// wait: KindSessionClosed for each session, and finally KindStopped, are
// delivered afterwards. If the server is not listening, Close does nothing.
func (s *Server) Close() error {
	l := s.current()
	if l == nil {
		return nil
	}
	s.detach(l)
	return l.stop(ErrServerClosed)
}

// Shutdown refuses new peers, waits for the handshakes in progress to end, closes
// the server as Close does, and waits until all events have been delivered and
// all hooks have returned. If ctx is done first, Shutdown closes the server at
// once and returns the context's error without waiting any longer. After Close,
// Shutdown only waits.
//
// A handshake with a wrong key is in progress until HandshakeTimeout, so a ctx
// with a shorter timeout may be done first. Peers with open sessions are still
// sent close_notify.
//
// Shutdown must not be called from a handler or a hook: it would deadlock.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	l := s.loop
	if l == nil {
		l = s.closing // closed, but it may still be calling its handler
	}
	s.mu.Unlock()
	if l == nil {
		return nil
	}
	select {
	case <-l.drain():
	case <-l.done:
	case <-ctx.Done():
	}
	s.detach(l)
	_ = l.stop(ErrServerClosed)

	idle := make(chan struct{})
	go func() {
		<-l.done
		l.hooks.Wait()
		close(idle)
	}()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// SessionByAddr returns the open session of the peer that writes from remote to
// local. On a wildcard socket, a peer may have a session for each local address
// that it writes to; if local is the zero AddrPort, SessionByAddr returns the
// newest one. Of several sessions with connection IDs that are at one address, as
// behind a NAT that gives a port to another device, it returns the one that came
// there last.
func (s *Server) SessionByAddr(remote, local netip.AddrPort) (*Session, bool) {
	if l := s.current(); l != nil {
		return l.openSession(unmapped(remote), unmapped(local))
	}
	return nil, false
}

// unmapped is an address as sessions have it.
func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// Sessions returns the sessions that are open at the time of the call, in no
// particular order.
func (s *Server) Sessions() iter.Seq[*Session] {
	l := s.current()
	if l == nil {
		return func(func(*Session) bool) {}
	}
	return slices.Values(l.sessions(openOnly))
}

// Stats returns the server's statistics.
func (s *Server) Stats() Stats {
	stats := s.counters.stats()
	if l := s.current(); l != nil {
		l.mu.Lock()
		stats.Sessions, stats.Handshakes = l.open.count, l.handshakes.count
		stats.HandshakeMemory = int(l.handshakes.memory)
		l.mu.Unlock()
	}
	return stats
}

// resolve returns what a network and an address mean.
func resolve(network, address string) (endpoint, error) {
	switch network {
	case "udp", "udp4", "udp6":
	default:
		return endpoint{}, fmt.Errorf("dtlsserver: listen: network %q is not udp, udp4 or udp6", network)
	}
	udp, err := net.ResolveUDPAddr(network, address)
	if err != nil {
		if bad, ok := errors.AsType[*net.AddrError](err); ok {
			err = &net.AddrError{Err: bad.Err} // the address is said already
		}
		return endpoint{}, fmt.Errorf("dtlsserver: listen %s %q: %w", network, address, err)
	}
	addr, port := udp.AddrPort().Addr().Unmap(), udp.AddrPort().Port()
	switch {
	case network == "udp4" && !addr.IsValid():
		addr = netip.IPv4Unspecified()
	case !addr.IsValid():
		addr = netip.IPv6Unspecified()
	}
	where := endpoint{family: 6, addr: netip.AddrPortFrom(addr, port)}
	switch {
	case addr.Is4():
		where.family = 4
	case network == "udp" && addr == netip.IPv6Unspecified():
		where.family = 0
	}
	return where, nil
}
