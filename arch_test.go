package dtlsserver

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/dtlsserver/dtlsserver"

// goList runs go list -json.
func goList(t *testing.T, args ...string) []listedPackage {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list", "-json"}, args...)...).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listedPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listedPackage
		if err := d.Decode(&p); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

type listedPackage struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// TestArrows: who may import whom. Arrows point down only; see
// docs/ARCHITECTURE.md.
func TestArrows(t *testing.T) {
	t.Parallel()
	// Imports within the module, and modules from elsewhere, by the path of
	// the package in the module.
	allowed := map[string][]string{
		"":                  {"internal/engine", "internal/udpio", "internal/timers"},
		"internal/engine":   {"internal/record", "internal/suite", "internal/wire", "golang.org/x/crypto"},
		"internal/record":   {"internal/suite", "internal/wire"},
		"internal/suite":    {"internal/wire", "golang.org/x/crypto"},
		"internal/wire":     {"golang.org/x/crypto"},
		"internal/udpio":    {"golang.org/x/sys"},
		"internal/timers":   {},
		"dtlsnet":           {"", "github.com/pion/transport/v2"},
		"console":           {""},
		"dtlsservertest":    {"", "console", "github.com/pion/dtls/v2", "github.com/pion/logging", "github.com/pion/transport/v2"},
		"internal/sim":      {}, // all of it is in test files: nothing can import it
		"internal/testcert": {},
		"internal/testpeer": {"internal/record", "internal/suite", "internal/wire", "golang.org/x/crypto"},
	}
	rest := []string{"", "console", "examples", "github.com/pion/dtls/v2", "golang.org/x/net/netutil"} // of the examples
	for _, p := range goList(t, "./...") {
		room := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		may, known := allowed[room]
		switch {
		case known:
		case strings.HasPrefix(room, "examples/"):
			may = rest
		default:
			t.Errorf("%s has no row in this test", room)
		}
		for _, path := range p.Imports {
			if !strings.Contains(strings.Split(path, "/")[0], ".") {
				continue // standard library
			}
			inside, ok := strings.CutPrefix(path, module)
			if ok {
				path = strings.TrimPrefix(inside, "/")
			}
			if !slices.ContainsFunc(may, func(m string) bool { return path == m || m != "" && strings.HasPrefix(path, m+"/") }) {
				t.Errorf("%q must not import %q", room, path)
			}
		}
	}
}

// TestEngineIsSansIO: what would tie the engine to a socket, a goroutine or a
// clock is not imported.
func TestEngineIsSansIO(t *testing.T) {
	t.Parallel()
	for _, p := range goList(t, "./internal/engine", "./internal/record", "./internal/suite", "./internal/wire", "./internal/timers") {
		for _, bad := range []string{"net", "os", "sync", "sync/atomic", "syscall", "context", "log", "log/slog"} {
			if slices.Contains(p.Imports, bad) {
				t.Errorf("%s imports %s", p.ImportPath, bad)
			}
		}
	}
	now := regexp.MustCompile(`\btime\.(Now|Since|Until|After|AfterFunc|NewTimer|Sleep)\b|\bgo func`)
	files, _ := filepath.Glob("internal/*/*.go")
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") || strings.Contains(file, "udpio") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if found := now.Find(text); found != nil {
			t.Errorf("%s has %s", file, found)
		}
	}
}

// TestImporterGetsNoPion: an importer of the root package builds nothing of
// pion/dtls, nor anything that is for tests.
func TestImporterGetsNoPion(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	if !slices.Contains(deps, module+"/internal/engine") {
		t.Fatalf("go list -deps says %q", deps)
	}
	for _, dep := range deps {
		if strings.HasPrefix(dep, "github.com/pion/dtls") || strings.HasSuffix(dep, "testpeer") || strings.HasSuffix(dep, "testcert") || dep == "testing" {
			t.Errorf("the root package depends on %s", dep)
		}
	}
}

// TestExportedNamesAreDocumented: each exported name, method and field group
// of the packages that users see has a comment that begins with its name.
func TestExportedNamesAreDocumented(t *testing.T) {
	t.Parallel()
	root, _ := filepath.Glob("*.go")
	packages, _ := filepath.Glob("dtls*/*.go")
	console, _ := filepath.Glob("console/*.go")
	set := token.NewFileSet()
	for _, name := range slices.Concat(root, packages, console) {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		want := func(id *ast.Ident, doc *ast.CommentGroup) {
			if !id.IsExported() {
				return
			}
			if doc == nil {
				t.Errorf("%v: %s has no comment", set.Position(id.Pos()), id.Name)
			} else if text := doc.Text(); !strings.Contains(text, id.Name) {
				t.Errorf("%v: the comment of %s does not name it", set.Position(id.Pos()), id.Name)
			}
		}
		for _, decl := range file.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Recv != nil && !receiverExported(d.Recv) {
					continue
				}
				if d.Recv != nil && (d.Name.Name == "Error" || d.Name.Name == "Unwrap") && d.Type.Params.NumFields() == 0 {
					continue // what they do is known
				}
				want(d.Name, d.Doc)
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch s := spec.(type) {
					case *ast.TypeSpec:
						doc := s.Doc
						if doc == nil {
							doc = d.Doc
						}
						want(s.Name, doc)
					case *ast.ValueSpec:
						for _, id := range s.Names {
							if id.IsExported() && s.Doc == nil && d.Doc == nil && s.Comment == nil {
								t.Errorf("%v: %s has no comment", set.Position(id.Pos()), id.Name)
							}
						}
					}
				}
			}
		}
	}
}

func receiverExported(recv *ast.FieldList) bool {
	typ := recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	id, ok := typ.(*ast.Ident)
	return ok && id.IsExported()
}

// TestRFCRows: docs/RFC.md names only tests that exist.
func TestRFCRows(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("docs/RFC.md")
	if err != nil {
		t.Fatal(err)
	}
	exist := make(map[string]bool)
	err = filepath.WalkDir(".", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark|Example)\w*)\(`).FindAllSubmatch(source, -1) {
			exist[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`((?:Test|Fuzz|Benchmark|Example)\\w*)`").FindAllSubmatch(text, -1)
	if len(named) < 30 {
		t.Errorf("docs/RFC.md names only %d tests", len(named))
	}
	for _, m := range named {
		if !exist[string(m[1])] {
			t.Errorf("docs/RFC.md names %s, which does not exist", m[1])
		}
	}
}
