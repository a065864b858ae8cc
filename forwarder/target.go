package forwarder

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/ports"
)

// Why a destination is kept from a container.
var (
	ErrUnreachable = errors.New("network is unreachable") // it is told so
	ErrNoAnswer    = errors.New("nobody answers")         // it is told nothing
	errProhibited  = errors.New("prohibited by the egress policy")

	// Reasons that somebody who wants it otherwise can do something about; Config.Refused is told of them.
	ErrInternal     = fmt.Errorf("%w: the network is internal, and has no way out", ErrUnreachable)
	ErrOtherNetwork = fmt.Errorf("%w: networks do not reach each other", ErrUnreachable)
	// ErrLoopbackClosed is told for a connection that the host has refused at its own address.
	ErrLoopbackClosed = errors.New("nothing listens on the host's own addresses, and its loopback is closed to the container")
)

// hostTarget decides where on the host a container's destination is: itself, or for a gateway's address, which stands
// for the host, one of the host's.
func (f *Forwarder) hostTarget(src netip.Addr, proto uint8, dst netip.AddrPort) (netip.AddrPort, error) {
	target, err := f.findTarget(src, proto, dst)
	if err != nil && f.cfg.Refused != nil {
		f.cfg.Refused(src, proto, dst, err)
	}
	return target, err
}

func (f *Forwarder) findTarget(src netip.Addr, proto uint8, dst netip.AddrPort) (netip.AddrPort, error) {
	a := dst.Addr()
	if f.cfg.Refuse != nil {
		if err := f.cfg.Refuse(a); err != nil {
			return dst, err
		}
	}
	if f.cfg.Translate != nil && !f.cfg.Internal {
		if to := f.cfg.Translate(a); to.IsValid() {
			target := netip.AddrPortFrom(to, dst.Port())
			return target, f.allowed(src, proto, dst, target)
		}
	}
	switch {
	case f.cfg.Internal:
		return dst, ErrInternal
	case f.cfg.Inside.Owns(a):
		return f.hostItself(src, proto, dst)
	case a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() || f.cfg.Inside.Contains(a):
		return dst, ErrUnreachable
	case a.Is4In6(): // which no packet may carry (RFC 4291, 2.5.5.2), and the host's sockets would take for IPv4
		return dst, ErrUnreachable
	case f.cfg.Shared.networks.contain(a): // other networks, and hosts outside with such an address, are not reached
		if proto != unix.IPPROTO_TCP && proto != unix.IPPROTO_UDP || !f.cfg.Shared.networks.isGateway(a) {
			return dst, ErrOtherNetwork
		}
		return f.hostItself(src, proto, dst) // as with Docker, where each bridge's address is the host
	}
	return dst, f.allowed(src, proto, dst, netip.AddrPort{})
}

// hostItself decides where on the host a gateway's address leads. Where the container may reach the host's loopback,
// that is there. Else it leads to what the host's other addresses lead to as well: published ports, and services that
// listen on all of the host's addresses. The policy may allow it by either address.
func (f *Forwarder) hostItself(src netip.Addr, proto uint8, dst netip.AddrPort) (netip.AddrPort, error) {
	atLoopback := netip.AddrPortFrom(loopback(dst.Addr()), dst.Port())
	if f.cfg.HostLoopback(src) {
		return atLoopback, nil
	}
	own := f.cfg.Shared.host.Global(dst.Addr().Is6())
	target := netip.AddrPortFrom(own, dst.Port())
	switch {
	case f.published(dst, proto):
		target = atLoopback
	case !own.IsValid():
		return dst, ErrUnreachable
	}
	if err := f.allowed(src, proto, dst, netip.AddrPortFrom(own, dst.Port())); err != nil {
		return dst, err
	}
	return target, nil
}

// published says whether some container has a port at all of the host's addresses of a family: those that the gateway's
// address stands for. protocol is that of the IP header.
func (f *Forwarder) published(dst netip.AddrPort, protocol uint8) bool {
	var proto ports.Protocol
	switch protocol {
	case unix.IPPROTO_TCP:
		proto = ports.TCP
	case unix.IPPROTO_UDP:
		proto = ports.UDP
	}
	return f.cfg.Shared.PublishedEverywhere(dst.Addr().Is6(), dst.Port(), proto)
}

// allowed asks the egress policy about a destination, which may have a second address.
func (f *Forwarder) allowed(src netip.Addr, proto uint8, dst, second netip.AddrPort) error {
	if f.cfg.Allow == nil {
		return nil
	}
	err := f.cfg.Allow(src, proto, dst)
	if err != nil && second.Addr().IsValid() && f.cfg.Allow(src, proto, second) == nil {
		err = nil
	}
	if err != nil {
		f.counters[countProhibited].Add(1)
		return errors.Join(errProhibited, err)
	}
	return nil
}

// ownNetworks are the subnets and gateways of all networks of a daemon: their addresses mean nothing outside of this
// machine. Reading is an atomic load and a binary search, as it happens for each datagram. The zero value has none.
type ownNetworks struct {
	now atomic.Pointer[ownTable]
}

type ownTable struct {
	gateways map[netip.Addr]struct{}
	sorted   []netip.Prefix // subnets, by address; they do not overlap
}

// set replaces what is known by the subnets of all networks, whose addresses are their gateways'.
func (o *ownNetworks) set(networks []netip.Prefix) {
	next := &ownTable{gateways: map[netip.Addr]struct{}{}}
	for _, n := range networks {
		next.gateways[n.Addr()] = struct{}{}
		next.sorted = append(next.sorted, n.Masked())
	}
	slices.SortFunc(next.sorted, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	o.now.Store(next)
}

// isGateway says whether a is the gateway of a network.
func (o *ownNetworks) isGateway(a netip.Addr) bool {
	t := o.now.Load()
	if t == nil {
		return false
	}
	_, ok := t.gateways[a]
	return ok
}

// contain says whether a is in the subnet of a network.
func (o *ownNetworks) contain(a netip.Addr) bool {
	t := o.now.Load()
	if t == nil {
		return false
	}
	low, high := 0, len(t.sorted)
	for low < high { // the first that begins behind a
		middle := (low + high) / 2
		if t.sorted[middle].Addr().Compare(a) <= 0 {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low > 0 && t.sorted[low-1].Contains(a)
}
