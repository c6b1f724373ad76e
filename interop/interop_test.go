// Package interop tries the library, and examples/server, with DTLS clients that
// others wrote: OpenSSL's s_client, GnuTLS' gnutls-cli, Erlang's ssl, libcoap's
// clients, the clients of pion/dtls v2, v3 and v4, and, in C, clients made of
// OpenSSL, GnuTLS, wolfSSL and mbedTLS. A relay loses and reorders datagrams
// between them and the server. It is a module of its own, so that importers of the
// library do not get what it needs.
//
// A test whose tool is not installed is skipped, and fails when CI is set.
package interop

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	pion2 "github.com/pion/dtls/v2"
	pion3 "github.com/pion/dtls/v3"
)

const (
	identity = "Client_identity"
	hexKey   = "1a2b3c4d5e6f"
	// patience is how long a client may take.
	patience = 30 * time.Second
)

var key = []byte{0x1a, 0x2b, 0x3c, 0x4d, 0x5e, 0x6f}

var program string // examples/server

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "interop")
	if err != nil {
		panic(err)
	}
	program = filepath.Join(dir, "server")
	build := exec.Command("go", "build", "-o", program, "./examples/server")
	build.Dir = ".."
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "building examples/server:", err)
		os.Exit(1)
	}
	// Clients wait more than they work: s_client half a second for an answer
	// to its close_notify. A flag of the command line wins.
	flag.Set("test.parallel", "8")
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// startServer runs examples/server with its default key on a free port and
// returns its address. It must end cleanly on SIGTERM.
func startServer(t *testing.T, args ...string) string {
	t.Helper()
	var log, rest bytes.Buffer // each has its own writer
	cmd := exec.Command(program, append([]string{"-addr", "127.0.0.1:0"}, args...)...)
	cmd.Stderr = &log
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(stdout)
	line, err := lines.ReadString('\n')
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	if err != nil || !ok {
		t.Fatalf("the server says %q, %v", line, err)
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		io.Copy(&rest, lines)
	}()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		<-drained
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server ended with %v", err)
		}
		if t.Failed() {
			t.Logf("the server's events:\n%s%s", &log, &rest)
		}
	})
	return addr
}

// tool returns the path of a program.
func tool(t *testing.T, name, debian string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		missing(t, name, debian)
	}
	return path
}

// missing ends a test whose tool is not installed.
func missing(t *testing.T, name, debian string) {
	t.Helper()
	lacking(t, fmt.Sprintf("%s is not installed (Debian: apt-get install %s)", name, debian))
}

// lacking ends a test that lacks what it needs.
func lacking(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// wantACK runs a client, sends it a line to send, and wants it to print the
// server's answer. It returns what the client printed.
func wantACK(t *testing.T, path string, args ...string) string {
	t.Helper()
	return wantACKWith(t, nil, path, args...)
}

// running bounds the clients that run at the same time.
var running = make(chan struct{}, 4)

// wantACKWith is wantACK with an environment; nil: this process's.
func wantACKWith(t *testing.T, env []string, path string, args ...string) string {
	t.Helper()
	running <- struct{}{}
	defer func() { <-running }()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = env
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out := &watcher{want: ": ACK", found: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	io.WriteString(stdin, "hello\n")
	select {
	case <-out.found:
		stdin.Close()
		<-ended
	case err := <-ended:
		select {
		case <-out.found:
		default:
			t.Fatalf("%s ended without an answer: %v\n%s", filepath.Base(path), err, out)
		}
	}
	if !strings.Contains(out.String(), "to 127.0.0.1:") {
		t.Errorf("the answer is not to the client:\n%s", out)
	}
	return out.String()
}

// watcher is a buffer that says when a text has come by.
type watcher struct {
	mu    sync.Mutex // guards all following
	buf   bytes.Buffer
	want  string
	found chan struct{}
	once  sync.Once
}

func (w *watcher) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf.Write(b)
	if strings.Contains(w.buf.String(), w.want) {
		w.once.Do(func() { close(w.found) })
	}
	return len(b), nil
}

func (w *watcher) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

func TestOpenSSL(t *testing.T) {
	t.Parallel()
	path := tool(t, "openssl", "openssl")
	addr := startServer(t)
	for _, cipher := range []string{
		"", "PSK-AES128-GCM-SHA256", "PSK-AES256-GCM-SHA384", "PSK-CHACHA20-POLY1305",
		"PSK-AES128-CCM", "PSK-AES128-CCM8", "PSK-AES256-CCM", "PSK-AES256-CCM8",
	} {
		t.Run("cipher="+cipher, func(t *testing.T) {
			t.Parallel()
			args := []string{"s_client", "-dtls1_2", "-connect", addr, "-psk_identity", identity, "-psk", hexKey}
			want := "ECDHE-PSK-CHACHA20-POLY1305" // the first of the server's that OpenSSL has
			if cipher != "" {
				args = append(args, "-cipher", cipher)
				want = cipher
			}
			if out := wantACK(t, path, args...); !strings.Contains(out, "Cipher is "+want) {
				t.Errorf("not with %s:\n%s", want, out)
			}
		})
	}
}

func TestGnuTLS(t *testing.T) {
	t.Parallel()
	path := tool(t, "gnutls-cli", "gnutls-bin")
	host, port, _ := net.SplitHostPort(startServer(t))
	const base = "NORMAL:-KX-ALL:+PSK:-VERS-ALL:+VERS-DTLS1.2"
	for _, priority := range []string{
		"", ":%NO_SESSION_HASH", ":%DISABLE_SAFE_RENEGOTIATION",
		":-CIPHER-ALL:+AES-128-GCM", ":-CIPHER-ALL:+AES-256-GCM", ":-CIPHER-ALL:+CHACHA20-POLY1305",
		":-CIPHER-ALL:+AES-128-CCM", ":-CIPHER-ALL:+AES-128-CCM-8", ":-CIPHER-ALL:+AES-256-CCM", ":-CIPHER-ALL:+AES-256-CCM-8",
	} {
		t.Run("priority="+priority, func(t *testing.T) {
			t.Parallel()
			wantACK(t, path, "--udp", "--port", port, "--priority", base+priority, "--pskusername", identity, "--pskkey", hexKey, host)
		})
	}
}

// wantConnACK sends a datagram over a client's connection and wants the
// answer.
func wantConnACK(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, err := c.Read(b)
	if want := fmt.Sprintf("to %v: ACK", c.LocalAddr()); err != nil || string(b[:n]) != want {
		t.Errorf("got %q, %v, want %q", b[:n], err, want)
	}
}

func dialUDP(t *testing.T, addr string) *net.UDPConn {
	t.Helper()
	conn, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.UDPConn)
}

func TestPionV2(t *testing.T) {
	t.Parallel()
	addr := startServer(t)
	for _, id := range []pion2.CipherSuiteID{
		pion2.TLS_PSK_WITH_AES_128_GCM_SHA256, pion2.TLS_PSK_WITH_AES_128_CCM,
		pion2.TLS_PSK_WITH_AES_128_CCM_8, pion2.TLS_PSK_WITH_AES_256_CCM_8,
	} {
		for _, ems := range []pion2.ExtendedMasterSecretType{pion2.RequireExtendedMasterSecret, pion2.DisableExtendedMasterSecret} {
			t.Run(fmt.Sprintf("%v/ems=%v", id, ems), func(t *testing.T) {
				t.Parallel()
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				var hint []byte
				c, err := pion2.ClientWithContext(ctx, dialUDP(t, addr), &pion2.Config{
					PSK:                  func(h []byte) ([]byte, error) { hint = h; return key, nil },
					PSKIdentityHint:      []byte(identity),
					CipherSuites:         []pion2.CipherSuiteID{id},
					ExtendedMasterSecret: ems,
				})
				if err != nil {
					t.Fatal(err)
				}
				wantConnACK(t, c)
				if string(hint) != "Qt DTLS example server" {
					t.Errorf("hint %q", hint)
				}
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestPionV3(t *testing.T) {
	t.Parallel()
	addr := startServer(t)
	for _, id := range []pion3.CipherSuiteID{
		pion3.TLS_PSK_WITH_AES_128_GCM_SHA256, pion3.TLS_PSK_WITH_AES_128_CCM,
		pion3.TLS_PSK_WITH_AES_128_CCM_8, pion3.TLS_PSK_WITH_AES_256_CCM_8,
	} {
		t.Run(id.String(), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			udp := dialUDP(t, addr)
			c, err := pion3.ClientWithOptions(connected{udp}, udp.RemoteAddr(),
				pion3.WithPSK(func([]byte) ([]byte, error) { return key, nil }),
				pion3.WithPSKIdentityHint([]byte(identity)),
				pion3.WithCipherSuites(id))
			if err != nil {
				t.Fatal(err)
			}
			if err := c.HandshakeContext(ctx); err != nil {
				t.Fatal(err)
			}
			wantConnACK(t, c)
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// connected lets a connected socket be written to as an unconnected one.
type connected struct{ *net.UDPConn }

func (c connected) WriteTo(b []byte, _ net.Addr) (int, error) { return c.Write(b) }

// TestServerCloses: on SIGINT the server tells its peers and ends cleanly.
func TestServerCloses(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(program, "-addr", "127.0.0.1:0", "-quiet")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(stdout).ReadString('\n')
	addr := strings.TrimSpace(strings.TrimPrefix(line, "listening on "))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := pion2.ClientWithContext(ctx, dialUDP(t, addr), &pion2.Config{
		PSK:             func([]byte) ([]byte, error) { return key, nil },
		PSKIdentityHint: []byte(identity),
		CipherSuites:    []pion2.CipherSuiteID{pion2.TLS_PSK_WITH_AES_128_GCM_SHA256},
	})
	if err != nil {
		t.Fatal(err)
	}
	wantConnACK(t, c)
	cmd.Process.Signal(os.Interrupt)
	if _, err := c.Read(make([]byte, 10)); !errors.Is(err, io.EOF) {
		t.Errorf("Read: %v, want io.EOF", err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the server ended with %v", err)
	}
}

// TestSpoofedBesidePion: from the socket of pion's connected client come forged
// alerts, data, ChangeCipherSpec, Finished, junk and hellos; the server answers
// nothing but the hellos, with HelloVerifyRequests, and the session lives.
func TestSpoofedBesidePion(t *testing.T) {
	t.Parallel()
	addr := startServer(t, "-reply", "echo")
	udp := &tap{UDPConn: dialUDP(t, addr), answers: make(chan []byte, 1000)}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := pion2.ClientWithContext(ctx, udp, &pion2.Config{
		PSK:             func([]byte) ([]byte, error) { return key, nil },
		PSKIdentityHint: []byte(identity),
		CipherSuites:    []pion2.CipherSuiteID{pion2.TLS_PSK_WITH_AES_128_GCM_SHA256},
	})
	if err != nil {
		t.Fatal(err)
	}
	record := func(typ byte, epoch uint16, seq byte, payload ...byte) []byte {
		r := []byte{typ, 0xfe, 0xfd, byte(epoch >> 8), byte(epoch), 0, 0, 0, 0, 0, seq, byte(len(payload) >> 8), byte(len(payload))}
		return append(r, payload...)
	}
	finished := append([]byte{20, 0, 0, 12, 0, 3, 0, 0, 0, 0, 0, 12}, make([]byte, 12)...)
	var attacks [][]byte
	for _, epoch := range []uint16{0, 1, 2, 0xffff} {
		for _, seq := range []byte{0, 1, 77} {
			for typ := range byte(32) {
				attacks = append(attacks, record(typ, epoch, seq), record(typ, epoch, seq, make([]byte, 40)...))
			}
			attacks = append(attacks,
				record(21, epoch, seq, 1, 0), record(21, epoch, seq, 2, 40), record(20, epoch, seq, 1),
				record(23, epoch, seq, []byte("data")...), record(22, epoch, seq, finished...))
		}
	}
	attacks = append(attacks, udp.sent()...) // replayed: hellos and the client's flight
	udp.watch.Store(true)
	for i, b := range attacks {
		if _, err := udp.UDPConn.Write(b); err != nil {
			t.Fatal(err)
		}
		if i%50 == 0 {
			wantEcho(t, c, fmt.Sprint("still there ", i))
		}
	}
	wantEcho(t, c, "and after all")
	hellos := 0
	for len(udp.answers) > 0 {
		switch b := <-udp.answers; {
		case len(b) == 60 && b[0] == 22 && b[13] == 3:
			hellos++
		case b[0] == 23: // an echo
		default:
			t.Errorf("the server sent %x", b)
		}
	}
	if hellos != 1 {
		t.Errorf("%d HelloVerifyRequests, want one for the bare hello", hellos)
	}
}

// wantEcho sends a text and wants it back, and nothing else.
func wantEcho(t *testing.T, c net.Conn, text string) {
	t.Helper()
	c.SetDeadline(time.Now().Add(patience))
	b := make([]byte, 100)
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(b); err != nil || string(b[:n]) != text {
		t.Fatalf("got %q, %v, want %q", b[:n], err, text)
	}
}

// tap is a connected socket that remembers what a client has written, and tells
// what it reads.
type tap struct {
	*net.UDPConn
	watch   atomic.Bool
	answers chan []byte

	mu      sync.Mutex // guards written
	written [][]byte
}

func (c *tap) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.written = append(c.written, bytes.Clone(b))
	c.mu.Unlock()
	return c.UDPConn.Write(b)
}

func (c *tap) Read(b []byte) (int, error) {
	n, err := c.UDPConn.Read(b)
	if err == nil && c.watch.Load() {
		c.answers <- bytes.Clone(b[:n])
	}
	return n, err
}

func (c *tap) sent() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.written)
}
