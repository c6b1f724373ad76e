//go:build linux

// Bench measures this library's server beside others, each in a process of its
// own: CPU time an operation, and memory a session.
//
//	cd bench && go run .
//
// docs/BENCHMARKS.md says what is measured and how.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	serveIfAsked()
	var o options
	servers := flag.String("servers", strings.Join(allServers, ","), "which servers")
	names := flag.String("modes", strings.Join(modeNames(modes), ","), "which modes")
	flag.Float64Var(&o.seconds, "seconds", 1, "how long a sample is")
	flag.IntVar(&o.repetitions, "reps", 9, "how many samples are taken; their median counts")
	flag.IntVar(&o.sessions, "sessions", 100_000, "how many idle sessions there are, and the most of any mode")
	flag.DurationVar(&o.quiet, "quiet", 35*time.Second, "how long they are idle")
	flag.StringVar(&o.profiles, "cpuprofile", "", "a `directory` for CPU profiles of ours, one a mode")
	serverCPU := flag.Int("server-cpu", 0, "the `core` of the server; negative: any")
	loadCPU := flag.Int("load-cpu", 1, "the `core` of the load; negative: any")
	flag.Parse()
	if cores() == 1 {
		*serverCPU, *loadCPU = -1, -1
	}
	chosen, err := choose(strings.Split(*servers, ","), strings.Split(*names, ","))
	if err == nil && (flag.NArg() > 0 || o.seconds <= 0 || o.repetitions < 1 || o.sessions < 1 || o.sessions > maxClients || o.quiet < 0) {
		err = errors.New("bad arguments")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		flag.Usage()
		os.Exit(2)
	}
	if err := pin(*loadCPU); err != nil {
		fatal(err)
	}
	if o.profiles != "" {
		if err := os.MkdirAll(o.profiles, 0o777); err != nil {
			fatal(err)
		}
	}
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		fatal(os.NewSyscallError("prctl", err))
	}
	debug.SetGCPercent(400) // of the load; servers are processes of their own
	b, err := newBench(o, *serverCPU, *loadCPU)
	if err != nil {
		fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	b.servers = strings.Split(*servers, ",")
	err = b.run(ctx, chosen)
	b.close()
	if err != nil {
		fatal(err)
	}
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

func modeNames(modes []mode) (names []string) {
	for _, m := range modes {
		names = append(names, m.name)
	}
	return names
}

// choose returns the modes with the names, when there are all and the servers
// too.
func choose(servers, names []string) (chosen []mode, err error) {
	for _, server := range servers {
		if !slices.Contains(allServers, server) {
			return nil, fmt.Errorf("no server %q", server)
		}
	}
	for _, name := range names {
		i := slices.IndexFunc(modes, func(m mode) bool { return m.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no mode %q", name)
		}
		chosen = append(chosen, modes[i])
	}
	return chosen, nil
}

// bench is one run of the program.
type bench struct {
	options
	servers        []string
	cpu, loadCPU   int
	received, sent int    // bytes of the load's socket buffers
	dir            string // temporary
	built          map[string]string
	cErrors        map[string]error
	versions       map[string]string // of what servers are made of
	primitives     primitives
	results        []*result
}

func newBench(o options, serverCPU, loadCPU int) (*bench, error) {
	dir, err := os.MkdirTemp("", "dtlsbench")
	if err != nil {
		return nil, err
	}
	b := &bench{options: o, cpu: serverCPU, loadCPU: loadCPU, dir: dir,
		built: make(map[string]string), cErrors: make(map[string]error), versions: make(map[string]string)}
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
	cmd, err := b.command(server)
	if err != nil {
		return nil, err
	}
	p, err := start(cmd, b.cpu)
	if err == nil {
		b.versions[server] = p.version
	}
	return p, err
}

func (b *bench) command(server string) (*exec.Cmd, error) {
	if _, ok := cServers[server]; ok {
		if b.built[server] == "" && b.cErrors[server] == nil {
			b.built[server], b.cErrors[server] = buildC(server, b.dir)
		}
		return exec.Command(b.built[server], b.certFile(), b.keyFile(), pskIdentity, pskKey), b.cErrors[server]
	}
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path, b.certFile(), b.keyFile())
	cmd.Env = append(os.Environ(), serveEnv+"="+server)
	return cmd, nil
}

// run measures and reports. Interrupted, it stops early and reports all the same.
func (b *bench) run(ctx context.Context, chosen []mode) (err error) {
	if b.primitives, err = measurePrimitives(); err != nil {
		return err
	}
	for _, m := range chosen {
		if ctx.Err() == nil {
			b.measure(ctx, m)
		}
	}
	b.report(os.Stdout)
	return nil
}

// measure measures a mode of all servers. Their samples are taken in turns, so
// that what else the machine does strikes all alike. The others are suspended.
func (b *bench) measure(ctx context.Context, m mode) {
	var runs []*run
	for _, server := range b.servers {
		if isPlain(server) && !m.plain || isLarge(server) && m.many || ctx.Err() != nil {
			continue
		}
		r, err := b.prepare(m, server)
		if err != nil {
			b.add(&result{server: server, mode: m.name, err: err})
			continue
		}
		if r.work == nil {
			b.add(r.end())
			continue
		}
		r.result.err = r.process.suspend()
		runs = append(runs, r)
	}
	for range b.repetitions {
		for _, r := range runs {
			if r.result.err == nil && ctx.Err() == nil {
				r.result.err = r.turn()
			}
		}
	}
	for _, r := range runs {
		r.result.err = errors.Join(r.result.err, r.process.resume())
		b.add(r.end())
	}
}

func (b *bench) add(r *result) {
	b.results = append(b.results, r)
	progress(r)
}

// prepare starts a server for a mode and warms it up.
func (b *bench) prepare(m mode, server string) (*run, error) {
	p, err := b.start(server)
	if err != nil {
		return nil, err
	}
	r, err := newRun(m, b.options, p, server)
	if err != nil {
		p.stop()
		return nil, err
	}
	b.received, b.sent = r.load.buffers()
	if err := r.warm(); err != nil {
		r.end()
		return nil, err
	}
	return r, nil
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
