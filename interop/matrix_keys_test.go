package interop

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const serverName = "localhost"

// keySet is an authority and certificates that it has signed.
type keySet struct {
	pool           *x509.CertPool
	ca             []byte // DER
	caKey          crypto.Signer
	server, client tls.Certificate
}

// keys returns the sets by kind of key. The authority's is of the same kind,
// from which pion's v2 client takes how an RSA key signs; but its v3 client
// knows no certificate that an Ed25519 key has signed.
var keys = sync.OnceValue(func() map[string]*keySet {
	sets := map[string]*keySet{"Ed25519-by-P-256": newKeySet("Ed25519", "P-256")}
	for _, kind := range []string{"P-256", "RSA", "Ed25519"} {
		sets[kind] = newKeySet(kind, kind)
	}
	return sets
})

func newKey(kind string) (key crypto.Signer) {
	var err error
	switch kind {
	case "P-256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "RSA":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "Ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		panic(err)
	}
	return key
}

func newKeySet(kind, authority string) *keySet {
	ca := newAuthority("Test CA of "+kind, authority, nil)
	set := &keySet{
		pool: x509.NewCertPool(), ca: ca.cert.Raw, caKey: ca.key,
		server: ca.issue(kind, serverName, x509.ExtKeyUsageServerAuth),
		client: ca.issue(kind, "client", x509.ExtKeyUsageClientAuth),
	}
	set.pool.AddCert(ca.cert)
	return set
}

// newChain returns a set whose server has two certificates between its own and
// the authority's, and whose client has none.
func newChain() *keySet {
	root := newAuthority("Test CA of chains", "P-256", nil)
	first := newAuthority("Test CA between, one", "P-256", root)
	second := newAuthority("Test CA between, two", "P-256", first)
	set := &keySet{ca: root.cert.Raw, server: second.issue("P-256", serverName, x509.ExtKeyUsageServerAuth)}
	set.server.Certificate = append(set.server.Certificate, second.cert.Raw, first.cert.Raw)
	return set
}

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// newAuthority returns an authority with a kind of key, which another has
// signed, or itself if that is nil.
func newAuthority(name, kind string, by *authority) *authority {
	a := &authority{key: newKey(kind)}
	template := newTemplate(name)
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	if by == nil {
		by = &authority{template, a.key}
	}
	a.cert = by.sign(template, a.key)
	return a
}

// issue returns a new key with its certificate.
func (a *authority) issue(kind, name string, usage x509.ExtKeyUsage) tls.Certificate {
	template, key := newTemplate(name), newKey(kind)
	template.DNSNames, template.ExtKeyUsage = []string{name}, []x509.ExtKeyUsage{usage}
	cert := a.sign(template, key)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

func (a *authority) sign(template *x509.Certificate, key crypto.Signer) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return cert
}

var serial atomic.Int64

func newTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial.Add(1)), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
}

// writeKeys writes what clients need of a set into files in dir, for each kind
// of key.
func writeKeys(t *testing.T, dir string) {
	t.Helper()
	for kind, set := range keys() {
		private, err := x509.MarshalPKCS8PrivateKey(set.client.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		for name, block := range map[string]*pem.Block{
			"ca":   {Type: "CERTIFICATE", Bytes: set.ca},
			"cert": {Type: "CERTIFICATE", Bytes: set.client.Certificate[0]},
			"key":  {Type: "PRIVATE KEY", Bytes: private},
		} {
			if err := os.WriteFile(keyFile(dir, kind, name), pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// keyFile is the path of a file of writeKeys: ca, cert or key.
func keyFile(dir, kind, name string) string {
	return filepath.Join(dir, kind+"-"+name+".pem")
}
