package dtlsserver

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// What the simulator has found in sessions with connection IDs.

// TestLongConnectionIDs: a client's connection ID may be longer than the datagrams of
// the handshake, which get smaller when they are repeated.
func TestLongConnectionIDs(t *testing.T) {
	t.Parallel()
	for _, mtu := range []int{128, 256, 300, 1200} {
		for _, n := range []int{60, 200, 255} {
			d := newDirect(t, func(s *Server) { s.MTU = mtu })
			c, _ := d.roam(clientAddr(1), func(c *testpeer.Client) { c.CID = bytes.Repeat([]byte{0xcd}, n) })
			for i := range 6 {
				d.advance(2 * time.Second)
				if len(d.receive(clientAddr(1), c.Sealed(wire.ContentHandshake, c.FinishedMessage()))) == 0 {
					t.Errorf("MTU %d, connection ID of %d bytes: Finished is not answered, repetition %d", mtu, n, i)
				}
			}
		}
	}
}

// TestLatePathDrop: that the peer has left its old address does not end the candidate,
// though it is told late, in the peer's newest record.
func TestLatePathDrop(t *testing.T) {
	t.Parallel()
	d := newDirect(t, func(s *Server) { s.ConnectionIDs.EnhancedCheck = true })
	c, s := d.roam(clientAddr(1), func(c *testpeer.Client) { c.CheckPaths = true })
	d.receive(clientAddr(2), data(c, "a message that is long enough for a challenge"))
	first := d.outTo(clientAddr(1))
	if len(first) != 1 {
		t.Fatal("the old address is not asked")
	}
	d.advance(time.Second)
	for _, b := range append(first, d.outTo(clientAddr(2))...) {
		if err := c.Receive(b); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.Paths) != 2 {
		t.Fatalf("%d challenges", len(c.Paths))
	}
	d.receive(clientAddr(1), c.Path(wire.PathDrop, c.Paths[0].Cookie))
	if at, ok := s.CandidateAddr(); !ok || at != clientAddr(2) {
		t.Errorf("the candidate is %v, %v", at, ok)
	}
	d.receive(clientAddr(2), c.Path(wire.PathResponse, c.Paths[1].Cookie))
	if s.RemoteAddr() != clientAddr(2) {
		t.Error("not moved")
	}
}

// TestPathResponsesAreBounded: eight challenges a second are answered, also when the
// session moves meanwhile.
func TestPathResponsesAreBounded(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	c, s := d.roam(clientAddr(1), func(c *testpeer.Client) { c.CheckPaths = true })
	answers := 0
	ask := func(from netip.AddrPort) {
		for i := range 10 {
			for _, b := range d.receive(from, c.Path(wire.PathChallenge, [8]byte{byte(i)})) {
				if err := c.Receive(b); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, m := range c.Paths {
			if m.Type == wire.PathResponse {
				answers++
			}
		}
	}
	ask(clientAddr(1))
	c.Paths = nil
	d.receiveTo(c, clientAddr(2), data(c, "a message that is long enough for a challenge"))
	d.receiveTo(c, clientAddr(2), c.Path(wire.PathResponse, c.Paths[0].Cookie))
	if s.RemoteAddr() != clientAddr(2) {
		t.Fatal("not moved")
	}
	c.Paths = nil
	if ask(clientAddr(2)); answers != 8 {
		t.Errorf("%d answers", answers)
	}
}

// TestBesideOthers: a session with a connection ID outlives those that come and go at
// its address.
func TestBesideOthers(t *testing.T) {
	t.Parallel()
	d := newDirect(t, func(s *Server) {
		s.PSK = func(context.Context, PSKRequest) (PSK, error) { return PSK{Key: []byte(testKey)}, nil }
	})
	c, s := d.roam(clientAddr(1), nil)
	for i := range 3 {
		other := testpeer.New(fmt.Sprint("another ", i), []byte(testKey), uint64(100+i))
		d.exchange(other, clientAddr(1), other.Hello())
		d.exchange(other, clientAddr(1), other.Hello())
		d.exchange(other, clientAddr(1), other.Flight())
		if !other.Complete {
			t.Fatalf("another %d is not connected", i)
		}
		found := false
		for open := range d.s.Sessions() {
			found = found || open == s
		}
		if !found {
			t.Fatalf("it is gone when %d others have come", i+1)
		}
	}
	d.receive(clientAddr(2), data(c, "still here"))
	if s.Stats().MessagesReceived != 1 {
		t.Error("its message is not delivered")
	}
}
