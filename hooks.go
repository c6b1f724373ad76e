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
	job     job
	ctx     context.Context // for job: nil when it only computes
	end     context.CancelCauseFunc

	lane     *lane
	asker    *asker
	ofAsker  ring[question] // those that wait
	running  bool           // its job runs
	holds    int            // bytes of handshake memory, of what it asks about
	orphaned bool           // its handshake has ended
}

// job is called in a goroutine without a lock. What it returns is called on the
// loop, with the session's lock.
type job func(context.Context) (answerLocked func(now time.Time))

// answer is what has come of a question.
type answer struct {
	session *Session
	locked  func(now time.Time)
}

// lane is where the jobs of a kind run. There are three, so that those that
// only compute, of which more than there are processors would keep each other
// and the loop from running, do not hold up the hooks, which may block, nor
// these those, and the certificates of some clients not the others' key
// exchange.
type lane struct {
	most     int   // jobs that run at a time
	running  int   // some of which may be of handshakes that have ended
	waiting  turns // the others
	starting bool  // a goroutine that has no question yet is on its way
}

// busy reports whether a job runs, or will.
func (lane *lane) busy() bool { return lane.running > 0 || lane.starting }

// submit has a question answered in a goroutine.
func (l *loop) submit(lane *lane, q question) {
	l.mu.Lock()
	defer l.mu.Unlock()
	q.lane, q.holds, q.session.question = lane, int(q.session.reserved), &q
	lane.waiting.push(&q)
	l.startLocked(lane)
}

// startLocked starts a goroutine for the questions that wait, if there are any
// and one more job may run. Whoever takes a question starts the next goroutine
// before it runs the job: so one that blocks holds up no other, and of those
// that do not, one goroutine runs many.
func (l *loop) startLocked(lane *lane) {
	if lane.waiting.Len() > 0 && lane.running < lane.most && !lane.starting {
		lane.starting = true
		l.hooks.Add(1)
		go l.runLane(lane)
	}
}

// nextLocked takes the question whose turn it is, if its job may run.
func (l *loop) nextLocked(lane *lane) (q *question, ok bool) {
	if lane.running >= lane.most {
		return nil, false
	}
	if q, ok = lane.waiting.pop(); ok {
		lane.running++
		q.running = true
		l.startLocked(lane)
	}
	return q, ok
}

// runLane runs one job after the other while there are any.
func (l *loop) runLane(lane *lane) {
	defer l.hooks.Done()
	const turn = 250 * time.Microsecond // the loop takes up several answers at once for less
	began := time.Now()
	l.mu.Lock()
	lane.starting = false
	q, more := l.nextLocked(lane)
	l.mu.Unlock()
	for more {
		q, more = l.runJob(lane, q)
		if now := time.Now(); more && now.Sub(began) > turn {
			runtime.Gosched() // to the loop
			began = now
		}
	}
}

// runJob runs the job of a question and returns the next one. A job that ends its
// goroutine, as a test does by FailNow, has no answer, and the next one gets
// another goroutine.
func (l *loop) runJob(lane *lane, q *question) (next *question, more bool) {
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
	a.locked = q.job(q.ctx)
	returned = true
	return nil, false
}

// answeredLocked notes that a job no longer runs.
func (l *loop) answeredLocked(lane *lane, q *question) {
	lane.running--
	lane.waiting.answered(q)
	if q.orphaned {
		l.handshakes.memory -= int64(q.holds)
	} else {
		q.session.question = nil
	}
}

// takeBackLocked takes back the question of a session that is over. One whose
// job runs goes on, and what it holds counts until it is answered.
func (l *loop) takeBackLocked(s *Session) {
	q := s.question
	switch {
	case q == nil:
		return
	case q.running:
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

// submitHookLocked has a hook called off the loop.
func (s *Session) submitHookLocked(job job) {
	ctx, end := context.WithCancelCause(context.Background())
	s.abort = end
	s.loop.submit(&s.loop.hookLane, question{session: s, job: job, ctx: ctx, end: end})
}

// submitWorkLocked has something computed off the loop.
func (s *Session) submitWorkLocked(lane *lane, job job) {
	s.loop.submit(lane, question{session: s, job: job})
}

// submitEngineWorkLocked has the engine's work done off the loop.
func (s *Session) submitEngineWorkLocked(ev engine.Event) {
	lane := &s.loop.workLane
	switch {
	case ev.Blocks:
		lane = &s.loop.hookLane
	case ev.OnChain:
		lane = &s.loop.chainLane
	}
	s.submitWorkLocked(lane, func(context.Context) func(time.Time) { return ev.Work() })
}

// askPSKLocked has the key of an identity looked up. For one that is too long
// the engine does not wait.
func (s *Session) askPSKLocked(now time.Time, identity string) {
	if len(identity) > s.loop.cfg.maxPSKIdentity {
		s.raise(Event{Kind: KindUnknownPSKIdentity, Time: now, Identity: s.identityLocked(), Err: errIdentityTooLong})
		return
	}
	s.raise(Event{Kind: KindPSKRequested, Time: now, Identity: identity})
	req := PSKRequest{Identity: identity, ServerName: s.eng.Parameters().ServerName, Remote: s.remote, Local: s.localAddr()}
	s.submitHookLocked(func(ctx context.Context) func(time.Time) {
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
	s.submitHookLocked(func(ctx context.Context) func(time.Time) {
		c, err := s.askCertificate(ctx, hello)
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
	s.submitWorkLocked(&s.loop.chainLane, func(context.Context) func(time.Time) {
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
	req := &VerifyRequest{State: state, Remote: s.remote, Local: s.localAddr(), Value: s.nextValue}
	s.submitHookLocked(func(ctx context.Context) func(time.Time) {
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
