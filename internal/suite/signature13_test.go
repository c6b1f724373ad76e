package suite

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"slices"
	"testing"
)

// keySchemes13 are the schemes of each key of testdata/openssl-signatures.txt, and of
// one on P-521, in TLS 1.3.
var keySchemes13 = map[string][]uint16{
	"p256":    {0x0403},
	"p384":    {0x0503},
	"p521":    {0x0603},
	"ed25519": {0x0807},
	"rsa1024": pssSchemes[:2],
	"rsa2048": pssSchemes,
}

func TestSchemes13(t *testing.T) {
	t.Parallel()
	want := slices.Concat(ecdsaSchemes, []uint16{0x0807}, pssSchemes)
	got := Schemes13()
	if !slices.Equal(got, want) {
		t.Errorf("got %#04x\nwant %#04x", got, want)
	}
	if !slices.Equal(got, Schemes()[:len(got)]) {
		t.Error("Schemes begins with others")
	}
	got[0] = 0
	if Schemes13()[0] == 0 {
		t.Error("Schemes13() returned its own table")
	}
}

// TestSigned compares what is signed with the example of RFC 8446 section 4.4.3, whose
// hash is 32 times 01.
func TestSigned(t *testing.T) {
	t.Parallel()
	spaces := bytes.Repeat([]byte{0x20}, 64)
	hash := bytes.Repeat([]byte{1}, 32)
	want := slices.Concat(spaces, unhex(t, "544c5320312e332c2073657276657220436572746966696361746556657269667900"), hash)
	wantBytes(t, "the server's", ServerSigned(hash), want)
	want = slices.Concat(spaces, unhex(t, "544c5320312e332c20636c69656e7420436572746966696361746556657269667900"), hash)
	wantBytes(t, "the client's", ClientSigned(hash), want)
	if got := len(ServerSigned(make([]byte, 48))); got != 64+33+1+48 {
		t.Errorf("with SHA-384 %d bytes are signed", got)
	}
}

// TestSign13 signs with every key and number: in 1.3 a key on a curve has one scheme,
// and neither PKCS #1 nor SHA-1 any.
func TestSign13(t *testing.T) {
	t.Parallel()
	keys, _ := readSignatures(t)
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys["p521"] = p521
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys["p224"] = p224
	schemes := append(Schemes(), 0, 0x0201, 0x0203, 0x0402, 0x0703, 0x0808, 0x0809, 0x080a, 0x080b, 0xffff)
	message := ServerSigned(sequence(1, 32))
	for name, key := range keys {
		for _, scheme := range schemes {
			t.Run(fmt.Sprintf("%s/%04x", name, scheme), func(t *testing.T) {
				t.Parallel()
				can := slices.Contains(keySchemes13[name], scheme)
				if CanSign13(key.Public(), scheme) != can {
					t.Errorf("CanSign13 = %v", !can)
				}
				signature, err := Sign13(rand.Reader, key, scheme, message)
				if (err == nil) != can || (signature != nil) != can {
					t.Fatalf("Sign13 = %x, %v", signature, err)
				}
				if !can {
					// What 1.2 makes is not taken either.
					signature, _ = Sign(rand.Reader, key, scheme, message)
				}
				if Verify13(key.Public(), scheme, message, signature) != can {
					t.Errorf("Verify13 = %v", !can)
				}
				for _, other := range [][]byte{ClientSigned(sequence(1, 32)), ServerSigned(sequence(2, 32)), message[64:]} {
					if Verify13(key.Public(), scheme, other, signature) {
						t.Errorf("verifies for %q", other)
					}
				}
			})
		}
	}
	for _, public := range []any{nil, p521, ecdsa.PublicKey{Curve: elliptic.P256()}} {
		for _, scheme := range schemes {
			if CanSign13(public, scheme) || Verify13(public, scheme, message, nil) {
				t.Errorf("%T serves for %#04x", public, scheme)
			}
		}
	}
}
