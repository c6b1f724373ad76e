package dtlsserver

import (
	"context"
	"crypto/x509"
	"fmt"
	"iter"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// EventHandler receives the events of a Server and the application data of its
// peers. Its methods run on the serving loop with no lock held: a method that
// blocks delays all peers of the socket, so slow work belongs in a goroutine. A
// handler may call every method of Session, and every method of Server except
// Serve and Shutdown. Events that such a call causes are delivered after the
// handler has returned. Only KindListenFailed may be delivered by Listen itself,
// before Listen returns.
//
// Calls about one session never run at the same time. Calls about different
// sessions, or about none, may.
//
// A panic of a handler is not recovered.
type EventHandler interface {
	// Error receives events that need the operator's attention: the socket, a hook,
	// a certificate's key or the source of randomness has failed.
	Error(Event)
	// Warning receives events about peers or networks that misbehave, and about
	// limits that are reached.
	Warning(Event)
	// Info receives events in the normal life of the server and its peers.
	Info(Event)
	// DatagramReceived receives application data. cipherText is the record as it was
	// received, including its header, and plainText is its content, which may be
	// empty. Both slices are valid only until DatagramReceived returns.
	DatagramReceived(s *Session, cipherText, plainText []byte)
}

// EventKind is the kind of an Event. More kinds may be added.
type EventKind uint8

// The kinds of event, with the method of EventHandler that receives them.
//
// Events that peers can cause are folded by kind and source, an IPv4 address or
// an IPv6 /64: the first is delivered at once, and then at most one a second,
// whose Count is the number of events that it stands for. Events that anybody can
// cause, because no address is proven, are folded for all sources together. The
// fields of a folded event are those of the latest event that it stands for. A
// folded event may be delivered after later events of other kinds.
// KindHandshakeComplete and KindSessionClosed are not folded: each is delivered
// exactly once for a session. KindPeerMoved is delivered once for each move.
const (
	// KindListening (Info) reports that clients can reach the server at Local.
	KindListening EventKind = iota + 1
	// KindStopped (Info) reports that the server no longer listens. It is the last
	// event of a Listen or Serve. Err is nil if Close or Shutdown ended it, and
	// otherwise the reason.
	KindStopped
	// KindHelloVerifyRequestSent (Info, folded) reports that a client whose address
	// is not proven was sent a cookie.
	KindHelloVerifyRequestSent
	// KindHelloVerified (Info, folded) reports that a client returned its cookie and
	// a handshake begins.
	KindHelloVerified
	// KindPSKRequested (Info, folded) reports that the key of Identity is being looked
	// up.
	KindPSKRequested
	// KindHandshakeComplete (Info) reports that the Session is open.
	KindHandshakeComplete
	// KindSessionClosed (Info) reports that the Session has ended. Err is the
	// reason.
	KindSessionClosed
	// KindPeerMoved (Info) reports that the address of the peer of the open Session
	// has changed from PreviousRemote to Remote. See ConnectionIDs.
	KindPeerMoved

	// KindUnexpectedDatagram (Warning, folded) reports a datagram from an unknown
	// peer that is not a ClientHello. If it has the connection ID of a session that
	// has ended, Err says so.
	KindUnexpectedDatagram
	// KindHelloRefused (Warning, folded) reports that the hello of a client whose
	// address is not proven was refused. Err is the reason: an *AlertError if the
	// client was sent an alert.
	KindHelloRefused
	// KindRecordDropped (Warning, folded) reports that a record from a known address,
	// or with a known connection ID, was dropped because it was forged, replayed, malformed or out of place. It had
	// no effect.
	KindRecordDropped
	// KindUnknownPSKIdentity (Warning, folded) reports that PSK does not know
	// Identity. The handshake continues and will fail.
	KindUnknownPSKIdentity
	// KindHandshakeFailed (Warning, folded) reports that a handshake ended before it
	// was complete. Err is the reason. A plaintext alert of the client may be
	// forged, so it ends the handshake, with an *AlertError, only after another 5 s
	// of silence, or twice RetransmitTimeout if that is longer.
	KindHandshakeFailed
	// KindAlertReceived (Warning, folded) reports that the peer of an open session
	// sent a warning alert, which is in Err.
	KindAlertReceived
	// KindLimitReached (Warning, folded) reports that a limit of the server was
	// reached. Err names the limit.
	KindLimitReached
	// KindWriteDropped (Warning, folded) reports that a datagram was dropped because
	// the socket was full.
	KindWriteDropped
	// KindKeyUsageLimit (Warning) reports that a session has sealed more than 2^24.5
	// records with one key, the maximum that RFC 8446 section 5.5 advises for
	// AES-GCM.
	KindKeyUsageLimit

	// KindListenFailed (Error) reports that the address could not be bound. Err is
	// the reason.
	KindListenFailed
	// KindReadFailed (Error, folded) reports that reading from the socket failed.
	KindReadFailed
	// KindWriteFailed (Error, folded) reports that the socket refused a datagram.
	KindWriteFailed
	// KindPSKFailed (Error, folded) reports that PSK returned Err for Identity.
	KindPSKFailed
	// KindCertificateFailed (Error, folded) reports that GetCertificate, or the
	// private key of a certificate, failed with Err.
	KindCertificateFailed
	// KindConnectionIDFailed (Error, folded) reports that ConnectionIDs.Generate
	// returned nothing of use. The client gets no connection ID.
	KindConnectionIDFailed
	// KindEntropyFailed (Error, folded) reports that no random bytes could be read.
	KindEntropyFailed
	numKinds
)

// kinds holds what is fixed for each kind.
var kinds = [numKinds]struct {
	name  string
	level slog.Level
	fold  foldBy
	text  string // of Event.String
}{
	KindListening:              {"Listening", slog.LevelInfo, foldNot, "listening"},
	KindStopped:                {"Stopped", slog.LevelInfo, foldNot, "stopped listening"},
	KindHelloVerifyRequestSent: {"HelloVerifyRequestSent", slog.LevelInfo, foldServer, "not verified yet, sent a cookie"},
	KindHelloVerified:          {"HelloVerified", slog.LevelInfo, foldSource, "verified, starting a handshake"},
	KindPSKRequested:           {"PSKRequested", slog.LevelInfo, foldSource, "asking for the pre-shared key"},
	KindHandshakeComplete:      {"HandshakeComplete", slog.LevelInfo, foldNot, "handshake complete"},
	KindSessionClosed:          {"SessionClosed", slog.LevelInfo, foldNot, "session closed"},
	KindPeerMoved:              {"PeerMoved", slog.LevelInfo, foldNot, "moved here"},
	KindUnexpectedDatagram:     {"UnexpectedDatagram", slog.LevelWarn, foldServer, "datagram is no ClientHello, dropped"},
	KindHelloRefused:           {"HelloRefused", slog.LevelWarn, foldServer, "hello refused"},
	KindRecordDropped:          {"RecordDropped", slog.LevelWarn, foldServer, "record dropped"},
	KindUnknownPSKIdentity:     {"UnknownPSKIdentity", slog.LevelWarn, foldSource, "unknown PSK identity"},
	KindHandshakeFailed:        {"HandshakeFailed", slog.LevelWarn, foldSource, "handshake failed"},
	KindAlertReceived:          {"AlertReceived", slog.LevelWarn, foldSource, "alert received"},
	KindLimitReached:           {"LimitReached", slog.LevelWarn, foldServer, "limit reached"},
	KindWriteDropped:           {"WriteDropped", slog.LevelWarn, foldSource, "socket full, datagram dropped"},
	KindKeyUsageLimit:          {"KeyUsageLimit", slog.LevelWarn, foldNot, "key has sealed more records than is advised"},
	KindListenFailed:           {"ListenFailed", slog.LevelError, foldNot, "cannot listen"},
	KindReadFailed:             {"ReadFailed", slog.LevelError, foldServer, "reading the socket failed"},
	KindWriteFailed:            {"WriteFailed", slog.LevelError, foldSource, "sending failed"},
	KindPSKFailed:              {"PSKFailed", slog.LevelError, foldSource, "looking up the pre-shared key failed"},
	KindCertificateFailed:      {"CertificateFailed", slog.LevelError, foldSource, "no certificate to authenticate with"},
	KindConnectionIDFailed:     {"ConnectionIDFailed", slog.LevelError, foldServer, "no connection ID"},
	KindEntropyFailed:          {"EntropyFailed", slog.LevelError, foldServer, "no random bytes"},
}

// String returns the name of the kind, for example "HandshakeComplete".
func (k EventKind) String() string {
	if k < numKinds && kinds[k].name != "" {
		return kinds[k].name
	}
	return fmt.Sprintf("EventKind(%d)", uint8(k))
}

// EventKinds returns all kinds, in the order of their declaration.
func EventKinds() iter.Seq[EventKind] {
	return func(yield func(EventKind) bool) {
		for k := KindListening; k < numKinds; k++ {
			if !yield(k) {
				return
			}
		}
	}
}

// Level returns slog.LevelError, slog.LevelWarn or slog.LevelInfo, for the method
// of EventHandler that receives events of the kind.
func (k EventKind) Level() slog.Level {
	if k < numKinds {
		return kinds[k].level
	}
	return slog.LevelInfo
}

// text returns what the kind means, for people.
func (k EventKind) text() string {
	if k < numKinds && kinds[k].text != "" {
		return kinds[k].text
	}
	return k.String()
}

// Event is something that happened. Fields that do not apply to its Kind are
// zero. An Event contains no secrets.
type Event struct {
	Kind EventKind
	Time time.Time
	// Remote is the peer's address. Events that precede the proof of the address may
	// contain a forged one.
	Remote netip.AddrPort
	// PreviousRemote is the peer's address before it moved.
	PreviousRemote netip.AddrPort
	// Local is the address that the peer wrote to, if it is known and there is a
	// session, and otherwise the address that the server listens on.
	Local netip.AddrPort
	// Session is the peer's session. Before KindHandshakeComplete it is a handshake
	// in progress, which cannot be written to.
	Session *Session
	// Count is the number of events that this one stands for, including itself.
	Count uint64
	// Identity is the client's PSK identity, which may be any bytes.
	Identity string
	// Err is the reason or the failure.
	Err error

	variant uint16 // events of a kind that differ in it are not folded together
}

// String returns the event as one line of text, for example
//
//	127.0.0.1:51234: verified, starting a handshake
func (e Event) String() string {
	var b strings.Builder
	if e.Remote.IsValid() {
		fmt.Fprintf(&b, "%v: ", e.Remote)
	}
	b.WriteString(e.Kind.text())
	switch e.Kind {
	case KindListening, KindStopped, KindListenFailed:
		if e.Local.IsValid() {
			fmt.Fprintf(&b, " on %v", e.Local)
		}
	case KindPeerMoved:
		fmt.Fprintf(&b, " from %v", e.PreviousRemote)
	case KindHandshakeComplete:
		if e.Session != nil {
			state := e.Session.ConnectionState()
			fmt.Fprintf(&b, ", encrypted with %s, %s", versionName(state.Version), CipherSuiteName(state.CipherSuite))
			if len(state.PeerCertificates) > 0 {
				fmt.Fprintf(&b, ", certificate %q", subjectText(state.PeerCertificates[0]))
			}
		}
	}
	if e.Identity != "" || e.Kind == KindPSKRequested || e.Kind == KindUnknownPSKIdentity {
		fmt.Fprintf(&b, ", identity %q", e.Identity)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %s", clip(strings.TrimPrefix(e.Err.Error(), "dtlsserver: ")))
	}
	if e.Count > 1 {
		fmt.Fprintf(&b, " (%d times)", e.Count)
	}
	return b.String()
}

// maxText is how many bytes are shown of a text in which a peer has a hand, so
// that lines of a log stay short, also when each byte is quoted.
const maxText = 400

// clip returns s, cut off if it is longer than maxText.
func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + " ..."
}

// subjectText returns the subject of a certificate, or, where that would be long
// to make and to read, its common name.
func subjectText(c *x509.Certificate) string {
	if len(c.RawSubject) <= maxText {
		return c.Subject.String()
	}
	return clip("CN=" + c.Subject.CommonName)
}

// NopHandler is an EventHandler that does nothing. Embed it in a handler to
// implement only some of the methods.
type NopHandler struct{}

// Error does nothing.
func (NopHandler) Error(Event) {}

// Warning does nothing.
func (NopHandler) Warning(Event) {}

// Info does nothing.
func (NopHandler) Info(Event) {}

// DatagramReceived does nothing.
func (NopHandler) DatagramReceived(*Session, []byte, []byte) {}

// HandlerFuncs is an EventHandler that consists of functions. A nil function does
// nothing.
type HandlerFuncs struct {
	OnError, OnWarning, OnInfo func(Event)
	OnDatagramReceived         func(s *Session, cipherText, plainText []byte)
}

// Error calls OnError.
func (h HandlerFuncs) Error(e Event) { call(h.OnError, e) }

// Warning calls OnWarning.
func (h HandlerFuncs) Warning(e Event) { call(h.OnWarning, e) }

// Info calls OnInfo.
func (h HandlerFuncs) Info(e Event) { call(h.OnInfo, e) }

// DatagramReceived calls OnDatagramReceived.
func (h HandlerFuncs) DatagramReceived(s *Session, cipherText, plainText []byte) {
	if h.OnDatagramReceived != nil {
		h.OnDatagramReceived(s, cipherText, plainText)
	}
}

func call(f func(Event), e Event) {
	if f != nil {
		f(e)
	}
}

// MultiHandler returns an EventHandler that calls each of handlers in turn. Nil
// handlers are skipped.
func MultiHandler(handlers ...EventHandler) EventHandler {
	m := make(multiHandler, 0, len(handlers))
	for _, h := range handlers {
		if h != nil {
			m = append(m, h)
		}
	}
	return m
}

type multiHandler []EventHandler

func (m multiHandler) Error(e Event) {
	for _, h := range m {
		h.Error(e)
	}
}

func (m multiHandler) Warning(e Event) {
	for _, h := range m {
		h.Warning(e)
	}
}

func (m multiHandler) Info(e Event) {
	for _, h := range m {
		h.Info(e)
	}
}

func (m multiHandler) DatagramReceived(s *Session, cipherText, plainText []byte) {
	for _, h := range m {
		h.DatagramReceived(s, cipherText, plainText)
	}
}

// LogHandler returns an EventHandler that logs events to logger, with the level
// of their kind, the time when they happened, and their fields as attributes.
// Values that a peer chose are quoted unless they are plain text. Datagrams are
// logged at slog.LevelDebug, with their lengths but not their contents.
//
// The attributes are kind, remote, previous, local, identity, count and err, where they
// apply. A complete handshake also has suite, resumed, certificate and duration.
// A closed session also has duration, and received and sent, in messages. A
// datagram has remote, record and length, in bytes. Durations are logged as slog
// logs them, in JSON as nanoseconds.
func LogHandler(logger *slog.Logger) EventHandler { return logHandler{logger} }

type logHandler struct{ logger *slog.Logger }

func (h logHandler) Error(e Event)   { h.log(e) }
func (h logHandler) Warning(e Event) { h.log(e) }
func (h logHandler) Info(e Event)    { h.log(e) }

func (h logHandler) log(e Event) {
	ctx := context.Background()
	level := e.Kind.Level()
	if !h.logger.Enabled(ctx, level) {
		return
	}
	r := slog.NewRecord(e.Time, level, e.Kind.text(), 0)
	r.AddAttrs(slog.String("kind", e.Kind.String()))
	if e.Remote.IsValid() {
		r.AddAttrs(slog.String("remote", e.Remote.String()))
	}
	if e.PreviousRemote.IsValid() {
		r.AddAttrs(slog.String("previous", e.PreviousRemote.String()))
	}
	if e.Local.IsValid() {
		r.AddAttrs(slog.String("local", e.Local.String()))
	}
	if e.Identity != "" {
		r.AddAttrs(slog.String("identity", plain(e.Identity)))
	}
	switch {
	case e.Session == nil:
	case e.Kind == KindHandshakeComplete:
		state := e.Session.ConnectionState()
		r.AddAttrs(slog.String("suite", CipherSuiteName(state.CipherSuite)), slog.Bool("resumed", state.DidResume))
		if len(state.PeerCertificates) > 0 {
			r.AddAttrs(slog.String("certificate", plain(subjectText(state.PeerCertificates[0]))))
		}
		r.AddAttrs(slog.Duration("duration", e.Time.Sub(e.Session.Stats().Started)))
	case e.Kind == KindSessionClosed:
		stats := e.Session.Stats()
		r.AddAttrs(slog.Duration("duration", e.Time.Sub(stats.Started)),
			slog.Uint64("received", stats.MessagesReceived), slog.Uint64("sent", stats.MessagesSent))
	}
	if e.Count > 1 {
		r.AddAttrs(slog.Uint64("count", e.Count))
	}
	if e.Err != nil {
		err := slog.Any("err", e.Err)
		if text := e.Err.Error(); len(text) > maxText {
			err = slog.String("err", clip(text))
		}
		r.AddAttrs(err)
	}
	_ = h.logger.Handler().Handle(ctx, r) // as Logger.Log does
}

// plain returns s as it is, or quoted if it could be mistaken for something
// else in a line of a log: it is a peer's, and may be any bytes.
func plain(s string) string {
	if q := strconv.Quote(s); q[1:len(q)-1] != s || strings.ContainsAny(s, " =") {
		return q
	}
	return s
}

func (h logHandler) DatagramReceived(s *Session, cipherText, plainText []byte) {
	ctx := context.Background()
	if h.logger.Enabled(ctx, slog.LevelDebug) {
		h.logger.LogAttrs(ctx, slog.LevelDebug, "datagram received",
			slog.String("remote", s.RemoteAddr().String()),
			slog.Int("record", len(cipherText)), slog.Int("length", len(plainText)))
	}
}
