package udpio

import (
	"encoding/binary"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// controlLen holds the control messages of both families.
var controlLen = unix.CmsgSpace(unix.SizeofInet6Pktinfo) + unix.CmsgSpace(unix.SizeofInet4Pktinfo)

// packetInfo says which local address a datagram came to, and makes an answer
// leave from it: IP_PKTINFO (ip(7)) and IPV6_PKTINFO (RFC 3542 section 6). An
// IPv6 socket takes IPv4 addresses mapped; asked for both, it gives both for an
// IPv4 datagram.
type packetInfo struct{ v6 bool }

func (p packetInfo) enable(raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		if p.v6 { // without the former, only broadcasts are answered wrongly
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		}
	})
	if err != nil {
		return err
	}
	return failed
}

// parse returns the local address that a received datagram's control messages
// name, or the zero Addr.
func (p packetInfo) parse(oob []byte) (local netip.Addr) {
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			break
		}
		oob = rest
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			// ipi_spec_dst: for a broadcast, too, the address to answer from.
			return netip.AddrFrom4([4]byte(data[4:8]))
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			if a := netip.AddrFrom16([16]byte(data[:16])).Unmap(); !a.IsMulticast() {
				local = a
			}
		}
	}
	return local
}

// append appends the control message that makes a datagram leave from local.
func (p packetInfo) append(b []byte, local netip.Addr) []byte {
	if p.v6 {
		b = appendCmsgHeader(b, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
		a := local.As16()
		b = append(b, a[:]...)
		return append(b, 0, 0, 0, 0) // ipi6_ifindex: any
	}
	b = appendCmsgHeader(b, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
	a := local.As4()
	b = append(b, 0, 0, 0, 0)    // ipi_ifindex: any
	b = append(b, a[:]...)       // ipi_spec_dst
	return append(b, 0, 0, 0, 0) // ipi_addr, unused when sending
}

// appendCmsgHeader appends a cmsghdr: the length in the machine's word size,
// level and type in ints. A control buffer of controlLen holds either message
// with its padding.
func appendCmsgHeader(b []byte, level, typ int32, length int) []byte {
	total := unix.CmsgLen(length)
	if unix.SizeofPtr == 8 {
		b = binary.NativeEndian.AppendUint64(b, uint64(total))
	} else {
		b = binary.NativeEndian.AppendUint32(b, uint32(total))
	}
	b = binary.NativeEndian.AppendUint32(b, uint32(level))
	return binary.NativeEndian.AppendUint32(b, uint32(typ))
}
