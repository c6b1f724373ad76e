package dtlsserver

// When flights are sent again, by the timer and on request, and what becomes of
// handshakes whose flights are lost.

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testcert"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// lengths takes what has come, unread, and returns the lengths of the datagrams.
func (p *peer) lengths() (lengths []int) {
	synctest.Wait()
	for {
		select {
		case d := <-p.pipe.in:
			lengths = append(lengths, len(d.b))
		default:
			return lengths
		}
	}
}

// TestRetransmissionTimes: a client that is silent after its hello gets the
// first flight again after RetransmitTimeout, and then after twice the time
// before, up to a minute, until HandshakeTimeout.
func TestRetransmissionTimes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		first, giveUp time.Duration
		want          []time.Duration
	}{
		{0, 0, []time.Duration{1250 * time.Millisecond, 3750 * time.Millisecond, 8750 * time.Millisecond, 18750 * time.Millisecond}},
		{time.Second, 0, []time.Duration{time.Second, 3 * time.Second, 7 * time.Second, 15 * time.Second}},
		{9 * time.Second, 0, []time.Duration{9 * time.Second, 27 * time.Second}},
		{50 * time.Millisecond, 400 * time.Millisecond, []time.Duration{50 * time.Millisecond, 150 * time.Millisecond, 350 * time.Millisecond}},
		{25 * time.Second, 200 * time.Second, []time.Duration{25 * time.Second, 75 * time.Second, 135 * time.Second, 195 * time.Second}},
		{0, time.Second, nil},
	}
	for _, tt := range tests {
		inBubble(t, func(s *Server) { s.RetransmitTimeout, s.HandshakeTimeout = tt.first, tt.giveUp }, func(b *bubble) {
			p := b.peer(1)
			p.verify()
			start := time.Now()
			giveUp := cmp.Or(tt.giveUp, DefaultHandshakeTimeout)
			var at []time.Duration
			for time.Since(start) < giveUp+time.Second {
				time.Sleep(50 * time.Millisecond) // virtual
				if p.receive() > 0 {
					at = append(at, time.Since(start))
				}
			}
			if !slices.Equal(at, tt.want) {
				t.Errorf("RetransmitTimeout %v: retransmitted after %v, want %v", tt.first, at, tt.want)
			}
			e := b.rec.want(t, KindHandshakeFailed, 1, "in the end")
			if e.Err != ErrHandshakeTimeout || e.Time.Sub(start) != giveUp {
				t.Errorf("given up after %v: %v", e.Time.Sub(start), e.Err)
			}
			if stats := b.server.Stats(); stats.Handshakes != 0 {
				t.Errorf("%d handshakes left", stats.Handshakes)
			}
		})
	}
}

// TestLossOfEachDatagram drops, doubles and delays each single datagram of the
// handshake with pion's client, in turn. All complete, a loss costing what the
// retransmission of RFC 6347 section 4.2.4.1 takes, and data flows after.
func TestLossOfEachDatagram(t *testing.T) {
	t.Parallel()
	const datagrams = 6 // hello, HelloVerifyRequest, hello, flights 4, 5 and 6
	fates := []struct {
		name string
		fate []time.Duration
		want time.Duration // at the most
	}{
		{"dropped", nil, time.Second},
		{"doubled", []time.Duration{0, 0}, 0},
		{"doubled later", []time.Duration{0, 300 * time.Millisecond}, 0},
		{"delayed", []time.Duration{300 * time.Millisecond}, 300 * time.Millisecond},
		{"delayed past a retransmission", []time.Duration{1500 * time.Millisecond}, 1500 * time.Millisecond},
	}
	for _, fate := range fates {
		for which := range datagrams {
			t.Run(fmt.Sprintf("%s/%d", fate.name, which), func(t *testing.T) {
				t.Parallel()
				inBubble(t, nil, func(b *bubble) {
					n := -1
					b.network.carry = func(netip.AddrPort, netip.AddrPort, []byte) []time.Duration {
						if n++; n == which {
							return fate.fate
						}
						return []time.Duration{0}
					}
					start := time.Now()
					c, err := dialPion(t, b.network.dial(clientAddr(1), serverAddr), pionConfig(testIdentity, testKey), time.Minute)
					if err != nil {
						t.Fatalf("pion: %v; server: %v", err, b.rec.lines())
					}
					defer c.Close()
					if took := time.Since(start); took > fate.want {
						t.Errorf("took %v, want at most %v", took, fate.want)
					}
					c.Write([]byte("after it"))
					time.Sleep(3 * time.Second) // virtual: what is still under way arrives
					synctest.Wait()
					if b.rec.want(t, KindHandshakeComplete, 1, "with one session"); len(b.rec.data) != 1 {
						t.Errorf("data %q", b.rec.data)
					}
				})
			})
		}
	}
}

// TestReorderedFlight5 delays each of the client's last three records past the
// others.
func TestReorderedFlight5(t *testing.T) {
	t.Parallel()
	for _, order := range [][3]int{{0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			t.Parallel()
			inBubble(t, nil, func(b *bubble) {
				p := b.peer(1)
				p.verify()
				var records [3][]byte
				records[0], records[1], records[2] = p.KeyExchange()
				p.send(records[order[0]], records[order[1]], records[order[2]])
				if p.receive(); !p.Complete {
					t.Error("not complete")
				}
			})
		})
	}
}

// TestFlightOnceAtATime: a hello that is repeated about when our own timer comes up
// gets the flight once; one that is repeated later gets it again.
func TestFlightOnceAtATime(t *testing.T) {
	t.Parallel()
	const first = DefaultRetransmitTimeout
	tests := []struct {
		name string
		at   time.Duration // the hello again
		want int           // datagrams from then on, in a quarter of the first timeout: a flight has two when it is said again
	}{
		{"just after the flight", 10 * time.Millisecond, 0},
		{"before the timer", first - 10*time.Millisecond, 2},
		{"after the timer", first + 10*time.Millisecond, 0},
		{"after a quarter of the timeout", first + first/4, 2},
		{"before the second timer", 3*first - 10*time.Millisecond, 2},
		{"after the second timer", 3*first + 10*time.Millisecond, 0},
		{"after the third timer", 7*first + 10*time.Millisecond, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, nil, func(b *bubble) {
				p := b.peer(1)
				p.send(p.Hello())
				p.receive()
				hello := p.Hello()
				p.send(hello)
				time.Sleep(tt.at)
				p.lengths()
				p.send(hello)
				time.Sleep(first / 4)
				if n := len(p.lengths()); n != tt.want {
					t.Errorf("%d datagrams, want %d", n, tt.want)
				}
			})
		})
	}
}

// TestNonsenseIsTold: a peer whose own words cannot be is told why the association
// ends, after the flight that opened it, and so is the operator. Nothing is left.
func TestNonsenseIsTold(t *testing.T) {
	t.Parallel()
	for _, joined := range []bool{true, false} {
		for _, again := range []bool{true, false} {
			d := newDirect(t, nil)
			from := clientAddr(1)
			if again { // there is an open session, which the new one replaces
				d.establish(testpeer.New(testIdentity, []byte(testKey), 1), from)
				d.advance(5 * time.Second) // so that nothing is folded
			}
			before := len(d.rec.log)
			c := testpeer.New(testIdentity, []byte(testKey), 2)
			d.exchange(c, from, c.Hello())
			d.exchange(c, from, c.Hello())
			records := c.Records()
			finished := c.FinishedMessage()
			second := testpeer.Message(wire.TypeFinished, c.MessageSeq, finished[wire.HandshakeHeaderLen:])
			d.exchange(c, from, slices.Concat(records[:2]...))
			if joined {
				d.exchange(c, from, c.Sealed(wire.ContentHandshake, slices.Concat(finished, second)))
			} else {
				d.exchange(c, from, slices.Concat(records[2], c.Sealed(wire.ContentHandshake, second)))
			}
			if !c.Complete || !slices.Equal(c.Alerts, []wire.Alert{{Level: wire.LevelFatal, Description: wire.AlertUnexpectedMessage}}) {
				t.Errorf("joined %v, again %v: complete %v, alerts %v", joined, again, c.Complete, c.Alerts)
			}
			d.advance(time.Minute)
			var closed *AlertError
			e := d.rec.of(KindSessionClosed)
			if len(e) == 0 || !errors.As(e[len(e)-1].Err, &closed) || !closed.Sent || closed.Code != 10 || closed.Reason == "" {
				t.Errorf("joined %v, again %v: %v", joined, again, e)
			}
			want := []string{"HelloVerified", "PSKRequested", "HandshakeComplete", "SessionClosed"}
			if again {
				want = []string{"HelloVerified", "PSKRequested", "SessionClosed", "HandshakeComplete", "SessionClosed"}
			}
			log := slices.DeleteFunc(slices.Clone(d.rec.log[before:]), func(s string) bool { return s == "HelloVerifyRequestSent" || s == "RecordDropped" })
			if !slices.Equal(log, want) {
				t.Errorf("joined %v, again %v: told %v, want %v", joined, again, log, want)
			}
			if left := d.l.left(); left != "" {
				t.Errorf("joined %v, again %v: left: %s", joined, again, left)
			}
		}
	}
}

// TestClientsAlertIsTold: a client that goes says why in plaintext, where it has no
// keys yet. The handshake is given up after five seconds of silence, or as late as
// ever if the alert does not say that it is over, and its failure has the code.
func TestClientsAlertIsTold(t *testing.T) {
	t.Parallel()
	cert := testcert.NewAuthority().Issue("localhost", testcert.NewKey("P-256"))
	const doubt = 5 * time.Second
	type say struct {
		at    time.Duration
		alert []byte
	}
	silent := func(*peer) {}
	flight := func(p *peer) { p.send(p.Flight()) }
	keyExchange := func(p *peer) {
		cke, _, _ := p.KeyExchange()
		p.send(cke)
	}
	tests := []struct {
		name string
		hook time.Duration // that PSK takes
		edit func(*Server)
		next func(*peer) // what the client says to flight 4
		said []say
		code uint8
		at   time.Duration // of the failure; zero: there is none
	}{
		{"unknown_ca", 0, nil, silent, []say{{0, []byte{2, 48}}}, 48, doubt},
		{"close_notify", 0, nil, silent, []say{{time.Second, []byte{1, 0}}}, 0, time.Second + doubt},
		{"repeated", 0, nil, silent, []say{{0, []byte{2, 42}}, {3 * time.Second, []byte{2, 80}}}, 42, doubt},
		{"user_canceled, close_notify", 0, nil, silent, []say{{0, []byte{1, 90}}, {time.Second, []byte{1, 0}}}, 90, time.Second + doubt},
		{"a warning, then fatal", 0, nil, silent, []say{{0, []byte{1, 112}}, {time.Second, []byte{2, 47}}}, 47, time.Second + doubt},
		{"a warning only", 0, nil, silent, []say{{time.Second, []byte{1, 46}}}, 46, DefaultHandshakeTimeout},
		{"late", 0, nil, silent, []say{{28 * time.Second, []byte{2, 70}}}, 70, DefaultHandshakeTimeout},
		{"behind ClientKeyExchange", 0, nil, keyExchange, []say{{0, []byte{2, 51}}}, 51, doubt},
		{"while the key is looked up", 4 * time.Second, nil, keyExchange, []say{{time.Second, []byte{2, 80}}}, 80, 4*time.Second + doubt},
		{"while the key is looked up for ever", time.Minute, nil, flight, []say{{time.Second, []byte{2, 80}}}, 80, DefaultHandshakeTimeout},
		{"over a slow network", 0, func(s *Server) { s.RetransmitTimeout = 9 * time.Second }, silent, []say{{0, []byte{2, 48}}}, 48, 18 * time.Second},
		{"belied", time.Second, nil, flight, []say{{0, []byte{2, 48}}}, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(s *Server) {
				s.PSK = func(ctx context.Context, req PSKRequest) (PSK, error) {
					time.Sleep(tt.hook)
					return testPSK(ctx, req)
				}
				if tt.edit != nil {
					tt.edit(s)
				}
			}, func(b *bubble) {
				p := b.peer(1)
				p.verify()
				start := time.Now()
				tt.next(p)
				for _, s := range tt.said {
					time.Sleep(s.at - time.Since(start))
					p.send(p.Plain(wire.ContentAlert, s.alert))
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if tt.at == 0 {
					b.rec.want(t, KindHandshakeFailed, 0, "when the client goes on")
					b.rec.want(t, KindHandshakeComplete, 1, "when the client goes on")
					return
				}
				e := b.rec.want(t, KindHandshakeFailed, 1, "after the alert")
				var alert *AlertError
				if !errors.As(e.Err, &alert) || alert.Code != tt.code || alert.Sent || !errors.Is(e.Err, ErrHandshakeTimeout) {
					t.Errorf("failed for %v, want the client's alert %d", e.Err, tt.code)
				}
				if at := e.Time.Sub(start); at != tt.at {
					t.Errorf("failed after %v, want %v", at, tt.at)
				}
			})
		})
	}
	t.Run("while the certificate is looked for", func(t *testing.T) {
		t.Parallel()
		inBubble(t, func(s *Server) {
			s.Certificates = []tls.Certificate{cert}
			s.GetCertificate = func(*ClientHelloInfo) (*tls.Certificate, error) {
				time.Sleep(3 * time.Second)
				return nil, nil
			}
		}, func(b *bubble) {
			p := b.peer(1)
			p.Suites = []uint16{ecdheCert}
			p.send(p.Hello())
			p.receive()
			p.send(p.Hello())
			start := time.Now()
			p.send(p.Plain(wire.ContentAlert, []byte{2, 80}))
			time.Sleep(time.Minute)
			e := b.rec.want(t, KindHandshakeFailed, 1, "after the alert")
			var alert *AlertError
			if !errors.As(e.Err, &alert) || alert.Code != 80 || e.Time.Sub(start) != 3*time.Second+doubt {
				t.Errorf("failed after %v for %v", e.Time.Sub(start), e.Err)
			}
		})
	})
	t.Run("with a wrong key", func(t *testing.T) {
		t.Parallel()
		inBubble(t, nil, func(b *bubble) {
			p := b.peer(1)
			p.Key = []byte("another key")
			p.verify()
			p.send(p.Flight(), p.Plain(wire.ContentAlert, []byte{2, 20}))
			time.Sleep(time.Minute)
			e := b.rec.want(t, KindHandshakeFailed, 1, "after the alert")
			var alert *AlertError
			if !errors.As(e.Err, &alert) || alert.Code != 20 || !errors.Is(e.Err, ErrWrongPSK) {
				t.Errorf("failed for %v", e.Err)
			}
		})
	})
}

// TestFlightInManyRecords: a flight in one datagram, of many records that each have a
// few bytes of a message, is read to its end, the first time and when it comes again;
// a datagram of more that is of no use is not.
func TestFlightInManyRecords(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 2, 3} {
		d := newDirect(t, nil)
		from := clientAddr(1)
		c := testpeer.New(testIdentity, []byte(testKey), 1)
		c.Suites = []uint16{ecdhePSK}
		d.exchange(c, from, c.Hello())
		d.exchange(c, from, c.Hello())
		records := c.Records()
		r, _, _ := wire.ParseRecord(records[0], 0)
		f, _, _ := wire.ParseFragment(r.Payload)
		flight := func(message wire.Fragment, last []byte) (datagram []byte) {
			for at := 0; at < len(message.Body); at += size {
				piece := message.Body[at:min(at+size, len(message.Body))]
				header := wire.AppendHandshakeHeader(nil, message.Type, len(message.Body), message.MessageSeq, at, len(piece))
				datagram = append(datagram, c.Plain(wire.ContentHandshake, append(header, piece...))...)
			}
			return append(append(datagram, c.Plain(wire.ContentChangeCipherSpec, []byte{1})...), last...)
		}
		// All but the Finished, twice, and then with it.
		d.exchange(c, from, flight(f, nil))
		d.exchange(c, from, flight(f, nil))
		d.exchange(c, from, flight(f, records[2]))
		if !c.Complete {
			t.Fatalf("pieces of %d bytes: not complete: %v", size, d.rec.lines())
		}
		for range 2 {
			d.exchange(c, from, flight(f, c.Sealed(wire.ContentHandshake, c.FinishedMessage())))
			if len(d.out) == 0 {
				t.Errorf("pieces of %d bytes: the flight that came again is not answered", size)
			}
		}
		before := d.s.Stats().Dropped.Repeated
		f.Body = make([]byte, 3000)
		d.exchange(c, from, flight(f, c.Sealed(wire.ContentHandshake, c.FinishedMessage())))
		if n := d.s.Stats().Dropped.Repeated - before; n != 256 || len(d.out) > 0 {
			t.Errorf("%d records of no use are looked at, sent %d", n, len(d.out))
		}
	}
}
