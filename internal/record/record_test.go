// Tests of sealing and opening records: round trips, nonces, exhaustion,
// forgeries, and that nothing allocates.

package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// sequence returns n bytes that count up from start.
func sequence(start byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = start + byte(i)
	}
	return b
}

// pair returns a sealer of epoch 1 and the opener of its records.
func pair(tb testing.TB, s *suite.Suite) (*Sealer, *Opener) {
	tb.Helper()
	return mustSealer(tb, s, 1), mustOpener(tb, s)
}

func mustSealer(tb testing.TB, s *suite.Suite, epoch uint16) *Sealer {
	tb.Helper()
	sealer := new(Sealer)
	if err := sealer.Init(s.AEAD, epoch, sequence(0, s.KeyLen), sequence(0xf0, s.FixedIVLen)); err != nil {
		tb.Fatal(err)
	}
	return sealer
}

func mustOpener(tb testing.TB, s *suite.Suite) *Opener {
	tb.Helper()
	opener := new(Opener)
	if err := opener.Init(s.AEAD, sequence(0, s.KeyLen), sequence(0xf0, s.FixedIVLen)); err != nil {
		tb.Fatal(err)
	}
	return opener
}

func mustAppend(tb testing.TB, s *Sealer, t wire.ContentType, content []byte) wire.Record {
	tb.Helper()
	b, err := s.Append(nil, nil, t, nil, content)
	if err != nil {
		tb.Fatal(err)
	}
	return mustParse(tb, b)
}

func mustParse(tb testing.TB, b []byte) wire.Record {
	tb.Helper()
	r, rest, ok := wire.ParseRecord(b, 0)
	if !ok || len(rest) > 0 {
		tb.Fatalf("not one record: %x", b)
	}
	return r
}

// wantOpen opens r behind a prefix.
func wantOpen(tb testing.TB, o *Opener, r wire.Record, content []byte) {
	tb.Helper()
	got, _, err := o.Open([]byte("dst"), r)
	if err != nil {
		tb.Fatalf("sequence number %d: %v", r.Seq, err)
	}
	if want := append([]byte("dst"), content...); !bytes.Equal(got, want) {
		tb.Fatalf("sequence number %d: %x, want %x", r.Seq, got, want)
	}
}

// wantRefused checks that r does not open and that dst is as it was.
func wantRefused(tb testing.TB, o *Opener, r wire.Record, want error) {
	tb.Helper()
	dst := append(make([]byte, 0, 1<<15), "dst"...)
	got, _, err := o.Open(dst, r)
	if !errors.Is(err, want) {
		tb.Fatalf("sequence number %d: error %v, want %v", r.Seq, err, want)
	}
	if string(got) != "dst" || &got[0] != &dst[0] {
		tb.Fatalf("a refused record returned %x", got)
	}
	if spare := dst[3:cap(dst)]; !bytes.Equal(spare, make([]byte, len(spare))) {
		tb.Fatal("a refused record left something in the room behind dst")
	}
}

// eachSuite runs f as a parallel subtest with every suite.
func eachSuite(t *testing.T, f func(t *testing.T, s *suite.Suite)) {
	t.Helper()
	for _, s := range suite.All() {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			f(t, s)
		})
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, s *suite.Suite) {
		sealer, opener := pair(t, s)
		if want := wire.RecordHeaderLen + s.Overhead(); sealer.Overhead(nil) != want {
			t.Errorf("Overhead() = %d, want %d", sealer.Overhead(nil), want)
		}
		for i, n := range []int{0, 1, 15, 16, 17, 64, 1024, wire.MaxPlaintext} {
			content := sequence(byte(n), n)
			b, err := sealer.Append([]byte("dst"), nil, wire.ContentApplicationData, nil, content)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.HasPrefix(b, []byte("dst")) || len(b) != 3+sealer.Overhead(nil)+n {
				t.Fatalf("%d bytes are a record of %d behind 3", n, len(b)-3)
			}
			r := mustParse(t, b[3:])
			if r.Type != wire.ContentApplicationData || r.Version != wire.VersionDTLS12 || r.Epoch != 1 || r.Seq != uint64(i) {
				t.Errorf("header %+v", r)
			}
			if n >= 15 && bytes.Contains(b, content) {
				t.Error("the content is not encrypted")
			}
			wantOpen(t, opener, r, content)
			wantRefused(t, opener, r, ErrReplayed)
			if got := sealer.Sealed(); got != uint64(i+1) {
				t.Errorf("Sealed() = %d, want %d", got, i+1)
			}
			if got := sealer.Left(); got != 1<<48-uint64(i+1) {
				t.Errorf("Left() = %d", got)
			}
		}
	})
}

// TestSeveralRecordsInOneDatagram appends records to one buffer and opens them
// one after the other.
func TestSeveralRecordsInOneDatagram(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, s *suite.Suite) {
		sealer, opener := pair(t, s)
		var datagram []byte
		var err error
		for _, content := range []string{"first", "", "third"} {
			if datagram, err = sealer.Append(datagram, nil, wire.ContentHandshake, nil, []byte(content)); err != nil {
				t.Fatal(err)
			}
		}
		for _, want := range []string{"first", "", "third"} {
			r, rest, ok := wire.ParseRecord(datagram, 0)
			if !ok {
				t.Fatal("no record")
			}
			wantOpen(t, opener, r, []byte(want))
			datagram = rest
		}
		if len(datagram) > 0 {
			t.Errorf("%x is left", datagram)
		}
	})
}

func TestPlaintext(t *testing.T) {
	t.Parallel()
	p := Plaintext(0x0102)
	if p.Overhead() != wire.RecordHeaderLen {
		t.Errorf("Overhead() = %d", p.Overhead())
	}
	for i, content := range []string{"one", "", "three"} {
		b, err := p.Append([]byte("dst"), wire.ContentHandshake, []byte("head "), []byte(content))
		if err != nil || string(b[:3]) != "dst" {
			t.Fatalf("Append = %x, %v", b, err)
		}
		r := mustParse(t, b[3:])
		if r.Type != wire.ContentHandshake || r.Version != wire.VersionDTLS12 || r.Epoch != 0 || r.Seq != 0x0102+uint64(i) || string(r.Payload) != "head "+content {
			t.Errorf("record %d: %+v", i, r)
		}
	}
	p = wire.MaxSequence
	if b, err := p.Append(nil, wire.ContentAlert, nil, nil); err != nil || mustParse(t, b).Seq != wire.MaxSequence {
		t.Errorf("the last sequence number: %x, %v", b, err)
	}
	if _, err := p.Append(nil, wire.ContentAlert, nil, nil); !errors.Is(err, ErrExhausted) {
		t.Errorf("past the last sequence number: %v", err)
	}
}

// TestExplicitNonce reads 10,000 own records: a nonce that does not follow
// epoch and sequence number could come twice.
func TestExplicitNonce(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, s *suite.Suite) {
		sealer := mustSealer(t, s, 0x0102)
		if s.ExplicitNonceLen() == 0 {
			r := mustAppend(t, sealer, wire.ContentApplicationData, []byte("text"))
			if len(r.Payload) != 4+s.TagLen {
				t.Errorf("a payload of %d bytes has room for a nonce", len(r.Payload))
			}
			return
		}
		last := uint64(0)
		for i := range uint64(10_000) {
			r := mustAppend(t, sealer, wire.ContentApplicationData, []byte("text"))
			nonce := binary.BigEndian.Uint64(r.Payload)
			if header := binary.BigEndian.Uint64(r.Raw[3:]); nonce != header {
				t.Fatalf("record %d: nonce %016x, header %016x", i, nonce, header)
			}
			if r.Epoch != 0x0102 || r.Seq != i {
				t.Fatalf("record %d has epoch %#x and sequence number %d", i, r.Epoch, r.Seq)
			}
			if i > 0 && nonce <= last {
				t.Fatalf("record %d: nonce %016x after %016x", i, nonce, last)
			}
			last = nonce
		}
	})
}

// TestNoncesDiffer seals the same content again and again: equal ciphertexts
// would mean equal nonces, also where the nonce is not sent.
func TestNoncesDiffer(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, s *suite.Suite) {
		seen := map[string]bool{}
		add := func(sealer *Sealer) {
			t.Helper()
			r := mustAppend(t, sealer, wire.ContentApplicationData, make([]byte, 32))
			ciphertext := string(r.Payload[s.ExplicitNonceLen():][:32])
			if seen[ciphertext] {
				t.Fatalf("epoch %d, sequence number %d: a key stream comes again", r.Epoch, r.Seq)
			}
			seen[ciphertext] = true
		}
		for epoch := range uint16(3) {
			sealer := mustSealer(t, s, epoch)
			for _, next := range []uint64{0, 1 << 8, 1 << 16, 1 << 31, 1 << 32, 1 << 40, wire.MaxSequence - 1} {
				sealer.next = next
				add(sealer)
				add(sealer)
			}
		}
	})
}

// TestPeersNonce: the explicit nonce is the peer's choice (RFC 5288 section 3),
// so a record whose nonce is not its sequence number opens as well.
func TestPeersNonce(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, s *suite.Suite) {
		if s.ExplicitNonceLen() == 0 {
			t.Skip("the suite has no explicit nonce")
		}
		aead, err := s.AEAD.New(sequence(0, s.KeyLen))
		if err != nil {
			t.Fatal(err)
		}
		explicit := sequence(0xa0, 8)
		nonce := append(sequence(0xf0, s.FixedIVLen), explicit...)
		additional := []byte{0, 1, 0, 0, 0, 0, 0, 5, byte(wire.ContentApplicationData), 0xfe, 0xfd, 0, 4}
		b := wire.AppendRecordHeader(nil, wire.ContentApplicationData, wire.VersionDTLS12, 1, 5, s.Overhead()+4)
		b = append(b, explicit...)
		b = aead.Seal(b, nonce, []byte("text"), additional)
		wantOpen(t, mustOpener(t, s), mustParse(t, b), []byte("text"))
	})
}

func TestExhausted(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, s *suite.Suite) {
		sealer, opener := pair(t, s)
		sealer.next = wire.MaxSequence - 1
		if got := sealer.Left(); got != 2 {
			t.Errorf("Left() = %d, want 2", got)
		}
		for _, seq := range []uint64{wire.MaxSequence - 1, wire.MaxSequence} {
			r := mustAppend(t, sealer, wire.ContentApplicationData, []byte("text"))
			if r.Epoch != 1 || r.Seq != seq {
				t.Errorf("epoch %d, sequence number %d, want 1 and %d", r.Epoch, r.Seq, seq)
			}
			wantOpen(t, opener, r, []byte("text"))
		}
		for range 3 {
			got, err := sealer.Append([]byte("dst"), nil, wire.ContentApplicationData, nil, []byte("text"))
			if !errors.Is(err, ErrExhausted) || string(got) != "dst" {
				t.Errorf("Append = %x, %v, want ErrExhausted", got, err)
			}
			if sealer.Left() != 0 {
				t.Errorf("Left() = %d, want 0", sealer.Left())
			}
		}
	})
}

// TestForged changes each byte of a record. The replay window must not learn
// from any of them, so that the record itself opens in the end.
func TestForged(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, s *suite.Suite) {
		sealer, opener := pair(t, s)
		content := sequence(0x81, 40)
		genuine := mustAppend(t, sealer, wire.ContentApplicationData, content)
		for i := range genuine.Raw {
			if i == 11 || i == 12 {
				continue // the length: no record, or another payload, below
			}
			forged := bytes.Clone(genuine.Raw)
			forged[i] ^= 0x80
			wantRefused(t, opener, mustParse(t, forged), ErrForged)
		}
		for n := range len(genuine.Payload) {
			short := genuine
			short.Payload = genuine.Payload[:n]
			wantRefused(t, opener, short, ErrForged)
		}
		long := genuine
		long.Payload = append(bytes.Clone(genuine.Payload), 0)
		wantRefused(t, opener, long, ErrForged)
		wantOpen(t, opener, genuine, content)
	})
}

// TestForgedHighSequence: a forgery with the highest epoch and sequence number
// must not move the window past genuine records.
func TestForgedHighSequence(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, s *suite.Suite) {
		sealer, opener := pair(t, s)
		first := mustAppend(t, sealer, wire.ContentApplicationData, []byte("first"))
		second := mustAppend(t, sealer, wire.ContentApplicationData, []byte("second"))
		wantOpen(t, opener, first, []byte("first"))
		for _, epoch := range []uint16{1, 0xffff} {
			forged := wire.AppendRecordHeader(nil, wire.ContentApplicationData, wire.VersionDTLS12, epoch, wire.MaxSequence, len(second.Payload))
			wantRefused(t, opener, mustParse(t, append(forged, second.Payload...)), ErrForged)
		}
		wantRefused(t, opener, first, ErrReplayed)
		wantOpen(t, opener, second, []byte("second"))
		wantRefused(t, opener, second, ErrReplayed)
	})
}

// TestReordered opens records in any order within the window and none behind
// it.
func TestReordered(t *testing.T) {
	t.Parallel()
	sealer, opener := pair(t, suite.ByID(suite.PSKWithAES128GCM))
	records := make([]wire.Record, 100)
	for i := range records {
		records[i] = mustAppend(t, sealer, wire.ContentApplicationData, []byte{byte(i)})
	}
	for _, i := range []int{0, 99, 36, 50, 98, 37} {
		wantOpen(t, opener, records[i], []byte{byte(i)})
	}
	for _, i := range []int{0, 1, 35, 36, 37, 50, 98, 99} {
		wantRefused(t, opener, records[i], ErrReplayed)
	}
	wantOpen(t, opener, records[51], []byte{51})
}

// TestTooLong: more than 2^14 bytes of content are refused (RFC 5246 section
// 6.2.3), though they are authentic.
func TestTooLong(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, s *suite.Suite) {
		sealer, opener := pair(t, s)
		content := make([]byte, wire.MaxPlaintext+1)
		long := mustAppend(t, sealer, wire.ContentApplicationData, content)
		wantRefused(t, opener, long, ErrForged)
		fits := mustAppend(t, sealer, wire.ContentApplicationData, content[1:])
		wantOpen(t, opener, fits, content[1:])
	})
}

// TestTooShort: payloads without room for nonce and tag.
func TestTooShort(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, s *suite.Suite) {
		opener := mustOpener(t, s)
		for n := range s.Overhead() + 1 {
			b := wire.AppendRecordHeader(nil, wire.ContentApplicationData, wire.VersionDTLS12, 1, 7, n)
			wantRefused(t, opener, mustParse(t, append(b, make([]byte, n)...)), ErrForged)
		}
	})
}

// TestWrongKey: what one key sealed, another does not open, nor does another
// IV.
func TestWrongKey(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, s *suite.Suite) {
		r := mustAppend(t, mustSealer(t, s, 1), wire.ContentApplicationData, []byte("text"))
		for _, start := range []struct{ key, iv byte }{{1, 0xf0}, {0, 0xf1}} {
			var other Opener
			if err := other.Init(s.AEAD, sequence(start.key, s.KeyLen), sequence(start.iv, s.FixedIVLen)); err != nil {
				t.Fatal(err)
			}
			wantRefused(t, &other, r, ErrForged)
		}
		for _, n := range []struct{ key, iv int }{{s.KeyLen - 1, s.FixedIVLen}, {s.KeyLen, s.FixedIVLen - 1}} {
			sealer, opener := pair(t, s)
			if err := opener.Init(s.AEAD, sequence(0, n.key), sequence(0, n.iv)); err == nil || opener.method != nil {
				t.Errorf("an Opener takes a key and IV of %d and %d bytes", n.key, n.iv)
			}
			if err := sealer.Init(s.AEAD, 1, sequence(0, n.key), sequence(0, n.iv)); err == nil || sealer.method != nil {
				t.Errorf("a Sealer takes a key and IV of %d and %d bytes", n.key, n.iv)
			}
		}
	})
}

// TestRest: a rest changes nothing but memory. What cannot open does not end it.
func TestRest(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, s *suite.Suite) {
		sealer, opener := pair(t, s)
		first := mustAppend(t, sealer, wire.ContentApplicationData, []byte("first"))
		wantOpen(t, opener, first, []byte("first"))
		if sealer.Resting() || opener.Resting() {
			t.Error("resting without Rest")
		}
		overhead := sealer.Overhead(nil)
		sealer.Rest()
		opener.Rest()
		if !sealer.Resting() || !opener.Resting() || sealer.Overhead(nil) != overhead {
			t.Errorf("after Rest: resting %v, %v, overhead %d, want true, true, %d", sealer.Resting(), opener.Resting(), sealer.Overhead(nil), overhead)
		}
		wantRefused(t, opener, first, ErrReplayed)
		short := first
		short.Seq += 5
		short.Payload = short.Payload[:s.Overhead()-1]
		wantRefused(t, opener, short, ErrForged)
		if !opener.Resting() {
			t.Error("a record that is replayed or too short ends the rest")
		}
		second := mustAppend(t, sealer, wire.ContentApplicationData, []byte("second"))
		if second.Seq != first.Seq+1 {
			t.Errorf("sequence number %d after %d", second.Seq, first.Seq)
		}
		wantOpen(t, opener, second, []byte("second"))
		if sealer.Resting() || opener.Resting() {
			t.Error("still resting")
		}
	})
}

// TestAllocations is not parallel: AllocsPerRun counts the whole process.
func TestAllocations(t *testing.T) {
	for _, s := range suite.All() {
		sealer, opener := pair(t, s)
		content := sequence(0, 1024)
		sealed, opened := make([]byte, 0, 2048), make([]byte, 0, 2048)
		var err error
		if allocs := testing.AllocsPerRun(100, func() {
			if sealed, err = sealer.Append(sealed[:0], nil, wire.ContentApplicationData, nil, content); err != nil {
				t.Fatal(err)
			}
			r, _, _ := wire.ParseRecord(sealed, 0)
			if opened, _, err = opener.Open(opened[:0], r); err != nil {
				t.Fatal(err)
			}
		}); allocs != 0 {
			t.Errorf("%s: %v allocations for Append and Open, want 0", s.Name, allocs)
		}
		if allocs := testing.AllocsPerRun(100, func() {
			r, _, _ := wire.ParseRecord(sealed, 0)
			if _, _, err := opener.Open(opened[:0], r); err != ErrReplayed {
				t.Fatal(err)
			}
			r.Seq += 1000
			if _, _, err := opener.Open(opened[:0], r); err != ErrForged {
				t.Fatal(err)
			}
		}); allocs != 0 {
			t.Errorf("%s: %v allocations for records that do not open, want 0", s.Name, allocs)
		}
	}
}

// FuzzOpen feeds any payload and header to an opener that has opened a genuine
// record. Nothing but genuine records may open, and none may open twice.
func FuzzOpen(f *testing.F) {
	content := []byte("content")
	for i, s := range suite.All() {
		r := mustAppend(f, mustSealer(f, s, 1), wire.ContentApplicationData, content)
		f.Add(uint8(i), r.Raw)
		f.Add(uint8(i), r.Raw[:len(r.Raw)-1])
	}
	f.Add(uint8(0), []byte{})
	f.Fuzz(func(t *testing.T, which uint8, datagram []byte) {
		suites := suite.All()
		s := suites[int(which)%len(suites)]
		sealer, opener := pair(t, s)
		first := mustAppend(t, sealer, wire.ContentApplicationData, content)
		second := mustAppend(t, sealer, wire.ContentApplicationData, content)
		wantOpen(t, opener, first, content)

		for {
			r, rest, ok := wire.ParseRecord(datagram, 0)
			if !ok {
				break
			}
			datagram = rest
			got, _, err := opener.Open([]byte("dst"), r)
			if err == nil && !bytes.Equal(r.Raw, second.Raw) {
				t.Fatalf("a record that nobody sealed opens: %x", r.Raw)
			}
			if err != nil && string(got) != "dst" {
				t.Fatalf("a refused record returned %x", got)
			}
			if err == nil {
				return
			}
		}
		wantOpen(t, opener, second, content)
		wantRefused(t, opener, second, ErrReplayed)
	})
}

var benchmarkSizes = []struct {
	name string
	n    int
}{{"64B", 64}, {"1KiB", 1024}}

func BenchmarkAppend(b *testing.B) {
	for _, s := range suite.All() {
		for _, size := range benchmarkSizes {
			b.Run(s.Name+"/"+size.name, func(b *testing.B) {
				sealer := mustSealer(b, s, 1)
				content := make([]byte, size.n)
				dst := make([]byte, 0, 2048)
				b.SetBytes(int64(size.n))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := sealer.Append(dst, nil, wire.ContentApplicationData, nil, content); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, s := range suite.All() {
		for _, size := range benchmarkSizes {
			b.Run(s.Name+"/"+size.name, func(b *testing.B) {
				sealer, opener := pair(b, s)
				r := mustAppend(b, sealer, wire.ContentApplicationData, make([]byte, size.n))
				dst := make([]byte, 0, 2048)
				b.SetBytes(int64(size.n))
				b.ReportAllocs()
				for b.Loop() {
					opener.window = Window{} // the same record again
					if _, _, err := opener.Open(dst, r); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
