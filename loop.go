package dtlsserver

import (
	"cmp"
	"errors"
	"log/slog"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/engine"
	"github.com/dtlsserver/dtlsserver/internal/timers"
	"github.com/dtlsserver/dtlsserver/internal/udpio"
)

// loop serves one socket, from Listen or Serve to Close. One goroutine
// receives, routes, runs the timers and calls the handler; other goroutines
// come in through Session.Write and Close, Server.Close and the answers of the
// PSK hook.
//
// Locks are taken in this order: Server.mu, Session.mu of a successor,
// Session.mu of its predecessor, those of conn, loop.mu, outbox.mu. No lock is
// held while a handler or a hook runs.
type loop struct {
	cfg      *config
	counters *counters
	conn     *udpio.Conn
	outbox   outbox
	base     time.Time      // what sessions count time from; before anything happens to one
	before   *loop          // whose events must all have been delivered first; nil: none
	detach   func(*loop)    // takes the loop from its server
	stopped  chan struct{}  // closed when stop has done its work
	done     chan struct{}  // closed when run has returned
	hooks    sync.WaitGroup // the goroutines of the lanes
	asleep   atomic.Bool    // run waits for a datagram, or is about to
	woken    atomic.Bool    // wake has ended the wait

	loopOwned

	mu         sync.Mutex // guards all following
	tooLong    []*Session // the socket has refused datagrams to them for their length
	peers      peers
	closed     closedSessions
	sources    sources
	open       openSessions
	handshakes handshakes
	evictable  *Session // idle enough to give way at MaxSessions; nil: none was found
	hookLane   lane     // hooks, and keys that may block
	workLane   lane     // what only computes
	chainLane  lane     // the same, about clients' certificates
	answers    []answer
	closing    bool
	ended      bool          // nothing more is delivered
	reason     error         // why it closes
	drained    chan struct{} // not nil: no new peers; closed when no handshake is left
}

// loopOwned is what only the loop's goroutine touches.
type loopOwned struct {
	queues
	messages []udpio.Message
	plain    []byte // receives what records hold
	request  []byte // HelloVerifyRequest
	hellos   engine.HelloReader
	taken    []answer // room for the next answers
	called   bool     // the handler was called in this batch

	connectionIDs connectionIDs

	sleep

	now         time.Time  // when the datagrams or the timers under way came
	datagram    uint64     // the number of the datagram under way
	givingWay   []*Session // handshakes, for their memory
	alerts      int        // to addresses that are not proven, since
	alertsSince time.Time  // which lasts a second
}

// queues have the deadlines of all sessions. A session's timer is in one of the
// first two. Those of handshakes are set to what soon is, and hardly ever is due. To
// put them before those of many sessions, and take them out again, would be to look
// all over the memory.
type queues struct {
	pending timers.Queue[*Session] // of handshakes
	timers  timers.Queue[*Session] // of open sessions
	idle    timers.Queue[*Session] // open sessions, the longest silent first
}

// sleep is until when the loop waits for a datagram.
type sleep struct {
	deadline    time.Time // for reads; zero: none
	deadlineSet bool      // the socket has the deadline, and it has not come
	early       int       // reads in a row that timed out before their time
}

const (
	// closeWait is how long Close waits for a net.PacketConn whose writes
	// block.
	closeWait = time.Second
	// maxBatchTime is after how long, in handlers above all, timers and answers
	// of hooks do not wait for the rest of a batch.
	maxBatchTime = 10 * time.Millisecond
	// maxEarlyTimeouts is how many reads in a row may time out before their
	// time.
	maxEarlyTimeouts = 256
	// maxReadFailures is how often in a row the socket may fail.
	maxReadFailures = 16
	// staleHandshake is how long a handshake must have been waiting for the
	// client's first word before another hello from its address, with another
	// random, may take its place. It is longer than clients take to say
	// something again.
	staleHandshake = 5 * time.Second
)

// newLoop returns a loop for the socket, which it takes over.
func newLoop(cfg *config, counters *counters, pc net.PacketConn) (*loop, error) {
	l := &loop{
		cfg:      cfg,
		counters: counters,
		stopped:  make(chan struct{}),
		done:     make(chan struct{}),
		loopOwned: loopOwned{
			plain:         make([]byte, 0, udpio.MaxDatagram),
			request:       make([]byte, 0, 64),
			connectionIDs: connectionIDs{cfg: cfg},
		},
		base:     time.Now().Add(-time.Second),
		peers:    newPeers(),
		sources:  newSources(cfg.maxPerSource),
		open:     openSessions{identities: make(map[Identity]*identity)},
		hookLane: lane{most: cfg.maxHandshakes},
		workLane: lane{most: runtime.GOMAXPROCS(0)},
		// Clients decide how much there is to do.
		chainLane: lane{most: 1},
	}
	l.handshakes.coin = newCoin()
	var err error
	if l.conn, err = udpio.New(pc, l.sent); err != nil {
		pc.Close()
		return nil, err
	}
	l.messages = l.conn.NewMessages()
	_ = l.conn.SetBuffers(cfg.readBuffer, cfg.writeBuffer) // what the system gives is enough to run
	return l, nil
}

// since is t as sessions count time.
func (l *loop) since(t time.Time) time.Duration { return t.Sub(l.base) }

// sinceWall is since of a time of the wall clock, which may have been set since the
// loop began. It is never zero.
func (l *loop) sinceWall(now, t time.Time) time.Duration {
	return cmp.Or(l.since(now)+t.Sub(now), 1)
}

// time is the reverse of since.
func (l *loop) time(d time.Duration) time.Time { return l.base.Add(d) }

// run serves until the socket is closed and returns why.
func (l *loop) run() error {
	defer close(l.done)
	if l.before != nil {
		<-l.before.done
		l.before = nil
	}
	l.outbox.put(Event{Kind: KindListening, Time: time.Now(), Local: l.conn.LocalAddr()})
	failures, peersFailed := 0, 0
	for {
		l.sleepUntil(l.housekeep(time.Now()))
		l.asleep.Store(true)
		if l.hasWork() { // came after housekeep had looked
			l.asleep.Store(false)
			continue
		}
		n, err := l.conn.Receive(l.messages)
		l.asleep.Store(false)
		switch {
		case err == nil:
			failures, peersFailed, l.early = 0, 0, 0
			l.receiveBatch(time.Now(), l.messages[:n])
			if l.isRunningJobs() {
				// A hook that only looks into memory needs but its turn, and
				// then it need not wake the loop. What computes gets it also
				// when datagrams never cease.
				runtime.Gosched()
			}
		case l.isClosing():
			return l.finish(ErrServerClosed)
		case errors.Is(err, os.ErrDeadlineExceeded) && l.wasDue():
			l.deadlineSet = false
		case errors.Is(err, net.ErrClosed): // not by us
			return l.finish(err)
		case udpio.IsPeerError(err): // the network's word on what was sent to somebody
			l.deadlineSet = false
			l.outbox.put(Event{Kind: KindReadFailed, Time: time.Now(), Local: l.conn.LocalAddr(), Err: err})
			if peersFailed++; peersFailed%64 == 0 { // lest one that comes without end takes the processor
				time.Sleep(time.Millisecond)
			}
		default:
			l.deadlineSet = false
			l.outbox.put(Event{Kind: KindReadFailed, Time: time.Now(), Local: l.conn.LocalAddr(), Err: err})
			if failures++; failures == maxReadFailures {
				return l.finish(err)
			}
			time.Sleep(min(time.Millisecond<<failures, 100*time.Millisecond))
		}
	}
}

// housekeep does what is due by now, calls the handler, and says when it must
// be called next.
func (l *loop) housekeep(now time.Time) (next time.Time, ok bool) {
	l.now = now
	answers := l.takeAnswers()
	if len(answers) > 1 {
		l.conn.Hold()
		defer l.conn.Release()
	}
	for _, a := range answers {
		a.session.take(now, a.locked)
		l.endGivingWay()
		l.schedule(a.session)
		l.deliver()
	}
	clear(answers) // they may hold keys
	for _, s := range l.takeTooLong() {
		s.cutSmaller(now)
	}
	for _, q := range []*timers.Queue[*Session]{&l.pending, &l.timers} {
		for s, ok := q.Expire(now); ok; s, ok = q.Expire(now) {
			if next, ok := s.timeout(now); ok {
				q.Set(&s.timer, next)
			}
			l.deliver()
		}
	}
	for { // what is delivered may lead to more that is folded
		next, ok = l.outbox.flush(now, onlyDue)
		if !l.outbox.waiting() {
			break
		}
		l.deliver()
	}
	for _, q := range []*timers.Queue[*Session]{&l.pending, &l.timers} {
		if at, set := q.Next(); set && (!ok || at.Before(next)) {
			next, ok = at, true
		}
	}
	return next, ok
}

// sleepUntil makes the next Receive end at the time given, or never. A
// deadline that comes too early does no harm, so most calls change nothing.
func (l *loop) sleepUntil(at time.Time, ok bool) {
	if !ok {
		at = time.Time{}
	}
	later := !l.deadline.IsZero() && (at.IsZero() || at.After(l.deadline))
	if l.deadlineSet && (later || at.Equal(l.deadline)) {
		return
	}
	l.deadline, l.deadlineSet = at, true
	_ = l.conn.SetReadDeadline(at) // fails only when closed, which Receive says
}

// wake ends the loop's sleep.
func (l *loop) wake() {
	if l.asleep.Load() {
		l.woken.Store(true)
		_ = l.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// wasDue reports whether a read was to end now, by the deadline or by wake. A
// net.PacketConn may also time out of itself. A few such timeouts in a row are
// borne, since of several goroutines that wake the loop the last may come late;
// more are a failure.
func (l *loop) wasDue() bool {
	woken := l.woken.Swap(false)
	if woken || l.deadlineSet && !l.deadline.IsZero() && !time.Now().Before(l.deadline) {
		l.early = 0
		return true
	}
	l.early++
	return l.early < maxEarlyTimeouts
}

// isRunningJobs reports whether a job runs in a lane.
func (l *loop) isRunningJobs() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hookLane.busy() || l.workLane.busy() || l.chainLane.busy()
}

// hasWork reports whether somebody has left work for the loop.
func (l *loop) hasWork() bool {
	l.mu.Lock()
	waiting := len(l.answers) > 0 || len(l.tooLong) > 0
	l.mu.Unlock()
	return waiting || l.outbox.waiting()
}

// deliver calls the handler with what is in the outbox.
func (l *loop) deliver() {
	h := l.cfg.handler
	for {
		it, ok := l.outbox.take()
		if !ok {
			return
		}
		switch it.kind {
		case itemData:
			l.counters.messagesReceived.Add(1)
			h.DatagramReceived(it.session, it.cipherText, it.plainText)
			l.called = true
		case itemSooner:
			if at, _, ok := it.session.deadline(); ok {
				l.timers.SetNoLater(&it.session.timer, at)
			}
		case itemGone:
			l.timersOf(it.session).Unset(&it.session.timer)
			l.idle.Unset(&it.session.idle)
		case itemEvent:
			tell(h, *it.event)
			l.called = true
			if it.event.Kind == KindHandshakeComplete {
				it.event.Session.releaseCertificates()
			}
		}
	}
}

// tell calls the method of the handler that the event's kind belongs to.
func tell(h EventHandler, ev Event) {
	switch ev.Kind.Level() {
	case slog.LevelError:
		h.Error(ev)
	case slog.LevelWarn:
		h.Warning(ev)
	default:
		h.Info(ev)
	}
}

// schedule sets the session's timer to what it waits for. The deadlines of an
// open session only move on, which its timer finds out when it comes up.
func (l *loop) schedule(s *Session) {
	if s.settled {
		return
	}
	at, complete, ok := s.deadline()
	switch {
	case !ok:
	case complete:
		l.pending.Unset(&s.timer)
		s.settled = true
		l.timers.Set(&s.timer, at)
		l.makeRoom(s)
	default:
		l.pending.SetNoLater(&s.timer, at)
	}
}

// timersOf is where the session's timer is, if it is set.
func (l *loop) timersOf(s *Session) *timers.Queue[*Session] {
	if s.settled {
		return &l.timers
	}
	return &l.pending
}

// sent notes what became of a datagram.
func (l *loop) sent(d udpio.Sent) {
	switch {
	case d.Err == nil:
		l.counters.datagramsSent.Add(1)
		l.counters.bytesSent.Add(uint64(d.Len))
		return
	case d.Err == udpio.ErrFull:
		l.counters.drop(dropSendFull)
	default:
		l.counters.drop(dropSendFailed)
	}
	l.mu.Lock()
	// Under this lock, nothing is raised for a session after its end.
	s := l.peers.lookup(d.Remote, d.Local)
	raised := s != nil && !l.closing
	switch {
	case !raised:
	case d.Err == udpio.ErrFull:
		l.outbox.put(s.event(Event{Kind: KindWriteDropped}))
	default:
		l.outbox.put(s.event(Event{Kind: KindWriteFailed, Err: d.Err}))
		if d.Err == udpio.ErrTooLong {
			f := l.familyLocked(s.remote, s.local.Addr())
			for _, s := range []*Session{f.first, f.second, f.open} {
				l.noteTooLongLocked(s, d.Len)
			}
		}
	}
	l.mu.Unlock()
	if raised {
		l.wake()
	}
}

// noteTooLongLocked notes that the socket has refused a datagram for its length. It
// may be of a handshake, which has a way to go on.
func (l *loop) noteTooLongLocked(s *Session, length int) {
	if s == nil || length > l.cfg.engine.MTU {
		return
	}
	if s.refused == 0 {
		l.tooLong = append(l.tooLong, s)
	}
	s.refused = max(s.refused, uint16(length))
}

// takeTooLong takes the sessions that noteTooLongLocked has noted.
func (l *loop) takeTooLong() []*Session {
	l.mu.Lock()
	defer l.mu.Unlock()
	sessions := l.tooLong
	l.tooLong = nil
	return sessions
}

// leave puts an event into the outbox, unless run has ended.
func (l *loop) leave(ev Event) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return false
	}
	l.outbox.put(ev)
	return true
}

// stop closes every session for the reason, telling the peers, and then the
// socket, which ends run. Only the first call does anything.
func (l *loop) stop(reason error) error {
	l.mu.Lock()
	if l.closing {
		l.mu.Unlock()
		return nil
	}
	l.closing, l.reason = true, reason
	l.mu.Unlock()
	defer close(l.stopped)
	l.conn.StopWaiting(time.Now().Add(closeWait))
	for _, s := range l.everySession() {
		s.end(reason, withCloseNotify)
	}
	return l.conn.Close()
}

// finish ends run: it closes what is left and delivers the rest.
func (l *loop) finish(reason error) error {
	l.detach(l) // whoever hears of the end may Listen anew
	_ = l.stop(reason)
	<-l.stopped // another may be telling the peers
	l.mu.Lock()
	reason = l.reason
	l.mu.Unlock()
	for _, s := range l.everySession() { // begun while stop was under way
		s.end(reason, silently)
	}
	now := time.Now()
	l.outbox.flush(now, everything)
	l.deliver()
	stopped := Event{Kind: KindStopped, Time: now, Local: l.conn.LocalAddr()}
	if reason != ErrServerClosed {
		stopped.Err = reason
	}
	l.outbox.put(stopped)
	for {
		l.deliver()
		l.mu.Lock()
		l.ended = !l.outbox.waiting()
		l.mu.Unlock()
		if l.ended { // written by this goroutine only
			return reason
		}
	}
}
