package layers

import (
	"go/ast"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/usernet/usernet/"

// everything as an entry of layers may import all of the module.
const everything = "..."

// layers are the folders, from the top to the bottom, with the folders that their packages may import besides internal
// and the folders below themselves. The first that a package is in counts. Folders that are not there yet are listed as
// well.
var layers = []struct {
	folder string
	may    []string
}{
	{"cmd/usernet-sandbox", []string{"sandbox", "bypass"}}, // the small program inside sandboxes
	{"cmd", []string{everything}},
	{"test", []string{everything}},
	// A program in the place of another puts an engine, interfaces and a sandbox together itself, without the daemon.
	{"runtimes", []string{"engine", "api", "network", "sandbox", "bypass", "autoconf", "forwarder", "dns", "policy",
		"confine", "stack", "switch"}},
	{"observe/capture", nil}, // below the daemon, which records, and the commands, which write files
	{"observe", []string{"api", "network", "switch"}},
	{"daemon", []string{"observe/capture",
		"api", "overlay", "engine", "autoconf", "names", "network", "sandbox", "bypass", "handover",
		"forwarder", "stack", "dns", "policy", "confine", "switch"}},
	{"api", []string{"network", "handover"}},
	{"overlay", []string{"engine", "network", "switch"}},
	{"engine", []string{"handover", "autoconf", "switch", "stack", "forwarder", "dns", "policy", "bypass"}},
	{"autoconf", []string{"switch"}},
	{"network/boltstore", []string{"network"}},
	{"network", nil},
	{"names", []string{"network", "dns"}},
	{"bypass/fwmark", []string{"switch/tap"}},
	{"bypass", []string{"sandbox", "switch/tap"}},
	{"sandbox/entry", nil},                         // what runs inside a sandbox before the rest of the program
	{"sandbox", []string{"switch/tap", "confine"}}, // its helper confines itself, as the daemon does
	{"handover", nil},
	{"forwarder", []string{"handover"}},
	{"stack", []string{"switch"}},
	{"dns", nil},
	{"policy", nil},
	{"docs", nil},
	{"confine", nil},
	{"switch", nil},
	{"tools", nil},
	{"internal", nil},
}

// exceptions are imports that go the other way, with what has to be done before they can go. The list only becomes
// shorter.
var exceptions = []struct{ from, to, until string }{
	{"sandbox", "bypass/fwmark", "the marks of packets that go past the TAP are known to those who send some"},
}

func in(pkg, folder string) bool { return pkg == folder || strings.HasPrefix(pkg, folder+"/") }

// allowed says whether the layers let a package import another.
func allowed(from, to string) (ok, known bool) {
	for _, l := range layers {
		if !in(from, l.folder) {
			continue
		}
		return in(to, l.folder) || in(to, "internal") ||
			slices.ContainsFunc(l.may, func(m string) bool { return m == everything || in(to, m) }), true
	}
	return false, false
}

// imports are what the packages of this module import of it, with one file that does, tests left out.
func imports(t *testing.T) map[[2]string]string {
	t.Helper()
	found := map[[2]string]string{}
	eachFile(t, func(from string, file *ast.File, set *token.FileSet) {
		for _, spec := range file.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if to, ok := strings.CutPrefix(name, module); ok {
				found[[2]string{filepath.ToSlash(from), to}] = set.Position(spec.Pos()).Filename
			}
		}
	})
	return found
}

func TestImportsRunDownward(t *testing.T) {
	found := imports(t)
	if len(found) < 20 {
		t.Fatalf("only %d imports were found: this test reads the wrong tree", len(found))
	}
	for pair, file := range found {
		from, to := pair[0], pair[1]
		ok, known := allowed(from, to)
		excepted := slices.ContainsFunc(exceptions,
			func(e struct{ from, to, until string }) bool { return in(from, e.from) && in(to, e.to) })
		switch {
		case !known:
			t.Errorf("%s is in no layer: add its folder to the table", from)
		case !ok && !excepted:
			t.Errorf("%s imports %s (%s), which its layer does not let it", from, to, file)
		}
	}
	for _, e := range exceptions {
		needed := false
		for pair := range found {
			needed = needed || in(pair[0], e.from) && in(pair[1], e.to) && !in(pair[1], pair[0])
		}
		if !needed {
			t.Logf("%s imports %s no more: remove the exception", e.from, e.to)
		}
	}
}

// TestLayersAreHeld is the rule itself: what it lets pass, and what not.
func TestLayersAreHeld(t *testing.T) {
	for _, test := range []struct {
		from, to string
		want     bool
	}{
		{"cmd/usernet", "daemon", true},
		{"daemon", "api", true},
		{"api", "daemon", false},
		{"api", "network", true},
		{"engine", "daemon", false},
		{"engine", "network/boltstore", false},
		{"network/boltstore", "network", true},
		{"switch/tap", "switch", true},
		{"switch", "switch/tap", true}, // a folder's own packages
		{"stack", "switch", true},
		{"switch", "stack", false},
		{"dns", "internal/faults", true},
		{"internal/faults", "dns", false},
		{"policy", "forwarder", false},
		{"switchboard", "switch", false}, // a name that only begins alike
	} {
		if ok, _ := allowed(test.from, test.to); ok != test.want {
			t.Errorf("%s may import %s: %v, want %v", test.from, test.to, ok, test.want)
		}
	}
}
