package dtlsserver

// What is chosen of what a client offers: the certificate (RFC 5246 section 7.4.2,
// RFC 8422 section 4), the suite, the protocol (RFC 7301), the length of records.

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dtlsserver/dtlsserver/internal/engine"
	"github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/testcert"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// choosable is a certificate, and what a client must have for it.
type choosable struct {
	name    string
	suite   uint16   // one of its key exchange
	group   uint16   // of its key; zero: none
	schemes []uint16 // any one of which
	signers []uint16 // all of which
	tls.Certificate
}

// selfSigned returns a certificate that is its own authority's.
func selfSigned(kind string) tls.Certificate {
	a := testcert.NewAuthorityWithKey("Test CA", testcert.NewKey(kind))
	return tls.Certificate{Certificate: [][]byte{a.Cert.Raw}, PrivateKey: a.Key}
}

// choosables returns certificates of every kind, signed in many ways.
func choosables(t testing.TB) (all []choosable) {
	t.Helper()
	ecdsaSchemes := []uint16{suite.ECDSAWithSHA256, suite.ECDSAWithSHA384, suite.ECDSAWithSHA512}
	rsaSchemes := []uint16{
		suite.PSSWithSHA256, suite.PSSWithSHA384, suite.PSSWithSHA512, suite.PKCS1WithSHA256, suite.PKCS1WithSHA384, suite.PKCS1WithSHA512,
	}
	authorities := map[string]*testcert.Authority{}
	for _, kind := range []string{"P-256", "P-384", "RSA", "Ed25519"} {
		authorities[kind] = testcert.NewAuthorityWithKey("Test CA", testcert.NewKey(kind))
	}
	signed := map[string]uint16{"P-256": suite.ECDSAWithSHA256, "P-384": suite.ECDSAWithSHA384, "RSA": suite.PKCS1WithSHA256, "Ed25519": suite.Ed25519}
	keys := map[string]crypto.Signer{}
	add := func(kind, by string) {
		c := choosable{name: kind + " by " + by, suite: ecdheCert, schemes: ecdsaSchemes}
		if keys[kind] == nil {
			keys[kind] = testcert.NewKey(kind)
		}
		switch kind {
		case "P-256":
			c.group = 23
		case "P-384":
			c.group = 24
		case "P-521":
			c.group = 25
		case "Ed25519":
			c.schemes = []uint16{suite.Ed25519}
		case "RSA":
			c.suite, c.schemes = 0xc02f, rsaSchemes
		}
		switch by {
		case "itself":
			c.Certificate = selfSigned(kind)
		case "an intermediate": // of RSA, by one of P-256
			root, key := authorities["P-256"], testcert.NewKey("RSA")
			ca := root.Issue("intermediate", key, func(c *x509.Certificate) {
				c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
			})
			parsed, err := x509.ParseCertificate(ca.Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			middle := &testcert.Authority{Cert: parsed, Key: key}
			c.Certificate = middle.Issue("localhost", keys[kind])
			c.Certificate.Certificate = append(c.Certificate.Certificate, root.Cert.Raw)
			c.signers = []uint16{suite.PKCS1WithSHA256, suite.ECDSAWithSHA256}
		case "RSA-PSS":
			c.Certificate = authorities["RSA"].Issue("localhost", keys[kind], func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA256WithRSAPSS })
			c.signers = []uint16{suite.PSSWithSHA256}
		default:
			c.Certificate = authorities[by].Issue("localhost", keys[kind])
			c.signers = []uint16{signed[by]}
		}
		all = append(all, c)
	}
	for _, pair := range []string{
		"P-256 by P-256", "P-256 by RSA", "P-256 by an intermediate", "P-384 by P-256", "P-384 by P-384", "P-521 by itself", "RSA by RSA", "RSA by P-256", "RSA by RSA-PSS", "Ed25519 by Ed25519", "P-256 by itself",
	} {
		kind, by, _ := strings.Cut(pair, " by ")
		add(kind, by)
	}
	return all
}

// hasAll reports whether all of some are in a list.
func hasAll(list, some []uint16) bool {
	return !slices.ContainsFunc(some, func(n uint16) bool { return !slices.Contains(list, n) })
}

// clientOffer is what a client offers.
type clientOffer struct{ suites, groups, schemes, certificateSchemes []uint16 }

// wantChoice is the rule: of the certificates whose key suits the client, the first
// whose chain does too, or else the first.
func wantChoice(certificates []choosable, served []uint16, offer clientOffer) *choosable {
	inChains := offer.schemes
	if offer.certificateSchemes != nil {
		inChains = offer.certificateSchemes
	}
	var first *choosable
	for i := range certificates {
		c := &certificates[i]
		switch {
		case !slices.Contains(served, c.suite) || !slices.Contains(offer.suites, c.suite):
		case c.group != 0 && offer.groups != nil && !slices.Contains(offer.groups, c.group):
		case !slices.ContainsFunc(c.schemes, func(s uint16) bool { return slices.Contains(offer.schemes, s) }):
		case hasAll(inChains, c.signers):
			return c
		case first == nil:
			first = c
		}
	}
	return first
}

// TestChoiceOfCertificate: every pair of certificates in either order, with every
// choice of the server's suites, and all that a client may offer. Some go as far
// as ServerHelloDone, or handshake_failure.
func TestChoiceOfCertificate(t *testing.T) {
	t.Parallel()
	all := choosables(t)
	const ec, rs = ecdheCert, 0xc02f
	servers := [][]uint16{{ec, rs}, {rs, ec}, {ec}, {rs}}
	var offers []clientOffer
	for _, suites := range [][]uint16{{ec, rs}, {ec}, {rs}} {
		for _, groups := range [][]uint16{nil, {23}, {23, 24}, {29}, {29, 25, 23}} {
			for _, schemes := range [][]uint16{suite.Schemes(), {0x0403}, {0x0403, 0x0401}, {0x0804, 0x0503}, {0x0807}, {0x0201, 0x0203}} {
				for _, certs := range [][]uint16{nil, {0x0403}, {0x0401, 0x0804}, {0x0503, 0x0807}} {
					offers = append(offers, clientOffer{suites, groups, schemes, certs})
				}
			}
		}
	}
	tried, shaken := 0, map[bool]int{}
	for i := range all {
		for j := range all {
			if i == j {
				continue
			}
			pair := []choosable{all[i], all[j]}
			for _, served := range servers {
				s := &Server{Certificates: []tls.Certificate{pair[0].Certificate, pair[1].Certificate}, CipherSuites: served}
				cfg, err := s.config()
				if err != nil { // no certificate for any of the suites
					if hasSuite(pair, served) {
						t.Fatal(err)
					}
					continue
				}
				for _, offer := range offers {
					name := fmt.Sprintf("%s, then %s; server %x; client %x", pair[0].name, pair[1].name, served, offer)
					want := wantChoice(pair, served, offer)
					hello := &engine.HelloInfo{CipherSuites: numbers(offer.suites), SupportedGroups: numbers(offer.groups), Schemes: numbers(offer.schemes), CertificateSchemes: numbers(offer.certificateSchemes)}
					got := cfg.certificates.choose(hello)
					if (got == nil) != (want == nil) || got != nil && !bytes.Equal(got.Chain[0], want.Certificate.Certificate[0]) {
						t.Fatalf("%s: chose %v", name, got)
					}
					if tried++; tried%1009 == 0 {
						shakeChoice(t, name, s, offer, want)
						shaken[want != nil]++
					}
				}
			}
		}
	}
	t.Logf("%d combinations, as far as the answer %v", tried, shaken)
	if tried < 50_000 || shaken[true] < 10 || shaken[false] < 10 {
		t.Error("too few")
	}
}

func hasSuite(certificates []choosable, served []uint16) bool {
	return slices.ContainsFunc(certificates, func(c choosable) bool { return slices.Contains(served, c.suite) })
}

// shakeChoice begins a handshake and looks at the certificate that comes.
func shakeChoice(t *testing.T, name string, server *Server, offer clientOffer, want *choosable) {
	t.Helper()
	d := newDirect(t, func(s *Server) { s.PSK, s.Certificates, s.CipherSuites = nil, server.Certificates, server.CipherSuites })
	c, from := testpeer.New("", nil, 1), clientAddr(1)
	c.Suites, c.Groups, c.Schemes = offer.suites, offer.groups, offer.schemes
	if c.Groups == nil {
		c.Groups = []uint16{}
	}
	if list := numbers(offer.certificateSchemes); list != nil {
		c.More = append([]byte{0, 50, 0, byte(2 + len(list)), 0, byte(len(list))}, list...)
	}
	d.exchange(c, from, c.Hello())
	d.exchange(c, from, c.Hello())
	// A client without a group for ECDHE gets nowhere, whatever its certificate.
	if common := offer.groups == nil || slices.ContainsFunc(suite.Groups(), func(g uint16) bool { return slices.Contains(offer.groups, g) }); want == nil || !common {
		if len(c.Alerts) != 1 || c.Alerts[0] != (wire.Alert{Level: wire.LevelFatal, Description: wire.AlertHandshakeFailure}) {
			t.Errorf("%s: alerts %v, certificate %v", name, c.Alerts, len(c.ServerChain))
		}
		return
	}
	if !c.HelloDone || !bytes.Equal(c.ServerChain[0], want.Certificate.Certificate[0]) {
		t.Errorf("%s: another certificate, or none, alerts %v", name, c.Alerts)
	}
}

// TestHookChoosesOtherGroup: what GetCertificate returns does not go to a client
// that does not have its group; another suite may do.
func TestHookChoosesOtherGroup(t *testing.T) {
	t.Parallel()
	certificate := testcert.NewAuthority().Issue("localhost", testcert.NewKey("P-384"))
	for _, psk := range []bool{false, true} {
		d := newDirect(t, func(s *Server) {
			s.GetCertificate = func(info *ClientHelloInfo) (*tls.Certificate, error) {
				if !slices.Equal(info.SupportedCurves, []tls.CurveID{tls.CurveP256}) || !slices.Equal(info.CertificateSchemes, []tls.SignatureScheme{tls.PKCS1WithSHA256}) {
					t.Errorf("%+v", info)
				}
				return &certificate, nil
			}
		})
		c, from := testpeer.New(testIdentity, []byte(testKey), 1), clientAddr(1)
		c.Suites, c.Groups, c.More = []uint16{ecdheCert}, []uint16{23}, []byte{0, 50, 0, 4, 0, 2, 4, 1}
		if psk {
			c.Suites = append(c.Suites, 0x00a8)
		}
		d.exchange(c, from, c.Hello())
		d.exchange(c, from, c.Hello())
		if psk != c.HelloDone || !psk && (len(c.Alerts) != 1 || c.Alerts[0].Description != wire.AlertHandshakeFailure) {
			t.Errorf("with a pre-shared key %v: done %v, alerts %v", psk, c.HelloDone, c.Alerts)
		}
		if !psk {
			if e := d.rec.want(t, KindHandshakeFailed, 1, "no certificate"); !strings.Contains(e.String(), "no certificate suits") {
				t.Error(e)
			}
		}
	}
}

// TestSupportedSignatureAlgorithms: a certificate's key makes no other signatures
// than its SupportedSignatureAlgorithms, by which it is chosen too.
func TestSupportedSignatureAlgorithms(t *testing.T) {
	t.Parallel()
	ca := testcert.NewAuthority()
	limited := func(kind string, schemes ...tls.SignatureScheme) tls.Certificate {
		c := ca.Issue("localhost", testcert.NewKey(kind))
		c.SupportedSignatureAlgorithms = schemes
		return c
	}
	for name, tt := range map[string]struct {
		certificate tls.Certificate
		suite       uint16
		schemes     []uint16 // the client's
		want        uint16   // zero: handshake_failure
	}{
		"PKCS #1 only":           {limited("RSA", tls.PKCS1WithSHA256), 0xc02f, suite.Schemes(), 0x0401},
		"the server's order":     {limited("RSA", tls.PKCS1WithSHA256, tls.PSSWithSHA384), 0xc02f, suite.Schemes(), 0x0805},
		"a client without it":    {limited("RSA", tls.PKCS1WithSHA256), 0xc02f, []uint16{0x0804, 0x0403}, 0},
		"SHA-384":                {limited("P-256", tls.ECDSAWithP384AndSHA384), ecdheCert, suite.Schemes(), 0x0503},
		"none of the key's kind": {limited("P-256", tls.ECDSAWithP384AndSHA384, tls.Ed25519), ecdheCert, []uint16{0x0403, 0x0807}, 0},
		"not said, as ever":      {limited("P-256"), ecdheCert, suite.Schemes(), 0x0403},
	} {
		d := newDirect(t, func(s *Server) { s.PSK, s.Certificates = nil, []tls.Certificate{tt.certificate} })
		c, from := testpeer.New("", nil, 1), clientAddr(1)
		c.Suites, c.Schemes = []uint16{tt.suite}, tt.schemes
		d.exchange(c, from, c.Hello())
		d.exchange(c, from, c.Hello())
		if c.SignedWith != tt.want || c.HelloDone != (tt.want != 0) {
			t.Errorf("%s: signed with %04x, want %04x; alerts %v", name, c.SignedWith, tt.want, c.Alerts)
		}
	}
	for name, bad := range map[string]tls.Certificate{"another kind's": limited("P-256", tls.PSSWithSHA256), "none": func() tls.Certificate {
		c := limited("P-256")
		c.SupportedSignatureAlgorithms = []tls.SignatureScheme{}
		return c
	}()} {
		s := &Server{Certificates: []tls.Certificate{bad}}
		if _, err := s.config(); err == nil || !strings.Contains(err.Error(), "SupportedSignatureAlgorithms") {
			t.Errorf("%s: %v", name, err)
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
