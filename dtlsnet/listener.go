// Package dtlsnet provides the sessions of a dtlsserver.Server as connections of
// package net, for code that needs Accept:
//
//	listener, err := dtlsnet.Listen("udp", ":4433", &dtlsserver.Server{PSK: keys})
//	if err != nil {
//		return err
//	}
//	defer listener.Close()
//	for {
//		conn, err := listener.Accept()
//		if err != nil {
//			return err
//		}
//		go serve(conn)
//	}
//
// A connection carries messages, as a UDP connection does: each Write sends one
// record in one datagram, and each Read returns one message. Messages may be lost
// or arrive out of order. A message that arrives is authentic, complete and
// delivered once.
//
// The serving loop of the Server waits for no one, and readers may be slow.
// Bounded queues are between them. What does not fit in a queue is dropped and
// counted: see [ListenConfig] and [Listener.Stats]. Code that can be written as a
// dtlsserver.EventHandler needs neither the queues nor a goroutine for each peer.
package dtlsnet

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/dtlsserver/dtlsserver"
)

// Defaults for the fields of ListenConfig.
const (
	DefaultBacklog    = 128      // connections
	DefaultConnBuffer = 64 << 10 // bytes
)

// ListenConfig contains the limits of a Listener. The zero value has the default
// limits, which Listen uses.
type ListenConfig struct {
	// Backlog is how many connections may wait for Accept. Beyond it, new sessions
	// are closed. If zero, DefaultBacklog is used.
	Backlog int
	// ConnBuffer is how many bytes of messages may wait for Read in one connection.
	// Each message counts two bytes more than its length. Beyond ConnBuffer, new
	// messages are dropped. If zero, DefaultConnBuffer is used.
	ConnBuffer int
}

// Listen listens with the default limits. See ListenConfig.Listen.
func Listen(network, address string, server *dtlsserver.Server) (*Listener, error) {
	return new(ListenConfig).Listen(network, address, server)
}

// Listen calls server.Listen with network and address, and returns a Listener
// that accepts the server's sessions. It replaces server.Handler by a handler
// that calls the previous one first, and then the Listener. Apart from its
// fields, the server may be used as usual: server.Close ends the Listener and all
// its connections, and server.ListenPacket opens the socket.
//
// If the server is already listening, Listen returns an error that wraps
// dtlsserver.ErrAlreadyServing. When the server has been closed, it may be passed
// to Listen again.
func (c *ListenConfig) Listen(network, address string, server *dtlsserver.Server) (*Listener, error) {
	switch {
	case c.Backlog < 0:
		return nil, fmt.Errorf("dtlsnet: ListenConfig.Backlog is negative: %d", c.Backlog)
	case c.ConnBuffer < 0:
		return nil, fmt.Errorf("dtlsnet: ListenConfig.ConnBuffer is negative: %d", c.ConnBuffer)
	case server.IsListening():
		return nil, fmt.Errorf("dtlsnet: the server listens already, on %v: %w", server.Addr(), dtlsserver.ErrAlreadyServing)
	}
	l := &Listener{
		server:     server,
		connBuffer: cmp.Or(c.ConnBuffer, DefaultConnBuffer),
		backlog:    make(chan *Conn, cmp.Or(c.Backlog, DefaultBacklog)),
		done:       make(chan struct{}),
		conns:      make(map[session]*Conn),
	}
	user := server.Handler
	if h, ok := user.(handler); ok { // of a Listener before this one
		h.listener.serverStopped(nil) // if it has not been called yet
		user = h.user
	}
	server.Handler = handler{dtlsserver.MultiHandler(user, l.events()), user, l}
	if err := server.Listen(network, address); err != nil {
		server.Handler = user
		return nil, err
	}
	l.addr = server.Addr()
	return l, nil
}

// handler is what Listen puts in the place of the user's handler.
type handler struct {
	dtlsserver.EventHandler
	user     dtlsserver.EventHandler // nil: none
	listener *Listener
}

// Listener is a net.Listener that accepts the sessions of a Server when their
// handshakes are complete. Its methods are safe for concurrent use. They return
// errors wrapped in a *net.OpError.
type Listener struct {
	server     *dtlsserver.Server
	addr       netip.AddrPort
	connBuffer int
	backlog    chan *Conn    // sent to under mu
	done       chan struct{} // closed when err is set

	dropped atomic.Uint64 // messages

	mu      sync.Mutex        // guards all following
	conns   map[session]*Conn // whose sessions are open
	err     error             // why Accept fails
	closed  bool              // Close was called
	stopped bool              // the server has: events are of another Listen
	refused uint64
}

// Accept waits for a session and returns its connection, a *Conn. It also returns
// a session that has ended in the meantime, because there may be messages to
// read. After Close, or when the server has been closed, Accept returns
// net.ErrClosed. If the server's socket has failed, it returns that error.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case <-l.done: // comes before what waits in the backlog
	default:
		select {
		case c := <-l.backlog:
			return c, nil
		case <-l.done:
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return nil, l.opError("accept", l.err)
}

// Close ends Accept and closes the connections that wait for it. Connections that
// were accepted stay open until they are closed or their sessions end. The last
// of them closes the server, and with it the socket. Until then, sessions of new
// peers are closed when their handshakes are complete. To end everything, call
// the server's Close, or Shutdown, which also waits; both close accepted
// connections too. Closing a Listener again returns net.ErrClosed.
func (l *Listener) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return l.opError("close", net.ErrClosed)
	}
	l.closed = true
	l.endLocked(net.ErrClosed)
	l.mu.Unlock()
	for {
		select {
		case c := <-l.backlog: // nothing is sent to it any more
			c.Close()
		default:
			l.forget(nil)
			return nil
		}
	}
}

// Addr returns the address that the server listens on, a *net.UDPAddr.
func (l *Listener) Addr() net.Addr { return net.UDPAddrFromAddrPort(l.addr) }

// Stats are the statistics of a Listener.
type Stats struct {
	// Conns is the number of connections with an open session, accepted or waiting.
	Conns int
	// Waiting is the number of connections that wait for Accept.
	Waiting int
	// Refused counts sessions that were closed because Backlog connections were
	// waiting, or because the Listener was closed.
	Refused uint64
	// Dropped counts messages that did not fit in the buffer of a connection.
	Dropped uint64
}

// Stats returns the Listener's statistics.
func (l *Listener) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Stats{Conns: len(l.conns), Waiting: len(l.backlog), Refused: l.refused, Dropped: l.dropped.Load()}
}

// events returns the handler by which the Listener follows its server. It runs
// on the serving loop and waits for nothing.
func (l *Listener) events() dtlsserver.EventHandler {
	return dtlsserver.HandlerFuncs{
		OnInfo: func(e dtlsserver.Event) {
			switch e.Kind {
			case dtlsserver.KindHandshakeComplete:
				l.opened(e.Session)
			case dtlsserver.KindSessionClosed:
				l.over(e.Session)
			case dtlsserver.KindStopped:
				l.serverStopped(e.Err)
			}
		},
		OnDatagramReceived: func(s *dtlsserver.Session, _, plainText []byte) {
			l.mu.Lock()
			c := l.conns[s]
			l.mu.Unlock()
			if c != nil {
				c.deliver(plainText)
			}
		},
	}
}

// opened makes a connection of a session, or closes it.
func (l *Listener) opened(s session) {
	c := newConn(l, s)
	if !l.enqueue(c) {
		s.Close()
	}
}

// enqueue reports whether the connection's session may stay.
func (l *Listener) enqueue(c *Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return true // not ours
	}
	if l.err == nil {
		select {
		case l.backlog <- c:
			l.conns[c.session] = c
			return true
		default:
		}
	}
	l.refused++
	return false
}

// over notes the end of a session.
func (l *Listener) over(s session) {
	l.mu.Lock()
	c := l.conns[s]
	l.mu.Unlock()
	if c != nil {
		l.forget(s)
		c.end()
	}
}

// serverStopped is called after the end of the last session.
func (l *Listener) serverStopped(reason error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
	if reason == nil {
		reason = net.ErrClosed
	}
	l.endLocked(reason)
}

// endLocked makes Accept fail with err.
func (l *Listener) endLocked(err error) {
	if l.err == nil {
		l.err = err
		close(l.done)
	}
}

// forget lets go of a session, if it is not nil, and of the server when it was
// the last after Close.
func (l *Listener) forget(s session) {
	l.mu.Lock()
	delete(l.conns, s)
	unused := l.closed && !l.stopped && len(l.conns) == 0
	l.mu.Unlock()
	if unused {
		l.server.Close()
	}
}

func (l *Listener) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "dtls", Addr: l.Addr(), Err: err}
}
