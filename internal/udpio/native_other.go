//go:build !unix

package udpio

import (
	"errors"
	"net"
	"net/netip"
	"runtime"
	"syscall"
)

// native is a UDP socket of the system, read and written by package net.
type native struct{ udp *net.UDPConn }

func newNative(udp *net.UDPConn, _ netip.Addr) (*native, error) { return &native{udp}, nil }

func (n *native) receive(m *Message) error {
	size, from, err := n.udp.ReadFromUDPAddrPort(m.Buf)
	if err != nil {
		return err
	}
	m.N, m.Remote, m.Local, m.Truncated = size, unmap(from), netip.Addr{}, false
	return nil
}

func (n *native) send(b []byte, remote netip.AddrPort, _ netip.Addr) error {
	_, err := n.udp.WriteToUDPAddrPort(b, remote)
	return sendError(err)
}

func sendError(err error) error {
	const wsaEMSGSIZE = syscall.Errno(10040)
	if runtime.GOOS == "windows" && errors.Is(err, wsaEMSGSIZE) {
		return ErrTooLong
	}
	return err
}
