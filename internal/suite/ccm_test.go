// Tests of CCM against NIST SP 800-38C and against another implementation.

package suite

import (
	"bufio"
	"bytes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"
)

func mustCCM(t *testing.T, key []byte, tagLen int) cipher.AEAD {
	t.Helper()
	aead, err := newCCM(key, tagLen)
	if err != nil {
		t.Fatal(err)
	}
	return aead
}

// TestCCMPublished is Example 3 of SP 800-38C, the one with a nonce of 12
// bytes.
func TestCCMPublished(t *testing.T) {
	t.Parallel()
	aead := mustCCM(t, sequence(0x40, 16), 8)
	nonce, additional, plaintext := sequence(0x10, 12), sequence(0x00, 20), sequence(0x20, 24)
	want := unhex(t, "e3b201a9f5b71a7a9b1ceaeccd97e70b6176aad9a4428aa5484392fbc1b09951")
	wantBytes(t, "sealed", aead.Seal(nil, nonce, plaintext, additional), want)
	got, err := aead.Open(nil, nonce, want, additional)
	if err != nil {
		t.Fatal(err)
	}
	wantBytes(t, "opened", got, plaintext)
}

// TestCCMRecorded reads what another implementation made of the same inputs;
// the header of the file says which.
func TestCCMRecorded(t *testing.T) {
	t.Parallel()
	file, err := os.Open("testdata/ccm.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	rows := 0
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		var keyBits, tagLen, length int
		var want string
		if _, err := fmt.Sscan(line, &keyBits, &tagLen, &length, &want); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		rows++
		t.Run(fmt.Sprintf("key%d/tag%d/%d", keyBits, tagLen, length), func(t *testing.T) {
			t.Parallel()
			aead := mustCCM(t, sequence(0, keyBits/8), tagLen)
			nonce, additional := sequence(0x40, 12), sequence(0x60, 13)
			plaintext := make([]byte, length)
			for i := range plaintext {
				plaintext[i] = byte(7 * i)
			}
			sealed := aead.Seal(nil, nonce, plaintext, additional)
			got := hex.EncodeToString(sealed)
			if strings.HasPrefix(want, "sha256:") {
				got = fmt.Sprintf("sha256:%x", sha256.Sum256(sealed))
			}
			if got != want {
				t.Errorf("sealed:\n got %s\nwant %s", got, want)
			}
			opened, err := aead.Open(nil, nonce, sealed, additional)
			if err != nil {
				t.Fatal(err)
			}
			wantBytes(t, "opened", opened, plaintext)
		})
	}
	if rows != 32 {
		t.Errorf("%d vectors, want 32", rows)
	}
}

// TestCCMAdditionalData checks the padding of the additional data: lengths
// around the 14 bytes that share a block with their length, and around the
// blocks after it. A wrong padding makes two of them have the same tag.
func TestCCMAdditionalData(t *testing.T) {
	t.Parallel()
	aead := mustCCM(t, sequence(0, 16), 16)
	nonce := sequence(0x40, 12)
	tags := map[string]int{}
	for n := range 50 {
		sealed := aead.Seal(nil, nonce, []byte("text"), make([]byte, n))
		if before, ok := tags[string(sealed)]; ok {
			t.Errorf("%d and %d zeros as additional data have the same tag", before, n)
		}
		tags[string(sealed)] = n
		if _, err := aead.Open(nil, nonce, sealed, make([]byte, n)); err != nil {
			t.Errorf("%d bytes of additional data: %v", n, err)
		}
	}
}

// TestCCMReuse checks that the scratch blocks carry nothing from a message to
// the next, failures included.
func TestCCMReuse(t *testing.T) {
	t.Parallel()
	key, nonce, additional := sequence(0, 16), sequence(0x40, 12), sequence(0x60, 13)
	used := mustCCM(t, key, 8)
	used.Seal(nil, nonce, make([]byte, 70000*16), nil) // counts in all bytes of the counter
	for _, n := range []int{64, 0, 17, 1, 16} {
		used.Seal(nil, sequence(9, 12), make([]byte, 100), nil)
		if _, err := used.Open(nil, nonce, make([]byte, 40), additional); err == nil {
			t.Fatal("zeros open")
		}
		want := mustCCM(t, key, 8).Seal(nil, nonce, sequence(1, n), additional)
		wantBytes(t, fmt.Sprintf("%d bytes", n), used.Seal(nil, nonce, sequence(1, n), additional), want)
	}
}

func TestCCMCounterCarries(t *testing.T) {
	t.Parallel()
	// 70,000 blocks carry into all three bytes of the counter. Two messages
	// with one nonce share their key stream, so that of zeros must not repeat.
	aead := mustCCM(t, sequence(0, 16), 8)
	stream := aead.Seal(nil, sequence(0x40, 12), make([]byte, 70000*16), nil)
	seen := make(map[[16]byte]int, 70000)
	for i := range 70000 {
		block := [16]byte(stream[16*i:])
		if before, ok := seen[block]; ok {
			t.Fatalf("blocks %d and %d of the key stream are equal", before, i)
		}
		seen[block] = i
	}
}

func TestCCMMisuse(t *testing.T) {
	t.Parallel()
	aead := mustCCM(t, sequence(0, 16), 8)
	wantPanic := func(name string, f func()) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%s: no panic", name)
			}
		}()
		f()
	}
	wantPanic("nonce of 11 bytes", func() { aead.Seal(nil, make([]byte, 11), nil, nil) })
	wantPanic("nonce of 13 bytes", func() { aead.Seal(nil, make([]byte, 13), nil, nil) })
	sealed := aead.Seal(nil, make([]byte, 12), []byte("text"), nil)
	for _, n := range []int{0, 11, 13} {
		if _, err := aead.Open(nil, make([]byte, n), sealed, nil); err == nil {
			t.Errorf("opens with a nonce of %d bytes", n)
		}
	}
	if _, err := newCCM(make([]byte, 17), 8); err == nil {
		t.Error("a key of 17 bytes was taken")
	}
	if got := aead.Seal(nil, make([]byte, 12), nil, nil); len(got) != 8 || bytes.Equal(got, make([]byte, 8)) {
		t.Errorf("the empty message is sealed as %x", got)
	}
}
