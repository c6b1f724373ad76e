// Package testpeer is a DTLS 1.2 client that is driven by hand, message by
// message: it sends what its caller asks for, right or wrong, and never by
// itself. Tests use it to put a server into any state. It checks what a client
// must check, and nothing of the library but its tests imports it.
package testpeer

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/rand"
	"encoding/binary"
	"errors"

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
	Version  uint16 // client_version; zero: DTLS 1.2
	NoEMS    bool
	// Extensions, when not nil, replaces the extensions block's content.
	Extensions []byte
	// Seq is the next record sequence number of epoch 0, MessageSeq the next
	// message_seq.
	Seq        uint64
	MessageSeq uint16

	// Ticket is offered for resumption with Master, the secret of its session.
	// AskTicket offers an empty one.
	Ticket    []byte
	Master    []byte
	SessionID []byte
	AskTicket bool

	Groups  []uint16 // nil: all; empty: not said
	Schemes []uint16 // of signatures; nil: all
	// Strict: the server's certificate must be of one of Groups, too (RFC 8422
	// section 4).
	Strict     bool
	ServerName string   // empty: none
	Protocols  []string // of ALPN
	More       []byte   // further extensions
	// Chain and Signer are sent when the server asks for a certificate. Nil:
	// an empty chain.
	Chain  [][]byte
	Signer crypto.Signer
	// SkipVerify leaves CertificateVerify out, WrongVerify signs something
	// else.
	SkipVerify, WrongVerify bool

	// CID, when not nil, is offered as the connection ID for the server's records, and
	// may be empty. CheckPaths offers the return routability check too.
	CID        []byte
	CheckPaths bool

	Cookie []byte // from the last HelloVerifyRequest

	// What the server said.
	ServerHello *ServerHello
	Hint        []byte
	HelloDone   bool
	ServerChain [][]byte
	Requested   bool   // a certificate
	Group       uint16 // of the server's key
	Staple      []byte // of CertificateStatus
	SignedWith  uint16 // the scheme of ServerKeyExchange
	NewTicket   []byte
	Resuming    bool // the server resumes
	Complete    bool // its Finished was right
	Alerts      []wire.Alert
	Data        [][]byte
	ServerCID   []byte             // what the client's records have; nil: none
	Paths       []wire.PathMessage // of the return routability check
	Fragments   int                // how many fragments of split messages came
	// Seen are the datagrams' records, in order.
	Seen []wire.Record

	partials      map[uint16]*partial      // by message_seq
	early         map[uint16]wire.Fragment // whole messages ahead of their turn
	transcript    []byte
	finished      []byte
	serverSeq     uint16 // message_seq of the server's next message
	serverStarted bool
	suite         *suite.Suite
	master        []byte
	sealer        record.Sealer
	opener        record.Opener
	keyed         bool   // it has a key
	public        []byte // the server's, of ECDHE
	shared        []byte
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
	r, err := (*record.Plaintext)(&c.Seq).Append(nil, t, nil, content)
	if err != nil {
		panic(err)
	}
	return r
}

// Sealed returns a record of epoch 1.
func (c *Client) Sealed(t wire.ContentType, content []byte) []byte {
	r, err := c.sealer.Append(nil, c.ServerCID, t, nil, content)
	if err != nil {
		panic(err)
	}
	return r
}

// Path returns a record with a message of the return routability check.
func (c *Client) Path(t wire.PathMessageType, cookie [wire.PathCookieLen]byte) []byte {
	m := wire.PathMessage{Type: t, Cookie: cookie}
	return c.Sealed(wire.ContentReturnRoutability, m.Append(nil))
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
	b.AddUint16(cmp.Or(c.Version, wire.VersionDTLS12))
	b.AddBytes(c.Random[:])
	b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(c.SessionID) })
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
		c.addNames(b)
		if c.AskTicket || c.Ticket != nil {
			b.AddUint16(35)
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(c.Ticket) })
		}
		if c.CID != nil {
			b.AddUint16(54)
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
				b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(c.CID) })
			})
		}
		if c.CheckPaths {
			b.AddBytes([]byte{0, 61, 0, 0})
		}
		b.AddBytes(c.More)
		if !c.certificates() {
			return
		}
		list := func(id uint16, values []uint16) {
			b.AddUint16(id)
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
				b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
					for _, v := range values {
						b.AddUint16(v)
					}
				})
			})
		}
		groups := c.Groups
		if groups == nil {
			groups = suite.Groups()
		}
		schemes := c.Schemes
		if schemes == nil {
			schemes = suite.Schemes()
		}
		if len(groups) > 0 {
			list(10, groups)
		}
		list(13, schemes)
		b.AddBytes([]byte{0, 11, 0, 2, 1, 0})
	})
	return b.BytesOrPanic()
}

func (c *Client) suites() []uint16 {
	if c.Suites == nil {
		return []uint16{suite.PSKWithAES128GCM}
	}
	return c.Suites
}

// addNames adds server_name and ALPN.
func (c *Client) addNames(b *cryptobyte.Builder) {
	nested := func(b *cryptobyte.Builder, f cryptobyte.BuilderContinuation) {
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddUint16LengthPrefixed(f) })
	}
	if c.ServerName != "" {
		b.AddUint16(0)
		nested(b, func(b *cryptobyte.Builder) {
			b.AddUint8(0)
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(c.ServerName)) })
		})
	}
	if c.Protocols != nil {
		b.AddUint16(16)
		nested(b, func(b *cryptobyte.Builder) {
			for _, p := range c.Protocols {
				b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(p)) })
			}
		})
	}
}

// certificates reports whether the hello needs what ECDHE and certificates do.
func (c *Client) certificates() bool {
	for _, id := range c.suites() {
		if s := suite.ByID(id); s != nil && s.KeyExchange.ECDHE() {
			return true
		}
	}
	return false
}

// Hello returns a datagram with a ClientHello. Each is the first of the
// transcript, as the one whose cookie is right will be.
func (c *Client) Hello() []byte {
	c.transcript, c.finished = nil, nil
	c.partials, c.early = nil, nil
	c.serverStarted = false
	return c.Plain(wire.ContentHandshake, c.next(wire.TypeClientHello, c.HelloBody()))
}

// KeyExchange returns the three records of the client's last flight when no
// certificate is asked for. The server must have said HelloDone.
func (c *Client) KeyExchange() (clientKeyExchange, changeCipherSpec, finished []byte) {
	r := c.Records()
	return r[0], r[1], r[2]
}

// Flight returns the client's last flight in one datagram.
func (c *Client) Flight() []byte { return bytes.Join(c.Records(), nil) }

// Records returns the records of the client's last flight, one a message.
func (c *Client) Records() (records [][]byte) {
	say := func(t wire.HandshakeType, body []byte) {
		records = append(records, c.Plain(wire.ContentHandshake, c.next(t, body)))
	}
	if c.Requested {
		say(wire.TypeCertificate, wire.AppendCertificate(nil, c.Chain))
	}
	say(wire.TypeClientKeyExchange, c.keyExchange())
	c.deriveKeys()
	if c.Requested && c.Chain != nil && !c.SkipVerify {
		signed := c.transcript
		if c.WrongVerify {
			signed = append(bytes.Clone(signed), 1)
		}
		for _, scheme := range suite.Schemes() {
			if suite.CanSign(c.Signer.Public(), scheme) {
				signature, err := suite.Sign(rand.Reader, c.Signer, scheme, signed)
				if err != nil {
					panic(err)
				}
				say(wire.TypeCertificateVerify, wire.AppendSignature(nil, scheme, signature))
				break
			}
		}
	}
	return append(records,
		c.Plain(wire.ContentChangeCipherSpec, []byte{1}),
		c.Sealed(wire.ContentHandshake, c.FinishedMessage()))
}

// Again returns the message of a record of the client's, which is no alert and
// no data, in a new record (RFC 6347 section 4.2.4).
func (c *Client) Again(old []byte) []byte {
	r, _, ok := wire.ParseRecord(old, len(c.ServerCID))
	switch {
	case !ok:
		panic("testpeer: no record of Client's")
	case r.Epoch == 0:
		return c.Plain(r.Type, r.Payload)
	default:
		return c.Sealed(wire.ContentHandshake, c.FinishedMessage())
	}
}

// Split returns the message of a plaintext handshake record in fragments, each
// of at most size bytes in a record of its own (RFC 6347 section 4.2.3).
func (c *Client) Split(whole []byte, size int) (records [][]byte) {
	r, _, _ := wire.ParseRecord(whole, 0)
	f, _, ok := wire.ParseFragment(r.Payload)
	if !ok || !f.Whole() || r.Epoch != 0 {
		panic("testpeer: no record with a whole message in plaintext")
	}
	for from := 0; from < len(f.Body); from += size {
		part := f.Body[from:min(from+size, len(f.Body))]
		m := wire.AppendHandshakeHeader(nil, f.Type, len(f.Body), f.MessageSeq, from, len(part))
		records = append(records, c.Plain(wire.ContentHandshake, append(m, part...)))
	}
	return records
}

// Resume returns the client's flight of an abbreviated handshake, when the
// server's Finished was right.
func (c *Client) Resume() []byte {
	ccs := c.Plain(wire.ContentChangeCipherSpec, []byte{1})
	return append(ccs, c.Sealed(wire.ContentHandshake, c.FinishedMessage())...)
}

// keyExchange returns the body of ClientKeyExchange.
func (c *Client) keyExchange() (body []byte) {
	kx := c.suite.KeyExchange
	if kx.WithPSK() {
		body = binary.BigEndian.AppendUint16(nil, uint16(len(c.Identity)))
		body = append(body, c.Identity...)
	}
	if kx.ECDHE() {
		curve := suite.Curve(c.Group)
		key, err := curve.GenerateKey(rand.Reader)
		if err != nil {
			panic(err)
		}
		server, err := curve.NewPublicKey(c.public)
		if err != nil {
			panic(err)
		}
		if c.shared, err = key.ECDH(server); err != nil {
			panic(err)
		}
		public := key.PublicKey().Bytes()
		body = append(append(body, byte(len(public))), public...)
	}
	return body
}

// deriveKeys makes the keys from the transcript up to ClientKeyExchange.
func (c *Client) deriveKeys() {
	var premaster []byte
	switch c.suite.KeyExchange {
	case suite.PSK:
		premaster = suite.AppendPSKPremaster(nil, c.Key)
	case suite.ECDHEPSK:
		premaster = suite.AppendECDHEPSKPremaster(nil, c.shared, c.Key)
	default:
		premaster = c.shared
	}
	if _, ems := c.ServerHello.Extensions[23]; ems {
		c.master = c.suite.NewSecret(premaster).ExtendedMasterSecret(c.transcriptHash())
	} else {
		c.master = c.suite.NewSecret(premaster).MasterSecret(c.Random[:], c.ServerHello.Random)
	}
	c.installKeys(c.master)
}

func (c *Client) installKeys(master []byte) {
	c.master, c.Master = master, bytes.Clone(master)
	keys := c.suite.NewSecret(c.master).Keys(c.Random[:], c.ServerHello.Random)
	if err := errors.Join(
		c.sealer.Init(c.suite.AEAD, 1, keys.ClientKey, keys.ClientIV),
		c.opener.Init(c.suite.AEAD, keys.ServerKey, keys.ServerIV)); err != nil {
		panic(err)
	}
	c.keyed = true
}

// FinishedMessage returns the client's Finished. Each call gives it the same
// message_seq; the first adds it to the transcript.
func (c *Client) FinishedMessage() []byte {
	if c.finished == nil {
		c.finished = c.next(wire.TypeFinished, c.suite.NewSecret(c.master).ClientVerifyData(c.transcriptHash()))
	}
	return c.finished
}

func (c *Client) transcriptHash() []byte {
	h := c.suite.Hash.New()
	h.Write(c.transcript)
	return h.Sum(nil)
}
