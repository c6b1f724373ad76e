//go:build linux

package main

// The client of the load: a DTLS 1.2 client with one suite that does as little as
// a server needs to see. It trusts the server: that the server's Finished opens
// shows that both have the same keys.

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	mathrand "math/rand/v2"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/dtlsserver/dtlsserver/internal/wire"
)

type state uint8

const (
	stateHello  state = iota // a ClientHello is out
	stateFlight              // the last flight is out
	stateOpen
	stateFailed
)

// suite is a cipher suite with AES-128-GCM.
type suite struct {
	id    uint16
	psk   bool // a pre-shared key, or else an ECDSA certificate
	ecdhe bool
	cids  bool // with connection IDs
}

// withCIDs is the suite with connection IDs.
func (s suite) withCIDs() *suite {
	s.cids = true
	return &s
}

var (
	pskSuite      = &suite{id: 0x00a8, psk: true}              // TLS_PSK_WITH_AES_128_GCM_SHA256
	ecdhePSKSuite = &suite{id: 0xd001, psk: true, ecdhe: true} // TLS_ECDHE_PSK_WITH_AES_128_GCM_SHA256
	ecdsaSuite    = &suite{id: 0xc02b, ecdhe: true}            // TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
)

// client is one client. It keeps after the handshake what it seals and opens
// with.
type client struct {
	source source
	state  state
	hs     *handshake // nil when open
	writes *direction // nil before the last flight
	reads  *direction
}

// handshake is what a client needs until it is open.
type handshake struct {
	suite        *suite
	psk          hash.Hash // newPSK, which clients of one load share
	started      time.Time
	sent         time.Time // the last flight
	timeout      time.Duration
	random       [wire.RandomLen]byte
	serverRandom [wire.RandomLen]byte
	cookie       []byte
	public       []byte // the server's, of ECDHE
	serverCID    []byte // nil: none
	partial      []byte // of a message in fragments
	nextServer   uint16 // message_seq
	seq          uint64 // of records
	messageSeq   uint16
	transcript   []byte
	hello        []byte // the messages that may have to be repeated
	keyExchange  []byte
	finished     []byte
	flight       []byte // the datagram to send
}

// retransmission is a client's first timeout (RFC 6347 section 4.2.4.1).
const retransmission = time.Second

// shareKey is the key of every client's ECDHE: what a client spends on its own
// does not matter to the server.
var shareKey = func() *ecdh.PrivateKey {
	k, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
}()

var sharePublic = shareKey.PublicKey().Bytes()

// newPSK returns the PRF of the premaster secret with the pre-shared key. It is
// not safe for concurrent use.
func newPSK() hash.Hash { return newPRF(pskPremaster(pskKey)) }

// The extensions of a hello: renegotiation_info and extended_master_secret, and
// with ECDHE supported_groups P-256, signature_algorithms ECDSA with SHA-256, and
// ec_point_formats.
var (
	pskExtensions   = []byte{0xff, 1, 0, 1, 0, 0, 23, 0, 0}
	ecdsaExtensions = append(bytes.Clone(pskExtensions),
		0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3, 0, 11, 0, 2, 1, 0)
	cidExtension = append([]byte{0, byte(extensionCID), 0, byte(1 + len(clientCID)), byte(len(clientCID))}, clientCID...)
)

// clientCID is the connection ID of each client. No two have one address, and so it
// need not tell them apart.
const clientCID = "a client"

const extensionCID = 54 // RFC 9146 section 3

// appendHello appends a ClientHello.
func appendHello(dst []byte, s *suite, random *[wire.RandomLen]byte, cookie []byte, messageSeq uint16) []byte {
	extensions := pskExtensions
	if s.ecdhe {
		extensions = ecdsaExtensions
	}
	if s.cids {
		extensions = slices.Concat(extensions, cidExtension)
	}
	length := 2 + wire.RandomLen + 1 + 1 + len(cookie) + 4 + 2 + 2 + len(extensions)
	dst = wire.AppendHandshakeHeader(dst, wire.TypeClientHello, length, messageSeq, 0, length)
	dst = binary.BigEndian.AppendUint16(dst, wire.VersionDTLS12)
	dst = append(dst, random[:]...)
	dst = append(dst, 0, byte(len(cookie)))
	dst = append(dst, cookie...)
	dst = append(dst, 0, 2, byte(s.id>>8), byte(s.id), 1, 0)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(extensions)))
	return append(dst, extensions...)
}

// appendPlain appends a record of epoch 0.
func appendPlain(dst []byte, t wire.ContentType, seq uint64, content []byte) []byte {
	dst = wire.AppendRecordHeader(dst, t, wire.VersionDTLS12, 0, seq, len(content))
	return append(dst, content...)
}

// newClient returns a client whose hello must be sent. The random numbers
// need not be secret.
func newClient(from source, s *suite, psk hash.Hash, now time.Time) *client {
	hs := &handshake{suite: s, psk: psk, started: now}
	for i := 0; i < wire.RandomLen; i += 8 {
		binary.BigEndian.PutUint64(hs.random[i:], mathrand.Uint64())
	}
	c := &client{source: from, hs: hs}
	c.hello(now)
	return c
}

func (c *client) hello(now time.Time) {
	hs := c.hs
	hs.hello = appendHello(hs.hello[:0], hs.suite, &hs.random, hs.cookie, hs.messageSeq)
	hs.transcript = append(hs.transcript[:0], hs.hello...)
	hs.messageSeq++
	hs.timeout = retransmission
	c.fly(now)
}

// fly makes hs.flight anew.
func (c *client) fly(now time.Time) {
	hs := c.hs
	hs.sent = now
	if c.state == stateHello {
		hs.flight = appendPlain(hs.flight[:0], wire.ContentHandshake, hs.seq, hs.hello)
		hs.seq++
		return
	}
	hs.flight = appendPlain(hs.flight[:0], wire.ContentHandshake, hs.seq, hs.keyExchange)
	hs.flight = appendPlain(hs.flight, wire.ContentChangeCipherSpec, hs.seq+1, []byte{1})
	hs.seq += 2
	hs.flight = c.writes.seal(hs.flight, wire.ContentHandshake, hs.finished)
}

// due reports whether the flight must be repeated, and makes it.
func (c *client) due(now time.Time) bool {
	hs := c.hs
	if hs == nil || c.state == stateFailed || now.Sub(hs.sent) < hs.timeout {
		return false
	}
	hs.timeout = min(2*hs.timeout, time.Minute)
	c.fly(now)
	return true
}

var (
	errMalformed = errors.New("malformed message of the server")
	errAlert     = errors.New("alert of the server")
)

// parse splits the first record off a datagram.
func (c *client) parse(datagram []byte) (wire.Record, []byte, bool) {
	cid := 0
	if c.reads != nil {
		cid = len(c.reads.cid)
	}
	return wire.ParseRecord(datagram, cid)
}

// handshakeDatagram takes a datagram during the handshake. When send is true
// hs.flight must be sent.
func (c *client) handshakeDatagram(datagram []byte, now time.Time) (send bool, err error) {
	for len(datagram) > 0 && c.hs != nil {
		r, rest, ok := c.parse(datagram)
		if !ok {
			return send, errMalformed
		}
		datagram = rest
		again, err := c.handshakeRecord(r, now)
		if err != nil {
			c.state = stateFailed
			return false, err
		}
		send = send || again
	}
	return send, nil
}

func (c *client) handshakeRecord(r wire.Record, now time.Time) (send bool, err error) {
	switch {
	case r.Epoch == 0 && r.Type == wire.ContentAlert:
		return false, errAlert
	case r.Epoch == 0 && r.Type == wire.ContentHandshake:
		for payload := r.Payload; len(payload) > 0; {
			f, rest, ok := wire.ParseFragment(payload)
			if !ok {
				return send, errMalformed
			}
			payload = rest
			again, err := c.fragment(f, now)
			if err != nil {
				return send, err
			}
			send = send || again
		}
	case r.Epoch == 1 && c.state == stateFlight:
		_, t, err := c.reads.open(nil, r)
		if err != nil {
			return false, err
		}
		switch t {
		case wire.ContentHandshake:
			c.state, c.hs = stateOpen, nil
		case wire.ContentAlert:
			return false, errAlert
		}
	}
	return send, nil
}

// fragment takes fragments in their order. Others will be repeated.
func (c *client) fragment(f wire.Fragment, now time.Time) (send bool, err error) {
	hs := c.hs
	if c.state != stateHello {
		return false, nil // a repetition
	}
	if f.Type == wire.TypeHelloVerifyRequest {
		if hs.nextServer > 0 || len(f.Body) < 3 || len(f.Body) != 3+int(f.Body[2]) || bytes.Equal(hs.cookie, f.Body[3:]) {
			return false, nil
		}
		hs.cookie = bytes.Clone(f.Body[3:])
		c.hello(now)
		return true, nil
	}
	if f.Type == wire.TypeServerHello && hs.nextServer == 0 {
		hs.nextServer = f.MessageSeq
	}
	if f.MessageSeq != hs.nextServer || int(f.Offset) != len(hs.partial) {
		return false, nil
	}
	body := f.Body
	if !f.Whole() {
		if hs.partial = append(hs.partial, f.Body...); len(hs.partial) < int(f.Length) {
			return false, nil
		}
		body, hs.partial = hs.partial, nil
	}
	hs.nextServer++
	hs.transcript = wire.AppendHandshakeHeader(hs.transcript, f.Type, len(body), f.MessageSeq, 0, len(body))
	hs.transcript = append(hs.transcript, body...)
	return c.message(f.Type, body, now)
}

func (c *client) message(t wire.HandshakeType, body []byte, now time.Time) (send bool, err error) {
	hs := c.hs
	switch t {
	case wire.TypeServerHello:
		if len(body) < 2+wire.RandomLen || !bytes.Contains(body[2+wire.RandomLen:], []byte{0, 23, 0, 0}) {
			return false, errors.New("no extended_master_secret of the server")
		}
		copy(hs.serverRandom[:], body[2:])
		if hs.suite.cids {
			if hs.serverCID = serverCID(body); hs.serverCID == nil {
				return false, errors.New("no connection ID of the server")
			}
		}
	case wire.TypeServerKeyExchange:
		if !hs.suite.ecdhe {
			return false, nil // a hint
		}
		s := cryptobyte.String(body)
		var hint cryptobyte.String
		if hs.suite.psk && !s.ReadUint16LengthPrefixed(&hint) {
			return false, errMalformed
		}
		if !s.Skip(3) || !s.ReadUint8LengthPrefixed((*cryptobyte.String)(&hs.public)) {
			return false, errMalformed
		}
		hs.public = bytes.Clone(hs.public)
	case wire.TypeServerHelloDone:
		return true, c.finish(now)
	}
	return false, nil
}

// serverCID is the connection ID in a ServerHello, or nil.
func serverCID(body []byte) []byte {
	var sessionID, extensions, data, cid cryptobyte.String
	s := cryptobyte.String(body)
	if !s.Skip(2+wire.RandomLen) || !s.ReadUint8LengthPrefixed(&sessionID) || !s.Skip(2+1) || !s.ReadUint16LengthPrefixed(&extensions) {
		return nil
	}
	for id := uint16(0); extensions.ReadUint16(&id) && extensions.ReadUint16LengthPrefixed(&data); {
		if id == extensionCID && data.ReadUint8LengthPrefixed(&cid) {
			return bytes.Clone(cid)
		}
	}
	return nil
}

// finish makes the client's last flight.
func (c *client) finish(now time.Time) error {
	hs := c.hs
	premaster := hs.psk
	var kx []byte
	if hs.suite.psk {
		kx = append([]byte{0, byte(len(pskIdentity))}, pskIdentity...)
	}
	if hs.suite.ecdhe {
		public, err := ecdh.P256().NewPublicKey(hs.public)
		if err != nil {
			return err
		}
		shared, err := shareKey.ECDH(public)
		if err != nil {
			return err
		}
		if hs.suite.psk { // RFC 5489 section 2
			shared = appendUint16Prefixed(appendUint16Prefixed(nil, shared), []byte(pskKey))
		}
		premaster = newPRF(shared)
		kx = append(append(kx, byte(len(sharePublic))), sharePublic...)
	}
	begin := len(hs.transcript)
	hs.transcript = wire.AppendHandshakeHeader(hs.transcript, wire.TypeClientKeyExchange, len(kx), hs.messageSeq, 0, len(kx))
	hs.transcript = append(hs.transcript, kx...)
	hs.keyExchange = bytes.Clone(hs.transcript[begin:])

	hash := sha256.Sum256(hs.transcript)
	var secret [masterLen]byte
	prf(secret[:], premaster, "extended master secret", hash[:])
	master := newPRF(secret[:])
	pair, err := directions(master, &hs.random, &hs.serverRandom)
	if err != nil {
		return err
	}
	c.writes, c.reads = pair[0], pair[1]
	if hs.serverCID != nil {
		c.writes.cid, c.reads.cid = hs.serverCID, []byte(clientCID)
	}
	var verify [wire.VerifyDataLen]byte
	prf(verify[:], master, "client finished", hash[:])
	hs.finished = wire.AppendHandshakeHeader(nil, wire.TypeFinished, len(verify), hs.messageSeq+1, 0, len(verify))
	hs.finished = append(hs.finished, verify[:]...)
	hs.timeout = retransmission
	c.state = stateFlight
	c.fly(now)
	return nil
}

// appendClose appends a close_notify.
func (c *client) appendClose(dst []byte) []byte {
	return c.writes.seal(dst, wire.ContentAlert, []byte{1, 0})
}
