package relay

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/usernet/usernet/internal/isolate"
	"github.com/usernet/usernet/internal/sockio"
)

// Loop carries sessions. All are ended, and their OnEnd has been called, before its reactor is closed.
type Loop struct {
	reactor *sockio.Reactor
	pipes   *Pipes
	log     *slog.Logger
}

// NewLoop makes a loop that works with the reactor's goroutine, and with pipes. Both may be shared. Panics in the
// copying of a session are logged and end it.
func NewLoop(r *sockio.Reactor, pipes *Pipes, log *slog.Logger) *Loop {
	return &Loop{reactor: r, pipes: pipes, log: log}
}

// Options describe a session.
type Options struct {
	// OnEnd is called once, when both ends were closed or detached. It must not block, and may be called before Relay,
	// RelayConn or Resume returns. Nil: nothing is called.
	OnEnd func()
	// Log are attributes (package slog) of what is logged about the session.
	Log []any
}

// ConnOptions describe a session of a Conn.
type ConnOptions struct {
	Options
	Buffers Buffers
}

// Relay begins a session between two connected, non-blocking sockets, which it owns from here on. Their SO_LINGER makes
// a plain close a reset (sockio.SetTCP).
func (l *Loop) Relay(inside, host int, o Options) *Session {
	s := l.session(o)
	p := &pair{s: s}
	for i, fd := range [2]int{inside, host} {
		p.ends[i].p = p
		p.ends[i].Open(fd)
	}
	s.setCarrier(p)
	for i := range p.ends {
		e := &p.ends[i]
		if err := e.Use(func(fd int) error { return l.reactor.Add(fd, e) }); err != nil {
			p.end(false) // aborted meanwhile, or the reactor ends
			break
		}
	}
	return s
}

// RelayConn begins a session between netstack's end of a connection and a socket as for Relay. It owns both.
func (l *Loop) RelayConn(inside Conn, host int, o ConnOptions) *Session {
	s := l.session(o.Options)
	c := &copying{s: s, in: inside, host: sockio.NewConn(host), buffers: o.Buffers}
	s.setCarrier(c)
	go c.run()
	return s
}

// Resume goes on with a session that another process has detached. It owns the descriptors, also where it fails; then
// OnEnd is not called.
func (l *Loop) Resume(st State, o Options) (*Session, error) {
	halves, err := st.halves()
	if err != nil {
		return nil, err
	}
	s := l.session(o)
	s.bytesIn.Store(st.BytesIn)
	s.bytesOut.Store(st.BytesOut)
	s.halfClosed.Store(halves[0].ended || halves[1].ended)
	// Spliced at once: the reactor could not take what was read and not written.
	s.splice(st.Directions[0].FD, st.Directions[1].FD, halves)
	return s, nil
}

func (l *Loop) session(o Options) *Session { return &Session{loop: l, o: o} }

// Session is one connection that is relayed. See the package's comment for its states.
type Session struct {
	loop              *Loop
	o                 Options
	bytesIn, bytesOut atomic.Uint64 // towards the container, and from it
	halfClosed        atomic.Bool

	running struct {
		sync.Mutex
		carrier carrier // what carries the session, or has carried it last
		aborted bool
	}
}

// carrier is what moves a session's bytes: a pair, splicing, copying or streaming.
type carrier interface {
	// abort ends it with a reset of both ends. It does not block: the goroutines that carry the session are interrupted
	// and close its ends.
	abort()
	// detach ends it and returns its sockets and what is between them.
	detach(ctx context.Context) ([2]Direction, error)
}

var (
	_ carrier = (*pair)(nil)
	_ carrier = (*splicing)(nil)
	_ carrier = (*copying)(nil)
)

// Why a session cannot be detached.
var (
	errEnded      = errors.New("the session has ended")
	errNotSockets = errors.New("an end of the session is not a socket of the kernel alone")
)

// Bytes is how many bytes have been moved towards the container, and from it.
func (s *Session) Bytes() (in, out uint64) { return s.bytesIn.Load(), s.bytesOut.Load() }

// HalfClosed says whether one half of the connection has ended.
func (s *Session) HalfClosed() bool { return s.halfClosed.Load() }

// Abort resets both ends. It does not wait. Aborting what has ended, or again, does nothing.
func (s *Session) Abort() {
	s.running.Lock()
	again, c := s.running.aborted, s.running.carrier
	s.running.aborted = true
	s.running.Unlock()
	if !again {
		c.abort()
	}
}

// Detach ends the session here and returns it in a form that another process, or loop, can resume. It waits for
// goroutines that carry the session, at most until ctx ends. With an error nothing is the caller's; a session that
// could have been detached was reset. It must not be called from a handler of the reactor.
func (s *Session) Detach(ctx context.Context) (State, error) {
	c, directions, err := s.detachPair(ctx)
	if c != nil {
		directions, err = c.detach(ctx)
	}
	if err != nil {
		return State{}, err
	}
	st := State{Directions: directions}
	st.BytesIn, st.BytesOut = s.Bytes() // what was moved until the end
	return st, nil
}

// detachPair detaches a session that the reactor carries. Else it returns what does.
func (s *Session) detachPair(ctx context.Context) (c carrier, d [2]Direction, err error) {
	s.loop.reactor.WithDispatchStopped(func() { // or it could begin to splice meanwhile
		c = s.carrier()
		if p, ok := c.(*pair); ok {
			c = nil
			d, err = p.detach(ctx)
		}
	})
	return c, d, err
}

func (s *Session) carrier() carrier {
	s.running.Lock()
	defer s.running.Unlock()
	return s.running.carrier
}

// setCarrier says what carries the session from now on. False: the session was aborted, and the ends are the caller's
// to close.
func (s *Session) setCarrier(c carrier) bool {
	s.running.Lock()
	defer s.running.Unlock()
	s.running.carrier = c
	return !s.running.aborted
}

func (s *Session) aborted() bool {
	s.running.Lock()
	defer s.running.Unlock()
	return s.running.aborted
}

// ended is called once, by the carrier that has closed or detached the ends.
func (s *Session) ended() {
	if s.o.OnEnd != nil {
		s.o.OnEnd()
	}
}

// call runs the copying of one half, in which a panic is an error like others: it ends the session.
func (s *Session) call(half func() error) error {
	return isolate.Call(s.loop.log, "copying a connection", half, s.o.Log...)
}
