//go:build linux

package main

// What is measured.

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/suite"
)

const (
	concurrentHandshakes = 64
	// echoWindow and helloWindow are how many datagrams are on their way: so
	// many that the server always finds some, so few that no socket overflows.
	echoWindow  = 256
	helloWindow = 256
)

// options are those of a run.
type options struct {
	seconds     float64 // of a sample
	repetitions int
	sessions    int           // idle ones
	quiet       time.Duration // how long they are idle
	profiles    string        // a directory; empty: none
}

// result is what a mode has shown of a server.
type result struct {
	server, mode string
	err          error
	samples      []sample
	notes        []string
}

// sample is one measurement.
type sample struct {
	operations int
	wall       time.Duration
	usage      usage
}

func (s sample) perOperation() time.Duration {
	if s.operations == 0 {
		return 0
	}
	return s.usage.cpu / time.Duration(s.operations)
}

// median is the sample whose CPU time an operation is the median.
func (r *result) median() sample {
	sorted := slices.SortedFunc(slices.Values(r.samples), func(a, b sample) int {
		return int(a.perOperation() - b.perOperation())
	})
	if len(sorted) == 0 {
		return sample{}
	}
	return sorted[len(sorted)/2]
}

func (r *result) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

// mode is one kind of load.
type mode struct {
	name  string
	plain bool // plain echoes take part
	suite uint16
	run   func(*run) error
}

// run is one mode of one server.
type run struct {
	options options
	process *process
	result  *result
	*load
}

var modes = []mode{
	{"psk", false, suite.PSKWithAES128GCM, (*run).handshake},
	{"ecdsa", false, suite.ECDHEECDSAWithAES128GCM, (*run).handshake},
	{"hello", true, suite.PSKWithAES128GCM, (*run).hello},
	{"echo64", true, suite.PSKWithAES128GCM, echoMode(64, 100)},
	{"echo64x1", true, suite.PSKWithAES128GCM, echoMode(64, 1)},
	{"echo64x10k", true, suite.PSKWithAES128GCM, echoMode(64, 10_000)},
	{"echo1k", true, suite.PSKWithAES128GCM, echoMode(1024, 100)},
	{"echo1kx1", true, suite.PSKWithAES128GCM, echoMode(1024, 1)},
	{"echo1kx10k", true, suite.PSKWithAES128GCM, echoMode(1024, 10_000)},
	{"idle", false, suite.PSKWithAES128GCM, (*run).idle},
}

// measure runs a mode of a server whose process was started for it.
func (m mode) measure(p *process, o options, server string) *result {
	r := &result{server: server, mode: m.name}
	var s *suite.Suite
	if !isPlain(server) {
		s = suite.ByID(m.suite)
	}
	l, err := newLoad(p, s)
	if err != nil {
		r.err = err
		return r
	}
	defer l.close()
	r.err = m.run(&run{o, p, r, l})
	if l.failed > 0 {
		r.note("%d clients failed, the last for: %v", l.failed, l.lastError)
	}
	if l.lost > 0 {
		r.note("%d datagrams lost", l.lost)
	}
	return r
}

// sample measures what the server uses while work goes on.
func (r *run) sample(work func(stop func() bool) (operations int, err error), d time.Duration) (sample, error) {
	before, err := r.process.usage()
	if err != nil {
		return sample{}, err
	}
	r.now = time.Now()
	begun := r.now
	n, err := work(func() bool { return r.now.Sub(begun) >= d })
	if err != nil {
		return sample{}, err
	}
	wall := time.Since(begun)
	after, err := r.process.usage()
	return sample{n, wall, after.sub(before)}, err
}

// repeat warms the server up and takes the samples. between is called after
// each, the first included.
func (r *run) repeat(work func(stop func() bool) (int, error), between func() error) error {
	d := time.Duration(r.options.seconds * float64(time.Second))
	if _, err := r.sample(work, d/2); err != nil {
		return err
	}
	if err := between(); err != nil {
		return err
	}
	if r.options.profiles != "" && r.result.server == "ours" {
		path, err := filepath.Abs(filepath.Join(r.options.profiles, r.result.mode+".pprof"))
		if err != nil {
			return err
		}
		if answer, err := r.process.command("profile " + path); err != nil || answer != "profile <nil>" {
			return fmt.Errorf("%s: %w", answer, err)
		}
		defer r.process.command("endprofile")
	}
	for range r.options.repetitions {
		s, err := r.sample(work, d)
		if err != nil {
			return err
		}
		r.result.samples = append(r.result.samples, s)
		if err := between(); err != nil {
			return err
		}
	}
	return nil
}

func nothing() error { return nil }

// maxOpen bounds the sessions that handshakes leave open in one sample.
const maxOpen = 40_000

// handshake measures handshakes. Their sessions stay open until the sample is
// over, and then are closed, which is not measured.
func (r *run) handshake() error {
	work := func(stop func() bool) (int, error) {
		n := 0
		r.handshakes(maxOpen, concurrentHandshakes, stop, func(c *client) {
			if c.state == stateOpen {
				n++
			}
		})
		if n == 0 {
			return 0, fmt.Errorf("%w: %v", errNoSessions, r.lastError)
		}
		return n, nil
	}
	return r.repeat(work, func() error {
		r.leave()
		_, err := r.process.command("collect")
		r.drain()
		return err
	})
}

// hello measures answers to bare hellos, and the memory that they cost.
func (r *run) hello() error {
	sent, all := 0, 0
	work := func(stop func() bool) (int, error) {
		answers := 0
		r.hellos(helloWindow, stop, &sent, &answers)
		all += answers
		return answers, nil
	}
	var begin memory
	first := true
	err := r.repeat(work, func() (err error) {
		if first {
			first = false
			sent, all = 0, 0
			begin, err = r.process.memory()
		}
		return err
	})
	if err != nil {
		return err
	}
	end, err := r.process.memory()
	if err != nil {
		return err
	}
	r.result.note("%d hellos, %.1f %% answered, %+d KiB resident", sent, 100*float64(all)/float64(max(1, sent)),
		(end.resident-begin.resident)>>10)
	return nil
}

func echoMode(size, sessions int) func(*run) error {
	return func(r *run) error { return r.echo(size, sessions) }
}

func (r *run) echo(size, n int) error {
	sessions, err := r.sessions(n)
	if err != nil {
		return err
	}
	content := make([]byte, size)
	return r.repeat(func(stop func() bool) (int, error) {
		count := 0
		err := r.echoes(sessions, content, echoWindow, stop, &count)
		return count, err
	}, nothing)
}

// idle opens sessions, leaves them alone and looks at what they cost.
func (r *run) idle() error {
	// The server's code and buffers are warm before the sessions come.
	if _, err := r.sessions(100); err != nil {
		return err
	}
	r.leave()
	r.drain()
	before, err := r.process.memory()
	if err != nil {
		return err
	}
	n := idleSessions(r.result.server, r.options.sessions)
	if _, err := r.sessions(n); err != nil {
		return err
	}
	fresh, err := r.process.memory()
	if err != nil {
		return err
	}
	s, err := r.sample(func(func() bool) (int, error) {
		time.Sleep(r.options.quiet)
		return n, nil
	}, r.options.quiet)
	if err != nil {
		return err
	}
	after, err := r.process.memory()
	if err != nil {
		return err
	}
	r.result.samples = []sample{s}
	perSession := func(m memory) float64 { return float64(m.resident-before.resident) / float64(n) / 1024 }
	r.result.note("%d sessions: %.2f KiB resident each at once, %.2f (heap %.2f) after %v; %d goroutines; %.2f %% CPU idle",
		n, perSession(fresh), perSession(after), float64(after.heap-before.heap)/float64(n)/1024, r.options.quiet, after.goroutines,
		100*s.usage.cpu.Seconds()/s.wall.Seconds())
	closing, err := r.sample(func(func() bool) (int, error) {
		_, err := r.process.command("close")
		return n, err
	}, 0)
	r.result.note("closed in %v, %v CPU", closing.wall.Round(time.Millisecond), closing.usage.cpu.Round(time.Millisecond))
	return err
}

// idleSessions is how many idle sessions a server is given: those that need
// tens of KiB get fewer.
func idleSessions(server string, n int) int {
	switch server {
	case "ours", "gnutls":
		return n
	}
	return min(n, 10_000)
}

func isPlain(server string) bool {
	switch server {
	case "echo", "echo-batched", "echo-floor":
		return true
	}
	return false
}

func makeDir(dir string) error {
	if dir == "" {
		return nil
	}
	return os.MkdirAll(dir, 0o777)
}
