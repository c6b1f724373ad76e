package main

// The flags for certificates and for what is negotiated.

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dtlsserver/dtlsserver"
	"github.com/dtlsserver/dtlsserver/dtlsservertest"
	"github.com/dtlsserver/dtlsserver/examples/internal/pskflag"
)

func TestCertificate(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	byCert := &dtlsservertest.ClientConfig{RootCAs: ca.Pool, ServerName: "localhost"}
	byDefault, byKey := withPSK(t, pskflag.Default), withPSK(t, "me=01")
	tests := []struct {
		name             string
		args             []string
		accepts, refuses []*dtlsservertest.ClientConfig
	}{
		{"certificate", ca.server, []*dtlsservertest.ClientConfig{byCert}, []*dtlsservertest.ClientConfig{byDefault}},
		{"both", append([]string{"-psk", "me=01"}, ca.server...), []*dtlsservertest.ClientConfig{byCert, byKey}, nil},
		{"no key", append([]string{"-psk", ""}, ca.server...), []*dtlsservertest.ClientConfig{byCert}, []*dtlsservertest.ClientConfig{byDefault}},
		{"key", nil, []*dtlsservertest.ClientConfig{byDefault}, []*dtlsservertest.ClientConfig{byCert}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, append([]string{"-reply", "echo"}, test.args...)...)
			for i, config := range test.accepts {
				client, err := p.connect(config)
				if err != nil {
					t.Fatalf("client %d: %v", i, err)
				}
				want(t, ask(t, client, "hello"), "hello")
			}
			for i, config := range test.refuses {
				if _, err := p.connect(config); err == nil {
					t.Errorf("client %d, which should be refused, has connected", i)
				}
			}
		})
	}
}

func TestClientAuth(t *testing.T) {
	t.Parallel()
	ca, stranger := newAuthority(t), newAuthority(t)
	clients := map[string]tls.Certificate{
		"none":      {},
		"untrusted": stranger.Issue("stranger"),
		"trusted":   ca.Issue("client"),
	}
	const all = "none untrusted trusted"
	tests := []struct {
		name    string
		args    []string
		accepts string
	}{
		{"default", nil, all},
		{"default with authorities", []string{"-client-ca", ca.file}, "trusted"},
		{"none", []string{"-client-auth", "none", "-client-ca", ca.file}, all},
		{"request", []string{"-client-auth", "request"}, all},
		{"require", []string{"-client-auth", "require"}, "untrusted trusted"},
		{"verify-if-given", []string{"-client-auth", "verify-if-given", "-client-ca", ca.file}, "none trusted"},
		{"require-and-verify", []string{"-client-auth", "require-and-verify", "-client-ca", ca.file}, "trusted"},
		{"by the authorities of the system", []string{"-client-auth", "require-and-verify"}, ""},
	}
	reasons := map[string]string{"none": "the client sent no certificate", "untrusted": "unknown authority", "trusted": "unknown authority"}
	for _, test := range tests {
		for name, cert := range clients {
			t.Run(test.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				p := start(t, append(slices.Clone(test.args), ca.server...)...)
				client, err := p.connect(&dtlsservertest.ClientConfig{RootCAs: ca.Pool, ServerName: "localhost", Certificate: cert})
				if slices.Contains(strings.Fields(test.accepts), name) {
					if err != nil {
						t.Fatal(err)
					}
					want(t, ask(t, client, "hello"), "to "+client.LocalAddr().String()+": ACK")
					return
				}
				if err == nil {
					t.Fatal("accepted")
				}
				p.stop()
				if output := <-p.stdout; !strings.Contains(output, reasons[name]) {
					t.Errorf("no line with %q in\n%s", reasons[name], output)
				}
			})
		}
	}
}

func TestCiphers(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	tests := []struct{ list, suite string }{
		{"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"},
		{"TLS_ECDHE_ECDSA_WITH_AES_128_CCM,TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_CCM"},
		{"0xC0AE,0xc02b", "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8"},
		{"TLS_PSK_WITH_AES_128_GCM_SHA256,0XC02B", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"},
	}
	for _, test := range tests {
		t.Run(test.list, func(t *testing.T) {
			t.Parallel()
			p := start(t, append([]string{"-ciphers", test.list}, ca.server...)...)
			_, err := p.connect(&dtlsservertest.ClientConfig{
				RootCAs: ca.Pool, ServerName: "localhost",
				CipherSuites: []uint16{0xc02b, 0xc02c, 0xc0ac, 0xc0ae},
			})
			if err != nil {
				t.Fatal(err)
			}
			p.stop()
			if output := <-p.stdout; !strings.Contains(output, ", "+test.suite+"\n") {
				t.Errorf("not encrypted with %s:\n%s", test.suite, output)
			}
		})
	}
}

// TestSuiteNames: the table has the library's suites, and no name that package
// crypto/tls has otherwise.
func TestSuiteNames(t *testing.T) {
	t.Parallel()
	var ids []uint16
	for _, suite := range suites {
		ids = append(ids, suite.value)
		if name := tls.CipherSuiteName(suite.value); !strings.HasPrefix(name, "0x") {
			want(t, suite.name, name)
		}
	}
	if all := dtlsserver.DefaultCipherSuites(); !slices.Equal(ids, all) {
		t.Errorf("there are %#04x, not %#04x", ids, all)
	}
}

// TestLists: what the server prefers has the order of the flag. The client
// tells neither the group nor the protocol.
func TestLists(t *testing.T) {
	t.Parallel()
	var stderr bytes.Buffer
	opts, err := parse([]string{"-curves", "P-384,X25519,P-256", "-alpn", "coap,x"}, &stderr)
	if err != nil {
		t.Fatal(err)
	}
	if got := opts.server.CurvePreferences; !slices.Equal(got, []tls.CurveID{tls.CurveP384, tls.X25519, tls.CurveP256}) {
		t.Errorf("the groups are %v", got)
	}
	if got := opts.server.NextProtos; !slices.Equal(got, []string{"coap", "x"}) {
		t.Errorf("the protocols are %q", got)
	}
}

func TestCurves(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	for _, curve := range strings.Split(names(groups), ",") {
		p := start(t, append([]string{"-curves", curve}, ca.server...)...)
		if _, err := p.connect(&dtlsservertest.ClientConfig{RootCAs: ca.Pool, ServerName: "localhost"}); err != nil {
			t.Errorf("%s: %v", curve, err)
		}
	}
}

func TestALPN(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	p := start(t, append([]string{"-alpn", "coap,x"}, ca.server...)...)
	connect := func(protocols ...string) error {
		_, err := p.connect(&dtlsservertest.ClientConfig{RootCAs: ca.Pool, ServerName: "localhost", NextProtos: protocols})
		return err
	}
	for _, protocols := range [][]string{nil, {"x"}, {"y", "coap"}} {
		if err := connect(protocols...); err != nil {
			t.Errorf("%q: %v", protocols, err)
		}
	}
	if connect("y") == nil {
		t.Error("a client of another protocol has connected")
	}
}

func TestCredentialFlags(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t), newAuthority(t)
	cert, key := ca.server[1], ca.server[3]
	const secret = "5ec2e7" // a part of what no message may show
	content, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Split(string(content), "\n")[1]
	block, _ := pem.Decode(content)
	block.Bytes = append([]byte(secret), block.Bytes...)
	broken := write(t, pem.EncodeToMemory(block))
	noPEM := write(t, []byte(secret))
	missing := filepath.Join(t.TempDir(), secret)

	tests := []struct {
		name   string
		args   []string
		status int
		stderr string // a part of it
	}{
		{"certificate without key", []string{"-cert", cert}, 2, "-cert and -key need each other"},
		{"key without certificate", []string{"-key", key}, 2, "-cert and -key need each other"},
		{"two certificates", slices.Concat(ca.server, other.server), 2, "-cert and -key cannot be repeated"},
		{"no certificate file", []string{"-cert", missing, "-key", key}, 2, "-cert: no such file"},
		{"no key file", []string{"-cert", cert, "-key", missing}, 2, "-key: no such file"},
		{"the key itself", []string{"-cert", cert, "-key", secret + string(content)}, 2, "-key: "},
		{"key file without PEM", []string{"-cert", cert, "-key", noPEM}, 2, "-cert and -key: tls: "},
		{"key that is none", []string{"-cert", cert, "-key", broken}, 2, "-cert and -key: tls: "},
		{"key of another", []string{"-cert", cert, "-key", other.server[3]}, 2, "does not match"},
		{"switched", []string{"-cert", key, "-key", cert}, 2, "switched"},

		{"no credentials", []string{"-psk", ""}, 2, "without -psk there must be -cert"},
		{"no and another key", []string{"-psk", "", "-psk", "me=" + secret}, 2, "-psk number 1: "},
		{"authorities without certificate", []string{"-client-ca", ca.file}, 2, "need -cert"},
		{"client certificates without certificate", []string{"-client-auth", "request"}, 2, "need -cert"},
		{"unknown mode", append([]string{"-client-auth", "maybe"}, ca.server...), 2, `-client-auth "maybe": want none,request,require,verify-if-given,require-and-verify`},
		{"no authorities file", append([]string{"-client-ca", missing}, ca.server...), 2, "-client-ca: no such file"},
		{"no authorities", append([]string{"-client-ca", noPEM}, ca.server...), 2, "-client-ca: no certificate"},

		{"unknown suite", []string{"-ciphers", "0x00A8,TLS_NULL_WITH_NULL_NULL"}, 2, `-ciphers "TLS_NULL_WITH_NULL_NULL": want TLS_`},
		{"unknown number", []string{"-ciphers", "0x1301"}, 2, `-ciphers "0x1301": no number`},
		{"number too large", []string{"-ciphers", "0x100a8"}, 2, `-ciphers "0x100a8": no number`},
		{"empty suite", []string{"-ciphers", "0x00A8,"}, 2, `-ciphers "": want`},
		{"suites without credentials", []string{"-ciphers", "0xC02B"}, 1, "CipherSuites"},
		{"unknown curve", []string{"-curves", "P-256,P-521"}, 2, `-curves "P-521": want P-256,X25519,P-384`},
		{"empty protocol", []string{"-alpn", "coap,,x"}, 2, `-alpn "": `},
		{"long protocol", []string{"-alpn", strings.Repeat("x", 256)}, 2, "1 to 255 bytes"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			if status := run(t.Context(), append([]string{"-addr", "127.0.0.1:0"}, test.args...), &stdout, &stderr); status != test.status {
				t.Errorf("exit status %d, not %d", status, test.status)
			}
			if !strings.Contains(stderr.String(), test.stderr) {
				t.Errorf("standard error %q does not say %q", stderr.String(), test.stderr)
			}
			for _, part := range []string{secret, "PRIVATE KEY---", line} {
				if strings.Contains(stderr.String(), part) {
					t.Errorf("standard error %q shows the key", stderr.String())
				}
			}
			want(t, stdout.String(), "")
		})
	}
}

// authority issues certificates, and has flags for them.
type authority struct {
	*dtlsservertest.Authority
	file   string   // of its own certificate
	server []string // flags: a certificate for localhost and its key
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	ca := dtlsservertest.NewAuthority(t)
	cert, key := ca.IssueFiles("localhost")
	return &authority{ca, ca.File(), []string{"-cert", cert, "-key", key}}
}

// write writes a file that is only the test's and returns its name.
func write(t *testing.T, content []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
