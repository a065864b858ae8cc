package sandbox

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// NamespaceID tells a namespace from all others, as long as it exists: device and inode of its file in nsfs.
type NamespaceID struct{ Dev, Ino uint64 }

// maxUserNamespaces is how deep user namespaces can lie in each other (user_namespaces(7): 32), and the first one.
const maxUserNamespaces = 33

// Namespaces are those that a process is in.
type Namespaces struct {
	// User is the process's user namespace and those that it lies in, the innermost first, as far as this process can
	// see: its own is the last one where the process is in it or below. A process cannot leave its user namespace but
	// for one below (setns(2)), so that what is started in a sandbox has the sandbox's in this list, whatever it does.
	User []NamespaceID
	Net  NamespaceID
	// PID is one that a process cannot leave either, but for one below (pid_namespaces(7)).
	PID NamespaceID
}

// Namespaces returns those of a process.
func (h *Helper) Namespaces(pid int) (Namespaces, error) {
	if h == nil {
		return namespacesOf(pid)
	}
	answer, err := h.request(helperRequest{Pid: pid})
	if err != nil {
		return Namespaces{}, err
	}
	r, err := reply(answer)
	return r.Inside, err
}

// OwnerOf returns the user namespace that a namespace belongs to (ioctl_ns(2)); the zero one where it is this process's
// own, or one that this process cannot see, above it or beside it.
func OwnerOf(f *os.File) (NamespaceID, error) {
	fd, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_USERNS)
	if errors.Is(err, unix.EPERM) {
		return NamespaceID{}, nil
	}
	if err != nil {
		return NamespaceID{}, os.NewSyscallError("NS_GET_USERNS", err)
	}
	owner := os.NewFile(uintptr(fd), "userns")
	defer owner.Close()
	unix.CloseOnExec(fd)
	if own, err := sameNamespace(owner, "/proc/self/ns/user"); err != nil || own {
		return NamespaceID{}, err
	}
	return namespaceID(fd)
}

// namespacesOf has the opener, at the other end of c, look at a process.
func (c *requester) namespacesOf(pid int) (Namespaces, error) {
	answer, err := c.request(openRequest{Pid: pid})
	if err != nil {
		return Namespaces{}, err
	}
	defer answer.Close()
	var r openReply
	files, err := receive(answer, &r)
	closeAll(files)
	if err == nil && r.Error != "" {
		err = errors.New(r.Error)
	}
	return r.Inside, err
}

func namespacesOf(pid int) (in Namespaces, err error) {
	if in.Net.Dev, in.Net.Ino, err = namespace(fmt.Sprintf("/proc/%d/ns/net", pid)); err != nil {
		return in, err
	}
	if in.PID.Dev, in.PID.Ino, err = namespace(fmt.Sprintf("/proc/%d/ns/pid", pid)); err != nil {
		return in, err
	}
	in.User, err = userNamespaces(pid)
	return in, err
}

func userNamespaces(pid int) (list []NamespaceID, err error) {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/user", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("user namespace of process %d: %w", pid, err)
	}
	for {
		id, err := namespaceID(fd)
		if err != nil {
			return nil, errors.Join(err, unix.Close(fd))
		}
		list = append(list, id)
		up, err := unix.IoctlRetInt(fd, unix.NS_GET_PARENT) // ioctl_ns(2): EPERM above this process's own
		_ = unix.Close(fd)
		switch {
		case errors.Is(err, unix.EPERM):
			return list, nil
		case err != nil:
			return nil, os.NewSyscallError("NS_GET_PARENT", err)
		case len(list) == maxUserNamespaces:
			return nil, errors.Join(fmt.Errorf("process %d is in more than %d user namespaces", pid, maxUserNamespaces),
				unix.Close(up))
		}
		unix.CloseOnExec(up)
		fd = up
	}
}

func namespaceID(fd int) (NamespaceID, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return NamespaceID{}, os.NewSyscallError("fstat", err)
	}
	return NamespaceID{Dev: uint64(st.Dev), Ino: st.Ino}, nil
}
