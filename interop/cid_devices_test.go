package interop

// What devices with connection IDs do, and what befalls them: here they are
// clients of pion/dtls v4.

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver"
	pion4 "github.com/pion/dtls/v4"
	"github.com/pion/dtls/v4/pkg/crypto/ciphersuite"
)

const anotherIdentity = "Another_identity"

// roamer returns the options for an identity's key and the return routability
// check.
func roamer(identity string) []pion4.ClientOption {
	return append(pion4PSK(identity, ciphersuite.TLS_PSK_WITH_AES_128_CCM_8),
		pion4.WithConnectionID(pion4.OnlySendCIDGenerator(), pion4.CIDPathMigrationRRC))
}

// servePSK serves the clients of roamer, with echoes.
func servePSK(t *testing.T, ids dtlsserver.ConnectionIDs) *served {
	t.Helper()
	return serveWith(t, &dtlsserver.Server{
		PSK:           dtlsserver.StaticPSK(map[string][]byte{identity: key, anotherIdentity: key}),
		ConnectionIDs: ids,
	}, func(s *dtlsserver.Session, message []byte) { s.Write(message) })
}

// TestPionSleeps: a device stores its session, and uses it later from another
// port. From then on, the server also tells it there what it has not asked for.
func TestPionSleeps(t *testing.T) {
	t.Parallel()
	d := servePSK(t, dtlsserver.ConnectionIDs{})
	c := dialPion4(t, d.addr, 1, roamer(identity)...)
	c.ask(t, "good night")
	session := d.only(t)
	for range 3 {
		state, err := c.ExportState()
		if err != nil {
			t.Fatal(err)
		}
		stored, err := state.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		var loaded pion4.State
		if err := loaded.UnmarshalBinary(stored); err != nil {
			t.Fatal(err)
		}
		before, socket := session.RemoteAddr(), newMovingFor(t, d.addr, 1, nil)
		conn, err := pion4.Resume(&loaded, socket, socket.server, pion4.WithConnectionID(pion4.OnlySendCIDGenerator(), pion4.CIDPathMigrationRRC))
		c = startPion4(t, conn, err, socket)
		c.ask(t, "good morning")
		d.wantMove(t, before, socket.addr())
		if _, err := session.Write([]byte("news")); err != nil {
			t.Error(err)
		}
		c.wantRead(t, "news")
	}
	c.wantEnd(t, d.only(t))
}

// TestPortOfAnother: a device moves, and before the server hears of it, its port
// is that of another device, which moves or begins there. Both of them remain.
func TestPortOfAnother(t *testing.T) {
	t.Parallel()
	t.Run("moves there", func(t *testing.T) {
		t.Parallel()
		d, first := serveMoved(t)
		second := dialPion4(t, d.addr, 1, roamer(anotherIdentity)...)
		was, port, next := second.socket.addr(), first.socket.addr(), first.move(t)
		if _, err := second.socket.move(first.socket.give()); err != nil {
			t.Fatal(err)
		}
		second.ask(t, "from the port of another")
		d.wantMove(t, was, port)
		wantBoth(t, d, first, second, port, next)
	})
	t.Run("begins there", func(t *testing.T) {
		t.Parallel()
		d, first := serveMoved(t)
		port, next := first.socket.addr(), first.move(t)
		socket := newMovingFor(t, d.addr, 1, first.socket.give())
		conn, err := pion4.Client(socket, socket.server, roamer(anotherIdentity)...)
		second := startPion4(t, conn, err, socket)
		second.ask(t, "from the port of another")
		wantBoth(t, d, first, second, port, next)
	})
}

// serveMoved returns a server and a client that has moved, as a client's first
// port remains its own.
func serveMoved(t *testing.T) (*served, *pion4Client) {
	t.Helper()
	d := servePSK(t, dtlsserver.ConnectionIDs{})
	c := dialPion4(t, d.addr, 1, roamer(identity)...)
	at, to := c.socket.addr(), c.move(t)
	c.ask(t, "from here")
	d.wantMove(t, at, to)
	return d, c
}

// wantBoth wants the sessions of two clients, the first of which has moved from a
// port to the next, to go on beside each other.
func wantBoth(t *testing.T, d *served, first, second *pion4Client, port, next netip.AddrPort) {
	t.Helper()
	first.ask(t, "from the next port")
	d.wantMove(t, port, next)
	second.ask(t, "still here")
	d.wantNoMove(t)
	sessions := d.complete()
	for i, s := range sessions {
		if _, err := s.Write([]byte{byte(i)}); err != nil {
			t.Error(err)
		}
	}
	first.wantRead(t, "\x00")
	second.wantRead(t, "\x01")
	first.wantEnd(t, sessions[0])
	second.ask(t, "alone")
	second.wantEnd(t, sessions[1])
}

// TestConfirmedMove: without the return routability check, an application finds
// out by itself that a device receives at its new address.
func TestConfirmedMove(t *testing.T) {
	t.Parallel()
	const echo = "not to be guessed"
	var asked netip.AddrPort // the handler's own
	d := serveWith(t, &dtlsserver.Server{
		PSK: dtlsserver.StaticPSK(map[string][]byte{identity: key}),
	}, func(s *dtlsserver.Session, message []byte) {
		at, moving := s.CandidateAddr()
		switch {
		case !moving:
			s.Write([]byte("welcome"))
		case string(message) != echo:
			asked = at
			s.WriteCandidate(asked, []byte(echo))
		case s.ConfirmAddr(asked):
			s.Write([]byte("confirmed"))
		}
	})
	c := dialPion4(t, d.addr, 1, append(pion4PSK(identity, ciphersuite.TLS_PSK_WITH_AES_128_CCM_8),
		pion4.WithConnectionID(pion4.OnlySendCIDGenerator(), pion4.CIDPathMigrationReject))...)
	session := d.only(t)
	for range 3 {
		before, to := session.RemoteAddr(), c.move(t)
		for _, exchange := range [][2]string{{"hello", echo}, {echo, "confirmed"}, {"hello", "welcome"}} {
			if _, err := c.Write([]byte(exchange[0])); err != nil {
				t.Fatal(err)
			}
			c.wantRead(t, exchange[1])
		}
		d.wantMove(t, before, to)
	}
	c.wantEnd(t, session)
}

// TestEnhancedCheck: the server asks at the old address first.
func TestEnhancedCheck(t *testing.T) {
	t.Parallel()
	t.Run("moved", func(t *testing.T) {
		t.Parallel()
		d := servePSK(t, dtlsserver.ConnectionIDs{EnhancedCheck: true})
		c := dialPion4(t, d.addr, 1, roamer(identity)...)
		before, to := d.only(t).RemoteAddr(), c.move(t)
		c.ask(t, "from there")
		d.wantMove(t, before, to)
		c.ask(t, "still there")
		d.wantNoMove(t)
		c.wantEnd(t, d.only(t))
	})
	t.Run("not moved", func(t *testing.T) {
		t.Parallel()
		d := servePSK(t, dtlsserver.ConnectionIDs{EnhancedCheck: true})
		c := dialPion4(t, d.addr, 1, roamer(identity)...)
		session, attacker := d.only(t), dialUDP(t, d.addr)
		before := session.RemoteAddr()
		c.socket.divert(attacker)
		c.ask(t, "this was sent on") // The client hears the challenge before the answer.
		c.ask(t, "this was not")
		if at, moving := session.CandidateAddr(); moving || session.RemoteAddr() != before {
			t.Errorf("the session is at %v, perhaps at %v, want %v", session.RemoteAddr(), at, before)
		}
		d.wantNoMove(t)
		c.wantEnd(t, session)
	})
}

// TestLostCheck: a NAT gives a client another port and loses the first challenge
// there, or the first response.
func TestLostCheck(t *testing.T) {
	t.Parallel()
	const moved = 2 // the flow
	for _, lost := range []datagram{{flow: moved, to: toClient, n: 1}, {flow: moved, to: toServer, n: 2}} {
		t.Run(lost.to.String(), func(t *testing.T) {
			t.Parallel()
			d := servePSK(t, dtlsserver.ConnectionIDs{})
			r := startRelay(t, d.addr, func(d datagram) verdict {
				if d.flow == lost.flow && d.to == lost.to && d.n == lost.n {
					return drop
				}
				return pass
			})
			c := dialPion4(t, r.addr(), 1, roamer(identity)...)
			session := d.only(t)
			before := session.RemoteAddr()
			c.move(t)
			c.ask(t, "from there")
			if at, ok := session.CandidateAddr(); !ok || session.RemoteAddr() != before {
				t.Errorf("the session is at %v, perhaps at %v, though the check is lost", session.RemoteAddr(), at)
			}
			if e := d.nextMove(t); e.PreviousRemote != before || e.Remote != session.RemoteAddr() {
				t.Errorf("the session has moved from %v to %v, and is at %v", e.PreviousRemote, e.Remote, session.RemoteAddr())
			}
			c.ask(t, "still there")
			d.wantNoMove(t)
			c.wantEnd(t, session)
		})
	}
}

// TestCloseAfterMove: the server's close_notify reaches a client that has moved.
func TestCloseAfterMove(t *testing.T) {
	t.Parallel()
	for _, mode := range moveModes {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			d := servePSK(t, dtlsserver.ConnectionIDs{Move: mode.policy})
			c := dialPion4(t, d.addr, 1, append(pion4PSK(identity, ciphersuite.TLS_PSK_WITH_AES_128_GCM_SHA256),
				pion4.WithConnectionID(pion4.RandomCIDGenerator(8), mode.client))...)
			c.moveOften(t, d, mode, 1)
			if err := d.only(t).Close(); err != nil {
				t.Error(err)
			}
			c.SetReadDeadline(time.Now().Add(patience))
			if n, err := c.Read(make([]byte, 100)); !errors.Is(err, io.EOF) {
				t.Errorf("%d bytes, %v, want io.EOF", n, err)
			}
		})
	}
}

// TestLateAnswers: a handler leaves the answers to another goroutine.
func TestLateAnswers(t *testing.T) {
	t.Parallel()
	for _, mode := range moveModes {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			type question struct {
				session *dtlsserver.Session
				text    []byte
			}
			questions := make(chan question, 1)
			defer close(questions)
			go func() {
				for q := range questions {
					q.session.Write(q.text)
				}
			}()
			d := serveWith(t, &dtlsserver.Server{
				PSK:           dtlsserver.StaticPSK(map[string][]byte{identity: key}),
				ConnectionIDs: dtlsserver.ConnectionIDs{Move: mode.policy},
			}, func(s *dtlsserver.Session, message []byte) { questions <- question{s, bytes.Clone(message)} })
			c := dialPion4(t, d.addr, 1, append(pion4PSK(identity, ciphersuite.TLS_PSK_WITH_AES_128_GCM_SHA256),
				pion4.WithConnectionID(pion4.RandomCIDGenerator(8), mode.client))...)
			c.moveOften(t, d, mode, 100)
			c.wantEnd(t, d.only(t))
		})
	}
}

// TestNoCIDs: a server without connection IDs.
func TestNoCIDs(t *testing.T) {
	t.Parallel()
	d := servePSK(t, dtlsserver.ConnectionIDs{Disabled: true})
	c := dialPion4(t, d.addr, 1, roamer(identity)...)
	c.ask(t, "hello")
	if state := d.only(t).ConnectionState(); state.ConnectionID != nil || state.ReturnRoutability {
		t.Errorf("connection ID %x, return routability check: %v", state.ConnectionID, state.ReturnRoutability)
	}
	c.wantEnd(t, d.only(t))
}

// TestPionOffersAll: a client that would also use DTLS 1.3, and all its suites.
func TestPionOffersAll(t *testing.T) {
	t.Parallel()
	set := keys()["P-256"]
	var received echoes
	d := serveWith(t, newServer(set), received.answer)
	c := dialPion4(t, d.addr, 1, pion4.WithRootCAs(set.pool), pion4.WithServerName(serverName),
		pion4.WithConnectionID(pion4.RandomCIDGenerator(4), pion4.CIDPathMigrationRRC))
	wantCID(t, d.only(t), true)
	c.moveOften(t, d, moveModes[1], 10)
	received.want(t, 10, nthMessage)
	c.wantEnd(t, d.only(t))
}
