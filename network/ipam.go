package network

import (
	"encoding/binary"
	"iter"
	"math"
	"net/netip"
	"slices"
)

// defaultPools are Docker's, in its order: 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/20 to 192.168.240.0/20.
func defaultPools() []netip.Prefix {
	var list []netip.Prefix
	for i := 17; i <= 31; i++ {
		list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(i)}), 16))
	}
	for i := 0; i <= 240; i += 16 {
		list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(i)}), 20))
	}
	return list
}

// overlayPools are 10.0.0.0/24 to 10.255.255.0/24, as in Docker's swarms.
func overlayPools(yield func(netip.Prefix) bool) {
	for i := range 1 << 16 {
		if !yield(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i)}), 24)) {
			return
		}
	}
}

// lastAddr is the highest address of p: the broadcast address where p is IPv4.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Reserved says whether a may not be a container's: the network, broadcast and gateway addresses and the auxiliary
// ones.
func (p *Pool) Reserved(a netip.Addr) bool {
	if a == p.Gateway || a == p.Subnet.Masked().Addr() && p.Subnet.Bits() < a.BitLen()-1 {
		return true
	}
	if a.Is4() && p.Subnet.Bits() < 31 && a == lastAddr(p.Subnet) {
		return true
	}
	for _, x := range p.Aux {
		if a == x {
			return true
		}
	}
	return false
}

// Usage counts the addresses of the subnet that are in use (used) or reserved, and those that are left in the pool's
// range. Both end at 2^64-1.
func (p *Pool) Usage(used []netip.Addr) (inUse, available uint64) {
	r := p.span()
	gone := map[netip.Addr]bool{}
	for _, a := range used {
		gone[a] = p.Subnet.Contains(a)
	}
	for _, a := range []netip.Addr{p.Subnet.Masked().Addr(), lastAddr(p.Subnet), p.Gateway} {
		gone[a] = gone[a] || p.Reserved(a)
	}
	for _, a := range p.Aux {
		gone[a] = true
	}
	available = math.MaxUint64
	if bits := r.Addr().BitLen() - r.Bits(); bits < 64 {
		available = 1 << bits
	}
	for a, is := range gone {
		if !is {
			continue
		}
		inUse++
		if r.Contains(a) && available < math.MaxUint64 {
			available--
		}
	}
	return inUse, available
}

// freePool is the first of a driver's default pools that no network and no route of the host overlaps.
func freePool(pools iter.Seq[netip.Prefix], used []netip.Prefix) (netip.Prefix, bool) {
	if pools == nil {
		pools = slices.Values(defaultPools())
	}
	same := setOf(used)
	for p := range pools {
		if !same[p] && !overlapsAny(p, used) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// setOf is for most of a driver's pools that are used: those need no walk through all that are.
func setOf(used []netip.Prefix) map[netip.Prefix]bool {
	set := make(map[netip.Prefix]bool, len(used))
	for _, p := range used {
		set[p] = true
	}
	return set
}

func overlapsAny(p netip.Prefix, list []netip.Prefix) bool {
	for _, q := range list {
		if p.Overlaps(q) {
			return true
		}
	}
	return false
}

// freeULA is the first /64 of the installation's own /48 (RFC 4193) that no network overlaps.
func freeULA(prefix netip.Prefix, used []netip.Prefix) (netip.Prefix, bool) {
	b, same := prefix.Addr().As16(), setOf(used)
	for i := range 1 << 16 {
		binary.BigEndian.PutUint16(b[6:], uint16(i))
		if p := netip.PrefixFrom(netip.AddrFrom16(b), 64); !same[p] && !overlapsAny(p, used) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// macFor is 02:42 and the IPv4 address, so that an address keeps its MAC; without one, the last four bytes of the IPv6
// address.
func macFor(v4, v6 netip.Addr) MAC {
	m := MAC{0x02, 0x42}
	if v4.Is4() {
		a := v4.As4()
		copy(m[2:], a[:])
		return m
	}
	if v6.Is6() {
		a := v6.As16()
		copy(m[2:], a[12:])
	}
	return m
}
