//go:build linux

package main

// Datagrams in batches, by recvmmsg and sendmmsg on arrays that are made once.

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batchLen is how many datagrams one system call takes at most.
const batchLen = 64

// slotLen is the room for a datagram.
const slotLen = 2048

// mmsghdr is struct mmsghdr.
type mmsghdr struct {
	unix.Msghdr
	n uint32
	_ [unsafe.Sizeof(uintptr(0)) - 4]byte
}

// controlLen is the room for one IP_PKTINFO.
var controlLen = unix.CmsgSpace(unix.SizeofInet4Pktinfo)

// batch is a row of datagrams with their addresses. All of it is allocated by
// newBatch.
type batch struct {
	headers  [batchLen]mmsghdr
	vectors  [batchLen]unix.Iovec
	names    [batchLen]unix.RawSockaddrInet4
	buffers  [batchLen][slotLen]byte
	controls [batchLen][]byte // nil: no packet info
}

func newBatch(packetInfo bool) *batch {
	b := new(batch)
	for i := range b.headers {
		b.vectors[i].Base = &b.buffers[i][0]
		h := &b.headers[i]
		h.Iov = &b.vectors[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		h.Namelen = unix.SizeofSockaddrInet4
		if packetInfo {
			b.controls[i] = make([]byte, controlLen)
			h.Control = &b.controls[i][0]
			h.SetControllen(controlLen)
		}
	}
	b.clear()
	return b
}

// clear makes room for receiving.
func (b *batch) clear() {
	for i := range b.headers {
		b.vectors[i].SetLen(slotLen)
		b.headers[i].Namelen = unix.SizeofSockaddrInet4
		if b.controls[i] != nil {
			b.headers[i].SetControllen(controlLen)
		}
	}
}

// receive fills the batch from its beginning. It returns how many datagrams
// came.
func (b *batch) receive(fd int, flags int) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.headers[0])),
		batchLen, uintptr(flags), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// send sends the datagrams from first to end. It returns how many were sent.
func (b *batch) send(fd int, first, end int) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.headers[first])),
		uintptr(end-first), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// received is the i-th datagram of those that receive got.
func (b *batch) received(i int) []byte { return b.buffers[i][:b.headers[i].n] }

// remote is the address that the i-th datagram came from.
func (b *batch) remote(i int) netip.AddrPort {
	name := &b.names[i]
	port := (*[2]byte)(unsafe.Pointer(&name.Port))
	return netip.AddrPortFrom(netip.AddrFrom4(name.Addr), binary.BigEndian.Uint16(port[:]))
}

// setRemote is where the i-th datagram goes.
func (b *batch) setRemote(i int, a netip.AddrPort) {
	name := &b.names[i]
	name.Family = unix.AF_INET
	name.Addr = a.Addr().As4()
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&name.Port))[:], a.Port())
	b.headers[i].Namelen = unix.SizeofSockaddrInet4
}

// local is the address that the i-th datagram was sent to.
func (b *batch) local(i int) (a [4]byte) {
	if b.headers[i].Controllen < unix.SizeofCmsghdr+unix.SizeofInet4Pktinfo {
		return a
	}
	info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&b.controls[i][unix.CmsgLen(0)]))
	return info.Addr
}

// setLocal is the address that the i-th datagram leaves from.
func (b *batch) setLocal(i int, a [4]byte) {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b.controls[i][0]))
	h.Level = unix.IPPROTO_IP
	h.Type = unix.IP_PKTINFO
	h.SetLen(unix.CmsgLen(unix.SizeofInet4Pktinfo))
	*(*unix.Inet4Pktinfo)(unsafe.Pointer(&b.controls[i][unix.CmsgLen(0)])) = unix.Inet4Pktinfo{Spec_dst: a}
	b.headers[i].SetControllen(controlLen)
}
