package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDescriptorsOfOtherThingsAreNoNamespaces(t *testing.T) {
	file := newFile(t, "file")
	open := func(path string) *os.File {
		t.Helper()
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	for _, c := range []struct {
		f    *os.File
		says string
	}{
		{file, "not a namespace's"},
		{open("/dev/null"), "not a namespace's"},
		{open("/proc/self/ns/uts"), "another kind"},
		{open("/proc/self/ns/user"), "another kind"},
		{open("/proc/self/ns/net"), "itself runs in"},
	} {
		if id, err := NetworkNamespace(c.f); err == nil || !strings.Contains(err.Error(), c.says) || id !=
			(NamespaceID{}) {
			t.Errorf("%s: %v, %v; want %q", c.f.Name(), id, err, c.says)
		}
	}
	pipe := filepath.Join(t.TempDir(), "pipe") // which nobody has open for writing
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, says := range map[string]string{
		file.Name():           "is not a namespace",
		pipe:                  "is not a namespace",
		file.Name() + "/none": "not a directory",
		"/proc/self/ns/none":  "no such file",
		"/proc/self/ns/mnt":   "is another kind of namespace, not a network namespace",
	} {
		if f, err := OpenNetNS(path); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, %v", path, f, err)
		}
	}
	f, err := OpenNetNS("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for path, want := range map[string]bool{"/proc/self/ns/net": true, "/proc/self/ns/uts": false, file.Name(): false} {
		if same, err := sameNamespace(f, path); err != nil || same != want {
			t.Errorf("%s: %v, %v", path, same, err)
		}
	}
	if _, err := StartTime(1 << 29); err == nil || !strings.Contains(err.Error(), fmt.Sprint(1<<29)) {
		t.Errorf("a process that does not exist: %v", err)
	}
}
