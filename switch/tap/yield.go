package tap

import (
	"encoding/binary"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// A reader that always finds frames holds its processor. Go's scheduler stops a goroutine after 10 ms only, and while
// goroutines can run it polls other descriptors no more often than that (runtime: sysmon). On a small machine, where
// the daemon runs on one processor, a neighbour's frames would wait that long behind a flood, each time. So a busy
// reader parks itself now and then, on an eventfd(2) that is ready at once. To find that out the scheduler polls all
// descriptors, and it first runs the goroutines that wait for them.

// quota is how much a reader reads before it sends its batches, asks the pacer and may yield: 64 small frames, or some
// 0.8 MiB of large ones, 0.1 to 0.6 ms of work.
//
// While only the ports that it sends to have frames, it yields after several: acknowledgements that come one at a time
// cost the containers more than those that come together. With each quota, eight streams from container to container
// were a fifth slower. A neighbour that has had no frames for a while waits that long for its first one, and no longer
// after it.
const (
	quota       = 64
	quotaBytes  = 16 << 10 // of a frame's length that count like a frame
	aloneQuotas = 8
)

// yielder lets other goroutines run, also those that wait for descriptors. One goroutine uses it.
type yielder struct {
	file *os.File // an eventfd; nil before the first use
	raw  syscall.RawConn
	wake func(fd uintptr) bool

	parked bool
}

// yield returns when others have had their turn.
func (y *yielder) yield() {
	if y.file == nil && !y.open() {
		runtime.Gosched()
		return
	}
	y.parked = false
	if y.raw.Read(y.wake) != nil {
		runtime.Gosched()
	}
}

// open makes the eventfd, and says whether it could.
func (y *yielder) open() bool {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return false
	}
	y.file = os.NewFile(uintptr(fd), "eventfd")
	if y.raw, err = y.file.SyscallConn(); err != nil {
		y.close()
		return false
	}
	one := binary.NativeEndian.AppendUint64(nil, 1)
	var buf [8]byte
	y.wake = func(fd uintptr) bool {
		if !y.parked {
			y.parked = true
			_, err := unix.Write(int(fd), one)
			return err != nil // false parks the goroutine until the scheduler has seen the event
		}
		_, err := unix.Read(int(fd), buf[:])
		return err != unix.EAGAIN
	}
	return true
}

func (y *yielder) close() {
	if y.file != nil {
		_ = y.file.Close() // nothing was written that could be lost
		y.file = nil
	}
}
