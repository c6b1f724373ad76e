// Tests of the signature schemes, against signatures that OpenSSL made and with
// OpenSSL as the one that verifies.

package suite

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const signedMessage = "the message that was signed\n"

var (
	ecdsaSchemes = []uint16{0x0403, 0x0503, 0x0603}
	pkcs1Schemes = []uint16{0x0401, 0x0501, 0x0601}
	pssSchemes   = []uint16{0x0804, 0x0805, 0x0806}
)

// keySchemes are the schemes of each key of testdata/openssl-signatures.txt. A
// PSS signature needs twice the hash and two bytes more: SHA-512 does not fit
// into 1024 bits.
var keySchemes = map[string][]uint16{
	"p256":    ecdsaSchemes,
	"p384":    ecdsaSchemes,
	"ed25519": {0x0807},
	"rsa1024": slices.Concat(pkcs1Schemes, pssSchemes[:2]),
	"rsa2048": slices.Concat(pkcs1Schemes, pssSchemes),
}

type recordedSignature struct {
	key       string
	scheme    uint16
	signature []byte
}

func readSignatures(t *testing.T) (keys map[string]crypto.Signer, signatures []recordedSignature) {
	t.Helper()
	file, err := os.Open("testdata/openssl-signatures.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	keys = map[string]crypto.Signer{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		switch f := strings.Fields(lines.Text()); {
		case len(f) == 0 || f[0] == "#":
		case len(f) == 3 && f[0] == "key":
			key, err := x509.ParsePKCS8PrivateKey(unhex(t, f[2]))
			if err != nil {
				t.Fatal(err)
			}
			keys[f[1]] = key.(crypto.Signer)
		case len(f) == 4 && f[0] == "signature":
			s := recordedSignature{key: f[1], signature: unhex(t, f[3])}
			if _, err := fmt.Sscanf(f[2], "%x", &s.scheme); err != nil {
				t.Fatal(err)
			}
			signatures = append(signatures, s)
		default:
			t.Fatalf("unknown line %q", lines.Text())
		}
	}
	return keys, signatures
}

// TestVerifyRecorded: a signature of OpenSSL's is that of one key, one scheme
// and one message only, and none of its bytes may change.
func TestVerifyRecorded(t *testing.T) {
	t.Parallel()
	keys, signatures := readSignatures(t)
	want := 0
	for _, schemes := range keySchemes {
		want += len(schemes)
	}
	if len(keys) != len(keySchemes) || len(signatures) != want {
		t.Fatalf("%d keys and %d signatures, want %d and %d", len(keys), len(signatures), len(keySchemes), want)
	}
	for _, s := range signatures {
		t.Run(fmt.Sprintf("%s/%04x", s.key, s.scheme), func(t *testing.T) {
			t.Parallel()
			public := keys[s.key].Public()
			message := []byte(signedMessage)
			if !Verify(public, s.scheme, message, s.signature) {
				t.Fatal("does not verify")
			}
			for _, scheme := range Schemes() {
				if scheme != s.scheme && Verify(public, scheme, message, s.signature) {
					t.Errorf("verifies with the scheme %#04x", scheme)
				}
			}
			for name, key := range keys {
				if name != s.key && Verify(key.Public(), s.scheme, message, s.signature) {
					t.Errorf("verifies with the key %s", name)
				}
			}
			other := newKeyLike(t, keys[s.key])
			if other != nil && Verify(other.Public(), s.scheme, message, s.signature) {
				t.Error("verifies with another key of its kind")
			}
			for i := range message {
				message[i] ^= 1 << (i % 8)
				if Verify(public, s.scheme, message, s.signature) {
					t.Errorf("verifies with byte %d of the message changed", i)
				}
				message[i] ^= 1 << (i % 8)
			}
			for _, m := range [][]byte{nil, message[:len(message)-1], append(bytes.Clone(message), 0)} {
				if Verify(public, s.scheme, m, s.signature) {
					t.Errorf("verifies for %q", m)
				}
			}
			for i := range s.signature {
				forged := bytes.Clone(s.signature)
				forged[i] ^= 1 << (i % 8)
				if Verify(public, s.scheme, message, forged) {
					t.Errorf("verifies with byte %d changed", i)
				}
			}
			for _, forged := range [][]byte{nil, {}, s.signature[:len(s.signature)-1], s.signature[1:],
				append(bytes.Clone(s.signature), 0), append([]byte{0}, s.signature...), make([]byte, len(s.signature))} {
				if Verify(public, s.scheme, message, forged) {
					t.Errorf("%s verifies", short(forged))
				}
			}
		})
	}
}

// newKeyLike returns another key on the same curve, and nil for RSA, of which
// the recording itself has two.
func newKeyLike(t *testing.T, key crypto.Signer) crypto.Signer {
	t.Helper()
	var other crypto.Signer
	var err error
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		other, err = ecdsa.GenerateKey(key.Curve, rand.Reader)
	case ed25519.PrivateKey:
		_, other, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return other
}

// TestSignRecorded: PKCS #1 and Ed25519 leave nothing to chance, so that the
// signature must be OpenSSL's.
func TestSignRecorded(t *testing.T) {
	t.Parallel()
	keys, signatures := readSignatures(t)
	compared := 0
	for _, s := range signatures {
		if s.scheme != 0x0807 && !slices.Contains(pkcs1Schemes, s.scheme) {
			continue
		}
		compared++
		t.Run(fmt.Sprintf("%s/%04x", s.key, s.scheme), func(t *testing.T) {
			t.Parallel()
			got, err := Sign(rand.Reader, keys[s.key], s.scheme, []byte(signedMessage))
			if err != nil {
				t.Fatal(err)
			}
			wantBytes(t, "signature", got, s.signature)
		})
	}
	if compared != 7 {
		t.Errorf("%d signatures, want 7", compared)
	}
}

// TestSign signs with every key and scheme: what goes together makes a
// signature that verifies, everything else an error.
func TestSign(t *testing.T) {
	t.Parallel()
	keys, _ := readSignatures(t)
	schemes := append(Schemes(), 0, 0x0201, 0x0203, 0x0402, 0x0703, 0x0808, 0x0809, 0xffff)
	for name, key := range keys {
		for _, scheme := range schemes {
			t.Run(fmt.Sprintf("%s/%04x", name, scheme), func(t *testing.T) {
				t.Parallel()
				can := slices.Contains(keySchemes[name], scheme)
				if CanSign(key.Public(), scheme) != can {
					t.Errorf("CanSign = %v", !can)
				}
				for _, message := range [][]byte{nil, []byte("a"), bytes.Repeat([]byte("message"), 1000)} {
					signature, err := Sign(rand.Reader, key, scheme, message)
					if !can {
						if err == nil || signature != nil {
							t.Errorf("Sign = %x, %v", signature, err)
						}
						if Verify(key.Public(), scheme, message, signature) {
							t.Error("no signature verifies")
						}
						continue
					}
					if err != nil {
						t.Fatal(err)
					}
					if !Verify(key.Public(), scheme, message, signature) {
						t.Errorf("the signature of %d bytes does not verify", len(message))
					}
					if Verify(key.Public(), scheme, append(bytes.Clone(message), 0), signature) {
						t.Error("verifies for a longer message")
					}
				}
			})
		}
	}
}

// TestPSSSalt: the salt is as long as the hash (RFC 8446 section 4.2.3), and no
// other salt verifies.
func TestPSSSalt(t *testing.T) {
	t.Parallel()
	keys, _ := readSignatures(t)
	key := keys["rsa2048"].(*rsa.PrivateKey)
	for scheme, hash := range map[uint16]crypto.Hash{0x0804: crypto.SHA256, 0x0805: crypto.SHA384, 0x0806: crypto.SHA512} {
		t.Run(fmt.Sprintf("%04x", scheme), func(t *testing.T) {
			t.Parallel()
			h := hash.New()
			h.Write([]byte(signedMessage))
			sum := h.Sum(nil)
			signature, err := Sign(rand.Reader, key, scheme, []byte(signedMessage))
			if err != nil {
				t.Fatal(err)
			}
			if err := rsa.VerifyPSS(&key.PublicKey, hash, sum, signature, &rsa.PSSOptions{SaltLength: hash.Size()}); err != nil {
				t.Error(err)
			}
			for salt, want := range map[int]bool{hash.Size(): true, hash.Size() - 1: false, hash.Size() + 1: false, 1: false, rsa.PSSSaltLengthAuto: false} {
				signature, err := rsa.SignPSS(rand.Reader, key, hash, sum, &rsa.PSSOptions{SaltLength: salt})
				if err != nil {
					t.Fatal(err)
				}
				if Verify(key.Public(), scheme, []byte(signedMessage), signature) != want {
					t.Errorf("a salt of %d bytes: verifies %v", salt, !want)
				}
			}
		})
	}
}

// TestSignOpenSSL has OpenSSL verify what chance has a part in, too.
func TestSignOpenSSL(t *testing.T) {
	t.Parallel()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	hashes := map[uint16]string{
		0x0401: "sha256", 0x0501: "sha384", 0x0601: "sha512",
		0x0403: "sha256", 0x0503: "sha384", 0x0603: "sha512",
		0x0804: "sha256", 0x0805: "sha384", 0x0806: "sha512",
	}
	keys, _ := readSignatures(t)
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	right := file("message", []byte(signedMessage))
	wrong := file("other", []byte("another message"))
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		der, err := x509.MarshalPKIXPublicKey(keys[name].Public())
		if err != nil {
			t.Fatal(err)
		}
		public := file(name, der)
		for _, scheme := range keySchemes[name] {
			signed, err := Sign(rand.Reader, keys[name], scheme, []byte(signedMessage))
			if err != nil {
				t.Fatal(err)
			}
			signature := file(fmt.Sprintf("%s-%04x", name, scheme), signed)
			verify := func(message string) ([]byte, error) {
				args := []string{"pkeyutl", "-verify", "-rawin", "-pubin", "-keyform", "DER", "-inkey", public, "-sigfile", signature, "-in", message}
				if hash := hashes[scheme]; hash != "" {
					args = []string{"dgst", "-" + hash, "-keyform", "DER", "-verify", public, "-signature", signature}
					if slices.Contains(pssSchemes, scheme) {
						args = append(args, "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest")
					}
					args = append(args, message)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				return exec.CommandContext(ctx, openssl, args...).CombinedOutput()
			}
			if out, err := verify(right); err != nil {
				t.Errorf("%s, scheme %#04x: %v\n%s", name, scheme, err, out)
			}
			if out, err := verify(wrong); err == nil {
				t.Errorf("%s, scheme %#04x: verifies for another message\n%s", name, scheme, out)
			}
		}
	}
}

// keyOfNoUse is a signer whose public key is for no suite.
type keyOfNoUse struct{ public crypto.PublicKey }

func (k keyOfNoUse) Public() crypto.PublicKey { return k.public }

func (k keyOfNoUse) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return []byte("a signature"), nil
}

func TestKeyExchangeOf(t *testing.T) {
	t.Parallel()
	keys, _ := readSignatures(t)
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		public crypto.PublicKey
		want   KeyExchange
	}{
		{"P-256", keys["p256"].Public(), ECDHEECDSA},
		{"P-384", keys["p384"].Public(), ECDHEECDSA},
		{"Ed25519", keys["ed25519"].Public(), ECDHEECDSA},
		{"RSA", keys["rsa2048"].Public(), ECDHERSA},
		{"X25519", x25519.PublicKey(), 0},
		{"a private key", keys["p256"], 0},
		{"no pointer", ecdsa.PublicKey{Curve: elliptic.P256()}, 0},
		{"nil", nil, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := KeyExchangeOf(test.public); got != test.want {
				t.Errorf("got %d, want %d", got, test.want)
			}
			if test.want != 0 {
				return
			}
			for _, scheme := range append(Schemes(), 0) {
				if CanSign(test.public, scheme) {
					t.Errorf("CanSign with %#04x", scheme)
				}
				if s, err := Sign(rand.Reader, keyOfNoUse{test.public}, scheme, nil); err == nil {
					t.Errorf("Sign with %#04x = %x", scheme, s)
				}
				if Verify(test.public, scheme, nil, nil) {
					t.Errorf("Verify with %#04x", scheme)
				}
			}
		})
	}
}

// TestSchemes are the numbers that IANA registers, in the order of preference.
func TestSchemes(t *testing.T) {
	t.Parallel()
	want := slices.Concat(ecdsaSchemes, []uint16{0x0807}, pssSchemes, pkcs1Schemes)
	got := Schemes()
	if !slices.Equal(got, want) {
		t.Errorf("got %#04x\nwant %#04x", got, want)
	}
	got[0] = 0
	if Schemes()[0] == 0 {
		t.Error("Schemes() returned its own table")
	}
	named := []uint16{ECDSAWithSHA256, ECDSAWithSHA384, ECDSAWithSHA512, Ed25519,
		PSSWithSHA256, PSSWithSHA384, PSSWithSHA512, PKCS1WithSHA256, PKCS1WithSHA384, PKCS1WithSHA512}
	if !slices.Equal(named, want) {
		t.Errorf("by name %#04x\nwant %#04x", named, want)
	}
	keys, _ := readSignatures(t)
	for _, scheme := range got[1:] {
		if !slices.ContainsFunc(slices.Collect(maps.Values(keys)), func(k crypto.Signer) bool { return CanSign(k.Public(), scheme) }) {
			t.Errorf("no key signs with %#04x", scheme)
		}
	}
}
