package forwarder

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// reactor watches sockets for one goroutine, so that an idle socket costs a descriptor and some dozens of bytes: no goroutine
// and no stack. It waits in the Go runtime's own poller, which watches its epoll descriptor, and so keeps no thread.
type reactor struct {
	file *os.File
	fd   int // file's, for epoll_ctl
	done chan struct{}

	mu     sync.RWMutex
	on     map[int32]ready // by descriptor
	closed bool
}

// ready is told that its descriptor has something. It must not block, and may leave a rest: it is told again.
type ready interface {
	ready(events uint32)
}

func newReactor() (*reactor, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // os.NewFile gives only non-blocking descriptors to the runtime's poller
		return nil, errors.Join(err, unix.Close(fd))
	}
	r := &reactor{file: os.NewFile(uintptr(fd), "epoll"), fd: fd, done: make(chan struct{}), on: map[int32]ready{}}
	raw, err := r.file.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, r.file.Close())
	}
	go r.run(raw)
	return r, nil
}

// add watches fd until remove.
func (r *reactor) add(fd int, h ready) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return os.ErrClosed
	}
	r.on[int32(fd)] = h // before the first event
	if err := unix.EpollCtl(r.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
		delete(r.on, int32(fd))
		return fmt.Errorf("epoll: %w", err)
	}
	return nil
}

// remove ends the watch. fd is still open; a call of ready that has begun may go on for a moment.
func (r *reactor) remove(fd int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.on[int32(fd)]; ok && !r.closed {
		delete(r.on, int32(fd))
		_ = unix.EpollCtl(r.fd, unix.EPOLL_CTL_DEL, fd, nil) // it is there
	}
}

func (r *reactor) run(raw syscall.RawConn) {
	defer close(r.done)
	var events [128]unix.EpollEvent
	for {
		var n int
		err := raw.Read(func(fd uintptr) bool {
			var err error
			for {
				if n, err = unix.EpollWait(int(fd), events[:], 0); !errors.Is(err, unix.EINTR) {
					break
				}
			}
			return err != nil || n > 0
		})
		if err != nil {
			return // closed
		}
		for _, e := range events[:max(n, 0)] {
			r.mu.RLock()
			h := r.on[e.Fd]
			r.mu.RUnlock()
			if h != nil {
				h.ready(e.Events)
			}
		}
	}
}

// close ends the reactor and waits for its goroutine. The sockets stay open.
func (r *reactor) close() {
	r.mu.Lock()
	r.closed = true // its descriptor may be somebody else's from here
	r.mu.Unlock()
	_ = r.file.Close()
	<-r.done
}
