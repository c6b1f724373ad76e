package dtlsserver

// Certificates of the server and of clients, ECDHE, ALPN, SNI and exporters,
// with pion's client and with one that is driven by hand.

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	piondtls "github.com/pion/dtls/v2"

	"github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/testcert"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// TestCertificateSuites: every suite with a certificate and every group, with
// and without extended master secret, and data both ways.
func TestCertificateSuites(t *testing.T) {
	t.Parallel()
	ca := testcert.NewAuthority()
	certificates := map[string]tls.Certificate{}
	for _, kind := range []string{"P-256", "P-384", "RSA", "Ed25519"} {
		certificates[kind] = ca.Issue("localhost", testcert.NewKey(kind))
	}
	for _, s := range suite.All() {
		if s.KeyExchange == suite.PSK {
			continue
		}
		kinds := []string{"P-256", "P-384", "Ed25519"}
		switch s.KeyExchange {
		case suite.ECDHERSA:
			kinds = []string{"RSA"}
		case suite.ECDHEPSK:
			kinds = []string{""}
		}
		for _, kind := range kinds {
			for _, group := range append(suite.Groups(), suite.GroupP521) {
				name := fmt.Sprintf("%s/%s/%v", s.Name, kind, tls.CurveID(group))
				ems := group != suite.GroupX25519 // each once
				d := newDirect(t, func(server *Server) {
					server.CurvePreferences = []tls.CurveID{tls.CurveID(group)}
					if kind != "" {
						server.Certificates = []tls.Certificate{certificates[kind]}
					}
				})
				c := testpeer.New(testIdentity, []byte(testKey), 1)
				// That of the certificate's key must be there too.
				c.Suites, c.Groups, c.NoEMS = []uint16{s.ID}, append(suite.Groups(), suite.GroupP521), !ems
				d.establish(c, clientAddr(1))
				session, ok := d.s.SessionByAddr(clientAddr(1), anyLocal)
				if !ok {
					t.Fatalf("%s: no session", name)
				}
				state := session.ConnectionState()
				if state.CipherSuite != s.ID || state.CurveID != tls.CurveID(group) || state.ExtendedMasterSecret != ems {
					t.Errorf("%s: %+v", name, state)
				}
				if (kind == "") != (c.ServerChain == nil) || (kind == "") != (state.PSKIdentity == testIdentity) {
					t.Errorf("%s: chain of %d, identity %q", name, len(c.ServerChain), state.PSKIdentity)
				}
				if formats := c.ServerHello.Extensions[11]; !bytes.Equal(formats, []byte{1, 0}) {
					t.Errorf("%s: ec_point_formats %x", name, formats)
				}
				d.exchange(c, clientAddr(1), c.Sealed(wire.ContentApplicationData, []byte("hello")))
				if len(d.rec.data) != 1 {
					t.Errorf("%s: %q", name, d.rec.data)
				}
				material, err := session.ExportKeyingMaterial("EXPORTER-test", []byte("context"), 40)
				switch {
				case !ems && err != ErrNoExtendedMasterSecret:
					t.Errorf("%s: exported without extended master secret: %v", name, err)
				case ems && (err != nil || !bytes.Equal(material, c.Export("EXPORTER-test", []byte("context"), 40))):
					t.Errorf("%s: exported %x, %v", name, material, err)
				}
			}
		}
	}
}

// TestPionCertificates: pion's client verifies the server, and is verified.
func TestPionCertificates(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"P-256", "RSA", "Ed25519"} {
		// The authority has the same kind of key: pion's v2 client looks there
		// for how the server's is to be verified.
		ca := testcert.NewAuthorityWithKey("Test CA", testcert.NewKey(kind))
		client := ca.Issue("client", testcert.NewKey("P-256"))
		server := ca.Issue("localhost", testcert.NewKey(kind))
		inBubble(t, func(s *Server) {
			s.PSK = nil
			s.Certificates = []tls.Certificate{server}
			s.ClientAuth, s.ClientCAs = tls.RequireAndVerifyClientCert, ca.Pool
			s.MTU = 300 // chains are fragmented
			s.Handler.(*recorder).then.OnDatagramReceived = echo
		}, func(b *bubble) {
			c, err := dialPion(t, b.network.dial(clientAddr(1), serverAddr), &piondtls.Config{
				Certificates: []tls.Certificate{client}, RootCAs: ca.Pool, ServerName: "localhost",
				ExtendedMasterSecret: piondtls.RequireExtendedMasterSecret,
			}, time.Minute)
			if err != nil {
				t.Fatalf("%s: %v; %v", kind, err, b.rec.lines())
			}
			defer c.Close()
			state := b.rec.want(t, KindHandshakeComplete, 1, kind).Session.ConnectionState()
			if state.ServerName != "localhost" || len(state.PeerCertificates) != 2 || len(state.VerifiedChains) != 1 || state.PeerCertificates[0].Subject.CommonName != "client" {
				t.Errorf("%s: %+v", kind, state)
			}
			wantEcho(t, c, "hello")
		})
	}
}

// clientAuthCase is a client's certificate, and whether it gets in, by mode: request,
// require any, verify if given, require and verify. Without a request all do.
type clientAuthCase struct {
	name  string
	edit  func(c *testpeer.Client)
	chain [][]byte
	want  [4]int
}

// keyUsages are certificates of every kind of key with every keyUsage: whoever may
// not sign is refused, whether it is verified or not.
func keyUsages(t *testing.T, ca *testcert.Authority) (cases []clientAuthCase) {
	const in, unsupported = -1, 43
	empty := pkix.Extension{Id: []int{2, 5, 29, 15}, Critical: true, Value: []byte{3, 1, 0}}
	for _, kind := range []string{"P-256", "P-384", "P-521", "RSA", "Ed25519"} {
		key := testcert.NewKey(kind)
		for _, usage := range []struct {
			name string
			edit func(*x509.Certificate)
			may  bool
		}{
			{"none", func(*x509.Certificate) {}, true},
			{"digitalSignature", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }, true},
			{"digitalSignature and others", func(c *x509.Certificate) {
				c.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageKeyAgreement
			}, true},
			{"keyEncipherment", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }, false},
			{"keyAgreement", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }, false},
			{"contentCommitment", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageContentCommitment }, false},
			{"keyCertSign", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign }, false},
			{"no bit", func(c *x509.Certificate) { c.ExtraExtensions = append(c.ExtraExtensions, empty) }, false},
		} {
			chain := ca.Issue("client", key, usage.edit).Certificate
			want := [4]int{in, in, in, in}
			if !usage.may {
				want = [4]int{unsupported, unsupported, unsupported, unsupported}
			}
			cases = append(cases, clientAuthCase{kind + ", keyUsage " + usage.name, func(c *testpeer.Client) { c.Signer = key }, chain, want})
		}
	}
	return cases
}

// TestServerMaySign: a certificate that clients must refuse for its keyUsage (RFC 5246
// section 7.4.2) is an error in the configuration, and of the hook.
func TestServerMaySign(t *testing.T) {
	t.Parallel()
	ca := testcert.NewAuthority()
	for kind, id := range map[string]uint16{"P-256": ecdheCert, "RSA": 0xc02f, "Ed25519": ecdheCert} {
		bad := ca.Issue("localhost", testcert.NewKey(kind), func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment })
		s := &Server{Certificates: []tls.Certificate{bad}}
		if _, err := s.config(); err == nil || !strings.Contains(err.Error(), "digitalSignature") {
			t.Errorf("%s: %v", kind, err)
		}
		d := newDirect(t, func(s *Server) {
			s.PSK = nil
			s.GetCertificate = func(*ClientHelloInfo) (*tls.Certificate, error) { return &bad, nil }
		})
		c := testpeer.New("", nil, 1)
		c.Suites = []uint16{id}
		d.exchange(c, clientAddr(1), c.Hello())
		d.exchange(c, clientAddr(1), c.Hello())
		d.rec.want(t, KindCertificateFailed, 1, kind)
		if len(c.Alerts) != 1 || c.Alerts[0].Description != wire.AlertHandshakeFailure {
			t.Errorf("%s: alerts %v", kind, c.Alerts)
		}
	}
}

// TestClientAuth: every kind of client certificate in every mode: who gets in,
// and the alert for who does not.
func TestClientAuth(t *testing.T) {
	t.Parallel()
	ca, other := testcert.NewAuthority(), testcert.NewAuthority()
	server := ca.Issue("localhost", testcert.NewKey("P-256"))
	key := testcert.NewKey("P-256")
	good := ca.Issue("client", key)
	expired := ca.Issue("client", key, func(c *x509.Certificate) { c.NotAfter = time.Unix(1000, 0) })
	wrongUsage := ca.Issue("client", key, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	stranger := other.Issue("client", key)
	const (
		in               = -1
		handshakeFailure = 40
		badCertificate   = 42
		unsupported      = 43
		expiredAlert     = 45
		unknownCA        = 48
		decryptError     = 51
		silence          = -2 // a message is missing: the handshake times out
	)
	tests := []clientAuthCase{
		{"none", nil, nil, [4]int{in, handshakeFailure, in, handshakeFailure}},
		{"good", nil, good.Certificate, [4]int{in, in, in, in}},
		{"good, an RSA key", func(c *testpeer.Client) {
			k := testcert.NewKey("RSA")
			c.Signer, c.Chain = k, ca.Issue("client", k).Certificate
		}, nil, [4]int{in, in, in, in}},
		{"good, an Ed25519 key", func(c *testpeer.Client) {
			k := testcert.NewKey("Ed25519")
			c.Signer, c.Chain = k, ca.Issue("client", k).Certificate
		}, nil, [4]int{in, in, in, in}},
		{"expired", nil, expired.Certificate, [4]int{in, in, expiredAlert, expiredAlert}},
		{"of another authority", nil, stranger.Certificate, [4]int{in, in, unknownCA, unknownCA}},
		{"for servers", nil, wrongUsage.Certificate, [4]int{in, in, unsupported, unsupported}},
		{"wrong CertificateVerify", func(c *testpeer.Client) { c.WrongVerify = true }, good.Certificate, [4]int{decryptError, decryptError, decryptError, decryptError}},
		{"CertificateVerify of another key", func(c *testpeer.Client) { c.Signer = testcert.NewKey("P-256") }, good.Certificate, [4]int{decryptError, decryptError, decryptError, decryptError}},
		{"no CertificateVerify", func(c *testpeer.Client) { c.SkipVerify = true }, good.Certificate, [4]int{silence, silence, silence, silence}},
		{"no certificate but junk", nil, [][]byte{[]byte("junk")}, [4]int{badCertificate, badCertificate, badCertificate, badCertificate}},
	}
	tests = append(tests, keyUsages(t, ca)...)
	for _, tt := range tests {
		for mode := tls.NoClientCert; mode <= tls.RequireAndVerifyClientCert; mode++ {
			d := newDirect(t, func(s *Server) {
				s.Certificates = []tls.Certificate{server}
				s.ClientAuth, s.ClientCAs = mode, ca.Pool
			})
			c, from := testpeer.New("", nil, 1), clientAddr(1)
			c.Suites = []uint16{0xc02b}
			c.Chain, c.Signer = tt.chain, key
			if tt.edit != nil {
				tt.edit(c)
			}
			d.exchange(c, from, c.Hello())
			d.exchange(c, from, c.Hello())
			if c.Requested != (mode != tls.NoClientCert) {
				t.Errorf("%s, %v: certificate requested: %v", tt.name, mode, c.Requested)
			}
			d.exchange(c, from, c.Flight())
			want := in
			if mode != tls.NoClientCert {
				want = tt.want[mode-1]
			}
			d.advance(time.Minute)
			switch {
			case want == in:
				if !c.Complete {
					t.Errorf("%s, %v: not let in: %v", tt.name, mode, d.rec.lines())
				}
				state := d.rec.want(t, KindHandshakeComplete, 1, tt.name).Session.ConnectionState()
				verified := len(c.Chain) > 0 && mode >= tls.VerifyClientCertIfGiven
				if (len(state.PeerCertificates) > 0) != (len(c.Chain) > 0 && c.Requested) || (len(state.VerifiedChains) > 0) != verified {
					t.Errorf("%s, %v: %d certificates, %d chains", tt.name, mode, len(state.PeerCertificates), len(state.VerifiedChains))
				}
			case want == silence:
				if c.Complete || len(c.Alerts) > 0 {
					t.Errorf("%s, %v: complete %v, alerts %v", tt.name, mode, c.Complete, c.Alerts)
				}
			default:
				if c.Complete || len(c.Alerts) != 1 || c.Alerts[0] != (wire.Alert{Level: wire.LevelFatal, Description: wire.AlertDescription(want)}) {
					t.Errorf("%s, %v: complete %v, alerts %v, want %d", tt.name, mode, c.Complete, c.Alerts, want)
				}
				d.rec.want(t, KindHandshakeComplete, 0, tt.name)
				var alert *AlertError
				if e := d.rec.want(t, KindHandshakeFailed, 1, tt.name); !errors.As(e.Err, &alert) || int(alert.Code) != want || !alert.Sent {
					t.Errorf("%s, %v: %v", tt.name, mode, e)
				}
			}
		}
	}
}

// TestVerifyConnection: it decides last, with pre-shared keys too, before the
// client's handshake is complete, and may block.
func TestVerifyConnection(t *testing.T) {
	t.Parallel()
	refusal := errors.New("not today")
	for _, refuse := range []bool{false, true} {
		inBubble(t, func(s *Server) {
			s.VerifyConnection = func(_ context.Context, req *VerifyRequest) error {
				time.Sleep(3 * time.Second)
				state := req.State
				if state.PSKIdentity != testIdentity || state.HandshakeComplete || state.CipherSuite != 0x00a8 {
					t.Errorf("%+v", state)
				}
				if refuse {
					return refusal
				}
				if req.Value != "an account" || !req.Local.IsValid() {
					t.Errorf("value %v, local address %v", req.Value, req.Local)
				}
				req.Value = req.Remote
				return nil
			}
			s.PSK = func(ctx context.Context, r PSKRequest) (PSK, error) {
				psk, err := testPSK(ctx, r)
				psk.Value = "an account"
				return psk, err
			}
		}, func(b *bubble) {
			p := b.peer(1)
			p.verify()
			p.send(p.Flight())
			p.send(p.Sealed(wire.ContentHandshake, p.FinishedMessage())) // again, meanwhile
			if p.receive() != 0 {
				t.Error("answered before the verdict")
			}
			time.Sleep(3 * time.Second)
			p.receive()
			if p.Complete == refuse {
				t.Errorf("refused %v, complete %v", refuse, p.Complete)
			}
			if s, ok := b.server.SessionByAddr(p.pipe.addr, anyLocal); ok && s.Value() != p.pipe.addr {
				t.Errorf("value %v, want what VerifyConnection has set", s.Value())
			}
			if refuse {
				e := b.rec.want(t, KindHandshakeFailed, 1, "refused")
				if !errors.Is(e.Err, refusal) || len(p.Alerts) != 1 || p.Alerts[0].Description != 49 {
					t.Errorf("%v, alerts %v", e, p.Alerts)
				}
			}
		})
	}
}

// TestChooseCertificate: by server name, by what the client can verify, and by
// GetCertificate.
func TestChooseCertificate(t *testing.T) {
	t.Parallel()
	ca := testcert.NewAuthority()
	first := ca.Issue("first.example", testcert.NewKey("P-256"))
	second := ca.Issue("*.second.example", testcert.NewKey("P-256"))
	rsaCert := ca.Issue("first.example", testcert.NewKey("RSA"))
	hooked := ca.Issue("hooked.example", testcert.NewKey("P-256"))
	var asked atomic.Int32
	hook := func(info *ClientHelloInfo) (*tls.Certificate, error) {
		asked.Add(1)
		switch info.ServerName {
		case "hooked.example":
			return &hooked, nil
		case "broken.example":
			return nil, errors.New("the key store is down")
		case "bad.example":
			return &tls.Certificate{}, nil
		}
		return nil, nil
	}
	tests := []struct {
		name   string
		suites []uint16
		want   []byte // nil: refused
	}{
		{"", []uint16{0xc02b, 0xc02f}, first.Certificate[0]},
		{"first.example", []uint16{0xc02b}, first.Certificate[0]},
		{"a.second.example", []uint16{0xc02b}, second.Certificate[0]},
		{"unknown.example", []uint16{0xc02b}, first.Certificate[0]},
		{"first.example", []uint16{0xc02f}, rsaCert.Certificate[0]},
		{"hooked.example", []uint16{0xc02b}, hooked.Certificate[0]},
		{"broken.example", []uint16{0xc02b}, nil},
		{"bad.example", []uint16{0xc02b}, nil},
	}
	for _, tt := range tests {
		d := newDirect(t, func(s *Server) {
			s.PSK = nil
			s.Certificates = []tls.Certificate{first, second, rsaCert}
			s.GetCertificate = hook
		})
		c := testpeer.New("", nil, 1)
		c.Suites = tt.suites
		c.ServerName = tt.name
		d.exchange(c, clientAddr(1), c.Hello())
		d.exchange(c, clientAddr(1), c.Hello())
		if tt.want == nil {
			d.rec.want(t, KindCertificateFailed, 1, tt.name)
			if len(c.Alerts) != 1 || c.Alerts[0].Description != wire.AlertHandshakeFailure {
				t.Errorf("%s: alerts %v", tt.name, c.Alerts)
			}
			continue
		}
		d.exchange(c, clientAddr(1), c.Flight())
		if !c.Complete || !bytes.Equal(c.ServerChain[0], tt.want) {
			t.Errorf("%s: complete %v, with another certificate", tt.name, c.Complete)
		}
		if _, ok := c.ServerHello.Extensions[0]; ok {
			t.Errorf("%s: server_name was answered, which pion's v2 client takes for an error", tt.name)
		}
	}
	if n := asked.Load(); int(n) != len(tests) {
		t.Errorf("asked %d times", n)
	}
}

// TestSigningKeyFails: a key that does not sign is an Error, and the client is
// told.
func TestSigningKeyFails(t *testing.T) {
	t.Parallel()
	ca := testcert.NewAuthority()
	broken := ca.Issue("localhost", testcert.NewKey("P-256"))
	broken.PrivateKey = brokenSigner{broken.PrivateKey.(crypto.Signer)}
	d := newDirect(t, func(s *Server) { s.Certificates = []tls.Certificate{broken} })
	c := testpeer.New("", nil, 1)
	c.Suites = []uint16{0xc02b}
	d.exchange(c, clientAddr(1), c.Hello())
	d.exchange(c, clientAddr(1), c.Hello())
	if e := d.rec.want(t, KindCertificateFailed, 1, "after the hello"); !strings.Contains(e.Err.Error(), "the token is gone") {
		t.Errorf("%v", e)
	}
	if len(c.Alerts) != 1 || c.Alerts[0].Description != wire.AlertInternalError {
		t.Errorf("alerts %v", c.Alerts)
	}
}

type brokenSigner struct{ crypto.Signer }

func (brokenSigner) Sign(_ io.Reader, _ []byte, _ crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("the token is gone")
}

// TestOneSignaturePerHello: 100 copies of a verified hello make one key pair
// and one signature.
func TestOneSignaturePerHello(t *testing.T) {
	t.Parallel()
	ca := testcert.NewAuthority()
	counted := &countingSigner{Signer: testcert.NewKey("P-256")}
	cert := ca.Issue("localhost", counted)
	inBubble(t, func(s *Server) { s.Certificates = []tls.Certificate{cert} }, func(b *bubble) {
		p := b.peer(1)
		p.Suites = []uint16{0xc02b}
		p.send(p.Hello())
		p.receive()
		counted.n.Store(0) // issue may have used it
		hello := p.Hello()
		for range 100 {
			p.send(hello)
			time.Sleep(10 * time.Millisecond)
		}
		if n := counted.n.Load(); n != 1 {
			t.Errorf("%d signatures", n)
		}
		if n := p.receive(); n < 2 || n > 10 {
			t.Errorf("%d datagrams", n)
		}
		p.send(p.Flight())
		if p.receive(); !p.Complete {
			t.Error("not complete")
		}
	})
}

type countingSigner struct {
	crypto.Signer
	n atomic.Int32
}

func (c *countingSigner) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	c.n.Add(1)
	return c.Signer.Sign(r, digest, o)
}

// TestSkippedMessages: with client certificates no message of the client's
// flight can be left out, whichever order the others come in.
func TestSkippedMessages(t *testing.T) {
	t.Parallel()
	ca := testcert.NewAuthority()
	key := testcert.NewKey("P-256")
	chain := ca.Issue("client", key).Certificate
	server := ca.Issue("localhost", testcert.NewKey("P-256"))
	run := func(pick func(records [][]byte) [][]byte) (*direct, *testpeer.Client) {
		d := newDirect(t, func(s *Server) {
			s.Certificates = []tls.Certificate{server}
			s.ClientAuth, s.ClientCAs = tls.RequireAndVerifyClientCert, ca.Pool
		})
		c := testpeer.New("", nil, 1)
		c.Suites, c.Chain, c.Signer = []uint16{0xc02b}, chain, key
		d.exchange(c, clientAddr(1), c.Hello())
		d.exchange(c, clientAddr(1), c.Hello())
		for _, r := range pick(c.Records()) {
			d.exchange(c, clientAddr(1), r)
		}
		return d, c
	}
	const n = 5 // Certificate, ClientKeyExchange, CertificateVerify, ChangeCipherSpec, Finished
	var order []int
	var permute func(left []int)
	permute = func(left []int) {
		if len(left) == 0 {
			_, c := run(func(records [][]byte) (picked [][]byte) {
				for _, i := range order {
					picked = append(picked, records[i], records[i])
				}
				return picked
			})
			if !c.Complete {
				t.Errorf("order %v, everything twice: not complete", order)
			}
			return
		}
		for k, i := range left {
			order = append(order, i)
			rest := append(append([]int(nil), left[:k]...), left[k+1:]...)
			permute(rest)
			order = order[:len(order)-1]
		}
	}
	permute([]int{0, 1, 2, 3, 4})
	for skip := range n {
		d, c := run(func(records [][]byte) (picked [][]byte) {
			for range 3 {
				for i, r := range records {
					if i != skip {
						picked = append(picked, r)
					}
				}
			}
			return picked
		})
		if c.Complete || d.s.Stats().Sessions != 0 {
			t.Errorf("complete without message %d", skip)
		}
	}
}

// TestALPN: the server's order decides; without a common one the client is
// refused; a client or server without ALPN is no trouble.
func TestALPN(t *testing.T) {
	t.Parallel()
	tests := []struct {
		server, client []string
		want           string
		refused        bool
	}{
		{[]string{"coap", "h2"}, []string{"h2", "coap"}, "coap", false},
		{[]string{"coap"}, []string{"dns", "coap"}, "coap", false},
		{[]string{"coap"}, nil, "", false},
		{nil, []string{"coap"}, "", false},
		{[]string{"coap"}, []string{"dns"}, "", true},
	}
	for _, tt := range tests {
		d := newDirect(t, func(s *Server) { s.NextProtos = tt.server })
		c := testpeer.New(testIdentity, []byte(testKey), 1)
		c.Protocols = tt.client
		d.exchange(c, clientAddr(1), c.Hello())
		d.exchange(c, clientAddr(1), c.Hello())
		if tt.refused {
			if len(c.Alerts) != 1 || c.Alerts[0].Description != wire.AlertNoALPN {
				t.Errorf("%v and %v: alerts %v", tt.server, tt.client, c.Alerts)
			}
			continue
		}
		d.exchange(c, clientAddr(1), c.Flight())
		session, ok := d.s.SessionByAddr(clientAddr(1), anyLocal)
		if !ok || session.ConnectionState().NegotiatedProtocol != tt.want {
			t.Errorf("%v and %v: session %v", tt.server, tt.client, session)
		}
		var answer []byte
		if tt.want != "" {
			answer = append([]byte{0, byte(len(tt.want) + 1), byte(len(tt.want))}, tt.want...)
		}
		if got := c.ServerHello.Extensions[16]; !bytes.Equal(got, answer) {
			t.Errorf("%v and %v: answered %x", tt.server, tt.client, got)
		}
	}
}

// TestRecordLimits: what the client says of the length of records is heeded in
// the handshake and by Write; record_size_limit beats max_fragment_length.
func TestRecordLimits(t *testing.T) {
	t.Parallel()
	ca := testcert.NewAuthority()
	server := ca.Issue("localhost", testcert.NewKey("P-256"))
	tests := []struct {
		name       string
		extensions []byte
		limit      int // zero: refused
		answer     map[uint16][]byte
	}{
		{"none", nil, 16384, nil},
		{"record_size_limit", []byte{0, 28, 0, 2, 1, 0}, 256, map[uint16][]byte{28: {0x40, 0}}},
		{"record_size_limit beyond ours", []byte{0, 28, 0, 2, 0xff, 0xff}, 16384, map[uint16][]byte{28: {0x40, 0}}},
		{"record_size_limit too small", []byte{0, 28, 0, 2, 0, 63}, 0, nil},
		{"max_fragment_length", []byte{0, 1, 0, 1, 1}, 512, map[uint16][]byte{1: {1}}},
		{"max_fragment_length 4096", []byte{0, 1, 0, 1, 4}, 4096, map[uint16][]byte{1: {4}}},
		{"max_fragment_length unknown", []byte{0, 1, 0, 1, 5}, 0, nil},
		{"both", []byte{0, 1, 0, 1, 1, 0, 28, 0, 2, 4, 0}, 1024, map[uint16][]byte{28: {0x40, 0}}},
	}
	for _, tt := range tests {
		d := newDirect(t, func(s *Server) { s.Certificates, s.MTU = []tls.Certificate{server}, 9000 })
		c, from := testpeer.New("", nil, 1), clientAddr(1)
		c.Suites, c.More = []uint16{0xc02b}, tt.extensions
		d.exchange(c, from, c.Hello())
		d.exchange(c, from, c.Hello())
		if tt.limit == 0 {
			if len(c.Alerts) != 1 || c.Alerts[0].Description != wire.AlertIllegalParameter {
				t.Errorf("%s: alerts %v", tt.name, c.Alerts)
			}
			continue
		}
		d.exchange(c, from, c.Flight())
		for _, r := range c.Seen {
			// RFC 8449 section 4: of protected records; RFC 6066: of all.
			if tt.answer[1] != nil && r.Epoch == 0 && len(r.Payload) > tt.limit {
				t.Errorf("%s: a record of %d bytes", tt.name, len(r.Payload))
			}
		}
		for _, id := range []uint16{1, 28} {
			if got := c.ServerHello.Extensions[id]; !bytes.Equal(got, tt.answer[id]) {
				t.Errorf("%s: extension %d was answered with %x", tt.name, id, got)
			}
		}
		session, _ := d.s.SessionByAddr(from, anyLocal)
		if _, err := session.Write(make([]byte, tt.limit)); err != nil {
			t.Errorf("%s: %d bytes: %v", tt.name, tt.limit, err)
		}
		if _, err := session.Write(make([]byte, tt.limit+1)); err != ErrMessageTooLong {
			t.Errorf("%s: %d bytes: %v", tt.name, tt.limit+1, err)
		}
	}
}

// TestNoCommonMeans: suites are skipped that the server has no credentials for
// or the client no means, and without any the client is refused.
func TestNoCommonMeans(t *testing.T) {
	t.Parallel()
	ca := testcert.NewAuthority()
	ecdsaCert := ca.Issue("localhost", testcert.NewKey("P-256"))
	tests := []struct {
		name string
		edit func(s *Server, c *testpeer.Client)
		want uint16 // zero: refused
	}{
		{"certificate suites first, no certificate", func(_ *Server, c *testpeer.Client) { c.Suites = []uint16{0xc02b, 0xc02f, 0x00a8} }, 0x00a8},
		{"PSK suites first, no PSK", func(s *Server, c *testpeer.Client) {
			s.PSK, s.Certificates = nil, []tls.Certificate{ecdsaCert}
			c.Suites = []uint16{0x00a8, 0xd001, 0xc02b}
		}, 0xc02b},
		{"RSA suites for an ECDSA certificate", func(s *Server, c *testpeer.Client) {
			s.Certificates = []tls.Certificate{ecdsaCert}
			c.Suites = []uint16{0xc02f, 0xcca8}
		}, 0},
		{"no group in common", func(_ *Server, c *testpeer.Client) {
			c.Suites, c.Groups = []uint16{0xd001, 0x00a8}, []uint16{25, 30}
		}, 0x00a8},
		{"ECDHE only, no group in common", func(_ *Server, c *testpeer.Client) {
			c.Suites, c.Groups = []uint16{0xd001}, []uint16{25}
		}, 0},
		{"ECDHE_PSK without supported_groups", func(_ *Server, c *testpeer.Client) {
			c.Suites, c.Extensions = []uint16{0xd001}, []byte{0, 23, 0, 0}
		}, 0xd001},
		{"certificates without signature_algorithms", func(s *Server, c *testpeer.Client) {
			s.Certificates = []tls.Certificate{ecdsaCert}
			c.Suites, c.Extensions = []uint16{0xc02b}, []byte{0, 23, 0, 0}
		}, 0},
		{"compressed points only", func(_ *Server, c *testpeer.Client) {
			c.Suites, c.Extensions = []uint16{0xd001, 0x00a8}, []byte{0, 11, 0, 2, 1, 1}
		}, 0x00a8},
	}
	for _, tt := range tests {
		c := testpeer.New(testIdentity, []byte(testKey), 1)
		d := newDirect(t, func(s *Server) { tt.edit(s, c) })
		d.exchange(c, clientAddr(1), c.Hello())
		d.exchange(c, clientAddr(1), c.Hello())
		switch {
		case tt.want == 0:
			if len(c.Alerts) != 1 || c.Alerts[0].Description != wire.AlertHandshakeFailure {
				t.Errorf("%s: alerts %v", tt.name, c.Alerts)
			}
		case c.ServerHello == nil || c.ServerHello.Suite != tt.want:
			t.Errorf("%s: ServerHello %+v, alerts %v", tt.name, c.ServerHello, c.Alerts)
		default:
			d.exchange(c, clientAddr(1), c.Flight())
			if !c.Complete {
				t.Errorf("%s: not complete", tt.name)
			}
		}
	}
}
