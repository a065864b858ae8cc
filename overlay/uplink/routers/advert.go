package routers

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/mdlayher/ndp"

	"github.com/usernet/usernet/internal/packet"
	vswitch "github.com/usernet/usernet/switch"
)

// hopLimit is that of all neighbour discovery: a packet that was forwarded has less (RFC 4861 section 6.1.2).
const hopLimit = 255

// Advert is a router's advertisement.
type Advert struct {
	From netip.Addr // link-local
	body *ndp.RouterAdvertisement
}

const typeAdvertisement = 134 // RFC 4861 section 4.2

// Parse returns the router advertisement in a frame, checked as RFC 4861 section 6.1.2 has it, or nil. The frame is
// only read.
func Parse(f *vswitch.Frame) *Advert {
	if f.EtherType() != vswitch.EtherTypeIPv6 || len(f.Payload) == 0 {
		return nil
	}
	p := f.Payload[0]
	const min = packet.IPv6HeaderLen + 16
	if len(p) < min || p[6] != packet.ProtoICMPv6 || p[7] != hopLimit || p[packet.IPv6HeaderLen] != typeAdvertisement ||
		p[packet.IPv6HeaderLen+1] != 0 {
		return nil
	}
	end := packet.IPv6HeaderLen + int(binary.BigEndian.Uint16(p[4:]))
	from := netip.AddrFrom16([16]byte(p[8:24]))
	if end < min || end > len(p) || !from.IsLinkLocalUnicast() || !checked(f) && !sound(p[:end]) {
		return nil
	}
	m, err := ndp.ParseMessage(p[packet.IPv6HeaderLen:end])
	if body, ok := m.(*ndp.RouterAdvertisement); err == nil && ok {
		return &Advert{From: from, body: body}
	}
	return nil
}

// checked says whether a checksum is the sender's to vouch for: it did not leave this machine.
func checked(f *vswitch.Frame) bool {
	v := f.Virtio()
	return v.NeedsChecksum || v.DataValid
}

// sound says whether the checksum of an ICMPv6 packet is right.
func sound(p []byte) bool {
	pseudo := make([]byte, 0, 2*16+8+len(p))
	pseudo = append(append(pseudo, p[8:40]...), 0, 0, p[4], p[5], 0, 0, 0, packet.ProtoICMPv6)
	pseudo = append(pseudo, p[packet.IPv6HeaderLen:]...)
	if len(pseudo)%2 != 0 {
		pseudo = append(pseudo, 0)
	}
	return packet.Sum(pseudo, 0) == 0xffff
}

// All routers of a link, and their MAC address (RFC 4291 section 2.7.1, RFC 2464 section 7).
var (
	allRouters    = netip.MustParseAddr("ff02::2")
	AllRoutersMAC = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 2}
)

// Solicitation is the packet by which a station asks all routers to advertise. Its source is no address, as before
// there is one, so that the answer goes to all.
func Solicitation() []byte {
	src := netip.IPv6Unspecified()
	body, err := ndp.MarshalMessageChecksum(&ndp.RouterSolicitation{}, src, allRouters)
	if err != nil {
		return nil // nothing in it depends on anything
	}
	return Packet(src, allRouters, body)
}

// Packet is an ICMPv6 packet of neighbour discovery.
func Packet(src, dst netip.Addr, body []byte) []byte {
	b := make([]byte, packet.IPv6HeaderLen, packet.IPv6HeaderLen+len(body))
	packet.PutIP(b, src, dst, packet.ProtoICMPv6, len(body))
	b[7] = hopLimit
	return append(b, body...)
}
