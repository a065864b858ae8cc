package nsend

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestNamespacesAreGivenUp by the end of their process, and by the end of their path.
func TestNamespacesAreGivenUp(t *testing.T) {
	process := exec.Command("sleep", "1000")
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = process.Process.Kill(), process.Wait() })
	file := filepath.Join(t.TempDir(), "netns")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		path string
		pid  int
		end  func() error
	}{
		"process": {"", process.Process.Pid, process.Process.Kill},
		"path":    {file, 0, func() error { return os.Remove(file) }},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			gone, err := Watch(ctx, test.path, test.pid)
			if err != nil {
				t.Fatal(err)
			}
			select {
			case <-gone:
				t.Fatal("it is gone at the beginning")
			default:
			}
			if err := test.end(); err != nil {
				t.Fatal(err)
			}
			select {
			case <-gone:
			case <-time.After(time.Minute):
				t.Fatal("its end is not told")
			}
		})
	}
	if _, err := Watch(t.Context(), file, 0); err == nil {
		t.Error("a path that is not there can be watched")
	}
}
