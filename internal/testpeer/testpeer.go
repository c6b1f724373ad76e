// Package testpeer is a DTLS 1.2 client that is driven by hand, message by
// message: it sends what its caller asks for, right or wrong, and never by
// itself. Tests use it to put a server into any state. It checks what a client
// must check, and nothing of the library but its tests imports it.
package testpeer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"

	"github.com/dtlsserver/dtlsserver/internal/record"
	"github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// Client is one client. The fields may be set before the first Hello.
type Client struct {
	Identity string
	Key      []byte
	Suites   []uint16 // nil: TLS_PSK_WITH_AES_128_GCM_SHA256
	Random   [wire.RandomLen]byte
	NoEMS    bool
	// Extensions, when not nil, replaces the extensions block's content.
	Extensions []byte
	// Seq is the next record sequence number of epoch 0, MessageSeq the next
	// message_seq.
	Seq        uint64
	MessageSeq uint16

	Cookie []byte // from the last HelloVerifyRequest

	// What the server said.
	ServerHello *ServerHello
	Hint        []byte
	HelloDone   bool
	Complete    bool // its Finished was right
	Alerts      []wire.Alert
	Data        [][]byte
	Fragments   int // how many fragments of split messages came
	// Seen are the datagrams' records, in order.
	Seen []wire.Record

	partial       []byte // of a message whose fragments come in
	transcript    []byte
	serverSeq     uint16 // message_seq of the server's next message
	serverStarted bool
	suite         *suite.Suite
	master        []byte
	sealer        *record.Sealer
	opener        *record.Opener
	plain         *record.Sealer
}

// ServerHello is what a ServerHello says.
type ServerHello struct {
	Version    uint16
	Random     []byte
	SessionID  []byte
	Suite      uint16
	Extensions map[uint16][]byte // nil: no extensions block
}

// New returns a client with a random made of seed.
func New(identity string, key []byte, seed uint64) *Client {
	c := &Client{Identity: identity, Key: key}
	for i := 0; i < wire.RandomLen; i += 8 {
		seed += 0x9e3779b97f4a7c15
		z := (seed ^ seed>>30) * 0xbf58476d1ce4e5b9
		binary.BigEndian.PutUint64(c.Random[i:], z^z>>27)
	}
	return c
}

// Plain returns a record of epoch 0.
func (c *Client) Plain(t wire.ContentType, content []byte) []byte {
	if c.plain == nil {
		c.plain = record.NewPlaintextSealer(c.Seq)
	}
	r, err := c.plain.Append(nil, t, content)
	if err != nil {
		panic(err)
	}
	return r
}

// Sealed returns a record of epoch 1.
func (c *Client) Sealed(t wire.ContentType, content []byte) []byte {
	r, err := c.sealer.Append(nil, t, content)
	if err != nil {
		panic(err)
	}
	return r
}

// Message returns an unfragmented handshake message with its header, with the
// message_seq given. It leaves the client as it is.
func Message(t wire.HandshakeType, seq uint16, body []byte) []byte {
	m := wire.AppendHandshakeHeader(nil, t, len(body), seq, 0, len(body))
	return append(m, body...)
}

// next returns a handshake message with the next message_seq and adds it to
// the transcript.
func (c *Client) next(t wire.HandshakeType, body []byte) []byte {
	m := Message(t, c.MessageSeq, body)
	c.MessageSeq++
	c.transcript = append(c.transcript, m...)
	return m
}

// HelloBody returns the body of a ClientHello with the cookie that the client
// has.
func (c *Client) HelloBody() []byte {
	b := cryptobyte.NewBuilder(nil)
	b.AddUint16(wire.VersionDTLS12)
	b.AddBytes(c.Random[:])
	b.AddUint8(0)
	b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(c.Cookie) })
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
		for _, id := range c.suites() {
			b.AddUint16(id)
		}
	})
	b.AddUint8(1)
	b.AddUint8(0)
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
		if c.Extensions != nil {
			b.AddBytes(c.Extensions)
			return
		}
		b.AddBytes([]byte{0xff, 1, 0, 1, 0})
		if !c.NoEMS {
			b.AddBytes([]byte{0, 23, 0, 0})
		}
	})
	return b.BytesOrPanic()
}

func (c *Client) suites() []uint16 {
	if c.Suites == nil {
		return []uint16{suite.PSKWithAES128GCM}
	}
	return c.Suites
}

// Hello returns a datagram with a ClientHello. Each is the first of the
// transcript, as the one whose cookie is right will be.
func (c *Client) Hello() []byte {
	c.transcript = nil
	c.serverStarted = false
	return c.Plain(wire.ContentHandshake, c.next(wire.TypeClientHello, c.HelloBody()))
}

// KeyExchange returns the three records of the client's last flight. The
// server must have said HelloDone.
func (c *Client) KeyExchange() (clientKeyExchange, changeCipherSpec, finished []byte) {
	identity := binary.BigEndian.AppendUint16(nil, uint16(len(c.Identity)))
	identity = append(identity, c.Identity...)
	clientKeyExchange = c.Plain(wire.ContentHandshake, c.next(wire.TypeClientKeyExchange, identity))
	c.deriveKeys()
	changeCipherSpec = c.Plain(wire.ContentChangeCipherSpec, []byte{1})
	finished = c.Sealed(wire.ContentHandshake, c.FinishedMessage())
	return
}

// Flight returns the client's last flight in one datagram.
func (c *Client) Flight() []byte {
	a, b, f := c.KeyExchange()
	return bytes.Join([][]byte{a, b, f}, nil)
}

// deriveKeys makes the keys from the transcript up to ClientKeyExchange.
func (c *Client) deriveKeys() {
	premaster := suite.PSKPremaster(c.Key)
	if _, ems := c.ServerHello.Extensions[23]; ems {
		c.master = c.suite.ExtendedMasterSecret(premaster, c.transcriptHash())
	} else {
		c.master = c.suite.MasterSecret(premaster, c.Random[:], c.ServerHello.Random)
	}
	keys := c.suite.Keys(c.master, c.Random[:], c.ServerHello.Random)
	var err1, err2 error
	c.sealer, err1 = record.NewSealer(c.suite, 1, keys.ClientKey, keys.ClientIV)
	c.opener, err2 = record.NewOpener(c.suite, keys.ServerKey, keys.ServerIV)
	if err := errors.Join(err1, err2); err != nil {
		panic(err)
	}
}

// FinishedMessage returns the client's Finished. Each call gives it the same
// message_seq; the first adds it to the transcript.
func (c *Client) FinishedMessage() []byte {
	if n := len(c.transcript); n > 24 && wire.HandshakeType(c.transcript[n-24]) == wire.TypeFinished {
		return c.transcript[n-24:]
	}
	return c.next(wire.TypeFinished, c.suite.ClientVerifyData(c.master, c.transcriptHash()))
}

func (c *Client) transcriptHash() []byte {
	h := c.suite.Hash()
	h.Write(c.transcript)
	return h.Sum(nil)
}

// Receive takes a datagram of the server. It fails when the server does what a
// server must not.
func (c *Client) Receive(datagram []byte) error {
	for len(datagram) > 0 {
		r, rest, ok := wire.ParseRecord(datagram)
		if !ok {
			return errors.New("malformed record")
		}
		datagram = rest
		c.Seen = append(c.Seen, r)
		if err := c.receiveRecord(r); err != nil {
			return err
		}
	}
	return nil
}

func (c *Client) receiveRecord(r wire.Record) error {
	content := r.Payload
	if r.Epoch > 0 {
		if c.opener == nil {
			return errors.New("sealed record before the keys")
		}
		var err error
		if content, err = c.opener.Open(nil, r); err != nil {
			return err
		}
	}
	switch r.Type {
	case wire.ContentHandshake:
		for len(content) > 0 {
			f, rest, ok := wire.ParseFragment(content)
			if !ok {
				return errors.New("malformed handshake message")
			}
			content = rest
			if f, ok = c.assemble(f); !ok {
				continue
			}
			if err := c.receiveMessage(f); err != nil {
				return err
			}
		}
	case wire.ContentAlert:
		a, ok := wire.ParseAlert(content)
		if !ok {
			return errors.New("malformed alert")
		}
		c.Alerts = append(c.Alerts, a)
	case wire.ContentApplicationData:
		if r.Epoch == 0 {
			return errors.New("plaintext application data")
		}
		c.Data = append(c.Data, content)
	}
	return nil
}

// assemble puts fragments together that come in order.
func (c *Client) assemble(f wire.Fragment) (wire.Fragment, bool) {
	if f.Whole() {
		return f, true
	}
	c.Fragments++
	if f.Offset == 0 {
		c.partial = nil
	}
	if int(f.Offset) != len(c.partial) {
		return f, false
	}
	c.partial = append(c.partial, f.Body...)
	if len(c.partial) < int(f.Length) {
		return f, false
	}
	f.Offset, f.Body, c.partial = 0, c.partial, nil
	return f, true
}

func (c *Client) receiveMessage(f wire.Fragment) error {
	if f.Type == wire.TypeHelloVerifyRequest {
		s := cryptobyte.String(f.Body)
		var version uint16
		var cookie cryptobyte.String
		if !s.ReadUint16(&version) || !s.ReadUint8LengthPrefixed(&cookie) || !s.Empty() {
			return errors.New("malformed HelloVerifyRequest")
		}
		c.Cookie = bytes.Clone(cookie)
		return nil
	}
	if f.Type == wire.TypeServerHello && !c.serverStarted {
		c.serverStarted = true
		c.serverSeq = f.MessageSeq
	}
	if f.MessageSeq != c.serverSeq {
		return nil // a repetition
	}
	c.serverSeq++
	if f.Type == wire.TypeFinished {
		want := c.suite.ServerVerifyData(c.master, c.transcriptHash())
		if !bytes.Equal(f.Body, want) {
			return errors.New("wrong verify_data")
		}
		c.Complete = true
	}
	c.transcript = append(c.transcript, Message(f.Type, f.MessageSeq, f.Body)...)
	switch f.Type {
	case wire.TypeServerHello:
		return c.receiveServerHello(f.Body)
	case wire.TypeServerKeyExchange:
		s := cryptobyte.String(f.Body)
		if !s.ReadUint16LengthPrefixed((*cryptobyte.String)(&c.Hint)) || !s.Empty() {
			return errors.New("malformed ServerKeyExchange")
		}
	case wire.TypeServerHelloDone:
		c.HelloDone = true
	}
	return nil
}

func (c *Client) receiveServerHello(body []byte) error {
	h := &ServerHello{}
	s := cryptobyte.String(body)
	var compression uint8
	if !s.ReadUint16(&h.Version) || !s.ReadBytes(&h.Random, wire.RandomLen) ||
		!s.ReadUint8LengthPrefixed((*cryptobyte.String)(&h.SessionID)) ||
		!s.ReadUint16(&h.Suite) || !s.ReadUint8(&compression) || compression != 0 {
		return errors.New("malformed ServerHello")
	}
	if !s.Empty() {
		var block cryptobyte.String
		if !s.ReadUint16LengthPrefixed(&block) || !s.Empty() {
			return errors.New("malformed extensions block")
		}
		h.Extensions = make(map[uint16][]byte)
		for !block.Empty() {
			var id uint16
			var data cryptobyte.String
			if !block.ReadUint16(&id) || !block.ReadUint16LengthPrefixed(&data) {
				return errors.New("malformed extension")
			}
			h.Extensions[id] = data
		}
	}
	if c.suite = suite.ByID(h.Suite); c.suite == nil {
		return fmt.Errorf("unknown suite %#04x", h.Suite)
	}
	c.ServerHello = h
	return nil
}
