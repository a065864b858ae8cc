package relay

import (
	"errors"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/sockio"
)

// mover moves one half of a session from socket to socket. The kernel moves pages: nothing is copied into this process,
// unless there is no pipe.
type mover struct {
	pipes    *Pipes
	dst, src *sockio.Conn
	pending  *pending       // what was read from src and not written yet
	moved    *atomic.Uint64 // is added what has arrived
	stall    stall
	from, to syscall.RawConn // of src and dst
}

// move writes what is pending, then moves what src brings until src ends, and passes its end on. After an error pending
// is what was not moved. The stall ends it where src is reset while dst takes nothing.
func (m *mover) move() (err error) {
	if m.from, err = m.src.SyscallConn(); err != nil {
		return err
	}
	if m.to, err = m.dst.SyscallConn(); err != nil {
		return err
	}
	if err := m.pushBytes(); err != nil {
		return err
	}
	for {
		p, n, err := m.fill()
		switch {
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
			n, err = m.copyOnce() // until there are descriptors again
			if err != nil {
				return err
			}
		case err != nil:
			return err
		case n > 0:
			if left, err := m.drain(p, n); err != nil {
				m.pending.p, m.pending.n = p, left
				return err
			}
			m.pipes.put(p)
		default:
			m.pipes.put(p)
		}
		if n == 0 {
			return m.dst.CloseWrite()
		}
	}
}

// copyOnce waits for data and copies it, for want of a pipe. n is 0 at the end of the stream.
func (m *mover) copyOnce() (n int64, err error) {
	if m.pending.bytes, err = readSome(m.from); err != nil {
		return 0, err
	}
	n = int64(len(m.pending.bytes))
	return n, m.pushBytes()
}

// pushBytes writes the bytes that are pending. What could not be written stays so.
func (m *mover) pushBytes() error {
	for len(m.pending.bytes) > 0 {
		n, err := m.push(func(fd int) (int64, error) {
			n, err := unix.Write(fd, m.pending.bytes)
			return int64(n), err
		})
		if err != nil {
			return err
		}
		m.moved.Add(uint64(n))
		m.pending.bytes = m.pending.bytes[n:]
	}
	return nil
}

// readSome waits for data and reads it; nothing at the end of the stream.
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
func (m *mover) push(write func(fd int) (int64, error)) (n int64, err error) {
	waited := false
	werr := m.to.Write(func(fd uintptr) bool {
		if waited {
			m.stall.end()
		}
		n, err = write(int(fd))
		for errors.Is(err, unix.EINTR) {
			n, err = write(int(fd))
		}
		if !errors.Is(err, unix.EAGAIN) {
			return true
		}
		if waited = m.stall.begin(); !waited {
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
func (m *mover) fill() (p *pipe, n int64, err error) {
	var serr error
	err = m.from.Read(func(fd uintptr) bool {
		if p, serr = m.pipes.get(); serr != nil {
			return true
		}
		for {
			n, serr = unix.Splice(int(fd), nil, p.w, nil, pipeSize, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
			if n <= 0 {
				n, serr = p.readPastUrgent(int(fd), n, serr)
			}
			if !errors.Is(serr, unix.EINTR) {
				break
			}
		}
		if errors.Is(serr, unix.EAGAIN) {
			m.pipes.put(p)
			p = nil
			return false
		}
		return true
	})
	if err = errors.Join(err, serr); err != nil && p != nil {
		m.pipes.put(p)
		p = nil
	}
	return p, n, err
}

// readPastUrgent is for what splice(2) said is nothing, or the end: to it that is what stands behind urgent data, which
// read(2) passes.
func (p *pipe) readPastUrgent(fd int, spliced int64, serr error) (int64, error) {
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
func (m *mover) drain(p *pipe, n int64) (left int64, err error) {
	for n > 0 {
		k, err := m.push(func(fd int) (int64, error) {
			return unix.Splice(p.r, nil, fd, nil, int(n), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		})
		if err != nil {
			return n, err
		}
		n -= k
		m.moved.Add(uint64(k))
	}
	return 0, nil
}
