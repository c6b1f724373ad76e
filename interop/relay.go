package interop

// A relay between clients and a server, over UDP on the loopback interface. It
// decides about each datagram by where it goes, its number and what it holds,
// so that a test is lossy in the same way each time.

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// direction says where a datagram goes.
type direction int

const (
	toServer direction = iota
	toClient
)

func (d direction) String() string { return [...]string{"to the server", "to the client"}[d] }

// datagram is what a relay decides about.
type datagram struct {
	flow int       // of the client's socket; counts from 1
	to   direction // of the flow
	n    int       // in its direction of its flow; counts from 1
	data []byte
}

// verdict is what happens to a datagram.
type verdict int

const (
	pass verdict = iota
	drop
	hold // until another one has passed in its direction, which it follows
)

func (v verdict) String() string { return [...]string{"passed", "dropped", "held"}[v] }

// relay is a UDP relay. Each client's socket is a flow and has a socket towards
// the server, so that the server sees as many clients.
type relay struct {
	front  *net.UDPConn
	server *net.UDPAddr
	start  time.Time
	wait   sync.WaitGroup

	mu     sync.Mutex // guards all following
	decide func(datagram) verdict
	flows  map[netip.AddrPort]*flow
	seen   []datagram
	log    strings.Builder
	closed bool
}

// flow is a client's socket.
type flow struct {
	relay  *relay
	number int
	client netip.AddrPort
	back   *net.UDPConn // connected to the server
	count  [2]int       // by direction, as held
	held   [2][][]byte
}

// newRelay starts a relay to a server. It calls decide for one datagram after
// the other, in the order in which they come.
func newRelay(server string, decide func(datagram) verdict) (*relay, error) {
	addr, err := net.ResolveUDPAddr("udp", server)
	if err != nil {
		return nil, err
	}
	front, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	r := &relay{front: front, server: addr, start: time.Now(), decide: decide, flows: make(map[netip.AddrPort]*flow)}
	r.wait.Go(r.run)
	return r, nil
}

// addr is the address that clients connect to.
func (r *relay) addr() string { return r.front.LocalAddr().String() }

// close ends the relay and waits for its goroutines.
func (r *relay) close() {
	r.mu.Lock()
	r.closed = true
	r.front.Close()
	for _, f := range r.flows {
		f.back.Close()
	}
	r.mu.Unlock()
	r.wait.Wait()
}

// datagrams returns what has come so far, in its order, passed or not.
func (r *relay) datagrams() []datagram {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.seen)
}

// String returns a line for each datagram so far, up to maxLog bytes of them.
func (r *relay) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.String()
}

const maxLog = 4 << 10

func (r *relay) run() {
	b := make([]byte, 1<<16)
	for {
		n, from, err := r.front.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		r.mu.Lock()
		if f := r.flowLocked(from); f != nil {
			f.relayLocked(toServer, b[:n])
		}
		r.mu.Unlock()
	}
}

// flowLocked returns the flow of a client, or nil if there can be none.
func (r *relay) flowLocked(client netip.AddrPort) *flow {
	if f := r.flows[client]; f != nil || r.closed {
		return f
	}
	back, err := net.DialUDP("udp", nil, r.server)
	if err != nil {
		return nil
	}
	f := &flow{relay: r, number: len(r.flows) + 1, client: client, back: back}
	r.flows[client] = f
	r.wait.Go(f.run)
	return f
}

func (f *flow) run() {
	b := make([]byte, 1<<16)
	for {
		n, err := f.back.Read(b)
		if err != nil {
			return // an ICMP error too: the server is gone
		}
		f.relay.mu.Lock()
		f.relayLocked(toClient, b[:n])
		f.relay.mu.Unlock()
	}
}

// relayLocked does with a datagram as is decided.
func (f *flow) relayLocked(to direction, b []byte) {
	f.count[to]++
	d := datagram{flow: f.number, to: to, n: f.count[to], data: bytes.Clone(b)}
	f.relay.seen = append(f.relay.seen, d)
	v := f.relay.decide(d)
	if line := fmt.Sprintf("%5d ms: %v, %v\n", time.Since(f.relay.start).Milliseconds(), d, v); f.relay.log.Len()+len(line) <= maxLog {
		f.relay.log.WriteString(line)
	}
	switch v {
	case pass:
		f.sendLocked(to, d.data)
		for _, held := range f.held[to] {
			f.sendLocked(to, held)
		}
		f.held[to] = nil
	case hold:
		f.held[to] = append(f.held[to], d.data)
	}
}

// sendLocked sends a datagram on. What cannot be sent is lost, as the network
// may lose it.
func (f *flow) sendLocked(to direction, b []byte) {
	if to == toServer {
		f.back.Write(b)
	} else {
		f.relay.front.WriteToUDPAddrPort(b, f.client)
	}
}

// String says which datagram it is and what records are in it.
func (d datagram) String() string {
	var records []string
	for _, r := range d.records() {
		records = append(records, r.String())
	}
	return fmt.Sprintf("%d %v #%d, %d bytes: %s", d.flow, d.to, d.n, len(d.data), strings.Join(records, " + "))
}

// plainRecord is what can be read of a record without keys (RFC 6347 section
// 4.1).
type plainRecord struct {
	contentType byte
	epoch       uint16
	payload     []byte
}

const (
	changeCipherSpec byte = 20
	alert            byte = 21
	handshake        byte = 22
	applicationData  byte = 23

	clientHello byte = 1

	messageHeader = 12 // bytes (RFC 6347 section 4.2.2)
)

// records returns the whole records of a datagram.
func (d datagram) records() (records []plainRecord) {
	const header = 13
	for b := d.data; len(b) >= header; {
		n := int(b[11])<<8 | int(b[12])
		if len(b) < header+n {
			break
		}
		records = append(records, plainRecord{b[0], uint16(b[3])<<8 | uint16(b[4]), b[header : header+n]})
		b = b[header+n:]
	}
	return records
}

// has reports whether a record of the type and epoch is in the datagram.
func (d datagram) has(contentType byte, epoch uint16) bool {
	return slices.ContainsFunc(d.records(), func(r plainRecord) bool { return r.contentType == contentType && r.epoch == epoch })
}

// hasMessage reports whether a plaintext message of a handshake, or a part of it,
// is in the datagram.
func (d datagram) hasMessage(messageType byte) bool {
	return slices.ContainsFunc(d.records(), func(r plainRecord) bool {
		return r.contentType == handshake && r.epoch == 0 && len(r.payload) >= messageHeader && r.payload[0] == messageType
	})
}

// hasFinished reports whether an encrypted message of a handshake is in the
// datagram: of the handshakes that there are here, a Finished.
func (d datagram) hasFinished() bool { return d.has(handshake, 1) }

var messageNames = map[byte]string{
	1: "ClientHello", 2: "ServerHello", 3: "HelloVerifyRequest", 4: "NewSessionTicket", 11: "Certificate", 12: "ServerKeyExchange",
	13: "CertificateRequest", 14: "ServerHelloDone", 15: "CertificateVerify", 16: "ClientKeyExchange", 22: "CertificateStatus",
}

// String returns the name of the record's message, with a mark if that is but a
// fragment (RFC 6347 section 4.2.2), or of its content type.
func (r plainRecord) String() string {
	switch {
	case r.contentType == changeCipherSpec:
		return "ChangeCipherSpec"
	case r.contentType == handshake && r.epoch == 1:
		return "Finished"
	case r.contentType == handshake && r.epoch == 0 && len(r.payload) >= messageHeader:
		name := messageNames[r.payload[0]]
		if name == "" {
			name = fmt.Sprintf("message %d", r.payload[0])
		}
		if r.isFragment() {
			name = "part of " + name
		}
		return name
	case r.contentType == alert && r.epoch == 0 && len(r.payload) == 2:
		return fmt.Sprintf("alert %d", r.payload[1])
	case r.contentType == alert:
		return "alert"
	case r.contentType == applicationData:
		return "data"
	}
	return fmt.Sprintf("content type %d of epoch %d", r.contentType, r.epoch)
}

// isFragment reports whether the record has a part of a plaintext message of a
// handshake.
func (r plainRecord) isFragment() bool {
	p := r.payload
	return r.contentType == handshake && r.epoch == 0 && len(p) >= messageHeader && !bytes.Equal(p[1:4], p[9:12])
}
