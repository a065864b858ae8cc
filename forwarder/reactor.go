package forwarder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// reactor watches sockets for one goroutine, so that an idle socket costs a descriptor and some dozens of bytes: no goroutine
// and no stack.
//
// It waits in epoll_wait(2) itself. In the Go runtime's poller, which could watch its epoll descriptor, a wake-up takes three
// such calls and two more threads (the one that polls, and sysmon): requests through a published port went from 5100 a second
// to 8000 without it. It takes one thread and, while it waits for less than 10 ms, one of GOMAXPROCS. Each network's
// forwarder has its own (Shared.takeReactor): a handler that hangs stops one network only, one that panics one flow.
type reactor struct {
	fd   int // of epoll
	wake int // an eventfd that ends it
	done chan struct{}

	buf        []byte     // of its goroutine; nil before the first use
	dispatchMu sync.Mutex // held while a handler runs

	mu       sync.RWMutex
	handlers map[int32]eventHandler // by descriptor
	closed   bool
}

// eventHandler is called with the events of its descriptor. It must not block. What it leaves unread is reported again: events
// are level-triggered.
type eventHandler interface {
	handleEvents(events uint32)
}

func newReactor() (*reactor, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("eventfd: %w", err), unix.Close(fd))
	}
	r := &reactor{fd: fd, wake: wake, done: make(chan struct{}), handlers: map[int32]eventHandler{}}
	if err := r.add(wake, r); err != nil {
		return nil, errors.Join(err, unix.Close(fd), unix.Close(wake))
	}
	go r.run()
	return r, nil
}

// handleEvents implements eventHandler for the eventfd: run looks for the end itself.
func (r *reactor) handleEvents(uint32) {}

// add has h called while fd is readable, until remove.
func (r *reactor) add(fd int, h eventHandler) error { return r.watch(fd, h, unix.EPOLLIN) }

// watch has h called for events of fd (epoll_ctl(2)), until remove.
func (r *reactor) watch(fd int, h eventHandler, events uint32) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return os.ErrClosed
	}
	r.handlers[int32(fd)] = h // before the first event
	if err := unix.EpollCtl(r.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}); err != nil {
		delete(r.handlers, int32(fd))
		return fmt.Errorf("epoll: %w", err)
	}
	return nil
}

// change replaces the events that fd is watched for. Errors and hang-ups are always reported.
func (r *reactor) change(fd int, events uint32) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if _, ok := r.handlers[int32(fd)]; ok && !r.closed {
		_ = unix.EpollCtl(r.fd, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}) // it is there
	}
}

// connected waits until a socket is connected, or cannot be.
func (r *reactor) connected(ctx context.Context, fd int) error {
	w := make(writable, 1)
	if err := r.watch(fd, w, unix.EPOLLOUT|unix.EPOLLONESHOT); err != nil {
		return err
	}
	defer r.remove(fd)
	for {
		select {
		case <-w:
		case <-ctx.Done():
			return ctx.Err()
		}
		if code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
			return errors.Join(err, unix.Errno(code))
		}
		if _, err := unix.Getpeername(fd); err == nil {
			return nil
		}
		r.change(fd, unix.EPOLLOUT|unix.EPOLLONESHOT)
	}
}

// writable passes on that a socket can be written to.
type writable chan struct{}

func (w writable) handleEvents(uint32) {
	select {
	case w <- struct{}{}:
	default: // a signal is pending
	}
}

// reactorBuffer is how much of a flow the reactor copies at once, in bytes. A flow that fills it is spliced instead.
const reactorBuffer = 32 << 10

// buffer returns the reactor's buffer. Only handlers may use it, until they return.
func (r *reactor) buffer() []byte {
	if r.buf == nil {
		r.buf = make([]byte, reactorBuffer)
	}
	return r.buf
}

// remove ends the watch. fd is still open; its handler may still be running, see barrier.
func (r *reactor) remove(fd int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.handlers[int32(fd)]; ok && !r.closed {
		delete(r.handlers, int32(fd))
		_ = unix.EpollCtl(r.fd, unix.EPOLL_CTL_DEL, fd, nil) // it is there
	}
}

// withDispatchStopped runs f while no handler runs. It must not be called from a handler.
func (r *reactor) withDispatchStopped(f func()) {
	r.dispatchMu.Lock()
	defer r.dispatchMu.Unlock()
	f()
}

// barrier returns once no handler of a descriptor that was removed before runs any more. It must not be called from a handler.
func (r *reactor) barrier() { r.withDispatchStopped(func() {}) }

func (r *reactor) run() {
	defer close(r.done)
	var events [128]unix.EpollEvent
	for {
		n, err := unix.EpollWait(r.fd, events[:], -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		r.mu.RLock()
		closed := r.closed
		r.mu.RUnlock()
		if closed || err != nil {
			return
		}
		for _, e := range events[:max(n, 0)] {
			r.dispatchMu.Lock()
			r.mu.RLock()
			h := r.handlers[e.Fd]
			r.mu.RUnlock()
			if h != nil {
				handle(h, e.Events)
			}
			r.dispatchMu.Unlock()
		}
	}
}

// close ends the reactor and waits for its goroutine. The sockets stay open.
func (r *reactor) close() {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return
	}
	r.closed = true
	_, _ = unix.Write(r.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // eventfd(2): a number to add
	r.mu.Unlock()
	<-r.done
	_ = unix.Close(r.fd)
	_ = unix.Close(r.wake)
}
