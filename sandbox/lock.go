package sandbox

import (
	"errors"
	"fmt"
	"math"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/sockio"
	"github.com/usernet/usernet/sandbox/entry"
)

// The mounts of a sandbox are locked before its command runs: what is covered stays covered, and what is read-only
// stays read-only, whatever root in the sandbox does. The kernel locks mounts when they are copied into a mount
// namespace that another user namespace owns (MNT_LOCKED, lock_mnt_tree in fs/namespace.c), and nothing takes that lock
// away, no capability either. So the init makes such a copy, as bubblewrap does, and becomes the command's parent in
// it:
//
//	user namespace A ---- owns network, pid, IPC, UTS namespaces; init and command run in it
//	    |                 mount namespace 1, set up by the init, left and gone
//	    '-- namespace B - owns mount namespace 2, the copy that all processes of the sandbox are in
//
// The network namespace thus belongs to the user namespace of the sandbox's processes as it would without the copy.

// lockMounts moves the calling thread to a locked copy of the mount namespace that it is in. The thread has to be
// locked to its goroutine, and the process has to become another program next: its other threads stay where they are.
func lockMounts() error {
	// setns(2): a thread that shares its root and working directory with others cannot enter a mount namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	pidfd := -1
	// The copy belongs to this child while there is no other process in it. It has no ids mapped, and does nothing.
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"usernet-hold", roleHold}, &syscall.ProcAttr{
		Env: ownEnv,
		Sys: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
			PidFD:      &pidfd,
			Pdeathsig:  syscall.SIGKILL,
		},
	})
	if err != nil {
		return fmt.Errorf("a user namespace that locks the mounts cannot be made: %w", err)
	}
	defer unix.Close(pidfd)
	err = unix.Setns(pidfd, unix.CLONE_NEWNS) // Linux 5.8
	_ = syscall.Kill(pid, syscall.SIGKILL)
	for {
		if _, e := syscall.Wait4(pid, nil, 0, nil); !errors.Is(e, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("entering the locked copy of the mounts: %w", err)
	}
	return nil
}

// runHold waits to be killed.
func runHold() error {
	for {
		if err := unix.Pause(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// become executes program, this one, in another role with the same control socket. It returns only what is wrong. The
// calling thread becomes the process's only one.
func become(name string, program *os.File, control *os.File) error {
	fd, err := sockio.DupFDFrom(int(program.Fd()), controlFD+1) // not at the control socket's number
	if err != nil {
		return err
	}
	if err := passAt(control, controlFD); err != nil {
		return err
	}
	if err := unix.CloseRange(controlFD+1, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		if err := closeOnExec(controlFD + 1); err != nil {
			return err
		}
	}
	// A change of ids has cleared it (prctl(2)).
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	argv, err := syscall.SlicePtrFromStrings([]string{"usernet-init", name, entry.Steps{}.Argument()})
	if err != nil {
		return err
	}
	envv, err := syscall.SlicePtrFromStrings(ownEnv)
	if err != nil {
		return err
	}
	empty, err := syscall.BytePtrFromString("")
	if err != nil {
		return err
	}
	for {
		// execveat(2), since there may be no /proc here by which the program has a path.
		_, _, errno := unix.RawSyscall6(unix.SYS_EXECVEAT, uintptr(fd), uintptr(unsafe.Pointer(empty)),
			uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envv[0])), unix.AT_EMPTY_PATH, 0)
		if errno != unix.EAGAIN { // a thread of the runtime's was being made
			return os.NewSyscallError("execveat", errno)
		}
	}
}

// passAt has the next program find a file at the number fd.
func passAt(f *os.File, fd int) error {
	if int(f.Fd()) != fd {
		return os.NewSyscallError("dup3", unix.Dup3(int(f.Fd()), fd, 0))
	}
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETFD, 0)
	return os.NewSyscallError("fcntl", err)
}
