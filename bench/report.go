//go:build linux

package main

import (
	"fmt"
	"io"
	"strings"
)

// print prints the result in a line.
func (r *result) print(w io.Writer) {
	if r.err != nil {
		fmt.Fprintf(w, "%-11s %-13s %v\n", r.mode, r.server, r.err)
		return
	}
	s := r.median()
	var all []string
	for _, s := range r.samples {
		all = append(all, fmt.Sprintf("%.2f", micros(s)))
	}
	wall := s.wall.Seconds()
	fmt.Fprintf(w, "%-11s %-13s %7.2f us (%s) user %2.0f %% system %2.0f %%  core %3.0f %%  %7.0f/s  %s\n", r.mode, r.server,
		micros(s), strings.Join(all, " "), 100*s.usage.user.Seconds()/wall, 100*s.usage.system.Seconds()/wall,
		100*s.usage.cpu.Seconds()/wall, float64(s.operations)/wall, strings.Join(r.notes, "; "))
}

func micros(s sample) float64 { return float64(s.perOperation().Nanoseconds()) / 1000 }

func (b *bench) report(w io.Writer) {}
