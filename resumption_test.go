package dtlsserver

// Session tickets: what they resume, and what they must not.

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testcert"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// ticketOf runs a full handshake and returns a client that has its ticket.
func ticketOf(d *direct, from netip.AddrPort, id uint16, edit ...func(*testpeer.Client)) *testpeer.Client {
	d.t.Helper()
	c := testpeer.New(testIdentity, []byte(testKey), 1)
	c.Suites, c.AskTicket = []uint16{id}, true
	for _, f := range edit {
		f(c)
	}
	d.establish(c, from)
	if len(c.NewTicket) == 0 {
		d.t.Fatal("no ticket")
	}
	again := testpeer.New(testIdentity, []byte(testKey), 2)
	again.Suites, again.Ticket, again.Master, again.SessionID = c.Suites, c.NewTicket, c.Master, []byte{1, 2, 3}
	again.ServerName, again.Protocols, again.Chain, again.Signer = c.ServerName, c.Protocols, c.Chain, c.Signer
	return again
}

// tryResume offers the ticket and finishes whatever handshake comes of it. It
// reports whether the session was resumed.
func tryResume(d *direct, c *testpeer.Client, from netip.AddrPort) bool {
	d.t.Helper()
	d.exchange(c, from, c.Hello())
	if c.Resuming || len(c.Seen) != 1 {
		d.t.Fatal("a ticket was looked at before the cookie")
	}
	d.exchange(c, from, c.Hello())
	switch {
	case c.Resuming:
		if !bytes.Equal(c.ServerHello.SessionID, c.SessionID) {
			d.t.Errorf("session_id %x, want that of the client", c.ServerHello.SessionID)
		}
		d.exchange(c, from, c.Resume())
	case c.HelloDone:
		d.exchange(c, from, c.Flight())
	}
	return c.Resuming && c.Complete
}

// TestResumption: a ticket saves the key exchange, and what it resumes is the
// same as before; with certificates and with ECDHE_PSK.
func TestResumption(t *testing.T) {
	t.Parallel()
	ca := testcert.NewAuthority()
	server := ca.Issue("localhost", testcert.NewKey("P-256"))
	key := testcert.NewKey("P-256")
	chain := ca.Issue("client", key).Certificate
	for _, id := range []uint16{ecdhePSK, ecdheCert} {
		asked := 0
		d := newDirect(t, func(s *Server) {
			s.Certificates = []tls.Certificate{server}
			s.ClientAuth, s.ClientCAs = tls.RequireAndVerifyClientCert, ca.Pool
			s.NextProtos = []string{"coap"}
			s.VerifyConnection = func(_ context.Context, req *VerifyRequest) error { asked++; return nil }
			s.PSK = func(ctx context.Context, req PSKRequest) (PSK, error) {
				psk, err := testPSK(ctx, req)
				psk.Value = "an account"
				return psk, err
			}
		})
		c := ticketOf(d, clientAddr(1), id, func(c *testpeer.Client) {
			c.ServerName, c.Protocols, c.Chain, c.Signer = "localhost", []string{"coap"}, chain, key
		})
		for round := range 3 { // a ticket may be used again
			from := clientAddr(10 + round)
			again := *c
			if !tryResume(d, &again, from) {
				t.Fatalf("%#04x: not resumed; %v", id, d.rec.lines())
			}
			d.exchange(&again, from, again.Sealed(wire.ContentApplicationData, []byte("hello")))
			session, ok := d.s.SessionByAddr(from, anyLocal)
			if !ok || len(d.rec.data) != round+1 {
				t.Fatalf("%#04x: session %v, data %v", id, ok, d.rec.data)
			}
			state := session.ConnectionState()
			if !state.DidResume || state.CipherSuite != id || state.ServerName != "localhost" || state.NegotiatedProtocol != "coap" {
				t.Errorf("%#04x: %+v", id, state)
			}
			switch id {
			case ecdhePSK:
				if state.PSKIdentity != testIdentity || session.Value() != "an account" {
					t.Errorf("identity %q, value %v", state.PSKIdentity, session.Value())
				}
			case ecdheCert:
				if len(state.PeerCertificates) != 2 || len(state.VerifiedChains) != 1 || again.ServerChain != nil {
					t.Errorf("%d certificates, %d chains", len(state.PeerCertificates), len(state.VerifiedChains))
				}
			}
			d.out = nil
			session.Write([]byte("back"))
			if err := again.Receive(d.out[0]); err != nil || string(again.Data[0]) != "back" {
				t.Errorf("%#04x: client got %q, %v", id, again.Data, err)
			}
			material, err := session.ExportKeyingMaterial("EXPORTER-x", nil, 20)
			if err != nil || !bytes.Equal(material, again.Export("EXPORTER-x", nil, 20)) {
				t.Errorf("%#04x: exported %x, %v", id, material, err)
			}
		}
		if asked != 4 {
			t.Errorf("%#04x: VerifyConnection was asked %d times", id, asked)
		}
	}
}

// TestNoTicket: who gets none.
func TestNoTicket(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		edit func(s *Server, c *testpeer.Client)
	}{
		{"plain PSK", func(_ *Server, c *testpeer.Client) { c.Suites = []uint16{0x00a8} }},
		{"no extended master secret", func(_ *Server, c *testpeer.Client) { c.NoEMS = true }},
		{"not asked for", func(_ *Server, c *testpeer.Client) { c.AskTicket = false }},
		{"disabled", func(s *Server, _ *testpeer.Client) { s.SessionTicketsDisabled = true }},
	}
	for _, tt := range tests {
		c := testpeer.New(testIdentity, []byte(testKey), 1)
		c.Suites, c.AskTicket = []uint16{ecdhePSK}, true
		d := newDirect(t, func(s *Server) { tt.edit(s, c) })
		d.establish(c, clientAddr(1))
		if _, promised := c.ServerHello.Extensions[35]; promised || c.NewTicket != nil {
			t.Errorf("%s: promised %v, ticket of %d bytes", tt.name, promised, len(c.NewTicket))
		}
	}
}

// TestRefusedTickets: what a ticket is bound to. A change leads to a full
// handshake, which succeeds where the client may come in, and never to a
// resumption.
func TestRefusedTickets(t *testing.T) {
	t.Parallel()
	ca := testcert.NewAuthority()
	server := ca.Issue("localhost", testcert.NewKey("P-256"))
	key := testcert.NewKey("P-256")
	chain := ca.Issue("client", key, func(c *x509.Certificate) { c.NotAfter = time.Unix(1_700_000_000+3600, 0) }).Certificate
	keyNow := []byte(testKey)
	var pskErr, verifyErr error
	tests := []struct {
		name string
		id   uint16
		edit func(d *direct, c *testpeer.Client)
		in   bool // by a full handshake
	}{
		{"ticket of another key", ecdhePSK, func(d *direct, _ *testpeer.Client) { d.s.SetSessionTicketKeys([32]byte{1}) }, true},
		{"ticket cut short", ecdhePSK, func(_ *direct, c *testpeer.Client) { c.Ticket = c.Ticket[:20] }, true},
		{"expired", ecdhePSK, func(d *direct, _ *testpeer.Client) { d.advance(24 * time.Hour) }, true},
		{"another server name", ecdhePSK, func(_ *direct, c *testpeer.Client) { c.ServerName = "other" }, true},
		{"another protocol", ecdhePSK, func(_ *direct, c *testpeer.Client) { c.Protocols = []string{"h2"} }, true},
		{"suite no longer offered", ecdhePSK, func(_ *direct, c *testpeer.Client) { c.Suites = []uint16{0x00a8} }, true},
		{"another master secret", ecdhePSK, func(_ *direct, c *testpeer.Client) { c.Master[0] ^= 1 }, false},
		{"without extended master secret", ecdhePSK, func(_ *direct, c *testpeer.Client) { c.NoEMS = true }, false},
		{"identity revoked", ecdhePSK, func(*direct, *testpeer.Client) { pskErr = ErrUnknownPSKIdentity }, false},
		{"hook fails", ecdhePSK, func(*direct, *testpeer.Client) { pskErr = errors.New("down") }, false},
		{"key of the identity changed", ecdhePSK, func(_ *direct, c *testpeer.Client) {
			keyNow = []byte("another key")
			c.Key = keyNow
		}, true},
		{"refused by VerifyConnection", ecdhePSK, func(*direct, *testpeer.Client) { verifyErr = errors.New("revoked") }, false},
		{"client certificate expired", ecdheCert, func(d *direct, _ *testpeer.Client) { d.advance(2 * time.Hour) }, true},
	}
	for _, tt := range tests {
		keyNow, pskErr, verifyErr = []byte(testKey), nil, nil
		d := newDirect(t, func(s *Server) {
			s.PSK = func(context.Context, PSKRequest) (PSK, error) { return PSK{Key: keyNow}, pskErr }
			s.VerifyConnection = func(context.Context, *VerifyRequest) error { return verifyErr }
			s.Certificates = []tls.Certificate{server}
			s.ClientAuth = tls.RequireAnyClientCert
			s.NextProtos = []string{"coap", "h2"}
		})
		c := ticketOf(d, clientAddr(1), tt.id, func(c *testpeer.Client) {
			c.Protocols, c.Chain, c.Signer = []string{"coap"}, chain, key
		})
		before := len(d.rec.of(KindHandshakeComplete))
		tt.edit(d, c)
		var resumed bool
		if tt.name == "another master secret" { // the client cannot open anything
			d.receive(clientAddr(2), c.Hello())
			_ = c.Receive(d.out[0])
			d.receive(clientAddr(2), c.Hello())
			d.advance(time.Minute)
		} else {
			resumed = tryResume(d, c, clientAddr(2))
		}
		after := d.rec.of(KindHandshakeComplete)[before:]
		if resumed || (len(after) == 1) != tt.in {
			t.Errorf("%s: resumed %v, %d sessions, want one: %v; alerts %v, %v", tt.name, resumed, len(after), tt.in, c.Alerts, d.rec.lines())
		}
		for _, e := range after {
			if e.Session.ConnectionState().DidResume {
				t.Errorf("%s: resumed", tt.name)
			}
		}
	}
}

// TestTicketBits flips each bit of a ticket.
func TestTicketBits(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	c := ticketOf(d, clientAddr(1), ecdhePSK)
	state, ok := d.s.tickets.Open(d.now, c.Ticket)
	if !ok || !bytes.Contains(state, []byte(testIdentity)) {
		t.Fatal("the ticket does not open")
	}
	if bytes.Contains(c.Ticket, []byte(testIdentity)) || bytes.Contains(c.Ticket, c.Master[:16]) {
		t.Error("the ticket shows what it holds")
	}
	for bit := range 8 * len(c.Ticket) {
		damaged := bytes.Clone(c.Ticket)
		damaged[bit/8] ^= 1 << (bit % 8)
		if _, ok := d.s.tickets.Open(d.now, damaged); ok {
			t.Errorf("opens with bit %d flipped", bit)
		}
	}
	again := *c
	again.Ticket = bytes.Clone(c.Ticket)
	again.Ticket[40] ^= 1
	if tryResume(d, &again, clientAddr(2)) || !again.Complete {
		t.Errorf("a damaged ticket: complete %v, resuming %v", again.Complete, again.Resuming)
	}
}

// TestTicketKeys: drawn keys change daily, and tickets of the last day open;
// set keys are shared between servers.
func TestTicketKeys(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	var drawn ticketKeys
	ticket, err := drawn.Seal(now, []byte("state"))
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []struct {
		after time.Duration
		opens bool
	}{{0, true}, {23 * time.Hour, true}, {25 * time.Hour, true}, {47 * time.Hour, true}, {50 * time.Hour, false}} {
		if state, ok := drawn.Open(now.Add(at.after), ticket); ok != at.opens || ok && string(state) != "state" {
			t.Errorf("after %v: %q, %v", at.after, state, ok)
		}
	}
	var a, b, other Server
	a.SetSessionTicketKeys([32]byte{1}, [32]byte{2})
	b.SetSessionTicketKeys([32]byte{3}, [32]byte{1})
	ticket, _ = a.tickets.Seal(now, []byte("state"))
	if _, ok := b.tickets.Open(now.Add(1000*time.Hour), ticket); !ok {
		t.Error("a ticket of a shared key does not open")
	}
	if _, ok := other.tickets.Open(now, ticket); ok {
		t.Error("a ticket opens without its key")
	}
	second, _ := a.tickets.Seal(now, []byte("state"))
	if bytes.Equal(ticket, second) {
		t.Error("two tickets are the same")
	}
	a.SetSessionTicketKeys()
	if _, ok := a.tickets.Open(now, ticket); ok {
		t.Error("a ticket opens whose key was taken back")
	}
}

// TestTicketsBetweenServers: servers with the same keys resume each other's
// sessions.
func TestTicketsBetweenServers(t *testing.T) {
	t.Parallel()
	shared := func(s *Server) { s.SetSessionTicketKeys([32]byte{7}) }
	first, second := newDirect(t, shared), newDirect(t, shared)
	if c := ticketOf(first, clientAddr(1), ecdhePSK); !tryResume(second, c, clientAddr(1)) {
		t.Error("not resumed")
	}
}

// TestTicketIsRenewed past half of its life, without a longer one.
func TestTicketIsRenewed(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	c := ticketOf(d, clientAddr(1), ecdhePSK)
	early := *c
	if !tryResume(d, &early, clientAddr(2)) || early.NewTicket != nil {
		t.Errorf("at once: resuming %v, a new ticket of %d bytes", early.Resuming, len(early.NewTicket))
	}
	d.advance(13 * time.Hour)
	late := *c
	if !tryResume(d, &late, clientAddr(3)) || late.NewTicket == nil {
		t.Fatalf("after 13 h: resuming %v, a new ticket of %d bytes", late.Resuming, len(late.NewTicket))
	}
	d.advance(10 * time.Hour)
	renewed := *c
	renewed.Ticket = late.NewTicket
	if !tryResume(d, &renewed, clientAddr(4)) {
		t.Error("the new ticket does not resume")
	}
	d.advance(2 * time.Hour)
	over := *c
	over.Ticket = late.NewTicket
	if tryResume(d, &over, clientAddr(5)) {
		t.Error("resumed 25 h after the full handshake")
	}
}

// TestResumptionLosses: in an abbreviated handshake the server's flight is sent
// again until the client's Finished has come, also when the hello is repeated.
func TestResumptionLosses(t *testing.T) {
	t.Parallel()
	d := newDirect(t, func(s *Server) { s.RetransmitTimeout = time.Second })
	c := ticketOf(d, clientAddr(1), ecdhePSK)
	from := clientAddr(2)
	d.exchange(c, from, c.Hello())
	hello := c.Hello()
	if flight := d.receive(from, hello); len(flight) == 0 {
		t.Fatal("no answer")
	}
	start := d.now
	var at []time.Duration
	for range 8 {
		d.out = nil
		d.advance(time.Second)
		if len(d.out) > 0 {
			at = append(at, d.now.Sub(start))
		}
	}
	if want := []time.Duration{1 * time.Second, 3 * time.Second, 7 * time.Second}; !slices.Equal(at, want) {
		t.Errorf("sent again after %v, want %v", at, want)
	}
	again := d.receive(from, hello)
	if len(again) == 0 {
		t.Fatal("a repeated hello is not answered")
	}
	for _, b := range again {
		if err := c.Receive(b); err != nil {
			t.Fatal(err)
		}
	}
	d.exchange(c, from, c.Resume())
	if _, ok := d.s.SessionByAddr(from, anyLocal); !ok {
		t.Error("no session")
	}
	d.out = nil
	d.advance(5 * time.Minute)
	if len(d.out) != 0 {
		t.Error("the flight is sent again after the end")
	}
}

// TestResumptionWrongFinished: the alert to a wrong Finished is sealed, since
// our ChangeCipherSpec has left.
func TestResumptionWrongFinished(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	c := ticketOf(d, clientAddr(1), ecdhePSK)
	from := clientAddr(2)
	d.exchange(c, from, c.Hello())
	d.exchange(c, from, c.Hello())
	wrong := bytes.Clone(c.FinishedMessage())
	wrong[len(wrong)-1] ^= 1
	d.exchange(c, from, c.Plain(wire.ContentChangeCipherSpec, []byte{1}))
	d.exchange(c, from, c.Sealed(wire.ContentHandshake, wrong))
	last := c.Seen[len(c.Seen)-1]
	if len(c.Alerts) != 1 || c.Alerts[0].Description != wire.AlertDecryptError || last.Epoch != 1 {
		t.Errorf("alerts %v, in epoch %d", c.Alerts, last.Epoch)
	}
	if stats := d.s.Stats(); stats.Sessions != 1 || stats.Handshakes != 0 {
		t.Errorf("%+v", stats)
	}
}

// TestResumptionHookBlocks: while the identity is asked about, nothing is
// answered and nobody else waits.
func TestResumptionHookBlocks(t *testing.T) {
	t.Parallel()
	slow := false
	inBubble(t, func(s *Server) {
		s.PSK = func(ctx context.Context, req PSKRequest) (PSK, error) {
			if slow && req.Remote == clientAddr(2) {
				time.Sleep(10 * time.Second)
			}
			return testPSK(ctx, req)
		}
	}, func(b *bubble) {
		p := b.peer(1)
		p.Suites, p.AskTicket = []uint16{ecdhePSK}, true
		p.establish()
		q := b.peer(2)
		q.Suites, q.Ticket, q.Master, q.SessionID = p.Suites, p.NewTicket, p.Master, []byte{9}
		q.send(q.Hello())
		q.receive()
		slow = true
		q.send(q.Hello())
		for n := range 20 {
			b.peer(10 + n).establish()
		}
		if q.receive() != 0 {
			t.Error("answered before the hook")
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if q.receive(); !q.Resuming {
			t.Fatal("not resumed")
		}
		q.send(q.Resume())
		if _, ok := b.server.SessionByAddr(q.pipe.addr, anyLocal); !ok {
			t.Error(fmt.Sprint("no session: ", b.rec.lines()))
		}
	})
}

// TestDataAfterResumption: what a client says behind its Finished is delivered, once
// and in its order, after HandshakeComplete, when it has overtaken the Finished and
// when that is lost and comes again once our flight has.
func TestDataAfterResumption(t *testing.T) {
	t.Parallel()
	const ccs, finished, one, two = 0, 1, 2, 3
	for _, order := range [][]int{
		{ccs, finished, one, two}, {one, two, ccs, finished}, {one, ccs, two, finished}, {ccs, one, two, finished}, {finished, two, one, ccs},
		{ccs, one, two}, {one, two}, {one, ccs, two}, {two, one},
	} {
		for _, joined := range []bool{false, true} {
			d := newDirect(t, nil)
			c := ticketOf(d, clientAddr(1), ecdhePSK)
			from := clientAddr(2)
			d.exchange(c, from, c.Hello())
			d.exchange(c, from, c.Hello())
			if !c.Resuming || !c.Complete {
				t.Fatal("not resumed")
			}
			records := [4][]byte{
				c.Plain(wire.ContentChangeCipherSpec, []byte{1}), c.Sealed(wire.ContentHandshake, c.FinishedMessage()),
				c.Sealed(wire.ContentApplicationData, []byte("1")), c.Sealed(wire.ContentApplicationData, []byte("2")),
			}
			d.rec.log = nil
			before := d.s.Stats().MessagesReceived
			var datagrams [][]byte
			want := []string{"HandshakeComplete"}
			for _, i := range order {
				datagrams = append(datagrams, records[i])
				if i >= one {
					want = append(want, "data")
				}
			}
			if joined {
				datagrams = [][]byte{bytes.Join(datagrams, nil)}
			}
			for _, b := range datagrams {
				d.exchange(c, from, b)
				d.receive(from, b) // repeated by the network
			}
			if len(order) < 4 {
				if len(d.rec.data) > 0 {
					t.Fatalf("order %v: %q before the Finished", order, d.rec.data)
				}
				d.out = nil
				if d.advance(DefaultRetransmitTimeout); len(d.out) == 0 {
					t.Fatalf("order %v: our flight is not sent again", order)
				}
				d.exchange(c, from, c.Resume())
			}
			got := slices.DeleteFunc(d.rec.log, func(s string) bool { return s != "data" && s != "HandshakeComplete" })
			if !slices.Equal(got, want) {
				t.Errorf("order %v, joined %v: told %v, want %v", order, joined, got, want)
			}
			wantData := []string{from.String() + ": 1", from.String() + ": 2"}
			if slices.Index(order, two) < slices.Index(order, one) {
				slices.Reverse(wantData)
			}
			if !slices.Equal(d.rec.data, wantData) {
				t.Errorf("order %v, joined %v: %q", order, joined, d.rec.data)
			}
			if n := d.s.Stats().MessagesReceived - before; n != 2 {
				t.Errorf("order %v, joined %v: %d messages counted", order, joined, n)
			}
		}
	}
}

// TestDataOfResumptionThatFails: without a Finished nothing is delivered and nothing
// is left; and beside an open session, data of the new association waits too.
func TestDataOfResumptionThatFails(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	c := ticketOf(d, clientAddr(1), ecdhePSK)
	from := clientAddr(1) // where there is an open session
	d.exchange(c, from, c.Hello())
	d.exchange(c, from, c.Hello())
	c.FinishedMessage()
	for range 100 {
		d.receive(from, c.Sealed(wire.ContentApplicationData, make([]byte, 500)))
	}
	d.l.mu.Lock()
	memory := d.l.handshakes.memory
	d.l.mu.Unlock()
	if memory == 0 || memory > 16<<10 || len(d.rec.data) > 0 {
		t.Errorf("%d bytes are kept, data %q", memory, d.rec.data)
	}
	d.advance(time.Minute)
	d.rec.want(t, KindHandshakeFailed, 1, "without a Finished")
	d.l.mu.Lock()
	memory = d.l.handshakes.memory
	d.l.mu.Unlock()
	if memory != 0 || len(d.rec.data) > 0 {
		t.Errorf("%d bytes are left, data %q", memory, d.rec.data)
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

// TestDataBehindFinished: the last flight of a client that comes back with a
// ticket may have data in the same datagram.
func TestDataBehindFinished(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	from := clientAddr(1)
	c := ticketOf(d, from, ecdhePSK)
	d.exchange(c, from, c.Hello())
	d.exchange(c, from, c.Hello())
	if !c.Resuming {
		t.Fatal("the session is not resumed")
	}
	d.exchange(c, from, append(c.Resume(), c.Sealed(wire.ContentApplicationData, []byte("first words"))...))
	if want := from.String() + ": first words"; !slices.Contains(d.rec.data, want) {
		t.Errorf("data %q, want %q", d.rec.data, want)
	}
}

// TestSessionTicketKeysAreChecked: a variable that was never set is no key, and
// a refused call changes nothing.
func TestSessionTicketKeysAreChecked(t *testing.T) {
	t.Parallel()
	one, two := [32]byte{1}, [32]byte{31: 2}
	for _, tt := range []struct {
		name string
		keys [][32]byte
		want string // of the error; empty: none
	}{
		{"none", nil, ""},
		{"one", [][32]byte{one}, ""},
		{"two", [][32]byte{one, two}, ""},
		{"zero", [][32]byte{{}}, "key 0 has only zero bytes"},
		{"zero behind", [][32]byte{one, {}}, "key 1 has only zero bytes"},
		{"twice", [][32]byte{one, two, one}, "key 2 is the same as 0"},
	} {
		var s Server
		if err := s.SetSessionTicketKeys(two); err != nil {
			t.Fatal(err)
		}
		before := s.tickets.keys[0].name
		err := s.SetSessionTicketKeys(tt.keys...)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		if err != nil && (len(s.tickets.keys) != 1 || s.tickets.keys[0].name != before) {
			t.Errorf("%s: the keys were changed", tt.name)
		}
	}
}
