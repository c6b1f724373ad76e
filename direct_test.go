package dtlsserver

// Loops that tests drive by hand, without a goroutine: in memory, on a clock of
// their own, or on a socket of the system.

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

// direct is a loop that is driven by hand, on a clock of its own.
type direct struct {
	t   testing.TB
	s   *Server
	l   *loop
	rec *recorder
	now time.Time
	out [][]byte         // what was sent since it was last looked at
	to  []netip.AddrPort // and where

	connected uint64 // clients of connect
}

// ReadFrom makes direct a net.PacketConn, of which only writes are used.
func (d *direct) ReadFrom([]byte) (int, net.Addr, error) { return 0, nil, net.ErrClosed }
func (d *direct) Close() error                           { return nil }
func (d *direct) LocalAddr() net.Addr                    { return net.UDPAddrFromAddrPort(serverAddr) }
func (d *direct) SetDeadline(time.Time) error            { return nil }
func (d *direct) SetReadDeadline(time.Time) error        { return nil }
func (d *direct) SetWriteDeadline(time.Time) error       { return nil }
func (d *direct) WriteTo(b []byte, to net.Addr) (int, error) {
	d.out, d.to = append(d.out, bytes.Clone(b)), append(d.to, to.(*net.UDPAddr).AddrPort())
	return len(b), nil
}

func newDirect(t testing.TB, edit func(*Server)) *direct {
	t.Helper()
	d := &direct{t: t, rec: &recorder{}, now: time.Unix(1_700_000_000, 0)}
	d.s = &Server{PSK: testPSK, Handler: d.rec}
	if edit != nil {
		edit(d.s)
	}
	cfg, err := d.s.config()
	if err != nil {
		t.Fatal(err)
	}
	if d.l, err = d.s.adopt(cfg, d, endpoint{}); err != nil {
		t.Fatal(err)
	}
	return d
}

// receive gives the loop a datagram and returns what it sends.
func (d *direct) receive(from netip.AddrPort, b []byte) [][]byte {
	d.out, d.to = nil, nil
	d.l.receive(d.now, message(from, b))
	d.settle()
	return d.out
}

// message is a datagram as the loop is given it.
func message(from netip.AddrPort, b []byte) *udpio.Message {
	return &udpio.Message{Buf: b, N: len(b), Remote: from}
}

// receiveTo gives the loop a client's datagram, and the client what is sent to
// its address.
func (d *direct) receiveTo(c *testpeer.Client, from netip.AddrPort, b []byte) {
	d.t.Helper()
	d.l.receive(d.now, message(from, b))
	d.settle()
	for _, sent := range d.outTo(from) {
		if err := c.Receive(sent); err != nil {
			d.t.Fatal(err)
		}
	}
}

// outTo takes what was sent, and returns what was sent to an address.
func (d *direct) outTo(to netip.AddrPort) (sent [][]byte) {
	for i, b := range d.out {
		if d.to[i] == to {
			sent = append(sent, b)
		}
	}
	d.out, d.to = nil, nil
	return sent
}

// settle waits for hooks, and for those that their answers lead to.
func (d *direct) settle() {
	for more := true; more; {
		d.l.hooks.Wait()
		more = d.l.hasWork()
		d.l.housekeep(d.now)
	}
}

// advance lets time pass.
func (d *direct) advance(by time.Duration) {
	for until := d.now.Add(by); ; {
		at, ok := d.l.housekeep(d.now)
		if !ok || at.After(until) {
			d.now = until
			return
		}
		d.now = at
	}
}

// exchange gives the loop a client's datagram and the client the answers.
func (d *direct) exchange(c *testpeer.Client, from netip.AddrPort, b []byte) {
	d.t.Helper()
	for _, answer := range d.receive(from, b) {
		if err := c.Receive(answer); err != nil {
			d.t.Fatalf("client %v: %v", from, err)
		}
	}
}

func (d *direct) establish(c *testpeer.Client, from netip.AddrPort) {
	d.t.Helper()
	d.exchange(c, from, c.Hello())
	d.exchange(c, from, c.Hello())
	d.exchange(c, from, c.Flight())
	if !c.Complete {
		d.t.Fatalf("client %v is not connected", from)
	}
}

// verified sends both hellos of a client that never goes on.
func (d *direct) verified(n uint64, from netip.AddrPort) *testpeer.Client {
	d.t.Helper()
	c := testpeer.New(testIdentity, []byte(testKey), n)
	d.exchange(c, from, c.Hello())
	d.exchange(c, from, c.Hello())
	return c
}

// connect makes a session of an identity, or not, if the server refuses. What
// else is sent meanwhile, as to sessions that give way, is not the client's.
func (d *direct) connect(identity string, from netip.AddrPort) *testpeer.Client {
	d.t.Helper()
	d.connected++
	c := testpeer.New(identity, []byte(testKey), d.connected<<32)
	for _, flight := range []func() []byte{c.Hello, c.Hello, c.Flight} {
		if c.Cookie != nil && c.MessageSeq > 1 && !c.HelloDone {
			return c // refused
		}
		d.receiveTo(c, from, flight())
	}
	return c
}

// isOpen reports whether the peer has an open session.
func (d *direct) isOpen(from netip.AddrPort) bool {
	_, open := d.s.SessionByAddr(from, anyLocal)
	return open
}

// newTestLoop returns a loop that does not run.
func newTestLoop(t *testing.T, s *Server) *loop {
	t.Helper()
	cfg, err := s.config()
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.adopt(cfg, newNetwork().listen(serverAddr), endpoint{})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// wired is a loop on a UDP socket, and a client's socket connected to it.
type wired struct {
	tb     testing.TB
	l      *loop
	client *net.UDPConn
	addr   netip.AddrPort
}

func newWired(tb testing.TB, h EventHandler) *wired {
	tb.Helper()
	s := &Server{PSK: testPSK, Handler: h}
	cfg, err := s.config()
	if err != nil {
		tb.Fatal(err)
	}
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	w := &wired{tb: tb}
	if w.l, err = s.adopt(cfg, pc, endpoint{}); err != nil {
		tb.Fatal(err)
	}
	client, err := net.Dial("udp4", pc.LocalAddr().String())
	if err != nil {
		tb.Fatal(err)
	}
	w.client = client.(*net.UDPConn)
	w.addr = w.client.LocalAddr().(*net.UDPAddr).AddrPort()
	tb.Cleanup(func() { pc.Close(); client.Close() })
	_ = w.client.SetDeadline(time.Now().Add(time.Minute))
	_ = pc.SetDeadline(time.Now().Add(time.Minute))
	return w
}

// give has the loop receive datagrams that the client sends, in one batch if
// the socket reads batches.
func (w *wired) give(now time.Time, datagrams ...[]byte) {
	for _, b := range datagrams {
		if _, err := w.client.Write(b); err != nil {
			w.tb.Fatal(err)
		}
	}
	for left := len(datagrams); left > 0; {
		n, err := w.l.conn.Receive(w.l.messages)
		if err != nil {
			w.tb.Fatal(err)
		}
		w.l.receiveBatch(now, w.l.messages[:n])
		w.l.housekeep(now)
		left -= n
	}
}

// answer reads one datagram at the client.
func (w *wired) answer(buf []byte) []byte {
	n, err := w.client.Read(buf)
	if err != nil {
		w.tb.Fatal(err)
	}
	return buf[:n]
}

// establish makes a session.
func (w *wired) establish(now time.Time) *testpeer.Client {
	w.tb.Helper()
	c := testpeer.New(testIdentity, []byte(testKey), 1)
	buf := make([]byte, 2048)
	for _, flight := range []func() []byte{c.Hello, c.Hello, c.Flight} {
		w.give(now, flight())
		w.l.hooks.Wait()
		w.l.housekeep(now)
		if err := c.Receive(w.answer(buf)); err != nil {
			w.tb.Fatal(err)
		}
	}
	if !c.Complete {
		w.tb.Fatal("no session")
	}
	return c
}

// attacks are datagrams of an attacker who knows a peer's address, and has seen
// some of its records, but has no key. None may have an effect, or an answer.
func attacks(seen ...[]byte) (all [][]byte) {
	record := func(t wire.ContentType, epoch uint16, seq uint64, payload []byte) {
		r := wire.AppendRecordHeader(nil, t, wire.VersionDTLS12, epoch, seq, len(payload))
		all = append(all, append(r, payload...))
	}
	for _, alert := range [][]byte{{1, 0}, {2, 0}, {2, 40}, {2, 80}, {1, 90}} {
		record(wire.ContentAlert, 0, 99, alert)
		record(wire.ContentAlert, 1, 99, alert)
	}
	record(wire.ContentApplicationData, 0, 9, []byte("data"))
	record(wire.ContentApplicationData, 1, 9, bytes.Repeat([]byte{5}, 60))
	record(wire.ContentChangeCipherSpec, 0, 9, []byte{1})
	record(wire.ContentChangeCipherSpec, 1, 9, []byte{1})
	record(wire.ContentHandshake, 0, 9, testpeer.Message(wire.TypeFinished, 3, make([]byte, 12)))
	record(wire.ContentHandshake, 1, 9, testpeer.Message(wire.TypeFinished, 3, make([]byte, 12)))
	for typ := range 25 { // every handshake message, empty, declared huge, and junk
		t := wire.HandshakeType(typ)
		if t != wire.TypeClientHello {
			record(wire.ContentHandshake, 0, 9, testpeer.Message(t, 2, nil))
			record(wire.ContentHandshake, 0, 9, testpeer.Message(t, 3, []byte("junk")))
		}
		record(wire.ContentHandshake, 0, 9, wire.AppendHandshakeHeader(nil, t, 1<<24-1, 2, 0, 0))
		record(wire.ContentHandshake, 0, 9, append(wire.AppendHandshakeHeader(nil, t, 1<<24-1, 2, 1<<24-3, 1), 7))
	}
	for _, t := range []wire.ContentType{0, 19, 20, 21, 22, 23, 24, 25, 255} {
		for _, epoch := range []uint16{0, 1, 2, 0xffff} {
			record(t, epoch, wire.MaxSequence, []byte("junk junk junk junk junk junk junk"))
			record(t, epoch, 0, nil)
		}
	}
	all = append(all, nil, []byte{22}, []byte("GET / HTTP/1.0\r\n\r\n"), make([]byte, 1400))
	for _, b := range seen { // replayed, damaged, of another epoch
		all = append(all, b)
		if len(b) > 20 {
			damaged, old, far := bytes.Clone(b), bytes.Clone(b), bytes.Clone(b)
			damaged[len(b)-1] ^= 1
			old[4], far[3] = 0, 0x80
			all = append(all, damaged, old, far)
		}
	}
	return all
}

// TestTenThousandSessions: every session is attacked in every way that an
// attacker without its key has, and none notices.
func TestTenThousandSessions(t *testing.T) {
	t.Parallel()
	sessions := 10_000
	if raceEnabled || testing.Short() {
		sessions = 500
	}
	d := newDirect(t, nil)
	clients := make([]*testpeer.Client, sessions)
	seen := make([][][]byte, sessions)
	for n := range clients {
		c := testpeer.New(testIdentity, []byte(testKey), uint64(n))
		clients[n] = c
		d.establish(c, clientAddr(n))
		data := c.Sealed(wire.ContentApplicationData, []byte("once"))
		d.exchange(c, clientAddr(n), data)
		flight := c.Plain(wire.ContentChangeCipherSpec, []byte{1})
		seen[n] = [][]byte{data, flight}
	}
	d.rec.want(t, KindHandshakeComplete, uint64(sessions), "at first")
	delivered := len(d.rec.data)
	answers := 0
	for n := range clients {
		from := clientAddr(n)
		for _, b := range attacks(seen[n]...) {
			if answer := d.receive(from, b); len(answer) > 0 {
				t.Fatalf("%x\nwas answered with\n%x", b, answer)
			}
		}
		bare := testpeer.New("", nil, 1)
		for range 2 { // without a cookie, and with one that is made up
			answer := d.receive(from, bare.Hello())
			if len(answer) != 1 || len(answer[0]) != 60 || answer[0][13] != byte(wire.TypeHelloVerifyRequest) {
				t.Fatalf("a hello was answered with %x", answer)
			}
			bare.Cookie = bytes.Repeat([]byte{answer[0][28]}, 32)
			answers++
		}
	}
	if len(d.rec.data) != delivered {
		t.Errorf("%d datagrams were delivered that nobody sent", len(d.rec.data)-delivered)
	}
	d.rec.want(t, KindSessionClosed, 0, "after the attacks")
	if stats := d.s.Stats(); stats.Sessions != sessions || stats.Handshakes != 0 {
		t.Errorf("%d sessions, %d handshakes", stats.Sessions, stats.Handshakes)
	}
	for n, c := range clients {
		from := clientAddr(n)
		d.exchange(c, from, c.Sealed(wire.ContentApplicationData, []byte("still there")))
		session, ok := d.s.SessionByAddr(from, anyLocal)
		if !ok {
			t.Fatalf("%v has no session", from)
		}
		d.out = nil
		if _, err := session.Write([]byte("and you")); err != nil {
			t.Fatal(err)
		}
		if err := c.Receive(d.out[0]); err != nil || string(c.Data[0]) != "and you" {
			t.Fatalf("client %v got %q, %v", from, c.Data, err)
		}
	}
	if len(d.rec.data) != delivered+sessions {
		t.Errorf("%d of %d sessions still deliver", len(d.rec.data)-delivered, sessions)
	}
	if n := len(d.rec.of(KindRecordDropped)); n > 100 {
		t.Errorf("%d events for what was dropped", n)
	}
}

// TestManyFailingHandshakes: 100,000 handshakes fail in all ways; then a good
// one completes, and nothing is left of the others.
func TestManyFailingHandshakes(t *testing.T) {
	t.Parallel()
	n := 100_000
	if raceEnabled || testing.Short() {
		n = 3_000
	}
	d := newDirect(t, func(s *Server) { s.MaxHandshakes = 600 })
	for i := range n {
		c := testpeer.New(testIdentity, []byte("wrong"), uint64(i))
		c.MessageSeq = 1
		if i%4 == 1 {
			c.Suites = []uint16{0xc02b} // none in common
		}
		from := clientAddr(i)
		verdict, answer := d.l.cfg.verifier.Verify(nil, c.Hello(), from, d.now)
		if verdict != VerdictChallenge {
			t.Fatal(verdict)
		}
		c.Cookie = cookieOf(t, answer)
		c.MessageSeq = 1
		d.exchange(c, from, c.Hello())
		switch i % 4 {
		case 2: // malformed
			d.exchange(c, from, c.Plain(wire.ContentHandshake, testpeer.Message(wire.TypeClientKeyExchange, 2, []byte{9})))
		case 3: // wrong key
			d.exchange(c, from, c.Flight())
		}
		if i%1000 == 0 {
			d.advance(31 * time.Second)
		}
	}
	d.advance(31 * time.Second)
	d.establish(testpeer.New(testIdentity, []byte(testKey), 1<<40), clientAddr(1<<20))
	stats := d.s.Stats()
	if stats.HandshakesStarted != uint64(n)+1 || stats.HandshakesFailed != uint64(n) || stats.Handshakes != 0 || stats.Sessions != 1 {
		t.Errorf("%+v", stats)
	}
	d.s.Close()
	d.settle()
	if left := d.l.left(); left != "" {
		t.Errorf("left: %s", left)
	}
}

// TestFragmentFlood: fragments that never make a message take no more memory
// than one message may have.
func TestFragmentFlood(t *testing.T) {
	d := newDirect(t, nil)
	c, from := testpeer.New(testIdentity, []byte(testKey), 1), clientAddr(1)
	d.exchange(c, from, c.Hello())
	d.exchange(c, from, c.Hello())
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for i := range 100_000 {
		var h []byte
		switch i % 3 {
		case 0: // empty
			h = wire.AppendHandshakeHeader(nil, wire.TypeClientKeyExchange, 1000, 2, i%1000, 0)
		case 1: // one byte, every second one
			h = append(wire.AppendHandshakeHeader(nil, wire.TypeClientKeyExchange, 1000, 2, 2*(i%499), 1), 1)
		case 2: // declared as long as can be
			h = append(wire.AppendHandshakeHeader(nil, wire.TypeClientKeyExchange, 1<<24-1, 2, i, 1), 1)
		}
		d.receive(from, c.Plain(wire.ContentHandshake, h))
	}
	if after := heap(); after > before+256<<10 {
		t.Errorf("the heap grew by %d bytes", after-before)
	}
	d.exchange(c, from, c.Flight())
	if !c.Complete {
		t.Error("the handshake does not complete any more")
	}
}
