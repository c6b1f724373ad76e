package dtlsserver

// Loops that tests drive by hand, without a goroutine: in memory, on a clock of
// their own, or on a socket of the system.

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/udpio"
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

// establish makes a session. The client may be edited before.
func (w *wired) establish(now time.Time, edit func(*testpeer.Client)) *testpeer.Client {
	w.tb.Helper()
	c := testpeer.New(testIdentity, []byte(testKey), 1)
	if edit != nil {
		edit(c)
	}
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
