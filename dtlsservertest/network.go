package dtlsservertest

import (
	"bytes"
	"container/heap"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/logging"
	"github.com/pion/transport/v2/vnet"
)

// Link says what a Network does to datagrams, in either direction. The zero value
// carries them all, at once and in order.
//
// What becomes of the n-th datagram from one address to another depends on Seed,
// these addresses and n alone, so that a test sees the same each time.
type Link struct {
	// Loss, Duplicate and Reorder are the probabilities, from 0 to 1, of a
	// datagram to be lost, to be carried twice, and to be held back for one to
	// four times Delay more, so that later ones overtake it.
	Loss, Duplicate, Reorder float64
	// Delay is how long each datagram takes. If zero, it takes no time, and Reorder
	// holds back for one to four milliseconds.
	Delay time.Duration
	// MTU is the length in bytes of the largest payload of a datagram that is
	// carried, as that of dtlsserver.Server is. Longer ones are lost. If
	// zero, there is no limit.
	MTU int
	// KeepAddrs has what is sent to an address that Network.Rebind has replaced
	// arrive still. Without it, that is lost.
	KeepAddrs bool
	// Seed is where the random numbers begin.
	Seed uint64
}

// NetworkStats count datagrams.
type NetworkStats struct {
	Sent       uint64 // by all hosts
	Lost       uint64 // by Loss
	TooLong    uint64 // for MTU, and so lost too
	Stray      uint64 // lost, being sent to an address that Rebind has replaced
	Duplicated uint64
	Reordered  uint64 // held back
}

// Network is a virtual IPv4 network in memory, between servers and clients with an
// address of their own each. It works in a synctest bubble, and outside on the real
// clock. Its methods are safe for concurrent use.
type Network struct {
	t      testing.TB
	router *vnet.Router

	mu       sync.Mutex // guards all following
	link     Link
	hosts    map[netip.Addr]*vnet.Net
	sockets  map[netip.AddrPort]*socket // that are open, by each address that they have had
	lanes    map[lane]*rand.Rand        // whose numbers the next datagram of a lane takes
	inFlight flights
	sent     uint64 // orders what arrives at the same time
	servers  uint32
	clients  uint32
	stats    NetworkStats
}

// vnetMu guards the counter from which vnet makes MAC addresses: it has one for all
// networks, which tests in parallel would share.
var vnetMu sync.Mutex

// lane is one direction between two sockets.
type lane struct{ from, to netip.AddrPort }

// NewNetwork makes a network that ends with the test.
func NewNetwork(t testing.TB, link Link) *Network {
	t.Helper()
	vnetMu.Lock()
	router, err := vnet.NewRouter(&vnet.RouterConfig{CIDR: "0.0.0.0/0", LoggerFactory: quiet{}})
	vnetMu.Unlock()
	if err == nil {
		err = router.Start()
	}
	if err != nil {
		t.Fatalf("dtlsservertest: %v", err)
	}
	t.Cleanup(func() { _ = router.Stop() }) // it runs
	return &Network{
		t: t, router: router, link: link,
		hosts:   make(map[netip.Addr]*vnet.Net),
		sockets: make(map[netip.AddrPort]*socket),
		lanes:   make(map[lane]*rand.Rand),
	}
}

// SetLink changes what becomes of datagrams from now on.
func (n *Network) SetLink(link Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.link = link
	clear(n.lanes) // they begin anew
}

// Stats returns the network's statistics.
func (n *Network) Stats() NetworkStats {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stats
}

func (n *Network) mtu() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.link.MTU
}

// newServerAddr returns an address for the next server.
func (n *Network) newServerAddr() netip.AddrPort {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.servers++
	return netip.AddrPortFrom(addrAfter([4]byte{192, 0, 2, 0}, n.servers), 4433)
}

// newClientAddr returns an address for the next client.
func (n *Network) newClientAddr() netip.AddrPort {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.clients++
	return netip.AddrPortFrom(addrAfter([4]byte{10, 0, 0, 0}, n.clients), 5000)
}

func addrAfter(base [4]byte, i uint32) netip.Addr {
	sum := uint32(base[0])<<24 | uint32(base[1])<<16 | uint32(base[2])<<8 | uint32(base[3]) + i
	return netip.AddrFrom4([4]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
}

// ListenPacket opens a socket of the host with an address, which there need not
// have been before; an unspecified one, as in ":4433", is a new host. The network
// is "udp" or "udp4", and the address has numbers and no names. It fits
// dtlsserver.Server.ListenPacket.
func (n *Network) ListenPacket(network, address string) (net.PacketConn, error) {
	addr, err := parseAddr(network, address)
	if err != nil {
		return nil, err
	}
	if addr.Addr().IsUnspecified() {
		addr = netip.AddrPortFrom(n.newServerAddr().Addr(), addr.Port())
	}
	return n.listen(addr)
}

// parseAddr returns the address that a network and an address mean. It looks up no
// names, which package net does on goroutines that a bubble must not touch.
func parseAddr(network, address string) (netip.AddrPort, error) {
	if network != "udp" && network != "udp4" {
		return netip.AddrPort{}, fmt.Errorf("network %q is not udp or udp4", network)
	}
	if strings.HasPrefix(address, ":") {
		address = "0.0.0.0" + address
	}
	addr, err := netip.ParseAddrPort(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	if !addr.Addr().Is4() || addr.Addr().IsLoopback() {
		return netip.AddrPort{}, fmt.Errorf("%v is no address of a Network, which has IPv4 and no loopback", addr)
	}
	return addr, nil
}

func (n *Network) listen(addr netip.AddrPort) (*socket, error) {
	conn, addr, err := n.bind(addr)
	if err != nil {
		return nil, err
	}
	s := &socket{PacketConn: conn, network: n, sender: conn, addrs: []netip.AddrPort{addr}}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sockets[addr] = s
	return s, nil
}

// bind opens a socket of vnet's, and returns its address, whose port may have been
// zero.
func (n *Network) bind(addr netip.AddrPort) (net.PacketConn, netip.AddrPort, error) {
	host, err := n.host(addr.Addr())
	if err != nil {
		return nil, addr, err
	}
	conn, err := host.ListenPacket("udp4", addr.String())
	if err != nil {
		return nil, addr, fmt.Errorf("listen on %v: %w", addr, err)
	}
	bound, err := netip.ParseAddrPort(conn.LocalAddr().String())
	return conn, bound, err
}

// Rebind does to a client's socket what a NAT does that has forgotten it, and
// returns the address that it now has for others: what the client sends comes from
// there, what is sent there reaches the client, and what is sent to its address
// before, or is under way to it, is lost unless Link.KeepAddrs is set. The client is
// not told, and its LocalAddr stays the same. It may be rebound again.
//
// The conn is a Client, what Connect or Dial has returned, or any other net.Conn
// with the LocalAddr of a socket of the network. If there is no such socket, or it is
// closed, Rebind fails the test, and so is for the test's own goroutine.
func (n *Network) Rebind(conn net.Conn) netip.AddrPort {
	n.t.Helper()
	to, err := n.rebind(conn.LocalAddr())
	if err != nil {
		n.t.Fatalf("dtlsservertest: %v", err)
	}
	return to
}

func (n *Network) rebind(local net.Addr) (netip.AddrPort, error) {
	conn, addr, err := n.bind(n.newClientAddr())
	if err != nil {
		return addr, err
	}
	own, _ := netip.ParseAddrPort(local.String())
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.sockets[own]
	if s == nil || s.addrs[0] != own {
		_ = conn.Close() // which has sent nothing
		return addr, fmt.Errorf("%v is the address of no open socket of the network", local)
	}
	s.stopSenderLocked()
	s.sender, s.addrs = conn, append(s.addrs, addr)
	n.sockets[addr] = s
	return addr, nil
}

// forget forgets the addresses of a socket that is closed.
func (n *Network) forget(s *socket) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s.stopSenderLocked()
	for _, addr := range s.addrs {
		if n.sockets[addr] == s { // and not one that has been opened since
			delete(n.sockets, addr)
		}
	}
}

// host returns the host with an address.
func (n *Network) host(addr netip.Addr) (*vnet.Net, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if host := n.hosts[addr]; host != nil {
		return host, nil
	}
	vnetMu.Lock()
	host, err := vnet.NewNet(&vnet.NetConfig{StaticIPs: []string{addr.String()}})
	vnetMu.Unlock()
	if err == nil {
		err = n.router.AddNet(host)
	}
	if err != nil {
		return nil, err
	}
	n.hosts[addr] = host
	return host, nil
}

// Dial opens a socket of a new host, which sends to the address and receives from
// it. The network and the address are as those of ListenPacket.
func (n *Network) Dial(network, address string) (net.Conn, error) {
	conn, err := n.dial(network, address)
	if err != nil {
		return nil, fmt.Errorf("dtlsservertest: %w", err)
	}
	return conn, nil
}

func (n *Network) dial(network, address string) (net.Conn, error) {
	peer, err := parseAddr(network, address)
	if err != nil {
		return nil, err
	}
	s, err := n.listen(n.newClientAddr())
	if err != nil {
		return nil, err
	}
	return &connectedSocket{s, net.UDPAddrFromAddrPort(peer)}, nil
}

// socket is a socket of a host, whose datagrams the link carries.
type socket struct {
	net.PacketConn // at the first of addrs, where it receives
	network        *Network
	closed         atomic.Bool

	// All following are guarded by network.mu.
	addrs  []netip.AddrPort // which it has for others: the last, and before that the others
	sender net.PacketConn   // at the last of addrs; it may be PacketConn
}

// stopSenderLocked closes what the socket sends with. What is under way still
// arrives.
func (s *socket) stopSenderLocked() {
	if s.sender != s.PacketConn {
		_ = s.sender.Close() // it was open
	}
}

func (s *socket) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := s.PacketConn.ReadFrom(b)
	if err != nil && s.closed.Load() {
		err = net.ErrClosed // vnet has an error of its own
	}
	return n, from, err
}

func (s *socket) WriteTo(b []byte, to net.Addr) (int, error) {
	if s.closed.Load() {
		return 0, net.ErrClosed
	}
	udp, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, errors.New("dtlsservertest: no UDP address")
	}
	addr := udp.AddrPort()
	s.network.carry(s, netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), bytes.Clone(b))
	return len(b), nil
}

func (s *socket) Close() error {
	if s.closed.Swap(true) {
		return net.ErrClosed
	}
	err := s.PacketConn.Close()
	s.network.forget(s)
	return err
}

// connectedSocket is a socket with one peer.
type connectedSocket struct {
	*socket
	peer *net.UDPAddr
}

func (c *connectedSocket) RemoteAddr() net.Addr        { return c.peer }
func (c *connectedSocket) Write(b []byte) (int, error) { return c.WriteTo(b, c.peer) }

func (c *connectedSocket) Read(b []byte) (int, error) {
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil || from.String() == c.peer.String() {
			return n, err
		}
	}
}

// flight is a datagram under way.
type flight struct {
	from    net.PacketConn
	to      netip.AddrPort
	b       []byte
	arrives time.Time
	nth     uint64
}

// carry sends a datagram on its way.
func (n *Network) carry(s *socket, to netip.AddrPort, b []byte) {
	n.mu.Lock()
	sender, from := s.sender, s.addrs[len(s.addrs)-1]
	n.mu.Unlock()
	for _, delay := range n.fate(from, to, len(b)) {
		n.mu.Lock()
		n.sent++
		heap.Push(&n.inFlight, flight{sender, to, b, time.Now().Add(delay), n.sent})
		n.mu.Unlock()
		if delay > 0 {
			time.AfterFunc(delay, n.deliver)
		}
	}
	n.deliver()
}

// fate says after what times copies of a datagram arrive: none if it is lost.
func (n *Network) fate(from, to netip.AddrPort, length int) (delays []time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := &n.link
	way := lane{from, to}
	r := n.lanes[way]
	if r == nil {
		h := fnv.New64a()
		fmt.Fprint(h, way.from, way.to)
		r = rand.New(rand.NewPCG(l.Seed, h.Sum64()))
		n.lanes[way] = r
	}
	// Each datagram takes as many random numbers as any other.
	lost, twice := r.Float64() < l.Loss, r.Float64() < l.Duplicate
	late := [2]bool{r.Float64() < l.Reorder, r.Float64() < l.Reorder}
	by := [2]float64{1 + 3*r.Float64(), 1 + 3*r.Float64()}
	n.stats.Sent++
	switch {
	case l.MTU > 0 && length > l.MTU:
		n.stats.TooLong++
		return nil
	case lost:
		n.stats.Lost++
		return nil
	}
	copies := 1
	if twice {
		n.stats.Duplicated++
		copies = 2
	}
	for i := range copies {
		delay := l.Delay
		if late[i] {
			n.stats.Reordered++
			unit := l.Delay
			if unit == 0 {
				unit = time.Millisecond
			}
			delay += time.Duration(by[i] * float64(unit))
		}
		delays = append(delays, delay)
	}
	return delays
}

// deliver hands over what has arrived, in order.
func (n *Network) deliver() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for len(n.inFlight) > 0 && !n.inFlight[0].arrives.After(time.Now()) {
		f := heap.Pop(&n.inFlight).(flight)
		if s := n.sockets[f.to]; s != nil {
			if f.to != s.addrs[len(s.addrs)-1] && !n.link.KeepAddrs {
				n.stats.Stray++
				continue
			}
			f.to = s.addrs[0]
		}
		_, _ = f.from.WriteTo(f.b, net.UDPAddrFromAddrPort(f.to)) // what has no receiver is lost
	}
}

// flights is a heap of datagrams under way, the next to arrive first.
type flights []flight

func (f flights) Len() int { return len(f) }
func (f flights) Less(i, j int) bool {
	if !f[i].arrives.Equal(f[j].arrives) {
		return f[i].arrives.Before(f[j].arrives)
	}
	return f[i].nth < f[j].nth
}
func (f flights) Swap(i, j int) { f[i], f[j] = f[j], f[i] }
func (f *flights) Push(x any)   { *f = append(*f, x.(flight)) }
func (f *flights) Pop() any {
	last := len(*f) - 1
	x := (*f)[last]
	(*f)[last] = flight{}
	*f = (*f)[:last]
	return x
}

// quiet is a logger factory for pion's packages, which log to standard output
// otherwise.
type quiet struct{}

func (quiet) NewLogger(string) logging.LeveledLogger {
	return logging.NewDefaultLeveledLoggerForScope("", logging.LogLevelDisabled, io.Discard)
}
