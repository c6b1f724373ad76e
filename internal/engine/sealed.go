package engine

import (
	"time"

	"github.com/dtlsserver/dtlsserver/internal/record"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// What comes in epoch 1 (RFC 6347 section 4.1). What opens there is the peer's own
// word. If that cannot be, the peer is sent a fatal alert (RFC 5246 section
// 7.2.2), and need not find it out by waiting. What is no more than late or
// repeated does no harm (RFC 6347 section 4.2.2).

// opens reports whether a record of epoch 1 is opened at once. An abbreviated
// handshake has keys before its ChangeCipherSpec comes.
func (e *Engine) opens(r Record, buf []byte) bool {
	if e.Opening() {
		return true
	}
	if !e.resumes() {
		return false
	}
	if !r.HasCID() {
		return r.Type == wire.ContentApplicationData || r.Type == wire.ContentAlert
	}
	t, ok := e.typeOf(r, buf)
	return !ok || t != wire.ContentHandshake
}

// typeOf returns the type of a record of epoch 1. If that is sealed, the record is
// opened for it, beside the replay window.
func (e *Engine) typeOf(r Record, buf []byte) (t wire.ContentType, ok bool) {
	if !r.HasCID() {
		return r.Type, true
	}
	_, t, err := e.opener.Reopen(buf[:0], r)
	return t, err == nil
}

// receiveSealed takes a record of epoch 1 that can be opened.
func (e *Engine) receiveSealed(now time.Time, r Record, buf []byte) Result {
	content, t, err := e.opener.Open(buf[:0], r)
	switch {
	case err == record.ErrReplayed:
		return Result{Drop: DropReplayed}
	case err == record.ErrNoType:
		return Result{Drop: DropMalformed}
	case err != nil:
		if e.hs != nil && (r.Type == wire.ContentHandshake || r.HasCID()) {
			e.hs.unopened = true
		}
		return Result{Drop: DropForged}
	}
	switch t {
	case wire.ContentApplicationData:
		switch {
		case e.resumes():
			return Result{Drop: e.keepOvertaking(r)}
		case e.state != established:
			return Result{Drop: DropEarlyData}
		case content == nil:
			content = []byte{}
		}
		return Result{Data: content}
	case wire.ContentHandshake:
		return Result{Drop: e.receiveSealedMessages(now, content)}
	case wire.ContentAlert:
		if e.resumes() && e.hs.overtaken { // the end of what waits for the Finished
			return Result{Drop: e.keepOvertaking(r)}
		}
		e.receiveAlert(content)
	case wire.ContentReturnRoutability:
		if e.ChecksPaths() {
			return e.receivePath(content)
		}
		fallthrough
	default: // RFC 5246 section 6; ChangeCipherSpec has its place in epoch 0
		e.fail(wire.AlertUnexpectedMessage, "record of a type that has no place after ChangeCipherSpec")
	}
	return Result{}
}

// receiveSealedMessages takes the content of a handshake record.
func (e *Engine) receiveSealedMessages(now time.Time, content []byte) Drop {
	if len(content) == 0 { // RFC 5246 section 6.2.1
		e.fail(wire.AlertUnexpectedMessage, "handshake record without a message")
		return DropNone
	}
	result := DropNone
	for len(content) > 0 && e.state != closed {
		f, rest, ok := wire.ParseFragment(content)
		if !ok {
			e.fail(wire.AlertDecodeError, "malformed handshake message after ChangeCipherSpec")
			return DropNone
		}
		content = rest
		if drop := e.receiveSealedFragment(now, f); drop != DropNone {
			result = drop
		}
	}
	return result
}

// receiveSealedFragment takes a piece of a handshake message. There is but one
// that a client sends in epoch 1, its Finished (RFC 5246 section 7.4.9), and the
// wish to renegotiate, which is refused with a warning (section 7.2.2). A hello
// begins with message_seq 0 (RFC 6347 section 4.2.2).
func (e *Engine) receiveSealedFragment(now time.Time, f wire.Fragment) Drop {
	finished := e.finishedSeq
	if e.state == awaitFinished {
		finished = e.hs.nextReceive
	}
	switch {
	case e.state == established && f.Type == wire.TypeClientHello:
		if !now.Before(e.resendFrom) {
			e.resendFrom = now.Add(e.cfg.resendGap())
			e.sendAlert(wire.LevelWarning, wire.AlertNoRenegotiation)
		}
		return DropUnexpected
	case f.MessageSeq < finished:
		return DropRepeated
	case f.MessageSeq > finished || f.Type != wire.TypeFinished:
		e.fail(wire.AlertUnexpectedMessage, "handshake message that is not the client's one Finished")
		return DropNone
	case f.Length != wire.VerifyDataLen:
		e.fail(wire.AlertDecodeError, "Finished of a wrong length")
		return DropNone
	case len(f.Body) == 0:
		return DropMalformed
	}
	switch e.state {
	case awaitFinished:
		return e.takeFinished(now, f)
	case established:
		e.takeFinishedAgain(now, f)
		return DropNone
	default: // it will be answered when the verdict is there
		return DropRepeated
	}
}

// takeFinished takes a piece of the Finished that is waited for.
func (e *Engine) takeFinished(now time.Time, f wire.Fragment) Drop {
	hs := e.hs
	body, drop := hs.incoming[0].add(f, wire.VerifyDataLen, hs.datagram)
	if body == nil {
		return drop
	}
	if !e.affords(f.Type, body) {
		return DropLimit
	}
	e.receiveNext(now, f.Type, body)
	return DropNone
}

// takeFinishedAgain takes a piece of a Finished that has been taken before. When
// all of it has come again, the client has not seen our last flight, which is sent
// again at once (RFC 6347 section 4.2.4): so there are never more answers than
// Finished. What is late of the first is not the whole of it.
func (e *Engine) takeFinishedAgain(now time.Time, f wire.Fragment) {
	const whole = 1<<wire.VerifyDataLen - 1
	e.cameAgain |= (1<<len(f.Body) - 1) << f.Offset
	if e.cameAgain != whole {
		return
	}
	e.cameAgain = 0
	// Several at a time say no more than one of how large datagrams may be. But
	// there is no timer behind this flight, and it is short: clients that take one
	// record of a datagram get one in each.
	e.single = true
	e.retransmit(now, !now.Before(e.resendFrom))
}

// receiveAlert takes an alert that the peer authenticated.
func (e *Engine) receiveAlert(content []byte) {
	a, ok := wire.ParseAlert(content)
	switch {
	case !ok:
		e.fail(wire.AlertDecodeError, "malformed alert")
	case a.Description == wire.AlertCloseNotify:
		e.sendAlert(wire.LevelWarning, wire.AlertCloseNotify)
		e.close(Event{Cause: CausePeerClosed, Alert: a.Description})
	case a.Level == wire.LevelFatal:
		e.close(Event{Cause: CausePeerAlert, Alert: a.Description})
	default:
		e.raise(Event{Kind: EventWarningAlert, Alert: a.Description})
	}
}
