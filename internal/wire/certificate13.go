package wire

// The messages of DTLS 1.3 with certificates (RFC 8446 sections 4.3.2 and 4.4).
// CertificateVerify has the form of 1.2: AppendSignature, ParseCertificateVerify.

import (
	"encoding/binary"

	"golang.org/x/crypto/cryptobyte"
)

// CertificateRequest13 is the body of a CertificateRequest (RFC 8446 section 4.3.2). Lists
// are nil when the extension is not there and else not empty.
type CertificateRequest13 struct {
	Context                []byte // certificate_request_context: empty in a handshake
	SignatureAlgorithms    []byte // RFC 8446 section 4.2.3: two bytes each; must be there
	CertificateAuthorities []byte // RFC 8446 section 4.2.4: AppendDistinguishedName
	CertificateSchemes     []byte // RFC 8446 section 4.2.3, signature_algorithms_cert: two bytes each
}

// Append appends the body.
func (r *CertificateRequest13) Append(dst []byte) []byte {
	dst = append(append(dst, byte(len(r.Context))), r.Context...)
	start := len(dst)
	dst = append(dst, 0, 0)
	dst = appendExtensionList(dst, extensionSignatureAlgorithms, r.SignatureAlgorithms)
	dst = appendExtensionList(dst, extensionCertificateAuthorities, r.CertificateAuthorities)
	dst = appendExtensionList(dst, extensionCertificateSchemes, r.CertificateSchemes)
	return endVector16(dst, start)
}

// ParseCertificateRequest13 reads the body of a CertificateRequest, for test peers. Other
// extensions are skipped (RFC 8446 section 4.3.2); whether SignatureAlgorithms is there is
// not looked at.
func ParseCertificateRequest13(body []byte) (r CertificateRequest13, ok bool) {
	s := cryptobyte.String(body)
	var block []byte
	if !vector8(&s, &r.Context) || !vector16(&s, &block) || len(block) == 0 || !s.Empty() {
		return CertificateRequest13{}, false
	}
	ok = eachExtension(block, func(id uint16, data *cryptobyte.String) bool {
		switch id {
		case extensionSignatureAlgorithms:
			return numbers16(data, &r.SignatureAlgorithms)
		case extensionCertificateAuthorities:
			return names16(data, &r.CertificateAuthorities)
		case extensionCertificateSchemes:
			return numbers16(data, &r.CertificateSchemes)
		}
		return skipExtension(id, data)
	})
	if !ok {
		return CertificateRequest13{}, false
	}
	return r, true
}

// CertificateEntry is one certificate of a chain, with what belongs to it (RFC 8446 section
// 4.4.2).
type CertificateEntry struct {
	Certificate []byte // cert_data: not empty
	Extensions  []byte // the content of the extensions block, at most 65535 bytes
}

// AppendCertificate13 appends the body of a Certificate. In a handshake the context is
// empty for a server, and for a client that of the CertificateRequest.
func AppendCertificate13(dst, context []byte, chain []CertificateEntry) []byte {
	dst = append(append(dst, byte(len(context))), context...)
	total := 0
	for i := range chain {
		total += 3 + len(chain[i].Certificate) + 2 + len(chain[i].Extensions)
	}
	dst = appendUint24(dst, total)
	for i := range chain {
		dst = append(appendUint24(dst, len(chain[i].Certificate)), chain[i].Certificate...)
		dst = appendVector16(dst, chain[i].Extensions)
	}
	return dst
}

// ParseCertificate13 reads the body of a Certificate. A client without one sends an empty
// chain. The extensions of each are whole, and none comes twice.
func ParseCertificate13(body []byte) (context []byte, chain []CertificateEntry, ok bool) {
	context, list, ok := certificateList13(body)
	for ok && !list.Empty() {
		var entry CertificateEntry
		if ok = readEntry(&list, &entry); ok {
			chain = append(chain, entry)
		}
	}
	if !ok {
		return nil, nil, false
	}
	return context, chain, true
}

// CountCertificates13 returns how many certificates the body of a Certificate has, and one
// more than most when there are more. It keeps none.
func CountCertificates13(body []byte, most int) (n int, ok bool) {
	_, list, ok := certificateList13(body)
	for ; ok && !list.Empty() && n <= most; n++ {
		var entry CertificateEntry
		ok = readEntry(&list, &entry)
	}
	if !ok {
		return 0, false
	}
	return n, true
}

func certificateList13(body []byte) (context []byte, list cryptobyte.String, ok bool) {
	s := cryptobyte.String(body)
	ok = vector8(&s, &context) && s.ReadUint24LengthPrefixed(&list) && s.Empty()
	return context, list, ok
}

func readEntry(list *cryptobyte.String, entry *CertificateEntry) bool {
	var certificate cryptobyte.String
	if !list.ReadUint24LengthPrefixed(&certificate) || certificate.Empty() ||
		!vector16(list, &entry.Extensions) || !wholeExtensions(entry.Extensions) {
		return false
	}
	entry.Certificate = certificate
	return true
}

// AppendCertificateExtensions appends what a server says of a certificate to the
// Extensions of its entry: a response of OCSP (RFC 8446 section 4.4.2.1), and the list that
// AppendSCTs makes (RFC 6962 section 3.3). What is empty is not there.
func AppendCertificateExtensions(dst, ocsp, scts []byte) []byte {
	if len(ocsp) > 0 {
		dst = binary.BigEndian.AppendUint16(dst, extensionStatusRequest)
		dst = binary.BigEndian.AppendUint16(dst, uint16(certificateStatusLen+len(ocsp)))
		dst = AppendCertificateStatus(dst, ocsp)
	}
	if len(scts) > 0 {
		dst = appendExtension(dst, extensionSCT, scts...)
	}
	return dst
}

// certificateStatusLen is the length of a CertificateStatus without its response.
const certificateStatusLen = 1 + 3

// ParseCertificateExtensions reads the Extensions of a server's entry, for test peers. An
// extension that this server does not send makes it fail.
func ParseCertificateExtensions(block []byte) (ocsp, scts []byte, ok bool) {
	ok = eachExtension(block, func(id uint16, data *cryptobyte.String) bool {
		switch id {
		case extensionStatusRequest:
			const typeOCSP = 1
			var status uint8
			var response cryptobyte.String
			if !data.ReadUint8(&status) || status != typeOCSP || !data.ReadUint24LengthPrefixed(&response) || response.Empty() {
				return false
			}
			ocsp = response
			return true
		case extensionSCT:
			scts = *data
			var list []byte
			return names16(data, &list)
		}
		return false
	})
	if !ok {
		return nil, nil, false
	}
	return ocsp, scts, true
}
