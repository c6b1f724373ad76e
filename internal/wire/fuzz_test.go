// Fuzz targets of the parsers. What they return must lie within the input, and
// encoding it again must give the input.

package wire

import (
	"reflect"
	"testing"
	"unsafe"
)

// wantWithin checks that part, unless empty, is memory of whole.
func wantWithin(t *testing.T, what string, whole, part []byte) {
	t.Helper()
	if len(part) == 0 {
		return
	}
	start, end := address(whole), address(whole)+uintptr(len(whole))
	if address(part) < start || address(part)+uintptr(len(part)) > end {
		t.Errorf("%s does not alias the input", what)
	}
}

func address(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

func FuzzRecord(f *testing.F) {
	for _, datagrams := range recordedHellos(f) {
		for _, d := range datagrams {
			f.Add(d)
		}
	}
	f.Add([]byte{})
	f.Add(unhex(f, "14fefd0000000000000003"+"0001"+"01"+"16fefd0001000000000000"+"0000"))
	f.Add(unhex(f, "17fefdffffffffffffffff"+"ffff"+"aa"))
	f.Fuzz(func(t *testing.T, datagram []byte) {
		var again []byte
		left := datagram
		for {
			r, rest, ok := ParseRecord(left, 0)
			if !ok {
				break
			}
			wantWithin(t, "Raw", datagram, r.Raw)
			wantWithin(t, "Payload", datagram, r.Payload)
			wantWithin(t, "rest", datagram, rest)
			if r.Seq > MaxSequence || len(rest) >= len(left) {
				t.Fatalf("record %+v, rest %d of %d bytes", r, len(rest), len(left))
			}
			again = AppendRecordHeader(again, r.Type, r.Version, r.Epoch, r.Seq, len(r.Payload))
			again = append(again, r.Payload...)
			left = rest
		}
		wantBytes(t, "encoded again", append(again, left...), datagram)
	})
}

func FuzzFragment(f *testing.F) {
	for _, datagrams := range recordedHellos(f) {
		for _, d := range datagrams {
			f.Add(d[RecordHeaderLen:])
		}
	}
	f.Add(unhex(f, "01"+"000005"+"0000"+"fffffe"+"000002"+"aabb"))
	f.Add(unhex(f, "10"+"000001"+"0002"+"000000"+"000001"+"aa"+"0e0000000003000000000000"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		var again []byte
		left := payload
		for {
			fragment, rest, ok := ParseFragment(left)
			if !ok {
				break
			}
			wantWithin(t, "Body", payload, fragment.Body)
			wantWithin(t, "rest", payload, rest)
			if uint64(fragment.Offset)+uint64(len(fragment.Body)) > uint64(fragment.Length) || len(rest) >= len(left) {
				t.Fatalf("fragment %+v, rest %d of %d bytes", fragment, len(rest), len(left))
			}
			again = append(appendFragmentHeader(again, &fragment), fragment.Body...)
			left = rest
		}
		wantBytes(t, "encoded again", append(again, left...), payload)
	})
}

func FuzzClientHello(f *testing.F) {
	for _, datagrams := range recordedHellos(f) {
		body, _, fragments := recordedBody(f, datagrams)
		f.Add(body)
		f.Add(fragments[0].Body)
	}
	f.Add(unhex(f, sampleHello))
	f.Add(unhex(f, sampleFixed))
	f.Add(sampleHelloWith(f, allSamples()))
	f.Fuzz(func(t *testing.T, body []byte) {
		head, rest, ok := ParseClientHelloHead(body)
		h, whole := ParseClientHello(body)
		if !ok {
			if whole {
				t.Fatal("a hello whose head is none")
			}
			return
		}
		wantHead(t, body, &head)
		wantWithin(t, "rest", body, rest)
		wantBytes(t, "head encoded again", append(appendHelloHead(nil, &head), rest...), body)
		if !whole {
			return
		}
		wantHello(t, body, &h)
		wantBytes(t, "encoded again", appendClientHello(nil, &h), body)
		e, ok := ParseClientExtensions(h.Extensions)
		wantExtensions(t, h.Extensions, e, ok)
	})
}

// wantHead checks what the head of a parsed hello promises.
func wantHead(t *testing.T, body []byte, h *ClientHello) {
	t.Helper()
	wantWithin(t, "Random", body, h.Random)
	wantWithin(t, "SessionID", body, h.SessionID)
	wantWithin(t, "Cookie", body, h.Cookie)
	if len(h.Random) != RandomLen || len(h.SessionID) > 32 {
		t.Fatalf("illegal head %+v", h)
	}
}

// wantHello checks what a parsed hello promises.
func wantHello(t *testing.T, body []byte, h *ClientHello) {
	t.Helper()
	wantHead(t, body, h)
	wantWithin(t, "CipherSuites", body, h.CipherSuites)
	wantWithin(t, "CompressionMethods", body, h.CompressionMethods)
	wantWithin(t, "Extensions", body, h.Extensions)
	if len(h.CipherSuites) < 2 || len(h.CipherSuites)%2 != 0 || len(h.CompressionMethods) == 0 {
		t.Fatalf("illegal hello %+v", h)
	}
	if !h.OffersSuite(uint16(h.CipherSuites[0])<<8 | uint16(h.CipherSuites[1])) {
		t.Error("OffersSuite denies the first suite")
	}
}

func FuzzClientExtensions(f *testing.F) {
	for _, datagrams := range recordedHellos(f) {
		body, _, _ := recordedBody(f, datagrams)
		if h, ok := ParseClientHello(body); ok {
			f.Add(h.Extensions)
		}
	}
	f.Add(unhex(f, sampleEMS+sampleReneg+samplePoints))
	f.Add(unhex(f, sampleEMS+sampleEMS))
	f.Add(unhex(f, allSamples()))
	for _, x := range sampleFields {
		f.Add(unhex(f, x.block))
	}
	f.Fuzz(func(t *testing.T, block []byte) {
		e, ok := ParseClientExtensions(block)
		wantExtensions(t, block, e, ok)
	})
}

// wantExtensions reads the block in another way and compares.
func wantExtensions(t *testing.T, block []byte, e ClientExtensions, ok bool) {
	t.Helper()
	want, valid := naiveExtensions(block)
	if ok != valid {
		t.Fatalf("ok = %v, want %v", ok, valid)
	}
	wantSameExtensions(t, e, want)
	wantWithin(t, "SupportedGroups", block, e.SupportedGroups)
	wantWithin(t, "ECPointFormats", block, e.ECPointFormats)
	wantWithin(t, "SignatureAlgorithms", block, e.SignatureAlgorithms)
	wantWithin(t, "RenegotiatedInfo", block, e.RenegotiatedInfo)
	wantWithin(t, "SupportedVersions", block, e.SupportedVersions)
	wantWithin(t, "CertificateSchemes", block, e.CertificateSchemes)
	wantWithin(t, "ConnectionID", block, e.ConnectionID)
	if ok {
		wantBytes(t, "supported_versions alone", SupportedVersions(block), e.SupportedVersions)
	}
}

// wantSameExtensions takes a renegotiated_connection of nil for an empty one:
// RenegotiationInfo tells whether it was sent.
func wantSameExtensions(t *testing.T, got, want ClientExtensions) {
	t.Helper()
	wantBytes(t, "renegotiated_connection", got.RenegotiatedInfo, want.RenegotiatedInfo)
	wantBytes(t, "ticket", got.Ticket, want.Ticket)
	got.RenegotiatedInfo, want.RenegotiatedInfo, got.Ticket, want.Ticket = nil, nil, nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

// naiveVector cuts off a vector whose length has the given number of bytes.
func naiveVector(b []byte, lengthBytes int) (content, rest []byte, ok bool) {
	if len(b) < lengthBytes {
		return nil, nil, false
	}
	n := 0
	for _, c := range b[:lengthBytes] {
		n = n<<8 | int(c)
	}
	b = b[lengthBytes:]
	if len(b) < n {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}

// naiveList reads what must be one vector that is not empty and is made of
// whole elements.
func naiveList(b []byte, lengthBytes, element int) (list []byte, ok bool) {
	list, rest, ok := naiveVector(b, lengthBytes)
	return list, ok && len(rest) == 0 && len(list) > 0 && len(list)%element == 0
}

// naiveExtensions first finds all extensions, then looks for the known ones.
func naiveExtensions(block []byte) (e ClientExtensions, ok bool) {
	found := map[uint16][]byte{}
	for len(block) > 0 {
		if len(block) < 2 {
			return ClientExtensions{}, false
		}
		id := uint16(block[0])<<8 | uint16(block[1])
		data, rest, ok := naiveVector(block[2:], 2)
		if _, twice := found[id]; !ok || twice {
			return ClientExtensions{}, false
		}
		found[id], block = data, rest
	}
	valid := true
	check := func(ok bool) { valid = valid && ok }
	e.Ticket, e.SessionTicket = found[35]
	if data, sent := found[0]; sent {
		list, ok := naiveList(data, 2, 1)
		check(ok)
		for ok && len(list) > 0 {
			var name []byte
			typ := list[0]
			name, list, ok = naiveVector(list[1:], 2)
			check(ok && len(name) > 0 && (typ != 0 || e.ServerName == ""))
			if typ == 0 {
				e.ServerName = string(name)
			}
		}
	}
	if data, sent := found[1]; sent {
		check(len(data) == 1 && data[0] != 0)
		if valid {
			e.MaxFragmentLength = data[0]
		}
	}
	if data, sent := found[10]; sent {
		list, ok := naiveList(data, 2, 2)
		check(ok)
		e.SupportedGroups = list
	}
	if data, sent := found[11]; sent {
		list, ok := naiveList(data, 1, 1)
		check(ok)
		e.ECPointFormats = list
	}
	if data, sent := found[13]; sent {
		list, ok := naiveList(data, 2, 2)
		check(ok)
		e.SignatureAlgorithms = list
	}
	if data, sent := found[16]; sent {
		list, ok := naiveList(data, 2, 1)
		check(ok)
		e.ALPN = list
		for ok && len(list) > 0 {
			var name []byte
			name, list, ok = naiveVector(list, 1)
			check(ok && len(name) > 0)
		}
	}
	if data, sent := found[23]; sent {
		check(len(data) == 0)
		e.ExtendedMasterSecret = true
	}
	if data, sent := found[28]; sent {
		check(len(data) == 2 && (data[0] != 0 || data[1] != 0))
		if valid {
			e.RecordSizeLimit = uint16(data[0])<<8 | uint16(data[1])
		}
	}
	if data, sent := found[5]; sent {
		check(len(data) > 0)
		if len(data) > 0 && data[0] == 1 {
			_, rest, ok := naiveVector(data[1:], 2)
			check(ok)
			_, rest, ok = naiveVector(rest, 2)
			check(ok && len(rest) == 0)
			e.StatusRequest = true
		}
	}
	if data, sent := found[18]; sent {
		check(len(data) == 0)
		e.SCT = true
	}
	if data, sent := found[43]; sent {
		list, ok := naiveList(data, 1, 2)
		check(ok)
		e.SupportedVersions = list
	}
	if data, sent := found[50]; sent {
		list, ok := naiveList(data, 2, 2)
		check(ok)
		e.CertificateSchemes = list
	}
	if data, sent := found[54]; sent {
		cid, rest, ok := naiveVector(data, 1)
		check(ok && len(rest) == 0)
		e.ConnectionID = cid
	}
	if data, sent := found[61]; sent {
		check(len(data) == 0)
		e.ReturnRoutability = true
	}
	if data, sent := found[0xff01]; sent {
		info, rest, ok := naiveVector(data, 1)
		check(ok && len(rest) == 0)
		e.RenegotiationInfo, e.RenegotiatedInfo = true, info
	}
	if !valid {
		return ClientExtensions{}, false
	}
	return e, true
}

// FuzzKeyExchange gives every parser of the messages behind the hellos the same
// body: what a naive reading finds must be what they find, and encoding it again
// must give the body.
func FuzzKeyExchange(f *testing.F) {
	f.Add(unhex(f, "0004"+"64657637"))
	f.Add(unhex(f, "0000"))
	f.Add(unhex(f, "ffff00"))
	f.Add(unhex(f, "0004"+"64657637"+"03"+"04aabb"))
	f.Add(unhex(f, "03"+"04aabb"))
	f.Add(unhex(f, "0000"+"01"+"04"))
	f.Add(unhex(f, "000009"+"000002"+"aabb"+"000001"+"cc"))
	f.Add(unhex(f, "000003"+"000000"))
	f.Add(unhex(f, "000000"))
	f.Add(unhex(f, "0403"+"0002"+"aabb"))
	f.Fuzz(func(t *testing.T, body []byte) {
		identity, ok := ParseClientKeyExchangePSK(body)
		wantIdentity, rest, valid := naiveVector(body, 2)
		if ok != (valid && len(rest) == 0) {
			t.Fatalf("PSK: ok = %v", ok)
		}
		if ok {
			wantWithin(t, "identity", body, identity)
			// The server's message has the same form.
			wantBytes(t, "PSK encoded again", AppendServerKeyExchangePSK(nil, identity), body)
		}

		public, ok := ParseClientKeyExchangeECDHE(body)
		if _, want := naiveList(body, 1, 1); ok != want {
			t.Fatalf("ECDHE: ok = %v", ok)
		}
		if ok {
			wantWithin(t, "public key", body, public)
			wantBytes(t, "ECDHE encoded again", append([]byte{byte(len(public))}, public...), body)
		}

		identity, public, ok = ParseClientKeyExchangeECDHEPSK(body)
		if _, want := naiveList(rest, 1, 1); ok != (valid && want) {
			t.Fatalf("ECDHE_PSK: ok = %v", ok)
		}
		if ok {
			wantWithin(t, "identity", body, identity)
			wantWithin(t, "public key", body, public)
			wantBytes(t, "identity", identity, wantIdentity)
			again := append(AppendServerKeyExchangePSK(nil, identity), byte(len(public)))
			wantBytes(t, "ECDHE_PSK encoded again", append(again, public...), body)
		}

		chain, ok := ParseCertificate(body)
		if ok != naiveCertificate(body) {
			t.Fatalf("Certificate: ok = %v", ok)
		}
		for _, most := range []int{0, 1, 10, 1 << 24} {
			n, counted := CountCertificates(body, most)
			if ok && (!counted || n != min(len(chain), most+1)) || !ok && counted && n <= most {
				t.Errorf("counted %d certificates up to %d, ok = %v, of %d", n, most, counted, len(chain))
			}
		}
		if ok {
			for _, c := range chain {
				wantWithin(t, "certificate", body, c)
				if len(c) == 0 {
					t.Error("an empty certificate")
				}
			}
			wantBytes(t, "Certificate encoded again", AppendCertificate(nil, chain), body)
		}

		scheme, signature, ok := ParseCertificateVerify(body)
		want := false
		if len(body) >= 2 {
			_, rest, valid := naiveVector(body[2:], 2)
			want = valid && len(rest) == 0
		}
		if ok != want {
			t.Fatalf("CertificateVerify: ok = %v", ok)
		}
		if ok {
			wantWithin(t, "signature", body, signature)
			wantBytes(t, "CertificateVerify encoded again", AppendSignature(nil, scheme, signature), body)
		}
	})
}

func naiveCertificate(body []byte) bool {
	list, rest, ok := naiveVector(body, 3)
	if !ok || len(rest) > 0 {
		return false
	}
	for len(list) > 0 {
		var c []byte
		if c, list, ok = naiveVector(list, 3); !ok || len(c) == 0 {
			return false
		}
	}
	return true
}
