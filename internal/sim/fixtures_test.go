package sim

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"sync"
	"testing"
	"testing/cryptotest"
	"time"
)

// fixtures are the certificates, which are the same for every seed.
var fixtures struct {
	once         sync.Once
	pool         *x509.CertPool
	server, long tls.Certificate
	client       tls.Certificate
	expired      tls.Certificate
	other        tls.Certificate // of another authority
	p384         tls.Certificate
	encipherment tls.Certificate // with a key usage that is no signature
	forServers   tls.Certificate // with a usage that is not a client's
}

// makeFixtures makes them. Virtual time begins with the year 2000.
func makeFixtures(t *testing.T) {
	fixtures.once.Do(func() {
		cryptotest.SetGlobalRandom(t, 0)
		ca, stranger := newAuthority("the authority"), newAuthority("a stranger")
		fixtures.pool = x509.NewCertPool()
		fixtures.pool.AddCert(ca.certificate)
		names := func(n int) func(*x509.Certificate) {
			return func(c *x509.Certificate) {
				c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
				for i := range n {
					c.DNSNames = append(c.DNSNames, fmt.Sprintf("another-name-%d.of-the-server.test", i))
				}
			}
		}
		fixtures.server = ca.issue(names(1))
		fixtures.long = ca.issue(names(40))
		fixtures.client = ca.issue(nil)
		fixtures.expired = ca.issue(func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(time.Hour) })
		fixtures.other = stranger.issue(nil)
		fixtures.p384 = ca.issueFor(newKey(elliptic.P384()), names(1))
		fixtures.encipherment = ca.issue(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment })
		fixtures.forServers = ca.issue(names(1))
	})
}

type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
	serial      int64
}

func newKey(curve elliptic.Curve) crypto.Signer {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

var validFrom = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)

func newAuthority(name string) *authority {
	key := newKey(elliptic.P256())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: validFrom, NotAfter: validFrom.AddDate(50, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return &authority{certificate, key, 1}
}

func (a *authority) issue(edit func(*x509.Certificate)) tls.Certificate {
	return a.issueFor(newKey(elliptic.P256()), edit)
}

func (a *authority) issueFor(key crypto.Signer, edit func(*x509.Certificate)) tls.Certificate {
	a.serial++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.serial), Subject: pkix.Name{CommonName: fmt.Sprintf("device %d", a.serial)},
		NotBefore: validFrom, NotAfter: validFrom.AddDate(50, 0, 0),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if edit != nil {
		edit(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
