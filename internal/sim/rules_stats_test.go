package sim

import (
	"errors"
	"runtime"
	"syscall"
	"time"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// The rules of figures: Stats is what the ledger counts, a datagram is dropped
// once, and nothing is beyond its bound.

// books are the ledger's own figures.
type books struct {
	before    dtlsserver.Stats // at the end of the last step
	received  uint64
	bytesIn   uint64
	sent      uint64
	bytesOut  uint64
	cookies   uint64
	opened    uint64
	closed    uint64
	failed    uint64
	delivered uint64
	full      uint64
	refused   uint64 // by the system
	dropped   uint64 // as events say
	junk      uint64
	starts    []time.Duration // of handshakes, the latest
	crowded   bool            // a hello was refused at MaxSessions
	stopped   bool            // KindStopped was told
	moved     uint64
	ranOut    bool // no connection ID was left
}

func (b *books) event(e *dtlsserver.Event) {
	switch e.Kind {
	case dtlsserver.KindHandshakeComplete:
		b.opened += e.Count
	case dtlsserver.KindSessionClosed:
		b.closed += e.Count
	case dtlsserver.KindHandshakeFailed, dtlsserver.KindEntropyFailed:
		b.failed += e.Count
	case dtlsserver.KindRecordDropped:
		b.dropped += e.Count
	case dtlsserver.KindUnexpectedDatagram:
		b.junk += e.Count
	}
}

// recordDrops are the records that were dropped, with an event for each.
func recordDrops(d *dtlsserver.Drops) uint64 {
	return d.Malformed + d.Epoch + d.Replayed + d.Forged + d.Unauthenticated + d.EarlyData + d.UnexpectedMessages + d.Limit + d.ConnectionIDs
}

// check compares Stats with the books, after each step.
func (l *ledger) check(s *stimulus, in *arrival, sent []packet, said []told) {
	b, w := &l.books, l.w
	now := in.stats
	before := b.before
	b.before = now
	if s.kind == "datagram" {
		b.received++
		b.bytesIn += uint64(len(s.parcel.b))
	}
	for i := range sent {
		p := &sent[i]
		switch {
		case p.err == nil:
			b.sent++
			b.bytesOut += uint64(len(p.b))
		case errors.Is(p.err, syscall.ENOBUFS):
			b.full++
		default:
			b.refused++
		}
	}
	b.cookies += uint64(in.answers)
	equal := func(name string, got, want uint64) {
		if got != want {
			l.violate("stats", nil, "Stats.%s is %d, the ledger has %d (%s)", name, got, want, s.kind)
		}
	}
	equal("DatagramsReceived", now.DatagramsReceived, b.received)
	equal("BytesReceived", now.BytesReceived, b.bytesIn)
	equal("DatagramsSent", now.DatagramsSent, b.sent)
	equal("BytesSent", now.BytesSent, b.bytesOut)
	equal("HelloVerifyRequests", now.HelloVerifyRequests, b.cookies)
	equal("Dropped.SendFull", now.Dropped.SendFull, b.full)
	equal("Dropped.SendFailed", now.Dropped.SendFailed, b.refused)
	if in.withoutCID && !b.ranOut {
		l.violate("cids", deviceOf(in.attempt), "got no connection ID")
	}
	equal("MessagesSent", now.MessagesSent, w.service.wrote())
	equal("MessagesReceived", now.MessagesReceived, b.delivered)
	if w.conn.ready() || b.stopped { // and not in the middle of something
		equal("PeersMoved", now.PeersMoved, b.moved)
		equal("HandshakesCompleted", now.HandshakesCompleted, b.opened)
		equal("SessionsClosed", now.SessionsClosed, b.closed)
		equal("Sessions", uint64(now.Sessions), b.opened-b.closed)
		if l.steps%64 == 0 {
			all := 0
			for range w.server.Sessions() {
				all++
			}
			equal("Sessions, by Sessions()", uint64(all), b.opened-b.closed)
		}
		equal("Handshakes", uint64(now.Handshakes), now.HandshakesStarted-now.HandshakesCompleted-now.HandshakesFailed)
	}
	l.checkDrops(s, in, &before.Dropped, &now.Dropped, &now)
	for range now.HandshakesStarted - before.HandshakesStarted {
		b.starts = append(b.starts, w.now())
	}
	for len(b.starts) > 0 && w.now()-b.starts[0] > w.handshakeTimeout() {
		b.starts = b.starts[1:]
	}
	l.checkBounds(&now)
}

// checkDrops judges what one datagram has added to the figures of what is
// dropped.
func (l *ledger) checkDrops(s *stimulus, in *arrival, before, now *dtlsserver.Drops, stats *dtlsserver.Stats) {
	if s.kind != "datagram" {
		return
	}
	whole := now.UnknownConnectionIDs - before.UnknownConnectionIDs + now.UnexpectedDatagrams + now.Truncated + now.ReplayedHellos + now.Refused - before.UnexpectedDatagrams - before.Truncated - before.ReplayedHellos - before.Refused
	dropped := recordDrops(now) + now.Closed + now.Repeated - recordDrops(before) - before.Closed - before.Repeated
	const kept = 2 * 32 // records, of two handshakes, that came before the keys, and are looked at now
	most := uint64(in.records) + 1
	if in.plain || l.w.has(slowHandler) { // whose loop may have taken a hook's answer too
		most += kept
	}
	if whole > 1 || dropped > most || whole+dropped > most {
		l.violate("drops", deviceOf(in.attempt), "a datagram of %d records was dropped %d times, and of its records %d", in.records, whole, dropped)
	}
	l.checkUnknown(in, before, now)
	if now.UnexpectedDatagrams > before.UnexpectedDatagrams {
		l.checkJunk(in)
	}
	if now.Refused > before.Refused && l.room(stats) {
		l.violate("refused", deviceOf(in.attempt), "a hello is refused, with %d sessions, %d handshakes and %d hooks", stats.Sessions, stats.Handshakes, l.w.service.waiting())
	}
}

// checkJunk: what a client says just after its session was closed, as when it
// answers close_notify, is no junk.
func (l *ledger) checkJunk(in *arrival) {
	a := in.attempt
	if a == nil || a.d == nil {
		return
	}
	for _, as := range l.sessions {
		if as.attempt == a && as.endedOn == l.w.conn && as.place != nil && as.place.addr == in.parcel.from && l.w.now()-as.endedAt < junkAfter {
			l.violate("warning", a.d, "what it says %v after its session was closed is told as junk", l.w.now()-as.endedAt)
		}
	}
}

// room reports whether a hello need not be refused.
func (l *ledger) room(stats *dtlsserver.Stats) bool {
	s := l.w.server
	sessions, hooks, all := s.MaxSessions, s.MaxHandshakesPerSource, s.MaxHandshakes
	if sessions == 0 {
		sessions = dtlsserver.DefaultMaxSessions
	}
	if hooks == 0 {
		hooks = dtlsserver.DefaultMaxHandshakesPerSource
	}
	if all > 0 {
		hooks = min(hooks, all)
	}
	if stats.Sessions >= sessions {
		l.books.crowded = true
	}
	return stats.Handshakes < hooks && stats.Sessions < sessions && l.w.service.waiting() < hooks && !l.w.closing
}

// checkBounds: nothing is beyond what Server's fields allow.
func (l *ledger) checkBounds(now *dtlsserver.Stats) {
	s := l.w.server
	bound := func(what string, is, most int) {
		if is > most {
			l.violate("bounds", nil, "%d %s, at most %d are allowed", is, what, most)
		}
	}
	if s.MaxHandshakes > 0 {
		bound("handshakes", now.Handshakes, s.MaxHandshakes)
	}
	if s.MaxSessions > 0 {
		bound("sessions", now.Sessions, s.MaxSessions)
	}
	if s.MaxHandshakesPerSource > 0 {
		bound("handshakes of so few sources", now.Handshakes, s.MaxHandshakesPerSource*len(l.sources))
	}
	if s.MaxHandshakeMemory > 0 {
		bound("bytes of handshakes", now.HandshakeMemory, s.MaxHandshakeMemory)
	}
	if l.w.standing == 0 && !l.w.has(slowHandler) {
		bound("handshakes that have begun in time", now.Handshakes, len(l.books.starts))
	}
	if now.Handshakes == 0 {
		bound("bytes of handshakes, of which there are none", now.HandshakeMemory, 0)
	}
	const own = 2 // of the runtime, which it counts while they clean up
	most := l.w.goroutines + l.w.service.waiting() + l.w.shutdowns + own
	if l.w.serving || !l.books.stopped {
		most++
	}
	if l.w.plan.bytes == nil { // the fuzzer has some of its own
		bound("goroutines", runtime.NumGoroutine(), most)
	}
}

// beforeEnd is called before the server is closed for the last time.
func (l *ledger) beforeEnd() {
	idle := l.w.idleTimeout() + time.Second
	for _, as := range l.sessions {
		if as.opened && !as.closed && l.w.now()-as.touched > idle && !l.w.has(junk) && !l.w.has(replay) {
			l.violate("idle", deviceOf(as.attempt), "open, though its client was heard last %v ago", l.w.now()-as.touched)
		}
	}
}

// junkAfter is how long what a client says of a closed session is no junk.
const junkAfter = 3 * time.Second

// end judges the whole.
func (l *ledger) end() {
	b := &l.books
	now := l.w.server.Stats()
	if now.Sessions != 0 || now.Handshakes != 0 || now.HandshakeMemory != 0 {
		l.violate("bounds", nil, "after the end there are %d sessions, %d handshakes, %d bytes", now.Sessions, now.Handshakes, now.HandshakeMemory)
	}
	if drops := recordDrops(&now.Dropped); drops != b.dropped {
		l.violate("stats", nil, "%d records were dropped, events tell of %d", drops, b.dropped)
	}
	if junk := now.Dropped.UnexpectedDatagrams + now.Dropped.UnknownConnectionIDs; junk != b.junk {
		l.violate("stats", nil, "%d datagrams were junk, events tell of %d", junk, b.junk)
	}
	if now.HandshakesFailed != b.failed {
		l.violate("stats", nil, "%d handshakes failed, events tell of %d", now.HandshakesFailed, b.failed)
	}
	l.judgeCauses()
}

// judgeCauses: who was refused, or has refused, is told with the right cause.
func (l *ledger) judgeCauses() {
	for _, a := range l.order {
		if a.d == nil || a.verified < 0 || l.w.now()-a.verified < l.w.handshakeTimeout() || l.w.disturbed() {
			continue
		}
		o := l.source(a.addr.Addr())
		switch {
		case a.refused && o.alerts[uint8(wire.AlertUnknownCA)] == 0 && !a.excused():
			l.violate("cause", a.d, "its alert %d is not told", wire.AlertUnknownCA)
		case a.pieces == 7 && (a.d.has(wrongKey) || a.d.has(unknownIdentity)) && o.wrongKeys == 0 && !a.excused():
			l.violate("cause", a.d, "its wrong key is not told")
		}
	}
}
