// Fuzz targets of the parsers. What they return must lie within the input, and
// encoding it again must give the input.

package wire

import (
	"bytes"
	"testing"
	"unsafe"

	"golang.org/x/crypto/cryptobyte"
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
			r, rest, ok := ParseRecord(left)
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
	f.Fuzz(func(t *testing.T, body []byte) {
		fixed, rest, ok := ParseClientHelloFixed(body)
		h, whole := ParseClientHello(body)
		if !ok {
			if whole {
				t.Fatal("a hello whose fixed part is none")
			}
			return
		}
		wantHello(t, body, &fixed)
		wantWithin(t, "rest", body, rest)
		wantBytes(t, "fixed part encoded again", append(appendClientHello(nil, &fixed), rest...), body)
		if !whole {
			return
		}
		wantHello(t, body, &h)
		wantBytes(t, "encoded again", appendClientHello(nil, &h), body)
		e, ok := ParseClientExtensions(h.Extensions)
		wantExtensions(t, h.Extensions, e, ok)
	})
}

// wantHello checks what a parsed hello promises.
func wantHello(t *testing.T, body []byte, h *ClientHello) {
	t.Helper()
	wantWithin(t, "Random", body, h.Random)
	wantWithin(t, "SessionID", body, h.SessionID)
	wantWithin(t, "Cookie", body, h.Cookie)
	wantWithin(t, "CipherSuites", body, h.CipherSuites)
	wantWithin(t, "CompressionMethods", body, h.CompressionMethods)
	wantWithin(t, "Extensions", body, h.Extensions)
	if len(h.Random) != RandomLen || len(h.SessionID) > 32 || len(h.CipherSuites) < 2 || len(h.CipherSuites)%2 != 0 || len(h.CompressionMethods) == 0 {
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
	f.Fuzz(func(t *testing.T, block []byte) {
		e, ok := ParseClientExtensions(block)
		wantExtensions(t, block, e, ok)
	})
}

// wantExtensions reads the block in another way and compares.
func wantExtensions(t *testing.T, block []byte, e ClientExtensions, ok bool) {
	t.Helper()
	found := map[uint16]cryptobyte.String{}
	valid := true
	for s := cryptobyte.String(block); valid && !s.Empty(); {
		var id uint16
		var data cryptobyte.String
		valid = s.ReadUint16(&id) && s.ReadUint16LengthPrefixed(&data)
		if _, twice := found[id]; twice {
			valid = false
		}
		found[id] = data
	}
	ems, offersEMS := found[23]
	info, offersInfo := found[0xff01]
	points, offersPoints := found[11]
	valid = valid && len(ems) == 0 &&
		(!offersInfo || len(info) > 0 && int(info[0]) == len(info)-1) &&
		(!offersPoints || len(points) > 1 && int(points[0]) == len(points)-1)
	if ok != valid {
		t.Fatalf("ok = %v, want %v", ok, valid)
	}
	if !ok {
		return
	}
	if e.ExtendedMasterSecret != offersEMS || e.RenegotiationInfo != offersInfo || (e.ECPointFormats != nil) != offersPoints {
		t.Fatalf("got %+v of %x", e, block)
	}
	if offersInfo && !bytes.Equal(e.RenegotiatedInfo, info[1:]) || offersPoints && !bytes.Equal(e.ECPointFormats, points[1:]) {
		t.Fatalf("got %+v of %x", e, block)
	}
	wantWithin(t, "RenegotiatedInfo", block, e.RenegotiatedInfo)
	wantWithin(t, "ECPointFormats", block, e.ECPointFormats)
}

func FuzzClientKeyExchangePSK(f *testing.F) {
	f.Add(unhex(f, "0004"+"64657637"))
	f.Add(unhex(f, "0000"))
	f.Add(unhex(f, "ffff00"))
	f.Fuzz(func(t *testing.T, body []byte) {
		identity, ok := ParseClientKeyExchangePSK(body)
		if !ok {
			return
		}
		wantWithin(t, "identity", body, identity)
		// The two messages have the same form.
		wantBytes(t, "encoded again", AppendServerKeyExchangePSK(nil, identity), body)
	})
}
