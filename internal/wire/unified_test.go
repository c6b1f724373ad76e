// Tests of unified headers, and of what their records hold.

package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"reflect"
	"testing"
)

// TestRecordFormOf has one row for each run of first bytes, and all 256 are in one.
func TestRecordFormOf(t *testing.T) {
	t.Parallel()
	next := 0
	for _, run := range []struct {
		last int
		want RecordForm
	}{
		{19, FormNone}, {23, FormPlain}, {24, FormNone}, {25, FormCID}, {26, FormPlain}, {31, FormNone},
		{63, FormUnified}, {255, FormNone},
	} {
		for ; next <= run.last; next++ {
			if got := RecordFormOf(byte(next)); got != run.want {
				t.Errorf("first byte %d: form %d, want %d", next, got, run.want)
			}
			if _, _, ok := ParseUnifiedRecord(append([]byte{byte(next)}, make([]byte, 20)...), 1); ok != (run.want == FormUnified) {
				t.Errorf("first byte %d: ok = %v", next, ok)
			}
		}
	}
	if next != 256 {
		t.Errorf("%d first bytes were tried", next)
	}
}

// naiveUnified reads a record by the figure of RFC 9147 section 4, a bit at a time.
func naiveUnified(datagram []byte, cidLen int) (r UnifiedRecord, rest []byte, ok bool) {
	if len(datagram) == 0 || datagram[0]/32 != 1 {
		return UnifiedRecord{}, nil, false
	}
	bit := func(n int) int { return int(datagram[0]>>n) % 2 }
	sizes := []int{1, bit(4) * cidLen, 1 + bit(3), bit(2) * 2}
	var parts [4][]byte
	at := 0
	for i, n := range sizes {
		if len(datagram) < at+n {
			return UnifiedRecord{}, nil, false
		}
		parts[i] = datagram[at : at+n]
		at += n
	}
	end := len(datagram)
	if bit(2) == 1 {
		end = at + int(parts[3][0])*256 + int(parts[3][1])
	}
	if end > len(datagram) {
		return UnifiedRecord{}, nil, false
	}
	r = UnifiedRecord{EpochBits: byte(2*bit(1) + bit(0)), Seq: parts[2], Header: datagram[:at], Raw: datagram[:end], Payload: datagram[at:end]}
	if bit(4) == 1 {
		r.CID = parts[1]
	}
	return r, datagram[end:], true
}

// wantUnified checks what a parsed record promises, and compares it with another reading.
func wantUnified(t *testing.T, datagram []byte, cidLen int) (rest []byte, ok bool) {
	t.Helper()
	r, rest, ok := ParseUnifiedRecord(datagram, cidLen)
	want, wantRest, valid := naiveUnified(datagram, cidLen)
	if ok != valid {
		t.Fatalf("%x, connection ID of %d bytes: ok = %v, want %v", datagram, cidLen, ok, valid)
	}
	if !reflect.DeepEqual(r, want) || !bytes.Equal(rest, wantRest) {
		t.Errorf("%x, connection ID of %d bytes:\n got %+v, rest %x\nwant %+v, rest %x", datagram, cidLen, r, rest, want, wantRest)
	}
	if !ok {
		return nil, false
	}
	for what, part := range map[string][]byte{"CID": r.CID, "Seq": r.Seq, "Header": r.Header, "Raw": r.Raw, "Payload": r.Payload} {
		wantWithin(t, what, datagram, part)
		if cap(part) != len(part) {
			t.Errorf("%s has %d bytes of capacity %d", what, len(part), cap(part))
		}
	}
	wantBytes(t, "sequence number in the header", r.Header[r.SeqAt():][:len(r.Seq)], r.Seq)
	wantBytes(t, "record and rest", append(append(bytes.Clone(r.Header), r.Payload...), rest...), datagram)
	return rest, true
}

// unified makes a record of any of the eight forms.
func unified(flags, epochBits byte, seq uint16, cid, payload []byte) []byte {
	b := []byte{unifiedFixed | flags | epochBits}
	if flags&unifiedCID != 0 {
		b = append(b, cid...)
	}
	if flags&unifiedSeq16 != 0 {
		b = append(b, byte(seq>>8))
	}
	b = append(b, byte(seq))
	if flags&unifiedLength != 0 {
		b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	}
	return append(b, payload...)
}

// TestParseUnifiedRecord reads all eight forms, in all epochs, with connection IDs and
// payloads of several lengths, and each truncation.
func TestParseUnifiedRecord(t *testing.T) {
	t.Parallel()
	for form := range byte(8) {
		flags := form << 2
		for _, cidLen := range []int{0, 1, 20, 255} {
			t.Run(fmt.Sprintf("CSL=%03b,cid=%d", form, cidLen), func(t *testing.T) {
				t.Parallel()
				cid := bytes.Repeat([]byte{0xcd}, cidLen)
				for epoch := range byte(4) {
					for _, payloadLen := range []int{0, 1, 15, 16, 258} {
						payload := bytes.Repeat([]byte{0xaa}, payloadLen)
						record := unified(flags, epoch, 0x0102, cid, payload)
						r, rest, ok := ParseUnifiedRecord(record, cidLen)
						if !ok || len(rest) > 0 || r.EpochBits != epoch {
							t.Fatalf("got %+v, rest %x, %v", r, rest, ok)
						}
						wantBytes(t, "payload", r.Payload, payload)
						wantBytes(t, "raw", r.Raw, record)
						wantBytes(t, "sequence number", r.Seq, []byte{1, 2}[2-len(r.Seq):])
						if sent := flags&unifiedCID != 0; (r.CID != nil) != sent || sent && !bytes.Equal(r.CID, cid) {
							t.Errorf("connection ID %x, sent %v", r.CID, sent)
						}
						for n := range len(record) + 1 {
							_, ok := wantUnified(t, record[:n], cidLen)
							headLen := len(record) - payloadLen
							if want := n >= headLen && (flags&unifiedLength == 0 || n == len(record)); ok != want {
								t.Fatalf("the first %d of %d bytes: ok = %v", n, len(record), ok)
							}
						}
					}
				}
			})
		}
	}
}

// TestParseUnifiedRecordLengths: where a record ends.
func TestParseUnifiedRecordLengths(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		datagram string
		payload  string
		rest     string
		bad      bool
	}{
		{name: "length", datagram: "2c" + "0102" + "0003" + "aabbcc", payload: "aabbcc"},
		{name: "length one more", datagram: "2c" + "0102" + "0004" + "aabbcc", bad: true},
		{name: "length one less", datagram: "2c" + "0102" + "0002" + "aabbcc", payload: "aabb", rest: "cc"},
		{name: "length 0", datagram: "2c" + "0102" + "0000" + "2e", rest: "2e"},
		{name: "greatest length", datagram: "2c" + "0102" + "ffff" + "aabbcc", bad: true},
		{name: "half a length", datagram: "2c" + "0102" + "00", bad: true},
		{name: "8 bits, length", datagram: "24" + "02" + "0001" + "aa" + "bb", payload: "aa", rest: "bb"},
		{name: "8 bits, half a length", datagram: "24" + "02" + "00", bad: true},
		{name: "no length", datagram: "28" + "0102" + "0003" + "aabbcc", payload: "0003" + "aabbcc"},
		{name: "no length, nothing sealed", datagram: "28" + "0102"},
		{name: "no length, half a sequence number", datagram: "28" + "01", bad: true},
		{name: "smallest", datagram: "20" + "02"},
		{name: "first byte only", datagram: "20", bad: true},
		{name: "empty", datagram: "", bad: true},
		{name: "a second record", datagram: "2e" + "0102" + "0002" + "aabb" + "2b" + "0103" + "cc", payload: "aabb", rest: "2b" + "0103" + "cc"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			datagram := unhex(t, test.datagram)
			wantUnified(t, datagram, 0)
			r, rest, ok := ParseUnifiedRecord(datagram, 0)
			if ok == test.bad {
				t.Fatalf("ok = %v", ok)
			}
			wantBytes(t, "payload", r.Payload, unhex(t, test.payload))
			wantBytes(t, "rest", rest, unhex(t, test.rest))
		})
	}
}

func TestAppendUnifiedHeader(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		epoch      uint16
		seq        uint64
		cid        string
		want, last string
	}{
		{"epoch 2", 2, 0, "", "2e" + "0000" + "1234", "2a" + "0000"},
		{"epoch 3, low bits of the sequence number", 3, 0x0102030405, "", "2f" + "0405" + "1234", "2b" + "0405"},
		{"low bits of the epoch", 0xfffd, MaxSequence, "", "2d" + "ffff" + "1234", "29" + "ffff"},
		{"connection ID", 4, 5, "c1c2c3", "3c" + "c1c2c3" + "0005" + "1234", "38" + "c1c2c3" + "0005"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cid := unhex(t, test.cid)
			got := AppendUnifiedHeader([]byte{0xee}, test.epoch, test.seq, cid, 0x1234)
			wantBytes(t, "header", got, unhex(t, "ee"+test.want))
			if n := UnifiedHeaderLen(len(cid)); n != len(got)-1 {
				t.Errorf("UnifiedHeaderLen says %d of %d bytes", n, len(got)-1)
			}
			wantBytes(t, "last header", AppendUnifiedHeaderLast([]byte{0xee}, test.epoch, test.seq, cid), unhex(t, "ee"+test.last))
		})
	}
}

func TestSplitInnerPlaintext(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, in, content string
		typ               ContentType
		bad               bool
	}{
		{name: "no padding", in: "aabb" + "17", content: "aabb", typ: ContentApplicationData},
		{name: "padding", in: "aabb" + "16" + "000000", content: "aabb", typ: ContentHandshake},
		{name: "zeros at the end of the content", in: "aa0000" + "1a" + "00", content: "aa0000", typ: ContentACK},
		{name: "content of zeros", in: "0000" + "17", content: "0000", typ: ContentApplicationData},
		{name: "empty content", in: "17", typ: ContentApplicationData},
		{name: "empty content and padding", in: "1700", typ: ContentApplicationData},
		{name: "any type", in: "aaff", content: "aa", typ: 255},
		{name: "zeros", in: "000000", bad: true},
		{name: "empty", in: "", bad: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			content, typ, ok := SplitInnerPlaintext(unhex(t, test.in))
			if ok == test.bad || typ != test.typ {
				t.Fatalf("type %d, ok = %v", typ, ok)
			}
			wantBytes(t, "content", content, unhex(t, test.content))
			if cap(content) != len(content) {
				t.Errorf("%d bytes of capacity %d", len(content), cap(content))
			}
		})
	}
}

// FuzzUnifiedRecord reads a datagram as a list of records, in two ways, and writes those
// that have the form that is written here again.
func FuzzUnifiedRecord(f *testing.F) {
	for form := range byte(8) {
		f.Add(unified(form<<2, 3, 0x0102, []byte("0123456789"), []byte("payload")), byte(10))
		f.Add(append(unified(form<<2|unifiedLength, 2, 0x0102, nil, []byte{1, 2}), unified(0, 3, 4, nil, make([]byte, 16))...), byte(0))
	}
	f.Add([]byte{0x2c, 0, 0, 0xff, 0xff}, byte(0))
	f.Fuzz(func(t *testing.T, datagram []byte, cidLen byte) {
		for left := datagram; ; {
			rest, ok := wantUnified(t, left, int(cidLen))
			if !ok {
				break
			}
			r, _, _ := ParseUnifiedRecord(left, int(cidLen))
			if len(r.Seq) == 2 && (r.CID == nil || len(r.CID) > 0) {
				epoch, seq := 0xfffc|uint16(r.EpochBits), uint64(binary.BigEndian.Uint16(r.Seq))
				again := AppendUnifiedHeaderLast(nil, epoch, seq, r.CID)
				if r.Header[0]&unifiedLength != 0 {
					again = AppendUnifiedHeader(nil, epoch, seq, r.CID, len(r.Payload))
				}
				wantBytes(t, "header written again", again, r.Header)
			}
			if content, typ, ok := SplitInnerPlaintext(r.Payload); ok {
				again := append(bytes.Clone(content), byte(typ))
				wantBytes(t, "inner plaintext written again", append(again, make([]byte, len(r.Payload)-len(again))...), r.Payload)
			} else if len(bytes.Trim(r.Payload, "\x00")) > 0 {
				t.Errorf("inner plaintext %x fails", r.Payload)
			}
			left = rest
		}
	})
}

// TestUnifiedAllocations is not parallel: AllocsPerRun counts the whole process.
func TestUnifiedAllocations(t *testing.T) {
	record := unified(unifiedCID|unifiedSeq16|unifiedLength, 3, 1, []byte("0123456789"), make([]byte, 100))
	var dst [32]byte
	if allocs := testing.AllocsPerRun(100, func() {
		if _, _, ok := ParseUnifiedRecord(record, 10); !ok {
			t.Error("does not parse")
		}
		AppendUnifiedHeader(dst[:0], 3, 1, record[1:11], 100)
	}); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}
