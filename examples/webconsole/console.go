package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/console"
)

// maxPeers is how many peers the page offers to send to.
const maxPeers = 100

// webConsole is a DTLS server and, for its page, its EventHandler.
type webConsole struct {
	server   *dtlsserver.Server
	hub      hub
	token    string
	knownKey bool // everybody knows the key
}

// newConsole returns a webConsole that does not listen yet.
func newConsole(psk dtlsserver.PSKFunc, knownKey bool) *webConsole {
	c := &webConsole{token: rand.Text(), knownKey: knownKey}
	c.server = &dtlsserver.Server{PSK: psk, PSKIdentityHint: "DTLS web console", Handler: c}
	return c
}

// listen starts the DTLS server, or moves it to another address.
func (c *webConsole) listen(address string) error {
	if c.knownKey && !isLoopback(address) {
		return errors.New("with the key of the examples, which everybody knows, the server listens on loopback addresses only; -psk sets another")
	}
	return c.server.Listen("udp", address)
}

// Error sends the event to the page.
func (c *webConsole) Error(e dtlsserver.Event) { c.tell("error", e) }

// Warning sends the event to the page.
func (c *webConsole) Warning(e dtlsserver.Event) { c.tell("warning", e) }

// Info sends the event to the page.
func (c *webConsole) Info(e dtlsserver.Event) { c.tell("info", e) }

func (c *webConsole) tell(level string, e dtlsserver.Event) {
	c.hub.putEvent(event{
		Time:  e.Time.UnixMilli(),
		Level: level,
		Text:  console.Printable(e.String()),
	})
}

// DatagramReceived sends the message to the page, and acknowledges. An answer that cannot be
// sent is lost, as any datagram may be, and the server reports it.
func (c *webConsole) DatagramReceived(s *dtlsserver.Session, cipherText, plainText []byte) {
	c.hub.putMessage(message{
		Time:   time.Now().UnixMilli(),
		Peer:   s.RemoteAddr(),
		Record: record(excerptOf(cipherText)),
		Text:   text(excerptOf(plainText)),
	})
	_, _ = fmt.Fprintf(s, "to %v: ACK", s.RemoteAddr())
}

// send sends text to a peer, and to the page.
func (c *webConsole) send(peer, line string) error {
	addr, err := netip.ParseAddrPort(peer)
	if err != nil {
		return errors.New("choose a peer")
	}
	session, ok := c.server.SessionByAddr(addr, netip.AddrPort{})
	if !ok {
		return fmt.Errorf("%v has no session", addr)
	}
	if _, err := session.Write([]byte(line)); err != nil {
		return err
	}
	c.hub.putMessage(message{
		Time: time.Now().UnixMilli(),
		Peer: addr,
		Sent: true,
		Text: text(excerptOf([]byte(line))),
	})
	return nil
}

// sampleEach samples the figures each time that a period is over.
func (c *webConsole) sampleEach(ctx context.Context, period time.Duration) {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		c.sample()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// sample sends the page the server's statistics and some of its peers.
func (c *webConsole) sample() {
	var peers []netip.AddrPort
	for s := range c.server.Sessions() {
		if peers = append(peers, s.RemoteAddr()); len(peers) == maxPeers {
			break
		}
	}
	slices.SortFunc(peers, netip.AddrPort.Compare)
	c.hub.putSample(sample{Time: time.Now().UnixMilli(), Stats: c.server.Stats()}, peers)
}

// address is where the server listens, or empty.
func (c *webConsole) address() string {
	if addr := c.server.Addr(); addr.IsValid() {
		return addr.String()
	}
	return ""
}
