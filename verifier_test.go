package dtlsserver

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/engine"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

var (
	secretA = bytes.Repeat([]byte{'a'}, 32)
	secretB = bytes.Repeat([]byte{'b'}, 40)
	// noon is the middle of a cookie interval.
	noon = time.Unix(1_700_000_010+15, 0)
)

func mustVerifier(t testing.TB, secret []byte, previous ...[]byte) *Verifier {
	t.Helper()
	v, err := NewVerifier(secret, previous...)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// cookieOf returns the cookie that a HelloVerifyRequest asks for.
func cookieOf(t testing.TB, answer []byte) []byte {
	t.Helper()
	const before = wire.RecordHeaderLen + wire.HandshakeHeaderLen + 2 + 1
	if len(answer) != before+cookieLen {
		t.Fatalf("answer of %d bytes: %x", len(answer), answer)
	}
	return bytes.Clone(answer[before:])
}

// exchange returns a client that has a cookie of v.
func exchange(t testing.TB, v *Verifier, from netip.AddrPort, now time.Time) *testpeer.Client {
	t.Helper()
	c := testpeer.New("", nil, 1)
	verdict, answer := v.Verify(nil, c.Hello(), from, now)
	if verdict != VerdictChallenge {
		t.Fatalf("a bare hello is %v", verdict)
	}
	c.Cookie = cookieOf(t, answer)
	return c
}

// TestVerifier: what makes a cookie good and what does not. The address, the
// time and the secrets of the second hello vary.
func TestVerifier(t *testing.T) {
	t.Parallel()
	from := netip.MustParseAddrPort("192.0.2.7:5000")
	tests := []struct {
		name string
		v    *Verifier
		from string
		at   time.Duration
		want Verdict
	}{
		{name: "the same", want: VerdictVerified},
		{name: "mapped to IPv6", from: "[::ffff:192.0.2.7]:5000", want: VerdictVerified},
		{name: "wrong address", from: "192.0.2.8:5000", want: VerdictWrongCookie},
		{name: "wrong address, just within a second", from: "192.0.2.8:5000", at: wrongCookieWait - time.Millisecond, want: VerdictWrongCookie},
		{name: "wrong address, after a second", from: "192.0.2.8:5000", at: wrongCookieWait, want: VerdictChallenge},
		{name: "wrong address, a cookie from ahead", from: "192.0.2.8:5000", at: -time.Millisecond, want: VerdictChallenge},
		{name: "wrong port", from: "192.0.2.7:5001", want: VerdictWrongCookie},
		{name: "wrong port, after a second", from: "192.0.2.7:5001", at: wrongCookieWait, want: VerdictChallenge},
		{name: "the address as IPv6", from: "[::192.0.2.7]:5000", want: VerdictWrongCookie},
		{name: "one interval old", at: cookieInterval, want: VerdictVerified},
		{name: "two intervals old", at: 2 * cookieInterval, want: VerdictChallenge},
		{name: "one interval ahead", at: -cookieInterval, want: VerdictVerified},
		{name: "two intervals ahead", at: -2 * cookieInterval, want: VerdictChallenge},
		{name: "256 intervals old", at: 256 * cookieInterval, want: VerdictChallenge},
		{name: "another instance with the secret", v: mustVerifier(t, secretA), want: VerdictVerified},
		{name: "the secret is the previous one", v: mustVerifier(t, secretB, secretA), want: VerdictVerified},
		{name: "the secret is the second previous one", v: mustVerifier(t, secretB, secretB[1:], secretA), want: VerdictVerified},
		{name: "another secret", v: mustVerifier(t, secretB), want: VerdictWrongCookie},
		{name: "another secret, after a second", v: mustVerifier(t, secretB), at: wrongCookieWait, want: VerdictChallenge},
		{name: "a scope", v: mustVerifier(t, secretA).WithScope([]byte("x")), want: VerdictWrongCookie},
		{name: "a scope, after a second", v: mustVerifier(t, secretA).WithScope([]byte("x")), at: wrongCookieWait, want: VerdictChallenge},
		{name: "an empty scope", v: mustVerifier(t, secretA).WithScope(nil), want: VerdictVerified},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			maker := mustVerifier(t, secretA)
			c := exchange(t, maker, from, noon)
			v, addr := maker, from
			if tt.v != nil {
				v = tt.v
			}
			if tt.from != "" {
				addr = netip.MustParseAddrPort(tt.from)
			}
			dst := []byte("in front")
			verdict, out := v.Verify(dst, c.Hello(), addr, noon.Add(tt.at))
			if verdict != tt.want {
				t.Fatalf("%v, want %v", verdict, tt.want)
			}
			if !bytes.HasPrefix(out, dst) || (len(out) > len(dst)) != (verdict == VerdictChallenge) {
				t.Errorf("answer %x", out)
			}
			if verdict == VerdictChallenge { // a wrong cookie is as none: the new one is good
				c.Cookie = cookieOf(t, out[len(dst):])
				if verdict, _ := v.Verify(nil, c.Hello(), addr, noon.Add(tt.at)); verdict != VerdictVerified {
					t.Errorf("the new cookie is %v", verdict)
				}
			}
		})
	}
}

// TestVerifierBindsZone: link-local addresses of two interfaces are two peers.
func TestVerifierBindsZone(t *testing.T) {
	t.Parallel()
	v := mustVerifier(t, secretA)
	c := exchange(t, v, netip.MustParseAddrPort("[fe80::1%eth0]:5000"), noon)
	if verdict, _ := v.Verify(nil, c.Hello(), netip.MustParseAddrPort("[fe80::1%eth1]:5000"), noon.Add(wrongCookieWait)); verdict != VerdictChallenge {
		t.Errorf("of another zone: %v", verdict)
	}
	if verdict, _ := v.Verify(nil, c.Hello(), netip.MustParseAddrPort("[fe80::1%eth0]:5000"), noon); verdict != VerdictVerified {
		t.Errorf("of the same zone: %v", verdict)
	}
}

// TestVerifierHello: what may change in the second hello, and what may not. One
// that may not is answered when the cookie is a second old.
func TestVerifierHello(t *testing.T) {
	t.Parallel()
	from := netip.MustParseAddrPort("192.0.2.7:5000")
	// build makes a hello of parts.
	type parts struct {
		version                            uint16
		random                             []byte
		sessionID, suites, compression, ex []byte
	}
	random := bytes.Repeat([]byte{3}, 32)
	build := func(p parts, cookie []byte, seq uint64) []byte {
		b := binary.BigEndian.AppendUint16(nil, p.version)
		b = append(b, p.random...)
		b = append(append(b, byte(len(p.sessionID))), p.sessionID...)
		b = append(append(b, byte(len(cookie))), cookie...)
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(p.suites))), p.suites...)
		b = append(append(b, byte(len(p.compression))), p.compression...)
		if p.ex != nil {
			b = append(binary.BigEndian.AppendUint16(b, uint16(len(p.ex))), p.ex...)
		}
		m := testpeer.Message(wire.TypeClientHello, uint16(seq), b)
		return append(wire.AppendRecordHeader(nil, wire.ContentHandshake, 0xfeff, 0, seq, len(m)), m...)
	}
	first := parts{0xfefd, random, []byte{1, 2}, []byte{0, 0xa8, 0, 0xff}, []byte{0}, []byte{0, 23, 0, 0}}
	tests := []struct {
		name string
		edit func(p *parts)
		want Verdict
	}{
		{"nothing", func(*parts) {}, VerdictVerified},
		{"random", func(p *parts) { p.random = bytes.Repeat([]byte{4}, 32) }, VerdictWrongCookie},
		{"version", func(p *parts) { p.version = 0xfeff }, VerdictWrongCookie},
		{"suites", func(p *parts) { p.suites = []byte{0, 0xa8, 0, 0xa9} }, VerdictVerified},
		{"a suite less", func(p *parts) { p.suites = p.suites[:2] }, VerdictVerified},
		{"session id", func(p *parts) { p.sessionID = []byte{1, 3} }, VerdictVerified},
		{"no session id", func(p *parts) { p.sessionID = nil }, VerdictVerified},
		{"compression", func(p *parts) { p.compression = []byte{0, 1} }, VerdictVerified},
		{"another extension", func(p *parts) { p.ex = []byte{0, 22, 0, 0} }, VerdictVerified},
		{"padding of 500 bytes", func(p *parts) { p.ex = append([]byte{0, 21, 1, 0xf4}, make([]byte, 500)...) }, VerdictVerified},
		{"no extensions", func(p *parts) { p.ex = nil }, VerdictVerified},
		{"a byte from suites to compression", func(p *parts) { p.suites, p.compression = []byte{0, 0xa8}, []byte{0, 0xff, 0} }, VerdictVerified},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v := mustVerifier(t, secretA)
			_, answer := v.Verify(nil, build(first, nil, 0), from, noon)
			second := first
			tt.edit(&second)
			hello := build(second, cookieOf(t, answer), 1)
			if verdict, _ := v.Verify(nil, hello, from, noon); verdict != tt.want {
				t.Errorf("changed %s: %v, want %v", tt.name, verdict, tt.want)
			}
			later := tt.want
			if later == VerdictWrongCookie {
				later = VerdictChallenge
			}
			if verdict, _ := v.Verify(nil, hello, from, noon.Add(wrongCookieWait)); verdict != later {
				t.Errorf("changed %s, a second later: %v, want %v", tt.name, verdict, later)
			}
		})
	}
}

// TestVerifierCookieBits flips each bit of the cookie, and cuts and extends it. A
// cookie that says, in its first three bytes, that it is new is not answered, and
// any other is.
func TestVerifierCookieBits(t *testing.T) {
	t.Parallel()
	v := mustVerifier(t, secretA)
	from := netip.MustParseAddrPort("192.0.2.7:5000")
	c := exchange(t, v, from, noon)
	good := c.Cookie
	later := noon.Add(10 * wrongCookieWait)
	for bit := range 8 * cookieLen {
		c.Cookie = bytes.Clone(good)
		c.Cookie[bit/8] ^= 1 << (bit % 8)
		for _, now := range []time.Time{noon, later} {
			interval := byte(now.Unix() / 30)
			want := VerdictChallenge
			if c.Cookie[0]-interval+1 <= 2 && uint16(now.UnixMilli())-binary.BigEndian.Uint16(c.Cookie[1:]) < 1000 {
				want = VerdictWrongCookie
			}
			if verdict, _ := v.Verify(nil, c.Hello(), from, now); verdict != want {
				t.Errorf("bit %d flipped, after %v: %v, want %v", bit, now.Sub(noon), verdict, want)
			}
		}
	}
	for length := range 256 {
		c.Cookie = append(bytes.Clone(good), make([]byte, 256)...)[:length]
		now, after := VerdictWrongCookie, VerdictChallenge
		switch {
		case length == cookieLen:
			now, after = VerdictVerified, VerdictVerified
		case length < cookieHead:
			now = VerdictChallenge
		}
		if verdict, _ := v.Verify(nil, c.Hello(), from, noon); verdict != now {
			t.Errorf("cookie of %d bytes: %v, want %v", length, verdict, now)
		}
		if verdict, _ := v.Verify(nil, c.Hello(), from, later); verdict != after {
			t.Errorf("cookie of %d bytes, later: %v, want %v", length, verdict, after)
		}
	}
}

// TestVerifierTime: a cookie has the time in which it was made, and gives the
// client's round trip; the time cannot be changed.
func TestVerifierTime(t *testing.T) {
	t.Parallel()
	v := mustVerifier(t, secretA)
	from := clientAddr(1)
	for _, made := range []time.Time{noon, noon.Add(14999 * time.Millisecond), noon.Add(-15 * time.Second), noon.Add(7654321 * time.Microsecond)} {
		c := exchange(t, v, from, made)
		if got, want := c.Cookie[:cookieHead], []byte{byte(made.Unix() / 30), byte(made.UnixMilli() >> 8), byte(made.UnixMilli())}; !bytes.Equal(got, want) {
			t.Errorf("the cookie of %v begins with %x, want %x", made, got, want)
		}
		hello, _ := new(engine.HelloReader).Read(c.Hello())
		for _, age := range []time.Duration{0, time.Millisecond, 999 * time.Millisecond, 1234 * time.Millisecond, 30 * time.Second} {
			if verdict, got, _ := v.verifyHello(nil, &hello, from, made.Add(age)); verdict != VerdictVerified || got != age {
				t.Errorf("after %v: %v, %v", age, verdict, got)
			}
		}
	}
}

// endless are mistakes of clients that would each have them answered by another
// cookie for ever.
var endless = []struct {
	name string
	edit func(c *testpeer.Client, from netip.AddrPort) netip.AddrPort
}{
	{"another random", func(c *testpeer.Client, from netip.AddrPort) netip.AddrPort { c.Random[0]++; return from }},
	{"another port", func(c *testpeer.Client, from netip.AddrPort) netip.AddrPort {
		return netip.AddrPortFrom(from.Addr(), from.Port()+1)
	}},
	{"half the cookie", func(c *testpeer.Client, from netip.AddrPort) netip.AddrPort {
		c.Cookie = c.Cookie[:16]
		return from
	}},
	{"a cookie with zeros behind it", func(c *testpeer.Client, from netip.AddrPort) netip.AddrPort {
		c.Cookie = append(c.Cookie, make([]byte, 8)...)
		return from
	}},
	{"a cookie with its last byte cleared", func(c *testpeer.Client, from netip.AddrPort) netip.AddrPort {
		c.Cookie[31] ^= 1
		return from
	}},
}

// TestMistakesAreNoEndlessExchange: a client that answers each cookie at once and
// wrongly, and is patient otherwise, gets one a second. What another gets wrong,
// its session_id, its suites or its compression methods, does not matter.
func TestMistakesAreNoEndlessExchange(t *testing.T) {
	t.Parallel()
	const seconds = 10
	for _, tt := range endless {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := newDirect(t, nil)
			c, from := testpeer.New(testIdentity, []byte(testKey), 1), clientAddr(1)
			hello := c.Hello()
			sent := 0
			resend := d.now
			for end := d.now.Add(seconds * time.Second); d.now.Before(end); d.now = d.now.Add(10 * time.Millisecond) {
				if d.now.Before(resend) {
					continue
				}
				sent++
				if d.exchange(c, from, hello); len(d.out) > 0 {
					from = tt.edit(c, from)
					hello, resend = c.Hello(), d.now
				} else {
					resend = d.now.Add(time.Second)
				}
			}
			stats := d.s.Stats()
			if stats.HelloVerifyRequests > seconds+1 || sent > 3*seconds || stats.HandshakesStarted > 0 {
				t.Errorf("%d hellos in %d s, %d were answered", sent, seconds, stats.HelloVerifyRequests)
			}
			d.advance(2 * foldWindow)
			if d.rec.want(t, KindHelloRefused, stats.Dropped.WrongCookies, "what was dropped"); stats.Dropped.WrongCookies == 0 {
				t.Error("none was counted")
			}
		})
	}
}

// TestVerifierTruncatedHello: no prefix of a hello is one, with and without
// the lengths set right.
func TestVerifierTruncatedHello(t *testing.T) {
	t.Parallel()
	v := mustVerifier(t, secretA)
	from := netip.MustParseAddrPort("192.0.2.7:5000")
	hello := exchange(t, v, from, noon).Hello()
	for n := range hello {
		if verdict, out := v.Verify(nil, hello[:n], from, noon); verdict != VerdictNotHello || out != nil {
			t.Errorf("first %d bytes: %v", n, verdict)
		}
		if n >= wire.RecordHeaderLen {
			cut := bytes.Clone(hello[:n])
			binary.BigEndian.PutUint16(cut[11:], uint16(n-wire.RecordHeaderLen))
			if verdict, _ := v.Verify(nil, cut, from, noon); verdict != VerdictNotHello {
				t.Errorf("first %d bytes as a record: %v", n, verdict)
			}
		}
	}
}

// TestVerifierAnswer: the answer echoes the hello's numbers, says DTLS 1.0 and
// is always smaller than the hello (RFC 6347 section 4.2.1, erratum 5186).
func TestVerifierAnswer(t *testing.T) {
	t.Parallel()
	v := mustVerifier(t, secretA)
	c := testpeer.New("", nil, 1)
	c.Suites, c.Extensions = []uint16{0xa8}, []byte{}
	c.Seq, c.MessageSeq = 0x0102030405, 0x0607
	hello := c.Hello()
	_, answer := v.Verify(nil, hello, clientAddr(1), noon)
	want := "16feff" + "0000" + "000102030405" + "002f" + // record
		"03" + "000023" + "0607" + "000000" + "000023" + // handshake
		"feff" + "20" // server_version, the cookie's length
	if got := hex.EncodeToString(answer); len(answer) != 60 || !strings.HasPrefix(got, want) {
		t.Errorf("answer %s\nwant   %s...", got, want)
	}
	smallest := len(hello) - 2 // without the extensions block
	if smallest != 67 || len(answer) >= smallest {
		t.Errorf("the smallest hello has %d bytes, the answer %d", smallest, len(answer))
	}
	first, _ := split(c, hello, 2+32+1+1) // without a cookie that is all that is covered
	if verdict, answer := v.Verify(nil, first, clientAddr(1), noon); verdict != VerdictChallenge || len(first) != 61 || len(answer) != 60 {
		t.Errorf("the smallest first fragment has %d bytes, the answer %d: %v", len(first), len(answer), verdict)
	}
	if shorter, _ := split(c, hello, 2+32+1); len(shorter) != 60 {
		t.Errorf("a fragment of %d bytes", len(shorter))
	} else if verdict, _ := v.Verify(nil, shorter, clientAddr(1), noon); verdict != VerdictNotHello {
		t.Errorf("a first fragment that ends in front of the cookie: %v", verdict)
	}
}

// recordings returns the recorded hellos: by file, the datagrams.
func recordings(t testing.TB) map[string][][]byte {
	t.Helper()
	files, err := filepath.Glob("internal/wire/testdata/hellos/*.hex")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d recordings, %v", len(files), err)
	}
	all := make(map[string][][]byte)
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			b, err := hex.DecodeString(lines.Text())
			if err != nil {
				t.Fatal(err)
			}
			name := filepath.Base(file)
			all[name] = append(all[name], b)
		}
		f.Close()
	}
	return all
}

// TestVerifierRecordings: hellos of real clients get a cookie, and the second
// ones, with that cookie in the place of the recorded one, are verified.
func TestVerifierRecordings(t *testing.T) {
	t.Parallel()
	v := mustVerifier(t, secretA)
	from := netip.MustParseAddrPort("[2001:db8::1]:40000")
	tested := 0
	for name, datagrams := range recordings(t) {
		for _, later := range datagrams[1:] { // of a fragmented hello
			if verdict, _ := v.Verify(nil, later, from, noon); verdict != VerdictNotHello {
				t.Errorf("%s: the second fragment is %v", name, verdict)
			}
		}
		hello := datagrams[0]
		verdict, answer := v.Verify(nil, hello, from, noon)
		if verdict != VerdictChallenge || len(answer) >= len(hello) {
			t.Errorf("%s: %v, answer of %d bytes to %d", name, verdict, len(answer), len(hello))
			continue
		}
		if !strings.HasSuffix(name, "-2.hex") {
			continue
		}
		const cookieAt = wire.RecordHeaderLen + wire.HandshakeHeaderLen + 2 + 32 + 1 + 1
		if hello[cookieAt-1] != cookieLen {
			continue // a cookie of 20 bytes
		}
		copy(hello[cookieAt:], cookieOf(t, answer))
		if verdict, _ := v.Verify(nil, hello, from, noon); verdict != VerdictVerified {
			t.Errorf("%s with our cookie: %v", name, verdict)
		}
		tested++
	}
	if tested < 8 {
		t.Errorf("only %d second hellos were tried", tested)
	}
}

// TestVerifierSecrets: short ones, zeros and repetitions are refused, and
// SetSecret takes effect.
func TestVerifierSecrets(t *testing.T) {
	t.Parallel()
	for _, secrets := range [][][]byte{
		{nil}, {secretA[:31]}, {secretA, secretB[:31]}, {secretA, nil},
		{make([]byte, 32)}, {secretA, make([]byte, 64)}, {secretA, secretA}, {secretA, secretB, secretB},
	} {
		if _, err := NewVerifier(secrets[0], secrets[1:]...); err == nil || strings.Contains(err.Error(), "aaa") {
			t.Errorf("secrets of lengths %d: %v", len(secrets[0]), err)
		}
	}
	v := mustVerifier(t, secretA)
	scoped := v.WithScope([]byte("s"))
	c, d := exchange(t, v, clientAddr(1), noon), exchange(t, scoped, clientAddr(1), noon)
	if err := v.SetSecret(secretB, secretA); err != nil {
		t.Fatal(err)
	}
	if verdict, _ := v.Verify(nil, c.Hello(), clientAddr(1), noon); verdict != VerdictVerified {
		t.Errorf("after a rotation: %v", verdict)
	}
	if verdict, _ := scoped.Verify(nil, d.Hello(), clientAddr(1), noon); verdict != VerdictVerified {
		t.Errorf("after a rotation, in a scope: %v", verdict)
	}
	if err := v.SetSecret(secretB); err != nil {
		t.Fatal(err)
	}
	if verdict, _ := v.Verify(nil, c.Hello(), clientAddr(1), noon.Add(wrongCookieWait)); verdict != VerdictChallenge {
		t.Errorf("after the old secret is gone: %v", verdict)
	}
	if err := v.SetSecret(nil); err == nil {
		t.Error("no error for an empty secret")
	}
	c = exchange(t, v, clientAddr(1), noon)
	if verdict, _ := v.Verify(nil, c.Hello(), clientAddr(1), noon); verdict != VerdictVerified {
		t.Errorf("after a refused secret: %v", verdict)
	}
}

// verifierCases are the two ways of a hello through the Verifier.
func verifierCases(tb testing.TB) (v *Verifier, cases map[string][]byte) {
	v = mustVerifier(tb, secretA)
	c := exchange(tb, v, clientAddr(1), noon)
	return v, map[string][]byte{"bare": testpeer.New("", nil, 1).Hello(), "cookie": c.Hello()}
}

// TestVerifierAllocatesNothing on either way.
func TestVerifierAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool forget")
	}
	v, cases := verifierCases(t)
	dst := make([]byte, 0, 64)
	for name, hello := range cases {
		if n := testing.AllocsPerRun(1000, func() { v.Verify(dst, hello, clientAddr(1), noon) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkVerifier(b *testing.B) {
	v, cases := verifierCases(b)
	dst := make([]byte, 0, 64)
	for name, hello := range cases {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				v.Verify(dst, hello, clientAddr(1), noon)
			}
		})
	}
}

func FuzzVerifier(f *testing.F) {
	for _, datagrams := range recordings(f) {
		f.Add(datagrams[0])
	}
	v := mustVerifier(f, secretA)
	f.Fuzz(func(t *testing.T, datagram []byte) {
		verdict, answer := v.Verify(nil, datagram, clientAddr(1), noon)
		switch {
		case verdict == VerdictVerified:
			t.Error("the fuzzer found a cookie")
		case verdict == VerdictChallenge && (len(answer) != 60 || len(answer) >= len(datagram)):
			t.Errorf("%d bytes are answered with %d", len(datagram), len(answer))
		case verdict == VerdictNotHello && answer != nil:
			t.Error("an answer to no hello")
		}
	})
}
