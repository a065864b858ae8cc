package forwarder

import (
	"context"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/forwarder/publish"
	"github.com/usernet/usernet/internal/sockio"
)

// insideFor is a client of a published port as the container sees it, and the container's end.
func (f *Forwarder) insideFor(p *publish.Port, client netip.AddrPort) (src, dst netip.AddrPort) {
	a := client.Addr().Unmap().WithZone("")
	dst = p.Inside(a.Is6())
	if f.cfg.HideClients || a.Is4() != dst.Addr().Is4() || f.cfg.Inside.Contains(a) || f.cfg.Shared.host.Has(a) {
		a = f.gateway(dst.Addr())
	}
	return netip.AddrPortFrom(a, client.Port()), dst
}

// HandleConn implements publish.Handler: it dials the container in the client's name. A refusal there is a reset here.
func (f *Forwarder) HandleConn(p *publish.Port, fd int, client netip.AddrPort) {
	if f.cfg.Shared.host.Has(client.Addr()) {
		sockio.StaysLocal(fd)
	}
	if f.cfg.ToLoopback && client.Addr().Unmap().IsLoopback() {
		f.connectLoopbacks(p, fd, client)
		return
	}
	src, dst := f.insideFor(p, client)
	fl := &flow{f: f, direction: "in", inside: dst, outside: src, hostSide: sockio.LocalAddr(fd)}
	if f.addFlow(fl, fd) != nil {
		_ = unix.Close(fd) // which resets it (sockio.SetTCP)
		return
	}
	inside, err := f.dialBypass(noWait, dst, src, false, 0)
	if err == nil {
		f.counters[countInbound].Add(1)
		f.counters[countBypassInbound].Add(1)
		fl.relay(inside, fd)
		return
	}
	// Whatever it was: what the gateway makes of it counts. A service may be bound to the interface itself.
	go f.dialThrough(fl, fd)
}

// connectLoopbacks connects a client of which fd is the end, and which is at the host's loopback, to the port at the
// loopback of the container's namespace.
func (f *Forwarder) connectLoopbacks(p *publish.Port, fd int, client netip.AddrPort) {
	src := netip.AddrPortFrom(client.Addr().Unmap(), client.Port())
	dst := netip.AddrPortFrom(loopback(src.Addr()), p.Bound().Port)
	fl := &flow{f: f, direction: "in", inside: dst, outside: src, hostSide: sockio.LocalAddr(fd)}
	if f.addFlow(fl, fd) != nil {
		_ = unix.Close(fd)
		return
	}
	go func() { // a socket may have to be waited for
		ctx, cancel := context.WithTimeout(f.ctx, dialTimeout)
		defer cancel()
		inside, err := f.dialBypass(ctx, dst, netip.AddrPortFrom(loopback(src.Addr()), 0), false, dialTimeout)
		if err != nil {
			f.counters[countTCPRefused].Add(1)
			_ = unix.Close(fd)
			f.removeFlow(fl)
			return
		}
		f.counters[countInbound].Add(1)
		f.counters[countBypassInbound].Add(1)
		fl.relay(inside, fd)
	}()
}

// noWait has ended: the reactor waits for nothing. A connection within a namespace is there when connect(2) returns.
var noWait = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// dialThrough connects a flow of which the client's end is fd to the container by way of the gateway.
func (f *Forwarder) dialThrough(fl *flow, fd int) {
	if !f.acquireUse(fl.inside.Addr(), useDialling) {
		_ = unix.Close(fd)
		f.removeFlow(fl)
		return
	}
	memory, ok := f.claimBuffers(fl.inside.Addr())
	if !ok {
		f.releaseUse(fl.inside.Addr(), useDialling)
		_ = unix.Close(fd)
		f.removeFlow(fl)
		return
	}
	ctx, cancel := context.WithTimeout(f.ctx, dialTimeout)
	in, err := f.dialInside(ctx, fl.outside, fl.inside)
	if errors.Is(err, unix.EADDRINUSE) {
		// The client has this port in use towards this container already, under a name that is now the same.
		in, err = f.dialInside(ctx, netip.AddrPortFrom(fl.outside.Addr(), 0), fl.inside)
	}
	cancel()
	f.releaseUse(fl.inside.Addr(), useDialling)
	if err != nil {
		f.counters[countTCPRefused].Add(1)
		_ = unix.Close(fd)
		memory.release()
		f.removeFlow(fl)
		return
	}
	f.counters[countInbound].Add(1)
	fl.relayConn(in, fd, memory)
}
