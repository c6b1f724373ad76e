package dtlsserver

// Certificates of the server: what they prove, to whom each is shown, keys that
// fail or are asked once, and what is stapled.

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
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

var (
	askStatus     = []byte{0, 5, 0, 5, 1, 0, 0, 0, 0}
	askOther      = []byte{0, 5, 0, 1, 2} // another type of status
	askTimestamps = []byte{0, 18, 0, 0}
)

// TestStapling: the response of OCSP and the signed timestamps of a certificate go to
// clients that ask for them, with that certificate only, from Certificates and from
// the hook.
func TestStapling(t *testing.T) {
	t.Parallel()
	bare := testcert.NewAuthority().Issue("localhost", testcert.NewKey("P-256"))
	full := bare
	full.OCSPStaple = bytes.Repeat([]byte("staple"), 500) // in several fragments
	full.SignedCertificateTimestamps = [][]byte{{1, 2, 3}, {4}}
	list := []byte{0, 8, 0, 3, 1, 2, 3, 0, 1, 4}
	for _, tt := range []struct {
		name               string
		certificate        tls.Certificate
		suite              uint16
		asks               []byte
		staple, timestamps bool
	}{
		{"asked for both", full, ecdheCert, append(bytes.Clone(askStatus), askTimestamps...), true, true},
		{"asked for the status", full, ecdheCert, askStatus, true, false},
		{"asked for timestamps", full, ecdheCert, askTimestamps, false, true},
		{"asked for another status", full, ecdheCert, askOther, false, false},
		{"asked for nothing", full, ecdheCert, nil, false, false},
		{"has nothing", bare, ecdheCert, append(bytes.Clone(askStatus), askTimestamps...), false, false},
		{"a pre-shared key", full, ecdhePSK, append(bytes.Clone(askStatus), askTimestamps...), false, false},
	} {
		for _, hook := range []bool{false, true} {
			d := newDirect(t, func(s *Server) {
				if s.Certificates = []tls.Certificate{tt.certificate}; hook {
					s.Certificates = nil
					s.GetCertificate = func(*ClientHelloInfo) (*tls.Certificate, error) { return &tt.certificate, nil }
				}
			})
			c, from := testpeer.New(testIdentity, []byte(testKey), 1), clientAddr(1)
			c.Suites, c.More, c.AskTicket = []uint16{tt.suite}, tt.asks, true
			d.establish(c, from)
			if (c.Staple != nil) != tt.staple || tt.staple && !bytes.Equal(c.Staple, full.OCSPStaple) {
				t.Errorf("%s, hook %v: a response of %d bytes", tt.name, hook, len(c.Staple))
			}
			extensions := c.ServerHello.Extensions
			if status, ok := extensions[5]; ok != tt.staple || len(status) > 0 {
				t.Errorf("%s, hook %v: status_request %x, %v", tt.name, hook, status, ok)
			}
			if got, ok := extensions[18]; ok != tt.timestamps || ok && !bytes.Equal(got, list) {
				t.Errorf("%s, hook %v: timestamps %x, %v", tt.name, hook, got, ok)
			}
			again := testpeer.New(testIdentity, []byte(testKey), 2)
			again.Suites, again.More, again.Ticket, again.Master = c.Suites, tt.asks, c.NewTicket, c.Master
			if !tryResume(d, again, clientAddr(2)) || again.Staple != nil || again.ServerHello.Extensions[18] != nil {
				t.Errorf("%s, hook %v: resumed %v, with %d bytes", tt.name, hook, again.Resuming, len(again.Staple))
			}
		}
	}
	for name, timestamps := range map[string][][]byte{"an empty one": {{1}, {}}, "a long one": {make([]byte, maxSCTs)}, "a nil one": {nil}} {
		bad := bare
		bad.SignedCertificateTimestamps = timestamps
		s := &Server{Certificates: []tls.Certificate{bad}}
		if _, err := s.config(); err == nil || !strings.Contains(err.Error(), "SignedCertificateTimestamps") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
