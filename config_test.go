package dtlsserver

// What is wrong with the fields of a Server.

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testcert"
)

// TestConfigErrors: all that is wrong is said at once, by field, and a running
// server goes on.
func TestConfigErrors(t *testing.T) {
	t.Parallel()
	s := &Server{
		PSKIdentityHint: strings.Repeat("h", 2000), MaxPSKIdentityLen: -1, MaxSessionAge: -1, Verifier: &Verifier{},
		CipherSuites: []uint16{0x00a8, 0xc027, 0x000a}, HandshakeTimeout: -1, RetransmitTimeout: -1, IdleTimeout: -1,
		MaxSessions: -1, MaxHandshakes: -1, MTU: 100, ReadBuffer: -1, WriteBuffer: -1,
	}
	err := s.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		t.Fatal("no error")
	}
	for _, field := range []string{
		"Server has no credentials: set PSK", "PSKIdentityHint", "MaxPSKIdentityLen", "MaxSessionAge is negative", "Verifier", "CipherSuites has 0xc027", "CipherSuites has 0x000a",
		"HandshakeTimeout", "RetransmitTimeout", "IdleTimeout", "MaxSessions", "MaxHandshakes", "MTU", "ReadBuffer", "WriteBuffer", `network "tcp"`,
	} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("the error does not name %s", field)
		}
	}
	for line := range strings.Lines(err.Error()) {
		if !strings.HasPrefix(line, "dtlsserver: ") {
			t.Errorf("line %q", line)
		}
	}
	if s.IsListening() {
		t.Error("listening")
	}
	if err := (&Server{}).Serve(nil); err == nil || err.Error() != "dtlsserver: Server has no credentials: set PSK, Certificates or GetCertificate" {
		t.Errorf("Serve without credentials: %v", err)
	}
	for _, mtu := range []int{127, 65508, -1} {
		if err := (&Server{PSK: testPSK, MTU: mtu}).Listen("udp", "127.0.0.1:0"); err == nil {
			t.Errorf("MTU %d", mtu)
		}
	}
	for _, s := range []*Server{
		{RetransmitTimeout: 999 * time.Microsecond},
		{RetransmitTimeout: time.Minute + 1, HandshakeTimeout: time.Hour},
		{RetransmitTimeout: DefaultHandshakeTimeout},
		{RetransmitTimeout: time.Second, HandshakeTimeout: time.Second},
	} {
		s.PSK = testPSK
		if err := s.Listen("udp", "127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), "dtlsserver: Server.RetransmitTimeout is ") {
			t.Errorf("RetransmitTimeout %v with HandshakeTimeout %v: %v", s.RetransmitTimeout, s.HandshakeTimeout, err)
		}
	}
	if err := (&Server{PSK: testPSK, CipherSuites: []uint16{}}).Listen("udp", "127.0.0.1:0"); err == nil {
		t.Error("no cipher suites")
	}

	running := listen(t, "udp", "127.0.0.1:0", newWaiter())
	running.MTU = 1 // against the rules, but it must not hurt
	if err := running.Listen("udp", "127.0.0.1:0"); err == nil || !running.IsListening() {
		t.Errorf("Listen with a wrong field: %v, listening %v", err, running.IsListening())
	}
}

// TestCertificateConfigErrors: what is wrong with certificates is said by
// Listen.
func TestCertificateConfigErrors(t *testing.T) {
	t.Parallel()
	ca := testcert.NewAuthority()
	good, other := ca.Issue("localhost", testcert.NewKey("P-256")), ca.Issue("localhost", testcert.NewKey("P-256"))
	mixed := tls.Certificate{Certificate: good.Certificate, PrivateKey: other.PrivateKey}
	s := &Server{
		Certificates: []tls.Certificate{
			good, {}, mixed, {Certificate: good.Certificate},
			{Certificate: [][]byte{{1}}, PrivateKey: good.PrivateKey},
		},
		ClientAuth: 9, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}, NextProtos: []string{""},
		MaxClientCertificateBytes: 1 << 24, CipherSuites: []uint16{0x00a8, 0xc02f},
	}
	err := s.Listen("udp", "127.0.0.1:0")
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range []string{
		"Certificates[1] has no certificate", "Certificates[2] has a private key that is not", "Certificates[3] has a private key of type",
		"Certificates[4] has a leaf", "ClientAuth", "CurvePreferences", "NextProtos", "MaxClientCertificateBytes", "CipherSuites has none",
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q: %v", part, err)
		}
	}
	if err := (&Server{PSK: testPSK, ClientAuth: tls.RequireAnyClientCert}).Listen("udp", "127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), "ClientAuth") {
		t.Errorf("ClientAuth without Certificates: %v", err)
	}
	if strings.Contains(err.Error(), "Certificates[0]") {
		t.Errorf("%v", err)
	}
	if err := (&Server{PSK: testPSK, ClientAuth: 9}).Listen("udp", "127.0.0.1:0"); err == nil || err.Error() != "dtlsserver: Server.ClientAuth is unknown: 9" {
		t.Errorf("an unknown ClientAuth: %v", err)
	}
}
