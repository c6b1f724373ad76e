// Package testcert makes keys, certificates and the authorities that sign them,
// for tests. What cannot be made is a fault of the test's, and a panic.
package testcert

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
	"fmt"
	"math/big"
	"time"
)

// Authority signs certificates.
type Authority struct {
	Cert *x509.Certificate
	Key  crypto.Signer
	Pool *x509.CertPool // of Cert alone
}

// NewAuthority returns an authority with a new P-256 key.
func NewAuthority() *Authority { return NewAuthorityWithKey("Test CA", NewKey("P-256")) }

// NewAuthorityWithKey returns an authority of a name, with a key. Its own
// certificate, which it has signed itself, will also do for a server.
func NewAuthorityWithKey(name string, key crypto.Signer) *Authority {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	a := &Authority{Cert: Sign(template, template, key.Public(), key), Key: key, Pool: x509.NewCertPool()}
	a.Pool.AddCert(a.Cert)
	return a
}

// Template returns the template of a certificate for a server or a client, with
// a name that is its common name and its DNS name. It is valid from 1970 to 2242.
func Template(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

// Issue returns a certificate of a key, made from Template(name) and the edits.
// The authority's own is in its chain too.
func (a *Authority) Issue(name string, key crypto.Signer, edit ...func(*x509.Certificate)) tls.Certificate {
	template := Template(name)
	for _, f := range edit {
		f(template)
	}
	return tls.Certificate{Certificate: [][]byte{a.Sign(template, key.Public()).Raw, a.Cert.Raw}, PrivateKey: key}
}

// Sign returns a certificate of a public key, made from a template.
func (a *Authority) Sign(template *x509.Certificate, public crypto.PublicKey) *x509.Certificate {
	return Sign(template, a.Cert, public, a.Key)
}

// Sign is x509.CreateCertificate: parent says who has signed, and signer is the
// key that it was done with.
func Sign(template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		panic(fmt.Sprintf("testcert: %v", err))
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(fmt.Sprintf("testcert: %v", err))
	}
	return cert
}

// NewKey returns a new key of a kind: "P-256", "P-384", "P-521", "RSA" (of 2048
// bits) or "Ed25519".
func NewKey(kind string) crypto.Signer {
	var key crypto.Signer
	var err error
	switch kind {
	case "P-256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "P-384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "P-521":
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "RSA":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "Ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		err = fmt.Errorf("unknown kind of key %q", kind)
	}
	if err != nil {
		panic(fmt.Sprintf("testcert: %v", err))
	}
	return key
}
