package sockio

import (
	"encoding/binary"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Yielder lets other goroutines run, also those that wait for descriptors. One goroutine uses it; the zero value is
// ready.
//
// A goroutine that always finds something to do holds its processor. Go's scheduler stops it after 10 ms only, and
// while goroutines can run it polls descriptors no more often than that (runtime: sysmon), so [runtime.Gosched] helps
// those alone that can run already. On a small machine, where the daemon runs on one processor, a neighbour's frames
// would wait that long behind a flood, each time. So a busy reader parks itself now and then, on an eventfd(2) that
// is ready at once. To find that out the scheduler polls all descriptors, and it first runs the goroutines that wait
// for them.
type Yielder struct {
	file *os.File // an eventfd; nil before the first use
	raw  syscall.RawConn
	wake func(fd uintptr) bool

	parked bool
}

// Yield returns when others have had their turn.
func (y *Yielder) Yield() {
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
func (y *Yielder) open() bool {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return false
	}
	y.file = os.NewFile(uintptr(fd), "eventfd")
	if y.raw, err = y.file.SyscallConn(); err != nil {
		y.Close()
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

// Close closes the eventfd. Closing it again does nothing.
func (y *Yielder) Close() {
	if y.file != nil {
		_ = y.file.Close() // nothing was written that could be lost
		y.file = nil
	}
}
