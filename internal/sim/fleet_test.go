package sim

import (
	"flag"
	"slices"
	"testing"
	"time"
)

var (
	flagFleet  = flag.Int("sim.fleet", 0, "run a fleet of so many honest clients that come at once")
	flagRTT    = flag.Duration("sim.rtt", 4*time.Second, "with -sim.fleet: their round trip")
	flagWithin = flag.Duration("sim.within", 5*time.Second, "with -sim.fleet: within what time they come")
	flagNAT    = flag.Bool("sim.nat", false, "with -sim.fleet: they are behind one address")
	flagBad    = flag.Float64("sim.bad", 0, "with -sim.fleet: handshakes that attackers with addresses begin, and leave, a second")
)

// fleetPlan is a fleet in place of what a seed draws. The server has the limits
// of its defaults.
type fleetPlan struct {
	devices     int
	rtt, within time.Duration
	nat         bool
	bad         float64 // a second
}

// fleetLasts is how long a fleet is watched.
const fleetLasts = 5 * time.Minute

func (f *fleetPlan) draw() drawn {
	d := drawn{features: 1<<fleet | 1<<sharedNAT, traits: traitsOf(slowPath), devices: f.devices, storm: fleetLasts}
	if f.bad > 0 {
		d.features |= 1 << halfOpen
	}
	return d
}

// place makes a device one of the fleet: it repeats itself after 1, 2, 4 s, gives
// up after a minute and begins anew.
func (f *fleetPlan) place(d *device) {
	d.up, d.down = f.rtt/2, f.rtt/2
	d.first, d.giveUp, d.pause = time.Second, time.Minute, time.Second
	d.interval = time.Minute
	d.begins = f.within * time.Duration(d.id) / time.Duration(f.devices)
	d.nat = f.nat
}

// TestFleet tells how many of the fleet of -sim.fleet are connected, and when.
func TestFleet(t *testing.T) {
	if *flagFleet == 0 {
		t.Skip("no -sim.fleet")
	}
	f := &fleetPlan{*flagFleet, *flagRTT, *flagWithin, *flagNAT, *flagBad}
	o := run(t, plan{seed: 1, fleet: f}, false)
	slices.Sort(o.served)
	by := func(at time.Duration) int { i, _ := slices.BinarySearch(o.served, at+1); return i }
	t.Logf("of %d connected after 30 s %d, 1 min %d, 2 min %d, 5 min %d; %d handshakes gave way, of %d", f.devices,
		by(30*time.Second), by(time.Minute), by(2*time.Minute), by(fleetLasts), o.stats.Dropped.Evicted, o.stats.HandshakesStarted)
}
