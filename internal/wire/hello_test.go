// Tests of the hellos and their extensions.

package wire

import (
	"bytes"
	"encoding/binary"
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
	sampleReneg      = "ff01" + "0001" + "00"
	samplePoints     = "000b" + "0004" + "03" + "000102"
	sampleFixed      = "fefd" + sampleRandom + sampleSessionID + sampleCookie + sampleSuites + sampleMethods
	sampleHello      = sampleFixed + sampleExtensions
)

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
		// fixed and whole: whether ParseClientHelloFixed and ParseClientHello
		// take it.
		fixed, whole bool
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
		{"no cipher suites", front + "00" + "00" + "0000" + null, false, false},
		{"half a cipher suite", front + "00" + "00" + "0001" + "00" + null, false, false},
		{"one and a half cipher suites", front + "00" + "00" + "0003" + "00a8c0" + null, false, false},
		{"cipher suites in both bytes of the length", front + "00" + "00" + "0102" + strings.Repeat("00a8", 129) + null, true, true},
		{"no compression methods", front + "00" + "00" + suite + "00", false, false},
		{"no compression methods, then extensions", front + "00" + "00" + suite + "00" + "0000", false, false},
		{"two compression methods", front + "00" + "00" + suite + "02" + "0100", true, true},
		{"a compression method missing", front + "00" + "00" + suite + "02" + "00", false, false},
		{"random only", front, false, false},
		{"empty", "", false, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			body := unhex(t, test.body)
			fixed, rest, ok := ParseClientHelloFixed(body)
			if ok != test.fixed {
				t.Errorf("ParseClientHelloFixed: %v", ok)
			}
			if !ok && (!reflect.DeepEqual(fixed, ClientHello{}) || rest != nil) {
				t.Errorf("ParseClientHelloFixed failed with %+v, rest %x", fixed, rest)
			}
			if ok {
				wantBytes(t, "encoded again", append(appendClientHello(nil, &fixed), rest...), body)
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
}

// TestParseClientHelloLengths moves every length field by one. The fixed part
// still parses when it is the extensions that are off, or when the compression
// methods take a byte of them.
func TestParseClientHelloLengths(t *testing.T) {
	t.Parallel()
	at := 2 + RandomLen
	fields := []struct {
		name  string
		at    int // of its last byte
		fixed map[int]bool
	}{
		{"session_id", at, nil},
		{"cookie", at + 5, nil},
		{"cipher_suites", at + 15, nil},
		{"compression_methods", at + 22, map[int]bool{+1: true}},
		{"extensions", at + 25, map[int]bool{-1: true, +1: true}},
	}
	for _, field := range fields {
		for _, by := range []int{-1, +1} {
			t.Run(fmt.Sprintf("%s%+d", field.name, by), func(t *testing.T) {
				t.Parallel()
				body := unhex(t, sampleHello)
				body[field.at] += byte(by)
				if _, _, ok := ParseClientHelloFixed(body); ok != field.fixed[by] {
					t.Errorf("ParseClientHelloFixed: %v", ok)
				}
				if h, ok := ParseClientHello(body); ok {
					t.Errorf("parses: %+v", h)
				}
			})
		}
	}
}

func TestParseClientExtensions(t *testing.T) {
	t.Parallel()
	const unknown = "1234" + "0002" + "aabb"
	tests := []struct {
		name  string
		block string
		want  ClientExtensions
		bad   bool
	}{
		{name: "none", block: ""},
		{name: "all", block: sampleEMS + sampleReneg + samplePoints,
			want: ClientExtensions{ExtendedMasterSecret: true, RenegotiationInfo: true, RenegotiatedInfo: []byte{}, ECPointFormats: []byte{0, 1, 2}}},
		{name: "other order", block: samplePoints + sampleReneg + sampleEMS,
			want: ClientExtensions{ExtendedMasterSecret: true, RenegotiationInfo: true, RenegotiatedInfo: []byte{}, ECPointFormats: []byte{0, 1, 2}}},
		{name: "unknown is skipped", block: unknown + sampleEMS, want: ClientExtensions{ExtendedMasterSecret: true}},
		{name: "unknown and empty", block: "fafa" + "0000"},
		{name: "highest and lowest number", block: "ffff" + "0000" + "0000" + "0000"},

		{name: "half a number", block: "00", bad: true},
		{name: "number only", block: "1234", bad: true},
		{name: "half a length", block: "1234" + "00", bad: true},
		{name: "a byte missing", block: "1234" + "0002" + "aa", bad: true},
		{name: "greatest length", block: "1234" + "ffff" + "aabb", bad: true},
		{name: "a byte behind the last", block: unknown + "00", bad: true},

		{name: "extended_master_secret twice", block: sampleEMS + sampleEMS, bad: true},
		{name: "renegotiation_info twice", block: sampleReneg + sampleEMS + sampleReneg, bad: true},
		{name: "ec_point_formats twice", block: samplePoints + samplePoints, bad: true},
		{name: "unknown twice", block: unknown + sampleEMS + unknown, bad: true},
		{name: "unknown twice with other content", block: unknown + "1234" + "0000", bad: true},
		{name: "number 0 twice", block: "0000" + "0000" + "0000" + "0000", bad: true},
		{name: "number 65535 twice", block: "ffff" + "0000" + "ffff" + "0000", bad: true},
		{name: "numbers 64 apart", block: "0040" + "0000" + "0080" + "0000" + "0000" + "0000"},

		{name: "extended_master_secret with content", block: "0017" + "0001" + "00", bad: true},
		{name: "renegotiation_info without its vector", block: "ff01" + "0000", bad: true},
		{name: "renegotiation_info of a renegotiation", block: "ff01" + "0003" + "02aabb",
			want: ClientExtensions{RenegotiationInfo: true, RenegotiatedInfo: []byte{0xaa, 0xbb}}},
		{name: "renegotiation_info, vector too long", block: "ff01" + "0001" + "01", bad: true},
		{name: "renegotiation_info, vector too short", block: "ff01" + "0002" + "0000", bad: true},
		{name: "renegotiation_info, vector reaches into the next", block: "ff01" + "0001" + "01" + sampleEMS, bad: true},
		{name: "ec_point_formats without its vector", block: "000b" + "0000", bad: true},
		{name: "ec_point_formats, empty vector", block: "000b" + "0001" + "00", bad: true},
		{name: "ec_point_formats, vector too long", block: "000b" + "0002" + "0200", bad: true},
		{name: "ec_point_formats, vector too short", block: "000b" + "0003" + "010000", bad: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, ok := ParseClientExtensions(unhex(t, test.block))
			if ok == test.bad {
				t.Fatalf("ok = %v", ok)
			}
			if !ok {
				return
			}
			if got.ExtendedMasterSecret != test.want.ExtendedMasterSecret || got.RenegotiationInfo != test.want.RenegotiationInfo {
				t.Errorf("got %+v\nwant %+v", got, test.want)
			}
			wantBytes(t, "renegotiated_connection", got.RenegotiatedInfo, test.want.RenegotiatedInfo)
			wantBytes(t, "ec_point_formats", got.ECPointFormats, test.want.ECPointFormats)
			if (got.ECPointFormats == nil) != (test.want.ECPointFormats == nil) {
				t.Errorf("ec_point_formats is nil: %v", got.ECPointFormats == nil)
			}
		})
	}
}

// TestParseClientExtensionsLengths moves every length field of a block by one.
func TestParseClientExtensionsLengths(t *testing.T) {
	t.Parallel()
	fields := []struct {
		name  string
		at    int
		bytes int
	}{
		{"extended_master_secret", 2, 2},
		{"renegotiation_info", 4 + 2, 2},
		{"renegotiated_connection", 4 + 4, 1},
		{"ec_point_formats", 9 + 2, 2},
		{"ec_point_format_list", 9 + 4, 1},
	}
	block := sampleEMS + sampleReneg + samplePoints
	if _, ok := ParseClientExtensions(unhex(t, block)); !ok {
		t.Fatal("the block itself does not parse")
	}
	for _, field := range fields {
		for _, by := range []int{-1, +1} {
			t.Run(fmt.Sprintf("%s%+d", field.name, by), func(t *testing.T) {
				t.Parallel()
				b := unhex(t, block)
				if field.bytes == 1 {
					b[field.at] += byte(by)
				} else {
					binary.BigEndian.PutUint16(b[field.at:], binary.BigEndian.Uint16(b[field.at:])+uint16(by))
				}
				if e, ok := ParseClientExtensions(b); ok {
					t.Errorf("parses: %+v", e)
				}
			})
		}
	}
}

// TestParseClientExtensionsMany has every extension number once, in an order
// that visits far ones, and then one of them again.
func TestParseClientExtensionsMany(t *testing.T) {
	t.Parallel()
	var block []byte
	for i := range 1 << 14 {
		id := uint16(i * 40503) // odd: visits 2^14 different numbers
		switch id {
		case extensionExtendedMasterSecret, extensionRenegotiationInfo, extensionECPointFormats:
			continue
		}
		block = binary.BigEndian.AppendUint16(block, id)
		block = append(block, 0, 0)
	}
	if _, ok := ParseClientExtensions(block); !ok {
		t.Error("different numbers are taken for duplicates")
	}
	for _, n := range []int{0, 1, 63, 64, 10000} {
		again := append(bytes.Clone(block), block[4*n:4*n+4]...)
		if _, ok := ParseClientExtensions(again); ok {
			t.Errorf("extension %d comes again unnoticed", n)
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
		{"renegotiation_info", ServerHello{Version: VersionDTLS12, Random: random, CipherSuite: 0xccab, RenegotiationInfo: true},
			"fefd" + sampleRandom + "00" + "ccab" + "00" + "0005" + "ff01000100"},
		{"extended_master_secret", ServerHello{Version: VersionDTLS12, Random: random, CipherSuite: 0xccab, ExtendedMasterSecret: true},
			"fefd" + sampleRandom + "00" + "ccab" + "00" + "0004" + "00170000"},
		{"both", ServerHello{Version: VersionDTLS12, Random: random, SessionID: []byte{0xa1}, CipherSuite: 0xccab, RenegotiationInfo: true, ExtendedMasterSecret: true},
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
