package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// setupFiles are the parts of a new sandbox that the process which started it needs.
type setupFiles struct {
	etc     []*os.File // files of /etc that it writes
	master  *os.File   // its end of the terminal; nil: there is none that was made inside
	console *os.File   // the command's end
	// mounts is the mount namespace that the init is about to leave; nil: it stays. Who closes it last waits for a
	// grace period of RCU (put_mnt_ns in fs/namespace.c), which would else be the init on its way to the command.
	mounts *os.File
}

// setUpNamespaces gives the new namespaces their mounts and names. No other process is in them yet.
func setUpNamespaces(q startRequest) (f setupFiles, err error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return f, fmt.Errorf("making mounts private: %w", err)
	}
	gids := mappedIDs("/proc/self/gid_map")
	if q.Spec.Rootfs != "" {
		f, err = setUpRootfs(q)
	} else {
		f, err = setUpCallersFiles(q)
	}
	if err != nil {
		return f, err
	}
	if q.Spec.ownsNet() {
		allowLowPorts(gids)
	}
	if !q.Spec.AllSystemPaths {
		if err := restrictSystemPaths(); err != nil {
			return f, err
		}
	}
	return f, setNames(q)
}

// ownsNet says whether the sandbox has a network namespace of its own.
func (s Spec) ownsNet() bool { return !s.HostNetwork && s.JoinNet == nil }

// setUpCallersFiles sets up a sandbox that has the caller's files.
func setUpCallersFiles(q startRequest) (f setupFiles, err error) {
	if err := becomeRoot(); err != nil { // in the namespaces of another sandbox, or where it was asked for
		return f, err
	}
	if err := hideAll(q.Spec.Hidden, "/etc/resolv.conf", "/etc/hosts", "/etc/hostname"); err != nil {
		return f, err
	}
	layers, err := openLayers(q.Spec)
	if err != nil {
		return f, err
	}
	defer closeLayers(layers)
	if q.Spec.ReadOnly {
		if err := callersReadOnly(); err != nil {
			return f, err
		}
	}
	if err := mountLayers(layers, false, isEtc); err != nil {
		return f, err
	}
	f.etc, err = stageEtc(q.Etc, new(etcOverlay).mount)
	if err != nil {
		return f, err
	}
	// A /proc on top of the tmpfs hides it for good, as mounts are locked: umount(2) would wait for a grace period of
	// RCU (namespace_unlock in fs/namespace.c), which takes some milliseconds, and more on a busy machine.
	if mountProc() != nil { // then the caller's stays, some of which is masked already
		if err := unstageEtc(q.Etc); err != nil {
			return f, err
		}
	}
	if !q.Spec.HostNetwork {
		mountSys()
	}
	return f, mountLayers(layers, false, isNotEtc)
}

// isEtc says whether something is mounted over /etc as a whole, and so before single files in it.
func isEtc(target string) bool { return target == "/etc" }

func isNotEtc(target string) bool { return !isEtc(target) }

// callersReadOnly makes all of the caller's files read-only. Shared memory, which programs make files in, is the
// sandbox's own instead.
func callersReadOnly() error {
	fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := makeReadOnly(fd, unix.AT_RECURSIVE); err != nil {
		return err
	}
	if _, err := os.Stat("/dev/shm"); err != nil {
		return nil
	}
	if err := unix.Mount("tmpfs", "/dev/shm", "tmpfs", mountFlags, "mode=1777,size=64m"); err != nil { // Docker's size
		return fmt.Errorf("/dev/shm: %w", err)
	}
	return nil
}

// setUpRootfs makes the spec's directory the root file system, and all else of it the sandbox's own. The directory is
// entered first: links in it, which an earlier container may have made, then lead nowhere outside.
func setUpRootfs(q startRequest) (f setupFiles, err error) {
	dir := q.Spec.Rootfs
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return f, fmt.Errorf("root file system %s: not a directory that can be read", dir)
	}
	opened, err := openDevices(q.Spec.Devices)
	if err != nil {
		return f, err
	}
	defer closeTrees(opened)
	if err := hideAll(q.Spec.Hidden); err != nil { // else a volume could show it
		return f, err
	}
	layers, err := openLayers(q.Spec)
	if err != nil {
		return f, err
	}
	defer closeLayers(layers)
	if err := bind(dir, dir); err != nil {
		return f, fmt.Errorf("root file system: %w", err)
	}
	if err := os.Chdir(dir); err != nil {
		return f, err
	}
	// Up to here the caller's permissions count, from here on the sandbox's.
	if err := becomeRoot(); err != nil {
		return f, err
	}
	// pivot_root(2), NOTES: with the same directory twice the old root ends up on top of the new one, where no path
	// leads to. It has to stay until the new /proc and /sys are mounted: the kernel looks for others that show as much.
	if err := unix.PivotRoot(".", "."); err != nil {
		return f, fmt.Errorf("pivot_root to %s: %w", dir, err)
	}
	if err := mountSystem(q.Spec); err != nil {
		return f, err
	}
	// Before anything is looked for behind links: while the old root is on top, "/.." leads there.
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return f, fmt.Errorf("leaving the old root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return f, err
	}
	if f.etc, err = mountInRootfs(q, opened, layers); err != nil {
		return f, err
	}
	if q.Spec.TTY {
		if f.master, f.console, err = console(); err != nil {
			return f, err
		}
	}
	if !q.Spec.ReadOnly {
		return f, nil
	}
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return f, err
	}
	defer unix.Close(root)
	return f, makeReadOnly(root, 0)
}

// mountSystem mounts /proc and /sys in a root file system. The directories on which something is mounted there are no
// links.
func mountSystem(s Spec) error {
	for _, path := range []string{"/proc", "/sys", "/tmp", "/etc"} {
		if err := directory(path); err != nil {
			return err
		}
	}
	if err := mountProc(); err != nil && !s.NoProc {
		return fmt.Errorf(
			"%w; is this itself a container, with a /proc of which parts are masked? Start that one with "+
				"--security-opt systempaths=unconfined, or this one with --security-opt proc=none, which leaves "+
				"/proc empty",
			err,
		)
	}
	if !s.HostNetwork {
		mountSys() // else it has none
	}
	return nil
}

// mountInRootfs mounts what a root file system needs besides.
func mountInRootfs(q startRequest, opened map[string]tree, layers []layer) (etc []*os.File, err error) {
	if err := unix.Mount("tmpfs", "/tmp", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return nil, fmt.Errorf("/tmp: %w", err)
	}
	if err := mountLayers(layers, true, isEtc); err != nil {
		return nil, err
	}
	etc, err = stageEtc(q.Etc, func(path, name string) error {
		at, err := mountPoint("/etc/" + name)
		if err != nil {
			return err
		}
		return bind(path, at)
	})
	if err == nil {
		err = unstageEtc(q.Etc)
	}
	if err != nil {
		return etc, err
	}
	if err := mountDev(opened); err != nil {
		return etc, err
	}
	return etc, mountLayers(layers, true, isNotEtc)
}

// setNames gives the sandbox its host and domain name. A host name that nobody asked for is not worth a failure: the
// filter on system calls of Podman's containers refuses sethostname(2), and allows all else that a sandbox needs.
func setNames(q startRequest) error {
	name := q.Spec.Hostname
	if q.Hostname != "" {
		name = q.Hostname
	}
	if name != "" {
		err := unix.Sethostname([]byte(name))
		if err != nil && !(q.Spec.Hostname == "" && refusedByFilter(err)) {
			return fmt.Errorf("host name %q: %w", name, err)
		}
	}
	if q.Spec.Domainname != "" {
		if err := unix.Setdomainname([]byte(q.Spec.Domainname)); err != nil {
			return fmt.Errorf("domain name %q: %w", q.Spec.Domainname, err)
		}
	}
	return nil
}

// etcOverlay mounts files over those of the caller's /etc.
type etcOverlay struct {
	made  bool        // /etc is covered by an overlay
	bound [][2]string // source and name of what was mounted before
}

// mount mounts src over the file of that name, or what that is a link to. Where it does not exist, /etc is covered by
// an overlay in which it does (Linux 5.11 allows that without privileges); what is written there lies on the tmpfs that
// stageEtc has made.
func (e *etcOverlay) mount(src, name string) error {
	at := "/etc/" + name
	real, err := filepath.EvalSymlinks(at)
	if err == nil {
		e.bound = append(e.bound, [2]string{src, name})
		return bind(src, real)
	}
	if !errors.Is(err, os.ErrNotExist) || name == "hostname" {
		return nil // a host without the file does not miss it
	}
	if !e.made {
		upper, work := etcStage+"/upper", etcStage+"/work"
		err := errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755))
		if err == nil {
			err = unix.Mount("overlay", "/etc", "overlay", 0,
				"userxattr,lowerdir=/etc,upperdir="+upper+",workdir="+work)
		}
		if err != nil {
			return fmt.Errorf("%s does not exist here and cannot be made: %w; create an empty file at that place", at,
				err)
		}
		e.made = true
		for _, b := range e.bound { // the overlay covers them
			if err := e.mount(b[0], b[1]); err != nil {
				return err
			}
		}
	}
	_ = os.Remove(at) // a link to nowhere
	if err := os.WriteFile(at, nil, 0o644); err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	return bind(src, at)
}
