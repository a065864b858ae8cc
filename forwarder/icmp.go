package forwarder

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/packet"
	"github.com/usernet/usernet/internal/sockio"
)

// hopLimit answers a packet that must not travel on with "time exceeded", as a router does (RFC 1812, 5.3.1).
func (f *Forwarder) hopLimit(p packet.Datagram) bool {
	if p.TTL > 1 || f.cfg.Inside.Owns(p.Dst.Addr()) {
		return false
	}
	f.sendError(p, packet.HopsExceeded)
	return true
}

// reject tells a container that its packet cannot go where it should.
func (f *Forwarder) reject(p packet.Datagram, why error) {
	switch {
	case errors.Is(why, ErrNoAnswer):
	case errors.Is(why, errProhibited), errors.Is(why, unix.EACCES), errors.Is(why, unix.EPERM):
		f.sendError(p, packet.Prohibited)
	case errors.Is(why, unix.EHOSTUNREACH):
		f.sendError(p, packet.HostUnreachable)
	default:
		f.sendError(p, packet.NetUnreachable)
	}
}

// sendError answers a packet with an ICMP error of its family, in the gateway's name. Errors are never answered with
// errors, nor is what was sent to a group (RFC 1122, 3.2.2); netstack brings neither here.
func (f *Forwarder) sendError(p packet.Datagram, problem packet.Problem) {
	gw := f.gateway(p.Src.Addr())
	if !gw.IsValid() || len(p.Original) == 0 {
		return
	}
	_ = f.cfg.Inside.WriteICMP(gw, p.Src.Addr(), packet.ICMPError(problem, p.Src.Addr(), p.Original)) // it may be lost
}

// icmpHeader is the beginning of the ICMP message that carries e to a container.
func icmpHeader(e sockio.QueuedError) []byte {
	m := []byte{e.Type, e.Code, 0, 0, 0, 0, 0, 0}
	if e.V6 {
		binary.BigEndian.PutUint32(m[4:], e.Info)
	} else if kind, code := packet.TooBig.Type(false); e.Type == kind && e.Code == code {
		binary.BigEndian.PutUint16(m[6:], uint16(min(e.Info, 0xffff))) // RFC 1191, section 4
	}
	return m
}

// icmpSource is in whose name a container hears of e, about a packet to an address: the router's that sent it, the
// gateway's where that was this machine, or the destination's where that is what answered.
func (f *Forwarder) icmpSource(e sockio.QueuedError, to netip.Addr) netip.Addr {
	switch {
	case e.Local:
		return f.gateway(to)
	case !e.Offender.IsValid() || e.Offender.IsLoopback() || e.Offender.Is4() != to.Is4():
		return to
	}
	return e.Offender
}

// passErrors gives the container the ICMP errors that wait on the association's socket.
func (a *association) passErrors() {
	a.sock.ReadErrors(func(e sockio.QueuedError, to netip.AddrPort, payload []byte) {
		size := len(payload)
		if e.Local {
			a.mu.Lock()
			to, size = a.sent.target, a.sent.size
			a.mu.Unlock()
		}
		if !to.IsValid() || to.Addr().Is4() != a.inside.Addr().Is4() || e.V6 == to.Addr().Is4() {
			return
		}
		to = a.known(to)
		message := append(icmpHeader(e), packet.QuoteUDP(a.inside, to, size)...)
		_ = a.f.cfg.Inside.WriteICMP(a.f.icmpSource(e, to.Addr()), a.inside.Addr(), message)
	})
}
