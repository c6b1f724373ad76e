package dtlsserver_test

// The Go code in the documents that a newcomer reads builds, and their links
// lead somewhere.

import (
	"encoding/json"
	"fmt"
	"go/format"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// goDocs are the documents whose blocks of Go are built.
var goDocs = []string{"README.md", "docs/COMING-FROM-QT.md", "docs/COMING-FROM-PION.md"}

// A block that begins with a package clause is a whole program, one that begins
// with func or type a part of a file, and any other a part of a function that
// returns an error. What such a part may use without declaring it:
const (
	givenParams = `
	ctx context.Context,
	handler dtlsserver.EventHandler,
	keys map[string][]byte,
	secret []byte,
	server *dtlsserver.Server,
	session *dtlsserver.Session,
	certificate tls.Certificate,
	clientCAs *x509.CertPool,
`
	givenDecls = `
type handler struct{ dtlsserver.NopHandler }

type account struct{ name string }

func loadKey(ctx context.Context, identity string) ([]byte, error) { return nil, ctx.Err() }
`
)

// givenImports are imported when they are used.
var givenImports = []string{
	"bytes", "context", "crypto/rand", "crypto/tls", "crypto/x509", "errors", "fmt", "io", "log", "log/slog", "net", "net/netip", "os", "sync", "time",
	"github.com/pion/dtls/v2",
	"github.com/dtlsserver/dtlsserver", "github.com/dtlsserver/dtlsserver/dtlsnet",
}

// quotedFile is a block that quotes a file, which is built where it stands.
var quotedFile = regexp.MustCompile(`(?s)^// (examples/\S+\.go)\n\n(.*)$`)

var goBlock = regexp.MustCompile("(?ms)^```go\n(.*?)^```$")

// wholeFile makes a file of a block. None is a program: there is nothing to
// link.
func wholeFile(block string) string {
	if program, ok := strings.CutPrefix(block, "package main\n"); ok {
		return "package block\n" + program
	}
	if strings.HasPrefix(block, "func ") || strings.HasPrefix(block, "type ") {
		block = givenDecls + block
	} else {
		block = fmt.Sprintf("func _(%s) error {\n%s\nreturn nil\n}\n", givenParams, block) + givenDecls
	}
	var imports strings.Builder
	for _, path := range givenImports {
		name := path[strings.LastIndex(path, "/")+1:]
		if name == "v2" {
			name = "dtls"
		}
		if regexp.MustCompile(`\b` + name + `\.[A-Z]`).MatchString(block) {
			fmt.Fprintf(&imports, "import %q\n", path)
		}
	}
	return "package block\n" + imports.String() + block
}

// TestDocsCode: the blocks of Go in the documents build and are formatted.
func TestDocsCode(t *testing.T) {
	t.Parallel()
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	// Each block is a package of this module that exists for the go command
	// only.
	overlay := struct{ Replace map[string]string }{make(map[string]string)}
	packages := []string{"build", "-overlay", filepath.Join(dir, "overlay.json")}
	for _, doc := range goDocs {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		blocks := goBlock.FindAllSubmatchIndex(text, -1)
		if len(blocks) == 0 {
			t.Errorf("%s has no Go", doc)
		}
		for _, at := range blocks {
			block := string(text[at[2]:at[3]])
			line := 1 + strings.Count(string(text[:at[2]]), "\n")
			if formatted, err := format.Source([]byte(block)); err != nil {
				t.Errorf("%s:%d: %v", doc, line, err)
			} else if string(formatted) != block {
				t.Errorf("%s:%d: not formatted; gofmt makes of it\n%s", doc, line, formatted)
			}
			if quoted := quotedFile.FindStringSubmatch(block); quoted != nil {
				if file, err := os.ReadFile(quoted[1]); err != nil || !strings.Contains(string(file), quoted[2]) {
					t.Errorf("%s:%d: not what stands in %s: %v", doc, line, quoted[1], err)
				}
				continue
			}
			name := fmt.Sprintf("%s_%d", strings.NewReplacer("/", "_", ".", "_").Replace(doc), line)
			file := filepath.Join(dir, name+".go")
			if err := os.WriteFile(file, []byte(wholeFile(block)), 0o600); err != nil {
				t.Fatal(err)
			}
			overlay.Replace[filepath.Join(root, "zz_docs", name, "block.go")] = file
			packages = append(packages, "./zz_docs/"+name)
		}
	}
	list, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), list, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", packages...).CombinedOutput(); err != nil {
		t.Errorf("go build: %v\n%s", err, out)
	}
}

// TestDocsLinks: the relative links in all documents lead to files that exist,
// and those whose text is the name of a test to the file that has it.
func TestDocsLinks(t *testing.T) {
	t.Parallel()
	docs, _ := filepath.Glob("docs/*.md")
	top, _ := filepath.Glob("*.md")
	docs = append(docs, top...)
	if !slices.Contains(docs, "README.md") {
		t.Fatalf("the documents are %q", docs)
	}
	link := regexp.MustCompile(`\[([^\]]*)\]\(([^)#]+)[^)]*\)`)
	for _, doc := range docs {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		tests := 0
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			name, target := m[1], m[2]
			if strings.Contains(target, "://") {
				continue
			}
			target = filepath.Join(filepath.Dir(doc), target)
			if !strings.HasPrefix(name, "Test") && !strings.HasPrefix(name, "Example") {
				if _, err := os.Stat(target); err != nil {
					t.Errorf("%s: %v", doc, err)
				}
				continue
			}
			tests++
			source, err := os.ReadFile(target)
			if err != nil {
				t.Errorf("%s: %v", doc, err)
			} else if !strings.Contains(string(source), "\nfunc "+name+"(") {
				t.Errorf("%s: %s has no %s", doc, target, name)
			}
		}
		if doc == "README.md" && tests == 0 {
			t.Error("README.md links no test")
		}
	}
}

// TestDependencies: docs/ARCHITECTURE.md gives a reason for each package that
// importers build, and for no other.
func TestDependencies(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", "-f",
		"{{if not .Standard}}{{with .Module}}{{if not .Main}}{{.Path}} {{end}}{{end}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	var built []string
	for line := range strings.Lines(string(out)) {
		if module, path, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			built = append(built, module+" "+strings.TrimPrefix(path, module+"/"))
		}
	}
	text, err := os.ReadFile("docs/ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "\n| module | packages | why |\n|---|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	var listed []string
	module := ""
	for row := range strings.Lines(table) {
		cells := strings.Split(row, "|")
		if name := strings.TrimSpace(cells[1]); name != "" {
			module = name
		}
		for path := range strings.SplitSeq(cells[2], ",") {
			listed = append(listed, module+" "+strings.TrimSpace(path))
		}
	}
	slices.Sort(built)
	slices.Sort(listed)
	if !slices.Equal(built, listed) || len(built) == 0 {
		t.Errorf("docs/ARCHITECTURE.md lists\n%s\nbuilt are\n%s", strings.Join(listed, "\n"), strings.Join(built, "\n"))
	}
}
