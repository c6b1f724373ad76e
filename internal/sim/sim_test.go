package sim

import (
	"flag"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

var (
	flagSeed    = flag.String("sim.seed", "", "run this seed only, and shrink it if it fails")
	flagTrace   = flag.Bool("sim.trace", false, "with -sim.seed: show what happens")
	flagWithout = flag.String("sim.without", "", "with -sim.seed: traits and features to leave out")
	flagDevices = flag.String("sim.devices", "", "with -sim.seed: the devices that there are")
	flagStorm   = flag.Duration("sim.storm", 0, "with -sim.seed: when the network heals")
	flagRule    = flag.String("sim.rule", "", "with -sim.seed: shrink what this rule finds")

	flagFrom  = flag.Uint64("sim.from", 1, "the first seed")
	flagSeeds = flag.Uint64("sim.seeds", 240, "how many seeds are run")
	flagTime  = flag.Duration("sim.time", 0, "for how long seeds are run; zero: as many as -sim.seeds says")
	flagStep  = flag.Uint64("sim.step", 0, "how far apart seeds are, in a process of several")
	flagTwice = flag.Uint64("sim.twice", 20, "how many seeds TestOneSeedOneTrace runs twice")
	flagList  = flag.String("sim.list", "", "the seeds, in a process of several")
	flagKnown = flag.Bool("sim.known", false, "shrink what is known too, once for each fault")
)

// planOf is the plan that the flags ask for.
func planOf(t *testing.T) plan {
	seed, err := strconv.ParseUint(*flagSeed, 0, 64)
	if err != nil {
		t.Fatal(err)
	}
	p := plan{seed: seed, storm: *flagStorm}
	if *flagWithout != "" {
		p.without = strings.Split(*flagWithout, ",")
	}
	for _, s := range strings.FieldsFunc(*flagDevices, func(r rune) bool { return r == ',' }) {
		id, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		p.devices = append(p.devices, id)
	}
	return p
}

// TestSeed runs the seed of -sim.seed.
func TestSeed(t *testing.T) {
	if *flagSeed == "" {
		t.Skip("no -sim.seed")
	}
	p := planOf(t)
	start := time.Now()
	o := run(t, p, *flagTrace)
	for _, line := range o.trace {
		fmt.Println(line)
	}
	t.Logf("%v of virtual time in %v, %d datagrams, hash %016x", o.lasted, time.Since(start), o.datagrams, o.hash)
	for i := range o.found {
		v := &o.found[i]
		about := explain(&o, v)
		if about != "" {
			t.Logf("%v: known: %s", v, about)
		} else {
			t.Errorf("%v", v)
		}
	}
	if *flagRule != "" {
		for i := range o.found {
			if o.found[i].Rule == *flagRule {
				t.Log(shrink(t, p, &o, &o.found[i]))
				break
			}
		}
	}
}
