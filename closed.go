package dtlsserver

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// closedSessions remembers for a while the addresses of sessions that were
// closed. What still comes from there, a client's answer to close_notify above
// all, is no stranger's junk. Of the addresses that fall into one row the latest
// are remembered. The zero closedSessions is empty.
type closedSessions [closedRows][4]struct {
	addresses uint64
	until     time.Duration // since loop.base
}

const (
	closedRows = 1024
	// closedFor is how long a client may take to answer close_notify.
	closedFor = 10 * time.Second
)

// digest makes a number of a pair of addresses. Whoever finds two pairs of one
// number gains that its junk is counted in another place.
func digest(remote netip.AddrPort, local netip.Addr) uint64 {
	var l [16]byte
	if local.IsValid() {
		l = local.As16()
	}
	r := remote.Addr().As16()
	n := uint64(remote.Port())
	for _, half := range [...][]byte{r[:8], r[8:], l[:8], l[8:]} {
		n = (n ^ binary.LittleEndian.Uint64(half)) * 0x9e3779b97f4a7c15
		n ^= n >> 29
	}
	return n
}

// put remembers the addresses of a session.
func (c *closedSessions) put(at path, now time.Duration) {
	n := digest(at.remote, at.local)
	row := &c[n%closedRows]
	oldest := &row[0]
	for i := range row {
		if row[i].until < oldest.until {
			oldest = &row[i]
		}
	}
	oldest.addresses, oldest.until = n, now+closedFor
}

// has reports whether a session of the addresses was closed a while ago.
func (c *closedSessions) has(remote netip.AddrPort, local netip.Addr, now time.Duration) bool {
	n := digest(remote, local)
	row := &c[n%closedRows]
	for i := range row {
		if row[i].addresses == n && now < row[i].until {
			return true
		}
	}
	return false
}
