package tap

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/sockio"
	vswitch "github.com/usernet/usernet/switch"
)

// ErrGone is returned once the TAP itself is gone: removed inside the sandbox.
var ErrGone = errors.New("TAP is gone")

// Device is a TAP as the daemon holds it: a switch port's device. Its methods may be called by many goroutines at
// once, Serve by one at a time.
type Device struct {
	file   *os.File
	raw    syscall.RawConn
	closed atomic.Bool
	header int // first byte of Frame.Header that the TAP carries: 0, or where Ethernet begins

	stopped atomic.Bool // Serve is to end
	serving sync.Mutex  // held by Serve
}

var _ vswitch.Device = (*Device)(nil)

// Open wraps a TAP's descriptor, and takes f over, also when it fails. Whether frames carry virtio headers is asked of
// the TAP; plain says it for descriptors that are none.
func Open(f *os.File, plain bool) (*Device, error) {
	dev, err := open(f, plain)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open TAP: %w", err), f.Close())
	}
	return dev, nil
}

func open(f *os.File, plain bool) (*Device, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	// A descriptor that was blocking when its os.File was made is not in Go's poller: make a new os.File.
	fd, failed := -1, error(nil)
	if err := raw.Control(func(old uintptr) {
		if virtio, known := carriesVirtio(int(old)); known {
			plain = !virtio
		}
		fd, failed = sockio.DupFD(int(old))
	}); err != nil {
		return nil, err
	}
	if failed != nil {
		return nil, failed
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	dev := &Device{file: os.NewFile(uintptr(fd), f.Name())}
	if plain {
		dev.header = vswitch.VirtioHeaderLen
	}
	if dev.raw, err = dev.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, dev.file.Close())
	}
	if err := f.Close(); err != nil {
		return nil, errors.Join(err, dev.file.Close())
	}
	return dev, nil
}

// Plain says whether the TAP carries no virtio headers.
func (d *Device) Plain() bool { return d.header != 0 }

// Close ends Serve and all later writes. It waits for those under way, so Serve's port must not call it.
func (d *Device) Close() error {
	d.closed.Store(true)
	d.stopped.Store(true)
	if err := d.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("close TAP: %w", err)
	}
	return nil
}

// Stop ends Serve for good, and returns when the port has received all frames that were read. Later frames wait in the
// TAP for another process that has it open. Frames can still be written. Serve's port must not call it.
func (d *Device) Stop() {
	d.stopped.Store(true)
	_ = d.file.SetReadDeadline(time.Unix(1, 0)) // long past; the error of a TAP that is closed is as good
	d.serving.Lock()
	defer d.serving.Unlock() // locked to wait, not to hold
}

// Copy returns another descriptor of the TAP, which is the caller's. The interface has a carrier while one is open.
func (d *Device) Copy() (fd int, err error) {
	if fd, err = sockio.DupRaw(d.raw); err != nil {
		return -1, d.failed(err)
	}
	return fd, nil
}

// WriteFrame implements vswitch.Device.
func (d *Device) WriteFrame(f *vswitch.Frame) error {
	if d.Plain() && !f.Plain() {
		return f.Segments(d.writeBytes)
	}
	w := writers.Get().(*writer)
	defer writers.Put(w)
	return w.write(d, f.Header[d.header:], f.Payload)
}

// writeBytes sends one complete Ethernet frame to a plain TAP.
func (d *Device) writeBytes(frame []byte) error {
	w := writers.Get().(*writer)
	defer writers.Put(w)
	w.one[0] = frame[vswitch.EthernetHeaderLen:]
	defer clear(w.one[:])
	return w.write(d, frame[:vswitch.EthernetHeaderLen], w.one[:])
}

// writers is shared by all TAPs: as many as write at one time.
var writers = sync.Pool{New: func() any {
	w := new(writer)
	w.call = w.writev
	return w
}}

// translate gives the kernel's errors the meaning they have for a TAP.
func translate(errno syscall.Errno) error {
	switch errno {
	case 0:
		return nil
	case unix.EBADFD, unix.ENODEV, unix.ENETDOWN, unix.ENXIO: // the latter two of packet sockets
		return fmt.Errorf("%w: %w", ErrGone, errno)
	}
	return errno
}

// failed makes the error of a closed file, which package os keeps to itself here, the one that network code looks for.
func (d *Device) failed(err error) error {
	if d.closed.Load() {
		return net.ErrClosed
	}
	return fmt.Errorf("TAP: %w", err)
}
