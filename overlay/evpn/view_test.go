package evpn

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/bgp"
)

// TestAddressesOfAMACAreBounded has a router say that a MAC has as many addresses as routes of its are kept, and
// another say the same.
func TestAddressesOfAMACAreBounded(t *testing.T) {
	v := &view{macs: map[overlay.MAC]*remoteMAC{}}
	at := netip.MustParseAddr("192.0.2.9")
	for range 2 {
		for i := range bgp.MaxLearned {
			ip := binary.BigEndian.AppendUint32(nil, 10<<24|uint32(i))
			a, _ := netip.AddrFromSlice(ip)
			v.add(bgp.Route{
				NLRI: bgp.NLRI{Family: bgp.EVPN, EVPN: bgp.EVPNRoute{Type: bgp.MACIP, MAC: [6]byte{2, 5: 1}, IP: a}},
				Path: bgp.Path{NextHop: at},
			})
		}
	}
	list := v.entries()
	if len(list) != 1 || len(list[0].Addrs) != maxAddrs {
		t.Fatalf("%d entries, the first with %d addresses", len(list), len(list[0].Addrs))
	}
	for i, a := range list[0].Addrs {
		if want := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}); a != want {
			t.Fatalf("address %d is %v, want %v", i, a, want)
		}
	}
}
