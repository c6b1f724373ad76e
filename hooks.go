package dtlsserver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/engine"
)

// The hooks of a Server (PSK, GetCertificate, VerifyConnection), and signatures
// that may take long, run off the loop, in a bounded number of goroutines. What
// they answer is taken up on the loop.

// question is what a hook is to be asked about a session. The function may
// block; what it returns is then called on the loop, with the session's lock.
type question struct {
	session *Session
	ctx     context.Context
	over    context.CancelCauseFunc // of ctx
	ask     func(context.Context) (answerLocked func(now time.Time))
}

// answer is what a hook has said about a session.
type answer struct {
	session *Session
	locked  func(now time.Time)
}

// ask asks a hook in a goroutine. At most MaxHandshakes hooks run at a time,
// some of which may be for handshakes that have ended; then the question waits.
func (l *loop) ask(q question) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.asking < l.cfg.maxHandshakes {
		l.asking++
		l.hooks.Go(func() { l.runHooks(q) })
	} else {
		l.questions = append(l.questions, q)
	}
}

// runHooks asks the question, and then those that have had to wait.
func (l *loop) runHooks(q question) {
	for more := true; more; {
		locked := q.ask(q.ctx)
		q.over(nil)
		l.mu.Lock()
		if !l.ended {
			l.answers = append(l.answers, answer{q.session, locked})
		}
		if more = len(l.questions) > 0; more {
			q = l.questions[0]
			l.questions = slices.Delete(l.questions, 0, 1) // lets go of it
		} else {
			l.asking--
		}
		l.mu.Unlock()
		l.wake()
	}
}

// unaskLocked takes back the question of a session that is over, unless the
// hook runs.
func (l *loop) unaskLocked(s *Session) {
	l.questions = slices.DeleteFunc(l.questions, func(q question) bool { return q.session == s })
}

func (l *loop) takeAnswers() []answer {
	l.mu.Lock()
	defer l.mu.Unlock()
	answers := l.answers
	l.answers = nil
	return answers
}

// askLocked has a question that may take long answered off the loop: ask runs in
// a goroutine without a lock, what it returns on the loop with the session's.
func (s *Session) askLocked(ask func(context.Context) (answerLocked func(now time.Time))) {
	var ctx context.Context
	ctx, s.abort = context.WithCancelCause(context.Background())
	s.loop.ask(question{s, ctx, s.abort, ask})
}

// askPSKLocked has the key of an identity looked up. For one that is too long
// the engine does not wait.
func (s *Session) askPSKLocked(now time.Time, identity []byte) {
	if longest := s.loop.cfg.maxPSKIdentity; len(identity) > longest {
		s.state.PSKIdentity = string(identity[:longest])
		s.raise(Event{Kind: KindUnknownPSKIdentity, Time: now, Identity: s.state.PSKIdentity, Err: errIdentityTooLong})
		return
	}
	s.state.PSKIdentity = string(identity)
	s.raise(Event{Kind: KindPSKRequested, Time: now, Identity: s.state.PSKIdentity})
	req := PSKRequest{Identity: s.state.PSKIdentity, Remote: s.remote, Local: s.LocalAddr()}
	s.askLocked(func(ctx context.Context) func(time.Time) {
		psk, err := s.loop.cfg.psk(ctx, req)
		return func(now time.Time) { s.answerPSKLocked(now, psk, err) }
	})
}

// answerPSKLocked takes what the PSK hook said.
func (s *Session) answerPSKLocked(now time.Time, psk PSK, err error) {
	if err == nil && len(psk.Key) > maxPSK {
		err = fmt.Errorf("dtlsserver: PSK of %d bytes is longer than %d", len(psk.Key), maxPSK)
	}
	switch {
	case errors.Is(err, ErrUnknownPSKIdentity), err == nil && len(psk.Key) == 0:
		psk = PSK{}
		s.raise(Event{Kind: KindUnknownPSKIdentity, Time: now, Identity: s.state.PSKIdentity})
	case err != nil:
		psk = PSK{}
		s.raise(Event{Kind: KindPSKFailed, Time: now, Identity: s.state.PSKIdentity, Err: err})
	}
	s.pskValue = psk.Value
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

// askSignatureLocked has the handshake signed.
func (s *Session) askSignatureLocked(sign func() ([]byte, error)) {
	s.askLocked(func(context.Context) func(time.Time) {
		signature, err := sign()
		return func(now time.Time) { s.eng.AnswerSignature(now, signature, err) }
	})
}

// askVerdictLocked has the client verified.
func (s *Session) askVerdictLocked(p *engine.Parameters) {
	state := newConnectionState(p)
	s.askLocked(func(context.Context) func(time.Time) {
		chains, alert, err := s.verifyClient(state)
		return func(now time.Time) { s.eng.AnswerVerdict(now, chains, err, alert) }
	})
}

// take takes a hook's answer.
func (s *Session) take(now time.Time, answerLocked func(now time.Time)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.eng.Closed() {
		s.abort = nil
		answerLocked(now)
		s.pumpLocked(now)
	}
}

// errIdentityTooLong says why an identity was not looked up.
var errIdentityTooLong = errors.New("dtlsserver: longer than MaxPSKIdentity, cut off here")

// maxPSK is the longest pre-shared key (RFC 4279 section 2).
const maxPSK = 1<<16 - 1
