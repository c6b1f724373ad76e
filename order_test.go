package dtlsserver

import (
	"context"
	"net/netip"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// What is told and sent around the end of a session, and of hooks that outlive
// theirs.

// TestDataBehindFinished: the last flight of a client that comes back with a
// ticket may have data in the same datagram.
func TestDataBehindFinished(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	from := clientAddr(1)
	c := ticketOf(d, from, ecdhePSK)
	d.exchange(c, from, c.Hello())
	d.exchange(c, from, c.Hello())
	if !c.Resuming {
		t.Fatal("the session is not resumed")
	}
	d.exchange(c, from, append(c.Resume(), c.Sealed(wire.ContentApplicationData, []byte("first words"))...))
	if want := from.String() + ": first words"; !slices.Contains(d.rec.data, want) {
		t.Errorf("data %q, want %q", d.rec.data, want)
	}
}

// TestHookThatExits: a hook that ends its goroutine, as a test does by FailNow,
// costs its handshake and nobody else's.
func TestHookThatExits(t *testing.T) {
	t.Parallel()
	edit := func(s *Server) {
		s.MaxHandshakes = 4
		s.PSK = func(_ context.Context, req PSKRequest) (PSK, error) {
			if req.Identity == "exit" {
				runtime.Goexit()
			}
			return PSK{Key: []byte(testKey)}, nil
		}
	}
	inBubble(t, edit, func(b *bubble) {
		for n := range 3 {
			p := b.peer(n)
			p.Identity = "exit"
			p.verify()
			p.send(p.Flight())
		}
		b.peer(9).establish()
	})
}

// TestOneSourceFillsNoHooks: whoever makes hooks slow keeps out its own source.
func TestOneSourceFillsNoHooks(t *testing.T) {
	t.Parallel()
	const perSource = 5
	edit := func(s *Server) {
		s.MaxHandshakes, s.MaxHandshakesPerSource = 50, perSource
		s.PSK = func(_ context.Context, req PSKRequest) (PSK, error) {
			if req.Identity == "slow" {
				time.Sleep(time.Minute)
			}
			return PSK{Key: []byte(testKey)}, nil
		}
	}
	inBubble(t, edit, func(b *bubble) {
		asked := 0
		from := func(n int) *peer {
			addr := netip.AddrPortFrom(clientAddr(1).Addr(), uint16(6000+n))
			return &peer{testpeer.New("slow", []byte(testKey), uint64(n)), t, b.network.dial(addr, serverAddr)}
		}
		for n := range 60 {
			p := from(n)
			p.send(p.Hello())
			p.receive()
			p.send(p.Hello())
			if p.receive(); p.HelloDone {
				p.send(p.Flight())
				asked++
			}
		}
		if asked != perSource {
			t.Errorf("%d hooks for one source, want %d", asked, perSource)
		}
		b.peer(99).establish()
		time.Sleep(2 * time.Minute)
		if p := from(99); true {
			p.send(p.Hello())
			p.receive()
			p.send(p.Hello())
			if p.receive(); !p.HelloDone {
				t.Error("the source is still refused when its hooks have ended")
			}
		}
	})
}

// TestSecretsAreCleared: a session that is over keeps no keys, however long
// somebody holds it, and what was settled can still be asked for.
func TestSecretsAreCleared(t *testing.T) {
	t.Parallel()
	for end, by := range map[string]func(d *direct, c *testpeer.Client, s *Session){
		"close_notify": func(d *direct, c *testpeer.Client, s *Session) {
			d.receive(s.RemoteAddr(), c.Sealed(wire.ContentAlert, []byte{1, 0}))
		},
		"fatal alert": func(d *direct, c *testpeer.Client, s *Session) {
			d.receive(s.RemoteAddr(), c.Sealed(wire.ContentAlert, []byte{2, 80}))
		},
		"Close":   func(d *direct, c *testpeer.Client, s *Session) { s.Close() },
		"silence": func(d *direct, c *testpeer.Client, s *Session) { d.advance(DefaultIdleTimeout) },
		"re-connect": func(d *direct, c *testpeer.Client, s *Session) {
			d.establish(testpeer.New(testIdentity, []byte(testKey), 2), s.RemoteAddr())
		},
	} {
		d := newDirect(t, nil)
		c, from := testpeer.New(testIdentity, []byte(testKey), 1), clientAddr(1)
		d.establish(c, from)
		s, _ := d.s.SessionByAddr(from, anyLocal)
		state := s.ConnectionState()
		if !state.HandshakeComplete || state.PSKIdentity != testIdentity {
			t.Errorf("the session's state is %+v", state)
		}
		eng := reflect.ValueOf(&s.eng).Elem()
		for _, name := range []string{"master", "sealer", "opener"} {
			if eng.FieldByName(name).IsZero() {
				t.Errorf("an open session has no %s", name)
			}
		}
		by(d, c, s)
		for _, name := range []string{"master", "sealer", "opener"} {
			if !eng.FieldByName(name).IsZero() {
				t.Errorf("%s: a closed session has its %s", end, name)
			}
		}
		if after := s.ConnectionState(); !reflect.DeepEqual(after, state) {
			t.Errorf("%s: the state is %+v, and was %+v", end, after, state)
		}
	}
}

// TestHookContextEnds with the hook.
func TestHookContextEnds(t *testing.T) {
	t.Parallel()
	var hook context.Context
	d := newDirect(t, func(s *Server) {
		s.PSK = func(ctx context.Context, req PSKRequest) (PSK, error) {
			if hook = ctx; ctx.Err() != nil {
				t.Errorf("the context is over before the hook: %v", ctx.Err())
			}
			return testPSK(ctx, req)
		}
	})
	d.establish(testpeer.New(testIdentity, []byte(testKey), 1), clientAddr(1))
	if hook.Err() == nil {
		t.Error("the context is good after the hook")
	}
}
