package dtlsserver

// Datagrams for the search for the dearest, each described by a string of
// bytes, its genome. Any string is one: bytes that are missing are zero.

import (
	"bytes"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"

	"github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/testpeer"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// What a datagram holds, by the genome's byte at genomeMessage: one kind of
// message, or several.
var dearestMessages = []string{
	"ClientHello", "Certificate", "ClientKeyExchange", "CertificateVerify", "Finished", "ServerHello", "unknown message",
	"ChangeCipherSpec", "alert", "application data", "sealed record", "unknown content", "several",
}

var dearestTypes = map[string]wire.HandshakeType{
	"ClientHello": wire.TypeClientHello, "Certificate": wire.TypeCertificate, "ClientKeyExchange": wire.TypeClientKeyExchange,
	"CertificateVerify": wire.TypeCertificateVerify, "Finished": wire.TypeFinished, "ServerHello": wire.TypeServerHello, "unknown message": 99,
}

var dearestContents = map[string]wire.ContentType{
	"ChangeCipherSpec": wire.ContentChangeCipherSpec, "alert": wire.ContentAlert, "application data": wire.ContentApplicationData,
	"sealed record": wire.ContentHandshake, "unknown content": 77,
}

// A genome has a head and runs of records, each of so many bytes. The bytes of
// the head, behind the first two:
//
//	 2  whether a whole ClientHello comes first
//	 3  its cookie: right, wrong, none    4  its random: the handshake's or not
//	 5  known suites                      6, 7  how many unknown ones, and where
//	 8, 9  length and form of server_name
//	10, 11  how many protocols, how long
//	12, 13, 14  how many unknown groups and schemes, and where
//	15, 16  how many unknown extensions, how long
//	17, 18  ticket: which, how long
//	19  length of session_id             20  small extensions
//
// and those of a run:
//
//	 0  message, where there are several  1  epoch              2  version
//	 3  message_seq                       4, 5, 10  body: of what kind, how long
//	 6  length of a fragment              7, 8  offsets
//	 9, 10, 11  declared lengths          12  how many fragments or records
//	13  fragments in a record             14, 15  what takes turns
const (
	genomeSize    = 0 // odd: dearestLargest, even: dearestPath
	genomeMessage = 1
	genomeHead    = 24
	genomeRun     = 16
	genomeMost    = genomeHead + 6*genomeRun
)

// The sizes that datagrams are bounded by: what the way from anywhere takes,
// and what UDP does.
const (
	dearestPath    = 1472
	dearestLargest = 65507
)

// genome is a reader of one.
type genome []byte

// at is the byte at i, zero behind the end.
func (g genome) at(i int) int {
	if i < len(g) {
		return int(g[i])
	}
	return 0
}

// count is the byte at i as a number from 0, for a quarter of the bytes, to
// 9,919. A byte that is greater by 16 makes it about double.
func (g genome) count(i int) int {
	v := g.at(i) - 64
	if v < 0 {
		return 0
	}
	return (1<<(v>>4)+(v&15)<<(v>>4)>>4)*5/2 - 1
}

func (g genome) message() string { return dearestMessages[g.at(genomeMessage)%len(dearestMessages)] }

func (g genome) size() int {
	if g.at(genomeSize)&1 == 1 {
		return dearestLargest
	}
	return dearestPath
}

// run returns the genome of the n-th run.
func (g genome) run(n int) genome {
	start := min(genomeHead+n*genomeRun, len(g))
	return g[start:min(start+genomeRun, len(g))]
}

func (g genome) runs() int { return min(len(g)-genomeHead+genomeRun-1, 6*genomeRun) / genomeRun }

// express is a genome being made a datagram for a state.
type express struct {
	genome
	b    *towardsOne
	size int
	out  []byte
	seq  uint64
}

// datagram makes the datagram that the genome describes.
func (b *towardsOne) datagram(g genome) []byte {
	x := &express{genome: g, b: b, size: g.size(), seq: 100}
	x.out = make([]byte, 0, x.size)
	// A whole hello comes first in most datagrams that may have one.
	if what := g.message(); g.at(2)%4 > 0 && (what == "ClientHello" || what == "several") {
		m := testpeer.Message(wire.TypeClientHello, uint16(max(1, int(b.c.MessageSeq))), x.hello(min(x.size-25, wire.MaxPlaintext-wire.HandshakeHeaderLen)))
		x.record(genome{}, wire.ContentHandshake, 0, m)
	}
	for n := range g.runs() {
		x.run(g.run(n))
	}
	return x.out
}

// record adds a record if there is room.
func (x *express) record(r genome, t wire.ContentType, epoch uint16, payload []byte) bool {
	if len(x.out)+wire.RecordHeaderLen+len(payload) > x.size {
		return false
	}
	version := wire.VersionDTLS12
	switch r.at(2) {
	case 253:
		version = wire.VersionDTLS10
	case 254:
		version = 0xfe00
	case 255:
		version = 0x0303
	}
	x.out = wire.AppendRecordHeader(x.out, t, version, epoch, x.seq, len(payload))
	x.out = append(x.out, payload...)
	x.seq++
	return true
}

// run adds a run of records.
func (x *express) run(r genome) {
	what := x.message()
	if what == "several" {
		what = dearestMessages[r.at(0)%(len(dearestMessages)-1)]
	}
	epoch := []uint16{0, 0, 0, 0, 0, 0, 1, 2}[r.at(1)%8]
	times := r.count(12) + 1
	content, ok := dearestContents[what]
	if !ok {
		x.fragments(r, dearestTypes[what], epoch, times)
		return
	}
	payload := bytes.Repeat([]byte{byte(r.at(6))}, min(r.count(5), wire.MaxPlaintext+255))
	switch {
	case what == "sealed record":
		epoch = max(1, epoch)
		content = []wire.ContentType{22, 23, 21, 20, 77, 22, 22, 23}[r.at(4)%8]
	case r.at(4)%2 == 0:
	case what == "ChangeCipherSpec":
		payload = []byte{1}
	case what == "alert":
		payload = []byte{1 + byte(r.at(5))&1, byte(r.at(6))}
	}
	for range times {
		if !x.record(r, content, epoch, payload) {
			return
		}
	}
}

// fragments adds a run of fragments of a message.
func (x *express) fragments(r genome, t wire.HandshakeType, epoch uint16, times int) {
	body := x.body(r, t)
	seq := x.b.c.MessageSeq + []uint16{0, 0, 0, 0, 1, 2, 3, 0xffff}[r.at(3)%8]
	declared := len(body)
	switch r.at(9) % 8 {
	case 4, 5:
		declared = r.count(10)
	case 6:
		declared += r.count(10)
	case 7:
		declared = []int{1 << 14, 1 << 11, 1<<24 - 1, 1<<14 + 1}[r.at(10)%4]
	}
	length := declared
	if r.at(6) >= 32 {
		length = min(length, r.count(6)+1)
	}
	length = min(length, wire.MaxPlaintext-wire.HandshakeHeaderLen)
	most := []int{1, 2, 8, 1 << 14}[r.at(13)%4] // in a record
	var payload []byte
	in := 0
	flush := func() bool {
		ok := in == 0 || x.record(r, wire.ContentHandshake, epoch, payload)
		payload, in = payload[:0], 0
		return ok
	}
	for i := range times {
		d, kind, s := declared, t, seq
		if r.at(14)%2 == 1 { // every n-th differs
			if n := 2 + r.at(14)/2%3; i%n == n-1 {
				d = max(0, d-r.count(11)-1)
			}
		}
		switch r.at(15) % 8 {
		case 6:
			kind += wire.HandshakeType(i % 2)
		case 7:
			s += uint16(i % 3)
		}
		n := min(length, d)
		start := 0
		if room := d - n; room > 0 {
			start = x.offset(r, i, n) % (room + 1)
		}
		head := len(x.out) + len(payload) + wire.RecordHeaderLen
		if head+wire.HandshakeHeaderLen+n > x.size {
			if head+wire.HandshakeHeaderLen+1 > x.size || i > 0 {
				break
			}
			n = x.size - head - wire.HandshakeHeaderLen // the first shall be as long as can be
		}
		if len(payload)+wire.HandshakeHeaderLen+n > wire.MaxPlaintext && !flush() {
			return
		}
		payload = wire.AppendHandshakeHeader(payload, kind, d, s, start, n)
		have := 0
		if start < len(body) {
			have = min(n, len(body)-start)
			payload = append(payload, body[start:start+have]...)
		}
		payload = append(payload, make([]byte, n-have)...)
		if in++; in == most && !flush() {
			return
		}
	}
	flush()
}

// offset is where the i-th fragment of n bytes begins.
func (x *express) offset(r genome, i, n int) int {
	start := r.count(8)
	switch r.at(7) % 6 {
	case 0: // one after the other
		return start + i*n
	case 1: // always there
		return start
	case 2: // with gaps
		return start + 2*i*n
	case 3: // backwards
		return max(0, start-2*i*n)
	case 4: // overlapping
		return start + i*(n+1)/2
	default: // all over the place
		return start + i*7919
	}
}

// body makes the body of a message.
func (x *express) body(r genome, t wire.HandshakeType) []byte {
	if r.at(4)%4 == 3 {
		return x.b.message(t)
	}
	junk := bytes.Repeat([]byte{byte(r.at(10))}, r.count(5))
	if r.at(4)%4 == 2 {
		return junk
	}
	switch t {
	case wire.TypeClientHello:
		return x.hello(16 << 10)
	case wire.TypeCertificate:
		return x.certificates(r)
	case wire.TypeClientKeyExchange:
		n := len(junk)
		kx := suite.ByID(x.b.suite).KeyExchange
		var body []byte
		if kx.WithPSK() {
			body = append([]byte{byte(n >> 8), byte(n)}, junk...)
		}
		if kx.ECDHE() {
			point := 1 + r.at(6)%255
			body = append(append(body, byte(point)), make([]byte, point)...)
		}
		return body
	case wire.TypeCertificateVerify:
		return wire.AppendSignature(nil, suite.Schemes()[r.at(10)%len(suite.Schemes())], junk)
	case wire.TypeFinished:
		return make([]byte, wire.VerifyDataLen)
	}
	return junk
}

// certificates makes a chain: so many of a kind.
func (x *express) certificates(r genome) []byte {
	const room = DefaultMaxClientCertificateBytes
	var chain [][]byte
	total := 3
	names := []int{1, 8, 30, 100, 400, 1000, 2100, 2250}[r.at(5)%8]
	for i := range r.count(8) + 1 {
		var c []byte
		switch kind := r.at(0) % 8; kind {
		case 0:
			c = make([]byte, 1+r.count(5)) // which is none
		case 1, 2, 3, 4:
			c = madeCertificate([]string{"Ed25519", "P-256", "P-521", "RSA"}[kind-1], 0, i%10)
		case 5:
			c = madeCertificate("subject", min(names, 800), i%10)
		default:
			c = madeCertificate("names", names, i%10)
		}
		if total += 3 + len(c); total > room && i > 0 {
			break
		}
		chain = append(chain, c)
	}
	return wire.AppendCertificate(nil, chain)
}

// hello makes the body of a ClientHello that has at most so many bytes.
func (x *express) hello(most int) []byte {
	c := testpeer.New(testIdentity, []byte(testKey), 99)
	if x.at(4)%2 == 0 {
		c.Random = x.b.c.Random
	}
	c.SessionID = make([]byte, x.at(19)%33)
	most -= 120 // without suites and extensions
	c.Suites = x.suites(most)
	most -= 2 * len(c.Suites)
	c.Extensions = x.extensions(most)
	switch x.at(3) % 4 {
	case 0, 1:
		c.Cookie = x.b.cookie(c)
	case 2:
		c.Cookie = make([]byte, cookieLen)
	}
	return c.HelloBody()
}

func (x *express) suites(most int) []uint16 {
	known := [][]uint16{
		{x.b.suite}, {x.b.suite}, {suite.PSKWithAES128GCM}, {ecdhePSK}, {ecdheCert}, {pskWithCCM}, DefaultCipherSuites(), nil,
	}[x.at(5)%8]
	return x.filled(known, x.count(6), most/2, x.at(7))
}

// filled adds n values that mean nothing in front of those that do or behind
// them.
func (x *express) filled(known []uint16, n, most, where int) []uint16 {
	more := make([]uint16, min(n, max(0, most-len(known))))
	for i := range more {
		more[i] = 0x5a5a
	}
	if where%2 == 0 {
		return slices.Concat(known, more)
	}
	return slices.Concat(more, known)
}

// extensions makes the content of the extensions block.
func (x *express) extensions(most int) []byte {
	out := []byte{}
	add := func(id uint16, content func(b *cryptobyte.Builder)) {
		b := cryptobyte.NewBuilder(nil)
		b.AddUint16(id)
		b.AddUint16LengthPrefixed(content)
		if e, err := b.Bytes(); err == nil && len(out)+len(e) <= most {
			out = append(out, e...)
		}
	}
	list := func(id uint16, values []uint16) {
		if len(values) == 0 {
			return
		}
		add(id, func(b *cryptobyte.Builder) {
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
				for _, v := range values {
					b.AddUint16(v)
				}
			})
		})
	}
	flags := x.at(20)
	if flags&1 == 0 {
		add(23, func(*cryptobyte.Builder) {}) // extended_master_secret
	}
	if flags&2 != 0 {
		add(0xff01, func(b *cryptobyte.Builder) { b.AddUint8(0) })
	}
	if flags&4 != 0 {
		add(11, func(b *cryptobyte.Builder) { b.AddBytes([]byte{1, 0}) })
	}
	if flags&8 != 0 {
		add(1, func(b *cryptobyte.Builder) { b.AddUint8(1) }) // max_fragment_length
	}
	left := func() int { return max(0, most-len(out)) }
	if x.at(14)&4 == 0 {
		list(10, x.filled(suite.Groups(), x.count(12), left()/2-8, x.at(14)))
	}
	if x.at(14)&8 == 0 {
		list(13, x.filled(suite.Schemes(), x.count(13), left()/2-8, x.at(14)>>1))
	}
	x.tickets(add)
	if n := min(x.count(8), left()-10); n > 0 {
		name := strings.Repeat([]string{"a", "a.", "x-", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa."}[x.at(9)%4], n)[:n]
		add(0, func(b *cryptobyte.Builder) {
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
				b.AddUint8(0)
				b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(name)) })
			})
		})
	}
	length := 1 + x.at(11)%255
	if n := min(x.count(10), (left()-8)/(1+length)); n > 0 {
		add(16, func(b *cryptobyte.Builder) {
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
				for range n {
					b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(make([]byte, length)) })
				}
			})
		})
	}
	length = min(x.count(16), 4000)
	for i := range min(x.count(15), left()/(4+length)) {
		add(0x6000+uint16(i), func(b *cryptobyte.Builder) { b.AddBytes(make([]byte, length)) })
	}
	return out
}

// tickets adds a session ticket, which the sender may have seen.
func (x *express) tickets(add func(uint16, func(*cryptobyte.Builder))) {
	const ticket = 35
	switch n := x.at(17) % 8; {
	case n == 0:
	case n == 1:
		add(ticket, func(*cryptobyte.Builder) {})
	case n >= 4 && len(x.b.tickets) > 0:
		seen := x.b.tickets[n%len(x.b.tickets)].Ticket
		if n == 7 { // and has changed
			seen = append(bytes.Clone(seen[:len(seen)-1]), seen[len(seen)-1]^1)
		}
		add(ticket, func(b *cryptobyte.Builder) { b.AddBytes(seen) })
	default:
		add(ticket, func(b *cryptobyte.Builder) { b.AddBytes(make([]byte, min(x.count(18), 8000))) })
	}
}
