package wire

import "golang.org/x/crypto/cryptobyte"

// Session is what a session ticket holds, before it is sealed. It is read by
// nobody but the server that wrote it (RFC 5077 section 4).
type Session struct {
	Suite      uint16
	Created    int64 // seconds since 1970
	Master     []byte
	ServerName []byte
	ALPN       []byte
	Identity   []byte
	KeyDigest  []byte   // of the pre-shared key; empty: none
	Chain      [][]byte // of the client's certificates
}

// sessionVersion is the first byte of the form.
const sessionVersion = 1

// vectors are the fields with a two-byte length, in their order.
func (s *Session) vectors() []*[]byte {
	return []*[]byte{&s.Master, &s.ServerName, &s.ALPN, &s.Identity, &s.KeyDigest}
}

// Append appends the session's form. It fails when a field is too long.
func (s *Session) Append(dst []byte) ([]byte, bool) {
	b := cryptobyte.NewBuilder(dst)
	b.AddUint8(sessionVersion)
	b.AddUint16(s.Suite)
	b.AddUint64(uint64(s.Created))
	for _, v := range s.vectors() {
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(*v) })
	}
	b.AddBytes(AppendCertificate(nil, s.Chain))
	out, err := b.Bytes()
	return out, err == nil
}

// Parse reads the form into s, which aliases it.
func (s *Session) Parse(form []byte) bool {
	b := cryptobyte.String(form)
	var version uint8
	var created uint64
	if !b.ReadUint8(&version) || version != sessionVersion || !b.ReadUint16(&s.Suite) || !b.ReadUint64(&created) {
		return false
	}
	s.Created = int64(created)
	for _, v := range s.vectors() {
		if !vector16(&b, v) {
			return false
		}
	}
	var ok bool
	s.Chain, ok = ParseCertificate(b)
	return ok
}
