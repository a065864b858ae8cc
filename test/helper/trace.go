package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// traceReport is what trace found.
type traceReport struct {
	Seen map[string]int // how many processes there were, by the first argument that usernet starts them with
	Got  []string       // what could be had of them
}

// trace tries to get at every process that usernet sends into a sandbox, until its standard input is closed, and prints
// a traceReport. It is meant to run as root of the sandbox's user namespace, in the pid and mount namespaces of the
// host. Those who live in the sandbox, from its init on, are not of interest: they may be traced there.
func trace([]string) error {
	runtime.LockOSThread() // ptrace(2) is a matter of threads
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		ended <- syscall.SIGTERM
	}()
	r := traceReport{Seen: map[string]int{}}
	known := map[string]bool{}
	for {
		select {
		case <-ended:
			return json.NewEncoder(os.Stdout).Encode(r)
		default:
		}
		dir, err := os.Open("/proc")
		if err != nil {
			return err
		}
		names, err := dir.Readdirnames(-1)
		_ = dir.Close()
		if err != nil {
			return err
		}
		for _, name := range names {
			pid, err := strconv.Atoi(name)
			if err != nil {
				continue
			}
			role := roleOf(pid)
			if role == "" {
				continue
			}
			if !known[name+role] {
				known[name+role] = true
				r.Seen[role]++
			}
			for _, got := range attempts(pid) {
				if roleOf(pid) == role && len(r.Got) < 20 { // it is the same still
					r.Got = append(r.Got, fmt.Sprintf("%s of %s (%d)", got, role, pid))
				}
			}
		}
	}
}

// roleOf is the argument by which usernet tells a process that enters a sandbox what to do.
func roleOf(pid int) string {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return ""
	}
	args := bytes.Split(line, []byte{0})
	if len(args) < 3 || !bytes.HasPrefix(args[1], []byte("__")) || string(args[1]) == "__init" ||
		string(args[1]) == "__command" {
		return ""
	}
	return string(args[1])
}

// attempts returns what could be had of a process.
func attempts(pid int) (got []string) {
	dir := fmt.Sprintf("/proc/%d/", pid)
	for _, name := range []string{"root/etc", "cwd/.", "fd/0", "exe", "ns/mnt"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			got = append(got, name)
		}
	}
	for _, name := range []string{"mem", "environ", "maps", "auxv"} {
		f, err := os.Open(dir + name)
		if err != nil {
			continue
		}
		if _, err := f.Read(make([]byte, 1)); err == nil || name == "mem" {
			got = append(got, name)
		}
		_ = f.Close()
	}
	if f, err := os.OpenFile(dir+"exe", os.O_WRONLY, 0); err == nil {
		_ = f.Close()
		got = append(got, "exe for writing")
	}
	if os.Chmod(dir+"exe", 0o777) == nil {
		got = append(got, "mode of exe")
	}
	if fd, err := unix.PidfdOpen(pid, 0); err == nil {
		if copied, err := unix.PidfdGetfd(fd, 0, 0); err == nil {
			_ = unix.Close(copied)
			got = append(got, "pidfd_getfd")
		}
		_ = unix.Close(fd)
	}
	// An address that nobody has: EFAULT instead of EPERM says that it may be read.
	word := make([]byte, 8)
	local := []unix.Iovec{{Base: &word[0], Len: 8}}
	if _, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: uintptr(8), Len: 8}}, 0); err == nil ||
		err == unix.EFAULT {
		got = append(got, "process_vm_readv")
	}
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, 0, 0, 0); errno == 0 {
		got = append(got, "ptrace")
		release(pid)
	}
	if _, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(os.Getpid()), uintptr(pid), 2, 0, 0, 0); errno == 0 {
		got = append(got, "kcmp")
	}
	return got
}

// release stops tracing a process; it was given to us because it became a command in the meantime, or by a fault.
func release(pid int) {
	_, _, _ = unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_INTERRUPT, uintptr(pid), 0, 0, 0, 0)
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, unix.WALL, nil); err == nil && ws.Stopped() {
		_ = unix.PtraceDetach(pid)
	}
}
