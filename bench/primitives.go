//go:build linux

package main

// What cannot be had cheaper, measured in the same run: it tells whether two
// runs were made on machines of the same speed.

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"time"

	"golang.org/x/sys/unix"
)

// primitives are CPU times.
type primitives struct {
	aead     map[int]time.Duration // seal and open, by the length of the content
	hmac     time.Duration         // HMAC-SHA-256 of 100 bytes with a state that is reused
	datagram time.Duration         // a send and a receive
}

// echo is what the AEAD costs an echo of n bytes, in microseconds.
func (p primitives) echo(n int) float64 { return p.aead[n].Seconds() * 1e6 }

func measurePrimitives() (primitives, error) {
	p := primitives{aead: make(map[int]time.Duration)}
	for _, n := range []int{64, 1024} {
		d, err := aeadCost(n)
		if err != nil {
			return p, err
		}
		p.aead[n] = d
	}
	mac := hmac.New(sha256.New, make([]byte, 32))
	message, sum := make([]byte, 100), make([]byte, 0, sha256.Size)
	p.hmac = cpuTime(100_000, func() {
		mac.Reset()
		mac.Write(message)
		sum = mac.Sum(sum[:0])
	})
	var err error
	p.datagram, err = datagramCost()
	return p, err
}

// cpuTime is the CPU time of this process that f takes, the least of three
// means.
func cpuTime(n int, f func()) time.Duration {
	least := time.Duration(-1)
	for range 3 {
		begin := ownCPU()
		for range n {
			f()
		}
		if d := (ownCPU() - begin) / time.Duration(n); least < 0 || d < least {
			least = d
		}
	}
	return least
}

func ownCPU() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		panic(err) // the clock is always there
	}
	return time.Duration(ts.Nano())
}

// aeadCost is the cost of sealing and opening n bytes.
func aeadCost(n int) (time.Duration, error) {
	block, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		return 0, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return 0, err
	}
	nonce, additional := make([]byte, aead.NonceSize()), make([]byte, 13)
	content, sealed, opened := make([]byte, n), make([]byte, 0, slotLen), make([]byte, 0, slotLen)
	d := cpuTime(50_000, func() {
		sealed = aead.Seal(sealed[:0], nonce, content, additional)
		var openErr error
		if opened, openErr = aead.Open(opened[:0], nonce, sealed, additional); openErr != nil {
			err = openErr
		}
	})
	return d, err
}

// datagramCost is the cost of a datagram that a socket sends to itself.
func datagramCost() (time.Duration, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, err
	}
	self, err := unix.Getsockname(fd)
	if err != nil {
		return 0, err
	}
	buf := make([]byte, 64)
	d := cpuTime(10_000, func() {
		if sendErr := unix.Sendto(fd, buf, 0, self); sendErr != nil {
			err = sendErr
			return
		}
		if _, readErr := unix.Read(fd, buf); readErr != nil {
			err = readErr
		}
	})
	return d, err
}
