//go:build linux

package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// result is what a mode has shown of a server.
type result struct {
	server, mode string
	err          error
	samples      []sample
	idle         *idleResult  // of mode idle
	mixed        *mixedResult // of mode mixed
	perSession   float64      // KiB resident, of mode echo with many sessions
	notes        []string
}

func (r *result) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

// sample is one measurement.
type sample struct {
	operations int
	wall       time.Duration
	usage      usage
	counters   counters
	latency    time.Duration // median of its handshakes, of mode mixed in samples
}

// micros is the CPU time of an operation in microseconds.
func (s sample) micros() float64 {
	if s.operations == 0 {
		return 0
	}
	return float64(s.usage.cpu.Nanoseconds()) / 1000 / float64(s.operations)
}

// utilisation is the share of a core that the server used.
func (s sample) utilisation() float64 { return s.share(s.usage.cpu) }

// share is the share of the sample's time that d is.
func (s sample) share(d time.Duration) float64 {
	if s.wall == 0 {
		return 0
	}
	return d.Seconds() / s.wall.Seconds()
}

// sorted are the samples by their CPU time an operation.
func (r *result) sorted() []sample {
	return slices.SortedFunc(slices.Values(r.samples), func(a, b sample) int { return cmp.Compare(a.micros(), b.micros()) })
}

// median is the sample whose CPU time an operation is the median: the upper
// one of two.
func (r *result) median() sample {
	if s := r.sorted(); len(s) > 0 {
		return s[len(s)/2]
	}
	return sample{}
}

// idleResult is what mode idle has shown.
type idleResult struct {
	sessions     int
	fresh, later float64 // KiB resident a session, at once and when idle
	goroutines   int     // of the whole process
	cpu          float64 // the share of a core that was used while idle
	closing      sample
}
