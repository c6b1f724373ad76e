package wire

import (
	"bytes"
	"reflect"
	"testing"
)

func TestSession(t *testing.T) {
	t.Parallel()
	want := Session{
		Suite: 0xd001, Created: 1_700_000_000, Master: bytes.Repeat([]byte{7}, 48), ServerName: []byte("name"), ALPN: []byte("coap"),
		Identity: []byte{0, 255}, KeyDigest: []byte{9}, Chain: [][]byte{{1, 2}, {3}},
	}
	form, ok := want.Append([]byte("in front"))
	if !ok || !bytes.HasPrefix(form, []byte("in front")) {
		t.Fatalf("Append: %x, %v", form, ok)
	}
	form = form[len("in front"):]
	var got Session
	if !got.Parse(form) || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	for n := range form {
		if new(Session).Parse(form[:n]) {
			t.Errorf("the first %d bytes are taken for a session", n)
		}
	}
	if new(Session).Parse(append(bytes.Clone(form), 0)) {
		t.Error("a byte more is taken for a session")
	}
	form[0]++
	if new(Session).Parse(form) {
		t.Error("another version is taken for a session")
	}
	want.Identity = make([]byte, 1<<16)
	if _, ok := want.Append(nil); ok {
		t.Error("an identity too long is appended")
	}
}

func TestAppendNewSessionTicket(t *testing.T) {
	t.Parallel()
	wantBytes(t, "body", AppendNewSessionTicket(nil, 0x01020304, []byte("ticket")), append([]byte{1, 2, 3, 4, 0, 6}, "ticket"...))
	wantBytes(t, "empty", AppendNewSessionTicket(nil, 0, nil), make([]byte, 6))
}
