package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// devices are what every sandbox with a root file system of its own has of the host's: what cannot be made in a user
// namespace and leads nowhere (runtime-spec, config-linux.md, Default Devices).
var devices = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"}

var devLinks = map[string]string{
	"fd":     "/proc/self/fd",
	"stdin":  "/proc/self/fd/0",
	"stdout": "/proc/self/fd/1",
	"stderr": "/proc/self/fd/2",
	"ptmx":   "pts/ptmx",
}

// openDevices opens the devices, and those in more, while the host's /dev is still there.
func openDevices(more []string) (map[string]tree, error) {
	opened := map[string]tree{}
	for _, path := range append(more, devices...) {
		if opened[path].fd > 0 {
			continue
		}
		t, err := openTree(path)
		if err != nil {
			closeTrees(opened)
			return nil, fmt.Errorf("device %w", err)
		}
		opened[path] = t
	}
	return opened, nil
}

func closeTrees(trees map[string]tree) {
	for _, t := range trees {
		t.close()
	}
}

// mountDev makes /dev: the devices, and terminals, shared memory and message queues of the sandbox's own. The host's
// terminals belong to the user, and so would what is typed there.
func mountDev(opened map[string]tree) error {
	if err := directory("/dev"); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/dev", "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0755,size=64k"); err != nil {
		return fmt.Errorf("/dev: %w", err)
	}
	for path, t := range opened {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			return err
		}
		if err := t.mount(path); err != nil {
			return err
		}
	}
	for name, target := range devLinks {
		if err := os.Symlink(target, "/dev/"+name); err != nil {
			return err
		}
	}
	for _, m := range []struct{ kind, at, options string }{
		{"devpts", "/dev/pts", "newinstance,ptmxmode=0666,mode=0620"},
		{"tmpfs", "/dev/shm", "mode=1777,size=64m"}, // Docker's size
		{"mqueue", "/dev/mqueue", ""},
	} {
		if err := os.Mkdir(m.at, 0o755); err != nil {
			return err
		}
		flags := uintptr(mountFlags)
		if m.kind == "devpts" {
			flags &^= unix.MS_NODEV
		}
		err := unix.Mount(m.kind, m.at, m.kind, flags, m.options)
		if m.kind == "mqueue" && errors.Is(err, unix.ENODEV) {
			continue // a kernel without POSIX message queues
		}
		if err != nil {
			return fmt.Errorf("%s: %w", m.at, err)
		}
	}
	return nil
}

// console makes a terminal among the sandbox's own and mounts it at /dev/console.
func console() (master, slave *os.File, err error) {
	if master, slave, err = openTerminal(); err != nil {
		return nil, nil, err
	}
	if err = os.WriteFile("/dev/console", nil, 0o600); err == nil {
		var n uint32
		if n, err = unix.IoctlGetUint32(int(master.Fd()), unix.TIOCGPTN); err == nil {
			err = bind(fmt.Sprint("/dev/pts/", n), "/dev/console")
		}
	}
	if err != nil {
		_ = master.Close()
		_ = slave.Close()
		return nil, nil, err
	}
	return master, slave, nil
}

// openTerminal makes a terminal by /dev/ptmx of the sandbox. What is there has to be one, whatever the container has
// done to its /dev; the other end is asked of it, and not looked for by a path.
func openTerminal() (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("terminal: /dev/ptmx: %w", err)
	}
	master = os.NewFile(uintptr(fd), "ptmx")
	var fs unix.Statfs_t
	var st unix.Stat_t
	if err = errors.Join(unix.Fstatfs(fd, &fs), unix.Fstat(fd, &st)); err == nil &&
		(fs.Type != unix.DEVPTS_SUPER_MAGIC || st.Mode&unix.S_IFMT != unix.S_IFCHR) {
		err = errors.New("/dev/ptmx of the sandbox is none")
	}
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	peer := 0
	if err == nil {
		peer, err = ioctl(fd, unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC) // Linux 4.13
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("terminal: %w", err), master.Close())
	}
	return master, os.NewFile(uintptr(peer), "terminal"), nil
}

// ioctl is an ioctl(2) with a number as argument and as result.
func ioctl(fd int, request uint, argument uintptr) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), argument)
	if errno != 0 {
		return 0, errno
	}
	return int(r), nil
}
