package dtlsservertest

// Goroutines are told apart by their profiler labels, which each inherits from
// the one that starts it: so those of tests that run at the same time are not
// mixed up, and those that were there before are not counted.

import (
	"bytes"
	"context"
	"fmt"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const labelKey = "dtlsservertest"

// goroutineGroup is all goroutines that were started, by whatever way, from the
// functions that it has run.
type goroutineGroup struct{ label string }

var groups atomic.Int64

func newGoroutineGroup() goroutineGroup {
	return goroutineGroup{strconv.FormatInt(groups.Add(1), 10)}
}

// run runs f in the group, and returns when f does.
func (g goroutineGroup) run(f func()) {
	done := make(chan struct{})
	go func() { // so that the labels of the caller stay what they are
		defer close(done)
		pprof.Do(context.Background(), pprof.Labels(labelKey, g.label), func(context.Context) { f() })
	}()
	<-done
}

// stack is where goroutines are.
type stack struct {
	count int    // of goroutines
	text  string // a line for each function, innermost first
}

// stacks returns where the goroutines of the group are now.
func (g goroutineGroup) stacks() []stack {
	var b bytes.Buffer
	_ = pprof.Lookup("goroutine").WriteTo(&b, 1) // a Buffer takes everything
	var stacks []stack
	label := fmt.Sprintf("%q:%q", labelKey, g.label)
	for block := range strings.SplitSeq(b.String(), "\n\n") {
		if s, ok := parseStack(block, label); ok {
			stacks = append(stacks, s)
		}
	}
	return stacks
}

// parseStack reads a block of a goroutine profile: how many goroutines, their
// labels, and a line for each function.
//
//	2 @ 0x46e3ce 0x4061d0 0x66ae41
//	# labels: {"dtlsservertest":"7"}
//	#	0x66ae40	main.f+0x20	/dir/main.go:12
func parseStack(block, label string) (s stack, ok bool) {
	var b strings.Builder
	for line := range strings.Lines(block) {
		line = strings.TrimSpace(line)
		count, _, first := strings.Cut(line, " @ ")
		labels, labelled := strings.CutPrefix(line, "# labels: ")
		switch fields := strings.Fields(line); {
		case labelled:
			ok = strings.Contains(labels, label)
		case len(fields) == 4 && fields[0] == "#":
			name, _, _ := strings.Cut(fields[2], "+0x")
			fmt.Fprintf(&b, "%s %s\n", name, fields[3])
		case first:
			s.count, _ = strconv.Atoi(count)
		}
	}
	s.text = b.String()
	return s, ok
}

// idle reports whether goroutines say nothing of a failure: those of a server's
// loop that wait for a datagram, and pion's own.
func idle(s stack) bool {
	const module = "github.com/dtlsserver/dtlsserver/"
	if strings.Contains(s.text, module+"internal/udpio.(*Conn).Receive ") {
		return true
	}
	pions := false
	for line := range strings.Lines(s.text) {
		function, _, _ := strings.Cut(line, " ")
		pions = strings.HasPrefix(function, "github.com/pion/")
		socket := strings.HasPrefix(function, module+"dtlsservertest.(*")
		host, _, ok := strings.Cut(function, "/")
		standard := !strings.HasPrefix(function, "main.") && !(ok && strings.Contains(host, "."))
		if !pions && !socket && !standard {
			return false // a callback of the user's, say
		}
	}
	return pions // the first that was called
}

// describe lists goroutines for a failure, under a title.
func describe(title string, stacks []stack) string {
	var b strings.Builder
	total := 0
	for _, s := range stacks {
		total += s.count
		fmt.Fprintf(&b, "\t%d goroutine(s) in\n%s", s.count, indent(indent(s.text)))
	}
	return fmt.Sprintf("%s: %d\n%s", title, total, b.String())
}

// wait waits until all goroutines of the group have ended but those that may
// stay, and returns where the others are.
func (g goroutineGroup) wait(timeout time.Duration, mayStay func(stack string) bool) []stack {
	// Nobody tells when a goroutine has ended, so look now and then.
	for end, pause := time.Now().Add(timeout), time.Millisecond; ; pause *= 2 {
		var left []stack
		for _, s := range g.stacks() {
			if mayStay == nil || !mayStay(s.text) {
				left = append(left, s)
			}
		}
		if len(left) == 0 || time.Now().After(end) {
			return left
		}
		time.Sleep(pause)
	}
}
