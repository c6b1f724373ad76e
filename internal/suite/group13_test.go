package suite

import (
	"bytes"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"testing"
)

// shares are the groups of TLS 1.3, with the lengths of what travels, and of the
// secret.
var shares = []struct {
	name                   string
	group                  uint16
	client, server, secret int
}{
	{"X25519MLKEM768", 0x11ec, 1216, 1120, 64},
	{"x25519", 29, 32, 32, 32},
	{"secp256r1", 23, 65, 65, 32},
	{"secp384r1", 24, 97, 97, 48},
	{"secp521r1", 25, 133, 133, 66}, // which must be asked for
}

func TestGroups13(t *testing.T) {
	t.Parallel()
	var want []uint16
	for _, s := range shares {
		want = append(want, s.group)
	}
	got := Groups13()
	if !slices.Equal(got, want[:4]) {
		t.Errorf("Groups13() = %d, want %d", got, want[:4])
	}
	got[0] = 0
	if Groups13()[0] == 0 {
		t.Error("Groups13() returned its own table")
	}
	for id := range 1 << 16 {
		if HasGroup13(uint16(id)) != slices.Contains(want, uint16(id)) {
			t.Errorf("HasGroup13(%d) = %v", id, HasGroup13(uint16(id)))
		}
	}
	if Curve(GroupX25519MLKEM768) != nil || slices.Contains(Groups(), GroupX25519MLKEM768) {
		t.Error("the hybrid is a group of TLS 1.2")
	}
}

// newShare makes a client's share of a group.
func newShare(t testing.TB, group uint16) *KeyShare {
	t.Helper()
	k, err := NewKeyShare(rand.Reader, group)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestServerShare: both peers come to one secret, another one each time, and no share
// of another length is taken.
func TestServerShare(t *testing.T) {
	t.Parallel()
	for _, test := range shares {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			client := newShare(t, test.group)
			public := client.Bytes()
			if len(public) != test.client {
				t.Errorf("the client's share has %d bytes, want %d", len(public), test.client)
			}
			seen := map[string]bool{}
			for range 2 {
				share, secret, err := ServerShare(rand.Reader, test.group, public)
				if err != nil {
					t.Fatal(err)
				}
				if len(share) != test.server || len(secret) != test.secret {
					t.Errorf("share of %d and secret of %d bytes, want %d and %d", len(share), len(secret), test.server, test.secret)
				}
				if seen[string(share)] || seen[string(secret)] {
					t.Error("the same again")
				}
				seen[string(share)], seen[string(secret)] = true, true
				got, err := client.Secret(share)
				if err != nil {
					t.Fatal(err)
				}
				wantBytes(t, "the client's secret", got, secret)
				for _, bad := range lengths(share) {
					if got, err := client.Secret(bad); !errors.Is(err, ErrKeyShare) || got != nil {
						t.Errorf("a server's share of %d bytes: %x, %v", len(bad), got, err)
					}
				}
			}
			for _, bad := range lengths(public) {
				wantBadShare(t, test.group, bad)
			}
		})
	}
	for _, group := range []uint16{0, 30, 0x0200, 0x11eb, 0x11ed} {
		_, err := NewKeyShare(rand.Reader, group)
		if share, secret, serverErr := ServerShare(rand.Reader, group, make([]byte, 32)); err == nil || share != nil || secret != nil || serverErr == nil || errors.Is(serverErr, ErrKeyShare) {
			t.Errorf("group %#04x: share %x, %v and %v", group, share, err, serverErr)
		}
	}
}

// lengths are the beginnings of a share at its seams, and what is longer by a byte.
func lengths(share []byte) (all [][]byte) {
	for _, n := range []int{0, 1, 31, 32, 33, 64, 65, 1088, 1120, 1184, len(share) - 32, len(share) - 1} {
		if n >= 0 && n < len(share) {
			all = append(all, share[:n])
		}
	}
	return append(all, append(bytes.Clone(share), 0), append([]byte{0}, share...))
}

func wantBadShare(t *testing.T, group uint16, share []byte) {
	t.Helper()
	ours, secret, err := ServerShare(rand.Reader, group, share)
	if !errors.Is(err, ErrKeyShare) || ours != nil || secret != nil {
		t.Errorf("%s: share %x, secret %x, %v", short(share), ours, secret, err)
	}
}

// lowOrder are the points of X25519 of low order, of which every secret is zero
// (RFC 7748 section 6.1).
var lowOrder = []string{
	strings.Repeat("00", 32),
	"01" + strings.Repeat("00", 31),
	"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
	"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
	"ec" + strings.Repeat("ff", 30) + "7f",
	"ed" + strings.Repeat("ff", 30) + "7f",
	"ee" + strings.Repeat("ff", 30) + "7f",
}

func TestBadShares(t *testing.T) {
	t.Parallel()
	hybrid := newShare(t, GroupX25519MLKEM768)
	for _, point := range lowOrder {
		zero := unhex(t, point)
		wantBadShare(t, GroupX25519, zero)
		public := hybrid.Bytes()
		copy(public[1184:], zero)
		wantBadShare(t, GroupX25519MLKEM768, public)
		share, _, err := ServerShare(rand.Reader, GroupX25519MLKEM768, hybrid.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		copy(share[1088:], zero)
		if got, err := hybrid.Secret(share); !errors.Is(err, ErrKeyShare) || got != nil {
			t.Errorf("the client's secret with %s is %x, %v", point, got, err)
		}
	}

	// Twelve bits each are a number below 3329 (FIPS 203 section 7.2).
	for _, at := range []int{0, 3, 600, 1149} {
		public := hybrid.Bytes()
		public[at], public[at+1], public[at+2] = 0x01, 0x0d, 0 // 3329
		wantBadShare(t, GroupX25519MLKEM768, public)
		public[at] = 0 // 3328
		if _, _, err := ServerShare(rand.Reader, GroupX25519MLKEM768, public); err != nil {
			t.Errorf("3328 at %d: %v", at, err)
		}
	}

	for _, group := range []uint16{GroupP256, GroupP384, GroupP521} {
		public := newShare(t, group).Bytes()
		half := (len(public) - 1) / 2
		change := func(f func(b []byte) []byte) { t.Helper(); wantBadShare(t, group, f(bytes.Clone(public))) }
		change(func(b []byte) []byte { b[len(b)-1] ^= 1; return b })                               // off the curve
		change(func(b []byte) []byte { clear(b[1:]); return b })                                   // off the curve
		change(func(b []byte) []byte { return append([]byte{2 + b[len(b)-1]&1}, b[1:1+half]...) }) // compressed
		change(func(b []byte) []byte { b[0] = 6 + b[len(b)-1]&1; return b })                       // hybrid form
		change(func(b []byte) []byte { b[0] = 0; return b })
		change(func(b []byte) []byte { return []byte{0} })                                        // the point at infinity
		change(func(b []byte) []byte { copy(b[1:], bytes.Repeat([]byte{0xff}, half)); return b }) // not reduced
	}
}

// FuzzServerShare: a share is answered in full, or the peer is to blame.
func FuzzServerShare(f *testing.F) {
	for _, test := range shares {
		public := newShare(f, test.group).Bytes()
		f.Add(test.group, public)
		f.Add(test.group, public[:len(public)-1])
		f.Add(test.group, make([]byte, len(public)))
		f.Add(test.group, bytes.Repeat([]byte{0xff}, len(public)))
	}
	f.Fuzz(func(t *testing.T, group uint16, public []byte) {
		given := bytes.Clone(public)
		share, secret, err := ServerShare(rand.Reader, group, public)
		if !bytes.Equal(public, given) {
			t.Error("the client's share was changed")
		}
		for _, test := range shares {
			if test.group != group {
				continue
			}
			if err == nil && (len(public) != test.client || len(share) != test.server || len(secret) != test.secret) {
				t.Errorf("share of %d bytes, secret of %d for one of %d", len(share), len(secret), len(public))
			}
			if err != nil && (!errors.Is(err, ErrKeyShare) || share != nil || secret != nil) {
				t.Errorf("share %x, secret %x, %v", share, secret, err)
			}
			return
		}
		if err == nil || errors.Is(err, ErrKeyShare) {
			t.Errorf("group %d: %v", group, err)
		}
	})
}

func BenchmarkServerShare(b *testing.B) {
	for _, test := range shares {
		b.Run(test.name, func(b *testing.B) {
			b.ReportAllocs()
			public := newShare(b, test.group).Bytes()
			for b.Loop() {
				if _, _, err := ServerShare(rand.Reader, test.group, public); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
