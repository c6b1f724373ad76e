package wire

import (
	"bytes"
	"testing"
)

func TestPathMessage(t *testing.T) {
	t.Parallel()
	for typ := range PathDrop + 1 {
		m := PathMessage{Type: typ, Cookie: [PathCookieLen]byte{1, 2, 3, 4, 5, 6, 7, 8}}
		b := m.Append([]byte("dst"))
		wantBytes(t, "message", b, append([]byte("dst"), byte(typ), 1, 2, 3, 4, 5, 6, 7, 8))
		if got, ok := ParsePathMessage(b[3:]); !ok || got != m {
			t.Errorf("got %v, %v, want %v", got, ok, m)
		}
	}
	for n := range 20 {
		b := bytes.Repeat([]byte{1}, n)
		if _, ok := ParsePathMessage(b); ok != (n == 9) {
			t.Errorf("%d bytes: %v", n, ok)
		}
	}
	for typ := range 256 {
		b := make([]byte, 9)
		b[0] = byte(typ)
		if _, ok := ParsePathMessage(b); ok != (typ < 3) {
			t.Errorf("type %d: %v", typ, ok)
		}
	}
}

// TestParseRecordCID: a record of each first byte, with connection IDs of each length.
func TestParseRecordCID(t *testing.T) {
	t.Parallel()
	for first := range 256 {
		for _, n := range []int{0, 1, 20, 255} {
			cid := bytes.Repeat([]byte{0xcd}, n)
			datagram := AppendRecordHeaderCID(nil, VersionDTLS12, 1, 7, cid, 3)
			datagram = append(datagram, "abc"...)
			datagram = append(datagram, "rest"...)
			if datagram[0] = byte(first); first != 25 {
				datagram = append(AppendRecordHeader(nil, ContentType(first), VersionDTLS12, 1, 7, 3), "abcrest"...)
			}
			r, rest, ok := ParseRecord(datagram, n)
			if !ok || string(rest) != "rest" || string(r.Payload) != "abc" || r.Seq != 7 || r.Epoch != 1 || r.HasCID() != (first == 25) {
				t.Fatalf("first byte %d, %d bytes: %+v, %q, %v", first, n, r, rest, ok)
			}
			if first == 25 {
				wantBytes(t, "connection ID", r.CID(), cid)
			}
			for cut := range len(datagram) - len("rest") {
				if _, _, ok := ParseRecord(datagram[:cut], n); ok {
					t.Fatalf("first byte %d: %d bytes of a record are one", first, cut)
				}
			}
		}
	}
}

// FuzzRecordCID reads a datagram as a list of records with connection IDs of a length,
// and writes it again.
func FuzzRecordCID(f *testing.F) {
	f.Add(append(AppendRecordHeaderCID(nil, VersionDTLS12, 1, 7, []byte("0123456789"), 2), 1, 2), byte(10))
	f.Add([]byte{25, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}, byte(0))
	f.Fuzz(func(t *testing.T, datagram []byte, cidLen byte) {
		left, again := datagram, []byte(nil)
		for {
			r, rest, ok := ParseRecord(left, int(cidLen))
			if !ok {
				break
			}
			if !r.HasCID() {
				again = AppendRecordHeader(again, r.Type, r.Version, r.Epoch, r.Seq, len(r.Payload))
			} else {
				again = AppendRecordHeaderCID(again, r.Version, r.Epoch, r.Seq, r.CID(), len(r.Payload))
			}
			again = append(again, r.Payload...)
			if m, ok := ParsePathMessage(r.Payload); ok {
				wantBytes(t, "message about a path", m.Append(nil), r.Payload)
			}
			left = rest
		}
		wantBytes(t, "written again", again, datagram[:len(datagram)-len(left)])
	})
}
