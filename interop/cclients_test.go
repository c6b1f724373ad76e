package interop

// Clients in C, of testdata, for what the programs of the libraries cannot do:
// see testdata/client.h.

import (
	"context"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// cClient is a client in C.
type cClient struct {
	name   string // as its makers write it
	source string // in testdata
	header string // by which its library is found
	debian string // the package that has the header
	// fetched is the directory of a library that testdata/fetch fetches; empty: it
	// is installed.
	fetched string
	flags   []string // names of archives, *.a, are of those in fetched
	cids    []int    // lengths of connection IDs to try
	// optional: it is left out if it is not there, also when CI is set.
	optional bool
	// once: it never repeats the Finished of an abbreviated handshake, with
	// OpenSSL's server neither, so that one that is lost is lost for good.
	once bool

	build sync.Once
	path  string
	err   error
}

const (
	withPSK         = "psk"
	withCertificate = "certificate"
)

var cClients = []*cClient{
	{name: "OpenSSL", source: "openssl.c", header: "openssl/ssl.h", debian: "libssl-dev", flags: []string{"-lssl", "-lcrypto"}},
	{name: "GnuTLS", source: "gnutls.c", header: "gnutls/gnutls.h", debian: "libgnutls28-dev", flags: []string{"-lgnutls"}},
	{name: "wolfSSL", source: "wolfssl.c", header: "wolfssl/ssl.h", debian: "libwolfssl-dev", flags: []string{"-lwolfssl"}, once: true},
	{name: "mbedTLS", source: "mbedtls.c", header: "mbedtls/ssl.h", debian: "libmbedtls-dev", flags: []string{"-lmbedtls", "-lmbedx509", "-lmbedcrypto"}},
}

// cidClients have connection IDs (RFC 9146).
var cidClients = []*cClient{
	{
		name: "mbedTLS 3.6", source: "mbedtls.c", header: "mbedtls/ssl.h", debian: "libmbedtls-dev",
		fetched: "mbedtls-3.6", flags: []string{"libmbedtls.a", "libmbedx509.a", "libmbedcrypto.a"},
		cids: []int{0, 1, 20, 32},
	},
	{
		name: "wolfSSL 5.9", source: "wolfssl.c", header: "wolfssl/ssl.h", debian: "libwolfssl-dev",
		fetched: "wolfssl-5.9", flags: []string{"libwolfssl.a", "-lm"},
		cids: []int{0, 1, 2},
		// No release of Debian has it yet, so that it may be gone any day.
		optional: true,
	},
}

// withCIDs returns cidClients without those left out.
func withCIDs() []*cClient {
	return slices.DeleteFunc(slices.Clone(cidClients), func(c *cClient) bool { return c.optional && !c.found() })
}

// program returns the path of the client, which is built once.
func (c *cClient) program(t *testing.T) string {
	t.Helper()
	cc := tool(t, "cc", "gcc")
	if !c.found() {
		if c.fetched != "" {
			lacking(t, fmt.Sprintf("%s is not fetched (see testdata/fetch)", c.name))
		}
		missing(t, c.header, c.debian)
	}
	c.build.Do(func() { c.path, c.err = c.compile(cc) })
	if c.err != nil {
		t.Fatal(c.err)
	}
	return c.path
}

// found reports whether the library is there.
func (c *cClient) found() bool {
	_, err := os.Stat(filepath.Join(c.root(), "include", c.header))
	return err == nil
}

// root is the directory that has the library.
func (c *cClient) root() string {
	if c.fetched == "" {
		return "/usr"
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "" // it has none
	}
	return filepath.Join(dir, "dtlsserver-interop", c.fetched)
}

func (c *cClient) compile(cc string) (string, error) {
	out := filepath.Join(filepath.Dir(program), c.source+c.fetched+".out") // in what TestMain removes
	args := []string{"-O1", "-Wall", "-o", out, filepath.Join("testdata", c.source)}
	if c.fetched != "" {
		args = append(args, "-I", filepath.Join(c.root(), "include"))
	}
	for _, flag := range c.flags {
		if strings.HasSuffix(flag, ".a") {
			found, _ := filepath.Glob(filepath.Join(c.root(), "lib", "*", flag))
			args = append(args, found...)
		} else {
			args = append(args, flag)
		}
	}
	if text, err := exec.Command(cc, args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", c.source, err, text)
	}
	return out, nil
}

// run connects so many times with the credentials, within the time, and returns
// what the client prints. Its error is that of the client. For a client that
// moves, there are how often, and the length of its connection ID.
func (c *cClient) run(t *testing.T, addr, credentials, ca string, connections int, within time.Duration, moves ...int) (string, error) {
	t.Helper()
	path := c.program(t)
	running <- struct{}{}
	defer func() { <-running }()
	ctx, cancel := context.WithTimeout(t.Context(), within+5*time.Second) // it ends by itself
	defer cancel()
	_, port, _ := net.SplitHostPort(addr)
	args := []string{port, credentials, ca, strconv.Itoa(connections), fmt.Sprintf("%.0f", within.Seconds())}
	for _, n := range moves {
		args = append(args, strconv.Itoa(n))
	}
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	return string(out), err
}

// wantAnswers wants each connection of run to be answered: the first after a
// full handshake, all others after an abbreviated one.
func (c *cClient) wantAnswers(t *testing.T, addr, credentials, ca string, connections int, within time.Duration) {
	t.Helper()
	out, err := c.run(t, addr, credentials, ca, connections, within)
	var kinds []string
	for line := range strings.Lines(out) {
		if kind, answer, _ := strings.Cut(line, " "); strings.HasPrefix(answer, "to 127.0.0.1:") && strings.HasSuffix(answer, ": ACK\n") {
			kinds = append(kinds, kind)
		}
	}
	want := append([]string{"full"}, slices.Repeat([]string{"resumed"}, connections-1)...)
	if err != nil || !slices.Equal(kinds, want) {
		t.Errorf("%s: %v, answered connections: %q, want %q; it says:\n%s", c.name, err, kinds, want, out)
	}
}

// forEachCClient runs a test with each of the clients and each kind of
// credentials.
func forEachCClient(t *testing.T, clients []*cClient, f func(t *testing.T, c *cClient, credentials string)) {
	for _, c := range clients {
		for _, credentials := range []string{withPSK, withCertificate} {
			t.Run(c.name+"/"+credentials, func(t *testing.T) {
				t.Parallel()
				c.program(t) // before what has timeouts
				f(t, c, credentials)
			})
		}
	}
}

// writeCA writes an authority into a file for clients.
func writeCA(t *testing.T, der []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
