package sockio

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Ready returns which of some events (poll(2)) a descriptor has now, without waiting; POLLERR, POLLHUP and POLLNVAL may
// be among them unasked. It asks again where a signal comes in between: Go's runtime sends its threads some at any
// time, and poll then fails even where it does not wait (EINTR).
func Ready(fd int, events int16) (int16, error) {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: events}}
	for {
		_, err := unix.Poll(fds[:], 0)
		if !errors.Is(err, unix.EINTR) {
			return fds[0].Revents, os.NewSyscallError("poll", err)
		}
	}
}
