// Tests of the PRF against published vectors and of the whole key schedule
// against handshakes that another implementation had with itself.

package suite

import (
	"bufio"
	"bytes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// TestPRF are the vectors for TLS 1.2 that were posted to the TLS working
// group's mailing list.
func TestPRF(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name               string
		suite              uint16
		secret, seed, want string
	}{
		{
			name: "SHA-256", suite: PSKWithAES128GCM,
			secret: "9bbe436ba940f017b17652849a71db35", seed: "a0ba9f936cda311827a6f796ffd5198c",
			want: "e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a" +
				"6b301791e90d35c9c9a46b4e14baf9af0fa022f7077def17abfd3797c0564bab" +
				"4fbc91666e9def9b97fce34f796789baa48082d122ee42c5a72e5a5110fff701" +
				"87347b66",
		},
		{
			name: "SHA-384", suite: PSKWithAES256GCM,
			secret: "b80b733d6ceefcdc71566ea48e5567df", seed: "cd665cf6a8447dd6ff8b27555edb7465",
			want: "7b0c18e9ced410ed1804f2cfa34a336a1c14dffb4900bb5fd7942107e81c83cd" +
				"e9ca0faa60be9fe34f82b1233c9146a0e534cb400fed2700884f9dc236f80edd" +
				"8bfa961144c9e8d792eca722a7b32fc3d416d473ebc2c5fd4abfdad05d918425" +
				"9b5bf8cd4d90fa0d31e2dec479e4f1a26066f2eea9a69236a3e52655c9e9aee6" +
				"91c8f3a26854308d5eaa3be85e0990703d73e56f",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := ByID(test.suite)
			secret, seed, want := unhex(t, test.secret), unhex(t, test.seed), unhex(t, test.want)
			// Every length is a prefix, also at the ends of HMAC blocks.
			for n := 1; n <= len(want); n++ {
				got := make([]byte, n)
				s.NewSecret(secret).prf(got, "test label", seed)
				if !bytes.Equal(got, want[:n]) {
					t.Fatalf("%d bytes:\n got %x\nwant %x", n, got, want[:n])
				}
				s.NewSecret(secret).prf(got, "test label", seed[:5], seed[5:])
				if !bytes.Equal(got, want[:n]) {
					t.Fatalf("%d bytes with the seed in two parts:\n got %x\nwant %x", n, got, want[:n])
				}
			}
		})
	}
}

func TestPSKPremaster(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, psk, want string }{
		{"one byte", "ff", "000100" + "0001ff"},
		{"six bytes", "1a2b3c4d5e6f", "0006000000000000" + "00061a2b3c4d5e6f"},
		{"length in both bytes", strings.Repeat("a5", 258), "0102" + strings.Repeat("00", 258) + "0102" + strings.Repeat("a5", 258)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			wantBytes(t, "premaster secret", AppendPSKPremaster(nil, unhex(t, test.psk)), unhex(t, test.want))
		})
	}
}

func TestECDHEPSKPremaster(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, shared, psk, want string }{
		{"both", "a1a2a3", "b1b2", "0003a1a2a3" + "0002b1b2"},
		{"as long as of P-256", strings.Repeat("5e", 32), "1a2b3c4d5e6f", "0020" + strings.Repeat("5e", 32) + "00061a2b3c4d5e6f"},
		{"leading zeros stay", "0000a1", "00b1", "00030000a1" + "000200b1"},
		{"lengths in both bytes", strings.Repeat("a1", 258), strings.Repeat("b1", 515),
			"0102" + strings.Repeat("a1", 258) + "0203" + strings.Repeat("b1", 515)},
		{"zeros are plain PSK", "000000", "b1b2b3", "0003000000" + "0003b1b2b3"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got := AppendECDHEPSKPremaster(nil, unhex(t, test.shared), unhex(t, test.psk))
			wantBytes(t, "premaster secret", got, unhex(t, test.want))
		})
	}
}

// recordedPSK is the key in the recorded handshakes.
const recordedPSK = "1a2b3c4d5e6f"

// recordedHandshake is one handshake of testdata/openssl-psk.txt.
type recordedHandshake struct {
	name      string
	suite     uint16
	ems       bool
	master    string
	datagrams []recordedDatagram
}

type recordedDatagram struct {
	client bool
	hex    string
}

func readHandshakes(t *testing.T) []recordedHandshake {
	t.Helper()
	file, err := os.Open("testdata/openssl-psk.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var all []recordedHandshake
	for lines := bufio.NewScanner(file); lines.Scan(); {
		word, value, ok := strings.Cut(lines.Text(), " ")
		if !ok || word == "#" {
			continue
		}
		if word == "handshake" {
			all = append(all, recordedHandshake{name: value})
			continue
		}
		h := &all[len(all)-1]
		switch word {
		case "suite":
			if _, err := fmt.Sscanf(value, "%x", &h.suite); err != nil {
				t.Fatal(err)
			}
		case "ems":
			h.ems = value == "yes"
		case "master":
			h.master = value
		case "client", "server":
			h.datagrams = append(h.datagrams, recordedDatagram{word == "client", value})
		default:
			t.Fatalf("unknown line %q", lines.Text())
		}
	}
	return all
}

// side is what one peer of a recorded handshake sent.
type side struct {
	random   []byte
	finished wire.Record
	data     wire.Record
}

// follow sorts a recorded handshake's records, and returns the transcript up to
// and with ClientKeyExchange. The first hello and the HelloVerifyRequest are no
// part of it (RFC 6347 section 4.2.1).
func follow(t *testing.T, h recordedHandshake) (client, server side, transcript []byte) {
	t.Helper()
	for _, d := range h.datagrams {
		s := &server
		if d.client {
			s = &client
		}
		for b := unhex(t, d.hex); len(b) > 0; {
			r, rest, ok := wire.ParseRecord(b, 0)
			if !ok {
				t.Fatalf("no record: %x", b)
			}
			b = rest
			switch {
			case r.Epoch == 0 && r.Type == wire.ContentHandshake:
				f, rest, ok := wire.ParseFragment(r.Payload)
				if !ok || !f.Whole() || len(rest) > 0 {
					t.Fatalf("not one whole message: %x", r.Payload)
				}
				switch f.Type {
				case wire.TypeHelloVerifyRequest:
					transcript = nil
					continue
				case wire.TypeClientHello, wire.TypeServerHello:
					s.random = f.Body[2 : 2+wire.RandomLen]
				}
				transcript = append(transcript, r.Payload...)
			case r.Epoch == 1 && r.Type == wire.ContentHandshake:
				s.finished = r
			case r.Epoch == 1 && r.Type == wire.ContentApplicationData:
				s.data = r
			}
		}
	}
	return client, server, transcript
}

// openRecorded opens a record by hand, and checks that sealing what it holds
// gives the same bytes.
func openRecorded(t *testing.T, s *Suite, aead cipher.AEAD, iv []byte, r wire.Record) []byte {
	t.Helper()
	explicit := s.ExplicitNonceLen()
	nonce := append(bytes.Clone(iv), r.Payload[:explicit]...)
	if explicit == 0 {
		for i, b := range r.Raw[3:11] {
			nonce[4+i] ^= b
		}
	}
	additional := append(bytes.Clone(r.Raw[3:11]), r.Raw[0], r.Raw[1], r.Raw[2])
	additional = binary.BigEndian.AppendUint16(additional, uint16(len(r.Payload)-s.Overhead()))
	plaintext, err := aead.Open(nil, nonce, r.Payload[explicit:], additional)
	if err != nil {
		t.Fatalf("the record with sequence number %d: %v", r.Seq, err)
	}
	wantBytes(t, "sealed again", aead.Seal(nil, nonce, plaintext, additional), r.Payload[explicit:])
	return plaintext
}

func TestKeyScheduleRecorded(t *testing.T) {
	t.Parallel()
	handshakes := readHandshakes(t)
	// Of a handshake with ECDHE nobody can record the premaster secret.
	recorded := map[uint16]int{}
	for _, h := range handshakes {
		recorded[h.suite]++
	}
	for _, s := range All() {
		want := 0
		if s.KeyExchange == PSK {
			want = 2 // with extended_master_secret and without
		}
		if recorded[s.ID] != want {
			t.Errorf("%d handshakes with %s, want %d", recorded[s.ID], s.Name, want)
		}
	}
	if len(handshakes) != 14 {
		t.Errorf("%d handshakes, want 14", len(handshakes))
	}
	for _, h := range handshakes {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			s := ByID(h.suite)
			client, server, transcript := follow(t, h)
			hashed := func() []byte {
				sum := s.Hash.New()
				sum.Write(transcript)
				return sum.Sum(nil)
			}

			premaster := AppendPSKPremaster(nil, unhex(t, recordedPSK))
			master := s.NewSecret(premaster).MasterSecret(client.random, server.random)
			if h.ems {
				master = s.NewSecret(premaster).ExtendedMasterSecret(hashed())
			}
			wantBytes(t, "master secret", master, unhex(t, h.master))

			keys := s.NewSecret(master).Keys(client.random, server.random)
			fromClient, err := s.AEAD.New(keys.ClientKey)
			if err != nil {
				t.Fatal(err)
			}
			fromServer, err := s.AEAD.New(keys.ServerKey)
			if err != nil {
				t.Fatal(err)
			}

			finished := openRecorded(t, s, fromClient, keys.ClientIV, client.finished)
			wantFinished(t, "client", finished, s.NewSecret(master).ClientVerifyData(hashed()))
			transcript = append(transcript, finished...)
			finished = openRecorded(t, s, fromServer, keys.ServerIV, server.finished)
			wantFinished(t, "server", finished, s.NewSecret(master).ServerVerifyData(hashed()))

			wantBytes(t, "client's data", openRecorded(t, s, fromClient, keys.ClientIV, client.data), []byte("from the client"))
			wantBytes(t, "server's data", openRecorded(t, s, fromServer, keys.ServerIV, server.data), []byte("from the server"))
		})
	}
}

func wantFinished(t *testing.T, who string, message, verifyData []byte) {
	t.Helper()
	f, rest, ok := wire.ParseFragment(message)
	if !ok || f.Type != wire.TypeFinished || !f.Whole() || len(rest) > 0 {
		t.Fatalf("the %s's Finished is %x", who, message)
	}
	wantBytes(t, who+"'s verify_data", verifyData, f.Body)
}

// TestKeysDoNotOverlap appends to each part of the key block: none may grow
// into the next.
func TestKeysDoNotOverlap(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, s *Suite) {
		k := s.NewSecret(sequence(0, MasterSecretLen)).Keys(sequence(1, 32), sequence(2, 32))
		for i, part := range [][]byte{k.ClientKey, k.ServerKey, k.ClientIV, k.ServerIV} {
			want := s.KeyLen
			if i >= 2 {
				want = s.FixedIVLen
			}
			if len(part) != want || cap(part) != want {
				t.Errorf("part %d has length %d and capacity %d, want %d", i, len(part), cap(part), want)
			}
		}
	})
}

// recordedExport is one session of testdata/openssl-export.txt.
type recordedExport struct {
	name                               string
	suite                              uint16
	clientRandom, serverRandom, master []byte
	label                              string
	want                               []byte // without a context
	contexts                           []exportContext
}

type exportContext struct{ context, want []byte }

func readExports(t *testing.T) []recordedExport {
	t.Helper()
	file, err := os.Open("testdata/openssl-export.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var all []recordedExport
	for lines := bufio.NewScanner(file); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 2 || f[0] == "#" {
			continue
		}
		if f[0] == "session" {
			all = append(all, recordedExport{name: f[1]})
			continue
		}
		r := &all[len(all)-1]
		switch f[0] {
		case "suite":
			if _, err := fmt.Sscanf(f[1], "%x", &r.suite); err != nil {
				t.Fatal(err)
			}
		case "client_random":
			r.clientRandom = unhex(t, f[1])
		case "server_random":
			r.serverRandom = unhex(t, f[1])
		case "master":
			r.master = unhex(t, f[1])
		case "label":
			r.label = f[1]
		case "openssl":
			r.want = unhex(t, f[1])
		case "context":
			c := exportContext{context: []byte{}, want: unhex(t, f[2])}
			if f[1] != "-" {
				c.context = unhex(t, f[1])
			}
			r.contexts = append(r.contexts, c)
		default:
			t.Fatalf("unknown line %q", lines.Text())
		}
	}
	return all
}

func TestExportRecorded(t *testing.T) {
	t.Parallel()
	sessions := readExports(t)
	if len(sessions) != 5 {
		t.Errorf("%d sessions, want 5", len(sessions))
	}
	for _, r := range sessions {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			s := ByID(r.suite)
			if len(r.contexts) != 3 {
				t.Errorf("%d contexts, want 3", len(r.contexts))
			}
			for _, c := range append(r.contexts, exportContext{nil, r.want}) {
				// What is shorter is a prefix.
				for n := range len(c.want) + 1 {
					got := s.NewSecret(r.master).Export(n, r.clientRandom, r.serverRandom, r.label, c.context)
					if !bytes.Equal(got, c.want[:n]) {
						t.Fatalf("%d bytes with context %s:\n got %x\nwant %x", n, short(c.context), got, c.want[:n])
					}
				}
			}
			for what, other := range map[string][]byte{
				"label":      s.NewSecret(r.master).Export(len(r.want), r.clientRandom, r.serverRandom, r.label+"2", nil),
				"randoms":    s.NewSecret(r.master).Export(len(r.want), r.serverRandom, r.clientRandom, r.label, nil),
				"no context": s.NewSecret(r.master).Export(len(r.want), r.clientRandom, r.serverRandom, r.label, []byte{0}),
			} {
				if len(r.want) > 1 && bytes.Equal(other, r.want) {
					t.Errorf("the same with another %s", what)
				}
			}
		})
	}
}
