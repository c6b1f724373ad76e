package engine

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testcert"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// hostile are certificates that hold as much as they can when they are parsed,
// each of about so many bytes.
func hostile(t *testing.T, size int) map[string][]byte {
	t.Helper()
	make := func(count int, edit func(c *x509.Certificate, n int)) []byte {
		c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Unix(1<<33, 0)}
		for n := range count {
			edit(c, n)
		}
		return testcert.Sign(c, c, testCertificate.Key.Public(), testCertificate.Key).Raw
	}
	// names are as many general names of a kind as fit.
	names := func(tag byte, value string) func(*x509.Certificate, int) {
		return func(c *x509.Certificate, _ int) {
			one := append([]byte{tag, byte(len(value))}, value...)
			list := asn1.RawValue{Class: 0, Tag: 16, IsCompound: true, Bytes: bytes.Repeat(one, size/len(one))}
			value, err := asn1.Marshal(list)
			if err != nil {
				t.Fatal(err)
			}
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}}
		}
	}
	return map[string][]byte{
		"plain":      make(0, nil),
		"empty URIs": make(1, names(0x86, "")),
		"URIs":       make(1, names(0x86, "a://b")),
		"hosts":      make(1, names(0x82, "")),
		"mail":       make(1, names(0x81, "a@b")),
		"addresses":  make(1, names(0x87, "1234")),
		"attributes": make(size/13, func(c *x509.Certificate, n int) {
			c.Subject.Country = append(c.Subject.Country, string(rune('a'+n%26)))
		}),
		"usages": make(size/3, func(c *x509.Certificate, n int) {
			c.UnknownExtKeyUsage = append(c.UnknownExtKeyUsage, asn1.ObjectIdentifier{1, 2})
		}),
		"long usages": make(size/120, func(c *x509.Certificate, n int) {
			c.UnknownExtKeyUsage = append(c.UnknownExtKeyUsage, append(asn1.ObjectIdentifier{1}, slices.Repeat([]int{2}, 110)...))
		}),
		"extensions": make(size/16, func(c *x509.Certificate, n int) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, n}})
		}),
		"policies": make(size/9, func(c *x509.Certificate, n int) {
			id, err := x509.OIDFromInts([]uint64{1, 2, uint64(n)})
			if err != nil {
				t.Fatal(err)
			}
			c.Policies = append(c.Policies, id)
		}),
		"constraints": make(size/14, func(c *x509.Certificate, n int) {
			c.BasicConstraintsValid, c.IsCA, c.PermittedDNSDomainsCritical = true, true, true
			c.PermittedIPRanges = append(c.PermittedIPRanges, &net.IPNet{IP: net.IP{1, 2, 3, 4}, Mask: net.IPMask{255, 255, 255, 255}})
		}),
		"revocation lists": make(size/12, func(c *x509.Certificate, n int) { c.CRLDistributionPoints = append(c.CRLDistributionPoints, "a") }),
	}
}

// TestParsedSize: what a parsed certificate is said to hold is not less than it
// does. It is not parallel to others, since it looks at the heap.
func TestParsedSize(t *testing.T) {
	live := func() int {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	for name, der := range hostile(t, 14<<10) {
		const copies = 20
		var kept [copies]*x509.Certificate
		said := 0
		before := live()
		for i := range kept {
			c, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			kept[i], said = c, parsedSize(c)
		}
		holds := (live() - before) / copies
		t.Logf("%s: %d bytes hold %d, said to hold %d", name, len(der), holds, said)
		if holds > said || said > 4*holds+8<<10 {
			t.Errorf("%s: holds %d bytes, said to hold %d", name, holds, said)
		}
		runtime.KeepAlive(kept)
	}
}

// boundedDriver returns a driver whose handshakes may reserve so many bytes, with both
// certificates and a verdict, and what they have reserved.
func boundedDriver(t *testing.T, most *int) (d *driver, reserved *int) {
	d = holding(t, ecdheCert, true)
	reserved = new(int)
	d.cfg.AskVerdict = true
	d.budget = budgetFunc(func(n int) bool {
		if n > 0 && *reserved+n > *most {
			return false
		}
		*reserved += n
		return true
	})
	return d, reserved
}

// TestCertificatesAreReserved: from Certificate on the bytes are reserved, from
// Finished to the verdict what they hold parsed, and nothing after that.
func TestCertificatesAreReserved(t *testing.T) {
	t.Parallel()
	most := 1 << 20
	d, reserved := boundedDriver(t, &most)
	want := func(n int, when string) {
		t.Helper()
		if *reserved != n {
			t.Errorf("%s: %d bytes are reserved, want %d", when, *reserved, n)
		}
	}
	chain := wire.AppendCertificate(nil, testCertificate.Chain)
	d.toFlight()
	want(0, "in front of Certificate")
	records := d.client.Records()
	d.receive(records[0])
	want(len(chain)+peerRoom, "after Certificate")
	d.work()
	for _, r := range records[1:4] {
		d.receive(r)
		d.work()
	}
	want(len(chain)+peerRoom, "after CertificateVerify")
	if got := d.e.PeerChain(); !bytes.Equal(got, chain) {
		t.Errorf("chain %x", got)
	}
	d.receive(records[4])
	want(len(chain)+peerRoom+parsedSize(testCertificate.Leaf), "after Finished")
	d.e.AnswerVerdict(d.now, nil, 0)
	d.pump()
	d.wantEstablished("in the end")
	want(0, "in the end")
	if hash := sha256.Sum256(testCertificate.Leaf.RawSubjectPublicKeyInfo); d.e.Parameters().PeerKeyHash != hash {
		t.Errorf("key hash %x", d.e.Parameters().PeerKeyHash)
	}
	if d.e.PeerChain() != nil {
		t.Error("the engine keeps the certificates")
	}
}

// TestReservedIsGivenBack, wherever the handshake ends.
func TestReservedIsGivenBack(t *testing.T) {
	t.Parallel()
	for steps := range 6 {
		for name, end := range map[string]func(d *driver){
			"Close":   func(d *driver) { d.e.Close() },
			"time":    func(d *driver) { d.advance(time.Minute) },
			"refusal": func(d *driver) { d.e.AnswerVerdict(d.now, ErrClosed, 42); d.e.Abandon() },
		} {
			most := 1 << 20
			d, reserved := boundedDriver(t, &most)
			d.toFlight()
			for i, r := range d.client.Records()[:steps] {
				d.receive(r)
				if i != 0 || steps != 1 { // once it ends while it waits
					d.work()
				}
			}
			if steps > 0 && *reserved == 0 {
				t.Errorf("after %d messages nothing is reserved", steps)
			}
			end(d)
			d.pump()
			d.work()
			if *reserved != 0 {
				t.Errorf("%s after %d messages: %d bytes are still reserved", name, steps, *reserved)
			}
		}
	}
}

// TestNoMemoryForCertificates: messages that cannot be held are dropped, and
// taken when the client sends them again.
func TestNoMemoryForCertificates(t *testing.T) {
	t.Parallel()
	most := 0
	d, reserved := boundedDriver(t, &most)
	d.toFlight()
	records := d.client.Records()
	for range 3 {
		if drops := d.receive(records[0]); !slices.Equal(drops, []Drop{DropLimit}) {
			t.Errorf("Certificate was dropped for %v", drops)
		}
	}
	d.wantOpen("without memory for Certificate")
	most = len(wire.AppendCertificate(nil, testCertificate.Chain)) + peerRoom
	for _, r := range records[:4] {
		d.receive(r)
		d.work()
	}
	if drops := d.receive(records[4]); !slices.Equal(drops, []Drop{DropLimit}) {
		t.Errorf("Finished was dropped for %v", drops)
	}
	d.wantOpen("without memory for the verdict")
	most = 1 << 20
	d.receive(d.client.Sealed(wire.ContentHandshake, d.client.FinishedMessage()))
	d.e.AnswerVerdict(d.now, nil, 0)
	d.pump()
	d.wantEstablished("when there is memory again")
	if d.toClient(); !d.client.Complete || *reserved != 0 {
		t.Errorf("the client is complete: %v; %d bytes are reserved", d.client.Complete, *reserved)
	}
}

// TestResumedCertificates: what a ticket says of certificates is parsed as work,
// gives the same key, and when it cannot be held leads to a full handshake.
func TestResumedCertificates(t *testing.T) {
	t.Parallel()
	scene := scenes[slices.IndexFunc(scenes, func(s *scene) bool { return s.name == "resumption-client-certificate-verdict" })]
	w := newWorld(t, scene)
	reserved := 0
	w.e.hs.host = testHost{budgetFunc(func(n int) bool { reserved += n; return true })}
	w.play([]string{"hello", "work"})
	if w.e.state != awaitResumptionVerdict || reserved == 0 || !bytes.Equal(w.e.PeerChain(), wire.AppendCertificate(nil, testCertificate.Chain)) {
		t.Errorf("in state %s, %d bytes are reserved, chain %x", stateNames[w.e.state], reserved, w.e.PeerChain())
	}
	w.play([]string{"verdict", "ccs", "finished"})
	hash := sha256.Sum256(testCertificate.Leaf.RawSubjectPublicKeyInfo)
	if !w.e.Established() || !w.e.Parameters().Resumed || w.e.Parameters().PeerKeyHash != hash || reserved != 0 {
		t.Errorf("in state %s, %+v, %d bytes are reserved", stateNames[w.e.state], w.e.Parameters(), reserved)
	}
	for _, granted := range []int{0, 1} { // the bytes, and what they hold parsed
		w := newWorld(t, scene)
		reserved, asked := 0, 0
		w.e.hs.host = testHost{budgetFunc(func(n int) bool {
			if asked++; n > 0 && asked > granted {
				return false
			}
			reserved += n
			return true
		})}
		w.play([]string{"hello", "work"})
		if w.e.state == awaitResumptionVerdict || w.e.Parameters().Resumed || reserved != 0 || w.e.Parameters().PeerKeyHash != [32]byte{} {
			t.Errorf("%d granted: in state %s, resumed %v, %d bytes are reserved", granted, stateNames[w.e.state], w.e.Parameters().Resumed, reserved)
		}
	}
}
