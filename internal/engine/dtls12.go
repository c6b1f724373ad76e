package engine

import (
	"errors"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// protocol is what differs between the versions of DTLS in a handshake: which
// messages come in which order, what they mean, and what is made of them. Flights,
// reassembly, retransmission, tickets' seals and what the caller is asked are the
// Engine's.
type protocol interface {
	// expects reports whether a message that is so far ahead of the next one is
	// one that the handshake still needs in plaintext.
	expects(t wire.HandshakeType, ahead int) bool
	// maxLen bounds a message, in bytes, before memory is set aside for it.
	maxLen(t wire.HandshakeType) int
	// receive takes a whole message at its place in the handshake.
	receive(now time.Time, t wire.HandshakeType, seq uint16, body []byte)

	// The answers to what the caller was asked, in the states that wait for them.

	answerCertificate(now time.Time, certificate *Certificate)
	answerPSK(now time.Time, key []byte)
	accept(now time.Time)
}

// dtls12 is DTLS 1.2 (RFC 6347) over TLS 1.2 (RFC 5246). What it knows stands in
// the Engine.
type dtls12 struct{ *Engine }

// expects is by state. Whatever else comes in plaintext may be anybody's, and is
// dropped rather than answered with an alert.
func (e dtls12) expects(t wire.HandshakeType, ahead int) bool {
	switch e.state {
	case awaitClientHello:
		return t == wire.TypeClientHello && ahead == 0
	case awaitCertificate:
		return t == wire.TypeCertificate && ahead == 0 ||
			t == wire.TypeClientKeyExchange && ahead == 1 ||
			t == wire.TypeCertificateVerify && ahead == 2
	case awaitClientKeyExchange, awaitParsing:
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

func (e dtls12) maxLen(t wire.HandshakeType) int {
	switch t {
	case wire.TypeClientHello:
		return maxClientHello
	case wire.TypeClientKeyExchange:
		return max(maxClientKeyExchange, 2+e.cfg.MaxPSKIdentityLen+1+255)
	case wire.TypeCertificate:
		return e.cfg.MaxClientCertificateBytes
	case wire.TypeCertificateVerify:
		return maxCertificateVerify
	default:
		return wire.VerifyDataLen
	}
}

func (e dtls12) receive(now time.Time, t wire.HandshakeType, seq uint16, body []byte) {
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
func (e dtls12) deriveKeys(premaster []byte) error {
	hs := e.hs
	hs.secret.Become(e.parameters.Suite, premaster)
	clear(premaster)
	if e.parameters.ExtendedMasterSecret {
		copy(hs.master[:], hs.secret.ExtendedMasterSecret(hs.sessionHash))
	} else {
		copy(hs.master[:], hs.secret.MasterSecret(e.clientRandom[:], e.serverRandom[:]))
	}
	return e.installKeys()
}

// installKeys makes the record protection of epoch 1 of the master secret.
func (e dtls12) installKeys() error {
	secret := &e.hs.secret
	secret.Become(e.parameters.Suite, e.hs.master[:])
	keys := secret.Keys(e.clientRandom[:], e.serverRandom[:])
	return errors.Join(
		e.opener.Init(e.parameters.Suite.AEAD, keys.ClientKey, keys.ClientIV),
		e.sealer.Init(e.parameters.Suite.AEAD, 1, keys.ServerKey, keys.ServerIV))
}
