package pasta

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What the namespace gets where the host has no route of a family (pasta(1), --address and --gateway).
var (
	fallbackAddr4    = netip.MustParsePrefix("169.254.2.1/16")
	fallbackGateway4 = netip.MustParseAddr("169.254.2.2")
	fallbackGateway6 = netip.MustParseAddr("fe80::1")
)

const fallbackInterface = "tap0"

// route is a route of the namespace's interface. Via is invalid where the destination is on the link.
type route struct {
	Dst netip.Prefix
	Via netip.Addr
}

// host is what the namespace is to look like: an excerpt of the host's network.
type host struct {
	Interface string
	Addrs     []netip.Prefix
	Routes    []route // those on the link before those by a gateway
	Gateways  [2]netip.Addr
}

// source tells of a host's network. *netlink.Handle is one.
type source interface {
	RouteList(link netlink.Link, family int) ([]netlink.Route, error)
	AddrList(link netlink.Link, family int) ([]netlink.Addr, error)
	LinkByIndex(index int) (netlink.Link, error)
	LinkByName(name string) (netlink.Link, error)
}

// families of netlink by index.
var netlinkFamily = [2]int{v4: unix.AF_INET, v6: unix.AF_INET6}

// readHost finds what the namespace is to look like, by what the host has and by the options, which win.
func readHost(s source, o *Options) (*host, error) {
	h := &host{Interface: o.Interface}
	for family, on := range [2]bool{v4: o.IPv4, v6: o.IPv6} {
		if !on {
			continue
		}
		if err := h.readFamily(s, o, family); err != nil {
			return nil, err
		}
	}
	if h.Interface == "" {
		h.Interface = fallbackInterface
	}
	return h, nil
}

func (h *host) readFamily(s source, o *Options, family int) error {
	link, routes, err := choose(s, o, family)
	if err != nil {
		return err
	}
	var addrs []netip.Prefix
	if link != nil {
		if h.Interface == "" {
			h.Interface = link.Attrs().Name
		}
		if addrs, err = addresses(s, link, family); err != nil {
			return err
		}
	}
	h.Addrs = append(h.Addrs, chooseAddrs(o, family, addrs)...)
	h.Gateways[family] = o.Gateways[family]
	for _, r := range routes {
		if !h.Gateways[family].IsValid() && r.Dst.Bits() == 0 && r.Via.IsValid() {
			h.Gateways[family] = r.Via
		}
	}
	if o.Gateways[family].IsValid() || o.NoCopyRoutes || link == nil {
		routes = nil
	}
	if !h.Gateways[family].IsValid() && len(routes) == 0 {
		h.Gateways[family] = [2]netip.Addr{v4: fallbackGateway4, v6: fallbackGateway6}[family]
	}
	h.addRoutes(family, routes)
	return nil
}

// chooseAddrs are the addresses of a family: the one asked for, or all or the first of the host's.
func chooseAddrs(o *Options, family int, addrs []netip.Prefix) []netip.Prefix {
	if a := o.Addrs[family]; a.IsValid() {
		var bits int
		switch {
		case family == v4 && o.Netmask > 0:
			bits = o.Netmask
		case family == v6:
			bits = 64
		default:
			bits = classBits(a)
			for _, p := range addrs {
				if p.Addr() == a {
					bits = p.Bits()
				}
			}
		}
		return []netip.Prefix{netip.PrefixFrom(a, bits)}
	}
	if len(addrs) == 0 {
		if family == v4 {
			return []netip.Prefix{fallbackAddr4}
		}
		return nil
	}
	if o.NoCopyAddrs {
		addrs = addrs[:1]
	}
	if family == v4 && o.Netmask > 0 {
		for i, p := range addrs {
			addrs[i] = netip.PrefixFrom(p.Addr(), o.Netmask)
		}
	}
	return addrs
}

// classBits is the prefix of an IPv4 address's class, which pasta takes where nothing else is known.
func classBits(a netip.Addr) int {
	switch b := a.As4()[0]; {
	case b < 128:
		return 8
	case b < 192:
		return 16
	}
	return 24
}

// addRoutes copies the routes of a family, on-link ones first, and adds what the gateway needs.
func (h *host) addRoutes(family int, routes []route) {
	var byGateway []route
	haveDefault := false
	for _, r := range routes {
		haveDefault = haveDefault || r.Dst.Bits() == 0
		if r.Via.IsValid() {
			byGateway = append(byGateway, r)
		} else {
			h.Routes = append(h.Routes, r)
		}
	}
	if gw := h.Gateways[family]; gw.IsValid() && !haveDefault {
		all := netip.PrefixFrom([2]netip.Addr{v4: netip.IPv4Unspecified(), v6: netip.IPv6Unspecified()}[family], 0)
		byGateway = append(byGateway, route{all, gw})
	}
	for _, r := range byGateway {
		if h.owns(r.Via) {
			continue // the kernel takes no route by an address of its own; -a has given it to the namespace
		}
		if !h.onLink(r.Via) {
			h.Routes = append(h.Routes, route{Dst: netip.PrefixFrom(r.Via, r.Via.BitLen())})
		}
		h.Routes = append(h.Routes, r)
	}
}

// owns says whether an address is the namespace's.
func (h *host) owns(a netip.Addr) bool {
	return slices.ContainsFunc(h.Addrs, func(p netip.Prefix) bool { return p.Addr() == a })
}

// onLink says whether an address is reached without a gateway.
func (h *host) onLink(a netip.Addr) bool {
	if a.Is6() && a.IsLinkLocalUnicast() {
		return true
	}
	for _, p := range h.Addrs {
		if p.Masked().Contains(a) {
			return true
		}
	}
	for _, r := range h.Routes {
		if !r.Via.IsValid() && r.Dst.Contains(a) {
			return true
		}
	}
	return false
}

// choose finds the host's interface for a family: the one asked for, else the one of the first default route, else the
// one of the first route. It is nil where there is none.
func choose(s source, o *Options, family int) (netlink.Link, []route, error) {
	name := o.HostInterface
	if name == "" {
		name = o.OutboundIf[family]
	}
	all, err := s.RouteList(nil, netlinkFamily[family])
	if err != nil {
		return nil, nil, fmt.Errorf("the host's routes: %w", err)
	}
	var link netlink.Link
	if name != "" {
		if link, err = s.LinkByName(name); err != nil {
			return nil, nil, fmt.Errorf("host interface %s: %w", name, err)
		}
	} else if index := firstIndex(all); index != 0 {
		if link, err = s.LinkByIndex(index); err != nil {
			return nil, nil, fmt.Errorf("host interface %d: %w", index, err)
		}
	}
	if link == nil {
		return nil, nil, nil
	}
	var routes []route
	for _, r := range all {
		if c, ok := convert(r, link.Attrs().Index, family); ok {
			routes = append(routes, c)
		}
	}
	return link, routes, nil
}

func isDefault(r netlink.Route) bool {
	if r.Dst == nil {
		return true
	}
	ones, _ := r.Dst.Mask.Size()
	return ones == 0
}

// firstIndex is the interface of the first default route, else of the first route beyond loopback, else 0.
func firstIndex(all []netlink.Route) int {
	for _, r := range all {
		if isDefault(r) {
			if index, _ := target(r); index != 0 {
				return index
			}
		}
	}
	for _, r := range all {
		if index, _ := target(r); index != 0 && index != 1 && !isLinkLocal(r) {
			return index
		}
	}
	return 0
}

func isLinkLocal(r netlink.Route) bool { return r.Dst != nil && r.Dst.IP.IsLinkLocalUnicast() }

// target is where a route leads: the heaviest of the next hops where there are several.
func target(r netlink.Route) (index int, via net.IP) {
	index, via = r.LinkIndex, r.Gw
	best := -1
	for _, hop := range r.MultiPath {
		if hop.Hops > best {
			best, index, via = hop.Hops, hop.LinkIndex, hop.Gw
		}
	}
	return index, via
}

// convert is a route of the interface in the namespace's terms.
func convert(r netlink.Route, index, family int) (route, bool) {
	at, via := target(r)
	if at != index || r.Type != unix.RTN_UNICAST || r.Table != unix.RT_TABLE_MAIN || isLinkLocal(r) {
		return route{}, false
	}
	out := route{
		Dst: netip.PrefixFrom([2]netip.Addr{v4: netip.IPv4Unspecified(), v6: netip.IPv6Unspecified()}[family], 0),
	}
	if !isDefault(r) {
		a, ok := netip.AddrFromSlice(r.Dst.IP)
		if !ok {
			return route{}, false
		}
		ones, _ := r.Dst.Mask.Size()
		out.Dst = netip.PrefixFrom(a.Unmap(), ones)
	}
	if a, ok := netip.AddrFromSlice(via); ok {
		out.Via = a.Unmap()
	}
	return out, true
}

// addresses are those of an interface that others may know it by.
func addresses(s source, link netlink.Link, family int) ([]netip.Prefix, error) {
	list, err := s.AddrList(link, netlinkFamily[family])
	if err != nil {
		return nil, fmt.Errorf("addresses of %s: %w", link.Attrs().Name, err)
	}
	var out []netip.Prefix
	for _, a := range list {
		addr, ok := netip.AddrFromSlice(a.IP)
		if !ok || addr.IsLinkLocalUnicast() && family == v6 || a.Flags&unix.IFA_F_DEPRECATED != 0 {
			continue
		}
		ones, _ := a.Mask.Size()
		out = append(out, netip.PrefixFrom(addr.Unmap(), ones))
	}
	return out, nil
}
