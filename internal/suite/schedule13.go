package suite

import (
	"encoding/binary"
	"errors"
)

// Schedule is the key schedule of DTLS 1.3 (RFC 8446 section 7.1, RFC 9147 section
// 5.9), in the order of a handshake: Begin, the binders, Handshake, HandshakeTraffic,
// Master, ApplicationTraffic, ExporterMaster and, after the client's Finished,
// ResumptionMaster. What is made of one of these secrets needs no more than Become.
//
// What the methods return is the Schedule's own, unless they say otherwise: it is good
// until the next call of one, to which it may be handed. A Schedule can serve one
// handshake after another, which allocates only when the hash changes. The zero
// Schedule is for Begin or Become. It is not safe for concurrent use.
//
// There are no early traffic and early exporter secrets, as there is no 0-RTT.
type Schedule struct {
	suite  *Suite13
	mac    hmac
	prefix string           // of all labels; empty: that of DTLS
	secret [MaxHashLen]byte // the Early, then the Handshake, then the Master Secret
	// text is T(i), and behind it HkdfLabel and the number of T(i + 1): what HMAC is
	// computed of, in one piece (RFC 5869 section 2.3).
	text [MaxHashLen + maxLabel + 1]byte
	out  [2 * MaxHashLen]byte
}

const (
	// dtlsPrefix is in place of "tls13 ", and has no space (RFC 9147 section 5.9).
	dtlsPrefix = "dtls13"
	// maxLabel is the length of the longest HkdfLabel but for those of Export and of
	// long nonces, which need an array of their own.
	maxLabel = 2 + 1 + len(dtlsPrefix+"c hs traffic") + 1 + MaxHashLen
	// MaxExporterLabel is the length of the longest label of Export: its length and
	// that of the prefix travel in one byte.
	MaxExporterLabel = 255 - len(dtlsPrefix)
)

// TrafficKeys are what protects the records of one epoch and direction.
type TrafficKeys struct {
	Key, IV []byte
	SN      []byte // the key that sequence numbers are encrypted with
}

// Become has s serve secrets of the suite that were kept from an earlier handshake.
func (s *Schedule) Become(suite *Suite13) { s.suite = suite }

// Begin begins a handshake: it makes the Early Secret of a pre-shared key, external or
// of a ticket, which is not kept. Empty: there is none.
func (s *Schedule) Begin(suite *Suite13, psk []byte) {
	s.Become(suite)
	s.mac.setKey(suite.Hash, nil)
	s.extract(psk)
}

// ExternalBinder returns the binder of an external pre-shared key over the hash of the
// transcript up to and with the list of identities of the ClientHello (RFC 8446 section
// 4.2.11.2).
func (s *Schedule) ExternalBinder(transcriptHash []byte) []byte {
	return s.Finished(s.derive("ext binder"), transcriptHash)
}

// ResumptionBinder returns the binder of a ticket's pre-shared key, as ExternalBinder
// does.
func (s *Schedule) ResumptionBinder(transcriptHash []byte) []byte {
	return s.Finished(s.derive("res binder"), transcriptHash)
}

// Handshake makes the Handshake Secret of the Early Secret and of the key exchange's
// secret, which is not kept. Empty: there was none, but psk_ke.
func (s *Schedule) Handshake(shared []byte) { s.next(shared) }

// HandshakeTraffic returns the handshake traffic secrets, made of the Handshake Secret
// and the hash of the transcript up to and with ServerHello.
func (s *Schedule) HandshakeTraffic(transcriptHash []byte) (client, server []byte) {
	return s.traffic("c hs traffic", "s hs traffic", transcriptHash)
}

// Master makes the Master Secret of the Handshake Secret.
func (s *Schedule) Master() { s.next(nil) }

// ApplicationTraffic returns the first application traffic secrets, made of the Master
// Secret and the hash of the transcript up to and with the server's Finished.
func (s *Schedule) ApplicationTraffic(transcriptHash []byte) (client, server []byte) {
	return s.traffic("c ap traffic", "s ap traffic", transcriptHash)
}

// ExporterMaster returns the exporter master secret, which Export takes, made of the
// same hash as ApplicationTraffic.
func (s *Schedule) ExporterMaster(transcriptHash []byte) []byte {
	return s.expandSecret(s.secret[:s.suite.Hash.Size()], "exp master", transcriptHash)
}

// ResumptionMaster returns the resumption master secret, which ResumptionPSK takes, made
// of the Master Secret and the hash of the transcript up to and with the client's
// Finished.
func (s *Schedule) ResumptionMaster(transcriptHash []byte) []byte {
	return s.expandSecret(s.secret[:s.suite.Hash.Size()], "res master", transcriptHash)
}

// Finished returns verify_data of the Finished whose sender has the handshake traffic
// secret, over the hash of the transcript before it (RFC 8446 section 4.4.4).
func (s *Schedule) Finished(traffic, transcriptHash []byte) []byte {
	key := s.expandSecret(traffic, "finished", nil)
	s.mac.setKey(s.suite.Hash, key)
	return s.mac.sum(s.out[:0], transcriptHash)
}

// Keys derives the keys of a traffic secret (RFC 8446 section 7.3, RFC 9147 section
// 4.2.3).
func (s *Schedule) Keys(traffic []byte) TrafficKeys {
	s.mac.setKey(s.suite.Hash, traffic)
	room := s.out[:]
	expand := func(n int, label string) []byte {
		b := room[:n:n]
		room = room[n:]
		s.expand(b, label, nil)
		return b
	}
	keyLen := s.suite.KeyLen
	return TrafficKeys{Key: expand(keyLen, "key"), IV: expand(s.suite.FixedIVLen, "iv"), SN: expand(keyLen, "sn")}
}

// NextTraffic returns the application traffic secret that follows one after a KeyUpdate
// (RFC 8446 section 7.2).
func (s *Schedule) NextTraffic(traffic []byte) []byte {
	return s.expandSecret(traffic, "traffic upd", nil)
}

// ResumptionPSK returns the pre-shared key of the ticket with the nonce, of at most 255
// bytes (RFC 8446 section 4.6.1).
func (s *Schedule) ResumptionPSK(resumptionMaster, nonce []byte) []byte {
	return s.expandSecret(resumptionMaster, "resumption", nonce)
}

var errExport = errors.New("suite: too much keying material, or too long a label for it")

// Export returns n bytes of keying material for a use of the application's, made of an
// exporter master secret (RFC 8446 section 7.5), in memory of their own. Unlike in 1.2
// no context is an empty one. There is an error if n is more than 255 hashes, or the
// label longer than MaxExporterLabel.
func (s *Schedule) Export(n int, exporterMaster []byte, label string, context []byte) ([]byte, error) {
	if n > 255*s.suite.Hash.Size() || len(label) > MaxExporterLabel {
		return nil, errExport
	}
	secret := s.expandSecret(exporterMaster, label, s.emptyHash())
	s.mac.Begin(s.suite.Hash)
	s.mac.Write(context)
	hashed := s.mac.Sum(s.out[len(secret):len(secret)])
	s.mac.setKey(s.suite.Hash, secret)
	out := make([]byte, n)
	s.expand(out, "exporter", hashed)
	return out, nil
}

// Forget clears the secret and what was made of it.
func (s *Schedule) Forget() {
	s.mac.forget()
	clear(s.secret[:])
	clear(s.text[:])
	clear(s.out[:])
}

// extract makes the secret HKDF-Extract of what the HMAC is keyed with and of a secret of
// the peers', of which none is as many zeros as the hash has bytes (RFC 8446 section 7.1).
func (s *Schedule) extract(secret []byte) {
	if len(secret) == 0 {
		secret = s.out[:s.suite.Hash.Size()]
		clear(secret)
	}
	s.mac.sum(s.secret[:0], secret)
}

// next makes the secret the one after it.
func (s *Schedule) next(secret []byte) {
	s.mac.setKey(s.suite.Hash, s.derive("derived"))
	s.extract(secret)
}

// derive returns Derive-Secret(secret, label, "").
func (s *Schedule) derive(label string) []byte {
	return s.expandSecret(s.secret[:s.suite.Hash.Size()], label, s.emptyHash())
}

// emptyHash returns the hash of nothing.
func (s *Schedule) emptyHash() []byte {
	s.mac.Begin(s.suite.Hash)
	return s.mac.Sum(s.out[MaxHashLen:MaxHashLen])
}

// traffic returns the client's and the server's secret.
func (s *Schedule) traffic(client, server string, transcriptHash []byte) (c, d []byte) {
	size := s.suite.Hash.Size()
	s.mac.setKey(s.suite.Hash, s.secret[:size])
	c, d = s.out[:size:size], s.out[size:2*size:2*size]
	s.expand(c, client, transcriptHash)
	s.expand(d, server, transcriptHash)
	return c, d
}

// expandSecret returns HKDF-Expand-Label(secret, label, context, Hash.length).
func (s *Schedule) expandSecret(secret []byte, label string, context []byte) []byte {
	s.mac.setKey(s.suite.Hash, secret)
	size := s.suite.Hash.Size()
	out := s.out[:size:size]
	s.expand(out, label, context)
	return out
}

// expand fills out with HKDF-Expand-Label of the secret that the HMAC is keyed with
// (RFC 8446 section 7.1, RFC 5869 section 2.3). The context is of at most 255 bytes.
func (s *Schedule) expand(out []byte, label string, context []byte) {
	prefix := s.prefix
	if prefix == "" {
		prefix = dtlsPrefix
	}
	size := s.mac.Size()
	text := s.text[:]
	if need := size + 2 + 1 + len(prefix) + len(label) + 1 + len(context) + 1; need > len(text) {
		text = make([]byte, need)
		defer clear(text)
	}
	b := binary.BigEndian.AppendUint16(text[:size], uint16(len(out)))
	b = append(b, byte(len(prefix)+len(label)))
	b = append(b, prefix...)
	b = append(b, label...)
	b = append(b, byte(len(context)))
	b = append(b, context...)
	b = append(b, 0)
	text = b[size:] // T(0) is empty
	for {
		b[len(b)-1]++
		t := s.mac.sum(s.mac.scratch[:0], text)
		out = out[copy(out, t):]
		if len(out) == 0 {
			return
		}
		copy(b, t)
		text = b
	}
}
