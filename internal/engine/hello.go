package engine

import "github.com/dtlsserver/dtlsserver/internal/wire"

// Hello is a ClientHello at the head of a datagram, as far as it is there: of one
// that is fragmented, up to its cookie. It aliases the datagram.
type Hello struct {
	RecordSeq  uint64
	MessageSeq uint16
	wire.ClientHello
}

// ParseHello reads the ClientHello at the head of a datagram, in epoch 0. Of one
// that is fragmented, the first fragment must hold the cookie, which 99 bytes
// surely do; the others need not be there.
func ParseHello(datagram []byte) (Hello, bool) {
	r, _, ok := NextRecord(datagram)
	if !ok || r.Type != wire.ContentHandshake || r.Epoch != 0 {
		return Hello{}, false
	}
	f, _, ok := wire.ParseFragment(r.Payload)
	if !ok || f.Type != wire.TypeClientHello || f.Offset != 0 || f.Length > maxClientHello {
		return Hello{}, false
	}
	var h wire.ClientHello
	if f.Whole() {
		h, ok = wire.ParseClientHello(f.Body)
	} else {
		h, _, ok = wire.ParseClientHelloHead(f.Body)
	}
	if !ok || h.Version>>8 != 0xfe {
		return Hello{}, false
	}
	return Hello{RecordSeq: r.Seq, MessageSeq: f.MessageSeq, ClientHello: h}, true
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
