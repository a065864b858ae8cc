package vswitch

import "encoding/binary"

// IP protocol numbers.
const (
	protoHopByHop = 0
	protoICMP     = 1
	protoIGMP     = 2
	protoTCP      = 6
	protoUDP      = 17
	protoRouting  = 43
	protoFragment = 44
	protoAH       = 51
	protoICMPv6   = 58
	protoNone     = 59
	protoDstOpts  = 60
)

const (
	ipv4HeaderLen = 20
	ipv6HeaderLen = 40
	tcpHeaderLen  = 20
	udpHeaderLen  = 8

	// maxExtensions bounds the walk over IPv6 extension headers. RFC 8200 names six, each once (destination options
	// twice).
	maxExtensions = 8
)

// headers is where a packet's transport header is.
type headers struct {
	v6        bool
	proto     uint8
	transport int  // offset of the transport header in the packet
	headerLen int  // offset of the transport payload, where the transport is TCP or UDP; else as transport
	fragment  bool // a fragment, the first or another
	later     bool // not the first fragment: there is no transport header
	offset    int  // of the fragment, in bytes
	more      bool // more fragments follow
	length    int  // of the whole packet, by its IP header
	routing   bool // an IPv6 routing header that sends the packet on from its destination
}

// checksumOffset is the offset of the checksum in the transport header.
func (h headers) checksumOffset() int {
	if h.proto == protoTCP {
		return 16
	}
	return 6
}

// parseTransport walks the headers of an IP packet. It is false where they are cut short or contradict themselves.
func parseTransport(etherType uint16, p []byte) (h headers, ok bool) {
	switch etherType {
	case EtherTypeIPv4:
		h, ok = parseIPv4(p)
	case EtherTypeIPv6:
		h, ok = parseIPv6(p)
	}
	if !ok {
		return h, false
	}
	h.headerLen = h.transport
	if h.later {
		return h, true
	}
	t := p[h.transport:min(h.length, len(p))]
	switch h.proto {
	case protoTCP:
		if len(t) < tcpHeaderLen {
			return h, false
		}
		n := int(t[12]>>4) * 4
		if n < tcpHeaderLen || n > len(t) {
			return h, false
		}
		h.headerLen += n
	case protoUDP:
		if len(t) < udpHeaderLen {
			return h, false
		}
		h.headerLen += udpHeaderLen
	}
	return h, true
}

func parseIPv4(p []byte) (h headers, ok bool) {
	if len(p) < ipv4HeaderLen || p[0]>>4 != 4 {
		return h, false
	}
	n := int(p[0]&0xf) * 4
	h.length = int(binary.BigEndian.Uint16(p[2:]))
	if n < ipv4HeaderLen || n > len(p) || h.length < n {
		return h, false
	}
	frag := binary.BigEndian.Uint16(p[6:])
	h.more = frag&0x2000 != 0
	h.offset = int(frag&0x1fff) * 8
	h.later = h.offset != 0
	h.fragment = h.later || h.more
	h.proto = p[9]
	h.transport = n
	return h, true
}

func parseIPv6(p []byte) (h headers, ok bool) {
	if len(p) < ipv6HeaderLen || p[0]>>4 != 6 {
		return h, false
	}
	h.v6 = true
	h.length = ipv6HeaderLen + int(binary.BigEndian.Uint16(p[4:]))
	h.proto = p[6]
	h.transport = ipv6HeaderLen
	end := min(h.length, len(p))
	for range maxExtensions {
		rest := p[h.transport:end]
		var n int
		switch h.proto {
		case protoHopByHop, protoDstOpts, protoRouting:
			if len(rest) < 8 {
				return h, false
			}
			// rest[3] is Segments Left: hops still to come after the one in the destination field (RFC 5095).
			if h.proto == protoRouting && rest[3] != 0 {
				h.routing = true
			}
			n = (int(rest[1]) + 1) * 8
		case protoAH:
			if len(rest) < 8 {
				return h, false
			}
			n = (int(rest[1]) + 2) * 4
		case protoFragment:
			if len(rest) < 8 {
				return h, false
			}
			frag := binary.BigEndian.Uint16(rest[2:])
			h.more = frag&1 != 0
			h.offset = int(frag &^ 7)
			h.later = h.offset != 0
			h.fragment = true
			n = 8
		default:
			return h, true
		}
		if n > len(rest) {
			return h, false
		}
		h.proto = rest[0]
		h.transport += n
		if h.later {
			return h, true
		}
	}
	return h, false
}
