package tap

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	vswitch "github.com/usernet/usernet/switch"
)

// An uplink is a device that an administrator has given to this user: a TAP of the host's, or a macvtap, whose frames
// come by a character device of its own.

// OpenExisting opens a TAP that is there, as its owner. It fails where another process has it open (EBUSY), or where it
// is another user's (EPERM).
func OpenExisting(name string) (*os.File, error) {
	if err := access(); err != nil {
		return nil, err
	}
	f, err := create(name, Options{Offload: true})
	if errors.Is(err, unix.EPERM) {
		return nil, fmt.Errorf("TAP %s: %w: it is another user's", name, unix.EPERM)
	}
	return f, err
}

// OpenMacvtap opens the character device of a macvtap, /dev/tapN, and asks that its interface is called name: the
// number N is of the interface, and interfaces of other network namespaces may have it as well.
func OpenMacvtap(node, name string) (*os.File, error) {
	fd, err := unix.Open(node, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: node, Err: err}
	}
	if err := prepareMacvtap(fd, name); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("%s: %w", node, err)
	}
	return os.NewFile(uintptr(fd), node), nil
}

func prepareMacvtap(fd int, name string) error {
	var is unix.Ifreq
	if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, &is); err != nil {
		return fmt.Errorf("no macvtap device: %w", err)
	}
	if is.Name() != name {
		return fmt.Errorf("it belongs to the interface %s, not to %s", is.Name(), name)
	}
	is.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, &is); err != nil {
		return fmt.Errorf("virtio headers: %w", err)
	}
	return setOffload(fd)
}

// Gone returns ErrGone once the interface is gone. A macvtap says so in no other way: who reads waits for ever.
func (d *Device) Gone() error {
	var ifr unix.Ifreq
	var err error
	if closed := d.raw.Control(func(fd uintptr) {
		err = unix.IoctlIfreq(int(fd), unix.TUNGETIFF, &ifr)
	}); closed != nil {
		return d.failed(closed)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrGone, err) // EBADFD of a TAP (tun_chr_ioctl), ENOLINK of a macvtap (tap_ioctl)
	}
	return nil
}

// framesAtOnce is how many frames Frames reads before it flushes and lets others run.
const framesAtOnce = 64

// Frames is Serve for frames that may be for several switches: it gives take each frame, and calls flush after some
// dozens and before it waits. take may change the frame, which is read into again when take returns.
func (d *Device) Frames(take func(*vswitch.Frame), flush func()) error {
	d.serving.Lock()
	defer d.serving.Unlock()
	var f vswitch.Frame
	defer f.Release()
	var failed error
	err := d.raw.Read(func(fd uintptr) (stop bool) {
		stop, failed = d.readFrames(int(fd), &f, take, flush)
		return stop
	})
	switch {
	case d.stopped.Load():
		return net.ErrClosed
	case err != nil:
		return d.failed(err)
	}
	return failed
}

// readFrames reads all that is there, and says whether to stop; false waits for more.
func (d *Device) readFrames(fd int, f *vswitch.Frame, take func(*vswitch.Frame), flush func()) (bool, error) {
	defer flush()
	for n := 1; ; n++ {
		if n%framesAtOnce == 0 {
			flush()
			runtime.Gosched()
			if d.stopped.Load() {
				return true, nil
			}
		}
		clear(f.Header[:d.header]) // a plain TAP has nothing left to do
		size, err := unix.Readv(fd, [][]byte{f.Header[d.header:], f.Buffer()})
		var errno syscall.Errno
		switch {
		case errors.Is(err, unix.EAGAIN):
			f.Release()
			return false, nil
		case errors.Is(err, unix.EINTR):
		case errors.As(err, &errno):
			return true, translate(errno)
		case err != nil:
			return true, err
		case size >= vswitch.HeaderLen-d.header:
			f.Fill(size - (vswitch.HeaderLen - d.header))
			f.MorePending = true
			take(f)
		}
	}
}
