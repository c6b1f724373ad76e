package dtlsserver

// The peer map, re-connects, and two handshakes at one address.

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
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
		p := newPeers()
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

// TestFamilies has the clients of one address begin, lose, repeat, replay and
// close what they like, and looks after each step whether all sessions are where
// they belong.
func TestFamilies(t *testing.T) {
	t.Parallel()
	completed := uint64(0)
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 3))
		d := newDirect(t, func(s *Server) {
			s.MaxHandshakes = 2 + rng.IntN(4)
			s.MaxHandshakesPerSource = 1 + rng.IntN(5)
			s.MaxSessions = 1 + rng.IntN(3)
		})
		type client struct {
			*testpeer.Client
			to      netip.Addr
			hello   []byte
			records [][]byte
		}
		var clients []*client
		var replays [][]byte
		from := clientAddr(1)
		receive := func(c *client, b []byte) {
			m := message(from, b)
			m.Local = c.to
			d.out, d.to = nil, nil
			d.l.receive(d.now, m)
			d.settle()
			for _, b := range d.outTo(from) {
				_ = c.Receive(b) // it may be another client's
			}
		}
		for step := range 120 {
			op := rng.IntN(14)
			var c *client
			if n := len(clients); n > 0 {
				c = clients[n-1-rng.IntN(min(n, 4))]
			}
			switch {
			case op < 3 || c == nil:
				c = &client{Client: testpeer.New(testIdentity, []byte(testKey), seed<<20|uint64(step)), to: local(rng.IntN(2)).Addr()}
				receive(c, c.Hello())
				c.hello = c.Hello()
				if rng.IntN(3) > 0 {
					receive(c, c.hello)
				}
				clients, replays = append(clients, c), append(replays, c.hello)
			case op == 3:
				receive(c, c.hello)
			case op < 8 && c.HelloDone:
				if c.records == nil {
					c.records = c.Records()
					replays = append(replays, c.records...)
				}
				for i, r := range c.records {
					if op == 4 || i == 0 || rng.IntN(4) > 0 {
						receive(c, r)
					}
				}
			case op == 8:
				receive(c, replays[rng.IntN(len(replays))])
			case op == 9:
				if all := d.l.everySession(); len(all) > 0 {
					slices.SortFunc(all, func(a, b *Session) int { return int(a.cookie) - int(b.cookie) })
					all[rng.IntN(len(all))].Close()
				}
			case op == 10 && c.Complete:
				receive(c, c.Sealed(wire.ContentApplicationData, []byte("data")))
			case op == 11 && c.Complete:
				receive(c, c.Sealed(wire.ContentAlert, []byte{1, 0}))
			case op == 12:
				d.verified(seed<<20|1<<19|uint64(step), clientAddr(2+rng.IntN(3)))
			case op == 13:
				receive(c, c.Plain(wire.ContentAlert, []byte{2, 40}))
			}
			d.advance(time.Duration(rng.IntN(1500)) * time.Millisecond)
			if rng.IntN(20) == 0 {
				d.advance(40 * time.Second)
			}
			if wrong := d.l.misplaced(); wrong != "" {
				t.Fatalf("seed %d, step %d: %s", seed, step, wrong)
			}
		}
		d.s.Close()
		d.settle()
		if left := d.l.left(); left != "" {
			t.Fatalf("seed %d: left: %s", seed, left)
		}
		stats := d.s.Stats()
		if stats.HandshakesStarted != stats.HandshakesCompleted+stats.HandshakesFailed || stats.SessionsClosed != stats.HandshakesCompleted {
			t.Errorf("seed %d: %+v", seed, stats)
		}
		completed += stats.HandshakesCompleted
	}
	if completed < 60 {
		t.Errorf("%d handshakes completed", completed)
	}
}

// misplaced reports what is wrong with the places of sessions; empty: nothing.
func (l *loop) misplaced() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	handshakes, open := 0, 0
	for remote, s := range l.peers.byRemote {
		for ; s != nil; s = s.older {
			f := l.familyLocked(s.remote, s.local.Addr())
			switch {
			case s.remote != remote:
				return fmt.Sprintf("%v stands at %v", s, remote)
			case s != f.open && s != f.first, f.open != nil && s != f.open:
				return fmt.Sprintf("%v stands for another", s)
			case f.first != nil && (f.first.predecessor != f.open || f.first.second):
				return fmt.Sprintf("the first handshake of %v hangs wrong", s)
			case f.second != nil && (f.second.predecessor != f.open || !f.second.second || f.second.rival != f.first):
				return fmt.Sprintf("the second handshake of %v hangs wrong", s)
			}
			for _, h := range []*Session{f.first, f.second} {
				if h == nil {
					continue
				}
				if handshakes++; !h.halfOpen {
					return fmt.Sprintf("%v is no handshake", h)
				}
			}
			if f.open != nil {
				if open++; f.open.halfOpen || f.open.second {
					return fmt.Sprintf("%v is not open", f.open)
				}
			}
		}
	}
	for at, s := range l.peers.beside {
		if s.newer != nil {
			return fmt.Sprintf("%v is not the newest beside %v", s.remote, at)
		}
		for ; s != nil; s = s.older {
			found := l.peers.lookup(at.remote, at.local)
			if open++; pathOf(s) != at || s.halfOpen || !s.hasCID || found == nil || found == s || s.older != nil && s.older.newer != s {
				return fmt.Sprintf("%v stands wrong beside %v", s.remote, at)
			}
		}
	}
	for id, s := range l.peers.byCID {
		if !s.hasCID || connectionIDOf(s.eng.ConnectionID()) != id {
			return fmt.Sprintf("%v has another connection ID", s.remote)
		}
	}
	if handshakes != l.handshakes.count || open != l.open.count {
		return fmt.Sprintf("%d handshakes are found of %d, %d open sessions of %d", handshakes, l.handshakes.count, open, l.open.count)
	}
	return ""
}

// TestReconnect: a device that has lost its memory comes back from the same
// port. The old session lives until the new handshake is complete.
func TestReconnect(t *testing.T) {
	t.Parallel()
	inBubble(t, func(s *Server) { s.Handler.(*recorder).then.OnDatagramReceived = echo }, func(b *bubble) {
		p := b.peer(1)
		p.establish()
		old, _ := b.server.SessionByAddr(p.pipe.addr, anyLocal)
		again := &peer{testpeer.New(testIdentity, []byte(testKey), 99), t, p.pipe}
		again.verify()
		if now, _ := b.server.SessionByAddr(p.pipe.addr, anyLocal); now != old {
			t.Error("the old session is gone before the new one is there")
		}
		p.send(p.Sealed(wire.ContentApplicationData, []byte("still here")))
		if p.receive(); len(p.Data) != 1 {
			t.Error("the old session no longer answers")
		}
		again.send(again.Flight())
		if again.receive(); !again.Complete {
			t.Fatal("the new handshake did not complete")
		}
		now, ok := b.server.SessionByAddr(p.pipe.addr, anyLocal)
		if !ok || now == old {
			t.Error("the new session is not found")
		}
		if e := b.rec.want(t, KindSessionClosed, 1, "after the re-connect"); e.Err != ErrReconnected || e.Session != old {
			t.Errorf("SessionClosed %+v", e)
		}
		if _, err := old.Write(nil); err != ErrSessionClosed {
			t.Errorf("Write to the old session: %v", err)
		}
		again.send(again.Sealed(wire.ContentApplicationData, []byte("new")))
		if again.receive(); len(again.Data) != 1 || string(again.Data[0]) != "new" {
			t.Errorf("the new session answers %q", again.Data)
		}
		if stats := b.server.Stats(); stats.Sessions != 1 || stats.Handshakes != 0 {
			t.Errorf("Stats %+v", stats)
		}
		want := []string{"SessionClosed", "HandshakeComplete", "data"}
		if got := b.rec.log[len(b.rec.log)-3:]; !slices.Equal(got, want) {
			t.Errorf("events %v, want %v", got, want)
		}
	})
}

// TestReconnectThatFails leaves the old session as it was: a made-up cookie, a
// replayed hello, a wrong key.
func TestReconnectThatFails(t *testing.T) {
	t.Parallel()
	inBubble(t, func(s *Server) { s.Handler.(*recorder).then.OnDatagramReceived = echo }, func(b *bubble) {
		p := b.peer(1)
		p.send(p.Hello())
		p.receive()
		verified := p.Hello()
		p.send(verified)
		p.receive()
		p.send(p.Flight())
		p.receive()
		session, _ := b.server.SessionByAddr(p.pipe.addr, anyLocal)
		wantAlive := func(why string) {
			t.Helper()
			p.Data = nil
			p.send(p.Sealed(wire.ContentApplicationData, []byte(why)))
			if p.receive(); len(p.Data) != 1 || string(p.Data[0]) != why {
				t.Fatalf("after %s the session answers %q", why, p.Data)
			}
			if now, _ := b.server.SessionByAddr(p.pipe.addr, anyLocal); now != session {
				t.Fatalf("after %s there is another session", why)
			}
		}

		for range 1000 {
			p.send(verified)
		}
		if n := p.receive(); n != 0 {
			t.Errorf("1,000 replayed hellos got %d answers", n)
		}
		wantAlive("replayed hellos")

		madeUp := testpeer.New(testIdentity, []byte(testKey), 3)
		madeUp.Cookie = bytes.Repeat([]byte{7}, 32)
		p.send(madeUp.Hello())
		if n := p.receive(); n != 1 {
			t.Errorf("a made-up cookie got %d answers, want a HelloVerifyRequest", n)
		}
		wantAlive("a made-up cookie")

		wrong := &peer{testpeer.New(testIdentity, []byte("wrong"), 4), t, p.pipe}
		wrong.verify()
		wrong.send(wrong.Flight())
		wantAlive("a wrong key")
		time.Sleep(time.Minute) // the attempt is given up
		for len(p.pipe.in) > 0 {
			<-p.pipe.in // its retransmissions
		}
		wantAlive("the attempt is given up")
		b.rec.want(t, KindHandshakeFailed, 1, "after it")
		b.rec.want(t, KindSessionClosed, 0, "after it")
	})
}

// TestReconnectAfterClose: the open session is closed between the two hellos of
// the handshake that would have replaced it.
func TestReconnectAfterClose(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(b *bubble) {
		p := b.peer(1)
		p.establish()
		session, _ := b.server.SessionByAddr(p.pipe.addr, anyLocal)
		again := p.again(7)
		again.send(again.Hello())
		again.receive()
		l := b.server.current()
		session.Close()
		synctest.Wait()
		p.drain()
		again.send(again.Hello())
		again.receive()
		again.send(again.Flight())
		if again.receive(); !again.Complete {
			t.Error("the new handshake is in no map")
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.open.count != 1 || l.handshakes.count != 0 || len(l.peers.byRemote) != 1 {
			t.Errorf("%d open, %d half open, %d peers", l.open.count, l.handshakes.count, len(l.peers.byRemote))
		}
	})
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

// TestRestartAtOnce: a client that restarts within the millisecond that cookies
// count in is answered.
func TestRestartAtOnce(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	from := clientAddr(1)
	d.verified(1, from)
	d.now = d.now.Add(300 * time.Microsecond)
	c := d.verified(2, from)
	d.exchange(c, from, c.Flight())
	if !c.Complete {
		t.Error("the handshake does not complete")
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

// captured returns a verified hello, which has not been sent.
func (d *direct) captured(from netip.AddrPort) []byte {
	d.t.Helper()
	c := testpeer.New("", nil, 7)
	d.exchange(c, from, c.Hello())
	return c.Hello()
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

// TestReplayBesideAnswered: an older hello that is replayed ends no handshake that
// has been answered, however long that waits.
func TestReplayBesideAnswered(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	from := clientAddr(1)
	old := d.captured(from)
	d.advance(50 * time.Millisecond)
	c := d.verified(1, from)
	keyExchange, changeCipherSpec, finished := c.KeyExchange()
	d.receive(from, keyExchange)
	d.advance(staleHandshake + 100*time.Millisecond)
	d.receive(from, old)
	d.exchange(c, from, changeCipherSpec)
	d.exchange(c, from, finished)
	if !c.Complete {
		t.Error("the handshake does not complete")
	}
}

// TestStaleHandshakeOutlivesRefusal: a handshake is not ended for one that is
// then refused.
func TestStaleHandshakeOutlivesRefusal(t *testing.T) {
	t.Parallel()
	inBubble(t, func(s *Server) { s.MaxSessions = 1 }, func(b *bubble) {
		p := b.peer(1)
		p.verify()
		b.peer(2).establish()
		time.Sleep(6 * time.Second)
		p.drain()
		other := p.again(5)
		other.send(other.Hello())
		other.receive()
		other.send(other.Hello())
		if stats := b.server.Stats(); stats.Dropped.Refused != 1 || stats.HandshakesFailed != 0 {
			t.Errorf("%+v", stats)
		}
		p.send(p.Flight())
		if p.receive(); !p.Complete {
			t.Error("the handshake was ended")
		}
	})
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

// TestMutedSpeaksAgain: a handshake is answered again when the newer one beside it
// has ended.
func TestMutedSpeaksAgain(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	from := clientAddr(1)
	c := testpeer.New(testIdentity, []byte(testKey), 1)
	d.exchange(c, from, c.Hello())
	hello := c.Hello()
	d.receive(from, hello) // the answer is lost
	d.advance(100 * time.Millisecond)
	d.verified(2, from)
	d.advance(time.Second)
	f := d.l.familyOf(from, netip.Addr{})
	f.second.Close()
	d.exchange(c, from, hello)
	d.exchange(c, from, c.Flight())
	if !c.Complete {
		t.Error("the older handshake does not complete")
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

// TestRecordsOfTheOlderHandshake: what comes out of order for a handshake is not
// kept for a newer one instead.
func TestRecordsOfTheOlderHandshake(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	from := clientAddr(1)
	c := d.verified(1, from)
	keyExchange, changeCipherSpec, finished := c.KeyExchange()
	d.receive(from, keyExchange)
	d.advance(50 * time.Millisecond)
	d.verified(2, from)
	d.exchange(c, from, finished)
	d.exchange(c, from, changeCipherSpec)
	if !c.Complete {
		t.Error("the handshake does not complete")
	}
}

// TestNothingCountedBesideRival: records that one of two handshakes takes are not
// counted as dropped by the other.
func TestNothingCountedBesideRival(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	from := clientAddr(1)
	d.verified(1, from)
	d.advance(50 * time.Millisecond)
	c := d.verified(2, from)
	keyExchange, changeCipherSpec, finished := c.KeyExchange()
	d.exchange(c, from, keyExchange)
	d.exchange(c, from, finished)
	d.exchange(c, from, changeCipherSpec)
	if s, ok := d.s.SessionByAddr(from, anyLocal); !ok || s.Stats().RecordsDropped != 0 || d.s.Stats().Dropped != (Drops{}) {
		t.Errorf("open %v, dropped %+v", ok, d.s.Stats().Dropped)
	}
}

// TestOpenSessionBesideTwoHandshakes: handshakes at its address, whether or not
// they have keys, keep nothing from a session.
func TestOpenSessionBesideTwoHandshakes(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	from := clientAddr(1)
	c := testpeer.New(testIdentity, []byte(testKey), 1)
	d.establish(c, from)
	for n := range 2 {
		d.advance(100 * time.Millisecond)
		newer := d.verified(uint64(10+n), from)
		d.receive(from, c.Sealed(wire.ContentApplicationData, []byte("a")))
		newer.Key = []byte("another key")
		keyExchange, changeCipherSpec, _ := newer.KeyExchange()
		d.receive(from, keyExchange)
		d.receive(from, changeCipherSpec)
		d.receive(from, c.Sealed(wire.ContentApplicationData, []byte("b")))
	}
	if len(d.rec.data) != 4 {
		t.Errorf("%d of 4 messages delivered", len(d.rec.data))
	}
	d.receive(from, c.Sealed(wire.ContentAlert, []byte{1, 0}))
	d.rec.want(t, KindSessionClosed, 1, "close_notify")
}

// TestRecordsOfThree: at an address with an open session and two handshakes, of which
// the newer has keys and the older has none, each sealed record finds its own.
func TestRecordsOfThree(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	from := clientAddr(1)
	open := testpeer.New(testIdentity, []byte(testKey), 1)
	d.establish(open, from)
	older, newer := testpeer.New(testIdentity, []byte(testKey), 2), testpeer.New(testIdentity, []byte(testKey), 3)
	for _, c := range []*testpeer.Client{older, newer} {
		d.advance(2 * time.Second)
		d.exchange(c, from, c.Hello())
		d.exchange(c, from, c.Hello())
	}
	records := newer.Records()
	d.exchange(newer, from, records[0])
	d.exchange(newer, from, records[1])
	d.exchange(open, from, open.Sealed(wire.ContentApplicationData, []byte("still open")))
	if len(d.rec.data) != 1 {
		t.Errorf("the open session's data: %q; %v", d.rec.data, d.rec.lines())
	}
	d.out = nil
	d.exchange(open, from, open.Sealed(wire.ContentHandshake, open.FinishedMessage()))
	if len(d.out) == 0 {
		t.Error("its repeated Finished is not answered")
	}
	d.exchange(newer, from, records[2])
	if !newer.Complete {
		t.Error("the newer handshake is not complete")
	}
}
