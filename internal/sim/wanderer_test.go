package sim

import (
	"bytes"
	"net/netip"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// Attackers of connection IDs: those who see all and are elsewhere, and one with a key
// who is everywhere.

// isCID reports whether a datagram begins with a record with a connection ID.
func isCID(b []byte) bool { return len(b) > 0 && wire.ContentType(b[0]) == wire.ContentCID }

// late reports whether a copy of a datagram cannot win a race: in the calm, nobody may,
// since whoever does so again and again keeps a device from its answers.
func (at *attackers) late(p *parcel) bool { return p.came || at.w.stormy() || !isCID(p.b) }

// race may send a copy of a device's datagram from elsewhere, before or behind it, and
// have the datagram itself lost.
func (at *attackers) race(d *device, p *parcel) (lost bool) {
	if at == nil || !at.w.has(races) || !isCID(p.b) || !at.w.stormy() || !at.r.chance(0.2) {
		return false
	}
	from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 1, byte(at.r.below(2))}), uint16(5000+at.r.below(2)))
	at.from(from, p.b, oneOf(at.r, d.up/2, d.up/2, d.up+10*time.Millisecond))
	if delete(at.w.network.hosts, from); at.r.chance(0.4) {
		at.w.network.hosts[from] = func(p *parcel) { at.forward(d, p) }
	}
	return at.r.chance(0.2)
}

// forward has a device get what was sent to an attacker, so that its answers can be
// copied too (RFC 9853 section 8).
func (at *attackers) forward(d *device, p *parcel) {
	at.w.after(d.down, func() {
		if d.mapped.IsValid() {
			copied := *p
			copied.to = d.mapped
			d.receive(&copied)
		}
	})
}

// from sends bytes from an address, which arrive after a while.
func (at *attackers) from(addr netip.AddrPort, b []byte, after time.Duration) {
	p := &parcel{from: addr, to: serverAddr, b: bytes.Clone(b), sent: at.w.now()}
	at.w.trace.addr(at.w.now(), "attacker sends as", addr, b)
	at.w.after(after, func() { at.w.arrive(p) })
}

// track sends what can be made of the records with connection IDs that were seen.
func (at *attackers) track(c *choices) {
	var seen []*parcel
	for i := len(at.seen) - 1; i >= 0 && len(seen) < 20; i-- {
		if p := at.seen[i]; isCID(p.b) && at.late(p) {
			seen = append(seen, p)
		}
	}
	if len(seen) == 0 || c.chance(0.1) {
		b := append([]byte{byte(wire.ContentCID)}, bytes.Repeat([]byte{byte(c.below(256)), byte(c.below(256)), 1}, 5+c.below(30))...)
		at.send(at.anybody(c), b)
		return
	}
	p, q := seen[c.below(len(seen))], seen[c.below(len(seen))]
	r, _, ok := wire.ParseRecord(p.b, at.w.cidLen)
	if !ok {
		return
	}
	from := p.from
	if c.chance(0.5) {
		from = at.anybody(c)
	}
	seq := r.Seq + uint64(c.below(100))
	forged := bytes.Repeat([]byte{byte(c.below(256))}, 1+c.below(80))
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	switch c.below(9) {
	case 0: // forged
		at.send(from, join(wire.AppendRecordHeaderCID(nil, r.Version, 1, seq, r.CID(), len(forged)), forged))
	case 1: // without its connection ID
		at.send(from, join(wire.AppendRecordHeader(nil, wire.ContentApplicationData, r.Version, 1, r.Seq, len(r.Payload)), r.Payload))
	case 2: // in plaintext
		at.send(from, join(wire.AppendRecordHeaderCID(nil, r.Version, 0, seq, r.CID(), len(forged)), forged))
	case 3: // with another one
		cid := bytes.Clone(r.CID())
		cid[c.below(len(cid))] ^= byte(1 + c.below(255))
		at.send(from, join(wire.AppendRecordHeaderCID(nil, r.Version, 1, r.Seq, cid, len(r.Payload)), r.Payload))
	case 4: // with another sequence number
		at.send(from, join(wire.AppendRecordHeaderCID(nil, r.Version, 1, seq+1, r.CID(), len(r.Payload)), r.Payload))
	case 5: // again
		at.send(from, p.b)
	case 6, 7: // and another's, or the same one's
		at.send(from, join(p.b, q.b))
	case 8: // behind a record in plaintext
		at.send(from, join(wire.AppendRecordHeader(nil, wire.ContentAlert, r.Version, 0, seq, 2), []byte{1, 90}, p.b))
	}
}

// wandering is an insider with a connection ID, who writes from several addresses, and
// says what it must not about its paths.
type wandering struct {
	at      *attackers
	c       *choices
	a       *attempt
	addrs   [3]netip.AddrPort
	cookies [][8]byte // of the challenges that it got
	steps   int       // that are left
}

// wander makes a wanderer.
func (at *attackers) wander(c *choices) {
	key := []byte("the wanderer's key")
	at.w.service.mu.Lock()
	at.w.service.keys["wanderer"] = key
	at.w.service.mu.Unlock()
	wr := &wandering{at: at, c: c, a: at.attempt(netip.AddrPort{}, "wanderer", key), steps: 4 + c.below(20)}
	a := wr.a
	a.c.CID = make([]byte, oneOf(c, 0, 0, 1, 8, 20, 255))
	for i := range a.c.CID {
		a.c.CID[i] = byte(1 + c.below(255))
	}
	a.c.CheckPaths = c.chance(0.8)
	at.w.ledger.offers(a.c.CID)
	hellos := 0
	for i := range wr.addrs {
		wr.addrs[i] = at.own(c, func(p *parcel) {
			had, done := a.c.HelloDone, a.c.Complete
			if a.c.Receive(p.b) != nil {
				return
			}
			switch {
			case a.c.Cookie != nil && hellos == 0:
				hellos++
				at.send(wr.addrs[0], a.c.Hello())
			case a.c.HelloDone && !had:
				a.said = true
				a.send(a.c.Flight())
			case a.c.Complete && !done && a.c.ServerCID != nil:
				wr.step()
			}
			for ; len(a.c.Paths) > 0; a.c.Paths = a.c.Paths[1:] {
				if m := a.c.Paths[0]; m.Type == wire.PathChallenge {
					wr.challenged(p.to, m.Cookie)
				}
			}
		})
	}
	a.addr = wr.addrs[0]
	at.send(a.addr, a.c.Hello())
}

// send sends a record of the wanderer's.
func (wr *wandering) send(from netip.AddrPort, b []byte) {
	wr.at.pass(&parcel{from: from, to: serverAddr, b: b, attempt: wr.a, genuine: true})
}

func (wr *wandering) any() netip.AddrPort { return wr.addrs[wr.c.below(len(wr.addrs))] }

// ofPath seals a message about a path.
func (wr *wandering) ofPath(t wire.PathMessageType, cookie [8]byte) []byte {
	m := wire.PathMessage{Type: t, Cookie: cookie}
	b, _ := wr.a.seal(wire.ContentReturnRoutability, m.Append(nil))
	return b
}

// challenged takes a challenge, that was sent to an address.
func (wr *wandering) challenged(to netip.AddrPort, cookie [8]byte) {
	c := wr.c
	wr.cookies = append(wr.cookies, cookie)
	answer := wire.PathResponse
	if to == wr.addrs[0] && c.chance(0.3) {
		answer = wire.PathDrop
	}
	switch c.below(6) {
	case 0, 1: // as it should
		wr.send(to, wr.ofPath(answer, cookie))
	case 2: // from anywhere
		wr.send(wr.any(), wr.ofPath(answer, cookie))
	case 3: // late
		wr.at.w.after(c.span(0, 5*time.Second), func() { wr.send(to, wr.ofPath(answer, cookie)) })
	case 4: // almost
		cookie[c.below(8)] ^= 1
		wr.send(to, wr.ofPath(answer, cookie))
	}
}

// step does something, and goes on.
func (wr *wandering) step() {
	if wr.steps--; wr.steps < 0 {
		return
	}
	c, a := wr.c, wr.a
	what := c.below(13)
	if what > 7 && !a.checksPaths() { // which would end the session
		what = 0
	}
	switch what {
	case 0, 1:
		wr.send(wr.any(), a.message("quiet request", ""))
	case 2, 3:
		wr.send(wr.any(), a.message("request", "please"))
	case 4: // out of order
		b := a.message("quiet request", "")
		wr.at.w.after(c.span(0, 4*time.Second), func() { wr.send(wr.any(), b) })
	case 5: // several in one datagram
		wr.send(wr.any(), append(a.message("quiet request", ""), a.message("request", "")...))
	case 6: // without its connection ID
		cid := a.c.ServerCID
		a.c.ServerCID = nil
		wr.send(wr.any(), a.c.Sealed(wire.ContentApplicationData, []byte("request 0 0 0 without")))
		a.c.ServerCID = cid
	case 7:
		if wr.steps < 3 {
			b, seq := a.seal(wire.ContentAlert, []byte{1, 0})
			a.ends[seq] = true
			wr.send(wr.any(), b)
			return
		}
	case 8, 9: // of a challenge that is over, or was never
		var cookie [8]byte
		if n := len(wr.cookies); n > 0 && c.chance(0.8) {
			cookie = wr.cookies[c.below(n)]
		}
		wr.send(wr.any(), wr.ofPath(oneOf(c, wire.PathResponse, wire.PathResponse, wire.PathDrop), cookie))
	case 10, 11:
		from := wr.any()
		for i := range 1 + c.below(12) {
			wr.send(from, wr.ofPath(wire.PathChallenge, [8]byte{byte(i), byte(wr.steps), byte(a.n)}))
		}
	case 12:
		b, _ := a.seal(wire.ContentReturnRoutability, oneOf(c, []byte{7, 1, 2, 3, 4, 5, 6, 7, 8}, []byte{1, 2, 3}, nil))
		wr.send(wr.any(), b)
	}
	wr.at.w.after(oneOf(c, 0, c.span(0, time.Second), c.span(0, 4*time.Second)), wr.step)
}
