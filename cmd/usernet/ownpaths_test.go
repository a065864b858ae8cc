package main

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

// TestSharedDirectoriesAreNotHidden holds that of a directory with other things in it only usernet's files are hidden
// from sandboxes, whatever its name.
func TestSharedDirectoriesAreNotHidden(t *testing.T) {
	home := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", filepath.Join(home, "run"))
	t.Setenv("XDG_STATE_HOME", filepath.Join(home, "state"))
	make := func(mode os.FileMode, names ...string) string {
		t.Helper()
		dir := filepath.Join(home, names[0])
		if err := os.MkdirAll(dir, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		for _, name := range names[1:] {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	run := make(0o755, "run/usernet", "usernet.sock", "notes")
	state := make(0o755, "state/usernet", "usernet.db", "notes")
	uid := strconv.Itoa(os.Getuid())
	for _, test := range []struct {
		name          string
		socket, state string
		hidden, seen  []string
	}{
		{"the defaults, whatever is in them", run + "/usernet.sock", state, []string{run, state}, nil},
		{"shared by all", "/tmp/x.sock", "/tmp", []string{"/tmp/x.sock", "/tmp/usernet.db", "/tmp/containers"},
			[]string{"/tmp"}},
		{"/run/user/UID and /tmp/usernet-UID, of another environment", "/run/user/" + uid + "/usernet/usernet.sock", state,
			[]string{"/run/user/" + uid + "/usernet"}, []string{"/run/user/" + uid}},
		{"private to the user, and nothing else in it", make(0o700, "mine", "x.sock") + "/x.sock",
			make(0o700, "data", "usernet.db", "socket"),
			[]string{home + "/mine", home + "/data"}, nil},
		{"private, with files of the user's", make(0o700, "mine2", "x.sock", "y") + "/x.sock",
			make(0o700, "data2", "usernet.db", "y"),
			[]string{home + "/mine2/x.sock", home + "/data2/usernet.db", home + "/data2/usernet.db.good",
				home + "/data2/cluster"},
			[]string{home + "/mine2", home + "/data2", home + "/data2/y"}},
		{"a name that begins as usernet's", make(0o755, "usernet-work", "x.sock", "y") + "/x.sock",
			make(0o755, "usernet", "usernet.db", "y"),
			[]string{home + "/usernet-work/x.sock", home + "/usernet/usernet.db"},
			[]string{home + "/usernet-work", home + "/usernet"}},
		{"both in one directory", make(0o700, "one", "x.sock", "usernet.db") + "/x.sock", home + "/one",
			[]string{home + "/one"}, nil},
		{"both in one directory, with files of the user's",
			make(0o700, "one2", "x.sock", "usernet.db", "y") + "/x.sock", home + "/one2",
			[]string{home + "/one2/x.sock", home + "/one2/usernet.db"}, []string{home + "/one2", home + "/one2/y"}},
		{"others may read it", make(0o755, "open", "x.sock") + "/x.sock", state, []string{home + "/open/x.sock"},
			[]string{home + "/open"}},
	} {
		list := apiPaths(test.socket, test.state)
		for _, path := range test.hidden {
			if !slices.Contains(list, path) {
				t.Errorf("%s: %s is not hidden: %v", test.name, path, list)
			}
		}
		for _, path := range test.seen {
			if slices.Contains(list, path) {
				t.Errorf("%s: %s is hidden", test.name, path)
			}
		}
	}
}
