package engine

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// fragment cuts a fragment out of a message.
func fragment(t wire.HandshakeType, seq uint16, body []byte, from, to int) []byte {
	b := wire.AppendHandshakeHeader(nil, t, len(body), seq, from, to-from)
	return append(b, body[from:to]...)
}

// TestFragmentedClientFlight cuts ClientKeyExchange and Finished into every
// size, in order and in a random one, with everything twice.
func TestFragmentedClientFlight(t *testing.T) {
	t.Parallel()
	for size := 1; size < 14; size++ {
		for _, shuffled := range []bool{false, true} {
			d := newDriver(t, newConfig())
			d.hello()
			d.toClient()
			cke, ccs, _ := d.client.KeyExchange()
			r, _, _ := wire.ParseRecord(cke, 0)
			var records [][]byte
			cut := func(message []byte, seal func(content []byte) []byte) {
				f, _, _ := wire.ParseFragment(message)
				for from := 0; from < len(f.Body); from += size {
					to := min(from+size, len(f.Body))
					records = append(records, seal(fragment(f.Type, f.MessageSeq, f.Body, from, to)))
				}
				records = append(records, records...)
			}
			send := func() {
				if shuffled {
					rand.New(rand.NewPCG(1, uint64(size))).Shuffle(len(records), func(i, j int) {
						records[i], records[j] = records[j], records[i]
					})
				}
				for _, record := range records {
					d.receive(record)
				}
				records = nil
			}
			cut(r.Payload, func(b []byte) []byte { return d.client.Plain(wire.ContentHandshake, b) })
			send()
			d.receive(ccs)
			cut(d.client.FinishedMessage(), func(b []byte) []byte { return d.client.Sealed(wire.ContentHandshake, b) })
			send()
			if !d.e.Established() {
				t.Errorf("fragments of %d bytes, shuffled %v: not established", size, shuffled)
			}
		}
	}
}

// TestServerFragments: flights are cut to the MTU and reassemble to the same
// transcript, datagrams being filled but for the last.
func TestServerFragments(t *testing.T) {
	t.Parallel()
	for _, mtu := range []int{MinMTU, 200, 576, 1200} {
		cfg := newConfig()
		cfg.MTU = mtu
		cfg.PSKIdentityHint = func(string) []byte { return bytes.Repeat([]byte("hint"), 250) }
		d := newDriver(t, cfg)
		d.hello()
		for i, datagram := range d.sent {
			if i < len(d.sent)-2 && i > 0 && len(datagram) != mtu {
				t.Errorf("MTU %d: datagram %d of %d has %d bytes", mtu, i, len(d.sent), len(datagram))
			}
		}
		d.toClient()
		if split := d.client.Fragments > 0; split != (mtu < 1100) {
			t.Errorf("MTU %d: fragmented %v", mtu, split)
		}
		d.receive(d.client.Flight())
		d.wantEstablished("with fragments")
		d.toClient()
		if !d.client.Complete {
			t.Errorf("MTU %d: the client's transcript is another", mtu)
		}
	}
}

// TestReassembler: bounds before memory, overlaps, and fragments that disagree.
func TestReassembler(t *testing.T) {
	t.Parallel()
	const cke = wire.TypeClientKeyExchange
	piece := func(length, offset uint32, body string) wire.Fragment {
		return wire.Fragment{Type: cke, Length: length, Offset: offset, Body: []byte(body)}
	}
	tests := []struct {
		name string
		add  []wire.Fragment
		drop []Drop
		want string // "": not whole
	}{
		{"whole", []wire.Fragment{piece(3, 0, "abc")}, []Drop{DropNone}, "abc"},
		{"in order", []wire.Fragment{piece(3, 0, "a"), piece(3, 1, "bc")}, []Drop{DropNone, DropNone}, "abc"},
		{"backwards", []wire.Fragment{piece(3, 2, "c"), piece(3, 1, "b"), piece(3, 0, "a")}, []Drop{DropNone, DropNone, DropNone}, "abc"},
		{"overlap", []wire.Fragment{piece(4, 0, "abc"), piece(4, 1, "bcd")}, []Drop{DropNone, DropNone}, "abcd"},
		{"enclosed", []wire.Fragment{piece(4, 1, "b"), piece(4, 3, "d"), piece(4, 0, "abc")}, []Drop{DropNone, DropNone, DropNone}, "abcd"},
		{"repeated", []wire.Fragment{piece(4, 0, "ab"), piece(4, 0, "ab"), piece(4, 2, "cd")}, []Drop{DropNone, DropNone, DropNone}, "abcd"},
		{"gap", []wire.Fragment{piece(4, 0, "ab"), piece(4, 3, "d")}, []Drop{DropNone, DropNone}, ""},
		{"empty", []wire.Fragment{piece(4, 0, ""), piece(4, 4, "")}, []Drop{DropMalformed, DropMalformed}, ""},
		{"another length", []wire.Fragment{piece(4, 0, "ab"), piece(5, 2, "cd"), piece(4, 0, "ab"), piece(4, 2, "cd")}, []Drop{DropNone, DropNone, DropNone, DropNone}, "abcd"},
		{"too long", []wire.Fragment{piece(65, 0, "ab"), piece(1<<24-1, 0, "ab")}, []Drop{DropLimit, DropLimit}, ""},
		{"whole after a forgery", []wire.Fragment{piece(9, 0, "xy"), piece(3, 0, "abc")}, []Drop{DropNone, DropNone}, "abc"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var a reassembler
			got := ""
			for i, f := range tt.add {
				body, drop := a.add(f, 64, uint64(i+1))
				if drop != tt.drop[i] {
					t.Errorf("fragment %d: drop %d, want %d", i, drop, tt.drop[i])
				}
				got += string(body)
			}
			if got != tt.want {
				t.Errorf("message %q, want %q", got, tt.want)
			}
			if tt.name == "too long" && a.body != nil {
				t.Error("memory was taken")
			}
		})
	}
}

// TestReassemblerTakesAnyOrder: a message completes however many pieces it comes
// in, in whatever order.
func TestReassemblerTakesAnyOrder(t *testing.T) {
	t.Parallel()
	const length = 2 << 10
	message := make([]byte, length)
	rng := rand.New(rand.NewPCG(5, 6))
	for i := range message {
		message[i] = byte(rng.Uint32())
	}
	var a reassembler
	var body []byte
	for _, i := range rng.Perm(length / 2) {
		if body != nil {
			t.Fatal("whole before all has come")
		}
		body, _ = a.add(wire.Fragment{Type: wire.TypeClientKeyExchange, Length: length, Offset: uint32(2 * i), Body: message[2*i : 2*i+2]}, length, 1)
	}
	if !bytes.Equal(body, message) {
		t.Error("the message is not whole")
	}
}

// TestReassemblerKeepsItsMemory: fragments that contradict each other in the
// length of their message take memory a few times, and begin it anew once a
// datagram at most.
func TestReassemblerKeepsItsMemory(t *testing.T) {
	const maxLen = 16 << 10
	tests := []struct {
		name   string
		length func(i int) int
		offset int
	}{
		{"in turns", func(i int) int { return maxLen - i%2 }, 1},
		{"in turns, at the end", func(i int) int { return maxLen - i%2 }, maxLen - 3},
		{"rising", func(i int) int { return 3 + i%(maxLen-2) }, 1},
		{"falling", func(i int) int { return maxLen - i%(maxLen-2) }, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var a reassembler
			n, grown, held := 0, 0, 0
			step := func() {
				drops := 0
				for range 50 {
					f := wire.Fragment{Type: wire.TypeClientHello, Length: uint32(tt.length(n)), Offset: uint32(tt.offset), Body: []byte{1}}
					if _, drop := a.add(f, maxLen, uint64(1+n/50)); drop == DropLimit {
						drops++
					}
					n++
				}
				if drops < 24 {
					t.Fatalf("%d of 50 fragments that contradict each other were dropped", drops)
				}
				if a.held() != held {
					held = a.held()
					grown++
				}
			}
			for range 1000 {
				step()
			}
			if grown > 16 || held > maxLen+maxLen/8 {
				t.Errorf("memory was taken %d times, at last %d bytes", grown, held)
			}
			if allocs := testing.AllocsPerRun(100, step); allocs != 0 {
				t.Errorf("%v allocations", allocs)
			}
		})
	}
}

// TestReassemblerTakesWhatHasCome: memory is set aside for the bytes that have
// come and a bit for each that is declared.
func TestReassemblerTakesWhatHasCome(t *testing.T) {
	t.Parallel()
	const length = 16 << 10
	var used reserved
	a := reassembler{budget: &used}
	for end := 100; end < length; end += 100 {
		a.add(wire.Fragment{Type: wire.TypeCertificate, Length: length, Offset: uint32(end - 100), Body: make([]byte, 100)}, length, 1)
		if most := max(2*end, minRoom) + length/8; int(used) != a.held() || a.held() > most {
			t.Fatalf("after %d bytes %d are reserved and %d held, want %d at most", end, used, a.held(), most)
		}
	}
	if a.reset(); used != 0 {
		t.Errorf("%d bytes are still reserved", used)
	}
}

// TestReassemblerModel holds random fragments against a plain bitmap.
func TestReassemblerModel(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		message := make([]byte, 2+rng.IntN(60))
		for i := range message {
			message[i] = byte(rng.Uint32())
		}
		var a reassembler
		have := make([]bool, len(message))
		for whole := false; !whole; {
			from := rng.IntN(len(message))
			to := from + rng.IntN(len(message)-from) + 1
			body, drop := a.add(wire.Fragment{
				Type: wire.TypeClientKeyExchange, Length: uint32(len(message)), Offset: uint32(from), Body: message[from:to],
			}, 64, 1)
			if drop != DropNone {
				t.Fatalf("dropped for %d", drop)
			}
			for i := from; i < to; i++ {
				have[i] = true
			}
			whole = !bytes.Contains(boolBytes(have), []byte{0}) || to-from == len(message)
			if (body != nil) != whole {
				t.Fatalf("message given out: %v, all bytes there: %v", body != nil, whole)
			}
			if whole && !bytes.Equal(body, message) {
				t.Fatal("another message")
			}
		}
	}
}

func boolBytes(v []bool) []byte {
	b := make([]byte, len(v))
	for i := range v {
		if v[i] {
			b[i] = 1
		}
	}
	return b
}

// TestEarlyRecordsAreBounded: what overtakes the client's flight is kept up to
// a bound, and the handshake completes when the flight is repeated.
func TestEarlyRecordsAreBounded(t *testing.T) {
	t.Parallel()
	d := newDriver(t, newConfig())
	d.hello()
	d.toClient()
	cke, ccs, finished := d.client.KeyExchange()
	for i := range 1000 {
		r := wire.AppendRecordHeader(nil, wire.ContentHandshake, wire.VersionDTLS12, 1, uint64(i), 100)
		d.receive(append(r, make([]byte, 100)...))
	}
	if n := d.e.hs.earlyRecords; n != maxEarly {
		t.Errorf("%d records are kept, want %d", n, maxEarly)
	}
	d.receive(cke)
	d.receive(ccs)
	d.wantOpen("after forged early records")
	d.receive(finished)
	d.wantEstablished("after the flight")
}

// FuzzEngine feeds an engine with any records after a right hello, and lets
// time pass. Whatever comes, it neither panics nor completes: the fuzzer has
// no key.
func FuzzEngine(f *testing.F) {
	c := testpeer.New(identity, []byte(key), 1)
	f.Add(c.Plain(wire.ContentHandshake, testpeer.Message(wire.TypeClientKeyExchange, 2, []byte{0, 1, 'a'})))
	f.Add(append(c.Plain(wire.ContentChangeCipherSpec, []byte{1}), c.Plain(wire.ContentAlert, []byte{2, 40})...))
	f.Fuzz(func(t *testing.T, datagram []byte) {
		d := &driver{t: t, cfg: newConfig(), client: testpeer.New(identity, []byte(key), 1)}
		d.client.MessageSeq = 1
		d.answer = func(string) []byte { return []byte(key) }
		d.hello()
		for len(datagram) > 0 {
			r, rest, ok := NextRecord(datagram, 0)
			if !ok {
				break
			}
			datagram = rest
			d.receive(r.Raw)
			d.advance(10_000_000)
		}
		if d.e.Established() {
			t.Error("established without the key")
		}
	})
}

// bounded is a Budget.
type bounded struct{ used, most int }

func (b *bounded) Reserve(bytes int) bool {
	if b.used+bytes > b.most {
		return false
	}
	b.used += bytes
	return true
}

// FuzzReassembler feeds the reassembler with fragments as the bytes say: length,
// offset and body, eight bytes each. Whatever comes, it gives out only messages
// of which every byte has come, and keeps no more than is allowed.
func FuzzReassembler(f *testing.F) {
	f.Add([]byte{4, 0, 2, 1, 1, 1, 1, 1, 4, 2, 2, 2, 2, 2, 2, 2})
	f.Add([]byte{4, 3, 1, 9, 0, 0, 0, 0, 4, 0, 3, 1, 2, 3, 0, 0})
	f.Add([]byte{5, 0, 1, 1, 0, 0, 0, 0, 4, 0, 4, 1, 2, 3, 4, 0})
	f.Fuzz(func(t *testing.T, script []byte) {
		const maxLen = 300
		used := bounded{most: 400}
		a := reassembler{budget: &used}
		came := map[int]byte{} // bytes of the message under way, the newest of each
		for n := uint64(0); len(script) >= 8; script = script[8:] {
			total, offset, size := int(script[0])|int(script[7]&1)<<8, int(script[1]), int(script[2]%6)
			n++
			if offset+size > total { // ParseFragment refuses it
				continue
			}
			f := wire.Fragment{Type: wire.TypeClientKeyExchange, Length: uint32(total), Offset: uint32(offset), Body: script[3 : 3+size]}
			before := a.length
			body, drop := a.add(f, maxLen, 1+n/4)
			if a.length != before && body == nil || f.Whole() {
				came = map[int]byte{} // another message has begun
			}
			if drop == DropNone {
				for i := range size {
					came[offset+i] = f.Body[i]
				}
			}
			if body != nil {
				if len(body) != total || len(came) != total {
					t.Fatalf("a message of %d bytes, declared as %d, of which %d came", len(body), total, len(came))
				}
				for i, b := range body {
					if came[i] != b {
						t.Fatalf("byte %d is %d, %d came", i, b, came[i])
					}
				}
				came = map[int]byte{}
			}
			if used.used != a.held() {
				t.Fatalf("%d bytes are reserved, %d held", used.used, a.held())
			}
		}
		if a.reset(); used.used != 0 {
			t.Fatalf("%d bytes are still reserved", used.used)
		}
	})
}
