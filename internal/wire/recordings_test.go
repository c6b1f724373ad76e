// The recorded ClientHellos of testdata/hellos: read, reassembled, and checked
// against what a separate decoder found in them.

package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// recordedHellos are the datagrams of each recorded hello, by file name.
func recordedHellos(tb testing.TB) map[string][][]byte {
	tb.Helper()
	return recordingsIn(tb, "testdata/hellos")
}

func recordingsIn(tb testing.TB, dir string) map[string][][]byte {
	tb.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.hex"))
	if err != nil || len(files) == 0 {
		tb.Fatalf("no recordings: %v", err)
	}
	all := map[string][][]byte{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			tb.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".hex")
		for _, line := range strings.Fields(string(text)) {
			datagram, err := hex.DecodeString(line)
			if err != nil {
				tb.Fatalf("%s: %v", file, err)
			}
			all[name] = append(all[name], datagram)
		}
	}
	return all
}

// recordedBody puts the fragments of one recorded hello together.
func recordedBody(tb testing.TB, datagrams [][]byte) (body []byte, first Record, fragments []Fragment) {
	tb.Helper()
	for i, d := range datagrams {
		r, rest, ok := ParseRecord(d, 0)
		if !ok || len(rest) > 0 || r.Type != ContentHandshake || r.Epoch != 0 {
			tb.Fatalf("datagram %d is not one handshake record of epoch 0: %x", i, d)
		}
		if i == 0 {
			first = r
		}
		f, rest, ok := ParseFragment(r.Payload)
		if !ok || len(rest) > 0 || f.Type != TypeClientHello || int(f.Offset) != len(body) {
			tb.Fatalf("datagram %d is not the next fragment of a ClientHello: %x", i, d)
		}
		body = append(body, f.Body...)
		fragments = append(fragments, f)
	}
	if int(fragments[0].Length) != len(body) {
		tb.Fatalf("%d bytes of body, want %d", len(body), fragments[0].Length)
	}
	return body, first, fragments
}

// What some clients offer in signature_algorithms.
const (
	erlangSchemes  = "02020201020303010303040108040809040305010805080a050306010806080b0603"
	gnutlsSchemes  = "040108090804040308070501080a0805050308080601080b0806060302010203"
	mbedtlsSchemes = "06030601050305010403040103030301"
	opensslSchemes = "040305030603080708080809080a080b080408050806040105010601030303010302040205020602"
	pion2Schemes   = "0403050306030401050106010807"
	pion3Schemes   = "0403050306030807080408050806040105010601"
)

// TestRecordedHellos has one row for each recording. All of them have DTLS 1.2
// as version, null as only compression method and no session ID. None offers a
// max_fragment_length or a protocol of ALPN.
func TestRecordedHellos(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name          string
		recordVersion uint16
		messageSeq    uint16
		cookie        int
		suites        int
		firstSuite    uint16
		extensions    int
		ems           bool
		renegotiation bool
		pointFormats  string
		serverName    string
		groups        string
		schemes       string

		recordSizeLimit uint16
	}{
		{name: "erlang-ca-1", recordVersion: 0xfefd, suites: 44, firstSuite: 0x00ff, extensions: 4, pointFormats: "00", serverName: "localhost", groups: "000e000d0019001c000b000c001b00180009000a001a00160017000800060007001400150004000500120013000100020003000f00100011", schemes: erlangSchemes},
		{name: "erlang-ca-2", recordVersion: 0xfefd, messageSeq: 1, cookie: 32, suites: 44, firstSuite: 0x00ff, extensions: 4, pointFormats: "00", serverName: "localhost", groups: "000e000d0019001c000b000c001b00180009000a001a00160017000800060007001400150004000500120013000100020003000f00100011", schemes: erlangSchemes},
		{name: "erlang-psk-1", recordVersion: 0xfefd, suites: 30, firstSuite: 0x00ff, extensions: 1, schemes: erlangSchemes},
		{name: "erlang-psk-2", recordVersion: 0xfefd, messageSeq: 1, cookie: 32, suites: 30, firstSuite: 0x00ff, extensions: 1, schemes: erlangSchemes},
		{name: "gnutls-ca-1", recordVersion: 0xfeff, suites: 25, firstSuite: 0xc02c, extensions: 9, ems: true, renegotiation: true, pointFormats: "00", groups: "001700180019001d001e01000101010201030104", schemes: gnutlsSchemes, recordSizeLimit: 16384},
		{name: "gnutls-ca-2", recordVersion: 0xfeff, messageSeq: 1, cookie: 32, suites: 25, firstSuite: 0xc02c, extensions: 9, ems: true, renegotiation: true, pointFormats: "00", groups: "001700180019001d001e01000101010201030104", schemes: gnutlsSchemes, recordSizeLimit: 16384},
		{name: "gnutls-psk-1", recordVersion: 0xfeff, suites: 17, firstSuite: 0xccac, extensions: 8, ems: true, renegotiation: true, pointFormats: "00", groups: "001700180019001d001e01000101010201030104", schemes: gnutlsSchemes, recordSizeLimit: 16384},
		{name: "gnutls-psk-2", recordVersion: 0xfeff, messageSeq: 1, cookie: 32, suites: 17, firstSuite: 0xccac, extensions: 8, ems: true, renegotiation: true, pointFormats: "00", groups: "001700180019001d001e01000101010201030104", schemes: gnutlsSchemes, recordSizeLimit: 16384},
		{name: "mbedtls-ca-1", recordVersion: 0xfefd, suites: 80, firstSuite: 0xcca8, extensions: 7, ems: true, pointFormats: "00", serverName: "localhost", groups: "0019001c0018001b00170016001a0015001400130012001d001e", schemes: mbedtlsSchemes},
		{name: "mbedtls-ca-2", recordVersion: 0xfefd, messageSeq: 1, cookie: 32, suites: 80, firstSuite: 0xcca8, extensions: 7, ems: true, pointFormats: "00", serverName: "localhost", groups: "0019001c0018001b00170016001a0015001400130012001d001e", schemes: mbedtlsSchemes},
		{name: "mbedtls-psk-1", recordVersion: 0xfefd, suites: 128, firstSuite: 0xcca8, extensions: 6, ems: true, pointFormats: "00", groups: "0019001c0018001b00170016001a0015001400130012001d001e", schemes: mbedtlsSchemes},
		{name: "mbedtls-psk-2", recordVersion: 0xfefd, messageSeq: 1, cookie: 32, suites: 128, firstSuite: 0xcca8, extensions: 6, ems: true, pointFormats: "00", groups: "0019001c0018001b00170016001a0015001400130012001d001e", schemes: mbedtlsSchemes},
		{name: "node-dtls-client-psk-1", recordVersion: 0xfeff, suites: 11, firstSuite: 0x008b},
		{name: "node-dtls-client-psk-2", recordVersion: 0xfeff, messageSeq: 1, cookie: 32, suites: 11, firstSuite: 0x008b},
		{name: "openssl-ca-1", recordVersion: 0xfeff, suites: 28, firstSuite: 0xc02c, extensions: 6, ems: true, pointFormats: "000102", groups: "001d0017001e00190018", schemes: opensslSchemes},
		{name: "openssl-ca-2", recordVersion: 0xfeff, messageSeq: 1, cookie: 32, suites: 28, firstSuite: 0xc02c, extensions: 6, ems: true, pointFormats: "000102", groups: "001d0017001e00190018", schemes: opensslSchemes},
		{name: "openssl-psk-1", recordVersion: 0xfeff, suites: 54, firstSuite: 0xc02c, extensions: 6, ems: true, pointFormats: "000102", groups: "001d0017001e00190018", schemes: opensslSchemes},
		{name: "openssl-psk-2", recordVersion: 0xfeff, messageSeq: 1, cookie: 32, suites: 54, firstSuite: 0xc02c, extensions: 6, ems: true, pointFormats: "000102", groups: "001d0017001e00190018", schemes: opensslSchemes},
		{name: "pion2-ca-1", recordVersion: 0xfefd, suites: 6, firstSuite: 0xc02b, extensions: 6, ems: true, renegotiation: true, pointFormats: "00", serverName: "localhost", groups: "001d00170018", schemes: pion2Schemes},
		{name: "pion2-ca-2", recordVersion: 0xfefd, messageSeq: 1, cookie: 32, suites: 6, firstSuite: 0xc02b, extensions: 6, ems: true, renegotiation: true, pointFormats: "00", serverName: "localhost", groups: "001d00170018", schemes: pion2Schemes},
		{name: "pion2-psk-1", recordVersion: 0xfefd, suites: 6, firstSuite: 0xc037, extensions: 6, ems: true, renegotiation: true, pointFormats: "00", serverName: "localhost", groups: "001d00170018", schemes: pion2Schemes},
		{name: "pion2-psk-2", recordVersion: 0xfefd, messageSeq: 1, cookie: 32, suites: 6, firstSuite: 0xc037, extensions: 6, ems: true, renegotiation: true, pointFormats: "00", serverName: "localhost", groups: "001d00170018", schemes: pion2Schemes},
		{name: "pion3-ca-1", recordVersion: 0xfefd, suites: 8, firstSuite: 0xc02b, extensions: 6, ems: true, renegotiation: true, pointFormats: "00", serverName: "localhost", groups: "001d00170018", schemes: pion3Schemes},
		{name: "pion3-ca-2", recordVersion: 0xfefd, messageSeq: 1, cookie: 32, suites: 8, firstSuite: 0xc02b, extensions: 6, ems: true, renegotiation: true, pointFormats: "00", serverName: "localhost", groups: "001d00170018", schemes: pion3Schemes},
		{name: "pion3-psk-1", recordVersion: 0xfefd, suites: 6, firstSuite: 0xc037, extensions: 6, ems: true, renegotiation: true, pointFormats: "00", serverName: "localhost", groups: "001d00170018", schemes: pion3Schemes},
		{name: "pion3-psk-2", recordVersion: 0xfefd, messageSeq: 1, cookie: 32, suites: 6, firstSuite: 0xc037, extensions: 6, ems: true, renegotiation: true, pointFormats: "00", serverName: "localhost", groups: "001d00170018", schemes: pion3Schemes},
		{name: "socat-ca-1", recordVersion: 0xfeff, suites: 72, firstSuite: 0xc02c, extensions: 7, ems: true, pointFormats: "000102", serverName: "localhost", groups: "0017", schemes: opensslSchemes},
		{name: "socat-ca-2", recordVersion: 0xfeff, messageSeq: 1, cookie: 32, suites: 72, firstSuite: 0xc02c, extensions: 7, ems: true, pointFormats: "000102", serverName: "localhost", groups: "0017", schemes: opensslSchemes},
	}
	all := recordedHellos(t)
	if len(all) != len(tests) {
		t.Errorf("%d recordings, %d rows", len(all), len(tests))
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			datagrams := all[test.name]
			if datagrams == nil {
				t.Fatal("no such recording")
			}
			body, first, fragments := recordedBody(t, datagrams)
			if first.Version != test.recordVersion {
				t.Errorf("record version %#04x, want %#04x", first.Version, test.recordVersion)
			}
			for i, f := range fragments {
				if f.MessageSeq != test.messageSeq {
					t.Errorf("message_seq %d, want %d", f.MessageSeq, test.messageSeq)
				}
				if f.Whole() != (len(fragments) == 1) {
					t.Errorf("fragment %d of %d: Whole() = %v", i, len(fragments), f.Whole())
				}
			}

			h, ok := ParseClientHello(body)
			if !ok {
				t.Fatal("does not parse")
			}
			if h.Version != VersionDTLS12 || !bytes.Equal(h.Random, body[2:34]) {
				t.Errorf("version %#04x, random %x", h.Version, h.Random)
			}
			if len(h.SessionID) != 0 || len(h.Cookie) != test.cookie || !bytes.Equal(h.CompressionMethods, []byte{0}) {
				t.Errorf("session_id %x, cookie %x, compression methods %x", h.SessionID, h.Cookie, h.CompressionMethods)
			}
			if len(h.CipherSuites) != 2*test.suites || binary.BigEndian.Uint16(h.CipherSuites) != test.firstSuite {
				t.Errorf("cipher suites %x", h.CipherSuites)
			}
			if !h.OffersSuite(test.firstSuite) || h.OffersSuite(0xfefe) {
				t.Error("OffersSuite is wrong")
			}
			if got := appendClientHello(nil, &h); !bytes.Equal(got, body) {
				t.Errorf("encoded again:\n got %x\nwant %x", got, body)
			}

			if (h.Extensions == nil) != (test.extensions == 0) {
				t.Errorf("extensions block %x, want %d extensions", h.Extensions, test.extensions)
			}
			if got := len(extensionEnds(t, h.Extensions)); got != test.extensions {
				t.Errorf("%d extensions, want %d", got, test.extensions)
			}
			e, ok := ParseClientExtensions(h.Extensions)
			if !ok {
				t.Fatal("the extensions do not parse")
			}
			if e.ExtendedMasterSecret != test.ems || e.RenegotiationInfo != test.renegotiation || len(e.RenegotiatedInfo) != 0 {
				t.Errorf("extensions %+v", e)
			}
			if hex.EncodeToString(e.ECPointFormats) != test.pointFormats {
				t.Errorf("ec_point_formats %x, want %s", e.ECPointFormats, test.pointFormats)
			}
			if e.ServerName != test.serverName || e.RecordSizeLimit != test.recordSizeLimit || e.MaxFragmentLength != 0 || e.ALPN != nil {
				t.Errorf("server_name %q, record_size_limit %d, max_fragment_length %d, ALPN %q", e.ServerName, e.RecordSizeLimit, e.MaxFragmentLength, e.ALPN)
			}
			if hex.EncodeToString(e.SupportedGroups) != test.groups {
				t.Errorf("supported_groups %x, want %s", e.SupportedGroups, test.groups)
			}
			if hex.EncodeToString(e.SignatureAlgorithms) != test.schemes {
				t.Errorf("signature_algorithms %x, want %s", e.SignatureAlgorithms, test.schemes)
			}
		})
	}
}

// TestRecordedHellosTruncated feeds every truncation of every recording to each
// parser. Only these are legal: a hello cut behind its compression methods,
// which then has no extensions block, and an extensions block cut between two
// extensions.
func TestRecordedHellosTruncated(t *testing.T) {
	t.Parallel()
	for name, datagrams := range recordedHellos(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, d := range datagrams {
				for n := range d {
					if _, _, ok := ParseRecord(d[:n], 0); ok {
						t.Errorf("the first %d of %d bytes are a record", n, len(d))
					}
				}
				payload := d[RecordHeaderLen:]
				for n := range payload {
					if _, _, ok := ParseFragment(payload[:n]); ok {
						t.Errorf("the first %d of %d bytes are a fragment", n, len(payload))
					}
				}
			}
			body, _, _ := recordedBody(t, datagrams)
			wantTruncations(t, body)
		})
	}
}

// wantTruncations feeds every truncation of a valid hello to its parsers.
func wantTruncations(t *testing.T, body []byte) {
	t.Helper()
	full, ok := ParseClientHello(body)
	if !ok {
		t.Fatalf("does not parse: %x", body)
	}
	fixed := full
	fixed.Extensions = nil
	fixedLen := len(appendClientHello(nil, &fixed))
	headLen := len(appendHelloHead(nil, &full))
	for n := range len(body) + 1 {
		h, rest, ok := ParseClientHelloHead(body[:n])
		if ok != (n >= headLen) {
			t.Errorf("ParseClientHelloHead of %d of %d bytes: %v", n, len(body), ok)
		}
		if ok && !(bytes.Equal(rest, body[headLen:n]) && bytes.Equal(appendHelloHead(nil, &h), body[:headLen])) {
			t.Errorf("ParseClientHelloHead of %d of %d bytes: %+v, rest %x", n, len(body), h, rest)
		}
		if _, ok := ParseClientHello(body[:n]); ok != (n == fixedLen || n == len(body)) {
			t.Errorf("ParseClientHello of %d of %d bytes: %v", n, len(body), ok)
		}
	}
	ends := append(extensionEnds(t, full.Extensions), 0)
	for n := range len(full.Extensions) + 1 {
		if _, ok := ParseClientExtensions(full.Extensions[:n]); ok != slices.Contains(ends, n) {
			t.Errorf("ParseClientExtensions of %d of %d bytes: %v", n, len(full.Extensions), ok)
		}
	}
}

// extensionEnds returns where each extension of a valid block ends.
func extensionEnds(tb testing.TB, block []byte) []int {
	tb.Helper()
	var ends []int
	for at := 0; at < len(block); {
		at += 4 + int(binary.BigEndian.Uint16(block[at+2:]))
		ends = append(ends, at)
	}
	return ends
}

// appendHelloHead appends the head of a hello, up to the cookie.
func appendHelloHead(dst []byte, h *ClientHello) []byte {
	dst = binary.BigEndian.AppendUint16(dst, h.Version)
	dst = append(dst, h.Random...)
	dst = append(append(dst, byte(len(h.SessionID))), h.SessionID...)
	return append(append(dst, byte(len(h.Cookie))), h.Cookie...)
}

// appendClientHello is the encoder that a server does not have.
func appendClientHello(dst []byte, h *ClientHello) []byte {
	dst = appendHelloHead(dst, h)
	dst = append(binary.BigEndian.AppendUint16(dst, uint16(len(h.CipherSuites))), h.CipherSuites...)
	dst = append(append(dst, byte(len(h.CompressionMethods))), h.CompressionMethods...)
	if h.Extensions != nil {
		dst = append(binary.BigEndian.AppendUint16(dst, uint16(len(h.Extensions))), h.Extensions...)
	}
	return dst
}
