package sim

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"sync"
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testcert"
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
		fixtures.pool = ca.Pool
		names := func(n int) func(*x509.Certificate) {
			return func(c *x509.Certificate) {
				c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
				for i := range n {
					c.DNSNames = append(c.DNSNames, fmt.Sprintf("another-name-%d.of-the-server.test", i))
				}
			}
		}
		fixtures.server = ca.issue(testcert.NewKey("P-256"), names(1))
		fixtures.long = ca.issue(testcert.NewKey("P-256"), names(40))
		fixtures.client = ca.issue(testcert.NewKey("P-256"), nil)
		fixtures.expired = ca.issue(testcert.NewKey("P-256"), func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(time.Hour) })
		fixtures.other = stranger.issue(testcert.NewKey("P-256"), nil)
		fixtures.p384 = ca.issue(testcert.NewKey("P-384"), names(1))
		fixtures.encipherment = ca.issue(testcert.NewKey("P-256"), func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment })
		fixtures.forServers = ca.issue(testcert.NewKey("P-256"), names(1))
	})
}

// authority numbers what it issues.
type authority struct {
	*testcert.Authority
	serial int64
}

func newAuthority(name string) *authority {
	return &authority{testcert.NewAuthorityWithKey(name, testcert.NewKey("P-256")), 1}
}

var validFrom = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)

// issue returns a certificate for a client, or for what the edit makes of it.
func (a *authority) issue(key crypto.Signer, edit func(*x509.Certificate)) tls.Certificate {
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
	return tls.Certificate{Certificate: [][]byte{a.Sign(template, key.Public()).Raw}, PrivateKey: key}
}
