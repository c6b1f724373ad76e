package sim

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Many seeds: in processes of their own, since what they draw keys from is one
// for a process.

// report is what a process says of one seed.
type report struct {
	Seed      uint64
	Hash      uint64
	Lasted    time.Duration
	Datagrams int
	Found     []finding
}

type finding struct {
	violation
	Known string // the fault that explains it; empty: none
}

func reportOf(seed uint64, o *outcome) report {
	r := report{Seed: seed, Hash: o.hash, Lasted: o.lasted, Datagrams: o.datagrams}
	for i := range o.found {
		r.Found = append(r.Found, finding{o.found[i], explain(o, &o.found[i])})
	}
	return r
}

const (
	beginMark  = "sim begins "
	reportMark = "sim reports "
)

// TestChild runs seeds for another process.
func TestChild(t *testing.T) {
	if *flagStep == 0 {
		t.Skip("runs for TestSeeds")
	}
	runtime.GOMAXPROCS(1)
	start := time.Now()
	list := strings.FieldsFunc(*flagList, func(r rune) bool { return r == ',' })
	if *flagList != "" {
		*flagSeeds = uint64(len(list))
	}
	for n := uint64(0); n < *flagSeeds; n++ {
		if *flagTime > 0 && time.Since(start) > *flagTime {
			break
		}
		seed := *flagFrom + n**flagStep
		if *flagList != "" {
			var err error
			if seed, err = strconv.ParseUint(list[n], 10, 64); err != nil {
				t.Fatal(err)
			}
		}
		fmt.Printf("%s%d\n", beginMark, seed)
		o := run(t, plan{seed: seed}, false)
		r := reportOf(seed, &o)
		b, err := json.Marshal(&r)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("%s%s\n", reportMark, b)
	}
}

// batch is a number of seeds to run.
type batch struct {
	binary string // of the test; empty: this one
	from   uint64
	seeds  uint64
	list   []uint64 // not nil: in place of from and seeds
	time   time.Duration
	enough func(*report) bool // ends the processes; nil: never

	crashed string // the seed whose process has ended, when enough is set
}

// run runs the seeds in as many processes as there are processors.
func (b *batch) run() (all []report, failure string) {
	if b.binary == "" {
		b.binary = os.Args[0]
	}
	processes := uint64(runtime.NumCPU())
	var mu sync.Mutex // guards all, failure
	var wg sync.WaitGroup
	done := make(chan struct{}) // when it is enough
	var once sync.Once
	for i := range processes {
		wg.Go(func() {
			share := (b.seeds + processes - 1 - i) / processes
			var list []string
			for n := i; n < uint64(len(b.list)); n += processes {
				list = append(list, strconv.FormatUint(b.list[n], 10))
			}
			if b.list != nil && list == nil {
				return
			}
			cmd := exec.Command(b.binary, "-test.run=^TestChild$", "-test.count=1", "-test.timeout=0",
				fmt.Sprintf("-sim.from=%d", b.from+i), fmt.Sprintf("-sim.step=%d", processes),
				fmt.Sprintf("-sim.seeds=%d", share), fmt.Sprintf("-sim.time=%v", b.time), "-sim.list="+strings.Join(list, ","))
			out, err := cmd.StdoutPipe()
			if err != nil {
				panic(err)
			}
			cmd.Stderr = cmd.Stdout
			if err := cmd.Start(); err != nil {
				panic(err)
			}
			go func() {
				<-done
				_ = cmd.Process.Kill()
			}()
			var last string
			var tail []string
			lines := bufio.NewScanner(out)
			lines.Buffer(nil, 1<<24)
			for lines.Scan() {
				line := lines.Text()
				if rest, ok := strings.CutPrefix(line, reportMark); ok {
					var r report
					if err := json.Unmarshal([]byte(rest), &r); err != nil {
						panic(err)
					}
					mu.Lock()
					all = append(all, r)
					mu.Unlock()
					if b.enough != nil && b.enough(&r) {
						once.Do(func() { close(done) })
					}
				} else if rest, ok := strings.CutPrefix(line, beginMark); ok {
					last, tail = rest, nil
				} else if tail = append(tail, line); len(tail) > 60 {
					tail = tail[:60]
				}
			}
			err = cmd.Wait()
			select {
			case <-done:
				return
			default:
			}
			if err != nil {
				mu.Lock()
				b.crashed = last
				failure = fmt.Sprintf("seed %s ended the process, %v:\n%s", last, err, strings.Join(tail, "\n"))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	once.Do(func() { close(done) })
	slices.SortFunc(all, func(a, b report) int { return cmp.Compare(a.Seed, b.Seed) })
	return all, failure
}

// TestSeeds runs seeds. What they find and nothing explains fails, shrunk.
func TestSeeds(t *testing.T) {
	start := time.Now()
	b := batch{from: *flagFrom, seeds: *flagSeeds, time: *flagTime}
	if *flagTime > 0 {
		b.seeds = 1 << 40
	}
	if testing.Short() || raceEnabled {
		b.seeds = min(b.seeds, 20)
	}
	all, failure := b.run()
	if failure != "" {
		t.Error(failure)
	}
	var virtual time.Duration
	datagrams := 0
	byFault := make(map[string][]uint64)
	shrunk := make(map[string]bool)
	for _, r := range all {
		virtual += r.Lasted
		datagrams += r.Datagrams
		for _, f := range r.Found {
			if seeds := byFault[f.Known]; f.Known != "" && (len(seeds) == 0 || seeds[len(seeds)-1] != r.Seed) {
				byFault[f.Known] = append(seeds, r.Seed)
			}
			if f.Known != "" && !*flagKnown {
				continue
			}
			kind := f.Known
			if kind == "" {
				kind = f.Rule
				t.Errorf("seed %d: %v", r.Seed, f.violation)
			}
			if !shrunk[kind] && len(shrunk) < 20 && (f.Known != "" || len(shrunk) < 3) {
				shrunk[kind] = true
				o := run(t, plan{seed: r.Seed}, false)
				t.Logf("seed %d, shrunk: %s", r.Seed, shrink(t, plan{seed: r.Seed}, &o, &f.violation))
			}
		}
	}
	took := time.Since(start)
	t.Logf("%d seeds in %v: %v of virtual time, %d datagrams; %.1f virtual hours a second, %.0f seeds a second",
		len(all), took.Round(time.Millisecond), virtual.Round(time.Second), datagrams, virtual.Hours()/took.Seconds(), float64(len(all))/took.Seconds())
	for _, k := range knownFaults {
		if seeds := byFault[k.about]; len(seeds) > 0 {
			t.Logf("known: %s: %d seeds, the first is %d", k.about, len(seeds), seeds[0])
			delete(byFault, k.about)
		}
	}
}

// TestOneSeedOneTrace: the same seed is the same run, datagram for datagram.
func TestOneSeedOneTrace(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector changes the scheduler")
	}
	b := batch{from: *flagFrom, seeds: *flagTwice}
	first, failure := b.run()
	second, again := b.run()
	if failure+again != "" {
		t.Fatal(failure, again)
	}
	for i := range first {
		if first[i].Hash != second[i].Hash {
			t.Errorf("seed %d: %016x, and %016x", first[i].Seed, first[i].Hash, second[i].Hash)
		}
	}
}
