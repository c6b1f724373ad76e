package dtlsserver

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// local is one of many local addresses.
func local(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, byte(n >> 8), byte(n)}), 4433)
}

// TestPeersModel holds the peer map against a plain one, with sessions of one
// remote address and many local ones.
func TestPeersModel(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 9))
	l := newTestLoop(t, &Server{PSK: testPSK})
	p := &l.peers
	want := make(map[addresses]*Session)
	var order []*Session // the newest last
	for range 3_000 {
		at := addresses{clientAddr(rng.IntN(4)), local(rng.IntN(5)).Addr()}
		if s := want[at]; s != nil {
			p.delete(s)
			p.delete(s) // once more does nothing
			delete(want, at)
		} else {
			s = &Session{loop: l, remote: at.remote, local: netip.AddrPortFrom(at.local, 4433)}
			p.insert(s)
			want[at] = s
			order = append(order, s)
		}
		for remote := range 4 {
			var newest *Session
			for _, s := range order {
				if s.remote == clientAddr(remote) && want[addressesOf(s)] == s {
					newest = s
				}
			}
			if got, ok := l.openSession(clientAddr(remote), anyLocal); got != newest || ok != (newest != nil) {
				t.Fatalf("the newest session of %v is %v, want %v", clientAddr(remote), got, newest)
			}
			for n := range 5 {
				at := addresses{clientAddr(remote), local(n).Addr()}
				if got := p.lookup(at.remote, at.local); got != want[at] {
					t.Fatalf("%v: session %v, want %v", at, got, want[at])
				}
				if got, ok := l.openSession(at.remote, local(n)); ok != (want[at] != nil) || ok && got != want[at] {
					t.Fatalf("%v: open session %v, want %v", at, got, want[at])
				}
			}
		}
	}
	for _, s := range want {
		p.delete(s)
	}
	if len(p.byRemote) != 0 || len(p.byBoth) != 0 {
		t.Errorf("left: %d and %d", len(p.byRemote), len(p.byBoth))
	}
}

// BenchmarkLookup finds a session of a remote address that has so many, each
// with another local address; one local address has none.
func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{1, 8000} {
		p := peers{make(map[netip.AddrPort]*Session), make(map[addresses]*Session)}
		for i := range n {
			p.insert(&Session{remote: clientAddr(1), local: local(i)})
		}
		for _, which := range []int{0, n} {
			b.Run(fmt.Sprintf("%d/found=%v", n, which < n), func(b *testing.B) {
				for range b.N {
					if s := p.lookup(clientAddr(1), local(which).Addr()); (s != nil) != (which < n) {
						b.Fatal(s)
					}
				}
			})
		}
	}
}

// TestStaleHandshakes: in whatever state a handshake waits for its client, a
// device that has restarted is answered after 5 s of silence, and not before.
func TestStaleHandshakes(t *testing.T) {
	t.Parallel()
	for _, sent := range []int{0, 1, 2} { // records of the client's flight
		d := newDirect(t, nil)
		old, from := d.verified(1, clientAddr(1)), clientAddr(1)
		cke, ccs, _ := old.KeyExchange()
		for _, b := range [][]byte{cke, ccs}[:sent] {
			d.receive(from, b)
		}
		began := d.now
		for i := 0; ; i++ {
			d.advance(500 * time.Millisecond)
			if sent == 2 && i == 3 {
				d.receive(from, ccs) // says nothing new
			}
			if c := d.verified(uint64(10+i), from); c.HelloDone {
				d.exchange(c, from, c.Flight())
				if !c.Complete {
					t.Errorf("after %d records: the device is not connected", sent)
				}
				break
			}
			if d.now.Sub(began) > time.Minute {
				t.Fatalf("after %d records: the device is locked out", sent)
			}
		}
		if took := d.now.Sub(began); took != staleHandshake {
			t.Errorf("after %d records: answered after %v, want %v", sent, took, staleHandshake)
		}
	}
}
