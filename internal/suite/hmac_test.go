package suite

import (
	"crypto"
	reference "crypto/hmac"
	"fmt"
	"testing"
)

// TestHMAC holds one hmac that is keyed again and again, with either hash,
// against the standard library's.
func TestHMAC(t *testing.T) {
	t.Parallel()
	var h hmac
	for n := range 3 * crypto.SHA384.New().BlockSize() {
		for _, of := range []crypto.Hash{crypto.SHA256, crypto.SHA384} {
			key, text := sequence(byte(n), n), sequence(byte(n+1), 2*n+1)
			h.setKey(of, key)
			want := reference.New(of.New, key)
			for i := range 2 { // of the same key, and after another text
				want.Reset()
				want.Write(text[i:])
				got := h.sum([]byte("dst"), text[i:])
				wantBytes(t, fmt.Sprintf("HMAC with %v and a key of %d bytes", of, n), got, want.Sum([]byte("dst")))
			}
		}
	}
}

// TestForget: what is forgotten is not there any more.
func TestForget(t *testing.T) {
	t.Parallel()
	var secret Secret
	secret.Forget()
	secret.Become(ByID(PSKWithAES256GCM), sequence(1, MasterSecretLen))
	secret.ClientVerifyData(sequence(2, 48))
	secret.Forget()
	for what, b := range map[string][]byte{
		"inner": secret.mac.inner, "outer": secret.mac.outer, "pad": secret.mac.pad[:],
		"scratch": secret.mac.scratch[:], "text": secret.text[:], "out": secret.out[:],
	} {
		for _, v := range b {
			if v != 0 {
				t.Errorf("%s is %x", what, b)
				break
			}
		}
	}
}

// BenchmarkSchedule is the key schedule of a handshake with plain PSK.
func BenchmarkSchedule(b *testing.B) {
	b.ReportAllocs()
	s := ByID(PSKWithAES128GCM)
	premaster := AppendPSKPremaster(nil, sequence(0, 16))
	random, sum := sequence(1, 32), sequence(2, 32)
	var secret Secret
	for b.Loop() {
		secret.Become(s, premaster)
		secret.Become(s, secret.ExtendedMasterSecret(sum))
		secret.Keys(random, random)
		secret.ClientVerifyData(sum)
		secret.ServerVerifyData(sum)
	}
}
