package engines

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The tests run in a child of a process that only waits. Where a parent ends, its children become that process's
// (PR_SET_CHILD_SUBREAPER, prctl(2)), whatever session, group or namespaces they are in: so the tests find all that
// they have started, by descent and not by name, and a test that leaves a process behind fails.

// reapedVariable is set in the child.
const reapedVariable = "USERNET_ENGINES_REAPED"

// reap runs the tests in a child, and returns its exit status. What the child leaves is ended.
func reap() (int, error) {
	runtime.LockOSThread() // Pdeathsig is about the thread
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 1, os.NewSyscallError("prctl", err)
	}
	child, err := syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{
		Env:   append(os.Environ(), reapedVariable+"=1"),
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return 1, err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	go func() {
		for s := range signals {
			_ = syscall.Kill(child, s.(syscall.Signal))
		}
	}()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case err == syscall.EINTR || err == nil && pid != child:
			continue
		case err != nil:
			return 1, os.NewSyscallError("wait4", err)
		}
		for _, p := range descendants(os.Getpid()) { // of tests that ran out of time
			fmt.Fprintln(os.Stderr, "engines: ending", p)
			_ = syscall.Kill(p.pid, syscall.SIGKILL)
		}
		return status.ExitStatus(), nil
	}
}

// process is one that runs.
type process struct {
	pid  int
	args string
}

func (p process) String() string { return fmt.Sprintf("process %d: %s", p.pid, p.args) }

// descendants are the processes that come from one. Those that have ended and wait for their parents are left out.
func descendants(of int) (list []process) {
	children := map[int][]int{}
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(text[strings.LastIndexByte(string(text), ')')+1:]), " ") // proc_pid_stat(5)
		fields := strings.Fields(rest)
		pid, err1 := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		parent, err2 := strconv.Atoi(fields[1])
		if err1 == nil && err2 == nil && fields[0] != "Z" && fields[0] != "X" {
			children[parent] = append(children[parent], pid)
		}
	}
	for next := children[of]; len(next) > 0; next = next[1:] {
		pid := next[0]
		args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		list = append(list, process{pid, strings.ReplaceAll(strings.Trim(string(args), "\x00"), "\x00", " ")})
		next = append(next, children[pid]...)
	}
	return list
}

// left are the processes that come from the tests.
func left() []process {
	return slices.DeleteFunc(descendants(os.Getppid()), func(p process) bool { return p.pid == os.Getpid() })
}

// users is how many users there are: tests do not run at the same time, and one may have several.
var users int

// nothingLeft fails a test whose last user is gone where processes stay, and ends them.
func nothingLeft(t testing.TB) {
	deadline := time.Now().Add(patience)
	list := left()
	for len(list) > 0 && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
		list = left()
	}
	for deadline = time.Now().Add(patience); len(list) > 0 && time.Now().Before(deadline); list = left() {
		// a container's monitor may start something yet
		for _, p := range list {
			t.Errorf("the test has left %v", p)
			_ = syscall.Kill(p.pid, syscall.SIGKILL)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// endWith ends the processes that come from the tests whose arguments have a text, and those that come from them.
func endWith(t testing.TB, text string) {
	eventually(t, func() error {
		for _, p := range left() {
			if !strings.Contains(p.args, text) {
				continue
			}
			for _, each := range append(descendants(p.pid), p) {
				_ = syscall.Kill(each.pid, syscall.SIGKILL)
			}
			return fmt.Errorf("still there: %v", p)
		}
		return nil
	})
}
