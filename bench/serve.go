//go:build linux

package main

// A server process: this program again, with serveEnv set. It says on its
// standard output where it listens, and obeys its standard input, a line a
// command and a line an answer, until that ends.
//
// This file and ours.go are also built against other states of the library (see
// build.go): they use nothing of the other files.

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strings"
)

// serveEnv names the server that a process is.
const serveEnv = "DTLSBENCH_SERVE"

// service is a server in its process.
type service interface {
	port() uint16
	close() // every session
}

const (
	pskIdentity = "bench"
	pskKey      = "0123456789abcdef" // of a server that lives for one run on the loopback interface
)

// systemCalls counts the system calls of this process. Nil: they are not
// counted.
var systemCalls func() uint64

// credentials are what a server authenticates with, beside the pre-shared key.
type credentials struct{ certFile, keyFile string }

func (c credentials) load() (tls.Certificate, error) {
	return tls.LoadX509KeyPair(c.certFile, c.keyFile)
}

// serveIfAsked makes this process a server when its environment says so, and
// then does not return.
func serveIfAsked() {
	name := os.Getenv(serveEnv)
	if name == "" {
		return
	}
	if err := serve(name, credentials{os.Args[1], os.Args[2]}, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serve(name string, c credentials, in io.Reader, out io.Writer) error {
	start, ok := goServers[name]
	if !ok {
		return fmt.Errorf("no server %q", name)
	}
	s, err := start(c)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "listening %d\n", s.port())
	var profile *os.File
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		command, arg, _ := strings.Cut(lines.Text(), " ")
		switch command {
		case "collect":
			debug.FreeOSMemory()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			fmt.Fprintf(out, "%d %d\n", runtime.NumGoroutine(), m.HeapAlloc)
		case "counters":
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			calls := int64(-1)
			if systemCalls != nil {
				calls = int64(systemCalls())
			}
			fmt.Fprintln(out, m.Mallocs, calls)
		case "close":
			s.close()
			fmt.Fprintln(out, "closed")
		case "profile":
			if profile, err = os.Create(arg); err == nil {
				err = pprof.StartCPUProfile(profile)
			}
			fmt.Fprintln(out, "profile", err)
		case "endprofile":
			pprof.StopCPUProfile()
			fmt.Fprintln(out, "profile", profile.Close())
		default:
			more, ok := s.(interface{ command(name string) string })
			if !ok {
				return fmt.Errorf("unknown command %q", command)
			}
			fmt.Fprintln(out, more.command(command))
		}
	}
	return lines.Err()
}
