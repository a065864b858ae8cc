package sandbox

import (
	"io"
	"os"
	"sync"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/usernet/usernet/internal/sockio"
)

// terminal joins the caller's standard streams to the sandbox's terminal. A nil terminal does nothing.
type terminal struct {
	master, slave *os.File // nil master: it comes with attach; nil slave: it is not ours to close
	in, out       *os.File
	old           *term.State   // of in, to be restored; nil where in is no terminal
	copied        chan struct{} // closed when all output has been passed on
	mu            sync.Mutex    // over master, closed, stop, and the size of a master that is open
	closed        bool
	stop          *os.File // closing it ends the copying of input; nil: none is copied
}

func newTerminal(master, slave, in, out *os.File) *terminal {
	return &terminal{master: master, slave: slave, in: in, out: out, copied: make(chan struct{})}
}

// attach gives a terminal its end, which was made inside the sandbox, and begins copying.
func (t *terminal) attach(master *os.File) {
	t.mu.Lock()
	t.master = master
	t.mu.Unlock()
	t.started()
}

// attached says whether there is a terminal: one that is made inside may not have come.
func (t *terminal) attached() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.master != nil
}

// started begins copying, once the other end belongs to the child.
func (t *terminal) started() {
	if t == nil || t.master == nil {
		return
	}
	if t.slave != nil {
		_ = t.slave.Close()
	}
	t.resize()
	if t.in != nil {
		if term.IsTerminal(int(t.in.Fd())) {
			t.old, _ = term.MakeRaw(int(t.in.Fd()))
		}
		t.copyInput()
	}
	go func() {
		defer close(t.copied)
		if t.out != nil {
			_, _ = io.Copy(t.out, t.master) // ends with EIO when the last process has closed its end
		} else {
			_, _ = io.Copy(io.Discard, t.master)
		}
	}()
}

// copyInput passes input on until it ends, or the terminal is closed: after that, what is typed is for who reads
// the caller's terminal next. The process may live on, as that does which runs further commands in a container.
func (t *terminal) copyInput() {
	in, err := sockio.DupFD(int(t.in.Fd())) // the caller closes t.in meanwhile
	if err != nil {
		return // no descriptors are left
	}
	stopped, stop, err := os.Pipe()
	if err != nil {
		_ = unix.Close(in)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		_ = stop.Close()
	} else {
		t.stop = stop
	}
	go func() {
		defer stopped.Close()
		defer unix.Close(in)
		if copyUntil(t.master, in, int(stopped.Fd())) {
			_, _ = t.master.Write([]byte{4}) // end of input: Ctrl-D
		}
	}()
}

// copyUntil copies from the descriptor in to its end, and says so, unless the other end of the pipe stopped is closed
// before.
func copyUntil(to io.Writer, in, stopped int) bool {
	buf := make([]byte, 32<<10)
	fds := []unix.PollFd{{Fd: int32(in), Events: unix.POLLIN}, {Fd: int32(stopped)}}
	for {
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			return true
		}
		if fds[1].Revents != 0 {
			return false
		}
		if fds[0].Revents == 0 {
			continue
		}
		n, err := unix.Read(in, buf)
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
			continue
		case err != nil || n == 0:
			return true
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return true
		}
	}
}

// resize gives the sandbox's terminal the size of the caller's.
func (t *terminal) resize() {
	if t == nil || t.out == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.master == nil {
		return
	}
	for _, f := range []*os.File{t.out, t.in} { // out may be a pipe to the container's log
		if f == nil {
			continue
		}
		if ws, err := pty.GetsizeFull(f); err == nil {
			_ = pty.Setsize(t.master, ws)
			return
		}
	}
}

// drain waits for the rest of the output and gives the caller's terminal back.
func (t *terminal) drain() {
	if t == nil || !t.attached() {
		return
	}
	<-t.copied
	t.close()
}

func (t *terminal) close() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.master == nil {
		return
	}
	t.closed = true
	if t.stop != nil {
		_ = t.stop.Close()
	}
	if t.old != nil {
		_ = term.Restore(int(t.in.Fd()), t.old)
	}
	if t.slave != nil {
		_ = t.slave.Close()
	}
	_ = t.master.Close()
}

// nilFile keeps a nil *os.File from becoming a reader that is not nil.
func nilFile(f *os.File) io.Reader {
	if f == nil {
		return nil
	}
	return f
}

func nilFileW(f *os.File) io.Writer {
	if f == nil {
		return nil
	}
	return f
}
