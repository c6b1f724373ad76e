package dtlsserver

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// policies are the ways for an address to change, and whether the client supports the
// return routability check.
var policies = []struct {
	name   string
	ids    ConnectionIDs
	checks bool
}{
	{"proven, basic check", ConnectionIDs{}, true},
	{"proven, enhanced check", ConnectionIDs{EnhancedCheck: true}, true},
	{"proven, no check", ConnectionIDs{}, false},
	{"at once", ConnectionIDs{Move: MoveAtOnce}, true},
	{"never", ConnectionIDs{Move: MoveNever}, true},
}

// eachPolicy has a client connected from the first address, with each policy.
func eachPolicy(t *testing.T, f func(t *testing.T, d *direct, c *testpeer.Client, s *Session)) {
	for _, p := range policies {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			d := newDirect(t, func(s *Server) {
				echoes(s)
				s.ConnectionIDs = p.ids
			})
			c, s := d.roam(clientAddr(1), func(c *testpeer.Client) { c.CheckPaths = p.checks })
			f(t, d, c, s)
		})
	}
}

// wantUnmoved wants a session to be where it was, and nothing sent elsewhere.
func (d *direct) wantUnmoved(s *Session, why string) {
	d.t.Helper()
	if at := s.RemoteAddr(); at != clientAddr(1) {
		d.t.Errorf("%s: moved to %v", why, at)
	}
	if at, ok := s.CandidateAddr(); ok {
		d.t.Errorf("%s: %v is a candidate", why, at)
	}
	if events := d.rec.of(KindPeerMoved); len(events) > 0 {
		d.t.Errorf("%s: %v", why, events)
	}
	for i, to := range d.to {
		if to != clientAddr(1) {
			d.t.Errorf("%s: %x was sent to %v", why, d.out[i], to)
		}
	}
}

// TestUnmoved: no address changes by records that are forged, replayed, older than
// others, of another session or not sealed, wherever they come from.
func TestUnmoved(t *testing.T) {
	t.Parallel()
	attacker := clientAddr(66)
	for name, attack := range map[string]func(t *testing.T, d *direct, c *testpeer.Client){
		"forged": func(t *testing.T, d *direct, c *testpeer.Client) {
			genuine := data(c, "genuine")
			for at := range genuine {
				forged := bytes.Clone(genuine)
				forged[at] ^= 1
				d.l.receive(d.now, message(attacker, forged))
			}
			d.receiveTo(c, clientAddr(1), genuine)
		},
		"replayed": func(t *testing.T, d *direct, c *testpeer.Client) {
			b := data(c, "once")
			d.receiveTo(c, clientAddr(1), b)
			for range 10 {
				d.l.receive(d.now, message(attacker, b))
			}
		},
		"older": func(t *testing.T, d *direct, c *testpeer.Client) {
			older, newer := data(c, "older"), data(c, "newer")
			d.receiveTo(c, clientAddr(1), newer)
			d.l.receive(d.now, message(attacker, older))
			if n := len(d.rec.data); n != 2 {
				t.Errorf("%d messages were delivered, want both", n)
			}
			// The answer goes where the peer is known to be.
			for _, b := range d.outTo(clientAddr(1)) {
				if err := c.Receive(b); err != nil {
					t.Error(err)
				}
			}
		},
		"of another session": func(t *testing.T, d *direct, c *testpeer.Client) {
			other, _ := d.roam(clientAddr(2), nil)
			own := other.ServerCID
			other.ServerCID = c.ServerCID
			stolen := data(other, "sealed for another")
			other.ServerCID = own
			d.l.receive(d.now, message(attacker, stolen))
			d.l.receive(d.now, message(clientAddr(2), stolen))
			if n := len(d.rec.data); n != 0 {
				t.Errorf("%d messages were delivered", n)
			}
		},
		"behind another's": func(t *testing.T, d *direct, c *testpeer.Client) {
			// Each opens where it belongs, but not in one datagram.
			other, _ := d.roam(clientAddr(2), nil)
			d.l.receive(d.now, message(clientAddr(2), append(data(other, "first"), data(c, "second")...)))
			if n := len(d.rec.data); n != 1 || d.s.Stats().Dropped.ConnectionIDs != 1 {
				t.Errorf("%d messages were delivered, %+v", n, d.s.Stats().Dropped)
			}
			d.outTo(clientAddr(2))
		},
		"plaintext": func(t *testing.T, d *direct, c *testpeer.Client) {
			for _, typ := range []wire.ContentType{20, 21, 22, 23, 25, 27} {
				for epoch := range uint16(3) {
					b := wire.AppendRecordHeaderCID(nil, wire.VersionDTLS12, epoch, 1000, c.ServerCID, 2)
					d.l.receive(d.now, message(attacker, append(b, 2, 40)))
					b = wire.AppendRecordHeader(nil, typ, wire.VersionDTLS12, epoch, 1000, 2)
					d.l.receive(d.now, message(attacker, append(b, 2, 40)))
					d.l.receive(d.now, message(clientAddr(1), append(b, 2, 40)))
				}
			}
		},
		"junk": func(t *testing.T, d *direct, c *testpeer.Client) {
			for n := range 60 {
				b := bytes.Repeat([]byte{25}, n)
				d.l.receive(d.now, message(attacker, b))
				if n > 21 {
					copy(b[11:], c.ServerCID)
					d.l.receive(d.now, message(attacker, b))
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachPolicy(t, func(t *testing.T, d *direct, c *testpeer.Client, s *Session) {
				d.out, d.to = nil, nil
				attack(t, d, c)
				d.settle()
				d.wantUnmoved(s, name)
				d.advance(5 * time.Second)
				d.wantUnmoved(s, name+", some seconds later")
				d.receiveTo(c, clientAddr(1), data(c, "still here"))
				if n := len(c.Data); n == 0 || string(c.Data[n-1]) != "still here" {
					t.Errorf("the peer is no longer answered: %q", c.Data)
				}
			})
		})
	}
}

// TestRacedCopy: an attacker takes each datagram of the peer's and sends it from its
// own address first; the original comes after it, or is lost. It gets no more than
// three times what it has sent, and never the session; the peer gets every answer.
func TestRacedCopy(t *testing.T) {
	t.Parallel()
	attacker := clientAddr(66)
	eachPolicy(t, func(t *testing.T, d *direct, c *testpeer.Client, s *Session) {
		in, out := 0, 0
		for i := range 50 {
			b := data(c, fmt.Sprintf("request %d", i))
			if i%5 == 4 {
				d.receiveTo(c, clientAddr(1), b)
				continue
			}
			in += len(b)
			d.l.receive(d.now, message(attacker, b))
			d.settle()
			d.l.receive(d.now, message(clientAddr(1), b))
			d.settle()
			d.advance(time.Duration(i%4) * time.Second)
			for k, sent := range d.out {
				switch d.to[k] {
				case clientAddr(1):
					if err := c.Receive(sent); err != nil {
						t.Fatal(err)
					}
				case attacker:
					out += len(sent)
				default:
					t.Errorf("something was sent to %v", d.to[k])
				}
			}
			d.out, d.to = nil, nil
		}
		if d.l.cfg.connectionIDs.Move == MoveAtOnce {
			if s.RemoteAddr() != clientAddr(1) {
				t.Errorf("the session is at %v although its peer has spoken last", s.RemoteAddr())
			}
			return // so it is documented
		}
		if len(c.Data) != 50 {
			t.Errorf("the peer got %d answers, want 50", len(c.Data))
		}
		if len(d.rec.of(KindPeerMoved)) > 0 || s.RemoteAddr() != clientAddr(1) {
			t.Errorf("the session is at %v, events %v", s.RemoteAddr(), d.rec.of(KindPeerMoved))
		}
		if out > 3*in {
			t.Errorf("the attacker sent %d bytes and got %d", in, out)
		}
		if d.l.cfg.connectionIDs.Move == MoveNever && out > 0 {
			t.Errorf("the attacker got %d bytes", out)
		}
	})
}

// TestChallengeBound: the session moves by an answer that came from the candidate,
// while it is one, to a challenge that was sent there.
func TestChallengeBound(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T, ids ConnectionIDs) (*direct, *testpeer.Client, *Session) {
		d := newDirect(t, func(s *Server) { s.ConnectionIDs = ids })
		c, s := d.roam(clientAddr(1), func(c *testpeer.Client) { c.CheckPaths = true })
		d.receiveTo(c, clientAddr(2), data(c, "a message from another address"))
		if len(c.Paths) != 1 && !ids.EnhancedCheck {
			t.Fatal("no challenge")
		}
		return d, c, s
	}
	at := func(t *testing.T, s *Session, want int) {
		t.Helper()
		if s.RemoteAddr() != clientAddr(want) {
			t.Errorf("the session is at %v, want %v", s.RemoteAddr(), clientAddr(want))
		}
	}
	d, c, s := begin(t, ConnectionIDs{})
	answer := c.Path(wire.PathResponse, c.Paths[0].Cookie)
	d.receiveTo(c, clientAddr(3), answer) // which makes it the candidate
	at(t, s, 1)
	d.receiveTo(c, clientAddr(3), c.Path(wire.PathResponse, c.Paths[0].Cookie)) // of the other's challenge
	at(t, s, 1)
	d.receiveTo(c, clientAddr(3), c.Path(wire.PathResponse, c.Paths[1].Cookie))
	at(t, s, 3)

	d, c, s = begin(t, ConnectionIDs{})
	d.receiveTo(c, clientAddr(1), data(c, "back again")) // ends the candidate
	d.receiveTo(c, clientAddr(2), c.Path(wire.PathResponse, c.Paths[0].Cookie))
	at(t, s, 1)

	d, c, s = begin(t, ConnectionIDs{})
	d.receiveTo(c, clientAddr(2), c.Path(wire.PathResponse, [8]byte{}))
	d.receiveTo(c, clientAddr(2), c.Path(wire.PathDrop, c.Paths[0].Cookie))
	d.receiveTo(c, clientAddr(2), c.Path(wire.PathChallenge, c.Paths[0].Cookie))
	at(t, s, 1)
	d.receiveTo(c, clientAddr(2), c.Path(wire.PathResponse, c.Paths[0].Cookie))
	at(t, s, 2)

	// An answer that was overtaken is one.
	d, c, s = begin(t, ConnectionIDs{})
	answer = c.Path(wire.PathResponse, c.Paths[0].Cookie)
	d.receiveTo(c, clientAddr(2), data(c, "overtakes the answer"))
	d.receiveTo(c, clientAddr(2), answer)
	at(t, s, 2)
}

// TestEnhancedCheck: the old address is asked first. What it answers decides, or its
// silence.
func TestEnhancedCheck(t *testing.T) {
	t.Parallel()
	for _, old := range []string{"response", "response from elsewhere", "drop", "late drop", "silence", "wrong drop", "drop from elsewhere"} {
		d := newDirect(t, func(s *Server) { s.ConnectionIDs.EnhancedCheck = true })
		c, s := d.roam(clientAddr(1), func(c *testpeer.Client) { c.CheckPaths = true })
		d.receive(clientAddr(2), data(c, "a message from another address"))
		if sent := d.outTo(clientAddr(1)); len(sent) != 1 || c.Receive(sent[0]) != nil || len(c.Paths) != 1 {
			t.Fatalf("the old address got %x", sent)
		}
		asked := c.Paths[0].Cookie
		switch old {
		case "response":
			d.receiveTo(c, clientAddr(1), c.Path(wire.PathResponse, asked))
		case "drop":
			d.receive(clientAddr(1), c.Path(wire.PathDrop, asked))
		case "response from elsewhere": // diverted, as the record before
			d.receive(clientAddr(2), c.Path(wire.PathResponse, asked))
		case "silence":
			d.advance(time.Second)
		case "late drop": // when the candidate has been asked already
			d.advance(time.Second)
			d.l.receive(d.now, message(clientAddr(1), c.Path(wire.PathDrop, asked)))
			d.settle()
		case "wrong drop":
			d.receive(clientAddr(1), c.Path(wire.PathDrop, [8]byte{}))
		case "drop from elsewhere":
			d.receive(clientAddr(2), c.Path(wire.PathDrop, asked))
		}
		sent := d.outTo(clientAddr(2))
		if asks := old == "drop" || old == "late drop" || old == "silence"; asks != (len(sent) == 1) {
			t.Fatalf("%s: the candidate got %d datagrams", old, len(sent))
		} else if !asks {
			d.advance(10 * time.Second)
			if s.RemoteAddr() != clientAddr(1) {
				t.Errorf("%s: moved", old)
			}
			continue
		}
		if err := c.Receive(sent[0]); err != nil {
			t.Fatal(err)
		}
		d.receiveTo(c, clientAddr(2), c.Path(wire.PathResponse, c.Paths[1].Cookie))
		if s.RemoteAddr() != clientAddr(2) {
			t.Errorf("%s: not moved", old)
		}
	}
}

// TestDiverted: whoever takes each record of the peer's away and sends it from an
// address of its own, and forwards what it gets there, attracts the session by the basic
// check, until the peer is heard from where it is, and never if the old address is asked
// first.
func TestDiverted(t *testing.T) {
	t.Parallel()
	attacker := clientAddr(66)
	for _, enhanced := range []bool{false, true} {
		d := newDirect(t, func(s *Server) { s.ConnectionIDs.EnhancedCheck = enhanced })
		c, s := d.roam(clientAddr(1), func(c *testpeer.Client) { c.CheckPaths = true })
		divert := func(b []byte) {
			d.l.receive(d.now, message(attacker, b))
			d.l.receive(d.now, message(clientAddr(1), b))
			d.settle()
		}
		divert(data(c, "a message"))
		for range 40 {
			out := d.out
			d.out, d.to = nil, nil
			for _, b := range out { // wherever it was sent
				_ = c.Receive(b)
			}
			for _, p := range c.Paths {
				divert(c.Path(wire.PathResponse, p.Cookie))
			}
			c.Paths = nil
			d.advance(100 * time.Millisecond)
		}
		if moved := s.RemoteAddr() != clientAddr(1); moved == enhanced {
			t.Errorf("enhanced check %v: moved %v", enhanced, moved)
		}
		d.receive(clientAddr(1), data(c, "a message that nobody diverts"))
		for _, b := range d.outTo(clientAddr(1)) {
			_ = c.Receive(b)
		}
		for _, p := range c.Paths {
			d.receive(clientAddr(1), c.Path(wire.PathResponse, p.Cookie))
		}
		d.advance(time.Second) // what the attacker does not forward
		for _, b := range d.outTo(clientAddr(1)) {
			_ = c.Receive(b)
			d.receive(clientAddr(1), c.Path(wire.PathResponse, c.Paths[len(c.Paths)-1].Cookie))
		}
		if s.RemoteAddr() != clientAddr(1) {
			t.Errorf("enhanced check %v: the session does not come back", enhanced)
		}
	}
}

// TestLongConnectionIDMoves: a client whose connection ID makes a challenge longer than
// what may be sent for a record of its own moves all the same, when enough has come.
func TestLongConnectionIDMoves(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	c, s := d.roam(clientAddr(1), func(c *testpeer.Client) { c.CID, c.CheckPaths = make([]byte, 255), true })
	for n := 0; s.RemoteAddr() != clientAddr(2); n++ {
		if n == 20 {
			t.Fatal("not moved")
		}
		d.receiveTo(c, clientAddr(2), data(c, "short"))
		for _, p := range c.Paths {
			d.receiveTo(c, clientAddr(2), c.Path(wire.PathResponse, p.Cookie))
		}
		c.Paths = nil
		d.advance(10 * time.Second)
	}
}

// TestMovedCloseNotify: the answer of a peer that has moved to close_notify is no
// stranger's.
func TestMovedCloseNotify(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	c, s := d.roam(clientAddr(1), nil)
	d.receive(clientAddr(2), data(c, "a message from another address"))
	s.Close()
	d.settle()
	d.receive(clientAddr(2), c.Sealed(wire.ContentAlert, []byte{1, 0}))
	if drops := d.s.Stats().Dropped; drops.Closed != 1 || drops.UnknownConnectionIDs != 0 || len(d.rec.of(KindUnexpectedDatagram)) > 0 {
		t.Errorf("%+v, events %v", drops, d.rec.of(KindUnexpectedDatagram))
	}
}

// TestPathChallenge: the peer's challenges are answered where they came from, each once
// and some a second.
func TestPathChallenge(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	c, s := d.roam(clientAddr(1), func(c *testpeer.Client) { c.CheckPaths = true })
	for second := range 3 {
		c.Paths = nil
		for i := range 100 {
			b := c.Path(wire.PathChallenge, [8]byte{byte(second), byte(i)})
			d.receiveTo(c, clientAddr(1), b)
			d.receiveTo(c, clientAddr(1), b)
		}
		if len(c.Paths) != maxPathResponses {
			t.Errorf("%d answers in a second, want %d", len(c.Paths), maxPathResponses)
		}
		for i, p := range c.Paths {
			if p.Type != wire.PathResponse || p.Cookie != [8]byte{byte(second), byte(i)} {
				t.Errorf("answer %d is %v", i, p)
			}
		}
		d.advance(time.Second)
	}
	c.Paths = nil
	d.receiveTo(c, clientAddr(2), c.Path(wire.PathChallenge, [8]byte{99}))
	if len(c.Paths) != 2 || s.RemoteAddr() != clientAddr(1) { // the answer, and the server's own challenge
		t.Errorf("from another address: %v", c.Paths)
	}
	// At rest, the session has nothing of it left.
	d.receiveTo(c, clientAddr(1), data(c, "here"))
	d.advance(2 * time.Minute)
	if s.moving != nil {
		t.Error("something is kept at rest")
	}
}

// TestHeldAnswer: the last answer that is too long to be sent to a candidate is sent
// there when it is proven, and not when it is not.
func TestHeldAnswer(t *testing.T) {
	t.Parallel()
	long := func(n int) string { return string(bytes.Repeat([]byte{'a' + byte(n)}, 1000+n)) }
	for _, proven := range []bool{true, false} {
		d := newDirect(t, nil)
		c, s := d.roam(clientAddr(1), func(c *testpeer.Client) { c.CheckPaths = true })
		d.receiveTo(c, clientAddr(2), data(c, "short"))
		for n := range 3 {
			if _, err := s.Write([]byte(long(n))); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Write(make([]byte, maxHeld)); err != nil {
			t.Fatal(err)
		}
		if len(d.outTo(clientAddr(2))) > 0 {
			t.Fatal("more than three times what came was sent to the candidate")
		}
		want := 0
		if proven {
			want = 1
			d.receiveTo(c, clientAddr(2), c.Path(wire.PathResponse, c.Paths[0].Cookie))
		} else {
			d.receiveTo(c, clientAddr(1), data(c, "not moved"))
			d.receiveTo(c, clientAddr(2), data(c, "moved"))
			d.receiveTo(c, clientAddr(2), c.Path(wire.PathResponse, c.Paths[1].Cookie))
		}
		if len(c.Data) != want || proven && string(c.Data[0]) != long(2) {
			t.Errorf("proven %v: got %d answers", proven, len(c.Data))
		}
	}
}

// TestConfirmAddr: the application moves a session by what it has sent to the candidate
// only.
func TestConfirmAddr(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	c, s := d.roam(clientAddr(1), nil)
	if _, err := s.WriteCandidate(clientAddr(2), []byte("echo")); err != ErrNoCandidate {
		t.Errorf("without a candidate: %v", err)
	}
	if s.ConfirmAddr(clientAddr(2)) || !s.ConfirmAddr(clientAddr(1)) {
		t.Error("an address is confirmed that is no candidate, or the session's is not")
	}
	request := data(c, "a request of some length")
	d.receive(clientAddr(2), request)
	if _, err := s.WriteCandidate(clientAddr(2), []byte("echo")); err != nil {
		t.Fatal(err)
	}
	d.settle()
	if len(d.outTo(clientAddr(1))) > 0 {
		t.Error("what was for the candidate has gone to the old address too")
	}
	if _, err := s.WriteCandidate(clientAddr(2), make([]byte, 3*len(request))); err != ErrWriteDropped {
		t.Errorf("beyond three times the request: %v", err)
	}
	if s.ConfirmAddr(clientAddr(3)) || !s.ConfirmAddr(clientAddr(2)) || s.RemoteAddr() != clientAddr(2) {
		t.Errorf("the session is at %v", s.RemoteAddr())
	}
	// The echo comes from yet another address, to which nothing was sent.
	d.receive(clientAddr(1), data(c, "back"))
	if _, err := s.WriteCandidate(clientAddr(1), []byte("echo")); err != nil {
		t.Fatal(err)
	}
	d.receive(clientAddr(4), data(c, "echo"))
	if _, err := s.WriteCandidate(clientAddr(1), []byte("echo")); err != ErrNoCandidate {
		t.Errorf("to an address that is no candidate any more: %v", err)
	}
	if s.ConfirmAddr(clientAddr(4)) || s.ConfirmAddr(clientAddr(1)) || s.RemoteAddr() != clientAddr(2) {
		t.Errorf("by an echo from elsewhere, the session is at %v", s.RemoteAddr())
	}
	d.receive(clientAddr(2), data(c, "here"))
	d.settle()
	if moved := d.rec.of(KindPeerMoved); len(moved) != 1 || moved[0].Remote != clientAddr(2) || moved[0].PreviousRemote != clientAddr(1) {
		t.Errorf("events: %v", moved)
	}
	s.Close()
	if s.ConfirmAddr(clientAddr(1)) {
		t.Error("a session that is over has moved")
	}
}

// TestThousandPorts: each of 1,000 records comes from another address. All are
// delivered and answered, and the session follows as far as its policy lets it.
func TestThousandPorts(t *testing.T) {
	t.Parallel()
	eachPolicy(t, func(t *testing.T, d *direct, c *testpeer.Client, s *Session) {
		checks := d.l.cfg.connectionIDs.Move == MoveWhenProven && s.ConnectionState().ReturnRoutability
		answered := 0
		for i := range 1000 {
			from := clientAddr(2 + i)
			d.receive(from, data(c, "request"))
			for done := false; !done; {
				done = true
				for k, b := range d.out {
					if d.to[k] != from && d.l.cfg.connectionIDs.Move != MoveNever {
						continue
					}
					if err := c.Receive(b); err != nil {
						t.Fatal(err)
					}
				}
				d.out, d.to = nil, nil
				for _, p := range c.Paths {
					d.l.receive(d.now, message(from, c.Path(wire.PathResponse, p.Cookie)))
					d.settle()
					done = false
				}
				if c.Paths = nil; done && d.l.cfg.connectionIDs.EnhancedCheck && s.RemoteAddr() != from {
					d.advance(time.Second) // the old address is silent
					done = false
				}
			}
			if answered++; len(c.Data) != answered {
				t.Fatalf("after %d requests, %d answers", answered, len(c.Data))
			}
			if follows := checks || d.l.cfg.connectionIDs.Move == MoveAtOnce; follows != (s.RemoteAddr() == from) {
				t.Fatalf("after request %d the session is at %v", i, s.RemoteAddr())
			}
		}
	})
}

// TestSwappedPorts: two devices behind one NAT get each other's ports. Both sessions
// live, whichever moves first, and each is found where it is.
func TestSwappedPorts(t *testing.T) {
	t.Parallel()
	d := newDirect(t, echoes)
	withCheck := func(c *testpeer.Client) { c.CheckPaths = true }
	a, sa := d.roam(clientAddr(1), withCheck)
	b, sb := d.roam(clientAddr(2), withCheck)
	move := func(c *testpeer.Client, to netip.AddrPort) {
		t.Helper()
		n := len(c.Data)
		d.receiveTo(c, to, data(c, "from here"))
		d.receiveTo(c, to, c.Path(wire.PathResponse, c.Paths[len(c.Paths)-1].Cookie))
		if len(c.Data) != n+1 {
			t.Errorf("%d answers", len(c.Data)-n)
		}
		if wrong := d.l.misplaced(); wrong != "" {
			t.Fatal(wrong)
		}
	}
	found := func(at netip.AddrPort, want *Session) {
		t.Helper()
		if got, _ := d.s.SessionByAddr(at, anyLocal); got != want {
			t.Errorf("at %v is %v, want %v", at, got, want)
		}
	}
	move(a, clientAddr(2)) // where b is
	found(clientAddr(2), sa)
	found(clientAddr(1), nil)
	if sb.RemoteAddr() != clientAddr(2) {
		t.Errorf("the other is at %v", sb.RemoteAddr())
	}
	if n := len(d.l.sessions(openOnly)); n != 2 {
		t.Errorf("%d sessions are listed, want 2", n)
	}
	move(b, clientAddr(1))
	found(clientAddr(1), sb)
	found(clientAddr(2), sa)
	move(b, clientAddr(2))
	found(clientAddr(2), sb)
	sb.Close()
	d.settle()
	d.outTo(clientAddr(2))
	found(clientAddr(2), sa) // which was there all the time
	d.receiveTo(a, clientAddr(2), data(a, "still here"))
	if n := len(a.Data); string(a.Data[n-1]) != "still here" {
		t.Error("the first is no longer answered")
	}
	sa.Close()
	d.settle()
	if left := d.l.left(); left != "" {
		t.Error(left)
	}
}

// TestNewPeerAtAddress: a peer that connects from the address of a session with a
// connection ID takes that one's place only if it is known to be the same (RFC 6347
// section 4.2.8 is about associations that nothing else tells apart).
func TestNewPeerAtAddress(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		firstCID  []byte
		secondCID []byte
		second    string // its identity
		replaced  bool
	}{
		{"the same device", []byte("a"), []byte("b"), testIdentity, true},
		{"the same device, now without", []byte("a"), nil, testIdentity, true},
		{"another device", []byte("a"), []byte("b"), "another", false},
		{"another device without", []byte("a"), nil, "another", false},
		{"in the place of one without", nil, []byte("b"), "another", true},
		{"both without", nil, nil, "another", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := newDirect(t, func(s *Server) {
				echoes(s)
				s.PSK = func(context.Context, PSKRequest) (PSK, error) { return PSK{Key: []byte(testKey)}, nil }
			})
			connect := func(identity string, cid []byte) (*testpeer.Client, *Session) {
				d.connected++
				c := testpeer.New(identity, []byte(testKey), d.connected)
				c.CID = cid
				for _, flight := range []func() []byte{c.Hello, c.Hello, c.Flight} {
					d.receiveTo(c, clientAddr(1), flight())
				}
				s, ok := d.s.SessionByAddr(clientAddr(1), anyLocal)
				if !ok || !c.Complete {
					t.Fatal("not connected")
				}
				return c, s
			}
			first, s1 := connect(testIdentity, tt.firstCID)
			second, s2 := connect(tt.second, tt.secondCID)
			if s1 == s2 || s1.isOver() != tt.replaced || s2.isOver() {
				t.Fatalf("the first session is over: %v, want %v", s1.isOver(), tt.replaced)
			}
			if wrong := d.l.misplaced(); wrong != "" {
				t.Fatal(wrong)
			}
			for _, c := range []*testpeer.Client{first, second} {
				if c == first && tt.replaced {
					continue
				}
				d.receiveTo(c, clientAddr(1), data(c, "hello"))
				if len(c.Data) != 1 {
					t.Error("not answered")
				}
			}
			d.advance(time.Hour)
			if left := d.l.left(); left != "" {
				t.Error(left)
			}
		})
	}
}

// TestMovedSource: a session counts at the source where it is.
func TestMovedSource(t *testing.T) {
	t.Parallel()
	d := newDirect(t, func(s *Server) { s.ConnectionIDs.Move, s.MaxSessionsPerSource = MoveAtOnce, 2 })
	elsewhere := netip.MustParseAddrPort("203.0.113.9:5000")
	open := func(at netip.AddrPort) int {
		if src := d.l.sources.byKey[sourceKeyOf(at.Addr())]; src != nil {
			return int(src.open)
		}
		return 0
	}
	c, s := d.roam(clientAddr(1), nil)
	d.receiveTo(c, elsewhere, data(c, "from elsewhere"))
	if open(clientAddr(1)) != 0 || open(elsewhere) != 1 || s.RemoteAddr() != elsewhere {
		t.Errorf("%d sessions here, %d there", open(clientAddr(1)), open(elsewhere))
	}
	d.receiveTo(c, clientAddr(1), data(c, "and back"))
	if open(clientAddr(1)) != 1 || open(elsewhere) != 0 {
		t.Errorf("%d sessions here, %d there", open(clientAddr(1)), open(elsewhere))
	}
	if wrong := d.l.misplaced(); wrong != "" {
		t.Error(wrong)
	}
	// Where as many are as may be, no other moves to, and it is served all the same.
	first, _ := d.roam(netip.AddrPortFrom(elsewhere.Addr(), 1), nil)
	d.roam(netip.AddrPortFrom(elsewhere.Addr(), 2), nil)
	d.receiveTo(c, elsewhere, data(c, "from elsewhere again"))
	if open(elsewhere) != 2 || s.RemoteAddr() != clientAddr(1) || s.isOver() {
		t.Errorf("%d sessions there, this one is at %v", open(elsewhere), s.RemoteAddr())
	}
	if events := d.rec.of(KindLimitReached); len(events) != 1 || events[0].Err != errMaxSessionsPerSource || events[0].Remote != elsewhere {
		t.Errorf("events: %v", events)
	}
	d.receiveTo(first, netip.AddrPortFrom(elsewhere.Addr(), 3), data(first, "of those that are there"))
	d.receiveTo(c, clientAddr(1), data(c, "and back"))
	if n := len(d.rec.data); n != 5 {
		t.Errorf("%d messages were received: %q", n, d.rec.data)
	}
}

// TestEndedConnectionID: what comes for a session that has ended is counted apart from
// junk, and not answered.
func TestEndedConnectionID(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	c, s := d.roam(clientAddr(1), nil)
	s.Close()
	d.settle()
	if out := d.receive(clientAddr(2), data(c, "too late")); len(out) > 0 {
		t.Errorf("answered with %x", out)
	}
	made := data(c, "junk")
	made[12] ^= 1
	if out := d.receive(clientAddr(2), made); len(out) > 0 {
		t.Errorf("answered with %x", out)
	}
	if drops := d.s.Stats().Dropped; drops.UnknownConnectionIDs != 1 || drops.UnexpectedDatagrams != 1 {
		t.Errorf("%+v", drops)
	}
	if events := d.rec.of(KindUnexpectedDatagram); len(events) != 2 || events[0].Err == nil || events[1].Err != nil {
		t.Errorf("events: %v", events)
	}
}

// TestGenerate: connection IDs are of the generator's first part, unique, and not given
// when it has none left.
func TestGenerate(t *testing.T) {
	t.Parallel()
	var next byte
	length := 1
	d := newDirect(t, func(s *Server) {
		s.ConnectionIDs.Generate = func() []byte { next = (next + 1) % 3; return bytes.Repeat([]byte{next}, length) }
	})
	seen := make(map[string]bool)
	for n := range 3 {
		c, _ := d.roam(clientAddr(n), nil)
		if len(c.ServerCID) != 3 || seen[string(c.ServerCID)] {
			t.Errorf("connection ID %x", c.ServerCID)
		}
		seen[string(c.ServerCID)] = true
	}
	for n, want := range []error{errConnectionIDsUsed, errConnectionIDLen} {
		c := testpeer.New(testIdentity, []byte(testKey), uint64(1000+n))
		c.CID = []byte("client")
		d.establish(c, clientAddr(1000+n))
		if c.ServerCID != nil {
			t.Errorf("connection ID %x", c.ServerCID)
		}
		d.advance(2 * time.Second)
		if events := d.rec.of(KindConnectionIDFailed); len(events) != n+1 || events[n].Err != want {
			t.Errorf("events: %v", events)
		}
		length = 2
	}
}

// TestRoamingModel has clients with and without connection IDs connect, move, end and
// come back at a few addresses, in random order. Whatever happens, sessions are where
// they belong, and each client with a session is answered wherever it is.
func TestRoamingModel(t *testing.T) {
	t.Parallel()
	moves := uint64(0)
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 17))
		d := newDirect(t, func(s *Server) {
			echoes(s)
			s.PSK = func(context.Context, PSKRequest) (PSK, error) { return PSK{Key: []byte(testKey)}, nil }
			s.ConnectionIDs.Move = MovePolicy(rng.IntN(3))
			s.ConnectionIDs.EnhancedCheck = rng.IntN(2) == 0
			s.MaxSessions = 3 + rng.IntN(8)
		})
		type device struct {
			*testpeer.Client
			at netip.AddrPort
			s  *Session
		}
		var devices []*device
		say := func(dev *device, b []byte) {
			d.l.receive(d.now, message(dev.at, b))
			d.settle()
			for _, b := range d.outTo(dev.at) {
				_ = dev.Receive(b) // it may be another's
			}
			for _, p := range dev.Paths {
				if p.Type == wire.PathChallenge && rng.IntN(4) > 0 {
					d.l.receive(d.now, message(dev.at, dev.Path(wire.PathResponse, p.Cookie)))
					d.settle()
				}
			}
			dev.Paths = nil
		}
		for step := range 150 {
			var dev *device
			if len(devices) > 0 {
				dev = devices[rng.IntN(len(devices))]
			}
			switch op := rng.IntN(10); {
			case op < 3 || dev == nil:
				identity := fmt.Sprintf("device %d", rng.IntN(5))
				dev = &device{Client: testpeer.New(identity, []byte(testKey), seed<<20|uint64(step)), at: clientAddr(rng.IntN(4))}
				if rng.IntN(4) > 0 {
					dev.CID, dev.CheckPaths = []byte("client"), rng.IntN(2) == 0
				}
				for _, flight := range []func() []byte{dev.Hello, dev.Hello, dev.Flight} {
					if dev.Cookie != nil && dev.MessageSeq > 1 && !dev.HelloDone {
						break // refused
					}
					say(dev, flight())
				}
				dev.s, _ = d.s.SessionByAddr(dev.at, anyLocal)
				if dev.Complete && dev.s != nil && bytes.Equal(dev.s.ConnectionState().ConnectionID, dev.ServerCID) { // else it gave way
					devices = append(devices, dev)
				}
			case op < 7 && dev.ServerCID != nil:
				dev.at = clientAddr(rng.IntN(6))
				fallthrough
			case op < 8:
				over := dev.s.isOver()
				before := dev.s.Stats().MessagesReceived
				say(dev, data(dev.Client, "a request of some length"))
				if got := dev.s.Stats().MessagesReceived - before; !over && dev.ServerCID != nil && got != 1 {
					t.Fatalf("seed %d, step %d: %d messages were received", seed, step, got)
				}
			case op == 8:
				say(dev, dev.Sealed(wire.ContentAlert, []byte{1, 0}))
			default:
				d.advance(time.Duration(rng.IntN(3000)) * time.Millisecond)
			}
			if wrong := d.l.misplaced(); wrong != "" {
				t.Fatalf("seed %d, step %d: %s", seed, step, wrong)
			}
		}
		moves += d.s.Stats().PeersMoved
		d.s.Close()
		d.settle()
		if left := d.l.left(); left != "" {
			t.Fatalf("seed %d: left: %s", seed, left)
		}
	}
	if moves < 300 {
		t.Errorf("%d moves", moves)
	}
}
