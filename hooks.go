package dtlsserver

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/engine"
)

// The hooks of a Server (PSK, GetCertificate, VerifyConnection), and public key
// cryptography, run off the loop, in a bounded number of goroutines. What they
// answer is taken up on the loop.

// question is what a handshake waits for, one at a time.
type question struct {
	session *Session
	ask     ask
	ctx     context.Context // for ask: nil when it only computes
	end     context.CancelCauseFunc

	lane     *lane
	asker    *asker
	ofAsker  ring[question] // those that wait
	asked    bool           // it is being asked
	holds    int            // bytes of handshake memory, of what it asks about
	orphaned bool           // its handshake has ended
}

// ask is called in a goroutine without a lock. What it returns is called on the
// loop, with the session's lock.
type ask func(context.Context) (answerLocked func(now time.Time))

// answer is what has come of a question.
type answer struct {
	session *Session
	locked  func(now time.Time)
}

// lane is where questions of a kind are asked. There are three, so that those that
// only compute, of which more than there are processors would keep each other
// and the loop from running, do not hold up the hooks, which may block, nor
// these those, and the certificates of some clients not the others' key
// exchange.
type lane struct {
	most     int   // questions that are asked at a time
	asking   int   // some of which may be of handshakes that have ended
	waiting  turns // the others
	starting bool  // a goroutine that has no question yet is on its way
}

// busy reports whether a question is being asked, or will be.
func (lane *lane) busy() bool { return lane.asking > 0 || lane.starting }

// ask has a question asked in a goroutine.
func (l *loop) ask(lane *lane, q question) {
	l.mu.Lock()
	defer l.mu.Unlock()
	q.lane, q.holds, q.session.question = lane, int(q.session.reserved), &q
	lane.waiting.push(&q)
	l.startLocked(lane)
}

// startLocked starts a goroutine for the questions that wait, if there are any
// and one more may be asked. Whoever takes a question starts the next goroutine
// before it asks: so a question that blocks holds up no other, and of those
// that do not, one goroutine asks many.
func (l *loop) startLocked(lane *lane) {
	if lane.waiting.Len() > 0 && lane.asking < lane.most && !lane.starting {
		lane.starting = true
		l.hooks.Add(1)
		go l.runLane(lane)
	}
}

// nextLocked takes the question whose turn it is, if it may be asked.
func (l *loop) nextLocked(lane *lane) (q *question, ok bool) {
	if lane.asking >= lane.most {
		return nil, false
	}
	if q, ok = lane.waiting.pop(); ok {
		lane.asking++
		q.asked = true
		l.startLocked(lane)
	}
	return q, ok
}

// runLane asks one question after the other while there are any.
func (l *loop) runLane(lane *lane) {
	defer l.hooks.Done()
	const turn = 250 * time.Microsecond // the loop takes up several answers at once for less
	began := time.Now()
	l.mu.Lock()
	lane.starting = false
	q, more := l.nextLocked(lane)
	l.mu.Unlock()
	for more {
		q, more = l.askNow(lane, q)
		if now := time.Now(); more && now.Sub(began) > turn {
			runtime.Gosched() // to the loop
			began = now
		}
	}
}

// askNow asks the question and returns the next one. A question that ends its
// goroutine, as a test does by FailNow, has no answer, and the next one gets
// another goroutine.
func (l *loop) askNow(lane *lane, q *question) (next *question, more bool) {
	a := answer{session: q.session}
	returned := false
	defer func() {
		if q.end != nil {
			q.end(nil)
		}
		l.mu.Lock()
		if returned && !l.ended {
			l.answers = append(l.answers, a)
		}
		l.answeredLocked(lane, q)
		if returned {
			next, more = l.nextLocked(lane)
		} else {
			l.startLocked(lane)
		}
		l.mu.Unlock()
		l.wake()
	}()
	a.locked = q.ask(q.ctx)
	returned = true
	return nil, false
}

// answeredLocked notes that a question is no longer being asked.
func (l *loop) answeredLocked(lane *lane, q *question) {
	lane.asking--
	lane.waiting.answered(q)
	if q.orphaned {
		l.handshakes.memory -= int64(q.holds)
	} else {
		q.session.question = nil
	}
}

// unaskLocked takes back the question of a session that is over. One that is
// being asked goes on, and what it holds counts until it is answered.
func (l *loop) unaskLocked(s *Session) {
	q := s.question
	switch {
	case q == nil:
		return
	case q.asked:
		q.orphaned = true
		l.handshakes.memory += int64(q.holds)
	default:
		q.lane.waiting.remove(q)
	}
	s.question = nil
}

func (l *loop) takeAnswers() []answer {
	l.mu.Lock()
	defer l.mu.Unlock()
	answers := l.answers
	l.answers = l.taken[:0]
	l.taken = answers
	return answers
}

// askLocked has a hook asked off the loop.
func (s *Session) askLocked(ask ask) {
	ctx, end := context.WithCancelCause(context.Background())
	s.abort = end
	s.loop.ask(&s.loop.hookLane, question{session: s, ask: ask, ctx: ctx, end: end})
}

// workLocked has something computed off the loop.
func (s *Session) workLocked(lane *lane, ask ask) {
	s.loop.ask(lane, question{session: s, ask: ask})
}

// engineWorkLocked has the engine's work done off the loop.
func (s *Session) engineWorkLocked(ev engine.Event) {
	lane := &s.loop.workLane
	switch {
	case ev.Blocks:
		lane = &s.loop.hookLane
	case ev.OnChain:
		lane = &s.loop.chainLane
	}
	s.workLocked(lane, func(context.Context) func(time.Time) { return ev.Work() })
}

// askPSKLocked has the key of an identity looked up. For one that is too long
// the engine does not wait.
func (s *Session) askPSKLocked(now time.Time, identity string) {
	if len(identity) > s.loop.cfg.maxPSKIdentity {
		s.raise(Event{Kind: KindUnknownPSKIdentity, Time: now, Identity: s.identityLocked(), Err: errIdentityTooLong})
		return
	}
	s.raise(Event{Kind: KindPSKRequested, Time: now, Identity: identity})
	req := PSKRequest{Identity: identity, ServerName: s.eng.Parameters().ServerName, Remote: s.remote, Local: s.LocalAddr()}
	s.askLocked(func(ctx context.Context) func(time.Time) {
		psk, err := s.loop.cfg.psk(ctx, req)
		return func(now time.Time) { s.answerPSKLocked(now, psk, err) }
	})
}

// answerPSKLocked takes what the PSK hook said.
func (s *Session) answerPSKLocked(now time.Time, psk PSK, err error) {
	switch {
	case err != nil || len(psk.Key) == 0:
	case len(psk.Key) > maxPSK:
		err = fmt.Errorf("dtlsserver: PSK of %d bytes is longer than %d", len(psk.Key), maxPSK)
	case isZero(psk.Key):
		err = errZeroPSK
	case !psk.Expires.IsZero() && !now.Before(psk.Expires):
		psk.Key, err = nil, fmt.Errorf("%w: %w", ErrUnknownPSKIdentity, ErrPSKExpired)
	}
	switch {
	case errors.Is(err, ErrUnknownPSKIdentity), err == nil && len(psk.Key) == 0:
		psk = PSK{}
		ev := Event{Kind: KindUnknownPSKIdentity, Time: now, Identity: s.identityLocked()}
		if errors.Is(err, ErrPSKExpired) {
			ev.Err = ErrPSKExpired
		}
		s.raise(ev)
	case err != nil:
		psk = PSK{}
		s.raise(Event{Kind: KindPSKFailed, Time: now, Identity: s.identityLocked(), Err: err})
	}
	s.nextValue, s.expires = psk.Value, 0
	if !psk.Expires.IsZero() {
		s.expires = s.loop.sinceWall(now, psk.Expires)
	}
	s.eng.AnswerPSK(now, psk.Key)
}

// askCertificateLocked has the certificate for a client looked up.
func (s *Session) askCertificateLocked(hello *engine.HelloInfo) {
	s.askLocked(func(context.Context) func(time.Time) {
		c, err := s.askCertificate(hello)
		return func(now time.Time) {
			if err != nil {
				s.raise(Event{Kind: KindCertificateFailed, Time: now, Err: err})
			}
			s.eng.AnswerCertificate(now, c)
		}
	})
}

// askVerdictLocked has the client verified: its certificates, as ClientAuth
// says, which is work and can be much of it, and then by VerifyConnection.
func (s *Session) askVerdictLocked(now time.Time) {
	state, chain, cfg := newConnectionState(s.eng.Parameters()), s.eng.PeerChain(), s.loop.cfg
	if len(chain) == 0 {
		s.askConnectionLocked(now, state)
		return
	}
	s.workLocked(&s.loop.chainLane, func(context.Context) func(time.Time) {
		certificates, alert, err := cfg.judge(chain)
		return func(now time.Time) {
			if err != nil {
				s.eng.AnswerVerdict(now, err, alert)
				return
			}
			s.clientCertificates = certificates
			certificates.fill(&state, certificates.held)
			s.askConnectionLocked(now, state)
		}
	})
}

// askConnectionLocked asks VerifyConnection, if there is one.
func (s *Session) askConnectionLocked(now time.Time, state ConnectionState) {
	verify := s.loop.cfg.verifyConnection
	if verify == nil {
		s.eng.AnswerVerdict(now, nil, 0)
		return
	}
	req := &VerifyRequest{State: state, Remote: s.remote, Local: s.LocalAddr(), Value: s.nextValue}
	s.askLocked(func(ctx context.Context) func(time.Time) {
		err := verify(ctx, req)
		value := req.Value
		alert := engine.AlertBadCertificate
		if len(state.PeerCertificates) == 0 {
			alert = engine.AlertAccessDenied
		}
		if chosen, ok := errors.AsType[*AlertError](err); ok && chosen.Code != uint8(engine.AlertCloseNotify) {
			alert = engine.AlertDescription(chosen.Code)
		}
		return func(now time.Time) {
			s.nextValue = value
			s.eng.AnswerVerdict(now, err, alert)
		}
	})
}

// take takes the answer to the session's question.
func (s *Session) take(now time.Time, answerLocked func(now time.Time)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.eng.Closed() {
		s.abort = nil
		answerLocked(now)
		s.pumpLocked(now)
		s.classLocked(now)
	}
}

// errIdentityTooLong says why an identity was not looked up.
var errIdentityTooLong = errors.New("dtlsserver: longer than MaxPSKIdentityLen, cut off here")

// errZeroPSK says why a key is taken for none.
var errZeroPSK = errors.New("dtlsserver: PSK has only zero bytes: was it ever set?")

// maxPSK is the longest pre-shared key (RFC 4279 section 2).
const maxPSK = 1<<16 - 1
