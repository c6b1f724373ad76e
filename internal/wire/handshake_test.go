// Tests of handshake fragments and of HelloVerifyRequest.

package wire

import (
	"bytes"
	"strings"
	"testing"
)

func TestParseFragment(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		in   string
		want Fragment
		body string
		rest string
		bad  bool
	}{
		{name: "empty", in: "", bad: true},
		{name: "header less a byte", in: "0e0000000002000000" + "0000", bad: true},
		{name: "empty message", in: "0e" + "000000" + "0002" + "000000" + "000000",
			want: Fragment{Type: TypeServerHelloDone, MessageSeq: 2}},
		{name: "whole message", in: "01" + "000003" + "0102" + "000000" + "000003" + "aabbcc",
			want: Fragment{Type: TypeClientHello, Length: 3, MessageSeq: 0x0102}, body: "aabbcc"},
		{name: "middle fragment", in: "0b" + "010203" + "ffff" + "010200" + "000002" + "aabb" + "cc",
			want: Fragment{Type: TypeCertificate, Length: 0x010203, MessageSeq: 0xffff, Offset: 0x010200}, body: "aabb", rest: "cc"},
		{name: "last fragment", in: "01" + "000005" + "0000" + "000003" + "000002" + "aabb",
			want: Fragment{Type: TypeClientHello, Length: 5, Offset: 3}, body: "aabb"},
		{name: "two messages", in: "10" + "000001" + "0002" + "000000" + "000001" + "aa" + "0e0000000003000000000000",
			want: Fragment{Type: TypeClientKeyExchange, Length: 1, MessageSeq: 2}, body: "aa", rest: "0e0000000003000000000000"},
		{name: "empty fragment at the start", in: "01" + "000005" + "0000" + "000000" + "000000",
			want: Fragment{Type: TypeClientHello, Length: 5}},
		{name: "empty fragment at the end", in: "01" + "000005" + "0000" + "000005" + "000000",
			want: Fragment{Type: TypeClientHello, Length: 5, Offset: 5}},
		{name: "empty fragment past the end", in: "01" + "000005" + "0000" + "000006" + "000000", bad: true},
		{name: "fragment of an empty message", in: "01" + "000000" + "0000" + "000000" + "000001" + "aa", bad: true},
		{name: "reaches a byte past the end", in: "01" + "000005" + "0000" + "000004" + "000002" + "aabb", bad: true},
		{name: "longer than its message", in: "01" + "000001" + "0000" + "000000" + "000002" + "aabb", bad: true},
		{name: "sum needs 25 bits", in: "01" + "000005" + "0000" + "ffffff" + "000006" + "aabbccddeeff", bad: true},
		{name: "sum is zero in 24 bits", in: "01" + "000005" + "0000" + "fffffe" + "000002" + "aabb", bad: true},
		{name: "body is a byte short", in: "01" + "000003" + "0000" + "000000" + "000003" + "aabb", bad: true},
		{name: "greatest lengths without a body", in: "01" + "ffffff" + "0000" + "000000" + "ffffff", bad: true},
		{name: "empty fragment of the longest message", in: "01" + "ffffff" + "0000" + "ffffff" + "000000",
			want: Fragment{Type: TypeClientHello, Length: 0xffffff, Offset: 0xffffff}},
		{name: "unknown type", in: "ff" + "000001" + "0000" + "000000" + "000001" + "aa",
			want: Fragment{Type: 0xff, Length: 1}, body: "aa"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			payload := unhex(t, test.in)
			f, rest, ok := ParseFragment(payload)
			if ok == test.bad {
				t.Fatalf("ok = %v", ok)
			}
			if test.bad {
				if f.Body != nil || f.Length != 0 || rest != nil {
					t.Errorf("failed with %+v, rest %x", f, rest)
				}
				return
			}
			if f.Type != test.want.Type || f.Length != test.want.Length || f.MessageSeq != test.want.MessageSeq || f.Offset != test.want.Offset {
				t.Errorf("got %+v\nwant %+v", f, test.want)
			}
			wantBytes(t, "body", f.Body, unhex(t, test.body))
			wantBytes(t, "rest", rest, unhex(t, test.rest))
			if want := len(test.body) == 2*int(test.want.Length); f.Whole() != want {
				t.Errorf("Whole() = %v, want %v", f.Whole(), want)
			}
			wantBytes(t, "encoded again", append(append(appendFragmentHeader(nil, &f), f.Body...), rest...), payload)
		})
	}
}

func appendFragmentHeader(dst []byte, f *Fragment) []byte {
	return AppendHandshakeHeader(dst, f.Type, int(f.Length), f.MessageSeq, int(f.Offset), len(f.Body))
}

// TestParseFragmentTruncated: no truncation of a fragment is one.
func TestParseFragmentTruncated(t *testing.T) {
	t.Parallel()
	whole := unhex(t, "01"+"000009"+"0001"+"000002"+"000004"+"aabbccdd")
	for n := range whole {
		if _, _, ok := ParseFragment(whole[:n]); ok {
			t.Errorf("the first %d bytes are a fragment", n)
		}
	}
}

func TestAppendHandshakeHeader(t *testing.T) {
	t.Parallel()
	got := AppendHandshakeHeader([]byte{0xee}, TypeFinished, 0x010203, 0x0405, 0x060708, 0x090a0b)
	wantBytes(t, "header", got, unhex(t, "ee"+"14"+"010203"+"0405"+"060708"+"090a0b"))
	if len(got)-1 != HandshakeHeaderLen {
		t.Errorf("%d bytes, HandshakeHeaderLen is %d", len(got)-1, HandshakeHeaderLen)
	}
}

func TestAppendHelloVerifyRequest(t *testing.T) {
	t.Parallel()
	cookie := bytes.Repeat([]byte{0xc0}, 32)
	tests := []struct {
		name    string
		version uint16
		cookie  []byte
		want    string
	}{
		{"32 bytes", VersionDTLS10, cookie, "ee" + "feff" + "20" + strings.Repeat("c0", 32)},
		{"one byte", VersionDTLS12, cookie[:1], "ee" + "fefd" + "01" + "c0"},
		{"no cookie", VersionDTLS10, nil, "ee" + "feff" + "00"},
		{"255 bytes", VersionDTLS10, bytes.Repeat(cookie, 8)[:255], "ee" + "feff" + "ff" + strings.Repeat("c0", 255)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			wantBytes(t, "body", AppendHelloVerifyRequest([]byte{0xee}, test.version, test.cookie), unhex(t, test.want))
		})
	}
	// The amplification bound of the server rests on this sum.
	if n := RecordHeaderLen + HandshakeHeaderLen + len(AppendHelloVerifyRequest(nil, VersionDTLS10, cookie)); n != 60 {
		t.Errorf("a datagram of %d bytes, want 60", n)
	}
}
