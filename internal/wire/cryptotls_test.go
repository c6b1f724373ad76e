// A second opinion on DTLS 1.3: what crypto/tls writes and reads in TLS 1.3, whose messages
// differ in little, must be what this package says.

package wire

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"net"
	"reflect"
	"slices"
	"testing"

	"github.com/dtlsserver/dtlsserver/internal/testcert"
	"golang.org/x/crypto/cryptobyte"
)

// dtlsClientHello makes a ClientHello of TLS one of DTLS, with an empty cookie.
func dtlsClientHello(body []byte) []byte {
	at := 2 + RandomLen
	at += 1 + int(body[at])
	return slices.Concat(AppendUint16s(nil, VersionDTLS12), body[2:at], []byte{0}, body[at:])
}

// dtlsServerHello gives a ServerHello of TLS the versions of DTLS.
func dtlsServerHello(body []byte) []byte {
	body = slices.Concat(AppendUint16s(nil, VersionDTLS12), body[2:])
	return bytes.Replace(body, []byte{0, 43, 0, 2, 3, 4}, AppendUint16s(nil, 43, 2, VersionDTLS13), 1)
}

func uint16s(list []byte) (all []uint16) {
	for ; len(list) >= 2; list = list[2:] {
		all = append(all, binary.BigEndian.Uint16(list))
	}
	return all
}

// recordingConn keeps what is read from it.
type recordingConn struct {
	net.Conn
	read bytes.Buffer
}

func (c *recordingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.read.Write(b[:n])
	return n, err
}

// tlsClientHello has a client say hello to a server, and returns the body of the hello and
// what the server made of it.
func tlsClientHello(t *testing.T, config *tls.Config) (body []byte, info *tls.ClientHelloInfo) {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Client(far, config).Handshake() // it is refused
		far.Close()
	}()
	conn := &recordingConn{Conn: near}
	_ = tls.Server(conn, &tls.Config{GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) {
		info = i
		return nil, errors.New("that was all")
	}}).Handshake()
	near.Close()
	<-done
	if info == nil {
		t.Fatal("the server saw no hello")
	}
	s := cryptobyte.String(conn.read.Bytes())
	var record, message cryptobyte.String
	if !s.Skip(3) || !s.ReadUint16LengthPrefixed(&record) || !record.Skip(1) || !record.ReadUint24LengthPrefixed(&message) || !record.Empty() {
		t.Fatalf("not one hello in one record: %x", conn.read.Bytes())
	}
	return message, info
}

func TestCryptoTLSClientHello(t *testing.T) {
	t.Parallel()
	sizes := map[tls.CurveID]int{tls.X25519: 32, tls.CurveP256: 65, tls.CurveP384: 97, tls.CurveP521: 133, tls.X25519MLKEM768: 1184 + 32}
	tests := []struct {
		name   string
		config *tls.Config
		shares []tls.CurveID
	}{
		{"as it comes", &tls.Config{}, []tls.CurveID{tls.X25519MLKEM768, tls.X25519}},
		{"1.3 only", &tls.Config{MinVersion: tls.VersionTLS13}, []tls.CurveID{tls.X25519MLKEM768, tls.X25519}},
		{"hybrid only", &tls.Config{CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}}, []tls.CurveID{tls.X25519MLKEM768}},
		{"X25519", &tls.Config{CurvePreferences: []tls.CurveID{tls.X25519}}, []tls.CurveID{tls.X25519}},
		{"P-256", &tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP256}}, []tls.CurveID{tls.CurveP256}},
		{"P-384", &tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP384}}, []tls.CurveID{tls.CurveP384}},
		{"ALPN", &tls.Config{NextProtos: []string{"h2", "coap"}, MinVersion: tls.VersionTLS13}, []tls.CurveID{tls.X25519MLKEM768, tls.X25519}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			config := test.config.Clone()
			config.ServerName = "localhost"
			message, info := tlsClientHello(t, config)
			h, ok := ParseClientHello(dtlsClientHello(message))
			if !ok {
				t.Fatal("the hello does not parse")
			}
			e, ok := ParseClientExtensions13(h.Extensions)
			wantExtensions13(t, h.Extensions, e, ok)
			if !ok || e.Duplicate || e.DuplicateShare || e.PSKNotLast {
				t.Fatalf("got %+v, %v", e, ok)
			}
			if _, ok := ParseClientExtensions(h.Extensions); !ok {
				t.Error("1.2 does not take it")
			}
			wantNumbers(t, "cipher suites", h.CipherSuites, info.CipherSuites)
			wantNumbers(t, "supported_versions", e.SupportedVersions, info.SupportedVersions)
			wantNumbers(t, "supported_groups", e.SupportedGroups, info.SupportedCurves)
			wantNumbers(t, "signature_algorithms", e.SignatureAlgorithms, info.SignatureSchemes)
			wantBytes(t, "ALPN", e.ALPN, names(info.SupportedProtos...))
			if e.ServerName != info.ServerName || !e.StatusRequest || !e.SCT {
				t.Errorf("got %+v", e)
			}
			var shares []tls.CurveID
			for share := range e.KeyShares.All() {
				group := tls.CurveID(share.Group)
				if shares = append(shares, group); len(share.Key) != sizes[group] || !bytes.Equal(e.KeyShares.Key(share.Group), share.Key) {
					t.Errorf("a key of %d bytes for %v", len(share.Key), group)
				}
			}
			if !slices.Equal(shares, test.shares) {
				t.Errorf("shares of %v, want %v", shares, test.shares)
			}
		})
	}
}

// wantNumbers compares a list with what crypto/tls read.
func wantNumbers[N ~uint16](t *testing.T, what string, list []byte, want []N) {
	t.Helper()
	var numbers []uint16
	for _, n := range want {
		numbers = append(numbers, uint16(n))
	}
	if got := uint16s(list); !slices.Equal(got, numbers) {
		t.Errorf("%s %#x, want %#x", what, got, numbers)
	}
}

// tlsMessage is a handshake message in the form in which it is hashed.
type tlsMessage []byte

func (m tlsMessage) typ() HandshakeType { return HandshakeType(m[0]) }
func (m tlsMessage) body() []byte       { return m[TranscriptHeaderLen:] }

// tlsPeer is one side of a handshake of TLS 1.3 for QUIC, whose messages are bare.
type tlsPeer struct {
	*tls.QUICConn
	sent []tlsMessage
	rest []byte
	done bool
}

// tlsHandshake lets two peers shake hands, and returns what each has sent.
func tlsHandshake(t *testing.T, client, server *tls.Config) (fromClient, fromServer []tlsMessage) {
	t.Helper()
	c := &tlsPeer{QUICConn: tls.QUICClient(&tls.QUICConfig{TLSConfig: client})}
	s := &tlsPeer{QUICConn: tls.QUICServer(&tls.QUICConfig{TLSConfig: server})}
	for _, p := range []*tlsPeer{c, s} {
		p.SetTransportParameters([]byte{})
		if err := p.Start(context.Background()); err != nil {
			t.Fatal(err)
		}
		defer p.Close()
	}
	for idle, a, b := 0, c, s; idle < 2; a, b = b, a {
		idle++
		for e := a.NextEvent(); e.Kind != tls.QUICNoEvent; e = a.NextEvent() {
			idle = 0
			switch e.Kind {
			case tls.QUICWriteData:
				a.keep(e.Data)
				if err := b.HandleData(e.Level, e.Data); err != nil {
					t.Fatal(err)
				}
			case tls.QUICHandshakeDone:
				if a.done = true; a == s {
					if err := s.SendSessionTicket(tls.QUICSessionTicketOptions{}); err != nil {
						t.Fatal(err)
					}
				}
			case tls.QUICErrorEvent:
				t.Fatal(e.Err)
			}
		}
	}
	if !c.done || !s.done || len(c.rest) > 0 || len(s.rest) > 0 {
		t.Fatalf("the handshake is not complete: %v, %v", c.done, s.done)
	}
	return c.sent, s.sent
}

// keep splits what a peer has sent into messages.
func (p *tlsPeer) keep(data []byte) {
	p.rest = append(p.rest, data...)
	for len(p.rest) >= TranscriptHeaderLen {
		n := TranscriptHeaderLen + int(p.rest[1])<<16 + int(p.rest[2])<<8 + int(p.rest[3])
		if len(p.rest) < n {
			return
		}
		p.sent = append(p.sent, tlsMessage(p.rest[:n:n]))
		p.rest = p.rest[n:]
	}
}

// sessions is a cache that also keeps what it was given.
type sessions struct {
	tls.ClientSessionCache
	ticket, state []byte
}

func (s *sessions) Put(key string, session *tls.ClientSessionState) {
	if session != nil {
		ticket, state, err := session.ResumptionState()
		if err != nil {
			panic(err)
		}
		if s.ticket = ticket; state != nil {
			if s.state, err = state.Bytes(); err != nil {
				panic(err)
			}
		}
	}
	s.ClientSessionCache.Put(key, session)
}

// tlsConfigs are of peers that use all that this package has a codec for.
func tlsConfigs() (client, server *tls.Config, cache *sessions) {
	authority := testcert.NewAuthority()
	serverCert := authority.Issue("localhost", testcert.NewKey("P-256"))
	serverCert.OCSPStaple = []byte("a response")
	serverCert.SignedCertificateTimestamps = [][]byte{[]byte("first"), []byte("second")}
	cache = &sessions{ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	client = &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: "localhost", RootCAs: authority.Pool, NextProtos: []string{"h2", "coap"},
		Certificates: []tls.Certificate{authority.Issue("client", testcert.NewKey("Ed25519"))}, ClientSessionCache: cache,
	}
	server = &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{serverCert}, NextProtos: []string{"coap"},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: authority.Pool,
	}
	server.SetSessionTicketKeys([][32]byte{{1}})
	return client, server, cache
}

// wantTypes checks which messages a peer has sent.
func wantTypes(t *testing.T, what string, messages []tlsMessage, want ...HandshakeType) {
	t.Helper()
	var got []HandshakeType
	for _, m := range messages {
		got = append(got, m.typ())
		wantBytes(t, "message in the form to hash", AppendTranscript(nil, m.typ(), m.body()), m)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%s has sent %v, want %v", what, got, want)
	}
}

// TestCryptoTLSHandshake reads and writes again every message of a full handshake.
func TestCryptoTLSHandshake(t *testing.T) {
	t.Parallel()
	client, server, cache := tlsConfigs()
	fromClient, fromServer := tlsHandshake(t, client, server)
	wantTypes(t, "the client", fromClient, TypeClientHello, TypeCertificate, TypeCertificateVerify, TypeFinished)
	wantTypes(t, "the server", fromServer, TypeServerHello, TypeEncryptedExtensions, TypeCertificateRequest, TypeCertificate,
		TypeCertificateVerify, TypeFinished, TypeNewSessionTicket)

	hello, ok := ParseServerHello13(dtlsServerHello(fromServer[0].body()))
	if !ok || hello.KeyShare.Group != uint16(tls.X25519MLKEM768) || len(hello.KeyShare.Key) != 1088+32 || hello.PSK {
		t.Errorf("ServerHello %+v, %v", hello, ok)
	}

	// quic_transport_parameters are of QUIC alone.
	withoutQUIC := bytes.Replace(fromServer[1].body(), []byte{0, 57, 0, 0}, nil, 1)
	encrypted, ok := ParseEncryptedExtensions(endVector16(withoutQUIC, 0))
	if !ok || !reflect.DeepEqual(encrypted, EncryptedExtensions{ServerName: true, ALPN: "coap"}) {
		t.Errorf("EncryptedExtensions %+v, %v", encrypted, ok)
	}

	request, ok := ParseCertificateRequest13(fromServer[2].body())
	if !ok || !slices.Contains(uint16s(request.SignatureAlgorithms), uint16(tls.Ed25519)) {
		t.Errorf("CertificateRequest %+v, %v", request, ok)
	}
	authority, err := x509.ParseCertificate(client.Certificates[0].Certificate[1])
	if err != nil {
		t.Fatal(err)
	}
	wantBytes(t, "certificate_authorities", request.CertificateAuthorities, AppendDistinguishedName(nil, authority.RawSubject))

	wantTLSChain(t, fromServer[3].body(), server.Certificates[0])
	wantTLSChain(t, fromClient[1].body(), tls.Certificate{Certificate: client.Certificates[0].Certificate})
	for _, m := range []tlsMessage{fromServer[4], fromClient[2]} {
		scheme, signature, ok := ParseCertificateVerify(m.body())
		if !ok || scheme != uint16(tls.ECDSAWithP256AndSHA256) && scheme != uint16(tls.Ed25519) {
			t.Errorf("CertificateVerify with %#x, %v", scheme, ok)
		}
		wantBytes(t, "CertificateVerify", AppendSignature(nil, scheme, signature), m.body())
	}
	for _, m := range []tlsMessage{fromServer[5], fromClient[3]} {
		if _, ok := ParseFinished13(m.body()); !ok {
			t.Errorf("Finished %x does not parse", m.body())
		}
	}
	ticket, ok := ParseNewSessionTicket13(fromServer[6].body())
	if !ok || ticket.Lifetime != 7*24*3600 {
		t.Errorf("NewSessionTicket %+v, %v", ticket, ok)
	}
	wantBytes(t, "ticket", ticket.Ticket, cache.ticket)
	wantBytes(t, "NewSessionTicket", ticket.Append(nil), fromServer[6].body())
}

// wantTLSChain compares the body of a Certificate with what it was made from.
func wantTLSChain(t *testing.T, body []byte, want tls.Certificate) {
	t.Helper()
	context, chain, ok := ParseCertificate13(body)
	if n, counted := CountCertificates13(body, 10); !ok || !counted || n != len(want.Certificate) || len(chain) != n || len(context) > 0 {
		t.Fatalf("Certificate %+v, %v, %d, %v", chain, ok, n, counted)
	}
	wantBytes(t, "Certificate", AppendCertificate13(nil, context, chain), body)
	for i, entry := range chain {
		wantBytes(t, "certificate", entry.Certificate, want.Certificate[i])
		ocsp, scts, ok := ParseCertificateExtensions(entry.Extensions)
		wantBytes(t, "extensions", AppendCertificateExtensions(nil, ocsp, scts), entry.Extensions)
		if i > 0 || want.OCSPStaple == nil {
			if !ok || ocsp != nil || scts != nil {
				t.Errorf("certificate %d has a response or timestamps", i)
			}
			continue
		}
		wantBytes(t, "response", ocsp, want.OCSPStaple)
		wantBytes(t, "timestamps", scts, AppendSCTs(nil, want.SignedCertificateTimestamps))
	}
}

// TestCryptoTLSResumption checks the binders of hellos with a ticket, which shows that they
// begin where this package says.
func TestCryptoTLSResumption(t *testing.T) {
	t.Parallel()
	client, server, cache := tlsConfigs()
	tlsHandshake(t, client, server)
	ticket, state := cache.ticket, cache.state

	fromClient, fromServer := tlsHandshake(t, client, server)
	wantTypes(t, "the client", fromClient, TypeClientHello, TypeFinished)
	if hello, ok := ParseServerHello13(dtlsServerHello(fromServer[0].body())); !ok || !hello.PSK || hello.PSKIndex != 0 {
		t.Errorf("ServerHello %+v, %v", hello, ok)
	}
	wantBinder(t, nil, fromClient[0], ticket, state)

	// With another group there is a HelloRetryRequest.
	ticket, state = cache.ticket, cache.state
	server.CurvePreferences = []tls.CurveID{tls.CurveP384}
	fromClient, fromServer = tlsHandshake(t, client, server)
	wantTypes(t, "the client", fromClient, TypeClientHello, TypeClientHello, TypeFinished)
	retry, ok := ParseHelloRetryRequest(dtlsServerHello(fromServer[0].body()))
	if !ok || retry.Group != uint16(tls.CurveP384) || retry.Cookie != nil {
		t.Errorf("HelloRetryRequest %+v, %v", retry, ok)
	}
	if h, ok := ParseServerHello13(dtlsServerHello(fromServer[1].body())); !ok || h.KeyShare.Group != retry.Group || !h.PSK {
		t.Errorf("ServerHello %+v, %v", h, ok)
	}
	wantBinder(t, nil, fromClient[0], ticket, state)
	hash := sha256.Sum256(fromClient[0])
	wantBinder(t, append(AppendMessageHash(nil, hash[:]), fromServer[0]...), fromClient[1], ticket, state)
}

// wantBinder checks the one binder of a hello that offers a ticket. The transcript is what
// comes before the hello.
func wantBinder(t *testing.T, transcript []byte, message tlsMessage, ticket, state []byte) {
	t.Helper()
	body := message.body()
	h, ok := ParseClientHello(dtlsClientHello(body))
	if !ok {
		t.Fatal("the hello does not parse")
	}
	e, ok := ParseClientExtensions13(h.Extensions)
	wantExtensions13(t, h.Extensions, e, ok)
	if !ok || e.PSKs.IdentityCount != 1 || e.PSKs.BinderCount != 1 || e.PSKNotLast || !bytes.Equal(e.PSKModes, []byte{1}) {
		t.Fatalf("got %+v, %v", e, ok)
	}
	head := TranscriptHeader(TypeClientHello, len(body))
	cut := body[:len(body)-len(h.Extensions)+e.PSKs.BindersAt]
	hash := sha256.Sum256(slices.Concat(transcript, head[:], cut))
	for _, psk := range e.PSKs.All() {
		wantBytes(t, "identity", psk.Identity, ticket)
		// Where in the state the key is, crypto/tls does not say.
		for at := range len(state) - sha256.Size {
			if hmac.Equal(binderOf(t, state[at:at+sha256.Size], "tls13 ", "res binder", hash[:]), psk.Binder) {
				return
			}
		}
	}
	t.Error("the binder is of another transcript")
}

// binderOf returns the binder of a key over the hash of a transcript (RFC 8446 sections
// 4.2.11.2 and 7.1). The prefix of labels is the protocol's (RFC 9147 section 5.9).
func binderOf(t *testing.T, psk []byte, prefix, label string, hash []byte) []byte {
	t.Helper()
	early, err := hkdf.Extract(sha256.New, psk, nil)
	if err != nil {
		t.Fatal(err)
	}
	none := sha256.Sum256(nil)
	key := expandLabel(t, early, prefix+label, none[:])
	mac := hmac.New(sha256.New, expandLabel(t, key, prefix+"finished", nil))
	mac.Write(hash)
	return mac.Sum(nil)
}

func expandLabel(t *testing.T, secret []byte, label string, context []byte) []byte {
	t.Helper()
	info := slices.Concat([]byte{0, sha256.Size, byte(len(label))}, []byte(label), []byte{byte(len(context))}, context)
	out, err := hkdf.Expand(sha256.New, secret, string(info), sha256.Size)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
