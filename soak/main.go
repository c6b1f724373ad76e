// Soak runs one server under everything at once, over real sockets of the
// loopback interface, and says whether it lost, repeated or leaked anything:
//
//	cd soak && go run . -minutes 10
//
// Good clients, pion's and hand-driven ones, connect by keys, certificates and
// tickets, exchange numbered datagrams, and close, vanish, or come back from the
// same port. Meanwhile others flood the server with hellos from many addresses,
// send junk, leave handshakes half done, have wrong keys, wait for hooks that are
// slow, fail or hang, and send replays and forgeries from the addresses of open
// sessions. At the end the sources stop, the server is given the time to forget
// its peers, and is shut down, which takes some 10 seconds more.
//
// The exit status is 1, and the last lines say why, when
//   - a client that should have connected did not, or one that should not did,
//   - a session was not replaced by its client's new one,
//   - a datagram was delivered twice, altered, to the wrong session, or before its
//     session was open or after it was closed,
//   - more datagrams of good clients are missing than the server's socket never
//     received, or an answer in a thousand is missing (a system may drop
//     datagrams even on loopback, which the table tells apart),
//   - Stats and what the handler was told differ,
//   - an event told of a failure of the socket, of randomness or of a key, or a
//     limit was reached, which these rates never do,
//   - sessions, handshakes in progress, hooks, goroutines or heap are left, or a
//     closed session is not garbage.
//
// Interrupted, it stops early and reports all the same. It may be built with
// -race. Only loopback addresses are used.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dtlsserver/dtlsserver"
)

func main() {
	minutes := flag.Float64("minutes", 0, "how long to run, in `minutes`, in addition to -seconds")
	seconds := flag.Float64("seconds", 0, "how long to run, in `seconds`; 60 when -minutes is not set either")
	flood := flag.Int("flood", 5000, "bare hellos a second, at most")
	plain := flag.Bool("plain", false, "read and write the server's socket one datagram at a time, as any net.PacketConn")
	flag.Parse()
	duration := time.Duration(*minutes*float64(time.Minute) + *seconds*float64(time.Second))
	if duration == 0 {
		duration = time.Minute
	}
	if flag.NArg() > 0 || duration < 0 || *flood < 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, duration, *flood, *plain, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

const (
	handshakeTimeout = 8 * time.Second
	idleTimeout      = 8 * time.Second
	// patience bounds every wait for something that must come. It is far
	// longer than anything takes, so that a slow machine fails nothing.
	patience = 30 * time.Second
)

// soak is one run.
type soak struct {
	server    *dtlsserver.Server
	ledger    *ledger
	keys      *keys
	hooks     hooks
	hellos    recent // verified ones, for replays
	scenarios []*scenario
	sent      atomic.Uint64 // datagrams to the server, of whatever kind
	returned  atomic.Uint64 // clients that came back from their port
	attacks   [numAttacks]atomic.Uint64
	peak      peak
	faults    faults
}

// run runs the soak and prints its table. The error says what went wrong.
func run(ctx context.Context, duration time.Duration, flood int, plain bool, out io.Writer) error {
	s, err := newSoak()
	if err != nil {
		return err
	}
	if plain {
		s.server.ListenPacket = listenPlain
	}
	before := measure()
	if err := s.server.Listen("udp4", "127.0.0.1:0"); err != nil {
		return err
	}
	started := time.Now()
	s.load(ctx, duration, flood)
	loaded := time.Since(started)

	// The sources are silent: what the server has not received soon is lost, and
	// what it keeps is for peers that are gone.
	waitFor(func() bool { return s.server.Stats().DatagramsReceived >= s.sent.Load() }, 5*time.Second)
	waitFor(func() bool { stats := s.server.Stats(); return stats.Sessions+stats.Handshakes == 0 }, patience)
	waitFor(s.ledger.collected, patience)
	idle, idleStats := measure(), s.server.Stats()

	shutdownCtx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.server.Shutdown(shutdownCtx); err != nil {
		s.faults.add("Shutdown: %v", err)
	}
	s.ledger.pushing.Wait()
	waitFor(func() bool { return measure().goroutines <= before.goroutines }, patience)
	after := measure()

	s.judge(before, idle, after, idleStats)
	s.print(out, loaded, before, idle, after, idleStats)
	return s.faults.err()
}

// listenPlain opens a socket that the server cannot tell to be one of the
// system.
func listenPlain(network, address string) (net.PacketConn, error) {
	pc, err := net.ListenPacket(network, address)
	return struct{ net.PacketConn }{pc}, err
}

// load runs all sources until the time is over or ctx is done, and waits for
// what they have begun.
func (s *soak) load(ctx context.Context, duration time.Duration, flood int) {
	ctx, cancel := context.WithTimeout(ctx, duration)
	defer cancel()
	// Some go on until the last client has left.
	leaving, left := context.WithCancel(context.Background())
	var sources, company sync.WaitGroup
	company.Go(func() { s.cut(leaving) })
	company.Go(func() { s.watch(leaving) })
	for _, sc := range s.scenarios {
		sources.Go(func() { s.repeat(ctx, sc) })
	}
	sources.Go(func() { s.flood(ctx, flood) })
	sources.Go(func() { s.junk(ctx) })
	sources.Wait()
	left()
	company.Wait()
}

// waitFor waits until ok, but no longer than the time given. What it did not
// become, judge finds.
func waitFor(ok func() bool, atMost time.Duration) {
	for end := time.Now().Add(atMost); !ok() && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
}

// every calls f at most once in each interval until ctx is done.
func every(ctx context.Context, interval time.Duration, f func()) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			f()
		}
	}
}

// faults are what went wrong.
type faults struct {
	mu    sync.Mutex // guards all following
	count int
	first []string
}

// maxFaults is how many faults are printed. One bug causes many.
const maxFaults = 20

func (f *faults) add(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count++; len(f.first) < maxFaults {
		f.first = append(f.first, fmt.Sprintf(format, args...))
	}
}

func (f *faults) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count == 0 {
		return nil
	}
	text := fmt.Sprintf("FAIL: %d faults", f.count)
	for _, line := range f.first {
		text += "\n\t" + line
	}
	if more := f.count - len(f.first); more > 0 {
		text += fmt.Sprintf("\n\tand %d more", more)
	}
	return fmt.Errorf("%s", text)
}
