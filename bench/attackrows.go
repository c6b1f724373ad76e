//go:build linux

package main

// The attacks. Each is what somebody can do who has no more than is said.

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// attack is a row of the table.
type attack struct {
	name string
	has  string // what the attacker has
	what string // it sends
	// server is what the row needs of its server.
	server attackedOptions
	// cheap: its datagrams are no steps of a handshake, and each is judged by
	// what it costs.
	cheap bool
	// fragmented: there are honest handshakes with hellos in fragments too.
	fragmented bool
	// silent is how many honest sessions have been silent for as long.
	silent    int
	silentFor time.Duration
	// mostWarnings bounds what is logged of the attack, and longestLine each
	// line. Zero: nobody looks.
	mostWarnings, longestLine int
	// prepare makes ready and returns what makes the attack's traffic until
	// the attacker is stopped.
	prepare func(*attacker) (traffic func(), err error)
}

// attacks are in the order of the table. What needs most time is last.
var attacks = []*attack{
	{name: "hellos", has: "forged addresses", what: "20,000 hellos a second without cookie, each from another address",
		cheap: true, prepare: func(a *attacker) (func(), error) { return a.spoof(hellos(20_000)) }},
	{name: "junk", has: "forged addresses", what: "20,000 datagrams a second of 100 bytes that are no DTLS, each from another address",
		cheap: true, prepare: func(a *attacker) (func(), error) { return a.spoof(20_000, make([]byte, 100)) }},
	{name: "junkcids", has: "forged addresses", what: "100,000 records a second of 100 bytes with connection IDs of nobody, each from another address",
		cheap: true, prepare: func(a *attacker) (func(), error) { return a.spoof(100_000, junkRecordCID(nil)) }},
	{name: "seencid", has: "forged addresses, a connection ID", what: "20,000 records a second that do not open, of 100 bytes, with the connection ID of a session, each from another address",
		cheap: true, prepare: (*attacker).seenCID},
	{name: "frag16k", has: "an address", what: "fragments of one byte of a ClientHello that declare 16,384 and 16,383 in turn",
		cheap: true, prepare: func(a *attacker) (func(), error) {
			return a.fragments(wire.TypeClientHello, 16<<10, 1200, 2000, true)
		}},
	{name: "frag256k", has: "an address", what: "the same of a Certificate, with MaxClientCertificateBytes of 256 KiB, declaring 262,144 and 262,143",
		server: attackedOptions{MaxClientCertificateBytes: 256 << 10}, cheap: true, prepare: func(a *attacker) (func(), error) {
			return a.fragments(wire.TypeCertificate, 256<<10, 1200, 2000, true)
		}},
	{name: "frag1byte", has: "an address", what: "datagrams of 15,990 bytes full of fragments of one byte of one ClientHello",
		cheap: true, prepare: func(a *attacker) (func(), error) {
			return a.fragments(wire.TypeClientHello, 16<<10, 15_990, 2000, false)
		}},
	{name: "chain16", has: "two addresses", what: "16 handshakes a second with a chain of nine P-521 namesakes in a cycle",
		prepare: func(a *attacker) (func(), error) { return a.chains(16, 2, cycle()) }},
	{name: "chain64", has: "two addresses", what: "the same, 64 a second",
		prepare: func(a *attacker) (func(), error) { return a.chains(64, 2, cycle()) }},
	{name: "certmem", has: "four addresses", what: "400 handshakes a second that stop after a certificate of 16 KB with 2,250 URIs",
		prepare: func(a *attacker) (func(), error) { return a.stopAfterCertificate(400, 4, manyNames(2250)) }},
	{name: "memory", has: "six addresses", what: "2,400 datagrams in 30 s that begin hellos of 16,384 bytes",
		fragmented: true, prepare: (*attacker).partialHellos},
	{name: "sni20", has: "an address", what: "1,000 hellos a second for a server name of 1 KB, where there are 20 Certificates",
		server: attackedOptions{Certificates: 20}, prepare: func(a *attacker) (func(), error) { return a.names(1000, 1<<10) }},
	{name: "sni100", has: "an address", what: "50 hellos a second for a server name of 8 KB, where there are 100 Certificates",
		server: attackedOptions{Certificates: 100}, prepare: func(a *attacker) (func(), error) { return a.names(50, 8<<10) }},
	{name: "locals", has: "an address, a key", what: "junk, after 8,000 sessions from one port to as many addresses of the server",
		server: attackedOptions{Wildcard: true}, cheap: true, prepare: func(a *attacker) (func(), error) { return a.locals(8000, 5000) }},
	{name: "alerts", has: "two addresses, a key", what: "255 alert codes a second that end handshakes, sealed and in plaintext",
		server: attackedOptions{Log: true}, mostWarnings: 20, longestLine: 2 << 10, prepare: (*attacker).alerts},
	{name: "longcert", has: "an address", what: "20 handshakes a second with a subject of 15 KB, where any certificate is taken",
		server: attackedOptions{Log: true, AnyClient: true}, mostWarnings: 20, longestLine: 2 << 10,
		prepare: func(a *attacker) (func(), error) { return a.chains(20, 1, longName(15_000)) }},
	{name: "longhint", has: "an address", what: "20 handshakes a second with a chain whose authority has a subject of 7 KB",
		server: attackedOptions{Log: true}, mostWarnings: 20, longestLine: 2 << 10,
		prepare: func(a *attacker) (func(), error) { return a.chains(20, 1, longHint(7_000)) }},
	{name: "sessions", has: "an address, a key", what: "50 handshakes a second, where MaxSessions is 100 and 80 honest sessions, of a key and an address each, have been silent for a minute",
		server: attackedOptions{MaxSessions: 100}, silent: 80, silentFor: 61 * time.Second, prepare: (*attacker).sessions},
}

func attackNames(all []*attack) (names []string) {
	for _, a := range all {
		names = append(names, a.name)
	}
	return names
}

// chooseAttacks returns the attacks with the names, or all for an empty one.
func chooseAttacks(names string) (chosen []*attack, err error) {
	if names == "" {
		return attacks, nil
	}
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(attacks, func(a *attack) bool { return a.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no attack %q", name)
		}
		chosen = append(chosen, attacks[i])
	}
	return chosen, nil
}

// attacker makes the traffic of an attack or its control.
type attacker struct {
	server      netip.AddrPort
	stop        chan struct{}
	sent, bytes atomic.Int64 // datagrams
	seed        atomic.Uint64

	mu      sync.Mutex // guards all following
	stopped bool
	conns   []*net.UDPConn // the last ones
}

func newAttacker(server netip.AddrPort) *attacker {
	a := &attacker{server: server, stop: make(chan struct{})}
	a.seed.Store(1 << 32)
	return a
}

// end stops the traffic, which then returns, and with the sockets what waits for
// them.
func (a *attacker) end() {
	a.mu.Lock()
	if !a.stopped {
		a.stopped = true
		close(a.stop)
	}
	for _, c := range a.conns {
		c.Close()
	}
	a.mu.Unlock()
}

// maxConns bounds the attacker's sockets. Those of the server's handshakes that
// it lets go have given way to newer ones long before.
const maxConns = 4000

// own has a socket closed in the end.
func (a *attacker) own(c *net.UDPConn) *net.UDPConn {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conns = append(a.conns, c); a.stopped {
		c.Close()
	} else if len(a.conns) > maxConns {
		a.conns[0].Close()
		a.conns = a.conns[1:]
	}
	return c
}

// attackerAddr is the attacker's i-th address.
func attackerAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{127, 66, 0, byte(1 + i)}) }

// dial makes a client of the attacker's.
func (a *attacker) dial(from int, c *testpeer.Client) (*peer, error) {
	p, err := dial(attackerAddr(from), a.server, c)
	if err != nil {
		return nil, err
	}
	a.own(p.conn)
	return p, nil
}

// send sends a datagram that counts.
func (a *attacker) send(conn *net.UDPConn, b []byte) {
	conn.Write(b)
	a.count(1, len(b))
}

func (a *attacker) count(datagrams, each int) {
	a.sent.Add(int64(datagrams))
	a.bytes.Add(int64(datagrams * each))
}

// every calls f so many times a second until the attacker is stopped. What
// could not be sent in time is left out after a while, as by a sender that is
// as fast as that.
func (a *attacker) every(rate float64, f func(i int)) {
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	most := max(1, int(rate/20))
	begun, left := time.Now(), 0
	for i := 0; ; {
		select {
		case <-a.stop:
			return
		case <-ticker.C:
		}
		due := int(time.Since(begun).Seconds()*rate) - left - i
		if due > most {
			left += due - most
			due = most
		}
		for range due {
			f(i)
			i++
		}
	}
}

// control sends as much as an attack did, in records that nobody can open, of
// an address that nobody knows.
func (a *attacker) control(rate float64, size int) (func(), error) {
	conn, err := net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(attackerAddr(99), 0)), net.UDPAddrFromAddrPort(a.server))
	if err != nil {
		return nil, err
	}
	a.own(conn)
	size = max(size-wire.RecordHeaderLen, explicitLen+tagLen)
	junk := append(wire.AppendRecordHeader(nil, wire.ContentApplicationData, wire.VersionDTLS12, 1, 1, size), make([]byte, size)...)
	return func() { a.every(rate, func(int) { a.send(conn, junk) }) }, nil
}

// spoof sends a datagram, each time from another address.
func (a *attacker) spoof(rate int, datagram []byte) (func(), error) {
	s, err := newSocket(a.server)
	if err != nil {
		return nil, err
	}
	next := firstSource
	return func() {
		defer s.close()
		perTick := float64(rate) / 1000
		a.every(1000, func(i int) {
			n := int(perTick*float64(i+1)) - int(perTick*float64(i))
			for range n {
				s.send(next, datagram)
				next++
			}
			s.flush()
			s.drain()
			a.count(n, len(datagram))
		})
	}, nil
}

// hellos returns a rate and a hello without cookie.
func hellos(rate int) (int, []byte) {
	return rate, appendPlain(nil, wire.ContentHandshake, 0, appendHello(nil, pskSuite, new([wire.RandomLen]byte), nil, 0))
}

// junkRecordCID is a record of 100 bytes that nobody has sealed, with a connection ID.
// Nil: one that the server has not made.
func junkRecordCID(cid []byte) []byte {
	if cid == nil {
		cid = make([]byte, 10)
	}
	payload := make([]byte, 100-wire.RecordHeaderLen-len(cid))
	return append(wire.AppendRecordHeaderCID(nil, wire.VersionDTLS12, 1, 1<<20, cid, len(payload)), payload...)
}

// seenCID sends records with the connection ID of a session of the attacker's own,
// which stands for one that it has seen.
func (a *attacker) seenCID() (func(), error) {
	c := mallory(a.seed.Add(1))
	c.CID = []byte{}
	p, err := a.dial(0, c)
	if err != nil {
		return nil, err
	}
	if err := p.handshake(time.Now().Add(honestWait)); err != nil {
		return nil, err
	}
	return a.spoof(20_000, junkRecordCID(p.ServerCID))
}

// partialHello is a hello that declares so many bytes, without its end.
func partialHello(c *testpeer.Client, declared int) []byte {
	body := c.HelloBody()
	h := wire.AppendHandshakeHeader(nil, wire.TypeClientHello, declared, c.MessageSeq, 0, len(body)-2)
	return c.Plain(wire.ContentHandshake, append(h, body[:len(body)-2]...))
}

// fragments sends datagrams of that size full of fragments of one byte of a
// message that is so long, or by a byte less when they alternate.
func (a *attacker) fragments(t wire.HandshakeType, length, size int, rate float64, alternate bool) (func(), error) {
	p, err := a.dial(0, stranger(a.seed.Add(1), nil))
	if err != nil {
		return nil, err
	}
	until := time.Now().Add(honestWait)
	seq := uint16(1)
	if t == wire.TypeClientHello {
		if err := p.getCookie(until); err != nil {
			return nil, err
		}
		p.conn.Write(partialHello(p.Client, length))
	} else {
		if err := p.hello(until); err != nil {
			return nil, err
		}
		seq = p.MessageSeq
	}
	var content []byte
	for i := 0; wire.RecordHeaderLen+len(content)+wire.HandshakeHeaderLen+1 <= size; i++ {
		declared := length
		if alternate {
			declared -= i & 1
		}
		content = append(wire.AppendHandshakeHeader(content, t, declared, seq, 1, 1), 0)
	}
	datagram := p.Plain(wire.ContentHandshake, content)
	return func() { a.every(rate, func(int) { a.send(p.conn, datagram) }) }, nil
}

// begin begins handshakes, at a rate and from so many addresses. What each then
// does is done by its own goroutine.
func (a *attacker) begin(rate float64, addresses int, client func(seed uint64) *testpeer.Client, then func(*peer)) func() {
	return func() {
		var running sync.WaitGroup
		defer running.Wait()
		a.every(rate, func(i int) {
			p, err := a.dial(i%addresses, client(a.seed.Add(1)))
			if err != nil {
				return
			}
			running.Go(func() { then(p) })
		})
	}
}

// step sends datagrams that count, once, and waits for what is to come of them.
func (a *attacker) step(p *peer, done func() bool, datagrams ...[]byte) bool {
	for _, b := range datagrams {
		a.count(1, len(b))
	}
	return p.exchange(time.Now().Add(honestWait), datagrams, done) == nil
}

// openHello does what hello does, with datagrams that count.
func (a *attacker) openHello(p *peer) bool {
	return a.step(p, func() bool { return p.Cookie != nil }, p.Hello()) &&
		a.step(p, func() bool { return p.HelloDone }, p.Hello())
}

// chains makes handshakes with a certificate.
func (a *attacker) chains(rate float64, addresses int, own *identity) (func(), error) {
	return a.begin(rate, addresses, func(seed uint64) *testpeer.Client { return stranger(seed, own) }, func(p *peer) {
		if a.openHello(p) {
			for _, b := range p.Records() {
				a.send(p.conn, b)
			}
		}
	}), nil
}

// stopAfterCertificate makes handshakes that send a certificate and nothing more.
func (a *attacker) stopAfterCertificate(rate float64, addresses int, own *identity) (func(), error) {
	body := wire.AppendCertificate(nil, own.chain)
	return a.begin(rate, addresses, func(seed uint64) *testpeer.Client { return stranger(seed, nil) }, func(p *peer) {
		if a.openHello(p) {
			a.send(p.conn, p.Plain(wire.ContentHandshake, testpeer.Message(wire.TypeCertificate, p.MessageSeq, body)))
		}
	}), nil
}

// partialHellos begins 200 hellos from each of six addresses, and goes on so
// that there are as many.
func (a *attacker) partialHellos() (func(), error) {
	const addresses, each = 6, 200
	partial := func(p *peer) {
		if a.step(p, func() bool { return p.Cookie != nil }, p.Hello()) {
			a.send(p.conn, partialHello(p.Client, 16<<10))
		}
	}
	for i := range addresses * each {
		p, err := a.dial(i%addresses, stranger(a.seed.Add(1), nil))
		if err != nil {
			return nil, err
		}
		partial(p)
	}
	a.sent.Store(0)
	a.bytes.Store(0)
	return a.begin(addresses*each/30., addresses, func(seed uint64) *testpeer.Client { return stranger(seed, nil) }, partial), nil
}

// names sends hellos for a long server name.
func (a *attacker) names(rate float64, length int) (func(), error) {
	name := strings.Repeat("a.", length/2) + "a"
	return a.begin(rate, 1, func(seed uint64) *testpeer.Client {
		c := stranger(seed, nil)
		c.ServerName = name
		return c
	}, func(p *peer) { a.openHello(p) }), nil
}

var errNoSession = errors.New("the attacker got no session")

// locals opens so many sessions from one port, each to another address of the
// server, and sends junk from there.
func (a *attacker) locals(sessions int, rate float64) (func(), error) {
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(attackerAddr(0), 0)))
	if err != nil {
		return nil, err
	}
	a.own(conn)
	at := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 2, byte(i >> 8), byte(i)}), a.server.Port())
	}
	psk := newPSK()
	var room [2048]byte
	for i := range sessions {
		c := newClient(firstSource, pskSuite, psk, time.Now())
		for tries := 0; c.state != stateOpen; {
			if _, err := conn.WriteToUDPAddrPort(c.hs.flight, at(i)); err != nil {
				return nil, err
			}
			for send := false; !send && c.state != stateOpen; {
				conn.SetReadDeadline(time.Now().Add(retransmission))
				n, from, err := conn.ReadFromUDPAddrPort(room[:])
				if err != nil {
					if tries++; tries == 3 {
						return nil, errNoSession
					}
					break
				}
				if from != at(i) {
					continue
				}
				if send, err = c.handshakeDatagram(room[:n], time.Now()); err != nil {
					return nil, err
				}
			}
		}
	}
	junk := make([]byte, 100)
	to := at(0x4000 + sessions) // the address of none of them
	return func() {
		a.every(rate, func(int) {
			conn.WriteToUDPAddrPort(junk, to)
			a.count(1, len(junk))
		})
	}, nil
}

// mallory is a client with the attacker's key.
func mallory(seed uint64) *testpeer.Client {
	return testpeer.New(malloryIdentity, []byte(malloryKey), seed)
}

// alerts ends handshakes with one fatal alert code after the other: those of one
// address sealed, in the place of Finished, those of another in plaintext.
func (a *attacker) alerts() (func(), error) {
	var made atomic.Int64
	sealed := attackerAddr(0)
	return a.begin(2*255, 2, mallory, func(p *peer) {
		alert := []byte{2, byte(1 + made.Add(1)/2%255)} // fatal; 0 is close_notify
		switch {
		case !a.openHello(p):
		case p.conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr() == sealed:
			r := p.Records()
			a.send(p.conn, slices.Concat(r[0], r[1]))
			time.Sleep(20 * time.Millisecond) // the server looks up the key, and then opens
			a.send(p.conn, p.Sealed(wire.ContentAlert, alert))
		default:
			a.send(p.conn, p.Plain(wire.ContentAlert, alert))
		}
	}), nil
}

// sessions opens sessions and keeps them.
func (a *attacker) sessions() (func(), error) {
	return a.begin(50, 1, mallory, func(p *peer) {
		if a.openHello(p) {
			a.step(p, func() bool { return p.Complete }, p.Flight())
		}
	}), nil
}
