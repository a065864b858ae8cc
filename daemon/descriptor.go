package daemon

import (
	"os"

	"golang.org/x/sys/unix"
)

// copyDescriptor returns another descriptor of f, which is the caller's.
func copyDescriptor(f *os.File) (int, error) {
	return unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
}
