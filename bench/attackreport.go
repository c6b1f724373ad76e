//go:build linux

package main

// What is printed of attacks.

import (
	"fmt"
	"io"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"time"
)

// moved are the counters of dropped things that have moved in a phase.
func (p *phase) moved() string {
	var moved []string
	before, after := reflect.ValueOf(p.before.Dropped), reflect.ValueOf(p.after.Dropped)
	for i := range after.NumField() {
		if d := after.Field(i).Uint() - before.Field(i).Uint(); d > 0 {
			moved = append(moved, fmt.Sprintf("%s %d", after.Type().Field(i).Name, d))
		}
	}
	if len(moved) == 0 {
		return "nothing"
	}
	return strings.Join(moved, ", ")
}

// micros and millis are how times are written.
func micros(d time.Duration) string { return fmt.Sprintf("%.0f", d.Seconds()*1e6) }
func millis(d time.Duration) string { return fmt.Sprintf("%.1f", d.Seconds()*1e3) }

func micros1(d time.Duration) string { return fmt.Sprintf("%.1f", d.Seconds()*1e6) }

// orNone is for a median that is zero when there was nothing.
func orNone(d time.Duration, format func(time.Duration) string) string {
	if d == 0 {
		return "none"
	}
	return format(d)
}

const attackHeader = "attack | the attacker has | and sends | a second | echo, us: quiet, control, attack (worst) | lost | " +
	"handshakes, ms: quiet, attack | CPU us a datagram: control, attack | memory, of at most | counted as dropped | verdict"

func (r *attackRow) cells() string {
	begin := fmt.Sprintf("%s | %s | %s", r.name, r.has, r.what)
	if r.err != nil {
		return begin + " | | | | | | | | " + r.verdict()
	}
	a := r.attacked
	var handshakes []string
	for _, k := range r.kinds() {
		text := fmt.Sprintf("%s %s, %s", k.name, orNone(middle(r.quiet.handshakes[k.name].took), millis),
			orNone(middle(a.handshakes[k.name].took), millis))
		if n := a.handshakes[k.name].failed; n > 0 {
			text += fmt.Sprintf(" (%d failed)", n)
		}
		handshakes = append(handshakes, text)
	}
	bytes, most := r.grown()
	mega := func(n int64) float64 { return float64(n) / (1 << 20) }
	return fmt.Sprintf("%s | %.0f datagrams, %.1f Mbit | %s, %s, %s (%s) | %d of %d | %s | %s, %s | %.1f MiB, %.0f | %s | %s", begin,
		a.sent/a.wall.Seconds(), a.bytes*8/a.wall.Seconds()/1e6,
		orNone(middle(r.quiet.rtts), micros), orNone(middle(r.control.rtts), micros), orNone(middle(a.rtts), micros), micros(worst(a.rtts)),
		a.lost(), a.echoes, strings.Join(handshakes, "; "),
		orNone(r.control.perDatagram(r.quiet), micros1), orNone(a.perDatagram(r.quiet), micros1),
		mega(bytes), mega(most), a.moved(), r.verdict())
}

// printAttacks prints the table, and below it what it was made of.
func printAttacks(w io.Writer, rows []*attackRow) {
	fmt.Fprintf(w, "%s, %d cores, %s, %s, loopback.\n\n", processor(), cores(), runtime.Version(), kernel())
	fmt.Fprintf(w, "An attack passes when the median of honest echoes is at most %.1f times that of the control and none is lost, the median "+
		"of\nhandshakes of each kind at most %.1f times that of quiet or %v and none fails, the CPU time of a datagram that is no step of a\n"+
		"handshake at most %v, and the memory that the server holds more than before at most that of the column memory: %d MiB,\n"+
		"and %d KiB a handshake and %d KiB a session more. One that fails by echoes alone is made again, %d times in all. The control is as\n"+
		"many datagrams of the same size, of a stranger's epoch 1.\n",
		mostEchoRatio, mostHandshakeRatio, mostHandshake, mostCPU, mostHandshakeMemory>>20, mostOfHandshake>>10, mostOfSession>>10, mostTries)
	var cells []string
	for _, r := range rows {
		cells = append(cells, r.cells())
	}
	table(w, "Attacks", attackHeader, cells)
	fmt.Fprintln(w)
	for _, r := range rows {
		for _, p := range []struct {
			name string
			*phase
		}{{"quiet", r.quiet}, {"control", r.control}, {"attack", r.attacked}} {
			if p.phase != nil {
				p.print(w, r, p.name)
			}
		}
	}
}

// print prints a phase in raw lines.
func (p *phase) print(w io.Writer, r *attackRow, name string) {
	fmt.Fprintf(w, "    %s %s: %v, sent %.0f datagrams %.0f bytes, received %.0f, server CPU %v, heap %d, resident %d, sessions %d, handshakes %d, warnings %d, dropped %s\n",
		r.name, name, p.wall.Round(time.Millisecond), p.sent, p.bytes, p.received, p.cpu.Round(time.Microsecond), p.memory.heap,
		p.memory.resident, p.after.Sessions, p.after.Handshakes, p.after.Log.Warnings-p.before.Log.Warnings, p.moved())
	fmt.Fprintf(w, "    %s %s: %d echoes, %d lost, us: %s\n", r.name, name, p.echoes, p.lost(), spread(p.rtts))
	for _, k := range r.kinds() {
		if h := p.handshakes[k.name]; h != nil {
			fmt.Fprintf(w, "    %s %s: %s, %d handshakes, %d failed (%v), us: %s\n", r.name, name, k.name, len(h.took), h.failed, h.err, spread(h.took))
		}
	}
}

// spread is the least, some percentiles, and the greatest of times, in us.
func spread(times []time.Duration) string {
	if len(times) == 0 {
		return "none"
	}
	s := slices.Sorted(slices.Values(times))
	var at []string
	for _, percent := range []int{0, 10, 50, 90, 99, 100} {
		at = append(at, fmt.Sprintf("%d%% %s", percent, micros(s[(len(s)-1)*percent/100])))
	}
	return strings.Join(at, " ")
}
