package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// hostileTags are names that git accepts for a tag. Each makes a file called "attacked" where its text reaches a shell,
// or reads as an option of the linker's.
var hostileTags = []string{
	"v1';touch${IFS}attacked;'",
	"v1$(touch${IFS}attacked)",
	"v1`touch${IFS}attacked`",
	`v1";touch${IFS}attacked;"`,
	"v1|touch${IFS}attacked",
	"v1&&touch${IFS}attacked",
	"v1;touch${IFS}attacked",
	"v1$$(touch$${IFS}attacked)",
	"-extld=attacked",
}

// goStub stands for the Go tools: it writes down what it was called with, and makes what `go build` would.
const goStub = `#!/bin/sh
for a; do printf '%s\n' "$a" >>"$GO_CALLS"; done
while [ $# -gt 0 ]; do
	case $1 in
	-o) printf '#!/bin/sh\n' >"$2"; chmod 0755 "$2" ;;
	esac
	shift
done
`

// attackHostileTag clones a repository with such a tag, and builds it in every way that uses the version.
func attackHostileTag(t *testing.T) {
	for _, tag := range hostileTags {
		t.Run(tag, func(t *testing.T) {
			clone, stub := cloneWithTag(t, tag)
			for _, command := range [][]string{
				{"make", "build"},
				{"make", "install", "DESTDIR=" + filepath.Join(clone, "root")},
				{"make", "unit"},
				{"scripts/unprivileged.sh", "make", "build"},
			} {
				cmd := exec.Command(command[0], command[1:]...)
				cmd.Dir = clone
				calls := filepath.Join(t.TempDir(), "calls")
				cmd.Env = append(slices.DeleteFunc(os.Environ(),
					func(v string) bool { return strings.HasPrefix(v, "VERSION=") }),
					"PATH="+stub+":"+os.Getenv("PATH"), "GO_CALLS="+calls,
					"HOME="+t.TempDir(), "XDG_RUNTIME_DIR="+t.TempDir())
				out, _ := cmd.CombinedOutput() // whether it builds is not the question
				attacked := false
				_ = filepath.WalkDir(clone, func(path string, _ os.DirEntry, _ error) error {
					attacked = attacked || strings.HasPrefix(filepath.Base(path), "attacked")
					return nil
				})
				if attacked {
					t.Fatalf("%q ran the tag's text:\n%s", command, out)
				}
				text, _ := os.ReadFile(calls)
				if strings.Contains(string(text), "attacked") {
					t.Errorf("%q gives the tag's text to go:\n%s", command, text)
				}
				if command[1] == "build" && !strings.Contains(string(text), "-X main.version=") {
					t.Errorf("%q does not set the version: %s\n%s", command, text, out)
				}
			}
		})
	}
}

// cloneWithTag makes a repository of what builds usernet, with tag on its only commit, and clones it. It returns the
// clone and a directory with a program go that does nothing.
func cloneWithTag(t *testing.T, tag string) (clone, stub string) {
	t.Helper()
	dir := t.TempDir()
	source, stub := filepath.Join(dir, "source"), filepath.Join(dir, "stub")
	clone = filepath.Join(dir, "clone")
	script := `set -e
mkdir -p "$1" "$2" && cp -r ../Makefile ../scripts "$1" && touch "$1/go.mod"
cd "$1" && git init -q && git add . && git -c user.name=x -c user.email=x@example.test commit -q -m x
git update-ref "refs/tags/$4" HEAD
git clone -q "$1" "$3"`
	cmd := exec.Command("sh", "-c", script, "sh", source, stub, clone, tag)
	cmd.Env = append(os.Environ(), "HOME="+dir, "GIT_CONFIG_NOSYSTEM=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(stub, "go"), []byte(goStub), 0o755); err != nil {
		t.Fatal(err)
	}
	return clone, stub
}
