package interop

import (
	"crypto/tls"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dtlsserver/dtlsserver"
)

// keyExchange says what authenticates the server of a suite.
type keyExchange int

const (
	psk keyExchange = iota
	ecdhePSK
	ecdheECDSA
	ecdheRSA
)

// matrixSuite is a cipher suite by the names that the clients know it by. The
// clients made of Go take its number.
type matrixSuite struct {
	id      uint16
	name    string // as IANA registers it
	kx      keyExchange
	openssl string // empty: not there
	gnutls  string // the cipher of a priority string; empty: not there
}

// matrixSuites are in the library's order.
var matrixSuites = []matrixSuite{
	{0xd001, "TLS_ECDHE_PSK_WITH_AES_128_GCM_SHA256", ecdhePSK, "", ""},
	{0xd002, "TLS_ECDHE_PSK_WITH_AES_256_GCM_SHA384", ecdhePSK, "", ""},
	{0xccac, "TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256", ecdhePSK, "ECDHE-PSK-CHACHA20-POLY1305", "CHACHA20-POLY1305"},
	{0xd005, "TLS_ECDHE_PSK_WITH_AES_128_CCM_SHA256", ecdhePSK, "", ""},
	{0xd003, "TLS_ECDHE_PSK_WITH_AES_128_CCM_8_SHA256", ecdhePSK, "", ""},
	{0x00a8, "TLS_PSK_WITH_AES_128_GCM_SHA256", psk, "PSK-AES128-GCM-SHA256", "AES-128-GCM"},
	{0x00a9, "TLS_PSK_WITH_AES_256_GCM_SHA384", psk, "PSK-AES256-GCM-SHA384", "AES-256-GCM"},
	{0xccab, "TLS_PSK_WITH_CHACHA20_POLY1305_SHA256", psk, "PSK-CHACHA20-POLY1305", "CHACHA20-POLY1305"},
	{0xc0a4, "TLS_PSK_WITH_AES_128_CCM", psk, "PSK-AES128-CCM", "AES-128-CCM"},
	{0xc0a5, "TLS_PSK_WITH_AES_256_CCM", psk, "PSK-AES256-CCM", "AES-256-CCM"},
	{0xc0a8, "TLS_PSK_WITH_AES_128_CCM_8", psk, "PSK-AES128-CCM8", "AES-128-CCM-8"},
	{0xc0a9, "TLS_PSK_WITH_AES_256_CCM_8", psk, "PSK-AES256-CCM8", "AES-256-CCM-8"},
	{0xc02b, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", ecdheECDSA, "ECDHE-ECDSA-AES128-GCM-SHA256", "AES-128-GCM"},
	{0xc02c, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", ecdheECDSA, "ECDHE-ECDSA-AES256-GCM-SHA384", "AES-256-GCM"},
	{0xc02f, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", ecdheRSA, "ECDHE-RSA-AES128-GCM-SHA256", "AES-128-GCM"},
	{0xc030, "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", ecdheRSA, "ECDHE-RSA-AES256-GCM-SHA384", "AES-256-GCM"},
	{0xcca9, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", ecdheECDSA, "ECDHE-ECDSA-CHACHA20-POLY1305", "CHACHA20-POLY1305"},
	{0xcca8, "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", ecdheRSA, "ECDHE-RSA-CHACHA20-POLY1305", "CHACHA20-POLY1305"},
	{0xc0ac, "TLS_ECDHE_ECDSA_WITH_AES_128_CCM", ecdheECDSA, "ECDHE-ECDSA-AES128-CCM", "AES-128-CCM"},
	{0xc0ad, "TLS_ECDHE_ECDSA_WITH_AES_256_CCM", ecdheECDSA, "ECDHE-ECDSA-AES256-CCM", "AES-256-CCM"},
	{0xc0ae, "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8", ecdheECDSA, "ECDHE-ECDSA-AES128-CCM8", "AES-128-CCM-8"},
	{0xc0af, "TLS_ECDHE_ECDSA_WITH_AES_256_CCM_8", ecdheECDSA, "ECDHE-ECDSA-AES256-CCM8", "AES-256-CCM-8"},
}

// elsewhere names the tests of the root module that show a suite which no
// client of the matrix has.
var elsewhere = map[uint16]string{0xd002: "TestCertificateSuites"}

// cell is what one handshake is to settle.
type cell struct {
	suite  matrixSuite
	group  tls.CurveID // zero: no ECDHE
	ems    bool
	server string // kind of the server's key; empty: it has a pre-shared one
	client string // kind of the client's key; empty: it has no certificate
	alpn   bool
}

func (c cell) String() string {
	s := c.suite.name
	if c.group != 0 {
		s += "/" + groupName(c.group)
	}
	if c.server != "" {
		s += "/server=" + c.server
	}
	if c.client != "" {
		s += "/client=" + c.client
	}
	if c.alpn {
		s += "/alpn"
	}
	return s + fmt.Sprintf("/ems=%v", c.ems)
}

func groupName(id tls.CurveID) string {
	return map[tls.CurveID]string{tls.CurveP256: "P-256", tls.X25519: "X25519", tls.CurveP384: "P-384"}[id]
}

// offered are the groups for the client to offer: the cell's, and that of the
// server's certificate, without which clients refuse it (RFC 8422 section 5.1).
func (c cell) offered() []tls.CurveID {
	groups := []tls.CurveID{c.group}
	if c.server == "P-256" && c.group != tls.CurveP256 {
		groups = append(groups, tls.CurveP256)
	}
	return groups
}

// cells returns the cells of the suites and groups, and those of the keys and
// of ALPN, which one suite each is enough for.
func cells() (all []cell) {
	for _, s := range matrixSuites {
		groups := []tls.CurveID{tls.CurveP256, tls.X25519, tls.CurveP384}
		if s.kx == psk {
			groups = []tls.CurveID{0}
		}
		server := map[keyExchange]string{ecdheECDSA: "P-256", ecdheRSA: "RSA"}[s.kx]
		for _, g := range groups {
			for _, ems := range []bool{true, false} {
				all = append(all, cell{suite: s, group: g, ems: ems, server: server})
			}
		}
		switch s.id {
		case 0xc02b, 0xc02f:
			for _, ems := range []bool{true, false} {
				for _, client := range []string{"P-256", "RSA", "Ed25519"} {
					all = append(all, cell{suite: s, group: tls.CurveP256, ems: ems, server: server, client: client})
				}
			}
			fallthrough
		case 0x00a8:
			for _, ems := range []bool{true, false} {
				all = append(all, cell{suite: s, group: groups[0], ems: ems, server: server, alpn: true})
			}
		}
		if s.id == 0xc02b {
			for _, ems := range []bool{true, false} {
				for _, server := range []string{"Ed25519", "Ed25519-by-P-256"} {
					all = append(all, cell{suite: s, group: tls.CurveP256, ems: ems, server: server})
				}
			}
		}
	}
	return all
}

const alpn = "coap"

// serve starts a server for a cell. The client may choose among all that it
// has; the function returned gives the session that came of it.
func (c cell) serve(t *testing.T) (addr string, session func() *dtlsserver.Session) {
	t.Helper()
	s := &dtlsserver.Server{
		PSK:              dtlsserver.StaticPSK(map[string][]byte{identity: key}),
		CurvePreferences: []tls.CurveID{tls.CurveP256, tls.X25519, tls.CurveP384},
	}
	if i := slices.Index(s.CurvePreferences, c.group); i > 0 {
		s.CurvePreferences = slices.Concat(s.CurvePreferences[i:], s.CurvePreferences[:i])
	}
	if c.server != "" {
		s.Certificates = []tls.Certificate{keys()[c.server].server}
	}
	if c.client != "" {
		s.ClientAuth, s.ClientCAs = tls.RequireAndVerifyClientCert, keys()[c.client].pool
	}
	if c.alpn {
		s.NextProtos = []string{"dot", alpn}
	}
	d := serve(t, s)
	return d.addr, func() *dtlsserver.Session {
		sessions := d.complete()
		if len(sessions) != 1 {
			t.Fatalf("%d handshakes are complete, want one", len(sessions))
		}
		return sessions[0]
	}
}

// check compares what the server says of the handshake with the cell.
func (c cell) check(t *testing.T, s *dtlsserver.Session) {
	t.Helper()
	state := s.ConnectionState()
	if state.CipherSuite != c.suite.id || dtlsserver.CipherSuiteName(state.CipherSuite) != c.suite.name {
		t.Errorf("suite %#04x, %s", state.CipherSuite, dtlsserver.CipherSuiteName(state.CipherSuite))
	}
	if state.CurveID != c.group {
		t.Errorf("group %v", state.CurveID)
	}
	if state.ExtendedMasterSecret != c.ems {
		t.Errorf("extended master secret: %v", state.ExtendedMasterSecret)
	}
	if c.server == "" && state.PSKIdentity != identity || c.server != "" && state.PSKIdentity != "" {
		t.Errorf("identity %q", state.PSKIdentity)
	}
	if c.server != "" && state.ServerName != serverName {
		t.Errorf("server name %q", state.ServerName)
	}
	if want := map[bool]string{true: alpn}[c.alpn]; state.NegotiatedProtocol != want {
		t.Errorf("ALPN %q", state.NegotiatedProtocol)
	}
	switch {
	case c.client == "":
		if len(state.PeerCertificates) > 0 {
			t.Error("a client certificate")
		}
	case len(state.VerifiedChains) == 0 || !state.PeerCertificates[0].Equal(keys()[c.client].client.Leaf):
		t.Errorf("%d client certificates, %d chains", len(state.PeerCertificates), len(state.VerifiedChains))
	}
}

// TestMatrix tries every suite with every group, with and without extended
// master secret, and every kind of key, with every client that has it. In
// verbose mode it logs the matrix.
func TestMatrix(t *testing.T) {
	t.Parallel()
	var ids []uint16
	for _, s := range matrixSuites {
		ids = append(ids, s.id)
	}
	if !slices.Equal(ids, dtlsserver.DefaultCipherSuites()) {
		t.Fatalf("the matrix has the suites %#04x, the library %#04x", ids, dtlsserver.DefaultCipherSuites())
	}
	m := &matrix{results: map[resultKey]*result{}}
	t.Run("cells", func(t *testing.T) {
		for _, client := range clients {
			t.Run(client.name, func(t *testing.T) {
				connect := client.start(t)
				// A group, so that what start has started outlives it.
				t.Run("with", func(t *testing.T) {
					for _, c := range cells() {
						why := client.lacks(c)
						if why != "" {
							m.lack(client.name, c, why)
							continue
						}
						t.Run(c.String(), func(t *testing.T) {
							t.Parallel()
							defer func() { m.note(client.name, c, !t.Failed()) }()
							addr, session := c.serve(t)
							connect(t, c, addr)
							c.check(t, session())
						})
					}
				})
			})
		}
	})
	m.wantAllSuites(t)
	t.Log("\n" + m.String())
}

// matrix collects results.
type matrix struct {
	mu      sync.Mutex // guards all following
	results map[resultKey]*result
}

type resultKey struct {
	client string
	suite  uint16
}

// result is of a client's cells of one suite.
type result struct {
	passed, failed int
	reasons        []string // why cells are lacking
}

func (m *matrix) at(client string, c cell) *result {
	k := resultKey{client, c.suite.id}
	if m.results[k] == nil {
		m.results[k] = &result{}
	}
	return m.results[k]
}

func (m *matrix) note(client string, c cell, passed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.at(client, c)
	if passed {
		r.passed++
	} else {
		r.failed++
	}
}

func (m *matrix) lack(client string, c cell, why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.at(client, c)
	if !slices.Contains(r.reasons, why) {
		r.reasons = append(r.reasons, why)
	}
}

// wantAllSuites wants a client, or a test elsewhere, for each suite.
func (m *matrix) wantAllSuites(t *testing.T) {
	for _, s := range matrixSuites {
		had := slices.ContainsFunc(clients, func(client matrixClient) bool {
			return slices.ContainsFunc(cells(), func(c cell) bool { return c.suite.id == s.id && client.lacks(c) == "" })
		})
		if had == (elsewhere[s.id] != "") {
			t.Errorf("%s: a client has it: %v; tested elsewhere: %q", s.name, had, elsewhere[s.id])
		}
	}
}

// String returns the matrix as a table in Markdown.
func (m *matrix) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var notes []string
	marks := func(reasons []string) (s string) {
		for _, why := range reasons {
			if !slices.Contains(notes, why) {
				notes = append(notes, why)
			}
			s += fmt.Sprintf(" [%d]", slices.Index(notes, why)+1)
		}
		return s
	}
	// What is lacking in all of a column is said at its head.
	var b strings.Builder
	always := map[string][]string{}
	b.WriteString("| Suite |")
	for _, client := range clients {
		if r := m.results[resultKey{client.name, matrixSuites[0].id}]; r != nil {
			always[client.name] = slices.DeleteFunc(slices.Clone(r.reasons), func(why string) bool {
				return slices.ContainsFunc(matrixSuites, func(s matrixSuite) bool {
					r := m.results[resultKey{client.name, s.id}]
					return r == nil || !slices.Contains(r.reasons, why)
				})
			})
		}
		fmt.Fprintf(&b, " %s%s |", client.name, marks(always[client.name]))
	}
	b.WriteString("\n|" + strings.Repeat(" --- |", 1+len(clients)) + "\n")
	for _, s := range matrixSuites {
		fmt.Fprintf(&b, "| `%s` |", s.name)
		for _, client := range clients {
			text := "not run"
			if r := m.results[resultKey{client.name, s.id}]; r != nil {
				switch {
				case r.failed > 0:
					text = "FAILED"
				case r.passed > 0:
					text = "yes"
				case len(r.reasons) > 0:
					text = "-"
				}
				text += marks(slices.DeleteFunc(slices.Clone(r.reasons), func(why string) bool {
					return slices.Contains(always[client.name], why)
				}))
			}
			fmt.Fprintf(&b, " %s |", text)
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
	for i, why := range notes {
		fmt.Fprintf(&b, "[%d] %s\n", i+1, why)
	}
	for _, id := range slices.Sorted(maps.Keys(elsewhere)) {
		fmt.Fprintf(&b, "%#04x is tried by %s of the root module.\n", id, elsewhere[id])
	}
	return b.String()
}
