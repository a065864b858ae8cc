package stack

import (
	"net/netip"
	"slices"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/usernet/usernet/internal/packet"
	vswitch "github.com/usernet/usernet/switch"
)

// ownAddresses are those that the gateway answers address resolution for. A NIC that is promiscuous and spoofing, as
// the gateway's has to be, makes netstack answer for every address, and containers would send to it what is meant for
// each other.
type ownAddresses struct {
	v4 [][4]byte
	v6 [][16]byte
	// proxy answers for all addresses but these, which are others' on the link.
	proxy  bool
	others map[netip.Addr]struct{}
}

// answerAllBut has the gateway answer for all addresses but others, which are on the link.
func (o *ownAddresses) answerAllBut(others []netip.Addr) {
	o.proxy = true
	o.others = make(map[netip.Addr]struct{}, len(others))
	for _, a := range others {
		o.others[a.Unmap()] = struct{}{}
	}
}

func (o *ownAddresses) answers4(target [4]byte) bool {
	if o.proxy {
		_, others := o.others[netip.AddrFrom4(target)]
		return !others && target != [4]byte{}
	}
	return slices.Contains(o.v4, target)
}

// answers6 never answers for link-local addresses that are not the gateway's, since they are on the link.
func (o *ownAddresses) answers6(target [16]byte) bool {
	if slices.Contains(o.v6, target) {
		return true
	}
	a := netip.AddrFrom16(target)
	_, others := o.others[a]
	return o.proxy && !others && !a.IsLinkLocalUnicast()
}

func newOwnAddresses(mac tcpip.LinkAddress, addrs []netip.Addr) *ownAddresses {
	o := &ownAddresses{v6: [][16]byte{vswitch.LinkLocal([]byte(mac)).As16()}}
	for _, a := range addrs {
		if a = a.Unmap(); a.Is4() {
			o.v4 = append(o.v4, a.As4())
		} else if a.Is6() {
			o.v6 = append(o.v6, a.As16())
		}
	}
	return o
}

// wants says whether netstack may see a frame, which is anything but requests for other stations' addresses, and
// whether the frame has a UDP datagram, which may go past netstack.
func (o *ownAddresses) wants(f *vswitch.Frame) (wanted, udp bool) {
	if len(f.Payload) == 0 {
		return false, false
	}
	p := f.Payload[0]
	switch f.EtherType() {
	case vswitch.EtherTypeIPv4:
		return true, len(p) >= packet.IPv4HeaderLen && p[9] == packet.ProtoUDP
	case vswitch.EtherTypeARP:
		return o.wantsARP(p), false
	case vswitch.EtherTypeIPv6:
		return o.wantsIPv6(p)
	}
	return false, false // netstack has no protocol for it
}

func (o *ownAddresses) wantsARP(p []byte) bool {
	a := header.ARP(p)
	if !a.IsValid() {
		return false
	}
	if o.answers4([4]byte(a.ProtocolAddressTarget())) {
		return true
	}
	// A reply answers a request of netstack's; requests for other stations tell it nothing that it needs.
	return a.Op() == header.ARPReply
}

// wantsIPv6 drops neighbour solicitations for others, wherever extension headers put them.
func (o *ownAddresses) wantsIPv6(p []byte) (wanted, udp bool) {
	h, ok := packet.ParseIPv6(p)
	switch {
	case !ok:
		return false, false
	case h.Proto != packet.ProtoICMPv6:
		return true, h.Proto == packet.ProtoUDP
	case h.Later: // the first fragment may have been of any type
		return !isSolicited(p), false
	}
	return o.wantsICMPv6(p[h.Transport:min(h.Length, len(p))]), false
}

func (o *ownAddresses) wantsICMPv6(p []byte) bool {
	if len(p) < header.ICMPv6MinimumSize || header.ICMPv6(p).Type() != header.ICMPv6NeighborSolicit {
		return true
	}
	if len(p) < header.ICMPv6NeighborSolicitMinimumSize {
		return false
	}
	return o.answers6([16]byte(p[8:24]))
}

// isSolicited says whether a packet goes to a solicited-node multicast address (RFC 4291 section 2.7.1).
func isSolicited(p []byte) bool {
	return header.IsSolicitedNodeAddr(tcpip.AddrFromSlice(p[24:40]))
}
