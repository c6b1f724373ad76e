package dtlsserver

// Events: what they say, to whom, in which order, and how many are folded into
// one.

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testcert"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/udpio"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// TestEventKinds: all have a name and a text, and there are no others.
func TestEventKinds(t *testing.T) {
	t.Parallel()
	var all []EventKind
	for k := range EventKinds() {
		if kinds[k].name == "" || kinds[k].text == "" {
			t.Errorf("%v has no name or no text", k)
		}
		all = append(all, k)
	}
	for k := range EventKinds() {
		if k == KindStopped {
			break // early
		}
	}
	if len(all) == 0 || all[0] != KindListening || all[len(all)-1] != KindEntropyFailed {
		t.Errorf("%v", all)
	}
	for k := EventKind(0); k < 255; k++ {
		if named := !strings.HasPrefix(k.String(), "EventKind("); named != slices.Contains(all, k) {
			t.Errorf("%v is named: %v", k, named)
		}
	}
}

// TestEventsByHand: events that a user's test makes up are no trouble.
func TestEventsByHand(t *testing.T) {
	t.Parallel()
	for kind := range EventKind(255) {
		e := Event{Kind: kind}
		if e.String() == "" || kind.String() == "" {
			t.Errorf("kind %d has no text", kind)
		}
		LogHandler(discardLogger).Info(e)
	}
}

// TestLogHandlerJSON: what of an event stands in a line of JSON, and how what a
// peer has chosen is written.
func TestLogHandlerJSON(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	remote := netip.MustParseAddrPort("192.0.2.7:5000")
	for _, tt := range []struct {
		name string
		e    Event
		want map[string]any
	}{
		{"plain identity", Event{Kind: KindPSKRequested, Identity: "sensor-1", Count: 1},
			map[string]any{"level": "INFO", "msg": "asking for the pre-shared key", "kind": "PSKRequested", "identity": "sensor-1"}},
		{"identity that forges a field", Event{Kind: KindPSKRequested, Identity: "x level=ERROR"},
			map[string]any{"level": "INFO", "msg": "asking for the pre-shared key", "kind": "PSKRequested", "identity": `"x level=ERROR"`}},
		{"identity that forges a line", Event{Kind: KindUnknownPSKIdentity, Identity: "x\"}\n\xff", Count: 3},
			map[string]any{"level": "WARN", "msg": "unknown PSK identity", "kind": "UnknownPSKIdentity", "identity": `"x\"}\n\xff"`, "count": 3.0}},
		{"error", Event{Kind: KindPSKFailed, Err: errors.New("no database")},
			map[string]any{"level": "ERROR", "msg": "looking up the pre-shared key failed", "kind": "PSKFailed", "err": "no database"}},
	} {
		var out bytes.Buffer
		tt.e.Time, tt.e.Remote = at, remote
		tell(LogHandler(slog.New(slog.NewJSONHandler(&out, nil)).WithGroup("dtls").With("server", "a")), tt.e)
		tt.want["remote"], tt.want["server"] = "192.0.2.7:5000", "a"
		got := map[string]any{}
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatalf("%s: %v in %q", tt.name, err, out.Bytes())
		}
		if got["time"] != at.Format(time.RFC3339Nano) {
			t.Errorf("%s: time %v, want that of the event", tt.name, got["time"])
		}
		group, _ := got["dtls"].(map[string]any)
		for key, want := range tt.want {
			if have := got[key]; have != want && group[key] != want {
				t.Errorf("%s: %s is %v, want %v, in %s", tt.name, key, have, want, out.Bytes())
			}
		}
		if n := len(got) - 2 + len(group); n != len(tt.want) {
			t.Errorf("%s: %d attributes, want %d, in %s", tt.name, n, len(tt.want), out.Bytes())
		}
	}
}

// TestTextsOfPeersAreShort: what a peer has chosen makes no long line.
func TestTextsOfPeersAreShort(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("\u00e9", 15_000)
	ca := testcert.NewAuthority()
	certificate := ca.Issue("client", testcert.NewKey("P-256"), func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: "begins so " + long}
	})
	leaf, err := x509.ParseCertificate(certificate.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if text := subjectText(leaf); !strings.HasPrefix(text, "CN=begins so \u00e9") || len(text) > maxText+4 {
		t.Errorf("a subject of %d bytes makes a text of %d: %.40q", len(leaf.RawSubject), len(text), text)
	}
	e := Event{Kind: KindHandshakeFailed, Remote: clientAddr(1), Count: 1, Err: &AlertError{Code: 42, Sent: true, Reason: long}}
	var log bytes.Buffer
	LogHandler(slog.New(slog.NewJSONHandler(&log, nil))).Warning(e)
	for _, line := range []string{e.String(), log.String()} {
		if len(line) > 2*maxText || !strings.Contains(line, "bad_certificate") {
			t.Errorf("a line of %d bytes: %.200s", len(line), line)
		}
	}
}

// TestMultiHandler: each is told, in order, and nil ones are left out.
func TestMultiHandler(t *testing.T) {
	t.Parallel()
	var told []string
	handler := func(name string) EventHandler {
		say := func(Event) { told = append(told, name) }
		return HandlerFuncs{say, say, say, func(*Session, []byte, []byte) { say(Event{}) }}
	}
	m := MultiHandler(nil, handler("a"), nil, handler("b"))
	m.Error(Event{})
	m.Warning(Event{})
	m.Info(Event{})
	m.DatagramReceived(nil, nil, nil)
	if want := strings.Fields("a b a b a b a b"); !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
	MultiHandler().Info(Event{})
}

// TestFolding: the first event at once, then one a second with a count, the
// rest at the end; by source where the address is proven, else for all.
func TestFolding(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	counts := func(kind EventKind) (all []uint64) {
		for _, e := range d.rec.of(kind) {
			all = append(all, e.Count)
		}
		return all
	}
	want := func(kind EventKind, counted string, why string) {
		t.Helper()
		if got := fmt.Sprint(counts(kind)); got != counted {
			t.Errorf("%s: %v came with counts %v, want %v", why, kind, got, counted)
		}
	}
	for n := range 10 {
		d.receive(clientAddr(n), []byte("junk"))
	}
	want(KindUnexpectedDatagram, "[1]", "ten sources, at once")
	d.advance(time.Second)
	want(KindUnexpectedDatagram, "[1 9]", "a second later")
	d.receive(clientAddr(1), []byte("junk"))
	want(KindUnexpectedDatagram, "[1 9]", "in the second window")
	d.advance(5 * time.Second)
	want(KindUnexpectedDatagram, "[1 9 1]", "five seconds later")
	d.receive(clientAddr(1), []byte("junk"))
	want(KindUnexpectedDatagram, "[1 9 1 1]", "after a quiet time")

	for n := range 3 { // the same source from other ports, and another source
		c := testpeer.New(testIdentity, []byte(testKey), uint64(n))
		from := netip.AddrPortFrom(clientAddr(n/2).Addr(), uint16(1000+n))
		d.establish(c, from)
	}
	want(KindHelloVerified, "[1 1]", "two sources")
	want(KindHandshakeComplete, "[1 1 1]", "three sessions")
	d.l.outbox.flush(d.now, everything)
	d.l.deliver()
	want(KindHelloVerified, "[1 1 1]", "at the end")
	want(KindUnexpectedDatagram, "[1 9 1 1]", "at the end")

	six := func(text string) netip.Addr { return sourceOf(netip.MustParseAddr(text)) }
	if six("2001:db8:0:1::1") != six("2001:db8:0:1:ffff::2") || six("2001:db8:0:1::1") == six("2001:db8:0:2::1") || six("fe80::1%eth0") != six("fe80::2%eth1") {
		t.Error("an IPv6 source is not its /64")
	}
}

// TestFoldingIsBounded: many sources do not take much memory, and are folded
// together when there are too many.
func TestFoldingIsBounded(t *testing.T) {
	t.Parallel()
	var o outbox
	now := time.Unix(0, 0)
	for n := range 10 * maxFolds {
		o.put(Event{Kind: KindHelloVerified, Time: now, Remote: clientAddr(n)})
	}
	if n := len(o.fold.windows); n > maxFolds+1 {
		t.Errorf("%d windows", n)
	}
	if n := len(o.items); n > maxFolds+1 {
		t.Errorf("%d events at once", n)
	}
	o.flush(now.Add(time.Hour), onlyDue)
	var count uint64
	for _, it := range o.items {
		count += it.event.Count
	}
	if count != 10*maxFolds {
		t.Errorf("%d events were counted, want %d", count, 10*maxFolds)
	}
	o.flush(now.Add(2*time.Hour), onlyDue)
	if len(o.fold.windows) != 0 || o.fold.order.Len() != 0 {
		t.Errorf("%d windows are left", len(o.fold.windows))
	}
}

// TestFailuresFoldByReason: events of handshakes that failed for different
// reasons are not one event.
func TestFailuresFoldByReason(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var o outbox
		for range 3 {
			for _, reason := range []error{ErrHandshakeTimeout, ErrWrongPSK, ErrEvicted, &AlertError{Code: 40}, &AlertError{Code: 40, Sent: true}} {
				o.put(Event{Kind: KindHandshakeFailed, Time: time.Now(), Remote: clientAddr(1), Err: reason, variant: failureVariant(reason)})
			}
		}
		o.flush(time.Now(), everything)
		told := map[string]uint64{}
		for it, ok := o.take(); ok; it, ok = o.take() {
			told[it.event.Err.Error()] += it.event.Count
		}
		for text, n := range told {
			if n != 3 {
				t.Errorf("%d of %q, want 3", n, text)
			}
		}
		if len(told) != 5 {
			t.Errorf("%d reasons, want 5: %v", len(told), told)
		}
	})
}

// TestAlertsFoldWhateverTheirCode: a key holder that ends handshakes and sessions
// with each alert that there is makes one warning a second of each kind.
func TestAlertsFoldWhateverTheirCode(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	for code := range 256 {
		if code == int(wire.AlertCloseNotify) {
			continue
		}
		from := clientAddr(1)
		c := testpeer.New(testIdentity, []byte(testKey), uint64(code))
		d.establish(c, from)
		d.receive(from, c.Sealed(wire.ContentAlert, []byte{byte(wire.LevelWarning), byte(code)}))
		d.receive(from, c.Sealed(wire.ContentAlert, []byte{byte(wire.LevelFatal), byte(code)}))

		c = testpeer.New(testIdentity, []byte(testKey), uint64(1000+code))
		d.exchange(c, from, c.Hello())
		d.exchange(c, from, c.Hello())
		cke, ccs, _ := c.KeyExchange()
		d.exchange(c, from, cke)
		d.exchange(c, from, ccs)
		d.receive(from, c.Sealed(wire.ContentAlert, []byte{byte(wire.LevelFatal), byte(code)}))
	}
	for _, kind := range []EventKind{KindAlertReceived, KindHandshakeFailed} {
		if n := len(d.rec.of(kind)); n != 1 {
			t.Errorf("%d events %v in an instant", n, kind)
		}
	}
	if n := len(d.l.outbox.fold.windows); n > 8 {
		t.Errorf("%d kinds and sources are told apart, of one peer", n)
	}
}

// TestFoldedEventIsTold: of what a handler causes when it is told of something
// that another goroutine has done, the folded rest is told too.
func TestFoldedEventIsTold(t *testing.T) {
	t.Parallel()
	var session atomic.Pointer[Session]
	edit := func(s *Server) {
		s.IdleTimeout = time.Hour
		s.Handler.(*recorder).then.OnInfo = func(e Event) {
			if e.Kind == KindSessionClosed && session.Load() != nil {
				for range 3 {
					session.Load().raise(Event{Kind: KindWriteDropped})
				}
			}
		}
	}
	inBubble(t, edit, func(b *bubble) {
		p, q := b.peer(1), b.peer(2)
		p.establish()
		q.establish()
		other, _ := b.server.SessionByAddr(q.pipe.addr, anyLocal)
		time.Sleep(10 * time.Minute) // no timer is near
		s, _ := b.server.SessionByAddr(p.pipe.addr, anyLocal)
		session.Store(s)
		other.Close()
		synctest.Wait()
		session.Store(nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		b.rec.want(t, KindWriteDropped, 3, "after two seconds")
	})
}

// TestWriteEventIsToldAtOnce: an event that Session.Write causes in another
// goroutine does not wait for the next datagram.
func TestWriteEventIsToldAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n, rec := newNetwork(), &recorder{}
		conn := &refusingConn{end: n.listen(serverAddr)}
		s := &Server{PSK: testPSK, Handler: rec}
		served := make(chan error)
		go func() { served <- s.Serve(conn) }()
		synctest.Wait()
		b := &bubble{t: t, network: n, server: s, rec: rec}
		p := b.peer(1)
		p.establish()
		session, _ := s.SessionByAddr(p.pipe.addr, anyLocal)
		broken := errors.New("no route")
		conn.err.Store(&broken)
		if _, err := session.Write(nil); !errors.Is(err, broken) {
			t.Errorf("Write: %v", err)
		}
		synctest.Wait()
		if e := rec.want(t, KindWriteFailed, 1, "after Write"); !errors.Is(e.Err, broken) {
			t.Errorf("%v", e)
		}
		full := udpio.ErrFull
		conn.err.Store(&full)
		for range 3 {
			if _, err := session.Write(nil); err != ErrWriteDropped {
				t.Errorf("Write: %v", err)
			}
		}
		synctest.Wait()
		rec.want(t, KindWriteDropped, 1, "at once")
		time.Sleep(time.Second)
		synctest.Wait()
		rec.want(t, KindWriteDropped, 3, "after a second")
		conn.err.Store(nil)
		s.Close()
		<-served
	})
}

// refusingConn is an end whose writes fail while err is set.
type refusingConn struct {
	*end
	err atomic.Pointer[error]
}

func (c *refusingConn) WriteTo(b []byte, to net.Addr) (int, error) {
	if err := c.err.Load(); err != nil {
		return 0, *err
	}
	return c.end.WriteTo(b, to)
}

// slowAlerts holds alerts back until it is told to let them go.
type slowAlerts struct {
	*end
	let chan struct{}
}

func (s slowAlerts) WriteTo(b []byte, to net.Addr) (int, error) {
	if b[0] == byte(wire.ContentAlert) {
		<-s.let
	}
	return s.end.WriteTo(b, to)
}

// TestCloseNotifyLeavesFirst: whoever is told of the end of a session may close
// the server, which must not cut off the session's close_notify.
func TestCloseNotifyLeavesFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{t: t, network: newNetwork(), rec: &recorder{}}
		b.server = &Server{PSK: testPSK, Handler: b.rec}
		conn := slowAlerts{b.network.listen(serverAddr), make(chan struct{})}
		served := make(chan error, 1)
		go func() { served <- b.server.Serve(conn) }()
		synctest.Wait()
		p := b.peer(1)
		p.establish()
		session, _ := b.server.SessionByAddr(p.pipe.addr, anyLocal)
		go session.Close()
		synctest.Wait()
		b.rec.want(t, KindSessionClosed, 0, "before close_notify has left")
		close(conn.let)
		synctest.Wait()
		b.rec.want(t, KindSessionClosed, 1, "when it has")
		b.server.Close()
		if p.receive(); len(p.Alerts) != 1 {
			t.Errorf("alerts %v, want close_notify", p.Alerts)
		}
		<-served
	})
}

// TestNothingAfterSessionClosed: what stands behind close_notify in a datagram
// is counted, and not told of a session that is over.
func TestNothingAfterSessionClosed(t *testing.T) {
	t.Parallel()
	d := newDirect(t, nil)
	c, from := testpeer.New(testIdentity, []byte(testKey), 1), clientAddr(1)
	d.establish(c, from)
	d.receive(from, append(c.Sealed(wire.ContentAlert, []byte{1, 0}), "this is no record"...))
	if last := d.rec.log[len(d.rec.log)-1]; last != "SessionClosed" {
		t.Errorf("told %v, want SessionClosed last", d.rec.log)
	}
	if n := d.s.Stats().Dropped.Closed; n != 1 {
		t.Errorf("%d records counted as too late, want 1", n)
	}
}

// TestDroppedTexts: a record of an open session that does not open is told
// apart from a wrong key, at once.
func TestDroppedTexts(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(b *bubble) {
		p := b.peer(1)
		p.establish()
		forged := p.Sealed(wire.ContentApplicationData, nil)
		forged[len(forged)-1] ^= 1
		p.send(forged)
		if e := b.rec.want(t, KindRecordDropped, 1, "after a forged record"); e.Err.Error() != "does not open" {
			t.Errorf("%v", e)
		}
		q := b.peer(2)
		q.Client = testpeer.New(testIdentity, []byte("another key"), 2)
		q.verify()
		q.send(q.Flight())
		if e := b.rec.want(t, KindRecordDropped, 2, "after a wrong key"); e.Err.Error() != "does not open: wrong key or unknown identity?" {
			t.Errorf("%v", e)
		}
	})
}
