// Tests of the messages of the key exchange and of certificates.

package wire

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func TestAppendServerKeyExchangePSK(t *testing.T) {
	t.Parallel()
	wantBytes(t, "hint", AppendServerKeyExchangePSK([]byte{0xee}, []byte("hint")), unhex(t, "ee0004"+"68696e74"))
	wantBytes(t, "empty hint", AppendServerKeyExchangePSK(nil, nil), unhex(t, "0000"))
	wantBytes(t, "long hint", AppendServerKeyExchangePSK(nil, bytes.Repeat([]byte{0xa5}, 258)), unhex(t, "0102"+strings.Repeat("a5", 258)))
}

func TestParseClientKeyExchangePSK(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, in, want string
		bad            bool
	}{
		{name: "identity", in: "0004" + "64657637", want: "64657637"},
		{name: "zero byte in the identity", in: "0003" + "610062", want: "610062"},
		{name: "empty identity", in: "0000"},
		{name: "length in both bytes", in: "0102" + strings.Repeat("a5", 258), want: strings.Repeat("a5", 258)},
		{name: "longest identity", in: "ffff" + strings.Repeat("a5", 65535), want: strings.Repeat("a5", 65535)},
		{name: "empty body", in: "", bad: true},
		{name: "half a length", in: "00", bad: true},
		{name: "a byte missing", in: "0004" + "646576", bad: true},
		{name: "a byte more", in: "0004" + "6465763700", bad: true},
		{name: "a byte behind an empty identity", in: "000000", bad: true},
		{name: "ECDHE_PSK, a point follows", in: "0001" + "64" + "0104", bad: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			identity, ok := ParseClientKeyExchangePSK(unhex(t, test.in))
			if ok == test.bad {
				t.Fatalf("ok = %v", ok)
			}
			if ok {
				wantBytes(t, "identity", identity, unhex(t, test.want))
			}
		})
	}
}

func TestAppendServerECDHParams(t *testing.T) {
	t.Parallel()
	point := "04" + strings.Repeat("a5", 64)
	tests := []struct {
		name   string
		group  uint16
		public string
		want   string
	}{
		{"secp256r1", 23, point, "03" + "0017" + "41" + point},
		{"x25519", 29, strings.Repeat("5a", 32), "03" + "001d" + "20" + strings.Repeat("5a", 32)},
		{"group in both bytes", 0x1234, "04", "03" + "1234" + "01" + "04"},
		{"longest point", 24, strings.Repeat("a5", 255), "03" + "0018" + "ff" + strings.Repeat("a5", 255)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			public := unhex(t, test.public)
			wantBytes(t, "parameters", AppendServerECDHParams(nil, test.group, public), unhex(t, test.want))
			// With ECDHE_PSK a hint precedes, with a certificate a signature
			// follows.
			got := AppendServerECDHParams(AppendServerKeyExchangePSK(nil, []byte("hint")), test.group, public)
			wantBytes(t, "with a hint", got, unhex(t, "0004"+"68696e74"+test.want))
			got = AppendSignature(AppendServerECDHParams(nil, test.group, public), 0x0403, []byte{0xaa, 0xbb})
			wantBytes(t, "signed", got, unhex(t, test.want+"0403"+"0002"+"aabb"))
		})
	}
}

func TestAppendSignature(t *testing.T) {
	t.Parallel()
	wantBytes(t, "signature", AppendSignature([]byte{0xee}, 0x0807, []byte{0xaa, 0xbb, 0xcc}), unhex(t, "ee"+"0807"+"0003"+"aabbcc"))
	wantBytes(t, "empty", AppendSignature(nil, 0x0401, nil), unhex(t, "0401"+"0000"))
	wantBytes(t, "long", AppendSignature(nil, 0x0601, bytes.Repeat([]byte{0xa5}, 512)), unhex(t, "0601"+"0200"+strings.Repeat("a5", 512)))
}

func TestParseClientKeyExchangeECDHE(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, in, want string
		bad            bool
	}{
		{name: "secp256r1", in: "41" + "04" + strings.Repeat("a5", 64), want: "04" + strings.Repeat("a5", 64)},
		{name: "x25519", in: "20" + strings.Repeat("5a", 32), want: strings.Repeat("5a", 32)},
		{name: "one byte", in: "01" + "00", want: "00"},
		{name: "longest point", in: "ff" + strings.Repeat("a5", 255), want: strings.Repeat("a5", 255)},
		{name: "empty body", in: "", bad: true},
		// The public key of a certificate, which RFC 8422 no longer has.
		{name: "empty point", in: "00", bad: true},
		{name: "empty point and a byte", in: "0004", bad: true},
		{name: "length only", in: "01", bad: true},
		{name: "a byte missing", in: "03" + "04aa", bad: true},
		{name: "a byte more", in: "01" + "04aa", bad: true},
		{name: "ECDHE_PSK", in: "0002" + "6964" + "01" + "04", bad: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			public, ok := ParseClientKeyExchangeECDHE(unhex(t, test.in))
			if ok == test.bad {
				t.Fatalf("ok = %v", ok)
			}
			wantBytes(t, "public key", public, unhex(t, test.want))
		})
	}
}

func TestParseClientKeyExchangeECDHEPSK(t *testing.T) {
	t.Parallel()
	point := "04" + strings.Repeat("a5", 64)
	tests := []struct {
		name, in         string
		identity, public string
		bad              bool
	}{
		{name: "both", in: "0004" + "64657637" + "41" + point, identity: "64657637", public: point},
		{name: "empty identity", in: "0000" + "01" + "04", public: "04"},
		{name: "identity's length in both bytes", in: "0102" + strings.Repeat("a5", 258) + "01" + "04", identity: strings.Repeat("a5", 258), public: "04"},
		{name: "longest", in: "ffff" + strings.Repeat("a5", 65535) + "ff" + strings.Repeat("5a", 255),
			identity: strings.Repeat("a5", 65535), public: strings.Repeat("5a", 255)},
		{name: "empty body", in: "", bad: true},
		{name: "half a length", in: "00", bad: true},
		{name: "identity only", in: "0004" + "64657637", bad: true},
		{name: "empty identity only", in: "0000", bad: true},
		{name: "empty point", in: "0004" + "64657637" + "00", bad: true},
		{name: "empty identity and point", in: "0000" + "00", bad: true},
		{name: "a byte missing", in: "0004" + "64657637" + "03" + "04aa", bad: true},
		{name: "a byte more", in: "0004" + "64657637" + "01" + "04aa", bad: true},
		{name: "identity takes the point", in: "0006" + "64657637" + "01" + "04", bad: true},
		{name: "ECDHE without an identity", in: "41" + point, bad: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			identity, public, ok := ParseClientKeyExchangeECDHEPSK(unhex(t, test.in))
			if ok == test.bad {
				t.Fatalf("ok = %v", ok)
			}
			wantBytes(t, "identity", identity, unhex(t, test.identity))
			wantBytes(t, "public key", public, unhex(t, test.public))
		})
	}
}

func TestCertificate(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a5", 0x010203)
	tests := []struct {
		name  string
		body  string
		chain []string
	}{
		{"no certificate", "000000", nil},
		{"one", "000005" + "000002" + "aabb", []string{"aabb"}},
		{"three", "00000f" + "000001" + "aa" + "000002" + "bbbb" + "000003" + "cccccc", []string{"aa", "bbbb", "cccccc"}},
		{"the same twice", "000008" + "000001" + "aa" + "000001" + "aa", []string{"aa", "aa"}},
		{"lengths in all bytes", "01020a" + "000001" + "aa" + "010203" + long, []string{"aa", long}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			body := unhex(t, test.body)
			chain, ok := ParseCertificate(body)
			if !ok || len(chain) != len(test.chain) {
				t.Fatalf("ok = %v, %d certificates", ok, len(chain))
			}
			for i, c := range chain {
				wantBytes(t, fmt.Sprint("certificate ", i), c, unhex(t, test.chain[i]))
			}
			wantBytes(t, "encoded again", AppendCertificate([]byte{0xee}, chain), append([]byte{0xee}, body...))
		})
	}
}

func TestParseCertificateBad(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, body string }{
		{"empty body", ""},
		{"half a length", "0000"},
		{"a byte behind no certificate", "000000" + "00"},
		{"an empty certificate", "000003" + "000000"},
		{"an empty certificate first", "000007" + "000000" + "000001" + "aa"},
		{"an empty certificate last", "000007" + "000001" + "aa" + "000000"},
		{"an empty certificate between", "00000b" + "000001" + "aa" + "000000" + "000001" + "bb"},
		{"a certificate's length only", "000003" + "000001"},
		{"half a certificate's length", "000002" + "0000"},
		{"list a byte short", "000004" + "000002" + "aabb"},
		{"list a byte long", "000006" + "000002" + "aabb"},
		{"certificate a byte short", "000005" + "000001" + "aabb"},
		{"certificate a byte long", "000005" + "000003" + "aabb"},
		{"certificate takes the next one's length", "000008" + "000004" + "aa" + "000001" + "bb"},
		{"a certificate behind the list", "000005" + "000002" + "aabb" + "000001" + "cc"},
		{"greatest lengths", "ffffff" + "ffffff" + "aa"},
		// The form of TLS 1.3.
		{"a request context in front", "00" + "000004" + "000001" + "aa"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if chain, ok := ParseCertificate(unhex(t, test.body)); ok || chain != nil {
				t.Errorf("chain %x, ok = %v", chain, ok)
			}
		})
	}
}

func TestAppendCertificateRequest(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		schemes []uint16
		want    string
	}{
		{"one scheme", []uint16{0x0403}, "02" + "4001" + "0002" + "0403" + "0000"},
		{"three", []uint16{0x0403, 0x0807, 0x0804}, "02" + "4001" + "0006" + "040308070804" + "0000"},
		{"length in both bytes", repeated(0x0401, 129), "02" + "4001" + "0102" + strings.Repeat("0401", 129) + "0000"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			wantBytes(t, "body", AppendCertificateRequest([]byte{0xee}, test.schemes), unhex(t, "ee"+test.want))
		})
	}
}

func repeated(scheme uint16, n int) []uint16 {
	schemes := make([]uint16, n)
	for i := range schemes {
		schemes[i] = scheme
	}
	return schemes
}

func TestParseCertificateVerify(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, in  string
		scheme    uint16
		signature string
		bad       bool
	}{
		{name: "ECDSA", in: "0403" + "0003" + "aabbcc", scheme: 0x0403, signature: "aabbcc"},
		{name: "unknown scheme", in: "fefe" + "0001" + "aa", scheme: 0xfefe, signature: "aa"},
		{name: "length in both bytes", in: "0601" + "0102" + strings.Repeat("a5", 258), scheme: 0x0601, signature: strings.Repeat("a5", 258)},
		// No key verifies it; the parser does not need to know.
		{name: "empty signature", in: "0403" + "0000", scheme: 0x0403},
		{name: "empty body", in: "", bad: true},
		{name: "half a scheme", in: "04", bad: true},
		{name: "scheme only", in: "0403", bad: true},
		{name: "half a length", in: "0403" + "00", bad: true},
		{name: "a byte missing", in: "0403" + "0003" + "aabb", bad: true},
		{name: "a byte more", in: "0403" + "0001" + "aabb", bad: true},
		// The form of TLS 1.1 has no scheme.
		{name: "signature only", in: "0003" + "aabbcc", bad: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			scheme, signature, ok := ParseCertificateVerify(unhex(t, test.in))
			if ok == test.bad {
				t.Fatalf("ok = %v", ok)
			}
			if scheme != test.scheme {
				t.Errorf("scheme %#04x, want %#04x", scheme, test.scheme)
			}
			wantBytes(t, "signature", signature, unhex(t, test.signature))
		})
	}
}

// TestKeyExchangeTruncated cuts each message at every byte, adds one, and moves
// its length fields: nothing of that is a message of its kind.
func TestKeyExchangeTruncated(t *testing.T) {
	t.Parallel()
	// Bytes that are data are 0xff, no length of what follows.
	tests := []struct {
		name   string
		body   string
		fields []int // the last bytes of the length fields
		parse  func(body []byte) bool
	}{
		{"PSK", "0004" + "ffffffff", []int{1},
			func(b []byte) bool { _, ok := ParseClientKeyExchangePSK(b); return ok }},
		{"ECDHE", "04" + "ffffffff", []int{0},
			func(b []byte) bool { _, ok := ParseClientKeyExchangeECDHE(b); return ok }},
		{"ECDHE_PSK", "0004" + "ffffffff" + "04" + "ffffffff", []int{1, 6},
			func(b []byte) bool { _, _, ok := ParseClientKeyExchangeECDHEPSK(b); return ok }},
		{"Certificate", "00000e" + "000004" + "ffffffff" + "000004" + "ffffffff", []int{2, 5, 12},
			func(b []byte) bool { _, ok := ParseCertificate(b); return ok }},
		{"CertificateVerify", "0403" + "0004" + "ffffffff", []int{3},
			func(b []byte) bool { _, _, ok := ParseCertificateVerify(b); return ok }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			body := unhex(t, test.body)
			if !test.parse(body) {
				t.Fatal("the message itself does not parse")
			}
			for n := range body {
				if test.parse(body[:n]) {
					t.Errorf("the first %d bytes parse", n)
				}
			}
			for _, tail := range []string{"00", "01", "ff", "0000", "000000", "00000000"} {
				if test.parse(append(bytes.Clone(body), unhex(t, tail)...)) {
					t.Errorf("parses with %s behind it", tail)
				}
			}
			for _, at := range test.fields {
				for _, by := range []int{-1, +1} {
					moved := bytes.Clone(body)
					moved[at] += byte(by)
					if test.parse(moved) {
						t.Errorf("parses with byte %d moved by %+d", at, by)
					}
				}
			}
		})
	}
}

func TestAppendCertificateStatus(t *testing.T) {
	t.Parallel()
	wantBytes(t, "status", AppendCertificateStatus([]byte{0xee}, bytes.Repeat([]byte{0xaa}, 258)), unhex(t, "ee"+"01"+"000102"+strings.Repeat("aa", 258)))
	wantBytes(t, "timestamps", AppendSCTs([]byte{0xee}, [][]byte{{1, 2}, {3}}), unhex(t, "ee"+"0007"+"0002"+"0102"+"0001"+"03"))
}

func TestAppendNewSessionTicket(t *testing.T) {
	t.Parallel()
	wantBytes(t, "body", AppendNewSessionTicket(nil, 0x01020304, []byte("ticket")), append([]byte{1, 2, 3, 4, 0, 6}, "ticket"...))
	wantBytes(t, "empty", AppendNewSessionTicket(nil, 0, nil), make([]byte, 6))
}
