package dtlsserver

// Paths, sockets and clients that take no long datagrams.

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	piondtls "github.com/pion/dtls/v2"

	"github.com/dtlsserver/dtlsserver/internal/testcert"
	"github.com/dtlsserver/dtlsserver/internal/udpio"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// longCertificate is one of some 1,600 bytes.
func longCertificate(t *testing.T) (*testcert.Authority, tls.Certificate) {
	ca := testcert.NewAuthority()
	return ca, ca.Issue("localhost", testcert.NewKey("P-256"), func(c *x509.Certificate) {
		for i := range 30 {
			c.DNSNames = append(c.DNSNames, fmt.Sprintf("another-name-%d.of-the-server.test", i))
		}
	})
}

// TestPathMTU: on a path that loses what is longer than it carries, without a word,
// the datagrams of a flight get smaller until pion's client is connected.
func TestPathMTU(t *testing.T) {
	t.Parallel()
	ca, cert := longCertificate(t)
	for _, most := range []int{1200, 1199, 548, 400, 256} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(s *Server) { s.PSK, s.Certificates = nil, []tls.Certificate{cert} }, func(b *bubble) {
				lost, sent := 0, 0
				b.network.carry = func(from, to netip.AddrPort, d []byte) []time.Duration {
					if len(d) > most {
						lost++
						return nil
					}
					sent++
					return []time.Duration{10 * time.Millisecond}
				}
				start := time.Now()
				c, err := dialPion(t, b.network.dial(clientAddr(1), serverAddr), &piondtls.Config{
					RootCAs: ca.Pool, ServerName: "localhost", MTU: 200,
					CipherSuites: []piondtls.CipherSuiteID{piondtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
				}, time.Minute)
				if err != nil {
					b.t.Fatalf("not connected after %v: %v", time.Since(start), err)
				}
				if took := time.Since(start); took > 10*time.Second || most == 1200 && (lost > 0 || took > time.Second) {
					b.t.Errorf("connected after %v, with %d datagrams lost", took, lost)
				}
				c.Close()
			})
		})
	}
}

// TestOneRecordOfADatagram: a client that takes no more than the first record of
// each datagram, and says nothing again by itself, is connected too, and its session
// has one record a datagram from then on.
func TestOneRecordOfADatagram(t *testing.T) {
	t.Parallel()
	for _, id := range []uint16{0x00a8, ecdhePSK, ecdheCert} {
		_, cert := longCertificate(t)
		inBubble(t, func(s *Server) { s.Certificates = []tls.Certificate{cert} }, func(b *bubble) {
			p := b.peer(1)
			p.Suites = []uint16{id}
			takeOne := func() {
				synctest.Wait()
				for len(p.pipe.in) > 0 {
					d := <-p.pipe.in
					r, _, _ := wire.ParseRecord(d.b, 0)
					if err := p.Client.Receive(r.Raw); err != nil {
						b.t.Fatal(err)
					}
				}
			}
			p.send(p.Hello())
			takeOne()
			p.send(p.Hello())
			start := time.Now()
			for !p.HelloDone && time.Since(start) < DefaultHandshakeTimeout {
				takeOne()
				time.Sleep(50 * time.Millisecond)
			}
			if !p.HelloDone {
				b.t.Fatalf("suite %#04x: no ServerHelloDone", id)
			}
			if took := time.Since(start); took > 10*time.Second {
				b.t.Errorf("suite %#04x: it took %v", id, took)
			}
			for _, r := range p.Records() {
				p.send(r)
			}
			if takeOne(); !p.Complete {
				b.t.Errorf("suite %#04x: not complete", id)
			}
		})
	}
}

// narrowConn refuses datagrams that are too long for it.
type narrowConn struct {
	*end
	most, refused int
}

func (c *narrowConn) WriteTo(b []byte, to net.Addr) (int, error) {
	if len(b) > c.most {
		c.refused++
		return 0, opError("write", syscall.EMSGSIZE)
	}
	return c.end.WriteTo(b, to)
}

// TestMessageTooLong: what the socket refuses for its length is said again in smaller
// datagrams at once, in a first handshake, in one beside an open session and in a
// last flight; what a handler has written is not.
func TestMessageTooLong(t *testing.T) {
	t.Parallel()
	_, cert := longCertificate(t)
	for _, most := range []int{1199, 700, 548, 300, 256} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n, rec := newNetwork(), &recorder{}
				conn := &narrowConn{end: n.listen(serverAddr), most: most}
				s := &Server{Certificates: []tls.Certificate{cert}, Handler: rec}
				served := make(chan error)
				go func() { served <- s.Serve(conn) }()
				synctest.Wait()
				b := &bubble{t: t, network: n, server: s, rec: rec}
				start := time.Now()
				for range 2 { // the second one from the same port, beside the first
					p := &peer{b.peer(1).Client, t, n.dial(clientAddr(1), serverAddr)}
					p.Suites, p.Random[0] = []uint16{ecdheCert}, byte(conn.refused)
					p.establish()
					if refused := conn.refused; refused == 0 || refused > 20 {
						t.Errorf("%d datagrams were refused", refused)
					}
				}
				if took := time.Since(start); took != 0 {
					t.Errorf("it took %v", took)
				}
				session, _ := s.SessionByAddr(clientAddr(1), anyLocal)
				before := s.Stats().DatagramsSent
				for _, length := range []int{1000, 1100, 1200, 5000} {
					if _, err := session.Write(make([]byte, length)); most < length && !errors.Is(err, ErrMessageTooLong) {
						t.Errorf("Write of %d bytes: %v", length, err)
					}
				}
				synctest.Wait()
				written := uint64(0)
				if most == 1199 {
					written = 2
				}
				if sent := s.Stats().DatagramsSent - before; sent != written {
					t.Errorf("%d datagrams were sent, want %d", sent, written)
				}
				s.Close()
				if err := <-served; !errors.Is(err, ErrServerClosed) {
					t.Errorf("Serve: %v", err)
				}
			})
		})
	}
}

// TestTooLongIsNotedOnce: a session is noted once, however often the socket refuses
// what goes to it, and only for what may be of a flight.
func TestTooLongIsNotedOnce(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	d.verified(1, clientAddr(1))
	d.out, d.to = nil, nil
	for range 100 {
		for _, n := range []int{DefaultMTU + 1, 65507, 1000} {
			d.l.sent(udpio.Sent{Remote: clientAddr(1), Len: n, Err: udpio.ErrTooLong})
			d.l.sent(udpio.Sent{Remote: clientAddr(2), Len: n, Err: udpio.ErrTooLong})
		}
	}
	if n := len(d.l.tooLong); n != 1 || !d.l.hasWork() {
		t.Errorf("%d sessions are noted, work %v", n, d.l.hasWork())
	}
	d.settle()
	if d.l.hasWork() || len(d.out) > 0 {
		t.Errorf("work is left: %v; sent %d datagrams", d.l.hasWork(), len(d.out))
	}
}
