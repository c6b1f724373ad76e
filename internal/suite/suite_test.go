// Tests of the table of suites, and of what every suite's AEAD promises.

package suite

import (
	"bytes"
	"crypto"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

// registered is what IANA and the RFCs say about the suites, written down from
// there and not from the code.
var registered = []struct {
	id          uint16
	name        string
	keyExchange KeyExchange
	hash        crypto.Hash
	keyLen      int
	explicit    int
	tagLen      int
}{
	{0xd001, "TLS_ECDHE_PSK_WITH_AES_128_GCM_SHA256", ECDHEPSK, crypto.SHA256, 16, 8, 16},
	{0xd002, "TLS_ECDHE_PSK_WITH_AES_256_GCM_SHA384", ECDHEPSK, crypto.SHA384, 32, 8, 16},
	{0xccac, "TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256", ECDHEPSK, crypto.SHA256, 32, 0, 16},
	{0xd005, "TLS_ECDHE_PSK_WITH_AES_128_CCM_SHA256", ECDHEPSK, crypto.SHA256, 16, 8, 16},
	{0xd003, "TLS_ECDHE_PSK_WITH_AES_128_CCM_8_SHA256", ECDHEPSK, crypto.SHA256, 16, 8, 8},
	{0x00a8, "TLS_PSK_WITH_AES_128_GCM_SHA256", PSK, crypto.SHA256, 16, 8, 16},
	{0x00a9, "TLS_PSK_WITH_AES_256_GCM_SHA384", PSK, crypto.SHA384, 32, 8, 16},
	{0xccab, "TLS_PSK_WITH_CHACHA20_POLY1305_SHA256", PSK, crypto.SHA256, 32, 0, 16},
	{0xc0a4, "TLS_PSK_WITH_AES_128_CCM", PSK, crypto.SHA256, 16, 8, 16},
	{0xc0a5, "TLS_PSK_WITH_AES_256_CCM", PSK, crypto.SHA256, 32, 8, 16},
	{0xc0a8, "TLS_PSK_WITH_AES_128_CCM_8", PSK, crypto.SHA256, 16, 8, 8},
	{0xc0a9, "TLS_PSK_WITH_AES_256_CCM_8", PSK, crypto.SHA256, 32, 8, 8},
	{0xc02b, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", ECDHEECDSA, crypto.SHA256, 16, 8, 16},
	{0xc02c, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", ECDHEECDSA, crypto.SHA384, 32, 8, 16},
	{0xc02f, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", ECDHERSA, crypto.SHA256, 16, 8, 16},
	{0xc030, "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", ECDHERSA, crypto.SHA384, 32, 8, 16},
	{0xcca9, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", ECDHEECDSA, crypto.SHA256, 32, 0, 16},
	{0xcca8, "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", ECDHERSA, crypto.SHA256, 32, 0, 16},
	{0xc0ac, "TLS_ECDHE_ECDSA_WITH_AES_128_CCM", ECDHEECDSA, crypto.SHA256, 16, 8, 16},
	{0xc0ad, "TLS_ECDHE_ECDSA_WITH_AES_256_CCM", ECDHEECDSA, crypto.SHA256, 32, 8, 16},
	{0xc0ae, "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8", ECDHEECDSA, crypto.SHA256, 16, 8, 8},
	{0xc0af, "TLS_ECDHE_ECDSA_WITH_AES_256_CCM_8", ECDHEECDSA, crypto.SHA256, 32, 8, 8},
}

// keyExchangeNames are how the names of the suites of a key exchange start.
var keyExchangeNames = map[KeyExchange]string{
	PSK:        "TLS_PSK_WITH_",
	ECDHEPSK:   "TLS_ECDHE_PSK_WITH_",
	ECDHEECDSA: "TLS_ECDHE_ECDSA_WITH_",
	ECDHERSA:   "TLS_ECDHE_RSA_WITH_",
}

func TestRegistered(t *testing.T) {
	t.Parallel()
	for _, want := range registered {
		t.Run(want.name, func(t *testing.T) {
			t.Parallel()
			s := ByID(want.id)
			if s == nil {
				t.Fatalf("ByID(%#04x) = nil", want.id)
			}
			if s.ID != want.id || s.Name != want.name || s.KeyExchange != want.keyExchange {
				t.Errorf("got %#04x %s, key exchange %d", s.ID, s.Name, s.KeyExchange)
			}
			if prefix := keyExchangeNames[want.keyExchange]; !strings.HasPrefix(s.Name, prefix) {
				t.Errorf("the name does not start with %s", prefix)
			}
			if got := s.Hash; got != want.hash {
				t.Errorf("hash %v, want %v", got, want.hash)
			}
			if s.KeyLen != want.keyLen || s.TagLen != want.tagLen {
				t.Errorf("key %d, tag %d bytes, want %d and %d", s.KeyLen, s.TagLen, want.keyLen, want.tagLen)
			}
			if s.ExplicitNonceLen() != want.explicit || s.FixedIVLen != 12-want.explicit {
				t.Errorf("explicit nonce %d, fixed IV %d bytes, want %d and %d",
					s.ExplicitNonceLen(), s.FixedIVLen, want.explicit, 12-want.explicit)
			}
			if s.Overhead() != want.explicit+want.tagLen {
				t.Errorf("Overhead() = %d, want %d", s.Overhead(), want.explicit+want.tagLen)
			}
		})
	}
}

func TestKeyExchange(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name           string
		keyExchange    KeyExchange
		ecdhe, withPSK bool
	}{
		{"PSK", PSK, false, true},
		{"ECDHE_PSK", ECDHEPSK, true, true},
		{"ECDHE_ECDSA", ECDHEECDSA, true, false},
		{"ECDHE_RSA", ECDHERSA, true, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if test.keyExchange == 0 {
				t.Error("is zero, which KeyExchangeOf has for none")
			}
			if test.keyExchange.ECDHE() != test.ecdhe || test.keyExchange.WithPSK() != test.withPSK {
				t.Errorf("ECDHE() = %v, WithPSK() = %v", test.keyExchange.ECDHE(), test.keyExchange.WithPSK())
			}
		})
	}
}

// TestNumbers compares the named numbers, by which others refer to the suites.
func TestNumbers(t *testing.T) {
	t.Parallel()
	named := []uint16{
		ECDHEPSKWithAES128GCM, ECDHEPSKWithAES256GCM, ECDHEPSKWithChaCha20, ECDHEPSKWithAES128CCM, ECDHEPSKWithAES128CCM8,
		PSKWithAES128GCM, PSKWithAES256GCM, PSKWithChaCha20,
		PSKWithAES128CCM, PSKWithAES256CCM, PSKWithAES128CCM8, PSKWithAES256CCM8,
		ECDHEECDSAWithAES128GCM, ECDHEECDSAWithAES256GCM, ECDHERSAWithAES128GCM, ECDHERSAWithAES256GCM,
		ECDHEECDSAWithChaCha20, ECDHERSAWithChaCha20,
		ECDHEECDSAWithAES128CCM, ECDHEECDSAWithAES256CCM, ECDHEECDSAWithAES128CCM8, ECDHEECDSAWithAES256CCM8,
	}
	if len(named) != len(registered) {
		t.Fatalf("%d names, want %d", len(named), len(registered))
	}
	for i, id := range named {
		if id != registered[i].id {
			t.Errorf("name %d is %#04x, want %#04x of %s", i, id, registered[i].id, registered[i].name)
		}
	}
}

// TestAll checks the server's order of preference, in which the registered
// table above is written, and that a caller's copy is the caller's.
func TestAll(t *testing.T) {
	t.Parallel()
	suites := All()
	if len(suites) != len(registered) {
		t.Fatalf("All() has %d suites, want %d", len(suites), len(registered))
	}
	ids := map[uint16]bool{}
	names := map[string]bool{}
	for i, s := range suites {
		if s.ID != registered[i].id {
			t.Errorf("suite %d is %s, want %s", i, s.Name, registered[i].name)
		}
		if ids[s.ID] || names[s.Name] {
			t.Errorf("%s (%#04x) comes twice", s.Name, s.ID)
		}
		ids[s.ID], names[s.Name] = true, true
		if ByID(s.ID) != s {
			t.Errorf("ByID(%#04x) is not %s of All", s.ID, s.Name)
		}
		if strings.Contains(s.Name, "CBC") {
			t.Errorf("%s is no AEAD", s.Name)
		}
	}
	suites[0] = nil
	if All()[0] == nil {
		t.Error("All() returned its own table")
	}
}

func TestByIDUnknown(t *testing.T) {
	t.Parallel()
	known := 0
	for id := range 1 << 16 {
		if ByID(uint16(id)) != nil {
			known++
		}
	}
	if known != len(registered) {
		t.Errorf("ByID knows %d numbers, want %d", known, len(registered))
	}
}

// sequence returns n bytes that count up from start.
func sequence(start byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = start + byte(i)
	}
	return b
}

// eachSuite runs f as a parallel subtest with the AEAD of every suite.
func eachSuite(t *testing.T, f func(t *testing.T, s *Suite)) {
	t.Helper()
	for _, s := range All() {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			f(t, s)
		})
	}
}

func TestAEADNew(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, s *Suite) {
		aead, err := s.AEAD.New(sequence(0, s.KeyLen))
		if err != nil {
			t.Fatal(err)
		}
		if aead.NonceSize() != NonceLen || aead.Overhead() != s.TagLen {
			t.Errorf("nonce %d, overhead %d bytes, want %d and %d", aead.NonceSize(), aead.Overhead(), NonceLen, s.TagLen)
		}
		if _, err := s.AEAD.New(sequence(0, s.KeyLen-1)); err == nil {
			t.Error("a key that is a byte short was taken")
		}
	})
}

// TestAEAD checks appending, opening in place, and that a message of which any
// byte was changed does not open and shows nothing of its plaintext.
func TestAEAD(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, s *Suite) {
		aead, err := s.AEAD.New(sequence(0, s.KeyLen))
		if err != nil {
			t.Fatal(err)
		}
		nonce, additional, plaintext := sequence(0x40, NonceLen), sequence(0x60, 13), sequence(0x81, 70)
		prefix := []byte("what was there")

		sealed := aead.Seal(bytes.Clone(prefix), nonce, plaintext, additional)
		if !bytes.HasPrefix(sealed, prefix) {
			t.Fatal("Seal did not append")
		}
		ciphertext := sealed[len(prefix):]
		if len(ciphertext) != len(plaintext)+s.TagLen {
			t.Fatalf("%d bytes of ciphertext, want %d", len(ciphertext), len(plaintext)+s.TagLen)
		}
		opened, err := aead.Open(bytes.Clone(prefix), nonce, ciphertext, additional)
		if err != nil || !bytes.Equal(opened, append(bytes.Clone(prefix), plaintext...)) {
			t.Fatalf("Open = %x, %v", opened, err)
		}

		buf := append(make([]byte, 0, 128), plaintext...)
		if got := aead.Seal(buf[:0], nonce, buf, additional); !bytes.Equal(got, ciphertext) || &got[0] != &buf[0] {
			t.Error("sealing in place differs")
		}
		buf = buf[:len(ciphertext)]
		if got, err := aead.Open(buf[:0], nonce, buf, additional); err != nil || !bytes.Equal(got, plaintext) || &got[0] != &buf[0] {
			t.Errorf("opening in place: %x, %v", got, err)
		}

		flip := func(what string, b []byte) {
			t.Helper()
			for i := range b {
				b[i] ^= 1 << (i % 8)
				room := make([]byte, 256)
				dst := append(room[:0], prefix...)
				if got, err := aead.Open(dst, nonce, ciphertext, additional); err == nil || got != nil {
					t.Errorf("%s byte %d changed: Open = %x, %v", what, i, got, err)
				}
				if !bytes.Equal(dst, prefix) {
					t.Errorf("%s byte %d changed: Open wrote to dst", what, i)
				}
				if bytes.Contains(room, plaintext[:4]) || bytes.Contains(room, plaintext[len(plaintext)-4:]) {
					t.Errorf("%s byte %d changed: Open left plaintext behind", what, i)
				}
				b[i] ^= 1 << (i % 8)
			}
		}
		flip("ciphertext", ciphertext)
		flip("nonce", nonce)
		flip("additional data", additional)
		for n := range ciphertext {
			if _, err := aead.Open(nil, nonce, ciphertext[:n], additional); err == nil {
				t.Errorf("the first %d bytes open", n)
			}
		}
		if _, err := aead.Open(nil, nonce, append(bytes.Clone(ciphertext), 0), additional); err == nil {
			t.Error("a message with a byte more opens")
		}
		if _, err := aead.Open(nil, nonce, ciphertext, additional); err != nil {
			t.Errorf("after the forgeries the message itself fails: %v", err)
		}
	})
}

// TestAEADAllocations is not parallel: AllocsPerRun counts the whole process.
func TestAEADAllocations(t *testing.T) {
	for _, s := range All() {
		aead, err := s.AEAD.New(sequence(0, s.KeyLen))
		if err != nil {
			t.Fatal(err)
		}
		nonce, additional, plaintext := sequence(0, NonceLen), sequence(0, 13), sequence(0, 1024)
		sealed := make([]byte, 0, 2048)
		opened := make([]byte, 0, 2048)
		allocs := testing.AllocsPerRun(100, func() {
			sealed = aead.Seal(sealed[:0], nonce, plaintext, additional)
			var err error
			if opened, err = aead.Open(opened[:0], nonce, sealed, additional); err != nil {
				t.Fatal(err)
			}
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations a message, want 0", s.Name, allocs)
		}
		if !bytes.Equal(opened, plaintext) {
			t.Errorf("%s: other plaintext", s.Name)
		}
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func wantBytes(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s:\n got %s\nwant %s", what, short(got), short(want))
	}
}

func short(b []byte) string {
	if len(b) > 128 {
		return fmt.Sprintf("%x... (%d bytes)", b[:128], len(b))
	}
	return fmt.Sprintf("%x", b)
}
