package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/creack/pty"
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
	if master, slave, err = pty.Open(); err != nil {
		return nil, nil, fmt.Errorf("terminal: %w", err)
	}
	if err = os.WriteFile("/dev/console", nil, 0o600); err == nil {
		err = bind(slave.Name(), "/dev/console")
	}
	if err != nil {
		_ = master.Close()
		_ = slave.Close()
		return nil, nil, err
	}
	return master, slave, nil
}
