package autoconf

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// Ports of DHCPv4 (RFC 2131 section 4.1) and DHCPv6 (RFC 8415 section 7.2).
const (
	serverPort4 = 67
	clientPort4 = 68
	serverPort6 = 547
	clientPort6 = 546
)

const hopLimit = 64 // RFC 1700's default; 255 for neighbour discovery (RFC 4861 section 6.1.2)

// udpv4 returns the payload of an unfragmented UDP datagram to port. Checksums are not verified: a TAP leaves them to
// the program that forwards the packet.
func udpv4(p []byte, port uint16) ([]byte, bool) {
	ip := header.IPv4(p)
	if !ip.IsValid(len(p)) || ip.TransportProtocol() != header.UDPProtocolNumber || ip.More() ||
		ip.FragmentOffset() != 0 {
		return nil, false
	}
	return udpPayload(ip.Payload(), port)
}

// udpv6 returns source and payload of a UDP datagram without extension headers to port.
func udpv6(p []byte, port uint16) (netip.Addr, []byte, bool) {
	ip := header.IPv6(p)
	if !ip.IsValid(len(p)) || ip.NextHeader() != uint8(header.UDPProtocolNumber) {
		return netip.Addr{}, nil, false
	}
	payload, ok := udpPayload(ip.Payload(), port)
	return netip.AddrFrom16([16]byte(p[8:24])), payload, ok
}

func udpPayload(b []byte, port uint16) ([]byte, bool) {
	if len(b) < header.UDPMinimumSize {
		return nil, false
	}
	udp := header.UDP(b)
	n := int(udp.Length())
	if udp.DestinationPort() != port || n < header.UDPMinimumSize || n > len(b) {
		return nil, false
	}
	return b[header.UDPMinimumSize:n], true
}

// solicitation returns the source of a router solicitation (RFC 4861 section 4.1).
func solicitation(p []byte) (netip.Addr, bool) {
	ip := header.IPv6(p)
	if !ip.IsValid(len(p)) || ip.NextHeader() != uint8(header.ICMPv6ProtocolNumber) ||
		ip.HopLimit() != header.NDPHopLimit {
		return netip.Addr{}, false
	}
	body := header.ICMPv6(ip.Payload())
	if len(body) < header.ICMPv6MinimumSize || body.Type() != header.ICMPv6RouterSolicit {
		return netip.Addr{}, false
	}
	return netip.AddrFrom16([16]byte(p[8:24])), true
}

// datagram4 builds an IPv4 packet with a UDP datagram.
func datagram4(src, dst netip.AddrPort, payload []byte) []byte {
	b := make([]byte, header.IPv4MinimumSize+header.UDPMinimumSize+len(payload))
	ip := header.IPv4(b)
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(len(b)),
		TTL:         hopLimit,
		Protocol:    uint8(header.UDPProtocolNumber),
		SrcAddr:     tcpip.AddrFrom4(src.Addr().As4()),
		DstAddr:     tcpip.AddrFrom4(dst.Addr().As4()),
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	putUDP(b[header.IPv4MinimumSize:], ip.SourceAddress(), ip.DestinationAddress(), src.Port(), dst.Port(), payload)
	return b
}

// packet6 builds an IPv6 packet.
func packet6(src, dst netip.Addr, proto tcpip.TransportProtocolNumber, hops uint8, payload []byte) []byte {
	b := make([]byte, header.IPv6MinimumSize, header.IPv6MinimumSize+len(payload))
	header.IPv6(b).Encode(&header.IPv6Fields{
		PayloadLength:     uint16(len(payload)),
		TransportProtocol: proto,
		HopLimit:          hops,
		SrcAddr:           tcpip.AddrFrom16(src.As16()),
		DstAddr:           tcpip.AddrFrom16(dst.As16()),
	})
	return append(b, payload...)
}

// datagram6 builds an IPv6 packet with a UDP datagram.
func datagram6(src, dst netip.AddrPort, payload []byte) []byte {
	b := make([]byte, header.UDPMinimumSize+len(payload))
	from, to := tcpip.AddrFrom16(src.Addr().As16()), tcpip.AddrFrom16(dst.Addr().As16())
	putUDP(b, from, to, src.Port(), dst.Port(), payload)
	return packet6(src.Addr(), dst.Addr(), header.UDPProtocolNumber, hopLimit, b)
}

func putUDP(b []byte, src, dst tcpip.Address, from, to uint16, payload []byte) {
	udp := header.UDP(b)
	udp.Encode(&header.UDPFields{SrcPort: from, DstPort: to, Length: uint16(len(b))})
	copy(udp.Payload(), payload)
	sum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, src, dst, uint16(len(b)))
	udp.SetChecksum(^checksum.Checksum(b, sum))
}
