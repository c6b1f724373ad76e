package sim

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// shrink makes a failing plan small: fewer devices, traits and features, a
// shorter storm, as long as the same rule finds the same. It returns what a
// person reads: the command that replays it, and the trace.
func shrink(t *testing.T, p plan, o *outcome, v *violation) string {
	rule, about := v.Rule, explain(o, v)
	end := time.Now().Add(20 * time.Second)
	runs := 0
	fails := func(p plan) (violation, bool) {
		if time.Now().After(end) {
			return violation{}, false
		}
		runs++
		o := run(t, p, false)
		for i := range o.found {
			if f := &o.found[i]; f.Rule == rule && explain(&o, f) == about {
				return *f, true
			}
		}
		return violation{}, false
	}
	best, found := p, *v
	try := func(p plan) bool {
		f, ok := fails(p)
		if ok {
			best, found = p, f
		}
		return ok
	}
	if best.devices == nil {
		for id := range o.devices {
			best.devices = append(best.devices, id)
		}
	}
	if v.Device >= 0 {
		alone := best
		alone.devices = []int{v.Device}
		try(alone)
	}
	for size := len(best.devices) / 2; size > 0; size /= 2 { // leave out parts of them
		for from := 0; from+size <= len(best.devices) && len(best.devices) > 1; {
			less := best
			less.devices = slices.Delete(slices.Clone(best.devices), from, from+size)
			if len(less.devices) == 0 || !try(less) {
				from += size
			}
		}
	}
	without := func(name string) {
		less := best
		less.without = append(slices.Clone(best.without), name)
		try(less)
	}
	for f := range numFeatures {
		if o.drawn.features.has(f) {
			without(f.String())
		}
	}
	for tr := range numTraits {
		if o.drawn.traits.has(tr) {
			without(tr.String())
		}
	}
	for storm := o.drawn.storm / 2; storm > time.Second; storm /= 2 {
		less := best
		less.storm = storm
		if !try(less) {
			break
		}
	}
	last := run(t, best, true)
	var b strings.Builder
	fmt.Fprintf(&b, "%v\nafter %d runs: devices %v, %v, traits", found, runs, best.devices, last.drawn.features)
	for id := range last.devices {
		if last.traits[id] != 0 {
			fmt.Fprintf(&b, " %d: %v;", id, last.traits[id])
		}
	}
	fmt.Fprintf(&b, "\ngo test ./internal/sim -run TestSeed -v %s -sim.trace\n", best.flags())
	b.WriteString(conversation(&last, &found))
	return b.String()
}

// conversation is the trace up to a finding: what is about its device, if it is
// about one. The middle is cut out if it is long.
func conversation(o *outcome, v *violation) string {
	const most = 70
	var lines []string
	for _, line := range o.trace {
		var seconds float64
		if _, err := fmt.Sscan(line, &seconds); err == nil && seconds > v.At.Seconds()+0.000001 {
			break
		}
		if about(o, v, line) {
			lines = append(lines, line)
		}
	}
	if len(lines) > most {
		cut := fmt.Sprintf("             ... %d lines ...", len(lines)-most)
		lines = slices.Concat(lines[:most/5], []string{cut}, lines[len(lines)-most*4/5:])
	}
	return strings.Join(lines, "\n")
}

// about reports whether a line of the trace is about the finding's device, or
// about the world.
func about(o *outcome, v *violation, line string) bool {
	names := func(id int) bool {
		return slices.ContainsFunc(o.been[id], func(name string) bool { return strings.Contains(line, name) })
	}
	if v.Device < 0 || names(v.Device) {
		return true
	}
	for id := range o.been {
		if names(id) {
			return false
		}
	}
	return !strings.Contains(line, "delivers") && !strings.Contains(line, "attacker") && !strings.Contains(line, "server ")
}
