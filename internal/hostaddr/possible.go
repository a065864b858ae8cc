package hostaddr

import "net/netip"

// broadcast is the limited broadcast address (RFC 919, section 7).
var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// Possible says whether a host can have an address: not those of groups, of all hosts of a link, or of none.
func Possible(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && a != broadcast
}
