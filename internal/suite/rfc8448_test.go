// Tests of what TLS 1.3 and DTLS 1.3 have in common against the handshakes of
// RFC 8448, with the label prefix of TLS.

package suite

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// trace is a section of testdata/rfc8448.txt. Each line of it must be compared or
// used.
type trace struct {
	lines  map[string][]byte
	unused map[string]bool
}

func readTraces(t *testing.T) map[string]*trace {
	t.Helper()
	file, err := os.Open("testdata/rfc8448.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	all := map[string]*trace{}
	var now *trace
	for lines := bufio.NewScanner(file); lines.Scan(); {
		word, value, ok := strings.Cut(lines.Text(), " ")
		switch {
		case !ok || word == "#":
		case word == "section":
			now = &trace{map[string][]byte{}, map[string]bool{}}
			all[value] = now
		default:
			now.lines[word], now.unused[word] = unhex(t, value), true
		}
	}
	return all
}

// has returns a line of the trace, or nil.
func (tr *trace) has(line string) []byte {
	delete(tr.unused, line)
	return tr.lines[line]
}

// want compares a value with that of the trace, if it shows it.
func (tr *trace) want(t *testing.T, line string, got []byte) {
	t.Helper()
	if want := tr.has(line); want != nil {
		wantBytes(t, line, got, want)
	}
}

// open opens the record of a line with a sequence number, and returns what it holds
// without its type.
func (tr *trace) open(t *testing.T, line string, keys TrafficKeys, seq uint64) []byte {
	t.Helper()
	aead, err := ByID13(AES128GCM).AEAD.New(keys.Key)
	if err != nil {
		t.Fatal(err)
	}
	record := tr.has(line)
	inner, err := aead.Open(nil, nonce13(keys.IV, seq), record[5:], record[:5])
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return inner[:len(inner)-1]
}

// messages cuts a flight into its messages.
func messages(flight []byte) (all [][]byte) {
	for len(flight) > 0 {
		n := 4 + int(flight[1])<<16 + int(flight[2])<<8 + int(flight[3])
		all, flight = append(all, flight[:n]), flight[n:]
	}
	return all
}

func TestRFC8448(t *testing.T) {
	t.Parallel()
	traces := readTraces(t)
	if len(traces) != 3 {
		t.Fatalf("%d sections, want 3", len(traces))
	}
	for _, section := range slices.Sorted(maps.Keys(traces)) {
		t.Run(section, func(t *testing.T) {
			t.Parallel()
			tr := traces[section]
			replay(t, tr)
			for line := range tr.unused {
				t.Errorf("nothing was done with the line %s", line)
			}
		})
	}
}

// replay computes a handshake anew.
func replay(t *testing.T, tr *trace) {
	suite := ByID13(AES128GCM)
	var transcript []byte
	hash := func() []byte { return sum(suite.Hash, transcript) }
	s := &Schedule{prefix: "tls13 "}
	clone := func(client, server []byte) ([]byte, []byte) { return bytes.Clone(client), bytes.Clone(server) }

	psk := tr.has("psk")
	s.Begin(suite, psk)
	tr.want(t, "early", s.secret[:32])

	if first := tr.has("first_client_hello"); first != nil {
		transcript = append(wire.AppendMessageHash(nil, sum(suite.Hash, first)), tr.has("hello_retry_request")...)
	}
	hello := tr.has("client_hello")
	if psk != nil {
		// One binder of 32 bytes, with its length, is a list with a length.
		cut := hello[:len(hello)-2-1-32]
		over := sum(suite.Hash, cut)
		tr.want(t, "binder_hash", over)
		tr.want(t, "binder", s.ResumptionBinder(over))
		wantBytes(t, "the hello's binder", s.ResumptionBinder(over), hello[len(cut)+3:])
	}
	transcript = append(transcript, hello...)
	transcript = append(transcript, tr.has("server_hello")...)

	s.Handshake(sharedOf(t, tr))
	tr.want(t, "handshake", s.secret[:32])
	tr.want(t, "hello_hash", hash())
	client, server := clone(s.HandshakeTraffic(hash()))
	tr.want(t, "client_handshake_traffic", client)
	tr.want(t, "server_handshake_traffic", server)
	tr.want(t, "client_handshake_key", s.Keys(client).Key)
	tr.want(t, "client_handshake_iv", s.Keys(client).IV)
	tr.want(t, "server_handshake_key", s.Keys(server).Key)
	tr.want(t, "server_handshake_iv", s.Keys(server).IV)

	flight := tr.has("server_flight")
	if flight == nil {
		flight = tr.open(t, "server_flight_record", s.Keys(server), 0)
	}
	var certificate *x509.Certificate
	for _, m := range messages(flight) {
		switch m[0] {
		case 11:
			// An empty context, and in a list one certificate without extensions.
			var err error
			if certificate, err = x509.ParseCertificate(m[4+1+3+3 : len(m)-2]); err != nil {
				t.Fatal(err)
			}
		case 15:
			tr.want(t, "certificate_verify_hash", hash())
			scheme, signature := uint16(m[4])<<8|uint16(m[5]), m[8:]
			if !Verify13(certificate.PublicKey, scheme, ServerSigned(hash()), signature) {
				t.Error("CertificateVerify does not verify")
			}
			if Verify13(certificate.PublicKey, scheme, ClientSigned(hash()), signature) {
				t.Error("CertificateVerify verifies as the client's")
			}
		case 20:
			verify := s.Finished(server, hash())
			tr.want(t, "server_finished", verify)
			wantBytes(t, "the server's verify_data", verify, m[4:])
		}
		transcript = append(transcript, m...)
	}

	s.Master()
	tr.want(t, "master", s.secret[:32])
	tr.want(t, "server_finished_hash", hash())
	clientData, serverData := clone(s.ApplicationTraffic(hash()))
	tr.want(t, "client_application_traffic", clientData)
	tr.want(t, "server_application_traffic", serverData)
	tr.want(t, "exporter_master", s.ExporterMaster(hash()))
	tr.want(t, "client_application_key", s.Keys(clientData).Key)
	tr.want(t, "client_application_iv", s.Keys(clientData).IV)
	tr.want(t, "server_application_key", s.Keys(serverData).Key)
	tr.want(t, "server_application_iv", s.Keys(serverData).IV)

	transcript = append(transcript, tr.has("end_of_early_data")...)
	finished := tr.open(t, "client_finished_record", s.Keys(client), 0)
	verify := s.Finished(client, hash())
	tr.want(t, "client_finished", verify)
	wantBytes(t, "the client's verify_data", verify, finished[4:])
	transcript = append(transcript, finished...)

	resumption := bytes.Clone(s.ResumptionMaster(hash()))
	tr.want(t, "resumption_master", resumption)
	tr.want(t, "resumption_psk", s.ResumptionPSK(resumption, tr.has("resumption_nonce")))
	if tr.lines["ticket_record"] != nil {
		if ticket := tr.open(t, "ticket_record", s.Keys(serverData), 0); ticket[0] != 4 {
			t.Errorf("the ticket is %x", ticket)
		}
		wantBytes(t, "the client's data", tr.open(t, "client_data_record", s.Keys(clientData), 0), sequence(0, 50))
	}
}

// sharedOf returns what the key pairs of the trace make, by the code of either peer.
func sharedOf(t *testing.T, tr *trace) []byte {
	t.Helper()
	client, server := tr.has("client_share"), tr.has("server_share")
	curve := Curve(GroupX25519)
	if len(client) == 65 {
		curve = Curve(GroupP256)
	}
	pair := func(line string) *KeyShare {
		key, err := curve.NewPrivateKey(tr.has(line))
		if err != nil {
			t.Fatal(err)
		}
		return &KeyShare{ecdh: key}
	}
	var secrets [2][]byte
	for i, p := range []struct {
		own         *KeyShare
		ours, other []byte
	}{{pair("client_private"), client, server}, {pair("server_private"), server, client}} {
		wantBytes(t, "share", p.own.Bytes(), p.ours)
		var err error
		if secrets[i], err = p.own.Secret(p.other); err != nil {
			t.Fatal(err)
		}
		tr.want(t, "shared", secrets[i])
	}
	wantBytes(t, "the server's secret", secrets[1], secrets[0])
	return secrets[0]
}
