package engine

import (
	"golang.org/x/crypto/cryptobyte"

	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// ticketState is what a session ticket holds, before it is sealed. It is read by
// nobody but the server that wrote it (RFC 5077 section 4).
type ticketState struct {
	Suite      uint16
	Created    int64 // seconds since 1970
	Master     []byte
	ServerName []byte
	ALPN       []byte
	Identity   []byte
	KeyDigest  []byte   // of the pre-shared key; empty: none
	Chain      [][]byte // of the client's certificates
}

// ticketVersion is the first byte of the form.
const ticketVersion = 1

// vectors are the fields with a two-byte length, in their order.
func (s *ticketState) vectors() []*[]byte {
	return []*[]byte{&s.Master, &s.ServerName, &s.ALPN, &s.Identity, &s.KeyDigest}
}

// append appends the session's form. It fails when a field is too long.
func (s *ticketState) append(dst []byte) ([]byte, bool) {
	b := cryptobyte.NewBuilder(dst)
	b.AddUint8(ticketVersion)
	b.AddUint16(s.Suite)
	b.AddUint64(uint64(s.Created))
	for _, v := range s.vectors() {
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(*v) })
	}
	b.AddBytes(wire.AppendCertificate(nil, s.Chain))
	out, err := b.Bytes()
	return out, err == nil
}

// parse reads the form into s, which aliases it.
func (s *ticketState) parse(form []byte) bool {
	b := cryptobyte.String(form)
	var version uint8
	var created uint64
	if !b.ReadUint8(&version) || version != ticketVersion || !b.ReadUint16(&s.Suite) || !b.ReadUint64(&created) {
		return false
	}
	s.Created = int64(created)
	for _, v := range s.vectors() {
		if !b.ReadUint16LengthPrefixed((*cryptobyte.String)(v)) {
			return false
		}
	}
	var ok bool
	s.Chain, ok = wire.ParseCertificate(b)
	return ok
}
