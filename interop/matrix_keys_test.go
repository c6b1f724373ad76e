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
	caKey := newKey(authority)
	template := func(serial int64, name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
			KeyUsage: x509.KeyUsageDigitalSignature,
		}
	}
	sign := func(template, parent *x509.Certificate, key crypto.Signer) *x509.Certificate {
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), caKey)
		if err != nil {
			panic(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			panic(err)
		}
		return cert
	}
	root := template(1, "Test CA of "+kind)
	root.IsCA, root.BasicConstraintsValid, root.KeyUsage = true, true, x509.KeyUsageCertSign
	ca := sign(root, root, caKey)
	issue := func(serial int64, name string, usage x509.ExtKeyUsage) tls.Certificate {
		leaf, key := template(serial, name), newKey(kind)
		leaf.DNSNames, leaf.ExtKeyUsage = []string{name}, []x509.ExtKeyUsage{usage}
		cert := sign(leaf, ca, key)
		return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
	}
	set := &keySet{
		pool: x509.NewCertPool(), ca: ca.Raw, caKey: caKey,
		server: issue(2, serverName, x509.ExtKeyUsageServerAuth),
		client: issue(3, "client", x509.ExtKeyUsageClientAuth),
	}
	set.pool.AddCert(ca)
	return set
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
