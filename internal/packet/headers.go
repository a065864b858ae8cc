package packet

import "encoding/binary"

// Protocol numbers (IANA, "Assigned Internet Protocol Numbers").
const (
	ProtoHopByHop = 0
	ProtoICMP     = 1
	ProtoIGMP     = 2
	ProtoTCP      = 6
	ProtoUDP      = 17
	ProtoRouting  = 43
	ProtoFragment = 44
	ProtoAH       = 51
	ProtoICMPv6   = 58
	ProtoNone     = 59
	ProtoDstOpts  = 60
)

// Lengths of headers in bytes.
const (
	IPv4HeaderLen = 20 // without options (RFC 791)
	IPv6HeaderLen = 40 // without extension headers (RFC 8200)
	TCPHeaderLen  = 20 // without options (RFC 9293)
	UDPHeaderLen  = 8  // RFC 768
)

// maxExtensions bounds the walk over IPv6 extension headers. RFC 8200 names six, each once (destination options twice).
const maxExtensions = 8

// Headers is where the headers of an IP packet are. Offsets are in bytes, from the packet's beginning.
type Headers struct {
	V6            bool
	Proto         uint8 // of the transport header; of a fragment, of the whole packet's
	Transport     int   // offset of the transport header
	Payload       int   // offset of what is behind it, where that is TCP or UDP; else as Transport
	Fragment      bool  // it is a fragment, the first or another
	Later         bool  // it is not the first fragment: there is no transport header
	Offset        int   // of the fragment in the whole packet, in bytes
	MoreFragments bool  // IPv4's flag, or that of a fragment header
	Length        int   // of the packet, by its IP header; the buffer may be longer or shorter
	Routing       bool  // it has an IPv6 routing header that sends it on from its destination
}

// Parse walks the headers of an IP packet of a version, the transport header included. It is false where they are cut
// short or contradict themselves; what was found until then is returned.
func Parse(v6 bool, p []byte) (h Headers, ok bool) {
	if v6 {
		h, ok = ParseIPv6(p)
	} else {
		h, ok = ParseIPv4(p)
	}
	if !ok {
		return h, false
	}
	h.Payload = h.Transport
	if h.Later {
		return h, true
	}
	t := p[h.Transport:min(h.Length, len(p))]
	switch h.Proto {
	case ProtoTCP:
		if len(t) < TCPHeaderLen {
			return h, false
		}
		n := int(t[12]>>4) * 4
		if n < TCPHeaderLen || n > len(t) {
			return h, false
		}
		h.Payload += n
	case ProtoUDP:
		if len(t) < UDPHeaderLen {
			return h, false
		}
		h.Payload += UDPHeaderLen
	}
	return h, true
}

// ParseIPv4 is Parse without the transport header.
func ParseIPv4(p []byte) (h Headers, ok bool) {
	if len(p) < IPv4HeaderLen || p[0]>>4 != 4 {
		return h, false
	}
	n := int(p[0]&0xf) * 4
	h.Length = int(binary.BigEndian.Uint16(p[2:]))
	if n < IPv4HeaderLen || n > len(p) || h.Length < n {
		return h, false
	}
	frag := binary.BigEndian.Uint16(p[6:])
	h.MoreFragments = frag&0x2000 != 0
	h.Offset = int(frag&0x1fff) * 8
	h.Later = h.Offset != 0
	h.Fragment = h.Later || h.MoreFragments
	h.Proto = p[9]
	h.Transport = n
	return h, true
}

// ParseIPv6 is Parse without the transport header. What it does not know among extension headers is a transport.
func ParseIPv6(p []byte) (h Headers, ok bool) {
	if len(p) < IPv6HeaderLen || p[0]>>4 != 6 {
		return h, false
	}
	h.V6 = true
	h.Length = IPv6HeaderLen + int(binary.BigEndian.Uint16(p[4:]))
	h.Proto = p[6]
	h.Transport = IPv6HeaderLen
	end := min(h.Length, len(p))
	for range maxExtensions {
		rest := p[h.Transport:end]
		var n int
		switch h.Proto {
		case ProtoHopByHop, ProtoDstOpts, ProtoRouting:
			if len(rest) < 8 {
				return h, false
			}
			// rest[3] is Segments Left: hops still to come after the one in the destination field (RFC 5095).
			if h.Proto == ProtoRouting && rest[3] != 0 {
				h.Routing = true
			}
			n = (int(rest[1]) + 1) * 8
		case ProtoAH:
			if len(rest) < 8 {
				return h, false
			}
			n = (int(rest[1]) + 2) * 4
		case ProtoFragment:
			if len(rest) < 8 {
				return h, false
			}
			frag := binary.BigEndian.Uint16(rest[2:])
			h.MoreFragments = frag&1 != 0
			h.Offset = int(frag &^ 7)
			h.Later = h.Offset != 0
			h.Fragment = true
			n = 8
		default:
			return h, true
		}
		if n > len(rest) {
			return h, false
		}
		h.Proto = rest[0]
		h.Transport += n
		if h.Later {
			return h, true
		}
	}
	return h, false
}

// ChecksumOffset is the offset of the checksum in the transport header, where that is TCP or UDP.
func (h Headers) ChecksumOffset() int {
	if h.Proto == ProtoTCP {
		return 16
	}
	return 6
}

// Addrs are the addresses in the packet p that was parsed.
func (h Headers) Addrs(p []byte) (src, dst []byte) {
	if h.V6 {
		return p[8:24], p[24:40]
	}
	return p[12:16], p[16:20]
}

// FragmentID is the identification of the fragment p that was parsed, which tells fragments of different packets apart.
func (h Headers) FragmentID(p []byte) uint32 {
	if !h.V6 {
		return uint32(binary.BigEndian.Uint16(p[4:]))
	}
	// In the fragment header: the last one before what ParseIPv6 stopped at or, in a first fragment, before further
	// extension headers.
	proto, at := p[6], IPv6HeaderLen
	for range maxExtensions {
		if at+8 > len(p) {
			return 0
		}
		switch proto {
		case ProtoFragment:
			return binary.BigEndian.Uint32(p[at+4:])
		case ProtoAH:
			proto, at = p[at], at+(int(p[at+1])+2)*4
		default:
			proto, at = p[at], at+(int(p[at+1])+1)*8
		}
	}
	return 0
}
