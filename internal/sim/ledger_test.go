package sim

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// The ledger: it has all keys, reads every datagram and every event, and says
// what must never be. Each rule has a name, by which its finding is told. The
// rules of datagrams are in rules_wire_test.go, those of sessions in
// rules_session_test.go, those of figures in rules_stats_test.go.

// violation is a finding.
type violation struct {
	Rule   string
	At     time.Duration
	Device int // negative: none
	Text   string
}

func (v violation) String() string {
	who := ""
	if v.Device >= 0 {
		who = fmt.Sprintf(" (device %d)", v.Device)
	}
	return fmt.Sprintf("%s%s at %.6f s: %s", v.Rule, who, v.At.Seconds(), v.Text)
}

// stimulus is what the world has done to the server in a step.
type stimulus struct {
	kind   string  // serve, datagram, timer, hook, write, close, or self: nothing
	parcel *parcel // of a datagram
}

type ledger struct {
	w         *world
	found     []violation
	datagrams int // that were sent, both ways
	steps     int

	attempts map[string]*attempt // by client random
	places   map[netip.AddrPort]*place
	sources  map[netip.Addr]*origin
	sessions map[*dtlsserver.Session]*association
	resumed  map[string][]*association // by client random: with a ticket, not told yet
	order    []*attempt
	opens    int                      // sessions that have opened
	randoms  map[string]bool          // of ServerHellos
	masters  map[string]time.Duration // when the full handshakes of master secrets were complete
	logged   []*association           // by lines of the key log, whose sessions are still to be told

	theirs   map[string]bool           // connection IDs that clients have offered
	given    map[string]bool           // connection IDs that the server has given
	altered  bool                      // an attacker may have altered a connection ID that a client offered
	blurred  bool                      // it may have given more
	begunAt  map[string]netip.AddrPort // where the handshakes are that it has given them in
	byCID    map[string]*association   // by the server's connection ID: sessions that are or were open
	reached  map[string]uint64         // the highest sequence number that came with a connection ID of no open session
	routes   []*route                  // of those that are
	cookies  map[[8]byte]bool          // of challenges
	replaced []*association            // that have ended in this step for another
	twin     twin                      // the last datagram of the step

	newcomers []newcomer // of this step
	gaveWay   int        // sessions that were evicted in it

	books books
}

// place is what the server may know of an address.
type place struct {
	addr   netip.AddrPort
	issued map[string]issue // cookies
	proven bool
	hellos []*serverHello  // the latest
	assocs []*association  // that may be alive, the newest last
	begun  []*begun        // handshakes, the latest
	copied map[string]bool // sealed records that attackers have sent in its name
	last   time.Duration   // when a session at it was closed by the server; negative: never
}

// begun is a handshake that the server has begun.
type begun struct {
	random   string // of its hello
	answered bool   // by a ServerHello
	rivaled  bool   // a verified hello of another random came at its address
	offer    offer
}

// issue is what a cookie was issued for.
type issue struct {
	at     time.Duration
	random string

	rotations int // of the secrets, until then
}

// origin is an address that many may share.
type origin struct {
	wrongKeys int  // failures that the service was told of
	suspect   bool // somebody has no right key, or has sent what does not open
	alerts    map[uint8]int
}

func newLedger(w *world) *ledger {
	return &ledger{
		w: w, attempts: make(map[string]*attempt), places: make(map[netip.AddrPort]*place),
		sources: make(map[netip.Addr]*origin), sessions: make(map[*dtlsserver.Session]*association),
		resumed: make(map[string][]*association), randoms: make(map[string]bool), masters: make(map[string]time.Duration),
		theirs: make(map[string]bool), given: make(map[string]bool), byCID: make(map[string]*association), reached: make(map[string]uint64), begunAt: make(map[string]netip.AddrPort), cookies: make(map[[8]byte]bool),
	}
}

// violate notes a finding. Of one rule and device, the first few will do.
func (l *ledger) violate(rule string, d *device, format string, args ...any) {
	v := violation{Rule: rule, At: l.w.now(), Device: -1, Text: fmt.Sprintf(format, args...)}
	if d != nil {
		v.Device = d.id
	}
	l.w.note("!!! %v", v)
	same := 0
	for _, f := range l.found {
		if f.Rule == v.Rule && f.Device == v.Device {
			same++
		}
	}
	if same < 3 {
		l.found = append(l.found, v)
	}
}

// begin is told of an attempt.
func (l *ledger) begin(a *attempt) {
	l.attempts[string(a.c.Random[:])] = a
	l.order = append(l.order, a)
	l.offers(a.c.CID)
}

// number is the place of a session among all.
func (l *ledger) number(s *dtlsserver.Session) int {
	if as := l.sessions[s]; as != nil {
		return as.ordinal
	}
	return 0
}

func (l *ledger) place(addr netip.AddrPort) *place {
	p := l.places[addr]
	if p == nil {
		p = &place{addr: addr, issued: make(map[string]issue), copied: make(map[string]bool), last: -1}
		l.places[addr] = p
	}
	return p
}

// source is what is told of an address's events, without those of its ports.
func (l *ledger) source(addr netip.Addr) *origin {
	addr = sourceOf(addr)
	o := l.sources[addr]
	if o == nil {
		o = &origin{alerts: make(map[uint8]int)}
		l.sources[addr] = o
	}
	return o
}

// step judges one step: what the world did, what the server said to the
// service, and what it sent.
func (l *ledger) step(s *stimulus, sent []packet, said []told) {
	at := l.w.now()
	l.steps++
	var in arrival
	for _, rt := range l.routes {
		l.expire(rt)
	}
	if s.kind == "datagram" {
		l.datagrams++
		l.w.trace.addr(at, "    server gets from", s.parcel.from, s.parcel.b)
		in = l.arrive(s.parcel)
	}
	in.stats = l.w.server.Stats()
	if in.verified && in.stats.HandshakesStarted > l.books.before.HandshakesStarted {
		l.place(s.parcel.from).begin(in.random, in.offer)
	}
	for i := range said {
		if said[i].random != "" {
			l.logged = append(l.logged, l.newAssociation(said[i].random, said[i].master, s.parcel))
		}
	}
	l.confirms(said)
	l.books.ranOut = l.books.ranOut || l.ranOut()
	for i := range sent {
		what := "    server sends to"
		if sent[i].err != nil {
			what = "    server cannot send to"
		}
		l.w.trace.addr(at, what, sent[i].remote, sent[i].b)
		l.datagrams++
		var next *packet
		if i+1 < len(sent) {
			next = &sent[i+1]
		}
		l.sent(s, &in, &sent[i], next)
	}
	l.twin = twin{}
	for i := range said {
		l.hear(&in, &said[i])
	}
	l.arrived(&in)
	l.checkRoutes()
	l.checkReplaced()
	l.checkSources()
	l.check(s, &in, sent, said)
}

// arrival is a datagram that has come to the server, and what it should lead
// to.
type arrival struct {
	parcel    *parcel
	records   int
	attempt   *attempt // whose it is, as it was
	assoc     *association
	hello     bool   // it begins with a ClientHello
	random    string // its random
	offer     offer
	newer     bool // it offers other versions than DTLS 1.2 only
	verified  bool // with a right cookie
	fresh     bool // that must be taken for one
	finished  bool // a whole Finished that has been received is in it
	ends      bool // the client ends its session
	answers   int  // HelloVerifyRequests
	plain     bool // there is a plaintext record in it
	requests  []*request
	unknown   []byte           // the connection ID of the first record, if no open session has it
	ended     bool             // one that has ended has it
	elsewhere bool             // it is of a handshake, if that is still in progress, at another address
	last      time.Duration    // when a session at its address was closed last
	stats     dtlsserver.Stats // after the step

	withoutCID bool // its client has offered a connection ID and got none
}

// records splits a datagram with connection IDs of a length.
func records(b []byte, cidLen int) (all []wire.Record, ok bool) {
	for len(b) > 0 {
		r, rest, ok := wire.ParseRecord(b, cidLen)
		if !ok {
			return all, false
		}
		all, b = append(all, r), rest
	}
	return all, true
}
