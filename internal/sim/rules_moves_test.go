package sim

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/internal/record"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// The rules of connection IDs: who has one, where the peer of its session is, and what
// is sent to an address that is not proven.

// route is where the peer of an open session with a connection ID is, by the rules.
type route struct {
	as      *association
	session *dtlsserver.Session
	peer    record.Opener // opens the client's records
	path    netip.AddrPort
	moved   bool // it was elsewhere

	// Sequence numbers: the highest that has been taken for sure, and that may have been.
	// At first they differ, since some records came in the handshake.
	low, high int64
	murky     int64 // the highest that may have been taken in the handshake
	taken     map[uint64]bool
	maybe     map[uint64]bool // may have been taken

	candidate  netip.AddrPort // that the newest record is from; zero: none
	unsure     bool           // it may be another, or none, or tabs say which
	tabs       map[netip.AddrPort]*tab
	ends       time.Duration    // when the candidate is none any more, since it has not answered; zero: never
	asksNew    time.Duration    // when it is asked, at the latest
	oldCookie  *[8]byte         // of the challenge to the path
	oldCookies map[[8]byte]bool // of all that were

	// Of what was sent to the path and was too much for the candidate, the last goes there when
	// it is proven.
	holds     [][]byte
	vague     bool                    // the last may be another
	released  bool                    // it was sent
	questions int                     // the client's challenges
	answers   int                     // to them
	since     time.Duration           // since when both are counted
	allowed   map[netip.AddrPort]bool // to which it may move in this step
	must      netip.AddrPort          // to which it must
	wants     netip.AddrPort          // that must be sent a challenge in this step
	mixed     bool                    // several records came in this step
	refused   bool                    // it has moved to nowhere, since too many are there
	confirmed []told                  // what ConfirmAddr said in this step
	asked     []pathAsked             // that came in this step
}

// tab is what came from a candidate, and was sent to it.
type tab struct {
	received, sent int
	charged        int  // sent, and what could not be
	asked          bool // by the service
	blurred        bool // the server may have fewer
	challenges     []challenge
}

type challenge struct {
	cookie [8]byte
	at     time.Duration
}

// pathAsked is a challenge of the client's.
type pathAsked struct {
	cookie   [8]byte
	from     netip.AddrPort
	n        int  // bytes of the record
	sure     bool // that it was taken
	answered bool
	paid     bool // by the candidate's budget
}

// Of the return routability check (RFC 9853), and of RFC 9147 section 11.
const (
	challengePause   = time.Second
	mostChallenges   = 3
	mostPathAnswers  = 8 // a second
	mostAmplified    = 3
	rememberedClosed = 10 * time.Second
)

// gave judges the connection ID in a ServerHello.
func (l *ledger) gave(in *arrival, pl *place, h *serverHello, a *attempt) {
	offered := h.offer.cid != nil
	switch {
	case !h.offer.known:
	case h.cid != nil && !offered:
		l.violate("cids", deviceOf(a), "a client that has offered no connection ID got one")
	case h.cid == nil && h.paths:
		l.violate("cids", deviceOf(a), "paths are checked without a connection ID")
	case h.cid == nil && offered && l.w.cidLen > 0:
		in.withoutCID = true
	case h.cid != nil && len(h.cid) != l.w.cidLen:
		l.violate("cids", deviceOf(a), "a connection ID has %d bytes, not %d", len(h.cid), l.w.cidLen)
	case h.cid != nil && l.living(h.cid) != nil && !l.w.has(slowHandler): // or it has ended, which is still to be told
		l.violate("cids", deviceOf(a), "got the connection ID %x of another session", h.cid)
	case h.cid != nil && h.paths != (h.offer.paths && l.w.server.ConnectionIDs.Move == dtlsserver.MoveWhenProven):
		l.violate("cids", deviceOf(a), "paths are checked: %v", h.paths)
	}
	if h.cid != nil {
		delete(l.byCID, string(h.cid)) // of a session that has ended
		delete(l.reached, string(h.cid))
		l.given[string(h.cid)] = true
		l.begunAt[string(h.cid)] = pl.addr
	}
}

// offers is told of a connection ID that a client offers.
func (l *ledger) offers(cid []byte) {
	if len(cid) > 0 {
		l.theirs[string(cid)] = true
		l.w.trace.knows(len(cid))
	}
}

// routeBetween returns the route of a session that is at one address, and may be at
// another.
func (l *ledger) routeBetween(path, other netip.AddrPort) *route {
	for _, rt := range l.routes {
		if rt.path == path && rt.tabs[other] != nil {
			return rt
		}
	}
	return nil
}

// mayBeAt reports whether a session moves to an address in this step.
func (l *ledger) mayBeAt(addr netip.AddrPort) bool {
	return slices.ContainsFunc(l.routes, func(rt *route) bool { return rt.allowed[addr] })
}

// shares reports whether another session is at the same address.
func (l *ledger) shares(as *association) bool {
	for _, other := range l.place(as.route.path).assocs {
		if other != as && other.opened && !other.closed {
			return true
		}
	}
	return false
}

// living returns the open session that has a connection ID, or nil.
func (l *ledger) living(cid []byte) *association {
	if as := l.byCID[string(cid)]; as != nil && !as.closed {
		return as
	}
	return nil
}

// recordsTo splits a datagram of the server's, whose connection IDs are of any length.
func (l *ledger) recordsTo(b []byte) (all []wire.Record, ok bool) {
	for _, n := range l.w.trace.lengths {
		if all, ok = records(b, n); ok && l.ours(all) {
			return all, true
		}
	}
	return all, false
}

// ours reports whether all connection IDs are of clients'.
func (l *ledger) ours(all []wire.Record) bool {
	for _, r := range all {
		if r.CID() != nil && !l.theirs[string(r.CID())] {
			return false
		}
	}
	return true
}

// routed begins the route of a session that is open.
func (l *ledger) routed(as *association, e *dtlsserver.Event) {
	state := e.Session.ConnectionState()
	as.session = e.Session
	switch {
	case as.hello != nil && as.hello.whole && !bytes.Equal(as.hello.cid, state.ConnectionID):
		l.violate("cids", deviceOf(as.attempt), "has the connection ID %x, not %x", state.ConnectionID, as.hello.cid)
	case as.hello != nil && as.hello.whole && as.hello.paths != state.ReturnRoutability:
		l.violate("cids", deviceOf(as.attempt), "checks paths: %v", state.ReturnRoutability)
	}
	if state.ConnectionID == nil || as.attempt == nil {
		return
	}
	as.cid, as.theirs, as.checks = state.ConnectionID, as.attempt.c.CID, state.ReturnRoutability
	if as.hello != nil && as.hello.offer.known {
		as.theirs = as.hello.offer.cid
	}
	l.given[string(as.cid)] = true
	l.byCID[string(as.cid)] = as
	high := max(int64(as.highest), int64(l.reached[string(as.cid)]))
	as.route = &route{as: as, since: -time.Second, session: e.Session, path: e.Remote, low: -1, high: high, murky: high, taken: make(map[uint64]bool), maybe: make(map[uint64]bool), oldCookies: make(map[[8]byte]bool), tabs: make(map[netip.AddrPort]*tab)}
	l.routes = append(l.routes, as.route)
}

// opener returns what opens the client's records, if the keys are known.
func (rt *route) opener() *record.Opener {
	as := rt.as
	if as.hello == nil {
		return nil
	}
	if rt.peer.Resting() { // it has no key yet
		keys := as.hello.suite.NewSecret(as.master).Keys([]byte(as.random), as.hello.random)
		if rt.peer.Init(as.hello.suite.AEAD, keys.ClientKey, keys.ClientIV) != nil {
			return nil
		}
	}
	return &rt.peer
}

// arriveCID looks at a datagram with a record with a connection ID.
func (l *ledger) arriveCID(in *arrival, pl *place, all []wire.Record) {
	const few = 8 // records, of which none is left out
	var as *association
	const major = 0xfe // of a version: else it is no record
	first := all[0].CID()
	if all[0].Version>>8 != major {
		return
	}
	for _, r := range all {
		if r.CID() != nil && l.living(r.CID()) == nil { // it may be kept in a handshake
			l.reached[string(r.CID())] = max(l.reached[string(r.CID())], r.Seq)
		}
	}
	if first != nil {
		if as = l.living(first); as == nil {
			in.unknown, in.ended = first, l.byCID[string(first)] != nil
			if at, ok := l.begunAt[string(first)]; ok && !in.ended && at != pl.addr {
				in.elsewhere = true
			}
			return
		}
	}
	n := 0
	for _, r := range all {
		its := as
		if first == nil && r.CID() != nil { // it may be found by its address
			its = l.living(r.CID())
		}
		if first != nil && !bytes.Equal(r.CID(), first) || r.Version>>8 != major {
			return // nothing is read behind it
		}
		if its == nil || r.CID() == nil || its.route == nil {
			continue
		}
		if first == nil && its.route.path != pl.addr {
			return // it is not found there
		}
		if n++; n > 1 {
			its.route.mixed = true
		}
		l.take(in, pl, its, r, first != nil && len(all) <= few && !in.ends)
	}
}

// take looks at a record of an open session. If it is not sure, the server may have
// passed it over.
func (l *ledger) take(in *arrival, pl *place, as *association, r wire.Record, sure bool) {
	rt, now := as.route, l.w.now()
	opener := rt.opener()
	if r.Epoch != 1 || opener == nil {
		return
	}
	content, t, err := opener.Reopen(nil, r)
	seq := int64(r.Seq)
	if err == record.ErrForged || rt.taken[r.Seq] || rt.low-seq >= windowSize {
		return
	}
	sure = sure && seq > rt.murky && !rt.maybe[r.Seq] && rt.high-seq < windowSize
	newest := seq > rt.low
	surelyNewest := sure && seq > rt.high
	if sure {
		rt.taken[r.Seq] = true
		rt.low = max(rt.low, seq)
	} else {
		rt.maybe[r.Seq] = true
	}
	rt.high = max(rt.high, seq)
	as.highest = max(as.highest, r.Seq)
	pl.visit(as)
	if as.touched = now; sure {
		as.surely = now
	}
	as.attempt.came[r.Seq] = true
	if err != nil {
		return // it has no type
	}
	l.leadsTo(in, pl, as, r, t, sure)
	var message *wire.PathMessage
	if t == wire.ContentReturnRoutability && as.checks {
		if m, ok := wire.ParsePathMessage(content); ok { // or else it is ignored
			message = &m
		}
	}
	maybe := t == wire.ContentHandshake // it may be of no use
	rt.cameFrom(l, pl.addr, len(r.Raw), newest, surelyNewest && !maybe, sure && !maybe, message)
}

// leadsTo notes what a record should lead to.
func (l *ledger) leadsTo(in *arrival, pl *place, as *association, r wire.Record, t wire.ContentType, sure bool) {
	a := as.attempt
	if !sure {
		return
	}
	in.assoc = as
	switch q := a.bySeq[r.Seq]; {
	case a.ends[r.Seq]:
		in.ends = true
	case q != nil:
		in.requests = append(in.requests, q)
	case t == wire.ContentHandshake && !a.c.Resuming && !a.strange[r.Seq] && l.w.now()-as.since < flightLife && !l.place(a.addr).rivaled(as.random):
		in.finished = as.route.path == pl.addr
	}
}

// cameFrom notes from where n bytes of an authentic record came.
func (rt *route) cameFrom(l *ledger, from netip.AddrPort, n int, newest, surelyNewest, sure bool, m *wire.PathMessage) {
	move, now := l.w.server.ConnectionIDs.Move, l.w.now()
	if m != nil && m.Type == wire.PathChallenge {
		if rt.questions == 0 || now-rt.since >= time.Second {
			rt.since, rt.questions, rt.answers = now, 0, 0
		}
		rt.questions++
		rt.asked = append(rt.asked, pathAsked{m.Cookie, from, n, sure && rt.questions <= mostPathAnswers, false, false})
		asked := &rt.asked[len(rt.asked)-1]
		defer func() { asked.paid = rt.tabs[from] != nil && (from == rt.candidate || rt.unsure) }()
	}
	answersOld := m != nil && rt.oldCookie != nil && m.Cookie == *rt.oldCookie && !rt.unsure
	perhaps := m != nil && rt.unsure && rt.oldCookies[m.Cookie] && m.Type != wire.PathChallenge
	switch {
	case answersOld && m.Type == wire.PathResponse && sure: // it is where it was
		rt.forget()
	case answersOld && m.Type == wire.PathResponse:
		rt.unsure = true
	case perhaps:
		if t := rt.tabs[from]; t != nil {
			t.received += n
		} else if newest && from != rt.path {
			rt.tabs[from] = &tab{received: n, blurred: true}
		}
	case from == rt.path:
		rt.cameFromPath(l, newest, surelyNewest, sure, answersOld && m.Type == wire.PathDrop)
	case move == dtlsserver.MoveAtOnce:
		if newest {
			l.mayMove(rt, from, surelyNewest)
		}
	case move == dtlsserver.MoveWhenProven:
		rt.cameFromElsewhere(l, from, n, newest, surelyNewest, sure)
		rt.proven(l, from, sure, m)
	}
}

// cameFromPath notes a record from the address where the session is, which may say that
// the peer has left.
func (rt *route) cameFromPath(l *ledger, newest, surelyNewest, sure, left bool) {
	now := l.w.now()
	switch {
	case !rt.candidate.IsValid() && !rt.unsure:
	case left && now < rt.asksNew:
		rt.asksNew, rt.unsure = now, !sure
	case left:
		rt.unsure = l.w.late()
	case surelyNewest:
		rt.forget()
	case newest:
		rt.unsure, rt.ends = true, 0
	}
}

// cameFromElsewhere notes a record from another address, which is the candidate, or
// becomes it.
func (rt *route) cameFromElsewhere(l *ledger, from netip.AddrPort, n int, newest, surelyNewest, sure bool) {
	t := rt.tabs[from]
	switch {
	case t != nil:
		t.received += n
		t.blurred = t.blurred || !sure
		if surelyNewest && rt.unsure {
			old, holds := rt.oldCookie, rt.holds
			rt.forget()
			t.blurred = true
			rt.begins(l, from, t)
			rt.oldCookie, rt.holds, rt.vague = old, holds, true
			rt.wants, rt.unsure = netip.AddrPort{}, rt.as.checks // whose check may have begun before
		}
	case surelyNewest:
		rt.forget()
		rt.begins(l, from, &tab{received: n})
	case newest:
		rt.tabs[from] = &tab{received: n, blurred: true}
		rt.unsure, rt.ends = true, 0
	}
}

// proven notes that a message about a path may prove the candidate.
func (rt *route) proven(l *ledger, from netip.AddrPort, sure bool, m *wire.PathMessage) {
	t := rt.tabs[from]
	if m == nil || m.Type != wire.PathResponse || t == nil {
		return
	}
	for _, c := range t.challenges {
		if c.cookie == m.Cookie {
			l.mayMove(rt, from, sure && !rt.unsure)
			return
		}
	}
}

// mayMove notes that a session may move to an address, or must, if there is room.
func (l *ledger) mayMove(rt *route, to netip.AddrPort, must bool) {
	most := l.w.server.MaxSessionsPerSource
	switch crowded := most > 0 && sourceOf(to.Addr()) != sourceOf(rt.path.Addr()) && l.openAt(sourceOf(to.Addr())) >= most; {
	case most > 0 && (l.w.has(slowHandler) || rt.mixed): // it is not known who is where
		rt.allow(to)
		rt.unsure, rt.ends = true, 0
	case crowded && must:
		rt.refused = true
	case crowded:
		rt.unsure, rt.ends = true, 0
	default:
		rt.allow(to)
		if must {
			rt.must = to
		}
	}
}

func (rt *route) allow(to netip.AddrPort) {
	if rt.allowed == nil {
		rt.allowed = make(map[netip.AddrPort]bool)
	}
	rt.allowed[to] = true
}

// begins makes an address the candidate.
func (rt *route) begins(l *ledger, from netip.AddrPort, t *tab) {
	now := l.w.now()
	rt.candidate, rt.tabs[from] = from, t
	if !rt.as.checks {
		return
	}
	rt.asksNew, rt.wants = now, from
	if l.w.server.ConnectionIDs.EnhancedCheck {
		rt.asksNew, rt.wants = now+challengePause, rt.path
	}
	if rt.wants == from && rt.pathLen() > mostAmplified*t.received {
		rt.wants = netip.AddrPort{}
	}
}

// forget lets go of the candidate.
func (rt *route) forget() {
	rt.candidate, rt.unsure, rt.oldCookie, rt.ends, rt.wants = netip.AddrPort{}, false, nil, 0, netip.AddrPort{}
	rt.holds, rt.vague, rt.released = nil, false, false
	clear(rt.tabs)
}

// expire lets go of a candidate that has not answered.
func (l *ledger) expire(rt *route) {
	w := l.w
	switch {
	case rt.ends == 0 || w.now() < rt.ends:
	case w.late() || w.now() == rt.ends:
		rt.unsure = true
	default:
		rt.forget()
	}
}

// late reports whether the server's timers may be late.
func (w *world) late() bool { return w.has(suspends) || w.has(slowHandler) || w.has(readErrors) }

// way judges where a datagram of a session with a connection ID is sent, with a record
// of this content. The next one may be its twin, which goes to the candidate.
func (l *ledger) way(rt *route, out, next *packet, twin bool, t wire.ContentType, content []byte) {
	to, d := out.remote, deviceOf(rt.as.attempt)
	if t == wire.ContentReturnRoutability && !twin {
		l.ofPath(rt, out, content)
		return
	}
	echo := !twin && t == wire.ContentApplicationData && bytes.HasPrefix(content, []byte("echo "))
	if echo {
		if t := rt.tabs[to]; t != nil {
			t.asked = true
		}
		l.charge(rt, out)
		return
	}
	if !twin && (to == rt.path || rt.allowed[to]) {
		l.both(rt, out, next)
		return
	}
	if !twin {
		l.violate("writes", d, "sent to the candidate %v only, not to %v: %d bytes of type %d", to, rt.path, len(content), t)
	}
	l.charge(rt, out)
}

// holdsBack reports whether a datagram has waited for its session to move to where it is
// sent now.
func (l *ledger) holdsBack(out *packet) bool {
	for _, rt := range l.routes {
		if !rt.allowed[out.remote] || rt.released {
			continue
		}
		for i, b := range rt.holds {
			if bytes.Equal(b, out.b) {
				if i < len(rt.holds)-1 && !rt.vague {
					l.violate("writes", deviceOf(rt.as.attempt), "not the last that was too much for %v is sent there", out.remote)
				}
				rt.released = true
				return true
			}
		}
	}
	return false
}

// both judges whether a message goes to the candidate too.
func (l *ledger) both(rt *route, out, next *packet) {
	const longest = 1500 // bytes that wait
	twin := next != nil && next.remote != out.remote && bytes.Equal(next.b, out.b)
	if rt.as.checks && !twin && out.remote == rt.path && (rt.candidate.IsValid() || rt.unsure) && len(out.b) <= longest {
		rt.holds = append(rt.holds, out.b)
		rt.vague = rt.unsure || rt.mixed || len(rt.allowed) > 0
	}
	t := rt.tabs[rt.candidate]
	if t == nil || rt.unsure || rt.mixed || rt.refused || len(rt.allowed) > 0 || t.blurred || t.charged+len(out.b) > mostAmplified*t.received {
		return
	}
	if next == nil || next.remote != rt.candidate || !bytes.Equal(next.b, out.b) {
		l.violate("writes", deviceOf(rt.as.attempt), "%d bytes for %v are not sent to the candidate %v, from which %d bytes came, and to which %d were sent", len(out.b), out.remote, rt.candidate, t.received, t.charged)
	}
}

// charge counts a datagram to a candidate.
func (l *ledger) charge(rt *route, out *packet) {
	d := deviceOf(rt.as.attempt)
	t := rt.tabs[out.remote]
	if t == nil {
		l.violate("budget", d, "sent %d bytes to %v, which is neither %v nor a candidate", len(out.b), out.remote, rt.path)
		return
	}
	t.charged += len(out.b)
	if out.err == nil {
		t.sent += len(out.b)
	}
	if t.sent > mostAmplified*t.received {
		l.violate("budget", d, "sent %d bytes to %v, from which %d have come", t.sent, out.remote, t.received)
	}
}

// ofPath judges a message about a path.
func (l *ledger) ofPath(rt *route, out *packet, content []byte) {
	d, now := deviceOf(rt.as.attempt), out.at.Sub(l.w.began)
	m, ok := wire.ParsePathMessage(content)
	if !ok || !rt.as.checks {
		l.violate("challenges", d, "sent %x, which is no message about a path, or nobody knows it", content)
		return
	}
	if m.Type == wire.PathResponse {
		l.pathAnswer(rt, out, m)
		return
	}
	if m.Type != wire.PathChallenge || l.cookies[m.Cookie] {
		l.violate("challenges", d, "sent path message %d, cookie %x", m.Type, m.Cookie)
	}
	l.cookies[m.Cookie] = true
	if rt.wants == out.remote {
		rt.wants = netip.AddrPort{}
	}
	if out.remote == rt.path {
		if !l.w.server.ConnectionIDs.EnhancedCheck || rt.oldCookie != nil && !rt.unsure || !rt.candidate.IsValid() && !rt.unsure {
			l.violate("challenges", d, "asks at %v, where it is", rt.path)
		}
		rt.oldCookie = &m.Cookie
		rt.oldCookies[m.Cookie] = true
		return
	}
	l.charge(rt, out)
	t := rt.tabs[out.remote]
	if t == nil {
		return
	}
	switch n := len(t.challenges); {
	case rt.unsure:
	case n == mostChallenges:
		l.violate("challenges", d, "asks %v once more", out.remote)
	case n > 0 && now-t.challenges[n-1].at < challengePause:
		l.violate("challenges", d, "asks %v again after %v", out.remote, now-t.challenges[n-1].at)
	case now < rt.asksNew:
		l.violate("challenges", d, "asks %v before %v could answer", out.remote, rt.path)
	}
	t.challenges = append(t.challenges, challenge{m.Cookie, now})
	if len(t.challenges) == mostChallenges && !rt.unsure {
		rt.ends = now + challengePause
	}
}

// pathAnswer judges the answer to a challenge of the client's.
func (l *ledger) pathAnswer(rt *route, out *packet, m wire.PathMessage) {
	d := deviceOf(rt.as.attempt)
	if rt.answers++; rt.answers > mostPathAnswers {
		l.violate("challenges", d, "answers %d challenges in a second", rt.answers)
	}
	for i := range rt.asked {
		q := &rt.asked[i]
		if q.answered || q.cookie != m.Cookie || q.from != out.remote {
			continue
		}
		q.answered = true
		switch {
		case q.from == rt.path || rt.allowed[q.from]:
		case rt.tabs[q.from] != nil && q.paid:
			l.charge(rt, out)
		case len(out.b) > mostAmplified*q.n:
			l.violate("budget", d, "answers %v with %d bytes for %d", q.from, len(out.b), q.n)
		}
		return
	}
	l.violate("challenges", d, "answers %x at %v, which was not asked from there", m.Cookie, out.remote)
}

// confirmed judges what ConfirmAddr says.
func (l *ledger) confirmed(as *association, t *told) {
	if as.route == nil {
		return
	}
	as.route.confirmed = append(as.route.confirmed, *t)
}

// confirms notes to which addresses the service lets sessions move in a step.
func (l *ledger) confirms(said []told) {
	for i := range said {
		t := &said[i]
		as := l.sessions[t.session]
		if as == nil || as.route == nil || !t.confirm.IsValid() {
			continue
		}
		rt := as.route
		if tab := rt.tabs[t.confirm]; tab != nil && (tab.asked || rt.mixed) && (rt.candidate == t.confirm || rt.unsure) {
			l.mayMove(rt, t.confirm, !rt.unsure && !rt.mixed && !tab.blurred) // of which it may be another candidate that was asked
		}
	}
}

// moved judges a session's move.
func (l *ledger) moved(e *dtlsserver.Event) {
	l.books.moved++
	as := l.sessions[e.Session]
	if as == nil || as.route == nil || as.closed {
		l.violate("moves", nil, "%v has moved from %v, which has no connection ID or is not open", e.Remote, e.PreviousRemote)
		return
	}
	rt := as.route
	switch {
	case e.PreviousRemote != rt.path || e.Remote == rt.path:
		l.violate("moves", deviceOf(as.attempt), "moves from %v to %v, and was at %v", e.PreviousRemote, e.Remote, rt.path)
	case !rt.allowed[e.Remote]:
		l.violate("moves", deviceOf(as.attempt), "moves from %v to %v, which is not proven", e.PreviousRemote, e.Remote)
	}
	if n := len(rt.holds); n > 0 && !rt.released && !rt.vague && !rt.unsure && !rt.mixed {
		l.violate("writes", deviceOf(as.attempt), "%d bytes wait for %v to be proven, and are not sent", len(rt.holds[n-1]), e.Remote)
	}
	rt.forget()
	rt.path, rt.moved, as.place = e.Remote, true, l.place(e.Remote)
	as.place.visit(as)
	as.place.proven = true
	if rt.must == e.Remote {
		rt.must = netip.AddrPort{}
	}
}

// visit notes that an association's client, or who copies its records, writes from
// here.
func (pl *place) visit(as *association) {
	for _, other := range pl.assocs {
		if other == as {
			return
		}
	}
	pl.add(as)
}

// checkRoutes judges where sessions are after a step.
func (l *ledger) checkRoutes() {
	asleep := !l.w.conn.ready()
	kept := l.routes[:0]
	for _, rt := range l.routes {
		if rt.as.closed {
			continue
		}
		kept = append(kept, rt)
		if !asleep {
			l.checkRoute(rt)
			rt.allowed, rt.must, rt.wants, rt.mixed, rt.asked = nil, netip.AddrPort{}, netip.AddrPort{}, false, nil
			rt.confirmed = nil
		}
	}
	l.routes = kept
}

func (l *ledger) checkRoute(rt *route) {
	d := deviceOf(rt.as.attempt)
	if l.expire(rt); rt.refused {
		rt.forget()
		rt.refused = false
	}
	if remote := rt.session.RemoteAddr(); remote != rt.path {
		l.violate("moves", d, "RemoteAddr is %v, and events say %v", remote, rt.path)
	}
	if rt.must.IsValid() && !rt.mixed {
		l.violate("moves", d, "is still at %v, though %v is proven", rt.path, rt.must)
	}
	if s, ok := l.w.server.SessionByAddr(rt.path, netip.AddrPort{}); !l.shares(rt.as) && (!ok || s != rt.session) {
		l.violate("moves", d, "is alone at %v, and not found there", rt.path)
	}
	for _, t := range rt.confirmed {
		if t.confirmed != (rt.path == t.confirm) && !rt.mixed {
			l.violate("moves", d, "ConfirmAddr says %v of %v, and it is at %v", t.confirmed, t.confirm, rt.path)
		}
	}
	candidate, ok := rt.session.CandidateAddr()
	switch {
	case rt.unsure:
	case ok != rt.candidate.IsValid() || ok && candidate != rt.candidate:
		l.violate("moves", d, "the candidate is %v, and should be %v", candidate, rt.candidate)
	}
	if rt.wants.IsValid() && !rt.unsure && !rt.mixed {
		l.violate("challenges", d, "%v is not asked, though %v is a candidate", rt.wants, rt.candidate)
	}
	l.checkAsked(rt)
	for _, q := range rt.asked {
		l.checkAnswer(rt, q)
	}
}

// checkAsked judges whether the candidate was asked when its time had come, as far as
// what had come from there allowed.
func (l *ledger) checkAsked(rt *route) {
	t := rt.tabs[rt.candidate]
	if t == nil || !rt.as.checks || rt.unsure || rt.mixed || t.blurred || l.w.late() || len(t.challenges) == mostChallenges {
		return
	}
	due := rt.asksNew
	if n := len(t.challenges); n > 0 {
		due = t.challenges[n-1].at + challengePause
	}
	if l.w.now() > due && t.charged+rt.pathLen() <= mostAmplified*t.received {
		l.violate("challenges", deviceOf(rt.as.attempt), "%v is not asked for the %dth time, since %v: %d bytes came from there, %d were sent", rt.candidate, len(t.challenges)+1, due, t.received, t.charged)
	}
}

// pathLen is the length of a record with a message about a path, to the client.
func (rt *route) pathLen() int {
	var s record.Sealer
	suite := rt.as.hello.suite
	keys := suite.NewSecret(rt.as.master).Keys([]byte(rt.as.random), rt.as.hello.random)
	_ = s.Init(suite.AEAD, 1, keys.ServerKey, keys.ServerIV)
	return s.Overhead(rt.as.theirs) + 1 + wire.PathCookieLen
}

// checkAnswer judges whether a challenge of the client's was answered.
func (l *ledger) checkAnswer(rt *route, q pathAsked) {
	n := rt.pathLen()
	t := rt.tabs[q.from]
	switch {
	case q.answered || !q.sure || rt.unsure || rt.mixed || len(rt.allowed) > 0 || rt.as.closed:
	case q.from != rt.path && t != nil && t.charged+n > mostAmplified*t.received:
	case q.from != rt.path && t == nil && n > mostAmplified*q.n:
	default:
		l.violate("challenges", deviceOf(rt.as.attempt), "the challenge %x from %v is not answered", q.cookie, q.from)
	}
}

// forsaken judges that a device begins anew since it got no answer: with a connection
// ID, it is answered wherever it is, once the network has healed.
func (l *ledger) forsaken(a *attempt) {
	const short = 20 // bytes of the client's connection ID, with which an answer is in the budget
	for _, rt := range l.routes {
		if rt.as.attempt == a && len(rt.as.theirs) <= short && !rt.as.closed && a.askedFirst > l.w.drawn.storm && a.d.changed <= a.askedFirst && a.d.old == nil && !l.w.has(movesNever) && a.d.honest() {
			l.violate("follows", a.d, "%s has got no answer since %v, and the session at %v is open", a.name(), a.askedFirst, rt.path)
		}
	}
}

// checkUnknown judges what is counted of connection IDs of no session.
func (l *ledger) checkUnknown(in *arrival, before, now *dtlsserver.Drops) {
	unknown, late := now.UnknownConnectionIDs-before.UnknownConnectionIDs, now.Closed-before.Closed
	wrong := now.ConnectionIDs - before.ConnectionIDs
	given := in.unknown != nil && l.given[string(in.unknown)]
	justClosed := in.last >= 0 && l.w.now()-in.last <= rememberedClosed
	switch {
	case l.w.has(slowHandler):
	case in.elsewhere && wrong+unknown+late != 1:
		l.violate("drops", deviceOf(in.attempt), "what is for a handshake elsewhere is counted %d, %d and %d times", wrong, unknown, late)
	case unknown > 1 || unknown == 1 && !given && !l.blurred:
		l.violate("drops", deviceOf(in.attempt), "a connection ID that no session had, %x, is counted as one that had", in.unknown)
	case in.ended && unknown+late != 1, in.ended && !justClosed && unknown != 1:
		l.violate("drops", deviceOf(in.attempt), "what is for a session that has ended is not counted")
	}
}

// checkReplaced judges a session that ended since another took its place: with a
// connection ID, only one of the same peer does.
func (l *ledger) checkReplaced() {
	for _, as := range l.replaced {
		if as.route == nil {
			continue
		}
		id, same := as.session.Identity(), false
		for session, other := range l.sessions {
			same = same || other != as && other.openedIn == l.steps && session.Identity() == id && id != (dtlsserver.Identity{})
		}
		if !same {
			l.violate("replaced", deviceOf(as.attempt), "gave way to a session of somebody else at %v", as.route.path)
		}
	}
	l.replaced = nil
}

// ranOut reports whether sessions have all connection IDs that were drawn for a client,
// but for some that may be of handshakes whose ServerHello nobody has seen.
func (l *ledger) ranOut() bool {
	const most, unseen = 16, 3
	drawn, free := l.w.service.takeDrawn(), make(map[string]bool)
	for _, first := range drawn {
		used := false
		for cid := range l.given {
			if strings.HasPrefix(cid, string(first)) {
				used = true
				if as := l.byCID[cid]; as != nil && as.closed { // a handshake has it now, perhaps
					delete(l.byCID, cid)
				}
			}
		}
		if !used {
			free[string(first)] = true
		}
	}
	return len(drawn) >= most && len(free) <= unseen
}

// newcomer is a session that has opened in a step.
type newcomer struct {
	source netip.Addr
	before int // sessions that were open there
	all    int // and everywhere
}

// sourceOf is what counts as one source.
func sourceOf(addr netip.Addr) netip.Addr {
	if addr.Is6() {
		p, _ := addr.Prefix(64)
		addr = p.Addr()
	}
	return addr
}

// openAt is how many sessions are open at a source, where they have moved since.
func (l *ledger) openAt(source netip.Addr) (n int) {
	for _, as := range l.sessions {
		if as.opened && !as.closed && as.place != nil && sourceOf(as.place.addr.Addr()) == source {
			n++
		}
	}
	return n
}

// newcome notes a session that opens.
func (l *ledger) newcome(addr netip.AddrPort) {
	if source := sourceOf(addr.Addr()); l.w.server.MaxSessionsPerSource > 0 {
		l.newcomers = append(l.newcomers, newcomer{source, l.openAt(source), int(l.books.opened - l.books.closed)})
	}
}

// checkSources judges whether sessions gave way when there were more than may be of one
// source, and only then.
func (l *ledger) checkSources() {
	s := l.w.server
	most, all := s.MaxSessionsPerSource, cmp.Or(s.MaxSessions, dtlsserver.DefaultMaxSessions)
	if most > 0 && !l.w.has(slowHandler) {
		needed := 0
		for _, n := range l.newcomers {
			if after := l.openAt(n.source); after > max(most, n.before) {
				l.violate("bounds", nil, "%d sessions at %v, at most %d are allowed, and there were %d", after, n.source, most, n.before)
			}
			if n.before+len(l.newcomers) > most || n.all+len(l.newcomers) > all {
				needed++
			}
		}
		if needed == 0 && l.gaveWay > 0 {
			l.violate("bounds", nil, "%d sessions gave way, and there was room", l.gaveWay)
		}
	}
	l.newcomers, l.gaveWay = nil, 0
}

// plainTo notes a datagram in plaintext, or of no session that is open, which may be of the
// last flight of a session there.
func (l *ledger) plainTo(out *packet) {
	for _, rt := range l.routes {
		if rt.path == out.remote && (rt.candidate.IsValid() || rt.unsure) {
			rt.holds, rt.vague = append(rt.holds, out.b), true
		}
	}
}
