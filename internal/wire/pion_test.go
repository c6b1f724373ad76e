// A second opinion: what pion/dtls reads from the recorded hellos and from what
// this package writes must be what this package says.

package wire

import (
	"bytes"
	"encoding/binary"
	"testing"

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
			for _, x := range theirs.Extensions {
				switch x := x.(type) {
				case *extension.UseExtendedMasterSecret:
					ems = x.Supported
				case *extension.RenegotiationInfo:
					renegotiation = true
				}
			}
			if e.ExtendedMasterSecret != ems || e.RenegotiationInfo != renegotiation {
				t.Errorf("got %+v, want extended_master_secret %v, renegotiation_info %v", e, ems, renegotiation)
			}
		})
	}
}

// wantPionHeaders compares the record header and the handshake header of a
// recorded datagram.
func wantPionHeaders(t *testing.T, datagram []byte) {
	t.Helper()
	r, _, ok := ParseRecord(datagram)
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
		{Version: VersionDTLS12, Random: random, CipherSuite: 0x00a8, RenegotiationInfo: true},
		{Version: VersionDTLS12, Random: random, CipherSuite: 0x00a8, ExtendedMasterSecret: true},
		{Version: VersionDTLS12, Random: random, CipherSuite: 0x00a8, RenegotiationInfo: true, ExtendedMasterSecret: true},
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
		for _, x := range theirs.Extensions {
			switch x := x.(type) {
			case *extension.UseExtendedMasterSecret:
				ems = x.Supported
			case *extension.RenegotiationInfo:
				renegotiation = x.RenegotiatedConnection == 0
			default:
				t.Errorf("an extension that was not asked for: %T", x)
			}
		}
		if ems != h.ExtendedMasterSecret || renegotiation != h.RenegotiationInfo {
			t.Errorf("they read extended_master_secret %v, renegotiation_info %v of %+v", ems, renegotiation, h)
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
