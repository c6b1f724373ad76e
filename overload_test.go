package dtlsserver

// Fleets that all come at once, beside those that want to keep them out: who is
// connected, and when. On virtual time, with real handshakes.

import (
	"cmp"
	"container/heap"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

var overloadScale = flag.Int("overload.scale", 20, "divide the rates and limits of TestOverload by this `number`; 1 takes half an hour")

// agenda is what happens, by time.
type agenda []appointment

type appointment struct {
	at  time.Time
	seq int
	do  func()
}

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return cmp.Or(a[i].at.Compare(a[j].at), cmp.Compare(a[i].seq, a[j].seq)) < 0
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(appointment)) }
func (a *agenda) Pop() any {
	old := *a
	x := old[len(old)-1]
	*a = old[:len(old)-1]
	return x
}

// overload is a server and what it meets.
type overload struct {
	*direct
	rng     *rand.Rand
	agenda  agenda
	seq     int
	devices map[netip.AddrPort]*device
	loss    float64
	hooks   *slowHooks // nil: hooks take no time
}

// at has something done later.
func (o *overload) at(after time.Duration, do func()) {
	o.seq++
	heap.Push(&o.agenda, appointment{o.now.Add(after), o.seq, do})
}

// run lets time pass until nothing is left to do, or until the end.
func (o *overload) run(end time.Time) {
	for len(o.agenda) > 0 && !o.agenda[0].at.After(end) {
		a := heap.Pop(&o.agenda).(appointment)
		for {
			at, ok := o.l.housekeep(o.now)
			o.deliver()
			if !ok || at.After(a.at) {
				break
			}
			o.now = at
		}
		o.now = a.at
		a.do()
		o.deliver()
	}
}

// give gives the server a datagram.
func (o *overload) give(from netip.AddrPort, b []byte) {
	o.l.receive(o.now, message(from, b))
	if o.hooks != nil {
		o.hooks.settle()
	} else {
		o.settle()
	}
	o.deliver()
}

// deliver sends what the server has sent on its way.
func (o *overload) deliver() {
	for i, b := range o.out {
		if dev := o.devices[o.to[i]]; dev != nil {
			dev.comes(b)
		}
	}
	o.out, o.to = o.out[:0], o.to[:0]
}

// device is an honest client. It repeats itself after 1, 2, 4 s and so on, or
// each second, gives up after a while, and begins anew.
type device struct {
	o         *overload
	n         int
	addr      netip.AddrPort
	rtt       time.Duration
	constant  bool
	patience  time.Duration
	client    *testpeer.Client
	attempts  int
	began     time.Time
	timer     int // which of its timers counts
	last      [][]byte
	wait      time.Duration
	connected time.Duration // since the beginning of all; zero: not yet
}

// begin begins an attempt.
func (dev *device) begin() {
	dev.attempts++
	dev.client = testpeer.New(fmt.Sprint("device ", dev.n), []byte(testKey), uint64(dev.n)<<20|uint64(dev.attempts))
	dev.began = dev.o.now
	dev.say([][]byte{dev.client.Hello()})
}

// say sends a flight and waits for the answer.
func (dev *device) say(flight [][]byte) {
	dev.last, dev.wait = flight, time.Second
	dev.send()
}

func (dev *device) send() {

	for _, b := range dev.last {
		if dev.o.rng.Float64() >= dev.o.loss {
			dev.o.at(dev.rtt/2, func() { dev.o.give(dev.addr, b) })
		}
	}
	dev.timer++
	timer := dev.timer
	dev.o.at(dev.wait, func() {
		switch {
		case timer != dev.timer || dev.connected > 0:
		case dev.o.now.Sub(dev.began) >= dev.patience:
			dev.begin()
		default:
			if !dev.constant {
				dev.wait *= 2
			}
			dev.send()
		}
	})
}

// comes has a datagram of the server's on its way.
func (dev *device) comes(b []byte) {
	if dev.o.rng.Float64() < dev.o.loss {
		return
	}
	client := dev.client
	dev.o.at(dev.rtt/2, func() {
		if client == dev.client && client != nil && dev.connected == 0 {
			dev.receive(b)
		}
	})
}

func (dev *device) receive(b []byte) {
	c := dev.client
	asked, done, alerts := c.Cookie != nil, c.HelloDone, len(c.Alerts)
	if asked && b[0] == byte(wire.ContentHandshake) && b[wire.RecordHeaderLen] == byte(wire.TypeHelloVerifyRequest) {
		return // for a hello that was repeated: its message_seq has come
	}
	if err := c.Receive(b); err != nil {
		return
	}
	switch {
	case c.Complete:
		dev.connected = dev.o.now.Sub(time.Unix(1_700_000_000, 0))
	case len(c.Alerts) > alerts: // starts again a little later
		dev.timer++
		dev.client = nil
		dev.o.at(500*time.Millisecond+time.Duration(dev.o.rng.Int64N(int64(3*time.Second))), dev.begin)
	case !done && c.HelloDone:
		cke, ccs, finished := c.KeyExchange()
		dev.say([][]byte{slices.Concat(cke, ccs, finished)})
	case !asked && c.Cookie != nil:
		dev.say([][]byte{c.Hello()})
	}
}

// intruder sends verified hellos, and perhaps a ClientKeyExchange, and never goes
// on. It has an address from a number of sources, and returns its cookies late.
type intruder struct {
	o            *overload
	n, sources   int
	from         func(i int) netip.AddrPort
	each         time.Duration
	late         time.Duration
	keyExchanges bool
}

func (in *intruder) run() {
	in.n++
	from := in.from(in.o.rng.IntN(in.sources))
	from = netip.AddrPortFrom(from.Addr(), uint16(1024+in.n%60_000))
	c := testpeer.New("nobody", []byte(testKey), 1<<50|uint64(in.n))
	in.o.l.receive(in.o.now, message(from, c.Hello()))
	for i, b := range in.o.out {
		if in.o.to[i] == from {
			_ = c.Receive(b)
		}
	}
	in.o.deliver()
	in.o.at(in.late, func() {
		in.o.give(from, c.Hello())
		if in.keyExchanges {
			c.HelloDone = true
			m := testpeer.Message(16, 2, []byte{0, 6, 'n', 'o', 'b', 'o', 'd', 'y'})
			in.o.give(from, c.Plain(22, m))
		}
	})
	in.o.at(in.each, in.run)
}

type overloadTest struct {
	name     string
	devices  int
	from     func(i int) netip.AddrPort
	rtt      func(i int) time.Duration
	within   time.Duration
	loss     float64
	hook     time.Duration
	limit    int // MaxHandshakes; zero: the default
	intruder *intruder
	perSec   int    // hellos of the intruder
	scaled   int    // down by so much more, unless all is tried as it is
	after    [3]int // percent connected after 1, 5, 15 minutes, at least
}

func rtt(d time.Duration) func(int) time.Duration { return func(int) time.Duration { return d } }

// mix is half near and half far.
func mix(i int) time.Duration { return []time.Duration{50 * time.Millisecond, 4 * time.Second}[i%2] }

func TestOverload(t *testing.T) {
	scale := *overloadScale
	if raceEnabled {
		scale *= 5
	}
	spread := hosts(10)
	tests := []overloadTest{
		{name: "400 behind one address, 4 s", devices: 400, from: nat(9, 1), rtt: rtt(4 * time.Second), within: 5 * time.Second, after: [3]int{100, 100, 100}},
		{name: "4,000 addresses, 4 s", devices: 4000, from: spread, rtt: rtt(4 * time.Second), within: 5 * time.Second, after: [3]int{100, 100, 100}},
		{name: "40,000 addresses at once, 1 s, loss 5 %", devices: 40000, from: spread, rtt: rtt(time.Second), within: 200 * time.Millisecond, loss: 0.05, after: [3]int{80, 98, 100}},
		{name: "8,000 behind 20 addresses, 4 s, loss 5 %", devices: 8000, from: nat(9, 20), rtt: rtt(4 * time.Second), within: 5 * time.Second, loss: 0.05, after: [3]int{88, 95, 97}},
		{name: "500 slots, 13,000 a second that never go on", devices: 2000, from: spread, rtt: rtt(50 * time.Millisecond), within: 20 * time.Second, limit: 500,
			intruder: &intruder{sources: 100_000, from: hosts(200)}, perSec: 13_000, scaled: 5, after: [3]int{98, 100, 100}},
		{name: "mix; 20 sources, 2,000 a second", devices: 2000, from: spread, rtt: mix, within: 10 * time.Second,
			intruder: &intruder{sources: 20, from: hosts(200)}, perSec: 2000, after: [3]int{97, 100, 100}},
		{name: "mix; 20,000 sources, 20,000 a second, that pretend long round trips", devices: 2000, from: spread, rtt: mix, within: 10 * time.Second,
			intruder: &intruder{sources: 20_000, from: hosts(200), late: 2500 * time.Millisecond}, perSec: 20_000, scaled: 5, after: [3]int{40, 55, 65}},
		{name: "400 behind one address, 4 s; 20,000 sources, 2,000 a second", devices: 400, from: nat(9, 1), rtt: rtt(4 * time.Second), within: 5 * time.Second,
			intruder: &intruder{sources: 20_000, from: hosts(200)}, perSec: 2000, after: [3]int{40, 70, 80}},
		{name: "hook of 5 s; 2,000 sources, 2,000 a second to ClientKeyExchange", devices: 1000, from: spread, rtt: rtt(50 * time.Millisecond), within: 10 * time.Second, hook: 5 * time.Second,
			intruder: &intruder{sources: 2000, from: hosts(200), keyExchanges: true}, perSec: 2000, after: [3]int{97, 100, 100}},
		{name: "mix of 200 behind one address; 100 a second inside it", devices: 200, from: nat(9, 1), rtt: mix, within: 10 * time.Second,
			intruder: &intruder{sources: 1, from: func(int) netip.AddrPort { return host(9, 0, 0) }}, perSec: 100, after: [3]int{85, 100, 100}},
		{name: "4 s; 700 a second that time their patience", devices: 2000, from: spread, rtt: rtt(4 * time.Second), within: 10 * time.Second,
			intruder: &intruder{sources: 8400, from: hosts(200), late: 2100 * time.Millisecond}, perSec: 700, after: [3]int{60, 95, 100}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			scale := scale
			if scale > 1 {
				scale *= max(1, tt.scaled)
			}
			connected := tt.run(t, scale)
			n := max(1, tt.devices/scale)
			in := func(d time.Duration) int {
				i, _ := slices.BinarySearch(connected, d+1)
				return 100 * i / n
			}
			at := func(q float64) time.Duration {
				if i := int(q * float64(n)); i < len(connected) {
					return connected[i].Round(100 * time.Millisecond)
				}
				return -1
			}
			got := [3]int{in(time.Minute), in(5 * time.Minute), in(15 * time.Minute)}
			t.Logf("of %d after 1, 5, 15 minutes: %d, %d, %d %%; median %v, 99th percentile %v", n, got[0], got[1], got[2], at(0.5), at(0.99))
			slack := 0
			if raceEnabled { // of a handful of devices, one is many per cent
				slack = 2 * 100 / n
			}
			for i := range got {
				if got[i]+slack < tt.after[i] {
					t.Errorf("want %v %%", tt.after)
					break
				}
			}
		})
	}
}

// run returns when devices were connected, in order.
func (tt *overloadTest) run(t *testing.T, scale int) (connected []time.Duration) {
	o := &overload{rng: rand.New(rand.NewPCG(1, 2)), devices: make(map[netip.AddrPort]*device), loss: tt.loss}
	o.direct = newDirect(t, func(s *Server) {
		s.MaxHandshakes = max(5, cmp.Or(tt.limit, DefaultMaxHandshakes)/scale)
		s.MaxHandshakesPerSource = max(5, DefaultMaxHandshakesPerSource/scale)
		s.PSK = anyPSK
		if tt.hook > 0 {
			o.hooks = &slowHooks{o: o, takes: tt.hook}
			s.PSK = o.hooks.psk
		}
	})
	o.l.cfg.handler = NopHandler{}
	o.l.handshakes.coin = rand.New(rand.NewPCG(3, 4))
	n := max(1, tt.devices/scale)
	for i := range n {
		dev := &device{o: o, n: i, addr: tt.from(i), rtt: tt.rtt(i), constant: o.rng.IntN(2) == 0}
		dev.patience = 5*time.Second + time.Duration(o.rng.Int64N(int64(55*time.Second)))
		dev.patience = max(dev.patience, 5*dev.rtt)
		o.devices[dev.addr] = dev
		o.at(tt.within*time.Duration(i)/time.Duration(n), dev.begin)
	}
	if in := tt.intruder; in != nil {
		in.o, in.sources = o, max(1, in.sources/scale)
		in.each = time.Second * time.Duration(scale) / time.Duration(tt.perSec)
		o.at(0, in.run)
	}
	for minute := range 15 {
		o.run(time.Unix(1_700_000_000, 0).Add(time.Duration(minute+1) * time.Minute))
		connected = connected[:0]
		for _, dev := range o.devices {
			if dev.connected > 0 {
				connected = append(connected, dev.connected)
			}
		}
		if len(connected) == n {
			break
		}
	}
	slices.Sort(connected)
	stats := o.s.Stats()
	t.Logf("%d hellos verified and refused, %d handshakes gave way, %d began", stats.Dropped.Refused, stats.Dropped.Evicted, stats.HandshakesStarted)
	return connected
}

// slowHooks are calls of a PSKFunc that take their time, on the clock of o.
type slowHooks struct {
	o     *overload
	takes time.Duration
	mu    sync.Mutex // guards all following
	begun []chan struct{}
	known int // of begun, for how many an end is appointed
	over  int
}

func (h *slowHooks) psk(ctx context.Context, req PSKRequest) (PSK, error) {
	end := make(chan struct{})
	h.mu.Lock()
	h.begun = append(h.begun, end)
	h.mu.Unlock()
	<-end
	return anyPSK(ctx, req)
}

// settle waits until all questions that may be asked are, and appoints their
// ends.
func (h *slowHooks) settle() {
	for running := -1; running != h.running(); runtime.Gosched() {
		h.o.l.mu.Lock()
		running = h.o.l.hookLane.running
		if h.o.l.hookLane.starting {
			running = -1
		}
		h.o.l.mu.Unlock()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for ; h.known < len(h.begun); h.known++ {
		end := h.begun[h.known]
		h.o.at(h.takes, func() {
			h.over++
			close(end)
			for !h.o.l.hasWork() {
				runtime.Gosched()
			}
			h.o.l.housekeep(h.o.now)
			h.settle()
		})
	}
}

func (h *slowHooks) running() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.begun) - h.over
}
