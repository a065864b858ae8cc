package logevents

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// texts are the beginnings of what the daemon logs above debugging, with one file that does. Programs in the places of
// others log for those who call them.
func texts(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if rel != "." && (strings.HasPrefix(entry.Name(), ".") ||
				slices.Contains([]string{"runtimes", "test", "tools"}, rel)) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if text, ok := logged(n); ok {
				found[text] = path
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// logged is the text of a call of a logger's method, or its first part.
func logged(n ast.Node) (string, bool) {
	call, ok := n.(*ast.CallExpr)
	if !ok || len(call.Args) == 0 {
		return "", false
	}
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !slices.Contains([]string{"Info", "Warn", "Error"}, method.Sel.Name) || !isLogger(method.X) {
		return "", false
	}
	arg := call.Args[0]
	for {
		sum, ok := arg.(*ast.BinaryExpr)
		if !ok {
			break
		}
		arg = sum.X
	}
	lit, ok := arg.(*ast.BasicLit)
	if !ok {
		return "", false
	}
	text, err := strconv.Unquote(lit.Value)
	return text, err == nil
}

func isLogger(e ast.Expr) bool {
	name := ""
	switch e := e.(type) {
	case *ast.Ident:
		name = e.Name
	case *ast.SelectorExpr:
		name = e.Sel.Name
	}
	return strings.Contains(strings.ToLower(name), "log")
}

func TestEachTextHasAName(t *testing.T) {
	found := texts(t)
	if len(found) < 50 {
		t.Fatalf("only %d texts were found", len(found))
	}
	for text, file := range found {
		if Name(text) == "" {
			t.Errorf("%s logs %q, which has no name: add it to names.go and docs/observe.md", file, text)
		}
	}
	for text, name := range names() {
		if found[text] == "" {
			t.Errorf("nobody logs %q (%s): where it was reworded, change the text and keep the name", text, name)
		}
	}
}

// TestNamesAreListed holds the list in the documentation against the names.
func TestNamesAreListed(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "observe.md"))
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{}
	line := regexp.MustCompile("(?m)^\\| `([a-z0-9-]+)` \\| (.*) \\|$")
	for _, m := range line.FindAllStringSubmatch(string(page), -1) {
		listed[m[1]] = m[2]
	}
	seen := map[string]bool{}
	for text, name := range names() {
		if seen[name] {
			t.Errorf("two texts are called %s", name)
		}
		seen[name] = true
		if want := strings.TrimRight(text, " :"); listed[name] != want {
			t.Errorf("docs/observe.md says of %s %q, not %q", name, listed[name], want)
		}
	}
}

func TestHandlerAddsNames(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(New(slog.NewJSONHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug}))).With("network", "n")
	log.Info("egress refused", "container", "c")
	log.Warn("containers can ping their gateway and each other but nothing beyond: give them sockets")
	log.Debug("egress refused")
	lines := strings.Split(b.String(), "\n")
	for i, want := range []string{`"event":"egress-refused"`, `"event":"ping-unavailable"`, ""} {
		if !strings.Contains(lines[i], want) || want == "" && strings.Contains(lines[i], Key) {
			t.Errorf("%s: want %s", lines[i], want)
		}
	}
}
