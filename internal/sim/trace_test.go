package sim

import (
	"encoding/binary"
	"fmt"
	"hash"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// trace is what happened in a run: a hash of all of it, and on request lines
// that a person reads.
type trace struct {
	on    bool
	hash  hash.Hash64
	lines []string

	lengths []int // that connection IDs have
}

func newTrace(on bool) trace { return trace{on: on, hash: fnv.New64a(), lengths: []int{0}} }

// knows notes a length of connection IDs.
func (t *trace) knows(length int) {
	if !slices.Contains(t.lengths, length) {
		// The longest first: what is taken for a long one of somebody's is that.
		t.lengths = append(t.lengths, length)
		slices.SortFunc(t.lengths, func(a, b int) int { return b - a })
	}
}

func (t *trace) line(at time.Duration, text string) {
	t.lines = append(t.lines, fmt.Sprintf("%12.6f  %s", at.Seconds(), text))
}

// parcel notes a datagram: that somebody sent or received it.
func (t *trace) parcel(at time.Duration, what, who string, b []byte) {
	var head [8]byte
	binary.BigEndian.PutUint64(head[:], uint64(at))
	t.hash.Write(head[:])
	t.hash.Write([]byte(what))
	t.hash.Write([]byte(who))
	t.hash.Write(b)
	if t.on {
		t.line(at, fmt.Sprintf("%-40s %s %s", who, what, t.describe(b)))
	}
}

// event notes an event of the server's.
func (t *trace) event(at time.Duration, text string) {
	t.hash.Write([]byte(text))
	if t.on {
		t.line(at, "    server: "+text)
	}
}

// addr notes a datagram of or to an address.
func (t *trace) addr(at time.Duration, what string, addr netip.AddrPort, b []byte) {
	t.parcel(at, what, addr.String(), b)
}

var messageNames = map[wire.HandshakeType]string{
	wire.TypeHelloRequest: "HelloRequest", wire.TypeClientHello: "ClientHello", wire.TypeServerHello: "ServerHello",
	wire.TypeHelloVerifyRequest: "HelloVerifyRequest", wire.TypeNewSessionTicket: "NewSessionTicket",
	wire.TypeCertificate: "Certificate", wire.TypeServerKeyExchange: "ServerKeyExchange",
	wire.TypeCertificateRequest: "CertificateRequest", wire.TypeServerHelloDone: "ServerHelloDone",
	wire.TypeCertificateVerify: "CertificateVerify", wire.TypeClientKeyExchange: "ClientKeyExchange",
	wire.TypeFinished: "Finished",
}

// describe is describe with connection IDs of any length with which the datagram can be
// split.
func (t *trace) describe(b []byte) string {
	for _, n := range t.lengths {
		if _, ok := records(b, n); ok {
			return describe(b, n)
		}
	}
	return describe(b, 0)
}

// describe says what a datagram holds, as far as it is not sealed.
func describe(b []byte, cidLen int) string {
	var parts []string
	length := len(b)
	for len(b) > 0 {
		r, rest, ok := wire.ParseRecord(b, cidLen)
		if !ok {
			parts = append(parts, fmt.Sprintf("%d bytes that are no record", len(b)))
			break
		}
		b = rest
		parts = append(parts, describeRecord(r))
	}
	return fmt.Sprintf("%s (%d bytes)", strings.Join(parts, ", "), length)
}

func describeRecord(r wire.Record) string {
	sealed := ""
	if r.Epoch > 0 {
		sealed = fmt.Sprintf("sealed %d ", r.Seq)
		if r.Epoch > 1 {
			sealed = fmt.Sprintf("epoch %d ", r.Epoch)
		}
	}
	if r.CID() != nil {
		sealed += fmt.Sprintf("for %x ", r.CID()[:min(4, len(r.CID()))])
	}
	switch r.Type {
	case wire.ContentChangeCipherSpec:
		return sealed + "ChangeCipherSpec"
	case wire.ContentApplicationData:
		return sealed + "data"
	case wire.ContentAlert:
		if a, ok := wire.ParseAlert(r.Payload); ok && r.Epoch == 0 {
			return fmt.Sprintf("alert %d level %d", a.Description, a.Level)
		}
		return sealed + "alert"
	case wire.ContentHandshake:
		if r.Epoch > 0 {
			return sealed + "handshake"
		}
		return describeMessages(r.Payload)
	}
	return fmt.Sprintf("%srecord of type %d", sealed, r.Type)
}

func describeMessages(content []byte) string {
	var parts []string
	for len(content) > 0 {
		f, rest, ok := wire.ParseFragment(content)
		if !ok {
			return strings.Join(append(parts, "no handshake message"), "+")
		}
		content = rest
		name := messageNames[f.Type]
		if name == "" {
			name = fmt.Sprintf("message %d", f.Type)
		}
		name = fmt.Sprintf("%s[%d]", name, f.MessageSeq)
		if !f.Whole() {
			name += fmt.Sprintf(" bytes %d-%d of %d", f.Offset, int(f.Offset)+len(f.Body), f.Length)
		}
		if f.Type == wire.TypeClientHello && f.Offset == 0 {
			if h, _, ok := wire.ParseClientHelloHead(f.Body); ok {
				name += fmt.Sprintf(" %x", h.Random[:3])
				if len(h.Cookie) > 0 {
					name += " with a cookie"
				}
			}
		}
		parts = append(parts, name)
	}
	return strings.Join(parts, "+")
}
