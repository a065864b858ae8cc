package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Limits are what the command of a sandbox, and all that it starts, may not do. They are put on the thread that starts
// the command, whose child inherits them (seccomp(2), capabilities(7)); the init itself keeps what it needs to pass
// signals on.
type Limits struct {
	Capabilities    uint64 // those that can be had, a bit for each
	NoNewPrivileges bool   // programs with set-user-id bits or file capabilities gain nothing
	Filter          []byte // of system calls: struct sock_filter after struct sock_filter; none: all are allowed
}

// apply puts the limits on the calling thread, for good. What the thread may do itself is lost with the next execve(2):
// until then it can still change its ids.
func (l *Limits) apply() error {
	if l == nil {
		return nil
	}
	for c := range 64 {
		if l.Capabilities&(1<<c) != 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); errors.Is(err, unix.EINVAL) {
			break // there are no more
		} else if err != nil {
			return os.NewSyscallError("prctl PR_CAPBSET_DROP", err)
		}
	}
	if err := dropInheritable(); err != nil {
		return err
	}
	if l.NoNewPrivileges {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return os.NewSyscallError("prctl PR_SET_NO_NEW_PRIVS", err)
		}
	}
	return load(l.Filter)
}

// dropInheritable takes away what an execve(2) by root would add to the bounding set, or by others keep.
func dropInheritable() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl PR_CAP_AMBIENT", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	return os.NewSyscallError("capset", unix.Capset(&header, &data[0]))
}

// load has the calling thread's system calls go through a filter.
func load(filter []byte) error {
	const size = int(unsafe.Sizeof(unix.SockFilter{}))
	if len(filter) == 0 {
		return nil
	}
	if len(filter)%size != 0 || len(filter)/size > 4096 { // BPF_MAXINSNS
		return errors.New("the filter of system calls makes no sense")
	}
	program := make([]unix.SockFilter, len(filter)/size)
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&program[0])), len(filter)), filter)
	fprog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&fprog)))
	runtime.KeepAlive(program)
	if errno != 0 {
		return fmt.Errorf(
			"the filter of system calls cannot be loaded: %w; --security-opt seccomp=unconfined does without", errno)
	}
	return nil
}

// limited calls f on a thread of its own with the limits, which ends with it.
func (l *Limits) limited(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: no other goroutine may run on the thread
		err := l.apply()
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// A userCommand is what runUser becomes.
type userCommand struct {
	Path   string
	Args   []string
	Env    []string
	Limits *Limits
}

// runUser puts limits on itself and becomes a command, in a user namespace that gives the sandbox's only id another
// number. The limits forbid to make such a namespace, so they come after it.
func runUser() error {
	request := os.NewFile(controlFD, "request")
	var c userCommand
	if err := json.NewDecoder(request).Decode(&c); err != nil {
		return err
	}
	_ = request.Close()
	runtime.LockOSThread()
	if err := c.Limits.apply(); err != nil {
		return err
	}
	return fmt.Errorf("exec: %q: %w", c.Args[0], syscall.Exec(c.Path, c.Args, c.Env))
}

// file writes the command where its reader finds it at the beginning: to memory.
func (c userCommand) file() (*os.File, error) {
	fd, err := unix.MemfdCreate("request", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "request")
	if err := json.NewEncoder(f).Encode(c); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if _, err := f.Seek(0, 0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
