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
//	           |                          [CertificateStatus], [ServerKeyExchange],
//	           |                          [CertificateRequest], ServerHelloDone
//	    [awaitCertificate]      flight 4 resent at 1.25, 3.75, 8.75 ... s
//	           |
//	      [awaitParsing]        EventWork: the client's certificates
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
	Suites []*suite.Suite // in order of preference
	// PSKIdentityHint returns the hint for a client that asks for a server name,
	// which may be empty. If it is nil, or returns an empty hint, none is sent.
	PSKIdentityHint   func(serverName string) []byte
	PSK               bool          // there are pre-shared keys
	MaxPSKIdentityLen int           // bytes; longer identities are unknown ones
	MTU               int           // bytes, of the largest datagram of a handshake
	FirstTimeout      time.Duration // until the first retransmission; zero: DefaultFirstTimeout
	HandshakeTimeout  time.Duration // until a handshake is given up
	MaxSessionAge     time.Duration // after which no session is resumed; zero: TicketLifetime alone
	Rand              io.Reader     // safe for concurrent use: see EventWork

	// Certificate chooses the certificate for a client; nil: there is none. If
	// AskCertificate, EventCertificateNeeded does so in its place.
	Certificate    func(*HelloInfo) *Certificate
	AskCertificate bool
	Groups         []uint16 // of ECDHE, in order of preference
	NextProtos     []string // in order of preference

	RequestClientCertificate  bool // in suites with certificates
	RequireClientCertificate  bool
	MaxClientCertificateBytes int  // bytes, of the message
	AskVerdict                bool // by EventVerdictNeeded

	Tickets Tickets // nil: none

	// ConnectionIDLen is the length in bytes of the connection IDs that clients
	// which offer the extension are given; zero: none.
	ConnectionIDLen   int
	ReturnRoutability bool // is checked with clients that offer that too

	// Memory, if not nil, has the memory that handshakes have needed, without
	// secrets, for others. A *sync.Pool will do.
	Memory Memory

	// KeyLog, if not nil, is called with the secrets of each handshake that
	// completes, each with its label in the NSS key log format.
	KeyLog func(label string, clientRandom, secret []byte)
}

// Memory keeps what is put into it for Get, which returns nil when there is
// nothing.
type Memory interface {
	Get() any
	Put(any)
}

// Record is one record of a datagram.
type Record = wire.Record

// NextRecord splits the first record off a datagram, with a connection ID of cidLen
// bytes if it has any. It fails when what is there cannot be a record of any version
// of DTLS.
func NextRecord(datagram []byte, cidLen int) (r Record, rest []byte, ok bool) {
	r, rest, ok = wire.ParseRecord(datagram, cidLen)
	return r, rest, ok && r.Version>>8 == 0xfe
}

// HasConnectionID reports whether the first record of a datagram has a connection ID.
func HasConnectionID(datagram []byte) bool {
	return len(datagram) > 0 && wire.ContentType(datagram[0]) == wire.ContentCID
}

// IsUnnumbered reports whether a record says nothing of the handshake that it
// belongs to: ChangeCipherSpec in plaintext.
func IsUnnumbered(r Record) bool { return r.Epoch == 0 && r.Type == wire.ContentChangeCipherSpec }

// MinMTU is the least Config.MTU that the engine can work with: a fragment of
// a handshake message and its headers, with room to make progress.
const MinMTU = 128

// DefaultFirstTimeout is a little longer than the second of RFC 6347 section
// 4.2.4.1, which is the clients'. With equal timers, both peers retransmit their
// flights for one datagram that was lost, and the server just before the client: one
// stack takes a single record of what then comes, and gives up.
const DefaultFirstTimeout = 1250 * time.Millisecond

// MaxTimeout is where the retransmission timeout stops doubling (RFC 6347 section
// 4.2.4.1).
const MaxTimeout = 60 * time.Second

const (
	lastFlightLife = 240 * time.Second
	// alertedLife is how long a handshake still has, at the least, after a
	// plaintext alert, which anybody could have sent.
	alertedLife = 5 * time.Second
)

// The errors of Seal.
var (
	ErrNotEstablished = errors.New("engine: handshake not complete")
	ErrClosed         = errors.New("engine: closed")
	ErrTooLong        = errors.New("engine: longer than a record may be")
)

// Engine is the server's side of one association. The zero Engine is for Begin.
type Engine struct {
	cfg   *Config
	hs    *handshake // nil once established or closed
	spent *handshake // whose events are still to be taken

	parameters   Parameters
	clientRandom [wire.RandomLen]byte
	serverRandom [wire.RandomLen]byte
	master       [suite.MasterSecretLen]byte // established: for Export, with extended master secret
	plain        record.Plaintext            // epoch 0
	cids         *connectionIDs              // nil: none
	sealer       record.Sealer               // epoch 1, without keys at first and in the end
	opener       record.Opener               // epoch 1, without keys at first and in the end

	flight      flight    // what we last sent, for retransmission
	resendFrom  time.Time // the flight is not resent on request before; established: nor renegotiation refused
	flightUntil time.Time // established: the flight is forgotten then

	state        state
	single       bool   // one record a datagram, since a flight was lost
	backwards    bool   // the pieces of a message go out the last first, this time
	repeats      uint8  // of the flight, since the client last got on
	size         uint16 // of the largest datagram of a flight; zero: Config.MTU
	longest      uint16 // datagram of the flight, as it was last cut
	limit        uint16 // of the plaintext in what we send
	plainLimit   uint16 // the same in epoch 0
	finishedSeq  uint16 // message_seq of the client's Finished
	cameAgain    uint16 // a bit for each byte of it that has come again
	alertPending bool
	alert        wire.Alert // goes out after the flight
	alertEpoch   uint16     // 1 once our ChangeCipherSpec is in a flight

	taken  uint16 // events already given out
	events []Event
}

// Begin begins, once, with a hello whose cookie was right, of which nothing is
// kept. The record that holds it, or its first fragment, is the first to be
// given to Receive. If host is nil, there is no bound for messages in parts, and no
// connection ID.
func (e *Engine) Begin(cfg *Config, host Host, now time.Time, hello *Hello) {
	e.cfg = cfg
	e.limit, e.plainLimit = wire.MaxPlaintext, wire.MaxPlaintext
	copy(e.clientRandom[:], hello.Random)
	// RFC 6347 section 4.2.1: the ServerHello takes the record sequence number
	// of the hello it answers.
	e.plain = record.Plaintext(hello.RecordSeq)

	e.hs = cfg.borrow(host)
	e.hs.protocol = dtls12{e}
	e.hs.nextReceive, e.hs.nextSend = hello.MessageSeq, hello.MessageSeq
	e.hs.timeout = cfg.firstTimeout()
	e.hs.giveUp = now.Add(cfg.HandshakeTimeout)
	e.hs.doubt = cfg.doubt()
	e.hs.progressedAt = now
	e.events = e.hs.events[:0]
	e.flight.bytes = e.hs.flight[:0]
}

// Established reports whether application data may pass.
func (e *Engine) Established() bool { return e.state == established }

// Closed reports whether the association is over.
func (e *Engine) Closed() bool { return e.state == closed }

// WaitsSince returns when the handshake was last taken on, and reports whether it
// is the client that it waits for.
func (e *Engine) WaitsSince() (at time.Time, waits bool) {
	if e.hs == nil || e.asking() {
		return time.Time{}, false
	}
	return e.hs.progressedAt, true
}

// Answered reports whether the client has answered the server's first flight in
// a handshake.
func (e *Engine) Answered() bool {
	return e.hs != nil && e.helloAnswered() && !e.unanswered()
}

// ClientRandom is the random of the verified hello.
func (e *Engine) ClientRandom() *[wire.RandomLen]byte { return &e.clientRandom }

// Parameters are what has been settled so far.
func (e *Engine) Parameters() *Parameters { return &e.parameters }

// Rest lets go of what an association that is silent can do without and makes
// anew by itself.
func (e *Engine) Rest() {
	if e.state == established {
		e.opener.Rest()
		e.sealer.Rest()
	}
}

// Resting reports whether nothing was sealed or opened since Rest.
func (e *Engine) Resting() bool {
	return e.state == established && e.opener.Resting() && e.sealer.Resting()
}

// Sealed is how many records were sealed with the write key.
func (e *Engine) Sealed() uint64 { return e.sealer.Sealed() }

// Result is what has come of a record.
type Result struct {
	// Data is what it holds, if that is application data, and then not nil though
	// perhaps empty. Any other record leaves at most events and datagrams.
	Data []byte
	// Drop is why the engine has no use for it.
	Drop Drop
	// Authentic: it opened, and is of use. The peer is there.
	Authentic bool
	// Newest: it is authentic, of an open association, and newer than all before it.
	Newest bool
	// Path is the message that it holds about a path, and nil if it holds none.
	Path *PathMessage
}

// Receive takes one record. Result.Data is appended to buf. Records of one datagram
// have the same number, which no other datagram has: what one datagram may cost in
// a handshake is bounded.
func (e *Engine) Receive(now time.Time, datagram uint64, r Record, buf []byte) Result {
	if len(r.Payload) > wire.MaxPlaintext+256 {
		return Result{Drop: DropMalformed}
	}
	if e.hs != nil && e.hs.datagram != datagram {
		e.hs.datagram, e.hs.pieces = datagram, 0
	}
	switch {
	case e.state == closed:
		return Result{Drop: DropClosed}
	case r.HasCID() != (r.Epoch > 0 && e.cids != nil):
		return Result{Drop: DropConnectionID}
	case r.Epoch == 0 && e.state == established:
		return Result{Drop: e.receivePlainLate(r)}
	case r.Epoch == 0:
		return Result{Drop: e.receivePlain(now, r)}
	case r.Epoch == 1 && !e.opens(r, buf):
		return Result{Drop: e.keepEarly(r)}
	case r.Epoch == 1:
		newest := e.state == established && e.opener.Newest(r)
		result := e.receiveSealed(now, r, buf)
		result.Authentic = result.Drop == DropNone
		result.Newest = newest && result.Authentic
		return result
	default:
		return Result{Drop: DropEpoch}
	}
}

// receivePlain takes a record of epoch 0 during a handshake. Nothing in it is
// authentic, so only a complete malformed message at its place can end the
// handshake.
func (e *Engine) receivePlain(now time.Time, r Record) Drop {
	if r.Type != wire.ContentHandshake && !e.hs.mayTake() {
		return DropLimit
	}
	switch r.Type {
	case wire.ContentHandshake:
		return e.receiveFragments(now, r.Payload)
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
		e.hs.receiveAlert(now, a)
		return DropUnauthenticated
	default:
		return DropUnauthenticated
	}
}

// receivePlainLate takes a record of epoch 0 after the handshake. A client that
// has not seen our last flight repeats its own, the beginning of which is
// plaintext; it is the Finished in it that is answered.
func (e *Engine) receivePlainLate(r Record) Drop {
	if len(e.flight.bytes) > 0 && (r.Type == wire.ContentHandshake || r.Type == wire.ContentChangeCipherSpec) {
		return DropRepeated
	}
	return DropUnauthenticated
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
	if len(data) > int(e.limit) {
		return dst, ErrTooLong
	}
	if e.sealer.Left() <= 1 { // the last one is for close_notify
		e.sendAlert(wire.LevelWarning, wire.AlertCloseNotify)
		e.close(Event{Cause: CauseExhausted})
		return dst, ErrClosed
	}
	return e.sealer.Append(dst, e.peerCID(), wire.ContentApplicationData, nil, data)
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
	case !e.parameters.ExtendedMasterSecret:
		return nil, ErrNoExport
	}
	return e.parameters.Suite.NewSecret(e.master[:]).Export(n, e.clientRandom[:], e.serverRandom[:], label, context), nil
}

// Close ends the association and sends close_notify (RFC 5246 section 7.2.1).
func (e *Engine) Close() {
	if e.state == closed {
		return
	}
	e.sendAlert(wire.LevelWarning, wire.AlertCloseNotify)
	e.close(Event{Cause: CauseLocal})
}

// GiveUp ends a handshake with internal_error: the client is not to blame.
func (e *Engine) GiveUp() {
	if e.state != closed {
		e.sendAlert(wire.LevelFatal, wire.AlertInternalError)
		e.close(Event{Cause: CauseLocal})
	}
}

// Abandon ends the association without an alert.
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

// failInternal ends a handshake for a fault of the server's own.
func (e *Engine) failInternal(cause Cause, err error) {
	e.sendAlert(wire.LevelFatal, wire.AlertInternalError)
	e.close(Event{Cause: cause, Alert: wire.AlertInternalError, Err: err})
}

// close raises the closed event and lets go of everything but what is needed
// to send a pending alert, and to tell what was settled.
func (e *Engine) close(ev Event) {
	ev.Kind = EventClosed
	if e.hs != nil && e.hs.alerted.Level != 0 && (ev.Cause == CauseTimeout || ev.Cause == CauseLocal) {
		ev.Alert, ev.Alerted = e.hs.alerted.Description, true
	}
	e.raise(ev)
	if e.state != established { // nothing was
		e.parameters = Parameters{Identity: e.parameters.Identity}
	}
	// What has not gone out yet does, before the alert: without our
	// ChangeCipherSpec the client could not read it.
	if e.state != established || !e.alertPending || !e.flight.leaves() {
		e.flight = flight{}
	}
	e.state = closed
	e.releaseHandshake()
	clear(e.master[:])
	e.opener = record.Opener{}
	if !e.alertPending {
		e.sealer = record.Sealer{}
	}
}

// releaseHandshake lets go of what only the handshake has needed.
func (e *Engine) releaseHandshake() {
	if e.hs != nil {
		e.unreserve()
		e.hs.forget()
		e.hs, e.spent = nil, e.hs
	}
}

func (e *Engine) sendAlert(level wire.AlertLevel, description wire.AlertDescription) {
	e.alert = wire.Alert{Level: level, Description: description}
	e.alertPending = true
}
