package dtlsservertest

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver"
)

// serverName is the name in the certificate of a Server with an Authority, and
// clientName that in its client's.
const (
	serverName = "localhost"
	clientName = "client"
)

// Server is a dtlsserver.Server that runs for a test. Its fields, and those of
// the embedded Server, may be changed between NewUnstartedServer and Start, and
// not later.
//
// Methods that fail the test are for the test's own goroutine, as t.FailNow is;
// all others are safe for concurrent use.
type Server struct {
	*dtlsserver.Server

	// Events records all that the server has delivered to its Handler, after the
	// Handler has returned.
	Events *Recorder

	// Identity and Key are a random pre-shared key, which the server takes and
	// Dial uses unless the server has credentials of its own: a PSK,
	// certificates or an Authority.
	Identity string
	Key      []byte
	// Authority, if not nil, is the authority of a server with certificates.
	// Start gives it one for "localhost", if it has none, and trusts the
	// Authority with certificates of clients, if ClientCAs is nil. Dial trusts
	// it too, and has a certificate for "client" if ClientAuth asks for one.
	Authority *Authority
	// Network is the network that the server and its clients are on. If nil, it is
	// the loopback interface of this machine.
	Network *Network
	// Timeout bounds each wait: for a client to connect, a reply, an event, and
	// the end. If zero, it is 10 s, or on a Network a minute.
	Timeout time.Duration
	// IgnoreLeak reports whether a goroutine that still runs at the end is
	// meant to, as the idle connection of an HTTP client. Its stack has a line
	// for each function, with its package, file and line. If nil, none is.
	IgnoreLeak func(stack string) bool

	t          testing.TB
	group      goroutineGroup
	started    bool
	listened   bool            // before Start, so that nothing may be delivered to Events
	ownKey     bool            // PSK is Identity and Key
	clientCert tls.Certificate // of Dial's clients, where ClientAuth asks for one

	mu      sync.Mutex // guards all following
	clients []*Client
	closed  bool
}

// NewServer starts a server with a handler. A nil handler is a NopHandler. The server has a random pre-shared key, which Dial uses, and is
// closed at the test's end.
func NewServer(t testing.TB, handler dtlsserver.EventHandler) *Server {
	t.Helper()
	return StartServer(t, &dtlsserver.Server{Handler: handler})
}

// StartServer starts a server that the caller has made, and closes it at the
// test's end. If it has neither a PSK nor certificates, it gets the random key of
// NewServer; otherwise DialPSK and DialContext connect to it. Its Handler is
// wrapped, to record Events. One that listens already is used as it is: see Start.
func StartServer(t testing.TB, server *dtlsserver.Server) *Server {
	t.Helper()
	s := NewUnstartedServer(t, server)
	s.Start()
	return s
}

// NewUnstartedServer is StartServer without the Start. Change what is to be
// changed, then call that.
func NewUnstartedServer(t testing.TB, server *dtlsserver.Server) *Server {
	t.Helper()
	s := &Server{Server: server, t: t, Identity: "client-" + rand.Text()[:8], Key: make([]byte, 32)}
	rand.Read(s.Key)
	s.Events = NewRecorder(t)
	s.Events.more = s.state
	s.group = newGoroutineGroup()
	return s
}

// Start starts the server on a free port, and fails the test if it cannot. When it
// returns, KindListening has been delivered.
//
// A server that listens already, by dtlsnet.Listen say, is used as it is, with
// the credentials that it has: those of an Authority too are for its maker to
// set. Events then records only what the Handler passes on to it, and in the end
// only the goroutines of clients are waited for.
func (s *Server) Start() {
	s.t.Helper()
	if s.started {
		s.t.Fatal("dtlsservertest: Start was called before")
	}
	s.started = true
	if s.Timeout == 0 {
		s.Timeout = defaultTimeout
		if s.Network != nil {
			s.Timeout = time.Minute
		}
	}
	s.Events.Timeout = s.Timeout
	if s.Authority != nil {
		s.clientCert = s.Authority.Issue(clientName)
	}
	if s.IsListening() {
		s.listened = true
		s.t.Cleanup(s.Close)
		return
	}
	s.Handler = dtlsserver.MultiHandler(s.Handler, s.Events)
	s.setCredentials()
	network, address := "udp4", "127.0.0.1:0"
	if s.Network != nil {
		address = s.Network.newServerAddr().String()
		if s.ListenPacket == nil {
			s.ListenPacket = s.Network.ListenPacket
		}
	}
	var err error
	s.group.run(func() { err = s.Listen(network, address) })
	if err != nil {
		s.t.Fatalf("dtlsservertest: %v", err)
	}
	s.t.Cleanup(s.Close)
	listening := func(e *entry) bool { return e.event.Kind == dtlsserver.KindListening }
	if _, ok := s.Events.await(listening, false); !ok {
		s.fatalf("the handler does not return from KindListening within %v", s.Timeout)
	}
}

// setCredentials gives the server what it needs to authenticate.
func (s *Server) setCredentials() {
	if s.Authority != nil {
		if len(s.Certificates) == 0 && s.GetCertificate == nil {
			s.Certificates = []tls.Certificate{s.Authority.Issue(serverName)}
		}
		if s.ClientCAs == nil {
			s.ClientCAs = s.Authority.Pool
		}
	} else if s.PSK == nil && len(s.Certificates) == 0 && s.GetCertificate == nil {
		s.ownKey = true
		s.PSK = dtlsserver.StaticPSK(map[string][]byte{s.Identity: s.Key})
	}
}

// ClientConfig returns a new ClientConfig with what Dial's clients have, to be
// changed and given to DialContext. It fails the test if the server has
// credentials of its own, or was not started.
func (s *Server) ClientConfig() *ClientConfig {
	s.t.Helper()
	config, err := s.clientConfig()
	if err != nil {
		s.t.Fatalf("dtlsservertest: %v", err)
	}
	return config
}

var errNotStarted = errors.New("the server was not started")

func (s *Server) clientConfig() (*ClientConfig, error) {
	switch {
	case !s.started:
		return nil, errNotStarted
	case s.Authority != nil:
		return &ClientConfig{RootCAs: s.Authority.Pool, ServerName: serverName, Certificate: s.clientCert}, nil
	case s.ownKey:
		return &ClientConfig{Identity: s.Identity, Key: s.Key}, nil
	}
	return nil, errors.New("the server has credentials of its own, which Dial does not know: call DialPSK or DialContext")
}

// Dial connects a client, which is closed with the server. When it returns,
// KindHandshakeComplete has been delivered. It fails the test if the client does not
// connect.
func (s *Server) Dial() *Client {
	s.t.Helper()
	return s.mustDial(s.ClientConfig())
}

// DialPSK connects a client with a pre-shared key, as Dial does.
func (s *Server) DialPSK(identity string, key []byte) *Client {
	s.t.Helper()
	return s.mustDial(&ClientConfig{Identity: identity, Key: key})
}

func (s *Server) mustDial(config *ClientConfig) *Client {
	s.t.Helper()
	client, err := s.dial(s.t.Context(), config)
	if err != nil {
		s.fatalf("the client does not connect: %v", err)
	}
	return client
}

// DialContext connects a client with a configuration of the caller's; if nil, that
// of ClientConfig. It is for clients that are to be refused, and for those that
// connect at the same time: it returns an error and does not fail the test. The
// error wraps what that of Connect does, and context.DeadlineExceeded after Timeout.
//
// A client with a wrong key or an unknown identity receives no answer: DialContext
// returns after Timeout, and KindHandshakeFailed comes after HandshakeTimeout,
// which is longer than Timeout on loopback. Test it on a Network in a bubble, or
// set HandshakeTimeout to a second.
func (s *Server) DialContext(ctx context.Context, config *ClientConfig) (*Client, error) {
	client, err := s.dial(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("dtlsservertest: %w", err)
	}
	return client, nil
}

func (s *Server) dial(ctx context.Context, config *ClientConfig) (*Client, error) {
	var err error
	if config == nil {
		if config, err = s.clientConfig(); err != nil {
			return nil, err
		}
	}
	conn, err := s.dialUDP()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	since := time.Since(s.Events.start)
	client := &Client{server: s}
	s.group.run(func() { err = client.connect(ctx, conn, config) })
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.clients = append(s.clients, client)
	s.mu.Unlock()
	if client.session = s.awaitSession(conn.LocalAddr().String(), since); client.session == nil {
		return nil, fmt.Errorf("the client has connected, but the handler was not told within %v: it blocks?", s.Timeout)
	}
	return client, nil
}

// awaitSession returns the session of a client that has just connected: it has
// the last flight, perhaps before the server goes on. It returns nil when there
// is none in time.
func (s *Server) awaitSession(client string, since time.Duration) *dtlsserver.Session {
	if s.listened { // Events may be told nothing, so look now and then
		remote := netip.MustParseAddrPort(client)
		for end, pause := time.Now().Add(s.Timeout), time.Millisecond; time.Now().Before(end); pause *= 2 {
			if session, ok := s.SessionByAddr(remote, netip.AddrPort{}); ok {
				return session
			}
			time.Sleep(pause)
		}
		return nil
	}
	e, ok := s.Events.await(func(e *entry) bool {
		return e.at >= since && e.event.Kind == dtlsserver.KindHandshakeComplete && e.event.Remote.String() == client
	}, false)
	if !ok {
		return nil
	}
	return e.event.Session
}

// DialUDP returns a socket that sends bare datagrams to the server, as a client
// does before its handshake. It is for the caller to close.
func (s *Server) DialUDP() (net.Conn, error) {
	conn, err := s.dialUDP()
	if err != nil {
		return nil, fmt.Errorf("dtlsservertest: %w", err)
	}
	return conn, nil
}

func (s *Server) dialUDP() (net.Conn, error) {
	if !s.started {
		return nil, errNotStarted
	}
	addr := s.Addr()
	if !addr.IsValid() {
		return nil, fmt.Errorf("the server does not listen: %w", net.ErrClosed)
	}
	if s.Network != nil {
		return s.Network.dial("udp4", addr.String())
	}
	return net.Dial("udp", addr.String())
}

// Close closes the clients and the server, and waits for the end of all that they
// have started. What does not end fails the test, which goes on: a handler or a
// hook that does not return, and goroutines that IgnoreLeak does not allow. In
// a test that has failed, Close logs what was recorded. It is called by
// t.Cleanup; to call it again does nothing.
//
// To see how clients take the server's end, call Shutdown, or the Close of the
// embedded Server, first.
func (s *Server) Close() {
	s.t.Helper()
	s.mu.Lock()
	clients, closed := s.clients, s.closed
	s.clients, s.closed = nil, true
	s.mu.Unlock()
	if closed {
		return
	}
	if s.t.Failed() && !s.Events.shown() {
		s.t.Log("dtlsservertest: " + s.Events.record())
	}
	// Not from the test's context: it is done before Cleanup.
	ctx, cancel := context.WithTimeout(context.Background(), s.Timeout)
	defer cancel()
	for _, client := range clients {
		_ = client.Close() // it may be closed already
	}
	_ = s.Server.Close() // so that Shutdown does not wait for handshakes that nobody goes on with
	if err := s.Shutdown(ctx); err != nil {
		report := s.Events.report
		if s.Events.shown() {
			report = s.state
		}
		s.t.Errorf("dtlsservertest: the server does not end: a handler or a hook does not return within %v\n%s", s.Timeout, report())
		return
	}
	if left := s.group.wait(s.Timeout, s.IgnoreLeak); len(left) > 0 {
		s.t.Errorf("dtlsservertest: %s", describe("goroutines that still run after the server's end (see Server.IgnoreLeak)", left))
	}
}

func (s *Server) fatalf(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("dtlsservertest: %s\n%s", fmt.Sprintf(format, args...), s.Events.report())
}

// state says what is open and what runs, for failures.
func (s *Server) state() string {
	var b strings.Builder
	open := slices.SortedFunc(s.Sessions(), func(x, y *dtlsserver.Session) int {
		return x.RemoteAddr().Compare(y.RemoteAddr())
	})
	fmt.Fprintf(&b, "open sessions: %d\n", len(open))
	for i, session := range open {
		if i == maxLines {
			b.WriteString("\t...\n")
			break
		}
		stats := session.Stats()
		fmt.Fprintf(&b, "\t%v, identity %q, %d messages received, %d sent, %d records dropped\n", session,
			session.ConnectionState().PSKIdentity, stats.MessagesReceived, stats.MessagesSent, stats.RecordsDropped)
	}
	busy := slices.DeleteFunc(s.group.stacks(), idle)
	b.WriteString(describe("goroutines of the server and its clients that do more than wait for datagrams", busy))
	return b.String()
}

// level names the method of EventHandler that a kind is told to.
func level(kind dtlsserver.EventKind) string {
	switch kind.Level() {
	case slog.LevelError:
		return "error"
	case slog.LevelWarn:
		return "warning"
	}
	return "info"
}
