package dtlsserver

// Keys by server name, keys that expire, and how old sessions get.

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/dtlsserver/dtlsserver/internal/testcert"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// closedAfter is how long after start the one session of an address was closed, and
// why. Its peer was told.
func (b *bubble) closedAfter(p *peer, start time.Time) (time.Duration, error) {
	b.t.Helper()
	e := b.rec.want(b.t, KindSessionClosed, 1, "closed")
	p.receive()
	if len(p.Alerts) != 1 || p.Alerts[0] != (wire.Alert{Level: wire.LevelWarning, Description: wire.AlertCloseNotify}) {
		b.t.Errorf("alerts %v", p.Alerts)
	}
	return e.Time.Sub(start), e.Err
}

// TestSessionAge: a session is closed when it is MaxSessionAge old, or when its key
// expires, whatever comes first, whether its peer is busy, silent for so long
// that it rests, or silent for longer than it may be.
func TestSessionAge(t *testing.T) {
	t.Parallel()
	const never = 10 * time.Hour
	tests := []struct {
		name           string
		age, key, idle time.Duration
		busy           time.Duration // it says something after each; zero: never
		want           time.Duration
		err            error
	}{
		{"busy and old", time.Minute, never, 0, 7 * time.Second, time.Minute, ErrSessionAge},
		{"at rest and old", 5 * time.Minute, never, never, 0, 5 * time.Minute, ErrSessionAge},
		{"silent for too long", 5 * time.Minute, never, time.Minute, 0, time.Minute, ErrIdleTimeout},
		{"its key expires first", time.Hour, 20 * time.Second, 0, time.Second, 20 * time.Second, ErrPSKExpired},
		{"its key expires last", time.Minute, 2 * time.Minute, 0, 7 * time.Second, time.Minute, ErrSessionAge},
		{"its key alone expires", 0, 3 * time.Minute, never, 0, 3 * time.Minute, ErrPSKExpired},
		{"old at once", time.Nanosecond, never, 0, 0, 0, ErrSessionAge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(s *Server) {
				s.MaxSessionAge, s.IdleTimeout = tt.age, tt.idle
				s.PSK = func(ctx context.Context, req PSKRequest) (PSK, error) {
					psk, err := testPSK(ctx, req)
					psk.Expires = time.Now().Add(tt.key)
					return psk, err
				}
			}, func(b *bubble) {
				p := b.peer(1)
				start := time.Now()
				p.establish()
				for time.Since(start) < tt.want+time.Second {
					if tt.busy == 0 {
						time.Sleep(tt.want + time.Second)
						break
					}
					time.Sleep(tt.busy)
					p.send(p.Sealed(wire.ContentApplicationData, []byte("busy")))
				}
				synctest.Wait()
				if after, err := b.closedAfter(p, start); after.Round(time.Millisecond) != tt.want || err != tt.err {
					t.Errorf("closed after %v: %v", after, err)
				}
			})
		})
	}
}

// TestSessionAgeCountsFromFullHandshake: a resumed session ends when that would which
// it resumes, and none is resumed by then; a session with a certificate too.
func TestSessionAgeCountsFromFullHandshake(t *testing.T) {
	t.Parallel()
	const age = 10 * time.Minute
	for _, id := range []uint16{ecdhePSK, ecdheCert} {
		d := newDirect(t, func(s *Server) {
			s.MaxSessionAge, s.IdleTimeout = age, 24*time.Hour
			s.Certificates = append(s.Certificates, testcert.NewAuthority().Issue("localhost", testcert.NewKey("P-256")))
		})
		start := d.now
		c := ticketOf(d, clientAddr(1), id)
		d.advance(age / 4)
		first := *c
		if !tryResume(d, &first, clientAddr(2)) {
			t.Fatalf("%#04x: not resumed; %v", id, d.rec.lines())
		}
		d.advance(age/2 - age/4 + time.Second)
		renewed := *c // with a new ticket, whose time is still that of the full handshake
		if !tryResume(d, &renewed, clientAddr(3)) || renewed.NewTicket == nil {
			t.Fatalf("%#04x: not resumed, or without a new ticket; %v", id, d.rec.lines())
		}
		renewed = testpeer.Client{Random: [32]byte{9}, Suites: c.Suites, Identity: testIdentity, Key: []byte(testKey), Ticket: renewed.NewTicket, Master: renewed.Master}
		if !tryResume(d, &renewed, clientAddr(4)) {
			t.Fatalf("%#04x: the new ticket resumes nothing", id)
		}
		d.rec.want(t, KindSessionClosed, 0, "before it is time")
		d.advance(start.Add(age).Sub(d.now) - 2*time.Second)
		d.rec.want(t, KindSessionClosed, 0, "two seconds before it is time")
		d.advance(2 * time.Second)
		if e := d.rec.want(t, KindSessionClosed, 4, "when it is time"); e.Err != ErrSessionAge {
			t.Errorf("%#04x: %v", id, e)
		}
		late := *c
		if tryResume(d, &late, clientAddr(5)) || !late.Complete {
			t.Errorf("%#04x: resumed when it was time: %v, complete %v", id, late.Resuming, late.Complete)
		}
	}
}

// TestSizeOfSession: a session is one object of 1 KiB, with the 8 bytes that the
// runtime adds. The next class has 1152 bytes.
func TestSizeOfSession(t *testing.T) {
	if size := unsafe.Sizeof(Session{}); size > 1024-8 {
		t.Errorf("%d bytes", size)
	}
}
