// Tests of the key schedule of DTLS 1.3 against computations of the test's own, and
// against keys and records that another implementation made.

package suite

import (
	"bytes"
	"crypto"
	"crypto/hkdf"
	reference "crypto/hmac"
	"encoding/binary"
	"fmt"
	"testing"
)

// expandLabel is HKDF-Expand-Label with the label of DTLS, by the standard library.
func expandLabel(t *testing.T, hash crypto.Hash, secret []byte, label string, context []byte, n int) []byte {
	t.Helper()
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(info, byte(6+len(label)))
	info = append(info, "dtls13"+label...)
	info = append(info, byte(len(context)))
	info = append(info, context...)
	out, err := hkdf.Expand(hash.New, secret, string(info), n)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func extract(t *testing.T, hash crypto.Hash, secret, salt []byte) []byte {
	t.Helper()
	out, err := hkdf.Extract(hash.New, secret, salt)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func sum(hash crypto.Hash, b []byte) []byte {
	h := hash.New()
	h.Write(b)
	return h.Sum(nil)
}

func mac(hash crypto.Hash, key, text []byte) []byte {
	h := reference.New(hash.New, key)
	h.Write(text)
	return h.Sum(nil)
}

// TestSchedule13 walks through the tree of RFC 8446 section 7.1 with one Schedule for
// all suites, with a pre-shared key, a secret of a key exchange, both and neither.
func TestSchedule13(t *testing.T) {
	t.Parallel()
	var s Schedule
	for _, suite := range All13() {
		for _, test := range []struct {
			name        string
			psk, shared []byte
		}{
			{"both", sequence(1, 16), sequence(2, 64)},
			{"psk_ke", sequence(1, 200), nil},
			{"certificate", nil, sequence(2, 32)},
			{"neither", []byte{}, []byte{}},
		} {
			h := suite.Hash
			size, zeros := h.Size(), make([]byte, h.Size())
			want := func(what string, got, want []byte) {
				t.Helper()
				wantBytes(t, fmt.Sprintf("%s, %s: %s", suite.Name, test.name, what), got, want)
			}
			expand := func(secret []byte, label string, context []byte, n int) []byte {
				t.Helper()
				return expandLabel(t, h, secret, label, context, n)
			}
			finished := func(secret, over []byte) []byte {
				t.Helper()
				return mac(h, expand(secret, "finished", nil, size), over)
			}
			orZeros := func(b []byte) []byte {
				if len(b) == 0 {
					return zeros
				}
				return b
			}
			hashes := [3][]byte{sum(h, []byte("a")), sum(h, []byte("b")), sum(h, []byte("c"))}
			empty := sum(h, nil)

			secret := extract(t, h, orZeros(test.psk), zeros)
			s.Begin(suite, test.psk)
			want("external binder", s.ExternalBinder(hashes[0]), finished(expand(secret, "ext binder", empty, size), hashes[0]))
			want("resumption binder", s.ResumptionBinder(hashes[0]), finished(expand(secret, "res binder", empty, size), hashes[0]))

			secret = extract(t, h, orZeros(test.shared), expand(secret, "derived", empty, size))
			s.Handshake(test.shared)
			client, server := s.HandshakeTraffic(hashes[0])
			want("client's handshake traffic secret", client, expand(secret, "c hs traffic", hashes[0], size))
			want("server's handshake traffic secret", server, expand(secret, "s hs traffic", hashes[0], size))
			server = bytes.Clone(server)
			want("client's Finished", s.Finished(client, hashes[1]), finished(expand(secret, "c hs traffic", hashes[0], size), hashes[1]))
			want("server's Finished", s.Finished(server, hashes[1]), finished(server, hashes[1]))

			secret = extract(t, h, zeros, expand(secret, "derived", empty, size))
			s.Master()
			client, server = s.ApplicationTraffic(hashes[1])
			want("client's application traffic secret", client, expand(secret, "c ap traffic", hashes[1], size))
			want("server's application traffic secret", server, expand(secret, "s ap traffic", hashes[1], size))
			exporter := bytes.Clone(s.ExporterMaster(hashes[1]))
			want("exporter master secret", exporter, expand(secret, "exp master", hashes[1], size))
			resumption := bytes.Clone(s.ResumptionMaster(hashes[2]))
			want("resumption master secret", resumption, expand(secret, "res master", hashes[2], size))

			// The rest needs no handshake.
			var kept Schedule
			kept.Become(suite)
			traffic := expand(secret, "c ap traffic", hashes[1], size)
			for range 2 {
				keys := kept.Keys(traffic)
				want("key", keys.Key, expand(traffic, "key", nil, suite.KeyLen))
				want("iv", keys.IV, expand(traffic, "iv", nil, 12))
				want("sn", keys.SN, expand(traffic, "sn", nil, suite.KeyLen))
				for _, part := range [][]byte{keys.Key, keys.IV, keys.SN} {
					if cap(part) != len(part) {
						t.Errorf("a part with length %d has capacity %d", len(part), cap(part))
					}
				}
				want("next secret", kept.NextTraffic(traffic), expand(traffic, "traffic upd", nil, size))
				traffic = bytes.Clone(kept.NextTraffic(traffic))
			}
			for _, nonce := range [][]byte{nil, {0}, {0, 1}, sequence(3, 255)} {
				want("pre-shared key", kept.ResumptionPSK(resumption, nonce), expand(resumption, "resumption", nonce, size))
			}
		}
	}
}

// TestExport13: every length is a prefix of no other, as it is in the label, and no
// context is an empty one.
func TestExport13(t *testing.T) {
	t.Parallel()
	for _, suite := range All13() {
		h := suite.Hash
		var s Schedule
		s.Become(suite)
		master := sequence(5, h.Size())
		for _, n := range []int{0, 1, 31, 32, 33, 48, 60, 97, 255 * h.Size()} {
			for _, label := range []string{"", "EXTRACTOR-dtls_srtp", string(sequence('a', MaxExporterLabel))} {
				for _, context := range [][]byte{nil, {}, {0}, sequence(1, 1000)} {
					got, err := s.Export(n, master, label, context)
					if err != nil {
						t.Fatal(err)
					}
					secret := expandLabel(t, h, master, label, sum(h, nil), h.Size())
					want := expandLabel(t, h, secret, "exporter", sum(h, context), n)
					wantBytes(t, fmt.Sprintf("%s, %d bytes, label of %d, context of %d", suite.Name, n, len(label), len(context)), got, want)
				}
			}
		}
		if got, err := s.Export(255*h.Size()+1, master, "label", nil); err == nil {
			t.Errorf("%s: exported %d bytes", suite.Name, len(got))
		}
		if got, err := s.Export(1, master, string(make([]byte, MaxExporterLabel+1)), nil); err == nil {
			t.Errorf("%s: exported %x with too long a label", suite.Name, got)
		}
	}
}

// TestResultsGoOn: what a Schedule returns can be handed to its next call.
func TestResultsGoOn(t *testing.T) {
	t.Parallel()
	suite := ByID13(AES256GCM)
	fresh := func() *Schedule {
		var s Schedule
		s.Begin(suite, sequence(1, 32))
		s.Handshake(sequence(2, 32))
		s.Master()
		return &s
	}
	hash, s := sequence(3, 48), fresh()
	exporter, resumption := bytes.Clone(s.ExporterMaster(hash)), bytes.Clone(s.ResumptionMaster(hash))
	psk := bytes.Clone(s.ResumptionPSK(resumption, nil))
	client, server := s.ApplicationTraffic(hash)
	secrets := [2][]byte{bytes.Clone(client), bytes.Clone(server)}
	for i, secret := range secrets {
		own := func() []byte {
			c, d := s.ApplicationTraffic(hash)
			return [2][]byte{c, d}[i]
		}
		wantBytes(t, "Finished", s.Finished(own(), hash), fresh().Finished(secret, hash))
		wantBytes(t, "next secret", s.NextTraffic(own()), fresh().NextTraffic(secret))
		wantBytes(t, "sn", s.Keys(own()).SN, fresh().Keys(secret).SN)
	}
	want, err := fresh().Export(40, exporter, "label", nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Export(40, s.ExporterMaster(hash), "label", nil)
	if err != nil {
		t.Fatal(err)
	}
	wantBytes(t, "exported", got, want)
	var other Schedule
	other.Begin(suite, psk)
	s.Begin(suite, s.ResumptionPSK(s.ResumptionMaster(hash), nil))
	wantBytes(t, "binder", s.ResumptionBinder(hash), other.ResumptionBinder(hash))
}

// TestForget13: what is forgotten is not there any more.
func TestForget13(t *testing.T) {
	t.Parallel()
	var s Schedule
	s.Forget()
	s.Begin(ByID13(AES256GCM), sequence(1, 32))
	s.Handshake(sequence(2, 32))
	s.HandshakeTraffic(sequence(3, 48))
	s.Forget()
	for what, b := range map[string][]byte{
		"inner": s.mac.inner, "outer": s.mac.outer, "pad": s.mac.pad[:], "scratch": s.mac.scratch[:],
		"secret": s.secret[:], "text": s.text[:], "out": s.out[:],
	} {
		if !bytes.Equal(b, make([]byte, len(b))) {
			t.Errorf("%s is %x", what, b)
		}
	}
}

// TestScheduleAllocations is not parallel: AllocsPerRun counts the whole process.
func TestScheduleAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector keeps on the heap what the stack has otherwise")
	}
	for _, suite := range All13() {
		psk, shared, hash := sequence(1, 32), sequence(2, 64), sequence(3, suite.Hash.Size())
		var s Schedule
		var kept [MaxHashLen]byte
		allocs := testing.AllocsPerRun(20, func() {
			s.Begin(suite, psk)
			s.ExternalBinder(hash)
			s.Handshake(shared)
			client, _ := s.HandshakeTraffic(hash)
			traffic := kept[:copy(kept[:], client)]
			s.Keys(traffic)
			s.Finished(traffic, hash)
			s.Master()
			s.ApplicationTraffic(hash)
			s.ExporterMaster(hash)
			s.ResumptionPSK(s.ResumptionMaster(hash), hash[:8])
			s.NextTraffic(traffic)
			s.Forget()
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations, want 0", suite.Name, allocs)
		}
	}
}

// TestForeignRecords are the keys and records of the tests of pion/dtls v4.0.1: the
// traffic secrets count up from 0, the record has epoch 3, a connection ID and the
// sequence number 0x0001020304050607.
func TestForeignRecords(t *testing.T) {
	t.Parallel()
	tests := []struct {
		suite          uint16
		plaintext      string
		key, iv, sn    string
		header         string // with the sequence number not encrypted
		sealed, masked string
	}{
		{
			suite: AES128GCM, plaintext: "dtls13 aes-128-gcm vector",
			key: "cc95abc258d309424ddbf7cba68bd77e", iv: "6d3299305dd209fc865cf8f1", sn: "c5b1a0649ea4fdafbe7e256665068222",
			header: "3fcafebabe0607002a", masked: "abc7",
			sealed: "82bacfceae1035329372dbcbdce0240faf434e68077fb4df25edc71ddd89db18b510ccd2518b77499d7e",
		},
		{
			suite: AES256GCM, plaintext: "dtls13 aes-256-gcm vector",
			key: "d6732c55efc102933ffe3af6922bdb7fe44d18f2b7307173758bfeb457a6f9bb", iv: "8ae6b315daa064c6dfa5f10a",
			sn:     "fc6f78156052e019518fb3ea0d77c796ca2da8796cc26b8e42c5b5395a72af1d",
			header: "3fcafebabe0607002a", masked: "cbe8",
			sealed: "799936beea392e94f73b56ad19e96f5ff607481e8abf5aa6895414e222eea46b4e2385ac65b6fc516ede",
		},
		{
			suite: ChaCha20, plaintext: "dtls13 chacha20-poly1305 vector",
			key: "fa36130205a96cbeb292e37361db797a5292833e60912c992462e04b0eba0ecd", iv: "6d3299305dd209fc865cf8f1",
			sn:     "534890654f2b1ca72683f148cdbae6a98ffeaaad7e23fc9e693486e2a92b6892",
			header: "3fcafebabe06070030", masked: "2877",
			sealed: "69f043b34d3e3b856ce115bab907b93c384fe7d6375a38b00d864a1562eedd91f386a79a681d216cd5ff74d73b419b97",
		},
	}
	for _, test := range tests {
		suite := ByID13(test.suite)
		t.Run(suite.Name, func(t *testing.T) {
			t.Parallel()
			var s Schedule
			s.Become(suite)
			keys := s.Keys(sequence(0, suite.Hash.Size()))
			wantBytes(t, "key", keys.Key, unhex(t, test.key))
			wantBytes(t, "iv", keys.IV, unhex(t, test.iv))
			wantBytes(t, "sn", keys.SN, unhex(t, test.sn))

			aead, err := suite.AEAD.New(keys.Key)
			if err != nil {
				t.Fatal(err)
			}
			sealed := unhex(t, test.sealed)
			inner := append([]byte(test.plaintext), 23)
			nonce := nonce13(keys.IV, 0x0001020304050607)
			wantBytes(t, "sealed", aead.Seal(nil, nonce, inner, unhex(t, test.header)), sealed)

			var m Mask
			if err := m.Init(suite.AEAD13, keys.SN); err != nil {
				t.Fatal(err)
			}
			mask := m.Of(sealed)
			wantBytes(t, "encrypted sequence number", []byte{6 ^ mask[0], 7 ^ mask[1]}, unhex(t, test.masked))
		})
	}
}

// nonce13 is the nonce of RFC 8446 section 5.3.
func nonce13(iv []byte, seq uint64) []byte {
	nonce := bytes.Clone(iv)
	for i, b := range binary.BigEndian.AppendUint64(nil, seq) {
		nonce[4+i] ^= b
	}
	return nonce
}

// BenchmarkSchedule13 is the key schedule of a full handshake.
func BenchmarkSchedule13(b *testing.B) {
	b.ReportAllocs()
	suite := ByID13(AES128GCM)
	shared, hash := sequence(2, 32), sequence(3, 32)
	var s Schedule
	var c, d [MaxHashLen]byte
	keep := func(client, server []byte) (x, y []byte) {
		return c[:copy(c[:], client)], d[:copy(d[:], server)]
	}
	for b.Loop() {
		s.Begin(suite, nil)
		s.Handshake(shared)
		client, server := keep(s.HandshakeTraffic(hash))
		s.Keys(client)
		s.Keys(server)
		s.Finished(client, hash)
		s.Finished(server, hash)
		s.Master()
		client, server = keep(s.ApplicationTraffic(hash))
		s.Keys(client)
		s.Keys(server)
		s.ExporterMaster(hash)
		s.ResumptionMaster(hash)
	}
}
