package main

// The books: what clients have sent, what the handler was told, and whether the
// two agree.

import (
	"encoding/binary"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/dtlsserver/dtlsserver"
)

// A message is an operation, the number of its account, its own number, and
// padding that depends on all of them.
const messageHeader = 1 + 8 + 8

type operation uint8

const (
	opEcho   operation = iota // answer
	opPush                    // answer, and send pushes from another goroutine
	opBye                     // answer, and close the session from the handler
	opCut                     // answer, and have the session closed at any time
	opPushed                  // of the server
	numOperations
)

// pushes is how many datagrams opPush asks for.
const pushes = 16

func appendMessage(b []byte, op operation, account, number uint64, padding int) []byte {
	b = append(b, byte(op))
	b = binary.BigEndian.AppendUint64(b, account)
	b = binary.BigEndian.AppendUint64(b, number)
	for i := range padding {
		b = append(b, paddingByte(account, number, i))
	}
	return b
}

func paddingByte(account, number uint64, i int) byte {
	return byte(account*31 + number*7 + uint64(i))
}

func parseMessage(b []byte) (op operation, account, number uint64, ok bool) {
	if len(b) < messageHeader || b[0] >= byte(numOperations) {
		return 0, 0, 0, false
	}
	op, account, number = operation(b[0]), binary.BigEndian.Uint64(b[1:]), binary.BigEndian.Uint64(b[9:])
	for i, c := range b[messageHeader:] {
		if c != paddingByte(account, number, i) {
			return 0, 0, 0, false
		}
	}
	return op, account, number, true
}

// account is what is known of the exchange of one client.
type account struct {
	id uint64
	// strict: nothing may be missing. Otherwise the session may end while
	// datagrams are under way.
	strict bool
	sent   int // by the client, whose own it is until ended

	ended, closed bool // the client, and its session; guarded by ledger.mu

	mu        sync.Mutex // guards all following
	seen      []bool     // by number
	delivered int
	answered  int // echoes that Write took
	pushed    int // and pushes
}

func (a *account) deliver(number uint64) (first bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for uint64(len(a.seen)) <= number {
		a.seen = append(a.seen, false)
	}
	if a.seen[number] {
		return false
	}
	a.seen[number] = true
	a.delivered++
	return true
}

// written returns how many answers Write has taken.
func (a *account) written() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.answered + a.pushed
}

// ledger is the server's handler.
type ledger struct {
	faults  *faults
	events  [256]atomic.Uint64 // by kind, folded ones counted
	pushing sync.WaitGroup

	delivered, echoed, pushed, full, refused atomic.Uint64
	opened, garbage                          atomic.Int64
	stopped                                  atomic.Bool

	mu       sync.Mutex // guards all following
	lastID   uint64
	accounts map[uint64]*account
	loose    uint64            // datagrams that forgotten accounts miss
	reasons  map[string]uint64 // why sessions ended
	failures map[string]uint64 // and handshakes; folded ones count as the latest
}

func newLedger(f *faults) *ledger {
	return &ledger{faults: f, accounts: make(map[uint64]*account), reasons: make(map[string]uint64), failures: make(map[string]uint64)}
}

func (l *ledger) open(strict bool) *account {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lastID++
	a := &account{id: l.lastID, strict: strict}
	l.accounts[a.id] = a
	return a
}

// settle notes that the client has sent its last datagram, or else that its
// session is closed. An account is forgotten when everything has arrived, and
// when nothing more can. What strict ones still miss, the end judges.
func (l *ledger) settle(a *account, ended bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ended {
		a.ended = true
	} else {
		a.closed = true
	}
	if !a.ended {
		return // sent is the client's
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch missing := a.sent - a.delivered; {
	case missing == 0:
		delete(l.accounts, a.id)
	case a.closed && !a.strict:
		l.loose += uint64(missing)
		delete(l.accounts, a.id)
	}
}

// missing returns how many datagrams were sent and not delivered, of strict
// accounts and of others.
func (l *ledger) missing() (strict, other uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	other = l.loose
	for _, a := range l.accounts {
		a.mu.Lock()
		n := uint64(a.sent - a.delivered)
		a.mu.Unlock()
		if a.strict {
			strict += n
		} else {
			other += n
		}
	}
	return strict, other
}

// reason returns how many sessions ended for a reason.
func (l *ledger) reason(err error) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reasons[err.Error()]
}

// association is the value of a session: the handler's own but for cut. No two
// calls about a session run at a time, so it has no lock, and the race detector
// checks that promise.
type association struct {
	cut     atomic.Bool // it may be closed at any time
	closed  bool
	account *account // nil: nothing has come
}

func (l *ledger) Error(e dtlsserver.Event) {
	l.count(e)
	if e.Kind != dtlsserver.KindPSKFailed {
		l.faults.add("event %v", e)
	}
}

func (l *ledger) Warning(e dtlsserver.Event) {
	l.count(e)
	switch e.Kind {
	case dtlsserver.KindHandshakeFailed:
		l.mu.Lock()
		l.failures[e.Err.Error()] += e.Count
		l.mu.Unlock()
	case dtlsserver.KindLimitReached:
		l.faults.add("event %v", e)
	}
}

func (l *ledger) Info(e dtlsserver.Event) {
	l.count(e)
	switch e.Kind {
	case dtlsserver.KindHandshakeComplete:
		if e.Session.Value() != nil {
			l.faults.add("%v: complete twice", e.Session)
		}
		e.Session.SetValue(&association{})
		l.opened.Add(1)
		runtime.AddCleanup(e.Session, func(n *atomic.Int64) { n.Add(1) }, &l.garbage)
	case dtlsserver.KindSessionClosed:
		as, ok := e.Session.Value().(*association)
		if !ok || as.closed {
			l.faults.add("%v: closed twice, or before it was complete", e.Session)
			return
		}
		as.closed = true
		if as.account != nil {
			l.settle(as.account, false)
		}
		l.mu.Lock()
		l.reasons[e.Err.Error()]++
		l.mu.Unlock()
	case dtlsserver.KindStopped:
		l.stopped.Store(true)
	}
}

func (l *ledger) count(e dtlsserver.Event) {
	l.events[e.Kind].Add(e.Count)
	if l.stopped.Load() {
		l.faults.add("told after KindStopped: %v", e)
	}
}

// DatagramReceived answers and keeps the books.
func (l *ledger) DatagramReceived(s *dtlsserver.Session, _, plain []byte) {
	l.delivered.Add(1)
	as, ok := s.Value().(*association)
	if !ok || as.closed || l.stopped.Load() {
		l.faults.add("%v: delivered outside of the session's life", s)
		return
	}
	op, id, number, ok := parseMessage(plain)
	if !ok {
		l.faults.add("%v: delivered %d bytes that nobody has sent", s, len(plain))
		return
	}
	if as.account == nil {
		l.mu.Lock()
		as.account = l.accounts[id]
		l.mu.Unlock()
	}
	if as.account == nil || as.account.id != id {
		l.faults.add("%v: delivered datagram %d of account %d, which is not the session's", s, number, id)
		return
	}
	if !as.account.deliver(number) {
		l.faults.add("%v: datagram %d of account %d delivered twice", s, number, id)
	}
	if op == opCut {
		as.cut.Store(true)
	}
	if l.write(s, plain) {
		l.echoed.Add(1)
		as.account.mu.Lock()
		as.account.answered++
		as.account.mu.Unlock()
	}
	switch op {
	case opPush:
		account := as.account
		l.pushing.Go(func() { l.push(s, account) })
	case opBye:
		s.Close()
	}
}

// push writes while the loop does what it does.
func (l *ledger) push(s *dtlsserver.Session, a *account) {
	for number := range uint64(pushes) {
		if l.write(s, appendMessage(nil, opPushed, a.id, number, 100)) {
			l.pushed.Add(1)
			a.mu.Lock()
			a.pushed++
			a.mu.Unlock()
		}
	}
}

// write writes to the session and counts what becomes of it.
func (l *ledger) write(s *dtlsserver.Session, b []byte) bool {
	switch _, err := s.Write(b); {
	case err == nil:
		return true
	case errors.Is(err, dtlsserver.ErrWriteDropped):
		l.full.Add(1)
	case errors.Is(err, dtlsserver.ErrSessionClosed), errors.Is(err, dtlsserver.ErrServerClosed):
		l.refused.Add(1)
	default:
		l.faults.add("%v: Write: %v", s, err)
	}
	return false
}

// collected reports whether every session that was open is garbage. One that is
// not is still held by something: the peers, the timers, the outbox, a hook.
func (l *ledger) collected() bool {
	runtime.GC()
	return l.garbage.Load() == l.opened.Load()
}
