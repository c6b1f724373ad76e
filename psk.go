package dtlsserver

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"time"
)

// PSKFunc finds the pre-shared key of a client (RFC 4279). It is called once in a
// handshake, and a second time if the handshake was to resume a session and
// cannot. It runs off the serving loop, so it may block, for example on a
// database. At most Server.MaxHandshakes calls run at a time; beyond that, others
// wait and take turns by source. ctx is done when the handshake is given up or
// the server is closed. A call that continues nevertheless still counts against
// that limit. A PSKFunc must not panic: a panic is not recovered and ends the
// program.
//
// For an unknown identity, a PSKFunc returns ErrUnknownPSKIdentity, an error that
// wraps it, or an empty key. To the client, this and any other error look like a
// wrong key. The operator can distinguish them: an unknown identity is a Warning
// event, any other error an Error event.
type PSKFunc func(ctx context.Context, req PSKRequest) (PSK, error)

// PSKRequest is the argument of a PSKFunc. It describes the client.
type PSKRequest struct {
	// Identity is the psk_identity that the client sent: any bytes, at most
	// Server.MaxPSKIdentityLen, possibly none.
	Identity string
	// ServerName is the name that the client asks for (SNI, RFC 6066 section 3), or
	// empty. Like Identity, it is not proven: if an identity may use several names,
	// its key must be the same for all of them.
	ServerName string
	// Remote is the client's address, which it has proven.
	Remote netip.AddrPort
	// Local is the address that the client wrote to.
	Local netip.AddrPort
}

// PSK is the result of a PSKFunc. Its String, Format and LogValue methods do not
// show the key. Package fmt does not call them for a PSK in an unexported field
// of another struct, and shows the key.
type PSK struct {
	// Key is the pre-shared key. The server reads it soon after the PSKFunc has
	// returned, and neither changes nor keeps it. The PSKFunc must not change it
	// afterwards. A key of only zero bytes, which was probably never set, is an
	// error.
	Key []byte
	// Expires, if not zero, is when the key expires. From then on its identity is
	// treated as unknown, and its sessions are closed with ErrPSKExpired. Expires is
	// compared with the clock when the PSKFunc has returned; sessions do not follow
	// later changes of the clock.
	Expires time.Time
	// Value becomes Session.Value once the client has proven that it has the key,
	// unless SetValue was called before. It may be an account, for example.
	Value any
}

// String returns a description without the key.
func (k PSK) String() string { return fmt.Sprintf("PSK(%d bytes)", len(k.Key)) }

// GoString returns a description without the key.
func (k PSK) GoString() string { return k.String() }

// Format writes a description without the key, whatever the verb.
func (k PSK) Format(f fmt.State, _ rune) { fmt.Fprint(f, k.String()) }

// LogValue returns a description without the key, for log/slog.
func (k PSK) LogValue() slog.Value { return slog.StringValue(k.String()) }

// StaticPSK returns a PSKFunc that looks up identities in a copy of keys.
func StaticPSK(keys map[string][]byte) PSKFunc {
	keys = maps.Clone(keys)
	for identity, key := range keys {
		keys[identity] = bytes.Clone(key)
	}
	return func(_ context.Context, req PSKRequest) (PSK, error) {
		key, ok := keys[req.Identity]
		if !ok {
			return PSK{}, ErrUnknownPSKIdentity
		}
		return PSK{Key: key}, nil
	}
}

// PSKFromCallback returns a PSKFunc that calls callback, in the form that other
// DTLS libraries use. The callback owns the identity that it is passed.
func PSKFromCallback(callback func(identity []byte) ([]byte, error)) PSKFunc {
	return func(_ context.Context, req PSKRequest) (PSK, error) {
		key, err := callback([]byte(req.Identity))
		return PSK{Key: key}, err
	}
}

// maxPSK is the longest pre-shared key (RFC 4279 section 2).
const maxPSK = 1<<16 - 1
