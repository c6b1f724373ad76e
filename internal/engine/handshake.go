package engine

import (
	"bytes"
	"crypto/ecdh"
	"hash"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/record"
	"github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// handshake is what only a handshake in progress needs.
type handshake struct {
	nextReceive uint16 // message_seq
	nextSend    uint16 // message_seq
	incoming    [window]reassembler

	offer                      *offer // what the hello says, until it is answered
	hello                      []byte // its body, and its message_seq
	helloSeq                   uint16
	clientRandom, serverRandom [wire.RandomLen]byte
	parameters                 *Parameters
	transcript                 hash.Hash                     // from the verified hello on
	header                     [wire.HandshakeHeaderLen]byte // scratch
	messages                   []byte                        // the same, for CertificateVerify; nil when none is asked for
	sessionHash                []byte                        // RFC 7627 section 3
	ticket                     bool                          // one is promised
	resumed                    *wire.Session                 // nil: a full handshake
	keyDigest                  []byte                        // of the pre-shared key, for the ticket
	ecdh                       *ecdh.PrivateKey
	shared                     []byte // ECDHE_PSK: the secret of ECDH, until the key is there
	master                     []byte
	secret                     *suite.Secret // master

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
	// window is how many messages from the next on are kept when they come
	// too early. The client's flight has no more in epoch 0.
	window = 3

	// What overtakes the client's flight is one Finished; a few more leave
	// room for what is forged.
	maxEarly    = 4
	maxEarlyLen = 256
)

// release gives back what is kept of messages.
func (hs *handshake) release() {
	for i := range hs.incoming {
		hs.incoming[i].reset()
	}
}

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
	ahead := int(f.MessageSeq) - int(hs.nextReceive)
	switch {
	case ahead < 0:
		return DropRepeated
	case !e.expects(f.Type, ahead, epoch):
		return DropUnexpected
	}
	body, drop := hs.incoming[ahead].add(f, e.maxLen(f.Type))
	switch {
	case body == nil:
		return drop
	case ahead > 0 || e.asking():
		return hs.incoming[ahead].keep(f.Type, body)
	}
	e.receiveNext(now, f.Type, body)
	e.receiveKept(now)
	return DropNone
}

// receiveNext takes the next message of the client's.
func (e *Engine) receiveNext(now time.Time, t wire.HandshakeType, body []byte) {
	hs := e.hs
	hs.incoming[0].reset() // the message itself lives on
	copy(hs.incoming[:], hs.incoming[1:])
	hs.incoming[window-1] = reassembler{reserve: e.cfg.Reserve}
	hs.nextReceive++
	e.receiveMessage(now, t, hs.nextReceive-1, body)
}

// receiveKept takes the messages that were kept and whose turn it is.
func (e *Engine) receiveKept(now time.Time) {
	for e.hs != nil && !e.asking() {
		t, body := e.hs.incoming[0].kept()
		if body == nil || !e.expects(t, 0, 0) {
			return
		}
		e.receiveNext(now, t, body)
	}
}

// expects reports whether a message that is so far ahead of the next one is
// one that the handshake still needs, in the epoch that it belongs to. Whatever
// else comes in plaintext may be anybody's, and is dropped rather than answered
// with an alert.
func (e *Engine) expects(t wire.HandshakeType, ahead int, epoch uint16) bool {
	if epoch == 1 {
		return e.state == awaitFinished && t == wire.TypeFinished && ahead == 0
	}
	switch e.state {
	case awaitClientHello:
		return t == wire.TypeClientHello && ahead == 0
	case awaitCertificate:
		return t == wire.TypeCertificate && ahead == 0 ||
			t == wire.TypeClientKeyExchange && ahead == 1 ||
			t == wire.TypeCertificateVerify && ahead == 2
	case awaitClientKeyExchange:
		return t == wire.TypeClientKeyExchange && ahead == 0 ||
			t == wire.TypeCertificateVerify && ahead == 1 && e.certified()
	case awaitCertificateVerify:
		return t == wire.TypeCertificateVerify && ahead == 0
	case awaitSecret:
		return t == wire.TypeCertificateVerify && ahead == 0 && e.certified()
	default:
		return false
	}
}

// certified reports whether the client has sent a certificate.
func (e *Engine) certified() bool { return len(e.hs.parameters.PeerCertificates) > 0 }

// maxLen bounds a message before memory is set aside for it.
func (e *Engine) maxLen(t wire.HandshakeType) int {
	switch t {
	case wire.TypeClientHello:
		return maxClientHello
	case wire.TypeClientKeyExchange:
		return max(maxClientKeyExchange, 2+e.cfg.MaxPSKIdentity+1+255)
	case wire.TypeCertificate:
		return e.cfg.MaxClientCertificates
	case wire.TypeCertificateVerify:
		return maxCertificateVerify
	default:
		return wire.VerifyDataLen
	}
}

// receiveMessage takes a whole message at its place in the handshake.
func (e *Engine) receiveMessage(now time.Time, t wire.HandshakeType, seq uint16, body []byte) {
	switch t {
	case wire.TypeClientHello:
		e.receiveClientHello(now, seq, body)
	case wire.TypeCertificate:
		e.receiveCertificate(now, seq, body)
	case wire.TypeClientKeyExchange:
		e.receiveClientKeyExchange(now, seq, body)
	case wire.TypeCertificateVerify:
		e.receiveCertificateVerify(now, seq, body)
	case wire.TypeFinished:
		e.receiveFinished(now, seq, body)
	}
}

// deriveKeys makes the master secret from the premaster secret, which it
// clears, and installs the keys.
func (e *Engine) deriveKeys(premaster []byte) error {
	hs := e.hs
	hs.secret = e.suite.NewSecret(premaster)
	if hs.parameters.ExtendedMasterSecret {
		hs.master = bytes.Clone(hs.secret.ExtendedMasterSecret(hs.sessionHash))
	} else {
		hs.master = bytes.Clone(hs.secret.MasterSecret(hs.clientRandom[:], hs.serverRandom[:]))
	}
	clear(premaster)
	hs.secret.Become(e.suite, hs.master)
	return e.installKeys()
}

// installKeys makes the record protection of epoch 1 of the master secret.
func (e *Engine) installKeys() error {
	hs := e.hs
	keys := hs.secret.Keys(hs.clientRandom[:], hs.serverRandom[:])
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
	header := wire.AppendHandshakeHeader(hs.header[:0], t, len(body), seq, 0, len(body))
	hs.transcript.Write(header)
	hs.transcript.Write(body)
	if hs.messages != nil {
		hs.messages = append(append(hs.messages, header...), body...)
	}
}

// gotOn notes that the client has taken the handshake on.
func (hs *handshake) gotOn() { hs.alerted, hs.alertedUntil = wire.Alert{}, time.Time{} }
