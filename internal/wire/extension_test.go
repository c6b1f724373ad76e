// Tests of the extensions of both hellos.

package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
)

const (
	sampleServerName  = "0000" + "000e" + "000c" + "00" + "0009" + "6c6f63616c686f7374"
	sampleMaxFragment = "0001" + "0001" + "02"
	sampleGroups      = "000a" + "0006" + "0004" + "0017001d"
	sampleSchemes     = "000d" + "0006" + "0004" + "04030807"
	sampleALPN        = "0010" + "000a" + "0008" + "02" + "6832" + "04" + "636f6170"
	sampleRecordSize  = "001c" + "0002" + "4001"
	sampleStatus      = "0005" + "0005" + "01" + "0000" + "0000"
	sampleSCT         = "0012" + "0000"
	sampleVersions    = "002b" + "0005" + "04" + "fefcfefd"
	sampleCertSchemes = "0032" + "0006" + "0004" + "08040403"
	sampleUnknown     = "1234" + "0002" + "aabb"
)

// sampleFields are the samples of all extensions, and where each has its
// length fields.
var sampleFields = []struct {
	name   string
	block  string
	want   ClientExtensions
	fields []lengthField
}{
	{"server_name", sampleServerName, ClientExtensions{ServerName: "localhost"},
		[]lengthField{{"extension", 2, 2}, {"list", 4, 2}, {"name", 7, 2}}},
	{"max_fragment_length", sampleMaxFragment, ClientExtensions{MaxFragmentLength: 2},
		[]lengthField{{"extension", 2, 2}}},
	{"supported_groups", sampleGroups, ClientExtensions{SupportedGroups: []byte{0, 0x17, 0, 0x1d}},
		[]lengthField{{"extension", 2, 2}, {"list", 4, 2}}},
	{"ec_point_formats", samplePoints, ClientExtensions{ECPointFormats: []byte{0, 1, 2}},
		[]lengthField{{"extension", 2, 2}, {"list", 4, 1}}},
	{"signature_algorithms", sampleSchemes, ClientExtensions{SignatureAlgorithms: []byte{4, 3, 8, 7}},
		[]lengthField{{"extension", 2, 2}, {"list", 4, 2}}},
	{"ALPN", sampleALPN, ClientExtensions{ALPN: names("h2", "coap")},
		[]lengthField{{"extension", 2, 2}, {"list", 4, 2}, {"first", 6, 1}, {"last", 9, 1}}},
	{"extended_master_secret", sampleEMS, ClientExtensions{ExtendedMasterSecret: true},
		[]lengthField{{"extension", 2, 2}}},
	{"record_size_limit", sampleRecordSize, ClientExtensions{RecordSizeLimit: 0x4001},
		[]lengthField{{"extension", 2, 2}}},
	{"status_request", sampleStatus, ClientExtensions{StatusRequest: true},
		[]lengthField{{"extension", 2, 2}, {"responder_id_list", 5, 2}, {"request_extensions", 7, 2}}},
	{"signed_certificate_timestamp", sampleSCT, ClientExtensions{SCT: true},
		[]lengthField{{"extension", 2, 2}}},
	{"supported_versions", sampleVersions, ClientExtensions{SupportedVersions: []byte{0xfe, 0xfc, 0xfe, 0xfd}},
		[]lengthField{{"extension", 2, 2}, {"list", 4, 1}}},
	{"signature_algorithms_cert", sampleCertSchemes, ClientExtensions{CertificateSchemes: []byte{8, 4, 4, 3}},
		[]lengthField{{"extension", 2, 2}, {"list", 4, 2}}},
	{"connection_id", sampleCID, ClientExtensions{ConnectionID: []byte{7, 8, 9}},
		[]lengthField{{"extension", 2, 2}, {"cid", 4, 1}}},
	{"rrc", sampleRRC, ClientExtensions{ReturnRoutability: true},
		[]lengthField{{"extension", 2, 2}}},
	{"renegotiation_info", sampleReneg, ClientExtensions{RenegotiationInfo: true},
		[]lengthField{{"extension", 2, 2}, {"renegotiated_connection", 4, 1}}},
}

type lengthField struct {
	name      string
	at, bytes int
}

// move adds to the field of a block.
func (f lengthField) move(block []byte, by int) {
	if f.bytes == 1 {
		block[f.at] += byte(by)
		return
	}
	binary.BigEndian.PutUint16(block[f.at:], binary.BigEndian.Uint16(block[f.at:])+uint16(by))
}

// allSamples is a block of all samples, in the order of sampleFields.
func allSamples() string {
	var all string
	for _, x := range sampleFields {
		all += x.block
	}
	return all
}

// names is a list of names of ALPN.
func names(all ...string) (list []byte) {
	for _, name := range all {
		list = append(append(list, byte(len(name))), name...)
	}
	return list
}

// sampleWant is what allSamples says.
func sampleWant() ClientExtensions {
	return ClientExtensions{
		ServerName:           "localhost",
		MaxFragmentLength:    2,
		SupportedGroups:      []byte{0, 0x17, 0, 0x1d},
		ECPointFormats:       []byte{0, 1, 2},
		SignatureAlgorithms:  []byte{4, 3, 8, 7},
		ALPN:                 names("h2", "coap"),
		ExtendedMasterSecret: true,
		RecordSizeLimit:      0x4001,
		StatusRequest:        true,
		SCT:                  true,
		SupportedVersions:    []byte{0xfe, 0xfc, 0xfe, 0xfd},
		CertificateSchemes:   []byte{8, 4, 4, 3},
		ConnectionID:         []byte{7, 8, 9},
		ReturnRoutability:    true,
		RenegotiationInfo:    true,
		RenegotiatedInfo:     []byte{},
	}
}

// serverName and protocols make extensions of a list's content.
func serverName(list string) string {
	n := len(list) / 2
	return fmt.Sprintf("0000%04x%04x%s", n+2, n, list)
}

func protocols(list string) string {
	n := len(list) / 2
	return fmt.Sprintf("0010%04x%04x%s", n+2, n, list)
}

func TestParseClientExtensions(t *testing.T) {
	t.Parallel()
	const (
		hostA  = "00" + "0001" + "61"
		hostB  = "00" + "0001" + "62"
		other  = "01" + "0002" + "6161"
		long   = 255
		longer = 0x4000
	)
	tests := []struct {
		name  string
		block string
		want  ClientExtensions
		bad   bool
	}{
		{name: "none", block: ""},
		{name: "three", block: sampleEMS + sampleReneg + samplePoints,
			want: ClientExtensions{ExtendedMasterSecret: true, RenegotiationInfo: true, RenegotiatedInfo: []byte{}, ECPointFormats: []byte{0, 1, 2}}},
		{name: "other order", block: samplePoints + sampleReneg + sampleEMS,
			want: ClientExtensions{ExtendedMasterSecret: true, RenegotiationInfo: true, RenegotiatedInfo: []byte{}, ECPointFormats: []byte{0, 1, 2}}},
		{name: "all", block: allSamples(), want: sampleWant()},
		{name: "unknown is skipped", block: sampleUnknown + sampleEMS, want: ClientExtensions{ExtendedMasterSecret: true}},
		{name: "unknown and empty", block: "fafa" + "0000"},
		{name: "highest and lowest unknown number", block: "ffff" + "0000" + "0002" + "0000"},

		{name: "half a number", block: "00", bad: true},
		{name: "number only", block: "1234", bad: true},
		{name: "half a length", block: "1234" + "00", bad: true},
		{name: "a byte missing", block: "1234" + "0002" + "aa", bad: true},
		{name: "greatest length", block: "1234" + "ffff" + "aabb", bad: true},
		{name: "a byte behind the last", block: sampleUnknown + "00", bad: true},

		{name: "unknown twice", block: sampleUnknown + sampleEMS + sampleUnknown, bad: true},
		{name: "unknown twice with other content", block: sampleUnknown + "1234" + "0000", bad: true},
		{name: "number 2 twice", block: "0002" + "0000" + "0002" + "0000", bad: true},
		{name: "number 65535 twice", block: "ffff" + "0000" + "ffff" + "0000", bad: true},
		{name: "numbers 64 apart", block: "0040" + "0000" + "0080" + "0000" + "00c0" + "0000" + "0140" + "0000"},
		{name: "server_name twice, of other types", block: serverName(other) + serverName(other), bad: true},
		{name: "server_name twice, first of another type", block: serverName(other) + serverName(hostA), bad: true},

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

		// A server answers with an empty server_name, a client does not send it.
		{name: "server_name, empty", block: "0000" + "0000", bad: true},
		{name: "server_name, half a length", block: "0000" + "0001" + "00", bad: true},
		{name: "server_name, empty list", block: serverName(""), bad: true},
		{name: "server_name, empty host_name", block: serverName("00" + "0000"), bad: true},
		{name: "server_name, type only", block: serverName("00"), bad: true},
		{name: "server_name, half a name's length", block: serverName("00" + "00"), bad: true},
		{name: "server_name, two host_names", block: serverName(hostA + hostB), bad: true},
		{name: "server_name, the same host_name twice", block: serverName(hostA + hostA), bad: true},
		{name: "server_name, two host_names around another type", block: serverName(hostA + other + hostB), bad: true},
		{name: "server_name, another type", block: serverName(other)},
		{name: "server_name, another type twice", block: serverName(other + other)},
		{name: "server_name, another type first", block: serverName(other + hostA), want: ClientExtensions{ServerName: "a"}},
		{name: "server_name, another type last", block: serverName(hostA + other), want: ClientExtensions{ServerName: "a"}},
		{name: "server_name, empty name of another type", block: serverName(hostA + "01" + "0000"), bad: true},
		{name: "server_name, host_name and a byte", block: serverName(hostA + "00"), bad: true},
		{name: "server_name, a byte behind the list", block: "0000" + "0007" + "0004" + hostA + "00", bad: true},
		{name: "server_name, length in both bytes", block: serverName("00" + "0102" + strings.Repeat("61", 258)),
			want: ClientExtensions{ServerName: strings.Repeat("a", 258)}},

		{name: "max_fragment_length, empty", block: "0001" + "0000", bad: true},
		{name: "max_fragment_length 0", block: "0001" + "0001" + "00", bad: true},
		{name: "max_fragment_length 1", block: "0001" + "0001" + "01", want: ClientExtensions{MaxFragmentLength: 1}},
		{name: "max_fragment_length 4", block: "0001" + "0001" + "04", want: ClientExtensions{MaxFragmentLength: 4}},
		// Whether the code has a meaning is not the parser's to say.
		{name: "max_fragment_length 255", block: "0001" + "0001" + "ff", want: ClientExtensions{MaxFragmentLength: 255}},
		{name: "max_fragment_length of two bytes", block: "0001" + "0002" + "0102", bad: true},

		{name: "supported_groups, empty", block: "000a" + "0000", bad: true},
		{name: "supported_groups, half a length", block: "000a" + "0001" + "00", bad: true},
		{name: "supported_groups, empty list", block: "000a" + "0002" + "0000", bad: true},
		{name: "supported_groups, half a group", block: "000a" + "0003" + "0001" + "00", bad: true},
		{name: "supported_groups, one group", block: "000a" + "0004" + "0002" + "001d", want: ClientExtensions{SupportedGroups: []byte{0, 0x1d}}},
		{name: "supported_groups, one and a half groups", block: "000a" + "0005" + "0003" + "001d00", bad: true},
		{name: "supported_groups, a group behind the list", block: "000a" + "0006" + "0002" + "001d0017", bad: true},
		{name: "supported_groups, length in both bytes", block: "000a" + "0104" + "0102" + strings.Repeat("001d", 129),
			want: ClientExtensions{SupportedGroups: bytes.Repeat([]byte{0, 0x1d}, 129)}},

		{name: "signature_algorithms, empty", block: "000d" + "0000", bad: true},
		{name: "signature_algorithms, half a length", block: "000d" + "0001" + "00", bad: true},
		{name: "signature_algorithms, empty list", block: "000d" + "0002" + "0000", bad: true},
		{name: "signature_algorithms, half a scheme", block: "000d" + "0003" + "0001" + "04", bad: true},
		{name: "signature_algorithms, one scheme", block: "000d" + "0004" + "0002" + "0403", want: ClientExtensions{SignatureAlgorithms: []byte{4, 3}}},
		{name: "signature_algorithms, one and a half schemes", block: "000d" + "0005" + "0003" + "040304", bad: true},
		{name: "signature_algorithms, a scheme behind the list", block: "000d" + "0006" + "0002" + "04030503", bad: true},
		{name: "signature_algorithms, length in both bytes", block: "000d" + "0104" + "0102" + strings.Repeat("0403", 129),
			want: ClientExtensions{SignatureAlgorithms: bytes.Repeat([]byte{4, 3}, 129)}},

		{name: "ALPN, empty", block: "0010" + "0000", bad: true},
		{name: "ALPN, half a length", block: "0010" + "0001" + "00", bad: true},
		{name: "ALPN, empty list", block: protocols(""), bad: true},
		{name: "ALPN, empty name", block: protocols("00"), bad: true},
		{name: "ALPN, empty name first", block: protocols("00" + "026832"), bad: true},
		{name: "ALPN, empty name last", block: protocols("026832" + "00"), bad: true},
		{name: "ALPN, length only", block: protocols("02"), bad: true},
		{name: "ALPN, a byte missing", block: protocols("0268"), bad: true},
		{name: "ALPN, one name", block: protocols("026832"), want: ClientExtensions{ALPN: names("h2")}},
		{name: "ALPN, a name twice", block: protocols("026832" + "026832"), want: ClientExtensions{ALPN: names("h2", "h2")}},
		{name: "ALPN, any bytes", block: protocols("03" + "00ff0a"), want: ClientExtensions{ALPN: names("\x00\xff\n")}},
		{name: "ALPN, a name behind the list", block: "0010" + "0008" + "0003" + "026832" + "026832", bad: true},
		{name: "ALPN, longest name", block: protocols("ff" + strings.Repeat("61", long)), want: ClientExtensions{ALPN: names(strings.Repeat("a", long))}},
		{name: "ALPN, many names", block: protocols(strings.Repeat("0161", longer)), want: ClientExtensions{ALPN: names(slices.Repeat([]string{"a"}, longer)...)}},

		{name: "status_request, empty", block: "0005" + "0000", bad: true},
		{name: "status_request, type only", block: "0005" + "0001" + "01", bad: true},
		{name: "status_request with a responder and an extension", block: "0005" + "000a" + "01" + "0003" + "0001aa" + "0002" + "bbcc", want: ClientExtensions{StatusRequest: true}},
		{name: "status_request of another type", block: "0005" + "0003" + "02" + "aabb"},
		{name: "signed_certificate_timestamp with content", block: "0012" + "0001" + "00", bad: true},
		{name: "supported_versions, empty", block: "002b" + "0000", bad: true},
		{name: "supported_versions, empty list", block: "002b" + "0001" + "00", bad: true},
		{name: "supported_versions, half a version", block: "002b" + "0002" + "01" + "fe", bad: true},
		{name: "supported_versions, a version behind the list", block: "002b" + "0005" + "02" + "fefdfefc", bad: true},
		{name: "signature_algorithms_cert, empty list", block: "0032" + "0002" + "0000", bad: true},
		{name: "signature_algorithms_cert, half a scheme", block: "0032" + "0003" + "0001" + "04", bad: true},

		{name: "record_size_limit, empty", block: "001c" + "0000", bad: true},
		{name: "record_size_limit of one byte", block: "001c" + "0001" + "40", bad: true},
		{name: "record_size_limit of three bytes", block: "001c" + "0003" + "400000", bad: true},
		{name: "record_size_limit 0", block: "001c" + "0002" + "0000", bad: true},
		// Whether the limit is too low is not the parser's to say.
		{name: "record_size_limit 1", block: "001c" + "0002" + "0001", want: ClientExtensions{RecordSizeLimit: 1}},
		{name: "record_size_limit 65535", block: "001c" + "0002" + "ffff", want: ClientExtensions{RecordSizeLimit: 65535}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, ok := ParseClientExtensions(unhex(t, test.block))
			if ok == test.bad {
				t.Fatalf("ok = %v", ok)
			}
			// What fails returns nothing: want is zero.
			wantSameExtensions(t, got, test.want)
		})
	}
}

// TestParseClientExtensionsEach reads each sample alone, behind, and in front of
// every other one, and twice.
func TestParseClientExtensionsEach(t *testing.T) {
	t.Parallel()
	for i, x := range sampleFields {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			got, ok := ParseClientExtensions(unhex(t, x.block))
			if !ok {
				t.Fatal("does not parse")
			}
			wantSameExtensions(t, got, x.want)
			for j, y := range sampleFields {
				got, ok := ParseClientExtensions(unhex(t, x.block+y.block))
				if ok != (i != j) {
					t.Errorf("in front of %s: ok = %v", y.name, ok)
				}
				if !ok {
					wantSameExtensions(t, got, ClientExtensions{})
				}
				if _, ok := ParseClientExtensions(unhex(t, x.block+y.block+x.block)); ok {
					t.Errorf("twice, around %s, unnoticed", y.name)
				}
			}
		})
	}
}

// TestParseClientExtensionsTruncated cuts the content of each sample, and says
// so in the extension's length.
func TestParseClientExtensionsTruncated(t *testing.T) {
	t.Parallel()
	for _, x := range sampleFields {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			block := unhex(t, x.block)
			for n := range len(block) {
				if _, ok := ParseClientExtensions(block[:n]); ok != (n == 0) {
					t.Errorf("the first %d bytes: ok = %v", n, ok)
				}
				if n < 4 {
					continue
				}
				cut := bytes.Clone(block[:n])
				binary.BigEndian.PutUint16(cut[2:], uint16(n-4))
				if e, ok := ParseClientExtensions(cut); ok {
					t.Errorf("%x parses: %+v", cut, e)
				}
				if e, ok := ParseClientExtensions(append(cut, unhex(t, sampleUnknown)...)); ok {
					t.Errorf("%x with another behind parses: %+v", cut, e)
				}
			}
		})
	}
}

// TestParseClientExtensionsLengths moves every length field by one, of each
// sample alone and in a block of all.
func TestParseClientExtensionsLengths(t *testing.T) {
	t.Parallel()
	block := allSamples()
	if _, ok := ParseClientExtensions(unhex(t, block)); !ok {
		t.Fatal("the block itself does not parse")
	}
	next := 0
	for _, x := range sampleFields {
		start := next
		next += len(x.block) / 2
		for _, field := range x.fields {
			for _, by := range []int{-1, +1} {
				t.Run(fmt.Sprintf("%s/%s%+d", x.name, field.name, by), func(t *testing.T) {
					t.Parallel()
					b := unhex(t, x.block)
					field.move(b, by)
					if e, ok := ParseClientExtensions(b); ok {
						t.Errorf("alone it parses: %+v", e)
					}
					b = unhex(t, block)
					field.move(b[start:], by)
					if e, ok := ParseClientExtensions(b); ok {
						t.Errorf("parses: %+v", e)
					}
				})
			}
		}
	}
}

// TestParseClientExtensionsMany has a quarter of all extension numbers once, in
// an order that visits far ones, and then one of them again.
func TestParseClientExtensionsMany(t *testing.T) {
	t.Parallel()
	known := []uint16{
		extensionServerName, extensionMaxFragmentLength, extensionSupportedGroups, extensionECPointFormats, extensionSignatureAlgorithms,
		extensionALPN, extensionExtendedMasterSecret, extensionRecordSizeLimit, extensionRenegotiationInfo,
		extensionStatusRequest, extensionSCT, extensionSupportedVersions, extensionCertificateSchemes,
		extensionConnectionID, extensionReturnRoutability,
	}
	if len(known) != len(sampleFields) {
		t.Errorf("%d extensions, %d samples", len(known), len(sampleFields))
	}
	var block []byte
	for i := range 1 << 14 {
		id := uint16(i * 40503) // odd: visits 2^14 different numbers
		if slices.Contains(known, id) {
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

// TestSupportedVersions reads supported_versions alone, among others, and where
// it is malformed or behind what is.
func TestSupportedVersions(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, block, want string }{
		{"none", "", ""},
		{"alone", sampleVersions, "fefcfefd"},
		{"among others", allSamples(), "fefcfefd"},
		{"behind what is malformed", "0017" + "0001" + "00" + sampleVersions, "fefcfefd"},
		{"behind what is cut short", "0017" + "0100" + "00", ""},
		{"cut short", sampleVersions[:len(sampleVersions)-2], ""},
		{"empty", "002b" + "0001" + "00", ""},
		{"half a version", "002b" + "0002" + "01fe", ""},
		{"a byte behind the list", "002b" + "0004" + "02fefd" + "00", ""},
		{"in front of what is malformed", sampleVersions + "00", "fefcfefd"},
	}
	for _, test := range tests {
		if got := SupportedVersions(unhex(t, test.block)); !bytes.Equal(got, unhex(t, test.want)) || (got == nil) != (test.want == "") {
			t.Errorf("%s: %x, want %s", test.name, got, test.want)
		}
	}
}

func TestServerExtensionsAppend(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		extensions ServerExtensions
		want       string
	}{
		{"none", ServerExtensions{}, ""},
		{"renegotiation_info", ServerExtensions{RenegotiationInfo: true}, "0005" + "ff01" + "0001" + "00"},
		{"extended_master_secret", ServerExtensions{ExtendedMasterSecret: true}, "0004" + "0017" + "0000"},
		{"ec_point_formats", ServerExtensions{ECPointFormats: true}, "0006" + "000b" + "0002" + "01" + "00"},
		{"ALPN", ServerExtensions{ALPN: "h2"}, "0009" + "0010" + "0005" + "0003" + "02" + "6832"},
		{"ALPN, one byte", ServerExtensions{ALPN: "a"}, "0008" + "0010" + "0004" + "0002" + "01" + "61"},
		{"ALPN, 254 bytes", ServerExtensions{ALPN: strings.Repeat("a", 254)},
			"0105" + "0010" + "0101" + "00ff" + "fe" + strings.Repeat("61", 254)},
		{"ALPN, longest name", ServerExtensions{ALPN: strings.Repeat("a", 255)},
			"0106" + "0010" + "0102" + "0100" + "ff" + strings.Repeat("61", 255)},
		{"max_fragment_length", ServerExtensions{MaxFragmentLength: 3}, "0005" + "0001" + "0001" + "03"},
		{"record_size_limit", ServerExtensions{RecordSizeLimit: 0x1234}, "0006" + "001c" + "0002" + "1234"},
		{"record_size_limit, low byte only", ServerExtensions{RecordSizeLimit: 64}, "0006" + "001c" + "0002" + "0040"},
		{"status_request", ServerExtensions{StatusRequest: true}, "0004" + "0005" + "0000"},
		{"signed_certificate_timestamp", ServerExtensions{SCTs: AppendSCTs(nil, [][]byte{{0xaa, 0xbb}, {0xcc}})},
			"000d" + "0012" + "0009" + "0007" + "0002" + "aabb" + "0001" + "cc"},
		{"all", ServerExtensions{
			RenegotiationInfo: true, ExtendedMasterSecret: true, ECPointFormats: true,
			ALPN: "coap", MaxFragmentLength: 1, RecordSizeLimit: 0x4001,
		}, "0025" + "ff01" + "0001" + "00" + "0017" + "0000" + "0001" + "0001" + "01" +
			"000b" + "0002" + "01" + "00" + "0010" + "0007" + "0005" + "04" + "636f6170" + "001c" + "0002" + "4001"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			wantBytes(t, "block", test.extensions.append(nil), unhex(t, test.want))
			wantBytes(t, "appended", test.extensions.append([]byte{0xee, 0xef}), unhex(t, "eeef"+test.want))
			// The block is the end of the message.
			random := unhex(t, sampleRandom)
			h := ServerHello{Version: VersionDTLS12, Random: random, CipherSuite: 0xc02b, ServerExtensions: test.extensions}
			wantBytes(t, "body", h.Append(nil), unhex(t, "fefd"+sampleRandom+"00"+"c02b"+"00"+test.want))
		})
	}
}
