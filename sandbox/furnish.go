package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// furnish gives the new namespaces their mounts and names, and returns the files of /etc that are to be written.
func furnish(o orders) (etc []*os.File, err error) {
	s := o.Spec
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("making mounts private: %w", err)
	}
	if s.Rootfs != "" {
		if etc, err = enterRoot(s.Rootfs, o.Etc); err != nil {
			return nil, err
		}
	} else {
		etc, err = stageEtc(o.Etc, func(path, name string) error { return overFile(path, "/etc/"+name) })
		if err != nil {
			return nil, err
		}
		mountProc("/proc")
	}
	return etc, name(o)
}

// name gives the sandbox its host and domain name.
func name(o orders) error {
	s := o.Spec
	if !s.HostNetwork && s.JoinNet == nil {
		// Interfaces of this namespace in /sys/class/net; nested containers may not have a sysfs of their own.
		_ = unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RDONLY, "")
	}
	name := s.Hostname
	if o.Hostname != "" {
		name = o.Hostname
	}
	if name != "" {
		if err := unix.Sethostname([]byte(name)); err != nil {
			return fmt.Errorf("host name %q: %w", name, err)
		}
	}
	if s.Domainname != "" {
		if err := unix.Setdomainname([]byte(s.Domainname)); err != nil {
			return fmt.Errorf("domain name %q: %w", s.Domainname, err)
		}
	}
	return nil
}

// mountProc mounts a fresh /proc. Where the kernel refuses one, since parts of the caller's are masked (mount_too_revealing
// in fs/namespace.c), the caller's stays.
func mountProc(at string) {
	if unix.Mount("proc", at, "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "") != nil && at != "/proc" {
		_ = unix.Mount("/proc", at, "", unix.MS_BIND|unix.MS_REC, "")
	}
}

// overFile mounts src over the file at, or what at is a link to. Where that does not exist, /etc is covered by an overlay
// in which it does.
func overFile(src, at string) error {
	real, err := filepath.EvalSymlinks(at)
	if errors.Is(err, os.ErrNotExist) {
		if err := overlay(filepath.Dir(at)); err != nil {
			return fmt.Errorf("%s does not exist here and cannot be made: %w; create an empty file at that place", at, err)
		}
		_ = os.Remove(at) // a link to nowhere
		if err := os.WriteFile(at, nil, 0o644); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		real = at
	} else if err != nil {
		return err
	}
	if err := unix.Mount(src, real, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mounting %s over %s: %w", src, real, err)
	}
	return nil
}

// overlay makes dir writable in this mount namespace only (Linux 5.11 allows it without privileges).
func overlay(dir string) error {
	tmp, err := os.MkdirTemp("", "usernet-etc-")
	if err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", tmp, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=1m"); err != nil {
		return err
	}
	upper, work := filepath.Join(tmp, "upper"), filepath.Join(tmp, "work")
	if err := errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755)); err != nil {
		return err
	}
	return unix.Mount("overlay", dir, "overlay", 0, "userxattr,lowerdir="+dir+",upperdir="+upper+",workdir="+work)
}

// enterRoot makes dir the root file system, with /proc, /dev, /sys and /tmp of its own.
func enterRoot(dir string, etc []string) (files []*os.File, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("root file system %s: not a directory that can be read", dir)
	}
	if err := unix.Mount(dir, dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return nil, fmt.Errorf("root file system %s: %w", dir, err)
	}
	for _, d := range []string{"proc", "dev", "sys", "tmp", "etc"} {
		_ = os.MkdirAll(filepath.Join(dir, d), 0o755) // a read-only root may have them
	}
	mountProc(filepath.Join(dir, "proc"))
	if err := unix.Mount("/dev", filepath.Join(dir, "dev"), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return nil, fmt.Errorf("%s/dev: %w", dir, err)
	}
	_ = unix.Mount("/sys", filepath.Join(dir, "sys"), "", unix.MS_BIND|unix.MS_REC, "")
	if err := unix.Mount("tmpfs", filepath.Join(dir, "tmp"), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return nil, fmt.Errorf("%s/tmp: %w", dir, err)
	}
	files, err = stageEtc(etc, func(path, name string) error {
		at := filepath.Join(dir, "etc", name)
		if _, err := os.Lstat(at); err != nil {
			_ = os.WriteFile(at, nil, 0o644)
		}
		if err := unix.Mount(path, at, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mounting over %s: %w", at, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := os.Chdir(dir); err != nil {
		return nil, err
	}
	// pivot_root(2), NOTES: with the same directory twice the old root ends up on top and is then detached.
	if err := unix.PivotRoot(".", "."); err != nil {
		return nil, fmt.Errorf("pivot_root to %s: %w", dir, err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return nil, fmt.Errorf("leaving the old root: %w", err)
	}
	return files, os.Chdir("/")
}
