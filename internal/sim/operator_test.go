package sim

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/dtlsserver/dtlsserver"
)

// What the operator, the service and the machine do, in the storm.

// operate schedules it.
func (w *world) operate() {
	do := func(f feature, times int, what func(c *choices)) {
		c := w.choices(f.String()+" at", 0)
		for range times {
			at := c.span(2*time.Second, w.drawn.storm)
			if w.has(f) {
				w.queue.add(at, func() {
					if w.stormy() {
						what(c)
					}
				})
			}
		}
	}
	do(closes, 2, func(*choices) { w.close() })
	do(shutsDown, 1, func(*choices) { w.shutDown() })
	do(rotates, 3, func(c *choices) { w.rotate(c) })
	do(suspends, 1, func(c *choices) {
		w.standing = min(w.now()+c.span(time.Second, 30*time.Second), w.drawn.storm)
		w.note("the machine stands still until %v", w.standing)
	})
	do(fullSocket, 3, func(c *choices) {
		w.note("the socket is full")
		w.setFull(true)
		w.after(c.span(100*time.Millisecond, 4*time.Second), func() { w.setFull(false) })
	})
	do(readErrors, 3, func(c *choices) {
		w.sleepUntil(w.now() + 500) // apart from all else, since the loop sleeps of itself then
		n := 1 + c.below(24)
		w.note("%d reads fail, for peers that are gone", n)
		w.conn.fail(n)
		w.settle(stimulus{kind: "fail"})
	})
	do(serverSpeaks, 20, func(c *choices) {
		if s := w.anySession(c); s != nil {
			w.note("the service writes to %v", s)
			w.service.write(s, []byte("the service speaks"))
			w.settle(stimulus{kind: "write"})
		}
	})
	do(serverHangsUp, 5, func(c *choices) {
		if s := w.anySession(c); s != nil {
			w.note("the service closes the session of %v", s)
			s.Close()
			w.settle(stimulus{kind: "write"})
		}
	})
}

func (w *world) setFull(full bool) {
	w.socketFull = full
	w.conn.setFull(full)
}

// anySession returns an open session, or nil.
func (w *world) anySession(c *choices) *dtlsserver.Session {
	all := slices.SortedFunc(w.server.Sessions(), func(a, b *dtlsserver.Session) int {
		return cmp.Or(a.RemoteAddr().Compare(b.RemoteAddr()), cmp.Compare(w.ledger.number(a), w.ledger.number(b)))
	})
	if len(all) == 0 {
		return nil
	}
	return all[c.below(len(all))]
}

func (w *world) close() {
	if !w.serving || w.closing {
		return
	}
	w.note("the operator closes the server")
	w.closing = true
	w.server.Close()
	w.settle(stimulus{kind: "close"})
}

// shutdown is how long the operator waits for Shutdown at most.
const shutdown = 10 * time.Second

func (w *world) shutDown() {
	if !w.serving || w.closing {
		return
	}
	w.note("the operator shuts the server down")
	w.closing = true
	ctx, cancel := context.WithCancel(context.Background())
	w.shutdowns += 2
	go func() { _ = w.server.Shutdown(ctx) }()
	w.settle(stimulus{kind: "close"})
	w.after(shutdown, func() {
		cancel()
		w.settle(stimulus{kind: "close"})
		w.shutdowns -= 2
	})
}

// rotate replaces the secret of cookies and the ticket keys. What was made with
// the last ones is still good.
func (w *world) rotate(c *choices) {
	if w.rotations > 0 && w.now()-w.rotated < 2*time.Minute {
		return // the last but one would be gone too soon
	}
	w.rotated = w.now()
	w.note("the operator rotates the secrets")
	next := make([]byte, 32)
	for i := range next {
		next[i] = byte(c.below(256))
	}
	w.secret, w.oldSecret = next, w.secret
	if err := w.server.Verifier.SetSecret(w.secret, w.oldSecret); err != nil {
		panic(err)
	}
	w.ticketKey++
	w.rotations++
	w.server.SetSessionTicketKeys([32]byte{w.ticketKey}, [32]byte{w.ticketKey - 1})
}

// idleTimeout is the server's.
func (w *world) idleTimeout() time.Duration {
	if w.server.IdleTimeout != 0 {
		return w.server.IdleTimeout
	}
	return dtlsserver.DefaultIdleTimeout
}

func (w *world) handshakeTimeout() time.Duration {
	return dtlsserver.DefaultHandshakeTimeout + time.Second
}

// disturbed reports whether handshakes may have ended otherwise than their
// clients had it.
func (w *world) disturbed() bool {
	for _, f := range []feature{closes, shutsDown, suspends, slowHandler, failingHooks, hangingHooks, slowHooks, fullSocket, readErrors} {
		if w.has(f) {
			return true
		}
	}
	return w.server.Stats().Dropped.Evicted > 0 || w.server.Stats().Dropped.Refused > 0
}

// crowded reports whether there are more who have a key than sessions may be
// open.
func (w *world) crowded() bool {
	keys := w.drawn.devices
	for _, f := range []feature{insider, wanderer} {
		if w.has(f) {
			keys++
		}
	}
	for _, d := range w.devices {
		if d != nil && d.has(roams) && d.sharesIdentity() { // two addresses are two of no identity
			keys++
		}
	}
	return w.server.MaxSessions > 0 && w.server.MaxSessions < keys
}

// queueing is how much longer a device may have to wait when there are more
// than the server takes at a time: its own timer, which has grown meanwhile, and
// for each part of them that is served together, two round trips and the hooks. The
// handshakes whose hooks hang are there until they time out.
func (w *world) queueing(d *device) time.Duration {
	room, all := w.server.MaxHandshakes, 0
	if d.nat && w.server.MaxHandshakesPerSource > 0 {
		room = min(room, w.server.MaxHandshakesPerSource)
	}
	const taken = 4 << 10 // bytes, by a client's certificate
	if most := w.server.MaxHandshakeMemory; w.has(asksClients) && most > 0 && room > 0 {
		room = min(room, most/taken)
	}
	if room == 0 {
		return 0
	}
	if hung := w.drawn.storm + w.handshakeTimeout() - w.now(); w.has(hangingHooks) && hung > 0 {
		return hung + d.giveUp + 2*d.roundTrip()
	}
	var slowest time.Duration
	for _, other := range w.devices {
		if other != nil {
			all++
			slowest = max(slowest, other.roundTrip())
		}
	}
	waves := (all + room - 1) / room
	if waves < 2 {
		return 0
	}
	return d.giveUp + time.Duration(waves)*(2*slowest+3*w.hookDelay())
}
