package layers

import (
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var (
	way  = regexp.MustCompile(`(?s)^\*\*.*?\((\d+) files\): (.*)$`)
	file = regexp.MustCompile("`([a-z0-9_/]+\\.go)`")
	// folder is one in a row of the map.
	folder = regexp.MustCompile("`([a-z0-9_/-]+)`")
)

// TestWaysAreThroughFilesThatExist reads the lists of files in docs/architecture.md: each file is there, and they are
// as many as the page says.
func TestWaysAreThroughFilesThatExist(t *testing.T) {
	root := filepath.Join("..", "..")
	page, err := os.ReadFile(filepath.Join(root, "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "## Eight ways")
	section, _, _ = strings.Cut(section, "\n## ")
	ways := 0
	for _, item := range strings.Split(section, "\n- ")[1:] {
		m := way.FindStringSubmatch(item)
		if m == nil {
			t.Errorf("no list of files: %q", item)
			continue
		}
		ways++
		files := file.FindAllStringSubmatch(m[2], -1)
		if n, _ := strconv.Atoi(m[1]); n != len(files) {
			t.Errorf("%d files instead of %d: %q", len(files), n, item)
		}
		for _, f := range files {
			if _, err := os.Stat(filepath.Join(root, f[1])); err != nil {
				t.Errorf("%v, on the way %q", err, item)
			}
		}
	}
	if ways != 8 {
		t.Errorf("%d ways were found", ways)
	}
}

// TestMapHasEachPackage holds the table of folders in docs/architecture.md to the packages that there are.
func TestMapHasEachPackage(t *testing.T) {
	root := filepath.Join("..", "..")
	page, err := os.ReadFile(filepath.Join(root, "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	onMap := map[string]bool{}
	for _, line := range strings.Split(string(page), "\n") {
		cells := strings.Split(line, "|")
		if len(cells) < 3 || !strings.HasPrefix(line, "| `") {
			continue
		}
		for _, m := range folder.FindAllStringSubmatch(cells[1], -1) {
			onMap[m[1]] = true
			if info, err := os.Stat(filepath.Join(root, m[1])); err != nil || !info.IsDir() {
				t.Errorf("the map has %s, which is no folder", m[1])
			}
		}
	}
	eachFile(t, func(dir string, _ *ast.File, _ *token.FileSet) {
		if dir = filepath.ToSlash(dir); !onMap[dir] && !in(dir, "test/tools") { // which is another module
			onMap[dir] = true // said once
			t.Errorf("the map has no %s", dir)
		}
	})
}
