package sim

import (
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"hash/fnv"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var (
	flagMutants = flag.String("sim.mutants", "", "run mutants: all, a number of the first, a part of a name, or tenth:WORD for a tenth that WORD chooses")
	flagBudget  = flag.Uint64("sim.budget", 4000, "within how many seeds a mutant must be found")
)

// top is the module's top, from here.
const top = "../.."

// apply returns the mutated text of the mutant's file.
func (m *mutant) apply() ([]byte, error) {
	path := filepath.Join(top, m.file)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, text, 0)
	if err != nil {
		return nil, err
	}
	for _, decl := range file.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if !ok || f.Name.Name != m.function {
			continue
		}
		from, to := set.Position(f.Pos()).Offset, set.Position(f.End()).Offset
		body := string(text[from:to])
		if strings.Count(body, m.old) != 1 {
			continue // another of the same name
		}
		mutated := string(text[:from]) + strings.Replace(body, m.old, m.new, 1) + string(text[to:])
		return []byte(mutated), nil
	}
	return nil, fmt.Errorf("mutant %q: %s has no function %s with %q, once", m.name, m.file, m.function, m.old)
}

// overlay writes an overlay for go build that has the mutants in it.
func overlay(t *testing.T, list ...*mutant) string {
	t.Helper()
	dir := t.TempDir()
	replace := make(map[string]string)
	for i, m := range list {
		text, err := m.apply()
		if err != nil {
			t.Fatal(err)
		}
		path, err := filepath.Abs(filepath.Join(top, m.file))
		if err != nil {
			t.Fatal(err)
		}
		mutated := filepath.Join(dir, fmt.Sprintf("%d.go", i))
		if err := os.WriteFile(mutated, text, 0o600); err != nil {
			t.Fatal(err)
		}
		replace[path] = mutated
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestMutantsApply: the text that each mutant replaces is there, and, if the
// environment variable CI is set, what comes of it compiles. Mutants of different
// files are built together.
func TestMutantsApply(t *testing.T) {
	if *flagStep != 0 {
		t.Skip("in a process of TestSeeds")
	}
	left := make([]*mutant, len(mutants))
	for i := range mutants {
		if _, err := mutants[i].apply(); err != nil {
			t.Error(err)
		}
		left[i] = &mutants[i]
	}
	if t.Failed() || os.Getenv("CI") == "" || raceEnabled {
		return // a compiler takes a while
	}
	for len(left) > 0 {
		var together, rest []*mutant
		files := make(map[string]bool)
		for _, m := range left {
			if files[m.file] {
				rest = append(rest, m)
				continue
			}
			files[m.file] = true
			together = append(together, m)
		}
		out, err := exec.Command("go", "build", "-overlay", overlay(t, together...), "github.com/dtlsserver/dtlsserver").CombinedOutput()
		if err != nil {
			t.Fatalf("%s", out)
		}
		left = rest
	}
}

// chosen are the mutants that -sim.mutants asks for.
func chosen() (list []*mutant) {
	word, tenth := strings.CutPrefix(*flagMutants, "tenth:")
	for i := range mutants {
		m := &mutants[i]
		switch {
		case tenth:
			h := fnv.New32a()
			h.Write([]byte(word))
			if (uint32(i)+h.Sum32())%10 != 0 {
				continue
			}
		case *flagMutants != "all" && !strings.Contains(m.name, *flagMutants):
			continue
		}
		list = append(list, m)
	}
	return list
}

// TestMutants: each mutant is found, within -sim.budget seeds, by what no known
// fault explains.
func TestMutants(t *testing.T) {
	if *flagMutants == "" {
		t.Skip("no -sim.mutants")
	}
	for _, m := range chosen() {
		start := time.Now()
		binary := filepath.Join(t.TempDir(), "mutant")
		out, err := exec.Command("go", "test", "-c", "-o", binary, "-overlay", overlay(t, m), ".").CombinedOutput()
		if err != nil {
			t.Errorf("mutant %q: %s", m.name, out)
			continue
		}
		unknown := func(r *report) bool {
			for _, f := range r.Found {
				if f.Known == "" {
					return true
				}
			}
			return false
		}
		b := batch{binary: binary, from: *flagFrom, seeds: *flagBudget, enough: unknown}
		all, _ := b.run()
		found := fmt.Sprintf("NOT FOUND in %d seeds", len(all))
		for i := range all {
			if unknown(&all[i]) {
				for _, f := range all[i].Found {
					if f.Known == "" {
						found = fmt.Sprintf("%s, seed %d of %d", f.Rule, all[i].Seed, *flagBudget)
						break
					}
				}
				break
			}
		}
		if b.crashed != "" && strings.HasPrefix(found, "NOT") {
			found = "it panics, " + b.crashed
		}
		if strings.HasPrefix(found, "NOT") {
			t.Errorf("mutant %q is not found", m.name)
		}
		t.Logf("%-45s | %-55s | %v", m.name, found, time.Since(start).Round(100*time.Millisecond))
	}
}
