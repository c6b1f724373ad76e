//go:build linux

package main

// What both versions of pion/dtls need as servers: a goroutine for each client.

import (
	"net"
	"sync"
)

// pionBacklog is how many clients may wait for Accept, where that can be set.
const pionBacklog = 4096

type pion struct {
	net.Listener
	mu    sync.Mutex // guards conns
	conns map[net.Conn]struct{}
}

// servePion accepts clients, shakes hands and echoes.
func servePion(l net.Listener, handshake func(net.Conn) (net.Conn, error)) service {
	p := &pion{Listener: l, conns: make(map[net.Conn]struct{})}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(conn, handshake)
		}
	}()
	return p
}

func (p *pion) serve(inner net.Conn, handshake func(net.Conn) (net.Conn, error)) {
	conn, err := handshake(inner)
	if err != nil {
		inner.Close()
		return
	}
	p.mu.Lock()
	p.conns[conn] = struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.conns, conn)
		p.mu.Unlock()
		conn.Close()
	}()
	buf := make([]byte, slotLen)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		if _, err := conn.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (p *pion) port() uint16 { return p.Addr().(*net.UDPAddr).AddrPort().Port() }

func (p *pion) close() {
	p.mu.Lock()
	conns := make([]net.Conn, 0, len(p.conns))
	for c := range p.conns {
		conns = append(conns, c)
	}
	p.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}
