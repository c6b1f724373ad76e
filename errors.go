package dtlsserver

import (
	"errors"
	"fmt"
	"net"

	"github.com/dtlsserver/dtlsserver/internal/engine"
)

// Errors returned by Server and Session. ErrServerClosed and ErrSessionClosed unwrap
// to net.ErrClosed.
var (
	// ErrServerClosed is returned by Serve after Close or Shutdown, and by the
	// methods of Session afterwards.
	ErrServerClosed error = closedError("dtlsserver: server closed")
	// ErrSessionClosed is returned by the methods of Session after its end.
	ErrSessionClosed error = closedError("dtlsserver: session closed")
	// ErrHandshakeIncomplete is returned by the methods of Session before the
	// handshake is complete.
	ErrHandshakeIncomplete = errors.New("dtlsserver: handshake not complete")
	// ErrMessageTooLong is returned by Session.Write for a message that does not fit
	// in a record or a datagram.
	ErrMessageTooLong = errors.New("dtlsserver: message too long")
	// ErrNoCandidate is returned by Session.WriteCandidate for an address that
	// Session.CandidateAddr does not return.
	ErrNoCandidate = errors.New("dtlsserver: not the candidate address")
	// ErrWriteDropped is returned by Session.Write when the socket is full, and by
	// Session.WriteCandidate also when no more may be sent to the candidate. The
	// datagram is lost, as one may be in the network; the session stays open.
	ErrWriteDropped = errors.New("dtlsserver: socket full, datagram dropped")
	// ErrNoExtendedMasterSecret is returned by Session.ExportKeyingMaterial when the
	// client does not support extended master secret (RFC 7627).
	ErrNoExtendedMasterSecret = errors.New("dtlsserver: no extended master secret")
	// ErrAlreadyServing is returned by Serve when the server is already serving.
	ErrAlreadyServing = errors.New("dtlsserver: already serving")
	// ErrUnknownPSKIdentity is returned by a PSKFunc for an identity that it does
	// not know.
	ErrUnknownPSKIdentity = errors.New("dtlsserver: unknown PSK identity")
)

// Reasons why a session or a handshake ended, in Event.Err. Others are
// ErrSessionClosed, ErrServerClosed, an *AlertError, and the error of a random
// source or of a certificate's key.
var (
	// ErrPeerClosed means that the peer sent close_notify.
	ErrPeerClosed = errors.New("dtlsserver: closed by the peer")
	// ErrIdleTimeout means that nothing authentic came from the peer for
	// IdleTimeout.
	ErrIdleTimeout = errors.New("dtlsserver: idle for too long")
	// ErrSessionAge means that the session has reached MaxSessionAge.
	ErrSessionAge = errors.New("dtlsserver: older than MaxSessionAge")
	// ErrPSKExpired means that the pre-shared key has expired, according to
	// PSK.Expires.
	ErrPSKExpired = errors.New("dtlsserver: pre-shared key has expired")
	// ErrReconnected means, for a session, that the peer has completed a new
	// handshake from the same address (RFC 6347 section 4.2.8); for a handshake,
	// that the peer has begun another.
	ErrReconnected = errors.New("dtlsserver: replaced by a new handshake of the peer")
	// ErrHandshakeTimeout means that the handshake was not complete after
	// HandshakeTimeout. If the client sent a plaintext alert before, Event.Err is an
	// *AlertError that unwraps to ErrHandshakeTimeout or ErrWrongPSK.
	ErrHandshakeTimeout = errors.New("dtlsserver: handshake timed out")
	// ErrWrongPSK means that the handshake timed out and the peer's Finished could
	// not be decrypted: the peer has a different key, or its identity is unknown.
	ErrWrongPSK = errors.New("dtlsserver: handshake timed out: the peer's Finished does not open: wrong key or unknown identity")
	// ErrEvicted means that the handshake was given up for another at MaxHandshakes,
	// MaxHandshakesPerSource or MaxHandshakeMemory, or that the session was closed
	// for another at MaxSessions, MaxSessionsPerSource or MaxSessionsPerIdentity.
	// This may happen to a new session right after KindHandshakeComplete.
	ErrEvicted = errors.New("dtlsserver: gave way to others at a limit")
	// ErrRecordsExhausted means that no record sequence number is left (RFC 6347
	// section 4.1).
	ErrRecordsExhausted = errors.New("dtlsserver: record sequence numbers exhausted")
)

// closedError is an error that is a net.ErrClosed with words of its own.
type closedError string

func (e closedError) Error() string { return string(e) }
func (e closedError) Unwrap() error { return net.ErrClosed }

// AlertError is the alert that ended a handshake or a session (RFC 5246 section
// 7.2). If an error of Server.VerifyConnection is or wraps an *AlertError, its
// Code is the alert that the client is sent.
type AlertError struct {
	// Code is the alert's description, for example 40 for handshake_failure.
	Code uint8
	// Sent is true if this server sent the alert, and false if the peer did.
	Sent bool
	// Reason describes what was wrong. It is empty if the server does not know.
	Reason string

	err error
}

// Name returns the IANA name of the alert, for example "handshake_failure", or
// its number if the package does not know it.
func (e *AlertError) Name() string { return engine.AlertDescription(e.Code).String() }

// Unwrap returns the error for which the alert was sent. For a plaintext alert of
// the client, which anybody could have sent, it returns ErrHandshakeTimeout or
// ErrWrongPSK, since that is what ended the handshake. Otherwise it returns nil.
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
