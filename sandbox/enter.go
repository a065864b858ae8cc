package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"

	"golang.org/x/sys/unix"
)

// Target is a sandbox to enter: the namespaces of a process, or those at paths.
type Target struct {
	Pid    int
	NetNS  string // path; "" is that of Pid
	UserNS string // path; "" is the owner of the network namespace
}

// nsenter makes a command that runs this binary in role inside t's user and network namespaces. files become
// descriptors from controlFD on.
func nsenter(t Target, role string, files ...*os.File) (*exec.Cmd, func(), error) {
	tool, err := exec.LookPath("nsenter")
	if err != nil {
		return nil, nil, errors.New("nsenter is missing: install util-linux")
	}
	var opened []*os.File
	done := func() {
		for _, f := range opened {
			_ = f.Close()
		}
	}
	open := func(path string) (*os.File, error) {
		f, err := os.Open(path)
		if err == nil {
			opened = append(opened, f)
		}
		return f, err
	}
	path := t.NetNS
	if path == "" {
		path = fmt.Sprintf("/proc/%d/ns/net", t.Pid)
	}
	netns, err := open(path)
	if err != nil {
		done()
		return nil, nil, fmt.Errorf("network namespace %s: %w; it must belong to a user namespace of this user", path, err)
	}
	var userns *os.File
	if t.UserNS != "" {
		userns, err = open(t.UserNS)
	} else if userns, err = owner(netns); err == nil {
		opened = append(opened, userns)
	}
	if err != nil {
		done()
		return nil, nil, fmt.Errorf("user namespace of %s: %w", path, err)
	}
	self, err := open("/proc/self/exe")
	if err != nil {
		done()
		return nil, nil, err
	}
	cmd := &exec.Cmd{Path: tool, Env: append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, ownEnv...), ExtraFiles: append(files, netns, userns, self)}
	fd := func(i int) string { return "/proc/self/fd/" + strconv.Itoa(controlFD+len(files)+i) }
	cmd.Args = []string{tool, "--preserve-credentials", "--net=" + fd(0)}
	if same, err := sameNamespace(userns, "/proc/self/ns/user"); err != nil || !same {
		cmd.Args = append(cmd.Args, "--user="+fd(1))
	}
	cmd.Args = append(cmd.Args, "--", fd(2), role)
	return cmd, done, nil
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
