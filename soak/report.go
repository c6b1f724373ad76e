package main

// What is measured, judged and printed.

import (
	"context"
	"fmt"
	"io"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/dtlsserver/dtlsserver"
)

// measurement is taken after a garbage collection.
type measurement struct {
	goroutines int
	heap       uint64 // bytes
}

func measure() measurement {
	runtime.GC()
	runtime.GC() // for what the first has moved out of pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return measurement{runtime.NumGoroutine(), m.HeapAlloc}
}

// maxHeapGrowth is what pools, tables that do not shrink and the books may keep.
// It does not depend on how long the soak runs.
const maxHeapGrowth = 8 << 20

// peak is the most that there has been at a time.
type peak struct {
	mu                               sync.Mutex // guards all following
	sessions, handshakes, goroutines int
}

func (s *soak) watch(ctx context.Context) {
	every(ctx, 100*time.Millisecond, func() {
		stats := s.server.Stats()
		s.peak.mu.Lock()
		defer s.peak.mu.Unlock()
		s.peak.sessions = max(s.peak.sessions, stats.Sessions)
		s.peak.handshakes = max(s.peak.handshakes, stats.Handshakes)
		s.peak.goroutines = max(s.peak.goroutines, runtime.NumGoroutine())
	})
}

// judge finds what is wrong once all is over.
func (s *soak) judge(before, idle, after measurement, idleStats dtlsserver.Stats) {
	l, stats := s.ledger, s.server.Stats()
	want := func(what string, got, want uint64) {
		if got != want {
			s.faults.add("%s: %d, want %d", what, got, want)
		}
	}
	told := func(k dtlsserver.EventKind) uint64 { return l.events[k].Load() }

	// Everything that began has ended.
	want("sessions left", uint64(idleStats.Sessions), 0)
	want("handshakes left in progress", uint64(idleStats.Handshakes), 0)
	want("hooks ended", s.hooks.answered.Load(), s.hooks.asked.Load())
	want("closed sessions that are garbage", uint64(l.garbage.Load()), uint64(l.opened.Load()))
	want("handshakes completed or failed", stats.HandshakesCompleted+stats.HandshakesFailed, stats.HandshakesStarted)
	want("sessions closed", stats.SessionsClosed, stats.HandshakesCompleted)
	if idle.goroutines > before.goroutines+1 {
		s.faults.add("goroutines: %d with an idle server, %d before, want one more", idle.goroutines, before.goroutines)
	}
	if after.goroutines > before.goroutines {
		s.faults.add("goroutines: %d after, %d before", after.goroutines, before.goroutines)
	}
	for when, m := range map[string]measurement{"with an idle server": idle, "after": after} {
		if m.heap > before.heap+maxHeapGrowth {
			s.faults.add("heap: %s %s, %s before", kib(m.heap), when, kib(before.heap))
		}
	}

	// Stats are what the handler was told.
	want("KindListening", told(dtlsserver.KindListening), 1)
	want("KindStopped", told(dtlsserver.KindStopped), 1)
	want("KindHelloVerifyRequestSent", told(dtlsserver.KindHelloVerifyRequestSent), stats.HelloVerifyRequests)
	want("KindHelloVerified", told(dtlsserver.KindHelloVerified), stats.HandshakesStarted)
	want("KindHandshakeComplete", told(dtlsserver.KindHandshakeComplete), stats.HandshakesCompleted)
	want("KindSessionClosed", told(dtlsserver.KindSessionClosed), stats.SessionsClosed)
	want("KindPeerMoved", told(dtlsserver.KindPeerMoved), stats.PeersMoved)
	want("KindHandshakeFailed", told(dtlsserver.KindHandshakeFailed), stats.HandshakesFailed)
	// A question may have to wait, and is taken back when its handshake fails.
	if asked, told := s.hooks.asked.Load(), told(dtlsserver.KindPSKRequested); told < asked || told-asked > stats.HandshakesFailed {
		s.faults.add("KindPSKRequested: %d, of which %d were asked; %d handshakes failed", told, asked, stats.HandshakesFailed)
	}
	want("KindPSKFailed", told(dtlsserver.KindPSKFailed), s.hooks.failed.Load())
	d := stats.Dropped
	want("KindUnexpectedDatagram", told(dtlsserver.KindUnexpectedDatagram), d.UnexpectedDatagrams+d.UnknownConnectionIDs)
	want("KindRecordDropped", told(dtlsserver.KindRecordDropped),
		d.Malformed+d.Epoch+d.Replayed+d.Forged+d.Unauthenticated+d.EarlyData+d.UnexpectedMessages+d.ConnectionIDs+d.Limit)
	want("datagrams delivered", l.delivered.Load(), stats.MessagesReceived)
	want("answers and pushes", l.echoed.Load()+l.pushed.Load(), stats.MessagesSent)
	want("Truncated, Refused and Evicted", d.Truncated+d.Refused+d.Evicted, 0)

	// Nothing is lost but before the server and after it.
	if stats.DatagramsReceived > s.sent.Load() {
		s.faults.add("%d datagrams received, only %d were sent", stats.DatagramsReceived, s.sent.Load())
	}
	if missing, _ := l.missing(); missing > s.neverReceived() {
		s.faults.add("%d datagrams of good clients were lost; the socket never received %d", missing, s.neverReceived())
	}
	var answered, unanswered, completed uint64
	for _, sc := range s.scenarios {
		answered, unanswered = answered+sc.answered.Load(), unanswered+sc.unanswered.Load()
		completed += sc.completed.Load()
	}
	if unanswered > answered/1000 {
		s.faults.add("%d answers that were sent did not arrive; %d did", unanswered, answered)
	}
	if completed == 0 || answered == 0 {
		s.faults.add("%d handshakes, %d answers: nothing was tried", completed, answered)
	}
	want("handshakes completed by clients", completed, stats.HandshakesCompleted)
	if n := l.reason(dtlsserver.ErrReconnected); n < s.returned.Load() {
		s.faults.add("%d sessions were replaced, %d clients came back", n, s.returned.Load())
	}
}

// neverReceived returns how many datagrams were lost before the server.
func (s *soak) neverReceived() uint64 {
	return s.sent.Load() - min(s.sent.Load(), s.server.Stats().DatagramsReceived)
}

func kib(bytes uint64) string { return fmt.Sprintf("%d KiB", bytes>>10) }

// print prints the table.
func (s *soak) print(out io.Writer, loaded time.Duration, before, idle, after measurement, idleStats dtlsserver.Stats) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	defer w.Flush()
	l, stats := s.ledger, s.server.Stats()

	fmt.Fprintf(w, "ran for %v, handshakes and datagrams by clients:\n", loaded.Round(time.Millisecond))
	fmt.Fprintf(w, "\ttried\tcompleted\tfailed\tsent\tanswered\tunanswered\t  \n")
	for _, sc := range s.scenarios {
		fmt.Fprintf(w, "\t%d\t%d\t%d\t%d\t%d\t%d\t  %s\n", sc.tried.Load(), sc.completed.Load(), sc.failed.Load(),
			sc.sent.Load(), sc.answered.Load(), sc.unanswered.Load(), sc.name)
	}
	rows := func(title string) func(name string, value any) {
		fmt.Fprintf(w, "%s:\n", title)
		return func(name string, value any) { fmt.Fprintf(w, "\t%v\t  %s\n", value, name) }
	}

	row := rows("datagrams sent at the server that it has not asked for")
	for kind, name := range attackNames {
		row(name, s.attacks[kind].Load())
	}

	strict, loose := l.missing()
	row = rows("what became of datagrams")
	row("sent to the server, of all kinds", s.sent.Load())
	row("never received by its socket", s.neverReceived())
	row("delivered to the handler", l.delivered.Load())
	row("answered", l.echoed.Load())
	row("pushed besides", l.pushed.Load())
	row("not written, the session was closed", l.refused.Load())
	row("not written, the socket was full", l.full.Load())
	row("of good clients, not delivered", strict)
	row("under way when the session was closed", loose)

	row = rows("stats, at the end")
	fields(stats, row)
	row = rows("dropped")
	fields(stats.Dropped, row)

	row = rows("events")
	for kind := range l.events {
		if n := l.events[kind].Load(); n > 0 {
			row(dtlsserver.EventKind(kind).String(), n)
		}
	}
	l.mu.Lock()
	row = rows("sessions closed, by reason")
	for _, reason := range slices.Sorted(maps.Keys(l.reasons)) {
		row(reason, l.reasons[reason])
	}
	row = rows("handshakes failed, by reason, roughly, since events are folded")
	for _, reason := range slices.Sorted(maps.Keys(l.failures)) {
		row(reason, l.failures[reason])
	}
	l.mu.Unlock()

	fmt.Fprintf(w, "what is kept:\n\tbefore\tpeak\tidle\tafter\t  \n")
	s.peak.mu.Lock()
	defer s.peak.mu.Unlock()
	fmt.Fprintf(w, "\t%d\t%d\t%d\t%d\t  goroutines\n", before.goroutines, s.peak.goroutines, idle.goroutines, after.goroutines)
	fmt.Fprintf(w, "\t%s\t\t%s\t%s\t  heap, after a collection\n", kib(before.heap), kib(idle.heap), kib(after.heap))
	fmt.Fprintf(w, "\t0\t%d\t%d\t%d\t  sessions\n", s.peak.sessions, idleStats.Sessions, stats.Sessions)
	fmt.Fprintf(w, "\t0\t%d\t%d\t%d\t  handshakes in progress\n", s.peak.handshakes, idleStats.Handshakes, stats.Handshakes)
	fmt.Fprintf(w, "\t\t\t\t%d\t  sessions that are not garbage, of %d\n", l.opened.Load()-l.garbage.Load(), l.opened.Load())
	fmt.Fprintf(w, "\t\t\t\t%d\t  hooks that run, of %d\n", s.hooks.asked.Load()-s.hooks.answered.Load(), s.hooks.asked.Load())
	if s.faults.err() == nil {
		fmt.Fprintln(w, "PASS")
	}
}

// fields gives the counters of a struct to row, so that a new one is printed
// too.
func fields(of any, row func(name string, value any)) {
	v := reflect.ValueOf(of)
	for i := range v.NumField() {
		if v.Field(i).Kind() != reflect.Struct {
			row(v.Type().Field(i).Name, v.Field(i).Interface())
		}
	}
}
