package relay

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// pipeSize is how many bytes are on their way between two sockets: what the kernel lets any user have
// (fs.pipe-max-size). With the default of 64 KiB each super-frame is a system call more.
const pipeSize = 1 << 20

// pipe is what splice(2) needs between two sockets.
type pipe struct{ r, w int }

func (p *pipe) close() {
	_ = unix.Close(p.r)
	_ = unix.Close(p.w)
}

// Pipes are the pipes of all sessions of a process. A session has one only while it moves data; idle ones are kept for
// the next.
type Pipes struct {
	idle chan *pipe
	fits func(fd int) bool
}

// NewPipes makes pipes of which at most idle are kept. fits says whether a new one may be used, of which fd was opened
// last; nil: always. Without a pipe a session's bytes are copied.
func NewPipes(idle int, fits func(fd int) bool) *Pipes {
	if fits == nil {
		fits = func(int) bool { return true }
	}
	return &Pipes{idle: make(chan *pipe, idle), fits: fits}
}

// Close closes the idle pipes. No session uses any.
func (ps *Pipes) Close() {
	for {
		select {
		case p := <-ps.idle:
			p.close()
		default:
			return
		}
	}
}

// get returns an empty pipe; EMFILE where none may be used.
func (ps *Pipes) get() (*pipe, error) {
	select {
	case p := <-ps.idle:
		return p, nil
	default:
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, err
	}
	if !ps.fits(fds[1]) {
		return nil, errors.Join(unix.EMFILE, unix.Close(fds[0]), unix.Close(fds[1]))
	}
	_, _ = unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, pipeSize) // refused where the user has many pipes
	return &pipe{fds[0], fds[1]}, nil
}

// put takes an empty pipe back.
func (ps *Pipes) put(p *pipe) {
	select {
	case ps.idle <- p:
	default:
		p.close()
	}
}

// pending is what was read from one socket, and the other would not take yet.
type pending struct {
	bytes []byte
	p     *pipe
	n     int64 // bytes in p
}

// release returns a pipe with what is pending in it, for another process and no longer the pending's, and how many
// bytes that are. The descriptor is -1 where nothing is pending, or the kernel has no room.
func (pd *pending) release(pipes *Pipes) (fd int, n int64) {
	if pd.p != nil { // then all else was written before
		p := pd.p
		pd.p = nil
		_ = unix.Close(p.w)
		return p.r, pd.n
	}
	if len(pd.bytes) == 0 {
		return -1, 0
	}
	p, err := pipes.get()
	if err != nil {
		return -1, int64(len(pd.bytes))
	}
	if m, err := unix.Write(p.w, pd.bytes); err != nil || m < len(pd.bytes) {
		p.close()
		return -1, int64(len(pd.bytes))
	}
	_ = unix.Close(p.w)
	return p.r, int64(len(pd.bytes))
}

func (pd *pending) close() {
	if pd.p != nil {
		pd.p.close()
		pd.p = nil
	}
}

// readPending reads what release has stored. It closes fd; -1: there is nothing.
func readPending(fd int, n int64) (pd pending, err error) {
	if fd < 0 {
		return pd, nil
	}
	defer unix.Close(fd)
	if n < 0 || n > pipeSize {
		return pd, fmt.Errorf("a pipe of %d bytes", n)
	}
	pd.bytes = make([]byte, n)
	for got := 0; got < len(pd.bytes); {
		m, err := unix.Read(fd, pd.bytes[got:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || m == 0 {
			return pending{}, errors.Join(io.ErrUnexpectedEOF, err)
		}
		got += m
	}
	return pd, nil
}
