package engine

import (
	"crypto/sha256"
	"crypto/subtle"
	"io"
	"slices"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// Resumption by session tickets (RFC 5077): the server keeps nothing; what it
// must know of a session travels, sealed, with the client. A ticket is given for
// handshakes with forward secrecy and extended master secret. It resumes only
// what would come out of a full handshake now: the same server name, protocol
// and suite, an identity whose key is still the same, a certificate that is
// still good. Anything else leads to a full handshake.

// Tickets seals the state of sessions, and opens what it has sealed.
type Tickets interface {
	Seal(now time.Time, state []byte) ([]byte, error)
	Open(now time.Time, ticket []byte) (state []byte, ok bool)
}

const (
	// TicketLifetime is how long after its full handshake a session may be
	// resumed.
	TicketLifetime = 24 * time.Hour
	// maxTicketState bounds what goes into a ticket: it comes back in a
	// ClientHello, of which maxClientHello is taken.
	maxTicketState = 8 << 10
)

// ticketLifetime is TicketLifetime, or MaxSessionAge if that is less.
func (cfg *Config) ticketLifetime() time.Duration {
	if cfg.MaxSessionAge > 0 {
		return min(cfg.MaxSessionAge, TicketLifetime)
	}
	return TicketLifetime
}

// keyDigest says, in a ticket, which key an identity had.
func keyDigest(key []byte) []byte {
	h := sha256.New()
	h.Write([]byte("dtlsserver ticket key digest"))
	h.Write(key)
	return h.Sum(nil)
}

// promisesTicket reports whether a ticket will end the full handshake.
func (e dtls12) promisesTicket() bool {
	return e.cfg.Tickets != nil && e.hs.offer.extensions.SessionTicket &&
		e.parameters.Suite.KeyExchange.ECDHE() && e.parameters.ExtendedMasterSecret
}

// addTicket adds the NewSessionTicket that was promised. One that cannot be
// made is empty (RFC 5077 section 3.3).
func (e dtls12) addTicket(now time.Time, s *ticketState) {
	ticket := []byte{}
	if state, ok := s.append(nil); ok && len(state) <= maxTicketState {
		if sealed, err := e.cfg.Tickets.Seal(now, state); err == nil {
			ticket = sealed
		}
		clear(state)
	}
	left := e.cfg.ticketLifetime() - now.Sub(time.Unix(s.Created, 0))
	e.addMessage(wire.TypeNewSessionTicket, func(b []byte) []byte {
		return wire.AppendNewSessionTicket(b, uint32(max(left, 0)/time.Second), ticket)
	})
}

// newSession is what a full handshake's ticket holds.
func (e dtls12) newSession(now time.Time) *ticketState {
	p := &e.parameters
	s := &ticketState{
		Suite:      e.parameters.Suite.ID,
		Created:    now.Unix(),
		Master:     e.hs.master[:],
		ServerName: []byte(p.ServerName),
		ALPN:       []byte(p.ALPN),
		Identity:   []byte(p.Identity),
		KeyDigest:  e.hs.keyDigest,
	}
	s.Chain = e.hs.chain.list()
	return s
}

// openTicket returns the session that the hello may resume, or nil.
func (e dtls12) openTicket(now time.Time) *ticketState {
	hs := e.hs
	x := &hs.offer.extensions
	if e.cfg.Tickets == nil || len(x.Ticket) == 0 {
		return nil
	}
	state, ok := e.cfg.Tickets.Open(now, x.Ticket)
	if !ok {
		return nil
	}
	s := new(ticketState)
	if !s.parse(state) || len(s.Master) != suite.MasterSecretLen {
		return nil
	}
	age := now.Sub(time.Unix(s.Created, 0))
	used := suite.ByID(s.Suite)
	switch {
	case age < -time.Minute || age >= e.cfg.ticketLifetime():
		return nil
	case used == nil || !slices.Contains(e.cfg.Suites, used) || !hs.offer.hello.OffersSuite(s.Suite):
		return nil
	case string(s.ServerName) != e.parameters.ServerName || string(s.ALPN) != e.parameters.ALPN:
		return nil
	case used.KeyExchange.WithPSK() != (len(s.KeyDigest) > 0) || used.KeyExchange.WithPSK() && !e.cfg.PSK:
		return nil
	case !used.KeyExchange.WithPSK() && e.cfg.Certificate == nil:
		return nil
	case len(s.Identity) > e.cfg.MaxPSKIdentityLen:
		return nil
	case len(s.Chain) > MaxClientChain:
		return nil
	case len(s.Chain) == 0 && e.cfg.RequireClientCertificate && !used.KeyExchange.WithPSK():
		return nil
	case len(s.Chain) > 0 && !e.cfg.RequestClientCertificate:
		return nil
	}
	return s
}

// resume asks whether the session may be resumed: the client's certificates are
// parsed, then comes the PSK hook, then the verdict, before anything is
// answered.
func (e dtls12) resume(now time.Time, s *ticketState) {
	hs := e.hs
	hs.resumed = s
	e.parameters.Resumed = true
	e.parameters.Suite = suite.ByID(s.Suite)
	e.parameters.Identity = string(s.Identity)
	if len(s.Chain) == 0 {
		e.askResumptionPSK(now)
		return
	}
	chain := Chain(wire.AppendCertificate(nil, s.Chain)) // and not what else the ticket holds
	if !e.reserve(2*len(chain) + peerRoom) {             // the session has one too
		e.startOver(now)
		return
	}
	hs.chain = chain
	e.workOnChain(awaitResumptionParsing, func() func(time.Time) {
		p, _, _ := chain.examine()
		return func(now time.Time) {
			if p == nil || now.After(p.notAfter) || e.cfg.AskVerdict && !e.reserve(p.parsed) {
				e.startOver(now)
				return
			}
			e.learn(p)
			e.askResumptionPSK(now)
		}
	})
}

// startOver goes on with a full handshake.
func (e dtls12) startOver(now time.Time) {
	hs, p := e.hs, &e.parameters
	clear(hs.resumed.Master)
	hs.resumed = nil
	hs.chain, hs.peerKey, hs.parsed = nil, nil, 0
	e.unreserve()
	p.Resumed, p.Suite, p.Identity, p.PeerKeyHash = false, nil, "", [sha256.Size]byte{}
	e.raise(Event{Kind: EventStartedOver})
	e.negotiate(now)
}

// askResumptionPSK asks for the key of the session's identity, if it has one.
func (e dtls12) askResumptionPSK(now time.Time) {
	if len(e.hs.resumed.KeyDigest) > 0 {
		e.state = awaitResumptionPSK
		e.raise(Event{Kind: EventPSKNeeded, Identity: e.parameters.Identity})
		return
	}
	e.askResumption(now)
}

// answerResumptionPSK goes on when the identity's key is still the same, and
// else with a full handshake.
func (e dtls12) answerResumptionPSK(now time.Time, key []byte) {
	if len(key) == 0 || subtle.ConstantTimeCompare(keyDigest(key), e.hs.resumed.KeyDigest) != 1 {
		e.startOver(now)
		return
	}
	e.askResumption(now)
}

func (e dtls12) askResumption(now time.Time) {
	if e.cfg.AskVerdict {
		e.state = awaitResumptionVerdict
		e.raise(Event{Kind: EventVerdictNeeded})
		return
	}
	e.answerResumption(now)
}

// answerResumption answers the hello with the abbreviated handshake's flight:
// ServerHello, perhaps a new ticket, ChangeCipherSpec and Finished (RFC 5077
// section 3.1). It is sent again until the client's Finished has come.
func (e dtls12) answerResumption(now time.Time) {
	hs := e.hs
	s := hs.resumed
	if _, err := io.ReadFull(e.cfg.Rand, e.serverRandom[:]); err != nil {
		e.failInternal(CauseEntropy, err)
		return
	}
	renew := now.Sub(time.Unix(s.Created, 0)) > e.cfg.ticketLifetime()/2
	hs.transcript.Begin(e.parameters.Suite.Hash)
	hs.addReceived(wire.TypeClientHello, hs.helloSeq, hs.hello)
	e.addServerHello(hs.offer.hello.SessionID, renew, nil, nil)
	copy(hs.master[:], s.Master)
	if renew {
		// The time of the full handshake stays, and so does the end.
		e.addTicket(now, s)
	}
	clear(s.Master)
	if err := e.installKeys(); err != nil {
		e.failInternal(CauseInternal, err)
		return
	}
	e.addFinished()
	hs.answered()
	hs.progressed(now)
	e.state = awaitFinished
	e.resendFrom = now.Add(e.cfg.resendGap())
	hs.resendAt = now.Add(hs.timeout)
}
