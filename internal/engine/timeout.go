package engine

import "time"

// What the engine does when its peer is silent or repeats itself: RFC 6347
// section 4.2.4.

// HelloAgain tells the engine that its verified hello came again: the answer
// was lost. It is sent again, at a bounded rate and from the cache.
func (e *Engine) HelloAgain(now time.Time) {
	if e.unanswered() && e.state != awaitClientHello {
		e.resend(now)
	}
}

func (cfg *Config) firstTimeout() time.Duration {
	if cfg.FirstTimeout == 0 {
		return DefaultFirstTimeout
	}
	return cfg.FirstTimeout
}

// doubt is how long a handshake goes on after a plaintext alert. A client whose
// network is slow must have the time to belie it.
func (cfg *Config) doubt() time.Duration { return max(alertedLife, 2*cfg.firstTimeout()) }

// resendGap is the least time between two answers to a peer that repeats itself.
func (cfg *Config) resendGap() time.Duration { return cfg.firstTimeout() / 4 }

// resend sends the last flight again on the peer's request.
func (e *Engine) resend(now time.Time) {
	if now.Before(e.resendFrom) {
		return
	}
	// Of those who ask often, with a timer shorter than the round trip or as
	// attackers, only some say that a flight was lost.
	hs, since := e.hs, e.hs.lostAt
	if since.Before(hs.progressedAt) {
		since = hs.progressedAt
	}
	first := e.cfg.firstTimeout()
	lost := now.Sub(since) >= first-first/4
	if lost {
		hs.lostAt = now
	}
	e.retransmit(now, lost)
	hs.resendAt = now.Add(hs.timeout)
}

// retransmit sends the last flight again, which the client seems not to have got.
// Whoever asks for it just then, its own timer having come up too, has been
// answered.
func (e *Engine) retransmit(now time.Time, lost bool) {
	e.flight.rewind()
	e.resendFrom = now.Add(e.cfg.resendGap())
	if !lost {
		return
	}
	e.single = true
	if e.repeats++; e.repeats > sameSize {
		e.repeats = sameSize
		e.shrink(int(e.longest))
		// GnuTLS's clients keep what they have first got of a message, and take
		// what joins it. If that was its end, since the path loses the long
		// datagrams with the rest, they need the others backwards. Others may
		// need them forwards.
		e.backwards = !e.backwards
	}
}

// Deadline is when Timeout must be called; zero: never.
func (e *Engine) Deadline() time.Time {
	switch e.state {
	case closed:
		return time.Time{}
	case established:
		return e.flightUntil
	case awaitClientHello: // nothing to send again
		return e.hs.giveUpAt()
	default:
		if e.asking() { // the client has done its part
			return e.hs.giveUp
		}
		return earlier(e.hs.resendAt, e.hs.giveUpAt())
	}
}

// onSchedule has retransmission go on as if what the engine has waited for had
// been there at once, lest it show how long that took.
func (hs *handshake) onSchedule(now time.Time) {
	if late := now.Sub(hs.resendAt); late >= 0 {
		hs.resendAt = hs.resendAt.Add((late/hs.timeout + 1) * hs.timeout)
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// Timeout does what is due by now: a retransmission with twice the timeout
// (RFC 6347 section 4.2.4.1), or giving up.
func (e *Engine) Timeout(now time.Time) {
	if deadline := e.Deadline(); deadline.IsZero() || now.Before(deadline) {
		return
	}
	if e.state == established {
		e.flight = flight{}
		e.flightUntil = time.Time{}
		return
	}
	if e.asking() || !now.Before(e.hs.giveUpAt()) {
		e.close(Event{Cause: CauseTimeout, WrongKey: e.hs.unopened && e.parameters.Suite.KeyExchange.WithPSK() && e.hs.resumed == nil})
		return
	}
	e.hs.lostAt = now
	e.retransmit(now, true)
	e.hs.timeout = min(2*e.hs.timeout, MaxTimeout)
	e.hs.resendAt = now.Add(e.hs.timeout)
}
