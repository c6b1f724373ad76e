package udpio

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batchLen is how many datagrams one system call moves.
	batchLen = 32
	// keptBytes is how much may be kept to be sent together.
	keptBytes = MaxDatagram + 1
	// longestHold is how long datagrams are kept when whoever called hold does
	// not call release.
	longestHold = time.Millisecond
)

// batched is a UDP socket of Linux, read and written by recvmmsg(2) and
// sendmmsg(2). What these need is allocated once.
type batched struct {
	*plain // sends what is not kept

	in    *vector
	ms    []Message // of the receive under way
	n     int
	inErr error
	read  func(fd uintptr) bool

	sent func(Sent)

	outMu   sync.Mutex // guards all following; before plain.mu
	out     *vector
	holding bool
	timer   *time.Timer // ends a hold that lasts
	kept    []Sent      // what out holds
	room    []byte      // and where its bytes are
	from    int         // of out, how many have been sent
	outN    int
	outErr  error
	flushed func(fd uintptr) bool
}

// vector is what a system call for many datagrams needs.
type vector struct {
	headers  [batchLen]mmsghdr
	iovecs   [batchLen]unix.Iovec
	names    [batchLen]unix.RawSockaddrInet6 // the longer kind of address
	controls [batchLen][80]byte              // controlLen of them are used
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	msghdr unix.Msghdr
	len    uint32
}

// newNative returns a batched socket, or a plain one where the system calls are
// not to be had, as in some sandboxes.
func newNative(udp *net.UDPConn, local netip.Addr, sent func(Sent)) (socket, error) {
	p, err := newPlain(udp, local)
	if err != nil {
		return nil, err
	}
	var failed syscall.Errno
	err = p.raw.Control(func(fd uintptr) {
		if _, _, failed = unix.Syscall6(unix.SYS_RECVMMSG, fd, 0, 0, 0, 0, 0); failed == 0 {
			_, _, failed = unix.Syscall6(unix.SYS_SENDMMSG, fd, 0, 0, 0, 0, 0)
		}
	})
	switch {
	case err != nil:
		return nil, err
	case failed == unix.ENOSYS || failed == unix.EPERM:
		return p, nil
	}
	return newBatched(p, sent), nil
}

func newBatched(p *plain, sent func(Sent)) *batched {
	b := &batched{
		plain: p,
		in:    newVector(),
		out:   newVector(),
		sent:  sent,
		kept:  make([]Sent, 0, batchLen),
		room:  make([]byte, 0, keptBytes),
	}
	b.read = func(fd uintptr) bool {
		for {
			n, errno := b.in.call(unix.SYS_RECVMMSG, fd, 0, len(b.ms))
			switch {
			case errno == unix.EINTR:
				continue
			case errno == unix.EAGAIN:
				return false // package net waits for the socket, or its deadline
			case errno != 0:
				b.n, b.inErr = 0, os.NewSyscallError("recvmmsg", errno)
			default:
				b.n, b.inErr = n, nil
			}
			return true
		}
	}
	b.flushed = func(fd uintptr) bool {
		n, errno := b.out.call(unix.SYS_SENDMMSG, fd, b.from, len(b.kept))
		b.outN, b.outErr = n, nil
		if errno != 0 {
			b.outN, b.outErr = 0, errno
		}
		return true // also when the socket is full
	}
	b.timer = time.AfterFunc(time.Hour, b.heldLong)
	b.timer.Stop()
	return b
}

func newVector() *vector {
	v := new(vector)
	for i := range v.headers {
		h := &v.headers[i].msghdr
		h.Name = (*byte)(unsafe.Pointer(&v.names[i]))
		h.Iov = &v.iovecs[i]
		h.SetIovlen(1)
		h.Control = &v.controls[i][0]
	}
	return v
}

// call makes the system call for the datagrams from one to another. It does not
// wait, and moves at most batchLen datagrams, so the runtime is not told of it:
// after 20 us it would give the processor away, which costs more than the rest
// of the call.
func (v *vector) call(number, fd uintptr, from, to int) (n int, errno syscall.Errno) {
	r, _, errno := unix.RawSyscall6(number, fd, uintptr(unsafe.Pointer(&v.headers[from])), uintptr(to-from), unix.MSG_DONTWAIT, 0, 0)
	if errno == 0 && r == 0 {
		errno = unix.EIO // a sandbox that pretends; without progress callers would not end
	}
	return int(r), errno
}

func (b *batched) batch() int { return batchLen }

func (b *batched) receive(ms []Message) (int, error) {
	b.ms = ms[:min(len(ms), batchLen)]
	for i := range b.ms {
		b.in.iovecs[i].Base = unsafe.SliceData(ms[i].Buf)
		b.in.iovecs[i].SetLen(len(ms[i].Buf))
		h := &b.in.headers[i].msghdr
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(len(b.oob)) // zero without packet info
	}
	err := b.raw.Read(b.read)
	b.ms = nil
	if err == nil {
		err = b.inErr
	}
	if err != nil {
		return 0, err
	}
	for i := range b.n {
		h := &b.in.headers[i]
		m := &ms[i]
		m.N = int(h.len)
		m.Remote = b.address(&b.in.names[i])
		m.Local = b.info.parse(b.in.controls[i][:h.msghdr.Controllen])
		m.Truncated = h.msghdr.Flags&unix.MSG_TRUNC != 0
	}
	return b.n, nil
}

// address returns what the system says of a sender.
func (b *batched) address(name *unix.RawSockaddrInet6) netip.AddrPort {
	switch name.Family {
	case unix.AF_INET:
		name4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(name4.Addr), port(&name4.Port))
	case unix.AF_INET6:
		addr := netip.AddrFrom16(name.Addr).Unmap()
		if name.Scope_id != 0 && addr.Is6() {
			addr = addr.WithZone(b.zones.name(name.Scope_id))
		}
		return netip.AddrPortFrom(addr, port(&name.Port))
	}
	return netip.AddrPort{}
}

// send keeps the datagram if it may, and else sends it at once.
func (b *batched) send(data []byte, remote netip.AddrPort, local netip.Addr) (kept bool, err error) {
	b.outMu.Lock()
	if b.holding && len(data) <= keptBytes && (b.info.v6 || remote.Addr().Is4()) {
		b.keep(data, remote, local)
		b.outMu.Unlock()
		return true, nil
	}
	b.flush() // what came first goes first
	b.outMu.Unlock()
	return b.plain.send(data, remote, local)
}

// keep keeps a copy of the datagram.
func (b *batched) keep(data []byte, remote netip.AddrPort, local netip.Addr) {
	if len(b.kept) == batchLen || len(b.room)+len(data) > keptBytes {
		b.flush()
	}
	i, start := len(b.kept), len(b.room)
	b.kept = append(b.kept, Sent{Remote: remote, Local: local, Len: len(data)})
	b.room = append(b.room, data...)
	b.out.iovecs[i].Base = unsafe.SliceData(b.room[start:])
	b.out.iovecs[i].SetLen(len(data))
	h := &b.out.headers[i].msghdr
	if b.info.v6 {
		name := &b.out.names[i]
		*name = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: remote.Addr().As16(), Scope_id: b.zones.number(remote.Addr().Zone())}
		setPort(&name.Port, remote.Port())
		h.Namelen = unix.SizeofSockaddrInet6
	} else {
		name := (*unix.RawSockaddrInet4)(unsafe.Pointer(&b.out.names[i]))
		*name = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: remote.Addr().As4()}
		setPort(&name.Port, remote.Port())
		h.Namelen = unix.SizeofSockaddrInet4
	}
	control := b.out.controls[i][:0]
	if local.IsValid() {
		control = b.info.append(control, local)
	}
	h.SetControllen(len(control))
}

// flush sends what is kept. What the socket refuses does not hold up the rest.
func (b *batched) flush() {
	for b.from = 0; b.from < len(b.kept); {
		b.outN = 0 // a closed socket does not get to the system call
		err := b.raw.Write(b.flushed)
		if err == nil {
			err = b.outErr
		}
		if err == unix.EINTR {
			continue
		}
		for range b.outN {
			b.sent(b.kept[b.from])
			b.from++
		}
		if err != nil {
			b.kept[b.from].Err = sendError(err)
			b.sent(b.kept[b.from])
			b.from++
		}
	}
	b.kept, b.room = b.kept[:0], b.room[:0]
}

func (b *batched) hold() {
	b.outMu.Lock()
	defer b.outMu.Unlock()
	b.holding = true
	b.timer.Reset(longestHold)
}

func (b *batched) release() {
	b.outMu.Lock()
	defer b.outMu.Unlock()
	b.timer.Stop()
	b.holding = false
	b.flush()
}

// heldLong ends a hold that has lasted: somebody may be waiting for what is
// kept, even whoever is to release it.
func (b *batched) heldLong() { b.release() }

// port returns a port in network order.
func port(p *uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(p))
	return uint16(b[0])<<8 | uint16(b[1])
}

func setPort(p *uint16, port uint16) {
	b := (*[2]byte)(unsafe.Pointer(p))
	b[0], b[1] = byte(port>>8), byte(port)
}
