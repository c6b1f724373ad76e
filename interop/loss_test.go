package interop

// Handshakes of clients that others wrote, on networks that lose and reorder
// datagrams and take no large ones.

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver"
)

// newServer returns a server with a pre-shared key, and a certificate of the
// set.
func newServer(set *keySet) *dtlsserver.Server {
	return &dtlsserver.Server{
		PSK:          dtlsserver.StaticPSK(map[string][]byte{identity: key}),
		Certificates: []tls.Certificate{set.server},
	}
}

// answerCoAP answers a request of CoAP (RFC 7252 section 3) with 2.05.
func answerCoAP(s *dtlsserver.Session, message []byte) {
	if len(message) < 4 || message[0]>>6 != 1 || message[1] == 0 || message[1]>>5 != 0 {
		return // no request
	}
	tokenEnd := 4 + int(message[0]&15)
	if len(message) < tokenEnd {
		return
	}
	answer := append([]byte{message[0]&^0x30 | 0x20, 0x45}, message[2:tokenEnd]...) // an ACK
	s.Write(fmt.Appendf(append(answer, 0xff), "to %v: ACK", s.RemoteAddr()))
}

// libcoap has a request answered by one of libcoap's clients.
func libcoap(t *testing.T, path, addr, credentials, ca string) error {
	t.Helper()
	const seconds = 15
	running <- struct{}{}
	defer func() { <-running }()
	args := []string{"-B", fmt.Sprint(seconds)}
	if credentials == withPSK {
		args = append(args, "-u", identity, "-k", string(key))
	} else {
		args = append(args, "-R", ca)
	}
	ctx, cancel := context.WithTimeout(t.Context(), (seconds+5)*time.Second)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, path, append(args, "coaps://"+addr+"/")...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil || !strings.Contains(out.String(), ": ACK") {
		return fmt.Errorf("no answer: %v\n%s", err, &out)
	}
	return nil
}

// TestLibcoapWithEachDatagramLost: of a handshake of libcoap's clients, one
// datagram is lost, each in its turn, and the request is answered all the same.
// Those of the client's last flight take several turns: after them, what comes
// depends on whose timer, each a second, is the first by a millisecond.
func TestLibcoapWithEachDatagramLost(t *testing.T) {
	t.Parallel()
	set := keys()["P-256"]
	for _, program := range []string{"coap-client-gnutls", "coap-client-openssl"} {
		for _, credentials := range []string{withPSK, withCertificate} {
			t.Run(program+"/"+credentials, func(t *testing.T) {
				t.Parallel()
				path, ca := tool(t, program, "libcoap3-bin"), writeCA(t, set.ca)
				through := func(t *testing.T, decide func(datagram) verdict) *relay {
					t.Helper()
					d := serveWith(t, newServer(set), answerCoAP)
					r := startRelay(t, d.addr, decide)
					if err := libcoap(t, path, r.addr(), credentials, ca); err != nil {
						t.Error(err)
					}
					return r
				}
				all := through(t, func(datagram) verdict { return pass })
				if t.Failed() {
					return
				}
				for _, lost := range all.datagrams() {
					if lost.has(applicationData, 1) {
						break
					}
					turns := 1
					if lost.to == toServer && !lost.hasMessage(clientHello) {
						turns = 5
					}
					for turn := range turns {
						t.Run(fmt.Sprintf("%v #%d/%d", lost.to, lost.n, turn+1), func(t *testing.T) {
							t.Parallel()
							through(t, func(d datagram) verdict {
								if d.to == lost.to && d.n == lost.n {
									return drop
								}
								return pass
							})
						})
					}
				}
			})
		}
	}
}

// TestHandshakesOfCClients: one full handshake each, and one that resumes it.
func TestHandshakesOfCClients(t *testing.T) {
	t.Parallel()
	for i, name := range []string{"full", "resumed"} {
		connections := i + 1
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			forEachCClient(t, cClients, func(t *testing.T, c *cClient, credentials string) {
				set := keys()["P-256"]
				d := serve(t, newServer(set))
				r := startRelay(t, d.addr, func(datagram) verdict { return pass })
				c.wantAnswers(t, r.addr(), credentials, writeCA(t, set.ca), connections, 10*time.Second)
				d.wantResumed(t, connections-1)
			})
		})
	}
}

// TestFirstDataOfResumedSession: the first data of a session that a client
// resumes is answered when the client's Finished, which comes before it, is
// lost, and when the data overtakes that.
func TestFirstDataOfResumedSession(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		finished verdict // of the first datagram that has it
	}{
		{"Finished lost", drop},
		{"Finished overtaken", hold},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			able := slices.DeleteFunc(slices.Clone(cClients), func(c *cClient) bool { return tt.finished == drop && c.once })
			forEachCClient(t, able, func(t *testing.T, c *cClient, credentials string) {
				set := keys()["P-256"]
				d := serve(t, newServer(set))
				var befallen atomic.Bool
				r := startRelay(t, d.addr, func(d datagram) verdict {
					const resumed = 2 // the client's second socket
					if d.flow != resumed || d.to != toServer || !d.hasFinished() || befallen.Swap(true) {
						return pass
					}
					return tt.finished
				})
				c.wantAnswers(t, r.addr(), credentials, writeCA(t, set.ca), 2, 10*time.Second)
				if !befallen.Load() {
					t.Error("the relay has not seen the client's Finished")
				}
				d.wantResumed(t, 1)
			})
		})
	}
}

// TestCertificatesOnSmallPath: on a path that loses what is longer than 548
// bytes, handshakes with chains of certificates that are longer come to their
// end although the server's MTU is 1200.
func TestCertificatesOnSmallPath(t *testing.T) {
	t.Parallel()
	const most = 548 // bytes of UDP payload, which any host must be able to take (RFC 1122 section 3.3.2)
	for _, c := range cClients {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.program(t)
			set := newChain()
			s := newServer(set)
			s.MTU = 1200
			d := serve(t, s)
			var lost atomic.Int64
			r := startRelay(t, d.addr, func(d datagram) verdict {
				if d.to == toClient && len(d.data) > most {
					lost.Add(1)
					return drop
				}
				return pass
			})
			c.wantAnswers(t, r.addr(), withCertificate, writeCA(t, set.ca), 1, patience)
			if lost.Load() == 0 {
				t.Errorf("no datagram was longer than %d bytes: the chain is too short", most)
			}
		})
	}
}

// TestHelloInFragments: clients whose ClientHello does not fit their MTU, with
// all suites that they have, and the cookie before these.
func TestHelloInFragments(t *testing.T) {
	t.Parallel()
	openssl := func(t *testing.T, addr string, mtu int) {
		wantACK(t, tool(t, "openssl", "openssl"), "s_client", "-dtls1_2", "-connect", addr, "-mtu", fmt.Sprint(mtu),
			"-cipher", "ALL:@SECLEVEL=0", "-psk_identity", identity, "-psk", hexKey)
	}
	gnutls := func(t *testing.T, addr string, mtu int) {
		host, port, _ := net.SplitHostPort(addr)
		wantACK(t, tool(t, "gnutls-cli", "gnutls-bin"), "--udp", "--port", port, "--mtu", fmt.Sprint(mtu),
			"--priority", "NORMAL:+PSK:-VERS-ALL:+VERS-DTLS1.2", "--pskusername", identity, "--pskkey", hexKey,
			"--no-ca-verification", host)
	}
	tests := []struct {
		name    string
		connect func(t *testing.T, addr string, mtu int)
		mtu     int
	}{
		{"OpenSSL", openssl, 256}, {"OpenSSL", openssl, 300}, {"OpenSSL", openssl, 400},
		{"GnuTLS", gnutls, 128}, {"GnuTLS", gnutls, 160}, {"GnuTLS", gnutls, 256},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s/MTU=%d", tt.name, tt.mtu), func(t *testing.T) {
			t.Parallel()
			d := serve(t, newServer(keys()["P-256"]))
			var fragments atomic.Int64
			r := startRelay(t, d.addr, func(d datagram) verdict {
				for _, r := range d.records() {
					if d.to == toServer && r.isFragment() {
						fragments.Add(1)
					}
				}
				return pass
			})
			tt.connect(t, r.addr(), tt.mtu)
			if fragments.Load() == 0 {
				t.Error("the client sends whole messages")
			}
		})
	}
}
