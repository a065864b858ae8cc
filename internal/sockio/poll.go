package sockio

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Ready returns which of some events (poll(2)) a descriptor has now, without waiting, and POLLERR, POLLHUP and POLLNVAL
// where it has these. When a signal interrupts it, it asks again: Go's runtime sends signals to its threads, and poll
// then fails with EINTR even where it does not wait.
func Ready(fd int, events int16) (int16, error) {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: events}}
	for {
		_, err := unix.Poll(fds[:], 0)
		if !errors.Is(err, unix.EINTR) {
			return fds[0].Revents, os.NewSyscallError("poll", err)
		}
	}
}
