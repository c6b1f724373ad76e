package dtlsserver

// What goes with a certificate to clients that ask for it, and which alert tells a
// client that it is refused.

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/dtlsserver/dtlsserver/internal/testcert"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

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
