package dtlsserver

import (
	"net"
	"strings"

	"github.com/dtlsserver/dtlsserver/internal/engine"
)

// Certificates by the names that they are for, as x509.Certificate's
// VerifyHostname has it, so that to look one up takes the same time however many
// there are.

// certificateIndex finds the certificate for a client: the first that is for the
// server name that it asks for (RFC 6066 section 3) and that it can verify, or
// else the first that it can verify. A client may verify a chain although it does
// not list all algorithms of its signatures, but one whose signatures it lists is
// before one that has others.
type certificateIndex struct {
	suites       []*engine.Suite // that the server has
	certificates []*engine.Certificate
	kinds        []engine.Kind // of all certificates, each once

	any       firsts            // for no name, or one that is unknown
	addresses map[string]firsts // by the 16 bytes of an IP address
	hosts     map[string]firsts // by host name, in lower case, without a wildcard
	wildcards map[string]firsts // "*." and the key
	others    map[string]firsts // what is no host name: it must be the same
}

// firsts are the first certificates of each kind.
type firsts []first

type first struct{ kind, certificate int }

func newCertificateIndex(certificates []*engine.Certificate, suites []*engine.Suite) *certificateIndex {
	x := &certificateIndex{
		suites:       suites,
		certificates: certificates,
		addresses:    make(map[string]firsts),
		hosts:        make(map[string]firsts),
		wildcards:    make(map[string]firsts),
		others:       make(map[string]firsts),
	}
	kinds := make(map[engine.Kind]int)
	for i, c := range certificates {
		if c == nil { // and the configuration is refused
			continue
		}
		kind, known := kinds[c.Kind()]
		if !known {
			kind = len(x.kinds)
			kinds[c.Kind()] = kind
			x.kinds = append(x.kinds, c.Kind())
		}
		f := first{kind, i}
		x.any = x.any.with(f)
		for _, ip := range c.Leaf.IPAddresses {
			key := string(ip.To16())
			x.addresses[key] = x.addresses[key].with(f)
		}
		for _, name := range c.Leaf.DNSNames {
			x.add(name, f)
		}
	}
	return x
}

// add adds a certificate for a name.
func (x *certificateIndex) add(name string, f first) {
	in, key := x.others, lowerASCII(name)
	if isHostname(name, true) {
		in = x.hosts
		if rest, ok := strings.CutPrefix(key, "*."); ok {
			in, key = x.wildcards, rest
		}
	}
	in[key] = in[key].with(f)
}

// with adds one of a kind that has none yet: any before is in front of it.
func (f firsts) with(next first) firsts {
	for _, one := range f {
		if one.kind == next.kind {
			return f
		}
	}
	return append(f, next)
}

// choose returns the certificate for a client, or nil.
func (x *certificateIndex) choose(hello *engine.HelloInfo) *engine.Certificate {
	fits := hello.Suits(x.kinds, x.suites)
	best, fit := -1, engine.FitNot
	better := func(f firsts) {
		for _, one := range f {
			if is := fits[one.kind]; is > fit || is == fit && is != engine.FitNot && one.certificate < best {
				best, fit = one.certificate, is
			}
		}
	}
	x.lookup(hello.ServerName, better)
	if best < 0 {
		better(x.any)
	}
	if best < 0 {
		return nil
	}
	return x.certificates[best]
}

// lookup calls found with all that are for a name.
func (x *certificateIndex) lookup(name string, found func(firsts)) {
	if name == "" {
		return
	}
	if ip := net.ParseIP(unbracketed(name)); ip != nil {
		found(x.addresses[string(ip.To16())])
		return
	}
	name = lowerASCII(name)
	if !isHostname(name, false) {
		if rest, ok := strings.CutPrefix(name, "*."); ok {
			found(x.wildcards[rest])
		}
		if name != "." {
			found(x.others[name])
		}
		return
	}
	found(x.others[name]) // such as end with a dot
	host := strings.TrimSuffix(name, ".")
	found(x.hosts[host])
	if _, rest, ok := strings.Cut(host, "."); ok {
		found(x.wildcards[rest])
	}
}

// unbracketed returns what is in brackets, as IP addresses may be.
func unbracketed(name string) string {
	if len(name) >= 3 && name[0] == '[' && name[len(name)-1] == ']' {
		return name[1 : len(name)-1]
	}
	return name
}

// isHostname reports whether a name is one that wildcards and a dot at the end
// count in: of a pattern, the first label may be an asterisk; else a dot may
// end it.
func isHostname(name string, pattern bool) bool {
	if !pattern {
		name = strings.TrimSuffix(name, ".")
	}
	if name == "*" {
		return false
	}
	for first := true; ; first = false {
		label, rest, more := strings.Cut(name, ".")
		if !isLabel(label) && !(pattern && first && label == "*") {
			return false
		}
		if !more {
			return true
		}
		name = rest
	}
}

// isLabel reports whether a label consists of letters, digits, hyphens, of which
// none is first, and underscores.
func isLabel(label string) bool {
	for i := range len(label) {
		switch c := label[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_':
		case c == '-' && i > 0:
		default:
			return false
		}
	}
	return label != ""
}

// lowerASCII returns s with its ASCII letters in lower case.
func lowerASCII(s string) string {
	upper := func(c byte) bool { return 'A' <= c && c <= 'Z' }
	for i := range len(s) {
		if upper(s[i]) {
			b := []byte(s)
			for ; i < len(b); i++ {
				if upper(b[i]) {
					b[i] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}
