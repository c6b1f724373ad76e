package interop

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/dtlsserver/dtlsserver"
)

// TestStapling: OpenSSL and GnuTLS take the response of OCSP that they ask for, and
// OpenSSL makes ECDHE with P-521 where that was asked for.
func TestStapling(t *testing.T) {
	t.Parallel()
	set := keys()["P-256"]
	ca, err := x509.ParseCertificate(set.ca)
	if err != nil {
		t.Fatal(err)
	}
	certificate := set.server
	certificate.OCSPStaple, err = ocsp.CreateResponse(ca, ca, ocsp.Response{
		Status: ocsp.Good, SerialNumber: certificate.Leaf.SerialNumber,
		ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour),
	}, set.caKey)
	if err != nil {
		t.Fatal(err)
	}
	handler := dtlsserver.HandlerFuncs{OnDatagramReceived: func(s *dtlsserver.Session, _, plainText []byte) {
		s.Write([]byte("to " + s.String() + ": ACK"))
	}}
	server := &dtlsserver.Server{Certificates: []tls.Certificate{certificate}, CurvePreferences: []tls.CurveID{tls.CurveP521}, Handler: handler}
	if err := server.Listen("udp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	addr := server.Addr().String()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: set.ca}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("OpenSSL", func(t *testing.T) {
		t.Parallel()
		out := wantACK(t, tool(t, "openssl", "openssl"), "s_client", "-dtls1_2", "-connect", addr, "-status", "-CAfile", file,
			"-verify_return_error", "-servername", serverName, "-groups", "P-521:P-256")
		for _, want := range []string{"OCSP Response Status: successful", "Cert Status: good", "Server Temp Key: ECDH, secp521r1"} {
			if !strings.Contains(out, want) {
				t.Errorf("%q is not in\n%s", want, out)
			}
		}
	})
	t.Run("GnuTLS", func(t *testing.T) {
		t.Parallel()
		port := addr[strings.LastIndexByte(addr, ':')+1:]
		out := wantACK(t, tool(t, "gnutls-cli", "gnutls-bin"), "--udp", "--port", port, "--x509cafile", file,
			"--sni-hostname", serverName, "--verify-hostname", serverName,
			"--priority", "NORMAL:-VERS-ALL:+VERS-DTLS1.2:+GROUP-SECP521R1", "127.0.0.1")
		if !strings.Contains(out, "OCSP status request") || !strings.Contains(out, "Status: The certificate is trusted") {
			t.Errorf("no OCSP:\n%s", out)
		}
	})
}
