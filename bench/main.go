//go:build linux

// Bench measures this library's server beside others, each in a process of its
// own: CPU time an operation, and memory a session.
//
//	cd bench && go run .
//
// or with itself at another commit, or with connection IDs, or under attack:
//
//	go run . -before HEAD~1
//	go run . -cids
//	go run . -attacks
//
// docs/BENCHMARKS.md says what is measured and how.
package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
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
	a, err := parse(flag.CommandLine, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		flag.Usage()
		os.Exit(2)
	}
	if err := pin(a.loadCPU); err != nil {
		fatal(err)
	}
	if a.profiles != "" {
		if err := os.MkdirAll(a.profiles, 0o777); err != nil {
			fatal(err)
		}
	}
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		fatal(os.NewSyscallError("prctl", err))
	}
	debug.SetGCPercent(400) // of the load; servers are processes of their own
	b, err := newBench(a.options, a.serverCPU, a.loadCPU)
	if err != nil {
		fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	b.servers = a.servers
	ok, err := b.do(ctx, a)
	b.close()
	stop()
	if err != nil {
		fatal(err)
	}
	if !ok {
		os.Exit(1)
	}
}

// do does what the arguments ask for. It reports whether nothing has failed
// that the program judges.
func (b *bench) do(ctx context.Context, a *arguments) (ok bool, err error) {
	switch {
	case a.before != "":
		c, err := b.newCompared(ctx, a.before, a.rounds)
		if err != nil {
			return false, err
		}
		return c.run(ctx, os.Stdout, a.modes)
	case a.cids:
		c, err := b.newComparedCIDs(ctx, a.rounds)
		if err != nil {
			return false, err
		}
		return c.run(ctx, os.Stdout, a.modes)
	case a.attack:
		return b.runAttacks(ctx, os.Stdout, a.attacks)
	}
	return true, b.run(ctx, a.modes)
}

// arguments are those of the command line.
type arguments struct {
	options
	servers            []string
	modes              []mode
	serverCPU, loadCPU int
	before             string // a commit
	cids               bool
	rounds             int
	attack             bool
	attacks            []*attack
}

// parse parses the command line. What has another default with -before, -cids or
// -attacks has it where it is not given.
func parse(flags *flag.FlagSet, line []string) (*arguments, error) {
	a := &arguments{}
	servers := flags.String("servers", strings.Join(allServers, ","), "which servers")
	names := flags.String("modes", "", "which modes; none: all of "+strings.Join(modeNames(modes), ",")+", or with -before "+
		strings.Join(modeNames(pairedModes), ",")+", or with -cids "+strings.Join(modeNames(cidModes), ","))
	flags.Float64Var(&a.seconds, "seconds", 1, "how long a sample is, with -before or -cids 0.1, or a phase of -attacks, 2")
	flags.IntVar(&a.repetitions, "reps", 9, "how many samples are taken; their median counts. With -before or -cids the pairs of a round, 10")
	flags.IntVar(&a.sessions, "sessions", 100_000, "how many idle sessions there are, with -before or -cids 10,000, and the most of any mode")
	flags.DurationVar(&a.quiet, "quiet", 35*time.Second, "how long they are idle")
	flags.StringVar(&a.profiles, "cpuprofile", "", "a `directory` for CPU profiles of ours, one a mode")
	flags.IntVar(&a.serverCPU, "server-cpu", 0, "the `core` of the server; negative: any, as with -attacks")
	flags.IntVar(&a.loadCPU, "load-cpu", 1, "the `core` of the load; negative: any, as with -attacks")
	flags.StringVar(&a.before, "before", "", "compare our server with that of a `commit`")
	flags.BoolVar(&a.cids, "cids", false, "compare our server without connection IDs with itself with them")
	flags.IntVar(&a.rounds, "rounds", 10, "with -before or -cids, how many times both servers are started")
	flags.BoolVar(&a.attack, "attacks", false, "attack our server")
	only := flags.String("only", "", "with -attacks, which `attacks`; none: all of "+strings.Join(attackNames(attacks), ","))
	if err := flags.Parse(line); err != nil {
		return nil, err
	}
	given := make(map[string]bool)
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	all := modes
	switch {
	case a.before != "" || a.cids:
		all, a.paired = pairedModes, true
		if a.cids {
			all = cidModes
		}
		setDefault(given["seconds"], &a.seconds, 0.1)
		setDefault(given["reps"], &a.repetitions, 10)
		setDefault(given["sessions"], &a.sessions, 10_000)
	case a.attack:
		setDefault(given["seconds"], &a.seconds, 2)
		setDefault(given["server-cpu"], &a.serverCPU, -1)
		setDefault(given["load-cpu"], &a.loadCPU, -1)
	}
	if cores() == 1 {
		a.serverCPU, a.loadCPU = -1, -1
	}
	a.servers = strings.Split(*servers, ",")
	var err error
	if a.modes, err = choose(all, a.servers, *names); err != nil {
		return nil, err
	}
	if a.attacks, err = chooseAttacks(*only); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 || a.seconds <= 0 || a.repetitions < 1 || a.sessions < 1 || a.sessions > maxClients || a.quiet < 0 ||
		a.rounds < 1 || a.attack && a.before != "" || a.cids && (a.attack || a.before != "") {
		return nil, errors.New("bad arguments")
	}
	return a, nil
}

func setDefault[T any](given bool, value *T, standard T) {
	if !given {
		*value = standard
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

// choose returns the modes with the names, of which an empty one means all,
// when there are all and the servers too.
func choose(all []mode, servers []string, names string) (chosen []mode, err error) {
	for _, server := range servers {
		if !slices.Contains(allServers, server) {
			return nil, fmt.Errorf("no server %q", server)
		}
	}
	if names == "" {
		return all, nil
	}
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(all, func(m mode) bool { return m.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no mode %q", name)
		}
		chosen = append(chosen, all[i])
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
	uncounted      map[string]bool // servers that do not say what they count
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
		built: make(map[string]string), uncounted: make(map[string]bool),
		cErrors: make(map[string]error), versions: make(map[string]string)}
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
		p.uncounted = b.uncounted[server]
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
	if server == beforeServer || server == afterServer {
		path, server = b.built[server], "ours"
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
	server := newIdentity("localhost", nil)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(server.key)
	if err != nil {
		return err
	}
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: server.chain[0]},
		keyFile:  {Type: "PRIVATE KEY", Bytes: pkcs8},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
	}
	return nil
}
