package record

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

func parseCID(t *testing.T, b []byte, n int) wire.Record {
	t.Helper()
	r, rest, ok := wire.ParseRecord(b, n)
	if !ok || len(rest) > 0 {
		t.Fatalf("not one record: %x", b)
	}
	return r
}

// TestConnectionID: with each suite and connection IDs of each length, what is sealed
// opens, once, and nothing of the header or the content can be changed.
func TestConnectionID(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, s *suite.Suite) {
		for _, n := range []int{1, 8, 20, 255} {
			sealer, opener := pair(t, s)
			cid := bytes.Repeat([]byte{0xcd}, n)
			for i, content := range []string{"", "content", string(bytes.Repeat([]byte("x"), wire.MaxPlaintext))} {
				head := []byte("head")[:4*(i%2)]
				b, err := sealer.Append([]byte("dst"), cid, wire.ContentHandshake, head, []byte(content))
				if err != nil || string(b[:3]) != "dst" {
					t.Fatal(err)
				}
				b = b[3:]
				if want := len(head) + len(content) + sealer.Overhead(cid); len(b) != want {
					t.Errorf("%d bytes, want %d", len(b), want)
				}
				r := parseCID(t, b, n)
				if r.Type != wire.ContentCID || r.Epoch != 1 || r.Seq != uint64(i) || !bytes.Equal(r.CID(), cid) {
					t.Errorf("header %+v", r)
				}
				if i == 1 {
					for at := range b {
						if at == 0 || at == 11+n || at == 12+n {
							continue // another type or length is another record
						}
						spoilt := bytes.Clone(b)
						spoilt[at] ^= 1
						fresh := *opener
						if _, _, err := fresh.Reopen(nil, parseCID(t, spoilt, n)); !errors.Is(err, ErrForged) {
							t.Fatalf("changed at %d: %v", at, err)
						}
					}
				}
				got, typ, err := opener.Open([]byte("dst"), r)
				if err != nil || typ != wire.ContentHandshake || string(got) != "dst"+string(head)+content {
					t.Fatalf("%d bytes: %v, type %d", n, err, typ)
				}
				if _, _, err := opener.Open(nil, r); err != ErrReplayed {
					t.Errorf("again: %v", err)
				}
			}
		}
	})
}

// TestConnectionIDAdditionalData: the additional data of RFC 9146 section 5.3, byte for
// byte.
func TestConnectionIDAdditionalData(t *testing.T) {
	t.Parallel()
	got := appendAdditionalCID(nil, 1<<48|0x020304050607, wire.VersionDTLS12, []byte{0xaa, 0xbb}, 0x0102)
	want := "ffffffffffffffff" + "19" + "02" + "19" + "fefd" + "0001" + "020304050607" + "aabb" + "0102"
	if hex.EncodeToString(got) != want {
		t.Errorf("got  %x\nwant %s", got, want)
	}
}

// TestConnectionIDInner: padding is cut off, and what has no type, or that of the outer
// record, is of no use but marks the window.
func TestConnectionIDInner(t *testing.T) {
	t.Parallel()
	s := suite.ByID(suite.PSKWithAES128GCM)
	cid := []byte("cid")
	for _, tt := range []struct {
		inner   []byte
		content string
		err     error
	}{
		{inner: append([]byte("text"), 23), content: "text"},
		{inner: append([]byte("text"), 23, 0, 0, 0), content: "text"},
		{inner: append([]byte("te\x00t\x00"), 23, 0), content: "te\x00t\x00"},
		{inner: []byte{23}},
		{inner: append([]byte{23}, make([]byte, wire.MaxPlaintext)...)},
		{inner: []byte{}, err: ErrNoType},
		{inner: make([]byte, 9), err: ErrNoType},
		{inner: append([]byte("text"), 25), err: ErrNoType},
		{inner: append([]byte{23}, make([]byte, wire.MaxPlaintext+1)...), err: ErrForged},
	} {
		sealer, opener := pair(t, s)
		seq := uint64(1<<48 | 5)
		sealer.setNonce(seq)
		b := wire.AppendRecordHeaderCID(nil, wire.VersionDTLS12, 1, 5, cid, len(tt.inner)+s.Overhead())
		b = append(b, sealer.nonce[s.FixedIVLen:]...)
		b = sealer.aead.Seal(b, sealer.nonce[:], tt.inner, appendAdditionalCID(nil, seq, wire.VersionDTLS12, cid, len(tt.inner)))
		r := parseCID(t, b, len(cid))
		got, typ, err := opener.Open(nil, r)
		if err != tt.err || string(got) != tt.content || (err == nil) != (typ == wire.ContentApplicationData) {
			t.Errorf("%.20x: %q, type %d, %v", tt.inner, got, typ, err)
		}
		if tt.err == ErrForged {
			continue
		}
		if _, _, err := opener.Open(nil, r); err != ErrReplayed {
			t.Errorf("%.20x again: %v", tt.inner, err)
		}
	}
}

// TestConnectionIDForm: a record does not open in the other form, though key and
// nonce are the same.
func TestConnectionIDForm(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, s *suite.Suite) {
		sealer, opener := pair(t, s)
		with, err := sealer.Append(nil, []byte("cid"), wire.ContentApplicationData, nil, []byte("text"))
		if err != nil {
			t.Fatal(err)
		}
		r := parseCID(t, with, 3)
		without := wire.AppendRecordHeader(nil, wire.ContentApplicationData, wire.VersionDTLS12, 1, r.Seq, len(r.Payload))
		if _, _, err := opener.Open(nil, parseCID(t, append(without, r.Payload...), 0)); err != ErrForged {
			t.Errorf("without its connection ID: %v", err)
		}
		plain, err := sealer.Append(nil, nil, wire.ContentApplicationData, nil, []byte("text"))
		if err != nil {
			t.Fatal(err)
		}
		r = parseCID(t, plain, 0)
		b := wire.AppendRecordHeaderCID(nil, wire.VersionDTLS12, 1, r.Seq, []byte("cid"), len(r.Payload))
		if _, _, err := opener.Open(nil, parseCID(t, append(b, r.Payload...), 3)); err != ErrForged {
			t.Errorf("with a connection ID: %v", err)
		}
	})
}

// TestNewest: only a record beyond all that have opened is newer than they are.
func TestNewest(t *testing.T) {
	t.Parallel()
	sealer, opener := pair(t, suite.ByID(suite.PSKWithAES128GCM))
	var records []wire.Record
	for range 4 {
		b, err := sealer.Append(nil, []byte("cid"), wire.ContentApplicationData, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, parseCID(t, b, 3))
	}
	for i, want := range []bool{true, true, true, true} {
		if opener.Newest(records[i]) != want {
			t.Errorf("record %d before any has opened: %v", i, !want)
		}
	}
	if _, _, err := opener.Open(nil, records[2]); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{false, false, false, true} {
		if opener.Newest(records[i]) != want {
			t.Errorf("record %d: %v", i, !want)
		}
	}
}

// TestConnectionIDAllocs: sealing and opening allocate nothing.
func TestConnectionIDAllocs(t *testing.T) {
	for _, s := range suite.All() {
		sealer, opener := pair(t, s)
		cid, content := []byte("0123456789"), make([]byte, 100)
		var sealed, opened []byte
		allocs := testing.AllocsPerRun(100, func() {
			sealed, _ = sealer.Append(sealed[:0], cid, wire.ContentApplicationData, nil, content)
			r, _, _ := wire.ParseRecord(sealed, len(cid))
			var err error
			if opened, _, err = opener.Open(opened[:0], r); err != nil || binary.BigEndian.Uint16(opened) != 0 {
				t.Fatal(err)
			}
		})
		if allocs > 0 {
			t.Errorf("%s: %v allocations", s.Name, allocs)
		}
	}
}
