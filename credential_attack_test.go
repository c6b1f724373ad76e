package dtlsserver

// Attacks on authentication by certificates and tickets.

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testcert"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// spoofed returns a plaintext handshake record that anybody could send.
func spoofed(message []byte) []byte {
	r := wire.AppendRecordHeader(nil, wire.ContentHandshake, wire.VersionDTLS12, 0, 77, len(message))
	return append(r, message...)
}

// TestValueOfRefusedResumption: what the PSK hook says for a ticket that is then
// not honoured is not given to whoever has sent it, with a certificate suite and
// no key.
func TestValueOfRefusedResumption(t *testing.T) {
	t.Parallel()
	ca := testcert.NewAuthority()
	server := ca.Issue("localhost", testcert.NewKey("P-256"))
	key := []byte(testKey)
	d := newDirect(t, func(s *Server) {
		s.Certificates = []tls.Certificate{server}
		s.CipherSuites = []uint16{ecdheCert, ecdhePSK}
		s.PSK = func(context.Context, PSKRequest) (PSK, error) { return PSK{Key: key, Value: "an account"}, nil }
	})
	c := ticketOf(d, clientAddr(1), ecdhePSK)
	key = []byte("the new key")
	c.Suites = []uint16{ecdheCert, ecdhePSK}
	c.Key, c.Identity, c.Master = nil, "", make([]byte, 48) // all it has is the ticket
	if tryResume(d, c, clientAddr(2)) {
		t.Error("resumed")
	}
	session, ok := d.s.SessionByAddr(clientAddr(2), anyLocal)
	if !ok {
		t.Fatal("no session")
	}
	if session.Value() != nil || session.ConnectionState().PSKIdentity != "" {
		t.Errorf("value %v, identity %q", session.Value(), session.ConnectionState().PSKIdentity)
	}
}

// TestPoisonedSlots: spoofed plaintext messages that are kept or begun do not
// keep the genuine ones out for good.
func TestPoisonedSlots(t *testing.T) {
	t.Parallel()
	ca := testcert.NewAuthority()
	server := ca.Issue("localhost", testcert.NewKey("P-256"))
	key := testcert.NewKey("P-256")
	chain := ca.Issue("client", key).Certificate
	tests := []struct {
		name   string
		chain  [][]byte
		poison func(next uint16) []byte
	}{
		{"CertificateVerify in the place of Finished", nil, func(next uint16) []byte {
			return testpeer.Message(wire.TypeCertificateVerify, next+2, []byte("x"))
		}},
		{"a fragment of a longer Certificate", chain, func(next uint16) []byte {
			return append(wire.AppendHandshakeHeader(nil, wire.TypeCertificate, 15000, next, 0, 1), 0)
		}},
		{"a fragment of a longer ClientKeyExchange", chain, func(next uint16) []byte {
			return append(wire.AppendHandshakeHeader(nil, wire.TypeClientKeyExchange, 1500, next+1, 0, 1), 0)
		}},
	}
	for _, tt := range tests {
		d := newDirect(t, func(s *Server) {
			s.Certificates = []tls.Certificate{server}
			s.ClientAuth = tls.RequestClientCert
		})
		c, from := testpeer.New("", nil, 1), clientAddr(1)
		c.Suites, c.Chain, c.Signer = []uint16{ecdheCert}, tt.chain, key
		d.exchange(c, from, c.Hello())
		d.exchange(c, from, c.Hello())
		d.receive(from, spoofed(tt.poison(c.MessageSeq)))
		seq := c.MessageSeq
		records := c.Records()
		body := wire.AppendCertificate(nil, tt.chain)
		for range 4 { // the client repeats its flight, its Certificate in parts
			for at := 0; at < len(body); at += 200 {
				end := min(at+200, len(body))
				h := wire.AppendHandshakeHeader(nil, wire.TypeCertificate, len(body), seq, at, end-at)
				d.exchange(c, from, c.Plain(wire.ContentHandshake, append(h, body[at:end]...)))
			}
			for _, r := range records[1 : len(records)-1] {
				d.exchange(c, from, r)
			}
			d.exchange(c, from, c.Sealed(wire.ContentHandshake, c.FinishedMessage()))
			d.advance(4 * time.Second)
		}
		if !c.Complete {
			t.Errorf("%s: the client never gets in; alerts %v", tt.name, c.Alerts)
		}
	}
}

// TestSpoofedAlertWhileAsking: a plaintext alert does not shorten the time of
// GetCertificate, nor that of the hook which a resumption waits for.
func TestSpoofedAlertWhileAsking(t *testing.T) {
	t.Parallel()
	ca := testcert.NewAuthority()
	server := ca.Issue("localhost", testcert.NewKey("P-256"))
	for _, how := range []string{"certificate", "resumption"} {
		var slow atomic.Bool
		inBubble(t, func(s *Server) {
			s.GetCertificate = func(*ClientHelloInfo) (*tls.Certificate, error) {
				time.Sleep(6 * time.Second)
				return &server, nil
			}
			s.PSK = func(ctx context.Context, req PSKRequest) (PSK, error) {
				if slow.Load() {
					time.Sleep(6 * time.Second)
				}
				return testPSK(ctx, req)
			}
		}, func(b *bubble) {
			q := b.peer(2)
			q.Suites = []uint16{ecdheCert}
			if how == "resumption" {
				p := b.peer(1)
				p.Suites, p.AskTicket = []uint16{ecdhePSK}, true
				p.establish()
				q.Suites, q.Ticket, q.Master, q.SessionID = p.Suites, p.NewTicket, p.Master, []byte{9}
			}
			q.send(q.Hello())
			q.receive()
			slow.Store(true)
			q.send(q.Hello(), []byte{21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 99, 0, 2, 2, 40})
			time.Sleep(6100 * time.Millisecond)
			synctest.Wait()
			q.receive()
			switch {
			case q.Resuming:
				q.send(q.Resume())
			case q.HelloDone:
				q.send(q.Flight())
			}
			if _, ok := b.server.SessionByAddr(q.pipe.addr, anyLocal); !ok {
				t.Errorf("%s: no session: %v", how, b.rec.lines())
			}
		})
	}
}

// TestClientChainIsBounded: neither the lengths of RSA keys nor the number of
// certificates are the client's choice alone (CVE-2023-29409).
func TestClientChainIsBounded(t *testing.T) {
	t.Parallel()
	ca := testcert.NewAuthority()
	server := ca.Issue("localhost", testcert.NewKey("P-256"))
	key := testcert.NewKey("P-256")
	leaf := ca.Issue("client", key).Certificate[0]
	withRSA := func(name string, bits, e int) []byte {
		n := new(big.Int).SetBit(big.NewInt(1), bits-1, 1)
		template := &x509.Certificate{SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: name}, NotAfter: time.Unix(1<<33, 0)}
		return ca.Sign(template, &rsa.PublicKey{N: n, E: e}).Raw
	}
	authorities := func(n int) (all [][]byte) {
		for i := range n {
			all = append(all, withRSA(fmt.Sprint(i), 2048, 65537))
		}
		return all
	}
	tests := []struct {
		name  string
		chain [][]byte
		in    bool
	}{
		{"ten certificates", append([][]byte{leaf}, authorities(9)...), true},
		{"eleven certificates", append([][]byte{leaf}, authorities(10)...), false},
		{"two of one name", append([][]byte{leaf}, repeat(ca.Cert.Raw, 2)...), true},
		{"three of one name", append([][]byte{leaf}, repeat(ca.Cert.Raw, 3)...), false},
		{"an authority of 4096 bits", [][]byte{leaf, withRSA("", 4096, 65537)}, true},
		{"an authority of 4097 bits", [][]byte{leaf, withRSA("", 4097, 65537)}, false},
		{"an authority with a long exponent", [][]byte{leaf, withRSA("", 2048, 65539)}, false},
		{"a leaf of 4097 bits", [][]byte{withRSA("", 4097, 65537)}, false},
	}
	for _, tt := range tests {
		d := newDirect(t, func(s *Server) {
			s.Certificates = []tls.Certificate{server}
			s.ClientAuth = tls.RequireAnyClientCert
		})
		c, from := testpeer.New("", nil, 1), clientAddr(1)
		c.Suites, c.Chain, c.Signer = []uint16{ecdheCert}, tt.chain, key
		d.exchange(c, from, c.Hello())
		d.exchange(c, from, c.Hello())
		d.exchange(c, from, c.Flight())
		if c.Complete != tt.in || !tt.in && (len(c.Alerts) != 1 || c.Alerts[0].Description != wire.AlertBadCertificate) {
			t.Errorf("%s: complete %v, alerts %v", tt.name, c.Complete, c.Alerts)
		}
	}
}

func repeat(b []byte, n int) (all [][]byte) {
	for range n {
		all = append(all, b)
	}
	return all
}

// TestCertificateTimeoutIsNoWrongKey: without pre-shared keys, forged records do
// not make the operator look for a wrong one.
func TestCertificateTimeoutIsNoWrongKey(t *testing.T) {
	t.Parallel()
	ca := testcert.NewAuthority()
	server := ca.Issue("localhost", testcert.NewKey("P-256"))
	d := newDirect(t, func(s *Server) { s.Certificates = []tls.Certificate{server} })
	c, from := testpeer.New("", nil, 1), clientAddr(1)
	c.Suites = []uint16{ecdheCert}
	d.exchange(c, from, c.Hello())
	d.exchange(c, from, c.Hello())
	records := c.Records()
	d.exchange(c, from, records[0])
	d.exchange(c, from, records[1])
	d.receive(from, append(wire.AppendRecordHeader(nil, wire.ContentHandshake, wire.VersionDTLS12, 1, 0, 40), make([]byte, 40)...))
	d.advance(time.Minute)
	if e := d.rec.want(t, KindHandshakeFailed, 1, "after a minute"); !errors.Is(e.Err, ErrHandshakeTimeout) {
		t.Errorf("%v", e)
	}
}
