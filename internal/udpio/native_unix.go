//go:build unix

package udpio

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// plain is a UDP socket of the system, read and written one datagram at a
// time. Datagrams leave by a sendmsg of our own, since the one of package net
// waits while the socket is full.
type plain struct {
	udp   *net.UDPConn
	raw   syscall.RawConn
	info  packetInfo
	oob   []byte // of receive
	zones zones

	mu      sync.Mutex // guards what one send needs, so that none allocates
	data    []byte
	control []byte
	to      unix.Sockaddr
	to4     unix.SockaddrInet4
	to6     unix.SockaddrInet6
	err     error
	write   func(fd uintptr) bool
}

func newPlain(udp *net.UDPConn, local netip.Addr) (*plain, error) {
	raw, err := udp.SyscallConn()
	if err != nil {
		return nil, err
	}
	p := &plain{udp: udp, raw: raw, control: make([]byte, 0, controlLen)}
	p.info.v6 = !local.Is4()
	if local.IsUnspecified() {
		if err := p.info.enable(raw); err != nil {
			return nil, err
		}
		p.oob = make([]byte, controlLen)
	}
	p.write = func(fd uintptr) bool {
		_, p.err = unix.SendmsgN(int(fd), p.data, p.control, p.to, 0)
		return true // also when the socket is full: that is reported, not waited for
	}
	return p, nil
}

func (p *plain) batch() int { return 1 }

func (p *plain) receive(ms []Message) (int, error) {
	m := &ms[0]
	size, oobn, flags, from, err := p.udp.ReadMsgUDPAddrPort(m.Buf, p.oob)
	if err != nil {
		return 0, err
	}
	m.N = size
	m.Remote = unmap(from)
	m.Local = p.info.parse(p.oob[:oobn])
	m.Truncated = flags&unix.MSG_TRUNC != 0
	return 1, nil
}

func (p *plain) send(b []byte, remote netip.AddrPort, local netip.Addr) (kept bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.data = b
	p.control = p.control[:0]
	if local.IsValid() {
		p.control = p.info.append(p.control, local)
	}
	if p.info.v6 {
		p.to6 = unix.SockaddrInet6{Port: int(remote.Port()), ZoneId: p.zones.number(remote.Addr().Zone()), Addr: remote.Addr().As16()}
		p.to = &p.to6
	} else if remote.Addr().Is4() {
		p.to4 = unix.SockaddrInet4{Port: int(remote.Port()), Addr: remote.Addr().As4()}
		p.to = &p.to4
	} else {
		return false, unix.EAFNOSUPPORT
	}
	for {
		if err := p.raw.Write(p.write); err != nil {
			return false, err
		}
		if p.err != unix.EINTR {
			return false, sendError(p.err)
		}
	}
}

func (*plain) stopWaiting(time.Time) {} // it never waits

func sendError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOBUFS):
		return ErrFull
	case errors.Is(err, unix.EMSGSIZE):
		return ErrTooLong
	default:
		return err
	}
}
