package dtlsserver

// Hellos in fragments, in one datagram or several, hellos of other versions, and
// what is said to whom has not proven its address.

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testcert"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// inParts cuts the message of a datagram into fragments of size bytes, so many in
// a record, all in one datagram.
func inParts(c *testpeer.Client, datagram []byte, size, each int) (parts []byte) {
	r, _, _ := wire.ParseRecord(datagram, 0)
	f, _, _ := wire.ParseFragment(r.Payload)
	var content []byte
	for from, n := 0, 0; from < len(f.Body); from += size {
		to := min(from+size, len(f.Body))
		content = wire.AppendHandshakeHeader(content, f.Type, len(f.Body), f.MessageSeq, from, to-from)
		content = append(content, f.Body[from:to]...)
		if n++; n == each || to == len(f.Body) {
			parts = append(parts, c.Plain(wire.ContentHandshake, content)...)
			content, n = nil, 0
		}
	}
	return parts
}

// TestHelloInParts: both hellos come in fragments of any size in one datagram, and
// are answered at once. Nothing is kept of the first.
func TestHelloInParts(t *testing.T) {
	t.Parallel()
	for size := 1; size < 80; size++ {
		for _, each := range []int{1, 3, 1000} {
			d := newDirect(t, nil)
			c, from := testpeer.New(testIdentity, []byte(testKey), 1), clientAddr(1)
			first := inParts(c, c.Hello(), size, each)
			d.exchange(c, from, first)
			if c.Cookie == nil || len(d.l.peers.byRemote) != 0 {
				t.Fatalf("fragments of %d, %d in a record: no cookie, or something is kept", size, each)
			}
			if out, in := len(d.out[0]), len(first); out >= in {
				t.Errorf("%d bytes are answered with %d", in, out)
			}
			d.exchange(c, from, inParts(c, c.Hello(), size, each))
			if !c.HelloDone {
				t.Fatalf("fragments of %d, %d in a record: no answer", size, each)
			}
			d.exchange(c, from, c.Flight())
			if !c.Complete {
				t.Fatalf("fragments of %d, %d in a record: not complete", size, each)
			}
		}
	}
}

// TestHelloInPartsOfParts: a hello in two datagrams of several fragments each, of
// which the second is lost, or comes alone at first; then both come in one.
func TestHelloInPartsOfParts(t *testing.T) {
	t.Parallel()
	halves := func(c *testpeer.Client) (first, second []byte) {
		datagram := inParts(c, c.Hello(), 10, 1)
		cut := 0
		for range 8 {
			r, _, _ := wire.ParseRecord(datagram[cut:], 0)
			cut += len(r.Raw)
		}
		return datagram[:cut], datagram[cut:]
	}
	for name, second := range map[string]func(d *direct, first, second []byte) []byte{
		"both come":                    func(_ *direct, _, second []byte) []byte { return second },
		"the second is lost":           func(_ *direct, first, second []byte) []byte { return bytes.Join([][]byte{first, second}, nil) },
		"the second is lost, reversed": func(_ *direct, first, second []byte) []byte { return bytes.Join([][]byte{second, first}, nil) },
		"the first comes again": func(d *direct, first, second []byte) []byte {
			if out := d.receive(clientAddr(1), first); len(out) > 0 {
				d.t.Errorf("a part of the hello, again, is answered with %x", out)
			}
			return second
		},
	} {
		d := newDirect(t, nil)
		c, from := testpeer.New(testIdentity, []byte(testKey), 1), clientAddr(1)
		first, _ := halves(c)
		d.exchange(c, from, first)
		if c.Cookie == nil {
			t.Fatalf("%s: no cookie", name)
		}
		first, rest := halves(c)
		if out := d.receive(from, first); len(out) > 0 || d.s.Stats().Handshakes != 1 {
			t.Fatalf("%s: %d datagrams, %+v", name, len(out), d.s.Stats())
		}
		d.exchange(c, from, second(d, first, rest))
		if !c.HelloDone {
			t.Fatalf("%s: no answer", name)
		}
		d.exchange(c, from, c.Flight())
		if !c.Complete {
			t.Errorf("%s: not complete", name)
		}
	}
}

// versioned returns a hello with a client_version and supported_versions, if there
// are any.
func versioned(c *testpeer.Client, version uint16, supported ...uint16) []byte {
	c.More = nil
	if supported != nil {
		c.More = []byte{0, 43, 0, byte(1 + 2*len(supported)), byte(2 * len(supported))}
		for _, v := range supported {
			c.More = append(c.More, byte(v>>8), byte(v))
		}
	}
	c.Version = version
	return c.Hello()
}

// TestClientVersion: DTLS 1.2 with whoever has it or something later, at once (RFC
// 5246 appendix E.1); protocol_version for others, once their address is proven.
func TestClientVersion(t *testing.T) {
	t.Parallel()
	tests := []struct {
		version   uint16
		supported []uint16
		in        bool
	}{
		{0xfefd, nil, true}, {0xfefc, nil, true}, {0xfe00, nil, true}, {0xfdff, nil, true}, {0x0303, nil, true}, {0x0100, nil, true}, {0x0000, nil, true},
		{0xfefd, []uint16{0xfefc, 0xfefd}, true}, {0xfefd, []uint16{0xfefd}, true}, {0xfeff, []uint16{0xfefd, 0xfeff}, true}, {0xfefd, []uint16{0x7a7a, 0xfefd}, true},
		{0xfeff, nil, false}, {0xfefe, nil, false}, {0xff00, nil, false}, {0xffff, nil, false},
		{0xfefd, []uint16{0xfefc}, false}, {0xfefd, []uint16{0xfeff}, false}, {0xfefc, []uint16{0xfefc, 0x7a7a}, false},
	}
	for _, tt := range tests {
		d := newDirect(t, nil)
		c, from := testpeer.New(testIdentity, []byte(testKey), 1), clientAddr(1)
		name := fmt.Sprintf("%04x, %04x", tt.version, tt.supported)
		hello := versioned(c, tt.version, tt.supported...)
		if tt.supported == nil || tt.in {
			d.exchange(c, from, hello)
		} else { // it gets no cookie, but would have one from elsewhere
			_, answer := d.l.cfg.verifier.Verify(nil, hello, from, d.now)
			c.Cookie = cookieOf(t, answer)
		}
		d.exchange(c, from, versioned(c, tt.version, tt.supported...))
		if tt.in {
			if c.ServerHello == nil || c.ServerHello.Version != wire.VersionDTLS12 {
				t.Fatalf("%s: ServerHello %+v, alerts %v", name, c.ServerHello, c.Alerts)
			}
			d.exchange(c, from, c.Flight())
			if !c.Complete {
				t.Errorf("%s: not complete", name)
			}
			continue
		}
		if len(c.Alerts) != 1 || c.Alerts[0] != (wire.Alert{Level: wire.LevelFatal, Description: wire.AlertProtocolVersion}) {
			t.Errorf("%s: alerts %v, %v", name, c.Alerts, d.rec.lines())
		}
		var alert *AlertError
		if e := d.rec.want(t, KindHandshakeFailed, 1, name); !errors.As(e.Err, &alert) || alert.Code != 70 || !alert.Sent {
			t.Errorf("%s: %v", name, e)
		}
		if s := d.s.Stats(); s.VersionAlerts != 0 {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

// TestVersionAlert: a client that cannot do what we can, and does not know
// HelloVerifyRequest, is told by an alert of 15 bytes with the record number of
// its hello. Nobody else is: not an address whose client is known, nor the sender
// of a first fragment, which may go on to list 1.2. And no more than a hundred in
// a second are.
func TestVersionAlert(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	from := clientAddr(1)
	c := testpeer.New(testIdentity, []byte(testKey), 1)
	c.Seq = 0x0102030405
	hello := versioned(c, 0xfefd, 0xfefc)
	for _, b := range [][]byte{hello, inParts(c, hello, 30, 1)} {
		r, _, _ := wire.ParseRecord(b, 0)
		out := d.receive(from, b)
		want := fmt.Sprintf("15fefd0000%012x00020246", r.Seq)
		if len(out) != 1 || hex.EncodeToString(out[0]) != want {
			t.Fatalf("answered with %x, want %s", out, want)
		}
	}
	d.advance(2 * foldWindow)
	var alert *AlertError
	if e := d.rec.want(t, KindHelloRefused, 2, "refused"); !errors.As(e.Err, &alert) || alert.Code != 70 || !alert.Sent || e.Remote != from {
		t.Errorf("%v", e)
	}
	d.rec.want(t, KindHelloVerifyRequestSent, 0, "to whom does not know it")
	if s := d.s.Stats(); s.VersionAlerts != 2 || s.Dropped.Versions != 2 || s.HelloVerifyRequests != 0 || len(d.l.peers.byRemote) != 0 {
		t.Errorf("%+v", s)
	}
	// A first fragment, with and without what follows in another datagram.
	first, second := split(c, hello, 50)
	if out := d.receive(from, first); len(out) != 1 || out[0][13] != byte(wire.TypeHelloVerifyRequest) {
		t.Errorf("a first fragment: %x", out)
	}
	if out := d.receive(from, second); len(out) != 0 {
		t.Errorf("the other: %x", out)
	}

	// A handshake under way, and an open session.
	known := testpeer.New(testIdentity, []byte(testKey), 2)
	silent := func(when string) {
		t.Helper()
		before := d.s.Stats()
		if out := d.receive(from, hello); len(out) != 0 {
			t.Errorf("%s: %x", when, out)
		}
		if s := d.s.Stats(); s.VersionAlerts != before.VersionAlerts || s.Dropped.Versions != before.Dropped.Versions+1 {
			t.Errorf("%s: %+v", when, s)
		}
	}
	d.exchange(known, from, known.Hello())
	d.exchange(known, from, known.Hello())
	silent("beside a handshake")
	d.exchange(known, from, known.Flight())
	silent("beside a session")
	if !known.Complete {
		t.Error("the handshake is not complete")
	}
	again := testpeer.New(testIdentity, []byte(testKey), 3)
	d.exchange(again, from, again.Hello())
	d.exchange(again, from, again.Hello())
	silent("beside both")

	// All together.
	d.advance(time.Second)
	told := func() (n int) {
		for i := range 1000 {
			n += len(d.receive(clientAddr(100+i), hello))
		}
		return n
	}
	if n := told(); n != maxVersionAlerts {
		t.Errorf("%d were told in no time", n)
	}
	d.advance(time.Second)
	if n := told(); n != maxVersionAlerts {
		t.Errorf("a second later %d were told", n)
	}
	if n := len(d.rec.of(KindHelloRefused)); n > 10 {
		t.Errorf("%d events", n)
	}
}

// TestHelloBehindItsEnd: what is behind the end of a hello is decode_error (RFC 5246
// section 7.4.1.2), once the address is proven, and so is all else that is
// malformed behind the cookie.
func TestHelloBehindItsEnd(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func([]byte) []byte{
		"a byte":                 func(b []byte) []byte { return append(b, 0) },
		"another block":          func(b []byte) []byte { return append(b, 0, 0) },
		"a kilobyte":             func(b []byte) []byte { return append(b, make([]byte, 1024)...) },
		"a byte too few":         func(b []byte) []byte { return b[:len(b)-1] },
		"nothing but the cookie": func(b []byte) []byte { return b[:2+32+1+1+b[35]] },
	} {
		for _, parts := range []bool{false, true} {
			d := newDirect(t, nil)
			c, from := testpeer.New(testIdentity, []byte(testKey), 1), clientAddr(1)
			hello := func() []byte {
				b := c.Plain(wire.ContentHandshake, testpeer.Message(wire.TypeClientHello, c.MessageSeq, edit(c.HelloBody())))
				c.MessageSeq++
				if parts {
					return inParts(c, b, 20, 2)
				}
				return b
			}
			d.exchange(c, from, hello())
			if c.Cookie == nil {
				t.Fatalf("%s: no cookie", name)
			}
			d.exchange(c, from, hello())
			if len(c.Alerts) != 1 || c.Alerts[0] != (wire.Alert{Level: wire.LevelFatal, Description: wire.AlertDecodeError}) {
				t.Errorf("%s behind the end, in parts %v: alerts %v, %v", name, parts, c.Alerts, d.rec.lines())
			}
		}
	}
}

// split cuts a datagram with one handshake message in two, the first with n
// bytes of its body.
func split(c *testpeer.Client, datagram []byte, n int) (first, second []byte) {
	r, _, _ := wire.ParseRecord(datagram, 0)
	f, _, _ := wire.ParseFragment(r.Payload)
	cut := func(from, to int, seq uint64) []byte {
		h := wire.AppendHandshakeHeader(nil, f.Type, len(f.Body), f.MessageSeq, from, to-from)
		h = append(h, f.Body[from:to]...)
		return append(wire.AppendRecordHeader(nil, r.Type, r.Version, 0, seq, len(h)), h...)
	}
	return cut(0, n, 2*r.Seq), cut(n, len(f.Body), 2*r.Seq+1)
}

// TestFragmentedHello: a hello in two datagrams is answered from the first,
// without anything being kept, and put together only after a right cookie.
func TestFragmentedHello(t *testing.T) {
	t.Parallel()
	c := testpeer.New(testIdentity, []byte(testKey), 1)
	length := len(c.HelloBody())
	head := 2 + 32 + 1 + 1 // without cookie
	for n := 1; n < length; n++ {
		d := newDirect(t, nil)
		c := testpeer.New(testIdentity, []byte(testKey), 1)
		from := clientAddr(1)
		first, second := split(c, c.Hello(), n)
		answer := d.receive(from, first)
		if answered := len(answer) == 1; answered != (n >= head) {
			t.Errorf("a first fragment of %d bytes: answered %v", n, answered)
		}
		if len(d.receive(from, second)) != 0 || len(d.l.peers.byRemote) != 0 {
			t.Errorf("%d bytes: the second fragment is answered, or something is kept", n)
		}
		if n < head {
			continue
		}
		if len(answer[0]) != 60 || len(answer[0]) >= len(first) {
			t.Errorf("%d bytes are answered with %d", len(first), len(answer[0]))
		}
		if err := c.Receive(answer[0]); err != nil {
			t.Fatal(err)
		}
		first, second = split(c, c.Hello(), n+cookieLen)
		if out := d.receive(from, second); len(out) != 0 { // overtakes: lost
			t.Errorf("the second fragment alone is answered")
		}
		if out := d.receive(from, first); len(out) != 0 || d.s.Stats().Handshakes != 1 {
			t.Errorf("after the first fragment: %d datagrams, %d handshakes", len(out), d.s.Stats().Handshakes)
		}
		d.receive(from, first) // repeated
		for _, b := range d.receive(from, second) {
			if err := c.Receive(b); err != nil {
				t.Fatal(err)
			}
		}
		d.exchange(c, from, c.Flight())
		if !c.Complete {
			t.Fatalf("split at %d: not complete", n)
		}
	}
}

// TestMixedHelloFragments: fragments of another hello do not take the place of
// the one with the cookie.
func TestMixedHelloFragments(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	c, from := testpeer.New(testIdentity, []byte(testKey), 1), clientAddr(1)
	d.exchange(c, from, c.Hello())
	first, _ := split(c, c.Hello(), 80)
	d.receive(from, first)
	other := testpeer.New(testIdentity, []byte(testKey), 2)
	other.Cookie, other.MessageSeq = bytes.Repeat([]byte{1}, 32), 1
	r, _, _ := wire.ParseRecord(other.Hello(), 0)
	f, _, _ := wire.ParseFragment(r.Payload)
	h := wire.AppendHandshakeHeader(nil, f.Type, len(f.Body), 1, 1, len(f.Body)-1)
	h = append(h, f.Body[1:]...)
	out := d.receive(from, append(wire.AppendRecordHeader(nil, r.Type, r.Version, 0, 9, len(h)), h...))
	for _, b := range out {
		_ = c.Receive(b)
	}
	if c.ServerHello != nil || len(c.Alerts) != 1 || c.Alerts[0].Description != wire.AlertDecodeError {
		t.Errorf("ServerHello %v, alerts %v", c.ServerHello, c.Alerts)
	}
}

// TestFragmentedRecordings: the fragmented hellos of a real client are answered
// from their first fragments, and lead to a handshake.
func TestFragmentedRecordings(t *testing.T) {
	t.Parallel()
	tried := 0
	for name, datagrams := range recordings(t) {
		if len(datagrams) == 1 {
			continue
		}
		ca := testcert.NewAuthority()
		d := newDirect(t, func(s *Server) {
			s.PSK = nil
			s.Certificates = append(s.Certificates, ca.Issue("localhost", testcert.NewKey("RSA")))
		})
		from := clientAddr(1)
		answer := d.receive(from, datagrams[0])
		if len(answer) != 1 {
			t.Errorf("%s: %d answers", name, len(answer))
			continue
		}
		const cookieAt = wire.RecordHeaderLen + wire.HandshakeHeaderLen + 2 + 32 + 1 + 1
		if datagrams[0][cookieAt-1] != cookieLen {
			continue // the first hello, without a cookie
		}
		copy(datagrams[0][cookieAt:], cookieOf(t, answer[0]))
		d.receive(from, datagrams[0])
		if out := d.receive(from, datagrams[1]); len(out) == 0 || out[0][13] != byte(wire.TypeServerHello) {
			t.Errorf("%s: answered with %x", name, out)
		}
		tried++
	}
	if tried == 0 {
		t.Error("no recording was tried")
	}
}
