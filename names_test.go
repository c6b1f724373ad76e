package dtlsserver

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"testing"

	"github.com/dtlsserver/dtlsserver/internal/engine"
	"github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/testcert"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// numbers is a list of a hello.
func numbers(all []uint16) (list []byte) {
	for _, n := range all {
		list = binary.BigEndian.AppendUint16(list, n)
	}
	return list
}

// named is a certificate for names of which those that are IP addresses are for
// them.
func named(key crypto.Signer, names ...string) *engine.Certificate {
	leaf := &x509.Certificate{}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, name)
		}
	}
	return &engine.Certificate{Key: key, Leaf: leaf}
}

// chooseByTrial is the rule that the index holds to, as it is said.
func chooseByTrial(certificates []*engine.Certificate, hello *engine.HelloInfo) *engine.Certificate {
	for _, named := range []bool{true, false} {
		for fit := engine.FitChain; fit > engine.FitNot; fit-- {
			for _, c := range certificates {
				if named && hello.ServerName != "" && c.Leaf.VerifyHostname(hello.ServerName) != nil {
					continue
				}
				if hello.Suits([]engine.Kind{c.Kind()}, allSuites())[0] == fit {
					return c
				}
			}
		}
	}
	return nil
}

// allSuites are the suites of a server that has them all.
func allSuites() []*engine.Suite {
	suites, _ := engine.Suites(DefaultCipherSuites())
	return suites
}

// oddNames are names of certificates, and of hosts, in all the forms that
// VerifyHostname tells apart.
var oddNames = []string{
	"", ".", "*", "*.", "*..", "..", "a", "A", "a.", "a.b", "A.B", "a.b.", "a..b", ".a.b", "a.b..", "*.b", "*.B", "*.b.", "x.*.b", "*.*.b", "a*.b", "*a.b", "*.a.b",
	"c.a.b", "b", "-a.b", "a-.b", "a.-b", "_a.b", "a_b.c", "a b", "a:b", "ä.b", "Ä.b", "a.\xff", "A.\xff", "\ufffdA", "xn--4ca.b", "*.xn--4ca",
	"1.2.3.4", "[1.2.3.4]", "::ffff:1.2.3.4", "[::1]", "::1", "0:0::1", "fe80::1%eth0", "1.2.3", "1.2.3.4.", "[a.b]", "[]", "[", "01.2.3.4",
}

// TestIndexAsByTrial holds the index against VerifyHostname: each odd name
// against each, alone, and among other certificates.
func TestIndexAsByTrial(t *testing.T) {
	t.Parallel()
	ec, rsaKey := testcert.NewKey("P-256"), testcert.NewKey("RSA")
	hello := func(name string, suites ...uint16) *engine.HelloInfo {
		return &engine.HelloInfo{ServerName: name, CipherSuites: numbers(suites), Schemes: numbers(suite.Schemes())}
	}
	other := named(ec, "elsewhere.example")
	for _, name := range oddNames {
		certificates := []*engine.Certificate{other, named(ec, name)}
		x := newCertificateIndex(certificates, allSuites())
		for _, host := range oddNames {
			h := hello(host, ecdheCert)
			if got, want := x.choose(h), chooseByTrial(certificates, h); got != want {
				t.Errorf("a certificate for %q, a client that asks for %q: found %v, want %v", name, host, got == certificates[1], want == certificates[1])
			}
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		var certificates []*engine.Certificate
		for range 1 + random.IntN(6) {
			var names []string
			for range random.IntN(4) {
				names = append(names, oddNames[random.IntN(len(oddNames))])
			}
			certificates = append(certificates, named([]crypto.Signer{ec, rsaKey}[random.IntN(2)], names...))
		}
		x := newCertificateIndex(certificates, allSuites())
		for _, host := range oddNames {
			h := hello(host, [][]uint16{{ecdheCert}, {0xc02f}, {ecdheCert, 0xc02f}, {0x00a8}}[random.IntN(4)]...)
			if got, want := x.choose(h), chooseByTrial(certificates, h); got != want {
				t.Fatalf("a client that asks for %q: another certificate than by trial", host)
			}
		}
	}
}

// FuzzCertificateIndex holds the index against VerifyHostname for any names.
func FuzzCertificateIndex(f *testing.F) {
	for _, name := range oddNames {
		f.Add(name, strings.TrimPrefix(name, "*")+".", "a"+strings.TrimPrefix(name, "*"))
	}
	key := testcert.NewKey("P-256")
	f.Fuzz(func(t *testing.T, first, second, host string) {
		hello := &engine.HelloInfo{ServerName: host, CipherSuites: numbers([]uint16{ecdheCert}), Schemes: numbers(suite.Schemes())}
		certificates := []*engine.Certificate{named(key), named(key, first), named(key, second, first)}
		if newCertificateIndex(certificates, allSuites()).choose(hello) != chooseByTrial(certificates, hello) {
			t.Errorf("certificates for %q and %q, a client that asks for %q", first, second, host)
		}
	})
}

// TestLongServerName: a name that no host can have is refused, with pre-shared
// keys too, and the longest is not.
func TestLongServerName(t *testing.T) {
	t.Parallel()
	server := testcert.NewAuthority().Issue("localhost", testcert.NewKey("P-256"))
	for _, id := range []uint16{0x00a8, ecdhePSK, ecdheCert} {
		for length, in := range map[int]bool{1: true, 255: true, 256: false, 1000: false} {
			d := newDirect(t, func(s *Server) { s.Certificates = []tls.Certificate{server} })
			c, from := testpeer.New(testIdentity, []byte(testKey), 1), clientAddr(1)
			c.Suites, c.ServerName = []uint16{id}, strings.Repeat("a", length)
			d.exchange(c, from, c.Hello())
			d.exchange(c, from, c.Hello())
			if in {
				d.exchange(c, from, c.Flight())
			}
			if c.Complete != in {
				t.Errorf("%#04x, %d bytes: complete %v", id, length, c.Complete)
			}
			if !in && (len(c.Alerts) != 1 || c.Alerts[0] != (wire.Alert{Level: wire.LevelFatal, Description: wire.AlertUnrecognizedName})) {
				t.Errorf("%#04x, %d bytes: alerts %v", id, length, c.Alerts)
			}
		}
	}
}

// TestManyCertificates: of many, each is found by its names.
func TestManyCertificates(t *testing.T) {
	t.Parallel()
	ca := testcert.NewAuthority()
	key := testcert.NewKey("P-256")
	var certificates []tls.Certificate
	for n := range 50 {
		certificates = append(certificates, ca.Issue(fmt.Sprintf("host%d.example", n), key))
	}
	d := newDirect(t, func(s *Server) { s.PSK, s.Certificates = nil, certificates })
	for n := range certificates {
		c, from := testpeer.New("", nil, uint64(n)), clientAddr(n)
		c.Suites, c.ServerName = []uint16{ecdheCert}, fmt.Sprintf("HOST%d.example.", n)
		d.establish(c, from)
		if !bytes.Equal(c.ServerChain[0], certificates[n].Certificate[0]) {
			t.Errorf("%s got another's certificate", c.ServerName)
		}
	}
}

// BenchmarkChooseCertificate is the choice for a name that none is for, the
// longest there is, and for a hello of two thousand suites.
func BenchmarkChooseCertificate(b *testing.B) {
	key := testcert.NewKey("P-256")
	for _, count := range []int{1, 100} {
		var certificates []*engine.Certificate
		for n := range count {
			certificates = append(certificates, named(key, fmt.Sprintf("host%d.example", n), fmt.Sprintf("*.host%d.example", n)))
		}
		x := newCertificateIndex(certificates, allSuites())
		for _, suites := range []int{1, 2000} {
			hello := &engine.HelloInfo{ServerName: strings.Repeat("a.", 127), CipherSuites: make([]byte, 2*suites), Schemes: numbers(suite.Schemes())}
			binary.BigEndian.PutUint16(hello.CipherSuites, ecdheCert)
			b.Run(fmt.Sprintf("%d certificates, %d suites", count, suites), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if x.choose(hello) == nil {
						b.Fatal("none")
					}
				}
			})
		}
	}
}
