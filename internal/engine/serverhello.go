package engine

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"io"
	"slices"
	"time"

	"github.com/dtlsserver/dtlsserver/internal/suite"
	"github.com/dtlsserver/dtlsserver/internal/wire"
)

// Certificate is what the server authenticates with.
type Certificate struct {
	Chain [][]byte // DER, the leaf first
	Key   crypto.Signer
	Leaf  *x509.Certificate
	// Schemes are the signature schemes that Key is to be used with. If nil, they
	// are all that it can make.
	Schemes []uint16
	// Staple is the OCSP response, and SCTs the list of signed certificate
	// timestamps behind its length, for clients that ask for them. If nil, there is
	// none.
	Staple []byte
	SCTs   []byte
}

// HelloInfo is what a certificate is chosen by. Its lists are as they stand in the
// hello: numbers of two bytes each, and in ALPN names behind their lengths. Those
// of a client that does not say are nil.
type HelloInfo struct {
	ServerName         string
	CipherSuites       []byte
	SupportedGroups    []byte
	Schemes            []byte
	CertificateSchemes []byte // in chains; nil: Schemes
	ALPN               []byte
}

// maxServerName is the length of the longest host name, in bytes.
const maxServerName = 255

// clone returns a copy that outlasts the hello.
func (h *HelloInfo) clone() *HelloInfo {
	return &HelloInfo{
		h.ServerName, bytes.Clone(h.CipherSuites), bytes.Clone(h.SupportedGroups),
		bytes.Clone(h.Schemes), bytes.Clone(h.CertificateSchemes), bytes.Clone(h.ALPN),
	}
}

// Numbers returns the numbers of a list, converted.
func Numbers[T ~uint16](list []byte) (numbers []T) {
	for ; len(list) >= 2; list = list[2:] {
		numbers = append(numbers, T(binary.BigEndian.Uint16(list)))
	}
	return numbers
}

// Names returns the names of a list.
func Names(list []byte) (names []string) {
	for len(list) > 0 {
		name := list[1:][:list[0]]
		names, list = append(names, string(name)), list[1+len(name):]
	}
	return names
}

// offer is what a hello offers. It aliases the hello.
type offer struct {
	hello      wire.ClientHello
	extensions wire.ClientExtensions
}

// receiveClientHello takes the verified hello (RFC 5246 section 7.4.1.2).
func (e dtls12) receiveClientHello(now time.Time, seq uint16, body []byte) {
	hs := e.hs
	body = append(hs.hello[:0], body...) // the answer may have to wait
	hs.hello = body
	hello, ok := wire.ParseClientHello(body)
	if !ok {
		e.fail(wire.AlertDecodeError, "malformed ClientHello")
		return
	}
	if !bytes.Equal(hello.Random, e.clientRandom[:]) { // fragments of two hellos
		e.fail(wire.AlertDecodeError, "ClientHello is not the one with the cookie")
		return
	}
	extensions, ok := wire.ParseClientExtensions(hello.Extensions)
	if !ok {
		e.fail(wire.AlertDecodeError, "malformed extensions in ClientHello")
		return
	}
	// A name of the DNS has at most 255 octets (RFC 1035 section 2.3.4). What is
	// longer is no host's, and nobody recognizes it (RFC 6066 section 3).
	if len(extensions.ServerName) > maxServerName {
		e.fail(wire.AlertUnrecognizedName, "server_name is longer than a host's name can be")
		return
	}
	if !offersDTLS12(hello.Version, extensions.SupportedVersions) {
		e.fail(wire.AlertProtocolVersion, "ClientHello offers no DTLS 1.2")
		return
	}
	if !bytes.Contains(hello.CompressionMethods, []byte{0}) {
		e.fail(wire.AlertIllegalParameter, "ClientHello lacks the null compression method")
		return
	}
	if len(extensions.RenegotiatedInfo) != 0 { // RFC 5746 section 3.6
		e.fail(wire.AlertHandshakeFailure, "ClientHello renegotiates nothing")
		return
	}

	hs.offer = offer{hello, extensions}
	hs.helloSeq = seq
	e.parameters.ServerName = extensions.ServerName
	e.parameters.ExtendedMasterSecret = extensions.ExtendedMasterSecret
	if !e.limitRecords(&extensions) || !e.chooseProtocol(extensions.ALPN) {
		return
	}
	switch candidate := e.openTicket(now); {
	case candidate == nil:
		e.negotiate(now)
	case !extensions.ExtendedMasterSecret: // RFC 7627 section 5.3
		e.fail(wire.AlertHandshakeFailure, "ClientHello resumes without extended master secret")
	default:
		e.resume(now, candidate)
	}
}

// negotiate begins a full handshake.
func (e dtls12) negotiate(now time.Time) {
	hello, extensions := &e.hs.offer.hello, &e.hs.offer.extensions
	if !e.offersCertificateSuite() || e.cfg.Certificate == nil {
		e.answerHello(now, nil)
		return
	}
	info := HelloInfo{
		ServerName:         extensions.ServerName,
		CipherSuites:       hello.CipherSuites,
		SupportedGroups:    extensions.SupportedGroups,
		Schemes:            extensions.SignatureAlgorithms,
		CertificateSchemes: extensions.CertificateSchemes,
		ALPN:               extensions.ALPN,
	}
	if !e.cfg.AskCertificate {
		e.answerHello(now, e.cfg.Certificate(&info))
		return
	}
	e.state = awaitCredential
	e.raise(Event{Kind: EventCertificateNeeded, Hello: info.clone()})
}

// AnswerCertificate answers EventCertificateNeeded. If certificate is nil, there is
// none for this client, which may still have a suite that needs none.
// AnswerCertificate does nothing unless the engine waits for it.
func (e *Engine) AnswerCertificate(now time.Time, certificate *Certificate) {
	if e.state == awaitCredential {
		e.hs.protocol.answerCertificate(now, certificate)
	}
}

func (e dtls12) answerCertificate(now time.Time, certificate *Certificate) {
	e.answerHello(now, certificate)
}

// limitRecords heeds how long records the client takes (RFC 8449, or else RFC
// 6066 section 4).
func (e *Engine) limitRecords(x *wire.ClientExtensions) bool {
	const minRecordSizeLimit = 64
	switch limit, code := x.RecordSizeLimit, x.MaxFragmentLength; {
	case limit != 0 && limit < minRecordSizeLimit:
		e.fail(wire.AlertIllegalParameter, "record_size_limit is too small")
		return false
	case limit != 0:
		e.limit = min(limit, wire.MaxPlaintext) // of protected records only: RFC 8449 section 4
		x.MaxFragmentLength = 0
		e.hs.offer.extensions.MaxFragmentLength = 0
	case code > 4:
		e.fail(wire.AlertIllegalParameter, "max_fragment_length is unknown")
		return false
	case code != 0:
		e.limit = 256 << code
		e.plainLimit = e.limit
	}
	return true
}

// chooseProtocol chooses the application protocol, if both peers have any (RFC
// 7301 section 3.2).
func (e *Engine) chooseProtocol(offered []byte) bool {
	if len(offered) == 0 || len(e.cfg.NextProtos) == 0 {
		return true
	}
	best := len(e.cfg.NextProtos)
	for len(offered) > 0 {
		name := offered[1:][:offered[0]]
		offered = offered[1+len(name):]
		for i, p := range e.cfg.NextProtos[:best] {
			if p == string(name) {
				best = i
				break
			}
		}
	}
	if best == len(e.cfg.NextProtos) {
		e.fail(wire.AlertNoALPN, "no application protocol in common")
		return false
	}
	e.parameters.ALPN = e.cfg.NextProtos[best]
	return true
}

// offersCertificateSuite reports whether a certificate could be of use.
func (e dtls12) offersCertificateSuite() bool {
	offered := newNumbers(e.hs.offer.hello.CipherSuites)
	return slices.ContainsFunc(e.cfg.Suites, func(s *suite.Suite) bool {
		return !s.KeyExchange.WithPSK() && offered.has(s.ID)
	})
}

// answerHello answers the verified hello with flight 4.
func (e dtls12) answerHello(now time.Time, certificate *Certificate) {
	hs := e.hs
	if certificate != nil && !certificate.serves(hs.offer.extensions.SupportedGroups) { // as a hook may choose
		certificate = nil
	}
	group := e.chooseGroup()
	scheme := e.chooseScheme(certificate)
	e.parameters.Suite = e.chooseSuite(certificate, group != 0, scheme != 0)
	if e.parameters.Suite == nil {
		e.fail(wire.AlertHandshakeFailure, e.whyNoSuite(certificate))
		return
	}
	if _, err := io.ReadFull(e.cfg.Rand, e.serverRandom[:]); err != nil {
		e.failInternal(CauseEntropy, err)
		return
	}
	kx := e.parameters.Suite.KeyExchange
	request := !kx.WithPSK() && e.cfg.RequestClientCertificate
	if request {
		hs.messages = []byte{}
	}
	hs.transcript.Begin(e.parameters.Suite.Hash)
	hs.addReceived(wire.TypeClientHello, hs.helloSeq, hs.hello)

	hs.ticket = e.promisesTicket()
	if kx.WithPSK() {
		e.addServerHello(nil, hs.ticket, nil, nil)
	} else {
		e.addCertificate(certificate)
	}
	hs.answered()
	if kx.ECDHE() {
		e.addServerKeyExchange(group, scheme, certificate)
		return
	}
	if hint := e.hint(); len(hint) > 0 { // RFC 4279 section 2
		e.addMessage(wire.TypeServerKeyExchange, func(b []byte) []byte { return wire.AppendServerKeyExchangePSK(b, hint) })
	}
	e.addServerHelloDone(now)
}

// addCertificate adds ServerHello and Certificate, and what else the client asks for
// of what is known of the certificate: the response of OCSP (RFC 6066 section 8)
// and signed timestamps (RFC 6962 section 3.3.1).
func (e dtls12) addCertificate(certificate *Certificate) {
	hs := e.hs
	staple, timestamps := certificate.Staple, certificate.SCTs
	if !hs.offer.extensions.StatusRequest {
		staple = nil
	}
	if !hs.offer.extensions.SCT {
		timestamps = nil
	}
	e.addServerHello(nil, hs.ticket, staple, timestamps)
	e.addMessage(wire.TypeCertificate, func(b []byte) []byte { return wire.AppendCertificate(b, certificate.Chain) })
	if staple != nil {
		e.addMessage(wire.TypeCertificateStatus, func(b []byte) []byte { return wire.AppendCertificateStatus(b, staple) })
	}
}

// hint is the PSK identity hint for the client.
func (e *Engine) hint() []byte {
	if e.cfg.PSKIdentityHint == nil {
		return nil
	}
	return e.cfg.PSKIdentityHint(e.parameters.ServerName)
}

// addServerHelloDone adds what follows ServerKeyExchange, and lets the flight go.
func (e dtls12) addServerHelloDone(now time.Time) {
	hs := e.hs
	e.state = awaitClientKeyExchange
	if hs.messages != nil {
		e.addMessage(wire.TypeCertificateRequest, func(b []byte) []byte { return wire.AppendCertificateRequest(b, suite.Schemes()) })
		e.state = awaitCertificate
	}
	e.addMessage(wire.TypeServerHelloDone, nil)
	e.flight.held = false
	hs.progressed(now)
	e.resendFrom = now.Add(e.cfg.resendGap())
	hs.resendAt = now.Add(hs.timeout)
}

// answered lets go of what was only to be answered.
func (hs *handshake) answered() {
	hs.offer = offer{}
	hs.hello = emptied(hs.hello)
}

func (e dtls12) addServerHello(sessionID []byte, ticket bool, staple, timestamps []byte) {
	hs := e.hs
	hello, x := &hs.offer.hello, &hs.offer.extensions
	answer := wire.ServerHello{
		Version:     wire.VersionDTLS12,
		Random:      e.serverRandom[:],
		SessionID:   sessionID,
		CipherSuite: e.parameters.Suite.ID,
		ServerExtensions: wire.ServerExtensions{
			// RFC 5746 section 3.6
			RenegotiationInfo:    x.RenegotiationInfo || hello.OffersSuite(wire.SuiteEmptyRenegotiationInfo),
			ExtendedMasterSecret: x.ExtendedMasterSecret,
			ECPointFormats:       x.ECPointFormats != nil && e.parameters.Suite.KeyExchange.ECDHE(), // RFC 8422 section 5.2
			ALPN:                 e.parameters.ALPN,
			MaxFragmentLength:    x.MaxFragmentLength,
			StatusRequest:        staple != nil,
			SCTs:                 timestamps,
			SessionTicket:        ticket,
		},
	}
	if x.RecordSizeLimit != 0 {
		answer.RecordSizeLimit = wire.MaxPlaintext
	}
	e.settleConnectionIDs(x)
	answer.ConnectionID, answer.ReturnRoutability = e.ConnectionID(), e.ChecksPaths()
	e.addMessage(wire.TypeServerHello, answer.Append)
}

// addServerKeyExchange has ServerKeyExchange made, with a new key pair, signed if there is a
// certificate (RFC 8422 section 5.4, RFC 5489 section 2). The flight waits for
// it. The client chooses the group: a key pair of P-384 costs ten of P-256.
func (e dtls12) addServerKeyExchange(group, scheme uint16, certificate *Certificate) {
	hs := e.hs
	e.parameters.Group = group
	e.flight.held = true
	withPSK, random := e.parameters.Suite.KeyExchange.WithPSK(), e.cfg.Rand
	var hint []byte
	if withPSK {
		hint = e.hint()
	}
	randoms := slices.Concat(e.clientRandom[:], e.serverRandom[:])
	e.work(awaitServerKeyExchange, !withPSK && blocks(certificate.Key), func() func(time.Time) {
		key, err := suite.Curve(group).GenerateKey(random)
		if err != nil {
			return func(time.Time) { e.failInternal(CauseEntropy, err) }
		}
		params := wire.AppendServerECDHParams(nil, group, key.PublicKey().Bytes())
		var body []byte
		if withPSK {
			body = append(wire.AppendServerKeyExchangePSK(nil, hint), params...)
		} else {
			signature, err := suite.Sign(random, certificate.Key, scheme, slices.Concat(randoms, params))
			if err != nil {
				return func(time.Time) { e.failInternal(CauseInternal, err) }
			}
			body = wire.AppendSignature(params, scheme, signature)
		}
		return func(now time.Time) {
			hs.ecdh = key
			e.addMessage(wire.TypeServerKeyExchange, func(b []byte) []byte { return append(b, body...) })
			e.addServerHelloDone(now)
		}
	})
}

// blocks reports whether a private key may do other than compute.
func blocks(key crypto.Signer) bool {
	switch key.(type) {
	case *ecdsa.PrivateKey, *rsa.PrivateKey, ed25519.PrivateKey:
		return false
	}
	return true
}

// chooseSuite returns the first of the server's suites that the client offers
// and that both have the means for.
func (e dtls12) chooseSuite(certificate *Certificate, group, scheme bool) *suite.Suite {
	offered := newNumbers(e.hs.offer.hello.CipherSuites)
	for _, s := range e.cfg.Suites {
		kx := s.KeyExchange
		switch {
		case !offered.has(s.ID):
		case kx.WithPSK() && !e.cfg.PSK:
		case kx.ECDHE() && !group:
		case !kx.WithPSK() && (certificate == nil || !scheme || suite.KeyExchangeOf(certificate.Key.Public()) != kx):
		default:
			return s
		}
	}
	return nil
}

// whyNoSuite says why chooseSuite has returned none.
func (e dtls12) whyNoSuite(certificate *Certificate) string {
	if certificate == nil && e.cfg.Certificate != nil && e.offersCertificateSuite() {
		return "no certificate suits the client's cipher suites, groups and signature algorithms"
	}
	return "no cipher suite in common"
}

// chooseGroup returns the first of the server's groups that the client has, or
// zero. A client that does not say has all (RFC 8422 section 5.1), but one that
// does not take uncompressed points has none.
func (e *Engine) chooseGroup() uint16 {
	x := &e.hs.offer.extensions
	if x.ECPointFormats != nil && !bytes.Contains(x.ECPointFormats, []byte{0}) {
		return 0
	}
	return firstOf(e.cfg.Groups, x.SupportedGroups, x.SupportedGroups == nil)
}

// chooseScheme returns the first signature scheme that the certificate's key and
// the client have, or zero. A client that does not say has SHA-1 only (RFC 5246
// section 7.4.1.4.1).
func (e *Engine) chooseScheme(certificate *Certificate) uint16 {
	if certificate == nil {
		return 0
	}
	var can []uint16
	schemes := certificate.schemes()
	for i, s := range suite.Schemes() {
		if schemes&(1<<i) != 0 {
			can = append(can, s)
		}
	}
	return firstOf(can, e.hs.offer.extensions.SignatureAlgorithms, false)
}

// firstOf returns the first of ours that is among theirs, or zero.
func firstOf(ours []uint16, theirs []byte, all bool) uint16 {
	offered := newNumbers(theirs)
	for _, v := range ours {
		if all || offered.has(v) {
			return v
		}
	}
	return 0
}

// numbers is the set of what a list of a hello holds, which may be thousands.
type numbers struct {
	list []byte
	set  *[1 << 16 / 64]uint64 // of a long list; nil: it is read each time
}

func newNumbers(list []byte) numbers {
	const long = 1 << 10 // bytes
	n := numbers{list: list}
	if len(list) > long {
		n.set = new([1 << 16 / 64]uint64)
		for ; len(list) >= 2; list = list[2:] {
			v := binary.BigEndian.Uint16(list)
			n.set[v/64] |= 1 << (v % 64)
		}
	}
	return n
}

func (n *numbers) has(v uint16) bool {
	if n.set != nil {
		return n.set[v/64]&(1<<(v%64)) != 0
	}
	for list := n.list; len(list) >= 2; list = list[2:] {
		if binary.BigEndian.Uint16(list) == v {
			return true
		}
	}
	return false
}
