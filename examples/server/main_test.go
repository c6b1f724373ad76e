package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/dtlsserver/dtlsserver/dtlsservertest"
	"github.com/dtlsserver/dtlsserver/examples/internal/pskflag"
)

const patience = 20 * time.Second

func TestAcknowledge(t *testing.T) {
	t.Parallel()
	p := start(t)
	client := p.dial(pskflag.Default)
	for _, message := range []string{"hello", "", "bye"} {
		want(t, ask(t, client, message), "to "+client.LocalAddr().String()+": ACK")
	}
	p.stop()
	if _, err := client.Read(make([]byte, 2048)); err != io.EOF {
		t.Errorf("after the server's end Read returns %v, not EOF", err)
	}
	output := <-p.stdout
	for _, line := range []string{": handshake complete", `: "hello"`, ": session closed", "stopped listening"} {
		if !strings.Contains(output, line) {
			t.Errorf("no line with %q in\n%s", line, output)
		}
	}
	if strings.Contains(output, "info    listening") {
		t.Errorf("a second line says where the server listens:\n%s", output)
	}
}

func TestEcho(t *testing.T) {
	t.Parallel()
	p := start(t, "-reply", "echo")
	client := p.dial(pskflag.Default)
	for _, message := range []string{"hello", "", "\x00\xff", strings.Repeat("x", 1400)} {
		want(t, ask(t, client, message), message)
	}
}

func TestQuiet(t *testing.T) {
	t.Parallel()
	p := start(t, "-quiet")
	ask(t, p.dial(pskflag.Default), "hello")
	p.stop()
	want(t, <-p.stdout, "") // after the line that start has read
}

func TestKeys(t *testing.T) {
	t.Parallel()
	p := start(t, "-psk", "one=01", "-psk", "two=2=0202", "-hint", "which?")
	for _, psk := range []string{"one=01", "two=2=0202"} {
		ask(t, p.dial(psk), "hello")
	}
}

func TestStats(t *testing.T) {
	t.Parallel()
	p := start(t, "-stats", "10ms")
	ask(t, p.dial(pskflag.Default), "hello")
	for range cap(p.stderr) {
		line := <-p.stderr
		var figures struct {
			Stats      map[string]any
			Heap       uint64
			Goroutines int
		}
		decoder := json.NewDecoder(strings.NewReader(line))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&figures); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		if figures.Heap == 0 || figures.Goroutines == 0 {
			t.Fatalf("line %q lacks figures", line)
		}
		if figures.Stats["MessagesReceived"] == 1.0 && figures.Stats["Sessions"] == 1.0 {
			return
		}
	}
	t.Error("no line of figures with the session and its message")
}

func TestKeyLog(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "keys.log")
	if err := os.WriteFile(name, []byte("# before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "-keylog", name)
	ask(t, p.dial(pskflag.Default), "hello")
	p.stop()
	log, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^# before\nCLIENT_RANDOM [0-9a-f]{64} [0-9a-f]{96}\n$`).Match(log) {
		t.Errorf("the key log is %q", log)
	}
}

func TestKeyLogIsPrivate(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "keys.log")
	start(t, "-keylog", name).stop()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		t.Errorf("the key log has mode %v", mode)
	}
}

// TestKeyLogOfOthers: secrets are not appended to a file that others may read.
func TestKeyLogOfOthers(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("files have no such modes")
	}
	name := filepath.Join(t.TempDir(), "keys.log")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, 0o640); err != nil {
		t.Fatal(err)
	}
	if f, err := openKeyLog(name); err == nil || !strings.Contains(err.Error(), "others may read it") {
		t.Errorf("opened %v, error %v", f, err)
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		args   []string
		status int
		stderr string // a part of it
	}{
		{"help", []string{"-h"}, 0, "-psk"},
		{"unknown flag", []string{"-frob"}, 2, "-frob"},
		{"argument", []string{"-quiet", "here"}, 2, "argument number 2"},
		{"key as an argument", []string{"-psk", "me", "5ec2e7"}, 2, "-psk number 1: not of the form"},
		{"another key as an argument", []string{"-psk", "me=01", "5ec2e7"}, 2, "argument number 3"},
		{"key without identity", []string{"-psk", "5ec2e7"}, 2, "-psk number 1: not of the form"},
		{"key not hexadecimal", []string{"-psk", "me=01", "-psk", "me=5ec2e7x"}, 2, "-psk number 2: the key"},
		{"no key", []string{"-psk", "5ec2e7="}, 2, "-psk number 1: no key"},
		{"reply", []string{"-reply", "shout"}, 2, `-reply "shout"`},
		{"negative period", []string{"-stats", "-1s"}, 2, "-stats -1s"},
		{"address", []string{"-addr", "127.0.0.1:port"}, 1, "127.0.0.1:port"},
		{"key log", []string{"-keylog", t.TempDir()}, 1, "directory"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			if status := run(t.Context(), test.args, &stdout, &stderr); status != test.status {
				t.Errorf("exit status %d, not %d", status, test.status)
			}
			if !strings.Contains(stderr.String(), test.stderr) {
				t.Errorf("standard error %q does not say %q", stderr.String(), test.stderr)
			}
			if strings.Contains(stderr.String(), "5ec2e7") {
				t.Errorf("standard error %q shows the key", stderr.String())
			}
			want(t, stdout.String(), "")
		})
	}
}

func TestAddressInUse(t *testing.T) {
	t.Parallel()
	taken, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	addr := taken.LocalAddr().String()
	var stdout, stderr bytes.Buffer
	if status := run(t.Context(), []string{"-addr", addr}, &stdout, &stderr); status != 1 {
		t.Errorf("exit status %d, not 1", status)
	}
	if !strings.HasPrefix(stderr.String(), "server: ") || !strings.Contains(stderr.String(), addr) {
		t.Errorf("standard error %q does not tell of %s", stderr.String(), addr)
	}
	want(t, stdout.String(), "")
}

// process is a run of the program.
type process struct {
	t      *testing.T
	addr   string
	stdout chan string // receives all after the first line, once
	stderr chan string // a line each, the first ones
	stop   func()      // waits for the end
}

// start runs the program until the test's end, or until stop is called, and
// waits until it can be reached.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	outReader, outWriter := io.Pipe()
	errReader, errWriter := io.Pipe()
	p := &process{t: t, stdout: make(chan string, 1), stderr: make(chan string, 1000)}

	status := make(chan int, 1)
	go func() {
		status <- run(ctx, append([]string{"-addr", "127.0.0.1:0"}, args...), outWriter, errWriter)
		outWriter.Close()
		errWriter.Close()
	}()
	go func() {
		defer close(p.stderr)
		lines := bufio.NewScanner(errReader)
		for lines.Scan() {
			select {
			case p.stderr <- lines.Text():
			default: // nobody reads them
			}
		}
	}()
	p.stop = func() {
		cancel()
		if s, ok := <-status; ok {
			close(status)
			if s != 0 {
				t.Errorf("exit status %d", s)
			}
		}
	}
	t.Cleanup(p.stop)

	out := bufio.NewReader(outReader)
	first, err := out.ReadString('\n')
	addr, ok := strings.CutPrefix(first, "listening on ")
	if err != nil || !ok {
		t.Fatalf("the first line is %q, %v", first, err)
	}
	p.addr = strings.TrimSuffix(addr, "\n")
	go func() {
		rest, err := io.ReadAll(out)
		if err != nil {
			t.Error(err)
		}
		p.stdout <- string(rest)
	}()
	return p
}

// dial connects a client until the test's end.
func (p *process) dial(psk string) net.Conn {
	p.t.Helper()
	client, err := p.connect(withPSK(p.t, psk))
	if err != nil {
		p.t.Fatal(err)
	}
	return client
}

// withPSK returns the configuration of a client with a key.
func withPSK(t *testing.T, psk string) *dtlsservertest.ClientConfig {
	t.Helper()
	identity, key, err := pskflag.Parse(psk)
	if err != nil {
		t.Fatal(err)
	}
	return &dtlsservertest.ClientConfig{Identity: identity, Key: key}
}

// connect connects a client until the test's end, if the server lets it.
func (p *process) connect(config *dtlsservertest.ClientConfig) (net.Conn, error) {
	p.t.Helper()
	socket, err := net.Dial("udp", p.addr)
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	client, err := dtlsservertest.Connect(ctx, socket, config)
	if err != nil {
		return nil, err
	}
	p.t.Cleanup(func() { client.Close() })
	if err := client.SetReadDeadline(time.Now().Add(patience)); err != nil {
		p.t.Fatal(err)
	}
	return client, nil
}

// ask sends a message and returns the reply.
func ask(t *testing.T, client net.Conn, message string) string {
	t.Helper()
	_, err := client.Write([]byte(message))
	buf := make([]byte, 8192)
	n, readErr := client.Read(buf)
	if err := errors.Join(err, readErr); err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func want(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
