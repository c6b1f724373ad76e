//go:build linux

package main

// Certificates, honest and not.

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"time"
)

// identity is a certificate chain with the key of its leaf.
type identity struct {
	chain [][]byte
	key   *ecdsa.PrivateKey
}

// template is what certificates have in common.
func template(subject string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: subject},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
}

// must is for what fails only if this program is wrong.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newKey(curve elliptic.Curve) *ecdsa.PrivateKey {
	return must(ecdsa.GenerateKey(curve, rand.Reader))
}

// sign makes a certificate for the key in the name of issuer.
func sign(t *x509.Certificate, key *ecdsa.PrivateKey, issuer string, signer *ecdsa.PrivateKey) []byte {
	parent := &x509.Certificate{Subject: pkix.Name{CommonName: issuer}}
	return must(x509.CreateCertificate(rand.Reader, t, parent, &key.PublicKey, signer))
}

// newIdentity makes a certificate for a name by an authority, or by itself.
func newIdentity(name string, by *authority) *identity {
	key := newKey(elliptic.P256())
	t := template(name)
	t.DNSNames = []string{name}
	if by == nil {
		by = &authority{name, key, nil}
	}
	return &identity{[][]byte{sign(t, key, by.name, by.key)}, key}
}

// authority signs the certificates of honest clients.
type authority struct {
	name string
	key  *ecdsa.PrivateKey
	der  []byte
}

func newAuthority(name string, curve elliptic.Curve) *authority {
	a := &authority{name: name, key: newKey(curve)}
	a.der = a.certify(name, a.key, 1)
	return a
}

// certify makes the certificate of an authority.
func (a *authority) certify(name string, key *ecdsa.PrivateKey, serial int64) []byte {
	t := template(name)
	t.SerialNumber = big.NewInt(serial)
	t.IsCA, t.BasicConstraintsValid, t.KeyUsage, t.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil
	t.DNSNames = []string{fmt.Sprint("n", serial)} // namesakes are not equal
	return sign(t, key, a.name, a.key)
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.der})
}

// cycle is a chain of nine certificates of which each of the last eight, two of
// a name, is signed in the name of the next, and by the same key of P-521: it
// takes a hundred signatures to find that they lead nowhere.
func cycle() *identity {
	big := newKey(elliptic.P521())
	names := []string{"N1", "N2", "N3", "N4"}
	leaf := newIdentity("leaf", &authority{name: names[0], key: big})
	for i, name := range names {
		next := &authority{name: names[(i+1)%len(names)], key: big}
		for j := range 2 {
			leaf.chain = append(leaf.chain, next.certify(name, big, int64(10+2*i+j)))
		}
	}
	return leaf
}

// manyNames is a certificate with so many URIs, each of which takes more memory
// than bytes.
func manyNames(n int) *identity {
	key := newKey(elliptic.P256())
	t := template("x")
	for range n {
		t.URIs = append(t.URIs, &url.URL{Scheme: "a", Host: "b"})
	}
	return &identity{[][]byte{sign(t, key, "x", key)}, key}
}

// longName is a stranger's certificate whose subject is quoted at greater length.
func longName(bytes int) *identity {
	key, subject := newKey(elliptic.P256()), strings.Repeat(`"`, bytes)
	return &identity{[][]byte{sign(template(subject), key, "x", key)}, key}
}

// longHint is a chain of a stranger that package x509 tells of at length: an
// authority with a long name that has not signed the leaf.
func longHint(bytes int) *identity {
	name := strings.Repeat(`"`, bytes)
	root := newAuthority("root", elliptic.P256())
	leaf := newIdentity("leaf", newAuthority(name, elliptic.P256()))
	leaf.chain = append(leaf.chain, root.certify(name, newKey(elliptic.P256()), 2))
	return leaf
}
