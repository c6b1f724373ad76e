//go:build linux

package main

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestStudent(t *testing.T) {
	for freedom, want := range map[int]float64{1: 12.706, 3: 3.182, 9: 2.262, 15: 2.131, 30: 2.042, 100: 1.984} {
		if got := student(freedom); math.Abs(got-want) > 0.002 {
			t.Errorf("%d degrees of freedom: %.4f, want %.3f", freedom, got, want)
		}
	}
}

func TestRatioInterval(t *testing.T) {
	near := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 1e-4 {
			t.Errorf("%s is %.5f, want %.5f", what, got, want)
		}
	}
	// A deviation of 0.01 of three: 4.303 x 0.01 / sqrt(3) on either side.
	x := math.Log(1.05)
	i := ratioInterval([]float64{x - 0.01, x, x + 0.01})
	near("the ratio", i.ratio, 1.05)
	near("the low limit", i.low, 1.05*math.Exp(-0.0248434))
	near("the high limit", i.high, 1.05*math.Exp(0.0248434))
	if i := ratioInterval([]float64{x}); i.low != 0 || !math.IsInf(i.high, 1) {
		t.Errorf("of one observation: %v", i)
	}
	if i := ratioInterval(nil); !math.IsNaN(i.ratio) || i.low != 0 {
		t.Errorf("of none: %v", i)
	}
}

// Of many runs of a noisy machine, the interval misses the truth in 5 of 100.
func TestRatioIntervalCovers(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const runs, rounds, truth = 4000, 10, 0.02
	missed := 0
	for range runs {
		logs := make([]float64, rounds)
		for i := range logs {
			logs[i] = truth + 0.05*random.NormFloat64()
		}
		if i := ratioInterval(logs); math.Log(i.low) > truth || math.Log(i.high) < truth {
			missed++
		}
	}
	if share := float64(missed) / runs; share < 0.04 || share > 0.06 {
		t.Errorf("%.1f %% missed", 100*share)
	}
}

func TestMedianOfValues(t *testing.T) {
	if got := median([]float64{9, 1, 5}); got != 5 {
		t.Errorf("median is %v, want 5", got)
	}
	if got := median([]float64{9, 1, 5, 7}); got != 6 {
		t.Errorf("median is %v, want 6", got)
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("median of nothing is %v", got)
	}
}

// madeUp are the samples of a round on a machine whose speed changes by a fifth
// from pair to pair, and by noise within a pair.
func madeUp(random *rand.Rand, pairs int, us, ratio, noise float64, mallocs [2]int64) (before, after []sample) {
	const n = 100_000
	for range pairs {
		speed := 1 + 0.2*random.Float64()
		one := func(us float64, mallocs int64) sample {
			us *= speed * math.Exp(noise*random.NormFloat64())
			return sample{operations: n, usage: usage{cpu: time.Duration(us * n * 1000)}, counters: counters{mallocs: mallocs, calls: -1}}
		}
		before, after = append(before, one(us, mallocs[0])), append(after, one(us*ratio, mallocs[1]))
	}
	return before, after
}

func TestComparisonVerdict(t *testing.T) {
	cpu, allocations, calls := metrics[0], metrics[1], metrics[2]
	for _, tt := range []struct {
		name         string
		metric       metric
		ratio, noise float64
		mallocs      [2]int64 // of 100,000 operations
		want         verdict
	}{
		{"the same", cpu, 1, 0.02, [2]int64{}, pass},
		{"faster", cpu, 0.8, 0.05, [2]int64{}, pass},
		{"6 % slower", cpu, 1.06, 0.02, [2]int64{}, fail},
		{"6 % slower, in noise", cpu, 1.06, 0.5, [2]int64{}, unclear},
		{"2 % slower", cpu, 1.02, 0.005, [2]int64{}, pass},
		{"an allocation more than 16", allocations, 1, 0.02, [2]int64{1_600_000, 1_700_000}, fail},
		{"an allocation less", allocations, 1, 0.02, [2]int64{1_600_000, 1_500_000}, pass},
		{"an allocation in a hundred operations", allocations, 1, 0.02, [2]int64{0, 1000}, fail},
		{"what the runtime allocates", allocations, 1, 0.02, [2]int64{10, 40}, pass},
	} {
		random := rand.New(rand.NewPCG(3, 4))
		c := &comparison{limit: tt.metric.limit}
		other := &comparison{}
		for range 10 {
			before, after := madeUp(random, 10, 5, tt.ratio, tt.noise, tt.mallocs)
			c.add(tt.metric, before, after)
			other.add(calls, before, after)
		}
		if got := c.verdict(); got != tt.want || len(c.rounds) != 10 || len(c.before) != 100 {
			t.Errorf("%s: %s (%v), want %s", tt.name, got, ratioInterval(c.rounds), tt.want)
		}
		if len(other.rounds) > 0 {
			t.Errorf("%s: what was not counted is compared", tt.name)
		}
	}
	if c := (&comparison{rounds: []float64{0, 0}, limit: atMost, err: io.EOF}); c.verdict() != fail {
		t.Error("a row with an error does not fail")
	}
}

func TestParse(t *testing.T) {
	parsed := func(line ...string) *arguments {
		t.Helper()
		flags := flag.NewFlagSet("", flag.ContinueOnError)
		flags.SetOutput(io.Discard)
		a, err := parse(flags, line)
		if err != nil {
			t.Fatal(line, err)
		}
		return a
	}
	if a := parsed(); len(a.modes) != len(modes) || a.seconds != 1 || a.paired {
		t.Errorf("%+v", a)
	}
	if a := parsed("-before", "HEAD"); len(a.modes) != len(pairedModes) || a.seconds != 0.1 || !a.paired {
		t.Errorf("%+v", a)
	}
	if a := parsed("-before", "HEAD", "-seconds", "1", "-modes", "ecdhepsk"); len(a.modes) != 1 || a.seconds != 1 {
		t.Errorf("%+v", a)
	}
	if a := parsed("-cids"); len(a.modes) != len(cidModes) || a.seconds != 0.1 || !a.paired {
		t.Errorf("%+v", a)
	}
	if a := parsed("-attacks", "-only", "junk,hellos"); len(a.attacks) != 2 || a.attacks[0].name != "junk" || a.serverCPU != -1 {
		t.Errorf("%+v", a)
	}
	for _, line := range [][]string{{"-modes", "x"}, {"-modes", "ecdhepsk"}, {"-attacks", "-only", "x"}, {"-before", "x", "-attacks"}, {"-before", "x", "-cids"}, {"-attacks", "-cids"}, {"x"}} {
		flags := flag.NewFlagSet("", flag.ContinueOnError)
		flags.SetOutput(io.Discard)
		if _, err := parse(flags, line); err == nil {
			t.Errorf("%q is taken", line)
		}
	}
}

// needGit skips a test where the sources are in no repository.
func needGit(t *testing.T) (root string) {
	t.Helper()
	root, err := git(t.Context(), ".", "rev-parse", "--show-toplevel")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return root
}

// The server is compared with itself in every mode, and the table has all that
// is to be known.
func TestBefore(t *testing.T) {
	t.Parallel()
	needGit(t)
	o := brief
	o.paired, o.repetitions = true, 2
	b := newTestBench(t, o)
	c, err := b.newCompared(t.Context(), "HEAD", 2)
	if err != nil {
		t.Fatal(err)
	}
	var report bytes.Buffer
	if _, err := c.run(t.Context(), &report, pairedModes); err != nil { // whether rows fail so briefly is chance
		t.Fatal(err)
	}
	for _, row := range c.rows {
		if row.err != nil {
			t.Errorf("%s: %v", row.what, row.err)
		}
		if len(row.rounds) == 0 {
			t.Errorf("%s was not compared", row.what)
		}
	}
	for _, want := range []string{"PSK handshake with cookie: CPU us", "ECDHE_PSK P-256 handshake with cookie: allocations",
		"echo of 1 KiB, 1 session: system calls", "KiB resident a session at once", "spoofed hello among honest handshakes: ms a handshake"} {
		if !strings.Contains(report.String(), "| "+want+" | ") {
			t.Errorf("the table has no %q:\n%s", want, &report)
		}
	}
}

// The server is compared with and without connection IDs in every mode.
func TestCIDs(t *testing.T) {
	t.Parallel()
	needGit(t)
	o := brief
	o.paired, o.repetitions = true, 2
	b := newTestBench(t, o)
	c, err := b.newComparedCIDs(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	var report bytes.Buffer
	if _, err := c.run(t.Context(), &report, cidModes); err != nil {
		t.Fatal(err)
	}
	for _, row := range c.rows {
		if row.err != nil {
			t.Errorf("%s: %v", row.what, row.err)
		}
		if len(row.rounds) == 0 {
			t.Errorf("%s was not compared", row.what)
		}
	}
	for _, want := range []string{"| echo of 64 B, 1 session: allocations | ", "| KiB resident a session at once | ", "After: with connection IDs"} {
		if !strings.Contains(report.String(), want) {
			t.Errorf("the table has no %q:\n%s", want, &report)
		}
	}
}

func TestNoSuchCommit(t *testing.T) {
	t.Parallel()
	needGit(t)
	b := newTestBench(t, brief)
	var exit *exec.ExitError
	if _, err := b.newCompared(t.Context(), "no-such-commit", 1); !errors.As(err, &exit) {
		t.Errorf("error %v", err)
	}
}

// Where the program of today does not compile, that of the commit serves, and
// counts nothing.
func TestOwnBench(t *testing.T) {
	t.Parallel()
	root := needGit(t)
	b := newTestBench(t, brief, beforeServer)
	tree := filepath.Join(b.dir, "tree")
	if err := checkout(t.Context(), root, "HEAD", tree); err != nil {
		t.Fatal(err)
	}
	clash := filepath.Join(tree, serverDir, "clash.go")
	if err := errors.Join(os.MkdirAll(filepath.Dir(clash), 0o777), os.WriteFile(clash, []byte("package main\n\nvar serveOurs int\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	built, err := buildServer(t.Context(), tree, b.dir, beforeServer)
	if err != nil || built.own == nil || built.counted {
		t.Fatalf("built %+v, error %v", built, err)
	}
	b.built[beforeServer], b.uncounted[beforeServer] = built.path, true
	b.paired = true
	m := pairedModes[0]
	b.measure(t.Context(), m)
	wantResult(t, m, b.results[0])
	for _, s := range b.results[0].samples {
		if s.counters.mallocs >= 0 || s.counters.calls >= 0 {
			t.Errorf("counted %+v", s.counters)
		}
	}
}
