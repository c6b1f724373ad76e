package record

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"

	"github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// keys13 are the keys of an epoch, made of a seed.
func keys13(s *suite.Suite13, seed byte) suite.TrafficKeys {
	return suite.TrafficKeys{
		Key: sequence(seed, s.KeyLen), IV: sequence(seed+0x40, s.FixedIVLen), SN: sequence(seed+0x80, s.KeyLen),
	}
}

func pair13(tb testing.TB, s *suite.Suite13, epoch uint16) (*Sealer13, *Opener13) {
	tb.Helper()
	sealer, opener := new(Sealer13), new(Opener13)
	if err := errors.Join(
		sealer.Init(s.AEAD13, epoch, keys13(s, 1)),
		opener.Init(s.AEAD13, epoch, keys13(s, 1))); err != nil {
		tb.Fatal(err)
	}
	return sealer, opener
}

func eachSuite13(t *testing.T, f func(t *testing.T, s *suite.Suite13)) {
	t.Helper()
	for _, s := range suite.All13() {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			f(t, s)
		})
	}
}

func parse13(t *testing.T, b []byte, cidLen int) wire.UnifiedRecord {
	t.Helper()
	r, rest, ok := wire.ParseUnifiedRecord(b, cidLen)
	if !ok || len(rest) > 0 {
		t.Fatalf("not one record: %x", b)
	}
	return r
}

// TestRoundTrip13: with each suite, with and without connection ID, as the last of a
// datagram and before others, what is sealed opens, once, and nothing of it can be
// changed.
func TestRoundTrip13(t *testing.T) {
	t.Parallel()
	eachSuite13(t, func(t *testing.T, s *suite.Suite13) {
		for _, cid := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte{0xcd}, 255)} {
			for _, place := range []Place{NotLast, Last} {
				sealer, opener := pair13(t, s, 3)
				for i, content := range []string{"", "a", "content", string(bytes.Repeat([]byte("x"), wire.MaxPlaintext-4))} {
					head := []byte("head")[:4*(i%2)]
					b, err := sealer.Append([]byte("dst"), cid, place, wire.ContentHandshake, head, []byte(content))
					if err != nil || string(b[:3]) != "dst" {
						t.Fatal(err)
					}
					b = b[3:]
					want := len(head) + len(content) + sealer.Overhead(cid)
					if place == Last {
						want -= 2
					}
					if len(b) != want {
						t.Errorf("%d bytes, want %d", len(b), want)
					}
					came := bytes.Clone(b)
					r := parse13(t, b, len(cid))
					if r.EpochBits != 3 || !bytes.Equal(r.CID, cid) {
						t.Errorf("header %+v", r)
					}
					for at := range min(len(b), 100) {
						spoilt := bytes.Clone(b)
						spoilt[at] ^= 1
						r, rest, ok := wire.ParseUnifiedRecord(spoilt, len(cid))
						if !ok || len(rest) > 0 {
							continue // another length or form
						}
						fresh := *opener
						if _, err := fresh.Open(nil, r); err != ErrForged || fresh.failed != 1 {
							t.Fatalf("changed at %d: %v, %d failed", at, err, fresh.failed)
						}
					}
					got, err := opener.Open([]byte("dst"), r)
					if err != nil || got.Type != wire.ContentHandshake || string(got.Content) != "dst"+string(head)+content || got.Seq != uint64(i) || !got.Newest {
						t.Fatalf("%d bytes: %v, type %d, number %d", len(content), err, got.Type, got.Seq)
					}
					if !bytes.Equal(b, came) {
						t.Error("the record was changed")
					}
					if _, err := opener.Open(nil, r); err != ErrReplayed || opener.Failed() != 0 {
						t.Errorf("again: %v, %d failed", err, opener.Failed())
					}
				}
			}
		}
	})
}

// TestForms13: records with numbers of 8 and of 16 bits, with and without length, open
// all the same, in any order within the window, and with numbers far apart.
func TestForms13(t *testing.T) {
	t.Parallel()
	eachSuite13(t, func(t *testing.T, s *suite.Suite13) {
		// seal makes a record in a form that Append does not write.
		seal := func(seq uint64, short, long bool) []byte {
			p := new(protection13)
			if err := p.init(s.AEAD13, 5, keys13(s, 1)); err != nil {
				t.Fatal(err)
			}
			inner := append(fmt.Appendf(nil, "record %d", seq), byte(wire.ContentApplicationData), 0, 0)
			n := len(inner) + s.Overhead()
			first := byte(0b001_00001)
			number := []byte{byte(seq >> 8), byte(seq)}
			if short {
				number = number[1:]
			} else {
				first |= 0b1000
			}
			if long {
				first |= 0b100
			}
			b := append([]byte{first}, number...)
			if long {
				b = append(b, byte(n>>8), byte(n))
			}
			at := len(b)
			p.setNonce(seq)
			b = p.aead.Seal(b, p.nonce[:], inner, b[:at:at])
			p.crypt(b[1:1+len(number)], b[at:])
			return b
		}
		for _, form := range []struct{ short, long bool }{{false, false}, {false, true}, {true, false}, {true, true}} {
			_, opener := pair13(t, s, 5)
			most := uint64(1<<15 - 1)
			if form.short {
				most = 1<<7 - 1
			}
			next := uint64(0)
			for _, tt := range []struct {
				seq uint64
				err error
			}{
				{5, nil}, {3, nil}, {5, ErrReplayed}, {6 + most, nil}, {4, ErrForged},
				{6 + most - 60, nil}, {7 + most + most + 1, nil}, {8 + most + most + 1 + most, nil},
			} { // what lags by more than half of the numbers is taken for a later one
				got, err := opener.Open(nil, parse13(t, seal(tt.seq, form.short, form.long), 0))
				if err != tt.err || err == nil && (got.Seq != tt.seq || string(got.Content) != fmt.Sprintf("record %d", tt.seq) || got.Newest != (tt.seq >= next)) {
					t.Errorf("%+v: record %d after %d: %v, %+v", form, tt.seq, next, err, got)
				}
				if err == nil {
					next = max(next, tt.seq+1)
				}
			}
		}
	})
}

// TestNearest: of the numbers that end in the bytes, the one nearest to the next, and of
// two the higher.
func TestNearest(t *testing.T) {
	t.Parallel()
	for _, bits := range []int{8, 16} {
		size := uint64(1) << bits
		for _, next := range []uint64{0, 1, size/2 - 1, size / 2, size/2 + 1, size - 1, size, size + 1, 3*size + 7, 1<<48 - 1, 1<<48 - size/2} {
			for _, low := range []uint64{0, 1, size/2 - 1, size / 2, size/2 + 1, size - 1, next % size, (next + size/2) % size, (next + size/2 - 1) % size} {
				b := []byte{byte(low >> 8), byte(low)}[2-bits/8:]
				w := Window{next: next}
				got, ok := w.nearest(b)
				// Naively: all that end so, near to next.
				best, found := uint64(0), false
				distance := func(a uint64) uint64 { return max(a, next) - min(a, next) }
				for i := range uint64(5) {
					c := next/size*size + low + i*size
					if c < 2*size {
						continue
					}
					c -= 2 * size
					if !found || distance(c) <= distance(best) {
						best, found = c, true
					}
				}
				if !found || best > wire.MaxSequence {
					if ok {
						t.Errorf("%d bits, %d after %d: %d, want none", bits, low, next, got)
					}
				} else if !ok || got != best {
					t.Errorf("%d bits, %d after %d: %d, %v, want %d", bits, low, next, got, ok, best)
				}
			}
		}
	}
}

// TestShort13: what is too short for a sequence number to be encrypted is neither opened
// nor counted as failed.
func TestShort13(t *testing.T) {
	t.Parallel()
	eachSuite13(t, func(t *testing.T, s *suite.Suite13) {
		_, opener := pair13(t, s, 3)
		for n := range 20 {
			r := parse13(t, append([]byte{0b001_01011, 0, 0}, make([]byte, n)...), 0)
			_, err := opener.Open(nil, r)
			if want := map[bool]error{true: ErrShort, false: ErrForged}[n < 16]; err != want {
				t.Errorf("%d bytes: %v, want %v", n, err, want)
			}
		}
		if opener.Failed() != 4 {
			t.Errorf("%d failed, want 4", opener.Failed())
		}
	})
}

// TestInner13: padding is cut off. What has no type, or too much content, is authentic,
// and no use.
func TestInner13(t *testing.T) {
	t.Parallel()
	eachSuite13(t, func(t *testing.T, s *suite.Suite13) {
		for _, tt := range []struct {
			inner   []byte
			content int
			err     error
		}{
			{inner: []byte{23}},
			{inner: append([]byte("text"), 23, 0, 0), content: 4},
			{inner: append(bytes.Repeat([]byte{1}, wire.MaxPlaintext), 23), content: wire.MaxPlaintext},
			{inner: append(append(bytes.Repeat([]byte{1}, wire.MaxPlaintext), 23), make([]byte, maxPadding)...), content: wire.MaxPlaintext},
			{inner: append(bytes.Repeat([]byte{1}, wire.MaxPlaintext+1), 23), err: ErrTooLong},
			{inner: make([]byte, 9), err: ErrNoType},
			{inner: append(bytes.Repeat([]byte{1}, wire.MaxPlaintext+maxPadding+1), 23), err: ErrForged},
		} {
			sealer, opener := pair13(t, s, 3)
			b := wire.AppendUnifiedHeaderLast(nil, 3, 9, nil)
			at := len(b)
			sealer.setNonce(9)
			b = sealer.aead.Seal(b, sealer.nonce[:], tt.inner, b[:at:at])
			sealer.crypt(b[1:3], b[at:])
			r := parse13(t, b, 0)
			got, err := opener.Open(nil, r)
			if err != tt.err || len(got.Content) != tt.content {
				t.Errorf("%d bytes: %v, %d bytes of content", len(tt.inner), err, len(got.Content))
			}
			if tt.err == ErrForged {
				continue
			}
			if _, err := opener.Open(nil, r); err != ErrReplayed {
				t.Errorf("%d bytes, again: %v", len(tt.inner), err)
			}
		}
	})
}

// TestLimits13: a key seals no more than it may, and nothing is tried on it when too much
// has failed.
func TestLimits13(t *testing.T) {
	t.Parallel()
	eachSuite13(t, func(t *testing.T, s *suite.Suite13) {
		sealer, opener := pair13(t, s, 3)
		sealer.next = s.SealLimit - 1
		b, err := sealer.Append(nil, nil, Last, wire.ContentApplicationData, nil, []byte("last"))
		if err != nil || sealer.Left() != 0 {
			t.Fatal(err)
		}
		if _, err := sealer.Append(nil, nil, Last, wire.ContentApplicationData, nil, nil); err != ErrExhausted {
			t.Errorf("beyond the limit: %v", err)
		}
		opener.window.next = s.SealLimit - 10
		opener.failed = s.OpenLimit - 1
		spoilt := bytes.Clone(b)
		spoilt[len(b)-1] ^= 1
		if _, err := opener.Open(nil, parse13(t, spoilt, 0)); err != ErrForged {
			t.Errorf("the last that may fail: %v", err)
		}
		if _, err := opener.Open(nil, parse13(t, b, 0)); err != ErrKeyLimit {
			t.Errorf("beyond the limit: %v", err)
		}
	})
}

// TestRest13: after a rest, what is sealed and opened is as before.
func TestRest13(t *testing.T) {
	t.Parallel()
	eachSuite13(t, func(t *testing.T, s *suite.Suite13) {
		sealer, opener := pair13(t, s, 3)
		again, _ := pair13(t, s, 3)
		for range 3 {
			sealer.Rest()
			opener.Rest()
			b, err := sealer.Append(nil, []byte("cid"), Last, wire.ContentApplicationData, nil, []byte("text"))
			if err != nil || sealer.Resting() {
				t.Fatal(err)
			}
			want, _ := again.Append(nil, []byte("cid"), Last, wire.ContentApplicationData, nil, []byte("text"))
			if !bytes.Equal(b, want) {
				t.Errorf("got %x, want %x", b, want)
			}
			if got, err := opener.Open(nil, parse13(t, b, 3)); err != nil || string(got.Content) != "text" {
				t.Errorf("got %q, %v", got.Content, err)
			}
		}
	})
}

// TestAllocs13: sealing and opening allocate nothing.
func TestAllocs13(t *testing.T) {
	for _, s := range suite.All13() {
		sealer, opener := pair13(t, s, 3)
		content := make([]byte, 100)
		var sealed, opened []byte
		allocs := testing.AllocsPerRun(100, func() {
			sealed, _ = sealer.Append(sealed[:0], []byte("cid"), Last, wire.ContentApplicationData, nil, content)
			r, _, _ := wire.ParseUnifiedRecord(sealed, 3)
			got, err := opener.Open(opened[:0], r)
			if err != nil {
				t.Fatal(err)
			}
			opened = got.Content
		})
		if allocs > 0 {
			t.Errorf("%s: %v allocations", s.Name, allocs)
		}
	}
}

// FuzzOpen13 opens records that are what the bytes are, beside genuine ones: nothing but
// what was sealed opens.
func FuzzOpen13(f *testing.F) {
	f.Add([]byte{0b001_01111, 0, 0, 0, 20}, uint16(3))
	f.Fuzz(func(t *testing.T, b []byte, skip uint16) {
		s := suite.ByID13(suite.AES128GCM)
		sealer, opener := pair13(t, s, 3)
		opener.window.next = uint64(skip)
		for len(b) > 0 {
			r, rest, ok := wire.ParseUnifiedRecord(b, 3)
			if !ok {
				break
			}
			if _, err := opener.Open(nil, r); err == nil {
				t.Fatalf("%x opens", r.Raw)
			}
			b = rest
		}
		sealer.next = uint64(skip)
		text := sha256.Sum256(b)
		sealed, err := sealer.Append(nil, []byte("cid"), Last, wire.ContentApplicationData, nil, text[:])
		if err != nil {
			t.Fatal(err)
		}
		if got, err := opener.Open(nil, parse13(t, sealed, 3)); err != nil || !bytes.Equal(got.Content, text[:]) {
			t.Fatalf("a genuine record: %v", err)
		}
	})
}
