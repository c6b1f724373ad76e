package dtlsserver

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

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

// captured returns a verified hello, which has not been sent.
func (d *direct) captured(from netip.AddrPort) []byte {
	d.t.Helper()
	c := testpeer.New("", nil, 7)
	d.exchange(c, from, c.Hello())
	return c.Hello()
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

// TestAlertOvertakesResumption: an alert that comes before the Finished of an
// abbreviated handshake is opened once.
func TestAlertOvertakesResumption(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	c := ticketOf(d, clientAddr(1), ecdhePSK)
	from := clientAddr(2)
	d.exchange(c, from, c.Hello())
	d.exchange(c, from, c.Hello())
	if !c.Resuming {
		t.Fatal("the session is not resumed")
	}
	changeCipherSpec := c.Plain(wire.ContentChangeCipherSpec, []byte{1})
	finished := c.Sealed(wire.ContentHandshake, c.FinishedMessage())
	d.receive(from, c.Sealed(wire.ContentApplicationData, []byte("a")))
	d.receive(from, c.Sealed(wire.ContentAlert, []byte{1, 90}))
	d.receive(from, finished)
	d.receive(from, changeCipherSpec)
	if len(d.rec.data) != 1 || d.s.Stats().Dropped != (Drops{}) {
		t.Errorf("%d messages, dropped %+v", len(d.rec.data), d.s.Stats().Dropped)
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
	if handshakes != l.handshakes.count || open != l.open.count {
		return fmt.Sprintf("%d handshakes are found of %d, %d open sessions of %d", handshakes, l.handshakes.count, open, l.open.count)
	}
	return ""
}
