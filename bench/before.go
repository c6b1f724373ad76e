//go:build linux

package main

// The comparison of this server with itself at another commit. The load is the
// same, of today; so is the program that serves, where it compiles with the
// library of that commit. Or the server is the same, and the load has connection IDs.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// The names of the two servers.
const (
	beforeServer = "before"
	afterServer  = "after"
)

// pairedModes are what is compared.
var pairedModes = func() []mode {
	paired := modesNamed("psk", "ecdsa", "hello", "echo64x1", "echo64x10k", "echo1kx1", "echo1kx10k", "idle")
	return slices.Concat(paired[:2], []mode{
		{name: "ecdhepsk", what: "ECDHE_PSK P-256 handshake with cookie", suite: ecdhePSKSuite, prepare: (*run).handshakes},
	}, paired[2:], []mode{
		{name: "mixed", what: "spoofed hello among honest handshakes", suite: pskSuite, prepare: (*run).mixedInSamples},
	})
}()

// cidModes are compared with and without connection IDs.
var cidModes = modesNamed("psk", "echo64x1", "echo64x10k", "echo1kx1", "echo1kx10k", "idle")

func modesNamed(names ...string) (named []mode) {
	for _, name := range names {
		named = append(named, modes[slices.IndexFunc(modes, func(m mode) bool { return m.name == name })])
	}
	return named
}

// How much dearer something may be with connection IDs: what they add to records and
// datagrams, and to a session of some 1,300 bytes at most 256. A handshake makes and
// keeps them.
const (
	mostForCIDs       = 1.2
	mostToMakeThemFor = 1.5
)

// compared is a run of the comparison.
type compared struct {
	*bench
	commit, now   string // what is compared, for people
	cids          bool   // what is compared is one server, without connection IDs and with
	builtServers  map[string]built
	rounds, pairs int
	rows          []*comparison
}

// newCompared builds both servers. The one after is that of the files as they
// are, committed or not.
func (b *bench) newCompared(ctx context.Context, commit string, rounds int) (*compared, error) {
	c := &compared{bench: b, builtServers: make(map[string]built), rounds: rounds, pairs: b.repetitions}
	root, err := git(ctx, ".", "rev-parse", "--show-toplevel")
	if err != nil {
		return nil, err
	}
	if c.commit, err = git(ctx, root, "log", "-1", "--format=%h %s", commit, "--"); err != nil {
		return nil, err
	}
	if c.now, err = git(ctx, root, "log", "-1", "--format=%h %s"); err != nil {
		return nil, err
	}
	if changed, err := git(ctx, root, "status", "--porcelain"); err != nil {
		return nil, err
	} else if changed != "" {
		c.now += ", and what is changed since"
	}
	was := filepath.Join(b.dir, "checkout")
	if err := checkout(ctx, root, commit, was); err != nil {
		return nil, err
	}
	for server, tree := range map[string]string{beforeServer: was, afterServer: root} {
		s, err := buildServer(ctx, tree, b.dir, server)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", server, err)
		}
		c.builtServers[server] = s
		b.built[server], b.uncounted[server] = s.path, s.own != nil
	}
	return c, nil
}

// newComparedCIDs builds the server of the files as they are, which is both.
func (b *bench) newComparedCIDs(ctx context.Context, rounds int) (*compared, error) {
	c := &compared{bench: b, builtServers: make(map[string]built), rounds: rounds, pairs: b.repetitions, cids: true}
	root, err := git(ctx, ".", "rev-parse", "--show-toplevel")
	if err != nil {
		return nil, err
	}
	s, err := buildServer(ctx, root, b.dir, afterServer)
	if err != nil {
		return nil, err
	}
	c.commit, c.now = "without connection IDs", "with connection IDs"
	for _, server := range []string{beforeServer, afterServer} {
		c.builtServers[server], b.built[server], b.uncounted[server] = s, s.path, s.own != nil
	}
	return c, nil
}

// modeOf is the mode as a server has it.
func (c *compared) modeOf(m mode, server string) mode {
	if c.cids && server == afterServer {
		m.suite = m.suite.withCIDs()
	}
	return m
}

// limit is how much dearer something of a mode may be, if of is what may be said of it
// of two commits.
func (c *compared) limit(m mode, of float64) float64 {
	switch {
	case !c.cids:
		return of
	case m.size == 0 && m.name != "idle":
		return mostToMakeThemFor
	}
	return mostForCIDs
}

// errInterrupted: the run was not finished.
var errInterrupted = errors.New("interrupted")

// run compares the modes, prints the table, and reports whether no row failed.
func (c *compared) run(ctx context.Context, w io.Writer, chosen []mode) (ok bool, err error) {
	for _, m := range chosen {
		if ctx.Err() != nil {
			break
		}
		begin := len(c.rows)
		if m.name == "idle" {
			c.idle(ctx, m)
		} else {
			c.compare(ctx, m)
		}
		for _, row := range c.rows[begin:] {
			progressRow(row)
		}
	}
	if ok = c.print(w); ctx.Err() != nil {
		return false, errInterrupted
	}
	return ok, nil
}

// compare takes samples of both servers in turns. A round has new processes,
// since two of the same program may differ for all their lives, as by where
// their memory lies. Samples are short, since the machine's speed changes
// between them.
func (c *compared) compare(ctx context.Context, m mode) {
	rows := make([]*comparison, len(metrics))
	for i, metric := range metrics {
		rows[i] = &comparison{what: m.what + ": " + metric.name, limit: c.limit(m, metric.limit)}
	}
	for round := range c.rounds {
		if ctx.Err() != nil {
			break
		}
		before, after, err := c.round(ctx, m, round)
		for i, metric := range metrics {
			rows[i].add(metric, before, after)
			rows[i].err = errors.Join(rows[i].err, err)
		}
		if err != nil {
			break
		}
	}
	for _, row := range rows {
		if len(row.rounds) > 0 || row == rows[0] {
			c.rows = append(c.rows, row)
		}
	}
}

// round takes so many pairs of samples: before, after, after, before.
func (c *compared) round(ctx context.Context, m mode, n int) (before, after []sample, err error) {
	servers := []string{beforeServer, afterServer}
	if n%2 > 0 {
		slices.Reverse(servers)
	}
	runs := make(map[string]*run)
	defer func() {
		for _, r := range runs {
			err = errors.Join(err, r.process.resume())
			err = errors.Join(err, r.end().err)
			if r.load.failed > 0 {
				err = errors.Join(err, fmt.Errorf("%s: %d clients failed: %w", r.result.server, r.load.failed, r.load.lastError))
			}
		}
	}()
	for _, server := range servers {
		r, err := c.prepare(c.modeOf(m, server), server)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", server, err)
		}
		runs[server] = r
		if err := r.process.suspend(); err != nil {
			return nil, nil, err
		}
	}
	for range c.pairs {
		if ctx.Err() != nil {
			break
		}
		for _, server := range servers {
			if err := runs[server].turn(); err != nil {
				return nil, nil, fmt.Errorf("%s: %w", server, err)
			}
		}
		slices.Reverse(servers)
	}
	return runs[beforeServer].result.samples, runs[afterServer].result.samples, nil
}

// idlePairs are the pairs of servers with idle sessions, all at a time.
const idlePairs = 4

// idle compares the memory of sessions. It depends on the process and hardly on
// the moment, so that all processes may be idle at a time, and each is a round.
func (c *compared) idle(ctx context.Context, m mode) {
	fresh := &comparison{what: "KiB resident a session at once", limit: c.limit(m, atMost)}
	later := &comparison{what: fmt.Sprintf("KiB resident a session after %v", c.quiet), limit: c.limit(m, atMost)}
	c.rows = append(c.rows, fresh, later)
	if err := c.measureIdle(ctx, m, fresh, later); err != nil {
		fresh.err, later.err = err, err
	}
}

func (c *compared) measureIdle(ctx context.Context, m mode, fresh, later *comparison) (err error) {
	type waiting struct {
		*run
		empty, full memory
	}
	all := make(map[string][]*waiting)
	defer func() {
		for _, ws := range all {
			for _, w := range ws {
				err = errors.Join(err, w.end().err)
			}
		}
	}()
	for i := range 2 * idlePairs {
		server := []string{beforeServer, afterServer, afterServer, beforeServer}[i%4]
		p, err := c.start(server)
		if err != nil {
			return err
		}
		r, err := newRun(c.modeOf(m, server), c.options, p, server)
		if err != nil {
			p.stop()
			return err
		}
		w := &waiting{run: r}
		all[server] = append(all[server], w)
		if w.empty, err = r.ready(); err != nil {
			return err
		}
		if _, err = r.load.sessions(c.sessions); err != nil {
			return err
		}
		r.load.forget()
		if w.full, err = r.settled(); err != nil {
			return err
		}
	}
	select {
	case <-time.After(c.quiet):
	case <-ctx.Done():
		return errInterrupted
	}
	add := func(to *comparison, full func(*waiting) (memory, error)) error {
		m := metric{of: func(s sample) (float64, bool) { return float64(s.operations), s.operations > 0 }}
		for i, b := range all[beforeServer] {
			a := all[afterServer][i]
			var bytes [2]sample
			for i, w := range []*waiting{b, a} {
				memory, err := full(w)
				if err != nil {
					return err
				}
				bytes[i].operations = int(memory.resident - w.empty.resident)
			}
			to.add(m, bytes[:1], bytes[1:])
		}
		for _, values := range [][]float64{to.before, to.after} {
			for i := range values {
				values[i] /= float64(c.sessions) * 1024
			}
		}
		return nil
	}
	return errors.Join(
		add(fresh, func(w *waiting) (memory, error) { return w.full, nil }),
		add(later, func(w *waiting) (memory, error) { return w.settled() }))
}

// print prints the table and reports whether no row failed.
func (c *compared) print(w io.Writer) (ok bool) {
	fmt.Fprintf(w, "Before: %s\\\nAfter: %s\\\n%s, %s, server on core %s, load on core %s, Linux %s\n\n", c.commit, c.now,
		processor(), runtime.Version(), cpuName(c.cpu), cpuName(c.loadCPU), strings.TrimPrefix(kernel(), "Linux "))
	fmt.Fprintf(w, "Medians, an operation; %d rounds with new processes, of %d pairs of samples of %v. A round counts with the\n"+
		"median of its pairs' ratios; the interval is Student's, of the logarithms of the rounds. A row fails when its interval\n"+
		"lies wholly above ", c.rounds, c.pairs, c.sampleTime())
	if c.cids {
		fmt.Fprintf(w, "%.2f, of handshakes above %.2f.\n", mostForCIDs, mostToMakeThemFor)
	} else {
		fmt.Fprintf(w, "%.2f, of allocations above %.2f.\n", atMost, atMostAllocations)
	}
	for _, server := range []string{beforeServer, afterServer} {
		switch s := c.builtServers[server]; {
		case s.own != nil:
			fmt.Fprintf(w, "The server %s is the commit's own bench, and tells no allocations and system calls: this one's does not "+
				"compile with its library.\n", server)
		case !s.counted:
			fmt.Fprintf(w, "The server %s does not count system calls: package syscall is not as expected.\n", server)
		}
	}
	var rows []string
	ok = true
	for _, row := range c.rows {
		rows = append(rows, row.cells())
		ok = ok && row.verdict() != fail
	}
	table(w, "After / before", "what | before | after | ratio | 95 % interval | verdict", rows)
	return ok
}

func (c *comparison) cells() string {
	i := ratioInterval(c.rounds)
	text := string(c.verdict())
	if c.err != nil {
		text += ": " + firstLine(c.err)
	}
	if len(c.rounds) == 0 {
		return fmt.Sprintf("%s | | | | | %s", c.what, text)
	}
	return fmt.Sprintf("%s | %.3f | %.3f | %.3f | %.3f to %.3f | %s", c.what, median(c.before), median(c.after),
		i.ratio, i.low, i.high, text)
}
