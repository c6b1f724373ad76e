//go:build linux

package main

// Honest handshakes while others send hellos from addresses that are not theirs.

import (
	"slices"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/wire"
)

const (
	floodRate  = 20_000 // hellos a second
	honestRate = 100    // handshakes a second
	// honestPatience is how long a client goes on. Its hellos are 1, 2 and 4
	// seconds apart.
	honestPatience = 10 * time.Second
	// mixedSamples is how much longer than other modes' samples this lasts, so
	// that a 99th percentile is one of many.
	mixedSamples = 3
)

// mixed measures how honest clients fare.
func (r *run) mixed() error {
	before, err := r.ready()
	if err != nil {
		return err
	}
	// The flood has a socket of its own, whose answers nobody reads.
	flood, err := newSocket(r.process.server)
	if err != nil {
		return err
	}
	defer flood.close()
	l := r.load
	hello := appendPlain(nil, wire.ContentHandshake, 0, appendHello(nil, l.suite, new([wire.RandomLen]byte), nil, 0))
	m := &mixedResult{}
	running := make(map[*client]time.Time)
	l.ended = func(c *client) {
		if since, ok := running[c]; ok && c.state == stateOpen {
			m.latencies = append(m.latencies, l.now.Sub(since))
		}
		delete(running, c)
	}
	d := mixedSamples * time.Duration(r.options.repetitions) * r.options.sampleTime()
	s, err := r.sample(d, func(func() bool) (int, error) {
		l.now = time.Now()
		begun := l.now
		for {
			passed := l.now.Sub(begun)
			if passed > d && (len(running) == 0 || passed > d+honestPatience) {
				return m.spoofed, nil
			}
			for m.spoofed < int(passed.Seconds()*floodRate) {
				flood.send(l.nextSource(), hello)
				m.spoofed++
			}
			flood.flush()
			for m.honest < int(min(passed, d).Seconds()*honestRate) {
				c := l.open()
				running[c] = l.now
				m.honest++
			}
			for c, since := range running {
				switch {
				case l.now.Sub(since) > honestPatience:
					delete(running, c)
					l.clients[c.source%maxClients] = nil
				case c.due(l.now):
					l.send(c.source, c.hs.flight)
				}
			}
			l.flush()
			l.hand(l.receive(time.Millisecond))
		}
	})
	l.ended = nil
	if err != nil {
		return err
	}
	l.leave()
	after, err := r.settled()
	if err != nil {
		return err
	}
	m.flood = float64(m.spoofed) / s.wall.Seconds()
	m.cpu = s.utilisation()
	m.growth = float64(after.resident-before.resident) / float64(max(1, m.spoofed))
	slices.Sort(m.latencies)
	r.result.mixed = m
	return nil
}

// mixedResult is what mixed has shown.
type mixedResult struct {
	spoofed   int // hellos
	flood     float64
	honest    int             // clients that began
	latencies []time.Duration // of those that succeeded, in order
	cpu       float64         // the share of its core that the server used
	growth    float64         // bytes resident a spoofed hello, when the honest sessions are closed
}

// percentile is a latency that so many percent of those that succeeded do not
// exceed.
func (m *mixedResult) percentile(p int) time.Duration {
	if len(m.latencies) == 0 {
		return 0
	}
	return m.latencies[(len(m.latencies)-1)*p/100]
}
