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

// Server is a DTLS 1.2 server on one UDP socket. With a PSK or Certificates it is
// ready to Listen; every other field has a useful zero value. The fields must not be
// changed between Listen, or the call of Serve, and the Close that ends it.
//
// A Server must not be copied. Its methods are safe for concurrent use.
type Server struct {
	// Handler is told what happens. Nil: nobody is.
	Handler EventHandler

	// PSK finds the pre-shared key of a client. It must not panic: nothing
	// recovers it, and the program ends. Nil: no pre-shared keys, and
	// Certificates or GetCertificate are required.
	PSK PSKFunc
	// PSKIdentityHint is sent to clients to help them choose their identity
	// (RFC 4279 section 5.2). At most 1024 bytes. Empty: no hint is sent.
	PSKIdentityHint string
	// PSKIdentityHintFor, when not nil, returns the hint in place of
	// PSKIdentityHint, by the server name that the client asks for (SNI), or an
	// empty one. What is longer than 1024 bytes is not sent. It is called on the
	// serving loop, which it delays, must not call methods of Server or Session,
	// and must not panic: nothing recovers it, and the program ends.
	PSKIdentityHintFor func(serverName string) string
	// MaxPSKIdentityLen is the longest identity that PSK is asked for, in bytes,
	// at most 65535. A longer one is treated as unknown. Zero:
	// DefaultMaxPSKIdentityLen.
	MaxPSKIdentityLen int

	// Verifier makes the cookies by which clients prove their address. Nil: one
	// with a random secret, which is enough for a single server.
	Verifier *Verifier

	// CipherSuites are the cipher suites that may be used, in order of
	// preference, as IANA numbers them. The server's order decides. Nil:
	// DefaultCipherSuites.
	CipherSuites []uint16

	// CurvePreferences are the groups of ECDHE, in order of preference: P-256,
	// X25519, P-384 and P-521. Nil: all but P-521, which costs the server some
	// twenty times as much as P-256.
	CurvePreferences []tls.CurveID

	// Certificates are what the server authenticates with in suites without a
	// pre-shared key. A client gets the first that is for the server name that
	// it asks for, by its DNS names and IP addresses, and whose kind of key it
	// supports, or else the first that it supports; and of these one whose chain
	// has only signatures that it lists, if there is one. What a certificate has
	// of OCSPStaple and SignedCertificateTimestamps goes to clients that ask for
	// it, and its key makes none but its SupportedSignatureAlgorithms. Keys are
	// ECDSA, RSA or Ed25519. Nil with a PSK: no such suite is used.
	Certificates []tls.Certificate
	// GetCertificate, when not nil, is asked for the certificate for a client.
	// It may block, as PSK may. When it returns nil, Certificates are chosen
	// from; when it returns an error, the client gets no certificate. It is not
	// asked when a session is resumed: VerifyConnection is. It must not panic:
	// nothing recovers it, and the program ends.
	GetCertificate func(*ClientHelloInfo) (*tls.Certificate, error)
	// ClientAuth says whether clients must have a certificate of their own,
	// and whether it is verified, in suites with certificates. What is refused
	// is refused before the handshake is complete. A client that uses a
	// pre-shared key is asked for none, whatever ClientAuth says.
	ClientAuth tls.ClientAuthType
	// ClientCAs are the authorities that client certificates are verified by.
	// Nil: those of the system. A client may send up to ten certificates, in any
	// order behind its own. The signatures between them are verified from the
	// authorities of ClientCAs down, 16 at most, so a constraint of the pool (see
	// x509.CertPool.AddCertWithConstraint) is also asked about what an authority
	// has signed by itself.
	ClientCAs *x509.CertPool
	// MaxClientCertificateBytes is the length in bytes of the longest certificate
	// chain that a client may send. Whatever ClientAuth says, it has at most
	// ten certificates, two of one subject, and RSA keys of at most 4096 bits. A session keeps as many bytes of it, and
	// parses them when Session.ConnectionState is called. Zero:
	// DefaultMaxClientCertificateBytes.
	MaxClientCertificateBytes int
	// VerifyConnection, if not nil, is called last, before the handshake is
	// complete. If it returns an error, the client is refused, with the alert
	// bad_certificate or, without a certificate, access_denied, or with the Code of
	// an *AlertError that the error is or wraps. Like PSK, it may block, must not
	// panic, and has a context that is done when the handshake is given up or the
	// server closes.
	//
	// It is called for clients with a pre-shared key too: their PeerCertificates
	// are empty, so look at len(PeerCertificates) first. When a session is resumed
	// (ConnectionState.DidResume), the client has proven nothing yet in this
	// handshake: whoever has seen a ticket can have VerifyConnection called with
	// it, but gets no session.
	VerifyConnection func(context.Context, *VerifyRequest) error

	// NextProtos are the application protocols (ALPN, RFC 7301) that the server
	// speaks, in order of preference. A client that offers others only is
	// refused. Nil: none is negotiated.
	NextProtos []string

	// SessionTicketsDisabled turns session tickets off (RFC 5077), by which
	// clients with forward secrecy and extended master secret resume sessions
	// within 24 hours without another key exchange. The server keeps nothing
	// for that. PSK and VerifyConnection are asked again each time: an identity
	// that is gone, or whose key has changed, resumes nothing. See
	// SetSessionTicketKeys.
	SessionTicketsDisabled bool

	// KeyLogWriter receives the secrets of all sessions in the NSS key log
	// format, for debugging with a packet analyzer. Whoever reads it can read
	// the sessions. It is written to by the serving loop, which it delays, and
	// must not call methods of Server or Session. Its errors are ignored. Nil:
	// no key log.
	KeyLogWriter io.Writer

	// HandshakeTimeout bounds the time from the returned cookie to the
	// client's Finished. Zero: DefaultHandshakeTimeout.
	HandshakeTimeout time.Duration
	// RetransmitTimeout is how long a flight waits for the client's answer before
	// it is sent again, at first; it doubles each time, up to a minute (RFC 6347
	// section 4.2.4.1). Radio links with long round trips want 2 to 9 s (RFC 7925
	// section 11), data centres less. It should be longer than the clients', so
	// that these speak first. At least 1 ms, and less than HandshakeTimeout. Zero:
	// DefaultRetransmitTimeout.
	RetransmitTimeout time.Duration
	// IdleTimeout is after how long without a word from its peer a session is
	// closed. Zero: DefaultIdleTimeout.
	IdleTimeout time.Duration
	// MaxSessionAge is how long after its handshake a session is closed, with
	// ErrSessionAge, however busy it is. One that was resumed counts from the full
	// handshake of the session that it resumes: its keys come from there, and a
	// client could else put off the next full handshake for ever. No session is
	// resumed at that age. Zero: no limit.
	MaxSessionAge time.Duration

	// MaxSessions bounds the open sessions. At the bound, one gives way when a
	// new handshake is complete: the longest silent of the identity (see
	// Session.Identity) that has most sessions at one source, an IPv4 address
	// or an IPv6 /64, if those are more than the new one's identity has in
	// all; else of the identity that has most, if that is twice what the new
	// one's has; else of the new one's identity, if it has others; else, if
	// its peer has been silent for a minute, of all; else the new one. All
	// sessions of a source that have no identity count as one's. Of an
	// identity with more than four, none gives way to another of its own that
	// has not been silent for a minute. Of more than 64 sessions, some are
	// looked at for the longest silent. Hellos of new peers are refused as
	// long as none could give way. Zero: DefaultMaxSessions.
	MaxSessions int
	// MaxSessionsPerSource bounds the open sessions of one source. At the
	// bound, the longest silent of the same identity there gives way to a new
	// session, else the longest silent of the source, if its peer has been
	// silent for a minute, else the new one. Of more than 64, some are looked
	// at. Zero: no limit per source.
	MaxSessionsPerSource int
	// MaxSessionsPerIdentity bounds the open sessions of one identity. At the
	// bound, its longest silent gives way to a new one; of more than 64, some
	// are looked at. Sessions of peers that have shown no identity are not
	// bounded by it. Zero: no limit per identity.
	MaxSessionsPerIdentity int
	// MaxHandshakes bounds the handshakes in progress. At the bound, one of the
	// source that has most, for the number of identities that have sessions
	// there, gives way to a new one of a source that has not half as many; or
	// one whose client has not answered for long, compared with its round
	// trip; or the newest that has not been answered of those with longer round
	// trips; or else the new hello is refused, and its client tries again. It
	// also bounds how many hooks run at a time. Zero: DefaultMaxHandshakes.
	MaxHandshakes int
	// MaxHandshakesPerSource bounds the handshakes in progress of one source,
	// an IPv4 address or an IPv6 /64. At the bound, one whose client has not
	// answered for long gives way, or else the new hello is refused. Zero:
	// DefaultMaxHandshakesPerSource. Negative: no limit per source.
	MaxHandshakesPerSource int
	// MaxHandshakeMemory bounds, in bytes, what all handshakes in progress
	// together keep of messages that have come in part, of long hellos and of
	// client certificates, which while VerifyConnection is asked are held
	// parsed. At the bound, a handshake of the source that holds most, for the
	// number of identities that have sessions there, gives way, if that is
	// twice what the newer one's would hold; or one that holds some and has
	// made no progress for 5 s; else what is newer is dropped, and clients
	// send it again. Zero: DefaultMaxHandshakeMemory.
	MaxHandshakeMemory int

	// MTU is the largest UDP payload sent in a handshake, in bytes, from 128
	// to 65507. Zero: DefaultMTU.
	MTU int
	// ReadBuffer and WriteBuffer are the sizes in bytes that the system is
	// asked for as buffers of the socket. It may give less. Zero:
	// DefaultReadBuffer, DefaultWriteBuffer.
	ReadBuffer, WriteBuffer int

	// ListenPacket opens the socket for Listen. It must not call Listen or
	// Serve. Nil: net.ListenPacket.
	ListenPacket func(network, address string) (net.PacketConn, error)

	counters counters
	tickets  ticketKeys
	keyLogMu sync.Mutex // held while KeyLogWriter writes
	listenMu sync.Mutex // held while a socket takes another's place; before mu

	mu              sync.Mutex // guards all following
	loop            *loop      // nil: not listening
	endpoint        endpoint   // of loop
	closing         *loop      // the loop before, which may still be telling its handler
	defaultVerifier *Verifier  // when Verifier is nil
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
// Listen on the address that is already being served does nothing and returns
// nil; addresses are compared after resolution, and port 0 is never the same.
// Listen on another address closes every session, with close_notify, and the
// socket, and binds the new one. An error in the fields or in the address
// leaves a running server as it is. When the address cannot be bound, the error
// is returned, KindListenFailed is raised and the server is not listening.
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
			_ = l.run() // told by KindStopped
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
	s.mu.Lock()
	defer s.mu.Unlock()
	if cfg.verifier == nil {
		if s.defaultVerifier == nil {
			s.defaultVerifier = newRandomVerifier()
		}
		cfg.verifier = s.defaultVerifier
	}
	l.before, l.detach = s.closing, s.detach
	where.addr = netip.AddrPortFrom(where.addr.Addr(), l.conn.LocalAddr().Port())
	s.loop, s.endpoint = l, where
	return l, nil
}

// Serve serves on conn and takes it over. It returns after Close or Shutdown
// with ErrServerClosed, when the handler has been told of the last closed
// session, or with the error that made the socket useless. Errors in the
// fields, and ErrAlreadyServing, are returned at once and leave conn alone.
// Serve must not be called from a handler, which it would wait for.
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

// ended notes that the handler was told all about a loop.
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

// Addr is the address that the server listens on, with the port that it was
// given, or the zero AddrPort when it is not listening.
func (s *Server) Addr() netip.AddrPort {
	if l := s.current(); l != nil {
		return l.conn.LocalAddr()
	}
	return netip.AddrPort{}
}

// Close closes every session, with close_notify, and the socket. It does not
// wait: the handler is told of the closed sessions afterwards, and at last of
// KindStopped. Handshakes in progress are given up and the contexts of their
// PSK hooks are done. Closing a server that is not listening does nothing.
func (s *Server) Close() error {
	l := s.current()
	if l == nil {
		return nil
	}
	s.detach(l)
	return l.stop(ErrServerClosed)
}

// Shutdown refuses new peers, waits until the handshakes in progress have come
// to an end, then does what Close does and waits until the handler has been
// told everything and PSK hooks have returned. When ctx is done first it closes
// at once, waits no longer and returns the context's error. After Close it only
// waits. A client with a wrong key is a handshake in progress until
// HandshakeTimeout, so a ctx with a shorter time may well be done first; the
// sessions are told all the same.
//
// It must not be called from a handler or a hook, which it would wait for.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	l := s.loop
	if l == nil {
		l = s.closing // closed, but it may still be telling its handler
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
// local. On a wildcard socket a peer may have a session for each local address
// that it writes to; if local is zero, SessionByAddr returns the newest.
func (s *Server) SessionByAddr(remote, local netip.AddrPort) (*Session, bool) {
	if l := s.current(); l != nil {
		return l.openSession(unmapped(remote), unmapped(local))
	}
	return nil, false
}

// unmapped is an address as sessions have it.
func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// Sessions returns the sessions that are open when it is called, in no order.
func (s *Server) Sessions() iter.Seq[*Session] {
	l := s.current()
	if l == nil {
		return func(func(*Session) bool) {}
	}
	return slices.Values(l.sessions(openOnly))
}

// Stats returns the server's figures.
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
