package fabric

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"

	"github.com/usernet/usernet/internal/packet"
	vswitch "github.com/usernet/usernet/switch"
)

// Offsets in a TCP header (RFC 9293, 3.1) and its flags.
const (
	tcpHeaderLen               = 20
	tcpSeq, tcpFlags, tcpCheck = 4, 13, 16
	udpLength, udpCheck        = 4, 6

	tcpFIN, tcpSYN, tcpRST, tcpPSH, tcpACK, tcpCWR = 0x01, 0x02, 0x04, 0x08, 0x10, 0x80
)

// inner is where the headers of a packet inside a frame are.
type inner struct {
	v6       bool
	fragment bool // a fragment, the first or another: ports and checksums are not looked at
	df       bool // must not be fragmented on the way
	proto    uint8
	l4       int // offset of the transport header
	data     int // offset of what is behind it, for TCP and UDP; else as l4
	length   int // of the packet, by its IP header; what follows is padding
}

// parseInner walks the headers of an IP packet. It is false where they are cut short or contradict themselves.
func parseInner(etherType uint16, p []byte) (h inner, ok bool) {
	switch etherType {
	case vswitch.EtherTypeIPv4:
		if len(p) < packet.IPv4HeaderLen || p[0]>>4 != 4 {
			return h, false
		}
		h.l4, h.length, h.proto = int(p[0]&0xf)*4, int(binary.BigEndian.Uint16(p[2:])), p[9]
		frag := binary.BigEndian.Uint16(p[6:])
		h.fragment, h.df = frag&0x3fff != 0, frag&0x4000 != 0
		if h.l4 < packet.IPv4HeaderLen {
			return h, false
		}
	case vswitch.EtherTypeIPv6:
		u, ok := packet.ParseIPv6(p)
		if !ok {
			return h, false
		}
		h.v6, h.df, h.l4, h.proto = true, true, u.Transport, u.Proto
		h.length, h.fragment = u.Length, u.Fragment
	default:
		return h, false
	}
	if h.length > len(p) || h.l4 > h.length {
		return h, false
	}
	h.data = h.l4
	if h.fragment {
		return h, true
	}
	switch t := p[h.l4:h.length]; h.proto {
	case packet.ProtoTCP:
		if len(t) < tcpHeaderLen || int(t[12]>>4)*4 < tcpHeaderLen || int(t[12]>>4)*4 > len(t) {
			return h, false
		}
		h.data += int(t[12]>>4) * 4
	case packet.ProtoUDP:
		if len(t) < packet.UDPHeaderLen {
			return h, false
		}
		h.data += packet.UDPHeaderLen
	}
	return h, true
}

// transport says whether the packet has a TCP or UDP header.
func (h *inner) transport() bool {
	return !h.fragment && (h.proto == packet.ProtoTCP || h.proto == packet.ProtoUDP)
}

// check is the offset of the checksum in the transport header.
func (h *inner) check() int {
	if h.proto == packet.ProtoTCP {
		return tcpCheck
	}
	return udpCheck
}

// addrs are the source and destination address, one behind the other.
func (h *inner) addrs(p []byte) []byte {
	if h.v6 {
		return p[8:40]
	}
	return p[12:20]
}

// pseudo is the sum of the pseudo header without its length field (RFC 9293, 3.1; RFC 8200, 8.1).
func (h *inner) pseudo(p []byte) uint16 {
	return checksum.Combine(checksum.Checksum(h.addrs(p), 0), uint16(h.proto))
}

// setLength writes the IP header for a packet of n bytes.
func (h *inner) setLength(p []byte, n int) {
	if h.v6 {
		binary.BigEndian.PutUint16(p[4:], uint16(n-packet.IPv6HeaderLen))
		return
	}
	binary.BigEndian.PutUint16(p[2:], uint16(n))
	sumIPv4(p[:h.l4])
}

// sumIPv4 writes the checksum of an IPv4 header.
func sumIPv4(header []byte) {
	checksum.Put(header[10:], 0)
	checksum.Put(header[10:], ^checksum.Checksum(header, 0))
}

// nonZero is a checksum as it is sent: zero means none to UDP (RFC 768), and to TCP both are the same.
func nonZero(sum uint16) uint16 {
	if sum == 0 {
		return 0xffff
	}
	return sum
}
