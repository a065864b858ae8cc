package sandbox

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/sockio"
)

// Target is a sandbox to enter: the namespaces of a process, or those at paths, or that of a descriptor.
type Target struct {
	Pid   int
	NetNS string   // path; "" is that of Pid
	File  *os.File `json:"-"` // the network namespace, open; nil: it is NetNS
	// Path; "" is the outermost one that the network namespace's owner lies in, below this process's own.
	UserNS string
}

// open opens the namespaces of t that a role enters to work in its network, in the order in which they are entered: the
// user namespace, unless it is this process's, and the network namespace.
func (t Target) open() ([]*os.File, error) {
	path := t.NetNS
	if path == "" {
		path = fmt.Sprintf("/proc/%d/ns/net", t.Pid)
	}
	netns, err := t.openNet(path)
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			err = fmt.Errorf("%w; it must belong to a user namespace of this user", err)
		}
		return nil, fmt.Errorf("network namespace %s: %w", path, err)
	}
	var userns *os.File
	if t.UserNS != "" {
		userns, err = openNamespace(t.UserNS, unix.CLONE_NEWUSER)
	} else {
		userns, err = outermost(netns)
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

// openNet opens the network namespace, at path where it is not open.
func (t Target) openNet(path string) (*os.File, error) {
	if t.File == nil {
		return OpenNetNS(path)
	}
	fd, err := sockio.Dup(t.File)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "netns"), nil
}

// outermost opens the outermost user namespace that the owner of a network namespace lies in, below this process's own;
// that itself where it is the owner. Who enters it can do in all of those below what root can, while one further in may
// know this user by a number that has no power there (podman --userns=keep-id).
func outermost(netns *os.File) (*os.File, error) {
	ns, err := owner(netns)
	if err != nil {
		return nil, err
	}
	for {
		fd, err := unix.IoctlRetInt(int(ns.Fd()), unix.NS_GET_PARENT)
		if errors.Is(err, unix.EPERM) {
			return ns, nil // it is this process's own
		}
		if err != nil {
			return nil, errors.Join(os.NewSyscallError("NS_GET_PARENT", err), ns.Close())
		}
		unix.CloseOnExec(fd)
		parent := os.NewFile(uintptr(fd), "userns")
		if own, err := sameNamespace(parent, "/proc/self/ns/user"); err != nil || own {
			return ns, errors.Join(err, parent.Close())
		}
		_ = ns.Close()
		ns = parent
	}
}

// owner opens the user namespace that owns a namespace (ioctl_ns(2)).
func owner(ns *os.File) (*os.File, error) {
	fd, err := unix.IoctlRetInt(int(ns.Fd()), unix.NS_GET_USERNS)
	if errors.Is(err, unix.EPERM) {
		return nil, errors.New(
			"it belongs to the host or to another user; usernet serves namespaces that this user has made")
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
