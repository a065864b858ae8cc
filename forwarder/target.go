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

// Way is how a destination of a container's leads somewhere, or why it does not.
type Way int

// The ways.
const (
	ToDestination   Way = iota // the destination itself
	ToTranslated               // where Config.Translate says
	ToHostLoopback             // the host's loopback, at a gateway's address
	ToPublished                // a published port, at a gateway's address
	ToHost                     // the host's own address, at a gateway's address
	NowhereRefused             // Config.Refuse
	NowhereInternal            // the network is internal
	NowhereOnPath              // no packet may have it as destination, or it is a neighbour's
	NowhereNetwork             // in another network of the daemon
	NowhereNoHost              // the host has no address of that family
)

var wayTexts = map[Way]string{
	ToDestination:   "it is outside of all networks: the host connects there",
	ToTranslated:    "the address stands for one of the host's",
	ToHostLoopback:  "a gateway's address stands for the host, and --host-loopback opens the host's loopback there",
	ToPublished:     "a gateway's address stands for the host, where a container has published this port",
	ToHost:          "a gateway's address stands for the host: its own address, not its loopback",
	NowhereRefused:  "nobody is to be reached at this address",
	NowhereInternal: "the network is internal (--internal): nothing goes out",
	NowhereOnPath:   "no packet to this address goes through a gateway: a loopback, group or unspecified address, or one of the network's own",
	NowhereNetwork:  "the address is in another network: `usernet network connect` joins it, or publish a port",
	NowhereNoHost:   "the host has no address of this family",
}

func (w Way) String() string { return wayTexts[w] }

// allowFunc is the form of Config.Allow.
type allowFunc func(container netip.Addr, proto uint8, dst netip.AddrPort) error

// hostTarget decides where on the host a container's destination is: itself, or for a gateway's address, which stands
// for the host, one of the host's.
func (f *Forwarder) hostTarget(src netip.Addr, proto uint8, dst netip.AddrPort) (netip.AddrPort, error) {
	target, _, err := f.decide(src, proto, dst, f.cfg.Allow)
	if errors.Is(err, errProhibited) {
		f.counters[countProhibited].Add(1)
	}
	if err != nil && f.cfg.Refused != nil {
		f.cfg.Refused(src, proto, dst, err)
	}
	return target, err
}

// decide is hostTarget without a trace: nothing is counted or told by it. allow is the egress policy; nil allows all.
func (f *Forwarder) decide(
	src netip.Addr, proto uint8, dst netip.AddrPort, allow allowFunc,
) (target netip.AddrPort, way Way, err error) {
	a := dst.Addr()
	if f.cfg.Refuse != nil {
		if err := f.cfg.Refuse(a); err != nil {
			return dst, NowhereRefused, err
		}
	}
	if f.cfg.Translate != nil && !f.cfg.Internal {
		if to := f.cfg.Translate(a); to.IsValid() {
			target := netip.AddrPortFrom(to, dst.Port())
			return target, ToTranslated, allowed(allow, src, proto, dst, target)
		}
	}
	switch {
	case f.cfg.Internal:
		return dst, NowhereInternal, ErrInternal
	case f.cfg.Inside.Owns(a):
		return f.hostItself(src, proto, dst, allow)
	case a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() || f.cfg.Inside.Contains(a):
		return dst, NowhereOnPath, ErrUnreachable
	case a.Is4In6(): // which no packet may carry (RFC 4291, 2.5.5.2), and the host's sockets would take for IPv4
		return dst, NowhereOnPath, ErrUnreachable
	case f.cfg.Shared.networks.contain(a): // other networks, and hosts outside with such an address, are not reached
		if proto != unix.IPPROTO_TCP && proto != unix.IPPROTO_UDP || !f.cfg.Shared.networks.isGateway(a) {
			return dst, NowhereNetwork, ErrOtherNetwork
		}
		return f.hostItself(src, proto, dst, allow) // as with Docker, where each bridge's address is the host
	}
	return dst, ToDestination, allowed(allow, src, proto, dst, netip.AddrPort{})
}

// hostItself decides where on the host a gateway's address leads. Where the container may reach the host's loopback,
// that is there. Else it leads to what the host's other addresses lead to as well: published ports, and services that
// listen on all of the host's addresses. The policy may allow it by either address.
func (f *Forwarder) hostItself(
	src netip.Addr, proto uint8, dst netip.AddrPort, allow allowFunc,
) (target netip.AddrPort, way Way, err error) {
	atLoopback := netip.AddrPortFrom(loopback(dst.Addr()), dst.Port())
	if f.cfg.HostLoopback(src) {
		return atLoopback, ToHostLoopback, nil
	}
	own := f.cfg.Shared.host.Global(dst.Addr().Is6())
	target, way = netip.AddrPortFrom(own, dst.Port()), ToHost
	switch {
	case f.published(dst, proto):
		target, way = atLoopback, ToPublished
	case !own.IsValid():
		return dst, NowhereNoHost, ErrUnreachable
	}
	if err := allowed(allow, src, proto, dst, netip.AddrPortFrom(own, dst.Port())); err != nil {
		return dst, way, err
	}
	return target, way, nil
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
func allowed(allow allowFunc, src netip.Addr, proto uint8, dst, second netip.AddrPort) error {
	if allow == nil {
		return nil
	}
	err := allow(src, proto, dst)
	if err != nil && second.Addr().IsValid() && allow(src, proto, second) == nil {
		err = nil
	}
	if err != nil {
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
