package publish

import (
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/ports"
	"github.com/usernet/usernet/internal/rate"
	"github.com/usernet/usernet/internal/sockio"
)

// What ports are asked for and bound as.
type (
	Binding  = ports.Binding
	Bound    = ports.Bound
	Protocol = ports.Protocol
)

// The transports that ports are published for.
const (
	TCP = ports.TCP
	UDP = ports.UDP
)

// Handler is what leads to containers. It is called by the reactor's goroutine and must not block.
type Handler interface {
	// HandleConn has a connection that was accepted, and owns its descriptor, which a plain close resets.
	HandleConn(p *Port, fd int, client netip.AddrPort)
	// HandleDatagram has a client's datagrams, which are valid until it returns.
	HandleDatagram(p *Port, d sockio.Datagram)
	// PortClosed says that a port is unpublished, and its socket about to be closed. It may be called by any goroutine.
	PortClosed(p *Port)
}

// Config says how a network's ports are published. All fields are needed.
type Config struct {
	Table   *Table
	Reactor *sockio.Reactor // watches the sockets
	Logger  *slog.Logger
	Handler Handler
}

// Publisher binds ports for the containers of one network.
type Publisher struct {
	cfg Config

	mu      sync.Mutex // guards what follows, and Port.resume
	ports   map[*Port]struct{}
	stopped bool // no port is watched again
	closed  bool
	pauses  rate.Bucket // of lines in the log: ports that are paused again and again do not fill the disk
}

// New makes a publisher without ports.
func New(cfg Config) *Publisher {
	return &Publisher{cfg: cfg, ports: map[*Port]struct{}{}, pauses: rate.Bucket{PerSecond: 1, Burst: 1}}
}

// open makes p's socket and watches it.
func (pb *Publisher) open(p *Port) error {
	fd, err := pb.cfg.Table.listen(p.key(), p.options)
	if err != nil {
		return err
	}
	p.sock.Open(fd)
	pb.mu.Lock()
	closed := pb.closed
	if !closed {
		pb.ports[p] = struct{}{}
	}
	pb.mu.Unlock()
	if closed {
		p.sock.Close(pb.cfg.Reactor)
		return unix.ESHUTDOWN
	}
	pb.cfg.Table.add(p)
	err = p.setOptions(fd)
	if err == nil {
		err = pb.cfg.Reactor.Add(fd, p)
	}
	if err != nil {
		pb.unbind(p)
		return err
	}
	pb.cfg.Table.store(p, fd)
	return nil
}

func (p *Port) setOptions(fd int) error {
	if p.bound.Proto != ports.UDP {
		return sockio.SetTCP(fd, p.pb.cfg.Table.keepAlive)
	}
	sockio.MergeDatagrams(fd)
	p.sock.CountLost(fd)
	if at := p.bound.Host.Addr(); at.IsUnspecified() {
		return sockio.TellLocal(fd, at.Is6())
	}
	return nil
}

func (pb *Publisher) unbind(p *Port) {
	pb.cfg.Table.remove(p)
	pb.cfg.Table.unstore(p)
	pb.mu.Lock()
	p.stayPausedLocked()
	delete(pb.ports, p)
	pb.mu.Unlock()
	pb.cfg.Handler.PortClosed(p)
	p.sock.Close(pb.cfg.Reactor)
}

// Unpublish closes published ports. Connections through them go on.
func (pb *Publisher) Unpublish(list []Bound) error {
	named, listed := map[*Port]int{}, map[Bound]bool{}
	for _, b := range list {
		listed[b] = true
		if p := pb.cfg.Table.port(keyOf(b)); p != nil && p.pb == pb {
			named[p]++
		}
	}
	var errs []error
	for p, n := range named {
		all := p.Bounds()
		pb.unbind(p)
		if n == len(all) {
			continue
		}
		for _, b := range all { // one family stays
			if !listed[b] {
				t := &transaction{pb: pb, in4: p.in4, in6: p.in6, need: 1, options: p.options}
				inside := ports.Port{Port: b.Port, Proto: b.Proto}
				errs = append(errs, t.bindOne(b.Host.Addr(), b.Host.Port(), inside, false))
			}
		}
	}
	return errors.Join(errs...)
}

// Stop accepts nothing any more: what comes waits in the queue of its listener, for another daemon. When it returns,
// the Handler has all that was accepted.
func (pb *Publisher) Stop() {
	pb.mu.Lock()
	pb.stopped = true
	list := slices.Collect(maps.Keys(pb.ports))
	for _, p := range list {
		p.stayPausedLocked()
	}
	pb.mu.Unlock()
	for _, p := range list {
		p.unwatch()
	}
	pb.cfg.Reactor.Barrier()
}

// Close closes all ports, and publishes none from here on. Closing again does nothing.
func (pb *Publisher) Close() {
	pb.mu.Lock()
	pb.stopped, pb.closed = true, true
	list := slices.Collect(maps.Keys(pb.ports))
	pb.mu.Unlock()
	for _, p := range list {
		pb.unbind(p)
	}
}
