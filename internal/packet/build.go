package packet

import (
	"encoding/binary"
	"net/netip"
)

// DefaultTTL is the TTL that kernels send with (net.ipv4.ip_default_ttl, net.ipv6.conf.*.hop_limit).
const DefaultTTL = 64

// MaxUDPHeaders is the length in bytes of the longest headers of a datagram without options.
const MaxUDPHeaders = IPv6HeaderLen + UDPHeaderLen

// IPHeaderLen is the length of the IP header of packets to an address, without options.
func IPHeaderLen(dst netip.Addr) int {
	if dst.Is4() {
		return IPv4HeaderLen
	}
	return IPv6HeaderLen
}

// PutIP writes the IP header of a packet from src to dst, which are of one family, with size bytes behind it, and
// returns its length. IPv4's forbids to fragment: no identification is needed then (RFC 6864, section 4.1).
func PutIP(b []byte, src, dst netip.Addr, proto uint8, size int) int {
	if dst.Is4() {
		s, d := src.As4(), dst.As4()
		*(*[IPv4HeaderLen]byte)(b) = [IPv4HeaderLen]byte{
			0: 0x45,
			6: 0x40,
			8: DefaultTTL,
			9: proto,
		} // version 4, 5 words
		binary.BigEndian.PutUint16(b[2:], uint16(IPv4HeaderLen+size))
		copy(b[12:], s[:])
		copy(b[16:], d[:])
		binary.BigEndian.PutUint16(b[10:], ^Sum(b[:IPv4HeaderLen], 0))
		return IPv4HeaderLen
	}
	s, d := src.As16(), dst.As16()
	*(*[8]byte)(b) = [8]byte{0: 0x60, 6: proto, 7: DefaultTTL}
	binary.BigEndian.PutUint16(b[4:], uint16(size))
	copy(b[8:], s[:])
	copy(b[24:], d[:])
	return IPv6HeaderLen
}

// PutUDP writes the IP and UDP headers of a datagram with size bytes of payload, and returns their length. The checksum
// is of the pseudo header alone: the sender on the wire completes it (CHECKSUM_PARTIAL,
// include/linux/skbuff.h).
func PutUDP(b []byte, src, dst netip.AddrPort, size int) int {
	length := UDPHeaderLen + size
	ip := PutIP(b, src.Addr(), dst.Addr(), ProtoUDP, length)
	udp := b[ip : ip+UDPHeaderLen]
	binary.BigEndian.PutUint16(udp, src.Port())
	binary.BigEndian.PutUint16(udp[2:], dst.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(length))
	addrs := b[12:ip]
	if dst.Addr().Is6() {
		addrs = b[8:ip]
	}
	binary.BigEndian.PutUint16(udp[6:], add(Sum(addrs, ProtoUDP), uint16(length)))
	return ip + UDPHeaderLen
}

// Sum is the ones' complement sum of b, of even length, and of initial (RFC 1071).
func Sum(b []byte, initial uint16) uint16 {
	sum := uint32(initial)
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	sum = sum>>16 + sum&0xffff
	return uint16(sum>>16 + sum)
}

func add(a, b uint16) uint16 {
	sum := uint32(a) + uint32(b)
	return uint16(sum>>16 + sum)
}

// QuoteUDP is the beginning of a datagram from src to dst with size bytes of payload: its IP header and UDP header,
// which is what an ICMP error quotes (RFC 792, RFC 4443). Both ends are of one family.
func QuoteUDP(src, dst netip.AddrPort, size int) []byte {
	b := make([]byte, MaxUDPHeaders)
	return b[:PutUDP(b, src, dst, size)]
}

// QuoteIP is the IP header of a packet with size bytes behind it.
func QuoteIP(src, dst netip.Addr, proto byte, size int) []byte {
	b := make([]byte, IPv6HeaderLen, IPv6HeaderLen+UDPHeaderLen)
	return b[:PutIP(b, src, dst, proto, size)]
}
