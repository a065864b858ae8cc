package relay

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/sockio"
)

// stall ends a direction of a session that waits for its destination to take data when its source is reset. Both
// goroutines of the session wait for the destination then, or for data from it, so that neither would learn of the
// reset, and the session would live until the destination moves. A direction that is not stalled reads all that came
// before the reset, as a socket does.
//
// Either of begin and sourceReset sees what the other has stored, whatever their order.
type stall struct {
	waiting, wasReset atomic.Bool
	watch             func()          // called before the first wait: sourceReset is called from then on
	interrupt         func()          // ends the wait; it does not block
	watched           bool            // watch has been called; the direction's goroutine alone uses it
	reactor           *sockio.Reactor // that watches the source's socket; nil: none does
	fd                int             // the source's socket
}

// begin is called before a wait for the destination. False: the source was reset, so there is nothing to wait for.
func (s *stall) begin() bool {
	if !s.watched {
		s.watched = true
		s.watch()
	}
	s.waiting.Store(true)
	return !s.wasReset.Load()
}

// end is called after the wait.
func (s *stall) end() { s.waiting.Store(false) }

// sourceReset says that the source was reset.
func (s *stall) sourceReset() {
	s.wasReset.Store(true)
	if s.waiting.Load() {
		s.interrupt()
	}
}

// watchSocket is the watch of a source that is a socket of the kernel. It is unwatched before the socket is closed.
func (s *stall) watchSocket(r *sockio.Reactor, fd int) {
	// Without EPOLLIN and EPOLLOUT, errors and hang-ups alone are reported (epoll_ctl(2)); a full close, which is no
	// error, would be reported again and again without EPOLLET.
	if r.Watch(fd, s, unix.EPOLLET) == nil {
		s.reactor, s.fd = r, fd
	}
}

func (s *stall) unwatch() {
	if s.reactor != nil {
		s.reactor.Remove(s.fd)
	}
}

// HandleEvents implements sockio.Handler.
func (s *stall) HandleEvents(events uint32) {
	if events&unix.EPOLLERR != 0 {
		s.sourceReset()
	}
}
