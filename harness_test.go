package dtlsserver

// What the tests of this package share: a network in memory on the test's
// clock, a handler that records, and clients.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	piondtls "github.com/pion/dtls/v2"
	"github.com/pion/logging"
	"github.com/pion/transport/v2/deadline"

	"github.com/dtlsserver/dtlsserver/internal/testpeer"
)

const (
	testIdentity = "device 7"
	testKey      = "sixteen byte key"
)

var testPSK = StaticPSK(map[string][]byte{testIdentity: []byte(testKey)})

// anyPSK has the test's key for any identity.
func anyPSK(context.Context, PSKRequest) (PSK, error) { return PSK{Key: []byte(testKey)}, nil }

// echo is what a handler does with a datagram.
func echo(s *Session, _, plainText []byte) { s.Write(plainText) }

var serverAddr = netip.MustParseAddrPort("192.0.2.1:4433")

// anyLocal is what Server.SessionByAddr takes for any local address.
var anyLocal netip.AddrPort

// clientAddr is the address of the n-th client, each on a host of its own.
func clientAddr(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 5000)
}

// host is a port of the n-th host of a network.
func host(network byte, n, port int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{network, byte(n >> 16), byte(n >> 8), byte(n)}), uint16(1+port))
}

// Two cipher suites.
const (
	ecdhePSK  = 0xd001
	ecdheCert = 0xc02b
)

// network carries datagrams between its ends.
type network struct {
	mu   sync.Mutex // guards all following
	ends map[netip.AddrPort]*end
	// carry says after what times copies of a datagram arrive. None: it is
	// lost. Nil: at once, once.
	carry func(from, to netip.AddrPort, b []byte) []time.Duration
}

func newNetwork() *network { return &network{ends: make(map[netip.AddrPort]*end)} }

// end is a net.PacketConn of the network.
type end struct {
	network *network
	addr    netip.AddrPort
	in      chan datagram
	closed  chan struct{}
	once    sync.Once
	read    *deadline.Deadline
}

type datagram struct {
	from netip.AddrPort
	b    []byte
}

func (n *network) listen(addr netip.AddrPort) *end {
	n.mu.Lock()
	defer n.mu.Unlock()
	e := &end{network: n, addr: addr, in: make(chan datagram, 4096), closed: make(chan struct{}), read: deadline.New()}
	n.ends[addr] = e
	return e
}

func (n *network) send(from, to netip.AddrPort, b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delays := []time.Duration{0}
	if n.carry != nil {
		delays = n.carry(from, to, b)
	}
	for _, delay := range delays {
		d := datagram{from, bytes.Clone(b)}
		if delay > 0 {
			time.AfterFunc(delay, func() {
				n.mu.Lock()
				defer n.mu.Unlock()
				n.arriveLocked(to, d)
			})
		} else {
			n.arriveLocked(to, d)
		}
	}
}

func (n *network) arriveLocked(to netip.AddrPort, d datagram) {
	if e := n.ends[to]; e != nil {
		select {
		case e.in <- d:
		default: // full, as sockets may be
		}
	}
}

func (e *end) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case <-e.closed:
		return 0, nil, net.ErrClosed
	case <-e.read.Done():
		return 0, nil, os.ErrDeadlineExceeded
	case d := <-e.in:
		return copy(b, d.b), net.UDPAddrFromAddrPort(d.from), nil
	}
}

func (e *end) WriteTo(b []byte, to net.Addr) (int, error) {
	select {
	case <-e.closed:
		return 0, net.ErrClosed
	default:
	}
	e.network.send(e.addr, to.(*net.UDPAddr).AddrPort(), b)
	return len(b), nil
}

func (e *end) Close() error {
	e.once.Do(func() {
		close(e.closed)
		e.network.mu.Lock()
		defer e.network.mu.Unlock()
		if e.network.ends[e.addr] == e {
			delete(e.network.ends, e.addr)
		}
	})
	return nil
}

func (e *end) LocalAddr() net.Addr                { return net.UDPAddrFromAddrPort(e.addr) }
func (e *end) SetDeadline(t time.Time) error      { return e.SetReadDeadline(t) }
func (e *end) SetReadDeadline(t time.Time) error  { e.read.Set(t); return nil }
func (e *end) SetWriteDeadline(t time.Time) error { return nil }

// pipe is an end that speaks with one peer only: a net.Conn for clients.
type pipe struct {
	*end
	peer netip.AddrPort
}

func (n *network) dial(from, to netip.AddrPort) *pipe { return &pipe{n.listen(from), to} }

func (p *pipe) Read(b []byte) (int, error)  { n, _, err := p.ReadFrom(b); return n, err }
func (p *pipe) Write(b []byte) (int, error) { return p.WriteTo(b, net.UDPAddrFromAddrPort(p.peer)) }
func (p *pipe) RemoteAddr() net.Addr        { return net.UDPAddrFromAddrPort(p.peer) }

// recorder is an EventHandler that keeps what it is told, and hands it on.
type recorder struct {
	then HandlerFuncs

	mu     sync.Mutex // guards all following
	events []Event
	data   []string // "remote: plain text"
	log    []string // kinds and data, in order
}

func (r *recorder) record(e Event, then func(Event)) {
	r.mu.Lock()
	r.events = append(r.events, e)
	r.log = append(r.log, e.Kind.String())
	r.mu.Unlock()
	call(then, e)
}

func (r *recorder) Error(e Event)   { r.record(e, r.then.OnError) }
func (r *recorder) Warning(e Event) { r.record(e, r.then.OnWarning) }
func (r *recorder) Info(e Event)    { r.record(e, r.then.OnInfo) }

func (r *recorder) DatagramReceived(s *Session, cipherText, plainText []byte) {
	r.mu.Lock()
	r.data = append(r.data, fmt.Sprintf("%v: %s", s, plainText))
	r.log = append(r.log, "data")
	r.mu.Unlock()
	r.then.DatagramReceived(s, cipherText, plainText)
}

// of returns the events of a kind.
func (r *recorder) of(kind EventKind) []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Event
	for _, e := range r.events {
		if e.Kind == kind {
			out = append(out, e)
		}
	}
	return out
}

// want wants exactly n events of a kind, folded ones counted, and returns the
// last.
func (r *recorder) want(t *testing.T, kind EventKind, n uint64, why string) Event {
	t.Helper()
	var count uint64
	var last Event
	for _, e := range r.of(kind) {
		count += e.Count
		last = e
	}
	if count != n {
		t.Fatalf("%s: %d events %v, want %d; all: %v", why, count, kind, n, r.lines())
	}
	return last
}

func (r *recorder) lines() (lines []string) {
	r.mu.Lock()
	events := slices.Clone(r.events)
	r.mu.Unlock()
	for _, e := range events {
		lines = append(lines, e.Kind.Level().String()+" "+e.String())
	}
	return lines
}

// waiter is a recorder that can be waited for.
type waiter struct {
	recorder
	told chan Event
}

func newWaiter() *waiter {
	w := &waiter{told: make(chan Event, 1024)}
	tell := func(e Event) { w.told <- e }
	w.then = HandlerFuncs{OnError: tell, OnWarning: tell, OnInfo: tell}
	return w
}

// wait waits for the next event of a kind.
func (w *waiter) wait(t *testing.T, kind EventKind) Event {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		select {
		case e := <-w.told:
			if e.Kind == kind {
				return e
			}
		case <-timeout:
			t.Fatalf("no %v; events: %v", kind, w.lines())
		}
	}
}

// bubble is a server on a network in memory, in a synctest bubble.
type bubble struct {
	t       *testing.T
	network *network
	server  *Server
	rec     *recorder
	conn    *end
	served  chan error
}

// inBubble runs f in a synctest bubble with a server that has been given the
// edits. The server is closed at the end if f has not done it.
func inBubble(t *testing.T, edit func(*Server), f func(b *bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{t: t, network: newNetwork(), rec: &recorder{}, served: make(chan error, 1)}
		b.server = &Server{PSK: testPSK, Handler: b.rec}
		if edit != nil {
			edit(b.server)
		}
		b.conn = b.network.listen(serverAddr)
		go func() { b.served <- b.server.Serve(b.conn) }()
		synctest.Wait()
		defer func() { // also when f ends by FailNow
			b.server.Close()
			if err := <-b.served; !errors.Is(err, ErrServerClosed) {
				t.Errorf("Serve: %v", err)
			}
		}()
		f(b)
	})
}

// peer is a client driven by hand, over the network.
type peer struct {
	*testpeer.Client
	t    *testing.T
	pipe *pipe
}

// peer returns the n-th client, driven by hand.
func (b *bubble) peer(n int) *peer {
	p := &peer{testpeer.New(testIdentity, []byte(testKey), uint64(n)), b.t, b.network.dial(clientAddr(n), serverAddr)}
	b.t.Cleanup(func() { p.pipe.Close() })
	return p
}

func (p *peer) send(datagrams ...[]byte) {
	for _, d := range datagrams {
		p.pipe.Write(d)
	}
	synctest.Wait()
}

// receive takes all that has come, and returns how many datagrams that were.
func (p *peer) receive() int {
	p.t.Helper()
	synctest.Wait()
	for n := 0; ; n++ {
		select {
		case d := <-p.pipe.in:
			if err := p.Client.Receive(d.b); err != nil {
				p.t.Fatalf("client %v: %v", p.pipe.addr, err)
			}
		default:
			return n
		}
	}
}

// verify makes the cookie exchange and sends the verified hello.
func (p *peer) verify() {
	p.t.Helper()
	p.send(p.Hello())
	p.receive()
	if p.Cookie == nil {
		p.t.Fatal("no HelloVerifyRequest")
	}
	p.send(p.Hello())
	p.receive()
	if !p.HelloDone {
		p.t.Fatal("no ServerHelloDone")
	}
}

// establish runs a whole handshake.
func (p *peer) establish() {
	p.t.Helper()
	p.verify()
	p.send(p.Flight())
	p.receive()
	if !p.Complete {
		p.t.Fatal("no Finished")
	}
}

// again returns another client at the address of p.
func (p *peer) again(seed uint64) *peer {
	return &peer{testpeer.New(testIdentity, []byte(testKey), seed), p.t, p.pipe}
}

// drain throws away what has come.
func (p *peer) drain() (n int) {
	for ; len(p.pipe.in) > 0; n++ {
		<-p.pipe.in
	}
	return n
}

// pionConfig is the configuration of pion's client with a key.
func pionConfig(identity, key string) *piondtls.Config {
	return &piondtls.Config{
		PSK:             func([]byte) ([]byte, error) { return []byte(key), nil },
		PSKIdentityHint: []byte(identity),
		CipherSuites:    []piondtls.CipherSuiteID{piondtls.TLS_PSK_WITH_AES_128_GCM_SHA256},
	}
}

// dialPion connects pion's client over conn.
func dialPion(t *testing.T, conn net.Conn, cfg *piondtls.Config, timeout time.Duration) (*piondtls.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return piondtls.ClientWithContext(ctx, conn, cfg)
}

// listen starts a server on an address of the system.
func listen(t *testing.T, network, address string, w *waiter) *Server {
	t.Helper()
	s := &Server{PSK: testPSK, Handler: w}
	start(t, s, network, address)
	return s
}

// start makes a server listen until the end of the test.
func start(t *testing.T, s *Server, network, address string) {
	t.Helper()
	if err := s.Listen(network, address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
}

// dialUDP connects pion's client from a local address.
func dialUDP(t *testing.T, local string, to netip.AddrPort) *piondtls.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(local), 0))}
	conn, err := d.Dial("udp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := dialPion(t, conn, pionConfig(testIdentity, testKey), 10*time.Second)
	if err != nil {
		conn.Close()
		t.Fatalf("pion from %s to %v: %v", local, to, err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// wantEcho sends a datagram and wants it back.
func wantEcho(t *testing.T, c *piondtls.Conn, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 100)
	if n, err := c.Read(b); err != nil || string(b[:n]) != text {
		t.Fatalf("got %q, %v, want %q", b[:n], err, text)
	}
}

// hasIPv6 reports whether the system does.
func hasIPv6() bool {
	c, err := net.ListenPacket("udp6", "[::1]:0")
	if err == nil {
		c.Close()
	}
	return err == nil
}

var discardLogger = slog.New(slog.DiscardHandler)

// quiet is a logger factory for pion's vnet.
type quiet struct{}

func (quiet) NewLogger(string) logging.LeveledLogger {
	return logging.NewDefaultLeveledLoggerForScope("", logging.LogLevelDisabled, io.Discard)
}

// known returns the session of a peer: open, or else the handshake that came first.
func (l *loop) known(remote netip.AddrPort, local netip.Addr) *Session {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.peers.lookup(remote, local)
}

// left says what a loop still holds of sessions; nothing: the empty string.
func (l *loop) left() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	h, o := &l.handshakes, &l.open
	counts := []int{
		len(l.peers.byRemote), len(l.peers.byBoth), len(l.peers.byCID), len(l.peers.beside), len(l.sources.byKey), h.count, len(h.most), int(h.memory), len(h.mostByMemory),
		o.count, len(o.identities), len(o.mostOfPair), len(o.mostOfPeople), l.idle.Len(), l.timerCount(),
		l.hookLane.running, l.workLane.running,
	}
	if slices.Max(counts) == 0 && slices.Min(counts) == 0 && h.holders == nil {
		return ""
	}
	return fmt.Sprintf("%v, holders %v", counts, h.holders != nil)
}

// timerCount is how many sessions have a timer that is set.
func (l *loop) timerCount() int { return l.pending.Len() + l.timers.Len() }

// liveHeap returns how many bytes are in use.
func liveHeap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
