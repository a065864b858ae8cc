package sandbox

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// ErrOwnNetwork is that of a network namespace which is this process's own.
var ErrOwnNetwork = errors.New("it is the network namespace that usernet itself runs in")

// NetworkNamespace says which network namespace f is; an error where it is something else, or this process's own.
func NetworkNamespace(f *os.File) (NamespaceID, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return NamespaceID{}, os.NewSyscallError("fstatfs", err)
	}
	if fs.Type != unix.NSFS_MAGIC {
		return NamespaceID{}, errors.New("the descriptor is not a namespace's")
	}
	if kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE); err != nil || kind != unix.CLONE_NEWNET {
		return NamespaceID{}, errors.Join(errors.New("the descriptor is that of another kind of namespace"), err)
	}
	if own, err := sameNamespace(f, "/proc/self/ns/net"); err != nil || own {
		return NamespaceID{}, errors.Join(ErrOwnNetwork, err)
	}
	return namespaceID(int(f.Fd()))
}
