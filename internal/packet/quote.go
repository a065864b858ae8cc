package packet

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// DefaultTTL is the TTL that kernels send with (net.ipv4.ip_default_ttl, net.ipv6.conf.*.hop_limit).
const DefaultTTL = 64

// Lengths of headers in bytes.
const (
	IPv4HeaderLen = 20 // without options (RFC 791)
	IPv6HeaderLen = 40 // without extension headers (RFC 8200)
	UDPHeaderLen  = 8  // RFC 768
)

// QuoteUDP is the beginning of a datagram from src to dst with size bytes of payload: its IP header and UDP header, which is what
// an ICMP error quotes (RFC 792, RFC 4443). Both ends are of one family.
func QuoteUDP(src, dst netip.AddrPort, size int) []byte {
	udp := make([]byte, UDPHeaderLen)
	binary.BigEndian.PutUint16(udp, src.Port())
	binary.BigEndian.PutUint16(udp[2:], dst.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(UDPHeaderLen+size))
	return append(QuoteIP(src.Addr(), dst.Addr(), unix.IPPROTO_UDP, UDPHeaderLen+size), udp...)
}

// QuoteIP is the IP header of a packet with size bytes behind it. Its checksum is left out: nobody who looks a socket up by it
// looks at that.
func QuoteIP(src, dst netip.Addr, proto byte, size int) []byte {
	if src.Is4() {
		h := make([]byte, IPv4HeaderLen)
		h[0], h[6], h[8], h[9] = 0x45, 0x40, DefaultTTL, proto // version 4 and 5 words; don't fragment
		binary.BigEndian.PutUint16(h[2:], uint16(IPv4HeaderLen+size))
		s, d := src.As4(), dst.As4()
		copy(h[12:], s[:])
		copy(h[16:], d[:])
		return h
	}
	h := make([]byte, IPv6HeaderLen)
	h[0], h[6], h[7] = 0x60, proto, DefaultTTL
	binary.BigEndian.PutUint16(h[4:], uint16(size))
	s, d := src.As16(), dst.As16()
	copy(h[8:], s[:])
	copy(h[24:], d[:])
	return h
}
