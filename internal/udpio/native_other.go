//go:build !unix

package udpio

import (
	"errors"
	"net"
	"net/netip"
	"runtime"
	"syscall"
	"time"
)

// native is a UDP socket of the system, read and written by package net.
type native struct{ udp *net.UDPConn }

func newNative(udp *net.UDPConn, _ netip.Addr, _ func(Sent)) (socket, error) {
	return &native{udp}, nil
}

func (n *native) batch() int { return 1 }

func (n *native) receive(ms []Message) (int, error) {
	m := &ms[0]
	size, from, err := n.udp.ReadFromUDPAddrPort(m.Buf)
	if err != nil {
		return 0, err
	}
	m.N, m.Remote, m.Local, m.Truncated = size, unmap(from), netip.Addr{}, false
	return 1, nil
}

func (n *native) send(b []byte, remote netip.AddrPort, _ netip.Addr) (kept bool, err error) {
	_, err = n.udp.WriteToUDPAddrPort(b, remote)
	return false, sendError(err)
}

func (*native) stopWaiting(time.Time) {} // the system does not wait

func sendError(err error) error {
	const wsaEMSGSIZE = syscall.Errno(10040)
	if runtime.GOOS == "windows" && errors.Is(err, wsaEMSGSIZE) {
		return ErrTooLong
	}
	return err
}
