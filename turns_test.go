package dtlsserver

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testcert"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// questionOf returns a question of a source.
func questionOf(source byte, port int) *question {
	remote := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, source}), uint16(port))
	return &question{session: &Session{remote: remote}}
}

// String is the source and a number, as in the tests below.
func (q *question) String() string {
	return fmt.Sprintf("%c%d", q.session.remote.Addr().As4()[3], q.session.remote.Port())
}

// TestTurns: who is asked next, with one question at a time, several at a time,
// and when some are taken back.
func TestTurns(t *testing.T) {
	t.Parallel()
	// A step of two characters is a question that comes; "-" before it: that is
	// taken back; "<": one is asked; ">" before it: it has been answered.
	tests := []struct {
		name  string
		steps []string
		want  []string
	}{
		{"one source, in order", []string{"a1", "a2", "a3", "<", ">a1", "<", ">a2", "<"}, []string{"a1", "a2", "a3"}},
		{"two sources take turns", []string{"a1", "a2", "a3", "b1", "b2", "<", ">a1", "<", ">b1", "<", ">a2", "<", ">b2", "<"}, []string{"a1", "b1", "a2", "b2", "a3"}},
		{"a newcomer is behind those that wait", []string{"a1", "b1", "b2", "<", ">a1", "c1", "<", ">b1", "<", ">c1", "<"}, []string{"a1", "b1", "c1", "b2"}},
		{"who comes back is behind those that wait", []string{"a1", "b1", "c1", "<", ">a1", "a2", "<", ">b1", "<", ">c1", "<"}, []string{"a1", "b1", "c1", "a2"}},
		{"fewest being asked come first", []string{"a1", "a2", "a3", "<", "<", "b1", "b2", "b3", "<", "<", "<", "<"}, []string{"a1", "a2", "b1", "b2", "a3", "b3"}},
		{"what was answered no longer counts", []string{"a1", "a2", "a3", "b1", "b2", "<", "<", ">a1", "<", "<"}, []string{"a1", "b1", "a2", "b2"}},
		{"taken back in front, inside, behind", []string{"a1", "a2", "a3", "a4", "-a1", "-a3", "<", "-a4", "a5", "<"}, []string{"a2", "a5"}},
		{"a source that takes back all", []string{"a1", "b1", "-a1", "a2", "<", "<"}, []string{"b1", "a2"}},
		{"nothing waits", []string{"<", "a1", "<", "<", ">a1", "<"}, []string{"a1"}},
	}
	for _, tt := range tests {
		var turns turns
		var got []string
		all := make(map[string]*question)
		for _, step := range tt.steps {
			switch step[0] {
			case '<':
				if q, ok := turns.pop(); ok {
					got = append(got, q.String())
				}
			case '>':
				turns.answered(all[step[1:]])
				delete(all, step[1:])
			case '-':
				turns.remove(all[step[1:]])
				delete(all, step[1:])
			default:
				q := questionOf(step[0], int(step[1]-'0'))
				all[step] = q
				turns.push(q)
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: asked %v, want %v", tt.name, got, tt.want)
		}
		for turns.Len() > 0 {
			turns.pop()
		}
		for _, q := range all {
			turns.answered(q)
		}
		if len(turns.sources) != 0 || len(turns.next) != 0 {
			t.Errorf("%s: left %d sources, %d of which wait", tt.name, len(turns.sources), len(turns.next))
		}
	}
}

// TestLanesTakeTurns: in each lane, one source that asks for much does not keep
// another waiting for more than what is being asked.
func TestLanesTakeTurns(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"hooks", "work", "chains"} {
		laneBubble(t, func(b *bubble, open *peer, s *Session) {
			l := s.loop
			lane := map[string]*lane{"hooks": &l.hookLane, "work": &l.workLane, "chains": &l.chainLane}[name]
			until := make(chan struct{})
			l.occupy(lane, until)
			synctest.Wait()
			var asked atomic.Int64
			ask := func(host, port int, then func()) {
				from := netip.AddrPortFrom(clientAddr(host).Addr(), uint16(port))
				one := &Session{loop: l, remote: from, standing: standing{settled: true}}
				one.submitWorkLocked(lane, func(context.Context) func(time.Time) {
					asked.Add(1)
					then()
					time.Sleep(time.Second)
					return func(time.Time) {}
				})
			}
			for port := range 100 {
				ask(1000, port, func() {})
			}
			began, waited := time.Now(), time.Hour
			ask(1001, 0, func() { waited = time.Since(began) })
			close(until)
			time.Sleep(101 * time.Second)
			synctest.Wait()
			if waited > time.Second {
				t.Errorf("%s: the other source was asked after %v, want no more than one turn", name, waited)
			}
			if n := asked.Load(); n != 101 {
				t.Errorf("%s: %d were asked", name, n)
			}
		})
	}
}

// TestChainsDelayNobody: while the certificates of clients are looked at, or wait
// for that, handshakes without get on, and those with certificates wait.
func TestChainsDelayNobody(t *testing.T) {
	t.Parallel()
	ca := testcert.NewAuthority()
	server := ca.Issue("localhost", testcert.NewKey("P-256"))
	key := testcert.NewKey("P-256")
	chain := ca.Issue("client", key).Certificate
	inBubble(t, func(s *Server) {
		s.Certificates = append(s.Certificates, server)
		s.ClientAuth, s.ClientCAs = tls.VerifyClientCertIfGiven, ca.Pool
	}, func(b *bubble) {
		first := b.peer(1)
		first.establish()
		session, _ := b.server.SessionByAddr(first.pipe.addr, anyLocal)
		l := session.loop
		until := make(chan struct{})
		l.occupy(&l.chainLane, until)
		certified, junk := b.peer(2), b.peer(3)
		certified.Chain, certified.Signer = chain, key
		junk.Chain, junk.Signer = [][]byte{[]byte("junk")}, key
		for _, p := range []*peer{certified, junk} {
			p.greet(ecdheCert)
			p.send(p.Flight())
		}
		for n := range 10 {
			p := b.peer(10 + n)
			p.greet([]uint16{ecdheCert, ecdhePSK}[n%2])
			p.send(p.Flight())
			if p.receive(); !p.Complete {
				t.Fatalf("client %d without certificates is not complete", n)
			}
		}
		if certified.receive(); certified.Complete {
			t.Error("complete before its certificate was looked at")
		}
		if junk.receive(); len(junk.Alerts) > 0 {
			t.Error("a certificate was looked at on the loop")
		}
		close(until)
		if certified.receive(); !certified.Complete {
			t.Error("not complete in the end")
		}
		if junk.receive(); len(junk.Alerts) != 1 || junk.Alerts[0].Description != wire.AlertBadCertificate {
			t.Errorf("junk: alerts %v", junk.Alerts)
		}
	})
}
