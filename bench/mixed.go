//go:build linux

package main

// Honest handshakes while others send hellos from addresses that are not theirs.

import (
	"fmt"
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
	m := &mixedResult{}
	d := mixedSamples * time.Duration(r.options.repetitions) * r.options.sampleTime()
	s, err := r.sample(d, func(func() bool) (int, error) { return r.mix(flood, m, d), nil })
	if err != nil {
		return err
	}
	r.load.leave()
	after, err := r.settled()
	if err != nil {
		return err
	}
	m.flood = float64(m.spoofed) / s.wall.Seconds()
	m.cpu = s.utilisation()
	m.growth = float64(after.resident-before.resident) / float64(max(1, m.spoofed))
	r.result.mixed = m
	return nil
}

// mixedInSamples measures the same in samples, of which each has its own
// clients.
func (r *run) mixedInSamples() error {
	flood, err := newSocket(r.process.server)
	if err != nil {
		return err
	}
	d := mixedSamples * r.options.sampleTime()
	r.work = func(func() bool) (int, error) {
		m := &mixedResult{}
		r.mix(flood, m, d)
		if len(m.latencies) < m.honest {
			return 0, fmt.Errorf("%d of %d honest handshakes", len(m.latencies), m.honest)
		}
		r.latency = m.percentile(50)
		return m.spoofed, nil
	}
	r.between = func() error {
		r.load.leave()
		return nil
	}
	r.finish = func() error {
		flood.close()
		return nil
	}
	return nil
}

// mix sends hellos that nobody follows up from one socket, and runs honest
// handshakes from that of the load, for a time, and returns the number of the
// former.
func (r *run) mix(flood *socket, m *mixedResult, d time.Duration) (spoofed int) {
	l := r.load
	hello := appendPlain(nil, wire.ContentHandshake, 0, appendHello(nil, l.suite, new([wire.RandomLen]byte), nil, 0))
	running := make(map[*client]time.Time)
	l.ended = func(c *client) {
		if since, ok := running[c]; ok && c.state == stateOpen {
			m.latencies = append(m.latencies, l.now.Sub(since))
		}
		delete(running, c)
	}
	defer func() {
		l.ended = nil
		slices.Sort(m.latencies)
	}()
	l.now = time.Now()
	begun := l.now
	for {
		passed := l.now.Sub(begun)
		if passed > d && (len(running) == 0 || passed > d+honestPatience) {
			return m.spoofed
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
