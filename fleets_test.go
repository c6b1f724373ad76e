package dtlsserver

// Honest fleets under the limits on open sessions, with figures: a table in
// SECURITY.md has them from `go test -v -run TestFleets .`

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// fleet is a number of peers.
type fleet struct {
	n        int
	identity func(i int) string
	from     func(i int) netip.AddrPort
}

// own is a key for each of a fleet.
func own(name string) func(int) string {
	return func(i int) string { return fmt.Sprint(name, " ", i) }
}

// few is so many keys for all of a fleet.
func few(name string, n int) func(int) string {
	return func(i int) string { return fmt.Sprint(name, " ", i%n) }
}

// hosts is an address for each, nat one of a few for all.
func hosts(network byte) func(int) netip.AddrPort {
	return func(i int) netip.AddrPort { return host(network, i, 0) }
}

func nat(network byte, n int) func(int) netip.AddrPort {
	return func(i int) netip.AddrPort { return host(network, i%n, i) }
}

// TestFleets: at MaxSessions, what becomes of honest peers that have sessions
// and of those that come, beside those that want all there is.
func TestFleets(t *testing.T) {
	t.Parallel()
	most, scale := 2000, 1 // a fiftieth of the default
	if raceEnabled {
		scale = 20
		most /= scale
	}
	tests := []struct {
		name     string
		fleets   []fleet       // that are connected
		silent   time.Duration // since when
		arrives  fleet
		honest   bool // what arrives
		closed   int  // at most, of what was connected
		rejected int  // at most, of 100 more, with a key and an address each
	}{
		{"1,600 with a key and an address each; one key at 1 address",
			[]fleet{{1600, own("a"), hosts(10)}}, 70 * time.Second, fleet{3000, few("bad", 1), nat(200, 1)}, false, 0, 0},
		{"the same; one key at 200 addresses",
			[]fleet{{1600, own("a"), hosts(10)}}, 70 * time.Second, fleet{3000, few("bad", 1), nat(200, 200)}, false, 0, 0},
		{"the same; one key at 3,000 addresses",
			[]fleet{{1600, own("a"), hosts(10)}}, 70 * time.Second, fleet{3000, few("bad", 1), hosts(200)}, false, 0, 0},
		{"the same; 200 keys at 1 address",
			[]fleet{{1600, own("a"), hosts(10)}}, 70 * time.Second, fleet{3000, few("bad", 200/scale), nat(200, 1)}, false, 0, 0},
		{"1,900 with a key and an address each; 200 keys at 1 address",
			[]fleet{{1900, own("a"), hosts(10)}}, 70 * time.Second, fleet{3000, few("bad", 200/scale), nat(200, 1)}, false, 100, 0},
		{"1,000 behind one address with a key each and 600 elsewhere; one key at 200 addresses",
			[]fleet{{1000, own("a"), nat(10, 1)}, {600, own("b"), hosts(11)}}, 70 * time.Second, fleet{3000, few("bad", 1), nat(200, 200)}, false, 0, 0},
		{"1,000 behind one address with a key each and 600 elsewhere; one key behind that address",
			[]fleet{{1000, own("a"), nat(10, 1)}, {600, own("b"), hosts(11)}}, 70 * time.Second, fleet{3000, few("bad", 1), func(i int) netip.AddrPort { return host(10, 0, 5000+i) }}, false, 0, 0},
		{"2,000 with one key, heard half a minute ago; 500 more of them",
			[]fleet{{2000, few("a", 1), hosts(10)}}, 30 * time.Second, fleet{500, few("a", 1), hosts(12)}, true, 0, 100},
		{"2,000 with one key, silent for a day; 500 more of them",
			[]fleet{{2000, few("a", 1), hosts(10)}}, 24 * time.Hour, fleet{500, few("a", 1), hosts(12)}, true, 500, 0},
		{"2,000 with a key each, silent for a day; 500 more with a key each",
			[]fleet{{2000, own("a"), hosts(10)}}, 24 * time.Hour, fleet{500, own("b"), hosts(12)}, true, 500, 0},
		{"2,000 with a key each, all of whom come again from another port",
			[]fleet{{2000, own("a"), hosts(10)}}, time.Second, fleet{2000, own("a"), func(i int) netip.AddrPort { return host(10, i, 1) }}, true, 2000, 100},
		{"2,000 with a key each behind ten addresses, all of whom come again from another port",
			[]fleet{{2000, own("a"), nat(10, 10)}}, time.Second, fleet{2000, own("a"), func(i int) netip.AddrPort { return host(10, i%10, 20_000+i) }}, true, 2000, 100},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := newDirect(t, func(s *Server) {
				s.MaxSessions, s.PSK, s.IdleTimeout = most, anyPSK, 48*time.Hour
			})
			d.l.cfg.handler = NopHandler{}
			before := make(map[*Session]bool)
			for _, f := range tt.fleets {
				for i := range f.n / scale {
					d.connect(f.identity(i), f.from(i))
					s, ok := d.s.SessionByAddr(f.from(i), anyLocal)
					if !ok {
						t.Fatalf("peer %d is not connected", i)
					}
					before[s] = true
				}
			}
			d.advance(tt.silent)
			came := 0
			for i := range tt.arrives.n / scale {
				d.connect(tt.arrives.identity(i), tt.arrives.from(i))
				if _, ok := d.s.SessionByAddr(tt.arrives.from(i), anyLocal); ok {
					came++
				}
			}
			closed, rejected := 0, 0
			for s := range before {
				if s.isOver() {
					closed++
				}
			}
			for i := range 100 / scale {
				d.connect(fmt.Sprint("late ", i), host(13, i, 0))
				if _, ok := d.s.SessionByAddr(host(13, i, 0), anyLocal); !ok {
					rejected++
				}
			}
			t.Logf("of %d closed %d, of %d connected %d, of %d more refused %d", len(before), closed, tt.arrives.n/scale, came, 100/scale, rejected)
			if closed > tt.closed/scale || rejected > tt.rejected || tt.honest && tt.silent > time.Minute && came < tt.arrives.n/scale {
				t.Errorf("want at most %d closed and %d refused, and all connected where others are silent", tt.closed, tt.rejected)
			}
			if n := d.s.Stats().Sessions; n > most {
				t.Errorf("%d sessions are open", n)
			}
		})
	}
}

// TestBusySessionsStay: sessions whose peers are heard once a minute never give
// way to peers that have more.
func TestBusySessionsStay(t *testing.T) {
	t.Parallel()
	d := newDirect(t, func(s *Server) { s.MaxSessions, s.PSK = 100, anyPSK })
	d.l.cfg.handler = NopHandler{}
	var clients []*testpeer.Client
	for i := range 60 {
		clients = append(clients, d.connect(fmt.Sprint(i), host(10, i, 0)))
	}
	for minute := range 20 {
		for i := range 100 {
			d.connect(fmt.Sprint("bad ", i%7), host(200, minute*100+i, 0))
		}
		d.advance(55 * time.Second)
		for i, c := range clients {
			d.receive(host(10, i, 0), c.Sealed(wire.ContentApplicationData, nil))
		}
	}
	for i := range clients {
		if _, ok := d.s.SessionByAddr(host(10, i, 0), anyLocal); !ok {
			t.Errorf("the session of peer %d was closed", i)
		}
	}
}
