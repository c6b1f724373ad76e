package main

// Clients: their sockets, the hand-driven one, pion's, and the exchange of
// numbered datagrams that both have with the server.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"time"

	piondtls "github.com/pion/dtls/v2"
	"github.com/pion/logging"

	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// socket counts what it sends.
type socket struct {
	*net.UDPConn
	soak *soak
}

// dial opens a socket to the server, with an address of its own where all of
// 127/8 is the loopback interface's. A port of one address would soon be that of
// a client before, for whom the server still waits.
func (s *soak) dial() (*socket, error) {
	to := net.UDPAddrFromAddrPort(s.server.Addr())
	from := net.IPv4(127, byte(1+rand.IntN(254)), byte(rand.IntN(256)), byte(1+rand.IntN(254)))
	conn, err := net.DialUDP("udp4", &net.UDPAddr{IP: from}, to)
	if err != nil {
		conn, err = net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, to)
	}
	return &socket{conn, s}, err
}

func (c *socket) Write(b []byte) (int, error) {
	n, err := c.UDPConn.Write(b)
	if err == nil {
		c.soak.sent.Add(1)
	}
	return n, err
}

// link is an association as its client sees it.
type link interface {
	io.ReadWriter
	Close() error // with close_notify
	SetReadDeadline(time.Time) error
}

const (
	// repeatAfter is after what time without an answer a flight is sent again.
	repeatAfter = time.Second
	// maxRepeats bounds that. The server has given up by then.
	maxRepeats = 20
)

// hand is a client driven by hand.
type hand struct {
	*testpeer.Client
	conn     *socket
	hello    []byte           // the verified one
	records  [][]byte         // of the last flight
	last     []byte           // application data
	intruder *testpeer.Client // another handshake from the same address; nil: none
	buf      []byte
}

func newHand(conn *socket, identity string) *hand {
	return &hand{Client: testpeer.New(identity, keyOf(identity), rand.Uint64()), conn: conn, buf: make([]byte, 1<<16)}
}

// verify makes the cookie exchange and waits for the server's flight.
func (h *hand) verify() error {
	first := h.Hello()
	if err := h.until(maxRepeats, func() []byte { return first }, func() bool { return h.Cookie != nil }); err != nil {
		return fmt.Errorf("cookie: %w", err)
	}
	h.hello = h.Hello()
	err := h.until(maxRepeats, func() []byte { return h.hello }, func() bool { return h.HelloDone || h.Complete })
	if err != nil {
		return fmt.Errorf("server's flight: %w", err)
	}
	h.conn.soak.hellos.add(h.hello)
	return nil
}

// finish sends the last flight and waits for the server's Finished, which in an
// abbreviated handshake has come before.
func (h *hand) finish(repeats int) error {
	if h.Complete {
		_, err := h.conn.Write(h.Resume())
		return err
	}
	err := h.until(repeats, h.lastFlight, func() bool { return h.Complete })
	if err != nil {
		return fmt.Errorf("server's Finished: %w", err)
	}
	return nil
}

// lastFlight returns the client's last flight: the same messages each time, in
// new records (RFC 6347 section 4.2.4).
func (h *hand) lastFlight() []byte {
	if h.records == nil {
		h.records = h.Records()
		return bytes.Join(h.records, nil)
	}
	var flight []byte
	for _, record := range h.records[:len(h.records)-1] {
		r, _, _ := wire.ParseRecord(record, 0)
		flight = append(flight, h.Plain(r.Type, r.Payload)...)
	}
	return append(flight, h.Sealed(wire.ContentHandshake, h.FinishedMessage())...)
}

// until sends a flight, and again when nothing comes, until done.
func (h *hand) until(repeats int, flight func() []byte, done func() bool) error {
	for range repeats {
		if _, err := h.conn.Write(flight()); err != nil {
			return err
		}
		h.conn.SetReadDeadline(time.Now().Add(repeatAfter))
		for !done() {
			err := h.receive()
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return err
			}
		}
		if done() {
			return nil
		}
	}
	return os.ErrDeadlineExceeded
}

// receive takes one datagram. It is io.EOF when the server closed the session.
func (h *hand) receive() error {
	n, err := h.conn.Read(h.buf)
	if err != nil {
		return err
	}
	cookie := h.Cookie
	if err := h.Receive(bytes.Clone(h.buf[:n])); err != nil {
		return err
	}
	h.Seen = nil
	if h.intruder != nil && !bytes.Equal(h.Cookie, cookie) {
		h.intruder.Cookie = h.Cookie
		h.conn.Write(h.intruder.Hello())
		h.intruder = nil
	}
	switch {
	case len(h.Alerts) == 0:
		return nil
	case h.Alerts[0].Description == wire.AlertCloseNotify:
		return io.EOF
	default:
		return fmt.Errorf("alert %v", h.Alerts[0])
	}
}

func (h *hand) Read(b []byte) (int, error) {
	for len(h.Data) == 0 {
		if err := h.receive(); err != nil {
			return 0, err
		}
	}
	n := copy(b, h.Data[0])
	h.Data = h.Data[1:]
	return n, nil
}

func (h *hand) Write(b []byte) (int, error) {
	h.last = h.Sealed(wire.ContentApplicationData, b)
	if _, err := h.conn.Write(h.last); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (h *hand) Close() error {
	_, err := h.conn.Write(h.Sealed(wire.ContentAlert, []byte{1, 0}))
	return err
}

func (h *hand) SetReadDeadline(t time.Time) error { return h.conn.SetReadDeadline(t) }

// silent keeps pion from logging what the attacks make it see.
var silent = &logging.DefaultLoggerFactory{Writer: io.Discard, DefaultLogLevel: logging.LogLevelDisabled}

func dialPion(conn *socket, cfg *piondtls.Config) (*piondtls.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cfg.LoggerFactory = silent
	return piondtls.ClientWithContext(ctx, conn, cfg)
}

// exchange is what a client says, and how.
type exchange struct {
	count  int
	op     operation     // of the last datagram
	pause  time.Duration // after each
	loose  bool          // the session may end while datagrams are under way
	unread bool          // answers are not waited for
	after  func()        // called after each; nil: nothing
	closed bool          // the server closes the session before the end
}

// window is how many datagrams are unanswered at a time. They fit every buffer.
const window = 8

// answerTimeout is how long a client waits for an answer. The server must not
// have given up the session by then, or a datagram that was lost on the way would
// look like a session that was closed.
const answerTimeout = idleTimeout * 3 / 4

// exchange sends numbered datagrams and checks the answers. A datagram that does
// not come back is no error here: the ledger knows at the end whose fault it is.
// The error is io.EOF when opBye was heeded and all that the server wrote was there.
func (v *visit) exchange(l link, x exchange) error {
	a := v.soak.ledger.open(!x.loose)
	defer v.soak.ledger.settle(a, true)
	defer func() { v.scenario.sent.Add(uint64(a.sent)) }()
	wanted := x.count
	if x.op == opPush {
		wanted += pushes
	}
	if x.unread {
		wanted = 0
	}
	answers := make(map[[2]uint64]bool)
	buf := make([]byte, 1<<14)
	for a.sent < x.count || len(answers) < wanted {
		if a.sent < x.count && (x.unread || a.sent-len(answers) < window) {
			op := opEcho
			if a.sent == x.count-1 || x.op == opCut {
				op = x.op
			}
			message := appendMessage(buf[:0], op, a.id, uint64(a.sent), rand.IntN(1000))
			if _, err := l.Write(message); err != nil {
				return fmt.Errorf("write: %w", err)
			}
			a.sent++
			if x.after != nil {
				x.after()
			}
			time.Sleep(x.pause)
			continue
		}
		l.SetReadDeadline(time.Now().Add(answerTimeout))
		n, err := l.Read(buf)
		if err != nil {
			if x.closed && err == io.EOF {
				return nil
			}
			missing := uint64(max(a.written()-len(answers), 0))
			var timeout net.Error
			switch {
			case errors.As(err, &timeout) && timeout.Timeout():
				v.scenario.unanswered.Add(missing)
				return nil
			case x.op == opBye && err == io.EOF && missing == 0: // the server has not received the others
				return io.EOF
			}
			return fmt.Errorf("after %d of %d answers: %w", len(answers), wanted, err)
		}
		op, id, number, ok := parseMessage(buf[:n])
		if !ok || id != a.id || number >= uint64(max(x.count, pushes)) {
			return fmt.Errorf("got %d bytes that the server cannot have sent", n)
		}
		key := [2]uint64{0, number}
		if op == opPushed {
			key[0] = 1
		}
		if answers[key] {
			return fmt.Errorf("got answer %d twice", number)
		}
		answers[key] = true
		v.scenario.answered.Add(1)
	}
	return nil
}
