package main

// The server under test: its keys and its hooks.

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dtlsserver/dtlsserver"
)

func newSoak() (*soak, error) {
	k, err := newKeys()
	if err != nil {
		return nil, err
	}
	s := &soak{keys: k}
	s.ledger = newLedger(&s.faults)
	s.scenarios = scenarios()
	s.server = &dtlsserver.Server{
		Handler:          s.ledger,
		PSK:              s.hooks.psk,
		PSKIdentityHint:  "soak",
		Certificates:     []tls.Certificate{k.server},
		ClientAuth:       tls.VerifyClientCertIfGiven,
		ClientCAs:        k.pool,
		HandshakeTimeout: handshakeTimeout,
		IdleTimeout:      idleTimeout,
	}
	return s, nil
}

// What an identity begins with says how its hook behaves.
const (
	identityGood    = "good "
	identitySlow    = "slow "
	identityFailing = "failing "
	identityStuck   = "stuck "
	identityUnknown = "unknown "
)

// keyOf is the key of an identity. Each has its own, so that a datagram for the
// wrong session does not open.
func keyOf(identity string) []byte {
	sum := sha256.Sum256([]byte(identity))
	return sum[:16]
}

// hooks counts the calls of the PSK hook.
type hooks struct {
	asked, answered, failed atomic.Uint64
}

var errHook = errors.New("the key store is away")

func (h *hooks) psk(ctx context.Context, req dtlsserver.PSKRequest) (dtlsserver.PSK, error) {
	h.asked.Add(1)
	defer h.answered.Add(1)
	kind, _, _ := strings.Cut(req.Identity, " ")
	switch kind + " " {
	case identityGood:
	case identitySlow:
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return dtlsserver.PSK{}, ctx.Err()
		}
	case identityStuck:
		<-ctx.Done()
		return dtlsserver.PSK{}, ctx.Err()
	case identityFailing:
		h.failed.Add(1)
		return dtlsserver.PSK{}, errHook
	default:
		return dtlsserver.PSK{}, dtlsserver.ErrUnknownPSKIdentity
	}
	return dtlsserver.PSK{Key: keyOf(req.Identity)}, nil
}

// keys are an authority and what it has issued.
type keys struct {
	pool           *x509.CertPool
	server, client tls.Certificate
}

// serverName is what the server's certificate is for.
const serverName = "localhost"

func newKeys() (*keys, error) {
	template := func(serial int64, name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}
	}
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	authority := template(1, "soak authority")
	authority.IsCA, authority.BasicConstraintsValid, authority.KeyUsage = true, true, x509.KeyUsageCertSign
	issue := func(c *x509.Certificate) (tls.Certificate, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return tls.Certificate{}, err
		}
		der, err := x509.CreateCertificate(rand.Reader, c, authority, key.Public(), authorityKey)
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
	}
	k := &keys{pool: x509.NewCertPool()}
	der, err := x509.CreateCertificate(rand.Reader, authority, authority, authorityKey.Public(), authorityKey)
	if err != nil {
		return nil, err
	}
	if authority, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	k.pool.AddCert(authority)
	if k.server, err = issue(template(2, serverName)); err != nil {
		return nil, err
	}
	k.client, err = issue(template(3, "client"))
	return k, err
}
