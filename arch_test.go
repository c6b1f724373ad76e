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
		"":                   {"internal/engine", "internal/udpio", "internal/timers"},
		"internal/engine":    {"internal/record", "internal/suite", "internal/wire", "golang.org/x/crypto"},
		"internal/record":    {"internal/suite", "internal/wire"},
		"internal/suite":     {"internal/wire", "golang.org/x/crypto"},
		"internal/wire":      {"golang.org/x/crypto"},
		"internal/udpio":     {"golang.org/x/sys"},
		"internal/timers":    {},
		"dtlsnet":            {"", "github.com/pion/transport/v2"},
		"console":            {"", "internal/printable"},
		"internal/printable": {},
		"dtlsservertest":     {"", "internal/printable", "github.com/pion/dtls/v2", "github.com/pion/logging", "github.com/pion/transport/v2"},
		"internal/sim":       {}, // all of it is in test files: nothing can import it
		"internal/testcert":  {},
		"internal/testpeer":  {"internal/record", "internal/suite", "internal/wire", "golang.org/x/crypto"},
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

// TestNoPionInAPI: no exported declaration shows anything of pion's, so that
// another can take its place.
func TestNoPionInAPI(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{".", "console", "dtlsnet", "dtlsservertest"} {
		names, _ := filepath.Glob(filepath.Join(dir, "*.go"))
		set := token.NewFileSet()
		var files []*ast.File
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(set, name, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, file)
		}
		if len(files) == 0 {
			t.Errorf("there is no package in %s", dir)
		}
		for _, found := range pionsInAPI(files) {
			t.Errorf("%v: an exported declaration shows %s.%s", set.Position(found.Pos()), found.X, found.Sel)
		}
	}
}

// TestPionsInAPI: pionsInAPI finds what importers can see, and nothing else.
func TestPionsInAPI(t *testing.T) {
	t.Parallel()
	const imports = `package p; import "github.com/pion/dtls/v2"; import a "github.com/pion/dtls/v2/pkg/protocol/alert"; import "net"; `
	for source, want := range map[string]int{
		"func F() (*dtls.Conn, net.Conn) { return nil, nil }":                 1,
		"func F(...func(map[string]dtls.Config) chan a.Alert) {}":             2,
		"func F() { var _ dtls.Conn }":                                        0,
		"func f() *dtls.Conn { return nil }":                                  0,
		"type T struct { *dtls.Conn }":                                        1,
		"type T struct { F, g dtls.Conn }":                                    1,
		"type T struct { f dtls.Conn; F int }":                                0,
		"type T interface { dtls.Conn; M(a.Alert) }":                          2,
		"type T interface { m(dtls.Conn) }":                                   0,
		"type T = dtls.Conn":                                                  1,
		"type T[P dtls.Conn] struct{}":                                        1,
		"type t dtls.Conn":                                                    0,
		"type T struct{}; func (*T) M(dtls.Conn) {}":                          1,
		"type T[P any] struct{}; func (*T[P]) M(dtls.Conn) {}":                1,
		"type T struct{}; func (*T) m(dtls.Conn) {}":                          0,
		"type t struct{}; func (t) M(dtls.Conn) {}":                           0,
		"type T struct { t }; type t struct{}; func (*t) M(dtls.Conn) {}":     1,
		"type T struct { *t }; type t struct { F dtls.Conn; g dtls.Conn }":    1,
		"type T struct { f t }; type t struct{}; func (t) M(dtls.Conn) {}":    0,
		"func F() *t { return nil }; type t struct{}; func (*t) M(dtls.C) {}": 1,
		"func F(t int) {}; type t dtls.Conn":                                  0,
		"var V dtls.Conn":                                                     1,
		"var V = dtls.ErrConnClosed":                                          1,
		"var V = f(dtls.ErrConnClosed)":                                       0,
		"var v = dtls.ErrConnClosed":                                          0,
	} {
		file, err := parser.ParseFile(token.NewFileSet(), "", imports+source, parser.SkipObjectResolution)
		if err != nil {
			t.Fatalf("%s: %v", source, err)
		}
		if found := pionsInAPI([]*ast.File{file}); len(found) != want {
			t.Errorf("%s: found %d, want %d", source, len(found), want)
		}
	}
}

// pionsInAPI returns what of pion's the exported declarations of a package show,
// also by the unexported types of the package that they name or embed.
func pionsInAPI(files []*ast.File) (found []*ast.SelectorExpr) {
	pions := make(map[string]bool) // the names of imports
	types := make(map[string]*ast.TypeSpec)
	methods := make(map[string][]*ast.FuncDecl) // the exported ones, by receiver
	var exported []ast.Node
	for _, file := range files {
		for _, spec := range file.Imports {
			path, isPion := strings.CutPrefix(strings.Trim(spec.Path.Value, `"`), "github.com/pion/")
			if !isPion {
				continue
			}
			name := regexp.MustCompile(`([^/]+)(/v\d+)?$`).FindStringSubmatch(path)[1]
			if spec.Name != nil {
				name = spec.Name.Name
			}
			pions[name] = true
		}
		for _, decl := range file.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				switch {
				case !d.Name.IsExported():
				case d.Recv != nil:
					name := receiver(d.Recv)
					methods[name] = append(methods[name], d)
				default:
					exported = append(exported, d.Type)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch s := spec.(type) {
					case *ast.TypeSpec:
						types[s.Name.Name] = s
						if s.Name.IsExported() {
							exported = append(exported, s.Name)
						}
					case *ast.ValueSpec:
						if slices.ContainsFunc(s.Names, (*ast.Ident).IsExported) {
							exported = append(exported, s)
						}
					}
				}
			}
		}
	}

	var show func(ast.Node)
	visible := func(fields *ast.FieldList) {
		for _, f := range fields.List {
			if len(f.Names) == 0 || slices.ContainsFunc(f.Names, (*ast.Ident).IsExported) {
				show(f.Type)
			}
		}
	}
	show = func(node ast.Node) {
		ast.Inspect(node, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.StructType:
				visible(n.Fields)
			case *ast.InterfaceType:
				visible(n.Methods)
			case *ast.Field: // a parameter: its name is nobody's
				show(n.Type)
			case *ast.CallExpr: // of a value
				show(n.Fun)
			case *ast.FuncLit:
				show(n.Type)
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && pions[x.Name] {
					found = append(found, n)
				}
			case *ast.Ident:
				spec := types[n.Name]
				delete(types, n.Name) // it is shown once
				if spec == nil {
					break
				}
				if spec.TypeParams != nil {
					show(spec.TypeParams)
				}
				show(spec.Type)
				for _, method := range methods[n.Name] {
					show(method.Type)
				}
			default:
				return true
			}
			return false
		})
	}
	for _, node := range exported {
		show(node)
	}
	return found
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

func receiverExported(recv *ast.FieldList) bool { return ast.IsExported(receiver(recv)) }

// receiver returns the name of a method's type.
func receiver(recv *ast.FieldList) string {
	typ := recv.List[0].Type
	for {
		switch x := typ.(type) {
		case *ast.StarExpr:
			typ = x.X
		case *ast.IndexExpr: // its type parameter
			typ = x.X
		case *ast.IndexListExpr:
			typ = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
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
