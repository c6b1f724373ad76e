package dtlsserver

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
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
	want := make(map[path]*Session)
	var order []*Session // the newest last
	for range 3_000 {
		at := path{clientAddr(rng.IntN(4)), local(rng.IntN(5)).Addr()}
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
				if s.remote == clientAddr(remote) && want[pathOf(s)] == s {
					newest = s
				}
			}
			if got, ok := l.openSession(clientAddr(remote), anyLocal); got != newest || ok != (newest != nil) {
				t.Fatalf("the newest session of %v is %v, want %v", clientAddr(remote), got, newest)
			}
			for n := range 5 {
				at := path{clientAddr(remote), local(n).Addr()}
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

// TestPeersReplace: a session takes the place of another of the same addresses
// before that is taken out, beside others of the remote address.
func TestPeersReplace(t *testing.T) {
	t.Parallel()
	l := newTestLoop(t, &Server{PSK: testPSK})
	p := &l.peers
	at := func(n int) *Session { return &Session{loop: l, remote: clientAddr(1), local: local(n)} }
	for others := range 4 {
		var all []*Session
		for n := range others {
			all = append(all, at(1+n))
			p.insert(all[n])
		}
		stale, fresh := at(0), at(0)
		p.insert(stale)
		p.insert(fresh)
		p.delete(stale)
		for _, s := range append(all, fresh) {
			if p.lookup(s.remote, s.local.Addr()) != s {
				t.Errorf("beside %d others, %v is not found", others, s.local)
			}
		}
		for _, s := range append(all, fresh) {
			p.delete(s)
		}
		if len(p.byRemote) != 0 || len(p.byBoth) != 0 {
			t.Errorf("beside %d others, left: %d and %d", others, len(p.byRemote), len(p.byBoth))
		}
	}
}

// TestTwoLocalAddresses: one client socket, two addresses of the server, two
// sessions.
func TestTwoLocalAddresses(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("packet info is there on Linux only")
	}
	s := &Server{PSK: testPSK, Handler: newWaiter()}
	l := newTestLoop(t, s)
	remote := netip.MustParseAddrPort("127.0.0.1:5000")
	var all []*Session
	for _, local := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"} {
		session := &Session{loop: l, remote: remote, local: netip.AddrPortFrom(netip.MustParseAddr(local), 1)}
		if _, _, err := l.add(session, nil); err != nil {
			t.Fatal(err)
		}
		l.promote(session, PSKIdentity(testIdentity))
		all = append(all, session)
	}
	for _, session := range all {
		if l.known(remote, session.local.Addr()) != session {
			t.Errorf("%v is not found", session.local)
		}
	}
	for i, session := range []*Session{all[1], all[2], all[0]} {
		l.remove(session, Event{Kind: KindSessionClosed})
		if l.known(remote, session.local.Addr()) != nil {
			t.Errorf("%v is still found", session.local)
		}
		if left := len(l.sessions(withHandshakes)); left != 2-i {
			t.Errorf("%d left, want %d", left, 2-i)
		}
	}
	if left := l.left(); left != "" {
		t.Errorf("left: %s", left)
	}
}

// BenchmarkLookup finds a session of a remote address that has so many, each
// with another local address; one local address has none.
func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{1, 8000} {
		p := peers{make(map[netip.AddrPort]*Session), make(map[path]*Session)}
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

// TestRestartInHandshake: a device that restarts in a handshake, in whatever
// state, from the same port, beside an open session or not, and with a hook
// pending or not, is answered at once and connected, and is sent nothing of the
// old handshake.
func TestRestartInHandshake(t *testing.T) {
	t.Parallel()
	for _, open := range []bool{false, true} {
		for _, restarts := range []int{1, 2, 5} {
			for sent := range 4 { // records of the client's flight before each
				d := newDirect(t, nil)
				from := clientAddr(1)
				seed := uint64(1)
				if open {
					d.establish(testpeer.New(testIdentity, []byte(testKey), seed), from)
				}
				for range restarts {
					seed++
					d.advance(300 * time.Millisecond)
					old := testpeer.New(testIdentity, []byte("another key"), seed)
					d.exchange(old, from, old.Hello())
					d.exchange(old, from, old.Hello())
					for _, r := range old.Records()[:min(sent, 3)] {
						d.receive(from, r)
					}
				}
				d.advance(300 * time.Millisecond)
				c := testpeer.New(testIdentity, []byte(testKey), 100)
				d.exchange(c, from, c.Hello())
				d.exchange(c, from, c.Hello())
				if !c.HelloDone {
					t.Fatalf("open %v, %d restarts, %d records: not answered", open, restarts, sent)
				}
				d.out = nil
				d.advance(900 * time.Millisecond) // the old handshake's timers come up, not the new one's
				if len(d.out) > 0 {
					t.Errorf("open %v, %d restarts, %d records: %d datagrams of the old handshake", open, restarts, sent, len(d.out))
				}
				d.exchange(c, from, c.Flight())
				if s, ok := d.s.SessionByAddr(from, anyLocal); !c.Complete || !ok || d.s.Stats().Sessions != 1 {
					t.Errorf("open %v, %d restarts, %d records: complete %v, session %v", open, restarts, sent, c.Complete, s)
				}
				d.exchange(c, from, c.Sealed(wire.ContentApplicationData, []byte("hello")))
				if len(d.rec.data) != 1 {
					t.Errorf("open %v, %d restarts, %d records: %d messages", open, restarts, sent, len(d.rec.data))
				}
				for _, e := range d.rec.of(KindHandshakeFailed) {
					if e.Err != ErrReconnected {
						t.Errorf("open %v, %d restarts, %d records: %v", open, restarts, sent, e)
					}
				}
				if stats := d.s.Stats(); stats.Handshakes != 0 {
					t.Errorf("open %v, %d restarts, %d records: %d handshakes are left", open, restarts, sent, stats.Handshakes)
				}
				d.s.Close()
				d.settle()
				if left := d.l.left(); left != "" {
					t.Errorf("open %v, %d restarts, %d records: left: %s", open, restarts, sent, left)
				}
			}
		}
	}
}

// TestLivingHandshakeOutlivesNewer: a handshake that has been answered completes,
// though somebody who receives at its address begins others, and though older
// hellos are replayed.
func TestLivingHandshakeOutlivesNewer(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	from := clientAddr(1)
	old := d.captured(from)
	d.advance(50 * time.Millisecond)
	c := d.verified(1, from)
	cke, ccs, finished := c.KeyExchange()
	d.receive(from, cke)
	for n := range 5 {
		d.advance(50 * time.Millisecond)
		d.receive(from, old)
		d.verified(uint64(10+n), from)
	}
	if n := d.s.Stats().Handshakes; n != 2 {
		t.Errorf("%d handshakes of one address", n)
	}
	d.receive(from, ccs)
	d.exchange(c, from, finished)
	if !c.Complete || !d.isOpen(from) {
		t.Errorf("complete %v, open %v", c.Complete, d.isOpen(from))
	}
}

// TestLeftHandshakeCompletes: a handshake that its client has left for a newer one
// completes, by what is for both or by the answer of a hook, without a word, which
// the client would take for the newer one's; the newer one completes after it. If
// its client is there all the same, it is answered.
func TestLeftHandshakeCompletes(t *testing.T) {
	t.Parallel()
	for _, alive := range []bool{false, true} {
		d := newDirect(t, nil)
		from := clientAddr(1)
		left := d.verified(1, from)
		cke, _, finished := left.KeyExchange()
		d.receive(from, cke)
		d.receive(from, finished)
		d.advance(50 * time.Millisecond)
		c := d.verified(2, from)
		cke, ccs, finished := c.KeyExchange()
		d.receive(from, cke)
		if out := d.receive(from, ccs); len(out) > 0 || !d.isOpen(from) {
			t.Errorf("%d datagrams for ChangeCipherSpec, open %v", len(out), d.isOpen(from))
		}
		if alive {
			d.exchange(left, from, left.Sealed(wire.ContentHandshake, left.FinishedMessage()))
			if !left.Complete {
				t.Error("a Finished that comes again is not answered")
			}
			continue
		}
		d.exchange(c, from, finished)
		if stats := d.s.Stats(); !c.Complete || stats.Sessions != 1 || stats.Handshakes != 0 {
			t.Errorf("complete %v, %d sessions, %d handshakes", c.Complete, stats.Sessions, stats.Handshakes)
		}
		s, _ := d.s.SessionByAddr(from, anyLocal)
		s.Close()
		if len(d.out) == 0 {
			t.Error("closed without a word")
		}
	}
}

// TestNewestCompletesFirst: what is for both handshakes of an address completes the
// newest first, and then not the other.
func TestNewestCompletesFirst(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	from := clientAddr(1)
	var newest *testpeer.Client
	var ccs []byte
	for n := range 2 {
		d.advance(50 * time.Millisecond)
		newest = d.verified(uint64(1+n), from)
		var cke, finished []byte
		cke, ccs, finished = newest.KeyExchange()
		d.receive(from, cke)
		d.receive(from, finished)
	}
	d.exchange(newest, from, ccs)
	if stats := d.s.Stats(); !newest.Complete || stats.HandshakesCompleted != 1 || stats.Handshakes != 0 || stats.Dropped.Closed != 0 {
		t.Errorf("complete %v, %+v", newest.Complete, stats)
	}
}

// TestRestartAtLimit: where there is no room for one more handshake, a client that
// begins anew gets the place of the one that it has left, or, if that was answered,
// is at least sent nothing of it.
func TestRestartAtLimit(t *testing.T) {
	t.Parallel()
	for _, answered := range []bool{false, true} {
		d := newDirect(t, func(s *Server) { s.MaxHandshakes = 1 })
		from := clientAddr(1)
		left := d.verified(1, from)
		if answered {
			cke, _, _ := left.KeyExchange()
			d.receive(from, cke)
		}
		d.advance(50 * time.Millisecond)
		c := d.verified(2, from)
		if c.HelloDone == answered {
			t.Errorf("answered %v: the newer one was answered: %v", answered, c.HelloDone)
		}
		d.out = nil
		d.advance(1240 * time.Millisecond) // the old handshake's timer comes up, not a new one's
		if len(d.out) > 0 || d.s.Stats().Handshakes != 1 {
			t.Errorf("answered %v: %d datagrams of the old handshake, %d handshakes", answered, len(d.out), d.s.Stats().Handshakes)
		}
	}
}
