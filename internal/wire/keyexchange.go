package wire

import (
	"encoding/binary"

	"golang.org/x/crypto/cryptobyte"
)

// AppendServerKeyExchangePSK appends the body of a ServerKeyExchange of the
// plain PSK key exchange (RFC 4279 section 2), and the beginning of one with
// ECDHE_PSK (RFC 5489 section 2).
func AppendServerKeyExchangePSK(dst []byte, identityHint []byte) []byte {
	return appendVector16(dst, identityHint)
}

// AppendServerECDHParams appends ServerECDHParams with a named curve (RFC 8422
// section 5.4).
func AppendServerECDHParams(dst []byte, group uint16, public []byte) []byte {
	const namedCurve = 3
	dst = append(dst, namedCurve)
	dst = binary.BigEndian.AppendUint16(dst, group)
	dst = append(dst, byte(len(public)))
	return append(dst, public...)
}

// AppendSignature appends a digitally-signed struct (RFC 5246 section 4.7).
func AppendSignature(dst []byte, scheme uint16, signature []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, scheme)
	return appendVector16(dst, signature)
}

// ParseClientKeyExchangePSK reads the body of a ClientKeyExchange of the plain
// PSK key exchange (RFC 4279 section 2).
func ParseClientKeyExchangePSK(body []byte) (identity []byte, ok bool) {
	s := cryptobyte.String(body)
	if !vector16(&s, &identity) || !s.Empty() {
		return nil, false
	}
	return identity, true
}

// ParseClientKeyExchangeECDHE reads the body of a ClientKeyExchange of ECDHE
// (RFC 8422 section 5.7).
func ParseClientKeyExchangeECDHE(body []byte) (public []byte, ok bool) {
	s := cryptobyte.String(body)
	if !vector8(&s, &public) || len(public) == 0 || !s.Empty() {
		return nil, false
	}
	return public, true
}

// ParseClientKeyExchangeECDHEPSK reads the body of a ClientKeyExchange of
// ECDHE_PSK (RFC 5489 section 2).
func ParseClientKeyExchangeECDHEPSK(body []byte) (identity, public []byte, ok bool) {
	s := cryptobyte.String(body)
	if !vector16(&s, &identity) {
		return nil, nil, false
	}
	public, ok = ParseClientKeyExchangeECDHE(s)
	if !ok {
		return nil, nil, false
	}
	return identity, public, true
}

// AppendCertificate appends the body of a Certificate (RFC 5246 section
// 7.4.2).
func AppendCertificate(dst []byte, chain [][]byte) []byte {
	total := 0
	for _, c := range chain {
		total += 3 + len(c)
	}
	dst = appendUint24(dst, total)
	for _, c := range chain {
		dst = append(appendUint24(dst, len(c)), c...)
	}
	return dst
}

// ParseCertificate reads the body of a Certificate. A client without one sends
// an empty chain.
func ParseCertificate(body []byte) (chain [][]byte, ok bool) {
	s := cryptobyte.String(body)
	var list cryptobyte.String
	if !s.ReadUint24LengthPrefixed(&list) || !s.Empty() {
		return nil, false
	}
	for !list.Empty() {
		var c cryptobyte.String
		if !list.ReadUint24LengthPrefixed(&c) || c.Empty() {
			return nil, false
		}
		chain = append(chain, c)
	}
	return chain, true
}

// CountCertificates returns how many certificates the body of a Certificate has,
// and one more than most when there are more. It keeps none.
func CountCertificates(body []byte, most int) (n int, ok bool) {
	s := cryptobyte.String(body)
	var list, c cryptobyte.String
	if !s.ReadUint24LengthPrefixed(&list) || !s.Empty() {
		return 0, false
	}
	for ; !list.Empty() && n <= most; n++ {
		if !list.ReadUint24LengthPrefixed(&c) || c.Empty() {
			return 0, false
		}
	}
	return n, true
}

// AppendCertificateRequest appends the body of a CertificateRequest (RFC 5246
// section 7.4.4) for ECDSA and RSA keys, which names no authorities: any
// certificate may be sent.
func AppendCertificateRequest(dst []byte, schemes []uint16) []byte {
	const rsaSign, ecdsaSign = 1, 64
	dst = append(dst, 2, ecdsaSign, rsaSign)
	dst = binary.BigEndian.AppendUint16(dst, uint16(2*len(schemes)))
	for _, s := range schemes {
		dst = binary.BigEndian.AppendUint16(dst, s)
	}
	return append(dst, 0, 0)
}

// ParseCertificateVerify reads the body of a CertificateVerify (RFC 5246
// section 7.4.8).
func ParseCertificateVerify(body []byte) (scheme uint16, signature []byte, ok bool) {
	s := cryptobyte.String(body)
	if !s.ReadUint16(&scheme) || !vector16(&s, &signature) || !s.Empty() {
		return 0, nil, false
	}
	return scheme, signature, true
}

// AppendCertificateStatus appends the body of a CertificateStatus with a response
// of OCSP (RFC 6066 section 8).
func AppendCertificateStatus(dst, response []byte) []byte {
	const ocsp = 1
	dst = appendUint24(append(dst, ocsp), len(response))
	return append(dst, response...)
}

// AppendSCTs appends a SignedCertificateTimestampList (RFC 6962 section 3.3).
func AppendSCTs(dst []byte, timestamps [][]byte) []byte {
	total := 0
	for _, t := range timestamps {
		total += 2 + len(t)
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(total))
	for _, t := range timestamps {
		dst = appendVector16(dst, t)
	}
	return dst
}

// AppendNewSessionTicket appends the body of a NewSessionTicket, with the
// lifetime hint in seconds (RFC 5077 section 3.3). An empty ticket is none.
func AppendNewSessionTicket(dst []byte, lifetime uint32, ticket []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, lifetime)
	return appendVector16(dst, ticket)
}

func appendUint24(dst []byte, n int) []byte {
	return append(dst, byte(n>>16), byte(n>>8), byte(n))
}
