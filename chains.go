package dtlsserver

import (
	"bytes"
	"crypto/x509"
	"runtime"
	"slices"
	"time"
)

// The verification of clients' certificates. Who sends them has proven no more
// than an address and a key of its own, and decides how many there are, of which
// keys, and who names whom its issuer. Package x509 tries up to a hundred
// signatures to find its way through them, more than a tenth of a second with
// keys of P-521.
//
// So the way is looked for here first, from the roots down: only keys that a
// root has vouched for verify anything, no signature is verified twice, and
// there are maxChecks of them. Package x509 gets the certificates that lie
// between the leaf and a root, as many as make it verify no more than that
// again, and says what they are worth.

// maxChecks bounds the signatures that are verified to find a way from a leaf to
// the roots.
const maxChecks = 16

// chainVerifier verifies clients' certificates by roots.
type chainVerifier struct {
	roots *x509.CertPool // nil: the system's
	// names are how many roots there are of a subject; nil: that is not known.
	// Package x509 tries each of them for all that name it their issuer.
	names map[string]int
	// foreign: the system looks for the way, and cannot be asked in steps.
	foreign bool
}

func newChainVerifier(roots *x509.CertPool) *chainVerifier {
	v := &chainVerifier{roots: roots}
	switch runtime.GOOS {
	case "darwin", "ios", "windows": // a pool may stand for roots that it does not have
		v.foreign = roots == nil
		return v
	}
	if roots != nil {
		v.names = make(map[string]int)
		//lint:ignore SA1019 where pools stand for the system's roots, names are not counted
		for _, name := range roots.Subjects() {
			v.names[string(name)]++
		}
	}
	return v
}

// rootsOf is how many roots a certificate names its issuer, at most.
func (v *chainVerifier) rootsOf(c *x509.Certificate) int {
	if v.names == nil {
		return 1
	}
	return v.names[string(c.RawIssuer)]
}

// verify verifies a leaf by what comes with it, in any order. It returns how
// many signatures that may have taken, too.
func (v *chainVerifier) verify(certificates []*x509.Certificate) (chains [][]*x509.Certificate, checks int, err error) {
	w := &way{chainVerifier: v, all: certificates, pool: make([]bool, len(certificates))}
	w.link()
	if !v.foreign {
		w.vouch()
	}
	w.follow(0, nil)
	options := x509.VerifyOptions{
		Roots:         v.roots,
		Intermediates: x509.NewCertPool(),
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for i, in := range w.pool {
		if in {
			options.Intermediates.AddCert(certificates[i])
		}
	}
	chains, err = certificates[0].Verify(options)
	return chains, w.checks + w.cost(0, nil), err
}

// way is the search for the ways from the first of some certificates to the
// roots.
type way struct {
	*chainVerifier
	all     []*x509.Certificate
	parents [][]int // by name: who may have signed each, the likeliest first
	checks  int     // signatures verified, at most
	// links are between those that the leaf can be reached from. The leaf's own
	// are left to package x509.
	links  map[[2]int]bool // child and parent: whether the signature is right
	rooted []bool          // signed by a root, or a root
	pool   []bool          // what package x509 gets
}

// link finds out who may have signed whom, by their names and key identifiers
// (RFC 5280 sections 4.1.2.4 and 4.2.1.1), beginning with the leaf.
func (w *way) link() {
	w.parents = make([][]int, len(w.all))
	w.rooted = make([]bool, len(w.all))
	w.links = make(map[[2]int]bool)
	seen := make([]bool, len(w.all))
	seen[0] = true
	for next := []int{0}; len(next) > 0; next = next[1:] {
		i := next[0]
		for j := 1; j < len(w.all); j++ {
			if bytes.Equal(w.all[i].RawIssuer, w.all[j].RawSubject) && !same(w.all[i], w.all[j]) && !w.isCopy(j) {
				w.parents[i] = append(w.parents[i], j)
				if !seen[j] {
					seen[j] = true
					next = append(next, j)
				}
			}
		}
		slices.SortStableFunc(w.parents[i], func(a, b int) int {
			return unlikely(w.all[i], w.all[a]) - unlikely(w.all[i], w.all[b])
		})
	}
}

// same reports whether two certificates are for the same name and key. No way
// leads through both.
func same(a, b *x509.Certificate) bool {
	return bytes.Equal(a.RawSubject, b.RawSubject) && bytes.Equal(a.RawSubjectPublicKeyInfo, b.RawSubjectPublicKeyInfo)
}

// isCopy reports whether a certificate came before.
func (w *way) isCopy(j int) bool {
	return slices.ContainsFunc(w.all[1:j], w.all[j].Equal)
}

// unlikely is the greater the less the key identifiers speak for it that parent
// has signed child. They need not be there, and some are wrong.
func unlikely(child, parent *x509.Certificate) int {
	switch {
	case len(child.AuthorityKeyId) == 0 || len(parent.SubjectKeyId) == 0:
		return 1
	case bytes.Equal(child.AuthorityKeyId, parent.SubjectKeyId):
		return 0
	default:
		return 2
	}
}

// spend takes n from what may still be verified. The first time there is
// always enough: an operator may have many roots of one name.
func (w *way) spend(n int) bool {
	if w.checks > 0 && w.checks+n > maxChecks {
		return false
	}
	w.checks += n
	return true
}

// vouch verifies the signatures between the roots and the leaf, from the roots
// down.
func (w *way) vouch() {
	vouched := make([]bool, len(w.all))
	var next []int
	reach := func(i int) {
		if !vouched[i] {
			vouched[i] = true
			next = append(next, i)
		}
	}
	for _, j := range w.reachable() {
		if w.isRooted(j) {
			w.rooted[j] = true
			reach(j)
		}
	}
	for ; len(next) > 0; next = next[1:] {
		j := next[0]
		for _, i := range w.reachable() {
			if slices.Contains(w.parents[i], j) && w.spend(1) {
				if w.links[[2]int{i, j}] = w.all[i].CheckSignatureFrom(w.all[j]) == nil; w.links[[2]int{i, j}] {
					reach(i)
				}
			}
		}
	}
}

// reachable returns the certificates that a way from the leaf could lead to.
func (w *way) reachable() (all []int) {
	for j := 1; j < len(w.all); j++ {
		if slices.ContainsFunc(w.parents, func(parents []int) bool { return slices.Contains(parents, j) }) {
			all = append(all, j)
		}
	}
	return all
}

// isRooted reports whether a certificate is valid by a root alone, or a root that
// others have signed. Others that are roots are of no use: package x509 has them.
func (w *way) isRooted(j int) bool {
	c := w.all[j]
	n := w.rootsOf(c)
	if n == 0 && w.names[string(c.RawSubject)] == 0 || !w.spend(n) {
		return false
	}
	at := time.Now()
	switch { // package x509 will say that it is not valid now
	case at.Before(c.NotBefore):
		at = c.NotBefore
	case at.After(c.NotAfter):
		at = c.NotAfter
	}
	chains, err := c.Verify(x509.VerifyOptions{Roots: w.roots, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return false
	}
	if len(chains[0]) > 1 {
		return true
	}
	w.checks -= n // none was needed
	return !bytes.Equal(c.RawIssuer, c.RawSubject)
}

// follow puts into the pool each way from a certificate to the roots by which
// package x509 does not get too much to do, and the first whatever it costs.
func (w *way) follow(i int, path []int) {
	if i > 0 {
		path = append(slices.Clip(path), i)
		if w.rooted[i] || w.foreign {
			w.admit(path)
		}
	}
	for _, j := range w.parents[i] {
		if (i == 0 || w.foreign || w.links[[2]int{i, j}]) && !slices.ContainsFunc(path, func(k int) bool { return same(w.all[j], w.all[k]) }) {
			w.follow(j, path)
		}
	}
}

// admit puts a way into the pool, if it may be.
func (w *way) admit(path []int) {
	before := slices.Clone(w.pool)
	for _, j := range path {
		w.pool[j] = true
	}
	if slices.Contains(before, true) && w.cost(0, nil) > maxChecks {
		w.pool = before
	}
}

// cost is how many signatures package x509 verifies at most, with what is in the
// pool, from a certificate on that it has come to by a path. It need not be
// right above maxChecks.
func (w *way) cost(i int, path []int) int {
	path = append(slices.Clip(path), i)
	n := w.rootsOf(w.all[i])
	for j, in := range w.pool {
		if !in || n > maxChecks || slices.Contains(path, j) || !bytes.Equal(w.all[i].RawIssuer, w.all[j].RawSubject) {
			continue
		}
		n++
		if right, known := w.links[[2]int{i, j}]; right || !known {
			n += w.cost(j, path)
		}
	}
	return n
}
