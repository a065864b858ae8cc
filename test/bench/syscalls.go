package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// shownCalls is how many kinds of system calls are listed for a cell.
const shownCalls = 12

// A call is one kind of system call of a summary.
type call struct {
	name  string
	count int
}

// countCalls measures a cell while the tool is traced. Tracing makes all slower; how many calls a connection or a
// request takes changes little, how many datagrams one call takes more.
func (w *world) countCalls(r *report, t tool, c cell, s *sandbox, servers hostServers) error {
	if c.per == "" || strings.HasPrefix(c.name, "their time") {
		return nil
	}
	var m measured
	calls, err := w.traced(s.process, func() (err error) {
		m, err = c.measure(w, s, servers)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	if m.work == 0 {
		return nil
	}
	sum := 0
	for _, call := range calls {
		sum += call.count
	}
	r.add(t.name, c.calls(), float64(sum)/m.work)
	for _, call := range calls[:min(shownCalls, len(calls))] {
		fmt.Fprintf(os.Stderr, "bench:     %-30s %8.2f per %s\n", call.name, float64(call.count)/m.work, c.per)
	}
	return nil
}

// traced runs f while strace(1) counts the system calls of a tool, the most frequent first.
func (w *world) traced(root int, f func() error) ([]call, error) {
	args := []string{"--follow-forks", "--summary-only", "--summary-columns=calls,name", "--output", w.dir + "/calls"}
	own := ownProcesses(processTable(), root, filepath.Base(self()))
	for pid := range own {
		args = append(args, "--attach="+strconv.Itoa(pid))
	}
	var log strings.Builder
	cmd := exec.Command("strace", args...)
	cmd.Stderr = &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w; as root: apt-get install strace", err)
	}
	attached := wait("strace", func() bool {
		for pid := range own {
			if !isTraced(pid) {
				return false
			}
		}
		return true
	})
	var failed error
	if attached == nil {
		failed = f()
	}
	_ = cmd.Process.Signal(syscall.SIGINT) // it detaches and writes its summary
	_ = cmd.Wait()
	if err := errors.Join(attached, failed); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, &log)
	}
	text, err := os.ReadFile(w.dir + "/calls")
	if err != nil {
		return nil, err
	}
	return parseCalls(string(text)), nil
}

// isTraced says whether each thread of a process is traced, or it has ended.
func isTraced(pid int) bool {
	names, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err == nil && strings.Contains(string(text), "\nTracerPid:\t0\n") {
			return false
		}
	}
	return true
}

// parseCalls reads a summary of strace with the columns calls and name, the most frequent first.
func parseCalls(text string) (list []call) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) != 2 || fields[1] == "total" {
			continue
		}
		count, err := strconv.Atoi(fields[0])
		if err != nil {
			continue // a heading
		}
		list = append(list, call{fields[1], count})
	}
	slices.SortFunc(list, func(a, b call) int {
		return cmp.Or(cmp.Compare(b.count, a.count), strings.Compare(a.name, b.name))
	})
	return list
}
