package tap

import (
	"net"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	vswitch "github.com/usernet/usernet/switch"
)

// This file is the hot path: one readv or writev per frame, no allocation. Both are raw system calls: on a
// non-blocking TAP they copy a frame and return, and telling the scheduler about each costs a third as much again.

// reader is the state of one Serve.
type reader struct {
	dev   *Device
	port  *vswitch.Port
	frame vswitch.Frame
	iov   [2]unix.Iovec
	errno syscall.Errno
	turn  yielder
	pace  *vswitch.Pacer

	quotas int // read since the reader last let others run
}

// Serve reads frames into the port until the device is closed or stopped (net.ErrClosed) or the TAP is gone (ErrGone).
func (d *Device) Serve(p *vswitch.Port) error {
	d.serving.Lock()
	defer d.serving.Unlock()
	r := &reader{dev: d, port: p, pace: p.Pacer()}
	defer r.frame.Release()
	defer r.turn.close()
	err := d.raw.Read(r.drain)
	switch {
	case d.stopped.Load():
		return net.ErrClosed
	case err != nil:
		return d.failed(err)
	}
	return translate(r.errno)
}

// drain reads all frames in the TAP's queue, and says whether to stop; false waits for more.
func (r *reader) drain(fd uintptr) bool {
	header := r.dev.header
	r.iov[0].Base = &r.frame.Header[header]
	r.iov[0].SetLen(vswitch.HeaderLen - header)
	r.frame.MorePending = true
	defer r.port.Flush()
	for used := 0; ; {
		if used >= quota { // batches are sent as well: a lone datagram must not wait for a flood to end
			used = 0
			r.port.Flush()
			if pause := r.pace.Round(&r.frame); pause > 0 {
				r.pace.Pause(pause)
				r.quotas = 0
			} else if r.quotas++; r.quotas >= aloneQuotas || r.pace.Contended() {
				r.turn.yield()
				r.quotas = 0
			}
			if r.dev.stopped.Load() {
				return true // a flood has no end
			}
		}
		buf := r.frame.Buffer()
		r.iov[1].Base = &buf[0]
		r.iov[1].SetLen(len(buf))
		size, _, errno := syscall.RawSyscall(unix.SYS_READV, fd, uintptr(unsafe.Pointer(&r.iov)), uintptr(len(r.iov)))
		switch {
		case errno == 0 && int(size) >= vswitch.HeaderLen-header && size > 0:
			r.frame.Fill(int(size) - (vswitch.HeaderLen - header))
			r.port.Receive(&r.frame)
			r.pace.Take(int(size))
			used += 1 + int(size)/quotaBytes
			if pause := r.pace.Limited(); pause > 0 && r.hold(pause) {
				return true
			}
		case errno == 0 && size == 0: // not from a TAP: the other end of a test's socket was closed
			r.errno = unix.ENODEV
			return true
		case errno == 0:
			r.port.CountDrop(vswitch.DropShort)
			r.pace.Take(int(size))
			used++
		case errno == unix.EAGAIN:
			r.iov[1].Base = nil
			r.frame.Release()
			r.quotas = 0
			if pause := r.pace.Round(&r.frame); pause > 0 {
				r.port.Flush()
				r.pace.Pause(pause)
			}
			return false
		case errno == unix.EINTR:
		default:
			r.errno = errno
			return true
		}
	}
}

// hold pauses for as long as the port's limit wants, and says whether to stop.
func (r *reader) hold(pause time.Duration) (stopped bool) {
	r.frame.Release()
	r.port.Flush()
	for ; pause > 0; pause = r.pace.Limited() {
		if r.dev.stopped.Load() {
			return true
		}
		time.Sleep(pause)
	}
	return r.dev.stopped.Load()
}

// maxPieces is how many pieces of a payload are written without copying.
const maxPieces = 64

// writer is the state of one write, with its closure made once.
type writer struct {
	call  func(fd uintptr)
	iov   [1 + maxPieces]unix.Iovec
	n     int
	one   [1][]byte
	errno syscall.Errno
}

// write sends a frame. The descriptor is only referenced, not locked: a TAP takes many writers at once.
func (w *writer) write(d *Device, header []byte, payload [][]byte) error {
	if len(payload) > maxPieces {
		payload = join(payload)
	}
	w.n = 0
	w.add(header)
	for _, p := range payload {
		if len(p) > 0 {
			w.add(p)
		}
	}
	err := d.raw.Control(w.call)
	clear(w.iov[:w.n])
	if err != nil {
		return d.failed(err)
	}
	return translate(w.errno)
}

func (w *writer) add(b []byte) {
	w.iov[w.n].Base = &b[0]
	w.iov[w.n].SetLen(len(b))
	w.n++
}

// writev is the raw system call. EAGAIN (the TAP's queue is full) is an error like others: the frame is lost, as on
// any network.
func (w *writer) writev(fd uintptr) {
	for {
		_, _, w.errno = syscall.RawSyscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&w.iov)), uintptr(w.n))
		if w.errno != unix.EINTR {
			return
		}
	}
}

// join puts the last pieces of a long list into one.
func join(pieces [][]byte) [][]byte {
	head := append([][]byte(nil), pieces[:maxPieces-1]...)
	var tail []byte
	for _, p := range pieces[maxPieces-1:] {
		tail = append(tail, p...)
	}
	return append(head, tail)
}
