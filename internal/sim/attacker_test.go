package sim

import (
	"bytes"
	"net/netip"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// Attackers. None has an honest device's key, so none may keep one from being
// served, but who changes what is plaintext while a handshake is under way.

// attackers see what passes, or nothing, and send what they like.
type attackers struct {
	w    *world
	seen []*parcel // to the server
	keys int       // attempts with a key of their own
	r    *choices  // of races
}

// attack schedules what attackers do.
func (w *world) attack() {
	w.attackers = &attackers{w: w, r: w.choices("race", 0)}
	do := func(f feature, what func(c *choices)) {
		c := w.choices(f.String()+" attack", 0)
		rate := time.Duration(20+c.below(4000)) * time.Millisecond
		left := 40 + c.below(300)
		if !w.has(f) {
			return
		}
		if plan := w.plan.fleet; plan != nil {
			rate, left = time.Duration(float64(time.Second)/plan.bad), int(plan.bad*fleetLasts.Seconds())
		}
		var next func()
		next = func() {
			if left--; left < 0 {
				return
			}
			until, silent := w.night()
			if silent {
				w.after(until-w.now(), next)
				return
			}
			what(c)
			w.after(rate/2+c.span(0, rate), next)
		}
		w.after(c.span(0, w.drawn.storm/2), next)
	}
	at := w.attackers
	do(junk, at.junk)
	do(spoofedHello, at.spoof)
	do(stolenCookie, at.steal)
	do(replay, at.replay)
	do(alter, at.alter)
	do(halfOpen, at.halfOpen)
	do(insider, at.insider)
	do(tracks, at.track)
	do(wanderer, at.wander)
}

// see is told of each datagram to the server, for those who see all.
func (w *world) see(p *parcel) {
	const most = 400
	if at := w.attackers; at != nil && (w.has(replay) || w.has(alter) || w.has(tracks)) && len(at.seen) < most {
		at.seen = append(at.seen, p)
	}
}

// send sends a datagram that is nobody's, from any address.
func (at *attackers) send(from netip.AddrPort, b []byte) {
	at.harms(from, b)
	p := &parcel{from: from, to: serverAddr, b: bytes.Clone(b), sent: at.w.now()}
	at.w.trace.addr(at.w.now(), "attacker sends as", from, b)
	at.w.after(20*time.Millisecond, func() { at.w.arrive(p) })
}

// pass sends a client's datagram as it is, from its address. If the client has
// sent it too, it is to the server one that the network has repeated.
func (at *attackers) pass(p *parcel) {
	at.harms(p.from, p.b)
	at.w.trace.addr(at.w.now(), "attacker repeats", p.from, p.b)
	at.w.after(20*time.Millisecond, func() { at.w.arrive(p) })
}

// anybody returns an address: a device's, or one that is nobody's.
func (at *attackers) anybody(c *choices) netip.AddrPort {
	if d := at.w.devices[c.below(len(at.w.devices))]; d != nil && d.mapped.IsValid() && c.chance(0.7) {
		return d.mapped
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(c.below(256))}), uint16(1024+c.below(60000)))
}

// junk sends what an attacker who sees nothing has.
func (at *attackers) junk(c *choices) {
	record := func(t wire.ContentType, epoch uint16, seq uint64, payload []byte) []byte {
		return append(wire.AppendRecordHeader(nil, t, wire.VersionDTLS12, epoch, seq, len(payload)), payload...)
	}
	epoch, seq := uint16(c.below(3)), uint64(c.below(100))
	if c.chance(0.2) {
		epoch, seq = oneOf(c, uint16(1), 0xffff), wire.MaxSequence-uint64(c.below(2))
	}
	var b []byte
	switch c.below(9) {
	case 0:
		b = record(wire.ContentAlert, epoch, seq, []byte{byte(1 + c.below(2)), byte(c.below(120))})
	case 1:
		b = record(wire.ContentApplicationData, epoch, seq, bytes.Repeat([]byte{5}, c.below(80)))
	case 2:
		b = record(wire.ContentHandshake, 1, seq, make([]byte, 24+24))
	case 3:
		b = record(wire.ContentHandshake, 0, seq, testpeer.Message(wire.HandshakeType(2+c.below(24)), uint16(8+c.below(6)), make([]byte, c.below(50))))
	case 4:
		b = record(wire.ContentHandshake, 0, seq, append(wire.AppendHandshakeHeader(nil, wire.TypeCertificate, 1<<24-1, uint16(8+c.below(4)), 1<<24-3, 1), 7))
	case 5:
		b = record(wire.ContentChangeCipherSpec, 0, seq, []byte{2})
	case 6:
		b = []byte("GET / HTTP/1.0\r\n\r\n")
	case 7:
		b = bytes.Repeat(record(wire.ContentType(c.below(256)), epoch, seq, nil), 40)
	case 8:
		b = record(wire.ContentApplicationData, 0, seq, []byte("data"))
	}
	at.send(at.anybody(c), b)
}

// spoof sends hellos from any address, some with a cookie that is made up.
func (at *attackers) spoof(c *choices) {
	peer := testpeer.New("device 0", nil, uint64(at.w.now())+1<<60)
	if at.w.choices("version", int(at.w.now())).chance(0.2) { // DTLS 1.3 only
		peer.More = []byte{0, 43, 0, 3, 2, 0xfe, 0xfc}
	}
	if c.chance(0.3) {
		peer.Cookie = bytes.Repeat([]byte{byte(c.below(256))}, 32)
	}
	at.send(at.anybody(c), peer.Hello())
}

// own is an address of the attackers', where they hear what is sent to it.
func (at *attackers) own(c *choices, hear func(*parcel)) netip.AddrPort {
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 0, byte(c.below(8))}), uint16(1024+c.below(60000)))
	at.w.network.hosts[addr] = func(p *parcel) { at.w.after(20*time.Millisecond, func() { hear(p) }) }
	return addr
}

// attempt makes an attempt of the attackers'.
func (at *attackers) attempt(addr netip.AddrPort, identity string, key []byte) *attempt {
	at.keys++
	a := newAttempt(at.w, at.keys, addr)
	a.c = testpeer.New(identity, key, at.w.plan.seed<<32|1<<31|uint64(at.keys))
	at.w.ledger.begin(a)
	return a
}

// steal gets a cookie of its own and uses it for another address, another hello,
// or too late.
func (at *attackers) steal(c *choices) {
	peer := at.attempt(netip.AddrPort{}, "thief", nil).c
	used := false
	var addr netip.AddrPort
	addr = at.own(c, func(p *parcel) {
		if _ = peer.Receive(p.b); peer.Cookie == nil || used {
			return
		}
		used = true
		switch c.below(4) {
		case 0: // another address
			at.send(at.anybody(c), peer.Hello())
		case 1: // another port
			at.send(netip.AddrPortFrom(addr.Addr(), addr.Port()^1), peer.Hello())
		case 2: // another hello
			peer.Random[0] ^= 1
			at.send(addr, peer.Hello())
		case 3: // too late
			at.w.after(c.span(95*time.Second, 3*time.Minute), func() { at.send(addr, peer.Hello()) })
		}
	})
	at.send(addr, peer.Hello())
}

// replay sends what was seen again, from its own address or another.
func (at *attackers) replay(c *choices) {
	if len(at.seen) == 0 {
		return
	}
	p := at.seen[len(at.seen)-1-c.below(min(len(at.seen), 40))]
	if from := at.anybody(c); from != p.from && c.chance(0.2) && at.late(p) {
		at.send(from, p.b)
		return
	}
	at.w.ledger.source(p.from.Addr()).suspect = true // of a Finished that is not this handshake's
	at.pass(p)
}

// alter sends what was seen again, damaged.
func (at *attackers) alter(c *choices) {
	if len(at.seen) == 0 {
		return
	}
	p := at.seen[len(at.seen)-1-c.below(min(len(at.seen), 10))]
	b := bytes.Clone(p.b)
	b[c.below(len(b))] ^= byte(1 + c.below(255))
	at.send(p.from, b)
}

// harms notes whose handshake a datagram in plaintext may spoil: nothing can
// tell it from its client's, and a hello makes the server send the client a
// cookie.
func (at *attackers) harms(from netip.AddrPort, b []byte) {
	all, _ := records(b, at.w.cidLen)
	plain := false
	for _, r := range all {
		plain = plain || r.Epoch == 0 && (r.Type == wire.ContentHandshake || r.Type == wire.ContentAlert)
	}
	for _, d := range at.w.devices {
		if plain && d != nil && d.mapped == from && d.a != nil && d.a.phase < open {
			d.a.damaged = true // which it may be
		}
	}
}

// halfOpen begins handshakes from addresses of its own, and goes no further than
// a key exchange with a key that is not right.
func (at *attackers) halfOpen(c *choices) {
	a := at.attempt(netip.AddrPort{}, "nobody", []byte("no key"))
	further := c.chance(0.3)
	hellos := 0
	var addr netip.AddrPort
	addr = at.own(c, func(p *parcel) {
		had := a.c.HelloDone
		if a.c.Receive(p.b) != nil {
			return
		}
		switch {
		case a.c.Cookie != nil && hellos == 0:
			hellos++
			at.send(addr, a.c.Hello())
		case a.c.HelloDone && !had && further:
			at.send(addr, a.c.Flight())
		}
	})
	a.addr = addr
	at.w.ledger.source(addr.Addr()).suspect = true
	at.send(addr, a.c.Hello())
}

// insider makes sessions with a key of its own, and says there what it must
// not.
func (at *attackers) insider(c *choices) {
	key := []byte("the insider's key")
	at.w.service.mu.Lock()
	at.w.service.keys["insider"] = key
	at.w.service.mu.Unlock()
	a := at.attempt(netip.AddrPort{}, "insider", key)
	var addr netip.AddrPort
	hellos := 0
	addr = at.own(c, func(p *parcel) {
		had, done := a.c.HelloDone, a.c.Complete
		if a.c.Receive(p.b) != nil {
			return
		}
		switch {
		case a.c.Cookie != nil && hellos == 0:
			hellos++
			at.send(addr, a.c.Hello())
		case a.c.HelloDone && !had && c.chance(0.3): // its Finished is not right, in the last byte
			flight := a.c.Records()
			m := bytes.Clone(a.c.FinishedMessage())
			m[len(m)-1] ^= 1
			at.send(addr, bytes.Join(append(flight[:len(flight)-1], a.c.Sealed(wire.ContentHandshake, m)), nil))
		case a.c.HelloDone && !had:
			a.said = true
			at.send(addr, a.c.Flight())
		case a.c.Complete && !done:
			at.betray(c, a)
		}
	})
	a.addr = addr
	at.send(addr, a.c.Hello())
}

// betray says in a session what no honest client does.
func (at *attackers) betray(c *choices, a *attempt) {
	sealed := func(t wire.ContentType, content []byte) {
		b, _ := a.seal(t, content)
		a.send(b)
	}
	for range 1 + c.below(5) {
		switch c.below(7) {
		case 0:
			b, seq := a.seal(wire.ContentHandshake, testpeer.Message(wire.TypeClientHello, 0, a.c.HelloBody()))
			a.strange[seq] = true
			a.send(b)
		case 1:
			sealed(wire.ContentHandshake, a.c.FinishedMessage())
		case 2:
			a.last(wire.ContentChangeCipherSpec, []byte{1})
		case 3:
			t := wire.ContentType(24 + c.below(232))
			if t == wire.ContentCID { // which is nobody's without a connection ID
				t = 24
			}
			a.last(t, bytes.Repeat([]byte{1}, c.below(40)))
		case 4:
			sealed(wire.ContentAlert, []byte{1, byte(1 + c.below(110))})
		case 5:
			a.say("quiet request", "")
		case 6:
			if what := c.below(3); what == 0 {
				a.last(wire.ContentAlert, []byte{9, 9, 9})
			} else {
				a.farewell([][]byte{{1, 0}, {2, 80}}[what-1])
			}
		}
	}
}
