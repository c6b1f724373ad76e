// Tests with the client of the standard library's crypto/tls at the other side of TLS
// 1.3. It runs as QUIC has it: messages without records, and with the secrets shown.

package suite

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// standardClient is a client of crypto/tls.
type standardClient struct {
	conn    *tls.QUICConn
	sent    map[tls.QUICEncryptionLevel][]byte
	secrets map[string][]byte // "read" or "write", and the level
}

func newStandardClient(t *testing.T, config *tls.Config) *standardClient {
	t.Helper()
	c := &standardClient{tls.QUICClient(&tls.QUICConfig{TLSConfig: config}), map[tls.QUICEncryptionLevel][]byte{}, map[string][]byte{}}
	c.conn.SetTransportParameters([]byte{})
	t.Cleanup(func() { c.conn.Close() })
	if err := c.conn.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.look()
	return c
}

// look takes what the client sends and derives.
func (c *standardClient) look() {
	for {
		switch e := c.conn.NextEvent(); e.Kind {
		case tls.QUICNoEvent:
			return
		case tls.QUICWriteData:
			c.sent[e.Level] = append(c.sent[e.Level], e.Data...)
		case tls.QUICSetReadSecret:
			c.secrets["read "+e.Level.String()] = bytes.Clone(e.Data)
		case tls.QUICSetWriteSecret:
			c.secrets["write "+e.Level.String()] = bytes.Clone(e.Data)
		}
	}
}

// take returns what the client has sent in a level.
func (c *standardClient) take(level tls.QUICEncryptionLevel) []byte {
	b := c.sent[level]
	c.sent[level] = nil
	return b
}

func (c *standardClient) give(t *testing.T, level tls.QUICEncryptionLevel, message []byte) {
	t.Helper()
	if err := c.conn.HandleData(level, message); err != nil {
		t.Fatalf("the client: %v", err)
	}
	c.look()
}

// message is a handshake message, whose body add makes.
func message(t byte, add func(b *cryptobyte.Builder)) []byte {
	b := cryptobyte.NewBuilder([]byte{t})
	b.AddUint24LengthPrefixed(add)
	return b.BytesOrPanic()
}

func addExtension(b *cryptobyte.Builder, t uint16, add func(b *cryptobyte.Builder)) {
	b.AddUint16(t)
	b.AddUint16LengthPrefixed(add)
}

// clientExtensions returns the extensions of a ClientHello.
func clientExtensions(t *testing.T, hello []byte) map[uint16]cryptobyte.String {
	t.Helper()
	s := cryptobyte.String(hello)
	var session, suites, compressions, list cryptobyte.String
	if !s.Skip(4+2+32) || !s.ReadUint8LengthPrefixed(&session) || !s.ReadUint16LengthPrefixed(&suites) ||
		!s.ReadUint8LengthPrefixed(&compressions) || !s.ReadUint16LengthPrefixed(&list) || !s.Empty() {
		t.Fatalf("ClientHello %x", hello)
	}
	all := map[uint16]cryptobyte.String{}
	for !list.Empty() {
		var id uint16
		var body cryptobyte.String
		if !list.ReadUint16(&id) || !list.ReadUint16LengthPrefixed(&body) {
			t.Fatalf("ClientHello %x", hello)
		}
		all[id] = body
	}
	return all
}

// shareOf returns the client's share of a group, or nil.
func shareOf(t *testing.T, hello []byte, group uint16) []byte {
	t.Helper()
	var list cryptobyte.String
	s := clientExtensions(t, hello)[51]
	if !s.ReadUint16LengthPrefixed(&list) {
		t.Fatalf("ClientHello %x", hello)
	}
	for !list.Empty() {
		var id uint16
		var share cryptobyte.String
		if !list.ReadUint16(&id) || !list.ReadUint16LengthPrefixed(&share) {
			t.Fatalf("ClientHello %x", hello)
		}
		if id == group {
			return share
		}
	}
	return nil
}

// standardServer is a server of this package's parts for one standardClient.
type standardServer struct {
	suite      *Suite13
	group      uint16
	retry      bool // by a HelloRetryRequest
	key        crypto.Signer
	scheme     uint16
	clientCert bool

	schedule   Schedule
	transcript Digest
}

func (s *standardServer) hash() []byte { return s.transcript.Sum(nil) }

// helloRetryRequest is the random that marks a ServerHello as one.
const helloRetryRequest = "cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c"

// serverHello is a ServerHello with a key share, or a HelloRetryRequest that asks for
// one.
func (s *standardServer) serverHello(random, share []byte, psk bool) []byte {
	return message(2, func(b *cryptobyte.Builder) {
		b.AddUint16(0x0303)
		b.AddBytes(random)
		b.AddUint8(0)
		b.AddUint16(s.suite.ID)
		b.AddUint8(0)
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			addExtension(b, 43, func(b *cryptobyte.Builder) { b.AddUint16(0x0304) })
			addExtension(b, 51, func(b *cryptobyte.Builder) {
				b.AddUint16(s.group)
				if share != nil {
					b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(share) })
				}
			})
			if psk {
				addExtension(b, 41, func(b *cryptobyte.Builder) { b.AddUint16(0) })
			}
		})
	})
}

// handshake has a handshake with a client, resumed if there is a pre-shared key, and
// hands it a ticket. It returns the pre-shared key of that.
func (s *standardServer) handshake(t *testing.T, c *standardClient, psk []byte) []byte {
	t.Helper()
	size := s.suite.Hash.Size()
	schedule := &s.schedule
	schedule.prefix = "tls13 "
	s.transcript.Begin(s.suite.Hash)
	give := func(level tls.QUICEncryptionLevel, m []byte) {
		t.Helper()
		s.transcript.Write(m)
		c.give(t, level, m)
	}

	hello := c.take(tls.QUICEncryptionLevelInitial)
	if s.retry {
		if shareOf(t, hello, s.group) != nil {
			t.Fatal("there is a share of the group already")
		}
		s.transcript.Write(hello)
		first := s.hash()
		s.transcript.Begin(s.suite.Hash)
		s.transcript.Write(wire.AppendMessageHash(nil, first))
		give(tls.QUICEncryptionLevelInitial, s.serverHello(unhex(t, helloRetryRequest), nil, false))
		hello = c.take(tls.QUICEncryptionLevelInitial)
	}
	schedule.Begin(s.suite, psk)
	if offered := clientExtensions(t, hello)[41] != nil; offered != (psk != nil) {
		t.Fatalf("the client offers a pre-shared key: %v", offered)
	}
	if psk != nil {
		cut := len(hello) - 2 - 1 - size
		s.transcript.Write(hello[:cut])
		wantBytes(t, "binder", schedule.ResumptionBinder(s.hash()), hello[cut+3:])
		s.transcript.Write(hello[cut:])
	} else {
		s.transcript.Write(hello)
	}
	share, shared, err := ServerShare(rand.Reader, s.group, shareOf(t, hello, s.group))
	if err != nil {
		t.Fatal(err)
	}
	give(tls.QUICEncryptionLevelInitial, s.serverHello(sequence(9, 32), share, psk != nil))

	schedule.Handshake(shared)
	client, server := schedule.HandshakeTraffic(s.hash())
	client, server = bytes.Clone(client), bytes.Clone(server)
	wantBytes(t, "client's handshake traffic secret", client, c.secrets["write Handshake"])
	wantBytes(t, "server's handshake traffic secret", server, c.secrets["read Handshake"])

	give(tls.QUICEncryptionLevelHandshake, message(8, func(b *cryptobyte.Builder) {
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			addExtension(b, 57, func(*cryptobyte.Builder) {})
			addExtension(b, 16, func(b *cryptobyte.Builder) { b.AddBytes([]byte("\x00\x02\x01p")) })
		})
	}))
	if psk == nil {
		s.authenticate(t, give)
	}
	give(tls.QUICEncryptionLevelHandshake, message(20, func(b *cryptobyte.Builder) { b.AddBytes(schedule.Finished(server, s.hash())) }))

	schedule.Master()
	clientData, serverData := schedule.ApplicationTraffic(s.hash())
	wantBytes(t, "client's application traffic secret", clientData, c.secrets["write Application"])
	wantBytes(t, "server's application traffic secret", serverData, c.secrets["read Application"])
	exporter := bytes.Clone(schedule.ExporterMaster(s.hash()))

	for _, m := range messages(c.take(tls.QUICEncryptionLevelHandshake)) {
		switch m[0] {
		case 15:
			if !Verify13(s.key.Public(), s.scheme, ClientSigned(s.hash()), m[8:]) {
				t.Error("the client's CertificateVerify does not verify")
			}
		case 20:
			wantBytes(t, "the client's verify_data", schedule.Finished(client, s.hash()), m[4:])
		}
		s.transcript.Write(m)
	}

	state := c.conn.ConnectionState()
	if state.DidResume != (psk != nil) || state.CipherSuite != s.suite.ID || uint16(state.CurveID) != s.group || state.HelloRetryRequest != s.retry {
		t.Errorf("resumed %v, suite %#04x, group %#04x, retry %v", state.DidResume, state.CipherSuite, uint16(state.CurveID), state.HelloRetryRequest)
	}
	for _, context := range [][]byte{nil, {}, []byte("context")} {
		want, err := state.ExportKeyingMaterial("EXPORTER-test", context, 100)
		if err != nil {
			t.Fatal(err)
		}
		got, err := schedule.Export(100, exporter, "EXPORTER-test", context)
		if err != nil {
			t.Fatal(err)
		}
		wantBytes(t, "keying material", got, want)
	}

	nonce := []byte{7, 7, 7}
	resumption := bytes.Clone(schedule.ResumptionMaster(s.hash()))
	c.give(t, tls.QUICEncryptionLevelApplication, message(4, func(b *cryptobyte.Builder) {
		b.AddUint32(3600)
		b.AddUint32(1)
		b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(nonce) })
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte("ticket")) })
		b.AddUint16(0)
	}))
	return bytes.Clone(schedule.ResumptionPSK(resumption, nonce))
}

// authenticate gives the client a certificate and a signature, after a request for the
// client's.
func (s *standardServer) authenticate(t *testing.T, give func(tls.QUICEncryptionLevel, []byte)) {
	t.Helper()
	if s.clientCert {
		give(tls.QUICEncryptionLevelHandshake, message(13, func(b *cryptobyte.Builder) {
			b.AddUint8(0)
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
				addExtension(b, 13, func(b *cryptobyte.Builder) {
					b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddUint16(s.scheme) })
				})
			})
		}))
	}
	give(tls.QUICEncryptionLevelHandshake, message(11, func(b *cryptobyte.Builder) {
		b.AddUint8(0)
		b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
			b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(selfSigned(t, s.key)) })
			b.AddUint16(0)
		})
	}))
	signature, err := Sign13(rand.Reader, s.key, s.scheme, ServerSigned(s.hash()))
	if err != nil {
		t.Fatal(err)
	}
	give(tls.QUICEncryptionLevelHandshake, message(15, func(b *cryptobyte.Builder) {
		b.AddUint16(s.scheme)
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(signature) })
	}))
}

func selfSigned(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "server"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestStandardClient has handshakes with every suite, group and scheme that crypto/tls
// has, each with a resumption.
func TestStandardClient(t *testing.T) {
	t.Parallel()
	keys, _ := readSignatures(t)
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys["p521"] = p521
	tests := []struct {
		name   string
		suite  uint16
		group  uint16
		key    string
		scheme uint16
		retry  bool
		client bool
	}{
		{"hybrid", AES128GCM, GroupX25519MLKEM768, "p256", ECDSAWithSHA256, false, false},
		{"X25519", AES256GCM, GroupX25519, "p384", ECDSAWithSHA384, false, false},
		{"P-256", ChaCha20, GroupP256, "ed25519", Ed25519, false, false},
		{"P-384", AES128GCM, GroupP384, "rsa2048", PSSWithSHA256, false, false},
		{"P-521", AES256GCM, GroupP521, "p521", ECDSAWithSHA512, false, false},
		{"retry", AES128GCM, GroupP256, "rsa2048", PSSWithSHA384, true, false},
		{"retry, SHA-384", AES256GCM, GroupP384, "rsa2048", PSSWithSHA512, true, false},
		{"client with ECDSA", ChaCha20, GroupX25519MLKEM768, "p256", ECDSAWithSHA256, false, true},
		{"client with RSA", AES256GCM, GroupP256, "rsa2048", PSSWithSHA512, true, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			config := &tls.Config{
				ServerName: "server", InsecureSkipVerify: true, NextProtos: []string{"p"}, MinVersion: tls.VersionTLS13,
				CurvePreferences:   []tls.CurveID{tls.CurveID(test.group)},
				ClientSessionCache: tls.NewLRUClientSessionCache(1),
			}
			if test.retry {
				config.CurvePreferences = append([]tls.CurveID{tls.X25519}, config.CurvePreferences...) // of which it sends a share
			}
			key := keys[test.key]
			if test.client {
				config.Certificates = []tls.Certificate{{Certificate: [][]byte{selfSigned(t, key)}, PrivateKey: key}}
			}
			s := standardServer{suite: ByID13(test.suite), group: test.group, retry: test.retry, key: key, scheme: test.scheme, clientCert: test.client}
			psk := s.handshake(t, newStandardClient(t, config), nil)
			psk = s.handshake(t, newStandardClient(t, config), psk)
			s.handshake(t, newStandardClient(t, config), psk)
		})
	}
}
