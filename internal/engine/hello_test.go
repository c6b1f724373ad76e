package engine

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// piece is a fragment's place in its message.
type piece struct{ from, to int }

// pieces cuts a message into fragments of size bytes.
// parseHello reads one hello.
func parseHello(datagram []byte) (Hello, bool) { return new(HelloReader).Read(datagram) }

func pieces(length, size int) (all []piece) {
	for from := 0; from < length; from += size {
		all = append(all, piece{from, min(from+size, length)})
	}
	return all
}

// fragments returns handshake fragments of a ClientHello.
func fragments(body []byte, seq uint16, all []piece) (out [][]byte) {
	for _, p := range all {
		h := wire.AppendHandshakeHeader(nil, wire.TypeClientHello, len(body), seq, p.from, p.to-p.from)
		out = append(out, append(h, body[p.from:p.to]...))
	}
	return out
}

// records returns fragments in records, so many in each, numbered from 7 on.
func records(fragments [][]byte, each int) (datagram []byte) {
	for seq := uint64(7); len(fragments) > 0; seq++ {
		n := min(each, len(fragments))
		content := bytes.Join(fragments[:n], nil)
		fragments = fragments[n:]
		datagram = wire.AppendRecordHeader(datagram, wire.ContentHandshake, wire.VersionDTLS10, 0, seq, len(content))
		datagram = append(datagram, content...)
	}
	return datagram
}

// TestHelloInParts: fragments of a hello in one datagram are put together, of any
// size, in any order, however they overlap and lie in records; and what is behind
// them is left. What lacks a fragment is as good as what there is in front of it.
func TestHelloInParts(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	var reader HelloReader // for all: nothing of one may be seen in another
	behind := []byte("behind")
	for n := range 300 {
		c := testpeer.New("", nil, uint64(n))
		c.Cookie = make([]byte, random.IntN(256))
		unknown := random.IntN(200) // bytes of an extension
		c.More = append([]byte{0xfa, 0xfa, 0, byte(unknown)}, make([]byte, unknown)...)
		body := c.HelloBody()
		all := pieces(len(body), 1+random.IntN(len(body)/2))
		for i := range all { // overlap
			all[i].from = max(0, all[i].from-random.IntN(3))
		}
		if n%2 == 1 {
			random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		}
		parts := fragments(body, 3, all)
		if n%3 == 1 {
			parts = append(fragments(body, 3, []piece{{5, 5}}), parts...) // an empty one
		}
		datagram := records(parts, 1+random.IntN(5))
		h, ok := reader.Read(append(bytes.Clone(datagram), behind...))
		if !ok || !h.InParts || !bytes.Equal(h.Body, body) || !bytes.Equal(h.Rest, behind) || h.RecordSeq != 7 || h.MessageSeq != 3 {
			t.Fatalf("%d: %d fragments: %v, %+v", n, len(parts), ok, h)
		}
		if !bytes.Equal(h.Random, c.Random[:]) || !bytes.Equal(h.Cookie, c.Cookie) || h.Version != wire.VersionDTLS12 {
			t.Fatalf("%d: %+v", n, h)
		}
		// Without one fragment.
		lost := random.IntN(len(all))
		some := append(append([]piece(nil), all[:lost]...), all[lost+1:]...)
		if len(some) == 0 {
			continue
		}
		came := 0
		for at := range body {
			if !anyHas(some, at) {
				break
			}
			came++
		}
		h, ok = reader.Read(records(fragments(body, 3, some), 2))
		if want := came >= 2+32+1+1+len(c.Cookie); ok != want && came < len(body) {
			t.Fatalf("%d: %d of %d bytes from the beginning: %v", n, came, len(body), ok)
		}
		if ok && came < len(body) && (h.Body != nil || h.InParts || !bytes.Equal(h.Cookie, c.Cookie)) {
			t.Fatalf("%d: without a fragment: %+v", n, h)
		}
	}
}

func anyHas(all []piece, at int) bool {
	for _, p := range all {
		if p.from <= at && at < p.to {
			return true
		}
	}
	return false
}

// TestHelloPartsEnd: what ends the fragments that are put together.
func TestHelloPartsEnd(t *testing.T) {
	t.Parallel()
	body := testpeer.New("", nil, 1).HelloBody()
	other := testpeer.New("", nil, 2).HelloBody()
	halves := fragments(body, 3, []piece{{0, 50}, {50, len(body)}})
	wrong := map[string][]byte{
		"of another message_seq": fragments(body, 4, []piece{{50, len(body)}})[0],
		"of another length":      fragments(append(bytes.Clone(other), 0), 3, []piece{{50, len(body) + 1}})[0],
		"of another message":     testpeer.Message(wire.TypeFinished, 3, make([]byte, 12)),
		"malformed":              {1, 2, 3},
	}
	var reader HelloReader
	for name, f := range wrong {
		for each := 1; each <= 3; each++ {
			h, ok := reader.Read(records([][]byte{halves[0], f, halves[1]}, each))
			if !ok || h.InParts || h.Body != nil {
				t.Errorf("a fragment %s between: %v, %+v", name, ok, h)
			}
			if h, ok := reader.Read(records([][]byte{f, halves[0], halves[1]}, each)); ok && h.InParts && name != "of another length" {
				t.Errorf("a fragment %s in front: %+v", name, h)
			}
		}
	}
	between := records(halves[:1], 1)
	between = append(between, wire.AppendRecordHeader(nil, wire.ContentAlert, wire.VersionDTLS12, 0, 8, 0)...)
	if h, ok := reader.Read(append(between, records(halves[1:], 1)...)); !ok || h.Body != nil {
		t.Errorf("another record between: %v, %+v", ok, h)
	}
	// A long hello, of as many fragments as are looked at, and of one more.
	long := append(bytes.Clone(body), make([]byte, maxHelloParts-len(body))...)
	if h, ok := reader.Read(records(fragments(long, 3, pieces(len(long), 1)), 64)); !ok || !bytes.Equal(h.Body, long) {
		t.Errorf("%d fragments: %v", maxHelloParts, ok)
	}
	long = append(long, 0)
	if h, ok := reader.Read(records(fragments(long, 3, pieces(len(long), 1)), 64)); !ok || h.Body != nil {
		t.Errorf("%d fragments: %v, %+v", maxHelloParts+1, ok, h)
	}
	// Nothing of the hello before is in one that has not begun.
	if h, ok := reader.Read(records(fragments(long, 3, []piece{{0, 0}, {0, 0}}), 1)); ok {
		t.Errorf("empty fragments are a hello: %+v", h)
	}
	if h, ok := reader.Read(records(fragments(long, 3, []piece{{100, 101}, {1, 100}}), 1)); ok {
		t.Errorf("a hello without its first byte: %+v", h)
	}
}

// TestHelloReaderAllocates nothing, once it has its memory.
func TestHelloReaderAllocates(t *testing.T) {
	body := append(testpeer.New("", nil, 1).HelloBody(), make([]byte, 10000)...)
	datagram := records(fragments(body, 3, pieces(len(body), 100)), 2)
	part := records(fragments(body, 3, []piece{{60, 80}, {0, 70}, {9990, 9991}}), 1)
	var reader HelloReader
	if n := testing.AllocsPerRun(100, func() {
		if h, ok := reader.Read(datagram); !ok || h.Body == nil {
			t.Fatal("not read")
		}
		reader.Read(part)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if held := reader.parts.held(); held > maxClientHello+maxClientHello/8 {
		t.Errorf("%d bytes are held", held)
	}
}

// TestHelloBehindItsEnd: a hello whose end is malformed is one all the same, lest
// nobody be told.
func TestHelloBehindItsEnd(t *testing.T) {
	t.Parallel()
	body := testpeer.New("", nil, 1).HelloBody()
	for _, b := range [][]byte{body, append(bytes.Clone(body), 0), body[:len(body)-1], body[:36]} {
		h, ok := parseHello(records([][]byte{testpeer.Message(wire.TypeClientHello, 3, b)}, 1))
		if !ok || h.InParts || !bytes.Equal(h.Body, b) || !h.Negotiable() {
			t.Errorf("%d bytes of %d: %v, %+v", len(b), len(body), ok, h)
		}
	}
	if _, ok := parseHello(records([][]byte{testpeer.Message(wire.TypeClientHello, 3, body[:35])}, 1)); ok {
		t.Error("a hello that ends in front of its cookie")
	}
}

// TestNegotiable: who is not worth a cookie.
func TestNegotiable(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		versions []uint16 // supported_versions
		client   uint16
		want     bool // worth a cookie
		offers   bool // 1.2
	}{
		{"1.2", nil, 0xfefd, true, true},
		{"newer", nil, 0xfefc, true, true},
		{"much newer", nil, 0x0000, true, true},
		{"1.0", nil, 0xfeff, true, false}, // which knows HelloVerifyRequest
		{"1.3 and 1.2", []uint16{0xfefc, 0xfefd}, 0xfefd, true, true},
		{"1.3 only", []uint16{0xfefc}, 0xfefd, false, false},
		{"1.3 and 1.0", []uint16{0xfefc, 0xfeff}, 0xfefd, false, false},
		{"unknown versions and 1.2", []uint16{0x7a7a, 0x0304, 0xfefd}, 0xfefd, true, true},
		{"unknown versions", []uint16{0x7a7a, 0x0304}, 0xfefd, false, false},
		{"1.2 in the list alone", []uint16{0xfefd}, 0xfeff, true, true},
	}
	for _, tt := range tests {
		c := testpeer.New("", nil, 1)
		if tt.versions != nil {
			c.More = []byte{0, 43, 0, byte(1 + 2*len(tt.versions)), byte(2 * len(tt.versions))}
			for _, v := range tt.versions {
				c.More = append(c.More, byte(v>>8), byte(v))
			}
		}
		body := c.HelloBody()
		body[0], body[1] = byte(tt.client>>8), byte(tt.client)
		h, ok := parseHello(records([][]byte{testpeer.Message(wire.TypeClientHello, 0, body)}, 1))
		if !ok || h.Negotiable() != tt.want {
			t.Errorf("%s: %v, worth a cookie: %v", tt.name, ok, !tt.want)
		}
		hello, _ := wire.ParseClientHello(body)
		x, ok := wire.ParseClientExtensions(hello.Extensions)
		if !ok || offersDTLS12(hello.Version, x.SupportedVersions) != tt.offers {
			t.Errorf("%s: %v, offers 1.2: %v", tt.name, ok, !tt.offers)
		}
		part := records(fragments(body, 0, []piece{{0, len(body) - 1}}), 1)
		if h, ok := parseHello(part); !ok || !h.Negotiable() {
			t.Errorf("%s: a first fragment is judged", tt.name)
		}
	}
}

// FuzzHelloReader: a reader that has read other hellos reads what a new one does,
// and what it reads lies in the datagram.
func FuzzHelloReader(f *testing.F) {
	body := testpeer.New("", nil, 1).HelloBody()
	f.Add(records([][]byte{testpeer.Message(wire.TypeClientHello, 3, body)}, 1))
	for _, size := range []int{1, 10, 50} {
		f.Add(records(fragments(body, 3, pieces(len(body), size)), 3))
	}
	f.Add(records(fragments(body, 3, []piece{{0, 0}, {40, 90}, {0, 50}}), 1))
	var used HelloReader
	f.Fuzz(func(t *testing.T, datagram []byte) {
		fresh, ok := parseHello(datagram)
		again, ok2 := used.Read(datagram)
		if ok != ok2 || fresh.InParts != again.InParts || !bytes.Equal(fresh.Body, again.Body) || !bytes.Equal(fresh.Random, again.Random) || !bytes.Equal(fresh.Cookie, again.Cookie) {
			t.Fatalf("a new reader: %v, %+v\na used one: %v, %+v", ok, fresh, ok2, again)
		}
		if !ok {
			return
		}
		if fresh.InParts && (fresh.Body == nil || !bytes.HasSuffix(datagram, fresh.Rest)) {
			t.Errorf("put together: %+v", fresh)
		}
		if len(datagram) < 61 || fresh.Body != nil && len(fresh.Body) < 36 {
			t.Errorf("%d bytes are a hello", len(datagram))
		}
		fresh.Negotiable()
	})
}
