// Tests of the messages of DTLS 1.3 with certificates.

package wire

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestCertificateRequest13(t *testing.T) {
	t.Parallel()
	authorities := AppendDistinguishedName(AppendDistinguishedName(nil, unhex(t, "aabbccff")), unhex(t, "ddff"))
	schemes := AppendUint16s(nil, 0x0403, 0x0807)
	tests := []struct {
		name, in string
		want     CertificateRequest13
	}{
		{"least", "00" + "000a" + sampleSchemes, CertificateRequest13{Context: []byte{}, SignatureAlgorithms: schemes}},
		{"all", "02c1ff" + "0024" + sampleSchemes + sampleAuthorities + sampleCertSchemes, CertificateRequest13{
			Context: []byte{0xc1, 0xff}, SignatureAlgorithms: schemes, CertificateAuthorities: authorities, CertificateSchemes: []byte{8, 4, 4, 3},
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			wantBytes(t, "body", test.want.Append([]byte{0xee}), unhex(t, "ee"+test.in))
			got, ok := ParseCertificateRequest13(unhex(t, test.in))
			if !ok || !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, %v", got, ok)
			}
		})
	}
	wantMessage(t, "CertificateRequest", tests[1].in, []lengthField{{"context", 0, 1}, {"extensions", 3, 2}, {"signature_algorithms", 7, 2},
		{"schemes", 9, 2}, {"certificate_authorities", 17, 2}, {"names", 19, 2}, {"first name", 21, 2}, {"last name", 27, 2},
		{"signature_algorithms_cert", 33, 2}, {"schemes of certificates", 35, 2}},
		func(body []byte) bool { _, ok := ParseCertificateRequest13(body); return ok })
	for name, body := range map[string]string{
		"no extensions":      "00" + "0000",
		"an extension twice": "00" + "0014" + sampleSchemes + sampleSchemes,
		"no schemes":         "00" + "0006" + "000d" + "0002" + "0000",
		"half a scheme":      "00" + "0007" + "000d" + "0003" + "0001" + "04",
		"no names":           "00" + "0006" + "002f" + "0002" + "0000",
		"an empty name":      "00" + "0008" + "002f" + "0004" + "0002" + "0000",
	} {
		if r, ok := ParseCertificateRequest13(unhex(t, body)); ok {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if r, ok := ParseCertificateRequest13(unhex(t, "00"+"0010"+sampleUnknown+sampleSchemes)); !ok || len(r.SignatureAlgorithms) != 4 {
		t.Errorf("with an unknown extension: %+v, %v", r, ok)
	}
}

func TestCertificate13(t *testing.T) {
	t.Parallel()
	const first, second = "000003" + "aabbff" + "0000", "000001" + "ff" + "0006" + sampleUnknown
	chain := []CertificateEntry{{[]byte{0xaa, 0xbb, 0xff}, []byte{}}, {[]byte{0xff}, unhex(t, sampleUnknown)}}
	tests := []struct {
		name, in string
		context  []byte
		want     []CertificateEntry
		bad      bool
	}{
		{name: "one", in: "00" + "000008" + first, want: chain[:1]},
		{name: "two", in: "00" + "000014" + first + second, want: chain},
		{name: "context", in: "02c1ff" + "000008" + first, context: []byte{0xc1, 0xff}, want: chain[:1]},
		{name: "none", in: "00" + "000000"},
		{name: "long", in: "00" + "010208" + "010203" + strings.Repeat("aa", 0x010203) + "0000",
			want: []CertificateEntry{{bytes.Repeat([]byte{0xaa}, 0x010203), []byte{}}}},
		{name: "empty certificate", in: "00" + "000005" + "000000" + "0000", bad: true},
		{name: "no extensions block", in: "00" + "000006" + "000003" + "aabbff", bad: true},
		{name: "half an extension", in: "00" + "00000a" + "000003" + "aabbff" + "0002" + "1234", bad: true},
		{name: "an extension twice", in: "00" + "000010" + "000003" + "aabbff" + "0008" + "12340000" + "12340000", bad: true},
		{name: "1.2's", in: "000006" + "000003" + "aabbff", bad: true},
		{name: "a byte behind", in: "00" + "000008" + first + "00", bad: true},
		{name: "no list", in: "00", bad: true},
		{name: "empty", in: "", bad: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			body := unhex(t, test.in)
			context, got, ok := ParseCertificate13(body)
			if ok == test.bad || !reflect.DeepEqual(got, test.want) || !bytes.Equal(context, test.context) {
				t.Fatalf("got %x, %+v, %v", context, got, ok)
			}
			if ok {
				wantBytes(t, "body", AppendCertificate13([]byte{0xee}, context, got), append([]byte{0xee}, body...))
			}
		})
	}
	wantMessage(t, "Certificate", "01ff"+"000014"+first+second, []lengthField{{"context", 0, 1}, {"list", 3, 2}, {"first", 6, 2}, {"first extensions", 11, 2},
		{"last", 14, 2}, {"last extensions", 17, 2}, {"extension", 21, 2}},
		func(body []byte) bool { _, _, ok := ParseCertificate13(body); return ok })
}

func TestCountCertificates13(t *testing.T) {
	t.Parallel()
	entry := "000001" + "aa" + "0000"
	for _, n := range []int{0, 1, 2, 9, 10, 11, 1000} {
		body := unhex(t, "00"+fmt.Sprintf("%06x", 6*n)+strings.Repeat(entry, n))
		if got, ok := CountCertificates13(body, 10); !ok || got != min(n, 11) {
			t.Errorf("%d certificates: %d, %v", n, got, ok)
		}
	}
	for name, body := range map[string]string{
		"empty": "", "no list": "00", "a byte behind": "00" + "000006" + entry + "00", "half a certificate": "00" + "000004" + "000001aa",
	} {
		if n, ok := CountCertificates13(unhex(t, body), 10); ok {
			t.Errorf("%s: %d", name, n)
		}
	}
	// What is behind the most is not read.
	if n, ok := CountCertificates13(unhex(t, "00"+"00000d"+entry+entry+"ff"), 1); !ok || n != 2 {
		t.Errorf("%d, %v", n, ok)
	}
}

func TestCertificateExtensions(t *testing.T) {
	t.Parallel()
	const status, sct = "0005" + "0007" + "01" + "000003" + "aabbff", "0012" + "0009" + "0007" + "0002" + "aaff" + "0001" + "ff"
	ocsp, list := unhex(t, "aabbff"), AppendSCTs(nil, [][]byte{{0xaa, 0xff}, {0xff}})
	tests := []struct {
		name       string
		ocsp, scts []byte
		want       string
	}{
		{"neither", nil, nil, ""},
		{"status_request", ocsp, nil, status},
		{"signed_certificate_timestamp", nil, list, sct},
		{"both", ocsp, list, status + sct},
		{"long", bytes.Repeat([]byte{0xaa}, 0x0203), nil, "0005" + "0207" + "01" + "000203" + strings.Repeat("aa", 0x0203)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			wantBytes(t, "block", AppendCertificateExtensions([]byte{0xee}, test.ocsp, test.scts), unhex(t, "ee"+test.want))
			ocsp, scts, ok := ParseCertificateExtensions(unhex(t, test.want))
			if !ok {
				t.Fatal("does not parse")
			}
			wantBytes(t, "response", ocsp, test.ocsp)
			wantBytes(t, "timestamps", scts, test.scts)
		})
	}
	for _, x := range []struct {
		block  string
		fields []lengthField
	}{
		{status, []lengthField{{"extension", 2, 2}, {"response", 6, 2}}},
		{sct, []lengthField{{"extension", 2, 2}, {"list", 4, 2}, {"first", 6, 2}, {"last", 10, 2}}},
	} {
		for _, field := range x.fields {
			for _, by := range []int{-1, +1} {
				block := unhex(t, x.block)
				field.move(block, by)
				if _, _, ok := ParseCertificateExtensions(block); ok {
					t.Errorf("%x parses", block)
				}
			}
		}
	}
	for name, block := range map[string]string{
		"another type of status": "0005" + "0005" + "02" + "000001" + "aa",
		"empty response":         "0005" + "0004" + "01" + "000000",
		"no timestamps":          "0012" + "0002" + "0000",
		"a foreign extension":    sampleUnknown,
		"an extension twice":     status + status,
	} {
		if ocsp, scts, ok := ParseCertificateExtensions(unhex(t, block)); ok || ocsp != nil || scts != nil {
			t.Errorf("%s: %x, %x, %v", name, ocsp, scts, ok)
		}
	}
}

// FuzzCertificates13 gives the parsers the same bytes: what a naive reading finds must be
// what they find, and encoding it again must give the bytes.
func FuzzCertificates13(f *testing.F) {
	f.Add(unhex(f, "00"+"000014"+"000003"+"aabbff"+"0000"+"000001"+"ff"+"0006"+sampleUnknown))
	f.Add(unhex(f, "01ff"+"000000"))
	f.Add(unhex(f, "02c1ff"+"0024"+sampleSchemes+sampleAuthorities+sampleCertSchemes))
	f.Add(unhex(f, "0005"+"0007"+"01"+"000003"+"aabbff"+"0012"+"0009"+"0007"+"0002"+"aaff"+"0001"+"ff"))
	f.Fuzz(func(t *testing.T, body []byte) {
		context, chain, ok := ParseCertificate13(body)
		if ok != naiveCertificate13(body) {
			t.Fatalf("Certificate: ok = %v", ok)
		}
		for _, most := range []int{0, 1, 10, 1 << 24} {
			n, counted := CountCertificates13(body, most)
			if ok && (!counted || n != min(len(chain), most+1)) || !ok && counted && n <= most {
				t.Errorf("counted %d certificates up to %d, ok = %v, of %d", n, most, counted, len(chain))
			}
		}
		if ok {
			for _, entry := range chain {
				wantWithin(t, "certificate", body, entry.Certificate)
				wantWithin(t, "extensions", body, entry.Extensions)
			}
			wantBytes(t, "Certificate encoded again", AppendCertificate13(nil, context, chain), body)
		}

		r, ok := ParseCertificateRequest13(body)
		if ok != naiveCertificateRequest13(body) {
			t.Fatalf("CertificateRequest: ok = %v", ok)
		}
		if ok && (r.SignatureAlgorithms != nil || r.CertificateAuthorities != nil || r.CertificateSchemes != nil) {
			once, ok := ParseCertificateRequest13(r.Append(nil))
			if !ok || !reflect.DeepEqual(once, r) {
				t.Errorf("%+v was read again as %+v, %v", r, once, ok)
			}
		}

		ocsp, scts, ok := ParseCertificateExtensions(body)
		found, valid := naiveBlock(body)
		if want := valid && naiveAllowed(found, map[uint16]func([]byte) bool{
			5: func(data []byte) bool {
				if len(data) == 0 || data[0] != 1 {
					return false
				}
				_, ok := naiveList(data[1:], 3, 1)
				return ok
			},
			18: func(data []byte) bool { list, ok := naiveList(data, 2, 1); return ok && naiveNames16(list) },
		}); ok != want {
			t.Fatalf("extensions of a certificate: ok = %v", ok)
		}
		if ok {
			again := AppendCertificateExtensions(nil, ocsp, scts)
			o, s, ok := ParseCertificateExtensions(again)
			if !ok || !bytes.Equal(o, ocsp) || !bytes.Equal(s, scts) || len(again) != len(body) {
				t.Errorf("%x was written again as %x", body, again)
			}
		}
	})
}

func naiveCertificate13(body []byte) bool {
	_, rest, ok := naiveVector(body, 1)
	if !ok {
		return false
	}
	list, rest, ok := naiveVector(rest, 3)
	if !ok || len(rest) > 0 {
		return false
	}
	for len(list) > 0 {
		var c, block []byte
		if c, list, ok = naiveVector(list, 3); !ok || len(c) == 0 {
			return false
		}
		if block, list, ok = naiveVector(list, 2); !ok {
			return false
		}
		if _, ok = naiveBlock(block); !ok {
			return false
		}
	}
	return true
}

func naiveCertificateRequest13(body []byte) bool {
	_, rest, ok := naiveVector(body, 1)
	if !ok {
		return false
	}
	block, ok := naiveList(rest, 2, 1)
	if !ok {
		return false
	}
	found, ok := naiveBlock(block)
	if !ok {
		return false
	}
	for _, id := range []uint16{13, 50} {
		if data, sent := found[id]; sent {
			if _, ok := naiveList(data, 2, 2); !ok {
				return false
			}
		}
	}
	if data, sent := found[47]; sent {
		list, ok := naiveList(data, 2, 1)
		return ok && naiveNames16(list)
	}
	return true
}
