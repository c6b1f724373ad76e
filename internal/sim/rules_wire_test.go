package sim

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/internal/record"
	"github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// The rules of datagrams: what may be sent to whom, and that no nonce is used
// twice.

// serverHello is one that the server has sent to an address.
type serverHello struct {
	random   []byte
	suite    *suite.Suite
	started  string // random of the newest hello then
	first    time.Duration
	last     time.Duration
	stirred  bool          // its client may have taken the handshake on since
	repeated time.Duration // when it was sent last of itself
	timers   int           // how often it was sent again of itself
	heard    bool          // something came from its address since
	whole    bool          // and so the following is known
	cid      []byte        // that the client's records are to have; nil: none
	paths    bool          // are checked
	offer    offer
}

// offer is what a hello says of connection IDs. An attacker may have changed it.
type offer struct {
	known bool   // the hello was whole
	cid   []byte // nil: none
	paths bool
}

// association is what a key log line or a ticket has keys for.
type association struct {
	attempt *attempt
	random  string
	master  []byte
	hello   *serverHello // nil: the keys are not known yet
	opener  record.Opener
	next    uint64 // the least sequence number that the server may use
	nonces  map[string]bool
	step    int            // when its line came; zero: with a ticket
	addr    netip.AddrPort // with a ticket: where

	openedIn int // the step in which it was told to be open
	ordinal  int // of sessions, in the order in which they were
	session  *dtlsserver.Session
	cid      []byte // the server's; nil: none
	theirs   []byte // the client's
	checks   bool   // paths may be checked
	route    *route // of an open session with a connection ID

	place    *place
	opened   bool          // told
	closed   bool          // told
	farewell bool          // close_notify was sent
	since    time.Duration // when it was told to be open
	made     time.Duration // when its full handshake was complete
	heard    time.Duration // when something was delivered last
	touched  time.Duration // when its client may have been heard last
	surely   time.Duration // when it was
	endedAt  time.Duration
	endedOn  *conn  // and the server's socket then
	highest  uint64 // of the records that came while it was open
	early    []*request
}

// A cookie is good for 30 to 60 s (Verifier).
const (
	minCookieAge = 30 * time.Second
	maxCookieAge = 60 * time.Second
)

// arrive looks at a datagram before the server's answer.
func (l *ledger) arrive(p *parcel) (in arrival) {
	in.parcel = p
	all, _ := records(p.b, l.w.cidLen)
	in.records = len(all)
	pl := l.place(p.from)
	in.last = pl.last
	for _, h := range pl.hellos {
		h.heard = true
	}
	l.source(p.from.Addr())
	if p.genuine && p.attempt != nil {
		in.attempt = p.attempt
	}
	for i, r := range all {
		in.plain = in.plain || r.Epoch == 0
		switch {
		case i == 0 && r.Epoch == 0 && r.Type == wire.ContentHandshake:
			l.arriveHello(&in, pl, all)
		case r.Epoch == 1 && (r.Type == wire.ContentHandshake || r.CID() != nil) && (!p.genuine || p.attempt == nil || p.attempt.d == nil):
			l.source(p.from.Addr()).suspect = true
		}
		if r.Epoch > 0 && !p.genuine {
			pl.copied[string(r.Raw)] = true
		}
	}
	if len(all) > 0 {
		l.arriveCID(&in, pl, all)
	}
	if in.plain && !in.hello { // which may have taken a handshake on: its timer begins anew
		for _, h := range pl.hellos {
			h.stirred = true
		}
	}
	if in.attempt != nil {
		l.arriveFrom(&in, pl, all)
	}

	return in
}

// arriveHello notes a hello, which may be in several fragments of the datagram, and
// whether its cookie is right.
func (l *ledger) arriveHello(in *arrival, pl *place, all []wire.Record) {
	f, _, ok := wire.ParseFragment(all[0].Payload)
	if !ok || f.Type != wire.TypeClientHello || f.Offset != 0 {
		return
	}
	body := bytes.Clone(f.Body)
	for _, r := range all[1:] {
		if next, _, ok := wire.ParseFragment(r.Payload); ok && next.Type == f.Type && next.MessageSeq == f.MessageSeq && int(next.Offset) == len(body) {
			body = append(body, next.Body...)
		}
	}
	h, _, ok := wire.ParseClientHelloHead(body)
	if !ok {
		return
	}
	in.hello, in.random = true, string(h.Random)
	whole, ok := wire.ParseClientHello(body)
	if l.altered = l.altered || !ok && in.random != ""; ok {
		versions := wire.SupportedVersions(whole.Extensions)
		if x, ok := wire.ParseClientExtensions(whole.Extensions); ok {
			in.offer = offer{true, bytes.Clone(x.ConnectionID), x.ReturnRoutability}
			if x.ConnectionID != nil && in.offer.cid == nil {
				in.offer.cid = []byte{}
			}
			l.offers(in.offer.cid)
		}
		in.newer = versions != nil && !bytes.Contains(versions, binary.BigEndian.AppendUint16(nil, wire.VersionDTLS12))
	}
	now := l.w.now()
	if c, ok := pl.issued[string(h.Cookie)]; ok && c.random == string(h.Random) && now-c.at <= maxCookieAge {
		in.verified, pl.proven = true, true
		for _, b := range pl.begun {
			b.rivaled = b.rivaled || b.random != in.random
		}
		in.fresh = now-c.at < minCookieAge && l.w.rotations-c.rotations <= 1 && in.attempt != nil && !in.attempt.damaged

		if a := l.attempts[c.random]; a != nil && a.verified < 0 {
			a.verified, a.verifiedIn = now, l.steps
		}
	}
}

// twin is a datagram that may go to another address too.
type twin struct {
	out     *packet
	route   *route // nil: of no session with a connection ID
	t       wire.ContentType
	content []byte
}

// sent judges a datagram of the server's. That of a session with a connection ID may go
// to two addresses, the one after the other.
func (l *ledger) sent(s *stimulus, in *arrival, out, next *packet) {
	if was := l.twin; was.route != nil && bytes.Equal(was.out.b, out.b) && was.out.remote != out.remote {
		l.twin = twin{}
		l.way(was.route, out, nil, true, was.t, was.content)
		return
	}
	if was := l.twin; was.route == nil && was.out != nil && bytes.Equal(was.out.b, out.b) {
		if rt := l.routeBetween(was.out.remote, out.remote); rt != nil { // in plaintext, of its last flight
			l.twin = twin{}
			l.way(rt, out, nil, true, 0, nil)
			return
		}
	}
	if l.holdsBack(out) {
		l.twin = twin{}
		return
	}
	pl := l.place(out.remote)
	l.twin = twin{out: out}
	all, ok := l.recordsTo(out.b)
	if !ok && l.altered && l.w.has(alter) { // the connection ID that was offered is not known
		return
	}
	if !ok || len(all) == 0 {
		l.violate("wire", nil, "sent to %v what are no records: %x", out.remote, out.b)
		return
	}
	for _, r := range all {
		if r.Epoch == 0 {
			l.sentPlain(s, in, pl, out, r)
		} else {
			l.sentSealed(in, pl, r)
		}
	}
	if l.twin.route == nil {
		l.plainTo(out)
	} else {
		l.way(l.twin.route, out, next, false, l.twin.t, l.twin.content)
	}
}

func (l *ledger) sentPlain(s *stimulus, in *arrival, pl *place, out *packet, r wire.Record) {
	if r.Type == wire.ContentHandshake {
		f, _, ok := wire.ParseFragment(r.Payload)
		if !ok {
			l.violate("wire", nil, "sent a malformed handshake message to %v", pl.addr)
			return
		}
		if f.Type == wire.TypeHelloVerifyRequest {
			l.sentCookie(in, pl, out, f)
			return
		}
		if f.Type == wire.TypeServerHello && f.Offset == 0 {
			l.sentHello(s, in, pl, f, out.at.Sub(l.w.began))
		}
		if most := l.w.server.MTU; most > 0 && len(out.b) > most || len(out.b) > 1200 {
			l.violate("mtu", nil, "sent %d bytes to %v in a handshake", len(out.b), pl.addr)
		}
	}
	if r.Type == wire.ContentApplicationData {
		l.violate("wire", nil, "sent data in plaintext to %v", pl.addr)
	}
	if r.Type == wire.ContentAlert && in.newer && in.parcel.from == pl.addr && !pl.proven {
		l.sentVersionAlert(in, out, r)
	} else if !pl.proven && !l.mayBeAt(pl.addr) {
		l.violate("unproven", nil, "sent %s to %v, whose address is not proven", l.w.trace.describe(out.b), pl.addr)
	}
}

// sentVersionAlert judges the one alert that may go to an address that is not
// proven: for a hello without DTLS 1.2, and much shorter.
func (l *ledger) sentVersionAlert(in *arrival, out *packet, r wire.Record) {
	const most = 100 // a second
	alert, ok := wire.ParseAlert(r.Payload)
	if !ok || alert.Level != wire.LevelFatal || alert.Description != wire.AlertProtocolVersion || len(out.b) != len(r.Raw) || 4*len(out.b) > len(in.parcel.b) {
		l.violate("unproven", nil, "sent %s to %v for a hello of %d bytes", l.w.trace.describe(out.b), out.remote, len(in.parcel.b))
	}
	if in.newer = false; in.stats.VersionAlerts > most*uint64(2+l.w.now()/time.Second) {
		l.violate("unproven", nil, "%d version alerts in %v", in.stats.VersionAlerts, l.w.now())
	}
}

// sentCookie judges a HelloVerifyRequest: one for a hello, no longer than it.
func (l *ledger) sentCookie(in *arrival, pl *place, out *packet, f wire.Fragment) {
	in.answers++
	switch {
	case !in.hello || in.parcel.from != pl.addr || in.answers > 1:
		l.violate("unproven", nil, "sent a HelloVerifyRequest to %v that answers no hello", pl.addr)
		return
	case len(out.b) > len(in.parcel.b):
		l.violate("unproven", nil, "sent %v %d bytes for %d", pl.addr, len(out.b), len(in.parcel.b))
	case len(f.Body) < 3 || len(f.Body) != 3+int(f.Body[2]):
		l.violate("wire", nil, "sent a malformed HelloVerifyRequest")
		return
	case in.fresh:
		l.violate("cookie", deviceOf(in.attempt), "asked for a cookie again, though the one in the hello is right")
	}
	r, _, _ := wire.ParseRecord(in.parcel.b, l.w.cidLen)
	hello, _, _ := wire.ParseFragment(r.Payload)
	if f.MessageSeq != hello.MessageSeq {
		l.violate("wire", nil, "HelloVerifyRequest has message_seq %d, the hello %d", f.MessageSeq, hello.MessageSeq)
	}
	pl.issued[string(f.Body[3:])] = issue{l.w.now(), in.random, l.w.rotations}
}

func deviceOf(a *attempt) *device {
	if a == nil {
		return nil
	}
	return a.d
}

// sentHello notes a ServerHello.
func (l *ledger) sentHello(s *stimulus, in *arrival, pl *place, f wire.Fragment, now time.Duration) {
	const fixed = 2 + wire.RandomLen
	if len(f.Body) < fixed+1 || len(f.Body) < fixed+1+int(f.Body[fixed])+2 {
		return // its first fragment is short
	}
	random := f.Body[2:fixed]
	for _, h := range pl.hellos {
		if bytes.Equal(h.random, random) {
			l.again(s, pl, h, now)
			h.last = now
			return
		}
	}
	rest := f.Body[fixed+1+int(f.Body[fixed]):]
	h := &serverHello{random: bytes.Clone(random), suite: suite.ByID(uint16(rest[0])<<8 | uint16(rest[1])), first: now, last: now, repeated: now}
	h.started, h.offer = pl.answer()
	if h.suite == nil {
		l.violate("wire", nil, "chose an unknown suite for %v", pl.addr)
		return
	}
	if a := l.attempts[h.started]; a != nil {
		a.flights++
	}
	h.whole = f.Whole()
	h.readConnectionID(rest[3:])
	if l.blurred = l.blurred || !h.whole; h.whole {
		l.gave(in, pl, h, l.attempts[h.started])
	}
	if l.randoms[string(random)] {
		l.violate("random", nil, "the random of a ServerHello to %v was used before", pl.addr)
	}
	l.randoms[string(random)] = true
	for _, as := range pl.assocs {
		if as.random == h.started && as.opened && !as.closed && (as.route == nil || !as.route.moved && !l.shares(as)) {
			l.violate("replayed", deviceOf(as.attempt), "the hello of the session that is open has begun a handshake")
		}
	}
	if !pl.rivaled(h.started) { // else its timer has run on while it was kept back
		l.watch(h)
	}
	const kept = 32 // the older of two handshakes may stay while many of the newer come and go
	if pl.hellos = append(pl.hellos, h); len(pl.hellos) > kept {
		pl.hellos = pl.hellos[1:]
	}
}

// readConnectionID reads what the extensions of a ServerHello say of connection IDs.
func (h *serverHello) readConnectionID(block []byte) {
	for b := block[min(2, len(block)):]; len(b) >= 4; {
		id, n := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
		if b = b[4:]; len(b) < n {
			return
		}
		switch {
		case id == extensionCID && n > 0:
			h.cid = bytes.Clone(b[1:n])
		case id == extensionPaths:
			h.paths = true
		}
		b = b[n:]
	}
}

// begin notes that the server has begun a handshake.
func (pl *place) begin(random string, of offer) {
	const kept = 32
	if pl.begun = append(pl.begun, &begun{random: random, offer: of}); len(pl.begun) > kept {
		pl.begun = pl.begun[1:]
	}
}

// rivaled reports whether a client has begun another handshake since the one with
// a hello of this random, or with the same hello and a later cookie.
func (pl *place) rivaled(random string) bool {
	same := 0
	for _, b := range pl.begun {
		if b.random == random {
			if same++; b.rivaled || same > 1 {
				return true
			}
		}
	}
	return false
}

// leftAlone reports whether another handshake at the attempt's address may speak to
// its client, since the attempt's own gave way at a limit.
func (l *ledger) leftAlone(a *attempt) bool {
	return len(l.place(a.addr).begun) > 1 && l.w.server.Stats().Dropped.Evicted > 0
}

// add adds an association that may be alive.
func (pl *place) add(as *association) {
	const kept = 32 // some are at other addresses now
	if pl.assocs = append(pl.assocs, as); len(pl.assocs) <= kept {
		return
	}
	over := func(as *association) bool { return as.closed || !as.opened }
	if i := slices.IndexFunc(pl.assocs[:kept], over); i >= 0 {
		pl.assocs = slices.Delete(pl.assocs, i, i+1)
	}
}

// answer returns the random of the hello that a new ServerHello answers: of the
// latest handshake that has none yet.
func (pl *place) answer() (random string, of offer) {
	for i := len(pl.begun) - 1; i >= 0; i-- {
		if b := pl.begun[i]; !b.answered {
			b.answered = true
			return b.random, b.offer
		}
	}
	return "", offer{}
}

// firstTimeout is the server's, or a little less (RFC 6347 section 4.2.4.1).
func (w *world) firstTimeout() time.Duration { return cmp.Or(w.server.RetransmitTimeout, time.Second) }

// watch sees to it that a flight that nobody answers is sent again.
func (l *ledger) watch(h *serverHello) {
	w := l.w
	evicted, closed := w.server.Stats().Dropped.Evicted, w.server.Stats().SessionsClosed
	c := w.conn
	w.after(w.firstTimeout()*3/2, func() {
		stats := w.server.Stats()
		quiet := stats.Dropped.Evicted == evicted && stats.SessionsClosed == closed && c == w.conn && !w.closing && w.standing == 0 && !w.has(slowHandler) && !w.has(readErrors)
		if !h.heard && h.last == h.first && quiet {
			l.violate("repeats", nil, "a flight is not sent again after %v", w.now()-h.first)
		}
	})
}

// again judges a flight that is sent again: not at once, and of itself after
// times that double (RFC 6347 section 4.2.4.1), or a little less when the client
// has taken the handshake on meanwhile.
func (l *ledger) again(s *stimulus, pl *place, h *serverHello, now time.Duration) {
	if s.kind == "timer" {
		if least := l.w.firstTimeout() << min(h.timers, 5) * 3 / 4; now-h.repeated < least && !h.stirred && !l.w.has(slowHandler) && !l.w.drawn.traits.has(tellingPath) && !l.w.has(readErrors) {
			l.violate("backoff", nil, "a flight is sent again after %v, not %v", now-h.repeated, least)
		}
		if h.stirred {
			h.timers, h.stirred = 0, false
		}
		h.timers++
		h.repeated = now
	}
	a := l.attempts[h.started]
	if gap := min(l.w.firstTimeout()/5, 100*time.Millisecond); now-h.last < gap && now > h.last {
		l.violate("again", deviceOf(a), "sent the same flight to %v twice within %v", pl.addr, now-h.last)
	}
}

// newAssociation is what a line of the key log tells, in the step of a datagram. Of
// several with one random, since the client's address has changed, the datagram says
// which it is.
func (l *ledger) newAssociation(random string, master []byte, p *parcel) *association {
	all := l.resumed[random]
	for i := len(all) - 1; i >= 0; i-- {
		if as := all[i]; bytes.Equal(as.master, master) && (i == 0 || p != nil && as.addr == p.from) {
			l.resumed[random] = slices.Delete(all, i, i+1)
			return as
		}
	}
	return &association{attempt: l.attempts[random], random: random, master: master, nonces: make(map[string]bool), step: l.steps}
}

// complete reports whether the attempt's handshake was complete in a step.
func (l *ledger) complete(a *attempt, step int) bool {
	return slices.ContainsFunc(l.place(a.addr).assocs, func(as *association) bool { return as.attempt == a && as.step <= step })
}

// sentSealed judges a sealed record: somebody has its key, and its nonce is
// new.
func (l *ledger) sentSealed(in *arrival, pl *place, r wire.Record) {
	if r.Epoch != 1 {
		l.violate("wire", nil, "sent a record of epoch %d to %v", r.Epoch, pl.addr)
		return
	}
	as, content, t := l.unseal(pl, r)
	if !pl.proven && (as == nil || as.route == nil) {
		l.violate("unproven", nil, "sent a sealed record to %v, whose address is not proven", pl.addr)
	}
	if as == nil {
		l.violate("keys", nil, "sent %v a record that no key opens: %s", pl.addr, describeRecord(r))
		return
	}
	if n := as.hello.suite.ExplicitNonceLen(); n > 0 {
		nonce := string(r.Payload[:n])
		if as.nonces[nonce] {
			l.violate("nonce", deviceOf(as.attempt), "explicit nonce %x was used twice", nonce)
		}
		as.nonces[nonce] = true
		if !bytes.Equal(r.Raw[3:11], r.Payload[:n]) {
			l.violate("nonce", deviceOf(as.attempt), "explicit nonce %x is not the sequence number", nonce)
		}
	}
	if h := as.hello; h.whole && h.offer.known {
		if with := h.cid != nil && len(h.offer.cid) > 0; with != (r.CID() != nil) || with && !bytes.Equal(r.CID(), h.offer.cid) {
			l.violate("cids", deviceOf(as.attempt), "a record has the connection ID %x, not %x", r.CID(), h.offer.cid)
		}
	}
	l.twin.route, l.twin.t, l.twin.content = as.route, t, content
	switch t {
	case wire.ContentAlert:
		if a, ok := wire.ParseAlert(content); !ok {
			l.violate("wire", nil, "sealed a malformed alert")
		} else if a.Description == wire.AlertCloseNotify {
			as.farewell = true
		}
	case wire.ContentApplicationData:
		if as.closed {
			l.violate("order", deviceOf(as.attempt), "sealed data after the session was closed")
		}
	case wire.ContentHandshake:
		if f, _, ok := wire.ParseFragment(content); ok && f.Type == wire.TypeFinished && in.finished {
			in.finished = false // it is answered
		}
	}
}

// unseal finds the association that a record is of.
func (l *ledger) unseal(pl *place, r wire.Record) (*association, []byte, wire.ContentType) {
	for i := len(pl.assocs) - 1; i >= 0; i-- {
		as := pl.assocs[i]
		if as.hello == nil {
			continue
		}
		if content, t, ok := l.open(as, r); ok {
			return as, content, t
		}
	}
	// Whose handshake is new: of the key log, or with a ticket; or that has not
	// said anything yet.
	var candidates []*association
	for _, as := range pl.assocs {
		if as.hello == nil {
			candidates = append(candidates, as)
		}
	}
	for _, as := range l.logged {
		if as.hello == nil {
			candidates = append(candidates, as)
		}
	}
	for _, b := range pl.begun {
		if a := l.attempts[b.random]; a != nil && a.offered != nil {
			candidates = append(candidates, &association{attempt: a, random: b.random, master: a.offered, nonces: make(map[string]bool)})
		}
	}
	for _, as := range candidates {
		for _, h := range pl.hellos {
			keys := h.suite.NewSecret(as.master).Keys([]byte(as.random), h.random)
			if as.opener.Init(h.suite.AEAD, keys.ServerKey, keys.ServerIV) != nil {
				continue
			}
			if content, t, err := as.opener.Open(nil, r); err == nil {
				as.hello, as.next = h, r.Seq+1
				if as.attempt != nil && as.attempt.offered != nil {
					as.addr = pl.addr
					l.resumed[as.random] = append(l.resumed[as.random], as)
				}
				if !as.opened {
					pl.add(as)
				}
				return as, content, t
			}
		}
	}
	return nil, nil, 0
}

// open opens a record with the association's key. A sequence number that does
// not rise is a nonce that is used twice.
func (l *ledger) open(as *association, r wire.Record) ([]byte, wire.ContentType, bool) {
	fresh := as.opener // without marking its window
	content, t, err := fresh.Open(nil, r)
	if err == record.ErrForged {
		return nil, 0, false
	}
	if err == record.ErrReplayed || r.Seq < as.next {
		again := as.opener
		keys := as.hello.suite.NewSecret(as.master).Keys([]byte(as.random), as.hello.random)
		_ = again.Init(as.hello.suite.AEAD, keys.ServerKey, keys.ServerIV)
		if content, t, err = again.Open(nil, r); err != nil {
			return nil, 0, false
		}
		l.violate("nonce", deviceOf(as.attempt), "sequence number %d is used again, %d is the next", r.Seq, as.next)
		return content, t, true
	}
	as.opener, as.next = fresh, r.Seq+1
	return content, t, true
}
