package dtlsserver

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"hash"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/engine"
)

// MinVerifierSecretLen is the minimum length in bytes of a Verifier's secret.
const MinVerifierSecretLen = 32

const (
	// cookieLen is the length of a cookie. Some clients refuse or drop longer
	// ones, and a longer one would make the answer as long as the smallest first
	// fragment of a hello, of 61 bytes.
	cookieLen = 32
	// cookieInterval is how long one cookie key is used. A cookie is good in
	// the interval that it was made in and in the two beside it.
	cookieInterval = 30 * time.Second
	// cookieHead is the length of what stands in front of the HMAC: the lowest
	// byte of the interval's number, and the lowest two of the time in ms.
	cookieHead = 1 + 2
	// wrongCookieWait is how old a cookie that is wrong says it is at least, for
	// it to be answered by another. See VerdictWrongCookie.
	wrongCookieWait = time.Second
	// cookieDomain keeps cookies apart from other uses of the secret.
	cookieDomain = "dtlsserver cookie 2"
)

// Verdict is the result of Verifier.Verify for a datagram.
type Verdict uint8

// The verdicts.
const (
	// VerdictNotHello means that the datagram does not begin with a ClientHello.
	// Drop it.
	VerdictNotHello Verdict = iota
	// VerdictChallenge means that the sender has not proven its address. Send it the
	// answer.
	VerdictChallenge
	// VerdictVerified means that the sender has proven its address, and a handshake
	// may start. A Server starts it by itself.
	VerdictVerified
	// VerdictWrongCookie means that the hello returns a cookie of the last second
	// that is not valid for it. Drop it. Some clients change, in each hello, what
	// the cookie depends on; answering each with a new cookie would be an endless
	// exchange at the speed of the network. A client that has lost its cookie for
	// another reason sends its hello again, and is answered when the cookie is a
	// second old.
	VerdictWrongCookie
)

// String returns the verdict's name.
func (v Verdict) String() string {
	switch v {
	case VerdictNotHello:
		return "NotHello"
	case VerdictChallenge:
		return "Challenge"
	case VerdictVerified:
		return "Verified"
	case VerdictWrongCookie:
		return "WrongCookie"
	}
	return fmt.Sprintf("Verdict(%d)", uint8(v))
}

// Verifier makes clients prove that they receive at the address that they send
// from, before the server keeps any state for them. This is the stateless cookie
// exchange of DTLS (RFC 6347 section 4.2.1).
//
// A cookie consists of the time and an HMAC-SHA-256, truncated to 29 bytes, of
// the client's address and port, the time, and the version and random of its
// hello. These do not change in the second hello, and are in its first fragment.
// The HMAC's key is derived from the secret and the time, and changes every 30 s.
// A cookie is valid for 30 to 60 s. A cookie made by a clock that is up to 30 s
// ahead is also accepted. Servers with the same secret accept each other's
// cookies.
//
// A Verifier keeps no state for clients. It may be used by several goroutines and
// several servers at the same time. Verifiers are created by NewVerifier; the
// zero value is not usable.
type Verifier struct {
	scope   []byte
	secrets *atomic.Pointer[[][]byte] // current first; shared with WithScope's
	pool    sync.Pool                 // of *cookieMAC
}

// NewVerifier returns a Verifier with a secret of at least MinVerifierSecretLen
// random bytes. Cookies made with one of the previous secrets are still accepted.
// A secret that is too short, a secret of only zeros, which was probably never
// set, and two equal secrets are errors, which number the secrets from 0, the
// current one. The secrets are copied.
func NewVerifier(secret []byte, previous ...[]byte) (*Verifier, error) {
	v := &Verifier{secrets: new(atomic.Pointer[[][]byte])}
	if err := v.SetSecret(secret, previous...); err != nil {
		return nil, err
	}
	return v, nil
}

// newRandomVerifier returns a Verifier with a secret of its own.
func newRandomVerifier() *Verifier {
	secret := make([]byte, MinVerifierSecretLen)
	_, _ = rand.Read(secret) // never fails
	v, err := NewVerifier(secret)
	if err != nil {
		panic(err) // the secret is long enough
	}
	return v
}

// SetSecret replaces the secrets. Its arguments and errors are those of
// NewVerifier. It may be called while the Verifier is in use. To rotate, pass the
// old secret as previous for two minutes.
func (v *Verifier) SetSecret(secret []byte, previous ...[]byte) error {
	secrets := make([][]byte, 0, 1+len(previous))
	for i, s := range append([][]byte{secret}, previous...) {
		if len(s) < MinVerifierSecretLen {
			return fmt.Errorf("dtlsserver: Verifier: secret %d has %d bytes, need at least %d", i, len(s), MinVerifierSecretLen)
		}
		secrets = append(secrets, bytes.Clone(s))
	}
	if err := checkSecrets(secrets); err != nil {
		return fmt.Errorf("dtlsserver: Verifier: secret %w", err)
	}
	v.secrets.Store(&secrets)
	return nil
}

// WithScope returns a Verifier with the same secrets whose cookies are valid only
// in the given scope, for example the name of one of several services that share
// the secret. The scope is copied.
func (v *Verifier) WithScope(scope []byte) *Verifier {
	return &Verifier{scope: bytes.Clone(scope), secrets: v.secrets}
}

// Verify examines a datagram that came from remote at the time now. With
// VerdictChallenge, it appends to dst the datagram of 60 bytes that must be sent
// to remote; otherwise it returns dst unchanged. Verify does not retain its
// arguments. A hello whose cookie is stale, wrong or for another address is
// treated as one without a cookie, unless the cookie claims to be less than a
// second old: see VerdictWrongCookie.
func (v *Verifier) Verify(dst, datagram []byte, remote netip.AddrPort, now time.Time) (Verdict, []byte) {
	reader, _ := helloReaders.Get().(*engine.HelloReader)
	if reader == nil {
		reader = new(engine.HelloReader)
	}
	defer helloReaders.Put(reader)
	hello, ok := reader.Read(datagram)
	if !ok {
		return VerdictNotHello, dst
	}
	verdict, _, out := v.verifyHello(dst, &hello, remote, now)
	return verdict, out
}

// helloReaders holds *engine.HelloReader.
var helloReaders sync.Pool

// verifyHello also returns the age of a right cookie, to a millisecond: the
// client's round trip. That of a cookie from a clock that is ahead is some 65 s.
func (v *Verifier) verifyHello(dst []byte, hello *engine.Hello, remote netip.AddrPort, now time.Time) (Verdict, time.Duration, []byte) {
	m, _ := v.pool.Get().(*cookieMAC)
	if m == nil {
		m = new(cookieMAC)
	}
	defer v.pool.Put(m)
	m.use(v.secrets.Load())

	interval, at := now.UnixNano()/int64(cookieInterval), uint16(now.UnixMilli())
	if c := hello.Cookie; len(c) >= cookieHead {
		made := binary.BigEndian.Uint16(c[1:])
		age := time.Duration(at-made) * time.Millisecond
		for i := interval - 1; i <= interval+1; i++ {
			if byte(i) != c[0] {
				continue
			}
			for which := range *m.secrets {
				if len(c) != cookieLen {
					break
				}
				m.sum(i, which, made, v.scope, hello, remote)
				if subtle.ConstantTimeCompare(m.cookie[:cookieLen], c) == 1 {
					return VerdictVerified, age, dst
				}
			}
			if age < wrongCookieWait {
				return VerdictWrongCookie, 0, dst
			}
		}
	}
	m.sum(interval, 0, at, v.scope, hello, remote)
	return VerdictChallenge, 0, hello.AppendHelloVerifyRequest(dst, m.cookie[:cookieLen])
}

// cookieMAC computes cookies and allocates only when the interval or the
// secret is new to it.
type cookieMAC struct {
	secrets *[][]byte
	keyed   [4]struct { // the last intervals used, by their lowest bits
		interval int64
		macs     []hash.Hash // by secret; nil: not made yet
	}
	text   []byte // scratch: what is hashed
	cookie [cookieHead + sha256.Size]byte
}

// use makes m compute with the secrets.
func (m *cookieMAC) use(secrets *[][]byte) {
	if m.secrets != secrets {
		*m = cookieMAC{secrets: secrets}
	}
}

// mac returns the HMAC with the key of the interval: HMAC(secret, interval).
func (m *cookieMAC) mac(interval int64, which int) hash.Hash {
	k := &m.keyed[interval&3]
	if k.macs == nil || k.interval != interval {
		k.interval = interval
		k.macs = make([]hash.Hash, len(*m.secrets))
		for i, secret := range *m.secrets {
			derive := hmac.New(sha256.New, secret)
			derive.Write(binary.BigEndian.AppendUint64([]byte(cookieDomain), uint64(interval)))
			k.macs[i] = hmac.New(sha256.New, derive.Sum(nil))
		}
	}
	k.macs[which].Reset()
	return k.macs[which]
}

// sum computes the cookie made at a time, in milliseconds, into m.cookie. Of the
// hello only version and random count. All else may differ in the second hello
// of some clients, which draw another session_id or add an extension, or may
// lie behind its first fragment. The transcript protects it all. The local
// address stays out, since servers behind one address share the secret.
func (m *cookieMAC) sum(interval int64, which int, made uint16, scope []byte, hello *engine.Hello, remote netip.AddrPort) {
	addr := remote.Addr().Unmap()
	ip := addr.As16()
	b := binary.BigEndian.AppendUint16(m.text[:0], remote.Port())
	b = append(b, ip[:]...)
	if addr.Is4() {
		b = append(b, 4)
	} else {
		b = append(b, 6)
	}
	b = binary.BigEndian.AppendUint16(b, hello.Version)
	b = appendVector(b, scope)
	b = appendVector(b, addr.Zone())
	b = appendVector(b, hello.Random)
	b = binary.BigEndian.AppendUint16(b, made)
	m.text = b
	mac := m.mac(interval, which)
	mac.Write(b) // at once: each call costs
	m.cookie[0] = byte(interval)
	binary.BigEndian.PutUint16(m.cookie[1:], made)
	mac.Sum(m.cookie[:cookieHead])
}

// appendVector appends v behind its length.
func appendVector[T []byte | string](b []byte, v T) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...)
}

// cookieTime is when a cookie was made, in milliseconds, of which the higher bits
// are left out: it is compared with times that are days apart at most.
type cookieTime uint32

func (t cookieTime) after(other cookieTime) bool { return int32(t-other) > 0 }

// newCookieTime returns when a cookie was made that has an age.
func newCookieTime(now time.Time, age time.Duration) cookieTime {
	return cookieTime(now.UnixMilli() - age.Milliseconds())
}
