package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// mountFlags are those of every file system that the sandbox gets of its own, but /dev, which has devices.
const mountFlags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// bind mounts what is at src, a file or a tree, at the path at.
func bind(src, at string) error {
	if err := unix.Mount(src, at, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mounting %s at %s: %w", src, at, err)
	}
	return nil
}

// readOnly makes what is at path read-only. It keeps the mount's other flags, which may be locked.
func readOnly(path string) error {
	if err := bind(path, path); err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	flags := uintptr(unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY)
	// statfs(2) and mount(2) have the same bits for these; relatime is the default.
	flags |= uintptr(
		st.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME)
	if err := unix.Mount("", path, "", flags, ""); err != nil {
		return fmt.Errorf("making %s read-only: %w", path, err)
	}
	return nil
}

// hide covers what is at path with nothing: a directory with an empty one, anything else with /dev/null. Where there is
// nothing, nothing is done.
func hide(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, os.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return bind("/dev/null", path)
	}
	if err := unix.Mount("tmpfs", path, "tmpfs", mountFlags, "size=4k,nr_inodes=16,mode=0755"); err != nil {
		return fmt.Errorf("covering %s: %w", path, err)
	}
	return nil
}

// directory makes a directory to mount on. A link is refused: what is mounted there, and what is then looked for below
// it, has to be at that path.
func directory(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		if err = os.Mkdir(path, 0o755); err == nil {
			return nil
		}
		return fmt.Errorf("the root file system has no %s, and it cannot be made: %w", path, err)
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s in the root file system is not a directory", path)
	}
	return nil
}

// mountPoint returns the file that is at path, or that a link there leads to, and makes it where it does not exist.
func mountPoint(path string) (string, error) {
	for range 40 { // links; as the kernel, MAXSYMLINKS
		target, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = target
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", fmt.Errorf("%s does not exist and cannot be made: %w", path, err)
	}
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		return "", fmt.Errorf("%s does not exist and cannot be made: %w", path, err)
	}
	return path, nil
}

// A tree is a copy of a mount that is not mounted anywhere yet (open_tree(2), Linux 5.2).
type tree struct{ fd int }

func openTree(path string) (tree, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return tree{-1}, fmt.Errorf("%s: %w", path, err)
	}
	return tree{fd}, nil
}

// mount mounts the tree at a path.
func (t tree) mount(at string) error {
	if err := unix.MoveMount(t.fd, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mounting over %s: %w", at, err)
	}
	return nil
}

func (t tree) close() { _ = unix.Close(t.fd) }
