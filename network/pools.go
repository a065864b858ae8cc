package network

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/usernet/usernet/internal/errdefs"
)

// families says which address families a new network has: what was asked for, else the driver options of that name,
// else IPv4 alone or the daemon's default.
func (m *Model) families(spec NetworkSpec) (v4, v6 bool) {
	choose := func(asked, option *bool, def bool) bool {
		switch {
		case asked != nil:
			return *asked
		case option != nil:
			return *option
		}
		return def
	}
	s := read(spec.Options, NetworkOptions)
	return choose(spec.EnableIPv4, s.IPv4, true), choose(spec.EnableIPv6, s.IPv6, m.opts.DefaultIPv6)
}

// addPools checks the subnets that were given and draws those that are missing. IPv4 subnets come first, as in Docker.
// A subnet of a family that the network does not have is left out, as in Docker; the warning names it.
func (m *Model) addPools(n *Network, spec NetworkSpec) (warning string, err error) {
	n.EnableIPv4, n.EnableIPv6 = m.families(spec)
	if !n.EnableIPv4 && !n.EnableIPv6 {
		return "", errdefs.Invalid("IPv4 or IPv6 must be enabled")
	}
	var mistakes []error
	for _, p := range spec.Pools {
		p = p.unmapped()
		v6 := p.Subnet.Addr().Is6()
		switch {
		case !p.Subnet.IsValid() && (p.Gateway.IsValid() || p.Range.IsValid() || len(p.Aux) > 0):
			return "", errdefs.Invalid(
				"invalid network config: gateway, ip-range and aux-address need a subnet that contains them: give " +
					"one with --subnet")
		case !p.Subnet.IsValid():
			continue
		case v6 && !n.EnableIPv6:
			warning = fmt.Sprintf(
				"subnet %s is ignored: the network has no IPv6, which --ipv6 (EnableIPv6) switches on", p.Subnet)
			continue
		case !v6 && !n.EnableIPv4:
			warning = fmt.Sprintf("subnet %s is ignored: IPv4 is switched off for the network", p.Subnet)
			continue
		}
		mistakes = append(mistakes, p.mistakes(n.IsDirect())...)
		p.Configured = true
		n.Pools = append(n.Pools, p)
	}
	if len(mistakes) > 0 {
		return "", errdefs.Invalid("invalid network config:\n%w", errors.Join(mistakes...))
	}
	slices.SortStableFunc(n.Pools, func(a, b Pool) int { return a.Subnet.Addr().BitLen() - b.Subnet.Addr().BitLen() })
	used := append(m.subnetsInUse(), spec.Avoid...)
	for i := range n.Pools {
		p := &n.Pools[i]
		if overlapsAny(p.Subnet, used) && !spec.ConfigOnly {
			return "", errdefs.Forbidden("invalid pool request: Pool overlaps with other one on this address space")
		}
		used = append(used, p.Subnet)
		if err := p.reserve(); err != nil {
			return "", err
		}
	}
	if spec.ConfigOnly {
		return warning, nil
	}
	return warning, m.drawPools(n, used)
}

// drawPools gives n a subnet for each family that has none.
func (m *Model) drawPools(n *Network, used []netip.Prefix) error {
	if m.opts.HostRoutes != nil {
		used = append(used, m.opts.HostRoutes()...)
	}
	has := func(v6 bool) bool {
		return slices.ContainsFunc(n.Pools, func(p Pool) bool { return p.Subnet.Addr().Is6() == v6 })
	}
	full := errdefs.Unavailable(
		"all predefined address pools have been fully subnetted: remove networks, or give a --subnet")
	if n.EnableIPv4 && !has(false) {
		p, ok := freePool(n.driver().pools, used)
		if !ok {
			return full
		}
		n.Pools = append([]Pool{{Subnet: p, Gateway: p.Addr().Next()}}, n.Pools...)
	}
	if n.EnableIPv6 && !has(true) {
		p, ok := freeULA(m.ula, used)
		if !ok {
			return full
		}
		n.Pools = append(n.Pools, Pool{Subnet: p, Gateway: p.Addr().Next()})
	}
	return nil
}

// subnetsInUse are the subnets of all networks. Those of config-only networks are only settings.
func (m *Model) subnetsInUse() []netip.Prefix {
	var used []netip.Prefix
	for _, o := range m.networks {
		for _, p := range o.Pools {
			if !o.ConfigOnly {
				used = append(used, p.Subnet)
			}
		}
	}
	return used
}

// mappedBits is the length of ::ffff:0:0/96, in which IPv6 writes IPv4 addresses (RFC 4291, 2.5.5.2).
const mappedBits = 96

// unmapped returns p with IPv4-mapped IPv6 addresses written as IPv4.
func (p Pool) unmapped() Pool {
	prefix := func(x netip.Prefix) netip.Prefix {
		if !x.Addr().Is4In6() || x.Bits() < mappedBits {
			return x
		}
		return netip.PrefixFrom(x.Addr().Unmap(), x.Bits()-mappedBits)
	}
	p.Subnet, p.Range, p.Gateway, p.Aux = prefix(p.Subnet), prefix(p.Range), p.Gateway.Unmap(), maps.Clone(p.Aux)
	for name, a := range p.Aux {
		p.Aux[name] = a.Unmap()
	}
	return p
}

// routerByLink says whether the gateway is an IPv6 router known by its link-local address alone, as on a physical
// network.
func (p *Pool) routerByLink(direct bool) bool {
	return direct && p.Subnet.Addr().Is6() && p.Gateway.Is6() && p.Gateway.IsLinkLocalUnicast()
}

// mistakes is what is wrong with the pool by itself, in Docker's words.
func (p *Pool) mistakes(direct bool) []error {
	var list []error
	mistake := func(format string, args ...any) { list = append(list, fmt.Errorf(format, args...)) }
	version := 4
	if p.Subnet.Addr().Is6() {
		version = 6
	}
	if p.Subnet != p.Subnet.Masked() {
		mistake("invalid subnet %s: it should be %s", p.Subnet, p.Subnet.Masked())
	}
	if p.Subnet.Bits() > p.Subnet.Addr().BitLen()-2 {
		mistake("invalid subnet %s: it has no room for a gateway and a container", p.Subnet)
	}
	switch r := p.Range; {
	case !r.IsValid():
	case r.Addr().Is6() != p.Subnet.Addr().Is6():
		mistake("invalid ip-range %s: parent subnet is an IPv%d block", r, version)
	default:
		if r.Bits() < p.Subnet.Bits() {
			mistake("invalid ip-range %s: CIDR block is bigger than its parent subnet %s", r, p.Subnet)
		}
		if r != r.Masked() {
			mistake("invalid ip-range %s: it should be %s", r, r.Masked())
		}
		if !p.Subnet.Overlaps(r) {
			mistake("invalid ip-range %s: parent subnet %s doesn't contain ip-range", r, p.Subnet)
		}
	}
	address := func(what string, a netip.Addr) {
		switch {
		case !a.IsValid():
		case a.Is6() != p.Subnet.Addr().Is6():
			mistake("invalid %s: parent subnet is an IPv%d block", what, version)
		case !p.Subnet.Contains(a):
			mistake("invalid %s: parent subnet %s doesn't contain this address", what, p.Subnet)
		}
	}
	if !p.routerByLink(direct) {
		address("gateway "+p.Gateway.String(), p.Gateway)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Aux)) {
		address("auxiliary address "+name, p.Aux[name])
	}
	return list
}

// reserve chooses the gateway where none was given, and refuses a gateway or an auxiliary address that is the subnet's
// network or broadcast address, or reserved already. A container's default route by such a gateway is refused by the
// kernel.
func (p *Pool) reserve() error {
	if !p.Gateway.IsValid() {
		p.Gateway = p.Subnet.Addr().Next()
	}
	taken := map[netip.Addr]bool{p.Subnet.Addr(): true}
	if p.Subnet.Addr().Is4() {
		taken[lastAddr(p.Subnet)] = true
	}
	if taken[p.Gateway] {
		return errdefs.Invalid("failed to allocate gateway (%s): Address already in use", p.Gateway)
	}
	taken[p.Gateway] = true
	for _, name := range slices.Sorted(maps.Keys(p.Aux)) {
		if a := p.Aux[name]; taken[a] {
			return errdefs.Invalid("failed to allocate secondary ip address (%s:%s): Address already in use", name, a)
		}
		taken[p.Aux[name]] = true
	}
	return nil
}
