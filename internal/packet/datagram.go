package packet

import "net/netip"

// Datagram is a UDP datagram or an ICMP echo request on its way out of a network.
type Datagram struct {
	Src, Dst netip.AddrPort
	TTL      uint8 // or hop limit
	// DontFragment is IPv4's flag; IPv6 is never fragmented on the way. What came in fragments may leave in such.
	DontFragment bool
	// Segment, if not 0, says that Payload holds datagrams of that many bytes, the last may be shorter.
	Segment int
	// More says that another one follows at once: this one may wait to leave with it.
	More bool
	// Payload is what follows the UDP header, or the ICMP message with its header. It is valid during the call only.
	Payload []byte
	// Original is the IP header and the first bytes behind it, to quote in ICMP errors. It is valid during the call only.
	Original []byte
}
