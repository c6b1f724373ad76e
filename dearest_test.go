package dtlsserver

// A search for the dearest datagram: in each state of a server towards an
// address, and for each kind of message, the most that one datagram of somebody
// who has proven no key can cost the loop. The search is not told what is dear:
// it begins with datagrams made of random bytes, and changes those that cost
// most.
//
//	go test -run TestDearestDatagram .                            as CI does
//	go test -v -run TestDearestDatagram -timeout 0 -dearest 5m .  prints tables
//	go test -run '^$' -fuzz FuzzDearest .
//
// What one lane or another computes off the loop is not counted, nor is what the
// client is given to send.

import (
	"cmp"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	pathpkg "path"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	dearestFor  = flag.Duration("dearest", 0, "how long TestDearestDatagram searches, by time too; it then prints what it has found")
	dearestSeed = flag.Uint64("dearestseed", 1, "the seed of TestDearestDatagram's random numbers")
	dearestKeep = flag.Bool("dearestkeep", false, "add what TestDearestDatagram has found to "+dearestFile)
)

// dearestFile holds datagrams that were the dearest once.
const dearestFile = "testdata/dearest.txt"

// dearestBound bounds what the loop may allocate for a datagram.
type dearestBound struct {
	states, messages string // patterns of path.Match, with | between them
	// For datagrams up to dearestPath and up to dearestLargest: bytes and
	// allocations the first time, bytes and allocations when it is repeated.
	path, largest [4]int
}

// dearestBounds are the bounds. Of a state and a message, the first row that
// matches counts. The numbers are what long searches have found, and a little
// more; where messages come in parts, they are what their memory can grow to.
// Those that are zero are no less: what is only dropped allocates nothing.
var dearestBounds = []dearestBound{
	{ // a hello begins a handshake, whatever there is already
		states: "*", messages: "ClientHello|several",
		path: [4]int{80_000, 70, 31_000, 20}, largest: [4]int{80_000, 70, 31_000, 20},
	},
	{
		states: "awaiting Certificate", messages: "Certificate|ClientKeyExchange|CertificateVerify|several",
		path: [4]int{48_000, 24, 128, 2}, largest: [4]int{48_000, 24, 128, 2},
	},
	{
		states: "awaiting ClientKeyExchange*|silent*|open session beside a handshake", messages: "ClientKeyExchange|CertificateVerify|several",
		path: [4]int{12_000, 24, 128, 2}, largest: [4]int{12_000, 24, 128, 2},
	},
	{
		states: "waiting for the secret|awaiting CertificateVerify", messages: "CertificateVerify|several",
		path: [4]int{12_000, 24, 128, 2}, largest: [4]int{12_000, 24, 128, 2},
	},
	{
		states: "unknown*|closed", messages: "*",
		path: [4]int{0, 0, 0, 0}, largest: [4]int{0, 0, 0, 0},
	},
	{
		states: "open session at rest", messages: "*",
		path: [4]int{1536, 2, 0, 0}, largest: [4]int{1536, 2, 0, 0},
	},
	{
		// Once a handshake, and MaxHandshakeMemory counts most of it.
		states: "awaiting C*|awaiting F*|resumption, awaiting*|silent*|waiting for the *|open session beside*", messages: "*",
		path: [4]int{5376, 5, 5248, 3}, largest: [4]int{5376, 5, 5248, 3},
	},
	{
		states: "*", messages: "*",
		path: [4]int{3584, 5, 128, 2}, largest: [4]int{3584, 5, 128, 2},
	},
}

func matchesAny(patterns, name string) bool {
	return slices.ContainsFunc(strings.Split(patterns, "|"), func(p string) bool {
		ok, _ := pathpkg.Match(p, name)
		return ok
	})
}

// boundOf returns the row for a genome in a state, by its place, and its bound.
func boundOf(state int, g genome) (row int, bound [4]int) {
	row = slices.IndexFunc(dearestBounds, func(b dearestBound) bool {
		return matchesAny(b.states, dearestStates[state].name) && matchesAny(b.messages, g.message())
	})
	if g.size() == dearestPath {
		return row, dearestBounds[row].path
	}
	return row, dearestBounds[row].largest
}

// exceeds reports whether a bound is exceeded.
func exceeds(bound [4]int, first, again cost) bool {
	return first.bytes > bound[0] || first.allocs > bound[1] || again.bytes > bound[2] || again.allocs > bound[3]
}

// within reports whether a genome stays within its bound in a state, where it
// has cost so much. What does not is measured again, in case that something
// else disturbed it.
func (b *towardsOne) within(bound [4]int, g genome, first, again cost) (cost, cost, bool) {
	for try := 0; exceeds(bound, first, again); try++ {
		if try == 3 {
			return first, again, false
		}
		_, f, a := b.measure(func() []byte { return b.datagram(g) })
		first, again = first.least(f), again.least(a)
	}
	return first, again, true
}

// hold holds what a genome costs against the bound.
func (h *hunt) hold(state int, g genome, first, again cost) {
	h.t.Helper()
	b := h.states[state]
	row, bound := boundOf(state, g)
	key := fmt.Sprint(row, g.size())
	if h.failed[key] || *dearestKeep { // what is kept shall be tested from then on
		return
	}
	first, again, ok := b.within(bound, g, first, again)
	if !ok {
		h.failed[key] = true
		h.t.Errorf("%s: %s of %d bytes exceeds the bound %v in row %d:\n\t%v\n\trepeated: %v\n\t%s\n\tgenome %x",
			b.name, g.message(), g.size(), bound, row, first, again, b.describe(g), []byte(g))
	}
}

// describe says what datagram a genome is in the state.
func (b *towardsOne) describe(g genome) string {
	b.begin()
	defer b.end()
	return describe(b.datagram(g))
}

// TestDearestDatagram bounds what a datagram may have the loop allocate. Time
// is told and not tested.
func TestDearestDatagram(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool forget")
	}
	start := time.Now()
	h := newHunt(t, *dearestSeed)
	trials := 3000
	if testing.Short() {
		trials = 1000
	}
	if *dearestFor > 0 {
		h.figures = len(dearestFigures)
	}
	h.search(trials, start.Add(*dearestFor))
	t.Logf("%d trials in %v", h.trials, time.Since(start))
	known := &hunt{t: t, figures: h.figures, states: h.states, best: make(map[niche]*found), order: make([][]niche, len(h.states)), failed: h.failed}
	for _, r := range replays(t) {
		known.try(r.state, r.genome)
	}
	if *dearestFor > 0 {
		h.printNiches()
	}
	if testing.Verbose() {
		h.merge(known)
		h.printBounds()
	}
	if *dearestKeep {
		h.keep(known)
	}
}

// replay is a genome of dearestFile.
type replay struct {
	state  int
	genome genome
}

// replays reads dearestFile, of which each line is the name of a state, what was
// dear there, and a genome, with tabs between them.
func replays(t testing.TB) (all []replay) {
	t.Helper()
	text, err := os.ReadFile(dearestFile)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(strings.TrimSpace(line), "\t")
		if strings.HasPrefix(line, "#") || len(fields) != 3 {
			continue
		}
		state := slices.IndexFunc(dearestStates, func(s *towards) bool { return s.name == fields[0] })
		g, err := hex.DecodeString(fields[2])
		if state < 0 || err != nil {
			t.Errorf("%s: %q: no such state, or %v", dearestFile, line, err)
			continue
		}
		all = append(all, replay{state, g})
	}
	return all
}

// merge adds what another hunt has found.
func (h *hunt) merge(other *hunt) {
	for n, f := range other.best {
		if best := h.best[n]; best == nil || best.value < f.value {
			h.best[n] = f
		}
	}
}

// printNiches prints the most of each figure in each state, for each message
// and size, and the genome that takes longest there.
func (h *hunt) printNiches() {
	var b strings.Builder
	for s, state := range dearestStates {
		for _, message := range dearestMessages {
			for _, size := range []int{dearestPath, dearestLargest} {
				var first, again cost
				var longest *found
				for figure := range h.figures {
					if f := h.best[niche{s, message, size, figure}]; f != nil {
						first, again = first.most(f.first), again.most(f.again)
						longest = f
					}
				}
				if longest != nil {
					fmt.Fprintf(&b, "%s | %s | %d | %v | repeated %v | %x\n", state.name, message, size, first, again, []byte(longest.genome))
				}
			}
		}
	}
	h.t.Logf("state | message | size | most the first time | most when repeated | genome of the longest time\n%s", b.String())
}

// dearest returns the dearest of each row of dearestBounds, size and figure.
func (h *hunt) dearest() map[niche]*found {
	all := make(map[niche]*found)
	for n, f := range h.best {
		row, _ := boundOf(n.state, f.genome)
		key := niche{state: row, size: n.size, figure: n.figure}
		if best := all[key]; best == nil || best.value < f.value {
			all[key] = &found{f.genome, f.first, f.again, f.value, n.state}
		}
	}
	return all
}

// printBounds prints what was found as it would stand in dearestBounds.
func (h *hunt) printBounds() {
	var b strings.Builder
	all := h.dearest()
	for row, bound := range dearestBounds {
		fmt.Fprintf(&b, "%q %q", bound.states, bound.messages)
		for _, size := range []int{dearestPath, dearestLargest} {
			var values [6]int
			for figure := range values {
				if f := all[niche{state: row, size: size, figure: figure}]; f != nil {
					values[figure] = f.value
				}
			}
			fmt.Fprintf(&b, "\n\t[4]int{%d, %d, %d, %d}, %.1f us, repeated %.1f us", values[0], values[1], values[2], values[3], float64(values[4])/1000, float64(values[5])/1000)
		}
		b.WriteString("\n")
	}
	h.t.Logf("most in the rows of dearestBounds:\n%s", b.String())
}

// keep adds to dearestFile what is dearer than all that it has.
func (h *hunt) keep(known *hunt) {
	var lines []string
	had := known.dearest()
	for key, f := range h.dearest() {
		old := had[key]
		if f.value == 0 || old != nil && f.value <= old.value+old.value/20 || key.figure >= untimed && f.value < 20_000 {
			continue
		}
		b := h.states[f.state]
		lines = append(lines, fmt.Sprintf("# %s\n%s\t%s of row %d: %d\t%x\n", b.describe(f.genome), b.name, dearestFigures[key.figure].name, key.state, f.value, []byte(f.genome)))
	}
	slices.SortFunc(lines, func(a, b string) int {
		return cmp.Compare(a[strings.Index(a, "\n"):], b[strings.Index(b, "\n"):])
	})
	text, err := os.ReadFile(dearestFile)
	if err == nil {
		err = os.WriteFile(dearestFile, append(text, strings.Join(lines, "")...), 0o644)
	}
	if err != nil {
		h.t.Error(err)
	}
}

// FuzzDearest has the coverage lead the way. Its first argument is the state.
func FuzzDearest(f *testing.F) {
	for _, r := range replays(f) {
		f.Add(byte(r.state), []byte(r.genome))
	}
	var states []*towardsOne
	restore := func() {}
	defer func() { restore() }()
	f.Fuzz(func(t *testing.T, state byte, g []byte) {
		if raceEnabled {
			t.Skip("the race detector makes sync.Pool forget")
		}
		if states == nil {
			states = make([]*towardsOne, len(dearestStates))
			restore = aloneOnOneProcessor()
		}
		n := int(state) % len(states)
		if states[n] == nil {
			states[n] = newTowards(t, dearestStates[n])
		}
		b := states[n]
		b.t = t
		if len(g) > genomeMost {
			g = g[:genomeMost]
		}
		_, bound := boundOf(n, g)
		_, first, again := b.measure(func() []byte { return b.datagram(g) })
		if first, again, ok := b.within(bound, g, first, again); !ok {
			t.Errorf("%s: %s of %d bytes exceeds the bound %v:\n\t%v\n\trepeated: %v\n\t%s\n\tgenome %x",
				b.name, genome(g).message(), genome(g).size(), bound, first, again, b.describe(g), g)
		}
	})
}
