package dtlsserver

import (
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testcert"
)

// certificateOf describes a certificate for tests of chains.
type certificateOf struct {
	subject, issuer string
	key, signer     crypto.Signer
	leaf            bool
	expired         bool
	serial          int
	keyID, issuerID []byte // nil: none; leaves have no keyID
	san             string
}

func (c certificateOf) make() *x509.Certificate {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(int64(c.serial) + 1), Subject: pkix.Name{CommonName: c.subject},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0),
		BasicConstraintsValid: true, IsCA: !c.leaf, KeyUsage: x509.KeyUsageCertSign, SubjectKeyId: c.keyID,
	}
	if c.leaf {
		template.KeyUsage, template.ExtKeyUsage = 0, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	} else if c.keyID == nil {
		// CreateCertificate would make one up.
		template.SubjectKeyId = []byte{}
	}
	if c.expired {
		template.NotAfter = time.Unix(1000, 0)
	}
	if c.san != "" {
		template.DNSNames = []string{c.san}
	}
	parent := &x509.Certificate{Subject: pkix.Name{CommonName: c.issuer}, SubjectKeyId: c.issuerID}
	return testcert.Sign(template, parent, c.key.Public(), c.signer)
}

func poolOf(certificates ...*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range certificates {
		pool.AddCert(c)
	}
	return pool
}

// verifyAll is what package x509 says when it gets all there is.
func verifyAll(certificates []*x509.Certificate, roots *x509.CertPool) ([][]*x509.Certificate, error) {
	return certificates[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: poolOf(certificates[1:]...), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// pathsOf are the chains in words, sorted.
func pathsOf(chains [][]*x509.Certificate) (paths []string) {
	for _, chain := range chains {
		var words []string
		for _, c := range chain {
			words = append(words, fmt.Sprintf("%s/%v", c.Subject.CommonName, c.SerialNumber))
		}
		paths = append(paths, strings.Join(words, " "))
	}
	slices.Sort(paths)
	return paths
}

// TestChains: chains that clients send, in any order and with more than is
// needed, are verified as by package x509 that gets all, with few signatures.
func TestChains(t *testing.T) {
	t.Parallel()
	keys := make([]crypto.Signer, 12)
	for i := range keys {
		keys[i] = testcert.NewKey("P-256")
	}
	leafKey, rootKey, otherRootKey := keys[9], keys[10], keys[11]
	root := certificateOf{subject: "root", issuer: "root", key: rootKey, signer: rootKey}.make()
	otherRoot := certificateOf{subject: "other root", issuer: "other root", key: otherRootKey, signer: otherRootKey}.make()
	ca := func(subject string, key int, issuer string, signer crypto.Signer, edit ...func(*certificateOf)) *x509.Certificate {
		c := certificateOf{subject: subject, issuer: issuer, key: keys[key], signer: signer}
		for _, f := range edit {
			f(&c)
		}
		return c.make()
	}
	leaf := func(issuer string, signer crypto.Signer, edit ...func(*certificateOf)) *x509.Certificate {
		c := certificateOf{subject: "leaf", issuer: issuer, key: leafKey, signer: signer, leaf: true}
		for _, f := range edit {
			f(&c)
		}
		return c.make()
	}
	list := func(all ...*x509.Certificate) []*x509.Certificate { return all }
	a, aByOther := ca("A", 0, "root", rootKey), ca("A", 0, "other root", otherRootKey)
	b := ca("B", 1, "A", keys[0])
	aByB := ca("A", 0, "B", keys[1])
	deep := list(leaf("8", keys[8]))
	for i := 8; i >= 1; i-- {
		deep = append(deep, ca(fmt.Sprint(i), i, fmt.Sprint(i-1), keys[i-1]))
	}
	deep = append(deep, ca("0", 0, "root", rootKey))
	id := func(own, issuer string) func(*certificateOf) {
		return func(c *certificateOf) { c.keyID, c.issuerID = []byte(own), []byte(issuer) }
	}

	tests := []struct {
		name  string
		chain []*x509.Certificate
		roots *x509.CertPool
		most  int // signatures
		in    bool
	}{
		{"by a root", list(leaf("root", rootKey)), poolOf(root), 1, true},
		{"by a root that is sent too", list(leaf("root", rootKey), root), poolOf(root), 1, true},
		{"by an authority", list(leaf("A", keys[0]), a), poolOf(root), 3, true},
		{"by an authority, the root is sent too", list(leaf("A", keys[0]), root, a), poolOf(root), 3, true},
		{"by two authorities", list(leaf("B", keys[1]), b, a), poolOf(root), 5, true},
		{"out of order", list(leaf("B", keys[1]), root, a, b), poolOf(root), 5, true},
		{"superfluous certificates", list(leaf("B", keys[1]), otherRoot, ca("C", 2, "root", rootKey), a, ca("D", 3, "C", keys[2]), b, b), poolOf(root), 5, true},
		{"nine authorities", deep, poolOf(root), 19, true},
		{"nine authorities, backwards", append(list(deep[0]), reversed(deep[1:])...), poolOf(root), 19, true},
		{"cross-signed, by both roots", list(leaf("A", keys[0]), a, aByOther), poolOf(root, otherRoot), 6, true},
		{"cross-signed, by the first", list(leaf("A", keys[0]), a, aByOther), poolOf(root), 3, true},
		{"cross-signed, by the second", list(leaf("A", keys[0]), a, aByOther), poolOf(otherRoot), 3, true},
		{"authorities that have signed each other", list(leaf("A", keys[0]), aByB, b, a), poolOf(root), 9, true},
		{"authorities that have signed each other, and both roots one", list(leaf("A", keys[0]), aByB, b, a, ca("B", 1, "other root", otherRootKey)), poolOf(root, otherRoot), 16, true},
		{"two of one name and key", list(leaf("A", keys[0]), a, ca("A", 0, "root", rootKey, func(c *certificateOf) { c.serial = 1 })), poolOf(root), 6, true},
		{"two of one name and different keys", list(leaf("A", keys[0]), ca("A", 1, "root", rootKey), a), poolOf(root), 6, true},
		{"two of one name, told apart by key identifiers", list(leaf("A", keys[0], id("", "one")),
			ca("A", 1, "root", rootKey, id("two", "")), ca("A", 0, "root", rootKey, id("one", ""))), poolOf(root), 6, true},
		{"wrong key identifiers", list(leaf("A", keys[0], id("", "wrong")), ca("A", 0, "root", rootKey, id("one", "wrong too"))), poolOf(root), 3, true},
		{"a new key of the same name", list(leaf("A", keys[1]), ca("A", 1, "A", keys[0]), a), poolOf(root), 7, true},
		{"an authority that is a root of its own", list(leaf("A", keys[0]), a), poolOf(a), 2, true},
		{"roots of one name", list(leaf("A", keys[0]), a), poolOf(root, ca("root", 1, "root", keys[1]), ca("root", 2, "root", keys[2])), 7, true},
		{"a leaf that is a root", list(leaf("nobody", keys[3])), nil, 0, true},

		{"by nobody", list(leaf("nobody", keys[3])), poolOf(root), 0, false},
		{"by itself", list(leaf("leaf", leafKey)), poolOf(root), 0, false},
		{"an authority is missing", list(leaf("B", keys[1]), b), poolOf(root), 0, false},
		{"an authority that has expired", list(leaf("A", keys[0]), ca("A", 0, "root", rootKey, func(c *certificateOf) { c.expired = true })), poolOf(root), 3, false},
		{"an authority that is none", list(leaf("A", keys[0]), ca("A", 0, "root", rootKey, func(c *certificateOf) { c.leaf = true })), poolOf(root), 3, false},
		{"a forged authority", list(leaf("A", keys[0]), ca("A", 0, "root", keys[1])), poolOf(root), 1, false},
		{"forged below a genuine authority", list(leaf("B", keys[1]), ca("B", 1, "A", keys[5]), a), poolOf(root), 2, false},
		{"a forged leaf", list(leaf("A", keys[5]), a), poolOf(root), 3, false},
	}
	for _, tt := range tests {
		if tt.roots == nil {
			tt.roots = poolOf(tt.chain[0])
		}
		chains, checks, err := newChainVerifier(tt.roots).verify(tt.chain)
		want, wantErr := verifyAll(tt.chain, tt.roots)
		if (err == nil) != tt.in || checks > tt.most {
			t.Errorf("%s: %v, %d signatures, at most %d are needed", tt.name, err, checks, tt.most)
		}
		if (wantErr == nil) != tt.in || !slices.Equal(pathsOf(chains), pathsOf(want)) {
			t.Errorf("%s: chains %q, package x509 has %q, %v", tt.name, pathsOf(chains), pathsOf(want), wantErr)
		}
		if err != nil && wantErr != nil && certificateAlert(err) != certificateAlert(wantErr) {
			t.Errorf("%s: alert %d, and by package x509 %d", tt.name, certificateAlert(err), certificateAlert(wantErr))
		}
	}
}

func reversed(certificates []*x509.Certificate) []*x509.Certificate {
	certificates = slices.Clone(certificates)
	slices.Reverse(certificates)
	return certificates
}

// evilChain is a leaf and names that sign each other in a circle, twice each,
// with keys of P-521, so that package x509 finds a hundred signatures to verify.
// The issuer of the last is whom the caller wants.
func evilChain(big crypto.Signer, issuer string) []*x509.Certificate {
	chain := []*x509.Certificate{certificateOf{subject: "leaf", issuer: "N1", key: testcert.NewKey("P-256"), signer: big, leaf: true}.make()}
	names := []string{"N1", "N2", "N3", "N4"}
	for i, name := range names {
		for j := range 2 {
			c := certificateOf{subject: name, issuer: names[(i+1)%len(names)], key: big, signer: big, serial: 2*i + j, san: fmt.Sprint("s", j)}
			if i == len(names)-1 && j == 1 && issuer != "" {
				c.issuer = issuer
			}
			chain = append(chain, c.make())
		}
	}
	return chain
}

// TestEvilChains: a stranger's chain costs signatures of the roots' keys only,
// one for each certificate that names a root its issuer, and whoever has signed
// for a root no more than is allowed.
func TestEvilChains(t *testing.T) {
	t.Parallel()
	rootKey, genuineKey, big := testcert.NewKey("P-256"), testcert.NewKey("P-256"), testcert.NewKey("P-521")
	root := certificateOf{subject: "root", issuer: "root", key: rootKey, signer: rootKey}.make()
	genuine := certificateOf{subject: "genuine", issuer: "root", key: genuineKey, signer: rootKey}.make()
	evilRoot := certificateOf{subject: "evil root", issuer: "evil root", key: big, signer: big}.make()
	allRoots := evilChain(big, "root")
	for i := range allRoots[1:] {
		allRoots[i+1] = certificateOf{subject: fmt.Sprint("N", 1+i/2), issuer: "root", key: big, signer: big, serial: i}.make()
	}
	tests := []struct {
		name  string
		chain []*x509.Certificate
		roots *x509.CertPool
		most  int
		in    bool
	}{
		{"a circle", evilChain(big, ""), poolOf(root), 0, false},
		{"a circle, to the system's roots", evilChain(big, ""), nil, 16 + 1, false},
		{"a circle that leads to a root", evilChain(big, "root"), poolOf(root), 1, false},
		{"all name a root their issuer", allRoots, poolOf(root), 2, false},
		{"a circle that leads to a genuine authority", append(evilChain(big, "genuine"), genuine), poolOf(root), 2, false},
		{"a circle of an authority's own", evilChain(big, "evil root"), poolOf(evilRoot), 32, true},
	}
	for _, tt := range tests {
		chains, checks, err := newChainVerifier(tt.roots).verify(tt.chain)
		if checks > tt.most || (err == nil) != tt.in {
			t.Errorf("%s: %d signatures, want at most %d; %d chains, %v", tt.name, checks, tt.most, len(chains), err)
		}
	}
}

// TestChainsAsPackageX509: whatever the certificates are, what is found is what
// package x509 finds when it gets all of them, unless it is too much.
func TestChainsAsPackageX509(t *testing.T) {
	t.Parallel()
	var keys [6]crypto.Signer
	for i := range keys {
		seed := make([]byte, ed25519.SeedSize)
		binary.BigEndian.PutUint64(seed, uint64(i))
		keys[i] = ed25519.NewKeyFromSeed(seed)
	}
	ids := [][]byte{nil, {1}, {2}}
	in, cut := 0, 0
	for seed := range uint64(1500) {
		random := mathrand.New(mathrand.NewPCG(seed, 0))
		pick := func() (int, string) { n := random.IntN(4); return n, fmt.Sprint("N", n) }
		next := func(leaf bool, serial int) *x509.Certificate {
			n, subject := pick()
			m, issuer := pick()
			c := certificateOf{subject: subject, issuer: issuer, key: keys[n], signer: keys[m], leaf: leaf, serial: serial}
			if leaf {
				c.subject = "leaf"
			}
			if random.IntN(4) == 0 { // another key of the name, or a wrong signature
				c.key, c.signer = keys[random.IntN(len(keys))], keys[random.IntN(len(keys))]
			}
			if random.IntN(3) == 0 {
				c.keyID, c.issuerID = ids[random.IntN(3)], ids[random.IntN(3)]
			}
			c.expired = random.IntN(12) == 0
			return c.make()
		}
		chain := []*x509.Certificate{next(true, 0)}
		subjects := make(map[string]int)
		for serial := range random.IntN(8) {
			if c := next(false, serial+1); subjects[string(c.RawSubject)] < 2 { // as the engine sees to
				subjects[string(c.RawSubject)]++
				chain = append(chain, c)
			}
		}
		roots := poolOf(next(false, 100), next(false, 101))
		chains, checks, err := newChainVerifier(roots).verify(chain)
		want, wantErr := verifyAll(chain, roots)
		if checks > 2*maxChecks {
			t.Errorf("seed %d: %d signatures", seed, checks)
		}
		if wantErr == nil {
			in++
		}
		switch got, all := pathsOf(chains), pathsOf(want); {
		case (err == nil) != (wantErr == nil):
			t.Errorf("seed %d: %v, by package x509 %v", seed, err, wantErr)
		case err != nil:
		case !slices.Equal(got, all):
			cut++
			if checks < maxChecks/2 {
				t.Errorf("seed %d: with %d signatures %q, package x509 %q", seed, checks, got, all)
			}
		}
	}
	t.Logf("%d are valid; of %d some chains were not looked for", in, cut)
	if in < 100 || cut > in/20 {
		t.Error("that is not what the test is for")
	}
}

// BenchmarkEvilChain is what a stranger's chain costs when the names in it lead
// nowhere, and when they lead to a root.
func BenchmarkEvilChain(b *testing.B) {
	rootKey := testcert.NewKey("P-256")
	v := newChainVerifier(poolOf(certificateOf{subject: "root", issuer: "root", key: rootKey, signer: rootKey}.make()))
	for _, issuer := range []string{"", "root"} {
		chain := evilChain(testcert.NewKey("P-521"), issuer)
		b.Run("to "+issuer, func(b *testing.B) {
			for b.Loop() {
				if _, _, err := v.verify(chain); err == nil {
					b.Fatal("verified")
				}
			}
		})
	}
}
