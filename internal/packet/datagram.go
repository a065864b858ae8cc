package packet

import (
	"encoding/binary"
	"net/netip"
)

// Datagram is a UDP datagram or an ICMP echo request on its way out of a network.
type Datagram struct {
	Src, Dst netip.AddrPort
	TTL      uint8 // or hop limit
	// DontFragment is IPv4's flag; IPv6 is never fragmented on the way. What came in fragments may leave in such.
	DontFragment bool
	// GSOSize, if not 0, says that Payload holds datagrams of that many bytes, the last may be shorter.
	GSOSize int
	// MorePending says that another one follows at once: this one may wait to leave with it.
	MorePending bool
	// Payload is what follows the UDP header, or the ICMP message with its header. It is valid during the call only.
	Payload []byte
	// Original is the IP header and the first bytes behind it, to quote in ICMP errors. It is valid during the call
	// only.
	Original []byte
}

// ParseUDP takes over a UDP datagram that is whole and has neither IP options nor extension headers. A segment that is
// not 0 says that p is a super-frame of such, whose UDP length tells nothing. False: it is not one, or its headers are
// cut short or contradict themselves. It checks no checksum.
func (d *Datagram) ParseUDP(v6 bool, p []byte, segment int) bool {
	head := d.parseIP(v6, p)
	if head == 0 {
		return false
	}
	p = p[:d.lengthOf(v6, p)]
	udp := p[head:]
	size := int(binary.BigEndian.Uint16(udp[4:]))
	if segment != 0 {
		size, d.GSOSize = len(udp), segment
	}
	if size < UDPHeaderLen || size > len(udp) {
		return false
	}
	d.Src = netip.AddrPortFrom(d.Src.Addr(), binary.BigEndian.Uint16(udp))
	d.Dst = netip.AddrPortFrom(d.Dst.Addr(), binary.BigEndian.Uint16(udp[2:]))
	d.Payload, d.Original = udp[UDPHeaderLen:size], p[:head+UDPHeaderLen]
	return true
}

// parseIP takes over the IP header of such a datagram, and returns its length; 0: it is not one.
func (d *Datagram) parseIP(v6 bool, p []byte) int {
	if v6 {
		if len(p) < IPv6HeaderLen+UDPHeaderLen || p[0]>>4 != 6 || p[6] != ProtoUDP {
			return 0
		}
		if n := d.lengthOf(true, p); n < IPv6HeaderLen+UDPHeaderLen || n > len(p) {
			return 0
		}
		d.TTL, d.DontFragment = p[7], true
		d.Src = netip.AddrPortFrom(netip.AddrFrom16([16]byte(p[8:])), 0)
		d.Dst = netip.AddrPortFrom(netip.AddrFrom16([16]byte(p[24:])), 0)
		return IPv6HeaderLen
	}
	// Version 4 without options; no fragment: only "don't fragment" may be set.
	if len(p) < IPv4HeaderLen+UDPHeaderLen || p[0] != 0x45 || p[9] != ProtoUDP {
		return 0
	}
	if binary.BigEndian.Uint16(p[6:])&^0x4000 != 0 {
		return 0
	}
	if n := d.lengthOf(false, p); n < IPv4HeaderLen+UDPHeaderLen || n > len(p) {
		return 0
	}
	d.TTL, d.DontFragment = p[8], p[6]&0x40 != 0
	d.Src = netip.AddrPortFrom(netip.AddrFrom4([4]byte(p[12:])), 0)
	d.Dst = netip.AddrPortFrom(netip.AddrFrom4([4]byte(p[16:])), 0)
	return IPv4HeaderLen
}

// lengthOf is the length of a packet by its IP header.
func (*Datagram) lengthOf(v6 bool, p []byte) int {
	if v6 {
		return IPv6HeaderLen + int(binary.BigEndian.Uint16(p[4:]))
	}
	return int(binary.BigEndian.Uint16(p[2:]))
}
