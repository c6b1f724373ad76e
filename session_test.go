package dtlsserver

// One session: what may be written, how long it lives, when it rests, what it
// keeps and exports.

import (
	"bytes"
	"context"
	"reflect"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/dtlsserver/dtlsserver/internal/testcert"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// TestWrite: its errors and its limits.
func TestWrite(t *testing.T) {
	t.Parallel()
	inBubble(t, func(s *Server) {
		s.Handler.(*recorder).then.OnInfo = func(e Event) {
			if e.Kind == KindHelloVerified {
				if _, err := e.Session.Write(nil); err != ErrHandshakeIncomplete {
					t.Errorf("Write in a handshake: %v", err)
				}
			}
		}
	}, func(b *bubble) {
		p := b.peer(1)
		p.establish()
		s, _ := b.server.SessionByAddr(p.pipe.addr, anyLocal)
		if n, err := s.Write(make([]byte, 16385)); n != 0 || err != ErrMessageTooLong {
			t.Errorf("16385 bytes: %d, %v", n, err)
		}
		for _, size := range []int{0, 1, 16384} {
			if n, err := s.Write(make([]byte, size)); n != size || err != nil {
				t.Errorf("%d bytes: %d, %v", size, n, err)
			}
		}
		if p.receive(); len(p.Data) != 3 || len(p.Data[0]) != 0 || len(p.Data[2]) != 16384 {
			t.Errorf("client got %d messages", len(p.Data))
		}
	})
}

// TestValue: PSK.Value becomes the session's once the key is proven.
func TestValue(t *testing.T) {
	t.Parallel()
	inBubble(t, func(s *Server) {
		s.PSK = func(ctx context.Context, req PSKRequest) (PSK, error) {
			psk, err := testPSK(ctx, req)
			psk.Value = "account of " + req.Identity
			return psk, err
		}
		s.Handler.(*recorder).then.OnInfo = func(e Event) {
			if e.Kind == KindPSKRequested && e.Session.Value() != nil {
				t.Error("there is a value before the key is proven")
			}
		}
	}, func(b *bubble) {
		p := b.peer(1)
		p.establish()
		s, _ := b.server.SessionByAddr(p.pipe.addr, anyLocal)
		if s.Value() != "account of "+testIdentity {
			t.Errorf("Value %v", s.Value())
		}
		s.SetValue(5)
		if s.Value() != 5 {
			t.Errorf("Value %v", s.Value())
		}
	})
}

// TestExportBeforeAndAfter: there is nothing to export without a complete
// handshake.
func TestExportBeforeAndAfter(t *testing.T) {
	t.Parallel()
	inBubble(t, func(s *Server) {
		s.Handler.(*recorder).then.OnInfo = func(e Event) {
			if e.Kind == KindHelloVerified {
				if _, err := e.Session.ExportKeyingMaterial("EXPORTER-x", nil, 10); err != ErrHandshakeIncomplete {
					t.Errorf("in a handshake: %v", err)
				}
			}
		}
	}, func(b *bubble) {
		p := b.peer(1)
		p.establish()
		session, _ := b.server.SessionByAddr(p.pipe.addr, anyLocal)
		if m, err := session.ExportKeyingMaterial("EXPORTER-x", nil, 10); err != nil || !bytes.Equal(m, p.Export("EXPORTER-x", nil, 10)) {
			t.Errorf("%x, %v", m, err)
		}
		if _, err := session.ExportKeyingMaterial("EXPORTER-x", nil, -1); err == nil {
			t.Error("a negative length")
		}
		session.Close()
		synctest.Wait()
		if _, err := session.ExportKeyingMaterial("EXPORTER-x", nil, 10); err != ErrSessionClosed {
			t.Errorf("closed: %v", err)
		}
	})
}

// TestIdleTimeout closes a session whose peer is silent, and no other.
func TestIdleTimeout(t *testing.T) {
	t.Parallel()
	inBubble(t, func(s *Server) { s.IdleTimeout = time.Minute }, func(b *bubble) {
		silent, busy := b.peer(1), b.peer(2)
		silent.establish()
		busy.establish()
		start := time.Now()
		for range 5 {
			time.Sleep(30 * time.Second)
			busy.send(busy.Sealed(wire.ContentApplicationData, nil))
			s, ok := b.server.SessionByAddr(silent.pipe.addr, anyLocal)
			if ok {
				s.Write([]byte("anybody there?")) // does not count: nobody may be
			}
		}
		e := b.rec.want(t, KindSessionClosed, 1, "after 150 s")
		if e.Err != ErrIdleTimeout || e.Remote != silent.pipe.addr || e.Time.Sub(start) != time.Minute {
			t.Errorf("%v after %v", e, e.Time.Sub(start))
		}
		silent.receive()
		if len(silent.Alerts) != 1 {
			t.Errorf("the silent peer got alerts %v", silent.Alerts)
		}
	})
}

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

// TestKeyUsageLimit: one warning past 2^24.5 records.
func TestKeyUsageLimit(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	c := testpeer.New(testIdentity, []byte(testKey), 1)
	d.establish(c, clientAddr(1))
	session, _ := d.s.SessionByAddr(clientAddr(1), anyLocal)
	setSealed(session, maxSealed-3)
	for range 6 {
		if _, err := session.Write(nil); err != nil {
			t.Fatal(err)
		}
	}
	d.l.housekeep(d.now)
	d.rec.want(t, KindKeyUsageLimit, 1, "past the limit")
	setSealed(session, wire.MaxSequence-100)
	for session.Context().Err() == nil {
		session.Write(nil)
	}
	if session.Stats().MessagesSent > 200 {
		t.Errorf("%d messages", session.Stats().MessagesSent)
	}
	d.l.housekeep(d.now)
	if e := d.rec.want(t, KindSessionClosed, 1, "at the end of the numbers"); e.Err != ErrRecordsExhausted {
		t.Errorf("%v", e)
	}
	r, _, _ := wire.ParseRecord(d.out[len(d.out)-1], 0)
	if r.Type != wire.ContentAlert || r.Seq != wire.MaxSequence {
		t.Errorf("the last record has type %d and number %x", r.Type, r.Seq)
	}
}

// setSealed makes a session's next record the n-th. No other way leads there
// in the time of a test, and none should in the code.
func setSealed(s *Session, n uint64) {
	next := reflect.ValueOf(&s.eng).Elem().FieldByName("sealer").FieldByName("next")
	*(*uint64)(next.Addr().UnsafePointer()) = n
}

func (s *Session) resting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.eng.Resting()
}

// TestRest: a session that is silent for 30 s rests; what either side says ends
// that, as what is forged does, and it rests again.
func TestRest(t *testing.T) {
	t.Parallel()
	inBubble(t, func(s *Server) { s.Handler.(*recorder).then.OnDatagramReceived = echo }, func(b *bubble) {
		p := b.peer(1)
		p.establish()
		session, _ := b.server.SessionByAddr(p.pipe.addr, anyLocal)
		want := func(resting bool, why string) {
			t.Helper()
			synctest.Wait()
			if session.resting() != resting {
				t.Fatalf("%s: resting %v", why, !resting)
			}
		}
		say := func() {
			t.Helper()
			p.send(p.Sealed(wire.ContentApplicationData, []byte("text")))
			if n := p.receive(); n != 1 {
				t.Fatalf("%d answers", n)
			}
		}
		time.Sleep(restAfter - time.Millisecond)
		want(false, "29.999 s after the handshake")
		time.Sleep(2 * time.Millisecond)
		want(true, "30 s after the handshake")

		forged := p.Sealed(wire.ContentApplicationData, []byte("text"))
		forged[len(forged)-1] ^= 1
		p.send(forged)
		want(false, "after a forged record")
		time.Sleep(restAfter + time.Millisecond)
		want(true, "30 s after a forged record")

		say()
		want(false, "after a datagram")
		time.Sleep(restAfter / 2)
		say()
		time.Sleep(restAfter - time.Millisecond)
		want(false, "29.999 s after the last datagram")
		time.Sleep(restAfter) // the answer was written, at a time nobody noted
		want(true, "a minute after the last datagram")

		if _, err := session.Write([]byte("push")); err != nil {
			t.Fatal(err)
		}
		want(false, "after Write")
		if n := p.receive(); n != 1 {
			t.Fatalf("%d datagrams of Write", n)
		}
		time.Sleep(2*restAfter + time.Millisecond)
		want(true, "a minute after Write")

		b.server.Close()
		if n := p.receive(); n != 1 {
			t.Errorf("%d answers to Close at rest, want close_notify", n)
		}
	})
}

// TestSizeOfSession: a session is one object of 1 KiB, with the 8 bytes that the
// runtime adds. The next class has 1152 bytes.
func TestSizeOfSession(t *testing.T) {
	if size := unsafe.Sizeof(Session{}); size > 1024-8 {
		t.Errorf("%d bytes", size)
	}
}
