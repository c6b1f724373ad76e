package interop

// Connection IDs (RFC 9146) with the clients in C that have them.

import (
	"fmt"
	"testing"
	"time"
)

// TestMovesOfCClients: messages of a session and of one that resumes it, each from
// a port of its own, are delivered and answered there.
func TestMovesOfCClients(t *testing.T) {
	t.Parallel()
	const connections, moves = 2, 500
	for _, mode := range moveModes {
		if mode.rrc {
			continue // they have none
		}
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			forEachCClient(t, withCIDs(), func(t *testing.T, c *cClient, credentials string) {
				for _, length := range c.cids {
					t.Run(fmt.Sprint(length), func(t *testing.T) {
						set := keys()["P-256"]
						s := newServer(set)
						s.ConnectionIDs.Move = mode.policy
						var received echoes
						d := serveWith(t, s, received.answer)
						out, err := c.run(t, d.addr, credentials, writeCA(t, set.ca), connections, 10*time.Second, moves, length)
						done := fmt.Sprintf("%d moves, a connection ID of %d bytes\n", moves, serverCID)
						if want := "full " + done + "resumed " + done; err != nil || out != want {
							t.Fatalf("%v, it says:\n%swant:\n%s", err, out, want)
						}
						received.want(t, connections*moves, func(i int) string {
							return fmt.Sprintf("message %d of connection %d, from a port of its own", i%moves+1, i/moves+1)
						})
						d.wantResumed(t, connections-1)
						d.wantMoves(t, mode, moves)
					})
				}
			})
		})
	}
}

// wantMoves wants connection IDs in each session, and it to have moved so often if
// it follows its peer.
func (d *served) wantMoves(t *testing.T, mode moveMode, moves int) {
	t.Helper()
	used := make(map[string]bool)
	for _, s := range d.complete() {
		wantCID(t, s, mode.rrc)
		used[string(s.ConnectionState().ConnectionID)] = true
		if !mode.moves {
			continue
		}
		at := d.nextMove(t)
		for range moves - 1 {
			next := d.nextMove(t)
			if next.Session != s || at.Session != s || next.PreviousRemote != at.Remote || next.Remote == at.Remote {
				t.Fatalf("after the move from %v to %v comes one from %v to %v", at.PreviousRemote, at.Remote, next.PreviousRemote, next.Remote)
			}
			at = next
		}
	}
	d.wantNoMove(t)
	if len(used) != len(d.complete()) {
		t.Errorf("%d connection IDs of %d sessions", len(used), len(d.complete()))
	}
}

// TestCIDsWithEachDatagramLost: one datagram of the handshake is lost, each in its
// turn, and the client's messages are answered all the same, also through a NAT
// that gives each another port.
func TestCIDsWithEachDatagramLost(t *testing.T) {
	t.Parallel()
	const moves = 3
	forEachCClient(t, withCIDs(), func(t *testing.T, c *cClient, credentials string) {
		set := keys()["P-256"]
		through := func(t *testing.T, decide func(datagram) verdict) *relay {
			t.Helper()
			var received echoes
			d := serveWith(t, newServer(set), received.answer)
			r := startRelay(t, d.addr, decide)
			out, err := c.run(t, r.addr(), credentials, writeCA(t, set.ca), 1, 15*time.Second, moves, c.cids[len(c.cids)-1])
			if err != nil {
				t.Errorf("%v, it says:\n%s", err, out)
			}
			return r
		}
		const handshake = 1 // the flow
		for _, lost := range through(t, func(datagram) verdict { return pass }).datagrams() {
			if lost.flow != handshake {
				break // the client has moved
			}
			t.Run(fmt.Sprintf("%v #%d", lost.to, lost.n), func(t *testing.T) {
				t.Parallel()
				through(t, func(d datagram) verdict {
					if d.flow == handshake && d.to == lost.to && d.n == lost.n {
						return drop
					}
					return pass
				})
			})
		}
	})
}
