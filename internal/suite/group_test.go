package suite

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"slices"
	"testing"
)

func TestGroups(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		id     uint16
		curve  ecdh.Curve
		public int // bytes: an uncompressed point, or what RFC 7748 has
		secret int
	}{
		{"secp256r1", 23, ecdh.P256(), 65, 32},
		{"x25519", 29, ecdh.X25519(), 32, 32},
		{"secp384r1", 24, ecdh.P384(), 97, 48},
		{"secp521r1", 25, ecdh.P521(), 133, 66}, // which must be asked for
	}
	var ids []uint16
	for _, test := range tests {
		ids = append(ids, test.id)
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			curve := Curve(test.id)
			if curve != test.curve {
				t.Fatalf("Curve(%d) = %v", test.id, curve)
			}
			ours, err := curve.GenerateKey(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			theirs, err := curve.GenerateKey(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			a, err := ours.ECDH(theirs.PublicKey())
			if err != nil {
				t.Fatal(err)
			}
			b, err := theirs.ECDH(ours.PublicKey())
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(a, b) || len(a) != test.secret || len(ours.PublicKey().Bytes()) != test.public {
				t.Errorf("secrets %x and %x, public key %x", a, b, ours.PublicKey().Bytes())
			}
		})
	}
	got := Groups()
	if !slices.Equal(got, ids[:3]) {
		t.Errorf("Groups() = %d, want %d", got, ids[:3])
	}
	got[0] = 0
	if Groups()[0] == 0 {
		t.Error("Groups() returned its own table")
	}
	for id := range 1 << 16 {
		if (Curve(uint16(id)) != nil) != slices.Contains(ids, uint16(id)) {
			t.Errorf("Curve(%d) = %v", id, Curve(uint16(id)))
		}
	}
}
