package engine

import (
	"bytes"
	"crypto/subtle"
	"hash"
	"io"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/record"
	"github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// handshake is what only a handshake in progress needs.
type handshake struct {
	nextReceive uint16 // message_seq
	nextSend    uint16 // message_seq
	incoming    reassembler

	clientRandom, serverRandom [wire.RandomLen]byte
	extendedMasterSecret       bool
	transcript                 hash.Hash // from the verified hello on
	sessionHash                []byte    // RFC 7627 section 3
	identity                   []byte
	master                     []byte

	changeCipherSpec bool     // the client's has come
	early            [][]byte // records of epoch 1 that came before it or the keys
	unopened         bool     // a Finished came that did not open

	timeout  time.Duration // of the next retransmission
	resendAt time.Time
	giveUp   time.Time

	alerted      wire.Alert // in plaintext, since the handshake last got on
	alertedUntil time.Time  // zero: none
}

const (
	// What overtakes the client's flight is one Finished; a few more leave
	// room for what is forged.
	maxEarly    = 4
	maxEarlyLen = 256

	// pskLen is the length of the key that stands in for an unknown one.
	pskLen = 32
)

// hint takes a plaintext alert. Anybody can have sent it, so it only shortens
// the time that the handshake has for its next step.
func (hs *handshake) hint(now time.Time, a wire.Alert) {
	if hs.alertedUntil.IsZero() {
		hs.alerted, hs.alertedUntil = a, now.Add(alertedLife)
	}
}

// giveUpAt is when the handshake is over if nothing comes.
func (hs *handshake) giveUpAt() time.Time {
	if hs.alertedUntil.IsZero() {
		return hs.giveUp
	}
	return earlier(hs.alertedUntil, hs.giveUp)
}

// keepEarly keeps a record of epoch 1 that has overtaken the client's flight.
// Only a handshake record can be of use.
func (hs *handshake) keepEarly(r Record) Drop {
	if r.Type != wire.ContentHandshake {
		return DropEpoch
	}
	if len(hs.early) == maxEarly || len(r.Raw) > maxEarlyLen {
		return DropLimit
	}
	hs.early = append(hs.early, append([]byte(nil), r.Raw...))
	return DropNone
}

// receiveEarly takes the records that were kept, now that they may be opened.
func (e *Engine) receiveEarly(now time.Time) {
	if e.state != awaitFinished || !e.hs.changeCipherSpec {
		return
	}
	kept := e.hs.early
	e.hs.early = nil
	for _, raw := range kept {
		if e.state != awaitFinished {
			return
		}
		r, _, _ := wire.ParseRecord(raw)
		if drop := e.receiveSealed(now, r, nil); drop != DropNone {
			e.raise(Event{Kind: EventDropped, Drop: drop})
		}
	}
}

// receiveFragments takes the content of a handshake record, whose epoch
// decides what may be in it: Finished in epoch 1, the others in epoch 0.
func (e *Engine) receiveFragments(now time.Time, content []byte, epoch uint16) Drop {
	if len(content) == 0 {
		return DropMalformed
	}
	result := DropNone
	for len(content) > 0 && e.hs != nil {
		f, rest, ok := wire.ParseFragment(content)
		if !ok {
			return DropMalformed
		}
		content = rest
		if drop := e.receiveFragment(now, f, epoch); drop != DropNone {
			result = drop
		}
	}
	return result
}

func (e *Engine) receiveFragment(now time.Time, f wire.Fragment, epoch uint16) Drop {
	hs := e.hs
	switch {
	case f.MessageSeq < hs.nextReceive:
		return DropRepeated
	case !e.expects(f, epoch):
		return DropUnexpected
	}
	body, drop := hs.incoming.add(f, e.maxLen(f.Type))
	if body == nil {
		return drop
	}
	hs.nextReceive++
	e.receiveMessage(now, f.Type, f.MessageSeq, body)
	return DropNone
}

// expects reports whether a fragment is of the message that the handshake
// needs next, in the epoch that it belongs to. Whatever else comes in plaintext
// may be anybody's, and is dropped rather than answered with an alert.
func (e *Engine) expects(f wire.Fragment, epoch uint16) bool {
	if f.MessageSeq != e.hs.nextReceive {
		return false
	}
	switch e.state {
	case awaitClientHello:
		return epoch == 0 && f.Type == wire.TypeClientHello
	case awaitClientKeyExchange:
		return epoch == 0 && f.Type == wire.TypeClientKeyExchange
	case awaitFinished:
		return epoch == 1 && f.Type == wire.TypeFinished
	default:
		return false
	}
}

// maxLen bounds a message before memory is set aside for it.
func (e *Engine) maxLen(t wire.HandshakeType) int {
	switch t {
	case wire.TypeClientHello:
		return maxClientHello
	case wire.TypeClientKeyExchange:
		return max(maxClientKeyExchange, 2+e.cfg.MaxPSKIdentity)
	default:
		return wire.VerifyDataLen
	}
}

// receiveMessage takes a whole message at its place in the handshake.
func (e *Engine) receiveMessage(now time.Time, t wire.HandshakeType, seq uint16, body []byte) {
	switch t {
	case wire.TypeClientHello:
		e.receiveClientHello(now, seq, body)
	case wire.TypeClientKeyExchange:
		e.receiveClientKeyExchange(now, seq, body)
	case wire.TypeFinished:
		e.receiveFinished(now, seq, body)
	}
}

// receiveClientHello takes the verified hello and answers with flight 4.
func (e *Engine) receiveClientHello(now time.Time, seq uint16, body []byte) {
	hello, ok := wire.ParseClientHello(body)
	if !ok {
		e.fail(wire.AlertDecodeError, "malformed ClientHello")
		return
	}
	extensions, ok := wire.ParseClientExtensions(hello.Extensions)
	if !ok {
		e.fail(wire.AlertDecodeError, "malformed extensions in ClientHello")
		return
	}
	if hello.Version > wire.VersionDTLS12 { // the higher, the older
		e.fail(wire.AlertProtocolVersion, "ClientHello offers no DTLS 1.2")
		return
	}
	if !bytes.Contains(hello.CompressionMethods, []byte{0}) { // RFC 5246 section 7.4.1.2
		e.fail(wire.AlertIllegalParameter, "ClientHello lacks the null compression method")
		return
	}
	if len(extensions.RenegotiatedInfo) != 0 { // RFC 5746 section 3.6
		e.fail(wire.AlertHandshakeFailure, "ClientHello renegotiates nothing")
		return
	}
	if e.suite = e.chooseSuite(&hello); e.suite == nil {
		e.fail(wire.AlertHandshakeFailure, "no cipher suite in common")
		return
	}

	hs := e.hs
	if _, err := io.ReadFull(e.cfg.Rand, hs.serverRandom[:]); err != nil {
		e.sendAlert(wire.LevelFatal, wire.AlertInternalError)
		e.close(Event{Cause: CauseEntropy, Err: err})
		return
	}
	hs.clientRandom = [wire.RandomLen]byte(hello.Random)
	hs.extendedMasterSecret = extensions.ExtendedMasterSecret
	hs.transcript = e.suite.Hash()
	hs.record(wire.TypeClientHello, seq, body)

	answer := wire.ServerHello{
		Version:              wire.VersionDTLS12,
		Random:               hs.serverRandom[:],
		CipherSuite:          e.suite.ID,
		ExtendedMasterSecret: extensions.ExtendedMasterSecret,
		// RFC 5746 section 3.6
		RenegotiationInfo: extensions.RenegotiationInfo || hello.OffersSuite(wire.SuiteEmptyRenegotiationInfo),
	}
	e.say(wire.TypeServerHello, answer.Append(nil))
	if len(e.cfg.PSKIdentityHint) > 0 { // RFC 4279 section 2
		e.say(wire.TypeServerKeyExchange, wire.AppendServerKeyExchangePSK(nil, e.cfg.PSKIdentityHint))
	}
	e.say(wire.TypeServerHelloDone, nil)
	e.state = awaitClientKeyExchange
	e.resendFrom = now.Add(e.resendGap)
	hs.resendAt = now.Add(hs.timeout)
}

// chooseSuite returns the first of the server's suites that the client offers.
func (e *Engine) chooseSuite(hello *wire.ClientHello) *suite.Suite {
	for _, s := range e.cfg.Suites {
		if hello.OffersSuite(s.ID) {
			return s
		}
	}
	return nil
}

// receiveClientKeyExchange learns who the client says it is and asks for the
// key.
func (e *Engine) receiveClientKeyExchange(now time.Time, seq uint16, body []byte) {
	identity, ok := wire.ParseClientKeyExchangePSK(body)
	if !ok {
		e.fail(wire.AlertDecodeError, "malformed ClientKeyExchange")
		return
	}
	hs := e.hs
	hs.record(wire.TypeClientKeyExchange, seq, body)
	hs.sessionHash = hs.transcript.Sum(nil)
	hs.identity = append([]byte(nil), identity...)
	hs.alerted, hs.alertedUntil = wire.Alert{}, time.Time{}
	hs.resendAt = now.Add(hs.timeout)
	e.state = awaitPSK
	e.raise(Event{Kind: EventPSKNeeded, Identity: hs.identity})
	if len(identity) > e.cfg.MaxPSKIdentity {
		e.AnswerPSK(now, nil)
	}
}

// AnswerPSK answers EventPSKNeeded. An empty key says that the identity is
// unknown: the handshake goes on with a key that nobody has, so that it fails
// exactly as with a wrong one (RFC 4279 section 2). It does nothing unless the
// engine waits for it. The key is not kept.
func (e *Engine) AnswerPSK(now time.Time, key []byte) {
	if e.state != awaitPSK {
		return
	}
	hs := e.hs
	if len(key) == 0 {
		key = make([]byte, pskLen)
		if _, err := io.ReadFull(e.cfg.Rand, key); err != nil {
			e.sendAlert(wire.LevelFatal, wire.AlertInternalError)
			e.close(Event{Cause: CauseEntropy, Err: err})
			return
		}
	}
	premaster := suite.PSKPremaster(key)
	if hs.extendedMasterSecret {
		hs.master = e.suite.ExtendedMasterSecret(premaster, hs.sessionHash)
	} else {
		hs.master = e.suite.MasterSecret(premaster, hs.clientRandom[:], hs.serverRandom[:])
	}
	clear(premaster)
	if err := e.installKeys(); err != nil {
		e.fail(wire.AlertInternalError, err.Error())
		return
	}
	e.state = awaitFinished
	hs.alerted, hs.alertedUntil = wire.Alert{}, time.Time{}
	// The schedule goes on as if the answer had been there at once, lest it
	// show how long the look-up took.
	for !hs.resendAt.After(now) {
		hs.resendAt = hs.resendAt.Add(hs.timeout)
	}
	e.receiveEarly(now)
}

// installKeys makes the record protection of epoch 1.
func (e *Engine) installKeys() error {
	hs := e.hs
	keys := e.suite.Keys(hs.master, hs.clientRandom[:], hs.serverRandom[:])
	opener, err := record.NewOpener(e.suite, keys.ClientKey, keys.ClientIV)
	if err != nil {
		return err
	}
	sealer, err := record.NewSealer(e.suite, 1, keys.ServerKey, keys.ServerIV)
	if err != nil {
		return err
	}
	e.opener, e.sealer = opener, sealer
	return nil
}

// receiveFinished completes the handshake when the client has seen the same
// one (RFC 5246 section 7.4.9), and answers with flight 6.
func (e *Engine) receiveFinished(now time.Time, seq uint16, body []byte) {
	hs := e.hs
	want := e.suite.ClientVerifyData(hs.master, hs.transcript.Sum(nil))
	if subtle.ConstantTimeCompare(body, want) != 1 {
		e.fail(wire.AlertDecryptError, "wrong verify_data in Finished")
		return
	}
	hs.record(wire.TypeFinished, seq, body)
	verifyData := e.suite.ServerVerifyData(hs.master, hs.transcript.Sum(nil))
	e.flight = flight{messages: []message{
		{changeCipherSpec: true},
		{typ: wire.TypeFinished, seq: hs.nextSend, epoch: 1, body: verifyData},
	}}
	e.flightUntil = now.Add(lastFlightLife)
	e.resendFrom = now.Add(e.resendGap)
	e.finishedSeq = seq
	if e.cfg.KeyLog != nil {
		e.cfg.KeyLog(hs.clientRandom[:], hs.master)
	}
	e.raise(Event{
		Kind:                 EventEstablished,
		Identity:             hs.identity,
		ExtendedMasterSecret: hs.extendedMasterSecret,
	})
	clear(hs.master)
	e.state = established
	e.hs = nil
}

// say adds a message to the flight and to the transcript.
func (e *Engine) say(t wire.HandshakeType, body []byte) {
	hs := e.hs
	hs.record(t, hs.nextSend, body)
	e.flight.messages = append(e.flight.messages, message{typ: t, seq: hs.nextSend, body: body})
	hs.nextSend++
}

// record adds a message to the transcript, with the header that it would have
// had unfragmented (RFC 6347 section 4.2.6).
func (hs *handshake) record(t wire.HandshakeType, seq uint16, body []byte) {
	header := make([]byte, 0, wire.HandshakeHeaderLen)
	hs.transcript.Write(wire.AppendHandshakeHeader(header, t, len(body), seq, 0, len(body)))
	hs.transcript.Write(body)
}
