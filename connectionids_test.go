package dtlsserver

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// roam returns a client with connection IDs that is connected from an address.
func (d *direct) roam(from netip.AddrPort, edit func(*testpeer.Client)) (*testpeer.Client, *Session) {
	d.t.Helper()
	d.connected++
	c := testpeer.New(testIdentity, []byte(testKey), d.connected)
	c.CID = []byte("client")
	if edit != nil {
		edit(c)
	}
	d.exchange(c, from, c.Hello())
	d.exchange(c, from, c.Hello())
	d.exchange(c, from, c.Flight())
	if !c.Complete || c.ServerCID == nil {
		d.t.Fatalf("not connected, or without a connection ID: complete %v, connection ID %x", c.Complete, c.ServerCID)
	}
	d.out, d.to = nil, nil
	s, ok := d.s.SessionByAddr(from, netip.AddrPort{})
	if !ok {
		d.t.Fatal("no session")
	}
	return c, s
}

func data(c *testpeer.Client, text string) []byte {
	return c.Sealed(wire.ContentApplicationData, []byte(text))
}

// TestConnectionIDs: with each suite, records come from another address each, and are
// delivered and answered, with connection IDs of each length.
func TestConnectionIDs(t *testing.T) {
	t.Parallel()
	for _, id := range DefaultCipherSuites() {
		if !suite.ByID(id).KeyExchange.WithPSK() {
			continue
		}
		for _, n := range []int{0, 1, 8, 20, 255} {
			t.Run(fmt.Sprintf("%s/%d", CipherSuiteName(id), n), func(t *testing.T) {
				t.Parallel()
				d := newDirect(t, echoes)
				c, s := d.roam(clientAddr(1), func(c *testpeer.Client) {
					c.Suites = []uint16{id}
					c.CID = bytes.Repeat([]byte{0xcd}, n)
				})
				state := s.ConnectionState()
				if len(state.ConnectionID) != 10 || !bytes.Equal(state.ConnectionID, c.ServerCID) || state.ReturnRoutability {
					t.Errorf("ConnectionState: %x, %v, want %x", state.ConnectionID, state.ReturnRoutability, c.ServerCID)
				}
				for i := range 20 {
					text := fmt.Sprintf("message %d that is long enough for an answer with a long connection ID, of three times its length", i)
					d.receiveTo(c, clientAddr(100+i), data(c, text))
					if len(c.Data) != i+1 || string(c.Data[i]) != text {
						t.Fatalf("message %d was answered with %q", i, c.Data)
					}
				}
				if s.RemoteAddr() != clientAddr(1) {
					t.Errorf("the session has moved to %v", s.RemoteAddr())
				}
				if at, ok := s.CandidateAddr(); !ok || at != clientAddr(119) {
					t.Errorf("the candidate is %v, %v", at, ok)
				}
				// What comes from the old address ends the candidate.
				d.receiveTo(c, clientAddr(1), data(c, "here"))
				if at, ok := s.CandidateAddr(); ok || len(c.Data) != 21 {
					t.Errorf("the candidate is %v, %v; %d answers", at, ok, len(c.Data))
				}
			})
		}
	}
}

// TestHandshakeStays: a handshake goes on where it began, though its Finished has a
// connection ID. One from elsewhere is dropped, and not answered.
func TestHandshakeStays(t *testing.T) {
	t.Parallel()
	d := newDirect(t, echoes)
	c := testpeer.New(testIdentity, []byte(testKey), 1)
	c.CID = []byte("client")
	d.exchange(c, clientAddr(1), c.Hello())
	d.exchange(c, clientAddr(1), c.Hello())
	keyExchange, changeCipherSpec, finished := c.KeyExchange()
	d.exchange(c, clientAddr(1), append(keyExchange, changeCipherSpec...))
	if out := d.receive(clientAddr(2), finished); len(out) > 0 || d.s.Stats().Dropped.ConnectionIDs != 1 {
		t.Errorf("answered with %x, dropped %+v", out, d.s.Stats().Dropped)
	}
	d.exchange(c, clientAddr(1), finished)
	if !c.Complete || !d.isOpen(clientAddr(1)) {
		t.Error("the handshake has not gone on")
	}
}

// TestReturnRoutability: the session moves when the candidate has answered, and not
// before.
func TestReturnRoutability(t *testing.T) {
	t.Parallel()
	d := newDirect(t, echoes)
	c, s := d.roam(clientAddr(1), func(c *testpeer.Client) { c.CheckPaths = true })
	if !s.ConnectionState().ReturnRoutability {
		t.Fatal("not negotiated")
	}
	d.receiveTo(c, clientAddr(2), data(c, "moved"))
	if len(c.Paths) != 1 || c.Paths[0].Type != wire.PathChallenge || len(c.Data) != 1 {
		t.Fatalf("got %v and %q", c.Paths, c.Data)
	}
	if s.RemoteAddr() != clientAddr(1) {
		t.Fatal("moved before the answer")
	}
	d.receiveTo(c, clientAddr(2), c.Path(wire.PathResponse, c.Paths[0].Cookie))
	if _, ok := s.CandidateAddr(); s.RemoteAddr() != clientAddr(2) || ok {
		t.Fatalf("the session is at %v, with a candidate %v", s.RemoteAddr(), ok)
	}
	if at, ok := d.s.SessionByAddr(clientAddr(2), netip.AddrPort{}); !ok || at != s {
		t.Error("it is not found where it is")
	}
	if _, ok := d.s.SessionByAddr(clientAddr(1), netip.AddrPort{}); ok {
		t.Error("it is found where it was")
	}
	moved := d.rec.of(KindPeerMoved)
	if len(moved) != 1 || moved[0].Remote != clientAddr(2) || moved[0].PreviousRemote != clientAddr(1) || moved[0].Session != s {
		t.Errorf("events: %v", moved)
	}
	if stats := d.s.Stats(); stats.PeersMoved != 1 {
		t.Errorf("PeersMoved = %d", stats.PeersMoved)
	}
}

// TestLongCandidate: a peer that cannot be checked stays at its new address for so long
// that more than 4 GiB come from there, and is still answered there.
func TestLongCandidate(t *testing.T) {
	t.Parallel()
	d := newDirect(t, echoes)
	c, s := d.roam(clientAddr(1), nil)
	d.receiveTo(c, clientAddr(2), data(c, "moved"))
	s.moving.received, s.moving.sent = 1<<32-1, 1<<32-1
	for i := range 3 {
		d.receiveTo(c, clientAddr(2), data(c, "still here"))
		if len(c.Data) != i+2 {
			t.Fatalf("%d answers, want %d", len(c.Data), i+2)
		}
	}
}

// TestChallenges: a candidate that does not answer is asked three times, a second
// apart, with a cookie each, and forgotten.
func TestChallenges(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	c, s := d.roam(clientAddr(1), func(c *testpeer.Client) { c.CheckPaths = true })
	d.receiveTo(c, clientAddr(2), data(c, "a message that is long enough for three challenges to be no more than three times as long"))
	for i := range 3 {
		if len(c.Paths) != i+1 {
			t.Fatalf("%d challenges after %d s", len(c.Paths), i)
		}
		d.advance(time.Second)
		for _, b := range d.outTo(clientAddr(2)) {
			if err := c.Receive(b); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, ok := s.CandidateAddr(); ok || len(c.Paths) != 3 || c.Paths[0].Cookie == c.Paths[1].Cookie {
		t.Errorf("candidate %v, challenges %v", ok, c.Paths)
	}
	d.receiveTo(c, clientAddr(2), c.Path(wire.PathResponse, c.Paths[2].Cookie))
	if s.RemoteAddr() != clientAddr(1) {
		t.Error("moved by an answer that came too late")
	}
	if len(c.Paths) != 4 {
		t.Error("the next newer record has not made a candidate")
	}
}
