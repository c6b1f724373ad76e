package sim

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/dtlsserver/dtlsserver"
)

// The service that embeds the server: its fields, its handler and its hooks.

// told is what the server said to the service: an event, a datagram, a line of
// the key log, or how long the handler will take.
type told struct {
	event   *dtlsserver.Event
	session *dtlsserver.Session // of data
	data    []byte
	random  string // of the key log
	master  []byte
	pause   time.Duration

	confirm   netip.AddrPort // that the service has proven
	confirmed bool           // ConfirmAddr said so
}

// call is a hook that runs.
type call struct {
	remote netip.AddrPort
	what   string
	answer chan struct{} // closed to let it answer

	answered bool
}

// service is told what the server does. What it is told in one step it keeps
// for the world to take.
type service struct {
	w *world
	r *choices // of the handler
	h *choices // of the hooks
	e *choices // of what it does about addresses
	g *choices // of connection IDs

	mu      sync.Mutex // guards all following
	told    []told
	calls   []*call // that have begun since take
	running int     // hooks that wait
	written uint64  // by Session.Write
	keys    map[string][]byte
	probes  map[*dtlsserver.Session]probe
	drawn   [][]byte // connection IDs, since they were taken
}

// probe is what the service has sent to an address to see whether its peer is there.
type probe struct {
	addr  netip.AddrPort
	nonce string
}

func (s *service) tell(t told) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, t)
}

// take returns what came since it was called last. The hooks that several
// goroutines have asked are put in order.
func (s *service) take() ([]told, []*call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all, calls := s.told, s.calls
	s.told, s.calls = nil, nil
	slices.SortFunc(calls, func(a, b *call) int {
		return cmp.Or(a.remote.Compare(b.remote), cmp.Compare(a.what, b.what))
	})
	return all, calls
}

// waiting is how many hooks wait for the world.
func (s *service) waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running
}

func (s *service) wrote() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.written
}

func (s *service) event(e dtlsserver.Event) { s.tell(told{event: &e}) }

func (s *service) Error(e dtlsserver.Event)   { s.event(e) }
func (s *service) Warning(e dtlsserver.Event) { s.event(e) }
func (s *service) Info(e dtlsserver.Event)    { s.event(e) }

// answerTo is the answer to a request.
func answerTo(request []byte) []byte { return append([]byte("answer to "), request...) }

// DatagramReceived answers.
func (s *service) DatagramReceived(session *dtlsserver.Session, _, plain []byte) {
	s.tell(told{session: session, data: bytes.Clone(plain)})
	if s.w.has(confirms) {
		s.confirm(session, plain)
	}
	if bytes.HasPrefix(plain, []byte("quiet")) || bytes.HasPrefix(plain, []byte("back")) {
		return
	}
	s.write(session, answerTo(plain))
	if s.w.has(slowHandler) && s.w.stormy() && s.r.chance(0.1) {
		pause := s.r.span(time.Millisecond, 3*time.Second) + 300
		s.tell(told{pause: pause})
		time.Sleep(pause)
	}
}

// confirm sees to it that the service knows where its peer is.
func (s *service) confirm(session *dtlsserver.Session, plain []byte) {
	var id, n, number int
	var nonce string
	sent, asked := s.probes[session]
	if _, err := fmt.Sscanf(string(plain), "back request %d %d %d %s", &id, &n, &number, &nonce); err == nil && asked && nonce == sent.nonce {
		delete(s.probes, session)
		s.tell(told{session: session, confirm: sent.addr, confirmed: session.ConfirmAddr(sent.addr)})
		return
	}
	candidate, ok := session.CandidateAddr()
	if ok && s.e.chance(0.05) { // which it may not do: it has not asked
		s.tell(told{session: session, confirm: candidate, confirmed: session.ConfirmAddr(candidate)})
		return
	}
	if s.e.chance(0.05) { // nor this: it is no candidate
		elsewhere := netip.AddrPortFrom(session.RemoteAddr().Addr(), session.RemoteAddr().Port()^1)
		s.tell(told{session: session, confirm: elsewhere, confirmed: session.ConfirmAddr(elsewhere)})
	}
	if !ok || asked && sent.addr == candidate && s.e.chance(0.7) {
		return
	}
	p := probe{candidate, fmt.Sprintf("%08x", s.e.below(1<<31-1))}
	s.probes[session] = p
	if _, err := session.WriteCandidate(candidate, []byte("echo "+p.nonce)); err == nil {
		s.wroteOne()
	}
}

func (s *service) wroteOne() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written++
}

// generate is ConnectionIDs.Generate. Some are so short that it runs out of them.
func (s *service) generate(n int) func() []byte {
	most := 256
	if n == 1 {
		most = 2 + s.g.below(12)
	}
	return func() []byte {
		s.mu.Lock()
		defer s.mu.Unlock()
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(s.g.below(most))
		}
		s.drawn = append(s.drawn, b)
		return b
	}
}

// takeDrawn returns the connection IDs that were drawn since it was called last.
func (s *service) takeDrawn() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	drawn := s.drawn
	s.drawn = nil
	return drawn
}

func (s *service) write(session *dtlsserver.Session, b []byte) {
	if _, err := session.Write(b); err == nil {
		s.wroteOne()
	}
}

// Write makes the service the key log.
func (s *service) Write(line []byte) (int, error) {
	var random, master []byte
	if _, err := fmt.Sscanf(string(line), "CLIENT_RANDOM %x %x\n", &random, &master); err != nil {
		panic(err)
	}
	s.tell(told{random: string(random), master: master})
	return len(line), nil
}

var errHook = errors.New("the database is down")

// hook makes what a hook does: it waits until the world lets it answer, or
// until it is told to stop.
func (s *service) hook(ctx context.Context, remote netip.AddrPort, what string) error {
	if !s.w.has(slowHooks) && !s.w.has(hangingHooks) {
		return nil
	}
	c := &call{remote: remote, what: what, answer: make(chan struct{})}
	s.mu.Lock()
	s.calls = append(s.calls, c)
	s.running++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.running--
		s.mu.Unlock()
	}()
	select {
	case <-c.answer:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// psk is the PSK hook.
func (s *service) psk(ctx context.Context, req dtlsserver.PSKRequest) (dtlsserver.PSK, error) {
	if err := s.hook(ctx, req.Remote, "PSK "+req.Identity); err != nil {
		return dtlsserver.PSK{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w.has(failingHooks) && s.w.stormy() && s.h.chance(0.1) {
		return dtlsserver.PSK{}, errHook
	}
	key, ok := s.keys[req.Identity]
	if !ok {
		return dtlsserver.PSK{}, dtlsserver.ErrUnknownPSKIdentity
	}
	return dtlsserver.PSK{Key: key}, nil
}

func (s *service) certificate(info *dtlsserver.ClientHelloInfo) (*tls.Certificate, error) {
	if err := s.hook(info.Context(), info.Remote, "certificate"); err != nil {
		return nil, err
	}
	return nil, nil // one of Certificates
}

// verify is VerifyConnection, which does not know whose connection it is.
func (s *service) verify(context.Context, *dtlsserver.VerifyRequest) error { return nil }

// newServer makes the server that the seed has drawn.
func (w *world) newServer() *dtlsserver.Server {
	c := w.choices("server", 0)
	s := &dtlsserver.Server{
		Handler:      w.service,
		PSK:          w.service.psk,
		KeyLogWriter: w.service,
		Certificates: []tls.Certificate{fixtures.server},
	}
	if w.has(longChain) {
		s.Certificates[0] = fixtures.long
	}
	if w.has(twoKinds) {
		s.Certificates = append([]tls.Certificate{fixtures.p384}, s.Certificates...)
	}
	if w.has(hints) {
		s.PSKIdentityHint = "which one?"
	}
	if w.has(asksClients) {
		s.ClientAuth = oneOf(c, tls.RequireAndVerifyClientCert, tls.VerifyClientCertIfGiven)
		s.ClientCAs = fixtures.pool
	}
	if w.has(asksVerdict) {
		s.VerifyConnection = w.service.verify
	}
	if w.has(asksForCert) {
		s.GetCertificate = w.service.certificate
	}
	s.SessionTicketsDisabled = w.has(noTickets)
	if w.has(smallLimits) {
		s.MaxSessions = max(w.drawn.devices*3/4, 2) + c.below(8)
		s.MaxHandshakes = 4 + c.below(20)
		s.MaxHandshakesPerSource = 2 + c.below(s.MaxHandshakes)
		s.MaxHandshakeMemory = oneOf(c, 8<<10, 16<<10, 64<<10)
	}
	if w.has(fleet) && w.plan.fleet == nil {
		s.MaxHandshakesPerSource = 10 + c.below(20)
		s.MaxHandshakes = 20 + c.below(60)
		s.MaxSessions = 0
	}
	if w.has(shortIdle) {
		s.IdleTimeout = c.span(25*time.Second, 50*time.Second)
	}
	if w.has(timer) {
		s.RetransmitTimeout = oneOf(w.choices("timer", 0), 200*time.Millisecond, 3*time.Second)
	}
	if w.has(aging) {
		s.MaxSessionAge = w.choices("aging", 0).span(40*time.Second, 3*time.Minute)
	}
	w.connectionIDs(s)
	if w.has(smallMTU) {
		s.MTU = oneOf(c, 200, 256, 400, 548)
	}
	secret := make([]byte, 64)
	for i := range secret {
		secret[i] = byte(c.below(256))
	}
	w.secret, w.oldSecret = secret[:32], secret[32:]
	var err error
	if s.Verifier, err = dtlsserver.NewVerifier(w.secret); err != nil {
		panic(err)
	}
	return s
}

// connectionIDs sets what is about connection IDs.
func (w *world) connectionIDs(s *dtlsserver.Server) {
	const own, usual = 2, 8
	c := w.choices("connection IDs", 0)
	w.cidLen = usual + own
	n := oneOf(c, 1, 1, 2, 3, 8, 17, 18)
	switch {
	case w.has(noCIDs):
		s.ConnectionIDs.Disabled = true
		w.cidLen = 0
	case w.has(otherCIDs):
		s.ConnectionIDs.Generate = w.service.generate(n)
		w.cidLen = n + own
	}
	switch {
	case w.has(movesAtOnce):
		s.ConnectionIDs.Move = dtlsserver.MoveAtOnce
	case w.has(movesNever):
		s.ConnectionIDs.Move = dtlsserver.MoveNever
	}
	s.ConnectionIDs.EnhancedCheck = w.has(enhanced)
	if w.has(fewPerSource) && !w.has(sharedNAT) {
		s.MaxSessionsPerSource = 2 + c.below(4)
	}
}
