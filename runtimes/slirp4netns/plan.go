package slirp4netns

import (
	"fmt"
	"net/netip"
	"strings"
)

// defaultCIDR is slirp4netns's network.
const defaultCIDR = "10.0.2.0/24"

// Where slirp4netns's addresses are in the network (slirp4netns(1), DESCRIPTION).
const (
	offsetGateway = 2
	offsetDNS     = 3
	offsetDHCP    = 15
	offsetGuest   = 100
	dhcpAddresses = 16 // libslirp's NB_BOOTP_CLIENTS

	minPrefix, maxPrefix = 1, 25 // the guest is at network + 100
)

// The IPv6 network is fixed (libslirp's default).
var (
	prefix6  = netip.MustParsePrefix("fd00::/64")
	gateway6 = netip.MustParseAddr("fd00::2")
	dns6     = netip.MustParseAddr("fd00::3")
)

// Plan is which IPv4 address is whose.
type Plan struct {
	Network             netip.Prefix
	Gateway, DNS, Guest netip.Addr
	DHCPFirst, DHCPLast netip.Addr
}

func newPlan(cidr string) (Plan, error) {
	p, err := netip.ParsePrefix(cidr)
	if addr, _, ok := strings.Cut(cidr, "/"); err != nil && ok && strings.Count(addr, ".") == 3 {
		if _, bad := netip.ParseAddr(addr); bad != nil {
			return Plan{}, fmt.Errorf("invalid network address: %s", addr)
		}
	}
	switch {
	case err != nil || !p.Addr().Is4():
		return Plan{}, fmt.Errorf("invalid CIDR: %s", cidr)
	case p.Bits() < minPrefix || p.Bits() > maxPrefix:
		return Plan{}, fmt.Errorf("prefix length needs to be %d-%d", minPrefix, maxPrefix)
	case p.Masked() != p:
		return Plan{}, fmt.Errorf("CIDR needs to be a network address like %s, not like %s", p.Masked(), p)
	}
	at := func(n uint32) netip.Addr {
		b := p.Addr().As4()
		v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3]) + n
		return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
	}
	return Plan{
		Network:   p,
		Gateway:   at(offsetGateway),
		DNS:       at(offsetDNS),
		Guest:     at(offsetGuest),
		DHCPFirst: at(offsetDHCP),
		DHCPLast:  at(offsetDHCP + dhcpAddresses - 1),
	}, nil
}
