package fabric

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/usernet/usernet/internal/isolate"
	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/hostconn"
)

// A network may have TCP between containers of two hosts go from socket to socket (Link.SetSockets): each connection by
// one of the hosts (package hostconn), at the port that takes carriers. The container's SYN is held back for
// the time that it takes to make it; whatever is in the way, the SYN then goes on as a frame, as all else does.
//
//	container's SYN -> Link.WriteFrame: held -> Sockets.Connect -> dial -> other host: answerAsked -> Sockets.Accept
//	                                      |  nil: answered                            | the source is that host's,
//	                                      |  ErrDropSYN: dropped, it comes again      | by the table
//	                                      v  else: a frame                            v
//	                                   sendTo                                      the service
//
// A host that is not reached so is left alone for a while, then for twice as long.

// Sockets makes the ends of such connections in containers. Its methods may wait until ctx ends. Package cluster has
// one for each network, in package engine's words.
type Sockets interface {
	// Connect makes the connection of a SYN. With ErrDropSYN the SYN is dropped; with another error it goes on as a
	// frame.
	Connect(ctx context.Context, c Connection) error
	// Accept connects a container of another host to one here.
	Accept(ctx context.Context, c Connection) error
}

// Connection is one that is asked for.
type Connection struct {
	From, To netip.AddrPort // the container that asks, and the other one
	MAC      overlay.MAC    // of From, where it is here
	Seq      uint32         // of its SYN, as MAC
	Sealed   bool
	// Dial makes the connection to the other host, or tells it that this one has made its own. It is called once.
	Dial func(context.Context) (*hostconn.Conn, error)
}

// ErrDropSYN says that a container is to send its SYN again.
var ErrDropSYN = errors.New("the SYN is dropped")

const (
	socketsDial  = time.Second      // for each address of a host
	socketsAgain = 30 * time.Second // after a host was not reached so
	socketsTries = 4                // doublings of that: to eight minutes
	// maxAccepting is how many connections that a host asks for are being made at once.
	maxAccepting = 256
)

// peerSockets is what is known of a host that takes connections of containers.
type peerSockets struct {
	takes     atomic.Bool
	failures  atomic.Int32
	notBefore atomic.Int64 // in Unix nanoseconds
	accepting atomic.Int32
	worksAt   atomic.Pointer[netip.AddrPort] // the address that was reached last; nil: none yet
}

// inOrder are a host's addresses, with the one that was reached last before the others: one that is not reached would
// delay each connection.
func (s *peerSockets) inOrder(addrs []netip.AddrPort) []netip.AddrPort {
	last := s.worksAt.Load()
	if last == nil {
		return addrs
	}
	i := slices.Index(addrs, *last)
	if i <= 0 {
		return addrs
	}
	return slices.Concat([]netip.AddrPort{*last}, addrs[:i], addrs[i+1:])
}

// mayTake says whether a connection to the host is to be tried now.
func (s *peerSockets) mayTake(now time.Time) bool { return now.UnixNano() >= s.notBefore.Load() }

// failed leaves the host alone for a while. Several connections at one time fail once.
func (s *peerSockets) failed(now time.Time) {
	if s.mayTake(now) {
		n := min(s.failures.Add(1)-1, socketsTries)
		s.notBefore.Store(now.Add(socketsAgain << n).UnixNano())
	}
}

// worked notes that the host was reached at an address.
func (s *peerSockets) worked(at netip.AddrPort) {
	s.failures.Store(0)
	s.worksAt.Store(&at)
}

// takesSockets says whether a peer takes connections of containers, as far as is known.
func (p *peer) takesSockets() bool {
	return p.sockets.takes.Load() && p.key.Load() != nil && len(*p.tcp.Load()) > 0
}

// NoSockets says why connections to a container of another host go in frames; "": they go from socket to socket,
// unless the other host refuses.
func (l *Link) NoSockets(dst netip.Addr) string {
	e, now := l.table.Load().byAddr[dst], time.Now()
	switch {
	case !l.holds.Load():
		return "this host has no key by which others know it"
	case e == nil:
		return "its host is not known"
	case !e.peer.takesSockets():
		return "its host takes no such connections"
	case !e.peer.isAlive(now):
		return "its host does not answer on a path of its own"
	case !e.peer.sockets.mayTake(now):
		return "its host was not reached by TCP of late"
	}
	return ""
}

// keyOf is the key of a host, where it counts.
func (f *Fabric) keyOf(h overlay.HostID) (overlay.Key, bool) {
	p := f.state.Load().byHost[h]
	if p == nil {
		return overlay.Key{}, false
	}
	k := p.key.Load()
	if k == nil {
		return overlay.Key{}, false
	}
	return *k, true
}

// dialHost asks a host for a connection to one of its containers.
func (l *Link) dialHost(ctx context.Context, p *peer, src, dst netip.AddrPort) (*hostconn.Conn, error) {
	errs := []error{fmt.Errorf("no address of host %s takes connections", p.host.Short())}
	for _, a := range p.sockets.inOrder(*p.tcp.Load()) {
		d := net.Dialer{Timeout: socketsDial}
		conn, err := d.DialContext(ctx, "tcp", a.String())
		if err != nil {
			errs = append(errs, err)
			continue
		}
		r := hostconn.Request{VNI: l.cfg.VNI, Src: src, Dst: dst}
		c, err := l.f.hostconns.Dial(ctx, conn.(*net.TCPConn), l.cfg.Sealed, p.host, r)
		if err == nil {
			p.sockets.worked(a)
			return c, nil
		}
		_ = conn.Close()
		if errors.Is(err, hostconn.ErrRefused) {
			p.sockets.worked(a)
			return nil, err
		}
		errs = append(errs, err)
	}
	if l.held.ctx.Err() == nil {
		p.sockets.failed(time.Now())
	}
	return nil, errors.Join(errs...)
}

// answerAsked makes a connection that another host asks for, or refuses it.
func (f *Fabric) answerAsked(s *stranger, preamble [hostconn.PreambleLen]byte) {
	ours := true
	defer func() {
		if ours {
			_ = s.conn.Close()
		}
	}()
	a, err := f.hostconns.Answer(s.conn, preamble)
	f.met(s)
	if err != nil {
		f.drops[DropUnknownPeer].Add(1)
		f.log.Debug("a connection of another host was not taken", "from", s.from, "error", err)
		return
	}
	p := f.state.Load().byHost[a.From]
	if p == nil {
		f.drops[DropUnknownPeer].Add(1)
		return
	}
	defer p.sockets.accepting.Add(-1)
	if p.sockets.accepting.Add(1) > maxAccepting {
		f.drops[DropRate].Add(1)
		_ = a.Refuse()
		return
	}
	answered := false
	err = f.acceptAsked(p, a, func(context.Context) (*hostconn.Conn, error) {
		answered = true
		c, err := a.Accept()
		ours = err != nil
		return c, err
	})
	if err != nil {
		f.log.Debug("a connection of another host's container goes by frames", "host", a.From.Short(), "from", a.Src,
			"to", a.Dst, "error", err)
		if !answered {
			_ = a.Refuse()
		}
	}
}

// acceptAsked connects the container of a host to one here, where the table says that it is that host's.
func (f *Fabric) acceptAsked(p *peer, a *hostconn.Asked,
	take func(context.Context) (*hostconn.Conn, error)) error {
	l := f.state.Load().byVNI[a.VNI]
	if l == nil {
		f.drops[DropUnknownVNI].Add(1)
		return errNotHere
	}
	if l.cfg.Sealed != a.Sealed {
		why := DropPlain
		if a.Sealed {
			why = DropSealed
		}
		l.drop(why)
		return errNotHere
	}
	if e := l.table.Load().byAddr[a.Src.Addr()]; e == nil || e.peer != p {
		l.drop(DropSourceAddr)
		return errNotTheirs
	}
	to, done := l.held.begin()
	if to == nil {
		return errNotHere
	}
	defer done()
	return isolate.Call(f.log, "connecting two containers", func() error {
		return to.Accept(l.held.ctx, Connection{From: a.Src, To: a.Dst, Sealed: a.Sealed, Dial: take})
	})
}

var (
	errNotHere   = errors.New("the network does not take it")
	errNotTheirs = errors.New("the container is not that host's")
)
