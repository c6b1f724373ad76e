package dtlsserver

// Pre-shared keys: wrong, unknown, odd and expired ones, and what those learn of
// them who have none.

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testpeer"
)

// TestPSKFailures: what the hook may answer, what the client sees of it, which
// is nothing, and what the operator is told.
func TestPSKFailures(t *testing.T) {
	t.Parallel()
	const secret = "the database's password"
	tests := []struct {
		name string
		psk  PSK
		err  error
		kind EventKind
	}{
		{"wrong key", PSK{Key: []byte("another key")}, nil, 0},
		{"unknown", PSK{}, ErrUnknownPSKIdentity, KindUnknownPSKIdentity},
		{"unknown, wrapped, with a key", PSK{Key: []byte(testKey)}, fmt.Errorf("no: %w", ErrUnknownPSKIdentity), KindUnknownPSKIdentity},
		{"empty key", PSK{}, nil, KindUnknownPSKIdentity},
		{"failure", PSK{Key: []byte(testKey)}, errors.New("database is down"), KindPSKFailed},
		{"key too long", PSK{Key: make([]byte, 1<<16)}, nil, KindPSKFailed},
	}
	var first []string
	for _, tt := range tests {
		var trace []string
		inBubble(t, func(s *Server) {
			s.PSK = func(context.Context, PSKRequest) (PSK, error) { return tt.psk, tt.err }
		}, func(b *bubble) {
			start := time.Now()
			b.network.carry = func(from, _ netip.AddrPort, d []byte) []time.Duration {
				if from == serverAddr {
					trace = append(trace, fmt.Sprint(time.Since(start), " ", len(d)))
				}
				return []time.Duration{0}
			}
			p := b.peer(1)
			p.verify()
			p.send(p.Flight())
			time.Sleep(time.Minute)
			p.receive()
			if p.Complete {
				t.Errorf("%s: complete", tt.name)
			}
			if e := b.rec.want(t, KindRecordDropped, 1, tt.name); e.Err != errMaybeWrongPSK || e.Time.Sub(start) > time.Second {
				t.Errorf("%s: %+v", tt.name, e)
			}
			e := b.rec.want(t, KindHandshakeFailed, 1, tt.name)
			if e.Err != ErrWrongPSK || e.Identity != testIdentity || e.Remote != p.pipe.addr {
				t.Errorf("%s: %+v", tt.name, e)
			}
			if tt.kind != 0 {
				if e := b.rec.want(t, tt.kind, 1, tt.name); e.Identity != testIdentity || e.Remote != p.pipe.addr {
					t.Errorf("%s: %+v", tt.name, e)
				}
			}
		})
		if first == nil {
			first = trace
		}
		if !slices.Equal(trace, first) {
			t.Errorf("%s shows on the wire:\n%v\nwant\n%v", tt.name, trace, first)
		}
	}
	// When the flight goes out again, it has a record in each datagram.
	if strings.Contains(strings.Join(first, ""), secret) || len(first) != 1+1+4*2 {
		t.Errorf("sent %v, want a HelloVerifyRequest and five flights", first)
	}
}

// TestPionWrongKey: pion's client with a wrong key does not get in.
func TestPionWrongKey(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(b *bubble) {
		if c, err := dialPion(t, b.network.dial(clientAddr(1), serverAddr), pionConfig(testIdentity, "not the key"), 10*time.Second); err == nil {
			c.Close()
			t.Fatal("pion's client with a wrong key is connected")
		}
		time.Sleep(time.Minute)
		if e := b.rec.want(t, KindHandshakeFailed, 1, "after a minute"); e.Err != ErrWrongPSK {
			t.Errorf("%v", e)
		}
	})
}

// TestHookLatencyIsHidden: how long a look-up took does not show in when the
// flight is repeated.
func TestHookLatencyIsHidden(t *testing.T) {
	t.Parallel()
	for _, latency := range []time.Duration{0, 300 * time.Millisecond, 999 * time.Millisecond} {
		inBubble(t, func(s *Server) {
			s.PSK = func(context.Context, PSKRequest) (PSK, error) {
				time.Sleep(latency)
				return PSK{}, ErrUnknownPSKIdentity
			}
		}, func(b *bubble) {
			p := b.peer(1)
			p.verify()
			start := time.Now()
			p.send(p.Flight())
			<-p.pipe.in
			if took := time.Since(start); took != DefaultRetransmitTimeout {
				t.Errorf("a hook of %v shows: repeated after %v", latency, took)
			}
		})
	}
}

// TestZeroPSK: a key of zeros is an error for the operator, and for the client as
// an unknown identity.
func TestZeroPSK(t *testing.T) {
	t.Parallel()
	d := newDirect(t, func(s *Server) {
		s.PSK = func(context.Context, PSKRequest) (PSK, error) { return PSK{Key: make([]byte, 16)}, nil }
	})
	c, from := testpeer.New(testIdentity, make([]byte, 16), 1), clientAddr(1)
	d.exchange(c, from, c.Hello())
	d.exchange(c, from, c.Hello())
	if d.exchange(c, from, c.Flight()); c.Complete || len(c.Alerts) != 0 {
		t.Errorf("complete %v, alerts %v", c.Complete, c.Alerts)
	}
	if e := d.rec.want(t, KindPSKFailed, 1, "for a key of zeros"); !errors.Is(e.Err, errZeroPSK) {
		t.Errorf("%v", e)
	}
}

// TestOddIdentities: any bytes are an identity, and none breaks a line of
// output.
func TestOddIdentities(t *testing.T) {
	t.Parallel()
	for _, identity := range []string{"", "\x00", "a\nb\x1b[2J", "\xff\xfe", strings.Repeat("x", 256), `"quoted"`} {
		d := newDirect(t, func(s *Server) {
			s.PSK = StaticPSK(map[string][]byte{identity: []byte(testKey)})
		})
		c := testpeer.New(identity, []byte(testKey), 1)
		d.establish(c, clientAddr(1))
		e := d.rec.want(t, KindHandshakeComplete, 1, "with an odd identity")
		if e.Identity != identity || e.Session.ConnectionState().PSKIdentity != identity {
			t.Errorf("identity %q became %q", identity, e.Identity)
		}
		for _, line := range d.rec.lines() {
			for _, r := range line {
				if r < ' ' || r > '~' {
					t.Errorf("line %q has %q", line, r)
				}
			}
		}
	}
}

// TestClaimedIdentity: before the handshake is complete a session's state is
// the identity that the client claims, cut off when it is too long, and nothing
// else. One that fails has learnt no more.
func TestClaimedIdentity(t *testing.T) {
	t.Parallel()
	for identity, told := range map[string]string{"device": "device", "0123456789": "0123456789", "0123456789a": "0123456789"} {
		d := newDirect(t, func(s *Server) { s.MaxPSKIdentityLen = 10 })
		c, from := testpeer.New(identity, []byte("a wrong key"), 1), clientAddr(1)
		d.exchange(c, from, c.Hello())
		d.exchange(c, from, c.Hello())
		verified := d.rec.of(KindHelloVerified)
		if len(verified) != 1 {
			t.Fatalf("%d verified hellos", len(verified))
		}
		s := verified[0].Session
		if state := s.ConnectionState(); !reflect.DeepEqual(state, ConnectionState{}) {
			t.Errorf("%q: before the client has said it, the state is %+v", identity, state)
		}
		d.receive(from, c.Flight())
		want := ConnectionState{PSKIdentity: told}
		if state := s.ConnectionState(); !reflect.DeepEqual(state, want) {
			t.Errorf("%q: the state is %+v", identity, state)
		}
		d.advance(DefaultHandshakeTimeout)
		failed := d.rec.of(KindHandshakeFailed)
		if len(failed) != 1 || failed[0].Identity != told {
			t.Errorf("%q: failures %v", identity, failed)
		}
		if state := s.ConnectionState(); !reflect.DeepEqual(state, want) {
			t.Errorf("%q: in the end the state is %+v", identity, state)
		}
		unknown := d.rec.of(KindUnknownPSKIdentity)
		if len(unknown) != 1 || unknown[0].Identity != told || (unknown[0].Err != nil) != (identity != told) {
			t.Errorf("%q: unknown identities %v", identity, unknown)
		}
	}
}

// TestPSKByServerName: the hook chooses keys by the name that the client asks for,
// when a session is resumed too, and so is the hint chosen, with and without
// ECDHE.
func TestPSKByServerName(t *testing.T) {
	t.Parallel()
	var asked []string
	d := newDirect(t, func(s *Server) {
		s.PSKIdentityHint = "nobody's"
		s.PSKIdentityHintFor = func(name string) string {
			switch name {
			case "long.example":
				return strings.Repeat("h", maxHint+1)
			case "":
				return ""
			}
			return "hint for " + name
		}
		s.PSK = func(_ context.Context, req PSKRequest) (PSK, error) {
			asked = append(asked, req.ServerName)
			return PSK{Key: []byte("key of " + req.ServerName + req.Identity)}, nil
		}
	})
	n := 0
	for _, id := range []uint16{0x00a8, ecdhePSK} {
		for name, hint := range map[string]string{"a.example": "hint for a.example", "b.example": "hint for b.example", "": "", "long.example": ""} {
			n++
			c := testpeer.New("device", []byte("key of "+name+"device"), uint64(n))
			c.Suites, c.ServerName, c.AskTicket = []uint16{id}, name, true
			d.establish(c, clientAddr(n))
			if string(c.Hint) != hint {
				t.Errorf("%#04x, %q: hint %q", id, name, c.Hint)
			}
			if asked[len(asked)-1] != name {
				t.Errorf("%#04x: asked for %q of %q", id, asked, name)
			}
			if id == ecdhePSK {
				again := testpeer.New("device", []byte("key of "+name+"device"), uint64(100+n))
				again.Suites, again.Ticket, again.Master, again.ServerName = c.Suites, c.NewTicket, c.Master, name
				if !tryResume(d, again, clientAddr(100+n)) || asked[len(asked)-1] != name {
					t.Errorf("%q: not resumed, or asked for %q", name, asked)
				}
			}
			wrong := testpeer.New("device", []byte("key of c.exampledevice"), uint64(200+n))
			wrong.Suites, wrong.ServerName = []uint16{id}, name
			d.exchange(wrong, clientAddr(200+n), wrong.Hello())
			d.exchange(wrong, clientAddr(200+n), wrong.Hello())
			if d.exchange(wrong, clientAddr(200+n), wrong.Flight()); wrong.Complete {
				t.Errorf("%q: another name's key will do", name)
			}
		}
	}
}

// TestExpiredPSK: a key that has expired is as unknown, when a session is to be
// resumed too, and the operator reads why. A session that is resumed ends with the
// key as it is then.
func TestExpiredPSK(t *testing.T) {
	t.Parallel()
	var expires time.Time
	d := newDirect(t, func(s *Server) {
		s.IdleTimeout = 24 * time.Hour
		s.PSK = func(ctx context.Context, req PSKRequest) (PSK, error) {
			psk, err := testPSK(ctx, req)
			psk.Expires = expires
			return psk, err
		}
	})
	expires = d.now.Add(time.Hour)
	c := ticketOf(d, clientAddr(1), ecdhePSK)
	expires = d.now.Add(time.Minute)
	again := *c
	if !tryResume(d, &again, clientAddr(2)) {
		t.Fatal("not resumed")
	}
	d.advance(time.Minute)
	if e := d.rec.want(t, KindSessionClosed, 1, "of the two"); e.Remote != clientAddr(2) || e.Err != ErrPSKExpired {
		t.Errorf("%v", e)
	}
	late := *c
	if tryResume(d, &late, clientAddr(3)) || late.Complete {
		t.Error("resumed, or complete, with a key that has expired")
	}
	d.advance(31 * time.Second)
	var told bool
	for _, e := range d.rec.of(KindUnknownPSKIdentity) {
		told = told || errors.Is(e.Err, ErrPSKExpired) && e.Identity == testIdentity
	}
	d.rec.want(t, KindPSKFailed, 0, "for what is no failure")
	if e := d.rec.want(t, KindHandshakeFailed, 1, "with an expired key"); !told || e.Err != ErrWrongPSK {
		t.Errorf("told %v; %v", told, d.rec.lines())
	}
}
