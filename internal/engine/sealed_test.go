package engine

// What a peer says in epoch 1 that is its own and cannot be right, or has been said
// before.

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// part is a piece of a handshake message.
func part(m []byte, from, to int) []byte {
	f, _, ok := wire.ParseFragment(m)
	if !ok {
		panic("not a whole message")
	}
	return append(wire.AppendHandshakeHeader(nil, f.Type, len(f.Body), f.MessageSeq, from, to-from), f.Body[from:to]...)
}

// TestFinishedAgain: each Finished that comes again as a whole is answered once and
// at once; what is late of the first is not.
func TestFinishedAgain(t *testing.T) {
	t.Parallel()
	var bytewise, threes [][2]int
	for i := range wire.VerifyDataLen {
		bytewise = append(bytewise, [2]int{i, i + 1})
	}
	for i := 0; i < wire.VerifyDataLen; i += 3 {
		threes = append(threes, [2]int{i, i + 3})
	}
	backwards := slices.Clone(threes)
	slices.Reverse(backwards)
	whole := [2]int{0, wire.VerifyDataLen}
	tests := []struct {
		name    string
		first   [][2]int // the pieces of the Finished
		again   [][2]int
		answers int
		joined  bool // the pieces again are in one record
	}{
		{"once", [][2]int{whole}, [][2]int{whole}, 1, false},
		{"five in a row", [][2]int{whole}, [][2]int{whole, whole, whole, whole, whole}, 5, false},
		{"five in a record", [][2]int{whole}, [][2]int{whole, whole, whole, whole, whole}, 1, true},
		{"in bytes", [][2]int{whole}, bytewise, 1, false},
		{"in bytes in a record", [][2]int{whole}, bytewise, 1, true},
		{"in bytes, both times", bytewise, bytewise, 1, false},
		{"in pieces, backwards", threes, backwards, 1, false},
		{"in pieces, twice", threes, append(slices.Clone(threes), backwards...), 2, false},
		{"a late piece", [][2]int{{0, 6}, {6, 12}}, [][2]int{{0, 6}}, 0, false},
		{"overlapping late pieces", [][2]int{{0, 8}, {4, 12}}, [][2]int{{2, 6}, {3, 9}, {5, 12}, {2, 12}}, 0, false},
		{"a late piece, then the whole", [][2]int{{0, 6}, {6, 12}}, [][2]int{{0, 6}, whole}, 1, false},
		{"a late piece, then all pieces", [][2]int{{0, 6}, {6, 12}}, [][2]int{{6, 12}, {0, 6}, {6, 12}}, 1, false},
		{"empty pieces", [][2]int{whole}, [][2]int{{0, 0}, {12, 12}, {5, 5}}, 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := newDriver(t, newConfig())
			d.hello()
			d.toClient()
			cke, ccs, _ := d.client.KeyExchange()
			d.receive(cke)
			d.receive(ccs)
			finished := d.client.FinishedMessage()
			d.sent = nil
			for _, p := range tt.first {
				d.wantOpen("before the whole Finished")
				d.receive(d.client.Sealed(wire.ContentHandshake, part(finished, p[0], p[1])))
			}
			d.wantEstablished("with the Finished")
			d.toClient()
			var record []byte
			for _, p := range tt.again {
				piece := part(finished, p[0], p[1])
				if tt.joined {
					record = append(record, piece...)
					continue
				}
				d.receive(d.client.Sealed(wire.ContentHandshake, piece))
			}
			if tt.joined {
				d.receive(d.client.Sealed(wire.ContentHandshake, record))
			}
			if n := d.finisheds(); n != tt.answers || len(d.sent) != 2*n {
				t.Errorf("%d answers in %d datagrams, want %d, of a record each", n, len(d.sent), tt.answers)
			}
			d.toClient()
			d.wantData("as before")
		})
	}
}

// finisheds is how many Finished were sent.
func (d *driver) finisheds() (n int) {
	for _, datagram := range d.sent {
		for len(datagram) > 0 {
			r, rest, _ := wire.ParseRecord(datagram, 0)
			datagram = rest
			if r.Epoch == 1 && r.Type == wire.ContentHandshake {
				n++
			}
		}
	}
	return n
}

// nonsense is what a client may put into a record of epoch 1, before, with or after
// its Finished, that no client should.
var nonsense = []struct {
	name    string
	content wire.ContentType
	// payload is made of the client's Finished, whose message_seq is given.
	payload func(finished []byte, seq uint16) []byte
	alert   wire.AlertDescription
}{
	{"a Finished with the next message_seq", wire.ContentHandshake, func(f []byte, seq uint16) []byte {
		return testpeer.Message(wire.TypeFinished, seq+1, f[wire.HandshakeHeaderLen:])
	}, wire.AlertUnexpectedMessage},
	{"a piece of a Finished with the next message_seq", wire.ContentHandshake, func(f []byte, seq uint16) []byte {
		return part(testpeer.Message(wire.TypeFinished, seq+1, f[wire.HandshakeHeaderLen:]), 3, 6)
	}, wire.AlertUnexpectedMessage},
	{"a Finished with a far message_seq", wire.ContentHandshake, func(f []byte, seq uint16) []byte {
		return testpeer.Message(wire.TypeFinished, seq+0x8000, f[wire.HandshakeHeaderLen:])
	}, wire.AlertUnexpectedMessage},
	{"a Finished that is too long", wire.ContentHandshake, func(f []byte, seq uint16) []byte {
		return testpeer.Message(wire.TypeFinished, seq, make([]byte, wire.VerifyDataLen+1))
	}, wire.AlertDecodeError},
	{"a Finished that is too short", wire.ContentHandshake, func(f []byte, seq uint16) []byte {
		return testpeer.Message(wire.TypeFinished, seq, make([]byte, wire.VerifyDataLen-1))
	}, wire.AlertDecodeError},
	{"an empty Finished", wire.ContentHandshake, func(f []byte, seq uint16) []byte {
		return testpeer.Message(wire.TypeFinished, seq, nil)
	}, wire.AlertDecodeError},
	{"a piece of a long Finished", wire.ContentHandshake, func(f []byte, seq uint16) []byte {
		return part(testpeer.Message(wire.TypeFinished, seq, make([]byte, 4000)), 5, 9)
	}, wire.AlertDecodeError},
	{"another message with its message_seq", wire.ContentHandshake, func(f []byte, seq uint16) []byte {
		return testpeer.Message(wire.TypeClientKeyExchange, seq, []byte{0, 1, 'a'})
	}, wire.AlertUnexpectedMessage},
	{"an unknown message with its message_seq", wire.ContentHandshake, func(f []byte, seq uint16) []byte {
		return testpeer.Message(99, seq, f[wire.HandshakeHeaderLen:])
	}, wire.AlertUnexpectedMessage},
	{"a piece of another message", wire.ContentHandshake, func(f []byte, seq uint16) []byte {
		return part(testpeer.Message(wire.TypeCertificate, seq, make([]byte, 30)), 7, 9)
	}, wire.AlertUnexpectedMessage},
	{"a HelloRequest", wire.ContentHandshake, func(f []byte, seq uint16) []byte {
		return testpeer.Message(wire.TypeHelloRequest, seq+1, nil)
	}, wire.AlertUnexpectedMessage},
	{"half a header", wire.ContentHandshake, func(f []byte, seq uint16) []byte { return f[:5] }, wire.AlertDecodeError},
	{"a piece beyond the end", wire.ContentHandshake, func(f []byte, seq uint16) []byte {
		return append(wire.AppendHandshakeHeader(nil, wire.TypeFinished, wire.VerifyDataLen, seq, wire.VerifyDataLen, 1), 7)
	}, wire.AlertDecodeError},
	{"no message", wire.ContentHandshake, func([]byte, uint16) []byte { return nil }, wire.AlertUnexpectedMessage},
	{"a ChangeCipherSpec", wire.ContentChangeCipherSpec, func([]byte, uint16) []byte { return []byte{1} }, wire.AlertUnexpectedMessage},
	{"a heartbeat", 24, func([]byte, uint16) []byte { return []byte{1, 0, 0} }, wire.AlertUnexpectedMessage},
	{"an unknown content type", 200, func([]byte, uint16) []byte { return []byte("any") }, wire.AlertUnexpectedMessage},
	{"an empty alert", wire.ContentAlert, func([]byte, uint16) []byte { return nil }, wire.AlertDecodeError},
	{"half an alert", wire.ContentAlert, func([]byte, uint16) []byte { return []byte{2} }, wire.AlertDecodeError},
	{"two alerts", wire.ContentAlert, func([]byte, uint16) []byte { return []byte{1, 90, 1, 0} }, wire.AlertDecodeError},
	{"an alert of no level", wire.ContentAlert, func([]byte, uint16) []byte { return []byte{3, 0} }, wire.AlertDecodeError},
}

// TestAuthenticatedNonsense: what is the peer's own and cannot be is refused at
// once, wherever it comes, with a fatal alert that the client can read: after our
// ChangeCipherSpec it is sealed, and what had not gone out goes before it.
func TestAuthenticatedNonsense(t *testing.T) {
	t.Parallel()
	type place struct {
		name     string
		scene    string
		steps    int  // of the scene's path, before it
		joined   bool // in one record with the Finished, behind it
		early    bool // before the ChangeCipherSpec, which follows
		opens    bool // there is an association by then
		afterCCS bool // of ours
	}
	places := []place{
		{"before Finished", "psk", 4, false, false, false, false},
		{"in front of everything", "psk", 1, false, true, false, false},
		{"in one record with Finished", "psk", 4, true, false, true, true},
		{"after Finished", "psk", 5, false, false, true, true},
		{"before the verdict", "psk-verdict", 5, false, false, false, false},
		{"in one record with Finished, before the verdict", "psk-verdict", 4, true, false, false, false},
		{"after the verdict", "psk-verdict", 6, false, false, true, true},
		{"resuming, before Finished", "resumption", 2, false, false, false, true},
		{"resuming, in one record with Finished", "resumption", 2, true, false, true, true},
		{"resuming, after Finished", "resumption", 3, false, false, true, true},
		{"with certificates, before Finished", "client-certificate-verdict", 10, false, false, false, false},
	}
	for _, p := range places {
		for _, n := range nonsense {
			if p.joined && n.content != wire.ContentHandshake || p.early && n.content != wire.ContentHandshake {
				continue // neither would be one record, nor kept
			}
			t.Run(p.name+"/"+n.name, func(t *testing.T) {
				t.Parallel()
				i := slices.IndexFunc(scenes, func(s *scene) bool { return s.name == p.scene })
				w := newWorld(t, scenes[i])
				w.play(scenes[i].path[:p.steps])
				finished := w.client.FinishedMessage()
				f, _, _ := wire.ParseFragment(finished)
				payload := n.payload(finished, f.MessageSeq)
				if len(payload) == 0 && p.joined {
					t.Skip("is nothing behind another message")
				}
				if p.joined {
					payload = append(bytes.Clone(finished), payload...)
				}
				seen := len(w.client.Seen)
				w.receive(w.client.Sealed(n.content, payload))
				if p.early {
					w.wantOpen("before there are keys")
					for _, step := range []string{"keyExchange", "psk", "ccs"} {
						w.step(step)
					}
				}
				ev := w.wantClosed(CauseHandshake, "after it")
				if ev.Alert != n.alert || ev.Why == "" {
					t.Errorf("closed with alert %d %q, want %d", ev.Alert, ev.Why, n.alert)
				}
				w.toClient()
				if want := []wire.Alert{{Level: wire.LevelFatal, Description: n.alert}}; !slices.Equal(w.client.Alerts, want) {
					t.Fatalf("the client got alerts %v, want %v", w.client.Alerts, want)
				}
				last := w.client.Seen[len(w.client.Seen)-1]
				if last.Type != wire.ContentAlert || (last.Epoch == 1) != p.afterCCS {
					t.Errorf("the last record is of type %d, epoch %d", last.Type, last.Epoch)
				}
				if p.afterCCS && !w.client.Complete {
					t.Error("the client has not got our Finished")
				}
				opened := slices.ContainsFunc(w.events, func(ev Event) bool { return ev.Kind == EventEstablished })
				if opened != p.opens {
					t.Errorf("established %v, want %v", opened, p.opens)
				}
				if at := w.e.Deadline(); !at.IsZero() || w.e.Sending() || len(w.client.Seen)-seen > 3 {
					t.Errorf("deadline %v, still sending %v, %d records", at, w.e.Sending(), len(w.client.Seen)-seen)
				}
				if drops := w.receive(w.client.Sealed(wire.ContentHandshake, finished)); !slices.Equal(drops, []Drop{DropClosed}) {
					t.Errorf("then a Finished is dropped for %v", drops)
				}
				w.wantSilent("after the end")
			})
		}
	}
}

// TestRepetitionsAreNoNonsense: what may come late or again, from an honest client,
// ends nothing.
func TestRepetitionsAreNoNonsense(t *testing.T) {
	t.Parallel()
	d := newDriver(t, newConfig())
	d.establish()
	for seq := range d.e.finishedSeq {
		for _, typ := range []wire.HandshakeType{wire.TypeClientKeyExchange, wire.TypeFinished, wire.TypeCertificate} {
			m := testpeer.Message(typ, seq, make([]byte, wire.VerifyDataLen))
			if drops := d.receive(d.client.Sealed(wire.ContentHandshake, m)); !slices.Equal(drops, []Drop{DropRepeated}) {
				t.Errorf("message_seq %d of type %d: %v", seq, typ, drops)
			}
		}
	}
	hello := testpeer.Message(wire.TypeClientHello, d.e.finishedSeq+1, d.client.HelloBody())
	for range 3 {
		d.receive(d.client.Sealed(wire.ContentHandshake, hello))
		d.receive(d.client.Sealed(wire.ContentHandshake, part(hello, 10, 20)))
		d.advance(time.Second)
	}
	if len(d.sent) != 3 {
		t.Errorf("%d answers to three hellos in two pieces each", len(d.sent))
	}
	d.toClient()
	d.wantData("as before")
}
