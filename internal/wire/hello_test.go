// Tests of the hellos.

package wire

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// The parts of the hello of sampleHello. The bytes in front of a length are
// 0xff, so that a length that is off by one makes the next one too long instead
// of finding another valid hello by luck.
const (
	sampleRandom     = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eff"
	sampleSessionID  = "04" + "a1a2a3ff"
	sampleCookie     = "08" + "ffb1b2b3b4b5b6ff"
	sampleSuites     = "0006" + "00a8c0a800ff"
	sampleMethods    = "01" + "00"
	sampleExtensions = "0011" + sampleEMS + sampleReneg + samplePoints
	sampleEMS        = "0017" + "0000"
	sampleCID        = "0036" + "0004" + "03" + "070809"
	sampleRRC        = "003d" + "0000"
	sampleReneg      = "ff01" + "0001" + "00"
	samplePoints     = "000b" + "0004" + "03" + "000102"
	sampleFixed      = "fefd" + sampleRandom + sampleSessionID + sampleCookie + sampleSuites + sampleMethods
	sampleHello      = sampleFixed + sampleExtensions
)

// sampleHelloWith returns the sample with another extensions block.
func sampleHelloWith(tb testing.TB, block string) []byte {
	tb.Helper()
	return unhex(tb, sampleFixed+fmt.Sprintf("%04x", len(block)/2)+block)
}

func TestParseClientHello(t *testing.T) {
	t.Parallel()
	h, ok := ParseClientHello(unhex(t, sampleHello))
	if !ok {
		t.Fatal("the sample does not parse")
	}
	if h.Version != VersionDTLS12 {
		t.Errorf("version %#04x", h.Version)
	}
	wantBytes(t, "random", h.Random, unhex(t, sampleRandom))
	wantBytes(t, "session_id", h.SessionID, unhex(t, sampleSessionID[2:]))
	wantBytes(t, "cookie", h.Cookie, unhex(t, sampleCookie[2:]))
	wantBytes(t, "cipher suites", h.CipherSuites, unhex(t, sampleSuites[4:]))
	wantBytes(t, "compression methods", h.CompressionMethods, unhex(t, sampleMethods[2:]))
	wantBytes(t, "extensions", h.Extensions, unhex(t, sampleExtensions[4:]))
	for id, want := range map[uint16]bool{0x00a8: true, 0xc0a8: true, SuiteEmptyRenegotiationInfo: true, 0xa8c0: false, 0: false} {
		if h.OffersSuite(id) != want {
			t.Errorf("OffersSuite(%#04x) = %v", id, !want)
		}
	}
}

func TestParseClientHelloForms(t *testing.T) {
	t.Parallel()
	front := "fefd" + sampleRandom
	const suite, null = "0002" + "00a8", "01" + "00"
	tests := []struct {
		name string
		body string
		// head and whole: whether ParseClientHelloHead and ParseClientHello
		// take it.
		head, whole bool
	}{
		{"smallest", front + "00" + "00" + suite + null, true, true},
		{"no extensions block", sampleFixed, true, true},
		{"empty extensions block", sampleFixed + "0000", true, true},
		{"half an extensions length", sampleFixed + "00", true, false},
		{"extensions block a byte short", sampleFixed + "0002" + "00", true, false},
		{"byte behind the extensions", sampleHello + "00", true, false},
		{"byte behind an empty extensions block", sampleFixed + "0000" + "00", true, false},
		{"two extensions blocks", sampleFixed + "0000" + "0000", true, false},
		{"any version", "0303" + (front + "00" + "00" + suite + null)[4:], true, true},
		{"session_id of 32 bytes", front + "20" + strings.Repeat("5e", 32) + "00" + suite + null, true, true},
		{"session_id of 33 bytes", front + "21" + strings.Repeat("5e", 33) + "00" + suite + null, false, false},
		{"cookie of 255 bytes", front + "00" + "ff" + strings.Repeat("c0", 255) + suite + null, true, true},
		{"no cipher suites", front + "00" + "00" + "0000" + null, true, false},
		{"half a cipher suite", front + "00" + "00" + "0001" + "00" + null, true, false},
		{"one and a half cipher suites", front + "00" + "00" + "0003" + "00a8c0" + null, true, false},
		{"cipher suites in both bytes of the length", front + "00" + "00" + "0102" + strings.Repeat("00a8", 129) + null, true, true},
		{"no compression methods", front + "00" + "00" + suite + "00", true, false},
		{"no compression methods, then extensions", front + "00" + "00" + suite + "00" + "0000", true, false},
		{"two compression methods", front + "00" + "00" + suite + "02" + "0100", true, true},
		{"a compression method missing", front + "00" + "00" + suite + "02" + "00", true, false},
		{"half a length of the cipher suites", front + "00" + "00" + "00", true, false},
		{"nothing behind the cookie", front + "00" + "01" + "c0", true, false},
		{"a cookie a byte short", front + "00" + "02" + "c0", false, false},
		{"nothing behind the session_id", front + "01" + "5e", false, false},
		{"random only", front, false, false},
		{"empty", "", false, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			body := unhex(t, test.body)
			head, rest, ok := ParseClientHelloHead(body)
			if ok != test.head {
				t.Errorf("ParseClientHelloHead: %v", ok)
			}
			if !ok && (!reflect.DeepEqual(head, ClientHello{}) || rest != nil) {
				t.Errorf("ParseClientHelloHead failed with %+v, rest %x", head, rest)
			}
			if ok {
				wantBytes(t, "encoded again", append(appendHelloHead(nil, &head), rest...), body)
			}
			h, ok := ParseClientHello(body)
			if ok != test.whole {
				t.Fatalf("ParseClientHello: %v", ok)
			}
			if !ok && !reflect.DeepEqual(h, ClientHello{}) {
				t.Errorf("ParseClientHello failed with %+v", h)
			}
			if ok {
				wantBytes(t, "encoded again", appendClientHello(nil, &h), body)
			}
		})
	}
}

// TestParseClientHelloTruncated: of the truncations only the one without the
// extensions block is a hello.
func TestParseClientHelloTruncated(t *testing.T) {
	t.Parallel()
	wantTruncations(t, unhex(t, sampleHello))
	wantTruncations(t, unhex(t, sampleFixed))
	wantTruncations(t, unhex(t, sampleFixed+"0000"))
	wantTruncations(t, sampleHelloWith(t, allSamples()))
}

// TestParseClientHelloLengths moves every length field by one. The head still
// parses when it is not the session_id that is off.
func TestParseClientHelloLengths(t *testing.T) {
	t.Parallel()
	at := 2 + RandomLen
	fields := []struct {
		name string
		at   int // of its last byte
		head bool
	}{
		{"session_id", at, false},
		{"cookie", at + 5, true},
		{"cipher_suites", at + 15, true},
		{"compression_methods", at + 22, true},
		{"extensions", at + 25, true},
	}
	for _, field := range fields {
		for _, by := range []int{-1, +1} {
			t.Run(fmt.Sprintf("%s%+d", field.name, by), func(t *testing.T) {
				t.Parallel()
				body := unhex(t, sampleHello)
				body[field.at] += byte(by)
				if _, _, ok := ParseClientHelloHead(body); ok != field.head {
					t.Errorf("ParseClientHelloHead: %v", ok)
				}
				if h, ok := ParseClientHello(body); ok {
					t.Errorf("parses: %+v", h)
				}
			})
		}
	}
}

func TestServerHelloAppend(t *testing.T) {
	t.Parallel()
	random := unhex(t, sampleRandom)
	tests := []struct {
		name  string
		hello ServerHello
		want  string
	}{
		{"no extensions, no session_id", ServerHello{Version: VersionDTLS12, Random: random, CipherSuite: 0x00a8},
			"fefd" + sampleRandom + "00" + "00a8" + "00"},
		{"session_id", ServerHello{Version: VersionDTLS12, Random: random, SessionID: []byte{0xa1, 0xa2, 0xa3}, CipherSuite: 0xc0a8},
			"fefd" + sampleRandom + "03a1a2a3" + "c0a8" + "00"},
		{"renegotiation_info", ServerHello{Version: VersionDTLS12, Random: random, CipherSuite: 0xccab, ServerExtensions: ServerExtensions{RenegotiationInfo: true}},
			"fefd" + sampleRandom + "00" + "ccab" + "00" + "0005" + "ff01000100"},
		{"extended_master_secret", ServerHello{Version: VersionDTLS12, Random: random, CipherSuite: 0xccab, ServerExtensions: ServerExtensions{ExtendedMasterSecret: true}},
			"fefd" + sampleRandom + "00" + "ccab" + "00" + "0004" + "00170000"},
		{"both", ServerHello{Version: VersionDTLS12, Random: random, SessionID: []byte{0xa1}, CipherSuite: 0xccab, ServerExtensions: ServerExtensions{RenegotiationInfo: true, ExtendedMasterSecret: true}},
			"fefd" + sampleRandom + "01a1" + "ccab" + "00" + "0009" + "ff01000100" + "00170000"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			wantBytes(t, "body", test.hello.Append(nil), unhex(t, test.want))
			wantBytes(t, "appended", test.hello.Append([]byte{0xee, 0xef}), unhex(t, "eeef"+test.want))
		})
	}
}
