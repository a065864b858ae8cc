package uplink

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/mdlayher/ndp"

	"github.com/usernet/usernet/internal/packet"
	"github.com/usernet/usernet/overlay/uplink/routers"
	vswitch "github.com/usernet/usernet/switch"
)

// claim is what a frame says of who has an address: an ARP packet's sender, or a neighbour discovery's target.
type claim struct {
	addr netip.Addr
	mac  [6]byte
	// probe: the sender is about to have the address, if nobody else does (RFC 5227, RFC 4862).
	probe bool
}

// claimOf reads the claim of a frame; false: it makes none. The frame is only read.
func claimOf(f *vswitch.Frame) (claim, bool) {
	if len(f.Payload) == 0 {
		return claim{}, false
	}
	switch p := f.Payload[0]; f.EtherType() {
	case vswitch.EtherTypeARP:
		return claimOfARP(p)
	case vswitch.EtherTypeIPv6:
		return claimOfND(p, f.Ethernet()[6:macsLen])
	}
	return claim{}, false
}

// arpIPv4 is how an ARP packet for IPv4 over Ethernet begins (RFC 826), and arpLen is its length.
var arpIPv4 = []byte{0, 1, 8, 0, 6, 4}

const arpLen = 28

func claimOfARP(p []byte) (claim, bool) {
	if len(p) < arpLen || !bytes.Equal(p[:6], arpIPv4) {
		return claim{}, false
	}
	sender, target := netip.AddrFrom4([4]byte(p[14:18])), netip.AddrFrom4([4]byte(p[24:28]))
	c := claim{addr: sender, mac: [6]byte(p[8:14])}
	if sender.IsUnspecified() {
		c.addr, c.probe = target, true
	}
	return c, c.addr.IsValid() && !c.addr.IsUnspecified()
}

// Types of ICMPv6 (RFC 4861 sections 4.3 and 4.4).
const (
	ndSolicitation  = 135
	ndAdvertisement = 136
	ndLen           = 24 // with the target
)

func claimOfND(p, src []byte) (claim, bool) {
	const at = packet.IPv6HeaderLen
	if len(p) < at+ndLen || p[6] != packet.ProtoICMPv6 || p[7] != 255 || p[at+1] != 0 {
		return claim{}, false
	}
	c := claim{addr: netip.AddrFrom16([16]byte(p[at+8 : at+ndLen])), mac: [6]byte(src)}
	if !c.addr.IsGlobalUnicast() && !c.addr.IsLinkLocalUnicast() {
		return claim{}, false
	}
	switch p[at] {
	case ndAdvertisement:
		return c, true
	case ndSolicitation:
		c.probe = netip.AddrFrom16([16]byte(p[8:24])).IsUnspecified()
		return c, c.probe
	}
	return claim{}, false
}

// solicited is the link-local target that a neighbour solicitation from an address asks for; false: p is none.
func solicited(f *vswitch.Frame) (target, from netip.Addr, ok bool) {
	const at = packet.IPv6HeaderLen
	if f.EtherType() != vswitch.EtherTypeIPv6 || len(f.Payload) == 0 {
		return target, from, false
	}
	p := f.Payload[0]
	if len(p) < at+ndLen || p[6] != packet.ProtoICMPv6 || p[7] != 255 || p[at] != ndSolicitation || p[at+1] != 0 {
		return target, from, false
	}
	target, from = netip.AddrFrom16([16]byte(p[at+8:at+ndLen])), netip.AddrFrom16([16]byte(p[8:24]))
	return target, from, target.IsLinkLocalUnicast() && !from.IsUnspecified() && !from.IsMulticast()
}

var (
	broadcast   = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	allNodes    = netip.MustParseAddr("ff02::1")
	allNodesMAC = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1} // RFC 2464 section 7
)

// wire is a packet on its way to a station.
type wire struct {
	etherType uint16
	dst       net.HardwareAddr
	packet    []byte
}

// arp is a request of a station's with a MAC, to all.
func arp(mac net.HardwareAddr, sender, target netip.Addr) wire {
	p := make([]byte, arpLen)
	copy(p, arpIPv4)
	binary.BigEndian.PutUint16(p[6:], 1)
	s, t := sender.As4(), target.As4()
	copy(p[8:], mac)
	copy(p[14:], s[:])
	copy(p[24:], t[:])
	return wire{vswitch.EtherTypeARP, broadcast, p}
}

// probe asks whether somebody has an address (RFC 5227 section 2.1.1, RFC 4862 section 5.4.2).
func probe(mac net.HardwareAddr, a netip.Addr) wire {
	if a.Is4() {
		return arp(mac, netip.IPv4Unspecified(), a)
	}
	to, err := ndp.SolicitedNodeMulticast(a)
	if err != nil {
		return wire{}
	}
	group := to.As16()
	dst := append(net.HardwareAddr{0x33, 0x33}, group[12:]...)
	return discovery(dst, netip.IPv6Unspecified(), to, &ndp.NeighborSolicitation{TargetAddress: a})
}

// announcement tells all who has an address (RFC 5227 section 2.3, RFC 4861 section 7.2.6).
func announcement(mac net.HardwareAddr, a netip.Addr) wire {
	if a.Is4() {
		return arp(mac, a, a)
	}
	return advertisement(mac, allNodesMAC, a, allNodes, false)
}

// advertisement says that a is mac's.
func advertisement(mac, dst net.HardwareAddr, a, to netip.Addr, solicited bool) wire {
	return discovery(dst, a, to, &ndp.NeighborAdvertisement{TargetAddress: a, Override: true, Solicited: solicited,
		Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Target, Addr: mac}}})
}

func discovery(dst net.HardwareAddr, from, to netip.Addr, m ndp.Message) wire {
	body, err := ndp.MarshalMessageChecksum(m, from, to)
	if err != nil {
		return wire{}
	}
	return wire{vswitch.EtherTypeIPv6, dst, routers.Packet(from, to, body)}
}
