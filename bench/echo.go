//go:build linux

package main

// Plain UDP echoes: what the system and the runtime take for a datagram in and
// a datagram out.

import (
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

type echo struct{ *net.UDPConn }

func listenUDP() (*net.UDPConn, error) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	conn.SetReadBuffer(socketBuffer)
	conn.SetWriteBuffer(socketBuffer)
	return conn, nil
}

func (e echo) port() uint16 { return e.LocalAddr().(*net.UDPAddr).AddrPort().Port() }
func (e echo) close()       { e.Close() }

// serveEcho reads and writes one datagram at a time.
func serveEcho(credentials) (service, error) {
	conn, err := listenUDP()
	if err != nil {
		return nil, err
	}
	go func() {
		buf := make([]byte, slotLen)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			conn.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	return echo{conn}, nil
}

// serveBatched reads and writes in batches. Each datagram's address is read
// and written as a server would have to, or with floor not even that.
func serveBatched(floor bool) (service, error) {
	conn, err := listenUDP()
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	go func() {
		b := newBatch(false)
		var n, sent int
		read := func(fd uintptr) bool {
			var errno unix.Errno
			n, errno = b.receive(int(fd), unix.MSG_DONTWAIT)
			return errno != unix.EAGAIN && errno != unix.EINTR
		}
		write := func(fd uintptr) bool {
			m, errno := b.send(int(fd), sent, n)
			switch errno {
			case 0:
				sent += m
			case unix.EAGAIN, unix.EINTR:
				return errno == unix.EINTR
			default:
				sent++ // refused
			}
			return true
		}
		var from [batchLen]netip.AddrPort
		for {
			b.clear()
			if err := raw.Read(read); err != nil {
				return
			}
			for i := range n {
				b.vectors[i].SetLen(int(b.headers[i].n))
				if !floor {
					from[i] = b.remote(i)
					b.setRemote(i, from[i])
				}
			}
			for sent = 0; sent < n; {
				if err := raw.Write(write); err != nil {
					return
				}
			}
		}
	}()
	return echo{conn}, nil
}
