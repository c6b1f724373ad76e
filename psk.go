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
// handshake, and once more if that was to resume a session and cannot. It runs
// off the serving loop, so it may block, for example on a database. At most
// Server.MaxHandshakes calls run at a time; only beyond that do others wait, and
// take turns by source. Its context is done when the handshake is given up or
// the server closes; a call that goes on regardless keeps its place among them.
// A call must not panic: nothing recovers it, and the program ends.
//
// For an identity that it does not know it returns ErrUnknownPSKIdentity, or
// an error that wraps it, or an empty key. The client cannot tell that from a
// wrong key, nor from any other error; the operator can: an unknown identity
// is a Warning, any other error is an Error event.
type PSKFunc func(ctx context.Context, req PSKRequest) (PSK, error)

// PSKRequest is what a PSKFunc knows of the client.
type PSKRequest struct {
	// Identity is psk_identity as the client sent it: any bytes, at most
	// Server.MaxPSKIdentityLen of them, perhaps none.
	Identity string
	// ServerName is the name that the client asks for (SNI, RFC 6066 section 3),
	// or empty. It is no more than a claim, as Identity is: where one identity
	// may be of several names, the key must be that of both.
	ServerName string
	// Remote is the client's address, which it has proven.
	Remote netip.AddrPort
	// Local is the address that the client wrote to.
	Local netip.AddrPort
}

// PSK is the answer of a PSKFunc. Its String, Format and LogValue methods show
// no key; of a PSK in an unexported field of something else, package fmt shows
// all, as of any value.
type PSK struct {
	// Key is the pre-shared key. The server reads it soon after the PSKFunc
	// has returned, and neither changes nor keeps it; a PSKFunc must not
	// change it later either. One that has only zero bytes, which is likely
	// one that was never set, is an error.
	Key []byte
	// Expires, when not zero, is when the key expires. It is then as unknown, and
	// sessions by it are closed, with ErrPSKExpired. It is compared with the clock
	// when the PSKFunc has returned; if that is set later, sessions do not follow.
	Expires time.Time
	// Value becomes Session.Value once the client has proven that it has the
	// key: an account, say.
	Value any
}

// String returns a text without the key.
func (k PSK) String() string { return fmt.Sprintf("PSK(%d bytes)", len(k.Key)) }

// GoString returns a text without the key.
func (k PSK) GoString() string { return k.String() }

// Format writes a text without the key, whatever the verb.
func (k PSK) Format(f fmt.State, _ rune) { fmt.Fprint(f, k.String()) }

// LogValue returns a text without the key (log/slog).
func (k PSK) LogValue() slog.Value { return slog.StringValue(k.String()) }

// StaticPSK returns a PSKFunc that looks identities up in a copy of keys.
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

// PSKFromCallback returns a PSKFunc that asks a plain function, as other DTLS
// libraries have it. The function owns the identity that it is given.
func PSKFromCallback(callback func(identity []byte) ([]byte, error)) PSKFunc {
	return func(_ context.Context, req PSKRequest) (PSK, error) {
		key, err := callback([]byte(req.Identity))
		return PSK{Key: key}, err
	}
}

// maxPSK is the longest pre-shared key (RFC 4279 section 2).
const maxPSK = 1<<16 - 1
