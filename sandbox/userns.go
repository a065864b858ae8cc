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

// UserNamespaces returns the user namespace of a process and those that it lies in, the innermost first, as far as this
// process can see: its own is the last one where the process is in it or below. A process cannot leave its user namespace but
// for one below (setns(2)), so that what is started in a sandbox has the sandbox's in this list, whatever it does.
func (h *Helper) UserNamespaces(pid int) ([]NamespaceID, error) {
	if h == nil {
		return userNamespaces(pid)
	}
	answer, err := h.request(helperRequest{Pid: pid})
	if err != nil {
		return nil, err
	}
	r, err := reply(answer)
	return r.UserNS, err
}

// userNamespaces has the opener, at the other end of c, look at a process.
func (c *requester) userNamespaces(pid int) ([]NamespaceID, error) {
	answer, err := c.request(openRequest{Pid: pid})
	if err != nil {
		return nil, err
	}
	defer answer.Close()
	var r openReply
	files, err := receive(answer, &r)
	closeAll(files)
	if err == nil && r.Error != "" {
		err = errors.New(r.Error)
	}
	return r.UserNS, err
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
			return nil, errors.Join(fmt.Errorf("process %d is in more than %d user namespaces", pid, maxUserNamespaces), unix.Close(up))
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
