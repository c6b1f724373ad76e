//go:build linux

package main

// Ratios of paired samples and how sure they are.

import (
	"math"
	"slices"
)

// interval is a ratio with the limits between which it lies, in 95 of 100 runs.
type interval struct{ ratio, low, high float64 }

// ratioInterval is the interval of the ratio whose logarithms were observed
// independently: their mean, by Student's distribution. Of a single observation
// the limits are infinite.
func ratioInterval(logs []float64) interval {
	n := float64(len(logs))
	if n == 0 {
		return interval{math.NaN(), 0, math.Inf(1)}
	}
	sum := 0.0
	for _, x := range logs {
		sum += x
	}
	mean := sum / n
	if n == 1 {
		return interval{math.Exp(mean), 0, math.Inf(1)}
	}
	squares := 0.0
	for _, x := range logs {
		squares += (x - mean) * (x - mean)
	}
	half := student(len(logs)-1) * math.Sqrt(squares/(n-1)/n)
	return interval{math.Exp(mean), math.Exp(mean - half), math.Exp(mean + half)}
}

// student is the 97.5th percentile of Student's distribution with so many
// degrees of freedom.
func student(freedom int) float64 {
	exact := [...]float64{12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228}
	if freedom <= len(exact) {
		return exact[freedom-1]
	}
	// Abramowitz and Stegun 26.7.5.
	const z = 1.959964
	v := float64(freedom)
	return z + (z*z*z+z)/(4*v) + (5*math.Pow(z, 5)+16*z*z*z+3*z)/(96*v*v)
}

// median is the middle of values, or the mean of the two in the middle, and NaN
// of none.
func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	if n == 0 {
		return math.NaN()
	}
	return (s[(n-1)/2] + s[n/2]) / 2
}

// metric is what is compared of two servers.
type metric struct {
	name string
	of   func(sample) (value float64, ok bool)
	// floor is added to both sides: what is far below it is nothing, and twice
	// nothing no regression.
	floor float64
	// limit is the ratio that a row must not lie wholly above.
	limit float64
}

// atMost is how much dearer something may become. What does not depend on the
// machine's speed can be told more exactly.
const (
	atMost            = 1.03
	atMostAllocations = 1.01
)

func perOperation(n int64, s sample) (float64, bool) {
	return float64(n) / float64(s.operations), n >= 0 && s.operations > 0
}

// metrics of modes that take samples.
var metrics = []metric{
	{name: "CPU us", limit: atMost, of: func(s sample) (float64, bool) { return s.micros(), s.micros() > 0 }},
	{name: "allocations", floor: 0.1, limit: atMostAllocations, of: func(s sample) (float64, bool) { return perOperation(s.counters.mallocs, s) }},
	{name: "system calls", floor: 0.01, limit: atMost, of: func(s sample) (float64, bool) { return perOperation(s.counters.calls, s) }},
	{name: "ms a handshake", limit: atMost, of: func(s sample) (float64, bool) { return s.latency.Seconds() * 1000, s.latency > 0 }},
}

// verdict is what a row comes to.
type verdict string

const (
	pass    verdict = "pass"
	unclear verdict = "unclear" // it may be dearer than is allowed, or not
	fail    verdict = "FAIL"
)

// comparison is a row: a metric of both servers.
type comparison struct {
	what          string
	limit         float64
	before, after []float64 // all samples
	rounds        []float64 // the logarithm of a round's ratio
	err           error
}

// add adds a round, of samples in pairs. Its ratio is the median of theirs.
func (c *comparison) add(m metric, before, after []sample) {
	var logs []float64
	for i := range min(len(before), len(after)) {
		b, ok1 := m.of(before[i])
		a, ok2 := m.of(after[i])
		if !ok1 || !ok2 {
			continue
		}
		c.before, c.after = append(c.before, b), append(c.after, a)
		if b+m.floor > 0 && a+m.floor > 0 {
			logs = append(logs, math.Log((a+m.floor)/(b+m.floor)))
		}
	}
	if len(logs) > 0 {
		c.rounds = append(c.rounds, median(logs))
	}
}

// verdict fails a row whose interval lies wholly above its limit.
func (c *comparison) verdict() verdict {
	i := ratioInterval(c.rounds)
	switch {
	case c.err != nil || i.low > c.limit:
		return fail
	case i.high > c.limit:
		return unclear
	}
	return pass
}
