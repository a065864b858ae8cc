package vmlink

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	vswitch "github.com/usernet/usernet/switch"
)

// Kind is how frames are told apart on the socket.
type Kind string

// The kinds.
const (
	Stream    Kind = "stream"
	Datagram  Kind = "datagram"
	Seqpacket Kind = "seqpacket"
)

// Config says where a guest is.
type Config struct {
	Kind Kind // "" means Stream
	// Path is the socket's. A socket that is there is replaced, unless Connect is set.
	Path string
	// Connect has the link connect to Path, where the guest listens, as often as is needed. It is not for datagrams.
	Connect bool
	// Peer is where a datagram guest receives, until it sends from elsewhere; "": where it sends from.
	Peer string
	// NewPeer is told where a datagram guest sends from, when that changes; nil: nobody is. It must not block for
	// long.
	NewPeer func(path string)
	// MAC is that of the endpoint: a guest that sends from another one is logged. Nil: nobody looks.
	MAC    net.HardwareAddr
	Logger *slog.Logger // nil: none
}

// Errors of WriteFrame.
var (
	errNoGuest = errors.New("no virtual machine is connected")
	errFull    = errors.New("the virtual machine does not take its frames")
)

// logEvery is how often one kind of a guest's faults is logged.
const logEvery = time.Minute

// Link is one. Its methods may be called by many goroutines at once.
type Link struct {
	cfg Config
	log *slog.Logger
	ln  *net.UnixListener // nil: the link connects, or has datagrams

	// current is the guest; nil: there is none.
	current atomic.Pointer[session]

	serving sync.Mutex     // held by Serve
	sending sync.WaitGroup // goroutines that send to guests
	warned  rate.Sometimes

	mu      sync.Mutex // guards what follows, and is held while deadlines are set
	open    *session   // current, or the one that is about to be
	stop    chan struct{}
	stopped bool
	closed  bool
}

// New makes a link that listens, or that will connect once it is served.
func New(cfg Config) (*Link, error) {
	if cfg.Kind == "" {
		cfg.Kind = Stream
	}
	if !cfg.Kind.Valid() || cfg.Connect && cfg.Kind == Datagram {
		return nil, fmt.Errorf("socket for a virtual machine: one of kind %q is not connected to", cfg.Kind)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Link{cfg: cfg, log: cfg.Logger, stop: make(chan struct{}), warned: rate.Sometimes{Interval: logEvery}}
	if cfg.Connect {
		return l, nil
	}
	if err := removeSocket(cfg.Path); err != nil {
		return nil, err
	}
	addr := &net.UnixAddr{Name: cfg.Path, Net: network(cfg.Kind)}
	if cfg.Kind == Datagram {
		conn, err := net.ListenUnixgram(addr.Net, addr)
		if err != nil {
			return nil, fmt.Errorf("socket for a virtual machine: %w", err)
		}
		s := newSession(conn)
		l.open = s
		s.datagrams = true
		s.peer.set(cfg.Peer)
		l.current.Store(s)
		return l, nil
	}
	var err error
	if l.ln, err = net.ListenUnix(addr.Net, addr); err != nil {
		return nil, fmt.Errorf("socket for a virtual machine: %w", err)
	}
	return l, nil
}

// network is a kind's name in package net.
func network(k Kind) string {
	return map[Kind]string{Stream: "unix", Datagram: "unixgram", Seqpacket: "unixpacket"}[k]
}

// Valid says whether there is such a kind.
func (k Kind) Valid() bool { return network(k) != "" }

// removeSocket removes what an earlier link has left at path. What is no socket stays, and is an error.
func removeSocket(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("socket for a virtual machine: %w", err)
	case info.Mode()&os.ModeSocket == 0:
		return fmt.Errorf("socket for a virtual machine: %s is there and is no socket", path)
	}
	return os.Remove(path)
}

// WriteFrame implements vswitch.Device.
func (l *Link) WriteFrame(f *vswitch.Frame) error {
	s := l.current.Load()
	if s == nil {
		return errNoGuest
	}
	return f.Segments(s.put)
}

// Serve implements engine.Link: it gives the port the frames of one guest after another.
func (l *Link) Serve(port *vswitch.Port) error {
	l.serving.Lock()
	defer l.serving.Unlock()
	if l.cfg.Kind == Datagram {
		return l.serveDatagrams(port)
	}
	guests := make(chan *session)
	var offering sync.WaitGroup
	offering.Go(func() { l.offer(guests) })
	defer offering.Wait()
	for {
		select {
		case <-l.stop:
			return net.ErrClosed
		case s := <-guests:
			l.serveGuest(s, port)
		}
	}
}

// serveGuest gives the port what a connected guest sends, until it is gone or the link has stopped.
func (l *Link) serveGuest(s *session, port *vswitch.Port) {
	l.sending.Go(func() { s.send(l.cfg.Kind) })
	l.log.Debug("virtual machine connected", "socket", l.cfg.Path)
	r := newReader(l, s, port)
	err := r.run(l.cfg.Kind)
	r.release()
	if l.hasStopped() {
		return // frames can be written until Close, which ends the sending
	}
	l.current.Store(nil)
	l.mu.Lock()
	l.open = nil
	l.mu.Unlock()
	s.close()
	close(s.gone)
	if errors.Is(err, errLength) {
		l.warned.Do(func() { l.log.Warn("virtual machine disconnected", "socket", l.cfg.Path, "error", err) })
	} else {
		l.log.Debug("virtual machine is gone", "socket", l.cfg.Path, "error", err)
	}
}

func (l *Link) serveDatagrams(port *vswitch.Port) error {
	s := l.current.Load()
	if s == nil {
		return net.ErrClosed
	}
	l.sending.Go(func() { s.send(Datagram) })
	r := newReader(l, s, port)
	defer r.release()
	err := r.run(Datagram)
	if l.hasStopped() {
		return net.ErrClosed
	}
	return err
}

func (l *Link) hasStopped() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stopped
}

// Stop implements engine.Link.
func (l *Link) Stop() {
	l.halt()
	l.serving.Lock()
	defer l.serving.Unlock() // locked to wait, not to hold
}

// halt has Serve and offer end.
func (l *Link) halt() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return
	}
	l.stopped = true
	close(l.stop)
	past := time.Unix(1, 0)
	if l.open != nil {
		_ = l.open.conn.SetReadDeadline(past) // it is closed otherwise
	}
	if l.ln != nil {
		_ = l.ln.SetDeadline(past)
	}
}

// Close implements engine.Link.
func (l *Link) Close() error {
	l.halt()
	defer l.sending.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	l.current.Store(nil)
	if l.open != nil {
		l.open.close()
	}
	if l.cfg.Kind == Datagram {
		return ignoreMissing(os.Remove(l.cfg.Path))
	}
	if l.ln != nil {
		return l.ln.Close() // which removes the socket's file
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
