package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// What may happen in a run. A seed draws a subset, since all at once would hide
// faults behind each other.

// trait is a way in which a client behaves.
type trait int

// The traits.
const (
	fixedTimer         trait = iota // repeats itself at an interval that does not double
	neverRepeats                    // has no timer of its own
	freshSessionID                  // draws a session_id for each hello
	manySuites                      // offers 66 cipher suites
	splitHello                      // hello in fragments, one a datagram
	splitHelloInOne                 // hello in fragments, all in one datagram
	tinyFragments                   // messages of its last flight in fragments of a few bytes
	shuffles                        // sends the records of its last flight in any order
	separateRecords                 // one record a datagram
	firstRecordOnly                 // takes the first record of a datagram only
	recordAnEvent                   // takes one record for each datagram or timer
	tickets                         // resumes
	dataBehindFinished              // sends a request right behind Finished when it resumes
	noEMS                           // has no extended master secret
	fixedPort                       // connects from the same port each time
	ignoresClose                    // does not answer close_notify
	leaves                          // closes its session now and then
	leavesQuietly                   // and says nothing
	restarts                        // loses its memory at any moment
	rekeys                          // makes another handshake beside its session
	alertsAndRetries                // gives up a handshake with an alert, and tries again at once
	sleeps                          // says nothing for an hour
	vanishes                        // is never heard again
	wrongKey                        // has another key than the server
	unknownIdentity                 // has an identity that the server does not know
	badCertificate                  // has a certificate that the server must refuse
	distrusts                       // refuses the server's certificate
	slowPath                        // has a round trip of up to 10 s
	narrowPath                      // its path loses long datagrams
	tellingPath                     // and says so
	rebinds                         // its NAT gives it another port now and then
	onlyP256                        // knows no other group
	wrongUsage                      // has a certificate that is not for signatures
	chatters                        // sends a hundred messages at once

	connectionID // offers a connection ID
	checksPaths  // and the return routability check
	asksPaths    // which it begins itself now and then
	roams        // goes on with its session from another network, and knows it
	numTraits
)

var traitNames = [numTraits]string{
	"fixedTimer", "neverRepeats", "freshSessionID", "manySuites", "splitHello", "splitHelloInOne", "tinyFragments",
	"shuffles", "separateRecords", "firstRecordOnly", "recordAnEvent", "tickets", "dataBehindFinished", "noEMS",
	"fixedPort", "ignoresClose", "leaves", "leavesQuietly", "restarts", "rekeys", "alertsAndRetries", "sleeps",
	"vanishes", "wrongKey", "unknownIdentity", "badCertificate", "distrusts", "slowPath", "narrowPath",
	"tellingPath", "rebinds", "onlyP256",
	"wrongUsage", "chatters", "connectionID", "checksPaths", "asksPaths", "roams",
}

func (t trait) String() string { return traitNames[t] }

// dishonest are the traits of those who need not be served.
var dishonest = traitsOf(wrongKey, unknownIdentity, badCertificate, wrongUsage, distrusts, vanishes)

// traits is a set of them.
type traits uint64

func traitsOf(list ...trait) (s traits) {
	for _, t := range list {
		s |= 1 << t
	}
	return s
}

func (s traits) has(t trait) bool { return s&(1<<t) != 0 }

func (s traits) String() string {
	var names []string
	for t := range numTraits {
		if s.has(t) {
			names = append(names, t.String())
		}
	}
	return strings.Join(names, " ")
}

// feature is something of the world that is not a client's.
type feature int

// The features.
const (
	loss       feature = iota // datagrams are lost at random
	bursts                    // and several in a row
	oneWay                    // in one direction only
	duplicates                // datagrams come twice
	reorders                  // datagrams overtake each other
	jitter                    // delays differ
	partitions                // nothing passes for a while
	sharedNAT                 // clients are behind one address
	forgets                   // which forgets its mappings
	ipv6                      // some clients have IPv6
	fullSocket                // the server's socket takes nothing for a while
	readErrors                // and tells of peers that are gone

	closes        // the operator closes the server and serves again
	shutsDown     // with Shutdown
	rotates       // secrets and ticket keys are rotated
	slowHandler   // the handler takes its time
	slowHooks     // hooks answer late
	failingHooks  // or with an error
	hangingHooks  // or when they are told to stop
	suspends      // the machine stops for a while
	hints         // there is a PSK identity hint
	longChain     // the certificate is long
	asksClients   // clients must have certificates
	asksVerdict   // VerifyConnection is set
	asksForCert   // GetCertificate is set
	twoKinds      // there is a certificate of P-384, and one of P-256
	noTickets     // session tickets are off
	smallLimits   // few sessions and handshakes are allowed
	shortIdle     // sessions end after half a minute of silence
	smallMTU      // the server's datagrams are short
	serverSpeaks  // the server writes when it likes
	serverHangsUp // and closes sessions

	junk         // attackers who see nothing send anything
	spoofedHello // or hellos from any address
	stolenCookie // or cookies of their own from other addresses
	replay       // attackers who see all send datagrams again
	alter        // and damaged
	halfOpen     // attackers with addresses begin handshakes
	insider      // and with a key, sessions

	fleet // many clients come at once
	night // everybody is silent for hours
	aging // sessions end when they are old
	timer // the server's first timeout is another than the default

	// Those below are of connection IDs.

	noCIDs      // the server gives none
	otherCIDs   // of another length than the default
	movesAtOnce // sessions move without proof
	movesNever
	enhanced    // the old address is asked first
	confirms    // the service has its own proof
	reusesPorts // the NAT gives ports again that others have had
	races       // attackers who see all copy datagrams, and are faster
	tracks      // attackers who see all use the connection IDs of others
	wanderer    // an insider writes from everywhere

	fewPerSource // sessions of one address are limited
	numFeatures
)

var featureNames = [numFeatures]string{
	"loss", "bursts", "oneWay", "duplicates", "reorders", "jitter", "partitions", "sharedNAT", "forgets", "ipv6",
	"fullSocket", "readErrors", "closes", "shutsDown", "rotates", "slowHandler", "slowHooks", "failingHooks",
	"hangingHooks", "suspends", "hints", "longChain", "asksClients", "asksVerdict", "asksForCert", "twoKinds", "noTickets",
	"smallLimits", "shortIdle", "smallMTU", "serverSpeaks", "serverHangsUp", "junk", "spoofedHello", "stolenCookie",
	"replay", "alter", "halfOpen", "insider", "fleet", "night", "aging", "timer",
	"noCIDs", "otherCIDs", "movesAtOnce", "movesNever", "enhanced", "confirms", "reusesPorts", "races", "tracks", "wanderer", "fewPerSource",
}

func (f feature) String() string { return featureNames[f] }

type features uint64

func (s features) has(f feature) bool { return s&(1<<f) != 0 }

func (s features) String() string {
	var names []string
	for f := range numFeatures {
		if s.has(f) {
			names = append(names, f.String())
		}
	}
	return strings.Join(names, " ")
}

// plan is what a run is made from. What it leaves out is for the shrinker and
// for replays: the rest is as it would be.
type plan struct {
	seed    uint64
	bytes   []byte        // decisions of a fuzzer's; nil: none
	without []string      // names of traits and features
	devices []int         // those that there are; nil: all
	storm   time.Duration // how long it lasts; zero: drawn
	fleet   *fleetPlan    // not nil: in place of what the seed draws
}

func (p *plan) lacks(name string) bool { return slices.Contains(p.without, name) }

// flags are the flags of the command that runs the plan.
func (p *plan) flags() string {
	var b strings.Builder
	fmt.Fprintf(&b, "-sim.seed %d", p.seed)
	if len(p.without) > 0 {
		fmt.Fprintf(&b, " -sim.without %s", strings.Join(p.without, ","))
	}
	if p.devices != nil {
		fmt.Fprintf(&b, " -sim.devices %s", strings.Trim(strings.ReplaceAll(fmt.Sprint(p.devices), " ", ","), "[]"))
	}
	if p.storm != 0 {
		fmt.Fprintf(&b, " -sim.storm %v", p.storm)
	}
	return b.String()
}

// drawn is what a plan's seed has drawn.
type drawn struct {
	features features
	traits   traits // that clients may have
	devices  int
	storm    time.Duration // until the network heals
}

// draw draws the subset of what may happen.
func (p *plan) draw() drawn {
	if p.fleet != nil {
		return p.fleet.draw()
	}
	c := newChoices(p, "swarm", 0)
	var d drawn
	d.storm = c.span(15*time.Second, 75*time.Second)
	d.devices = 1 + c.below(10)
	for f := range numFeatures {
		if f >= aging { // which are drawn last, so that older seeds are what they were
			continue
		}
		probability := 0.2
		switch f {
		case fleet:
			probability = 0.06
		case night:
			probability = 0.08
		case closes, shutsDown:
			probability = 0.1
		case asksClients, smallLimits, hangingHooks, slowHooks:
			probability = 0.3
		}
		if c.chance(probability) && !p.lacks(f.String()) {
			d.features |= 1 << f
		}
	}
	for t := range connectionID {
		if c.chance(0.25) && !p.lacks(t.String()) {
			d.traits |= 1 << t
		}
	}
	if c.chance(0.2) && !p.lacks(aging.String()) && !d.features.has(fleet) { // which would come again and again
		d.features |= 1 << aging
	}
	if c.chance(0.15) && !p.lacks(timer.String()) && !d.features.has(fleet) {
		d.features |= 1 << timer
	}
	p.drawConnectionIDs(c, &d)
	if d.features.has(fleet) {
		d.devices = 20 + c.below(60)
		d.traits &= traitsOf(fixedTimer, tickets, noEMS, fixedPort, connectionID, checksPaths)
		if !p.lacks(slowPath.String()) {
			d.traits |= traitsOf(slowPath)
		}
	}
	if p.storm != 0 {
		d.storm = min(d.storm, p.storm)
	}
	return d
}

// drawConnectionIDs draws what is about connection IDs, which most seeds have.
func (p *plan) drawConnectionIDs(c *choices, d *drawn) {
	if !c.chance(0.65) || p.lacks(connectionID.String()) {
		return
	}
	d.traits |= traitsOf(connectionID)
	for t := checksPaths; t < numTraits; t++ {
		if c.chance(0.6) && !p.lacks(t.String()) {
			d.traits |= 1 << t
		}
	}
	for f := noCIDs; f < numFeatures; f++ {
		probability := 0.3
		switch f {
		case noCIDs:
			probability = 0.04
		case movesAtOnce, movesNever:
			probability = 0.12
		case enhanced:
			probability = 0.25
		}
		if c.chance(probability) && !p.lacks(f.String()) {
			d.features |= 1 << f
		}
	}
	if d.features.has(movesAtOnce) {
		d.features &^= 1 << movesNever
	}
}
