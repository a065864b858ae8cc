package sockio

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

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
	if closed := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); closed != nil {
		return -1, closed
	}
	if err != nil {
		return -1, fmt.Errorf("duplicate a descriptor: %w", err)
	}
	return fd, nil
}

// ParseRights returns the descriptors in control messages. Messages of other kinds are passed over. With an error come
// those that stood before what is damaged: the caller closes them.
func ParseRights(oob []byte) (fds []int, err error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("control messages: %w", err)
	}
	for i := range messages {
		h := messages[i].Header
		if h.Level != unix.SOL_SOCKET || h.Type != unix.SCM_RIGHTS {
			continue
		}
		some, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return fds, fmt.Errorf("descriptors in a control message: %w", err)
		}
		for _, fd := range some {
			unix.CloseOnExec(fd) // for who received without MSG_CMSG_CLOEXEC
		}
		fds = append(fds, some...)
	}
	return fds, nil
}

// Close closes descriptors that nobody takes.
func Close(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd) // nothing was written to them
	}
}
