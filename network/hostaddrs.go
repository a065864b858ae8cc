package network

import (
	"encoding/hex"
	"net/netip"
)

// hostPrefix6 is where the host is found by IPv6 from physical networks: a unique local prefix (RFC 4193) of which only
// addresses of single machines are used, on links that end in this process.
var hostPrefix6 = [6]byte{0xfd, 0x75, 0x6e, 0x65, 0x74, 0x00}

// HostAddrs are the addresses of the network's gateway, which stands for the host, each with the length of its subnet.
// On a physical network they are none of its own, so that nobody else there can have them: a link-local one (RFC 3927)
// that follows from the network's id, and of the same bytes one of IPv6.
func (n *Network) HostAddrs() []netip.Prefix {
	var list []netip.Prefix
	if !n.IsDirect() {
		for _, p := range n.Pools {
			if p.Gateway.IsValid() {
				list = append(list, netip.PrefixFrom(p.Gateway, p.Subnet.Bits()))
			}
		}
		return list
	}
	var id [2]byte
	_, _ = hex.Decode(id[:], []byte(n.ID[:min(4, len(n.ID))]))
	// The first and the last 256 addresses are reserved (RFC 3927 section 2.1).
	third, last := 1+id[0]%254, 1+id[1]%254
	if n.EnableIPv4 {
		list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{169, 254, third, last}), 32))
	}
	if n.EnableIPv6 {
		a := [16]byte{14: third, 15: last}
		copy(a[:], hostPrefix6[:])
		list = append(list, netip.PrefixFrom(netip.AddrFrom16(a), 128))
	}
	return list
}
