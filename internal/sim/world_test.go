package sim

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/dtlsserver/dtlsserver"
)

// world is one run: a server and all that it meets. One goroutine, that of the
// test, does everything but what the server does with its own. It gives the
// server one stimulus, waits until nothing moves, and looks at what came of it.
type world struct {
	plan  plan
	drawn drawn
	t     *testing.T
	began time.Time
	queue queue
	trace trace

	server  *dtlsserver.Server
	service *service
	conn    *conn
	stopped chan error // what Serve returned
	serving bool
	closing bool // the operator closes the server
	over    bool // the run ends
	ledger  *ledger
	network *network
	devices []*device

	backlog    []*parcel // that the socket has and the server has not read
	polling    *event
	standing   time.Duration // the machine stands still until then
	nightFrom  time.Duration
	nightTo    time.Duration
	calls      []*call // hooks that the world keeps waiting
	goroutines int     // when there was no server

	attackers  *attackers
	ports      int // that the shared NAT has given out
	shutdowns  int // goroutines of them
	socketFull bool
	rotations  int
	rotated    time.Duration // when the last was

	cidLen            int // of the server's connection IDs; zero: it gives none
	secret, oldSecret []byte
	ticketKey         byte
	judged            time.Duration // when the last device must be served
}

// outcome is what has come of a run.
type outcome struct {
	found     []violation
	hash      uint64
	lasted    time.Duration // virtual
	datagrams int
	trace     []string
	devices   int
	traits    map[int]traits // of devices
	drawn     drawn
	stats     dtlsserver.Stats
	crowded   bool             // a hello was refused at MaxSessions
	served    []time.Duration  // when devices were answered first
	been      map[int][]string // by which a device is named in the trace
}

// run runs a plan.
func run(t *testing.T, p plan, tracing bool) (o outcome) {
	makeFixtures(t)
	synctest.Test(t, func(t *testing.T) {
		cryptotest.SetGlobalRandom(t, p.seed)
		w := newWorld(t, p, tracing)
		w.run()
		slices.SortStableFunc(w.ledger.found, func(a, b violation) int { // some come in the order of a map
			return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Device, b.Device), cmp.Compare(a.Text, b.Text))
		})
		o = outcome{
			found: w.ledger.found, hash: w.trace.hash.Sum64(), lasted: w.now(), datagrams: w.ledger.datagrams,
			trace: w.trace.lines, devices: len(w.devices), traits: make(map[int]traits), drawn: w.drawn,
			stats: w.server.Stats(), crowded: w.ledger.books.crowded, been: make(map[int][]string),
		}
		for _, d := range w.devices {
			if d != nil {
				o.traits[d.id] = d.traits
				if d.connected > 0 {
					o.served = append(o.served, d.connected)
				}
				o.been[d.id] = append(d.been, d.name()+" ", d.name()+":", d.name()+")")
			}
		}
	})
	return o
}

func newWorld(t *testing.T, p plan, tracing bool) *world {
	w := &world{plan: p, t: t, began: time.Now(), goroutines: runtime.NumGoroutine()}
	w.drawn = w.plan.draw()
	w.trace = newTrace(tracing)
	w.note("the world has %v; clients may have %v; the network heals after %v", w.drawn.features, w.drawn.traits, w.drawn.storm)
	w.ledger = newLedger(w)
	w.network = newNetwork(w)
	quiet := plan{seed: p.seed} // they are asked by several goroutines
	w.service = &service{w: w, r: newChoices(&quiet, "handler", 0), h: newChoices(&quiet, "hooks", 0), keys: make(map[string][]byte)}
	w.service.e, w.service.g = newChoices(&quiet, "addresses", 0), newChoices(&quiet, "connection IDs", 0)
	w.service.probes = make(map[*dtlsserver.Session]probe)
	w.server = w.newServer()
	w.trace.knows(w.cidLen)
	if w.has(night) {
		c := w.choices("night", 0)
		w.nightFrom = c.span(5*time.Second, w.drawn.storm)
		w.nightTo = w.nightFrom + c.span(30*time.Minute, 8*time.Hour)
		w.drawn.storm += w.nightTo - w.nightFrom
	}
	for id := range w.drawn.devices {
		d := newDevice(w, id) // the others' addresses do not depend on who is left out
		if p.devices != nil && !slices.Contains(p.devices, id) {
			d = nil
		}
		w.devices = append(w.devices, d)
	}
	return w
}

func (w *world) choices(of string, n int) *choices { return newChoices(&w.plan, of, n) }

func (w *world) has(f feature) bool { return w.drawn.features.has(f) }

// now is the time since the beginning of the world.
func (w *world) now() time.Duration { return time.Since(w.began) }

// stormy reports whether the network has not healed yet.
func (w *world) stormy() bool { return w.now() < w.drawn.storm }

// night reports whether everybody is to be silent, and until when.
func (w *world) night() (until time.Duration, silent bool) {
	now := w.now()
	return w.nightTo, w.has(night) && now >= w.nightFrom && now < w.nightTo
}

func (w *world) after(d time.Duration, what func()) *event { return w.queue.add(w.now()+d, what) }

// note writes a line of the trace.
func (w *world) note(format string, args ...any) {
	if w.trace.on {
		w.trace.line(w.now(), fmt.Sprintf(format, args...))
	}
}

var serverAddr = netip.MustParseAddrPort("192.0.2.1:5684")

// serve has the server serve on a new socket.
func (w *world) serve() {
	addr := serverAddr
	if w.has(ipv6) {
		addr = netip.AddrPortFrom(netip.IPv6Unspecified(), serverAddr.Port())
	}
	w.conn = newConn(addr, w.network.systemLimit)
	for _, p := range w.backlog {
		p.lose()
	}
	w.backlog, w.closing = nil, false
	stopped := make(chan error, 1)
	w.stopped = stopped
	go func(c *conn) { stopped <- w.server.Serve(c) }(w.conn)
	w.serving = true
	w.settle(stimulus{kind: "serve"})
}

// run lets the world be until everything is judged.
func (w *world) run() {
	w.serve()
	for _, d := range w.devices {
		if d != nil {
			w.queue.add(d.begins, d.begin)
		}
	}
	w.queue.add(w.drawn.storm, w.heal)
	w.operate()
	w.attack()
	const longest = 200_000 // events
	for n := 0; n < longest; n++ {
		at, timer := w.nextTimer()
		e := w.queue.next()
		if e != nil && (!timer || e.at < at) {
			w.queue.take()
			w.sleepUntil(e.at)
			e.what()
		} else if !timer { // nothing will happen any more
			w.sleepUntil(w.judged + 1)
		} else {
			w.sleepUntil(at)
			w.conn.expire()
			w.settle(stimulus{kind: "timer"})
		}
		if w.judged > 0 && w.now() > w.judged {
			break
		}
		if n == longest-1 {
			w.ledger.violate("ends", nil, "%d events", n)
		}
	}
	w.end()
}

// nextTimer is when the server's read times out.
func (w *world) nextTimer() (at time.Duration, ok bool) {
	due, ok := w.conn.due()
	if !ok {
		return 0, false
	}
	return max(due.Sub(w.began), w.now(), w.standing), true
}

// sleepUntil lets time pass. What the server does meanwhile of itself, as when
// its handler has slept, is over then.
func (w *world) sleepUntil(at time.Duration) {
	if d := at - w.now(); d > 0 {
		time.Sleep(d)
	}
	w.settle(stimulus{kind: "self"})
}

// settle waits until nothing moves, and looks at what has come of a stimulus.
func (w *world) settle(s stimulus) {
	synctest.Wait()
	sent := w.conn.take()
	said, calls := w.service.take()
	if s.kind == "self" && len(sent) == 0 && len(said) == 0 && len(calls) == 0 {
		return
	}
	w.ledger.step(&s, sent, said)
	for i := range sent {
		if sent[i].err == nil {
			w.network.fromServer(&sent[i])
		}
	}
	for _, c := range calls {
		w.hold(c)
	}
	if w.serving {
		select {
		case err := <-w.stopped:
			w.serving = false
			if !w.closing || !errors.Is(err, dtlsserver.ErrServerClosed) {
				w.ledger.violate("serves", nil, "Serve returned %v", err)
			}
			if !w.over {
				w.after(500*time.Millisecond, w.serve)
			}
		default:
		}
	}
	w.pump()
}

// arrive is a datagram that comes to the server's socket.
func (w *world) arrive(p *parcel) {
	const room = 256 // datagrams
	if !w.serving || len(w.backlog) >= room {
		p.lose()
		return
	}
	if a := p.attempt; w.has(reusesPorts) && p.genuine && a != nil && a.d != nil && a.d.mapped != p.from {
		w.attackers.harms(p.from, p.b) // whose address it is now
	}
	p.came = true
	w.backlog = append(w.backlog, p)
	w.pump()
}

// pump gives the server one datagram after the other while it reads.
func (w *world) pump() {
	for len(w.backlog) > 0 && w.serving {
		if w.now() < w.standing || !w.conn.ready() {
			if w.polling == nil { // it does not say when it will read again
				w.polling = w.after(max(time.Millisecond, w.standing-w.now()), func() {
					w.polling = nil
					w.pump()
				})
			}
			return
		}
		p := w.backlog[0]
		w.backlog = w.backlog[1:]
		w.conn.grant(&packet{remote: p.from, b: p.b})
		w.settle(stimulus{kind: "datagram", parcel: p})
	}
}

// hold keeps a hook waiting for a while.
func (w *world) hold(c *call) {
	r := w.choices("call", len(w.calls))
	w.calls = append(w.calls, c)
	delay := r.span(0, w.hookDelay())
	w.note("hook %s for %v runs, and will take %v", c.what, c.remote, delay)
	if w.has(hangingHooks) && w.stormy() && r.chance(0.2) {
		delay = 10 * time.Minute
	}
	w.after(delay, func() {
		c.answered = true
		close(c.answer)
		w.settle(stimulus{kind: "hook"})
	})
}

// hookDelay is how long hooks take that do not hang.
func (w *world) hookDelay() time.Duration {
	if w.has(slowHooks) {
		return 4 * time.Second
	}
	return time.Millisecond
}

// heal ends the storm: from now on all that is honest must be served.
func (w *world) heal() {
	w.note("the network heals")
	w.setFull(false)
	w.judged = w.now() + time.Second
	if w.plan.fleet != nil {
		return
	}
	for _, d := range w.devices {
		if d != nil {
			d.heal()
		}
	}
}

// end closes the server and has the ledger judge the whole.
func (w *world) end() {
	w.note("the end: the operator closes the server")
	w.over, w.closing, w.standing = true, true, 0
	w.ledger.beforeEnd()
	w.server.Close()
	w.settle(stimulus{kind: "close"})
	for w.serving { // its handler may be asleep
		time.Sleep(time.Second)
		w.settle(stimulus{kind: "close"})
	}
	for _, c := range w.calls {
		if !c.answered {
			close(c.answer)
		}
	}
	synctest.Wait()
	w.ledger.end()
}
