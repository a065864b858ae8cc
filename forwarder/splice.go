package forwarder

import (
	"errors"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
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

// splice writes first to dst, then moves what src brings until src ends, passes its end on, and adds to moved what has
// arrived. The kernel moves pages from socket to socket: nothing is copied into this process.
func splice(dst, src *SocketConn, first []byte, moved *atomic.Uint64) error {
	n, err := dst.Write(first)
	moved.Add(uint64(n))
	if err != nil {
		return err
	}
	from, err := src.SyscallConn()
	if err != nil {
		return err
	}
	to, err := dst.SyscallConn()
	if err != nil {
		return err
	}
	for {
		p, n, err := fill(from)
		if err != nil {
			return err
		}
		if n == 0 {
			putPipe(p)
			return dst.CloseWrite()
		}
		if err := drain(p, to, n, moved); err != nil {
			p.close() // with what is left in it
			return err
		}
		putPipe(p)
	}
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

// drain empties a pipe that holds n bytes.
func drain(p *pipe, to syscall.RawConn, n int64, moved *atomic.Uint64) error {
	for n > 0 {
		var m int64
		var serr error
		err := to.Write(func(fd uintptr) bool {
			for {
				m, serr = unix.Splice(p.r, nil, int(fd), nil, int(n), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
				if !errors.Is(serr, unix.EINTR) {
					break
				}
			}
			return !errors.Is(serr, unix.EAGAIN)
		})
		if err = errors.Join(err, serr); err != nil {
			return err
		}
		n -= m
		moved.Add(uint64(m))
	}
	return nil
}
