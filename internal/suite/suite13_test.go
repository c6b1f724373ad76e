package suite

import (
	"bytes"
	"crypto"
	"math/big"
	"strings"
	"testing"
)

// registered13 is what IANA and the RFCs say about the suites of TLS 1.3, written
// down from there and not from the code.
var registered13 = []struct {
	id     uint16
	name   string
	hash   crypto.Hash
	keyLen int
	// The logarithms of the limits, times two: to the whole record below.
	sealed, failed uint
}{
	{0x1301, "TLS_AES_128_GCM_SHA256", crypto.SHA256, 16, 49, 72},
	{0x1302, "TLS_AES_256_GCM_SHA384", crypto.SHA384, 32, 49, 72},
	{0x1303, "TLS_CHACHA20_POLY1305_SHA256", crypto.SHA256, 32, 96, 72},
	{0x1304, "TLS_AES_128_CCM_SHA256", crypto.SHA256, 16, 46, 47},
}

func TestRegistered13(t *testing.T) {
	t.Parallel()
	named := []uint16{AES128GCM, AES256GCM, ChaCha20, AES128CCM}
	suites := All13()
	if len(suites) != len(registered13) {
		t.Fatalf("All13() has %d suites, want %d", len(suites), len(registered13))
	}
	for i, want := range registered13 {
		s := suites[i]
		if s.ID != want.id || named[i] != want.id || s.Name != want.name || ByID13(want.id) != s {
			t.Errorf("suite %d is %#04x %s, by name %#04x, want %#04x %s", i, s.ID, s.Name, named[i], want.id, want.name)
		}
		if s.Hash != want.hash || s.KeyLen != want.keyLen || s.TagLen != 16 {
			t.Errorf("%s: %v, key %d, tag %d bytes", s.Name, s.Hash, s.KeyLen, s.TagLen)
		}
		if s.FixedIVLen != 12 || s.ExplicitNonceLen() != 0 || s.Overhead() != 16 {
			t.Errorf("%s: fixed IV %d, explicit nonce %d, overhead %d", s.Name, s.FixedIVLen, s.ExplicitNonceLen(), s.Overhead())
		}
		root := func(n uint) uint64 { return new(big.Int).Sqrt(new(big.Int).Lsh(big.NewInt(1), n)).Uint64() }
		sealed := root(want.sealed)
		if want.sealed == 96 {
			sealed-- // sequence numbers end there
		}
		if s.SealLimit != sealed || s.OpenLimit != root(want.failed) {
			t.Errorf("%s: limits %d and %d, want %d and %d", s.Name, s.SealLimit, s.OpenLimit, sealed, root(want.failed))
		}
	}
	suites[0] = nil
	if All13()[0] == nil {
		t.Error("All13() returned its own table")
	}
}

// TestSuitesApart: no suite of one version is found among those of the other, and no
// CCM_8 in 1.3 at all.
func TestSuitesApart(t *testing.T) {
	t.Parallel()
	known := 0
	for id := range 1 << 16 {
		s := ByID13(uint16(id))
		if s == nil {
			continue
		}
		known++
		if ByID(s.ID) != nil || strings.Contains(s.Name, "CCM_8") {
			t.Errorf("%#04x is %s", id, s.Name)
		}
	}
	if known != len(registered13) {
		t.Errorf("ByID13 knows %d numbers, want %d", known, len(registered13))
	}
}

// TestAEAD13 seals and opens with each AEAD, whose own tests are those of 1.2's, and
// is not parallel: AllocsPerRun counts the whole process.
func TestAEAD13(t *testing.T) {
	for _, s := range All13() {
		aead, err := s.AEAD.New(sequence(0, s.KeyLen))
		if err != nil {
			t.Fatal(err)
		}
		if aead.NonceSize() != s.FixedIVLen || aead.Overhead() != s.TagLen {
			t.Errorf("%s: nonce %d, overhead %d bytes", s.Name, aead.NonceSize(), aead.Overhead())
		}
		nonce, additional, plaintext := sequence(0x40, NonceLen), sequence(0x60, 5), sequence(0x81, 70)
		sealed, opened := make([]byte, 0, 128), make([]byte, 0, 128)
		allocs := testing.AllocsPerRun(100, func() {
			sealed = aead.Seal(sealed[:0], nonce, plaintext, additional)
			var err error
			if opened, err = aead.Open(opened[:0], nonce, sealed, additional); err != nil {
				t.Fatal(err)
			}
		})
		if allocs != 0 || !bytes.Equal(opened, plaintext) {
			t.Errorf("%s: %v allocations, opened %x", s.Name, allocs, opened)
		}
		if _, err := s.AEAD.New(sequence(0, s.KeyLen+1)); err == nil {
			t.Errorf("%s: a key that is a byte long was taken", s.Name)
		}
	}
}
