//go:build linux

package main

// Server processes, seen from the load: built, started on a core of their own,
// commanded, and measured.

import (
	"bufio"
	"embed"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed c
var cSources embed.FS

// cServers are the servers written in C, with what they are linked to.
var cServers = map[string][]string{
	"gnutls":  {"-lgnutls"},
	"openssl": {"-lssl", "-lcrypto"},
}

// buildC compiles a server of cServers in dir.
func buildC(name, dir string) (string, error) {
	for _, file := range []string{name + ".c", "common.h"} {
		source, err := cSources.ReadFile("c/" + file)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(dir, file), source, 0o600); err != nil {
			return "", err
		}
	}
	out := filepath.Join(dir, name)
	args := append([]string{"-O2", "-o", out, out + ".c"}, cServers[name]...)
	if text, err := exec.Command("cc", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("cc %s.c: %w\n%s", name, err, text)
	}
	return out, nil
}

// process is a running server.
type process struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Scanner
	server netip.AddrPort
	cpu    int // the core; negative: any
	// version is what the server says it is made of, or empty.
	version string
	// uncounted: the server is too old to say what it counts.
	uncounted bool
}

// start runs a command that is a server on the core cpu, or anywhere when that
// is negative.
func start(cmd *exec.Cmd, cpu int) (*process, error) {
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	// An interrupt of the terminal is for the load, which stops its servers.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := onCPU(cpu, cmd.Start); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, in: in, out: bufio.NewScanner(out), cpu: cpu}
	line, err := p.answer()
	line, ok := strings.CutPrefix(line, "listening ")
	port, version, _ := strings.Cut(line, " ")
	n, parseErr := strconv.ParseUint(port, 10, 16)
	if err != nil || !ok || parseErr != nil {
		p.stop()
		return nil, fmt.Errorf("%s does not say where it listens: %q, %v", cmd.Path, line, errors.Join(err, parseErr))
	}
	p.version = version
	p.server = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(n))
	return p, nil
}

// onCPU calls f on a thread that is bound to a core, which children inherit.
func onCPU(cpu int, f func() error) error {
	if cpu < 0 {
		return f()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return err
	}
	defer unix.SchedSetaffinity(0, &before)
	return f()
}

func (p *process) answer() (string, error) {
	if !p.out.Scan() {
		return "", fmt.Errorf("the server has ended: %w", errors.Join(p.out.Err(), io.EOF))
	}
	return p.out.Text(), nil
}

// command sends a command and waits for its answer.
func (p *process) command(line string) (string, error) {
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		return "", err
	}
	return p.answer()
}

// suspend lets the process not run until resume, so that what it still does by
// itself, such as to retransmit, is not done in another's samples. Should the
// load be killed, the system resumes and ends it.
func (p *process) suspend() error { return p.cmd.Process.Signal(syscall.SIGSTOP) }

func (p *process) resume() error { return p.cmd.Process.Signal(syscall.SIGCONT) }

// stop ends the process, also one that is suspended, and waits for it.
func (p *process) stop() {
	p.in.Close()
	_ = p.resume()
	killer := time.AfterFunc(5*time.Second, func() { p.cmd.Process.Kill() })
	defer killer.Stop()
	p.cmd.Wait()
}

// counters are what a process counts of itself. What is negative is not
// counted.
type counters struct {
	mallocs int64
	calls   int64 // system calls
}

func (c counters) sub(d counters) counters {
	if c.mallocs >= 0 {
		c.mallocs -= d.mallocs
	}
	if c.calls >= 0 {
		c.calls -= d.calls
	}
	return c
}

// counters asks the process for them.
func (p *process) counters() (c counters, err error) {
	if p.uncounted {
		return counters{-1, -1}, nil
	}
	line, err := p.command("counters")
	if err == nil {
		_, err = fmt.Sscan(line, &c.mallocs, &c.calls)
	}
	return c, err
}

// usage is what a process has used.
type usage struct {
	cpu    time.Duration // by the process's clock
	user   time.Duration // by ticks of 10 ms
	system time.Duration
	others time.Duration // used of the same core, or withheld by the hypervisor; by ticks
}

func (u usage) sub(v usage) usage {
	return usage{u.cpu - v.cpu, u.user - v.user, u.system - v.system, max(0, u.others-v.others)}
}

// tick is the unit of the times in /proc (proc_pid_stat(5)), which Linux shows
// in hundredths of a second on every architecture.
const tick = 10 * time.Millisecond

func (p *process) usage() (u usage, err error) {
	pid := p.cmd.Process.Pid
	// The clock of another process (clock_getcpuclockid(3)).
	clock := int32(^pid)<<3 | 2
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return u, os.NewSyscallError("clock_gettime", err)
	}
	u.cpu = time.Duration(ts.Nano())
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, err
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 13 {
		return u, errors.New("short /proc/pid/stat")
	}
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	u.user, u.system = time.Duration(user)*tick, time.Duration(system)*tick
	if u.others, err = busy(p.cpu); err == nil && u.others > 0 {
		u.others -= u.cpu
	}
	return u, errors.Join(err, err1, err2)
}

// busy is how long a core has not been idle (proc_stat(5)), or zero of a
// negative one.
func busy(cpu int) (sum time.Duration, err error) {
	if cpu < 0 {
		return 0, nil
	}
	stat, err := os.ReadFile("/proc/stat")
	for line := range strings.Lines(string(stat)) {
		fields := strings.Fields(line)
		if len(fields) < 9 || fields[0] != fmt.Sprint("cpu", cpu) {
			continue
		}
		for _, i := range []int{1, 2, 3, 6, 7, 8} { // all but idle, iowait and guests, which are in user
			n, err := strconv.Atoi(fields[i])
			if err != nil {
				return 0, err
			}
			sum += time.Duration(n) * tick
		}
	}
	return sum, err
}

// memory is what a process holds after it has let go of what it can, in bytes.
type memory struct {
	resident, proportional, heap int64
	goroutines                   int
}

// memory makes the process collect its garbage and looks.
func (p *process) memory() (m memory, err error) {
	line, err := p.command("collect")
	if err != nil {
		return m, err
	}
	if _, err := fmt.Sscan(line, &m.goroutines, &m.heap); err != nil {
		return m, err
	}
	rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p.cmd.Process.Pid))
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(rollup)) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			continue
		}
		kib, _ := strconv.ParseInt(fields[1], 10, 64)
		switch fields[0] {
		case "Rss:":
			m.resident = kib << 10
		case "Pss:":
			m.proportional = kib << 10
		}
	}
	if m.resident == 0 {
		return m, errors.New("no Rss in smaps_rollup")
	}
	return m, nil
}
