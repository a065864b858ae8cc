package network

import (
	"encoding/binary"
	"net/netip"

	"github.com/usernet/usernet/internal/errdefs"
)

// address chooses the endpoint's addresses and MAC. Where an Allocator has reserved addresses, only those count.
func (m *Model) address(n *Network, e *Endpoint, r *reservation) error {
	used, macs := m.inUse(n.ID)
	for _, want := range []netip.Addr{e.WantIPv4, e.WantIPv6} {
		if want.IsValid() {
			if err := checkWanted(n, want, used, e.Key != ""); err != nil {
				return err
			}
		}
	}
	for _, a := range e.LinkLocal {
		if used[a] {
			return errdefs.Forbidden("Address already in use")
		}
		used[a] = true
	}
	for i := range n.Pools {
		p := &n.Pools[i]
		v4 := p.Subnet.Addr().Is4()
		addr := e.WantIPv4
		if !v4 {
			addr = e.WantIPv6
		}
		if v4 && e.IPv4.IsValid() || !v4 && e.IPv6.IsValid() || addr.IsValid() && !p.Subnet.Contains(addr) {
			continue
		}
		if r != nil {
			if addr = r.in(p); !addr.IsValid() {
				continue
			}
		}
		if !addr.IsValid() {
			addr = e.ownAddress(p, used)
		}
		if !addr.IsValid() {
			var ok bool
			if addr, ok = p.lowestFree(used); !ok {
				continue
			}
		}
		if v4 {
			e.IPv4, e.Gateway4 = netip.PrefixFrom(addr, p.Subnet.Bits()), p.Gateway
		} else {
			e.IPv6, e.Gateway6 = netip.PrefixFrom(addr, p.Subnet.Bits()), p.Gateway
		}
	}
	for _, f := range []struct {
		version int
		missing bool
	}{{4, n.EnableIPv4 && !e.IPv4.IsValid()}, {6, n.EnableIPv6 && !e.IPv6.IsValid()}} {
		if f.missing {
			return errdefs.Internal("no available IPv%d addresses on this network's address pools: %s (%s)", f.version,
				n.Name, n.ID)
		}
	}
	if n.Internal {
		e.Gateway4, e.Gateway6 = netip.Addr{}, netip.Addr{}
	}
	e.MAC = e.WantMAC
	if e.MAC == (MAC{}) {
		e.MAC = macFor(e.IPv4.Addr(), e.IPv6.Addr())
		for macs[e.MAC] {
			binary.BigEndian.PutUint32(e.MAC[2:], binary.BigEndian.Uint32(e.MAC[2:])+1<<24)
		}
	}
	if macs[e.MAC] {
		return errdefs.Forbidden("MAC address %s is already in use on network %s", e.MAC, n.Name)
	}
	return nil
}

// ownAddress is what an endpoint that makes its own IPv6 address has in a pool; invalid: it does not, or somebody else
// has it. The MAC that it follows from is chosen with it where nobody asked for one.
func (e *Endpoint) ownAddress(p *Pool, used map[netip.Addr]bool) netip.Addr {
	if !e.SelfAddressed || p.Subnet.Addr().Is4() || p.Subnet.Bits() != 64 {
		return netip.Addr{}
	}
	mac := e.WantMAC
	if mac == (MAC{}) {
		if !e.IPv4.IsValid() {
			return netip.Addr{} // the MAC is to follow from the address
		}
		mac = macFor(e.IPv4.Addr(), netip.Addr{})
	}
	a := p.Subnet.Addr().As16()
	copy(a[8:], []byte{mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]})
	addr := netip.AddrFrom16(a)
	if used[addr] || p.Reserved(addr) {
		return netip.Addr{}
	}
	return addr
}

// inUse are the addresses and MACs of a network's endpoints.
func (m *Model) inUse(networkID string) (map[netip.Addr]bool, map[MAC]bool) {
	used, macs := map[netip.Addr]bool{}, map[MAC]bool{}
	for _, c := range m.containers {
		for _, e := range c.Endpoints {
			if e.NetworkID != networkID {
				continue
			}
			for _, p := range []netip.Prefix{e.IPv4, e.IPv6} {
				if p.IsValid() {
					used[p.Addr()] = true
				}
			}
			if c.Status != Exited {
				for _, a := range e.LinkLocal {
					used[a] = true
				}
			}
			if e.MAC != (MAC{}) {
				macs[e.MAC] = true
			}
		}
	}
	return used, macs
}

// checkWanted checks an address that the user asked for. A runtime that attaches a namespace may choose addresses
// itself, and may name one of a subnet that was drawn.
func checkWanted(n *Network, a netip.Addr, used map[netip.Addr]bool, runtime bool) error {
	configured, inside := runtime, false
	for i := range n.Pools {
		p := &n.Pools[i]
		if p.Subnet.Addr().Is4() != a.Is4() {
			continue
		}
		configured = configured || p.Configured
		if p.Subnet.Contains(a) {
			inside = true
			if used[a] || p.Reserved(a) {
				return errdefs.Forbidden("Address already in use")
			}
		}
	}
	switch {
	case !configured:
		return errdefs.Invalid(
			"user specified IP address is supported only when connecting to networks with user configured subnets",
		)
	case !inside:
		return errdefs.Invalid("no configured subnet contains IP address %s", a)
	}
	return nil
}
