package engine

import (
	"time"

	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// Records of epoch 1 that come before their turn (RFC 6347 section 4.1: an
// implementation may keep those of the next epoch). In a full handshake, while
// there are no keys or the client's ChangeCipherSpec is still to come, these are
// its Finished, in pieces perhaps, or an alert. In an abbreviated one, where the
// client has the last word and may go on at once, application data overtakes its
// Finished, or follows one that is lost: it is opened, and handed out when the
// Finished has come.

const (
	// maxEarly bounds the records that are kept: a Finished in pieces of a byte
	// is twelve. The rest leaves room for what is forged.
	maxEarly = 32
	// maxEarlyLen bounds each in bytes, but for application data.
	maxEarlyLen = 256
	// maxEarlyBytes bounds all that nobody has opened, which may be anybody's, and
	// maxOvertakingBytes all in an abbreviated handshake.
	maxEarlyBytes      = 4 << 10
	maxOvertakingBytes = 16 << 10
	// ownEarlyBytes is as much of that as a handshake has in any case. What is
	// more is reserved, and all of maxEarlyBytes at once: to grow step by step
	// would take as much again.
	ownEarlyBytes = maxKept
)

// resumes reports whether the client's Finished is all that an abbreviated
// handshake waits for. There are keys then.
func (e *Engine) resumes() bool { return e.state == awaitFinished && e.hs.resumed != nil }

// keepEarly keeps a record of the next epoch, unopened, if it can be of use.
func (e *Engine) keepEarly(r Record) Drop {
	switch {
	case !e.helloAnswered(): // our hello has not been sent: it is nobody's
		return DropEpoch
	case r.Type != wire.ContentHandshake && r.Type != wire.ContentAlert && !r.HasCID():
		return DropEpoch
	case len(r.Raw) > maxEarlyLen:
		return DropLimit
	}
	return e.keep(r, maxEarlyBytes)
}

// keepOvertaking keeps a record that has been opened and whose time comes with the
// Finished.
func (e *Engine) keepOvertaking(r Record) Drop {
	drop := e.keep(r, maxOvertakingBytes)
	e.hs.overtaken = e.hs.overtaken || drop == DropNone
	return drop
}

// keep keeps a record, if that makes no more than most bytes of all.
func (e *Engine) keep(r Record, most int) Drop {
	hs := e.hs
	length := len(hs.early) + len(r.Raw)
	if hs.earlyRecords == maxEarly || length > most {
		return DropLimit
	}
	if room := cap(hs.early); length > room {
		more := minRoom // enough for a Finished
		if room > 0 || length > minRoom {
			more = ownEarlyBytes
		}
		if length > ownEarlyBytes {
			if more = max(roundUp(length), maxEarlyBytes); !e.reserve(more - room) {
				return DropLimit
			}
		}
		hs.early = append(make([]byte, 0, more), hs.early...)
	}
	hs.early = append(hs.early, r.Raw...)
	hs.earlyRecords++
	return DropNone
}

// nextKept splits the first record off those that were kept.
func (e *Engine) nextKept(kept []byte) (r Record, rest []byte, ok bool) {
	return wire.ParseRecord(kept, e.cfg.ConnectionIDLen)
}

// receiveEarly takes the records that were kept, now that they may be opened: the
// Finished first.
func (e *Engine) receiveEarly(now time.Time) {
	if e.state != awaitFinished || !e.hs.changeCipherSpec {
		return
	}
	hs, kept := e.hs, e.hs.early
	resumed := hs.resumed != nil // which the Finished clears
	for _, finished := range []bool{true, false} {
		for r, rest, ok := e.nextKept(kept); ok && e.state != closed; r, rest, ok = e.nextKept(rest) {
			t, opened := e.typeOf(r, hs.opened[:0])
			if (t == wire.ContentHandshake || !opened) != finished || resumed && !finished { // that has been opened
				continue
			}
			result := e.receiveSealed(now, r, hs.opened[:0])
			if result.Data != nil { // which does not wait for a full handshake
				result.Drop = DropEarlyData
			}
			if result.Drop != DropNone {
				e.raise(Event{Kind: EventDropped, Drop: result.Drop})
			}
		}
	}
	clear(hs.opened[:]) // which may be another's next
	if e.hs == nil {
		return
	}
	// What waits for the Finished stays.
	hs.early, hs.earlyRecords = hs.early[:0], 0
	for r, rest, ok := e.nextKept(kept); ok && hs.overtaken; r, rest, ok = e.nextKept(rest) {
		if t, _ := e.typeOf(r, nil); t != wire.ContentHandshake {
			hs.early = append(hs.early, r.Raw...)
			hs.earlyRecords++
		}
	}
}

// takeOvertaking returns the records that were opened and kept, or nil, and leaves
// their memory to them.
func (hs *handshake) takeOvertaking() (kept []byte) {
	if hs.overtaken {
		kept, hs.early = hs.early, nil
	}
	return kept
}

// receiveOvertaking takes what the client said in an abbreviated handshake before
// its Finished came, which is there now.
func (e *Engine) receiveOvertaking(kept []byte) {
	for r, rest, ok := e.nextKept(kept); ok && e.state == established; r, rest, ok = e.nextKept(rest) {
		content, t, err := e.opener.Reopen(nil, r)
		switch {
		case err != nil: // it has been opened before
		case t == wire.ContentHandshake:
		case t == wire.ContentAlert:
			e.receiveAlert(content)
		default:
			e.raise(Event{Kind: EventData, Record: r, Data: content})
		}
	}
}
