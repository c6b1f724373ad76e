//go:build unix

package udpio

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// native is a UDP socket of the system. Datagrams leave by a sendmsg of our
// own, since the one of package net waits while the socket is full.
type native struct {
	udp  *net.UDPConn
	raw  syscall.RawConn
	info packetInfo
	oob  []byte // of Receive

	mu      sync.Mutex // guards what one send needs, so that none allocates
	data    []byte
	control []byte
	to      unix.Sockaddr
	to4     unix.SockaddrInet4
	to6     unix.SockaddrInet6
	err     error
	write   func(fd uintptr) bool
}

func newNative(udp *net.UDPConn, local netip.Addr) (*native, error) {
	raw, err := udp.SyscallConn()
	if err != nil {
		return nil, err
	}
	n := &native{udp: udp, raw: raw, control: make([]byte, 0, controlLen)}
	n.info.v6 = !local.Is4()
	if local.IsUnspecified() {
		if err := n.info.enable(raw); err != nil {
			return nil, err
		}
		n.oob = make([]byte, controlLen)
	}
	n.write = func(fd uintptr) bool {
		_, n.err = unix.SendmsgN(int(fd), n.data, n.control, n.to, 0)
		return true // also when the socket is full: that is reported, not waited for
	}
	return n, nil
}

func (n *native) receive(m *Message) error {
	size, oobn, flags, from, err := n.udp.ReadMsgUDPAddrPort(m.Buf, n.oob)
	if err != nil {
		return err
	}
	m.N = size
	m.Remote = unmap(from)
	m.Local = n.info.parse(n.oob[:oobn])
	m.Truncated = flags&unix.MSG_TRUNC != 0
	return nil
}

func (n *native) send(b []byte, remote netip.AddrPort, local netip.Addr) error {
	if remote.Addr().Zone() != "" {
		// Package net knows the numbers of interfaces by name.
		_, err := n.udp.WriteToUDPAddrPort(b, remote)
		return sendError(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.data = b
	n.control = n.control[:0]
	if local.IsValid() {
		n.control = n.info.append(n.control, local)
	}
	if n.info.v6 {
		n.to6 = unix.SockaddrInet6{Port: int(remote.Port()), Addr: remote.Addr().As16()}
		n.to = &n.to6
	} else if remote.Addr().Is4() {
		n.to4 = unix.SockaddrInet4{Port: int(remote.Port()), Addr: remote.Addr().As4()}
		n.to = &n.to4
	} else {
		return unix.EAFNOSUPPORT
	}
	for {
		if err := n.raw.Write(n.write); err != nil {
			return err
		}
		if n.err != unix.EINTR {
			return sendError(n.err)
		}
	}
}

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
