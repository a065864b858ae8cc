package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPlacesAreMadeBelowTheRoot makes what is to be mounted on, with the directories above it. The root is this
// machine's, as a sandbox has its own there.
func TestPlacesAreMadeBelowTheRoot(t *testing.T) {
	for name, test := range map[string]struct {
		place string
		file  bool
		err   error
		at    string // what is there afterwards; "": place
	}{
		"a directory":                 {place: "new/deep/dir"},
		"a file":                      {place: "new/file", file: true},
		"one that is there":           {place: "dir"},
		"a file that is there":        {place: "file", file: true},
		"behind a link":               {place: "link/new", at: "dir/new"},
		"behind a link to above":      {place: "up/new", at: "new"},
		"below a file":                {place: "file/new", err: unix.ENOTDIR},
		"a link to nothing":           {place: "nowhere", file: true, err: unix.EEXIST},
		"below a link that is a loop": {place: "loop/new", err: unix.ELOOP},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			if err := errors.Join(
				os.Mkdir(filepath.Join(top, "dir"), 0o755),
				os.WriteFile(filepath.Join(top, "file"), []byte("text"), 0o600),
				os.Symlink(filepath.Join(top, "dir"), filepath.Join(top, "link")), // absolute
				os.Symlink("dir/..", filepath.Join(top, "up")),
				os.Symlink("none", filepath.Join(top, "nowhere")),
				os.Symlink("loop", filepath.Join(top, "loop")),
			); err != nil {
				t.Fatal(err)
			}
			fd, err := makeInRoot(filepath.Join(top, test.place), test.file)
			if !errors.Is(err, test.err) {
				t.Fatalf("%v, want %v", err, test.err)
			}
			if err != nil {
				return
			}
			defer unix.Close(fd)
			at := test.place
			if test.at != "" {
				at = test.at
			}
			var opened, there unix.Stat_t
			if err := errors.Join(unix.Fstat(fd, &opened), unix.Stat(filepath.Join(top, at), &there)); err != nil {
				t.Fatal(err)
			}
			if opened.Ino != there.Ino || opened.Dev != there.Dev {
				t.Errorf("something else than %s was opened", at)
			}
			if isFile := opened.Mode&unix.S_IFMT == unix.S_IFREG; isFile != test.file {
				t.Errorf("a file was made: %v", isFile)
			}
			if text, err := os.ReadFile(filepath.Join(top, "file")); err != nil || string(text) != "text" {
				t.Errorf("what was there is now %q, %v", text, err)
			}
		})
	}
}

// TestMissingPlacesAndVolumesSayWhatToDo is about what fails before anything is mounted.
func TestMissingPlacesAndVolumesSayWhatToDo(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none")
	err := layer{target: missing}.mount(false)
	if err == nil || !strings.Contains(err.Error(), missing+", which does not exist") {
		t.Errorf("a place that is not there: %v", err)
	}
	if err = (layer{target: "/proc/self/environ"}).mount(false); err == nil || !strings.Contains(err.Error(), "/proc") {
		t.Errorf("a place in /proc: %v", err)
	}
	list, err := openLayers(Spec{Volumes: []Volume{{Source: missing, Target: "/x"}}})
	if err == nil || !strings.Contains(err.Error(), missing) || len(list) != 0 {
		t.Errorf("a volume that is not there: %v", err)
	}
}
