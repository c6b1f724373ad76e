package interop

// Connection IDs (RFC 9146) and the return routability check (RFC 9853) with
// clients of pion/dtls v4, whose address changes.

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver"
	pion4 "github.com/pion/dtls/v4"
	"github.com/pion/dtls/v4/pkg/crypto/ciphersuite"
	"github.com/pion/dtls/v4/pkg/protocol"
)

// moveMode is how the two sides see to it that a session moves.
type moveMode struct {
	name   string
	policy dtlsserver.MovePolicy
	client pion4.CIDPathMigrationPolicy
	rrc    bool // negotiated
	moves  bool // the session follows
}

var moveModes = []moveMode{
	{"without RRC", dtlsserver.MoveWhenProven, pion4.CIDPathMigrationReject, false, false},
	{"RRC", dtlsserver.MoveWhenProven, pion4.CIDPathMigrationRRC, true, true},
	{"at once", dtlsserver.MoveAtOnce, pion4.CIDPathMigrationReject, false, true},
}

// serverCID is how long the server's connection IDs are.
const serverCID = 10

// pion4Client is a client of pion/dtls v4 that can move.
type pion4Client struct {
	*pion4.Conn
	socket *moving
}

// pion4PSK returns the options for an identity's key, with DTLS 1.2.
func pion4PSK(identity string, suite ciphersuite.ID) []pion4.ClientOption {
	return []pion4.ClientOption{
		pion4.WithMaxVersion(protocol.Version1_2),
		pion4.WithCipherSuites(suite),
		pion4.WithPSK(func() ([]pion4.PSK, error) {
			return []pion4.PSK{{Identity: []byte(identity), Key: key}}, nil
		}, nil),
	}
}

// dialPion4 completes a handshake from the first of the sockets, of which the
// client receives on the newest few.
func dialPion4(t *testing.T, addr string, few int, options ...pion4.ClientOption) *pion4Client {
	t.Helper()
	socket := newMovingFor(t, addr, few, nil)
	conn, err := pion4.Client(socket, socket.server, options...)
	return startPion4(t, conn, err, socket)
}

func newMovingFor(t *testing.T, addr string, few int, s *net.UDPConn) *moving {
	t.Helper()
	socket, err := newMoving(addr, few, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	return socket
}

// startPion4 completes the handshake of a connection, if there was no error.
func startPion4(t *testing.T, conn *pion4.Conn, err error, socket *moving) *pion4Client {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		t.Fatal(err)
	}
	return &pion4Client{conn, socket}
}

// move has the client send from another port.
func (c *pion4Client) move(t *testing.T) netip.AddrPort {
	t.Helper()
	addr, err := c.socket.move(nil)
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// nthMessage is so long that a challenge and the echo, with connection IDs of 255
// bytes, are no more than three times what has come.
func nthMessage(n int) string { return fmt.Sprintf("message %d, %0300d", n, 0) }

// ask has a message echoed.
func (c *pion4Client) ask(t *testing.T, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	c.wantRead(t, text)
}

// wantRead wants a message.
func (c *pion4Client) wantRead(t *testing.T, text string) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 1000)
	if n, err := c.Read(b); err != nil || string(b[:n]) != text {
		t.Fatalf("got %q, %v, want %q", b[:n], err, text)
	}
}

// echoes is what a server has received and sent back.
type echoes struct {
	mu    sync.Mutex // guards all following
	texts []string
}

func (e *echoes) answer(s *dtlsserver.Session, message []byte) {
	e.mu.Lock()
	e.texts = append(e.texts, string(message))
	e.mu.Unlock()
	s.Write(message)
}

// want wants the first n messages, each once and in order.
func (e *echoes) want(t *testing.T, n int, nth func(int) string) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.texts) != n {
		t.Errorf("%d messages are delivered, want %d", len(e.texts), n)
	}
	for i, text := range e.texts {
		if text != nth(i) {
			t.Fatalf("delivered as number %d is %q, want %q", i, text, nth(i))
		}
	}
}

// nextMove returns the next move of a session.
func (d *served) nextMove(t *testing.T) dtlsserver.Event {
	t.Helper()
	select {
	case e := <-d.moved:
		return e
	case <-time.After(patience):
		t.Fatal("no session has moved")
		panic("unreachable")
	}
}

// wantMove wants the next move of a session to be between the addresses.
func (d *served) wantMove(t *testing.T, from, to netip.AddrPort) {
	t.Helper()
	if e := d.nextMove(t); e.PreviousRemote != from || e.Remote != to {
		t.Fatalf("the session has moved from %v to %v, want from %v to %v", e.PreviousRemote, e.Remote, from, to)
	}
}

// wantMoveTo wants a session to move to the address, perhaps after others.
func (d *served) wantMoveTo(t *testing.T, to netip.AddrPort) {
	t.Helper()
	for d.nextMove(t).Remote != to {
	}
}

// wantNoMove wants no more moves than were taken.
func (d *served) wantNoMove(t *testing.T) {
	t.Helper()
	select {
	case e := <-d.moved:
		t.Errorf("the session has moved from %v to %v", e.PreviousRemote, e.Remote)
	default:
	}
}

// only returns the only session. The client may have completed the handshake before
// the server tells of it.
func (d *served) only(t *testing.T) *dtlsserver.Session {
	t.Helper()
	select {
	case <-d.opened:
	case <-time.After(patience):
	}
	sessions := d.complete()
	if len(sessions) != 1 {
		t.Fatalf("%d handshakes are complete, want one", len(sessions))
	}
	return sessions[0]
}

// wantCID wants connection IDs in a session.
func wantCID(t *testing.T, s *dtlsserver.Session, rrc bool) {
	t.Helper()
	if state := s.ConnectionState(); len(state.ConnectionID) != serverCID || state.ReturnRoutability != rrc {
		t.Errorf("connection ID %x, return routability check: %v, want %v", state.ConnectionID, state.ReturnRoutability, rrc)
	}
}

// wantEnd wants the client's close_notify to end the session.
func (c *pion4Client) wantEnd(t *testing.T, s *dtlsserver.Session) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-s.Context().Done():
	case <-time.After(patience):
		t.Error("the session has not ended")
	}
}

// moveOften has a client echo messages, each from another port than the one
// before, where it waits for the answer, and for the session if it follows.
func (c *pion4Client) moveOften(t *testing.T, d *served, mode moveMode, moves int) {
	t.Helper()
	at := d.only(t).RemoteAddr()
	for i := range moves {
		to := c.move(t)
		c.ask(t, nthMessage(i))
		if mode.moves {
			d.wantMove(t, at, to)
			at = to
		}
	}
	d.wantNoMove(t)
	if now := d.only(t).RemoteAddr(); now != at {
		t.Errorf("the session is at %v, want %v", now, at)
	}
}

// TestPionMoves: a thousand messages, each from a port of its own, are delivered
// and answered there, however long the client's connection ID is. What comes to
// the port before is lost.
func TestPionMoves(t *testing.T) {
	t.Parallel()
	const moves = 1000
	for _, mode := range moveModes {
		for _, length := range []int{0, 1, 20, 255} {
			t.Run(fmt.Sprintf("%s/%d", mode.name, length), func(t *testing.T) {
				t.Parallel()
				var received echoes
				d := serveWith(t, &dtlsserver.Server{
					PSK:           dtlsserver.StaticPSK(map[string][]byte{identity: key}),
					ConnectionIDs: dtlsserver.ConnectionIDs{Move: mode.policy},
				}, received.answer)
				c := dialPion4(t, d.addr, 1, append(pion4PSK(identity, ciphersuite.TLS_PSK_WITH_AES_128_GCM_SHA256),
					pion4.WithConnectionID(pion4.RandomCIDGenerator(length), mode.client))...)
				wantCID(t, d.only(t), mode.rrc)
				start := time.Now()
				c.moveOften(t, d, mode, moves)
				t.Logf("%d moves in %v", moves, time.Since(start).Round(time.Millisecond))
				received.want(t, moves, nthMessage)
				c.move(t)
				c.wantEnd(t, d.only(t))
			})
		}
	}
}

// TestPionMovesInBursts: the same with several messages under way at a time.
func TestPionMovesInBursts(t *testing.T) {
	t.Parallel()
	const moves, burst = 1000, 20
	for _, mode := range moveModes {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			var received echoes
			d := serveWith(t, &dtlsserver.Server{
				PSK:           dtlsserver.StaticPSK(map[string][]byte{identity: key}),
				ConnectionIDs: dtlsserver.ConnectionIDs{Move: mode.policy},
			}, received.answer)
			c := dialPion4(t, d.addr, burst, append(pion4PSK(identity, ciphersuite.TLS_PSK_WITH_AES_128_CCM_8),
				pion4.WithConnectionID(pion4.RandomCIDGenerator(8), mode.client))...)
			c.SetDeadline(time.Now().Add(patience))
			b := make([]byte, 1000)
			for sent := 0; sent < moves; sent += burst {
				var to netip.AddrPort
				for i := range burst {
					to = c.move(t)
					if _, err := c.Write([]byte(nthMessage(sent + i))); err != nil {
						t.Fatal(err)
					}
				}
				answered := make(map[string]bool)
				for range burst {
					n, err := c.Read(b)
					if err != nil {
						t.Fatalf("after %d answers to %d messages: %v", sent+len(answered), sent+burst, err)
					}
					answered[string(b[:n])] = true
				}
				for i := range burst {
					if !answered[nthMessage(sent+i)] {
						t.Fatalf("message %d is not answered", sent+i)
					}
				}
				if mode.moves {
					d.wantMoveTo(t, to)
				}
			}
			received.want(t, moves, nthMessage)
			d.wantNoMove(t)
			c.wantEnd(t, d.only(t))
		})
	}
}

// TestPionSuitesWithCID: connection IDs and the return routability check in every
// suite that the client has.
func TestPionSuitesWithCID(t *testing.T) {
	t.Parallel()
	for _, suite := range matrixSuites {
		id := ciphersuite.ID(suite.id)
		if id.String() == fmt.Sprintf("0x%04X", suite.id) {
			continue
		}
		t.Run(suite.name, func(t *testing.T) {
			t.Parallel()
			set := keys()[map[keyExchange]string{ecdheRSA: "RSA"}[suite.kx]]
			if set == nil {
				set = keys()["P-256"]
			}
			var received echoes
			d := serveWith(t, newServer(set), received.answer)
			options := append(pion4PSK(identity, id), pion4.WithConnectionID(pion4.RandomCIDGenerator(6), pion4.CIDPathMigrationRRC))
			if suite.kx == ecdheECDSA || suite.kx == ecdheRSA {
				options = append(options, pion4.WithPSK(nil, nil), pion4.WithRootCAs(set.pool), pion4.WithServerName(serverName))
			}
			c := dialPion4(t, d.addr, 1, options...)
			wantCID(t, d.only(t), true)
			if got := d.only(t).ConnectionState().CipherSuite; got != suite.id {
				t.Errorf("suite %#04x", got)
			}
			const moves = 10
			c.moveOften(t, d, moveModes[1], moves)
			received.want(t, moves, nthMessage)
			c.wantEnd(t, d.only(t))
		})
	}
}
