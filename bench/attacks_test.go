//go:build linux

package main

import (
	"bytes"
	"crypto/elliptic"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// The table of an attack that a server has long withstood has what everybody
// saw. The verdict depends on what else the machine does.
func TestAttacks(t *testing.T) {
	t.Parallel()
	o := brief
	o.seconds = 0.2
	b := newTestBench(t, o)
	chosen, err := chooseAttacks("hellos,longhint")
	if err != nil {
		t.Fatal(err)
	}
	var report bytes.Buffer
	if _, err := b.runAttacks(t.Context(), &report, chosen); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| " + attackHeader + " |", "| hellos | forged addresses | ", "    hellos control: ", "    longhint attack: mutual, "} {
		if !strings.Contains(report.String(), want) {
			t.Errorf("the report has no %q:\n%s", want, &report)
		}
	}
	if strings.Contains(report.String(), " 0 echoes") {
		t.Errorf("there were no echoes:\n%s", &report)
	}
}

// Each attack makes traffic that its server receives.
func TestAttackTraffic(t *testing.T) {
	t.Parallel()
	b := newTestBench(t, brief)
	ca := newAuthority("clients", elliptic.P256())
	if err := os.WriteFile(b.clientCAFile(), ca.pem(), 0o600); err != nil {
		t.Fatal(err)
	}
	clients := newIdentity("client", ca)
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			s, err := b.newScene(a, clients)
			if err != nil {
				t.Fatal(err)
			}
			defer s.close()
			if n := s.victims.silentAlive(); n != a.silent {
				t.Errorf("%d of %d honest sessions", n, a.silent)
			}
			by := newAttacker(s.process.server)
			defer by.end()
			traffic, err := a.prepare(by)
			if err != nil {
				t.Fatal(err)
			}
			before, err := s.process.attackedState()
			if err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(300*time.Millisecond, by.end)
			traffic()
			after, err := s.process.attackedState()
			if err != nil {
				t.Fatal(err)
			}
			if by.sent.Load() == 0 || by.bytes.Load() == 0 || after.DatagramsReceived == before.DatagramsReceived {
				t.Errorf("sent %d datagrams, received %d", by.sent.Load(), after.DatagramsReceived-before.DatagramsReceived)
			}
		})
	}
}

// madeUpPhase is a phase in which all took as long.
func madeUpPhase(echo, handshake time.Duration) *phase {
	p := &phase{wall: 2 * time.Second, cpu: 100 * time.Millisecond, received: 1000, honest: 1000, echoes: 200,
		rtts: slices.Repeat([]time.Duration{echo}, 200), handshakes: make(map[string]*handshakeTimes)}
	for _, k := range kinds {
		p.handshakes[k.name] = &handshakeTimes{took: slices.Repeat([]time.Duration{handshake}, 20)}
	}
	return p
}

// A row fails for each thing that is demanded, and for nothing else.
func TestAttackVerdict(t *testing.T) {
	const us, ms = time.Microsecond, time.Millisecond
	for _, tt := range []struct {
		name string
		do   func(*attackRow)
		want string // empty: it passes
	}{
		{"as when quiet", func(*attackRow) {}, ""},
		{"echoes at the limit", func(r *attackRow) { r.attacked.rtts = slices.Repeat([]time.Duration{150 * us}, 200) }, ""},
		{"slow echoes", func(r *attackRow) { r.attacked.rtts = slices.Repeat([]time.Duration{160 * us}, 200) }, "echo 1.6 x"},
		{"a lost echo", func(r *attackRow) { r.attacked.rtts = r.attacked.rtts[1:] }, "1 echoes lost"},
		{"all lost", func(r *attackRow) { r.attacked.rtts = nil }, "200 echoes lost"},
		{"a slow kind", func(r *attackRow) { r.attacked.handshakes["mutual"].took = []time.Duration{60 * ms} }, "slow (mutual)"},
		{"slow, but fast enough", func(r *attackRow) { r.attacked.handshakes["mutual"].took = []time.Duration{40 * ms} }, ""},
		{"as slow as when quiet", func(r *attackRow) {
			r.quiet.handshakes["mutual"].took, r.attacked.handshakes["mutual"].took = []time.Duration{60 * ms}, []time.Duration{70 * ms}
		}, ""},
		{"a failed handshake", func(r *attackRow) { r.attacked.handshakes["PSK"].failed = 1 }, "failed (PSK)"},
		{"dear datagrams", func(r *attackRow) {
			r.cheap, r.attacked.sent, r.attacked.received, r.attacked.cpu = true, 1000, 2000, 160*ms
		}, "60µs a datagram"},
		{"cheap datagrams", func(r *attackRow) {
			r.cheap, r.attacked.sent, r.attacked.received, r.attacked.cpu = true, 1000, 2000, 140*ms
		}, ""},
		{"steps of handshakes", func(r *attackRow) { r.attacked.sent, r.attacked.received, r.attacked.cpu = 1000, 2000, 600*ms }, ""},
		{"much memory", func(r *attackRow) { r.attacked.memory.heap = 17 << 20 }, "memory"},
		{"memory of handshakes", func(r *attackRow) {
			r.attacked.memory.heap, r.attacked.after.Handshakes = 17<<20, 200
		}, ""},
		{"many warnings", func(r *attackRow) { r.mostWarnings, r.longestLine, r.attacked.after.Log.Warnings = 20, 2000, 21 }, "21 warnings"},
		{"a long line", func(r *attackRow) { r.mostWarnings, r.longestLine, r.attacked.after.Log.Longest = 20, 2000, 2001 }, "a line of 2001 bytes"},
		{"silent sessions", func(r *attackRow) { r.silent, r.silentLost = 80, 3 }, "3 of 80 silent sessions ended"},
		{"an error", func(r *attackRow) { r.err = errNoSession }, errNoSession.Error()},
	} {
		r := &attackRow{attack: &attack{}, quiet: madeUpPhase(100*us, ms), control: madeUpPhase(100*us, ms), attacked: madeUpPhase(100*us, ms)}
		tt.do(r)
		got := r.verdict()
		if tt.want == "" && got != string(pass) || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
		if again := tt.name == "slow echoes"; r.onlyEchoes() != again {
			t.Errorf("%s: whether it is made again is %v", tt.name, !again)
		}
	}
}

// Of what a server could not take, it takes the same share of all.
func TestPerDatagram(t *testing.T) {
	const ms = time.Millisecond
	quiet := &phase{cpu: 100 * ms, received: 1000, honest: 1000}
	for _, tt := range []struct {
		name string
		p    phase
		want time.Duration
	}{
		{"all received", phase{cpu: 300 * ms, received: 3000, honest: 1000, sent: 2000}, 100 * time.Microsecond},
		{"half received", phase{cpu: 2050 * ms, received: 2000, honest: 1000, sent: 3000}, 2 * ms * 2000 / 3000},
		{"few", phase{cpu: 110 * ms, received: 1010, honest: 1000, sent: 10}, 0},
		{"few but dear", phase{cpu: 1100 * ms, received: 1010, honest: 1000, sent: 10}, 100 * ms},
		{"none", phase{cpu: 100 * ms, received: 1000, honest: 1000}, 0},
		{"less than when quiet", phase{cpu: 50 * ms, received: 2000, honest: 1000, sent: 1000}, 0},
	} {
		if got := tt.p.perDatagram(quiet); (got - tt.want).Abs() > tt.want/50 {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
