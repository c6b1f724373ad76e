//go:build linux

package main

// Server processes of other states of this repository: a small program made of
// this one's serve.go and ours.go, laid over the sources that it is built with.

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed serve.go ours.go
var serveSources embed.FS

// serveMain is the rest of the program. %s is what counts system calls.
const serveMain = `//go:build linux

package main

%s
var goServers = map[string]func(credentials) (service, error){"ours": serveOurs}

func main() { serveIfAsked() }
`

// What counts the system calls of a program: all that it makes through package
// syscall, as those of sockets, but not those that the runtime makes by itself.
const (
	countingCall = "r1, r2, errno = linux.Syscall6(trap, a1, a2, a3, a4, a5, a6)"
	counting     = `package syscall

import "sync/atomic"

var benchCalls atomic.Uint64

// BenchCalls is how many system calls there were.
func BenchCalls() uint64 { return benchCalls.Load() }
`
	countingMain = `import "syscall"

func init() { systemCalls = syscall.BenchCalls }
`
)

// built is a server program.
type built struct {
	path string
	// own: it is the state's own bench, since the program of today does not
	// compile with it.
	own     error
	counted bool // system calls
}

// buildServer builds the server of the repository in root, as dir/name.
func buildServer(ctx context.Context, root, dir, name string) (built, error) {
	b := built{path: filepath.Join(dir, name)}
	overlay, counted, err := overlay(ctx, root, filepath.Join(dir, name+".overlay"))
	if err != nil {
		return b, err
	}
	if b.own = goBuild(ctx, root, b.path, "-overlay", overlay, "./"+serverDir); b.own == nil {
		b.counted = counted
		return b, nil
	}
	if err := goBuild(ctx, filepath.Join(root, "bench"), b.path, "."); err != nil {
		return b, fmt.Errorf("neither this bench's server nor its own can be built: %w", errors.Join(b.own, err))
	}
	return b, nil
}

// serverDir is where the program is laid over a repository.
const serverDir = "internal/benchserver"

func goBuild(ctx context.Context, dir, out string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-trimpath", "-buildvcs=false", "-o", out}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build in %s: %w\n%s", filepath.Base(dir), err, text)
	}
	return nil
}

// overlay writes the files of the program to dir and returns the file that lays
// them over the repository in root, and a counter over package syscall, if that
// is as it is known.
func overlay(ctx context.Context, root, dir string) (file string, counted bool, err error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return "", false, err
	}
	replace := make(map[string]string)
	add := func(over, name string, content []byte) {
		replace[over] = filepath.Join(dir, name)
		if err == nil {
			err = os.WriteFile(replace[over], content, 0o600)
		}
	}
	for _, name := range []string{"serve.go", "ours.go"} {
		source, err := serveSources.ReadFile(name)
		if err != nil {
			return "", false, err
		}
		add(filepath.Join(root, serverDir, name), name, source)
	}
	goroot, goErr := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if goErr != nil {
		return "", false, fmt.Errorf("go env: %w", goErr)
	}
	library := filepath.Join(strings.TrimSpace(string(goroot)), "src", "syscall")
	main := fmt.Sprintf(serveMain, "")
	calls, readErr := os.ReadFile(filepath.Join(library, "syscall_linux.go"))
	if counted = readErr == nil && bytes.Count(calls, []byte(countingCall)) == 1; counted {
		calls = bytes.Replace(calls, []byte(countingCall), []byte("benchCalls.Add(1)\n\t"+countingCall), 1)
		add(filepath.Join(library, "syscall_linux.go"), "syscall_linux.go", calls)
		add(filepath.Join(library, "benchcalls.go"), "benchcalls.go", []byte(counting))
		main = fmt.Sprintf(serveMain, countingMain)
	}
	add(filepath.Join(root, serverDir, "main.go"), "main.go", []byte(main))
	text, jsonErr := json.Marshal(map[string]any{"Replace": replace})
	file = filepath.Join(dir, "overlay.json")
	return file, counted, errors.Join(err, jsonErr, os.WriteFile(file, text, 0o600))
}

// git runs git in dir and returns what it prints, without the last line's end.
func git(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w\n%s", args[0], err, &stderr)
	}
	return strings.TrimSuffix(string(out), "\n"), nil
}

// checkout writes the files of a commit to dir, and leaves no trace in the
// repository.
func checkout(ctx context.Context, root, commit, dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	archive := filepath.Join(filepath.Dir(dir), filepath.Base(dir)+".tar")
	if _, err := git(ctx, root, "archive", "--format=tar", "--output="+archive, commit); err != nil {
		return err
	}
	if text, err := exec.CommandContext(ctx, "tar", "-x", "-f", archive, "-C", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("tar: %w\n%s", err, text)
	}
	return os.Remove(archive)
}
