package engine

import (
	"bytes"
	"reflect"
	"testing"
)

func TestTicketState(t *testing.T) {
	t.Parallel()
	want := ticketState{
		Suite: 0xd001, Created: 1_700_000_000, Master: bytes.Repeat([]byte{7}, 48), ServerName: []byte("name"), ALPN: []byte("coap"),
		Identity: []byte{0, 255}, KeyDigest: []byte{9}, Chain: [][]byte{{1, 2}, {3}},
	}
	form, ok := want.append([]byte("in front"))
	if !ok || !bytes.HasPrefix(form, []byte("in front")) {
		t.Fatalf("append: %x, %v", form, ok)
	}
	form = form[len("in front"):]
	var got ticketState
	if !got.parse(form) || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	for n := range form {
		if new(ticketState).parse(form[:n]) {
			t.Errorf("the first %d bytes are taken for a session", n)
		}
	}
	if new(ticketState).parse(append(bytes.Clone(form), 0)) {
		t.Error("a byte more is taken for a session")
	}
	form[0]++
	if new(ticketState).parse(form) {
		t.Error("another version is taken for a session")
	}
	want.Identity = make([]byte, 1<<16)
	if _, ok := want.append(nil); ok {
		t.Error("an identity too long is appended")
	}
}
