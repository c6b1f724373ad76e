package interop

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// startCertificateServer starts examples/server with a certificate beside its
// pre-shared key, and returns its address and the file of its authority.
func startCertificateServer(t *testing.T) (addr, ca string) {
	t.Helper()
	dir, set := t.TempDir(), keys()["P-256"]
	private, err := x509.MarshalPKCS8PrivateKey(set.server.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert := write("cert.pem", "CERTIFICATE", set.server.Certificate[0])
	key := write("key.pem", "PRIVATE KEY", private)
	addr = startServer(t, "-cert", cert, "-key", key, "-psk", identity+"="+hexKey)
	return addr, write("ca.pem", "CERTIFICATE", set.ca)
}

// TestOpenSSLResumes: the second of two runs of s_client resumes the session of
// the first by its ticket, with a pre-shared key and with a certificate.
func TestOpenSSLResumes(t *testing.T) {
	t.Parallel()
	path := tool(t, "openssl", "openssl")
	addr, ca := startCertificateServer(t)
	for cipher, credentials := range map[string][]string{
		"ECDHE-PSK-CHACHA20-POLY1305":   {"-psk_identity", identity, "-psk", hexKey},
		"ECDHE-ECDSA-AES128-GCM-SHA256": {"-CAfile", ca, "-verify_return_error", "-servername", serverName},
	} {
		t.Run(cipher, func(t *testing.T) {
			t.Parallel()
			session := filepath.Join(t.TempDir(), "session.pem")
			args := append([]string{"s_client", "-dtls1_2", "-connect", addr, "-cipher", cipher}, credentials...)
			if out := wantACK(t, path, append(args, "-sess_out", session)...); !strings.Contains(out, "New, TLSv1.2") {
				t.Errorf("the first run:\n%s", out)
			}
			if out := wantACK(t, path, append(args, "-sess_in", session)...); !strings.Contains(out, "Reused, TLSv1.2") {
				t.Errorf("the second run:\n%s", out)
			}
		})
	}
}

// TestGnuTLSResumes: gnutls-cli connects twice by itself.
func TestGnuTLSResumes(t *testing.T) {
	t.Parallel()
	path := tool(t, "gnutls-cli", "gnutls-bin")
	addr, ca := startCertificateServer(t)
	port := addr[strings.LastIndexByte(addr, ':')+1:]
	out := wantACK(t, path, "--udp", "--port", port, "--resume", "--x509cafile", ca,
		"--sni-hostname", serverName, "--verify-hostname", serverName,
		"--priority", "NORMAL:-VERS-ALL:+VERS-DTLS1.2", "127.0.0.1")
	if !strings.Contains(out, "This is a resumed session") {
		t.Errorf("not resumed:\n%s", out)
	}
}
