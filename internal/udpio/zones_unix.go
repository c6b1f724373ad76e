//go:build unix

package udpio

import (
	"net"
	"strconv"
	"sync"
	"time"
)

// zones has the names of interfaces, which are the zones of link-local
// addresses (RFC 4007 section 11), and their numbers. To ask the system for
// each datagram would take too long.
type zones struct {
	mu      sync.Mutex // guards all following
	fresh   time.Time  // all is from no earlier
	names   map[uint32]string
	numbers map[string]uint32
}

// renewLocked forgets what was asked a while ago: interfaces may be renamed.
func (z *zones) renewLocked() {
	if now := time.Now(); z.names == nil || now.Sub(z.fresh) > time.Minute {
		z.names, z.numbers, z.fresh = make(map[uint32]string), make(map[string]uint32), now
	}
}

// name returns the name of an interface, as package net gives it.
func (z *zones) name(number uint32) string {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.renewLocked()
	name, ok := z.names[number]
	if !ok {
		name = strconv.Itoa(int(number))
		if i, err := net.InterfaceByIndex(int(number)); err == nil {
			name = i.Name
		}
		z.names[number] = name
	}
	return name
}

// number returns the number of an interface, or zero.
func (z *zones) number(name string) uint32 {
	if name == "" {
		return 0
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	z.renewLocked()
	if number, ok := z.numbers[name]; ok {
		return number
	}
	if i, err := net.InterfaceByName(name); err == nil {
		z.numbers[name] = uint32(i.Index)
		return uint32(i.Index)
	}
	n, _ := strconv.ParseUint(name, 10, 32) // or zero: there is no such interface now
	return uint32(n)
}
