// Package hang stops processes for tests, as a suspend or a hang does.
package hang

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is how long a process may take to stop on a busy machine.
const patience = 30 * time.Second

// Stop stops a process with SIGSTOP, and returns when it has stopped. The signal is for all threads, but they go on
// until one of them has taken it, which on a busy machine is long enough for an answer that a test means not to get.
// The process goes on with SIGCONT.
func Stop(t testing.TB, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatalf("stopping process %d: %v", pid, err)
	}
	for deadline := time.Now().Add(patience); !stopped(t, pid); time.Sleep(time.Millisecond) { // between two looks
		if time.Now().After(deadline) {
			t.Fatalf("process %d does not stop", pid)
		}
	}
}

// stopped says whether all threads of a process have.
func stopped(t testing.TB, pid int) bool {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(threads) == 0 {
		t.Fatalf("process %d has no threads: %v", pid, err)
	}
	return !slices.ContainsFunc(threads, func(path string) bool {
		text, err := os.ReadFile(path)
		state := text[strings.LastIndex(string(text), ")")+1:] // proc_pid_stat(5): it is behind the name
		return err == nil && !strings.HasPrefix(string(state), " T")
	})
}
