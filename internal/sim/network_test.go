package sim

import (
	"bytes"
	"net/netip"
	"time"
)

// parcel is a datagram under way.
type parcel struct {
	from, to netip.AddrPort
	b        []byte
	sent     time.Duration
	step     int      // of the ledger's, in which the server has sent it
	came     bool     // it has been at the server
	attempt  *attempt // whose client has said it; nil: an attacker's own
	genuine  bool     // nobody has changed it, and it has come from its client
}

// lose is what becomes of a datagram that no server has read. A client without a timer
// has no other.
func (p *parcel) lose() {
	if a := p.attempt; p.genuine && a != nil && a.d != nil && a.d.has(neverRepeats) && a.phase < open {
		a.lost = true
	}
}

// network carries datagrams between the server and the others.
type network struct {
	w      *world
	hosts  map[netip.AddrPort]func(*parcel) // who gets what is sent to an address
	limits map[netip.AddrPort]int           // of which the server's system knows

	freed []freed // ports of the shared NAT

	losses, copies, delays, ports *choices
	parted                        []window // when nothing passes
	bursts                        []window
}

type window struct{ from, to time.Duration }

// freed is a port that somebody had.
type freed struct {
	addr netip.AddrPort
	at   time.Duration
}

// free gives a port of the shared NAT back.
func (n *network) free(addr netip.AddrPort) { n.freed = append(n.freed, freed{addr, n.w.now()}) }

// port is one of the shared NAT, which somebody else may have had.
func (n *network) port() netip.AddrPort {
	const pause = 3 * time.Second
	w := n.w
	if w.has(reusesPorts) && len(n.freed) > 0 && w.now()-n.freed[0].at > pause && n.ports.chance(0.7) {
		addr := n.freed[0].addr
		n.freed = n.freed[1:]
		delete(n.limits, addr)
		return addr
	}
	w.ports++
	return netip.AddrPortFrom(netip.MustParseAddr("203.0.113.1"), uint16(20000+w.ports))
}

func (n *network) within(all []window) bool {
	now := n.w.now()
	for _, w := range all {
		if now >= w.from && now < w.to {
			return true
		}
	}
	return false
}

func newNetwork(w *world) *network {
	n := &network{
		w: w, hosts: make(map[netip.AddrPort]func(*parcel)), limits: make(map[netip.AddrPort]int),
		losses: w.choices("loss", 0), copies: w.choices("copies", 0), delays: w.choices("delays", 0),
		ports: w.choices("ports", 0),
	}
	windows := func(f feature, count int, longest time.Duration) (all []window) {
		c := w.choices(f.String(), 0)
		for range count {
			from := c.span(0, w.drawn.storm)
			to := min(from+c.span(100*time.Millisecond, longest), w.drawn.storm)
			if w.has(f) {
				all = append(all, window{from, to})
			}
		}
		return all
	}
	n.parted = windows(partitions, 2, 20*time.Second)
	n.bursts = windows(bursts, 10, 800*time.Millisecond)
	return n
}

// systemLimit is the longest datagram to an address as the server's system
// knows it.
func (n *network) systemLimit(remote netip.AddrPort) int { return n.limits[remote] }

// lossRate is how much the network loses in the storm.
const lossRate = 0.2

// passes says after what times copies of a datagram arrive.
func (n *network) passes(delay time.Duration, up bool) (arrivals []time.Duration) {
	w := n.w
	if !w.stormy() {
		return []time.Duration{delay}
	}
	copies := 1
	if w.has(duplicates) && n.copies.chance(0.1) {
		copies = 2
	}
	if n.within(n.parted) || n.within(n.bursts) {
		return nil
	}
	for range copies {
		if w.has(loss) && (!w.has(oneWay) || up) && n.losses.chance(lossRate) {
			continue
		}
		late := delay
		if w.has(jitter) {
			late += n.delays.span(0, 50*time.Millisecond+delay/2)
		}
		if w.has(reorders) && n.delays.chance(0.2) {
			late += n.delays.span(0, 50*time.Millisecond+4*delay)
		}
		arrivals = append(arrivals, late)
	}
	return arrivals
}

// toServer carries a datagram of a device.
func (n *network) toServer(d *device, a *attempt, b []byte) { n.fromDevice(d, a, d.outside(), b) }

// fromDevice carries a datagram of a device from one of its addresses.
func (n *network) fromDevice(d *device, a *attempt, from netip.AddrPort, b []byte) {
	w := n.w
	p := &parcel{from: from, to: serverAddr, b: bytes.Clone(b), sent: w.now(), attempt: a, genuine: true}
	w.trace.parcel(w.now(), "sends", d.name(), p.b)
	if d.limit > 0 && len(b) > d.limit {
		return
	}
	w.see(p)
	if w.attackers.race(d, p) {
		return
	}
	for _, delay := range n.passes(d.up, true) {
		w.after(delay, func() { w.arrive(p) })
	}
}

// fromServer carries a datagram of the server's.
func (n *network) fromServer(out *packet) {
	host := n.hosts[out.remote]
	if host == nil {
		return
	}
	host(&parcel{from: serverAddr, to: out.remote, b: out.b, sent: n.w.now(), step: n.w.ledger.steps})
}

// toDevice carries a datagram of the server's to a device.
func (n *network) toDevice(d *device, p *parcel) {
	if d.limit > 0 && len(p.b) > d.limit {
		n.w.note("lost on the way to %s: %d bytes", d.name(), len(p.b))
		return
	}
	for _, delay := range n.passes(d.down, false) {
		n.w.after(delay, func() {
			if d.hears(p.to) { // its NAT still knows it
				d.receive(p)
			}
		})
	}
}
