package sandbox

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Volume is a file or directory of the caller's that a sandbox has at a further place.
type Volume struct {
	Source   string // absolute; links in it are followed
	Target   string // absolute, in the sandbox; links in it never lead out of the root file system
	ReadOnly bool   // with all that is mounted below it
}

// Tmpfs is an empty file system in memory at a place in the sandbox.
type Tmpfs struct {
	Target     string
	Parameters map[string]string // of tmpfs(5): size, mode, uid, gid, nr_inodes, nr_blocks
	Exec       bool              // programs in it may be executed
	Suid       bool
	ReadOnly   bool
}

// layer is what is about to be mounted at a place.
type layer struct {
	target string
	tree   tree
	file   bool // and no directory
}

// openLayers opens what a spec wants mounted: volumes while the caller's file system is still there, with what is
// hidden in it. The layers are in the order in which they are mounted: what is above something comes first.
func openLayers(s Spec) (list []layer, err error) {
	defer func() {
		if err != nil {
			closeLayers(list)
		}
	}()
	for _, v := range s.Volumes {
		info, err := os.Stat(v.Source)
		if err != nil {
			return list, fmt.Errorf("volume: %w", err)
		}
		// With all that is mounted below it: what covers something there has to stay (has_locked_children in
		// fs/namespace.c).
		flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_RECURSIVE)
		fd, err := unix.OpenTree(unix.AT_FDCWD, v.Source, flags)
		if err != nil {
			return list, fmt.Errorf("volume %s: %w", v.Source, err)
		}
		list = append(list, layer{path.Clean(v.Target), tree{fd}, !info.IsDir()})
		if v.ReadOnly {
			if err := makeReadOnly(fd, unix.AT_RECURSIVE); err != nil {
				return list, fmt.Errorf("volume %s: %w", v.Source, err)
			}
		}
	}
	for _, t := range s.Tmpfs {
		fd, err := t.open()
		if err != nil {
			return list, fmt.Errorf("tmpfs for %s: %w", t.Target, err)
		}
		list = append(list, layer{target: path.Clean(t.Target), tree: tree{fd}})
	}
	slices.SortStableFunc(list, func(a, b layer) int {
		return cmp.Compare(strings.Count(a.target, "/"), strings.Count(b.target, "/"))
	})
	return list, nil
}

func closeLayers(list []layer) {
	for _, l := range list {
		l.tree.close()
	}
}

// makeReadOnly makes a mount read-only (mount_setattr(2), Linux 5.12); with AT_RECURSIVE those below it as well.
func makeReadOnly(fd int, flags uint) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	err := unix.MountSetattr(fd, "", flags|unix.AT_EMPTY_PATH, &attr)
	return os.NewSyscallError("mount_setattr", err)
}

// open makes the file system, which is mounted nowhere yet.
func (t Tmpfs) open() (int, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fs)
	for key, value := range t.Parameters {
		if err := unix.FsconfigSetString(fs, key, value); err != nil {
			return -1, fmt.Errorf("option %s=%s: %w", key, value, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, os.NewSyscallError("fsconfig", err)
	}
	flags := unix.MOUNT_ATTR_NODEV
	for attr, is := range map[int]bool{
		unix.MOUNT_ATTR_NOEXEC: !t.Exec, unix.MOUNT_ATTR_NOSUID: !t.Suid, unix.MOUNT_ATTR_RDONLY: t.ReadOnly,
	} {
		if is {
			flags |= attr
		}
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, flags)
	return fd, os.NewSyscallError("fsmount", err)
}

// mountLayers mounts those of list that want lets pass. Where a place is not there, it is made if create is set.
func mountLayers(list []layer, create bool, want func(target string) bool) error {
	for _, l := range list {
		if !want(l.target) {
			continue
		}
		if err := l.mount(create); err != nil {
			return err
		}
	}
	return nil
}

func (l layer) mount(create bool) error {
	at, err := openInRoot(l.target)
	if create && errors.Is(err, unix.ENOENT) {
		at, err = makeInRoot(l.target, l.file)
	}
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("nothing can be mounted at %s, which does not exist: without a root file system of its own, a "+
			"sandbox has volumes over what is there", l.target)
	case err != nil:
		return fmt.Errorf("mounting at %s: %w", l.target, err)
	}
	defer unix.Close(at)
	var fs unix.Statfs_t
	if err := unix.Fstatfs(at, &fs); err != nil {
		return fmt.Errorf("mounting at %s: %w", l.target, err)
	}
	if fs.Type == unix.PROC_SUPER_MAGIC { // by a link of the root file system's
		return fmt.Errorf("%s cannot be mounted because it leads into /proc, whose parts are masked", l.target)
	}
	err = unix.MoveMount(l.tree.fd, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("mounting at %s: %w", l.target, err)
	}
	return nil
}

// openInRoot opens what is at a path, whatever links there are on the way, below the root directory (openat2(2)).
func openInRoot(name string) (int, error) {
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(root)
	return unix.Openat2(root, "."+name, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// makeInRoot makes a directory, or an empty file, at a path below the root directory, with the directories above it,
// and opens it.
func makeInRoot(name string, file bool) (int, error) {
	words := strings.Split(strings.Trim(name, "/"), "/")
	for i, word := range words {
		at, err := openInRoot("/" + path.Join(words[:i+1]...))
		if err == nil {
			_ = unix.Close(at)
			continue
		}
		if !errors.Is(err, unix.ENOENT) {
			return -1, err
		}
		parent, err := openInRoot("/" + path.Join(words[:i]...))
		if err != nil {
			return -1, err
		}
		if file && i == len(words)-1 {
			var fd int
			fd, err = unix.Openat(parent, word, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
			if err == nil {
				err = unix.Close(fd)
			}
		} else {
			err = unix.Mkdirat(parent, word, 0o755)
		}
		_ = unix.Close(parent)
		if err != nil {
			return -1, err
		}
	}
	return openInRoot(name)
}
