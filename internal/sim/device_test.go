package sim

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// device is one client for as long as the world lasts. It makes attempts to
// connect, and sends requests over the session.
type device struct {
	w      *world
	id     int
	r      *choices // what it decides while it lives
	traits traits

	suites   []uint16
	key      []byte
	identity string
	version  uint16 // its client_version, which may be above DTLS 1.2; zero: that
	tiny     int    // bytes of its fragments, if they are tiny
	bad      int    // what is wrong with its certificate
	begins   time.Duration
	first    time.Duration // its first retransmission timeout
	giveUp   time.Duration // how long a handshake may take
	pause    time.Duration // until it tries again
	interval time.Duration // between requests
	up, down time.Duration // delays of its path
	limit    int           // bytes that its path carries; zero: any
	mtu      int           // of the datagrams that it sends
	cidLen   int           // of its connection IDs

	host     netip.AddrPort // its own address
	nat      bool           // it is behind the shared one
	been     []string       // its addresses, as the server has seen them
	mapped   netip.AddrPort // by which the server sees it; zero: not
	lastUsed time.Duration
	left     netip.AddrPort // where it was before it roamed, and still hears what comes
	leftAt   time.Duration
	changed  time.Duration // when it had another address last

	attempts int
	a        *attempt // nil: none
	old      *attempt // whose session is used until the attempt has one
	restart  *event
	gone     bool
	ticket   []byte
	master   []byte // of the ticket's session

	refused   uint64        // hellos, whosesoever, when it began to expect an answer
	since     time.Duration // when it began to expect an answer
	answered  time.Duration // when it got the last
	connected time.Duration // and the first; zero: not yet
	due       *event
	judged    bool          // it was not served: nothing more is expected
	spoiled   time.Duration // when an attempt ended that could not succeed
	hoarded   time.Duration // when a session of its gave way to others of its identity
	excuses   int
	homed     bool // it has lost its memory in the calm, once
	keepsPort bool // for the next attempt
	loseIn    phase
}

func (d *device) has(t trait) bool { return d.traits.has(t) }

func (d *device) name() string { return fmt.Sprintf("device %d", d.id) }

// honest reports whether it must be served.
func (d *device) honest() bool { return d.traits&dishonest == 0 && !d.gone }

// sharesIdentity reports whether its identity is also that of other devices: all have
// one certificate, or none, and then those of one source count as one's.
func (d *device) sharesIdentity() bool { return !suite.ByID(d.suites[0]).KeyExchange.WithPSK() }

func newDevice(w *world, id int) *device {
	c := w.choices("device", id)
	d := &device{w: w, id: id, r: w.choices("life", id)}
	for t := range connectionID {
		if c.chance(0.5) && w.drawn.traits.has(t) {
			d.traits |= 1 << t
		}
	}
	d.begins = c.span(0, w.drawn.storm/2)
	if w.has(fleet) {
		d.begins = c.span(0, 5*time.Second)
	}
	if w.has(night) {
		d.begins = c.span(0, 10*time.Second)
	}
	d.suites = [][]uint16{
		{suite.PSKWithAES128GCM}, {suite.PSKWithAES128CCM8}, {suite.PSKWithChaCha20}, {suite.PSKWithAES256GCM},
		{suite.ECDHEPSKWithAES128GCM}, {suite.ECDHEPSKWithChaCha20}, {suite.ECDHEPSKWithAES128CCM},
		{suite.ECDHEECDSAWithAES128GCM}, {suite.ECDHEECDSAWithAES128CCM8}, {suite.ECDHEECDSAWithChaCha20},
	}[c.below(10)]
	d.first = oneOf(c, 250*time.Millisecond, time.Second, time.Second, 2*time.Second)
	d.giveUp = c.span(15*time.Second, 60*time.Second)
	d.pause = c.span(100*time.Millisecond, 5*time.Second)
	d.interval = c.span(time.Second, 12*time.Second)
	d.up, d.down = c.span(time.Millisecond, 100*time.Millisecond), c.span(time.Millisecond, 100*time.Millisecond)
	slow := c.span(500*time.Millisecond, 5*time.Second)
	limit := oneOf(c, 300, 548, 700)
	if w.has(fleet) { // all are alike
		slow = w.choices("fleet", 0).span(10*time.Millisecond, 5*time.Second)
		d.traits |= w.drawn.traits & traitsOf(slowPath)
	}
	d.bad = oneOf(c, 0, 0, 1, 2, 3, 4)
	d.tiny = oneOf(c, 2, 3, 10, 30)
	d.version = oneOf[uint16](w.choices("version", id), 0, 0, 0, 0xfefc, 0xfe00)
	c2 := w.choices("connection ID", id)
	for t := connectionID; t < numTraits; t++ {
		if c2.chance(0.75) && w.drawn.traits.has(t) {
			d.traits |= 1 << t
		}
	}
	d.cidLen = oneOf(c2, 0, 0, 0, 1, 8, 8, 20, 255)
	d.settle(slow, limit)
	d.host = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(id >> 8), byte(id)}), 5000)
	if c.chance(0.5) && w.has(ipv6) {
		d.host = netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, 2, byte(id >> 8), byte(id), 15: 7}), 5000)
	}
	d.nat = (c.chance(0.7) || w.has(fleet)) && w.has(sharedNAT)
	if w.plan.fleet != nil {
		w.plan.fleet.place(d)
	}
	return d
}

// settle makes the device's traits fit together.
func (d *device) settle(slow time.Duration, limit int) {
	w, kx := d.w, suite.ByID(d.suites[0]).KeyExchange
	drop := func(list ...trait) { d.traits &^= traitsOf(list...) }
	if kx.WithPSK() {
		drop(badCertificate, wrongUsage, distrusts)
	} else {
		drop(wrongKey, unknownIdentity)
	}
	if !w.has(asksClients) {
		drop(badCertificate, wrongUsage)
	}
	if d.has(badCertificate) {
		drop(wrongUsage)
	}
	if !kx.ECDHE() || d.has(noEMS) || w.has(noTickets) {
		drop(tickets)
	}
	if !d.has(tickets) {
		drop(dataBehindFinished)
	}
	if !d.has(narrowPath) {
		drop(tellingPath)
	}
	if d.has(splitHello) {
		drop(splitHelloInOne)
	}
	d.mtu = 1200
	if d.has(narrowPath) {
		d.limit, d.mtu = limit, limit
	}
	if d.has(slowPath) {
		d.up, d.down = slow, slow
		d.giveUp = 60*time.Second + 6*slow
	}
	if !d.has(connectionID) {
		drop(checksPaths, roams)
	}
	if !d.has(checksPaths) {
		drop(asksPaths)
	}
	if d.has(narrowPath) { // which would lose its Finished
		d.cidLen = min(d.cidLen, 20)
	}
	if d.has(neverRepeats) {
		drop(fixedTimer, recordAnEvent) // nothing would make it take the second record of our last datagram
	}
	if w.has(timer) { // those who need several repetitions need the default, or more time than they have
		drop(narrowPath, tellingPath, firstRecordOnly)
		d.limit, d.mtu = 0, 1200
	}
	d.identity = fmt.Sprintf("device %d", d.id)
	d.key = fmt.Appendf(nil, "the key of device %d", d.id)
	if !d.has(unknownIdentity) {
		w.service.keys[d.identity] = d.key
	}
	if d.has(wrongKey) {
		d.key = []byte("not the key")
	}
}

// outside returns the address that the server sees, for a datagram that leaves.
func (d *device) outside() netip.AddrPort {
	w := d.w
	now := w.now()
	if d.mapped.IsValid() && d.nat && w.has(forgets) && now-d.lastUsed > 40*time.Second {
		d.unmap()
	}
	d.lastUsed = now
	if !d.mapped.IsValid() {
		d.mapped = d.host
		if d.nat {
			d.mapped = w.network.port()
		}
		d.been = append(d.been, d.mapped.String()+" ", d.mapped.String()+":")
		w.network.hosts[d.mapped] = func(p *parcel) { w.network.toDevice(d, p) }
		if d.has(tellingPath) {
			w.network.limits[d.mapped] = d.limit
		}
	}
	return d.mapped
}

// unmap has the next datagram leave by another port.
func (d *device) unmap() {
	if d.mapped.IsValid() {
		delete(d.w.network.hosts, d.mapped)
		if d.nat {
			d.w.network.free(d.mapped)
		}
		d.mapped, d.changed = netip.AddrPort{}, d.w.now()
	}
}

// begin begins the device's life.
func (d *device) begin() {
	d.connect()
	if d.has(restarts) {
		d.restart = d.w.after(d.r.span(time.Second, d.w.drawn.storm), d.forget)
	}
	if d.has(vanishes) {
		d.w.after(d.r.span(time.Second, d.w.drawn.storm), func() {
			d.note("vanishes")
			d.drop()
			d.gone = true
			d.restart.cancel()
		})
	}
	if d.has(rebinds) {
		d.w.after(d.r.span(time.Second, d.w.drawn.storm), d.rebind)
	}
	if d.has(roams) {
		c := d.w.choices("roams", d.id)
		d.w.after(c.span(time.Second, d.w.drawn.storm), func() { d.roam(c) })
	}
}

// roam is the device's going to another network. For a while, it still hears what is
// sent to its old address.
func (d *device) roam(c *choices) {
	w := d.w
	switch inSession := d.a != nil && d.a.phase == open && d.old == nil && d.a.c.ServerCID != nil; {
	case d.gone || w.now() > w.drawn.storm+calm*2/3:
		return
	case w.stormy() || inSession && !w.has(movesNever):
		d.note("goes to another network")
		d.leave()
	}
	w.after(c.span(2*time.Second, 30*time.Second), func() { d.roam(c) })
}

// leave leaves the device's address.
func (d *device) leave() {
	old := d.mapped
	d.unmap()
	if d.nat || !old.IsValid() {
		return
	}
	d.left, d.leftAt = old, d.w.now()
	d.w.network.hosts[old] = func(p *parcel) {
		if p.b[4] > 0 { // of a session: flights of a handshake that it has left would mix with those of another
			d.w.network.toDevice(d, p)
		}
	}
	a := d.host.Addr().As16()
	a[13] ^= 8 // of an IPv4 address, the second byte
	d.host = netip.AddrPortFrom(netip.AddrFrom16(a).Unmap(), d.host.Port()+1)
}

// lingers is for how long a device hears what comes to the address that it has left.
const lingers = 10 * time.Second

// hears reports whether what is sent to an address reaches the device.
func (d *device) hears(at netip.AddrPort) bool {
	return at == d.mapped || at == d.left && d.w.now()-d.leftAt < lingers
}

// rebind is the NAT's giving it another port.
func (d *device) rebind() {
	if !d.w.stormy() {
		return
	}
	d.note("its NAT gives it another port")
	d.unmap()
	if !d.nat {
		d.host = netip.AddrPortFrom(d.host.Addr(), d.host.Port()+1)
	}
	d.w.after(d.r.span(5*time.Second, d.w.drawn.storm), d.rebind)
}

// forget is the loss of all memory.
func (d *device) forget() {
	if d.gone {
		return
	}
	d.note("restarts")
	d.drop()
	d.ticket, d.master = nil, nil
	d.keepsPort = d.r.chance(0.7)
	d.connect()
	if d.w.stormy() {
		d.restart = d.w.after(d.r.span(time.Second, d.w.drawn.storm), d.forget)
	} else if d.honest() {
		d.expect(d.promptly())
	}
}

// drop ends what there is, without a word.
func (d *device) drop() {
	for _, a := range []*attempt{d.a, d.old} {
		if a != nil {
			a.finish()
		}
	}
	d.a, d.old = nil, nil
}

// connect begins an attempt.
func (d *device) connect() {
	if d.gone {
		return
	}
	if until, silent := d.w.night(); silent {
		d.w.after(until-d.w.now()+d.r.span(0, 5*time.Second), func() {
			if d.a == nil || d.a == d.old { // it may have been told to connect more than once
				d.connect()
			}
		})
		return
	}
	keeps := d.keepsPort
	d.keepsPort = false
	if !keeps && !d.has(fixedPort) && d.attempts > 0 && d.old == nil {
		d.unmap()
		if !d.nat {
			d.host = netip.AddrPortFrom(d.host.Addr(), d.host.Port()+1)
		}
	}
	d.attempts++
	d.note("begins attempt %d", d.attempts)
	d.outside()
	a := newAttempt(d.w, d.attempts, d.mapped)
	a.d = d
	c := testpeer.New(d.identity, d.key, d.w.plan.seed<<32|uint64(d.id)<<16|uint64(d.attempts))
	a.c = c
	c.Suites = d.suites
	if d.has(manySuites) {
		c.Suites = nil
		for i := range uint16(66 - len(d.suites)) {
			c.Suites = append(c.Suites, 0x5600+i)
		}
		c.Suites = append(c.Suites, d.suites...)
	}
	c.Version = d.version
	c.NoEMS = d.has(noEMS)
	if d.has(connectionID) {
		c.CID = make([]byte, d.cidLen)
		for i, r := 0, d.w.choices("CID of attempt", d.id<<16|d.attempts); i < d.cidLen; i++ {
			c.CID[i] = byte(r.below(256))
		}
		c.CheckPaths = d.has(checksPaths)
	}
	if d.has(onlyP256) {
		c.Groups, c.Strict = []uint16{suite.GroupP256}, true
	}
	if d.has(tickets) {
		c.AskTicket = true
		if d.ticket != nil {
			c.Ticket, c.Master = d.ticket, d.master
			a.offered = d.master
		}
	}
	if !suite.ByID(d.suites[0]).KeyExchange.WithPSK() {
		d.certify(c)
	}
	d.a = a
	d.w.ledger.begin(a)
	if d.honest() && !d.w.stormy() && !d.judged && d.answered >= d.since {
		d.expect(d.promptly())
	}
	a.begin()
}

// certify gives the client its certificate.
func (d *device) certify(c *testpeer.Client) {
	cert := fixtures.client
	if d.has(badCertificate) {
		switch d.bad {
		case 0:
			return // none
		case 1:
			c.WrongVerify = true // somebody else's
		default:
			cert = []tls.Certificate{fixtures.expired, fixtures.other, fixtures.forServers}[d.bad-2]
		}
	}
	if d.has(wrongUsage) {
		cert = fixtures.encipherment
	}
	c.Chain, c.Signer = cert.Certificate, cert.PrivateKey.(crypto.Signer)
}

// later tries again after a while.
func (d *device) later(after time.Duration) {
	d.w.after(after, func() {
		if d.a == nil {
			d.connect()
		}
	})
}

// receive takes a datagram.
func (d *device) receive(p *parcel) {
	d.w.trace.parcel(d.w.now(), "gets", d.name(), p.b)
	if d.gone || d.a == nil {
		return
	}
	var records []wire.Record
	for b := p.b; len(b) > 0; {
		r, rest, ok := wire.ParseRecord(b, len(d.a.c.CID))
		if !ok || r.CID() != nil && !d.owns(r.CID()) {
			break
		}
		b = rest
		records = append(records, r)
	}
	if d.has(firstRecordOnly) && len(records) > 0 {
		records = records[:1]
	}
	a := d.a
	for _, r := range records {
		a.inbox = append(a.inbox, inboxRecord{r, p})
	}
	a.read()
}

// owns reports whether a connection ID is the device's.
func (d *device) owns(cid []byte) bool {
	return bytes.Equal(cid, d.a.c.CID) || d.old != nil && bytes.Equal(cid, d.old.c.CID)
}

// calm is for how long after the storm devices begin anew.
const calm = 90 * time.Second

// expect has the device's next answer come within a time.
func (d *device) expect(within time.Duration) {
	w := d.w
	d.due.cancel()
	if w.now() > w.drawn.storm+calm { // enough
		return
	}
	d.since = w.now() + 1
	d.refused = w.server.Stats().Dropped.Refused
	d.due = w.after(within, d.judge)
	w.judged = max(w.judged, w.now()+within+time.Second)
	d.note("expects an answer within %v", within)
}

// judge says whether the device was served in time.
func (d *device) judge() {
	if d.answered >= d.since || d.gone {
		return
	}
	spoiled := d.spoiled > d.since || d.a != nil && d.a.excused() || d.has(neverRepeats) && d.w.server.Stats().Dropped.Refused > d.refused
	if spoiled && d.excuses < 3 {
		d.excuses++
		since := d.since
		d.expect(d.patiently())
		d.since = since
		return
	}
	d.judged = true
	if !spoiled && !d.w.crowded() && d.hoarded < d.since { // attackers may go on and on
		d.w.ledger.unserved(d)
	}
}

// heal is when the network gets well.
func (d *device) heal() {
	d.restart.cancel()
	if d.honest() {
		d.expect(d.patiently())
	}
	for _, a := range []*attempt{d.a, d.old} {
		if a != nil && a.phase == open { // it may be asleep
			a.timer.cancel()
			a.timer = d.w.after(d.r.span(0, d.interval), a.ask)
		}
	}
}

// forgiven reports whether the server need not see the device's certificate.
func (d *device) forgiven() bool {
	return d.bad == 0 && d.w.server.ClientAuth == tls.VerifyClientCertIfGiven
}

// promptly is how long it may take a new attempt to be answered on a path that
// loses nothing: two round trips for the cookie and the flights, one for the
// request and one for what has crossed, what hooks take, three of its own timeouts, and ten
// seconds for the server's.
// If sessions age, one that is resumed may be too old a moment later. A client that
// takes a record an event has those of flights before to take first.
func (d *device) promptly() time.Duration {
	within := d.attemptTime()
	if until := d.w.drawn.storm + shutdown + time.Second; d.w.has(shutsDown) && d.w.now() < until { // its timer has grown meanwhile
		within += until - d.w.now() + d.giveUp + d.pause
	}
	if d.has(recordAnEvent) {
		within += 2*d.roundTrip() + 10*time.Second
	}
	if d.w.has(aging) && d.has(tickets) {
		within += d.pause + d.attemptTime()
	}
	return within
}

func (d *device) attemptTime() time.Duration {
	return 4*d.roundTrip() + 3*d.w.hookDelay() + 7*d.first + d.patience() + max(10*d.w.firstTimeout(), 10*time.Second) + d.w.queueing(d)
}

// patiently is how long it may take from any state: to notice that a session
// is dead, to give up what is under way, to try again.
func (d *device) patiently() time.Duration {
	return 7*d.patience() + d.interval + d.giveUp + d.pause + d.promptly()
}

func (d *device) roundTrip() time.Duration { return d.up + d.down }

// patience is how long it waits for an answer to its first request.
func (d *device) patience() time.Duration { return 2*time.Second + d.roundTrip() }

func (d *device) note(format string, args ...any) {
	if d.w.trace.on {
		d.w.note("%s: %s", d.name(), fmt.Sprintf(format, args...))
	}
}

// random returns bytes that do not repeat.
func (d *device) random(n int) []byte {
	b := make([]byte, 0, n+8)
	for len(b) < n {
		b = binary.BigEndian.AppendUint64(b, d.r.r.Uint64())
	}
	return b[:n]
}
