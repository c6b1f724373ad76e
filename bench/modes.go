//go:build linux

package main

// What is measured.

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"
)

const (
	// concurrentHandshakes are so many that the server hardly ever waits.
	concurrentHandshakes = 128
	// window is how many echoes or hellos are on their way: so many that the
	// server always finds some, so few that no socket overflows.
	window = 256
	// maxOpen bounds the sessions that handshakes leave open in one sample.
	maxOpen = 40_000
)

// options are those of a run.
type options struct {
	seconds     float64 // of a sample
	repetitions int
	sessions    int           // the most of any mode, and the idle ones
	quiet       time.Duration // how long they are idle
	profiles    string        // a directory; empty: none
	// paired samples are compared one by one: what the process counts is asked
	// for, and no garbage collected between them, for which they are too short.
	paired bool
}

func (o options) sampleTime() time.Duration { return time.Duration(o.seconds * float64(time.Second)) }

// mode is one kind of load.
type mode struct {
	name     string
	what     string
	suite    *suite
	plain    bool // plain echoes take part
	many     bool // those whose sessions are large do not
	sessions int  // of echoes
	size     int  // of echoes' content
	// prepare makes a server ready and sets work, or measures all by itself.
	prepare func(*run) error
}

var modes = []mode{
	{name: "psk", what: "PSK handshake with cookie", suite: pskSuite, prepare: (*run).handshakes},
	{name: "ecdsa", what: "ECDHE-ECDSA P-256 handshake with cookie", suite: ecdsaSuite, prepare: (*run).handshakes},
	{name: "hello", what: "bare hello, per answer", suite: pskSuite, plain: true, prepare: (*run).hellos},
	echoMode("echo64x1", "echo of 64 B, 1 session", 64, 1),
	echoMode("echo64", "echo of 64 B, 100 sessions", 64, 100),
	echoMode("echo64x1k", "echo of 64 B, 1,000 sessions", 64, 1000),
	echoMode("echo64x10k", "echo of 64 B, 10,000 sessions", 64, 10_000),
	echoMode("echo64x100k", "echo of 64 B, 100,000 sessions", 64, 100_000),
	echoMode("echo1kx1", "echo of 1 KiB, 1 session", 1024, 1),
	echoMode("echo1k", "echo of 1 KiB, 100 sessions", 1024, 100),
	echoMode("echo1kx10k", "echo of 1 KiB, 10,000 sessions", 1024, 10_000),
	{name: "idle", what: "idle sessions", suite: pskSuite, prepare: (*run).idle},
	{name: "mixed", what: "honest handshakes among spoofed hellos", suite: pskSuite, prepare: (*run).mixed},
}

func echoMode(name, what string, size, sessions int) mode {
	return mode{name: name, what: what, suite: pskSuite, plain: true, many: sessions > 10_000,
		size: size, sessions: sessions, prepare: (*run).echoes}
}

// run is one mode of one server.
type run struct {
	options options
	mode    mode
	process *process
	result  *result
	load    *load

	// work makes load until stop and returns the number of operations. Nil:
	// there are no samples to be taken.
	work func(stop func() bool) (operations int, err error)
	// between, when not nil, is called after each sample, and after the
	// warming up.
	between func() error
	// finish, when not nil, is called after the last sample.
	finish func() error

	latency time.Duration // of the last sample's handshakes, where work looks at it
}

func newRun(m mode, o options, p *process, server string) (*run, error) {
	s := m.suite
	if isPlain(server) {
		s = nil
	}
	l, err := newLoad(p, s)
	if err != nil {
		return nil, err
	}
	return &run{options: o, mode: m, process: p, load: l, result: &result{server: server, mode: m.name}}, nil
}

// sample measures what the server uses while work goes on, for a time.
func (r *run) sample(d time.Duration, work func(stop func() bool) (int, error)) (sample, error) {
	var counted counters
	if r.options.paired {
		var err error
		if counted, err = r.process.counters(); err != nil {
			return sample{}, err
		}
	}
	before, err := r.process.usage()
	if err != nil {
		return sample{}, err
	}
	begun := time.Now()
	r.load.now = begun
	n, err := work(func() bool { return r.load.now.Sub(begun) >= d })
	if err != nil {
		return sample{}, err
	}
	wall := time.Since(begun)
	after, err := r.process.usage()
	if err != nil {
		return sample{}, err
	}
	s := sample{operations: n, wall: wall, usage: after.sub(before), latency: r.latency}
	if r.options.paired {
		end, err := r.process.counters()
		s.counters = end.sub(counted)
		return s, err
	}
	return s, nil
}

// warm makes the server ready and warms it up.
func (r *run) warm() error {
	if err := r.mode.prepare(r); err != nil || r.work == nil {
		return err
	}
	if _, err := r.sample(r.options.sampleTime()/2, r.work); err != nil {
		return err
	}
	if r.between != nil {
		if err := r.between(); err != nil {
			return err
		}
	}
	if r.options.profiles == "" || r.result.server != "ours" {
		return nil
	}
	path, err := filepath.Abs(filepath.Join(r.options.profiles, r.mode.name+".pprof"))
	if err != nil {
		return err
	}
	answer, err := r.process.command("profile " + path)
	if err == nil && answer != "profile <nil>" {
		err = fmt.Errorf("%s", answer)
	}
	return err
}

// turn takes one sample while nobody else's server runs.
func (r *run) turn() error {
	if err := r.process.resume(); err != nil {
		return err
	}
	return errors.Join(r.measure(), r.process.suspend())
}

// measure takes one sample.
func (r *run) measure() error {
	s, err := r.sample(r.options.sampleTime(), r.work)
	if err != nil {
		return err
	}
	r.result.samples = append(r.result.samples, s)
	if r.between != nil {
		return r.between()
	}
	return nil
}

// end notes what is left to note, stops the server and returns the result.
func (r *run) end() *result {
	if r.result.err == nil && r.finish != nil {
		r.result.err = r.finish()
	}
	if r.result.err == nil && r.work != nil && r.options.profiles != "" && r.result.server == "ours" {
		_, r.result.err = r.process.command("endprofile")
	}
	if r.load.failed > 0 {
		r.result.note("%d clients failed (%v)", r.load.failed, r.load.lastError)
	}
	if r.load.lost > 0 {
		r.result.note("%d datagrams lost", r.load.lost)
	}
	r.load.close()
	r.process.stop()
	return r.result
}

// handshakes measures handshakes. Their sessions stay open until the sample is
// over, and then are closed, which is not measured.
func (r *run) handshakes() error {
	r.work = func(stop func() bool) (int, error) {
		n := 0
		r.load.handshakes(maxOpen, concurrentHandshakes, stop, func(c *client) {
			if c.state == stateOpen {
				n++
			}
		})
		if n == 0 {
			return 0, fmt.Errorf("%w: %v", errNoSessions, r.load.lastError)
		}
		return n, nil
	}
	r.between = func() error {
		r.load.leave()
		if r.options.paired {
			return nil
		}
		_, err := r.process.command("collect")
		return err
	}
	return nil
}

// hellos measures answers to bare hellos, and the memory that they cost.
func (r *run) hellos() error {
	var sent, answered int
	r.work = func(stop func() bool) (int, error) {
		n, answers := r.load.hellos(window, stop)
		sent += n
		answered += answers
		return answers, nil
	}
	var begin memory
	r.between = func() (err error) {
		if begin.resident == 0 {
			sent, answered = 0, 0
			begin, err = r.settled()
		}
		return err
	}
	r.finish = func() error {
		end, err := r.settled()
		if err != nil || sent == 0 {
			return err
		}
		r.result.note("%.1f %% of %d hellos answered, %+.1f B resident a hello", 100*float64(answered)/float64(sent),
			sent, float64(end.resident-begin.resident)/float64(sent))
		return nil
	}
	return nil
}

// settled is the memory when a second collection has freed what the first only
// found.
func (r *run) settled() (memory, error) {
	if _, err := r.process.memory(); err != nil {
		return memory{}, err
	}
	return r.process.memory()
}

// echoes measures echoes, and the memory that their sessions cost.
func (r *run) echoes() error {
	before, err := r.ready()
	if err != nil {
		return err
	}
	n := min(r.mode.sessions, r.options.sessions)
	sessions, err := r.load.sessions(n)
	if err != nil {
		return err
	}
	content := make([]byte, r.mode.size)
	r.work = func(stop func() bool) (int, error) {
		count := 0
		err := r.load.echoes(sessions, content, window, stop, &count)
		return count, err
	}
	r.finish = func() error {
		after, err := r.settled()
		if err == nil && n >= 100 && r.load.suite != nil {
			r.result.perSession = perSession(before, after, n)
		}
		return err
	}
	return nil
}

// ready makes the server use its code and buffers once, so that what grows from
// now on is sessions.
func (r *run) ready() (memory, error) {
	if r.load.suite == nil {
		return memory{}, nil
	}
	if _, err := r.load.sessions(concurrentHandshakes); err != nil {
		return memory{}, err
	}
	r.load.leave()
	return r.settled()
}

func perSession(before, after memory, n int) float64 {
	return float64(after.resident-before.resident) / float64(n) / 1024
}

// idle opens sessions, leaves them alone and looks at what they cost.
func (r *run) idle() error {
	before, err := r.ready()
	if err != nil {
		return err
	}
	n := r.options.sessions
	if isLarge(r.result.server) {
		n = min(n, maxLarge)
	}
	if _, err := r.load.sessions(n); err != nil {
		return err
	}
	fresh, err := r.settled()
	if err != nil {
		return err
	}
	quiet, err := r.sample(r.options.quiet, func(func() bool) (int, error) {
		time.Sleep(r.options.quiet)
		return n, nil
	})
	if err != nil {
		return err
	}
	after, err := r.settled()
	if err != nil {
		return err
	}
	closing, err := r.sample(0, func(func() bool) (int, error) {
		_, err := r.process.command("close")
		return n, err
	})
	r.result.idle = &idleResult{
		sessions: n, fresh: perSession(before, fresh, n), later: perSession(before, after, n),
		goroutines: after.goroutines, cpu: quiet.utilisation(), closing: closing,
	}
	return err
}

// What an idle session may have at most where all of them fit, and how many
// there are where it has more.
const maxLarge = 10_000

// isLarge reports whether a server's sessions take tens of KiB.
func isLarge(server string) bool {
	return slices.Contains([]string{"openssl", "pion2", "pion3"}, server)
}

func isPlain(server string) bool {
	return slices.Contains([]string{"echo", "echo-batched", "echo-floor"}, server)
}
