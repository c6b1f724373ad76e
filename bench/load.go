//go:build linux

package main

// The load: clients in closed loops on one socket and one thread.

import (
	"errors"
	"fmt"
	"hash"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// load drives the clients of one server.
type load struct {
	*socket
	suite   *suite // nil: plain datagrams
	psk     hash.Hash
	now     time.Time
	next    source              // of the next client
	clients [maxClients]*client // by the low bits of their source

	ended    func(*client)         // a client is open or has failed
	received func(*client, []byte) // an echo, without its record

	plain     []byte
	failed    int   // clients
	lost      int   // datagrams of a window that stood still
	lastError error // why a client failed
}

// maxClients bounds the clients of a load. A power of two.
const maxClients = 1 << 17

func newLoad(p *process, s *suite) (*load, error) {
	sock, err := newSocket(p.server)
	if err != nil {
		return nil, err
	}
	return &load{socket: sock, suite: s, psk: newPSK(), next: firstSource, now: time.Now()}, nil
}

// nextSource returns a source that was not used for longest.
func (l *load) nextSource() source {
	s := l.next
	if l.next++; l.next == endSource {
		l.next = firstSource
	}
	return s
}

// open starts a client in the place of the oldest.
func (l *load) open() *client {
	from := l.nextSource()
	if l.suite == nil {
		c := &client{source: from, state: stateOpen}
		l.clients[from%maxClients] = c
		return c
	}
	c := newClient(from, l.suite, l.psk, l.now)
	l.clients[from%maxClients] = c
	l.send(from, c.hs.flight)
	return c
}

// step sends what is queued, waits for datagrams and hands them out. It
// returns how many there were.
func (l *load) step() int {
	l.flush()
	return l.hand(l.receive(patience))
}

// hand hands out what was received.
func (l *load) hand(n int) int {
	l.now = time.Now()
	for i := range n {
		from := sourceOf(l.in.local(i))
		if c := l.clients[from%maxClients]; c != nil && c.source == from {
			l.datagram(c, l.in.received(i))
		}
	}
	return n
}

func (l *load) datagram(c *client, b []byte) {
	switch {
	case l.received == nil && c.state == stateOpen:
		// Nobody waits for it.
	case l.suite == nil:
		l.received(c, b)
	case c.state == stateOpen:
		r, _, ok := c.parse(b)
		if !ok || r.Epoch != 1 {
			return // of the handshake, repeated
		}
		plain, t, err := c.reads.open(l.plain[:0], r)
		if err != nil || t != wire.ContentApplicationData {
			return // an alert, or of the handshake too
		}
		l.plain = plain
		l.received(c, plain)
	case c.state != stateFailed:
		send, err := c.handshakeDatagram(b, l.now)
		if send {
			l.send(c.source, c.hs.flight)
		}
		if err != nil {
			l.failed++
			l.lastError = err
		}
		if l.ended != nil && (err != nil || c.state == stateOpen) {
			l.ended(c)
		}
	}
}

// write queues an application record, or with no suite a datagram of the same
// length.
func (l *load) write(c *client, content []byte) {
	if l.suite == nil {
		b := append(l.buffer(), content...)
		l.queue(c.source, b[:len(content)+recordOverhead])
		return
	}
	l.queue(c.source, c.writes.seal(l.buffer(), wire.ContentApplicationData, content))
}

// givenUp is after how long a silence a window of datagrams is taken for lost.
// A process may have to wait for its core.
const givenUp = time.Second

// handshakes runs so many handshakes, or fewer if it is to stop, so many at a
// time. ended is told of each. What has begun is waited for, as long as the
// server answers.
func (l *load) handshakes(count, concurrent int, stop func() bool, ended func(*client)) {
	running := make([]*client, concurrent)
	place := make(map[source]int, concurrent)
	begin := func(i int) {
		if count == 0 || stop() {
			return
		}
		count--
		c := l.open()
		place[c.source] = i
		running[i] = c
	}
	l.ended = func(c *client) {
		i, ok := place[c.source]
		if !ok {
			return
		}
		delete(place, c.source)
		running[i] = nil
		ended(c)
		begin(i)
	}
	for i := range running {
		begin(i)
	}
	looked, silent := l.now, l.now
	for len(place) > 0 {
		if l.step() > 0 {
			silent = l.now
		}
		if l.now.Sub(silent) > 5*retransmission {
			break // the server answers nobody
		}
		if l.now.Sub(looked) < 50*time.Millisecond {
			continue
		}
		looked = l.now
		for _, c := range running {
			if c != nil && c.due(l.now) {
				l.send(c.source, c.hs.flight)
			}
		}
	}
	for s := range place {
		l.failed++
		l.clients[s%maxClients] = nil
	}
	l.ended = nil
}

// errNoSessions: the server did not let the clients in.
var errNoSessions = errors.New("clients could not connect")

// sessions opens so many sessions and returns them.
func (l *load) sessions(n int) ([]*client, error) {
	open := make([]*client, 0, n)
	if l.suite == nil {
		for range n {
			open = append(open, l.open())
		}
		return open, nil
	}
	failed, begun := l.failed, l.now
	l.handshakes(n, concurrentHandshakes, func() bool {
		return l.failed > failed || l.now.Sub(begun) > 5*time.Minute
	}, func(c *client) {
		if c.state == stateOpen {
			open = append(open, c)
		}
	})
	if len(open) < n {
		return open, fmt.Errorf("%w: %d of %d did (%v)", errNoSessions, len(open), n, l.lastError)
	}
	return open, nil
}

// leave says close_notify for every client and forgets them, so slowly that no
// server's socket overflows.
func (l *load) leave() {
	l.flush()
	for i, c := range l.clients {
		if c == nil {
			continue
		}
		l.clients[i] = nil
		if c.state != stateOpen || c.writes == nil {
			continue
		}
		l.queue(c.source, c.appendClose(l.buffer()))
		if l.queued == batchLen {
			l.flush()
			l.drain()
			time.Sleep(batchLen * closePause)
		}
	}
	l.flush()
	for l.receive(patience) > 0 {
	}
}

// forget forgets every client, which stays open at the server.
func (l *load) forget() { l.clients = [maxClients]*client{} }

// closePause is the time that a server is given to close a session.
const closePause = 25 * time.Microsecond

// echoes sends content from one session after the other, with so many
// datagrams on their way, until stop.
func (l *load) echoes(sessions []*client, content []byte, window int, stop func() bool, count *int) error {
	at, flying := 0, 0
	var failure error
	send := func() {
		l.write(sessions[at], content)
		if at++; at == len(sessions) {
			at = 0
		}
		flying++
	}
	want := len(content)
	if l.suite == nil {
		want += recordOverhead
	}
	stopped, heard := false, l.now
	l.received = func(_ *client, b []byte) {
		if len(b) != want {
			failure = fmt.Errorf("an echo of %d bytes, not %d", len(b), want)
		}
		flying--
		*count++
		if !stopped {
			send()
		}
	}
	for failure == nil {
		if stopped = stopped || stop(); stopped && flying <= 0 {
			break
		}
		for !stopped && flying < window {
			send()
		}
		if l.step() > 0 {
			heard = l.now
		} else if l.now.Sub(heard) > givenUp {
			l.lost += flying
			flying, heard = 0, l.now
		}
	}
	l.received = nil
	return failure
}

// hellos sends bare hellos, each from another source, with so many on their
// way, until stop. It returns the numbers of hellos and answers.
func (l *load) hellos(window int, stop func() bool) (sent, answers int) {
	s := l.suite
	if s == nil {
		s = pskSuite
	}
	hello := appendPlain(nil, wire.ContentHandshake, 0, appendHello(nil, s, new([wire.RandomLen]byte), nil, 0))
	flying, heard := 0, l.now
	for !stop() {
		for ; flying < window; flying++ {
			l.send(l.nextSource(), hello)
			sent++
		}
		l.flush()
		n := l.receive(patience)
		l.now = time.Now()
		if n > 0 {
			heard = l.now
		} else if l.now.Sub(heard) > givenUp {
			flying, heard = 0, l.now
		}
		answers += n
		// Datagrams keep their order: what was sent before a hello that is
		// answered is answered or lost.
		for i := range n {
			flying = min(flying, l.since(sourceOf(l.in.local(i)))-1)
		}
	}
	for n := 1; n > 0; answers += n {
		n = l.receive(5 * patience)
	}
	return sent, answers
}

// since is how many sources nextSource has returned from s on.
func (l *load) since(s source) int {
	if s < l.next {
		return int(l.next - s)
	}
	return int(l.next - firstSource + endSource - s)
}
