//go:build unix && !linux

package udpio

import (
	"net"
	"net/netip"
	"syscall"
)

func newNative(udp *net.UDPConn, local netip.Addr, _ func(Sent)) (socket, error) {
	return newPlain(udp, local)
}

// controlLen is zero: no control messages.
const controlLen = 0

// packetInfo does nothing: here a wildcard socket answers from the address
// that the system chooses.
type packetInfo struct{ v6 bool }

func (packetInfo) enable(syscall.RawConn) error         { return nil }
func (packetInfo) parse([]byte) netip.Addr              { return netip.Addr{} }
func (packetInfo) append(b []byte, _ netip.Addr) []byte { return b }
