package engine

import (
	"crypto/sha256"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// EventKind says what an Event is about.
type EventKind uint8

// The kinds of event.
const (
	// EventPSKNeeded asks for the key of Identity. The answer goes to
	// AnswerPSK, at any later time.
	EventPSKNeeded EventKind = iota + 1
	// EventCertificateNeeded asks for the certificate for Hello. The answer
	// goes to AnswerCertificate, at any later time.
	EventCertificateNeeded
	// EventWork asks for Work to be called once, which takes long, and then,
	// at any later time, for what it returns.
	EventWork
	// EventStartedOver: the session is not resumed after all. What was learnt
	// of the peer for that is void, and a full handshake begins.
	EventStartedOver
	// EventVerdictNeeded asks whether the peer with the engine's Parameters and
	// PeerChain is welcome. The answer goes to AnswerVerdict, at any later time.
	EventVerdictNeeded
	// EventEstablished: the handshake is complete. If it is abbreviated, the full
	// one was at Created, and else is.
	EventEstablished
	// EventData: application data came before the handshake was complete, which
	// it is now. Record and Data are the caller's.
	EventData
	// EventWarningAlert: the peer sent a warning other than close_notify.
	EventWarningAlert
	// EventDropped: a record that was kept, having come too early, was of no
	// use after all, for the reason Drop.
	EventDropped
	// EventClosed is the last event of an engine, for the Cause it names.
	EventClosed
)

// AlertDescription is that of package wire, and what follows are those that callers
// need.
type AlertDescription = wire.AlertDescription

// The alert descriptions (RFC 5246 section 7.2).
const (
	AlertCloseNotify     = wire.AlertCloseNotify
	AlertBadCertificate  = wire.AlertBadCertificate
	AlertUnsupportedCert = wire.AlertUnsupportedCert
	AlertCertExpired     = wire.AlertCertExpired
	AlertUnknownCA       = wire.AlertUnknownCA
	AlertAccessDenied    = wire.AlertAccessDenied
	AlertProtocolVersion = wire.AlertProtocolVersion
)

// Cause is why an engine closed.
type Cause uint8

// The causes.
const (
	CauseLocal      Cause = iota + 1 // Close or Abandon
	CausePeerClosed                  // close_notify
	CausePeerAlert                   // fatal alert of the peer, authenticated
	CauseHandshake                   // the peer's handshake was refused with Alert
	CauseTimeout                     // the handshake took too long
	CauseExhausted                   // no sequence number left
	CauseEntropy                     // no random bytes to be had
	CauseInternal                    // the server's own means, as the certificate's key, failed with Err
	CauseRefused                     // AnswerVerdict refused the peer, with Err
)

// Parameters are what a handshake settles.
type Parameters struct {
	Suite                *suite.Suite
	Group                uint16 // of ECDHE; zero: none
	Identity             string // of the pre-shared key; before the end no more than a claim
	ServerName           string
	ALPN                 string
	ExtendedMasterSecret bool
	Resumed              bool // by a ticket
	// PeerKeyHash is the SHA-256 of the public key in the client's certificate,
	// as SubjectPublicKeyInfo; zero: it has none. Before the end it is no more
	// than a claim.
	PeerKeyHash [sha256.Size]byte
}

// Event is something the caller should know.
type Event struct {
	Kind     EventKind
	Identity string     // EventPSKNeeded
	Hello    *HelloInfo // EventCertificateNeeded

	// Work (EventWork) may be called on any goroutine, also while the engine is
	// in use: it has nothing of the engine's but Config.Rand. The function that
	// it returns is called as a method of the engine, and does nothing unless
	// the engine waits for it.
	Work func() (done func(now time.Time))
	// Blocks: Work calls a private key that is not known to be computed with
	// here, and may so wait for a token or a network.
	Blocks bool
	// OnChain: Work is about the client's certificates, of which a stranger
	// says how many and what they are.
	OnChain bool

	Created time.Time // EventEstablished

	Record Record // EventData
	Data   []byte // EventData

	Drop Drop // EventDropped

	// EventClosed, and Alert also for EventWarningAlert
	Cause Cause
	Alert AlertDescription
	Why   string // CauseHandshake: what was wrong
	Err   error  // CauseEntropy, CauseInternal, CauseRefused
	// Alerted: with CauseTimeout or CauseLocal, Alert came in plaintext in the
	// handshake, and nothing of the client's since.
	Alerted bool
	// WrongKey: with CauseTimeout, a Finished came that did not open, as
	// when the peer has another key.
	WrongKey bool
}

// Event returns the next event.
func (e *Engine) Event() (Event, bool) {
	if int(e.taken) < len(e.events) {
		e.taken++
		return e.events[e.taken-1], true
	}
	clear(e.events)
	e.events, e.taken = e.events[:0], 0
	if e.hs == nil { // events are rare from now on
		e.events = nil
		if e.spent != nil {
			e.cfg.giveBack(e.spent)
			e.spent = nil
		}
	}
	return Event{}, false
}

func (e *Engine) raise(ev Event) { e.events = append(e.events, ev) }

// work has something done that takes long. The engine waits for it in a state,
// which no engine enters twice: so done counts once, and never too late.
func (e *Engine) work(in state, blocks bool, work func() (done func(now time.Time))) {
	e.state = in
	e.raise(Event{Kind: EventWork, Blocks: blocks, Work: e.waiting(in, work)})
}

// workOnChain is work on the client's certificates.
func (e *Engine) workOnChain(in state, work func() (done func(now time.Time))) {
	e.state = in
	e.raise(Event{Kind: EventWork, OnChain: true, Work: e.waiting(in, work)})
}

// waiting returns the work with a done that does nothing in any other state.
func (e *Engine) waiting(in state, work func() (done func(now time.Time))) func() func(time.Time) {
	return func() func(time.Time) {
		done := work()
		return func(now time.Time) {
			if e.state == in {
				done(now)
			}
		}
	}
}

// Drop is why a record was dropped.
type Drop uint8

// The reasons.
const (
	DropNone            Drop = iota // it was of use
	DropMalformed                   // not what its type says
	DropEpoch                       // an epoch that has not begun and is not next
	DropReplayed                    // seen before, or behind the window
	DropForged                      // does not open with the key of its epoch
	DropUnauthenticated             // plaintext where it has no say
	DropEarlyData                   // application data before Finished
	DropRepeated                    // part of a flight that has been received
	DropUnexpected                  // a message out of its place
	DropLimit                       // beyond what is kept for one peer
	DropConnectionID                // a connection ID where none is due, or none where one is
	DropClosed                      // the association is over
)
