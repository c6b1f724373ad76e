package dtlsserver

// Handshakes with pion's client over networks that lose, repeat, reorder and
// delay datagrams, and carry no long ones; on wildcard sockets of the system; and
// on pion's virtual network.

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	piondtls "github.com/pion/dtls/v2"
	"github.com/pion/transport/v2/vnet"

	"github.com/dtlsserver/dtlsserver/internal/testcert"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// headersLen is the length of the headers of IPv4 and UDP.
const headersLen = 20 + 8

// link says what a path does to datagrams.
type link struct {
	loss, twice, late float64       // probabilities
	delay             time.Duration // of each datagram; late ones take up to five times as long
	mtu               int           // of IP packets; zero: any

	r       *rand.Rand // guarded by network.mu, as what follows
	tooLong int
	carried map[netip.AddrPort]int // by client, both ways, but for alerts
}

// on makes the link the network's.
func (l *link) on(n *network, seed uint64) {
	l.r, l.carried = rand.New(rand.NewPCG(seed, 1)), make(map[netip.AddrPort]int)
	n.carry = l.carry
}

func (l *link) carry(from, to netip.AddrPort, b []byte) (arrivals []time.Duration) {
	if l.mtu > 0 && len(b)+headersLen > l.mtu {
		l.tooLong++
		return nil
	}
	client := from
	if from == serverAddr {
		client = to
	}
	if b[0] != byte(wire.ContentAlert) { // close_notify, which pion does not always send
		l.carried[client]++
	}
	copies := 1
	if l.r.Float64() < l.twice {
		copies = 2
	}
	for range copies {
		if l.r.Float64() < l.loss {
			continue
		}
		delay := l.delay
		if l.r.Float64() < l.late {
			delay += time.Duration(l.r.Int64N(int64(4*l.delay) + 1))
		}
		arrivals = append(arrivals, delay)
	}
	return arrivals
}

// dialMany connects many of pion's clients at once, from the n-th on, and
// returns how long those took that are connected within a minute. All are
// closed again.
func (b *bubble) dialMany(from, n int, cfg *piondtls.Config) (took []time.Duration) {
	b.t.Helper()
	var mu sync.Mutex // guards took, clients and failed
	var clients []*piondtls.Conn
	var failed error
	var all sync.WaitGroup
	start := time.Now()
	for i := range n {
		all.Go(func() {
			pipe := b.network.dial(clientAddr(from+i), serverAddr)
			c, err := dialPion(b.t, pipe, cfg, time.Minute)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				pipe.Close()
				failed = err
				return
			}
			took = append(took, time.Since(start))
			clients = append(clients, c)
		})
	}
	all.Wait()
	if failed != nil {
		b.t.Logf("%d of %d clients are not connected, one for: %v", n-len(clients), n, failed)
	}
	for _, c := range clients {
		c.Close()
	}
	return took
}

// pathVariant is a kind of handshake to try on a path.
type pathVariant struct {
	name   string
	server func(*Server)
	client *piondtls.Config
}

// pathVariants are a handshake with a pre-shared key, and one with a
// certificate whose flight takes several datagrams of 548 bytes.
func pathVariants(t *testing.T) []pathVariant {
	ca := testcert.NewAuthority()
	certificate := ca.Issue("localhost", testcert.NewKey("P-256"), func(c *x509.Certificate) {
		for i := range 10 { // as long as certificates are
			c.DNSNames = append(c.DNSNames, fmt.Sprintf("another-name-%d.of-the-server.test", i))
		}
	})
	psk := pionConfig(testIdentity, testKey)
	psk.MTU = 548
	return []pathVariant{
		{"psk", func(s *Server) { s.MTU = 548 }, psk},
		{"certificate", func(s *Server) {
			s.MTU = 548
			s.PSK, s.Certificates = nil, []tls.Certificate{certificate}
		}, &piondtls.Config{
			RootCAs: ca.Pool, ServerName: "localhost", MTU: 548,
			CipherSuites: []piondtls.CipherSuiteID{piondtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
		}},
	}
}

// TestLossyNetwork: clients are connected within a minute over paths that lose
// up to 40 % each way and repeat and reorder what they carry; at 30 %, at least
// 99 % of 1,000.
func TestLossyNetwork(t *testing.T) {
	t.Parallel()
	tests := []struct {
		loss    float64
		variant string
		clients int
		want    float64 // the part that is connected
	}{
		{0, "psk", 200, 1},
		{0.1, "psk", 200, 1},
		{0.2, "psk", 200, 0.99},
		{0.3, "psk", 1000, 0.99},
		{0.4, "psk", 200, 0.95},
		{0, "certificate", 100, 1},
		{0.1, "certificate", 100, 1},
		{0.3, "certificate", 200, 0.97},
	}
	variants := pathVariants(t)
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s/loss=%v", tt.variant, tt.loss), func(t *testing.T) {
			t.Parallel()
			n := tt.clients
			if testing.Short() || raceEnabled {
				n /= 10
			}
			i := slices.IndexFunc(variants, func(v pathVariant) bool { return v.name == tt.variant })
			v := &variants[i]
			inBubble(t, v.server, func(b *bubble) {
				l := &link{loss: tt.loss, twice: 0.1, late: 0.2, delay: 20 * time.Millisecond, mtu: 576}
				l.on(b.network, 1)
				const atOnce = 250
				var took []time.Duration
				for from := 0; from < n; from += atOnce {
					took = append(took, b.dialMany(from, min(atOnce, n-from), v.client)...)
				}
				synctest.Wait()
				if float64(len(took)) < tt.want*float64(n) {
					b.t.Errorf("%d of %d clients are connected, want %v %%", len(took), n, 100*tt.want)
				}
				if l.tooLong > 0 {
					b.t.Errorf("%d datagrams are too long for the path", l.tooLong)
				}
				// A client is connected when it has the server's Finished, and
				// so the server must be.
				if done := b.server.Stats().HandshakesCompleted; done < uint64(len(took)) {
					b.t.Errorf("%d clients are connected, %d sessions were", len(took), done)
				}
				slices.Sort(took)
				if len(took) > 0 {
					b.t.Logf("%d of %d connected, half of them in %v, the last in %v", len(took), n, took[len(took)/2], took[len(took)-1])
				}
			})
		})
	}
}

// TestPerfectNetwork: where nothing is lost, nothing is said twice, however
// many connect at once.
func TestPerfectNetwork(t *testing.T) {
	t.Parallel()
	// HelloVerifyRequest and flights 4 and 6, and the three of the client's.
	datagrams := map[string]int{"psk": 6, "certificate": 8}
	for _, v := range pathVariants(t) {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			n := 200
			if testing.Short() || raceEnabled {
				n = 20
			}
			inBubble(t, v.server, func(b *bubble) {
				l := &link{delay: 20 * time.Millisecond, mtu: 576}
				l.on(b.network, 1)
				took := b.dialMany(0, n, v.client)
				time.Sleep(time.Second)
				synctest.Wait()
				if len(took) != n || slices.Max(took) > 6*l.delay {
					b.t.Errorf("%d of %d clients are connected in %v, want all in %v", len(took), n, took, 6*l.delay)
				}
				b.network.mu.Lock()
				defer b.network.mu.Unlock()
				for client, carried := range l.carried {
					if carried != datagrams[v.name] {
						b.t.Errorf("%v: %d datagrams for a handshake, want %d", client, carried, datagrams[v.name])
						break
					}
				}
			})
		})
	}
}

// TestWildcard: on a wildcard socket each client is answered from the address
// that it wrote to. Its socket is connected, so it would not see another.
func TestWildcard(t *testing.T) {
	t.Parallel()
	tests := []struct {
		network, address string
		clients          [][2]string // local address, the server's
	}{
		{"udp4", ":0", [][2]string{{"127.0.0.1", "127.0.0.1"}, {"127.0.0.1", "127.0.0.2"}, {"127.0.0.3", "127.0.0.2"}}},
		{"udp", ":0", [][2]string{{"127.0.0.1", "127.0.0.1"}, {"127.0.0.1", "127.0.0.2"}, {"::1", "::1"}}},
		{"udp6", ":0", [][2]string{{"::1", "::1"}}},
		{"udp", "127.0.0.1:0", [][2]string{{"127.0.0.1", "127.0.0.1"}}},
		{"udp", "[::1]:0", [][2]string{{"::1", "::1"}}},
	}
	for _, tt := range tests {
		t.Run(tt.network+" "+tt.address, func(t *testing.T) {
			t.Parallel()
			if runtime.GOOS != "linux" && len(tt.clients) > 1 {
				t.Skip("packet info and 127.0.0.2 are there on Linux only")
			}
			if tt.network != "udp4" && !hasIPv6() {
				t.Skip("no IPv6 here")
			}
			w := newWaiter()
			w.then.OnDatagramReceived = echo
			s := listen(t, tt.network, tt.address, w)
			for _, c := range tt.clients {
				to := netip.AddrPortFrom(netip.MustParseAddr(c[1]), s.Addr().Port())
				wantEcho(t, dialUDP(t, c[0], to), "from "+c[0]+" to "+c[1])
			}
			var locals []string
			for session := range s.Sessions() {
				locals = append(locals, session.LocalAddr().Addr().String())
				if session.RemoteAddr().Addr().Is4In6() {
					t.Errorf("%v is mapped", session.RemoteAddr())
				}
			}
			var want []string
			for _, c := range tt.clients {
				want = append(want, c[1])
			}
			slices.Sort(locals)
			if slices.Sort(want); !slices.Equal(locals, want) {
				t.Errorf("local addresses %v, want %v", locals, want)
			}
		})
	}
}

// TestVnet: pion's virtual network, whose timeouts are errors of its own.
func TestVnet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		router, err := vnet.NewRouter(&vnet.RouterConfig{CIDR: "192.0.2.0/24", LoggerFactory: quiet{}})
		if err != nil {
			t.Fatal(err)
		}
		var nets []*vnet.Net
		for _, ip := range []string{"192.0.2.1", "192.0.2.2"} {
			n, err := vnet.NewNet(&vnet.NetConfig{StaticIPs: []string{ip}})
			if err != nil {
				t.Fatal(err)
			}
			if err := router.AddNet(n); err != nil {
				t.Fatal(err)
			}
			nets = append(nets, n)
		}
		if err := router.Start(); err != nil {
			t.Fatal(err)
		}
		defer router.Stop()
		rec := &recorder{}
		s := &Server{PSK: testPSK, Handler: rec, ListenPacket: nets[0].ListenPacket}
		if err := s.Listen("udp4", serverAddr.String()); err != nil {
			t.Fatal(err)
		}
		conn, err := nets[1].Dial("udp4", serverAddr.String())
		if err != nil {
			t.Fatal(err)
		}
		c, err := dialPion(t, conn, pionConfig(testIdentity, testKey), time.Minute)
		if err != nil {
			t.Fatalf("%v; %v", err, rec.lines())
		}
		silent, err := nets[1].ListenPacket("udp4", "192.0.2.2:7000")
		if err != nil {
			t.Fatal(err)
		}
		hand, b := testpeer.New(testIdentity, []byte(testKey), 1), make([]byte, 2000)
		for range 2 {
			silent.WriteTo(hand.Hello(), net.UDPAddrFromAddrPort(serverAddr))
			n, _, err := silent.ReadFrom(b)
			if err != nil || hand.Receive(bytes.Clone(b[:n])) != nil {
				t.Fatal(err)
			}
		}
		before := s.Stats().DatagramsSent
		time.Sleep(time.Minute)
		// Four retransmissions, with a record in each datagram.
		if sent := s.Stats().DatagramsSent - before; sent != 8 {
			t.Errorf("%d datagrams, want 8", sent)
		}
		rec.want(t, KindHandshakeFailed, 1, "after a minute")
		rec.want(t, KindReadFailed, 0, "after a minute")
		c.Close()
		silent.Close()
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		rec.want(t, KindSessionClosed, 1, "in the end")
	})
}
