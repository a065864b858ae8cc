package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// makeTree makes files in a new directory: "NAME/" is a directory, "NAME -> TARGET" a link, "NAME*" a program.
func makeTree(t *testing.T, entries ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, e := range entries {
		var err error
		name, target, link := strings.Cut(e, " -> ")
		path := filepath.Join(dir, strings.TrimSuffix(name, "*"))
		switch {
		case link:
			err = os.Symlink(strings.ReplaceAll(target, "DIR", dir), path)
		case strings.HasSuffix(name, "/"):
			err = os.Mkdir(path, 0o755)
		case strings.HasSuffix(name, "*"):
			err = os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755)
		default:
			err = os.WriteFile(path, []byte("text"), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestCommandsAreLookedForWhereTheirPathSays(t *testing.T) {
	t.Setenv("PATH", os.Getenv("PATH")) // lookPath changes it; it is as before after the test
	dir := makeTree(t, "a/", "b/", "a/tool*", "b/tool*", "b/text")
	for _, c := range []struct {
		name, command string
		env           []string
		want          string // below dir
		code          int
	}{
		{"the first of a path", "tool", []string{"PATH=" + dir + "/a:" + dir + "/b"}, "/a/tool", 0},
		{"the last PATH", "tool", []string{"PATH=" + dir + "/a", "X=1", "PATH=" + dir + "/b"}, "/b/tool", 0},
		{"one with a slash", dir + "/a/tool", []string{"PATH=/none"}, "/a/tool", 0},
		{"not in the path", "tool", []string{"PATH=/none"}, "", 127},
		{"an empty path", "sh", []string{"PATH="}, "", 127},
		{"not executable", dir + "/b/text", nil, "", 126},
		{"a directory", dir + "/a", nil, "", 126},
		{"a directory in the path", "a", []string{"PATH=" + dir}, "", 127},
		{"below a file", dir + "/b/text/tool", nil, "", 127},
		{"not there", dir + "/c", nil, "", 127},
	} {
		got, err := lookPath(c.command, c.env)
		var e *ExitError
		switch {
		case c.code == 0 && (err != nil || got != dir+c.want):
			t.Errorf("%s: %s, %v", c.name, got, err)
		case c.code != 0 && (!errors.As(err, &e) || e.Code != c.code || !strings.Contains(e.Msg, c.command)):
			t.Errorf("%s: %s, %v; want status %d", c.name, got, err, c.code)
		}
	}
	if got, err := lookPath("sh", []string{"XPATH=/none"}); err != nil || filepath.Base(got) != "sh" {
		t.Errorf("without a PATH: %s, %v", got, err)
	}
}

func TestDirectoriesToMountOnAreNoLinks(t *testing.T) {
	for _, c := range []struct {
		name, path string
		ok         bool
	}{
		{"a directory", "dir", true},
		{"nothing", "new", true},
		{"nothing, twice", "new", true},
		{"a file", "file", false},
		{"a link to a directory", "link", false},
		{"a link to nothing", "dangling", false},
		{"below nothing", "none/new", false},
		{"below a file", "file/new", false},
	} {
		dir := makeTree(t, "dir/", "file", "link -> dir", "dangling -> none")
		err := directory(filepath.Join(dir, c.path))
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
		if info, e := os.Lstat(filepath.Join(dir, c.path)); c.ok && (e != nil || !info.IsDir()) {
			t.Errorf("%s: %v, %v", c.name, info, e)
		}
		if _, err := os.Lstat(filepath.Join(dir, "none")); err == nil {
			t.Errorf("%s: what a link leads to was made", c.name)
		}
	}
}

func TestMountPointsAreWhatLinksLeadTo(t *testing.T) {
	for _, c := range []struct{ path, want, text string }{
		{"file", "file", "text"},
		{"link", "file", "text"},
		{"absolute", "file", "text"},
		{"far", "file", "text"},
		{"dir/up", "file", "text"},
		{"new", "new", ""},
		{"a/b/new", "a/b/new", ""},
		{"dangling", "run/resolv.conf", ""},
	} {
		dir := makeTree(t, "dir/", "file", "link -> file", "absolute -> DIR/file", "far -> link",
			"dir/up -> ../absolute",
			"dangling -> run/resolv.conf")
		got, err := mountPoint(filepath.Join(dir, c.path))
		if err != nil || got != filepath.Join(dir, c.want) {
			t.Errorf("%s: %s, %v", c.path, got, err)
		}
		if text, err := os.ReadFile(got); err != nil || string(text) != c.text {
			t.Errorf("%s: %q, %v", c.path, text, err)
		}
	}
	dir := makeTree(t, "round -> about", "about -> round", "file", "below -> file/new")
	for _, path := range []string{"round", "below"} {
		if got, err := mountPoint(filepath.Join(dir, path)); err == nil || !strings.Contains(err.Error(),
			"cannot be made") {
			t.Errorf("%s: %s, %v", path, got, err)
		}
	}
}

func TestWhatIsNotThereNeedsNoHiding(t *testing.T) {
	dir := makeTree(t, "file")
	if err := hideAll([]string{dir + "/none", dir + "/file/below"}, dir+"/file", dir+"/none"); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(dir + "/file"); err != nil || string(text) != "text" {
		t.Errorf("a file that was to be kept: %q, %v", text, err)
	}
	if _, err := os.Lstat(dir + "/none"); err == nil {
		t.Error("a file to keep that was not there was made")
	}
}

func TestHostServicesAreThoseOfTheMachineAndTheUser(t *testing.T) {
	machine := HostServices("")
	both := HostServices("/run/user/7")
	if !slices.Equal(both[:len(machine)], machine) || len(both) == len(machine) {
		t.Errorf("%q does not begin with %q", both, machine)
	}
	for i, path := range both {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path || slices.Index(both, path) != i {
			t.Errorf("%s: not a path, or twice", path)
		}
		if strings.HasPrefix(path, "/run/user/7/") != (i >= len(machine)) {
			t.Errorf("%s is in the wrong place", path)
		}
		if rest, ok := strings.CutPrefix(path, "/var/run/"); ok && !slices.Contains(both, "/run/"+rest) {
			t.Errorf("%s is hidden, and not where /var/run leads to", path)
		}
	}
	for _, want := range []string{"/run/dbus", "/run/docker.sock", "/run/user/7/bus", "/run/user/7/podman"} {
		if !slices.Contains(both, want) {
			t.Errorf("%s is not hidden", want)
		}
	}
}

// TestSystemPathsAreApart: a mount over one path would hide that of another below it.
func TestSystemPathsAreApart(t *testing.T) {
	all := slices.Concat(maskedPaths, readOnlyPaths)
	for i, path := range all {
		if !strings.HasPrefix(path, "/proc/") && !strings.HasPrefix(path, "/sys/") || filepath.Clean(path) != path {
			t.Errorf("%s is not below /proc or /sys", path)
		}
		for j, other := range all {
			if i != j && (path == other || strings.HasPrefix(path, other+"/")) {
				t.Errorf("%s is below %s", path, other)
			}
		}
	}
	for _, want := range []string{"/proc/kcore", "/proc/keys", "/sys/firmware"} {
		if !slices.Contains(maskedPaths, want) {
			t.Errorf("%s is not masked", want)
		}
	}
	for _, want := range []string{"/proc/sys", "/proc/sysrq-trigger"} {
		if !slices.Contains(readOnlyPaths, want) {
			t.Errorf("%s can be written to", want)
		}
	}
}
