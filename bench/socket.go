//go:build linux

package main

// The socket of the load: one, bound to the wildcard address, that speaks for
// every address of 127.0.0.0/8 by packet info.

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// source is a client's address, 127.x.y.z, by its last three bytes.
type source uint32

// The sources lie between 127.1.0.0 and 127.255.0.0: the server is at
// 127.0.0.1, and 127.255.255.255 is for broadcasts.
const (
	firstSource source = 0x01_0000
	endSource   source = 0xff_0000
)

func (s source) addr() (a [4]byte) {
	binary.BigEndian.PutUint32(a[:], 127<<24|uint32(s))
	return a
}

func sourceOf(a [4]byte) source { return source(binary.BigEndian.Uint32(a[:]) & 0xff_ffff) }

// socket sends and receives for all sources. What is sent waits for flush.
type socket struct {
	fd      int
	server  netip.AddrPort
	in, out *batch
	queued  int
}

const (
	patience = 20 * time.Millisecond // of receive
	// pollPause is short against the time that a server takes for a window.
	pollPause = 20 * time.Microsecond
)

// socketBuffer is what the load and the reference servers ask for.
const socketBuffer = 4 << 20

func newSocket(server netip.AddrPort) (*socket, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := &socket{fd: fd, server: server, in: newBatch(true), out: newBatch(true)}
	for _, set := range []func() error{
		func() error { return setBuffers(fd) },
		func() error { return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1) },
		func() error { return unix.Bind(fd, &unix.SockaddrInet4{}) },
	} {
		if err := set(); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("the load's socket: %w", err)
		}
	}
	for i := range s.out.headers {
		s.out.setRemote(i, server)
	}
	return s, nil
}

func setBuffers(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, socketBuffer); err != nil {
		return err
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, socketBuffer)
}

func (s *socket) close() { unix.Close(s.fd) }

// buffer is the empty room for the next datagram.
func (s *socket) buffer() []byte {
	if s.queued == batchLen {
		s.flush()
	}
	return s.out.buffers[s.queued][:0]
}

// queue takes what was appended to the last buffer, to be sent from a source.
func (s *socket) queue(from source, datagram []byte) {
	s.out.vectors[s.queued].SetLen(len(datagram))
	s.out.setLocal(s.queued, from.addr())
	s.queued++
}

// send queues a copy of a datagram.
func (s *socket) send(from source, datagram []byte) {
	s.queue(from, append(s.buffer(), datagram...))
}

// flush sends what is queued. A datagram that the system refuses is lost, as
// any may be.
func (s *socket) flush() {
	for sent := 0; sent < s.queued; {
		n, errno := s.out.send(s.fd, sent, s.queued)
		switch {
		case errno == unix.EINTR:
		case errno != 0:
			sent++
		default:
			sent += n
		}
	}
	s.queued = 0
}

// receive waits for datagrams and returns their number, zero when there were
// none in that time. They are s.in's until the next call.
//
// It waits by the clock and not in the socket: waking a process costs the sender
// as much as sending, and a server would pay for how fast the load is.
func (s *socket) receive(within time.Duration) int {
	s.in.clear()
	pause := unix.NsecToTimespec(int64(pollPause))
	var begun time.Time
	for {
		if n, _ := s.in.receive(s.fd, unix.MSG_DONTWAIT); n > 0 {
			return n
		}
		if now := time.Now(); begun.IsZero() {
			begun = now
		} else if now.Sub(begun) > within {
			return 0
		}
		unix.Nanosleep(&pause, nil)
	}
}

// buffers are what the system has given the socket, in bytes.
func (s *socket) buffers() (receive, send int) {
	receive, _ = unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	send, _ = unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	return receive, send
}

// drain drops what has come.
func (s *socket) drain() {
	s.in.clear()
	for {
		if n, _ := s.in.receive(s.fd, unix.MSG_DONTWAIT); n == 0 {
			return
		}
	}
}
