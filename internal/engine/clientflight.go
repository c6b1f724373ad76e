package engine

import (
	"bytes"
	"crypto/ecdh"
	"crypto/subtle"
	"io"
	"slices"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// pskLen is the length of the key that stands in for an unknown one.
const pskLen = 32

// receiveCertificate takes the client's certificates (RFC 5246 section 7.4.6),
// and has them parsed. Whether they will do is asked when the client has proven
// that they are its.
func (e dtls12) receiveCertificate(now time.Time, seq uint16, body []byte) {
	count, ok := wire.CountCertificates(body, MaxClientChain)
	if !ok {
		e.fail(wire.AlertDecodeError, "malformed Certificate")
		return
	}
	if count == 0 && e.cfg.RequireClientCertificate {
		e.fail(wire.AlertHandshakeFailure, "the client sent no certificate")
		return
	}
	if count > MaxClientChain {
		e.fail(wire.AlertBadCertificate, "too many client certificates")
		return
	}
	hs := e.hs
	if count == 0 {
		hs.messages = nil // nothing will be signed
		hs.addReceived(wire.TypeCertificate, seq, body)
		hs.progressed(now)
		e.state = awaitClientKeyExchange
		return
	}
	certificates := Chain(bytes.Clone(body))
	hs.chain = certificates
	hs.addReceivedChain(seq)
	hs.progressed(now)
	e.workOnChain(awaitParsing, func() func(time.Time) {
		p, alert, why := certificates.examine()
		return func(now time.Time) {
			if p == nil {
				e.fail(alert, why)
				return
			}
			e.learn(p)
			hs.onSchedule(now)
			e.state = awaitClientKeyExchange
			e.receiveKept(now)
		}
	})
}

// receiveClientKeyExchange takes the client's part of the key exchange, has the
// secret of ECDH computed, and asks for the pre-shared key if one is needed.
func (e dtls12) receiveClientKeyExchange(now time.Time, seq uint16, body []byte) {
	var identity, public []byte
	var ok bool
	kx := e.parameters.Suite.KeyExchange
	switch kx {
	case suite.PSK:
		identity, ok = wire.ParseClientKeyExchangePSK(body)
	case suite.ECDHEPSK:
		identity, public, ok = wire.ParseClientKeyExchangeECDHEPSK(body)
	default:
		public, ok = wire.ParseClientKeyExchangeECDHE(body)
	}
	if !ok {
		e.fail(wire.AlertDecodeError, "malformed ClientKeyExchange")
		return
	}
	hs := e.hs
	hs.addReceived(wire.TypeClientKeyExchange, seq, body)
	hs.sessionHash = hs.transcript.Sum(hs.sessionHash[:0])
	hs.progressed(now)
	came := now
	if !hs.keyExchangeAt.IsZero() {
		came = hs.keyExchangeAt
	}
	hs.resendAt = came.Add(hs.timeout)
	claim := string(identity)
	if !kx.ECDHE() {
		e.askPSK(now, claim)
		return
	}
	key := hs.ecdh
	hs.ecdh = nil
	public = bytes.Clone(public)
	e.work(awaitSecret, false, func() func(time.Time) {
		shared, err := agree(key, public)
		return func(now time.Time) {
			switch {
			case err != nil:
				e.fail(wire.AlertIllegalParameter, "the client's ECDHE key is no point of the group")
			case kx.WithPSK():
				hs.shared = shared
				e.askPSK(now, claim)
			default:
				e.deriveAndContinue(now, shared)
			}
		}
	})
}

// agree returns the secret of ECDH (RFC 8422 section 5.10).
func agree(key *ecdh.PrivateKey, public []byte) ([]byte, error) {
	p, err := key.Curve().NewPublicKey(public)
	if err != nil {
		return nil, err
	}
	return key.ECDH(p)
}

// askPSK asks for the key of the client's identity.
func (e dtls12) askPSK(now time.Time, identity string) {
	e.parameters.Identity = identity
	e.state = awaitPSK
	e.raise(Event{Kind: EventPSKNeeded, Identity: identity})
	if len(identity) > e.cfg.MaxPSKIdentityLen {
		e.AnswerPSK(now, nil)
	}
}

// AnswerPSK answers EventPSKNeeded. An empty key says that the identity is
// unknown: the handshake goes on with a key that nobody has, so that it fails
// exactly as with a wrong one (RFC 4279 section 2). It does nothing unless the
// engine waits for it. The key is not kept.
func (e *Engine) AnswerPSK(now time.Time, key []byte) {
	if e.state == awaitResumptionPSK || e.state == awaitPSK {
		e.hs.protocol.answerPSK(now, key)
	}
}

func (e dtls12) answerPSK(now time.Time, key []byte) {
	if e.state == awaitResumptionPSK {
		e.answerResumptionPSK(now, key)
		return
	}
	if len(key) == 0 {
		key = make([]byte, pskLen)
		if _, err := io.ReadFull(e.cfg.Rand, key); err != nil {
			e.failInternal(CauseEntropy, err)
			return
		}
	}
	hs := e.hs
	if e.parameters.Suite.KeyExchange == suite.PSK {
		hs.premaster = suite.AppendPSKPremaster(hs.premaster[:0], key)
	} else {
		hs.premaster = suite.AppendECDHEPSKPremaster(hs.premaster[:0], hs.shared, key)
		clear(hs.shared)
	}
	if hs.ticket {
		hs.keyDigest = keyDigest(key)
	}
	e.deriveAndContinue(now, hs.premaster)
}

// deriveAndContinue goes on with the premaster secret.
func (e dtls12) deriveAndContinue(now time.Time, premaster []byte) {
	if err := e.deriveKeys(premaster); err != nil {
		e.failInternal(CauseInternal, err)
		return
	}
	e.hs.progressed(now)
	e.hs.onSchedule(now)
	if e.certified() {
		e.state = awaitCertificateVerify
		e.receiveKept(now)
		return
	}
	e.expectFinished(now)
}

// receiveCertificateVerify takes the client's proof that the certificate is its
// own (RFC 5246 section 7.4.8).
func (e dtls12) receiveCertificateVerify(now time.Time, seq uint16, body []byte) {
	scheme, signature, ok := wire.ParseCertificateVerify(body)
	if !ok {
		e.fail(wire.AlertDecodeError, "malformed CertificateVerify")
		return
	}
	hs := e.hs
	public, chain := hs.peerKey, hs.chain
	before, after := hs.messages[:hs.chainAt], hs.messages[hs.chainAt:]
	hs.messages = nil
	hs.addReceived(wire.TypeCertificateVerify, seq, body)
	signature = bytes.Clone(signature)
	e.work(awaitVerification, false, func() func(time.Time) {
		right := suite.Verify(public, scheme, slices.Concat(before, chain, after), signature)
		return func(now time.Time) {
			if !right {
				e.fail(wire.AlertDecryptError, "wrong signature in CertificateVerify")
				return
			}
			hs.progressed(now)
			hs.onSchedule(now)
			e.expectFinished(now)
		}
	})
}

// expectFinished is ready for the client's Finished. What was kept of plaintext
// messages must not stand in its way.
func (e dtls12) expectFinished(now time.Time) {
	e.hs.release()
	e.state = awaitFinished
	e.receiveEarly(now)
}

// receiveFinished learns whether the client has seen the same handshake (RFC
// 5246 section 7.4.9).
func (e dtls12) receiveFinished(now time.Time, seq uint16, body []byte) {
	hs := e.hs
	want := hs.secret.ClientVerifyData(hs.transcriptHash())
	if subtle.ConstantTimeCompare(body, want) != 1 {
		e.fail(wire.AlertDecryptError, "wrong verify_data in Finished")
		return
	}
	hs.addReceived(wire.TypeFinished, seq, body)
	e.finishedSeq = seq
	if hs.resumed != nil { // the client has the last word
		e.flight = flight{}
		overtaking := hs.takeOvertaking()
		e.establish(time.Unix(hs.resumed.Created, 0))
		e.receiveOvertaking(overtaking)
		return
	}
	if e.cfg.AskVerdict {
		e.state = awaitVerdict
		e.raise(Event{Kind: EventVerdictNeeded})
		return
	}
	e.complete(now)
}

// AnswerVerdict answers EventVerdictNeeded: the peer is accepted, or refused
// with an alert. It does nothing unless the engine waits for it.
func (e *Engine) AnswerVerdict(now time.Time, refused error, alert AlertDescription) {
	switch {
	case e.state != awaitVerdict && e.state != awaitResumptionVerdict:
	case refused != nil:
		e.sendAlert(wire.LevelFatal, alert)
		e.close(Event{Cause: CauseRefused, Alert: alert, Err: refused})
	default:
		e.hs.protocol.accept(now)
	}
}

func (e dtls12) accept(now time.Time) {
	if e.state == awaitVerdict {
		e.complete(now)
	} else {
		e.answerResumption(now)
	}
}

// complete ends a full handshake with flight 6, which outlives it.
func (e dtls12) complete(now time.Time) {
	e.flight = flight{bytes: make([]byte, 0, 2*(1+wire.HandshakeHeaderLen)+wire.VerifyDataLen)}
	if e.hs.ticket {
		e.addTicket(now, e.newSession(now))
	}
	e.addFinished()
	e.flightUntil = now.Add(lastFlightLife)
	e.establish(now)
}

// addFinished adds ChangeCipherSpec and Finished to the flight. The client's
// Finished covers ours only if that comes first (RFC 5246 section 7.4.9).
func (e dtls12) addFinished() {
	hs := e.hs
	verifyData := hs.secret.ServerVerifyData(hs.transcriptHash())
	e.flight.add(0, changeCipherSpec, 0, nil)
	finished := e.flight.add(1, wire.TypeFinished, hs.nextSend, func(b []byte) []byte { return append(b, verifyData...) })
	if hs.resumed != nil {
		hs.record(finished)
	}
	hs.nextSend++
	e.alertEpoch = 1
}

// establish opens the association, whose full handshake was at created.
func (e dtls12) establish(created time.Time) {
	hs := e.hs
	if e.cfg.KeyLog != nil {
		e.cfg.KeyLog("CLIENT_RANDOM", e.clientRandom[:], hs.master[:])
	}
	if e.parameters.ExtendedMasterSecret {
		e.master = hs.master
	}
	e.raise(Event{Kind: EventEstablished, Created: created})
	e.state = established
	e.resendFrom = time.Time{}
	e.releaseHandshake()
}
