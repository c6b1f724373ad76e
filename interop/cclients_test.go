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
	flags  []string
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

// program returns the path of the client, which is built once.
func (c *cClient) program(t *testing.T) string {
	t.Helper()
	cc := tool(t, "cc", "gcc")
	if _, err := os.Stat(filepath.Join("/usr/include", c.header)); err != nil {
		missing(t, c.header, c.debian)
	}
	c.build.Do(func() { c.path, c.err = c.compile(cc) })
	if c.err != nil {
		t.Fatal(c.err)
	}
	return c.path
}

func (c *cClient) compile(cc string) (string, error) {
	out := filepath.Join(filepath.Dir(program), c.source+".out") // in what TestMain removes
	args := append([]string{"-O1", "-Wall", "-o", out, filepath.Join("testdata", c.source)}, c.flags...)
	if text, err := exec.Command(cc, args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", c.source, err, text)
	}
	return out, nil
}

// run connects so many times with the credentials, within the time, and returns
// what the client prints. Its error is that of the client.
func (c *cClient) run(t *testing.T, addr, credentials, ca string, connections int, within time.Duration) (string, error) {
	t.Helper()
	path := c.program(t)
	running <- struct{}{}
	defer func() { <-running }()
	ctx, cancel := context.WithTimeout(t.Context(), within+5*time.Second) // it ends by itself
	defer cancel()
	_, port, _ := net.SplitHostPort(addr)
	out, err := exec.CommandContext(ctx, path, port, credentials, ca, strconv.Itoa(connections), fmt.Sprintf("%.0f", within.Seconds())).CombinedOutput()
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
