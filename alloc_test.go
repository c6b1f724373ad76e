package dtlsserver

// What datagrams, handshakes and sessions cost: allocations, memory and time,
// with the loop driven by hand.

import (
	"bytes"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/udpio"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// TestSteadyStateAllocatesNothing: from the socket to the answer and the folded
// event, of one datagram and of several at a time.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool forget")
	}
	now := time.Now()
	for _, size := range []int{1, 8} {
		w := newWired(t, HandlerFuncs{OnDatagramReceived: echo})
		c := w.establish(now, nil)
		for _, test := range []struct {
			name    string
			make    func() []byte
			answers bool
		}{
			{"hello", testpeer.New("", nil, 1).Hello, true},
			{"hello in parts", func() []byte { return inParts(c, testpeer.New("", nil, 1).Hello(), 20, 2) }, true},
			{"hello with a wrong cookie", func() []byte {
				wrong := testpeer.New("", nil, 1)
				wrong.Cookie = bytes.Clone(c.Cookie)
				return wrong.Hello()
			}, false},
			{"hello with the cookie of a session", c.Hello, false},
			{"junk", func() []byte { return []byte("junk") }, false},
			{"application data", func() []byte { return c.Sealed(wire.ContentApplicationData, make([]byte, 64)) }, true},
			{"forged data", func() []byte {
				b := c.Sealed(wire.ContentApplicationData, make([]byte, 64))
				b[len(b)-1] ^= 1
				return b
			}, false},
			{"hello of another version", func() []byte { return versioned(testpeer.New("", nil, 1), 0xfefd, 0xfefc) }, false}, // mostly
		} {
			answers := 0
			if test.answers {
				answers = size
			}
			if n := w.allocs(now, size, answers, test.make); n != 0 {
				t.Errorf("%s, %d at a time: %v allocations", test.name, size, n)
			}
		}
	}
}

// allocs returns how many allocations it takes to receive so many datagrams at a time
// and to send so many answers, of which the client reads each.
func (w *wired) allocs(now time.Time, size, answers int, next func() []byte) float64 {
	w.tb.Helper()
	const runs = 200
	batches := make([][][]byte, runs+2)
	for i := range batches {
		for range size {
			batches[i] = append(batches[i], next())
		}
	}
	buf := make([]byte, 2048)
	at := 0
	step := func() {
		w.give(now, batches[at]...)
		at++
		for range answers {
			w.answer(buf)
		}
	}
	step()
	return testing.AllocsPerRun(runs, step)
}

// TestConnectionIDsAllocateNothing: the same for records with connection IDs.
func TestConnectionIDsAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool forget")
	}
	now := time.Now()
	for _, size := range []int{1, 8} {
		w := newWired(t, HandlerFuncs{OnDatagramReceived: echo})
		c := w.establish(now, func(c *testpeer.Client) { c.CID, c.CheckPaths = []byte("client"), true })
		data := func() []byte { return c.Sealed(wire.ContentApplicationData, make([]byte, 64)) }
		// with returns data with another connection ID.
		with := func(cid []byte) []byte {
			b := data()
			copy(b[11:], cid)
			return b
		}
		foreign := bytes.Repeat([]byte{1}, len(c.ServerCID))
		ended, err := w.l.connectionIDs.next()
		if err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct {
			name    string
			make    func() []byte
			answers int // each
		}{
			{"application data", data, 1},
			{"two records", func() []byte { return append(data(), data()...) }, 2},
			{"forged data", func() []byte {
				b := data()
				b[len(b)-1] ^= 1
				return b
			}, 0},
			{"without connection ID", func() []byte {
				return append(wire.AppendRecordHeader(nil, wire.ContentApplicationData, wire.VersionDTLS12, 1, 1<<40, 40), make([]byte, 40)...)
			}, 0},
			{"connection ID of nobody", func() []byte { return with(foreign) }, 0},
			{"connection ID of a session that has ended", func() []byte { return with(ended) }, 0},
			{"too short for one", func() []byte { return data()[:15] }, 0},
		} {
			if n := w.allocs(now, size, size*test.answers, test.make); n != 0 {
				t.Errorf("%s, %d at a time: %v allocations", test.name, size, n)
			}
		}
	}
}

// TestConnectionIDMemory: what a session at rest holds more for its connection IDs.
func TestConnectionIDMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector has memory of its own")
	}
	const sessions, most = 4000, 256
	size := func(edit func(*testpeer.Client)) int64 {
		d := newDirect(t, func(s *Server) {
			s.Handler = nil
			s.IdleTimeout = time.Hour
			s.MaxHandshakesPerSource = -1
		})
		before := liveHeap()
		for i := range sessions {
			c := testpeer.New(testIdentity, []byte(testKey), uint64(i))
			edit(c)
			d.establish(c, clientAddr(i))
		}
		d.out, d.to = nil, nil
		d.advance(2 * restAfter)
		defer runtime.KeepAlive(d)
		return (liveHeap() - before) / sessions
	}
	without := size(func(*testpeer.Client) {})
	with := size(func(c *testpeer.Client) { c.CID, c.CheckPaths = []byte("client"), true })
	t.Logf("%d bytes a session, %d with a connection ID", without, with)
	if with-without > most {
		t.Errorf("a session holds %d bytes more, at most %d are wanted", with-without, most)
	}
}

// BenchmarkDatagram is the whole way of a datagram, of which most is the
// system's: the client's share is in it. An operation is a datagram and its
// answer.
func BenchmarkDatagram(b *testing.B) {
	now := time.Now()
	const window = 32
	run := func(b *testing.B, w *wired, next func() []byte) {
		b.ReportAllocs()
		buf := make([]byte, 2048)
		batch := make([][]byte, 0, window)
		for done := 0; done < b.N; done += len(batch) {
			for batch = batch[:0]; len(batch) < min(window, b.N-done); {
				batch = append(batch, next())
			}
			w.give(now, batch...)
			for range batch {
				w.answer(buf)
			}
		}
	}
	b.Run("hello", func(b *testing.B) {
		hello := testpeer.New("", nil, 1).Hello()
		run(b, newWired(b, nil), func() []byte { return hello })
	})
	b.Run("echo", func(b *testing.B) {
		w := newWired(b, HandlerFuncs{OnDatagramReceived: echo})
		c := w.establish(now, nil)
		run(b, w, func() []byte { return c.Sealed(wire.ContentApplicationData, make([]byte, 64)) })
	})
}

// rush is a loop driven by hand, with a socket that is memory, on which many
// clients shake hands at a time. Their sessions stay open.
type rush struct {
	*direct
	sent  []reply // of which n count
	n     int
	begun int // clients
}

type reply struct {
	to netip.AddrPort
	b  []byte
}

func newRush(tb testing.TB) *rush {
	tb.Helper()
	r := &rush{direct: newDirect(tb, func(s *Server) {
		s.Handler = nil
		s.MaxSessions = 1 << 24
	})}
	var err error
	if r.l.conn, err = udpio.New(r, r.l.sent); err != nil {
		tb.Fatal(err)
	}
	return r
}

// WriteTo keeps what is sent, and allocates nothing when there is room.
func (r *rush) WriteTo(b []byte, to net.Addr) (int, error) {
	if r.n == len(r.sent) {
		r.sent = append(r.sent, reply{})
	}
	p := &r.sent[r.n]
	p.to, p.b = to.(*net.UDPAddr).AddrPort(), append(p.b[:0], b...)
	r.n++
	return len(b), nil
}

// handshakes makes so many handshakes at a time. What the server does for them
// is done by measure, which must call its argument.
func (r *rush) handshakes(n int, measure func(server func())) {
	r.t.Helper()
	clients := make(map[netip.AddrPort]*testpeer.Client)
	for range n {
		clients[clientAddr(r.begun)] = testpeer.New(testIdentity, []byte(testKey), uint64(r.begun))
		r.begun++
	}
	for _, flight := range []func(*testpeer.Client) []byte{(*testpeer.Client).Hello, (*testpeer.Client).Hello, (*testpeer.Client).Flight} {
		ms := make([]udpio.Message, 0, n)
		for addr, c := range clients {
			b := flight(c)
			ms = append(ms, udpio.Message{Buf: b, N: len(b), Remote: addr})
		}
		r.n = 0
		measure(func() {
			for i := range ms {
				r.l.receive(r.now, &ms[i])
			}
			r.settle()
		})
		for _, p := range r.sent[:r.n] {
			if err := clients[p.to].Receive(p.b); err != nil {
				r.t.Fatal(err)
			}
		}
	}
	for addr, c := range clients {
		if !c.Complete {
			r.t.Fatalf("client %v is not connected", addr)
		}
	}
}

// TestHandshakeAllocations: what a handshake with plain PSK needs for itself
// alone was needed by one before it.
func TestHandshakeAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool forget")
	}
	const (
		clients = 64
		rounds  = 8
		// 4 for two AEADs, 6 for the hook and its context, 6 for the session,
		// its identity, last flight, event and places in lists, 6 for
		// addresses that a socket of the system does not need. The rest are
		// arrays that grow with the number of sessions.
		most = 25
	)
	r := newRush(t)
	var before, after runtime.MemStats
	var mallocs, bytes uint64
	count := func(server func()) {
		runtime.ReadMemStats(&before)
		server()
		runtime.ReadMemStats(&after)
		mallocs += after.Mallocs - before.Mallocs
		bytes += after.TotalAlloc - before.TotalAlloc
	}
	r.handshakes(clients, count)
	mallocs, bytes = 0, 0
	for range rounds {
		r.handshakes(clients, count)
	}
	const all = clients * rounds
	t.Logf("%.1f allocations, %d bytes a handshake", float64(mallocs)/all, bytes/all)
	if mallocs > most*all {
		t.Errorf("%.1f allocations a handshake, more than %d", float64(mallocs)/all, most)
	}
}

// BenchmarkHandshake is what a handshake with plain PSK and a cookie costs
// without the system's part and the client's.
func BenchmarkHandshake(b *testing.B) {
	b.ReportAllocs()
	const clients = 256
	r := newRush(b)
	b.StopTimer()
	for done := 0; done < b.N; {
		n := min(clients, b.N-done)
		r.handshakes(n, func(server func()) {
			b.StartTimer()
			server()
			b.StopTimer()
		})
		done += n
	}
}

// BenchmarkSessions makes b.N sessions and reports what each holds when it is
// at rest.
func BenchmarkSessions(b *testing.B) {
	d := newDirect(b, func(s *Server) {
		s.Handler = nil
		s.IdleTimeout = time.Hour
		s.MaxHandshakesPerSource = -1
		s.MaxSessions = 1 << 20
	})
	before := liveHeap()
	for i := range b.N {
		d.establish(testpeer.New(testIdentity, []byte(testKey), uint64(i)), clientAddr(i))
	}
	d.out = nil
	b.ReportMetric(float64(liveHeap()-before)/float64(b.N), "B/session-awake")
	d.advance(2 * restAfter)
	b.ReportMetric(float64(liveHeap()-before)/float64(b.N), "B/session")
	runtime.KeepAlive(d)
}
