//go:build linux

// Bench measures this library's server beside others, each in a process of its
// own: CPU time an operation, and memory a session.
//
//	cd bench && go run .
//
// docs/BENCHMARKS.md says what is measured and how.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	serveIfAsked()
	var o options
	servers := flag.String("servers", strings.Join(allServers, ","), "which servers")
	names := flag.String("modes", "", "which modes; empty: all")
	flag.Float64Var(&o.seconds, "seconds", 2, "how long a sample is")
	flag.IntVar(&o.repetitions, "reps", 3, "how many samples are taken; their median counts")
	flag.IntVar(&o.sessions, "sessions", 100_000, "how many idle sessions there are")
	flag.DurationVar(&o.quiet, "quiet", 35*time.Second, "how long they are idle")
	flag.StringVar(&o.profiles, "cpuprofile", "", "a `directory` for CPU profiles of ours, one a mode")
	serverCPU := flag.Int("server-cpu", 0, "the `core` of the server; negative: any")
	loadCPU := flag.Int("load-cpu", 1, "the `core` of the load; negative: any")
	flag.Parse()
	if runtime.NumCPU() == 1 && os.Getenv(pinnedEnv) == "" {
		*serverCPU, *loadCPU = -1, -1
	}
	if err := pin(*loadCPU); err != nil {
		fatal(err)
	}
	chosen, err := chooseModes(*names)
	if err != nil || flag.NArg() > 0 {
		fatal(fmt.Errorf("bad arguments: %q, %v", flag.Args(), err))
	}
	if err := makeDir(o.profiles); err != nil {
		fatal(err)
	}
	b, err := newBench(o, *serverCPU)
	if err != nil {
		fatal(err)
	}
	defer b.close()
	b.all(strings.Split(*servers, ","), chosen)
	b.report(os.Stdout)
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// pinnedEnv is set in a process that is on its core.
const pinnedEnv = "DTLSBENCH_PINNED"

// pin executes this program again, on one core: only then all threads of the
// runtime are there.
func pin(cpu int) error {
	if cpu < 0 || os.Getenv(pinnedEnv) != "" {
		return nil
	}
	path, err := os.Executable()
	if err != nil {
		return err
	}
	return onCPU(cpu, func() error {
		return syscall.Exec(path, os.Args, append(os.Environ(), pinnedEnv+"=1"))
	})
}

// allServers are all servers in the order of the table.
var allServers = []string{"ours", "gnutls", "openssl", "pion3", "pion2", "echo", "echo-batched", "echo-floor"}

func chooseModes(names string) ([]mode, error) {
	if names == "" {
		return modes, nil
	}
	var chosen []mode
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(modes, func(m mode) bool { return m.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no mode %q", name)
		}
		chosen = append(chosen, modes[i])
	}
	return chosen, nil
}

// bench is one run.
type bench struct {
	options
	cpu     int
	dir     string // temporary
	c       map[string]string
	cErrors map[string]error
	results []*result
}

func newBench(o options, serverCPU int) (*bench, error) {
	dir, err := os.MkdirTemp("", "dtlsbench")
	if err != nil {
		return nil, err
	}
	b := &bench{options: o, cpu: serverCPU, dir: dir, c: make(map[string]string), cErrors: make(map[string]error)}
	if err := writeCertificate(b.certFile(), b.keyFile()); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *bench) certFile() string { return filepath.Join(b.dir, "cert.pem") }
func (b *bench) keyFile() string  { return filepath.Join(b.dir, "key.pem") }
func (b *bench) close()           { os.RemoveAll(b.dir) }

// start starts a server.
func (b *bench) start(server string) (*process, error) {
	if _, ok := cServers[server]; ok {
		if b.c[server] == "" && b.cErrors[server] == nil {
			b.c[server], b.cErrors[server] = buildC(server, b.dir)
		}
		if err := b.cErrors[server]; err != nil {
			return nil, err
		}
		return start(exec.Command(b.c[server], b.certFile(), b.keyFile(), pskIdentity, pskKey), b.cpu)
	}
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path, b.certFile(), b.keyFile())
	cmd.Env = append(os.Environ(), serveEnv+"="+server)
	return start(cmd, b.cpu)
}

// one measures one mode of one server in a process of its own.
func (b *bench) one(m mode, server string) *result {
	p, err := b.start(server)
	if err != nil {
		return &result{server: server, mode: m.name, err: err}
	}
	defer p.stop()
	return m.measure(p, b.options, server)
}

func (b *bench) all(servers []string, chosen []mode) {
	for _, m := range chosen {
		for _, server := range servers {
			if isPlain(server) && !m.plain {
				continue
			}
			r := b.one(m, server)
			b.results = append(b.results, r)
			r.print(os.Stderr)
		}
	}
}

// writeCertificate makes the servers' certificate, for a P-256 key.
func writeCertificate(certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "bench"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		DNSNames:     []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: der},
		keyFile:  {Type: "PRIVATE KEY", Bytes: pkcs8},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
	}
	return nil
}
