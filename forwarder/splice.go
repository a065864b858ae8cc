package forwarder

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/sockio"
)

// pipeSize is how many bytes are on their way between two sockets: what the kernel lets any user have
// (fs.pipe-max-size). With the default of 64 KiB each super-frame is a system call more.
const pipeSize = 1 << 20

// pipe is what splice(2) needs between two sockets.
type pipe struct{ r, w int }

// pipes keeps idle pipes. A flow has one only while it moves data.
var pipes = make(chan *pipe, 64)

func getPipe() (*pipe, error) {
	select {
	case p := <-pipes:
		return p, nil
	default:
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, err
	}
	if !pipeFits(fds[1]) {
		return nil, errors.Join(unix.EMFILE, unix.Close(fds[0]), unix.Close(fds[1]))
	}
	_, _ = unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, pipeSize) // refused where the user has many pipes
	return &pipe{fds[0], fds[1]}, nil
}

func putPipe(p *pipe) {
	select {
	case pipes <- p:
	default:
		p.close()
	}
}

func (p *pipe) close() {
	_ = unix.Close(p.r)
	_ = unix.Close(p.w)
}

// rest is what was read from one socket, and the other would not take yet.
type rest struct {
	bytes []byte
	p     *pipe
	n     int64 // bytes in p
}

// pipe returns a pipe with the rest in it, for another process and no longer the rest's, and how many bytes that are; without
// any, or where the kernel has no room, -1.
func (r *rest) pipe() (fd int, n int64) {
	if r.p != nil { // then all else was written before
		p := r.p
		r.p = nil
		_ = unix.Close(p.w)
		return p.r, r.n
	}
	if len(r.bytes) == 0 {
		return -1, 0
	}
	p, err := getPipe()
	if err != nil {
		return -1, int64(len(r.bytes))
	}
	if m, err := unix.Write(p.w, r.bytes); err != nil || m < len(r.bytes) {
		p.close()
		return -1, int64(len(r.bytes))
	}
	_ = unix.Close(p.w)
	return p.r, int64(len(r.bytes))
}

// readPipe is what pipe has stored. It closes fd.
func readPipe(fd int, n int64) (r rest, err error) {
	if fd < 0 {
		return r, nil
	}
	defer unix.Close(fd)
	if n < 0 || n > pipeSize {
		return r, fmt.Errorf("a pipe of %d bytes", n)
	}
	r.bytes = make([]byte, n)
	for got := 0; got < len(r.bytes); {
		m, err := unix.Read(fd, r.bytes[got:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || m == 0 {
			return rest{}, errors.Join(io.ErrUnexpectedEOF, err)
		}
		got += m
	}
	return r, nil
}

// splice writes r to dst, then moves what src brings until src ends, passes its end on, and adds to moved what has arrived. The
// kernel moves pages from socket to socket: nothing is copied into this process. After an error r is what was not moved. st ends
// it where src is reset while dst takes nothing.
func splice(dst, src *sockio.Conn, r *rest, moved *atomic.Uint64, st *stall) error {
	from, err := src.SyscallConn()
	if err != nil {
		return err
	}
	to, err := dst.SyscallConn()
	if err != nil {
		return err
	}
	if err := pushBytes(to, r, moved, st); err != nil {
		return err
	}
	for {
		p, n, err := fill(from)
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) { // copied, until there are descriptors again
			if r.bytes, err = readSome(from); err == nil && len(r.bytes) == 0 {
				return dst.CloseWrite()
			}
			if err == nil {
				err = pushBytes(to, r, moved, st)
			}
			if err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			putPipe(p)
			return dst.CloseWrite()
		}
		if n, err = drain(p, to, n, moved, st); err != nil {
			r.p, r.n = p, n
			return err
		}
		putPipe(p)
	}
}

// pushBytes writes the bytes of r. What could not be written is left in it.
func pushBytes(to syscall.RawConn, r *rest, moved *atomic.Uint64, st *stall) error {
	for len(r.bytes) > 0 {
		n, err := push(to, st, func(fd int) (int64, error) { n, err := unix.Write(fd, r.bytes); return int64(n), err })
		if err != nil {
			return err
		}
		moved.Add(uint64(n))
		r.bytes = r.bytes[n:]
	}
	return nil
}

// readSome waits for data and reads it, for want of a pipe; nothing at the end of the stream.
func readSome(from syscall.RawConn) (b []byte, err error) {
	var serr error
	err = from.Read(func(fd uintptr) bool {
		if b == nil {
			b = make([]byte, sockio.ReactorBuffer)
		}
		var n int
		for {
			if n, serr = unix.Read(int(fd), b); !errors.Is(serr, unix.EINTR) {
				break
			}
		}
		if errors.Is(serr, unix.EAGAIN) {
			b, serr = nil, nil
			return false
		}
		b = b[:max(n, 0)]
		return true
	})
	return b, errors.Join(err, serr)
}

// push calls write once it does not say EAGAIN.
func push(to syscall.RawConn, st *stall, write func(fd int) (int64, error)) (n int64, err error) {
	waited := false
	werr := to.Write(func(fd uintptr) bool {
		if waited {
			st.end()
		}
		n, err = write(int(fd))
		for errors.Is(err, unix.EINTR) {
			n, err = write(int(fd))
		}
		if !errors.Is(err, unix.EAGAIN) {
			return true
		}
		if waited = st.begin(); !waited {
			err = unix.ECONNRESET
		}
		return !waited
	})
	if err = errors.Join(err, werr); err != nil {
		return 0, err
	}
	return n, nil
}

// fill waits for data, and only then takes a pipe and fills it. n is 0 at the end of the stream.
func fill(from syscall.RawConn) (p *pipe, n int64, err error) {
	var serr error
	err = from.Read(func(fd uintptr) bool {
		if p, serr = getPipe(); serr != nil {
			return true
		}
		for {
			n, serr = unix.Splice(int(fd), nil, p.w, nil, pipeSize, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
			if n <= 0 {
				n, serr = p.read(int(fd), n, serr)
			}
			if !errors.Is(serr, unix.EINTR) {
				break
			}
		}
		if errors.Is(serr, unix.EAGAIN) {
			putPipe(p)
			p = nil
			return false
		}
		return true
	})
	if err = errors.Join(err, serr); err != nil && p != nil {
		putPipe(p)
		p = nil
	}
	return p, n, err
}

// read is for what splice(2) said is nothing, or the end: to it that is what stands behind urgent data, which read(2) passes.
func (p *pipe) read(fd int, spliced int64, serr error) (int64, error) {
	if serr != nil && !errors.Is(serr, unix.EAGAIN) {
		return spliced, serr
	}
	var buf [512]byte // below PIPE_BUF (pipe(7)), which an empty pipe takes whole
	n, err := unix.Read(fd, buf[:])
	if n > 0 {
		n, err = unix.Write(p.w, buf[:n])
	}
	return int64(n), err
}

// drain empties a pipe that holds n bytes. With an error it says how many are left.
func drain(p *pipe, to syscall.RawConn, n int64, moved *atomic.Uint64, st *stall) (left int64, err error) {
	for n > 0 {
		m, err := push(to, st, func(fd int) (int64, error) {
			return unix.Splice(p.r, nil, fd, nil, int(n), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		})
		if err != nil {
			return n, err
		}
		n -= m
		moved.Add(uint64(m))
	}
	return 0, nil
}
