package engine

import "time"

// What the engine does when its peer is silent or repeats itself: RFC 6347
// section 4.2.4.

// HelloAgain tells the engine that its verified hello came again: the answer
// was lost. It is sent again, at a bounded rate and from the cache.
func (e *Engine) HelloAgain(now time.Time) {
	if e.awaitsClient() && e.state != awaitClientHello {
		e.resend(now)
	}
}

func (cfg *Config) firstTimeout() time.Duration {
	if cfg.FirstTimeout == 0 {
		return firstTimeout
	}
	return cfg.FirstTimeout
}

// resendGap is the least time between two answers to a peer that repeats itself.
func (cfg *Config) resendGap() time.Duration { return cfg.firstTimeout() / 4 }

// resend sends the last flight again on the peer's request.
func (e *Engine) resend(now time.Time) {
	if now.Before(e.resendFrom) {
		return
	}
	e.resendFrom = now.Add(e.cfg.resendGap())
	e.flight.rewind()
	if e.hs != nil {
		e.hs.resendAt = now.Add(e.hs.timeout)
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

// asking reports whether the engine waits for its caller, and not for the client.
func (e *Engine) asking() bool {
	switch e.state {
	case awaitResumptionParsing, awaitResumptionPSK, awaitResumptionVerdict, awaitCredential, awaitServerKeyExchange, awaitParsing, awaitSecret, awaitPSK, awaitVerification, awaitVerdict:
		return true
	}
	return false
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
		e.close(Event{Cause: CauseTimeout, WrongKey: e.hs.unopened && e.parameters.Suite.KeyExchange.WithPSK() && e.hs.resumed == nil, Alert: e.hs.alerted.Description})
		return
	}
	e.flight.rewind()
	e.hs.timeout = min(2*e.hs.timeout, maxTimeout)
	e.hs.resendAt = now.Add(e.hs.timeout)
}
