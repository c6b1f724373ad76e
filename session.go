package dtlsserver

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/engine"
	"github.com/dtlsserver/dtlsserver/internal/timers"
	"github.com/dtlsserver/dtlsserver/internal/udpio"
)

// Session is one peer: a handshake in progress, and then an open association
// until it is closed. Its methods are safe for concurrent use and may be called
// from handlers.
type Session struct {
	loop *loop
	// remote and local are where the peer is, and what it writes to, to answer from; the
	// address of local is zero when there is but one. Once the session is open, they may
	// change, with both mu and loop.mu held.
	remote netip.AddrPort
	local  netip.AddrPort

	timer timers.Timer[*Session] // the loop's own
	idle  timers.Timer[*Session] // the loop's own: when the peer was last heard, or before

	started time.Duration // since loop.base
	heard   atomic.Int64  // since loop.base, in ns: when the peer last said something of use

	links    // guarded by loop.mu
	standing // guarded by loop.mu, but for what says otherwise

	mu        sync.Mutex // guards all following
	eng       engine.Engine
	complete  bool       // the handshake is, or was before the end
	silenced  bool       // the client has begun anew: no flight is sent, unless it speaks
	spoke     bool       // a record of the client's has been opened since it is complete
	written   bool       // since deadlines.restAt was set
	cookie    cookieTime // of the handshake's hello; it does not change
	value     any
	nextValue any // value once the handshake is complete
	// clientCertificates are the client's, once they were found good; nil: none.
	clientCertificates *clientCertificates
	reason             error
	ctx                context.Context // nil until somebody asks
	cancel             context.CancelCauseFunc
	abort              context.CancelCauseFunc // of the hook that runs
	deadlines

	moving *moving // nil: the peer is where it was

	messagesReceived, messagesSent, recordsDropped uint64
}

// links are those to the other sessions of a remote address.
type links struct {
	newer, older *Session // with other local addresses, or beside one another at one path
	predecessor  *Session // the open session that this handshake may replace
	successor    *Session // the handshake that may replace this session
	rival        *Session // the other handshake of the same addresses
}

// standing is what a session or a handshake is among all others, which says what it
// takes and when it gives way.
type standing struct {
	hasCID      bool          // it is in loop.peers.byCID
	settled     bool          // the loop's own: the timers are set for an open session
	second      bool          // it is the newer of two, which hangs from its rival
	halfOpen    bool          // it is a handshake, in loop.handshakes
	answered    bool          // the client has said something in this handshake
	givesWay    bool          // for its memory, as soon as may be
	class       class         // also written with Session.mu held
	roundTrip   class         // the class by the client's round trip
	usageWarned bool          // guarded by Session.mu, here for its place in memory: KindKeyUsageLimit was reported
	keyEnds     bool          // guarded by Session.mu, likewise: deadlines.expires is the pre-shared key's
	refused     uint16        // the longest datagram that the socket would not take for its length; zero: none
	reserved    int32         // bytes of handshake memory
	question    *question     // that waits in a lane of the loop, or whose job runs
	source      *source       // of loop.sources, by where the session is
	pair        *pair         // of loop.open; nil while halfOpen
	inGroup     ring[Session] // in the handshakes of source, or in pair
	inHolders   ring[Session] // of loop.handshakes
	since       time.Duration // since loop.base: in the class
	inClass     ring[Session] // of loop.handshakes
}

// deadlines are since loop.base.
type deadlines struct {
	restAt  time.Duration // when to see whether to rest; zero: at rest, or not open
	expires time.Duration // when the session must end; zero: never
}

// RemoteAddr returns the peer's address. If the client supports connection IDs, it may
// change: see KindPeerMoved.
func (s *Session) RemoteAddr() netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.remote
}

// LocalAddr returns the address that the peer writes to. On a wildcard socket, on
// systems that do not report it, LocalAddr returns the wildcard address.
func (s *Session) LocalAddr() netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.localAddr()
}

// localAddr is LocalAddr for whoever holds one of the locks.
func (s *Session) localAddr() netip.AddrPort {
	if !s.local.Addr().IsValid() {
		return s.loop.conn.LocalAddr()
	}
	return s.local
}

// String returns the peer's address.
func (s *Session) String() string { return s.RemoteAddr().String() }

// Stats returns the session's statistics.
func (s *Session) Stats() SessionStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return SessionStats{
		Started:          s.loop.time(s.started),
		LastReceived:     s.lastHeard(),
		MessagesReceived: s.messagesReceived,
		MessagesSent:     s.messagesSent,
		RecordsDropped:   s.recordsDropped,
	}
}

// Value returns the value that SetValue set last. If there is none, it returns,
// once the handshake is complete, PSK.Value or the Value that VerifyConnection
// set.
func (s *Session) Value() any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.value
}

// SetValue attaches a value to the session.
func (s *Session) SetValue(v any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.value = v
}

// Context returns a context that is done when the session has ended. Its cause
// (see context.Cause) is the reason that KindSessionClosed reports.
func (s *Session) Context() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx == nil {
		s.ctx, s.cancel = context.WithCancelCause(context.Background())
		if s.eng.Closed() {
			s.cancel(s.reason)
		}
	}
	return s.ctx
}

// Write sends b to the peer, as one record in one datagram. b may be empty, and
// may be reused when Write returns. Write never waits for the peer, and on UDP
// sockets of Unix systems it does not wait for the socket. A message that does
// not fit the path MTU may be fragmented or lost by the network.
//
// While the server handles datagrams that arrived together, messages are sent
// together: after the last of these datagrams, or after a millisecond. If the
// system then refuses a message, Write has already returned nil, and only
// KindWriteDropped, KindWriteFailed and Stats report it.
//
// If the peer's newest record came from another address than RemoteAddr, b is sent to
// both, as MoveWhenProven says. That is one message.
//
// Before the handshake is complete, Write returns ErrHandshakeIncomplete. After
// the end of the session, it returns ErrSessionClosed or ErrServerClosed. Other
// errors leave the session open, and the message is lost: ErrMessageTooLong if b
// has more than 16384 bytes, or is longer than the client's limit (RFC 8449, RFC
// 6066) or than the socket accepts; ErrWriteDropped if the socket is full; or an
// error of the system.
func (s *Session) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writeLocked(b, (*Session).sendLocked)
}

// WriteCandidate is like Write, but sends b to addr only: if it comes back, the peer
// receives there, and ConfirmAddr may be called. If addr is not what CandidateAddr
// returns, WriteCandidate returns ErrNoCandidate. If more than three times what has come
// from addr would be sent there, it returns ErrWriteDropped.
func (s *Session) WriteCandidate(addr netip.AddrPort, b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.moving.hasCandidate() || s.moving.candidate.remote != unmapped(addr) {
		return 0, ErrNoCandidate
	}
	return s.writeLocked(b, (*Session).sendCandidateLocked)
}

func (s *Session) writeLocked(b []byte, send func(*Session, []byte) error) (int, error) {
	buf := writeBuffers.Get().(*[]byte)
	defer writeBuffers.Put(buf)
	datagram, err := s.eng.Seal((*buf)[:0], b)
	*buf = datagram[:0]
	if err != nil {
		s.pumpLocked(time.Now()) // Seal may have used up the sequence numbers
		if err == engine.ErrTooLong {
			return 0, ErrMessageTooLong
		}
		return 0, s.notOpenLocked(err)
	}
	s.written = true
	if s.restAt == 0 {
		s.wakeLocked(time.Now())
	}
	switch err := send(s, datagram); err {
	case nil:
	case udpio.ErrTooLong:
		return 0, ErrMessageTooLong
	case udpio.ErrFull:
		return 0, ErrWriteDropped
	default:
		return 0, fmt.Errorf("dtlsserver: write to %v: %w", s.remote, err)
	}
	s.messagesSent++
	s.loop.counters.messagesSent.Add(1)
	if s.eng.Sealed() > maxSealed && !s.usageWarned {
		s.usageWarned = true
		s.raise(Event{Kind: KindKeyUsageLimit})
	}
	return len(b), nil
}

// maxSealed is 2^24.5 (RFC 8446 section 5.5).
const maxSealed = 23726566

// writeBuffers holds *[]byte.
var writeBuffers = sync.Pool{New: func() any { return new([]byte) }}

// ExportKeyingMaterial returns length bytes of keying material for the
// application (RFC 5705). The peer derives the same bytes from the same label,
// context and length. A nil context means no context, which differs from an empty
// one. Before the handshake is complete, the error is ErrHandshakeIncomplete.
// Without ConnectionState.ExtendedMasterSecret it is ErrNoExtendedMasterSecret,
// since the keying material would not be bound to the handshake (RFC 7627 section
// 7.1).
func (s *Session) ExportKeyingMaterial(label string, context []byte, length int) ([]byte, error) {
	const maxContext = 1<<16 - 1
	if length < 0 || len(context) > maxContext {
		return nil, fmt.Errorf("dtlsserver: ExportKeyingMaterial: length %d with a context of %d bytes", length, len(context))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	material, err := s.eng.Export(label, context, length)
	switch {
	case err == nil:
		return material, nil
	case err == engine.ErrNoExport:
		return nil, ErrNoExtendedMasterSecret
	default:
		return nil, s.notOpenLocked(err)
	}
}

// notOpenLocked turns the engine's errors into ours.
func (s *Session) notOpenLocked(err error) error {
	switch {
	case err == engine.ErrNotEstablished:
		return ErrHandshakeIncomplete
	case s.reason == ErrServerClosed:
		return ErrServerClosed
	default:
		return ErrSessionClosed
	}
}

// Close closes the session and sends close_notify to the peer. KindSessionClosed
// follows, with ErrSessionClosed. If the handshake is in progress, it is given
// up. Closing a session again does nothing.
func (s *Session) Close() error {
	s.end(ErrSessionClosed, withCloseNotify)
	return nil
}

// farewell says whether a peer learns that its session is over.
type farewell bool

const (
	withCloseNotify farewell = true
	silently        farewell = false
)

// end closes the session for the reason.
func (s *Session) end(reason error, how farewell) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLocked(reason, how)
}

// giveWay ends a handshake that gives way to another, and sends an alert to the
// client, which would wait for long otherwise.
func (s *Session) giveWay() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reason == nil {
		s.reason = ErrEvicted
	}
	s.eng.GiveUp()
	s.pumpLocked(time.Now())
}

func (s *Session) endLocked(reason error, how farewell) {
	if s.reason == nil {
		s.reason = reason
	}
	if how == withCloseNotify {
		s.eng.Close()
	} else {
		s.eng.Abandon()
	}
	s.pumpLocked(time.Now())
}
