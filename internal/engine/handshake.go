package engine

import (
	"crypto"
	"crypto/ecdh"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// handshake is what only a handshake in progress needs. Its memory may be lent,
// see Config.Memory, so that one handshake works where another has.
type handshake struct {
	progress

	// What follows forget does not reset, but for secrets: the next handshake
	// overwrites each before it reads it.
	hello       []byte       // the body of the client's
	transcript  suite.Digest // from the verified hello on
	sessionHash []byte       // RFC 7627 section 3
	premaster   []byte       // with a pre-shared key
	master      [suite.MasterSecretLen]byte
	secret      suite.Secret      // the premaster secret, and then master
	early       []byte            // records of epoch 1 before their turn
	opened      [maxEarlyLen]byte // what one of them holds
	scratch     [suite.MaxHashLen]byte
	flight      [256]byte // for Engine.flight
	events      [2]Event  // for Engine.events
}

// progress is how far a handshake has come.
type progress struct {
	nextReceive uint16 // message_seq
	nextSend    uint16 // message_seq
	incoming    [window]reassembler
	datagram    uint64 // that the record under way is of
	pieces      int    // of plaintext and of messages that have come with it

	offer     offer        // what the hello says, until it is answered
	helloSeq  uint16       // the hello's message_seq
	messages  []byte       // of the transcript, for CertificateVerify, but for the body of Certificate; nil when none is asked for
	chainAt   int          // where in messages that belongs
	ticket    bool         // one is promised
	resumed   *ticketState // nil: a full handshake
	keyDigest []byte       // of the pre-shared key, for the ticket
	ecdh      *ecdh.PrivateKey
	shared    []byte // ECDHE_PSK: the secret of ECDH, until the key is there

	chain    Chain            // the client's certificates
	peerKey  crypto.PublicKey // the leaf's, for CertificateVerify
	parsed   int              // bytes that the chain holds when it is parsed
	reserved int              // bytes of the budget, for the chain
	host     Host
	protocol protocol // dtls12, from Begin on

	changeCipherSpec bool // the client's has come
	earlyRecords     int  // in early
	overtaken        bool // some of them are opened, and wait for the Finished
	unopened         bool // a Finished came that did not open

	timeout      time.Duration // of the next retransmission
	resendAt     time.Time
	giveUp       time.Time
	progressedAt time.Time
	lostAt       time.Time // that the flight seems to have been, last
	// keyExchangeAt is when the first ClientKeyExchange came that had to wait; zero: none
	// had.
	keyExchangeAt time.Time

	alerted      wire.Alert    // in plaintext, since the client last said something of use; zero: none
	alertedUntil time.Time     // zero: none, or none that says it is over
	doubt        time.Duration // from the alert until then
}

const (
	// window is how many messages from the next on are kept when they come
	// too early. The client's flight has no more in epoch 0.
	window = 3

	// maxPieces bounds how many fragments, and other records of epoch 0, of one
	// datagram are looked at. Each is work for whoever sends it; a client's longest
	// flight has a dozen, and 1,472 bytes hold 113 fragments of a byte.
	maxPieces = 128

	// maxKept bounds, in bytes, what of each kind one handshake leaves to
	// another.
	maxKept = 1 << 10
)

// borrow returns memory for a handshake, which takes what else it needs from
// the host's budget.
func (cfg *Config) borrow(host Host) *handshake {
	var hs *handshake
	if cfg.Memory != nil {
		hs, _ = cfg.Memory.Get().(*handshake)
	}
	if hs == nil {
		hs = new(handshake)
	}
	hs.host = host
	for i := range hs.incoming {
		hs.incoming[i].budget = host
	}
	return hs
}

// giveBack gives back memory that was borrowed, when forget has cleared it and
// its events were taken.
func (cfg *Config) giveBack(hs *handshake) {
	clear(hs.events[:])
	if cfg.Memory != nil {
		cfg.Memory.Put(hs)
	}
}

// forget clears how far the handshake has come, and its secrets.
func (hs *handshake) forget() {
	hs.release()
	clear(hs.shared)
	if hs.resumed != nil {
		clear(hs.resumed.Master)
	}
	hs.progress = progress{}
	hs.secret.Forget()
	clear(hs.master[:])
	clear(hs.premaster)
	clear(hs.opened[:])
	for _, room := range []*[]byte{&hs.hello, &hs.sessionHash, &hs.premaster, &hs.early} {
		*room = emptied(*room)
	}
}

// emptied returns the memory of b, if that is not too much to be kept.
func emptied(b []byte) []byte {
	if cap(b) > maxKept {
		return nil
	}
	return b[:0]
}

// release gives back what is kept of messages.
func (hs *handshake) release() {
	for i := range hs.incoming {
		hs.incoming[i].reset()
	}
}

// receiveAlert takes a plaintext alert. Anybody can have sent it, so one that says that it
// is over only shortens the time that the handshake has for its next step. When
// that does not come, it was the client's, and the first one that is fatal, or else
// the first, says why.
func (hs *handshake) receiveAlert(now time.Time, a wire.Alert) {
	if a.Level > hs.alerted.Level {
		hs.alerted = a
	}
	over := a.Level == wire.LevelFatal || a.Description == wire.AlertCloseNotify
	if over && hs.alertedUntil.IsZero() {
		hs.alertedUntil = now.Add(hs.doubt)
	}
}

// retractAlert notes that the client has said something of use: it has not gone.
func (hs *handshake) retractAlert() { hs.alerted, hs.alertedUntil = wire.Alert{}, time.Time{} }

// giveUpAt is when the handshake is over if nothing comes.
func (hs *handshake) giveUpAt() time.Time {
	if hs.alertedUntil.IsZero() {
		return hs.giveUp
	}
	return earlier(hs.alertedUntil, hs.giveUp)
}

// receiveFragments takes the content of a handshake record of epoch 0, where all
// messages belong but Finished.
func (e *Engine) receiveFragments(now time.Time, content []byte) Drop {
	if len(content) == 0 {
		return DropMalformed
	}
	result := DropNone
	for len(content) > 0 && e.hs != nil {
		f, rest, ok := wire.ParseFragment(content)
		if !ok {
			return DropMalformed
		}
		if !e.hs.mayTake() {
			return DropLimit
		}
		content = rest
		switch drop := e.receiveFragment(now, f); {
		case drop != DropNone:
			result = drop
		case e.hs != nil:
			e.hs.retractAlert()
		}
	}
	return result
}

// mayTake counts a piece of the datagram, and reports whether it is to be looked
// at.
func (hs *handshake) mayTake() bool {
	hs.pieces++
	return hs.pieces <= maxPieces
}

func (e *Engine) receiveFragment(now time.Time, f wire.Fragment) Drop {
	hs := e.hs
	ahead := int(f.MessageSeq) - int(hs.nextReceive)
	switch {
	case ahead < 0:
		return DropRepeated
	case !hs.protocol.expects(f.Type, ahead):
		return DropUnexpected
	}
	body, drop := hs.incoming[ahead].add(f, hs.protocol.maxLen(f.Type), hs.datagram)
	switch {
	case body == nil:
		return drop
	case ahead > 0 || e.asking():
		if f.Type == wire.TypeClientKeyExchange && hs.keyExchangeAt.IsZero() {
			hs.keyExchangeAt = now
		}
		return hs.incoming[ahead].keep(f.Type, body)
	case !e.affords(f.Type, body):
		return DropLimit
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
	hs.incoming[window-1] = reassembler{budget: hs.host}
	hs.nextReceive++
	e.repeats, e.backwards = 0, false
	hs.protocol.receive(now, t, hs.nextReceive-1, body)
}

// receiveKept takes the messages that were kept and whose turn it is.
func (e *Engine) receiveKept(now time.Time) {
	for e.hs != nil && !e.asking() {
		t, body, ok := e.hs.incoming[0].kept()
		if !ok || !e.hs.protocol.expects(t, 0) {
			return
		}
		e.receiveNext(now, t, body)
	}
}

// addMessage adds a message to the flight and to the transcript. Its body is what the
// function appends; nil: it has none.
func (e *Engine) addMessage(t wire.HandshakeType, body func([]byte) []byte) {
	e.hs.record(e.flight.add(0, t, e.hs.nextSend, body))
	e.hs.nextSend++
}

// addReceived adds a message of the client's to the transcript, with the header that
// it would have had unfragmented (RFC 6347 section 4.2.6).
func (hs *handshake) addReceived(t wire.HandshakeType, seq uint16, body []byte) {
	hs.record(wire.AppendHandshakeHeader(hs.scratch[:0], t, len(body), seq, 0, len(body)))
	hs.record(body)
}

// addReceivedChain adds the client's certificates, which stay in chain, and so do not
// go into messages.
func (hs *handshake) addReceivedChain(seq uint16) {
	hs.record(wire.AppendHandshakeHeader(hs.scratch[:0], wire.TypeCertificate, len(hs.chain), seq, 0, len(hs.chain)))
	hs.chainAt = len(hs.messages)
	hs.transcript.Write(hs.chain)
}

// record adds bytes to the transcript.
func (hs *handshake) record(b []byte) {
	hs.transcript.Write(b)
	if hs.messages != nil {
		hs.messages = append(hs.messages, b...)
	}
}

// transcriptHash is the hash of the transcript so far. It is good until the
// transcript goes on.
func (hs *handshake) transcriptHash() []byte { return hs.transcript.Sum(hs.scratch[:0]) }

// progressed notes that the handshake has been taken on. If that was by our doing, the
// client has time for its next step again, though it said that it is over.
func (hs *handshake) progressed(now time.Time) {
	if !hs.alertedUntil.IsZero() {
		hs.alertedUntil = now.Add(hs.doubt)
	}
	hs.progressedAt = now
}
