package dtlsserver

import (
	"errors"
	"fmt"
	"net"

	"github.com/dtlsserver/dtlsserver/internal/engine"
)

// Errors of Server and Session. ErrServerClosed and ErrSessionClosed unwrap to
// net.ErrClosed.
var (
	// ErrServerClosed is what Serve returns after Close or Shutdown, and what
	// Session.Write returns afterwards.
	ErrServerClosed error = closedError("dtlsserver: server closed")
	// ErrSessionClosed is what Session.Write returns once the session is over.
	ErrSessionClosed error = closedError("dtlsserver: session closed")
	// ErrHandshakeIncomplete is what Session.Write returns before the
	// handshake is complete.
	ErrHandshakeIncomplete = errors.New("dtlsserver: handshake not complete")
	// ErrMessageTooLong is what Session.Write returns for a message that does
	// not fit a record or a datagram.
	ErrMessageTooLong = errors.New("dtlsserver: message too long")
	// ErrWriteDropped is what Session.Write returns when the socket is full.
	// The datagram is gone, as one lost in the network; the session lives.
	ErrWriteDropped = errors.New("dtlsserver: socket full, datagram dropped")
	// ErrNoExtendedMasterSecret is what Session.ExportKeyingMaterial returns
	// when the client does not support extended master secret (RFC 7627).
	ErrNoExtendedMasterSecret = errors.New("dtlsserver: no extended master secret")
	// ErrAlreadyServing is what Serve returns when the server is serving.
	ErrAlreadyServing = errors.New("dtlsserver: already serving")
	// ErrUnknownPSKIdentity is what a PSKFunc returns for an identity that it
	// does not know.
	ErrUnknownPSKIdentity = errors.New("dtlsserver: unknown PSK identity")
)

// Reasons why a session or a handshake ended, in Event.Err. Another is
// *AlertError.
var (
	// ErrPeerClosed: the peer sent close_notify.
	ErrPeerClosed = errors.New("dtlsserver: closed by the peer")
	// ErrIdleTimeout: nothing came from the peer for IdleTimeout.
	ErrIdleTimeout = errors.New("dtlsserver: idle for too long")
	// ErrSessionAge: the session is older than MaxSessionAge.
	ErrSessionAge = errors.New("dtlsserver: older than MaxSessionAge")
	// ErrPSKExpired: the pre-shared key has expired, by PSK.Expires.
	ErrPSKExpired = errors.New("dtlsserver: pre-shared key has expired")
	// ErrReconnected: the peer has completed a new handshake from the same
	// address (RFC 6347 section 4.2.8), or, of a handshake, has begun another.
	ErrReconnected = errors.New("dtlsserver: replaced by a new handshake of the peer")
	// ErrHandshakeTimeout: the handshake was not complete after
	// HandshakeTimeout. If the client had said why in plaintext, it is what an
	// *AlertError unwraps to, and so is ErrWrongPSK.
	ErrHandshakeTimeout = errors.New("dtlsserver: handshake timed out")
	// ErrWrongPSK: the handshake timed out after the peer's Finished did not
	// open. The peer has a different key, or its identity is unknown.
	ErrWrongPSK = errors.New("dtlsserver: handshake timed out: the peer's Finished does not open: wrong key or unknown identity")
	// ErrEvicted: the handshake gave way to another at MaxHandshakes,
	// MaxHandshakesPerSource or MaxHandshakeMemory, or the session to another
	// at MaxSessions, MaxSessionsPerSource or MaxSessionsPerIdentity. A new
	// session may itself be the one, right after KindHandshakeComplete.
	ErrEvicted = errors.New("dtlsserver: gave way to others at a limit")
	// ErrRecordsExhausted: no record sequence number is left (RFC 6347
	// section 4.1).
	ErrRecordsExhausted = errors.New("dtlsserver: record sequence numbers exhausted")
)

// closedError is an error that is a net.ErrClosed with words of its own.
type closedError string

func (e closedError) Error() string { return string(e) }
func (e closedError) Unwrap() error { return net.ErrClosed }

// AlertError is the alert that ended a handshake or a session (RFC 5246
// section 7.2). An error of Server.VerifyConnection that is one, or wraps one,
// chooses the alert by its Code.
type AlertError struct {
	// Code is the alert's description, for example 40 for handshake_failure.
	Code uint8
	// Sent is true when this server sent the alert, false when the peer did.
	Sent bool
	// Reason says in words what was wrong, where the server knows.
	Reason string

	err error
}

// Name returns the alert's name as IANA has registered it, for example
// "handshake_failure", or its number.
func (e *AlertError) Name() string { return engine.AlertDescription(e.Code).String() }

// Unwrap returns the error for which the alert was sent. Of an alert that came in
// plaintext, which anybody could have sent, it returns ErrHandshakeTimeout or
// ErrWrongPSK, since that is what ended the handshake. Else it returns nil.
func (e *AlertError) Unwrap() error { return e.err }

func (e *AlertError) Error() string {
	by := "peer sent"
	if e.Sent {
		by = "sent"
	}
	text := fmt.Sprintf("dtlsserver: %s alert %s", by, e.Name())
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	return text
}
