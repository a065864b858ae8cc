package sockio

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// DupFD returns another descriptor of what fd is.
func DupFD(fd int) (int, error) { return DupFDFrom(fd, 0) }

// DupFDFrom is DupFD for a descriptor whose number is at least lowest.
func DupFDFrom(fd, lowest int) (int, error) {
	other, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, lowest)
	if err != nil {
		return -1, fmt.Errorf("duplicate a descriptor: %w", err)
	}
	return other, nil
}

// Dup returns another descriptor of what c is: a socket, a TAP, a file.
func Dup(c syscall.Conn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	return DupRaw(raw)
}

// DupRaw is Dup for a raw connection. The error is the connection's own where that is closed.
func DupRaw(raw syscall.RawConn) (fd int, err error) {
	if closed := raw.Control(func(old uintptr) { fd, err = DupFD(int(old)) }); closed != nil {
		return -1, closed
	}
	return fd, err
}

// Close closes descriptors that nobody takes.
func Close(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd) // nothing was written to them
	}
}
