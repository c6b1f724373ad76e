//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/wire"
)

func TestMain(m *testing.M) {
	serveIfAsked()
	os.Exit(m.Run())
}

// brief are the options of a run that shows that it works, and no more.
var brief = options{seconds: 0.03, repetitions: 1, sessions: 120, quiet: time.Millisecond}

func newTestBench(t *testing.T, o options, servers ...string) *bench {
	t.Helper()
	b, err := newBench(o, -1, -1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.close)
	b.servers = servers
	return b
}

// wantResult fails the test unless the result is what a mode must show of a
// server that lets everybody in.
func wantResult(t *testing.T, m mode, r *result) {
	t.Helper()
	if r.err != nil {
		t.Errorf("%s of %s: %v", r.mode, r.server, r.err)
		return
	}
	for _, note := range r.notes {
		if strings.Contains(note, "failed") {
			t.Errorf("%s of %s: %s", r.mode, r.server, note)
		}
	}
	switch m.name {
	case "idle":
		if r.idle == nil || r.idle.sessions != brief.sessions || r.idle.later <= 0 || r.idle.goroutines < 1 {
			t.Errorf("idle of %s: %+v", r.server, r.idle)
		}
	case "mixed":
		if r.mixed == nil || r.mixed.spoofed == 0 || r.mixed.honest == 0 || len(r.mixed.latencies) != r.mixed.honest {
			t.Errorf("mixed of %s: %+v", r.server, r.mixed)
		}
	default:
		if len(r.samples) != brief.repetitions {
			t.Errorf("%s of %s: %d samples", r.mode, r.server, len(r.samples))
		}
		for _, s := range r.samples {
			if s.operations == 0 || s.usage.cpu <= 0 || s.micros() > 1e5 {
				t.Errorf("%s of %s: %+v", r.mode, r.server, s)
			}
		}
	}
}

// Each mode counts something with our server and the echoes, and the report has
// it.
func TestModes(t *testing.T) {
	t.Parallel()
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			b := newTestBench(t, brief, "ours", "echo", "echo-batched", "echo-floor")
			b.measure(t.Context(), m)
			want := 1
			if m.plain {
				want = len(b.servers)
			}
			if len(b.results) != want {
				t.Errorf("%d results, want %d", len(b.results), want)
			}
			for _, r := range b.results {
				wantResult(t, m, r)
			}
			var report bytes.Buffer
			b.report(&report)
			header := "| " + m.what + " | "
			switch m.name {
			case "idle":
				header = "| ours | 120 | "
			case "mixed":
				header = "| ours | "
			}
			if !strings.Contains(report.String(), header) {
				t.Errorf("the report has no %q:\n%s", header, &report)
			}
		})
	}
}

// The other DTLS servers let the load in. Those in C need a compiler and
// headers.
func TestOthers(t *testing.T) {
	t.Parallel()
	for _, server := range []string{"pion2", "pion3", "gnutls", "openssl"} {
		t.Run(server, func(t *testing.T) {
			t.Parallel()
			b := newTestBench(t, brief, server)
			if _, err := b.command(server); err != nil {
				if os.Getenv("CI") != "" {
					t.Fatal(err)
				}
				t.Skip(err)
			}
			for _, m := range modes {
				if slices.Contains([]string{"psk", "ecdsa", "hello", "echo64", "echo1k", "idle"}, m.name) {
					b.measure(t.Context(), m)
					wantResult(t, m, b.results[len(b.results)-1])
				}
			}
		})
	}
}

// A server that cannot be built costs its column and nothing else.
func TestNotBuilt(t *testing.T) {
	t.Parallel()
	b := newTestBench(t, brief, "gnutls")
	b.cErrors["gnutls"] = &exec.Error{Name: "cc", Err: exec.ErrNotFound}
	m := modes[0]
	b.measure(t.Context(), m)
	if err := b.results[0].err; !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("the result's error is %v", err)
	}
	var report bytes.Buffer
	b.report(&report)
	if want := "| gnutls | not built: "; !strings.Contains(report.String(), want) {
		t.Errorf("the report has no %q:\n%s", want, &report)
	}
}

func TestProfile(t *testing.T) {
	t.Parallel()
	o := brief
	o.profiles = t.TempDir()
	b := newTestBench(t, o, "ours")
	m := modes[slices.IndexFunc(modes, func(m mode) bool { return m.name == "echo64" })]
	b.measure(t.Context(), m)
	wantResult(t, m, b.results[0])
	if info, err := os.Stat(filepath.Join(o.profiles, "echo64.pprof")); err != nil || info.Size() == 0 {
		t.Errorf("no profile: %v", err)
	}
}

// A server with another key is not counted as a success.
func TestWrongKey(t *testing.T) {
	now := time.Unix(0, 0)
	c := newClient(firstSource, pskSuite, newPSK(), now)
	if send, err := c.message(wire.TypeServerHelloDone, nil, now); !send || err != nil || c.state != stateFlight {
		t.Fatalf("send %v, error %v, state %d", send, err, c.state)
	}
	other, err := directions(newPRF(make([]byte, masterLen)), &c.hs.random, &c.hs.serverRandom)
	if err != nil {
		t.Fatal(err)
	}
	finished := other[1].seal(nil, wire.ContentHandshake, make([]byte, 24))
	if _, err := c.handshakeDatagram(finished, now); !errors.Is(err, errForged) || c.state != stateFailed {
		t.Errorf("error %v, state %d", err, c.state)
	}
}

// A client repeats its hello after 1 s, then 2 s, with new record numbers and
// the same message_seq.
func TestRetransmission(t *testing.T) {
	now := time.Unix(0, 0)
	c := newClient(firstSource, pskSuite, newPSK(), now)
	for i, step := range []struct {
		after time.Duration
		due   bool
	}{
		{999 * time.Millisecond, false}, {time.Millisecond, true}, {1999 * time.Millisecond, false}, {time.Millisecond, true},
	} {
		before := bytes.Clone(c.hs.flight)
		now = now.Add(step.after)
		if due := c.due(now); due != step.due {
			t.Fatalf("step %d: due is %v", i, due)
		}
		if !step.due {
			continue
		}
		seq := binary.BigEndian.Uint64(before[3:]) + 1 // epoch and sequence number
		binary.BigEndian.PutUint64(before[3:], seq)
		if !bytes.Equal(before, c.hs.flight) {
			t.Errorf("step %d: sent %x, want %x", i, c.hs.flight, before)
		}
	}
}

func TestAlertFailsClient(t *testing.T) {
	c := newClient(firstSource, pskSuite, newPSK(), time.Unix(0, 0))
	alert := appendPlain(nil, wire.ContentAlert, 0, []byte{2, 40})
	if send, err := c.handshakeDatagram(alert, time.Unix(0, 0)); send || !errors.Is(err, errAlert) || c.state != stateFailed {
		t.Errorf("send %v, error %v, state %d", send, err, c.state)
	}
}

func TestPrimitives(t *testing.T) {
	t.Parallel()
	p, err := measurePrimitives()
	if err != nil || p.echo(64) <= 0 || p.echo(1024) <= p.echo(64) || p.hmac <= 0 || p.datagram <= 0 {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestMedian(t *testing.T) {
	r := &result{}
	if s := r.median(); s.micros() != 0 {
		t.Errorf("median of nothing: %v", s)
	}
	for _, us := range []time.Duration{5, 1, 9} {
		r.samples = append(r.samples, sample{operations: 10, usage: usage{cpu: us * 10 * time.Microsecond}})
	}
	if got := r.median().micros(); got != 5 {
		t.Errorf("median is %v, want 5", got)
	}
}

func TestSources(t *testing.T) {
	for _, s := range []source{firstSource, 0x01_0203, endSource - 1} {
		if a := s.addr(); a[0] != 127 || sourceOf(a) != s {
			t.Errorf("source %#x has the address %v", uint32(s), a)
		}
	}
	l := &load{next: endSource - 1}
	if a, b := l.nextSource(), l.nextSource(); a != endSource-1 || b != firstSource {
		t.Errorf("sources %#x, %#x at the end", uint32(a), uint32(b))
	}
	for s, want := range map[source]int{firstSource: 1, endSource - 1: 2, endSource - 10: 11} {
		if got := l.since(s); got != want {
			t.Errorf("%d sources since %#x, want %d", got, uint32(s), want)
		}
	}
}
