package sandbox

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// enterCgroup has a process be made in the cgroup at dir (clone3(2), CLONE_INTO_CGROUP); "": in the caller's. done is
// to be called once it was.
//
// The kernel makes the root of a new cgroup namespace of the cgroup that the caller of clone or unshare is in. In the
// same clone that would be the cgroup of this process, which the sandbox could then reach by a mount of its own. So the
// child makes that namespace itself, before it executes anything.
func enterCgroup(attr *syscall.SysProcAttr, dir string) (done func(), err error) {
	if dir == "" {
		return func() {}, nil
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("the container's cgroup: %w", &os.PathError{Op: "open", Path: dir, Err: err})
	}
	attr.UseCgroupFD, attr.CgroupFD = true, fd
	if attr.Cloneflags&unix.CLONE_NEWCGROUP != 0 {
		attr.Cloneflags &^= unix.CLONE_NEWCGROUP
		attr.Unshareflags |= unix.CLONE_NEWCGROUP
	}
	return func() { _ = unix.Close(fd) }, nil
}
