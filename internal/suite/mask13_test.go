package suite

import (
	"crypto/aes"
	"encoding/binary"
	"fmt"
	"testing"

	"golang.org/x/crypto/chacha20"
)

// TestMaskPublished are the samples of header protection of RFC 9001 appendix A,
// which has the same construction, and the block of RFC 8439 section 2.3.2.
func TestMaskPublished(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name              string
		suite             uint16
		key, sample, want string
	}{
		{"RFC 9001 A.2", AES128GCM, "9f50449e04a0e810283a1e9933adedd2", "d1b1c98dd7689fb8ec11d242b123dc9b", "437b9aec36"},
		{"RFC 9001 A.3", AES128GCM, "c206b8d9b9f0f37644430b490eeaa314", "2cd0991cd25b0aac406a5816b6394100", "2ec0d8356a"},
		{"RFC 9001 A.5", ChaCha20, "25a282b9e82f06f21f488917a4fc8f1b73573685608597d0efcb076b0ab7a7a4",
			"5e5cd55c41f69080575d7999c25a5bfb", "aefefe7d03"},
		{"RFC 8439", ChaCha20, "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
			"01000000000000090000004a00000000", "10f1e7e4d13b5915500fdd1fa32071c4"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var m Mask
			if err := m.Init(ByID13(test.suite).AEAD13, unhex(t, test.key)); err != nil {
				t.Fatal(err)
			}
			want := unhex(t, test.want)
			for _, rest := range []int{0, 1, 100} { // behind the sample
				wantBytes(t, "mask", m.Of(append(unhex(t, test.sample), sequence(1, rest)...))[:len(want)], want)
			}
		})
	}
}

// TestMask holds the masks of one Mask after the other against block ciphers of the
// test's own, with any counter of ChaCha20: the client has a say in it.
func TestMask(t *testing.T) {
	t.Parallel()
	var m Mask
	for _, s := range All13() {
		key := sequence(7, s.KeyLen)
		if err := m.Init(s.AEAD13, key); err != nil {
			t.Fatal(err)
		}
		for _, counter := range []uint32{0, 1, 0x80000000, 0xfffffffe, 0xffffffff, 0} {
			sample := binary.LittleEndian.AppendUint32(nil, counter)
			sample = append(sample, sequence(byte(counter), 12)...)
			want := make([]byte, 64)
			if s.ID == ChaCha20 {
				stream, err := chacha20.NewUnauthenticatedCipher(key, sample[4:])
				if err != nil {
					t.Fatal(err)
				}
				stream.SetCounter(counter)
				stream.XORKeyStream(want, want)
			} else {
				block, err := aes.NewCipher(key)
				if err != nil {
					t.Fatal(err)
				}
				block.Encrypt(want, sample)
			}
			wantBytes(t, fmt.Sprintf("%s, counter %#x", s.Name, counter), m.Of(sample), want[:16])
			for n := range MaskSampleLen {
				if got := m.Of(sample[:n]); got != nil {
					t.Errorf("%s: the mask of %d bytes is %x", s.Name, n, got)
				}
			}
		}
		for _, n := range []int{0, s.KeyLen - 1, s.KeyLen + 1, 24} {
			if err := new(Mask).Init(s.AEAD13, make([]byte, n)); err == nil {
				t.Errorf("%s: a key of %d bytes was taken", s.Name, n)
			}
		}
	}
	m.Forget()
	if m != (Mask{}) {
		t.Error("Forget left something behind")
	}
}

// TestMaskAllocations is not parallel: AllocsPerRun counts the whole process.
func TestMaskAllocations(t *testing.T) {
	for _, s := range All13() {
		var m Mask
		if err := m.Init(s.AEAD13, sequence(0, s.KeyLen)); err != nil {
			t.Fatal(err)
		}
		sample := sequence(3, 40)
		if n := testing.AllocsPerRun(100, func() { m.Of(sample) }); n != 0 {
			t.Errorf("%s: %v allocations a record, want 0", s.Name, n)
		}
	}
}
