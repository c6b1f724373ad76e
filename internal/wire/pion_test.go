// A second opinion: what pion/dtls reads from the recorded hellos and from what
// this package writes must be what this package says.

package wire

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/pion/dtls/v2/pkg/crypto/clientcertificate"
	"github.com/pion/dtls/v2/pkg/crypto/elliptic"
	"github.com/pion/dtls/v2/pkg/crypto/hash"
	"github.com/pion/dtls/v2/pkg/crypto/signature"
	"github.com/pion/dtls/v2/pkg/crypto/signaturehash"
	"github.com/pion/dtls/v2/pkg/protocol"
	"github.com/pion/dtls/v2/pkg/protocol/extension"
	"github.com/pion/dtls/v2/pkg/protocol/handshake"
	"github.com/pion/dtls/v2/pkg/protocol/recordlayer"
)

func TestPionRecordedHellos(t *testing.T) {
	t.Parallel()
	for name, datagrams := range recordedHellos(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, d := range datagrams {
				wantPionHeaders(t, d)
			}
			body, _, _ := recordedBody(t, datagrams)
			h, ok := ParseClientHello(body)
			if !ok {
				t.Fatal("does not parse")
			}
			var theirs handshake.MessageClientHello
			if err := theirs.Unmarshal(body); err != nil {
				t.Fatal(err)
			}
			if h.Version != pionVersion(theirs.Version) {
				t.Errorf("version %#04x, want %+v", h.Version, theirs.Version)
			}
			random := theirs.Random.MarshalFixed()
			wantBytes(t, "random", h.Random, random[:])
			wantBytes(t, "session_id", h.SessionID, theirs.SessionID)
			wantBytes(t, "cookie", h.Cookie, theirs.Cookie)
			var suites []byte
			for _, id := range theirs.CipherSuiteIDs {
				suites = binary.BigEndian.AppendUint16(suites, id)
				if !h.OffersSuite(id) {
					t.Errorf("OffersSuite(%#04x) = false", id)
				}
			}
			wantBytes(t, "cipher suites", h.CipherSuites, suites)

			e, ok := ParseClientExtensions(h.Extensions)
			if !ok {
				t.Fatal("the extensions do not parse")
			}
			// Of a ClientHello's ec_point_formats pion reads nothing.
			var ems, renegotiation bool
			var serverName string
			var groups []byte
			var protocols []string
			for _, x := range theirs.Extensions {
				switch x := x.(type) {
				case *extension.UseExtendedMasterSecret:
					ems = x.Supported
				case *extension.RenegotiationInfo:
					renegotiation = true
				case *extension.ServerName:
					serverName = x.ServerName
				case *extension.SupportedEllipticCurves:
					for _, group := range x.EllipticCurves {
						groups = binary.BigEndian.AppendUint16(groups, uint16(group))
					}
				case *extension.ALPN:
					protocols = x.ProtocolNameList
				}
			}
			if e.ServerName != serverName || !bytes.Equal(e.ALPN, names(protocols...)) {
				t.Errorf("got server_name %q, ALPN %q, want %q and %q", e.ServerName, e.ALPN, serverName, protocols)
			}
			wantBytes(t, "supported_groups", pionKnown(e.SupportedGroups, pionKnowsGroup), groups)
			wantBytes(t, "signature_algorithms", pionKnown(e.SignatureAlgorithms, pionKnowsScheme), pionSchemes(t, h.Extensions))
			if e.ExtendedMasterSecret != ems || e.RenegotiationInfo != renegotiation {
				t.Errorf("got %+v, want extended_master_secret %v, renegotiation_info %v", e, ems, renegotiation)
			}
		})
	}
}

// pionKnown is what is left of a list when pion, which drops what it does not
// know, has read it.
func pionKnown(list []byte, knows func(uint16) bool) []byte {
	var known []byte
	for ; len(list) >= 2; list = list[2:] {
		if knows(binary.BigEndian.Uint16(list)) {
			known = append(known, list[:2]...)
		}
	}
	return known
}

func pionKnowsGroup(group uint16) bool { return elliptic.Curves()[elliptic.Curve(group)] }

func pionKnowsScheme(scheme uint16) bool {
	_, knowsHash := hash.Algorithms()[hash.Algorithm(scheme>>8)]
	_, knowsSignature := signature.Algorithms()[signature.Algorithm(scheme&0xff)]
	return knowsHash && knowsSignature
}

// pionSchemes has pion read the signature_algorithms of a block, which it does
// not do by itself.
func pionSchemes(t *testing.T, block []byte) []byte {
	t.Helper()
	start := 0
	for _, end := range extensionEnds(t, block) {
		if binary.BigEndian.Uint16(block[start:]) == uint16(extension.SupportedSignatureAlgorithmsTypeValue) {
			var theirs extension.SupportedSignatureAlgorithms
			if err := theirs.Unmarshal(block[start:end]); err != nil {
				t.Fatal(err)
			}
			return pionSchemeBytes(theirs.SignatureHashAlgorithms)
		}
		start = end
	}
	return nil
}

func pionSchemeBytes(algorithms []signaturehash.Algorithm) []byte {
	var schemes []byte
	for _, a := range algorithms {
		schemes = append(schemes, byte(a.Hash), byte(a.Signature))
	}
	return schemes
}

// TestPionClientExtensions reads the extensions that pion writes.
func TestPionClientExtensions(t *testing.T) {
	t.Parallel()
	block, err := extension.Marshal([]extension.Extension{
		&extension.SupportedSignatureAlgorithms{SignatureHashAlgorithms: []signaturehash.Algorithm{
			{Hash: hash.SHA256, Signature: signature.ECDSA},
			{Hash: hash.Ed25519, Signature: signature.Ed25519},
		}},
		&extension.RenegotiationInfo{},
		&extension.SupportedEllipticCurves{EllipticCurves: []elliptic.Curve{elliptic.X25519, elliptic.P256, elliptic.P384}},
		&extension.SupportedPointFormats{PointFormats: []elliptic.CurvePointFormat{elliptic.CurvePointFormatUncompressed}},
		&extension.UseSRTP{ProtectionProfiles: []extension.SRTPProtectionProfile{extension.SRTP_AES128_CM_HMAC_SHA1_80}},
		&extension.ALPN{ProtocolNameList: []string{"coap", "h2"}},
		&extension.UseExtendedMasterSecret{Supported: true},
		&extension.ServerName{ServerName: "server.example"},
	})
	if err != nil {
		t.Fatal(err)
	}
	e, ok := ParseClientExtensions(block[2:])
	if !ok {
		t.Fatalf("%x does not parse", block)
	}
	wantSameExtensions(t, e, ClientExtensions{
		ServerName:           "server.example",
		SupportedGroups:      []byte{0, 29, 0, 23, 0, 24},
		ECPointFormats:       []byte{0},
		SignatureAlgorithms:  []byte{4, 3, 8, 7},
		ALPN:                 names("coap", "h2"),
		ExtendedMasterSecret: true,
		RenegotiationInfo:    true,
	})
}

// wantPionHeaders compares the record header and the handshake header of a
// recorded datagram.
func wantPionHeaders(t *testing.T, datagram []byte) {
	t.Helper()
	r, _, ok := ParseRecord(datagram, 0)
	if !ok {
		t.Fatal("no record")
	}
	var header recordlayer.Header
	if err := header.Unmarshal(datagram); err != nil {
		t.Fatal(err)
	}
	if byte(r.Type) != byte(header.ContentType) || r.Version != pionVersion(header.Version) ||
		r.Epoch != header.Epoch || r.Seq != header.SequenceNumber {
		t.Errorf("got %+v\nwant %+v", r, header)
	}
	f, _, ok := ParseFragment(r.Payload)
	if !ok {
		t.Fatal("no fragment")
	}
	var theirs handshake.Header
	if err := theirs.Unmarshal(r.Payload); err != nil {
		t.Fatal(err)
	}
	if byte(f.Type) != byte(theirs.Type) || f.Length != theirs.Length || f.MessageSeq != theirs.MessageSequence ||
		f.Offset != theirs.FragmentOffset || len(f.Body) != int(theirs.FragmentLength) {
		t.Errorf("got %+v\nwant %+v", f, theirs)
	}
}

func pionVersion(v protocol.Version) uint16 { return uint16(v.Major)<<8 | uint16(v.Minor) }

func TestPionRecordHeader(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		header recordlayer.Header
	}{
		{"epoch 0", recordlayer.Header{ContentType: protocol.ContentTypeHandshake, ContentLen: 60, Version: protocol.Version1_0}},
		{"every field", recordlayer.Header{ContentType: protocol.ContentTypeApplicationData, ContentLen: 0x0102, Version: protocol.Version1_2, Epoch: 0x0304, SequenceNumber: 0x05060708090a}},
		{"highest", recordlayer.Header{ContentType: protocol.ContentTypeAlert, ContentLen: 0xffff, Version: protocol.Version1_2, Epoch: 0xffff, SequenceNumber: recordlayer.MaxSequenceNumber}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := test.header
			want, err := h.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			got := AppendRecordHeader(nil, ContentType(h.ContentType), pionVersion(h.Version), h.Epoch, h.SequenceNumber, int(h.ContentLen))
			wantBytes(t, "header", got, want)
		})
	}
}

func TestPionServerHello(t *testing.T) {
	t.Parallel()
	random := unhex(t, sampleRandom)
	for _, h := range []ServerHello{
		{Version: VersionDTLS12, Random: random, CipherSuite: 0x00a8},
		{Version: VersionDTLS12, Random: random, CipherSuite: 0xc0a8, SessionID: []byte{1, 2, 3}},
		{Version: VersionDTLS12, Random: random, CipherSuite: 0x00a8, ServerExtensions: ServerExtensions{RenegotiationInfo: true}},
		{Version: VersionDTLS12, Random: random, CipherSuite: 0x00a8, ServerExtensions: ServerExtensions{ExtendedMasterSecret: true}},
		{Version: VersionDTLS12, Random: random, CipherSuite: 0x00a8, ServerExtensions: ServerExtensions{RenegotiationInfo: true, ExtendedMasterSecret: true}},
		{Version: VersionDTLS12, Random: random, CipherSuite: 0xc02b, ServerExtensions: ServerExtensions{ECPointFormats: true}},
		{Version: VersionDTLS12, Random: random, CipherSuite: 0x00a8, ServerExtensions: ServerExtensions{ALPN: "coap"}},
		{Version: VersionDTLS12, Random: random, CipherSuite: 0x00a8, ServerExtensions: ServerExtensions{MaxFragmentLength: 1, RecordSizeLimit: 0x4001}},
		// Not ServerName: pion takes the empty extension of a server for malformed.
		{Version: VersionDTLS12, Random: random, CipherSuite: 0xc02b, SessionID: []byte{1, 2, 3}, ServerExtensions: ServerExtensions{
			RenegotiationInfo: true, ExtendedMasterSecret: true, ECPointFormats: true, ALPN: "coap", MaxFragmentLength: 1, RecordSizeLimit: 0x4001}},
	} {
		var theirs handshake.MessageServerHello
		if err := theirs.Unmarshal(h.Append(nil)); err != nil {
			t.Errorf("%+v: %v", h, err)
			continue
		}
		theirRandom := theirs.Random.MarshalFixed()
		wantBytes(t, "random", theirRandom[:], random)
		wantBytes(t, "session_id", theirs.SessionID, h.SessionID)
		if pionVersion(theirs.Version) != h.Version || *theirs.CipherSuiteID != h.CipherSuite || theirs.CompressionMethod.ID != 0 {
			t.Errorf("they read %+v of %+v", theirs, h)
		}
		var ems, renegotiation bool
		var protocols []string
		for _, x := range theirs.Extensions {
			switch x := x.(type) {
			case *extension.UseExtendedMasterSecret:
				ems = x.Supported
			case *extension.RenegotiationInfo:
				renegotiation = x.RenegotiatedConnection == 0
			case *extension.ALPN:
				protocols = x.ProtocolNameList
			default:
				t.Errorf("an extension that was not asked for: %T", x)
			}
		}
		if ems != h.ExtendedMasterSecret || renegotiation != h.RenegotiationInfo {
			t.Errorf("they read extended_master_secret %v, renegotiation_info %v of %+v", ems, renegotiation, h)
		}
		if strings.Join(protocols, " ") != h.ALPN {
			t.Errorf("they read ALPN %q of %+v", protocols, h)
		}
	}
}

func TestPionHelloVerifyRequest(t *testing.T) {
	t.Parallel()
	cookie := bytes.Repeat([]byte{0xc0}, 32)
	var theirs handshake.MessageHelloVerifyRequest
	if err := theirs.Unmarshal(AppendHelloVerifyRequest(nil, VersionDTLS10, cookie)); err != nil {
		t.Fatal(err)
	}
	if pionVersion(theirs.Version) != VersionDTLS10 || !bytes.Equal(theirs.Cookie, cookie) {
		t.Errorf("they read %+v", theirs)
	}
}

// The key exchanges of pion's messages, the type of which cannot be named.
const (
	pionPSK   = 2
	pionECDHE = 4
)

func TestPionServerKeyExchange(t *testing.T) {
	t.Parallel()
	point := append([]byte{4}, bytes.Repeat([]byte{0xa5}, 64)...)
	params := AppendServerECDHParams(nil, 23, point)
	signed := bytes.Repeat([]byte{0x5a}, 71)
	tests := []struct {
		name string
		body []byte
		want handshake.MessageServerKeyExchange
	}{
		{"PSK", AppendServerKeyExchangePSK(nil, []byte("hint")),
			handshake.MessageServerKeyExchange{KeyExchangeAlgorithm: pionPSK, IdentityHint: []byte("hint")}},
		{"ECDHE_PSK", append(AppendServerKeyExchangePSK(nil, []byte("hint")), params...),
			handshake.MessageServerKeyExchange{KeyExchangeAlgorithm: pionPSK | pionECDHE, IdentityHint: []byte("hint"),
				EllipticCurveType: elliptic.CurveTypeNamedCurve, NamedCurve: elliptic.P256, PublicKey: point}},
		{"ECDHE_PSK, empty hint", append(AppendServerKeyExchangePSK(nil, nil), params...),
			handshake.MessageServerKeyExchange{KeyExchangeAlgorithm: pionPSK | pionECDHE, IdentityHint: []byte{},
				EllipticCurveType: elliptic.CurveTypeNamedCurve, NamedCurve: elliptic.P256, PublicKey: point}},
		{"ECDHE_ECDSA", AppendSignature(bytes.Clone(params), 0x0503, signed),
			handshake.MessageServerKeyExchange{KeyExchangeAlgorithm: pionECDHE,
				EllipticCurveType: elliptic.CurveTypeNamedCurve, NamedCurve: elliptic.P256, PublicKey: point,
				HashAlgorithm: hash.SHA384, SignatureAlgorithm: signature.ECDSA, Signature: signed}},
		{"ECDHE_RSA with x25519", AppendSignature(AppendServerECDHParams(nil, 29, point[:32]), 0x0401, signed),
			handshake.MessageServerKeyExchange{KeyExchangeAlgorithm: pionECDHE,
				EllipticCurveType: elliptic.CurveTypeNamedCurve, NamedCurve: elliptic.X25519, PublicKey: point[:32],
				HashAlgorithm: hash.SHA256, SignatureAlgorithm: signature.RSA, Signature: signed}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			theirs := handshake.MessageServerKeyExchange{KeyExchangeAlgorithm: test.want.KeyExchangeAlgorithm}
			if err := theirs.Unmarshal(test.body); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(theirs, test.want) {
				t.Errorf("they read %+v\nwant %+v", theirs, test.want)
			}
			body, err := test.want.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			wantBytes(t, "body", test.body, body)
		})
	}
}

func TestPionClientKeyExchange(t *testing.T) {
	t.Parallel()
	point := append([]byte{4}, bytes.Repeat([]byte{0xa5}, 64)...)
	marshal := func(m handshake.MessageClientKeyExchange) []byte {
		body, err := m.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return body
	}
	identity, ok := ParseClientKeyExchangePSK(marshal(handshake.MessageClientKeyExchange{IdentityHint: []byte("device 7")}))
	if !ok || string(identity) != "device 7" {
		t.Errorf("PSK: identity %q, ok = %v", identity, ok)
	}
	public, ok := ParseClientKeyExchangeECDHE(marshal(handshake.MessageClientKeyExchange{PublicKey: point}))
	if !ok || !bytes.Equal(public, point) {
		t.Errorf("ECDHE: public key %x, ok = %v", public, ok)
	}
	both := marshal(handshake.MessageClientKeyExchange{IdentityHint: []byte("device 7"), PublicKey: point})
	identity, public, ok = ParseClientKeyExchangeECDHEPSK(both)
	if !ok || string(identity) != "device 7" || !bytes.Equal(public, point) {
		t.Errorf("ECDHE_PSK: identity %q, public key %x, ok = %v", identity, public, ok)
	}
	theirs := handshake.MessageClientKeyExchange{KeyExchangeAlgorithm: pionPSK | pionECDHE}
	if err := theirs.Unmarshal(both); err != nil {
		t.Fatal(err)
	}
	wantBytes(t, "identity", identity, theirs.IdentityHint)
	wantBytes(t, "public key", public, theirs.PublicKey)
	// pion panics when nothing is behind the identity.
	for n := len("device 7") + 2; n < len(both); n++ {
		if _, _, ok := ParseClientKeyExchangeECDHEPSK(both[:n]); ok {
			t.Errorf("the first %d bytes parse", n)
		}
	}
}

func TestPionCertificate(t *testing.T) {
	t.Parallel()
	for _, chain := range [][][]byte{
		nil,
		{{0xaa, 0xbb}},
		{{0xaa}, bytes.Repeat([]byte{0xbb}, 300), bytes.Repeat([]byte{0xcc}, 70000)},
	} {
		want, err := (&handshake.MessageCertificate{Certificate: chain}).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		body := AppendCertificate(nil, chain)
		wantBytes(t, "body", body, want)
		var theirs handshake.MessageCertificate
		if err := theirs.Unmarshal(body); err != nil {
			t.Fatal(err)
		}
		ours, ok := ParseCertificate(want)
		if !ok || !slices.EqualFunc(ours, theirs.Certificate, bytes.Equal) {
			t.Errorf("of %d certificates %d, ok = %v", len(theirs.Certificate), len(ours), ok)
		}
	}
}

func TestPionCertificateRequest(t *testing.T) {
	t.Parallel()
	schemes := []uint16{0x0403, 0x0503, 0x0603, 0x0807, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601}
	var theirs handshake.MessageCertificateRequest
	if err := theirs.Unmarshal(AppendCertificateRequest(nil, schemes)); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(theirs.CertificateTypes, []clientcertificate.Type{clientcertificate.ECDSASign, clientcertificate.RSASign}) {
		t.Errorf("they read the types %d", theirs.CertificateTypes)
	}
	if len(theirs.CertificateAuthoritiesNames) != 0 {
		t.Errorf("they read the authorities %x", theirs.CertificateAuthoritiesNames)
	}
	var list []byte
	for _, s := range schemes {
		list = binary.BigEndian.AppendUint16(list, s)
	}
	wantBytes(t, "schemes", pionSchemeBytes(theirs.SignatureHashAlgorithms), pionKnown(list, pionKnowsScheme))

	// Of schemes that they know it is what they write.
	known := []uint16{0x0403, 0x0401, 0x0807}
	want, err := (&handshake.MessageCertificateRequest{
		CertificateTypes: []clientcertificate.Type{clientcertificate.ECDSASign, clientcertificate.RSASign},
		SignatureHashAlgorithms: []signaturehash.Algorithm{
			{Hash: hash.SHA256, Signature: signature.ECDSA},
			{Hash: hash.SHA256, Signature: signature.RSA},
			{Hash: hash.Ed25519, Signature: signature.Ed25519},
		},
	}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	wantBytes(t, "body", AppendCertificateRequest(nil, known), want)
}

func TestPionCertificateVerify(t *testing.T) {
	t.Parallel()
	signed := bytes.Repeat([]byte{0x5a}, 300)
	theirs := handshake.MessageCertificateVerify{HashAlgorithm: hash.SHA256, SignatureAlgorithm: signature.ECDSA, Signature: signed}
	body, err := theirs.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	scheme, ours, ok := ParseCertificateVerify(body)
	if !ok || scheme != 0x0403 || !bytes.Equal(ours, signed) {
		t.Errorf("scheme %#04x, signature %x, ok = %v", scheme, ours, ok)
	}
	wantBytes(t, "encoded again", AppendSignature(nil, scheme, ours), body)
	for n := range body {
		_, _, ok := ParseCertificateVerify(body[:n])
		if theirErr := new(handshake.MessageCertificateVerify).Unmarshal(body[:n]); ok != (theirErr == nil) {
			t.Errorf("the first %d bytes: ok = %v, they say %v", n, ok, theirErr)
		}
	}
}
