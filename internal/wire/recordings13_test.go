// The recorded ClientHellos of testdata/hellos13.

package wire

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"testing"
)

// recordedHello13 returns the body of a recorded hello.
func recordedHello13(tb testing.TB, name string) (body []byte, first Record, fragments []Fragment) {
	tb.Helper()
	return recordedBody(tb, recordingsIn(tb, "testdata/hellos13")[name])
}

// TestRecordedHellos13 has one row for each recording. All of them list version 1.3 alone,
// and have no legacy_cookie and no duplicates.
func TestRecordedHellos13(t *testing.T) {
	t.Parallel()
	cookie := bytes.Repeat([]byte{0xc0}, 52)
	const p256, x25519, p384, hybrid = 0x17, 0x1d, 0x18, 0x11ec
	pionGroups := []uint16{x25519, hybrid, p256, p384}
	tests := []struct {
		name       string
		messageSeq uint16
		fragments  int
		groups     []uint16
		shares     map[uint16]int // lengths of keys
		cookie     []byte
		psks       int
		serverName string
		alpn, cid  []byte
	}{
		{name: "pion4-ca-1", fragments: 1, groups: pionGroups, shares: map[uint16]int{x25519: 32}, serverName: "localhost"},
		{name: "pion4-ca-2", messageSeq: 1, fragments: 1, groups: pionGroups, shares: map[uint16]int{x25519: 32}, cookie: cookie,
			serverName: "localhost"},
		{name: "pion4-hybrid-1", fragments: 1, groups: []uint16{p256, hybrid}, shares: map[uint16]int{p256: 65}, serverName: "localhost", alpn: names("coap")},
		{name: "pion4-hybrid-2", messageSeq: 1, fragments: 2, groups: []uint16{p256, hybrid}, shares: map[uint16]int{hybrid: 1216}, cookie: cookie,
			serverName: "localhost", alpn: names("coap")},
		{name: "pion4-psk-cid-1", fragments: 1, groups: pionGroups, shares: map[uint16]int{x25519: 32}, psks: 1, cid: []byte{1, 2, 3, 4, 5, 6, 7, 8}},
		{name: "pion4-psk-cid-2", messageSeq: 1, fragments: 1, groups: pionGroups, shares: map[uint16]int{x25519: 32}, cookie: cookie, psks: 1,
			cid: []byte{1, 2, 3, 4, 5, 6, 7, 8}},
	}
	if n := len(recordingsIn(t, "testdata/hellos13")); n != len(tests) {
		t.Errorf("%d recordings, %d rows", n, len(tests))
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			body, first, fragments := recordedHello13(t, test.name)
			if RecordFormOf(first.Raw[0]) != FormPlain || fragments[0].MessageSeq != test.messageSeq || len(fragments) != test.fragments {
				t.Errorf("message %d in %d fragments", fragments[0].MessageSeq, len(fragments))
			}
			h, ok := ParseClientHello(body)
			if !ok || h.Version != VersionDTLS12 || len(h.Cookie) > 0 || !h.OffersSuite(0x1301) {
				t.Fatalf("hello %+v, %v", h, ok)
			}
			if _, ok := ParseClientExtensions(h.Extensions); !ok {
				t.Error("1.2 does not take it")
			}
			e, ok := ParseClientExtensions13(h.Extensions)
			wantExtensions13(t, h.Extensions, e, ok)
			if !ok || e.Duplicate || e.DuplicateShare || e.PSKNotLast || e.EarlyData {
				t.Fatalf("extensions %+v, %v", e, ok)
			}
			wantNumbers(t, "supported_versions", e.SupportedVersions, []uint16{VersionDTLS13})
			wantNumbers(t, "supported_groups", e.SupportedGroups, test.groups)
			wantBytes(t, "cookie", e.Cookie, test.cookie)
			wantBytes(t, "ALPN", e.ALPN, test.alpn)
			wantBytes(t, "connection_id", e.ConnectionID, test.cid)
			if e.ServerName != test.serverName || e.ReturnRoutability != (test.cid != nil) {
				t.Errorf("server_name %q, rrc %v", e.ServerName, e.ReturnRoutability)
			}
			if e.PSKs.IdentityCount != test.psks || e.PSKs.BinderCount != test.psks || test.psks > 0 && !slices.Contains(e.PSKModes, 1) {
				t.Errorf("%d identities, %d binders, modes %x", e.PSKs.IdentityCount, e.PSKs.BinderCount, e.PSKModes)
			}
			shares := 0
			for share := range e.KeyShares.All() {
				if shares++; len(share.Key) != test.shares[share.Group] {
					t.Errorf("a key of %d bytes for group %#x", len(share.Key), share.Group)
				}
			}
			if shares != len(test.shares) {
				t.Errorf("%d shares, want %d", shares, len(test.shares))
			}
		})
	}
}

// TestRecordedBinders13 checks the binders of both hellos of a client with a key, in the
// transcript of DTLS: the second one shows the form of message_hash and that the
// HelloRetryRequest can be written again.
func TestRecordedBinders13(t *testing.T) {
	t.Parallel()
	body1, _, _ := recordedHello13(t, "pion4-psk-cid-1")
	body2, _, _ := recordedHello13(t, "pion4-psk-cid-2")
	retry := HelloRetryRequest{CipherSuite: 0x1301, Cookie: bytes.Repeat([]byte{0xc0}, 52)}
	hash := sha256.Sum256(AppendTranscript(nil, TypeClientHello, body1))
	afterRetry := AppendTranscript(AppendMessageHash(nil, hash[:]), TypeServerHello, retry.Append(nil))
	for i, transcript := range [][]byte{nil, afterRetry} {
		body := [][]byte{body1, body2}[i]
		h, _ := ParseClientHello(body)
		e, ok := ParseClientExtensions13(h.Extensions)
		if !ok {
			t.Fatalf("hello %d does not parse", i+1)
		}
		head := TranscriptHeader(TypeClientHello, len(body))
		cut := body[:len(body)-len(h.Extensions)+e.PSKs.BindersAt]
		hash := sha256.Sum256(slices.Concat(transcript, head[:], cut))
		for _, psk := range e.PSKs.All() {
			if string(psk.Identity) != "dev7" || psk.ObfuscatedAge != 0 {
				t.Errorf("hello %d: identity %q, age %d", i+1, psk.Identity, psk.ObfuscatedAge)
			}
			wantBytes(t, "binder", psk.Binder, binderOf(t, []byte("0123456789abcdef"), "dtls13", "ext binder", hash[:]))
		}
	}
}
