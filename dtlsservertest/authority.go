package dtlsservertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Authority is a certificate authority that is made for a test. All its keys are
// ECDSA keys on P-256. What it issues is valid now, on the clock of a synctest
// bubble too.
type Authority struct {
	Certificate *x509.Certificate
	Pool        *x509.CertPool // of Certificate alone

	t   testing.TB
	key *ecdsa.PrivateKey
}

// NewAuthority makes an authority.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{t: t, key: newKey(t), Pool: x509.NewCertPool()}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "CA of " + t.Name()},
		IsCA:    true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	setValidity(template)
	a.Certificate = a.sign(template, template, a.key)
	a.Pool.AddCert(a.Certificate)
	return a
}

// setValidity makes a certificate valid from 1970 to 2242 where it does not say
// otherwise.
func setValidity(template *x509.Certificate) {
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Unix(0, 0)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Unix(1<<33, 0)
	}
}

// Issue returns a certificate for a server or a client, with its key. The first
// name is its common name; all are its DNS names, or IP addresses.
func (a *Authority) Issue(names ...string) tls.Certificate {
	a.t.Helper()
	template := &x509.Certificate{}
	for i, name := range names {
		if i == 0 {
			template.Subject.CommonName = name
		}
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	return a.IssueTemplate(template)
}

// IssueTemplate returns a certificate as x509.CreateCertificate makes it of a
// template, say one that has expired. Where the template does not say for how long
// and for what it is valid, it is valid now, for servers and clients. The template
// is not changed.
func (a *Authority) IssueTemplate(template *x509.Certificate) tls.Certificate {
	a.t.Helper()
	filled := *template
	setValidity(&filled)
	if filled.ExtKeyUsage == nil {
		filled.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	key := newKey(a.t)
	leaf := a.sign(&filled, a.Certificate, key)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
}

// IssueFiles is Issue for programs that read PEM files, as tls.LoadX509KeyPair
// does. The test's end removes them.
func (a *Authority) IssueFiles(names ...string) (certFile, keyFile string) {
	a.t.Helper()
	cert := a.Issue(names...)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		a.t.Fatalf("dtlsservertest: %v", err)
	}
	return a.write("certificate.pem", "CERTIFICATE", cert.Certificate[0]), a.write("key.pem", "PRIVATE KEY", key)
}

// File returns the name of a PEM file with the authority's certificate. The test's
// end removes it.
func (a *Authority) File() string {
	a.t.Helper()
	return a.write("authority.pem", "CERTIFICATE", a.Certificate.Raw)
}

func (a *Authority) write(name, kind string, der []byte) string {
	a.t.Helper()
	file := filepath.Join(a.t.TempDir(), name)
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatalf("dtlsservertest: %v", err)
	}
	return file
}

func (a *Authority) sign(template, parent *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), a.key)
	if err != nil {
		a.t.Fatalf("dtlsservertest: %v", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatalf("dtlsservertest: %v", err)
	}
	return cert
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("dtlsservertest: %v", err)
	}
	return key
}
