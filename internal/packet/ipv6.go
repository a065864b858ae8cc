package packet

import "encoding/binary"

// Protocol numbers (IANA, "Assigned Internet Protocol Numbers").
const (
	ProtoHopByHop = 0
	ProtoICMP     = 1
	ProtoTCP      = 6
	ProtoUDP      = 17
	ProtoRouting  = 43
	ProtoFragment = 44
	ProtoICMPv6   = 58
	ProtoDstOpts  = 60
)

// maxExtensions bounds the walk over IPv6 extension headers. RFC 8200 names six, each once (destination options twice).
const maxExtensions = 8

// Upper is where the header of an IPv6 packet's upper layer is.
type Upper struct {
	Proto  uint8
	Offset int  // of the header in the packet
	Later  bool // the packet is a fragment other than the first: there is no such header, Proto is that of the whole
}

// UpperIPv6 walks the extension headers of an IPv6 packet: hop-by-hop options, routing headers, destination options and fragment
// headers. It is false where they are cut short, or are more than a packet may have. What it does not know is the upper layer.
func UpperIPv6(p []byte) (u Upper, ok bool) {
	if len(p) < IPv6HeaderLen || p[0]>>4 != 6 {
		return u, false
	}
	u.Proto, u.Offset = p[6], IPv6HeaderLen
	for range maxExtensions {
		rest := p[u.Offset:]
		n := 8
		switch u.Proto {
		case ProtoHopByHop, ProtoRouting, ProtoDstOpts:
			if len(rest) < n {
				return u, false
			}
			n = (int(rest[1]) + 1) * 8
		case ProtoFragment:
			if len(rest) < n {
				return u, false
			}
			u.Later = binary.BigEndian.Uint16(rest[2:])&^7 != 0
		default:
			return u, true
		}
		if n > len(rest) {
			return u, false
		}
		u.Proto, u.Offset = rest[0], u.Offset+n
		if u.Later {
			return u, true
		}
	}
	return u, false
}
