// Tests of record headers and alerts.

package wire

import (
	"bytes"
	"encoding/hex"
	"testing"
)

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func wantBytes(tb testing.TB, what string, got, want []byte) {
	tb.Helper()
	if !bytes.Equal(got, want) {
		tb.Errorf("%s:\n got %x\nwant %x", what, got, want)
	}
}

func TestParseRecord(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		datagram string
		want     Record // Raw and Payload are checked by themselves
		payload  string
		rest     string
		bad      bool
	}{
		{name: "empty datagram", datagram: "", bad: true},
		{name: "one byte", datagram: "16", bad: true},
		{name: "header less a byte", datagram: "16fefd000100000000000200", bad: true},
		{name: "empty payload", datagram: "16fefd00010000000000020000",
			want: Record{Type: ContentHandshake, Version: VersionDTLS12, Epoch: 1, Seq: 2}},
		{name: "every field differs", datagram: "17feff0102030405060708" + "0003" + "aabbcc",
			want: Record{Type: ContentApplicationData, Version: VersionDTLS10, Epoch: 0x0102, Seq: 0x030405060708}, payload: "aabbcc"},
		{name: "highest epoch and sequence number", datagram: "15fefdffffffffffffffff" + "0002" + "0100",
			want: Record{Type: ContentAlert, Version: VersionDTLS12, Epoch: 0xffff, Seq: MaxSequence}, payload: "0100"},
		{name: "unknown type and version", datagram: "ff1234000000000000000000010" + "0",
			want: Record{Type: 0xff, Version: 0x1234}, payload: "00"},
		{name: "a byte missing", datagram: "17fefd0000000000000000" + "0003" + "aabb", bad: true},
		{name: "a byte more", datagram: "17fefd0000000000000000" + "0001" + "aabb",
			want: Record{Type: ContentApplicationData, Version: VersionDTLS12}, payload: "aa", rest: "bb"},
		{name: "two records", datagram: "14fefd0000000000000003" + "0001" + "01" + "16fefd00010000000000000000",
			want: Record{Type: ContentChangeCipherSpec, Version: VersionDTLS12, Seq: 3}, payload: "01", rest: "16fefd00010000000000000000"},
		{name: "length in both bytes is too much", datagram: "17fefd0000000000000000" + "0100" + "aa", bad: true},
		{name: "greatest length", datagram: "17fefd0000000000000000" + "ffff" + "aa", bad: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			datagram := unhex(t, test.datagram)
			r, rest, ok := ParseRecord(datagram, 0)
			if ok == test.bad {
				t.Fatalf("ok = %v", ok)
			}
			if test.bad {
				if r.Raw != nil || r.Payload != nil || rest != nil || r.Type != 0 || r.Version != 0 {
					t.Errorf("failed with %+v, rest %x", r, rest)
				}
				return
			}
			if r.Type != test.want.Type || r.Version != test.want.Version || r.Epoch != test.want.Epoch || r.Seq != test.want.Seq {
				t.Errorf("got %+v\nwant %+v", r, test.want)
			}
			wantBytes(t, "payload", r.Payload, unhex(t, test.payload))
			wantBytes(t, "rest", rest, unhex(t, test.rest))
			wantBytes(t, "raw and rest", append(bytes.Clone(r.Raw), rest...), datagram)
			// An append to one must not write into the next record.
			if cap(r.Raw) != len(r.Raw) || cap(r.Payload) != len(r.Payload) {
				t.Errorf("capacities %d and %d of lengths %d and %d", cap(r.Raw), cap(r.Payload), len(r.Raw), len(r.Payload))
			}
			wantBytes(t, "encoded again", append(AppendRecordHeader(nil, r.Type, r.Version, r.Epoch, r.Seq, len(r.Payload)), r.Payload...), r.Raw)
		})
	}
}

func TestAppendRecordHeader(t *testing.T) {
	t.Parallel()
	got := AppendRecordHeader([]byte{0xee}, ContentHandshake, VersionDTLS12, 0x0102, 0x030405060708, 0x090a)
	wantBytes(t, "header", got, unhex(t, "ee"+"16"+"fefd"+"0102"+"030405060708"+"090a"))
	if len(got)-1 != RecordHeaderLen {
		t.Errorf("%d bytes, RecordHeaderLen is %d", len(got)-1, RecordHeaderLen)
	}
}

func TestParseAlert(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		in   string
		want Alert
		bad  bool
	}{
		{name: "close_notify", in: "0100", want: Alert{LevelWarning, AlertCloseNotify}},
		{name: "fatal handshake_failure", in: "0228", want: Alert{LevelFatal, AlertHandshakeFailure}},
		{name: "no_renegotiation", in: "0164", want: Alert{LevelWarning, AlertNoRenegotiation}},
		{name: "bad_certificate", in: "022a", want: Alert{LevelFatal, AlertBadCertificate}},
		{name: "unsupported_certificate", in: "022b", want: Alert{LevelFatal, AlertUnsupportedCert}},
		{name: "certificate_expired", in: "022d", want: Alert{LevelFatal, AlertCertExpired}},
		{name: "certificate_unknown", in: "022e", want: Alert{LevelFatal, AlertCertUnknown}},
		{name: "unknown_ca", in: "0230", want: Alert{LevelFatal, AlertUnknownCA}},
		{name: "no_application_protocol", in: "0278", want: Alert{LevelFatal, AlertNoALPN}},
		{name: "unknown description", in: "02ff", want: Alert{LevelFatal, 255}},
		{name: "empty", in: "", bad: true},
		{name: "level only", in: "02", bad: true},
		{name: "three bytes", in: "010000", bad: true},
		{name: "two alerts", in: "01000100", bad: true},
		{name: "level 0", in: "0000", bad: true},
		{name: "level 3", in: "0300", bad: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, ok := ParseAlert(unhex(t, test.in))
			if ok == test.bad {
				t.Fatalf("ok = %v", ok)
			}
			if ok && got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}
