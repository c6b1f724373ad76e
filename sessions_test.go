package dtlsserver

// Who gives way at the limits on open sessions, and sessions by their identity.

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testcert"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// TestNewestGivesWay: where no session may give way for it, the new one does,
// so that MaxSessions is never passed.
func TestNewestGivesWay(t *testing.T) {
	t.Parallel()
	d := newDirect(t, func(s *Server) { s.MaxSessions, s.PSK = 3, anyPSK })
	// All hellos come before the first session is open.
	var clients []*testpeer.Client
	for i := range 5 {
		c := testpeer.New(fmt.Sprint(i), []byte(testKey), uint64(i))
		d.exchange(c, clientAddr(i), c.Hello())
		d.exchange(c, clientAddr(i), c.Hello())
		clients = append(clients, c)
	}
	for i, c := range clients {
		d.exchange(c, clientAddr(i), c.Flight())
		_, open := d.s.SessionByAddr(clientAddr(i), anyLocal)
		if want := i < 3; open != want {
			t.Errorf("the session of peer %d is open: %v", i, open)
		}
		if open == (len(c.Alerts) > 0) {
			t.Errorf("peer %d was sent %v", i, c.Alerts)
		}
	}
	for _, e := range d.rec.of(KindSessionClosed) {
		if e.Err != ErrEvicted {
			t.Errorf("%v", e)
		}
	}
	d.rec.want(t, KindSessionClosed, 2, "beyond MaxSessions")
}

// TestSessionsPerIdentity: at MaxSessionsPerIdentity the identity's longest
// silent gives way.
func TestSessionsPerIdentity(t *testing.T) {
	t.Parallel()
	d := newDirect(t, func(s *Server) { s.MaxSessionsPerIdentity, s.PSK = 2, anyPSK })
	first := d.connect("a", host(10, 1, 0))
	d.advance(time.Second)
	d.connect("a", host(10, 2, 0))
	d.connect("b", host(10, 3, 0))
	d.advance(time.Second)
	d.receive(host(10, 1, 0), first.Sealed(wire.ContentApplicationData, nil)) // the second is silent for longer
	d.advance(time.Second)
	d.connect("a", host(10, 4, 0))
	if e := d.rec.want(t, KindSessionClosed, 1, "for the third"); e.Remote != host(10, 2, 0) || e.Err != ErrEvicted {
		t.Errorf("%v", e)
	}
	if e := d.rec.want(t, KindLimitReached, 1, "for the third"); !errors.Is(e.Err, errMaxSessionsPerIdentity) {
		t.Errorf("%v", e)
	}
}

// TestSessionsPerSource: at MaxSessionsPerSource a session of the same identity
// gives way, or one that has been silent for a minute, or else the new one.
func TestSessionsPerSource(t *testing.T) {
	t.Parallel()
	d := newDirect(t, func(s *Server) { s.MaxSessionsPerSource, s.PSK = 2, anyPSK })
	steps := []struct {
		identity string
		port     int
		after    time.Duration
		closes   int // port
	}{
		{"a", 1, 0, 0},
		{"b", 2, time.Second, 0},
		{"c", 3, time.Second, 3},      // nobody is silent for long
		{"a", 4, time.Second, 1},      // the device has another port
		{"c", 5, 59 * time.Second, 2}, // silent for a minute
	}
	for i, step := range steps {
		d.advance(step.after)
		d.rec.events = nil
		d.connect(step.identity, host(10, 1, step.port))
		d.connect(fmt.Sprint("elsewhere ", i), host(11, 1+i, 0)) // closes nothing
		closed := d.rec.of(KindSessionClosed)
		if step.closes == 0 && len(closed) == 0 {
			continue
		}
		if len(closed) != 1 || closed[0].Remote != host(10, 1, step.closes) {
			t.Errorf("step %d closes %v, want port %d", i, closed, step.closes)
		}
	}
}

// TestSessionIdentity: what an identity is, with which it is looked up.
func TestSessionIdentity(t *testing.T) {
	t.Parallel()
	ca := testcert.NewAuthority()
	key, other := testcert.NewKey("P-256"), testcert.NewKey("P-256")
	certificates := []tls.Certificate{ca.Issue("one", key), ca.Issue("two, of one key", key), ca.Issue("three", other)}
	d := newDirect(t, func(s *Server) {
		s.PSK, s.ClientAuth, s.ClientCAs = anyPSK, tls.VerifyClientCertIfGiven, ca.Pool
		s.Certificates = []tls.Certificate{ca.Issue("localhost", testcert.NewKey("P-256"))}
	})
	d.connect("a", host(10, 1, 0))
	d.connect("a", host(10, 1, 1))
	d.connect("a", host(10, 2, 0))
	d.connect("", host(10, 3, 0))
	for i := range 5 {
		c := testpeer.New("", nil, uint64(i))
		c.Suites = []uint16{ecdheCert}
		if i < len(certificates) {
			c.Chain, c.Signer = certificates[i].Certificate, other
			if i < 2 {
				c.Signer = key
			}
		}
		d.establish(c, host(20, i, 0))
	}
	hash := func(i int) Identity {
		leaf, err := x509.ParseCertificate(certificates[i].Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return CertificateIdentity(leaf)
	}
	for _, tt := range []struct {
		id   Identity
		text string
		want []netip.AddrPort
	}{
		{PSKIdentity("a"), `psk:"a"`, []netip.AddrPort{host(10, 1, 0), host(10, 1, 1), host(10, 2, 0)}},
		{PSKIdentity(""), `psk:""`, []netip.AddrPort{host(10, 3, 0)}},
		{PSKIdentity("b"), `psk:"b"`, nil},
		{hash(0), fmt.Sprintf("key:%x", hash(0).Value), []netip.AddrPort{host(20, 0, 0), host(20, 1, 0)}},
		{hash(1), fmt.Sprintf("key:%x", hash(0).Value), []netip.AddrPort{host(20, 0, 0), host(20, 1, 0)}},
		{hash(2), fmt.Sprintf("key:%x", hash(2).Value), []netip.AddrPort{host(20, 2, 0)}},
		{Identity{}, "none", nil}, // not the two without a certificate
	} {
		var got []netip.AddrPort
		for s := range d.s.SessionsOf(tt.id) {
			if s.Identity() != tt.id {
				t.Errorf("a session of %v is of %v", tt.id, s.Identity())
			}
			got = append(got, s.RemoteAddr())
		}
		slices.SortFunc(got, netip.AddrPort.Compare)
		if !slices.Equal(got, tt.want) || tt.id.String() != tt.text {
			t.Errorf("%v: sessions of %v, want %v", tt.id, got, tt.want)
		}
	}
	s, _ := d.s.SessionByAddr(host(10, 1, 0), anyLocal)
	s.Close()
	if s.Identity() != PSKIdentity("a") || len(slices.Collect(d.s.SessionsOf(PSKIdentity("a")))) != 2 {
		t.Error("a closed session is not as it should be")
	}
	half := d.verified(99, host(30, 1, 0))
	cke, _, _ := half.KeyExchange()
	d.receive(host(30, 1, 0), cke)
	if h := d.l.known(host(30, 1, 0), netip.Addr{}); h.Identity() != (Identity{}) {
		t.Errorf("a claim is taken for an identity: %v", h.Identity())
	}
	var unused Server
	if len(slices.Collect(unused.SessionsOf(PSKIdentity("a")))) != 0 {
		t.Error("a server that does not listen has sessions")
	}
}

// TestUnverifiedIdentity: a certificate that nobody verifies is no identity, as
// anybody may have as many as it likes; one that VerifyConnection accepts is.
func TestUnverifiedIdentity(t *testing.T) {
	t.Parallel()
	ca := testcert.NewAuthority()
	key := testcert.NewKey("P-256")
	for _, verified := range []bool{false, true} {
		d := newDirect(t, func(s *Server) {
			s.ClientAuth = tls.RequireAnyClientCert
			s.Certificates = []tls.Certificate{ca.Issue("localhost", testcert.NewKey("P-256"))}
			if verified {
				s.VerifyConnection = func(context.Context, *VerifyRequest) error { return nil }
			}
		})
		c := testpeer.New("", nil, 1)
		c.Suites, c.Chain, c.Signer = []uint16{ecdheCert}, ca.Issue("any", key).Certificate, key
		d.establish(c, clientAddr(1))
		s, _ := d.s.SessionByAddr(clientAddr(1), anyLocal)
		if got := s.Identity() != (Identity{}); got != verified || len(slices.Collect(d.s.SessionsOf(s.Identity()))) == 1 != verified {
			t.Errorf("verified %v: identity %v", verified, s.Identity())
		}
	}
}

// TestStrangersGiveWay: whoever has no key closes its own sessions, where a
// server takes strangers, and keeps out nobody else.
func TestStrangersGiveWay(t *testing.T) {
	t.Parallel()
	ca := testcert.NewAuthority()
	server := ca.Issue("localhost", testcert.NewKey("P-256"))
	for _, shared := range []bool{false, true} {
		d := newDirect(t, func(s *Server) {
			s.MaxSessions, s.PSK, s.Certificates = 60, anyPSK, []tls.Certificate{server}
		})
		d.l.cfg.handler = NopHandler{}
		honest := make(map[*Session]bool)
		for i := range 40 {
			identity := "fleet"
			if !shared {
				identity = fmt.Sprint(i)
			}
			d.connect(identity, host(10, i, 0))
			s, _ := d.s.SessionByAddr(host(10, i, 0), anyLocal)
			honest[s] = true
		}
		d.advance(70 * time.Second)
		for i := range 100 {
			c := testpeer.New("", nil, uint64(i))
			c.Suites = []uint16{ecdheCert}
			for _, flight := range []func() []byte{c.Hello, c.Hello, c.Flight} {
				d.receiveTo(c, host(200, 1, i), flight())
			}
		}
		closed := 0
		for s := range honest {
			if s.isOver() {
				closed++
			}
		}
		if closed > 0 {
			t.Errorf("shared key %v: %d of %d honest sessions closed", shared, closed, len(honest))
		}
		for i := range 10 {
			if d.connect(fmt.Sprint("late", i), host(11, i, 0)); !d.isOpen(host(11, i, 0)) {
				t.Errorf("shared key %v: honest peer %d is refused", shared, i)
			}
		}
	}
}

// TestNoKeyTakesMoreThanAnother: one key does not close the sessions of another,
// beyond the largest share that has, however it spreads.
func TestNoKeyTakesMoreThanAnother(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		bad  func(i int) netip.AddrPort
		left int // of 50 honest sessions of one key behind one address, at least
	}{
		{"an address each", func(i int) netip.AddrPort { return host(200, i, 0) }, 50},
		{"one address", func(i int) netip.AddrPort { return host(200, 1, i) }, 50},
	} {
		d := newDirect(t, func(s *Server) { s.MaxSessions, s.PSK = 200, anyPSK })
		d.l.cfg.handler = NopHandler{}
		for i := range 50 {
			d.connect("fleet", host(10, 1, i))
		}
		for i := range 400 {
			d.connect("bad", tt.bad(i))
		}
		left := 0
		for i := range 50 {
			if d.isOpen(host(10, 1, i)) {
				left++
			}
		}
		if left < tt.left {
			t.Errorf("%s: %d of 50 honest sessions are left", tt.name, left)
		}
	}
}

// TestRoamingDevice: a device that comes from elsewhere takes the place of its
// own old session, though that was heard a moment ago.
func TestRoamingDevice(t *testing.T) {
	t.Parallel()
	d := newDirect(t, func(s *Server) { s.MaxSessions, s.PSK = 100, anyPSK })
	d.l.cfg.handler = NopHandler{}
	for i := range 99 {
		d.connect(fmt.Sprint(i), host(10, i, 0))
	}
	d.advance(5 * time.Minute)
	d.connect("roams", host(11, 1, 0))
	d.connect("roams", host(11, 2, 0))
	if d.isOpen(host(11, 1, 0)) || !d.isOpen(host(11, 2, 0)) || d.s.Stats().Sessions != 100 {
		t.Errorf("the old session is open: %v, the new one %v, %d in all", d.isOpen(host(11, 1, 0)), d.isOpen(host(11, 2, 0)), d.s.Stats().Sessions)
	}
}

// TestOpenSessionsModel holds the groups of open sessions against plain counts.
func TestOpenSessionsModel(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(7, 8))
	o := openSessions{identities: make(map[Identity]*identity)}
	all := newSources(200)
	var open []*Session
	ids := make(map[*Session]Identity)
	for range 20_000 {
		if rng.IntN(2) == 0 && len(open) < 60 {
			s := &Session{remote: host(10, rng.IntN(5), rng.IntN(1000))}
			s.source = all.of(s.remote.Addr())
			id := PSKIdentity(fmt.Sprint(rng.IntN(5)))
			if rng.IntN(6) == 0 {
				id = Identity{}
			}
			o.add(s, id)
			open, ids[s] = append(open, s), id
		} else if len(open) > 0 {
			i := rng.IntN(len(open))
			o.remove(open[i])
			all.forget(open[i].source)
			delete(ids, open[i])
			open = slices.Delete(open, i, i+1)
		}
		pairs, people, sources := make(map[string]int32), make(map[Identity]int32), make(map[sourceKey]int32)
		devices := make(map[sourceKey]int32)
		for _, s := range open {
			sources[s.source.key]++
			id := ids[s]
			pair := fmt.Sprint(id, s.source.key)
			if pairs[pair]++; id == (Identity{}) {
				continue
			}
			people[id]++
			if pairs[pair] == 1 {
				devices[s.source.key]++
			}
		}
		most := func(counts []int32) int32 {
			if n := slices.Max(append(counts, 0)); n > 1 {
				return n
			}
			return 0
		}
		var gotPair, gotPeople int32
		if len(o.mostOfPair) > 0 {
			gotPair = o.mostOfPair[0].count
		}
		if len(o.mostOfPeople) > 0 {
			gotPeople = o.mostOfPeople[0].count
		}
		if o.count != len(open) || len(o.identities) != len(people) || len(all.byKey) != len(sources) ||
			gotPair != most(values(pairs)) || gotPeople != most(values(people)) {
			t.Fatalf("%d open, %d identities, %d sources, most %d and %d; want %d, %d, %d, %d and %d",
				o.count, len(o.identities), len(all.byKey), gotPair, gotPeople,
				len(open), len(people), len(sources), most(values(pairs)), most(values(people)))
		}
		for key, n := range sources {
			if all.byKey[key].open != n || all.byKey[key].people != devices[key] {
				t.Fatalf("%d sessions of a source, want %d", all.byKey[key].open, n)
			}
		}
	}
}

func values[K comparable](m map[K]int32) (all []int32) {
	for _, v := range m {
		all = append(all, v)
	}
	return all
}

// TestIdentityIsRevoked: whoever takes a key away closes its sessions.
func TestIdentityIsRevoked(t *testing.T) {
	t.Parallel()
	inBubble(t, func(s *Server) {
		s.PSK = func(ctx context.Context, req PSKRequest) (PSK, error) { return PSK{Key: []byte(testKey)}, nil }
	}, func(b *bubble) {
		for n := range 3 {
			b.peer(n).establish()
		}
		for s := range b.server.SessionsOf(PSKIdentity(testIdentity)) {
			s.Close()
		}
		if n := b.server.Stats().Sessions; n != 0 {
			t.Errorf("%d sessions are open", n)
		}
	})
}
