package interop

import (
	"bufio"
	"context"
	"crypto/tls"
	_ "embed"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	pion2 "github.com/pion/dtls/v2"
	elliptic2 "github.com/pion/dtls/v2/pkg/crypto/elliptic"
	pion3 "github.com/pion/dtls/v3"
	elliptic3 "github.com/pion/dtls/v3/pkg/crypto/elliptic"
)

// matrixClient is a column of the matrix.
type matrixClient struct {
	name string
	// lacks says why the client cannot do what a cell wants; empty: it can.
	lacks func(cell) string
	// start prepares the client and returns what connects it to a server for a
	// cell, has a message answered and closes the connection.
	start func(t *testing.T) (connect func(t *testing.T, c cell, addr string))
}

var clients = []matrixClient{
	{"OpenSSL", opensslLacks, startOpenSSL},
	{"GnuTLS", gnutlsLacks, startGnuTLS},
	{"Erlang", erlangLacks, startErlang},
	{"pion v2", pion2Lacks, startPion2},
	{"pion v3", pion3Lacks, startPion3},
}

func opensslLacks(c cell) string {
	if c.suite.openssl == "" {
		return "Of ECDHE_PSK, OpenSSL has the suites with ChaCha20-Poly1305 and with CBC."
	}
	return ""
}

func startOpenSSL(t *testing.T) func(*testing.T, cell, string) {
	path, dir := tool(t, "openssl", "openssl"), t.TempDir()
	writeKeys(t, dir)
	conf := filepath.Join(dir, "no-ems.cnf")
	if err := os.WriteFile(conf, []byte("openssl_conf = c\n[c]\nssl_conf = s\n[s]\nsystem_default = d\n[d]\nOptions = -ExtendedMasterSecret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return func(t *testing.T, c cell, addr string) {
		args := []string{"s_client", "-dtls1_2", "-connect", addr, "-cipher", c.suite.openssl}
		if c.group != 0 {
			var names []string
			for _, g := range c.offered() {
				names = append(names, groupName(g))
			}
			args = append(args, "-groups", strings.Join(names, ":"))
		}
		if c.server == "" {
			args = append(args, "-psk_identity", identity, "-psk", hexKey)
		} else {
			args = append(args, "-CAfile", keyFile(dir, c.server, "ca"), "-verify_return_error", "-servername", serverName, "-verify_hostname", serverName)
		}
		if c.client != "" {
			args = append(args, "-cert", keyFile(dir, c.client, "cert"), "-key", keyFile(dir, c.client, "key"))
		}
		if c.alpn {
			args = append(args, "-alpn", alpn)
		}
		env := os.Environ()
		if !c.ems {
			env = append(env, "OPENSSL_CONF="+conf)
		}
		out := wantACKWith(t, env, path, args...)
		if !strings.Contains(out, "Cipher is "+c.suite.openssl) {
			t.Errorf("OpenSSL takes it for another suite:\n%s", out)
		}
		if c.server != "" && !strings.Contains(out, "Verify return code: 0 (ok)") {
			t.Errorf("OpenSSL has not verified the server:\n%s", out)
		}
	}
}

func gnutlsLacks(c cell) string {
	switch {
	case c.suite.gnutls == "":
		return "Of ECDHE_PSK, GnuTLS has the suites with ChaCha20-Poly1305 and with CBC."
	case c.suite.kx == ecdhePSK:
		// It asks for the username of a server, in a client.
		return "The handshake succeeds, but gnutls-cli (3.7.9, Debian's) crashes by itself when it describes a session with ECDHE_PSK."
	}
	return ""
}

func startGnuTLS(t *testing.T) func(*testing.T, cell, string) {
	path, dir := tool(t, "gnutls-cli", "gnutls-bin"), t.TempDir()
	writeKeys(t, dir)
	return func(t *testing.T, c cell, addr string) {
		kx := map[keyExchange]string{psk: "PSK", ecdheECDSA: "ECDHE-ECDSA", ecdheRSA: "ECDHE-RSA"}[c.suite.kx]
		priority := "NONE:+VERS-DTLS1.2:+AEAD:+COMP-NULL:+CTYPE-X509:+SIGN-ALL:+" + kx + ":+" + c.suite.gnutls
		if c.group != 0 {
			for _, g := range c.offered() {
				priority += map[tls.CurveID]string{tls.CurveP256: ":+GROUP-SECP256R1", tls.X25519: ":+GROUP-X25519", tls.CurveP384: ":+GROUP-SECP384R1"}[g]
			}
		}
		if !c.ems {
			priority += ":%NO_SESSION_HASH"
		}
		host, port, _ := net.SplitHostPort(addr)
		args := []string{"--udp", "--port", port, "--priority", priority}
		if c.server == "" {
			args = append(args, "--pskusername", identity, "--pskkey", hexKey)
		} else {
			args = append(args, "--x509cafile", keyFile(dir, c.server, "ca"), "--sni-hostname", serverName, "--verify-hostname", serverName)
		}
		if c.client != "" {
			args = append(args, "--x509certfile", keyFile(dir, c.client, "cert"), "--x509keyfile", keyFile(dir, c.client, "key"))
		}
		if c.alpn {
			args = append(args, "--alpn", alpn)
		}
		out := wantACKWith(t, nil, path, append(args, host)...)
		if c.server != "" && !strings.Contains(out, "Status: The certificate is trusted") {
			t.Errorf("GnuTLS has not verified the server:\n%s", out)
		}
	}
}

func erlangLacks(c cell) string {
	cert := c.suite.kx == ecdheECDSA || c.suite.kx == ecdheRSA
	switch {
	case c.ems:
		return "Erlang's ssl has no extended master secret."
	case c.suite.id == 0xd002, c.suite.id == 0xccac, c.suite.id == 0xccab:
		// It refuses the latter two, and offers all that it has for the first.
		return "Erlang's ssl does not have the suite."
	case cert && c.group == tls.X25519:
		// Of eccs it offers an empty list. In suites of ECDHE_PSK it offers no
		// groups at all, and takes what the server chooses.
		return "Erlang's ssl has X25519 in TLS 1.3 and ECDHE_PSK, not in other suites."
	case strings.HasPrefix(c.server, "Ed25519"), c.client == "Ed25519":
		return "Erlang's ssl has Ed25519 in TLS 1.3 only."
	}
	return ""
}

//go:embed testdata/client.escript
var erlangClient string

// startErlang starts one virtual machine, which takes its time, for all cells.
// It reads jobs as Erlang terms and answers each with a line.
func startErlang(t *testing.T) func(*testing.T, cell, string) {
	path, dir := tool(t, "escript", "erlang-base erlang-ssl"), t.TempDir()
	writeKeys(t, dir)
	script := filepath.Join(dir, "client.escript")
	if err := os.WriteFile(script, []byte(erlangClient), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	cmd := exec.CommandContext(ctx, path, script)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	if !lines.Scan() {
		cmd.Wait()
		cancel()
		missing(t, "Erlang's ssl", "erlang-ssl")
	}
	var mu sync.Mutex // guards all that jobs share
	waiting, last := map[int]chan string{}, 0
	other := lines.Text() + "\n"
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for lines.Scan() {
			var id int
			var text string
			mu.Lock()
			if n, _ := fmt.Sscanf(lines.Text(), "job %d", &id); n == 1 && waiting[id] != nil {
				_, text, _ = strings.Cut(lines.Text(), ": ")
				waiting[id] <- text
				delete(waiting, id)
			} else {
				other += lines.Text() + "\n"
			}
			mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		stdin.Close() // the script ends at the end of its input
		<-gone
		err := cmd.Wait()
		cancel()
		if err != nil || t.Failed() {
			t.Errorf("escript ended with %v:\n%s", err, other)
		}
	})
	return func(t *testing.T, c cell, addr string) {
		_, port, _ := net.SplitHostPort(addr)
		groups := []string{}
		for _, g := range c.offered() {
			groups = append(groups, map[tls.CurveID]string{tls.CurveP256: "secp256r1", tls.X25519: "x25519", tls.CurveP384: "secp384r1"}[g])
		}
		options := []string{}
		if c.group != 0 {
			options = append(options, "{eccs, ["+strings.Join(groups, ", ")+"]}")
		}
		if c.server == "" {
			options = append(options, fmt.Sprintf("{psk, %q, <<16#%s:%d>>}", identity, hexKey, 4*len(hexKey)))
		} else {
			options = append(options, fmt.Sprintf("{verify, verify_peer}, {cacertfile, %q}, {server_name_indication, %q}", keyFile(dir, c.server, "ca"), serverName))
		}
		if c.client != "" {
			options = append(options, fmt.Sprintf("{certfile, %q}, {keyfile, %q}", keyFile(dir, c.client, "cert"), keyFile(dir, c.client, "key")))
		}
		if c.alpn {
			options = append(options, fmt.Sprintf("{alpn_advertised_protocols, [<<%q>>]}", alpn))
		}
		answer := make(chan string, 1)
		mu.Lock()
		last++
		waiting[last] = answer
		_, err := fmt.Fprintf(stdin, "{%d, %s, %q, [%s]}.\n", last, port, c.suite.name, strings.Join(options, ", "))
		mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		select {
		case text := <-answer:
			if !strings.HasPrefix(text, "to 127.0.0.1:") || !strings.HasSuffix(text, ": ACK") {
				t.Fatal(text)
			}
		case <-gone:
			t.Fatal("escript has ended")
		}
	}
}

func pion2Lacks(c cell) string {
	switch id := pion2.CipherSuiteID(c.suite.id); {
	case pion2.CipherSuiteName(id) == fmt.Sprintf("0x%04X", c.suite.id):
		return "pion/dtls v2 does not have the suite."
	}
	return ""
}

func startPion2(t *testing.T) func(*testing.T, cell, string) {
	return func(t *testing.T, c cell, addr string) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		config := &pion2.Config{
			CipherSuites:         []pion2.CipherSuiteID{pion2.CipherSuiteID(c.suite.id)},
			ExtendedMasterSecret: pion2.DisableExtendedMasterSecret,
		}
		if c.ems {
			config.ExtendedMasterSecret = pion2.RequireExtendedMasterSecret
		}
		for _, g := range c.offered() {
			if g != 0 {
				config.EllipticCurves = append(config.EllipticCurves, elliptic2.Curve(g))
			}
		}
		if c.server == "" {
			config.PSK = func([]byte) ([]byte, error) { return key, nil }
			config.PSKIdentityHint = []byte(identity)
		} else {
			config.RootCAs, config.ServerName = keys()[c.server].pool, serverName
		}
		if c.client != "" {
			config.Certificates = []tls.Certificate{keys()[c.client].client}
		}
		if c.alpn {
			config.SupportedProtocols = []string{alpn}
		}
		conn, err := pion2.ClientWithContext(ctx, dialUDP(t, addr), config)
		if err != nil {
			t.Fatal(err)
		}
		wantConnACK(t, conn)
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
}

func pion3Lacks(c cell) string {
	switch id := pion3.CipherSuiteID(c.suite.id); {
	case pion3.CipherSuiteName(id) == fmt.Sprintf("0x%04X", c.suite.id):
		return "pion/dtls v3 does not have the suite."
	case c.server == "Ed25519":
		return "pion/dtls v3 refuses certificates that an Ed25519 key has signed; such that are for one it takes."
	}
	return ""
}

func startPion3(t *testing.T) func(*testing.T, cell, string) {
	return func(t *testing.T, c cell, addr string) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		options := []pion3.ClientOption{pion3.WithCipherSuites(pion3.CipherSuiteID(c.suite.id))}
		if c.ems {
			options = append(options, pion3.WithExtendedMasterSecret(pion3.RequireExtendedMasterSecret))
		} else {
			options = append(options, pion3.WithExtendedMasterSecret(pion3.DisableExtendedMasterSecret))
		}
		if c.group != 0 {
			var curves []elliptic3.Curve
			for _, g := range c.offered() {
				curves = append(curves, elliptic3.Curve(g))
			}
			options = append(options, pion3.WithEllipticCurves(curves...))
		}
		if c.server == "" {
			options = append(options,
				pion3.WithPSK(func([]byte) ([]byte, error) { return key, nil }),
				pion3.WithPSKIdentityHint([]byte(identity)))
		} else {
			options = append(options, pion3.WithRootCAs(keys()[c.server].pool), pion3.WithServerName(serverName))
		}
		if c.client != "" {
			options = append(options, pion3.WithCertificates(keys()[c.client].client))
		}
		if c.alpn {
			options = append(options, pion3.WithSupportedProtocols(alpn))
		}
		udp := dialUDP(t, addr)
		conn, err := pion3.ClientWithOptions(connected{udp}, udp.RemoteAddr(), options...)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.HandshakeContext(ctx); err != nil {
			t.Fatal(err)
		}
		wantConnACK(t, conn)
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
}
