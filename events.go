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

// EventHandler is told what happens. Its methods run on the serving loop with
// no lock held: a method that blocks delays all peers of the socket, so slow
// work belongs in a goroutine. Every method of Session, and of Server all but
// Serve and Shutdown, may be called from a handler; what such a call causes is
// told after the handler has returned. KindListenFailed alone may be told by
// Listen itself, before it returns.
//
// No two calls about one session run at the same time. Calls about different
// sessions, and about none, may.
//
// Panics of a handler are not recovered.
type EventHandler interface {
	// Error tells of something that the operator should act upon: the socket,
	// the PSK hook or the source of randomness failed.
	Error(Event)
	// Warning tells that a peer or the network misbehaved.
	Warning(Event)
	// Info tells of the life of the server and of its peers.
	Info(Event)
	// DatagramReceived delivers application data. cipherText is the record as
	// received, header included, and plainText its content, perhaps empty.
	// Both are lent until the call returns.
	DatagramReceived(s *Session, cipherText, plainText []byte)
}

// EventKind says what an Event is about. More kinds may come.
type EventKind uint8

// The kinds of event, by the method of EventHandler that they are told to.
//
// Those that a peer can cause are folded by kind and source, an IPv4 address
// or an IPv6 /64: the first is told at once, then at most one a second, whose
// Count says for how many it stands. Where anybody could have sent what they
// tell of, as before an address is proven, all sources fold together.
// The fields of an event that stands for several are those of the latest, and
// by then events of other kinds that happened later may have been told.
// HandshakeComplete and SessionClosed are not folded: they come exactly once
// for each session.
const (
	// KindListening (Info): the server can be reached, at Local.
	KindListening EventKind = iota + 1
	// KindStopped (Info): the server no longer listens. It is the last event
	// of a Listen or Serve. Err is set when it did not end by Close.
	KindStopped
	// KindHelloVerifyRequestSent (Info, folded): a client that has not proven its
	// address was sent a cookie.
	KindHelloVerifyRequestSent
	// KindHelloVerified (Info, folded): a client returned its cookie and a
	// handshake starts.
	KindHelloVerified
	// KindPSKRequested (Info, folded): the key of Identity is being looked up.
	KindPSKRequested
	// KindHandshakeComplete (Info): the Session is open.
	KindHandshakeComplete
	// KindSessionClosed (Info): the Session is over, for the reason Err.
	KindSessionClosed

	// KindUnexpectedDatagram (Warning, folded): a datagram from an unknown peer was no
	// ClientHello.
	KindUnexpectedDatagram
	// KindHelloRefused (Warning, folded): the hello of a client that has not
	// proven its address was refused, for the reason Err: an *AlertError if the
	// client was told.
	KindHelloRefused
	// KindRecordDropped (Warning, folded): a record from a known address was
	// of no use: forged, replayed, malformed or out of place. It did no harm.
	KindRecordDropped
	// KindUnknownPSKIdentity (Warning, folded): PSK knows no such Identity.
	// The handshake goes on and will fail.
	KindUnknownPSKIdentity
	// KindHandshakeFailed (Warning, folded): a handshake ended unfinished,
	// for the reason Err. A client's alert is one, as *AlertError, only after five
	// more seconds of silence, or twice RetransmitTimeout if that is longer, since
	// anybody can send it in plaintext.
	KindHandshakeFailed
	// KindAlertReceived (Warning, folded): an open session's peer sent a warning
	// alert, which is in Err.
	KindAlertReceived
	// KindLimitReached (Warning, folded): a limit of the server was reached; Err
	// names it.
	KindLimitReached
	// KindWriteDropped (Warning, folded): the socket was full and a datagram
	// was dropped.
	KindWriteDropped
	// KindKeyUsageLimit (Warning): a session has sealed more than 2^24.5 records
	// with one key, the most that RFC 8446 section 5.5 advises for AES-GCM.
	KindKeyUsageLimit

	// KindListenFailed (Error): the address could not be bound; see Err.
	KindListenFailed
	// KindReadFailed (Error, folded): reading the socket failed.
	KindReadFailed
	// KindWriteFailed (Error, folded): the socket refused a datagram.
	KindWriteFailed
	// KindPSKFailed (Error, folded): PSK failed with Err for Identity.
	KindPSKFailed
	// KindCertificateFailed (Error, folded): GetCertificate or the key of a
	// certificate failed with Err.
	KindCertificateFailed
	// KindEntropyFailed (Error, folded): no random bytes could be read.
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
	KindEntropyFailed:          {"EntropyFailed", slog.LevelError, foldServer, "no random bytes"},
}

// String returns the kind's name, for example "HandshakeComplete".
func (k EventKind) String() string {
	if k < numKinds && kinds[k].name != "" {
		return kinds[k].name
	}
	return fmt.Sprintf("EventKind(%d)", uint8(k))
}

// EventKinds returns the kinds that there are, as they are declared.
func EventKinds() iter.Seq[EventKind] {
	return func(yield func(EventKind) bool) {
		for k := KindListening; k < numKinds; k++ {
			if !yield(k) {
				return
			}
		}
	}
}

// Level is slog.LevelError, slog.LevelWarn or slog.LevelInfo, as the method of
// EventHandler that the kind is told to.
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

// Event is one thing that happened. Fields without a meaning for its Kind are
// zero. It holds no secret.
type Event struct {
	Kind EventKind
	Time time.Time
	// Remote is the peer's address. For kinds that come before the address is
	// proven it may be forged.
	Remote netip.AddrPort
	// Local is the address that the peer wrote to, where it is known and
	// there is a session, and else the one that the server listens on.
	Local netip.AddrPort
	// Session is the peer's session. Until KindHandshakeComplete it is a
	// handshake in progress, which nothing can be written to.
	Session *Session
	// Count is for how many events this one stands, itself included.
	Count uint64
	// Identity is the client's PSK identity, any bytes.
	Identity string
	// Err is the reason or the failure.
	Err error

	variant uint16 // events of a kind that differ in it are not folded together
}

// String returns the event as a line for a person, for example
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

// NopHandler does nothing. Embed it to handle only some events.
type NopHandler struct{}

// Error does nothing.
func (NopHandler) Error(Event) {}

// Warning does nothing.
func (NopHandler) Warning(Event) {}

// Info does nothing.
func (NopHandler) Info(Event) {}

// DatagramReceived does nothing.
func (NopHandler) DatagramReceived(*Session, []byte, []byte) {}

// HandlerFuncs is an EventHandler made of functions. Nil ones do nothing.
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

// MultiHandler returns an EventHandler that tells everything to each of
// handlers in turn. Nil ones are left out.
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

// LogHandler returns an EventHandler that logs events to logger, at the level of
// their kind and the time when they happened, with their fields as attributes.
// What a peer has chosen is quoted where it is more than plain text. Datagrams
// are logged at slog.LevelDebug, with their lengths and not their contents.
//
// The attributes are kind, remote, local, identity, count and err where they
// apply; of a complete handshake suite, resumed, certificate and duration; of a
// closed session duration, received and sent (messages); of a datagram remote,
// record and length (bytes). Durations are slog's: nanoseconds in JSON.
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
