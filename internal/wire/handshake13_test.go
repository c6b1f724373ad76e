// Tests of the messages of DTLS 1.3 behind the hellos.

package wire

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestTranscriptForm(t *testing.T) {
	t.Parallel()
	body := bytes.Repeat([]byte{0xaa}, 0x010203)
	got := AppendTranscript([]byte{0xee}, TypeCertificate, body)
	wantBytes(t, "message", got, append(unhex(t, "ee"+"0b"+"010203"), body...))
	wantBytes(t, "message without body", AppendTranscript(nil, TypeEncryptedExtensions, nil), unhex(t, "08"+"000000"))
	head := TranscriptHeader(TypeKeyUpdate, 0x0405)
	wantBytes(t, "header", head[:], unhex(t, "18"+"000405"))
	for _, n := range []int{32, 48} {
		hash := bytes.Repeat([]byte{0x5a}, n)
		wantBytes(t, "message_hash", AppendMessageHash([]byte{0xee}, hash), append([]byte{0xee, 254, 0, 0, byte(n)}, hash...))
	}
}

func TestParseFinished13(t *testing.T) {
	t.Parallel()
	for n := range 66 {
		body := bytes.Repeat([]byte{0xf1}, n)
		verifyData, ok := ParseFinished13(body)
		if want := n == 32 || n == 48; ok != want {
			t.Errorf("%d bytes: ok = %v", n, ok)
		}
		if ok {
			wantBytes(t, "verify_data", verifyData, body)
		}
	}
}

func TestKeyUpdate(t *testing.T) {
	t.Parallel()
	for _, request := range []bool{false, true} {
		body := AppendKeyUpdate([]byte{0xee}, request)
		if got, ok := ParseKeyUpdate(body[1:]); !ok || got != request || len(body) != 2 {
			t.Errorf("%x is %v, %v", body, got, ok)
		}
	}
	for value := range 256 {
		if requested, ok := ParseKeyUpdate([]byte{byte(value)}); ok != (value < 2) || requested != (value == 1) {
			t.Errorf("%d is %v, %v", value, requested, ok)
		}
	}
	for _, body := range []string{"", "0000", "0100"} {
		if _, ok := ParseKeyUpdate(unhex(t, body)); ok {
			t.Errorf("%q parses", body)
		}
	}
}

func TestRequestConnectionID(t *testing.T) {
	t.Parallel()
	for _, n := range []uint8{0, 1, 255} {
		body := AppendRequestConnectionID([]byte{0xee}, n)
		wantBytes(t, "body", body, []byte{0xee, n})
		if got, ok := ParseRequestConnectionID(body[1:]); !ok || got != n {
			t.Errorf("%x is %d, %v", body[1:], got, ok)
		}
	}
	for _, body := range []string{"", "0000"} {
		if _, ok := ParseRequestConnectionID(unhex(t, body)); ok {
			t.Errorf("%q parses", body)
		}
	}
}

func TestNewConnectionID(t *testing.T) {
	t.Parallel()
	longest := strings.Repeat("cd", 255)
	tests := []struct {
		name, in string
		want     []string
		usage    ConnectionIDUsage
		bad      bool
	}{
		{name: "one, immediate", in: "0004" + "03c1c2ff" + "00", want: []string{"c1c2ff"}, usage: CIDImmediate},
		{name: "one, spare", in: "0004" + "03c1c2ff" + "01", want: []string{"c1c2ff"}, usage: CIDSpare},
		{name: "two", in: "0007" + "03c1c2ff" + "02d1ff" + "01", want: []string{"c1c2ff", "d1ff"}, usage: CIDSpare},
		{name: "an empty one", in: "0001" + "00" + "01", want: []string{""}, usage: CIDSpare},
		{name: "none", in: "0000" + "01", usage: CIDSpare},
		{name: "longest", in: "0100" + "ff" + longest + "00", want: []string{longest}},
		{name: "unknown usage", in: "0004" + "03c1c2ff" + "02", bad: true},
		{name: "usage 255", in: "0004" + "03c1c2ff" + "ff", bad: true},
		{name: "no usage", in: "0004" + "03c1c2ff", bad: true},
		{name: "a byte behind", in: "0004" + "03c1c2ff" + "0000", bad: true},
		{name: "list one less", in: "0003" + "03c1c2ff" + "00", bad: true},
		{name: "list one more", in: "0005" + "03c1c2ff" + "00", bad: true},
		{name: "connection ID one less", in: "0004" + "02c1c2ff" + "00", bad: true},
		{name: "connection ID one more", in: "0004" + "04c1c2ff" + "00", bad: true},
		{name: "first of two one less", in: "0007" + "02c1c2ff" + "02d1ff" + "01", bad: true},
		{name: "first of two one more", in: "0007" + "04c1c2ff" + "02d1ff" + "01", bad: true},
		{name: "empty", in: "", bad: true},
		{name: "usage only", in: "01", bad: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			body := unhex(t, test.in)
			m, ok := ParseNewConnectionID(body)
			if ok == test.bad {
				t.Fatalf("ok = %v", ok)
			}
			var got []string
			var cids [][]byte
			for cid := range m.CIDs.All() {
				got, cids = append(got, fmt.Sprintf("%x", cid)), append(cids, cid)
			}
			if !slices.Equal(got, test.want) || m.Usage != test.usage {
				t.Errorf("got %v, usage %d", got, m.Usage)
			}
			if ok {
				wantBytes(t, "appended", AppendNewConnectionID([]byte{0xee}, cids, m.Usage), append([]byte{0xee}, body...))
			}
			for range m.CIDs.All() {
				break // not the whole list
			}
		})
	}
}

// sampleTicket13 is a NewSessionTicket, and its fields are where its lengths are.
const sampleTicket13 = "00015180" + "01020304" + "02" + "a1ff" + "0003" + "b1b2ff" + "0008" + "002a" + "0004" + "ffffffff"

func TestNewSessionTicket13(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, in string
		want     NewSessionTicket13
		bad      bool
	}{
		{name: "all", in: sampleTicket13, want: NewSessionTicket13{86400, 0x01020304, []byte{0xa1, 0xff}, []byte{0xb1, 0xb2, 0xff},
			[]byte{0, 42, 0, 4, 0xff, 0xff, 0xff, 0xff}}},
		{name: "least", in: "0000000000000000" + "00" + "0001" + "b1" + "0000", want: NewSessionTicket13{0, 0, []byte{}, []byte{0xb1}, []byte{}}},
		{name: "no ticket", in: "0000000000000000" + "00" + "0000" + "0000", bad: true},
		{name: "no extensions block", in: "0000000000000000" + "00" + "0001" + "b1", bad: true},
		{name: "half an extension", in: "0000000000000000" + "00" + "0001" + "b1" + "0002" + "002a", bad: true},
		{name: "an extension twice", in: "0000000000000000" + "00" + "0001" + "b1" + "0008" + "002a0000" + "002a0000", bad: true},
		{name: "a byte behind", in: sampleTicket13 + "00", bad: true},
		{name: "1.2's", in: "00015180" + "0003" + "b1b2ff", bad: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			body := unhex(t, test.in)
			m, ok := ParseNewSessionTicket13(body)
			if ok == test.bad || !reflect.DeepEqual(m, test.want) {
				t.Fatalf("got %+v, %v", m, ok)
			}
			if ok {
				wantBytes(t, "appended", m.Append([]byte{0xee}), append([]byte{0xee}, body...))
			}
		})
	}
	wantMessage(t, "NewSessionTicket", sampleTicket13, []lengthField{{"nonce", 8, 1}, {"ticket", 11, 2}, {"extensions", 16, 2}, {"extension", 20, 2}},
		func(body []byte) bool { _, ok := ParseNewSessionTicket13(body); return ok })
}

// wantMessage checks that a parser takes the body of a message, none of its truncations,
// and none where a length is off by one.
func wantMessage(t *testing.T, name, sample string, fields []lengthField, parses func(body []byte) bool) {
	t.Helper()
	body := unhex(t, sample)
	if !parses(body) {
		t.Fatalf("%s does not parse", name)
	}
	for n := range body {
		if parses(body[:n]) {
			t.Errorf("the first %d bytes of %s parse", n, name)
		}
	}
	if parses(append(bytes.Clone(body), 0)) {
		t.Errorf("%s parses with a byte behind", name)
	}
	for _, field := range fields {
		for _, by := range []int{-1, +1} {
			moved := bytes.Clone(body)
			if field.move(moved, by); parses(moved) {
				t.Errorf("%s parses with the length of %s%+d", name, field.name, by)
			}
		}
	}
}

// FuzzMessages13 gives the parsers of the messages behind the hellos the same body: what a
// naive reading finds must be what they find, and encoding it again must give the body.
func FuzzMessages13(f *testing.F) {
	f.Add(unhex(f, sampleTicket13))
	f.Add(unhex(f, "0000000000000000"+"00"+"0001"+"b1"+"0000"))
	f.Add(unhex(f, "0007"+"03c1c2ff"+"02d1ff"+"01"))
	f.Add(unhex(f, "0000"+"00"))
	f.Add([]byte{1})
	f.Add(make([]byte, 32))
	f.Fuzz(func(t *testing.T, body []byte) {
		if m, ok := ParseNewSessionTicket13(body); ok != naiveTicket13(body) {
			t.Fatalf("NewSessionTicket: ok = %v", ok)
		} else if ok {
			wantWithin(t, "nonce", body, m.Nonce)
			wantWithin(t, "ticket", body, m.Ticket)
			wantWithin(t, "extensions", body, m.Extensions)
			wantBytes(t, "NewSessionTicket encoded again", m.Append(nil), body)
		}

		m, ok := ParseNewConnectionID(body)
		cids, valid := naiveCIDs(body)
		if ok != valid {
			t.Fatalf("NewConnectionId: ok = %v", ok)
		}
		if ok {
			wantWithin(t, "connection IDs", body, m.CIDs)
			got := slices.Collect(m.CIDs.All())
			if !slices.EqualFunc(got, cids, bytes.Equal) {
				t.Errorf("connection IDs %x, want %x", got, cids)
			}
			wantBytes(t, "NewConnectionId encoded again", AppendNewConnectionID(nil, got, m.Usage), body)
		}

		if requested, ok := ParseKeyUpdate(body); ok {
			wantBytes(t, "KeyUpdate encoded again", AppendKeyUpdate(nil, requested), body)
		}
		if n, ok := ParseRequestConnectionID(body); ok {
			wantBytes(t, "RequestConnectionId encoded again", AppendRequestConnectionID(nil, n), body)
		}
		if verifyData, ok := ParseFinished13(body); ok {
			wantBytes(t, "Finished", verifyData, body)
		}
		wantBytes(t, "hashed form", AppendTranscript(nil, TypeFinished, body)[TranscriptHeaderLen:], body)
	})
}

// naiveBlock finds all extensions of a block's content, of which none comes twice.
func naiveBlock(block []byte) (found map[uint16][]byte, ok bool) {
	found = map[uint16][]byte{}
	for len(block) > 0 {
		if len(block) < 2 {
			return nil, false
		}
		id := uint16(block[0])<<8 | uint16(block[1])
		data, rest, ok := naiveVector(block[2:], 2)
		if _, twice := found[id]; !ok || twice {
			return nil, false
		}
		found[id], block = data, rest
	}
	return found, true
}

func naiveTicket13(body []byte) bool {
	if len(body) < 8 {
		return false
	}
	_, rest, ok := naiveVector(body[8:], 1)
	if !ok {
		return false
	}
	ticket, rest, ok := naiveVector(rest, 2)
	if !ok || len(ticket) == 0 {
		return false
	}
	block, rest, ok := naiveVector(rest, 2)
	if !ok || len(rest) > 0 {
		return false
	}
	_, ok = naiveBlock(block)
	return ok
}

func naiveCIDs(body []byte) (cids [][]byte, ok bool) {
	list, rest, ok := naiveVector(body, 2)
	if !ok || len(rest) != 1 || rest[0] > 1 {
		return nil, false
	}
	for len(list) > 0 {
		var cid []byte
		if cid, list, ok = naiveVector(list, 1); !ok {
			return nil, false
		}
		cids = append(cids, cid)
	}
	return cids, true
}
