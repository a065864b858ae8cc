package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDirectoriesThatOthersCouldChangeAreRefused(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name          string
		mode          os.FileMode
		state, socket string // words of the error; "" is none
	}{
		{"private", 0o700, "", ""},
		{"readable", 0o755, "", ""},
		{"of a group", 0o770, "chmod go-w", "chmod go-w"},
		{"everybody's", 0o777, "chmod go-w", "chmod go-w"},
		{"sticky", 0o777 | os.ModeSticky, "chmod go-w", ""},
	} {
		sub := filepath.Join(dir, test.name)
		if err := os.Mkdir(sub, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(sub, test.mode); err != nil {
			t.Fatal(err)
		}
		for what, err := range map[string]error{test.state + "@state": checkStateDir(sub), test.socket +
			"@socket": CheckSocketDir(sub)} {
			words, kind, _ := strings.Cut(what, "@")
			if (err == nil) != (words == "") || err != nil && !strings.Contains(err.Error(), words) {
				t.Errorf("%s directory %s: %v, wanted %q", kind, test.name, err, words)
			}
		}
	}
	for _, path := range []string{file, filepath.Join(dir, "missing")} {
		if CheckSocketDir(path) == nil {
			t.Errorf("%s is taken for a directory of a socket", path)
		}
	}
	if checkStateDir(file) == nil || checkStateDir("") == nil {
		t.Error("no directory is taken for one of a state")
	}
}
