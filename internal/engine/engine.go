// Package engine is the server side of DTLS 1.2 (RFC 6347) as a state machine
// without I/O: records and the time go in, events, datagrams and a deadline
// come out. It opens no socket, starts no goroutine, takes no lock and never
// asks for the time; one caller at a time drives it.
//
// An engine begins where the stateless cookie exchange ends, with a
// ClientHello whose cookie was right. Its way, as the flights of RFC 6347
// figure 1:
//
//	  ClientHello (verified)
//	           |                a ticket that is good: see resumption.go
//	    [awaitCredential]       EventCertificateNeeded; AnswerCertificate
//	[awaitServerKeyExchange]    EventWork: ECDHE key pair and signature
//	           |                flight 4: ServerHello, [Certificate],
//	           |                          [ServerKeyExchange],
//	           |                          [CertificateRequest], ServerHelloDone
//	    [awaitCertificate]      flight 4 resent at 1, 3, 7, 15 ... s
//	           |
//	awaitClientKeyExchange      and here
//	           |
//	      [awaitSecret]         EventWork: ECDH
//	       [awaitPSK]           EventPSKNeeded; AnswerPSK
//	           |
//	[awaitCertificateVerify]    flight 4 resent as before
//	           |
//	   [awaitVerification]      EventWork: the signature in CertificateVerify
//	           |
//	     awaitFinished          flight 4 resent as before
//	           | ChangeCipherSpec and a Finished that opens and is right
//	     [awaitVerdict]         EventVerdictNeeded; AnswerVerdict
//	           |                flight 6: ChangeCipherSpec, Finished
//	      established           resent when the client repeats its Finished
//	           | close_notify, fatal alert, Close
//	           v
//	        closed              also from every other state: time out,
//	                            malformed handshake, no common suite
//
// What a caller must do after every call that takes the engine on: send what
// AppendDatagram returns until it returns nothing, take events until there is
// none, and call Timeout when Deadline has come.
//
// What takes a processor long is not done by these calls: EventWork hands it
// out, to be done on any goroutine, and the engine waits.
package engine

import (
	"errors"
	"io"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/record"
	"github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// Config is what the engines of a server share. It must not change while one
// of them lives.
type Config struct {
	Suites           []*suite.Suite // in order of preference
	PSKIdentityHint  []byte         // empty: no ServerKeyExchange
	PSK              bool           // there are pre-shared keys
	MaxPSKIdentity   int            // bytes; longer identities are unknown ones
	MTU              int            // bytes, of the largest datagram of a handshake
	FirstTimeout     time.Duration  // until the first retransmission; zero: 1 s
	HandshakeTimeout time.Duration  // until a handshake is given up
	Rand             io.Reader      // safe for concurrent use: see EventWork

	// Certificate chooses the certificate for a client; nil: there is none. If
	// AskCertificate, EventCertificateNeeded does so in its place.
	Certificate    func(*HelloInfo) *Certificate
	AskCertificate bool
	Groups         []uint16 // of ECDHE, in order of preference
	NextProtos     []string // in order of preference

	RequestClientCertificate bool // in suites with certificates
	RequireClientCertificate bool
	MaxClientCertificates    int  // bytes, of the message
	AskVerdict               bool // by EventVerdictNeeded

	Tickets Tickets // nil: none

	// Reserve, when not nil, is asked before bytes are set aside for messages
	// that come in parts, by all engines together, and told with a negative
	// number when they are given back.
	Reserve func(bytes int) bool

	// KeyLog, when not nil, is told the secrets of each handshake that
	// completes.
	KeyLog func(clientRandom, masterSecret []byte)
}

// Record is one record of a datagram.
type Record = wire.Record

// NextRecord splits the first record off a datagram. It fails when what is
// there cannot be a record of any version of DTLS.
func NextRecord(datagram []byte) (r Record, rest []byte, ok bool) {
	r, rest, ok = wire.ParseRecord(datagram)
	return r, rest, ok && r.Version>>8 == 0xfe
}

// MinMTU is the least Config.MTU that the engine can work with: a fragment of
// a handshake message and its headers, with room to make progress.
const MinMTU = 128

const (
	firstTimeout   = time.Second      // RFC 6347 section 4.2.4.1
	maxTimeout     = 60 * time.Second // RFC 6347 section 4.2.4.1
	lastFlightLife = 240 * time.Second
	// alertedLife is how long a handshake still has after a plaintext alert,
	// which anybody could have sent.
	alertedLife = 5 * time.Second
)

// The errors of Seal.
var (
	ErrNotEstablished = errors.New("engine: handshake not complete")
	ErrClosed         = errors.New("engine: closed")
	ErrTooLong        = errors.New("engine: longer than a record may be")
)

type state uint8

const (
	awaitClientHello state = iota
	awaitResumptionPSK
	awaitResumptionVerdict
	awaitCredential
	awaitServerKeyExchange
	awaitCertificate
	awaitClientKeyExchange
	awaitSecret
	awaitPSK
	awaitCertificateVerify
	awaitVerification
	awaitFinished
	awaitVerdict
	established
	closed
)

// Engine is the server's side of one association.
type Engine struct {
	cfg   *Config
	state state
	hs    *handshake // nil once established or closed

	limit        int    // of the plaintext in what we send
	plainLimit   int    // the same in epoch 0
	master       []byte // for Export; nil without extended master secret
	serverRandom [wire.RandomLen]byte

	suite        *suite.Suite
	clientRandom [wire.RandomLen]byte
	plain        *record.Sealer // epoch 0
	sealer       *record.Sealer // epoch 1, nil before the keys
	opener       *record.Opener // epoch 1, nil before the keys

	flight       flight        // what we last sent, for retransmission
	resendFrom   time.Time     // the flight is not resent on request before
	resendGap    time.Duration // between two such answers
	flightUntil  time.Time     // established: the flight is forgotten then
	finishedSeq  uint16        // message_seq of the client's Finished
	alertPending bool
	alert        wire.Alert // goes out after the flight
	alertEpoch   uint16     // 1 once our ChangeCipherSpec is in a flight

	events []Event
	taken  int // events already given out
}

// New returns the engine for a hello whose cookie was right. The record that
// holds it, or its first fragment, is the first to be given to Receive.
func New(cfg *Config, now time.Time, hello *Hello) *Engine {
	timeout := cfg.FirstTimeout
	if timeout == 0 {
		timeout = firstTimeout
	}
	e := &Engine{
		cfg:   cfg,
		limit: wire.MaxPlaintext, plainLimit: wire.MaxPlaintext,
		hs: &handshake{
			nextReceive: hello.MessageSeq,
			nextSend:    hello.MessageSeq,
			timeout:     timeout,
			giveUp:      now.Add(cfg.HandshakeTimeout),
		},
		clientRandom: [wire.RandomLen]byte(hello.Random),
		// RFC 6347 section 4.2.1: the ServerHello takes the record sequence
		// number of the hello it answers.
		plain:     record.NewPlaintextSealer(hello.RecordSeq),
		resendGap: timeout / 4,
	}
	for i := range e.hs.incoming {
		e.hs.incoming[i].reserve = cfg.Reserve
	}
	return e
}

// Established reports whether application data may pass.
func (e *Engine) Established() bool { return e.state == established }

// Closed reports whether the association is over.
func (e *Engine) Closed() bool { return e.state == closed }

// AwaitsClient reports whether nothing has come since the verified hello that
// takes the handshake on.
func (e *Engine) AwaitsClient() bool {
	switch e.state {
	case awaitClientHello, awaitCertificate:
		return true
	case awaitClientKeyExchange:
		return !e.certified()
	case awaitFinished:
		return e.hs.resumed != nil
	}
	return false
}

// Opening reports whether records of epoch 1 are tried with this engine's
// keys rather than kept for later.
func (e *Engine) Opening() bool {
	return e.state == established || e.state == awaitVerdict || e.state == awaitFinished && e.hs.changeCipherSpec
}

// ClientRandom is the random of the verified hello.
func (e *Engine) ClientRandom() *[wire.RandomLen]byte { return &e.clientRandom }

// Suite is the cipher suite, nil before there is one.
func (e *Engine) Suite() *suite.Suite { return e.suite }

// Rest lets go of what an association that is silent can do without and makes
// anew by itself.
func (e *Engine) Rest() {
	if e.state == established {
		e.opener.Rest()
		e.sealer.Rest()
		e.events = nil
	}
}

// Resting reports whether nothing was sealed or opened since Rest.
func (e *Engine) Resting() bool {
	return e.state == established && e.opener.Resting() && e.sealer.Resting()
}

// Sealed is how many records were sealed with the write key.
func (e *Engine) Sealed() uint64 {
	if e.sealer == nil {
		return 0
	}
	return e.sealer.Sealed()
}

// Receive takes one record. Application data is appended to buf and handed out
// as an event, which like the record is good until buf is used again; any
// other record leaves at most other events and datagrams. A record that the
// engine has no use for is dropped, for the reason returned.
func (e *Engine) Receive(now time.Time, r Record, buf []byte) Drop {
	if len(r.Payload) > wire.MaxPlaintext+256 {
		return DropMalformed
	}
	switch {
	case e.state == closed:
		return DropClosed
	case r.Epoch == 0 && e.state == established:
		return e.receivePlainLate(r)
	case r.Epoch == 0:
		return e.receivePlain(now, r)
	case r.Epoch == 1:
		return e.receiveSealed(now, r, buf)
	default:
		return DropEpoch
	}
}

// receivePlain takes a record of epoch 0 during a handshake. Nothing in it is
// authentic, so only a complete malformed message at its place can end the
// handshake.
func (e *Engine) receivePlain(now time.Time, r Record) Drop {
	switch r.Type {
	case wire.ContentHandshake:
		return e.receiveFragments(now, r.Payload, 0)
	case wire.ContentChangeCipherSpec:
		if len(r.Payload) != 1 || r.Payload[0] != 1 {
			return DropMalformed
		}
		// Unnumbered, so it may come early, and it may come twice.
		e.hs.changeCipherSpec = true
		e.receiveEarly(now)
		return DropNone
	case wire.ContentAlert:
		a, ok := wire.ParseAlert(r.Payload)
		if !ok {
			return DropMalformed
		}
		if a.Level == wire.LevelFatal || a.Description == wire.AlertCloseNotify {
			e.hs.hint(now, a)
		}
		return DropUnauthenticated
	default:
		return DropUnauthenticated
	}
}

// receivePlainLate takes a record of epoch 0 after the handshake. A client that
// has not seen our last flight repeats its own, the beginning of which is
// plaintext; it is the Finished in it that is answered.
func (e *Engine) receivePlainLate(r Record) Drop {
	if len(e.flight.messages) > 0 && (r.Type == wire.ContentHandshake || r.Type == wire.ContentChangeCipherSpec) {
		return DropRepeated
	}
	return DropUnauthenticated
}

// receiveSealed takes a record of epoch 1.
func (e *Engine) receiveSealed(now time.Time, r Record, buf []byte) Drop {
	if !e.Opening() {
		return e.hs.keepEarly(r)
	}
	content, err := e.opener.Open(buf[:0], r)
	if err != nil {
		if err == record.ErrReplayed {
			return DropReplayed
		}
		if e.hs != nil && r.Type == wire.ContentHandshake {
			e.hs.unopened = true
		}
		return DropForged
	}
	switch r.Type {
	case wire.ContentApplicationData:
		if e.state != established {
			return DropEarlyData
		}
		e.raise(Event{Kind: EventData, Record: r.Raw, Data: content})
		return DropNone
	case wire.ContentHandshake:
		if e.state != established {
			return e.receiveFragments(now, content, 1)
		}
		return e.receiveAfterHandshake(now, content)
	case wire.ContentAlert:
		return e.receiveAlert(content)
	default:
		return DropUnexpected
	}
}

// receiveAfterHandshake takes the content of a handshake record of an
// established association: the client's last flight again, whose answer it has
// not seen (RFC 6347 section 4.2.4), or the wish to renegotiate, which is
// refused (RFC 5246 section 7.2.2).
func (e *Engine) receiveAfterHandshake(now time.Time, content []byte) Drop {
	f, _, ok := wire.ParseFragment(content)
	switch {
	case !ok:
		return DropMalformed
	case f.Type == wire.TypeFinished && f.MessageSeq == e.finishedSeq:
		e.resend(now)
		return DropNone
	case f.Type == wire.TypeClientHello:
		if !now.Before(e.resendFrom) {
			e.resendFrom = now.Add(e.resendGap)
			e.sendAlert(wire.LevelWarning, wire.AlertNoRenegotiation)
		}
		return DropUnexpected
	default:
		return DropUnexpected
	}
}

// receiveAlert takes an alert that the peer authenticated.
func (e *Engine) receiveAlert(content []byte) Drop {
	a, ok := wire.ParseAlert(content)
	switch {
	case !ok:
		return DropMalformed
	case a.Description == wire.AlertCloseNotify:
		e.sendAlert(wire.LevelWarning, wire.AlertCloseNotify)
		e.close(Event{Cause: CausePeerClosed, Alert: a.Description})
	case a.Level == wire.LevelFatal:
		e.close(Event{Cause: CausePeerAlert, Alert: a.Description})
	default:
		e.raise(Event{Kind: EventWarningAlert, Alert: a.Description})
	}
	return DropNone
}

// Seal appends the record with the application data to dst.
func (e *Engine) Seal(dst, data []byte) ([]byte, error) {
	switch e.state {
	case established:
	case closed:
		return dst, ErrClosed
	default:
		return dst, ErrNotEstablished
	}
	if len(data) > e.limit {
		return dst, ErrTooLong
	}
	if e.sealer.Left() <= 1 { // the last one is for close_notify
		e.sendAlert(wire.LevelWarning, wire.AlertCloseNotify)
		e.close(Event{Cause: CauseExhausted})
		return dst, ErrClosed
	}
	return e.sealer.Append(dst, wire.ContentApplicationData, data)
}

// ErrNoExport is what Export returns without extended master secret, when the
// material would not be bound to the handshake (RFC 7627 section 7.1).
var ErrNoExport = errors.New("engine: no extended master secret")

// Export returns n bytes of keying material (RFC 5705).
func (e *Engine) Export(label string, context []byte, n int) ([]byte, error) {
	switch {
	case e.state == closed:
		return nil, ErrClosed
	case e.state != established:
		return nil, ErrNotEstablished
	case e.master == nil:
		return nil, ErrNoExport
	}
	return e.suite.NewSecret(e.master).Export(n, e.clientRandom[:], e.serverRandom[:], label, context), nil
}

// Close ends the association and tells the peer (RFC 5246 section 7.2.1).
func (e *Engine) Close() {
	if e.state == closed {
		return
	}
	e.sendAlert(wire.LevelWarning, wire.AlertCloseNotify)
	e.close(Event{Cause: CauseLocal})
}

// Abandon ends the association and tells nobody.
func (e *Engine) Abandon() {
	if e.state != closed {
		e.close(Event{Cause: CauseLocal})
	}
}

// fail ends a handshake with a fatal alert. The peer has proven its address.
func (e *Engine) fail(alert wire.AlertDescription, why string) {
	e.sendAlert(wire.LevelFatal, alert)
	e.close(Event{Cause: CauseHandshake, Alert: alert, Why: why})
}

// failInside ends a handshake for a fault of the server's own.
func (e *Engine) failInside(cause Cause, err error) {
	e.sendAlert(wire.LevelFatal, wire.AlertInternalError)
	e.close(Event{Cause: cause, Alert: wire.AlertInternalError, Err: err})
}

// close raises the closed event and lets go of everything but what is needed
// to send a pending alert.
func (e *Engine) close(ev Event) {
	ev.Kind = EventClosed
	e.raise(ev)
	e.state = closed
	if e.hs != nil {
		e.hs.release()
		clear(e.hs.shared)
		clear(e.hs.master)
		if e.hs.resumed != nil {
			clear(e.hs.resumed.Master)
		}
		e.hs = nil
	}
	clear(e.master)
	e.master = nil
	e.flight = flight{}
	e.opener = nil
}

func (e *Engine) sendAlert(level wire.AlertLevel, description wire.AlertDescription) {
	e.alert = wire.Alert{Level: level, Description: description}
	e.alertPending = true
}
