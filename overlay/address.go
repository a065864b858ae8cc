package overlay

import "net/netip"

// CanBeHost says whether frames for another host can be sent to an address: it is none of this machine's loopback, of a
// group, or of all hosts. Control planes of others (EVPN, flannel, Docker) name addresses, and this host sends there.
func CanBeHost(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() &&
		a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}
