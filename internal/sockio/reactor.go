package sockio

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/isolate"
	"github.com/usernet/usernet/internal/watchdog"
)

// Reactor watches descriptors with one goroutine of its own, so that an idle socket costs a descriptor and some dozens
// of bytes, and neither a goroutine nor a stack.
//
// It waits in epoll_wait(2) itself, unless it shares the only processor of the Go scheduler (wait). It takes one thread
// and, for the first millisecond of a wait, one of GOMAXPROCS where there are more.
type Reactor struct {
	fd     int             // of epoll
	file   *os.File        // owns fd; nil: it is not in the Go runtime's poller
	poller syscall.RawConn // of file
	wake   int             // an eventfd that ends it
	done   chan struct{}

	buf    []byte // of its goroutine, as are events, busy and parks; nil before the first use
	events [128]unix.EpollEvent
	busy   busyPoll
	parks  int // how many of the next waits are in the runtime's poller

	dispatching atomic.Bool // handlers run: it is most likely they who call the reactor
	shared      atomic.Bool // another goroutine has given it a descriptor since its last wait

	dispatchMu sync.Mutex // held while a handler runs

	watched struct {
		sync.RWMutex
		handlers map[int32]Handler // by descriptor
		closed   bool
	}
}

// Handler is called with the events of its descriptor (epoll_ctl(2)), by the reactor's goroutine. It must not block.
// What it leaves unread is reported again: events are level-triggered.
type Handler interface {
	HandleEvents(events uint32)
}

// Isolated is a Handler whose panics end only what it handles: the reactor serves others too.
type Isolated interface {
	Handler
	// Logger is told of the panic.
	Logger() *slog.Logger
	// Fail ends what the handler is for. The reactor calls it after a panic, from its goroutine.
	Fail()
}

// NewReactor starts a reactor. Close ends it.
func NewReactor() (*Reactor, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("eventfd: %w", err), unix.Close(fd))
	}
	r := &Reactor{fd: fd, wake: wake, done: make(chan struct{})}
	r.watched.handlers = map[int32]Handler{}
	if err := r.Add(wake, wakeUp{}); err != nil {
		return nil, errors.Join(err, unix.Close(fd), unix.Close(wake))
	}
	r.shared.Store(false)
	go r.run()
	return r, nil
}

// enterPoller puts fd into the runtime's poller, for good. From then on each event also wakes the thread that waits
// there, and each new descriptor takes the kernel longer: only reactors that wait there do so.
func (r *Reactor) enterPoller() (err error) {
	if r.poller != nil {
		return nil
	}
	if err := unix.SetNonblock(r.fd, true); err != nil { // else package os leaves it out of the poller
		return err
	}
	r.file = os.NewFile(uintptr(r.fd), "epoll")
	r.poller, err = r.file.SyscallConn()
	return err
}

// wakeUp is the handler of the eventfd: run looks for the end of the reactor itself.
type wakeUp struct{}

// HandleEvents implements Handler.
func (wakeUp) HandleEvents(uint32) {}

// Add has h called while fd is readable, until Remove.
func (r *Reactor) Add(fd int, h Handler) error { return r.Watch(fd, h, unix.EPOLLIN) }

// Watch has h called for events of fd (epoll_ctl(2)), until Remove. After Close the error is os.ErrClosed.
func (r *Reactor) Watch(fd int, h Handler, events uint32) error {
	if !r.dispatching.Load() {
		r.shared.Store(true)
	}
	w := &r.watched
	w.Lock()
	defer w.Unlock()
	if w.closed {
		return os.ErrClosed
	}
	before, twice := w.handlers[int32(fd)]
	w.handlers[int32(fd)] = h // before the first event
	event := unix.EpollEvent{Events: events, Fd: int32(fd)}
	if err := unix.EpollCtl(r.fd, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		if delete(w.handlers, int32(fd)); twice {
			w.handlers[int32(fd)] = before
		}
		return fmt.Errorf("epoll: %w", err)
	}
	return nil
}

// Change replaces the events that fd is watched for. Errors and hang-ups are always reported.
func (r *Reactor) Change(fd int, events uint32) {
	w := &r.watched
	w.RLock()
	defer w.RUnlock()
	if _, ok := w.handlers[int32(fd)]; ok && !w.closed {
		event := unix.EpollEvent{Events: events, Fd: int32(fd)}
		_ = unix.EpollCtl(r.fd, unix.EPOLL_CTL_MOD, fd, &event) // it is there
	}
}

// Remove ends the watch. fd is still open; its handler may still run, see Barrier.
func (r *Reactor) Remove(fd int) {
	w := &r.watched
	w.Lock()
	defer w.Unlock()
	if _, ok := w.handlers[int32(fd)]; ok && !w.closed {
		delete(w.handlers, int32(fd))
		_ = unix.EpollCtl(r.fd, unix.EPOLL_CTL_DEL, fd, nil) // it is there
	}
}

// Watches says whether fd is watched.
func (r *Reactor) Watches(fd int) bool {
	w := &r.watched
	w.RLock()
	defer w.RUnlock()
	return w.handlers[int32(fd)] != nil
}

// WaitConnected waits until a socket that is being connected is so, or cannot be, or ctx ends.
func (r *Reactor) WaitConnected(ctx context.Context, fd int) error {
	w := make(writable, 1)
	if err := r.Watch(fd, w, unix.EPOLLOUT|unix.EPOLLONESHOT); err != nil {
		return err
	}
	defer r.Remove(fd)
	for {
		select {
		case <-w:
		case <-ctx.Done():
			return ctx.Err()
		}
		if code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
			return errors.Join(err, unix.Errno(code))
		}
		if IsConnected(fd) {
			return nil
		}
		r.Change(fd, unix.EPOLLOUT|unix.EPOLLONESHOT)
	}
}

// writable passes on that a socket can be written to.
type writable chan struct{}

// HandleEvents implements Handler.
func (w writable) HandleEvents(uint32) {
	select {
	case w <- struct{}{}:
	default: // a signal is pending
	}
}

// ReactorBuffer is the length of Buffer in bytes.
const ReactorBuffer = 32 << 10

// Buffer returns the reactor's buffer. Only handlers may use it, until they return.
func (r *Reactor) Buffer() []byte {
	if r.buf == nil {
		r.buf = make([]byte, ReactorBuffer)
	}
	return r.buf
}

// WithDispatchStopped runs f while no handler runs. It must not be called from a handler.
func (r *Reactor) WithDispatchStopped(f func()) {
	r.dispatchMu.Lock()
	defer r.dispatchMu.Unlock()
	f()
}

// Barrier returns once no handler of a descriptor that was removed before runs any more. It must not be called from a
// handler.
func (r *Reactor) Barrier() { r.WithDispatchStopped(func() {}) }

// Locks are what has to be watched for hanging: a handler that hangs holds this one.
func (r *Reactor) Locks() []watchdog.Lock {
	return []watchdog.Lock{watchdog.Mutex("socket handlers", &r.dispatchMu, 0)}
}

func (r *Reactor) run() {
	defer close(r.done)
	handled := 0 // events since this goroutine yielded
	for {
		n, err := r.wait()
		if errors.Is(err, unix.EINTR) {
			continue
		}
		r.watched.RLock()
		closed := r.watched.closed
		r.watched.RUnlock()
		if closed || err != nil {
			return
		}
		r.dispatching.Store(true)
		for _, e := range r.events[:max(n, 0)] {
			r.dispatchMu.Lock()
			r.watched.RLock()
			h := r.watched.handlers[e.Fd]
			r.watched.RUnlock()
			if h != nil {
				dispatch(h, e.Events)
			}
			r.dispatchMu.Unlock()
		}
		r.dispatching.Store(false)
		if handled += n; handled >= yieldAfter {
			handled = 0
			runtime.Gosched()
		}
	}
}

// yieldAfter is after how many events a reactor lets other goroutines have the processor. Waiting for events that are
// there already does not: without it, goroutines that accept connections waited 3 to 7 ms for the only processor, until
// the scheduler's monitor took it away. After each event, requests of one byte took a tenth more of it.
const yieldAfter = 16

// keepFor is for how long a reactor that waits keeps its processor of the Go scheduler, in milliseconds.
const keepFor = 1

// keepers are the reactors that wait and keep a processor. One processor at least is left to all other goroutines.
var keepers struct {
	now   atomic.Int32
	limit func() int32
}

func init() {
	keepers.limit = sync.OnceValue(func() int32 { return int32(runtime.GOMAXPROCS(0) - 1) })
}

// CountProcessors has reactors go by the number of processors of the Go scheduler that there are now, whatever it is
// for a while later. Without it they go by the number at the first wait. It is for a process that changes the number: a
// reactor that kept the only one would hold up all other goroutines.
func CountProcessors() { keepers.limit() }

// wait waits for events, and says how many there are.
//
// In traffic the next one comes within a millisecond. For that long the scheduler is not told of the wait, where it has
// another processor for the other goroutines. Told, it would have its monitor thread look every 20 µs whether the wait
// takes long, take the processor away and wake a thread to give it to. With
// two processors of the scheduler that was a third of the processor time of an outbound connection.
//
// Where it has no other processor, and goroutines give the reactor sockets, as those do that decide about connections
// of containers, both take turns on the only one. Then the reactor waits in the runtime's poller, by which all
// goroutines wait, so that one thread does everything and the monitor sleeps: connections out of containers came at
// 1.35 times the rate with 0.88 of the processor time. That takes four calls of epoll_wait(2) for a wake-up, so it does
// not pay for a reactor that is alone: connections to published ports, which its handlers accept, took 1.17 of their
// processor time so.
func (r *Reactor) wait() (int, error) {
	if d := time.Duration(busyPollFor.Load()); d > 0 {
		if n, found, err := r.waitBusy(d); found {
			return n, err
		}
		defer func() { r.busy.end(time.Now(), d) }()
	}
	if n, err := r.waitKeeping(); n > 0 || err != nil {
		return n, err
	}
	if r.shared.Swap(false) && keepers.limit() == 0 {
		r.parks = sharedFor
	}
	if r.parks > 0 && r.enterPoller() == nil {
		r.parks--
		if waited, n, err := r.waitParked(); waited {
			return n, err
		}
	}
	return unix.EpollWait(r.fd, r.events[:], -1)
}

// sharedFor is how many waits a reactor takes itself for shared after another goroutine has given it a descriptor: a
// short connection takes some three, and others may be under way.
const sharedFor = 32

// waitParked is wait in the runtime's poller, and says whether that could wait. It reports what is new (EPOLLET), so
// nothing may be left when it waits.
func (r *Reactor) waitParked() (waited bool, n int, err error) {
	waited = r.poller.Read(func(uintptr) bool {
		n, err = r.waitRaw(0)
		return n > 0 || err != nil
	}) == nil
	return waited, n, err
}

// waitKeeping is wait for keepFor, with the processor, if it may be kept. EINTR: the scheduler wants it, as for a
// garbage collection.
func (r *Reactor) waitKeeping() (int, error) {
	defer keepers.now.Add(-1)
	if keepers.now.Add(1) > keepers.limit() {
		return 0, nil
	}
	return r.waitRaw(keepFor)
}

// waitRaw is wait for a number of milliseconds, of which the scheduler is not told.
func (r *Reactor) waitRaw(milliseconds uintptr) (int, error) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(r.fd), uintptr(unsafe.Pointer(&r.events)),
		uintptr(len(r.events)), milliseconds, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// dispatch has h handle its events.
func dispatch(h Handler, events uint32) {
	i, ok := h.(Isolated)
	if !ok {
		h.HandleEvents(events)
		return
	}
	if !isolate.Do(i.Logger(), "handling a socket", func() { h.HandleEvents(events) }) {
		isolate.Do(i.Logger(), "ending a flow", i.Fail)
	}
}

// Close ends the reactor and waits for its goroutine. The descriptors that it watches stay open. It must not be called
// from a handler. Closing it again does nothing.
func (r *Reactor) Close() {
	r.watched.Lock()
	if r.watched.closed {
		r.watched.Unlock()
		return
	}
	r.watched.closed = true
	_, _ = unix.Write(r.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // eventfd(2): a number to add
	r.watched.Unlock()
	<-r.done
	if r.file != nil {
		_ = r.file.Close()
	} else {
		_ = unix.Close(r.fd)
	}
	_ = unix.Close(r.wake)
}
