package testpeer

// What the client does with what the server says: it checks what a client must
// check.

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"

	"github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// ErrConnectionID is what Receive returns for a sealed record that has the connection ID
// of another, or one where none is due, or none where one is. Its client ignores it.
var ErrConnectionID = errors.New("sealed record whose connection ID is not the client's")

// Receive takes a datagram of the server. It fails when the server does what a
// server must not.
func (c *Client) Receive(datagram []byte) error {
	for len(datagram) > 0 {
		r, rest, ok := wire.ParseRecord(datagram, len(c.CID))
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
	content, t := r.Payload, r.Type
	if withCID := len(c.CID) > 0 && c.ServerCID != nil; r.Sealed() && r.HasCID() != withCID {
		return ErrConnectionID
	}
	if r.Sealed() {
		if r.HasCID() && !bytes.Equal(r.CID(), c.CID) {
			return ErrConnectionID
		}
		if !c.keyed && c.Ticket != nil && c.ServerHello != nil && !c.HelloDone {
			c.Resuming = true
			c.installKeys(c.Master)
		}
		if !c.keyed {
			return errors.New("sealed record before the keys")
		}
		var err error
		if content, t, err = c.opener.Open(nil, r); err != nil {
			return err
		}
	}
	switch t {
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
	case wire.ContentReturnRoutability:
		m, ok := wire.ParsePathMessage(content)
		if _, agreed := c.ServerHello.Extensions[61]; !ok || !agreed {
			return errors.New("malformed message about a path, or out of its place")
		}
		c.Paths = append(c.Paths, m)
	}
	return nil
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
	if !c.serverStarted || f.MessageSeq != c.serverSeq {
		c.keep(f)
		return nil
	}
	for ok := true; ok; f, ok = c.kept() {
		c.serverSeq++
		if err := c.receiveNext(f); err != nil {
			return err
		}
	}
	return nil
}

// receiveNext takes the server's next message.
func (c *Client) receiveNext(f wire.Fragment) error {
	if f.Type == wire.TypeFinished {
		want := c.suite.NewSecret(c.master).ServerVerifyData(c.transcriptHash())
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
		return c.receiveServerKeyExchange(f.Body)
	case wire.TypeCertificate:
		chain, ok := wire.ParseCertificate(f.Body)
		if !ok || len(chain) == 0 {
			return errors.New("malformed Certificate")
		}
		c.ServerChain = chain
	case wire.TypeCertificateStatus:
		if len(f.Body) < 4 || f.Body[0] != 1 || len(f.Body) != 4+int(f.Body[1])<<16+int(f.Body[2])<<8+int(f.Body[3]) || c.ServerChain == nil || c.SignedWith != 0 {
			return errors.New("malformed CertificateStatus, or out of its place")
		}
		c.Staple = f.Body[4:]
	case wire.TypeCertificateRequest:
		c.Requested = true
	case wire.TypeNewSessionTicket:
		if len(f.Body) < 6 || len(f.Body) != 6+int(f.Body[4])<<8+int(f.Body[5]) {
			return errors.New("malformed NewSessionTicket")
		}
		c.NewTicket = f.Body[6:]
	case wire.TypeServerHelloDone:
		c.HelloDone = true
	}
	return nil
}

func (c *Client) receiveServerKeyExchange(body []byte) error {
	malformed := errors.New("malformed ServerKeyExchange")
	s := cryptobyte.String(body)
	kx := c.suite.KeyExchange
	if kx.WithPSK() && !s.ReadUint16LengthPrefixed((*cryptobyte.String)(&c.Hint)) {
		return malformed
	}
	params := []byte(s)
	if kx.ECDHE() {
		var curveType uint8
		if !s.ReadUint8(&curveType) || curveType != 3 || !s.ReadUint16(&c.Group) ||
			!s.ReadUint8LengthPrefixed((*cryptobyte.String)(&c.public)) {
			return malformed
		}
	}
	params = params[:len(params)-len(s)]
	if !kx.WithPSK() {
		scheme, signature, ok := wire.ParseCertificateVerify(s)
		if !ok {
			return malformed
		}
		if len(c.ServerChain) == 0 {
			return errors.New("ServerKeyExchange without a Certificate")
		}
		leaf, err := x509.ParseCertificate(c.ServerChain[0])
		if err != nil {
			return err
		}
		c.SignedWith = scheme
		if key, ok := leaf.PublicKey.(*ecdsa.PublicKey); ok && c.Strict && !slices.Contains(c.Groups, groupOf(key)) {
			return errors.New("certificate of a group that was not offered") // RFC 8422 section 4
		}
		signed := bytes.Join([][]byte{c.Random[:], c.ServerHello.Random, params}, nil)
		if !suite.Verify(leaf.PublicKey, scheme, signed, signature) {
			return errors.New("wrong signature in ServerKeyExchange")
		}
		return nil
	}
	if !s.Empty() {
		return malformed
	}
	return nil
}

// groupOf is the group that a key's curve is.
func groupOf(key *ecdsa.PublicKey) uint16 {
	switch key.Curve {
	case elliptic.P256():
		return suite.GroupP256
	case elliptic.P384():
		return suite.GroupP384
	}
	return 0
}

// Export is what RFC 5705 exports.
func (c *Client) Export(label string, context []byte, n int) []byte {
	return c.suite.NewSecret(c.master).Export(n, c.Random[:], c.ServerHello.Random, label, context)
}

// receiveConnectionID takes what a ServerHello says of connection IDs.
func (c *Client) receiveConnectionID(h *ServerHello) error {
	_, checks := h.Extensions[61]
	if checks && !c.CheckPaths {
		return errors.New("rrc was not offered")
	}
	data, ok := h.Extensions[54]
	switch {
	case !ok && checks:
		return errors.New("rrc without a connection ID")
	case !ok:
		return nil
	case c.CID == nil:
		return errors.New("connection_id was not offered")
	case len(data) < 2 || len(data) != 1+int(data[0]):
		return errors.New("malformed connection_id")
	}
	c.ServerCID = bytes.Clone(data[1:]) // which outlives the datagram
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
	if !slices.Contains(c.suites(), h.Suite) {
		return fmt.Errorf("suite %#04x was not offered", h.Suite)
	}
	c.ServerHello = h
	return c.receiveConnectionID(h)
}
