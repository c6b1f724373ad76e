package engine

// How large datagrams are on paths that lose long ones.

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// longChain returns a driver whose server has a certificate flight of so many bytes,
// or a few more.
func longChain(t *testing.T, mtu, length int) *driver {
	cfg := newConfig()
	cfg.MTU, cfg.HandshakeTimeout = mtu, time.Hour
	c := *testCertificate
	for n := 0; n < length; n += len(c.Chain[0]) {
		c.Chain = append(c.Chain, c.Chain[0])
	}
	c.Chain = c.Chain[1:]
	cfg.Certificate = func(*HelloInfo) *Certificate { return &c }
	d := newDriver(t, cfg)
	d.client.Suites = []uint16{ecdheCert}
	return d
}

// sending is what is seen of a flight that was sent.
type sending struct {
	longest, datagrams, records int
	pieces                      [][3]int // message_seq, and from where to where
}

// take takes the flight that was sent.
func (d *driver) take() (s sending) {
	d.t.Helper()
	for _, datagram := range d.sent {
		s.datagrams++
		s.longest = max(s.longest, len(datagram))
		for len(datagram) > 0 {
			r, rest, _ := wire.ParseRecord(datagram, 0)
			datagram = rest
			s.records++
			if f, _, ok := wire.ParseFragment(r.Payload); ok && r.Type == wire.ContentHandshake && r.Epoch == 0 {
				s.pieces = append(s.pieces, [3]int{int(f.MessageSeq), int(f.Offset), int(f.Offset) + len(f.Body)})
			}
		}
	}
	d.sent = nil
	return s
}

// TestDatagramsGetSmaller: a flight that is not answered is retransmitted with one
// record in each datagram, and then in smaller datagrams, down to 256 bytes. Whatever
// was cut before is cut there again.
func TestDatagramsGetSmaller(t *testing.T) {
	t.Parallel()
	tests := []struct {
		mtu    int
		bounds []int // of the datagrams, in the order of the flights
	}{
		{1200, []int{1200, 1200, 548, 256, 256}},
		{1400, []int{1400, 1400, 1200, 548, 256, 256}},
		{9000, []int{9000, 9000, 1200, 548, 256, 256}},
		{600, []int{600, 600, 548, 256, 256}},
		{548, []int{548, 548, 256, 256}},
		{256, []int{256, 256, 256, 256}},
		{200, []int{200, 200, 200, 200}},
		{MinMTU, []int{MinMTU, MinMTU, MinMTU}},
	}
	for _, tt := range tests {
		for _, asked := range []bool{false, true} { // by the client, or by our timer
			d := longChain(t, tt.mtu, 3000)
			d.hello()
			var flights []sending
			for range tt.bounds {
				flights = append(flights, d.take())
				if asked {
					d.advance(999 * time.Millisecond)
					d.e.HelloAgain(d.now)
					d.pump()
				} else {
					d.advance(d.e.Deadline().Sub(d.now))
				}
			}
			for i, f := range flights {
				where := fmt.Sprintf("MTU %d, asked %v, flight %d", tt.mtu, asked, i)
				// Not shorter than they need be, either.
				if f.longest > tt.bounds[i] || f.longest < min(tt.bounds[i], 3000)-100 {
					t.Errorf("%s: the longest datagram has %d bytes, want %d", where, f.longest, tt.bounds[i])
				}
				if i == 0 {
					continue
				}
				if single := i >= 2 && tt.bounds[i] <= 256; single && f.datagrams != f.records {
					t.Errorf("%s: %d records in %d datagrams", where, f.records, f.datagrams)
				}
				for _, p := range flights[i-1].pieces {
					if !slices.ContainsFunc(f.pieces, func(q [3]int) bool { return p[0] == q[0] && p[1] == q[1] }) ||
						!slices.ContainsFunc(f.pieces, func(q [3]int) bool { return p[0] == q[0] && p[2] == q[2] }) {
						t.Errorf("%s: %v is cut across by %v", where, p, f.pieces)
					}
				}
				if i == 1 && !slices.Equal(f.pieces, flights[0].pieces) {
					t.Errorf("%s: cut otherwise the second time", where)
				}
			}
			d.toClient()
			if d.receive(d.client.Flight()); !d.e.Established() {
				t.Errorf("MTU %d, asked %v: not established", tt.mtu, asked)
			}
			if d.toClient(); !d.client.Complete {
				t.Errorf("MTU %d, asked %v: the client's transcript is another", tt.mtu, asked)
			}
		}
	}
}

// simple puts messages together as simple clients do: of the pieces that begin at
// one place, the first that has come counts.
type simple map[[2]int]int // message_seq and offset: the end

func (s simple) take(pieces [][3]int, lost func() bool) {
	for _, p := range pieces {
		if at := [2]int{p[0], p[1]}; !lost() && s[at] == 0 {
			s[at] = p[2]
		}
	}
}

// whole reports whether all of a message of that length has come.
func (s simple) whole(seq, length int) bool {
	at, ok := 0, true
	for at < length && ok {
		at, ok = s[[2]int{seq, at}]
	}
	return ok
}

// TestCutsForSimpleClients: what was cut in different ways can be put together by
// clients that do not look for the best way, whatever is lost.
func TestCutsForSimpleClients(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		d := longChain(t, 300+r.IntN(1500), 500+r.IntN(4000))
		d.hello()
		client := make(simple)
		most := 300 + r.IntN(1000) // what the path carries
		for n := range 40 {
			f := d.take()
			if f.longest <= most {
				client.take(f.pieces, func() bool { return r.IntN(2) == 0 })
			} else {
				client.take(f.pieces, func() bool { return r.IntN(8) > 0 })
			}
			seq, length := 0, 0
			for _, p := range f.pieces {
				if p[2] > length {
					seq, length = p[0], p[2]
				}
			}
			if client.whole(seq, length) {
				break
			}
			if n == 39 {
				t.Fatalf("seed %d: the certificates are not whole after 40 flights", seed)
			}
			d.advance(d.e.Deadline().Sub(d.now))
		}
	}
}

// longTickets makes tickets of three thousand bytes.
type longTickets struct{ openTickets }

func (longTickets) Seal(time.Time, []byte) ([]byte, error) { return make([]byte, 3000), nil }

// joining puts a message together as GnuTLS's clients do: what has come first, and
// what joins that. What joins it in front takes the place of what is behind.
type joining struct{ from, to int }

func (j *joining) take(from, to int) {
	switch {
	case j.to == 0:
		j.from, j.to = from, to
	case from < j.from && to >= j.from:
		j.from, j.to = from, min(to, j.to)
	case to > j.to && from <= j.to:
		j.from, j.to = min(from, j.from), to
	}
}

// TestCutsForJoiningClients: a client that has got the end of a message first, since
// the path loses the long datagrams with the rest, has the whole of it soon after the
// datagrams are short enough.
func TestCutsForJoiningClients(t *testing.T) {
	t.Parallel()
	for _, most := range []int{1199, 548, 300, 256} {
		for _, length := range []int{900, 1500, 3000, 5000} {
			d := longChain(t, 1200, length)
			d.hello()
			var client joining
			for n := 0; ; n++ {
				length := 0
				for _, datagram := range d.sent {
					for left := datagram; len(left) > 0; {
						r, rest, _ := wire.ParseRecord(left, 0)
						left = rest
						f, _, _ := wire.ParseFragment(r.Payload)
						if f.Type != wire.TypeCertificate {
							continue
						}
						if length = int(f.Length); len(datagram) <= most {
							client.take(int(f.Offset), int(f.Offset)+len(f.Body))
						}
					}
				}
				d.sent = nil
				if client.from == 0 && client.to == length {
					break
				}
				// Where 548 bytes pass, three of them; else those of 548 bytes were
				// in vain.
				if n == 3 && most >= 548 || n == 5 {
					t.Errorf("path of %d bytes, %d bytes of certificates: the client has those from %d to %d", most, length, client.from, client.to)
					break
				}
				d.advance(d.e.Deadline().Sub(d.now))
			}
		}
	}
}

// TestSizeIsRemembered: what the client has answered is how large the datagrams of
// the association's other flights are, also when they are said again.
func TestSizeIsRemembered(t *testing.T) {
	t.Parallel()
	for _, losses := range []int{0, 1, 2, 3} {
		d := longChain(t, 1200, 3000)
		d.cfg.Tickets = longTickets{}
		d.client.AskTicket = true
		d.hello()
		for range losses {
			d.sent = nil
			d.advance(d.e.Deadline().Sub(d.now))
		}
		d.toClient()
		d.receive(d.client.Flight())
		d.wantEstablished("after losses")
		want := []int{1200, 1200, 548, 256}[losses]
		for again := range 3 {
			f := d.take()
			if f.longest > want || f.longest < want-100 {
				t.Errorf("%d losses, flight 6 for the %d. time: the longest datagram has %d bytes, want %d", losses, again+1, f.longest, want)
			}
			// Several at once are no sign that the path loses long ones.
			d.receive(d.client.Sealed(wire.ContentHandshake, d.client.FinishedMessage()))
		}
		d.sent = nil
	}
}

// TestHasteIsNoLoss: a client whose timer is shorter than the round trip, or who
// repeats a hello of another's, does not make datagrams smaller.
func TestHasteIsNoLoss(t *testing.T) {
	t.Parallel()
	d := longChain(t, 1200, 3000)
	d.hello()
	first := d.take()
	for range 90 {
		d.advance(10 * time.Millisecond)
		d.e.HelloAgain(d.now)
		d.pump()
	}
	if f := d.take(); f.longest != first.longest {
		t.Errorf("datagrams of %d bytes, at first %d", f.longest, first.longest)
	}
}

// TestTooLong: what the system says of a datagram's length is heeded at once, ends
// with the smallest datagrams, and is ignored where it is not about the flight.
func TestTooLong(t *testing.T) {
	t.Parallel()
	for _, most := range []int{1199, 900, 548, 300, 256, 200, 20} {
		d := longChain(t, 1200, 3000)
		d.hello()
		flights := 1
		for ; flights < 20; flights++ {
			longest := 0
			for _, datagram := range d.sent {
				longest = max(longest, len(datagram))
			}
			if longest <= most {
				break
			}
			d.sent = nil
			d.e.TooLong(longest)
			d.pump()
			if len(d.sent) == 0 {
				break
			}
		}
		if f := d.take(); f.longest > most || most >= 256 != (f.datagrams > 0) || flights > 4 {
			t.Errorf("at most %d bytes: datagrams of %d bytes after %d flights", most, f.longest, flights)
		}
		if at := d.e.Deadline(); !at.Equal(d.start.Add(time.Second)) {
			t.Errorf("at most %d bytes: the timer is at %v", most, at.Sub(d.start))
		}
	}
	d := longChain(t, 1200, 3000)
	d.establish()
	for _, n := range []int{1, 40, 200, 548, 1000, 1200, 5000} { // application data
		d.e.TooLong(n)
		d.pump()
	}
	d.wantSilent("when application data was too long")
}

// TestConstantRequests: a client that asks again every few hundred milliseconds, and
// so keeps our timer from coming up, gets smaller datagrams too.
func TestConstantRequests(t *testing.T) {
	t.Parallel()
	d := longChain(t, 1200, 3000)
	d.hello()
	d.sent = nil
	for range 20 {
		d.advance(260 * time.Millisecond)
		d.e.HelloAgain(d.now)
		d.pump()
		if f := d.take(); f.longest <= 256 && f.records == f.datagrams {
			return
		}
	}
	t.Error("after 5 s the datagrams are as long as at first")
}
