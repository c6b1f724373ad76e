//go:build linux

package main

// Those who use the server that is attacked: one session that echoes, and
// handshakes one after the other.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	suites "github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// peer is a client on a socket of its own.
type peer struct {
	*testpeer.Client
	conn *net.UDPConn
	// fragmented: the hello with the cookie is sent in two parts.
	fragmented bool
	sent       *atomic.Int64 // counts datagrams; nil: nobody counts
	room       [2048]byte
}

// dial makes a client at an address, with a port that the system chooses.
func dial(from netip.Addr, server netip.AddrPort, c *testpeer.Client) (*peer, error) {
	conn, err := net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.UDPAddrFromAddrPort(server))
	if err != nil {
		return nil, err
	}
	return &peer{Client: c, conn: conn}, nil
}

// The errors of handshakes.
var (
	errNoAnswer = errors.New("no answer")
	errRefused  = errors.New("refused")
)

func (p *peer) write(b []byte) error {
	if p.sent != nil {
		p.sent.Add(1)
	}
	_, err := p.conn.Write(b)
	return err
}

// exchange sends datagrams and receives until the condition holds. What was sent
// is sent again after 1, 2, 4... s.
func (p *peer) exchange(until time.Time, send [][]byte, done func() bool) error {
	wait := retransmission
	for {
		for _, b := range send {
			if err := p.write(b); err != nil {
				return err
			}
		}
		again := time.Now().Add(wait)
		if again.After(until) {
			again = until
		}
		if err := p.conn.SetReadDeadline(again); err != nil {
			return err
		}
		for !done() {
			n, err := p.conn.Read(p.room[:])
			var timeout net.Error
			switch {
			case errors.As(err, &timeout) && timeout.Timeout():
			case err != nil:
				return err
			default:
				if err := p.Receive(append([]byte(nil), p.room[:n]...)); err != nil {
					return err
				}
				if len(p.Alerts) > 0 {
					return fmt.Errorf("%w: alert %d", errRefused, p.Alerts[0].Description)
				}
				continue
			}
			break
		}
		if done() {
			return nil
		}
		if !time.Now().Before(until) {
			return errNoAnswer
		}
		wait *= 2
	}
}

// getCookie is the first half of a handshake's beginning.
func (p *peer) getCookie(until time.Time) error {
	return p.exchange(until, [][]byte{p.Hello()}, func() bool { return p.Cookie != nil })
}

// hello begins a handshake, up to ServerHelloDone.
func (p *peer) hello(until time.Time) error {
	if err := p.getCookie(until); err != nil {
		return err
	}
	hello := [][]byte{p.Hello()}
	if p.fragmented {
		hello = p.split(hello[0])
	}
	return p.exchange(until, hello, func() bool { return p.HelloDone })
}

// handshake makes a handshake.
func (p *peer) handshake(until time.Time) error {
	if err := p.hello(until); err != nil {
		return err
	}
	return p.exchange(until, p.Records(), func() bool { return p.Complete })
}

// bye closes the session and the socket.
func (p *peer) bye() {
	if p.Complete {
		p.write(p.Sealed(wire.ContentAlert, []byte{1, 0}))
	}
	p.conn.Close()
}

// split makes two datagrams of one with a hello; the cookie is in the first.
func (p *peer) split(hello []byte) [][]byte {
	f, _, _ := wire.ParseFragment(hello[wire.RecordHeaderLen:])
	at := len(f.Body) - 2
	part := func(from, to int) []byte {
		m := wire.AppendHandshakeHeader(nil, f.Type, len(f.Body), f.MessageSeq, from, to-from)
		return p.Plain(wire.ContentHandshake, append(m, f.Body[from:to]...))
	}
	return [][]byte{part(0, at), part(at, len(f.Body))}
}

// kind is a kind of honest handshake.
type kind struct {
	name string
	make func(v *victims, seed uint64) *peer
}

var (
	pskKind = kind{"PSK", func(v *victims, seed uint64) *peer {
		return &peer{Client: testpeer.New(pskIdentity, []byte(pskKey), seed)}
	}}
	kinds = []kind{
		pskKind,
		{"ECDHE_PSK", func(v *victims, seed uint64) *peer {
			p := pskKind.make(v, seed)
			p.Suites = []uint16{suites.ECDHEPSKWithAES128GCM}
			return p
		}},
		{"certificate", func(v *victims, seed uint64) *peer { return &peer{Client: stranger(seed, nil)} }},
		{"mutual", func(v *victims, seed uint64) *peer { return &peer{Client: stranger(seed, v.client)} }},
	}
	fragmentedKind = kind{"PSK in fragments", func(v *victims, seed uint64) *peer {
		p := pskKind.make(v, seed)
		p.fragmented = true
		return p
	}}
)

// stranger is a client with a certificate of its own, or none.
func stranger(seed uint64, own *identity) *testpeer.Client {
	c := testpeer.New("", nil, seed)
	c.Suites = []uint16{suites.ECDHEECDSAWithAES128GCM}
	if own != nil {
		c.Chain, c.Signer = own.chain, own.key
	}
	return c
}

const (
	// echoPause is the time between two echoes, handshakePause that between
	// two handshakes.
	echoPause      = 10 * time.Millisecond
	handshakePause = 15 * time.Millisecond
	// echoPatience is after how long an echo is lost, and honestWait a
	// handshake.
	echoPatience = 2 * time.Second
	honestWait   = 3 * time.Second
)

// The addresses of those who are honest.
var (
	echoAddr      = netip.AddrFrom4([4]byte{127, 77, 0, 1})
	handshakeAddr = netip.AddrFrom4([4]byte{127, 77, 0, 2})
)

// victims are honest clients of one server.
type victims struct {
	server netip.AddrPort
	client *identity // of mutual authentication
	echo   *peer
	seed   uint64
	silent []*peer // sessions that are left alone

	datagrams atomic.Int64 // that they have sent

	mu   sync.Mutex // guards the following
	sent []time.Time
	rtts map[uint32]time.Duration
}

// newVictims opens the session that echoes.
func newVictims(server netip.AddrPort, client *identity) (*victims, error) {
	v := &victims{server: server, client: client, rtts: make(map[uint32]time.Duration)}
	p, err := v.open(pskKind, echoAddr)
	if err != nil {
		return nil, fmt.Errorf("an honest session: %w", err)
	}
	v.echo = p
	go v.receiveEchoes()
	return v, nil
}

// open makes a session, which stays open.
func (v *victims) open(k kind, from netip.Addr) (*peer, error) {
	v.seed++
	made := k.make(v, v.seed)
	p, err := dial(from, v.server, made.Client)
	if err != nil {
		return nil, err
	}
	p.fragmented, p.sent = made.fragmented, &v.datagrams
	if err := p.handshake(time.Now().Add(honestWait)); err != nil {
		p.conn.Close()
		return nil, err
	}
	return p, p.conn.SetReadDeadline(time.Time{})
}

func (v *victims) close() {
	v.echo.bye()
	for _, p := range v.silent {
		p.conn.Close()
	}
}

// receiveEchoes notes when echoes come, until the socket is closed.
func (v *victims) receiveEchoes() {
	var room [2048]byte
	for {
		n, err := v.echo.conn.Read(room[:])
		if err != nil {
			return
		}
		now := time.Now()
		before := len(v.echo.Data)
		if v.echo.Receive(append([]byte(nil), room[:n]...)) != nil || len(v.echo.Data) == before {
			continue
		}
		if b := v.echo.Data[before]; len(b) >= 4 {
			i := binary.BigEndian.Uint32(b)
			v.mu.Lock()
			if _, again := v.rtts[i]; !again && int(i) < len(v.sent) {
				v.rtts[i] = now.Sub(v.sent[i])
			}
			v.mu.Unlock()
		}
	}
}

// echoes sends echoes until stop is closed, at their times whether or not the
// ones before have come. It returns the numbers of the first, and of the one
// after the last.
func (v *victims) echoes(stop <-chan struct{}) (first, end int) {
	ticker := time.NewTicker(echoPause)
	defer ticker.Stop()
	content := make([]byte, 64)
	first = len(v.sent)
	for {
		select {
		case <-stop:
			return first, len(v.sent)
		case <-ticker.C:
		}
		v.mu.Lock()
		binary.BigEndian.PutUint32(content, uint32(len(v.sent)))
		record := v.echo.Sealed(wire.ContentApplicationData, content)
		v.sent = append(v.sent, time.Now())
		v.mu.Unlock()
		v.echo.write(record)
	}
}

// answered waits for the echoes with these numbers, and returns the times of
// those that came.
func (v *victims) answered(first, end int) (rtts []time.Duration) {
	for deadline := time.Now().Add(echoPatience); ; time.Sleep(5 * time.Millisecond) {
		rtts = rtts[:0]
		v.mu.Lock()
		for i := first; i < end; i++ {
			if d, ok := v.rtts[uint32(i)]; ok {
				rtts = append(rtts, d)
			}
		}
		v.mu.Unlock()
		if len(rtts) == end-first || time.Now().After(deadline) {
			return rtts
		}
	}
}

// handshakeTimes are those of a kind.
type handshakeTimes struct {
	took   []time.Duration
	failed int
	err    error // the last
}

// handshakes makes handshakes of all kinds in turns until the time is over, but
// at least one of each.
func (v *victims) handshakes(d time.Duration, kinds []kind) map[string]*handshakeTimes {
	times := make(map[string]*handshakeTimes)
	for _, k := range kinds {
		times[k.name] = &handshakeTimes{}
	}
	begun := time.Now()
	for round := 0; ; round++ {
		for _, k := range kinds {
			if round > 0 && time.Since(begun) > d {
				return times
			}
			t := times[k.name]
			start := time.Now()
			p, err := v.open(k, handshakeAddr)
			if err != nil {
				t.failed++
				t.err = err
				continue
			}
			t.took = append(t.took, time.Since(start))
			p.bye()
			time.Sleep(handshakePause)
		}
	}
}

// openSilent opens sessions that are left alone, each of a peer with an address
// and an identity of its own.
func (v *victims) openSilent(n int) error {
	for i := range n {
		own := kind{pskKind.name, func(v *victims, seed uint64) *peer {
			p := pskKind.make(v, seed)
			p.Identity = fmt.Sprint(pskIdentity, i)
			return p
		}}
		p, err := v.open(own, netip.AddrFrom4([4]byte{127, 77, 1, byte(i)}))
		if err != nil {
			return err
		}
		v.silent = append(v.silent, p)
	}
	return nil
}

// silentAlive counts the sessions that were left alone and still echo.
func (v *victims) silentAlive() (n int) {
	for _, p := range v.silent {
		echo := [][]byte{p.Sealed(wire.ContentApplicationData, []byte("still there"))}
		if p.exchange(time.Now().Add(retransmission/2), echo, func() bool { return len(p.Data) > 0 }) == nil {
			n++
		}
	}
	return n
}
