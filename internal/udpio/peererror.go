package udpio

import (
	"errors"
	"runtime"
	"syscall"
)

// IsPeerError reports whether a read has failed for what an earlier datagram met
// on its way to a peer, as some systems tell from ICMP. The socket is as good as
// before.
func IsPeerError(err error) bool {
	const wsaeconnreset = syscall.Errno(10054)
	for _, of := range []error{syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN} {
		if errors.Is(err, of) {
			return true
		}
	}
	return runtime.GOOS == "windows" && errors.Is(err, wsaeconnreset)
}
