package layers

import (
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
