// Tests of what a server of DTLS 1.3 answers to a ClientHello.

package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"reflect"
	"strings"
	"testing"
)

const (
	retryRandom = "cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c"
	// The head of a ServerHello, and supported_versions.
	sampleHead13  = "fefd" + sampleRandom + "00" + "1301" + "00"
	sampleRetry   = "fefd" + retryRandom + "00" + "1302" + "00"
	sampleVersion = "002b" + "0002" + "fefc"
)

func TestHelloRetryRequestRandom(t *testing.T) {
	t.Parallel()
	want := sha256.Sum256([]byte("HelloRetryRequest"))
	wantBytes(t, "random", []byte(HelloRetryRequestRandom), want[:])
	wantBytes(t, "sentinel", []byte(DowngradeSentinel), unhex(t, "444f574e47524401"))
}

func TestHelloRetryRequest(t *testing.T) {
	t.Parallel()
	const cookie, share = "002c" + "0006" + "0004" + "c0c1c2ff", "0033" + "0002" + "11ec"
	tests := []struct {
		name, in string
		want     HelloRetryRequest
	}{
		{"cookie", sampleRetry + "0010" + sampleVersion + cookie, HelloRetryRequest{CipherSuite: 0x1302, Cookie: []byte{0xc0, 0xc1, 0xc2, 0xff}}},
		{"group", sampleRetry + "000c" + sampleVersion + share, HelloRetryRequest{CipherSuite: 0x1302, Group: 0x11ec}},
		{"both", sampleRetry + "0016" + sampleVersion + cookie + share,
			HelloRetryRequest{CipherSuite: 0x1302, Cookie: []byte{0xc0, 0xc1, 0xc2, 0xff}, Group: 0x11ec}},
		{"neither", sampleRetry + "0006" + sampleVersion, HelloRetryRequest{CipherSuite: 0x1302}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			wantBytes(t, "body", test.want.Append([]byte{0xee}), unhex(t, "ee"+test.in))
			got, ok := ParseHelloRetryRequest(unhex(t, test.in))
			if !ok || !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, %v", got, ok)
			}
			if h, ok := ParseServerHello13(unhex(t, test.in)); ok {
				t.Errorf("it is a ServerHello: %+v", h)
			}
		})
	}
	at := len(sampleRetry) / 2
	wantMessage(t, "HelloRetryRequest", tests[2].in, []lengthField{{"session_id", 34, 1}, {"extensions", at, 2},
		{"supported_versions", at + 4, 2}, {"cookie extension", at + 10, 2}, {"cookie", at + 12, 2}, {"key_share", at + 20, 2}},
		func(body []byte) bool { _, ok := ParseHelloRetryRequest(body); return ok })
	for name, body := range map[string]string{
		"no version":             sampleRetry + "000a" + cookie,
		"version 1.2":            sampleRetry + "0006" + "002b" + "0002" + "fefd",
		"empty cookie":           sampleRetry + "000c" + sampleVersion + "002c" + "0002" + "0000",
		"group zero":             sampleRetry + "000c" + sampleVersion + "0033" + "0002" + "0000",
		"a key":                  sampleRetry + "000f" + sampleVersion + "0033" + "0005" + "001d" + "0001" + "aa",
		"a foreign extension":    sampleRetry + "000a" + sampleVersion + sampleEMS,
		"an extension twice":     sampleRetry + "000c" + sampleVersion + sampleVersion,
		"no extensions block":    sampleRetry,
		"another random":         sampleHead13 + "0006" + sampleVersion,
		"session_id":             "fefd" + retryRandom + "01aa" + "1302" + "00" + "0006" + sampleVersion,
		"compression":            "fefd" + retryRandom + "00" + "1302" + "01" + "0006" + sampleVersion,
		"legacy_version of 1.3":  "fefc" + retryRandom + "00" + "1302" + "00" + "0006" + sampleVersion,
		"an extension not whole": sampleRetry + "0008" + sampleVersion + "002c",
	} {
		if h, ok := ParseHelloRetryRequest(unhex(t, body)); ok {
			t.Errorf("%s: %+v", name, h)
		}
	}
}

// TestHelloRetryRequestLen: the amplification bound of the server rests on these sums.
func TestHelloRetryRequestLen(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		cookie int
		group  uint16
		want   int
	}{{52, 0, 129}, {52, 0x1d, 135}, {68, 0, 145}, {68, 0x1d, 151}} {
		h := HelloRetryRequest{CipherSuite: 0x1301, Cookie: make([]byte, test.cookie), Group: test.group}
		if n := RecordHeaderLen + HandshakeHeaderLen + len(h.Append(nil)); n != test.want {
			t.Errorf("cookie of %d bytes, group %#x: a datagram of %d bytes, want %d", test.cookie, test.group, n, test.want)
		}
	}
}

func TestServerHello13(t *testing.T) {
	t.Parallel()
	const share, psk = "0033" + "0007" + "001d" + "0003" + "aabbff", "0029" + "0002" + "0102"
	hello := func(edit func(*ServerHello13)) ServerHello13 {
		h := ServerHello13{Random: unhex(t, sampleRandom), SessionID: []byte{}, CipherSuite: 0x1301}
		edit(&h)
		return h
	}
	tests := []struct {
		name, in string
		want     ServerHello13
	}{
		{"version only", sampleHead13 + "0006" + sampleVersion, hello(func(*ServerHello13) {})},
		{"key_share", sampleHead13 + "0011" + sampleVersion + share,
			hello(func(h *ServerHello13) { h.KeyShare = KeyShare{0x1d, []byte{0xaa, 0xbb, 0xff}} })},
		{"pre_shared_key", sampleHead13 + "000c" + sampleVersion + psk, hello(func(h *ServerHello13) { h.PSK, h.PSKIndex = true, 0x0102 })},
		{"pre_shared_key 0", sampleHead13 + "000c" + sampleVersion + "0029" + "0002" + "0000", hello(func(h *ServerHello13) { h.PSK = true })},
		{"empty connection_id", sampleHead13 + "000b" + sampleVersion + "0036" + "0001" + "00", hello(func(h *ServerHello13) { h.ConnectionID = []byte{} })},
		{"connection_id and rrc", sampleHead13 + "0012" + sampleVersion + sampleCID + sampleRRC,
			hello(func(h *ServerHello13) { h.ConnectionID, h.ReturnRoutability = []byte{7, 8, 9}, true })},
		{"all", sampleHead13 + "0023" + sampleVersion + share + psk + sampleCID + sampleRRC, hello(func(h *ServerHello13) {
			h.KeyShare, h.PSK, h.PSKIndex = KeyShare{0x1d, []byte{0xaa, 0xbb, 0xff}}, true, 0x0102
			h.ConnectionID, h.ReturnRoutability = []byte{7, 8, 9}, true
		})},
		{"session_id", "fefd" + sampleRandom + "02a1ff" + "1301" + "00" + "0006" + sampleVersion, hello(func(h *ServerHello13) { h.SessionID = []byte{0xa1, 0xff} })},
		{"long key", sampleHead13 + "046e" + sampleVersion + "0033" + "0464" + "11ec" + "0460" + strings.Repeat("5a", 1120),
			hello(func(h *ServerHello13) { h.KeyShare = KeyShare{0x11ec, bytes.Repeat([]byte{0x5a}, 1120)} })},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			wantBytes(t, "body", test.want.Append([]byte{0xee}), unhex(t, "ee"+test.in))
			got, ok := ParseServerHello13(unhex(t, test.in))
			if !ok || !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, %v\nwant %+v", got, ok, test.want)
			}
		})
	}
	at := len(sampleHead13) / 2
	wantMessage(t, "ServerHello", tests[6].in, []lengthField{{"session_id", 34, 1}, {"extensions", at, 2}, {"supported_versions", at + 4, 2},
		{"key_share", at + 10, 2}, {"key", at + 14, 2}, {"pre_shared_key", at + 21, 2}, {"connection_id extension", at + 27, 2},
		{"connection_id", at + 29, 1}, {"rrc", at + 35, 2}},
		func(body []byte) bool { _, ok := ParseServerHello13(body); return ok })
	for name, body := range map[string]string{
		"no version":          sampleHead13 + "0006" + psk,
		"empty key":           sampleHead13 + "000e" + sampleVersion + "0033" + "0004" + "001d" + "0000",
		"group zero":          sampleHead13 + "000f" + sampleVersion + "0033" + "0005" + "0000" + "0001" + "aa",
		"group only":          sampleHead13 + "000c" + sampleVersion + "0033" + "0002" + "001d",
		"cookie":              sampleHead13 + "000d" + sampleVersion + "002c" + "0003" + "0001" + "c0",
		"1.2's":               sampleHead13 + "0004" + sampleEMS,
		"an extension twice":  sampleHead13 + "000e" + sampleVersion + sampleRRC + sampleRRC,
		"session_id too long": "fefd" + sampleRandom + "21" + strings.Repeat("a1", 33) + "1301" + "00" + "0006" + sampleVersion,
	} {
		if h, ok := ParseServerHello13(unhex(t, body)); ok {
			t.Errorf("%s: %+v", name, h)
		}
	}
}

func TestEncryptedExtensions(t *testing.T) {
	t.Parallel()
	const name, limit = "0000" + "0000", "001c" + "0002" + "4001"
	const protocol = "0010" + "0007" + "0005" + "04" + "636f6170"
	tests := []struct {
		name, in string
		want     EncryptedExtensions
		bad      bool
	}{
		{name: "none", in: "0000"},
		{name: "server_name", in: "0004" + name, want: EncryptedExtensions{ServerName: true}},
		{name: "supported_groups", in: "000a" + sampleGroups, want: EncryptedExtensions{SupportedGroups: []byte{0, 0x17, 0, 0x1d}}},
		{name: "ALPN", in: "000b" + protocol, want: EncryptedExtensions{ALPN: "coap"}},
		{name: "longest ALPN", in: "0106" + "0010" + "0102" + "0100" + "ff" + strings.Repeat("61", 255), want: EncryptedExtensions{ALPN: strings.Repeat("a", 255)}},
		{name: "record_size_limit", in: "0006" + limit, want: EncryptedExtensions{RecordSizeLimit: 0x4001}},
		{name: "all", in: "001f" + name + sampleGroups + protocol + limit,
			want: EncryptedExtensions{true, []byte{0, 0x17, 0, 0x1d}, "coap", 0x4001}},
		{name: "server_name with content", in: "0005" + "0000" + "0001" + "00", bad: true},
		{name: "two protocols", in: "000e" + sampleALPN, bad: true},
		{name: "record_size_limit 0", in: "0006" + "001c" + "0002" + "0000", bad: true},
		{name: "a foreign extension", in: "0004" + sampleEMS, bad: true},
		{name: "an extension twice", in: "0008" + name + name, bad: true},
		{name: "a byte behind", in: "0000" + "00", bad: true},
		{name: "empty", in: "", bad: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, ok := ParseEncryptedExtensions(unhex(t, test.in))
			if ok == test.bad || !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, %v", got, ok)
			}
			if ok {
				wantBytes(t, "body", test.want.Append([]byte{0xee}), unhex(t, "ee"+test.in))
			}
		})
	}
	wantMessage(t, "EncryptedExtensions", tests[6].in, []lengthField{{"extensions", 0, 2}, {"server_name", 4, 2}, {"supported_groups", 8, 2},
		{"groups", 10, 2}, {"ALPN", 18, 2}, {"protocols", 20, 2}, {"protocol", 22, 1}, {"record_size_limit", 29, 2}},
		func(body []byte) bool { _, ok := ParseEncryptedExtensions(body); return ok })
}

// FuzzServerHello13 gives the parsers of test peers the same body. What parses is encoded
// again and read once more: the order of the extensions may be another.
func FuzzServerHello13(f *testing.F) {
	f.Add(unhex(f, sampleRetry+"0016"+sampleVersion+"002c"+"0006"+"0004"+"c0c1c2ff"+"0033"+"0002"+"11ec"))
	f.Add(unhex(f, sampleHead13+"0023"+sampleVersion+"0033"+"0007"+"001d"+"0003"+"aabbff"+"0029"+"0002"+"0102"+sampleCID+sampleRRC))
	f.Add(unhex(f, "001f"+"00000000"+sampleGroups+"0010"+"0007"+"0005"+"04"+"636f6170"+sampleRecordSize))
	f.Fuzz(func(t *testing.T, body []byte) {
		retry, ok := ParseHelloRetryRequest(body)
		found, valid := naiveServerHello(body)
		isRetry := valid && hex.EncodeToString(body[2:34]) == retryRandom
		wantOK := func(what string, ok, want bool) {
			t.Helper()
			if ok != want {
				t.Fatalf("%s: ok = %v", what, ok)
			}
		}
		wantOK("HelloRetryRequest", ok, isRetry && body[34] == 0 && naiveAllowed(found, map[uint16]func([]byte) bool{
			43: naiveVersion,
			44: func(data []byte) bool { _, ok := naiveList(data, 2, 1); return ok },
			51: func(data []byte) bool { return len(data) == 2 && (data[0] != 0 || data[1] != 0) },
		}))
		if ok {
			again := retry.Append(nil)
			once, ok := ParseHelloRetryRequest(again)
			if !ok || !reflect.DeepEqual(once, retry) || len(again) != len(body) {
				t.Errorf("%+v was read again as %+v, %v", retry, once, ok)
			}
			wantWithin(t, "cookie", body, retry.Cookie)
		}

		hello, ok := ParseServerHello13(body)
		wantOK("ServerHello", ok, valid && !isRetry && naiveAllowed(found, map[uint16]func([]byte) bool{
			43: naiveVersion,
			41: func(data []byte) bool { return len(data) == 2 },
			51: func(data []byte) bool {
				if len(data) < 2 || data[0] == 0 && data[1] == 0 {
					return false
				}
				_, ok := naiveList(data[2:], 2, 1)
				return ok
			},
			54: func(data []byte) bool { _, rest, ok := naiveVector(data, 1); return ok && len(rest) == 0 },
			61: func(data []byte) bool { return len(data) == 0 },
		}))
		if ok {
			again := hello.Append(nil)
			once, ok := ParseServerHello13(again)
			if !ok || !reflect.DeepEqual(once, hello) || len(again) != len(body) {
				t.Errorf("%+v was read again as %+v, %v", hello, once, ok)
			}
			wantWithin(t, "random", body, hello.Random)
			wantWithin(t, "key", body, hello.KeyShare.Key)
			wantWithin(t, "connection ID", body, hello.ConnectionID)
		}

		encrypted, ok := ParseEncryptedExtensions(body)
		block, rest, whole := naiveVector(body, 2)
		if found, valid := naiveBlock(block); !whole || len(rest) > 0 || !valid {
			wantOK("EncryptedExtensions", ok, false)
		} else {
			wantOK("EncryptedExtensions", ok, naiveAllowed(found, map[uint16]func([]byte) bool{
				0:  func(data []byte) bool { return len(data) == 0 },
				10: func(data []byte) bool { _, ok := naiveList(data, 2, 2); return ok },
				16: func(data []byte) bool {
					list, ok := naiveList(data, 2, 1)
					if !ok {
						return false
					}
					_, ok = naiveList(list, 1, 1)
					return ok
				},
				28: func(data []byte) bool { return len(data) == 2 && (data[0] != 0 || data[1] != 0) },
			}))
		}
		if ok {
			again := encrypted.Append(nil)
			once, ok := ParseEncryptedExtensions(again)
			if !ok || !reflect.DeepEqual(once, encrypted) || len(again) != len(body) {
				t.Errorf("%+v was read again as %+v, %v", encrypted, once, ok)
			}
		}
	})
}

// naiveServerHello finds the extensions of a ServerHello in which legacy fields are as in
// 1.3 and supported_versions is there.
func naiveServerHello(body []byte) (found map[uint16][]byte, ok bool) {
	if len(body) < 35 || !bytes.Equal(body[:2], []byte{0xfe, 0xfd}) || body[34] > 32 {
		return nil, false
	}
	_, rest, ok := naiveVector(body[34:], 1)
	if !ok || len(rest) < 3 || rest[2] != 0 {
		return nil, false
	}
	block, rest, ok := naiveVector(rest[3:], 2)
	if !ok || len(rest) > 0 {
		return nil, false
	}
	found, ok = naiveBlock(block)
	return found, ok && found[43] != nil
}

// naiveAllowed reports whether each extension has a check and passes it.
func naiveAllowed(found map[uint16][]byte, checks map[uint16]func([]byte) bool) bool {
	for id, data := range found {
		if check := checks[id]; check == nil || !check(data) {
			return false
		}
	}
	return true
}

func naiveVersion(data []byte) bool { return bytes.Equal(data, []byte{0xfe, 0xfc}) }
