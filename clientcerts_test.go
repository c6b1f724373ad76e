package dtlsserver

// Certificates of clients: who gets in, the alert for who does not, and what a
// session keeps of them.

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testcert"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

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

// TestRefusalChoosesAlert: an error of VerifyConnection that is an *AlertError, or
// wraps one, chooses the alert, with a certificate, with a pre-shared key, and when
// a session is resumed.
func TestRefusalChoosesAlert(t *testing.T) {
	t.Parallel()
	ca := testcert.NewAuthority()
	server, key := ca.Issue("localhost", testcert.NewKey("P-256")), testcert.NewKey("P-256")
	chain := ca.Issue("client", key).Certificate
	alert := &AlertError{Code: 71, Sent: true, Reason: "too weak"}
	plain := errors.New("not today")
	for _, tt := range []struct {
		name   string
		err    error
		want   int // -1: what it is without
		reason string
	}{
		{"an alert", alert, 71, "too weak"},
		{"a wrapped one", fmt.Errorf("policy: %w", alert), 71, "policy: dtlsserver: sent alert insufficient_security: too weak"},
		{"one of two", errors.Join(plain, alert), 71, "not today"},
		{"no alert", plain, -1, "not today"},
		{"close_notify, which is no refusal", &AlertError{Reason: "bye"}, -1, "bye"},
	} {
		for _, id := range []uint16{ecdheCert, ecdhePSK, 0x00a8} {
			refuse := false
			d := newDirect(t, func(s *Server) {
				s.Certificates, s.ClientAuth, s.ClientCAs = []tls.Certificate{server}, tls.RequireAndVerifyClientCert, ca.Pool
				s.VerifyConnection = func(context.Context, *VerifyRequest) error {
					if refuse {
						return tt.err
					}
					return nil
				}
			})
			want := tt.want
			if want < 0 {
				if want = int(wire.AlertAccessDenied); id == ecdheCert {
					want = int(wire.AlertBadCertificate)
				}
			}
			prove := func(c *testpeer.Client) { c.Suites, c.Chain, c.Signer = []uint16{id}, chain, key }
			refused := func(c *testpeer.Client, failures uint64, when string) {
				t.Helper()
				if len(c.Alerts) != 1 || c.Alerts[0] != (wire.Alert{Level: wire.LevelFatal, Description: wire.AlertDescription(want)}) {
					t.Errorf("%s, %#04x, %s: alerts %v, want %d", tt.name, id, when, c.Alerts, want)
				}
				d.advance(2 * foldWindow)
				var got *AlertError
				e := d.rec.want(t, KindHandshakeFailed, failures, when)
				if !errors.As(e.Err, &got) || int(got.Code) != want || !got.Sent || !strings.HasPrefix(got.Reason, tt.reason) || !errors.Is(e.Err, tt.err) {
					t.Errorf("%s, %#04x, %s: %v", tt.name, id, when, e)
				}
			}
			var ticket *testpeer.Client
			if id != 0x00a8 {
				ticket = ticketOf(d, clientAddr(3), id, prove)
			}
			refuse = true
			c, from := testpeer.New(testIdentity, []byte(testKey), 1), clientAddr(1)
			prove(c)
			d.exchange(c, from, c.Hello())
			d.exchange(c, from, c.Hello())
			d.exchange(c, from, c.Flight())
			refused(c, 1, "in full")
			if ticket != nil {
				if tryResume(d, ticket, clientAddr(2)) {
					t.Errorf("%s, %#04x: resumed", tt.name, id)
				}
				refused(ticket, 2, "resumed")
			}
		}
	}
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

// manyNames are the names of a certificate that is small in bytes only.
func manyNames(c *x509.Certificate) {
	for range 2000 {
		c.URIs = append(c.URIs, &url.URL{Scheme: "a", Host: "b"})
	}
}

// certified is a server that wants client certificates, and a client that has
// one, with what is to be changed of it.
func certified(t testing.TB, mode tls.ClientAuthType, edit func(*Server), leaf ...func(*x509.Certificate)) (*direct, func(n int) *testpeer.Client) {
	t.Helper()
	ca := testcert.NewAuthority()
	server, key := ca.Issue("localhost", testcert.NewKey("P-256")), testcert.NewKey("P-256")
	chain := ca.Issue("client", key, leaf...).Certificate
	d := newDirect(t, func(s *Server) {
		s.PSK, s.Certificates = nil, []tls.Certificate{server}
		s.ClientAuth, s.ClientCAs = mode, ca.Pool
		s.MaxClientCertificateBytes = 64 << 10
		if edit != nil {
			edit(s)
		}
	})
	d.now = time.Now()
	return d, func(n int) *testpeer.Client {
		c := testpeer.New("", nil, uint64(n))
		c.Suites, c.Chain, c.Signer = []uint16{ecdheCert}, chain, key
		return c
	}
}

// finish makes a handshake, record by record: a chain may fill a datagram.
func (d *direct) finish(c *testpeer.Client, n int) *Session {
	d.t.Helper()
	from := clientAddr(n)
	d.exchange(c, from, c.Hello())
	d.exchange(c, from, c.Hello())
	for _, r := range c.Records() {
		d.exchange(c, from, r)
	}
	s, ok := d.s.SessionByAddr(from, anyLocal)
	if !ok || !c.Complete {
		d.t.Fatalf("client %d is not connected: %v", n, d.rec.lines())
	}
	return s
}

// TestSessionKeepsBytesOfCertificates: a session holds no more of its client's
// certificates than their bytes, whatever they are, when it was told of and at
// rest. It is not parallel to others, since it looks at the heap.
func TestSessionKeepsBytesOfCertificates(t *testing.T) {
	for _, mode := range []tls.ClientAuthType{tls.RequestClientCert, tls.RequireAndVerifyClientCert} {
		d, client := certified(t, mode, func(s *Server) {
			s.Handler = HandlerFuncs{OnInfo: func(e Event) { _ = e.String() }}
		}, manyNames)
		bytes := 0
		for _, der := range client(0).Chain {
			bytes += len(der)
		}
		const sessions = 40
		d.finish(client(0), 0)
		d.out = nil
		before := liveHeap()
		for n := range sessions {
			d.finish(client(n+1), n+1)
		}
		d.out = nil
		holds := int(liveHeap()-before) / sessions
		t.Logf("%v: %d bytes a session, of which certificates %d", mode, holds, bytes)
		if holds > bytes+6<<10 {
			t.Errorf("%v: a session with certificates of %d bytes holds %d", mode, bytes, holds)
		}
		runtime.KeepAlive(d)
	}
}

// TestHandshakeKeepsBytesOfCertificates: so does a handshake, before and after
// it has proven its key.
func TestHandshakeKeepsBytesOfCertificates(t *testing.T) {
	d, client := certified(t, tls.RequireAndVerifyClientCert, nil, manyNames)
	const handshakes = 40
	for _, messages := range []int{1, 4} { // all but Finished
		before := liveHeap()
		for n := range handshakes {
			c, from := client(n), clientAddr(100*messages+n)
			d.exchange(c, from, c.Hello())
			d.exchange(c, from, c.Hello())
			for _, r := range c.Records()[:messages] {
				d.exchange(c, from, r)
			}
		}
		d.out = nil
		holds := int(liveHeap()-before) / handshakes
		bytes := len(client(0).Chain[0])
		t.Logf("after %d messages %d bytes, of which certificates %d", messages, holds, bytes)
		if holds > bytes+11<<10 {
			t.Errorf("after %d messages a handshake with certificates of %d bytes holds %d", messages, bytes, holds)
		}
	}
	runtime.KeepAlive(d)
}

// TestCertificatesOfState: VerifyConnection, the handler and who asks later get
// the same certificates, the chains begin with them, and they are parsed once
// for those that come together.
func TestCertificatesOfState(t *testing.T) {
	t.Parallel()
	var asked, told *x509.Certificate
	d, client := certified(t, tls.RequireAndVerifyClientCert, func(s *Server) {
		s.VerifyConnection = func(_ context.Context, req *VerifyRequest) error { asked = req.State.PeerCertificates[0]; return nil }
	})
	d.rec.then.OnInfo = func(e Event) {
		if e.Kind == KindHandshakeComplete {
			runtime.GC()
			told = e.Session.ConnectionState().PeerCertificates[0]
		}
	}
	s := d.finish(client(1), 1)
	if asked == nil || asked != told {
		t.Error("VerifyConnection and the handler got different certificates")
	}
	d.advance(5 * time.Minute)
	state := s.ConnectionState()
	wantState := func(state ConnectionState) {
		t.Helper()
		if len(state.PeerCertificates) != 2 || state.PeerCertificates[0].Subject.CommonName != "client" || len(state.VerifiedChains) != 1 ||
			state.VerifiedChains[0][0] != state.PeerCertificates[0] || state.VerifiedChains[0][1].Subject.CommonName != "Test CA" {
			t.Fatalf("%+v", state)
		}
	}
	wantState(state)
	runtime.GC()
	runtime.GC()
	if again := s.ConnectionState(); again.PeerCertificates[0] != state.PeerCertificates[0] {
		t.Error("parsed again, though the first are held")
	}
	first := state.PeerCertificates[0].Raw
	state = ConnectionState{}
	s.Close()
	wantState(s.ConnectionState())
	if string(s.ConnectionState().PeerCertificates[0].Raw) != string(first) {
		t.Error("other certificates after the end")
	}

	// Many at once, for the race detector.
	s = d.finish(client(2), 2)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { wantState(s.ConnectionState()) })
	}
	all.Wait()
}

// TestCertificatesOfRefused: nothing stays with a session that never was.
func TestCertificatesOfRefused(t *testing.T) {
	t.Parallel()
	var refused *Session
	d, client := certified(t, tls.RequireAndVerifyClientCert, func(s *Server) {
		s.VerifyConnection = func(context.Context, *VerifyRequest) error { return errIdentityTooLong }
	})
	d.rec.then.OnWarning = func(e Event) { refused = e.Session }
	c, from := client(1), clientAddr(1)
	d.exchange(c, from, c.Hello())
	d.exchange(c, from, c.Hello())
	d.exchange(c, from, c.Flight())
	d.rec.want(t, KindHandshakeFailed, 1, "refused")
	if refused == nil || refused.clientCertificates != nil || refused.ConnectionState().PeerCertificates != nil {
		t.Error("the certificates stay")
	}
}
