package sandbox

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Target is a sandbox to enter: the namespaces of a process, or those at paths.
type Target struct {
	Pid    int
	NetNS  string // path; "" is that of Pid
	UserNS string // path; "" is the owner of the network namespace
}

// open opens the namespaces of t that a role enters to work in its network, in the order in which they are entered: the
// user namespace, unless it is this process's, and the network namespace.
func (t Target) open() ([]*os.File, error) {
	path := t.NetNS
	if path == "" {
		path = fmt.Sprintf("/proc/%d/ns/net", t.Pid)
	}
	netns, err := openNamespace(path)
	if err != nil {
		return nil, fmt.Errorf("network namespace %s: %w; it must belong to a user namespace of this user", path, err)
	}
	var userns *os.File
	if t.UserNS != "" {
		userns, err = openNamespace(t.UserNS)
	} else {
		userns, err = owner(netns)
	}
	if err != nil {
		_ = netns.Close()
		return nil, fmt.Errorf("user namespace of %s: %w", path, err)
	}
	if same, err := sameNamespace(userns, "/proc/self/ns/user"); err == nil && same {
		_ = userns.Close()
		return []*os.File{netns}, nil
	}
	return []*os.File{userns, netns}, nil
}

// owner opens the user namespace that owns a namespace (ioctl_ns(2)).
func owner(ns *os.File) (*os.File, error) {
	fd, err := unix.IoctlRetInt(int(ns.Fd()), unix.NS_GET_USERNS)
	if errors.Is(err, unix.EPERM) {
		return nil, errors.New("it belongs to the host or to another user; usernet serves namespaces that this user has made")
	}
	if err != nil {
		return nil, err
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "userns"), nil
}

func sameNamespace(f *os.File, path string) (bool, error) {
	var a, b unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &a); err != nil {
		return false, err
	}
	if err := unix.Stat(path, &b); err != nil {
		return false, err
	}
	return a.Dev == b.Dev && a.Ino == b.Ino, nil
}
