package main

// What clients do, by name.

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"time"

	piondtls "github.com/pion/dtls/v2"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/internal/suite"
)

// scenario is a way for a client to behave.
type scenario struct {
	name  string
	every time.Duration // the least time between two clients
	play  func(*visit) error

	tried, completed, failed   atomic.Uint64 // handshakes
	sent, answered, unanswered atomic.Uint64 // datagrams
}

// visit is one client. Its socket is closed in the end, whatever it does.
type visit struct {
	soak     *soak
	scenario *scenario
	conn     *socket
}

// repeat sends one client after the other.
func (s *soak) repeat(ctx context.Context, sc *scenario) {
	every(ctx, sc.every, func() {
		conn, err := s.dial()
		if err != nil {
			s.faults.add("%s: %v", sc.name, err)
			return
		}
		defer conn.Close()
		if err := sc.play(&visit{s, sc, conn}); err != nil {
			s.faults.add("%s, %v: %v", sc.name, conn.LocalAddr(), err)
		}
	})
}

func scenarios() []*scenario {
	const often, seldom = 40 * time.Millisecond, 150 * time.Millisecond
	return []*scenario{
		{name: "PSK", every: often, play: psk},
		{name: "PSK, pion", every: often, play: pskPion},
		{name: "ECDHE_PSK", every: often, play: ecdhePSK},
		{name: "certificate, pion", every: seldom, play: certificatePion},
		{name: "client certificate", every: seldom, play: clientCertificate},
		{name: "resumed by ticket", every: seldom, play: resumed},
		{name: "slow hook", every: seldom, play: slow},
		{name: "pushed to", every: often, play: pushedTo},
		{name: "closing in haste", every: often, play: hasty},
		{name: "vanishing", every: seldom, play: vanishing},
		{name: "back from its port", every: often, play: back},
		{name: "under attack", every: often, play: attacked},
		{name: "closed by handler", every: often, play: closedByHandler},
		{name: "closed any time", every: often, play: closedAnyTime},
		{name: "wrong key", every: seldom, play: wrongKey},
		{name: "unknown identity", every: seldom, play: refused(identityUnknown)},
		{name: "failing hook", every: seldom, play: refused(identityFailing)},
		{name: "hook that hangs", every: seldom, play: refused(identityStuck)},
		{name: "half a handshake", every: often, play: half},
	}
}

// connect makes a handshake, which must succeed.
func (v *visit) connect(identity string, edit func(*hand)) (*hand, error) {
	h := newHand(v.conn, v.name(identity))
	if edit != nil {
		edit(h)
	}
	v.scenario.tried.Add(1)
	err := h.verify()
	if err == nil {
		err = h.finish(maxRepeats)
	}
	return h, v.tally(err)
}

func (v *visit) connectPion(cfg *piondtls.Config) (*piondtls.Conn, error) {
	v.scenario.tried.Add(1)
	c, err := dialPion(v.conn, cfg)
	return c, v.tally(err)
}

// name returns an identity that nobody else has.
func (v *visit) name(kind string) string { return kind + fmt.Sprint(rand.Uint64()) }

func (v *visit) tally(err error) error {
	if err != nil {
		v.scenario.failed.Add(1)
		return fmt.Errorf("handshake: %w", err)
	}
	v.scenario.completed.Add(1)
	return nil
}

// some is the number of datagrams of an exchange.
func some() int { return 1 + rand.IntN(40) }

// talk has an exchange and closes.
func (v *visit) talk(l link) error {
	return errors.Join(v.exchange(l, exchange{count: some()}), l.Close())
}

// oneOf makes the client offer one of the server's suites of a key exchange.
func oneOf(kx suite.KeyExchange) func(*hand) {
	return func(h *hand) {
		var ids []uint16
		for _, id := range dtlsserver.DefaultCipherSuites() {
			if suite.ByID(id).KeyExchange == kx {
				ids = append(ids, id)
			}
		}
		h.Suites = []uint16{ids[rand.IntN(len(ids))]}
	}
}

func psk(v *visit) error {
	h, err := v.connect(identityGood, oneOf(suite.PSK))
	if err != nil {
		return err
	}
	return v.talk(h)
}

func ecdhePSK(v *visit) error {
	h, err := v.connect(identityGood, oneOf(suite.ECDHEPSK))
	if err != nil {
		return err
	}
	return v.talk(h)
}

func slow(v *visit) error {
	h, err := v.connect(identitySlow, nil)
	if err != nil {
		return err
	}
	return v.talk(h)
}

func pskPion(v *visit) error {
	identity := v.name(identityGood)
	c, err := v.connectPion(&piondtls.Config{
		PSK:             func([]byte) ([]byte, error) { return keyOf(identity), nil },
		PSKIdentityHint: []byte(identity),
		CipherSuites:    []piondtls.CipherSuiteID{piondtls.TLS_PSK_WITH_AES_128_GCM_SHA256},
	})
	if err != nil {
		return err
	}
	return v.talk(c)
}

func certificatePion(v *visit) error {
	cfg := &piondtls.Config{RootCAs: v.soak.keys.pool, ServerName: serverName}
	if rand.IntN(2) == 0 {
		cfg.Certificates = []tls.Certificate{v.soak.keys.client}
	}
	c, err := v.connectPion(cfg)
	if err != nil {
		return err
	}
	return v.talk(c)
}

func clientCertificate(v *visit) error {
	h, err := v.connect(identityGood, func(h *hand) {
		oneOf(suite.ECDHEECDSA)(h)
		h.Chain, h.Signer = v.soak.keys.client.Certificate, v.soak.keys.client.PrivateKey.(crypto.Signer)
	})
	if err != nil {
		return err
	}
	return v.talk(h)
}

// resumed connects twice, the second time by the ticket of the first.
func resumed(v *visit) error {
	first, err := v.connect(identityGood, func(h *hand) {
		oneOf([]suite.KeyExchange{suite.ECDHEPSK, suite.ECDHEECDSA}[rand.IntN(2)])(h)
		h.AskTicket = true
	})
	if err != nil {
		return err
	}
	if err := v.talk(first); err != nil {
		return err
	}
	if first.NewTicket == nil {
		return errors.New("no ticket")
	}
	if v.conn, err = v.soak.dial(); err != nil {
		return err
	}
	defer v.conn.Close()
	second, err := v.connect(identityGood, func(h *hand) {
		h.Suites, h.Ticket, h.Master, h.SessionID = first.Suites, first.NewTicket, first.Master, []byte{1}
	})
	if err != nil {
		return err
	}
	if !second.Resuming {
		return errors.New("not resumed")
	}
	return v.talk(second)
}

func pushedTo(v *visit) error {
	h, err := v.connect(identityGood, nil)
	if err != nil {
		return err
	}
	return errors.Join(v.exchange(h, exchange{count: some(), op: opPush}), h.Close())
}

// hasty closes without waiting for the answers. On its way close_notify may
// overtake data.
func hasty(v *visit) error {
	h, err := v.connect(identityGood, nil)
	if err != nil {
		return err
	}
	return errors.Join(v.exchange(h, exchange{count: window, unread: true, loose: true}), h.Close())
}

// vanishing never says that it goes.
func vanishing(v *visit) error {
	h, err := v.connect(identityGood, nil)
	if err != nil {
		return err
	}
	return v.exchange(h, exchange{count: window, unread: true})
}

// back has lost its session and makes another from the same port (RFC 6347
// section 4.2.8).
func back(v *visit) error {
	h, err := v.connect(identityGood, nil)
	if err != nil {
		return err
	}
	if err := v.exchange(h, exchange{count: some()}); err != nil {
		return err
	}
	again, err := v.connect(identityGood, nil)
	if err != nil {
		return err
	}
	v.soak.returned.Add(1)
	return v.talk(again)
}

// attacked must not notice what is sent from its address.
func attacked(v *visit) error {
	h, err := v.connect(identityGood, nil)
	if err != nil {
		return err
	}
	return errors.Join(v.exchange(h, exchange{count: 10 + some(), after: h.attack}), h.Close())
}

func closedByHandler(v *visit) error {
	h, err := v.connect(identityGood, nil)
	if err != nil {
		return err
	}
	switch err := v.exchange(h, exchange{count: some(), op: opBye}); {
	case err == io.EOF:
		return nil
	case err != nil:
		return err
	}
	h.SetReadDeadline(time.Now().Add(patience))
	if _, err := h.Read(make([]byte, 1)); err != io.EOF {
		return fmt.Errorf("want close_notify, got %w", err)
	}
	return nil
}

// closedAnyTime talks until cut closes the session.
func closedAnyTime(v *visit) error {
	h, err := v.connect(identityGood, nil)
	if err != nil {
		return err
	}
	return v.exchange(h, exchange{count: 2000, op: opCut, pause: time.Millisecond, loose: true, closed: true})
}

// cut closes sessions that may be closed, from outside of the handler.
func (s *soak) cut(ctx context.Context) {
	every(ctx, 50*time.Millisecond, func() {
		for session := range s.server.Sessions() {
			if as, ok := session.Value().(*association); ok && as.cut.Load() && rand.IntN(3) == 0 {
				session.Close()
			}
		}
	})
}
