package publish

import (
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/ports"
	"github.com/usernet/usernet/internal/sockio"
)

// Port is one bound host port.
type Port struct {
	pb       *Publisher
	bound    Bound
	options  sockio.ListenOptions // of the socket; where it takes both families (Dual), bound says [::]
	in4, in6 netip.Addr           // the container
	sock     sockio.Socket
	resume   *time.Timer // ends a pause; nil: there is none. Guarded by Publisher.mu
}

var _ sockio.Isolated = (*Port)(nil)

func (p *Port) key() key { return keyOf(p.bound) }

// Bound is what the socket is bound to; one that takes both families is at [::].
func (p *Port) Bound() Bound { return p.bound }

// Dual says whether the socket takes both families: then it speaks of IPv4 addresses as mapped ones (RFC 4291,
// 2.5.5.2).
func (p *Port) Dual() bool { return p.options.Dual }

// Bounds is what the socket stands for: two where it takes both families.
func (p *Port) Bounds() []Bound {
	if !p.options.Dual {
		return []Bound{p.bound}
	}
	v4 := p.bound
	v4.Host = netip.AddrPortFrom(netip.IPv4Unspecified(), v4.Host.Port())
	return []Bound{v4, p.bound}
}

// Inside is the container's end for a client of a family: of that family, where the container has such an address.
func (p *Port) Inside(v6 bool) netip.AddrPort {
	in := p.in4
	if v6 && p.in6.IsValid() || !in.IsValid() {
		in = p.in6
	}
	return netip.AddrPortFrom(in, p.bound.Port)
}

// Use calls f with the socket's descriptor, which stays open meanwhile. After the port was unpublished the error is
// EBADF.
func (p *Port) Use(f func(fd int) error) error { return p.sock.Use(f) }

// Logger implements sockio.Isolated.
func (p *Port) Logger() *slog.Logger { return p.pb.cfg.Logger }

// Fail implements sockio.Isolated. The port stays: what comes to it is isolated by itself.
func (p *Port) Fail() {}

// HandleEvents implements sockio.Handler.
func (p *Port) HandleEvents(uint32) {
	if p.bound.Proto == ports.UDP {
		receive := func(d sockio.Datagram) { p.pb.cfg.Handler.HandleDatagram(p, d) }
		_ = p.sock.ReceiveAll(receive) // an error is about some client that is gone
		return
	}
	for range 16 { // then others have their turn
		fd, client, err := p.accept()
		switch {
		case err == nil:
			p.pb.cfg.Handler.HandleConn(p, fd, client)
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE),
			errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM):
			p.pause()
			return
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EBADF):
			return
		} // others are about one client that is gone (accept(2), "Error handling")
	}
}

func (p *Port) accept() (fd int, client netip.AddrPort, err error) {
	err = p.sock.Use(func(listener int) (err error) {
		fd, client, err = sockio.Accept(listener)
		return err
	})
	return fd, client, err
}

// pauseTime is how long a listener is left alone that has no descriptors to accept with: it would be ready all the
// time.
const pauseTime = 100 * time.Millisecond

// pause leaves a listener alone for pauseTime. Connections wait in its queue.
func (p *Port) pause() {
	p.unwatch()
	p.pb.mu.Lock()
	if !p.pb.stopped {
		p.resume = time.AfterFunc(pauseTime, p.watchAgain) // which unbind and Stop stop
	}
	said := !p.pb.pauses.Allow(time.Now(), 1)
	p.pb.mu.Unlock()
	if said {
		return
	}
	p.pb.cfg.Logger.Warn("no descriptors left for connections to a published port; they wait",
		"host", p.bound.Host, "limit", sockio.FileLimit())
}

// watchAgain is the end of a pause, unless the port was unbound or stopped meanwhile: what waits is the next daemon's.
func (p *Port) watchAgain() {
	p.pb.mu.Lock()
	defer p.pb.mu.Unlock()
	if p.resume == nil {
		return
	}
	p.resume = nil
	_ = p.sock.Use(func(fd int) error { return p.pb.cfg.Reactor.Add(fd, p) })
}

// stayPausedLocked ends a pause without the port being watched again. The caller holds Publisher.mu.
func (p *Port) stayPausedLocked() {
	if p.resume != nil {
		p.resume.Stop()
		p.resume = nil
	}
}

func (p *Port) unwatch() {
	_ = p.sock.Use(func(fd int) error { p.pb.cfg.Reactor.Remove(fd); return nil })
}
