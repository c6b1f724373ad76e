package engine

import (
	"encoding/binary"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// What a server without state makes of a ClientHello: RFC 6347 section 4.2.1.

// maxClientHello bounds a ClientHello, in bytes.
const maxClientHello = 16 << 10

// Hello is a ClientHello at the head of a datagram, of which its head is read, up
// to the cookie. It aliases the datagram or the HelloReader.
type Hello struct {
	RecordSeq  uint64 // of the first record that has some of it
	MessageSeq uint16
	wire.ClientHello
	// Body is the message if the datagram has all of it, and else nil. What is
	// behind its head may be malformed.
	Body []byte
	// InParts: the datagram has several fragments of which Body was put together,
	// in front of Rest.
	InParts bool
	Rest    []byte
}

// maxHelloParts bounds the fragments of a datagram that a hello is put together
// of.
const maxHelloParts = 512

// HelloReader reads ClientHellos. It keeps the memory, of at most 18 KiB, in
// which it puts the fragments of one together, for the next. The zero value is
// ready.
type HelloReader struct{ parts reassembler }

// Read reads the ClientHello at the head of a datagram, in epoch 0. It may come
// in several fragments, in any order. If not all are in the datagram, what there
// is must have the head up to the cookie, as 99 bytes surely do. The hello is
// good until the next call.
func (p *HelloReader) Read(datagram []byte) (h Hello, ok bool) {
	r, rest, ok := NextRecord(datagram, 0)
	if !ok || r.Type != wire.ContentHandshake || r.Epoch != 0 {
		return Hello{}, false
	}
	f, more, ok := wire.ParseFragment(r.Payload)
	if !ok || f.Type != wire.TypeClientHello || f.Length > maxClientHello {
		return Hello{}, false
	}
	h = Hello{RecordSeq: r.Seq, MessageSeq: f.MessageSeq}
	var start []byte
	switch {
	case f.Whole():
		start, h.Body = f.Body, f.Body
	case len(more) > 0 || len(rest) > 0:
		start = p.join(&h, f, more, rest)
	case f.Offset == 0:
		start = f.Body
	}
	h.ClientHello, _, ok = wire.ParseClientHelloHead(start)
	if !ok {
		return Hello{}, false
	}
	return h, true
}

// join puts fragments together: the first, those behind it in its record, and
// those in the records behind that. It returns what there is of the message
// from its beginning on.
func (p *HelloReader) join(h *Hello, first wire.Fragment, content, datagram []byte) []byte {
	const one = 1 // datagram, of the reassembler's
	p.parts.forget()
	f := first
	for n := 1; ; n++ {
		if body, _ := p.parts.add(f, maxClientHello, one); body != nil {
			h.Body, h.InParts, h.Rest = body, true, datagram
			return body
		}
		var ok bool
		if len(content) == 0 {
			var r Record
			if r, datagram, ok = NextRecord(datagram, 0); !ok || r.Type != wire.ContentHandshake || r.Epoch != 0 {
				break
			}
			content = r.Payload
		}
		f, content, ok = wire.ParseFragment(content)
		if !ok || f.Type != first.Type || f.MessageSeq != first.MessageSeq || f.Length != first.Length || n == maxHelloParts {
			break
		}
	}
	return p.parts.beginning()
}

// Negotiable reports whether a client that is not known to have seen a cookie may
// do DTLS 1.2, as far as its hello is there.
func (h *Hello) Negotiable() bool {
	hello, ok := wire.ParseClientHello(h.Body)
	if !ok {
		return true
	}
	versions := wire.SupportedVersions(hello.Extensions)
	return versions == nil || offersDTLS12(h.Version, versions)
}

// offersDTLS12 reports whether a client offers DTLS 1.2: in supported_versions, if
// it has sent that (RFC 8446 section 4.2.1), or else by client_version, which is
// the latest that it has (RFC 5246 appendix E.1). The lower the number, the later
// the version, so whatever is not above that of 1.2 is 1.2 or later.
func offersDTLS12(clientVersion uint16, supportedVersions []byte) bool {
	if supportedVersions == nil {
		return clientVersion <= wire.VersionDTLS12
	}
	for ; len(supportedVersions) >= 2; supportedVersions = supportedVersions[2:] {
		if binary.BigEndian.Uint16(supportedVersions) == wire.VersionDTLS12 {
			return true
		}
	}
	return false
}

// AppendHelloVerifyRequest appends the datagram that asks the sender of the
// hello to return the cookie. It echoes the hello's record sequence number and
// message_seq (RFC 6347 section 4.2.1 and erratum 5186); its versions are
// those of DTLS 1.0, which says nothing of what will be negotiated.
func (h *Hello) AppendHelloVerifyRequest(dst, cookie []byte) []byte {
	const fixed = 2 + 1 // server_version and the cookie's length
	length := fixed + len(cookie)
	dst = wire.AppendRecordHeader(dst, wire.ContentHandshake, wire.VersionDTLS10, 0, h.RecordSeq, wire.HandshakeHeaderLen+length)
	dst = wire.AppendHandshakeHeader(dst, wire.TypeHelloVerifyRequest, length, h.MessageSeq, 0, length)
	return wire.AppendHelloVerifyRequest(dst, wire.VersionDTLS10, cookie)
}

// AppendProtocolVersion appends the datagram that tells the sender of the hello
// that none of its versions will do, of 15 bytes (RFC 5246 section 7.2.2). It has
// the hello's record sequence number.
func (h *Hello) AppendProtocolVersion(dst []byte) []byte {
	dst = wire.AppendRecordHeader(dst, wire.ContentAlert, wire.VersionDTLS12, 0, h.RecordSeq, 2)
	return append(dst, byte(wire.LevelFatal), byte(wire.AlertProtocolVersion))
}

// ReceiveHello takes the verified hello when it is InParts, in place of the records
// in front of its Rest.
func (e *Engine) ReceiveHello(now time.Time, hello *Hello) {
	if e.AwaitsHello() && hello.MessageSeq == e.hs.nextReceive {
		e.receiveNext(now, wire.TypeClientHello, hello.Body)
		e.receiveKept(now)
	}
}

// AwaitsHello reports whether some of the verified hello has not come.
func (e *Engine) AwaitsHello() bool { return e.state == awaitClientHello }
