package dtlsserver

// The states that a server can be in towards one address, for the search for the
// dearest datagram, and what a datagram costs the loop in each.

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/testcert"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/udpio"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// towards is a state of a server towards an address.
type towards struct {
	name   string
	server func(*Server)
	suite  uint16 // of the peer there
	build  func(*towardsOne)
	// waits: for a hook or for work that does not come to an end.
	waits bool
	// age is how long ago the state was reached. Zero: 300 ms, after which
	// what is repeated is answered again.
	age time.Duration
}

// The servers.
var (
	serverOfKeys   = func(s *Server) {}
	serverOfChains = func(s *Server) {
		s.Certificates = []tls.Certificate{issueMade("localhost", "Ed25519", 0)}
		s.ClientAuth, s.ClientCAs = tls.RequireAndVerifyClientCert, madeAuthority().Pool
	}
	serverOfMany = func(s *Server) {
		for i := range 20 {
			s.Certificates = append(s.Certificates, issueMade(fmt.Sprintf("host%d.example", i), "Ed25519", 0))
		}
	}
	serverThatAsks = func(s *Server) {
		s.GetCertificate = func(*ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }
		s.Certificates = []tls.Certificate{issueMade("localhost", "Ed25519", 0)}
	}
)

const pskWithCCM = suite.PSKWithAES256CCM

// dearestStates are the states. What is given to the server in the end of those
// that wait is not settled.
var dearestStates = []*towards{
	{name: "unknown address", server: serverOfKeys, suite: suite.PSKWithAES128GCM},
	{name: "unknown address, client certificates", server: serverOfChains, suite: ecdheCert},
	{name: "unknown address, 20 certificates", server: serverOfMany, suite: ecdheCert},
	{name: "awaiting the rest of the hello", server: serverOfKeys, suite: suite.PSKWithAES128GCM, build: (*towardsOne).partialHello},
	{name: "awaiting the rest of the hello, 20 certificates", server: serverOfMany, suite: ecdheCert, build: (*towardsOne).partialHello},
	{name: "silent since the hello", server: serverOfKeys, suite: suite.PSKWithAES128GCM, build: (*towardsOne).verify, age: 6 * time.Second},
	{name: "waiting for GetCertificate", server: serverThatAsks, suite: ecdheCert, build: (*towardsOne).verifyLast, waits: true},
	{name: "waiting for ServerKeyExchange", server: serverOfChains, suite: ecdheCert, build: (*towardsOne).verifyLast, waits: true},
	{name: "awaiting ClientKeyExchange, PSK", server: serverOfKeys, suite: suite.PSKWithAES128GCM, build: (*towardsOne).verify},
	{name: "awaiting ClientKeyExchange, ECDHE_PSK", server: serverOfKeys, suite: ecdhePSK, build: (*towardsOne).verify},
	{name: "awaiting Certificate", server: serverOfChains, suite: ecdheCert, build: (*towardsOne).verify},
	{name: "awaiting ClientKeyExchange, certificates", server: serverOfChains, suite: ecdheCert, build: func(b *towardsOne) { b.say(1) }},
	{name: "waiting for the secret", server: serverOfChains, suite: ecdheCert, build: func(b *towardsOne) { b.say(2) }, waits: true},
	{name: "awaiting CertificateVerify", server: serverOfChains, suite: ecdheCert, build: func(b *towardsOne) { b.say(2) }},
	{name: "waiting for the verification", server: serverOfChains, suite: ecdheCert, build: func(b *towardsOne) { b.say(3) }, waits: true},
	{name: "waiting for the PSK", server: serverOfKeys, suite: suite.PSKWithAES128GCM, build: func(b *towardsOne) { b.say(1) }, waits: true},
	{name: "awaiting Finished, PSK", server: serverOfKeys, suite: suite.PSKWithAES128GCM, build: func(b *towardsOne) { b.say(2) }},
	{name: "awaiting Finished, PSK with CCM", server: serverOfKeys, suite: pskWithCCM, build: func(b *towardsOne) { b.say(2) }},
	{name: "awaiting Finished, ECDHE_PSK", server: serverOfKeys, suite: ecdhePSK, build: func(b *towardsOne) { b.say(2) }},
	{name: "awaiting Finished, certificates", server: serverOfChains, suite: ecdheCert, build: func(b *towardsOne) { b.say(4) }},
	{name: "resumption, waiting for the PSK", server: serverOfKeys, suite: ecdhePSK, build: (*towardsOne).resumeLast, waits: true},
	{name: "resumption, awaiting Finished", server: serverOfChains, suite: ecdheCert, build: (*towardsOne).resume},
	{name: "open session", server: serverOfKeys, suite: suite.PSKWithAES128GCM, build: (*towardsOne).open},
	{name: "open session with CCM", server: serverOfKeys, suite: pskWithCCM, build: (*towardsOne).open},
	{name: "open session at rest", server: serverOfKeys, suite: suite.PSKWithAES128GCM, build: (*towardsOne).rest, age: restAfter + 20*time.Second},
	{name: "open session beside a handshake", server: serverOfKeys, suite: suite.PSKWithAES128GCM, build: func(b *towardsOne) { b.open(); b.reconnect(0) }},
	{name: "open session beside a Finished", server: serverOfKeys, suite: suite.PSKWithAES128GCM, build: func(b *towardsOne) { b.open(); b.reconnect(2) }},
	{name: "closed", server: serverOfKeys, suite: suite.PSKWithAES128GCM, build: func(b *towardsOne) { b.open(); b.end() }},
}

// towardsOne is a server that is brought into one state towards one address,
// time and again. Its loop is driven by hand, and its lanes run only while
// settle waits for them.
type towardsOne struct {
	*direct
	*towards
	from    netip.AddrPort
	c       *testpeer.Client // the peer, at the point that the state is
	genuine map[wire.HandshakeType][]byte
	tickets []*testpeer.Client // which have seen a ticket each
	last    bool               // what comes next is not settled
	keep    bool               // what is sent
	warmed  int                // after how many collections of garbage, and one
	m0, m1  runtime.MemStats
}

// dearestStart is 20 s into an interval of cookies.
var dearestStart = time.Unix(1_700_000_000, 0)

func newTowards(t testing.TB, state *towards) *towardsOne {
	t.Helper()
	b := &towardsOne{towards: state, from: clientAddr(1)}
	b.direct = newDirect(t, func(s *Server) {
		state.server(s)
		s.Handler = nil
		s.Verifier, _ = NewVerifier(make([]byte, MinVerifierSecretLen)) // the same cookies each time
	})
	var err error
	if b.l.conn, err = udpio.New(b, b.l.sent); err != nil {
		t.Fatal(err)
	}
	b.keep = true
	if suite.ByID(state.suite).KeyExchange.ECDHE() {
		b.tickets = append(b.tickets, ticketOf(b.direct, clientAddr(2), state.suite, b.certify))
		b.tickets = append(b.tickets, ticketOf(b.direct, clientAddr(3), state.suite, b.certify, func(c *testpeer.Client) {
			if c.Chain != nil {
				c.Chain = append(slices.Clone(c.Chain), madeCertificate("names", 900, 0))
			}
		}))
	}
	b.end()
	return b
}

// WriteTo keeps what is sent only while a state is built.
func (b *towardsOne) WriteTo(p []byte, to net.Addr) (int, error) {
	if b.keep {
		return b.direct.WriteTo(p, to)
	}
	return len(p), nil
}

// certify gives a client what the server's ClientAuth asks for.
func (b *towardsOne) certify(c *testpeer.Client) {
	if b.s.ClientAuth != tls.NoClientCert {
		client := issueMade("client", "Ed25519", 0)
		c.Chain, c.Signer = client.Certificate[:1], client.PrivateKey.(ed25519.PrivateKey)
	}
}

// begin brings the server into the state.
func (b *towardsOne) begin() {
	b.t.Helper()
	runtime.Gosched() // nobody else's turn comes for as long as a trial takes
	b.now = dearestStart.Add(-cmp.Or(b.age, 300*time.Millisecond))
	b.c = testpeer.New(testIdentity, []byte(testKey), 1)
	b.c.Suites = []uint16{b.suite}
	b.certify(b.c)
	b.genuine, b.last = nil, false
	b.keep = true
	if b.build != nil {
		b.build(b)
	}
	b.keep = false
	b.now = dearestStart
}

// end ends all sessions, so that the state can be built again.
func (b *towardsOne) end() {
	for _, s := range b.l.sessions(withHandshakes) {
		s.end(ErrSessionClosed, silently)
	}
	b.settle()
	b.out = nil
}

// give gives the server a datagram of the client's, and the client the answers.
func (b *towardsOne) give(datagram []byte) {
	b.t.Helper()
	if b.last {
		b.l.receive(b.now, &udpio.Message{Buf: datagram, N: len(datagram), Remote: b.from})
		return
	}
	b.exchange(b.c, b.from, datagram)
}

func (b *towardsOne) verify() {
	b.t.Helper()
	b.exchange(b.c, b.from, b.c.Hello())
	b.last = b.waits && b.last
	b.give(b.c.Hello())
}

// verifyLast is verify, and what follows of it is waited for.
func (b *towardsOne) verifyLast() {
	b.last = true
	b.verify()
}

// partialHello says all but the end of a verified hello.
func (b *towardsOne) partialHello() {
	b.t.Helper()
	b.exchange(b.c, b.from, b.c.Hello())
	body := b.c.HelloBody()
	const least = 1 << 10 // the extensions in front are of no use
	b.c.More = append([]byte{0xfa, 0xfa, byte(least >> 8), byte(least & 0xff)}, make([]byte, least)...)
	whole := b.c.HelloBody()
	b.genuine = map[wire.HandshakeType][]byte{wire.TypeClientHello: whole}
	h := wire.AppendHandshakeHeader(nil, wire.TypeClientHello, len(whole), b.c.MessageSeq, 0, len(body))
	b.give(b.c.Plain(wire.ContentHandshake, append(h, whole[:len(body)]...)))
}

// say says the first n records of the client's last flight.
func (b *towardsOne) say(n int) {
	b.t.Helper()
	b.verify()
	seq := b.c.MessageSeq
	records := b.c.Records()
	b.collect(records)
	for i, r := range records[:n] {
		b.last = b.waits && i == n-1
		b.give(r)
		if r[0] == byte(wire.ContentHandshake) {
			seq++
		}
	}
	b.c.MessageSeq = seq
}

// collect notes the messages of a flight.
func (b *towardsOne) collect(records [][]byte) {
	b.genuine = make(map[wire.HandshakeType][]byte)
	for _, raw := range records {
		r, _, _ := wire.ParseRecord(raw, 0)
		if f, _, ok := wire.ParseFragment(r.Payload); ok && r.Type == wire.ContentHandshake && r.Epoch == 0 {
			b.genuine[f.Type] = f.Body
		}
	}
}

// message is what the client would say next, if it is a message of that type.
func (b *towardsOne) message(t wire.HandshakeType) []byte {
	if b.genuine == nil && b.c.HelloDone && !b.c.Complete {
		seq := b.c.MessageSeq
		b.collect(b.c.Records())
		b.c.MessageSeq = seq
	}
	return b.genuine[t]
}

func (b *towardsOne) resume() {
	b.t.Helper()
	seen := *b.tickets[0]
	b.c = &seen
	b.verify()
}

func (b *towardsOne) resumeLast() {
	b.last = true
	b.resume()
}

func (b *towardsOne) open() {
	b.t.Helper()
	b.verify()
	b.give(b.c.Flight())
	if !b.c.Complete {
		b.t.Fatal("no session")
	}
}

// rest lets an open session be silent until it rests.
func (b *towardsOne) rest() {
	b.t.Helper()
	b.open()
	b.advance(restAfter + 10*time.Second)
}

// reconnect begins a handshake beside the open session, and says the first n
// records of its last flight.
func (b *towardsOne) reconnect(n int) {
	b.t.Helper()
	b.c = testpeer.New(testIdentity, []byte(testKey), 2)
	b.c.Suites = []uint16{b.suite}
	b.say(n)
}

// cookie returns the right cookie for a hello without one.
func (b *towardsOne) cookie(c *testpeer.Client) []byte {
	c.Cookie = nil
	hello := c.HelloBody()
	m := testpeer.Message(wire.TypeClientHello, 1, hello)
	r := wire.AppendRecordHeader(nil, wire.ContentHandshake, wire.VersionDTLS12, 0, 0, len(m))
	verdict, answer := b.l.cfg.verifier.Verify(nil, append(r, m...), b.from, dearestStart)
	if verdict != VerdictChallenge {
		return nil
	}
	return cookieOf(b.t, answer)
}

// cost is what the loop has spent.
type cost struct {
	ns, bytes, allocs int
}

func (c cost) String() string {
	return fmt.Sprintf("%7.1f us %8d bytes %6d allocations", float64(c.ns)/1000, c.bytes, c.allocs)
}

// least returns the lesser of each figure: what both have spent for certain.
func (c cost) least(d cost) cost {
	return cost{min(c.ns, d.ns), min(c.bytes, d.bytes), min(c.allocs, d.allocs)}
}

// most returns the greater of each figure.
func (c cost) most(d cost) cost {
	return cost{max(c.ns, d.ns), max(c.bytes, d.bytes), max(c.allocs, d.allocs)}
}

// charge adds what a part of the loop's work costs. What the addresses of a
// net.PacketConn take is in it, twice a datagram that is sent.
func (b *towardsOne) charge(c *cost, work func()) {
	runtime.ReadMemStats(&b.m0)
	start := time.Now()
	work()
	c.ns += int(time.Since(start))
	runtime.ReadMemStats(&b.m1)
	c.bytes += int(b.m1.TotalAlloc - b.m0.TotalAlloc)
	c.allocs += int(b.m1.Mallocs - b.m0.Mallocs)
}

// handle has the server handle a datagram. It returns what that costs the loop:
// to receive it, and to take what hooks and work have answered that it led to.
func (b *towardsOne) handle(datagram []byte) (c cost) {
	m := udpio.Message{Buf: datagram, N: len(datagram), Remote: b.from}
	b.charge(&c, func() { b.l.receive(b.now, &m) })
	if b.waits {
		return c
	}
	for b.l.hooks.Wait(); b.l.hasWork(); b.l.hooks.Wait() {
		b.charge(&c, func() { b.l.housekeep(b.now) })
	}
	return c
}

// dearestRepeats is how often a datagram is repeated: more often than a
// handshake keeps records that come too early.
const dearestRepeats = 5

// measure brings the server into the state and returns what the datagram, which
// the function makes there, costs the first time, and what it costs when it is
// repeated.
func (b *towardsOne) measure(make func() []byte) (datagram []byte, first, again cost) {
	b.t.Helper()
	b.collectGarbage()
	b.begin()
	datagram = make()
	first = b.handle(datagram)
	for i := range dearestRepeats {
		b.now = b.now.Add(time.Millisecond)
		if c := b.handle(datagram); i == 0 {
			again = c
		} else {
			again = again.least(c)
		}
	}
	b.end()
	return datagram, first, again
}

// garbage is what the runtime has allocated when it was last collected, and how
// often it was.
var garbage struct {
	at    uint64
	times int
}

// collectGarbage collects it when there is much, and warms up what it has taken
// from the server's pools. In between, no collection disturbs.
func (b *towardsOne) collectGarbage() {
	const much = 64 << 20
	if b.m1.TotalAlloc-min(b.m1.TotalAlloc, garbage.at) > much {
		runtime.GC()
		garbage.at = b.m1.TotalAlloc
		garbage.times++
	}
	if b.warmed <= garbage.times {
		b.warmed = garbage.times + 1
		b.warm()
	}
}

func (b *towardsOne) warm() {
	for range 2 {
		b.begin()
		b.end()
		b.c = testpeer.New(testIdentity, []byte(testKey), 3)
		b.c.Suites = []uint16{b.suite}
		b.keep = true
		b.last = false
		b.exchange(b.c, b.from, b.c.Hello())
		b.exchange(b.c, b.from, b.c.Hello())
		b.keep = false
		b.end()
	}
}

// madeAuthority is the same in each run, and so is what it issues.
var madeAuthority = sync.OnceValue(func() *testcert.Authority {
	return testcert.NewAuthorityWithKey("Made CA", madeKey(1))
})

func madeKey(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(rune(seed)), ed25519.SeedSize)))
}

// issueMade returns a certificate for a name, with a key of the kind, and as many
// names more.
func issueMade(name, kind string, names int) tls.Certificate {
	key := madeKey(2)
	var public any = key.Public()
	switch kind {
	case "P-256", "P-521":
		curve, length := elliptic.P256(), 32
		if kind == "P-521" {
			curve, length = elliptic.P521(), 66
		}
		private, err := ecdsa.ParseRawPrivateKey(curve, big.NewInt(7).FillBytes(make([]byte, length)))
		if err != nil {
			panic(err)
		}
		public = &private.PublicKey
	case "RSA": // whose private key nobody knows
		n := new(big.Int).Lsh(big.NewInt(1), 4095)
		public = &rsa.PublicKey{N: n.Add(n, big.NewInt(12345)), E: 65537}
	}
	template := testcert.Template(name)
	for i := range names {
		switch kind {
		case "names":
			template.URIs = append(template.URIs, &url.URL{Scheme: "a", Host: "b"})
		case "subject":
			template.Subject.OrganizationalUnit = append(template.Subject.OrganizationalUnit, fmt.Sprint(i))
		}
	}
	a := madeAuthority()
	return tls.Certificate{Certificate: [][]byte{a.Sign(template, public).Raw, a.Cert.Raw}, PrivateKey: key}
}

var madeCertificates = map[string][]byte{}

// madeCertificate returns the DER of a certificate, of which those of different
// numbers have different subjects.
func madeCertificate(kind string, names, number int) []byte {
	key := fmt.Sprint(kind, names, number)
	if madeCertificates[key] == nil {
		madeCertificates[key] = issueMade(fmt.Sprint("client", number), kind, names).Certificate[0]
	}
	return madeCertificates[key]
}
