package relay

import (
	"log/slog"

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

// Options say what a session is of.
type Options struct {
	// OnEnd is called once, when both ends were closed or detached. It must not block, and may be called before Relay,
	// RelayConn or Resume returns. Nil: nothing is called.
	OnEnd func()
	// Log are attributes (package slog) of what is logged about the session.
	Log []any
}

// ConnOptions say what a session of a Conn is of.
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
