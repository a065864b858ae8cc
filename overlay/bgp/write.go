package bgp

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// Message types and lengths (RFC 4271, sections 4.1 to 4.5).
const (
	msgOpen, msgUpdate, msgNotification, msgKeepalive = 1, 2, 3, 4
	msgRouteRefresh                                   = 5 // RFC 2918

	markerLen  = 16
	headerLen  = markerLen + 3
	maxMessage = 4096
)

// message writes a header with what body appends behind it.
func message(b []byte, kind byte, body func([]byte) []byte) []byte {
	start := len(b)
	for range markerLen {
		b = append(b, 0xff)
	}
	b = append(b, 0, 0, kind)
	if body != nil {
		b = body(b)
	}
	binary.BigEndian.PutUint16(b[start+markerLen:], uint16(len(b)-start))
	return b
}

func appendKeepalive(b []byte) []byte { return message(b, msgKeepalive, nil) }

func appendNotification(b []byte, n *notification) []byte {
	return message(b, msgNotification, func(b []byte) []byte {
		return append(append(b, n.code, n.subcode), n.data...)
	})
}

// appendEndOfRIB says that all routes of a family have been told (RFC 4724, section 2).
func appendEndOfRIB(b []byte, f Family) []byte {
	return message(b, msgUpdate, func(b []byte) []byte {
		b = append(b, 0, 0)
		if f == IPv4Unicast {
			return append(b, 0, 0)
		}
		return attributeList(b, func(b []byte) []byte { return appendUnreach(b, f, nil) })
	})
}

// attributeList writes the length of what list appends in front of it.
func attributeList(b []byte, list func([]byte) []byte) []byte {
	at := len(b)
	b = list(append(b, 0, 0))
	binary.BigEndian.PutUint16(b[at:], uint16(len(b)-at-2))
	return b
}

// appendAttribute writes one; all that are written are short.
func appendAttribute(b []byte, kind byte, value []byte) []byte {
	b = append(b, attrFlags[kind], kind, byte(len(value)))
	return append(b, value...)
}

func appendFamily(b []byte, f Family) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(f>>16)), byte(f))
}

func appendNLRI(b []byte, n NLRI, label uint32) []byte {
	if n.Family == EVPN {
		return appendEVPN(b, n.EVPN, label)
	}
	return appendPrefix(b, n.Prefix)
}

// appendUnreach withdraws a route; nil: none.
func appendUnreach(b []byte, f Family, n *NLRI) []byte {
	v := appendFamily(nil, f)
	if n != nil {
		v = appendNLRI(v, *n, 0)
	}
	return appendAttribute(b, attrMPUnreach, v)
}

// appendWithdrawal writes the UPDATE that takes a route back.
func appendWithdrawal(b []byte, n NLRI) []byte {
	return message(b, msgUpdate, func(b []byte) []byte {
		if n.Family == IPv4Unicast {
			prefix := appendPrefix(nil, n.Prefix)
			b = binary.BigEndian.AppendUint16(b, uint16(len(prefix)))
			return append(append(b, prefix...), 0, 0)
		}
		return attributeList(append(b, 0, 0), func(b []byte) []byte { return appendUnreach(b, n.Family, &n) })
	})
}

// errNextHop is for routes of a family of which the speaker has no address.
var errNextHop = errors.New("this host has no address that the route could lead to")

// nextHop is where a route leads to.
func (s *self) nextHop(r Route) (netip.Addr, error) {
	hop := r.Path.NextHop
	switch r.NLRI.Family {
	case IPv4Unicast:
		if !hop.Is4() {
			hop = s.addrs.v4
		}
	case IPv6Unicast:
		if !hop.Is6() {
			hop = s.addrs.v6
		}
	default:
		if !hop.IsValid() {
			hop = s.addrs.vtep()
		}
	}
	if !hop.IsValid() {
		return hop, errNextHop
	}
	return hop, nil
}

// appendUpdate writes the UPDATE that announces a route.
func appendUpdate(b []byte, r Route, s *self) ([]byte, error) {
	hop, err := s.nextHop(r)
	if err != nil {
		return b, err
	}
	return message(b, msgUpdate, func(b []byte) []byte {
		b = attributeList(append(b, 0, 0), func(b []byte) []byte {
			if r.NLRI.Family != IPv4Unicast { // first, so that it is found where the others are damaged (RFC 7606, 5.1)
				v := append(appendFamily(nil, r.NLRI.Family), byte(len(hop.AsSlice())))
				v = append(append(v, hop.AsSlice()...), 0)
				b = appendAttribute(b, attrMPReach, appendNLRI(v, r.NLRI, r.Path.Label))
			}
			b = s.appendCommon(b)
			if r.NLRI.Family == IPv4Unicast {
				b = appendAttribute(b, attrNextHop, hop.AsSlice())
			}
			if r.NLRI.Family == EVPN {
				b = appendAttribute(b, attrExtended, appendCommunities(nil, r.Path))
				if r.Path.Ingress {
					b = appendAttribute(b, attrPMSI, ingress(r.Path.Label, hop))
				}
			}
			return b
		})
		if r.NLRI.Family == IPv4Unicast {
			b = appendPrefix(b, r.NLRI.Prefix)
		}
		return b
	}), nil
}

// appendCommon writes origin, AS path and preference, which all routes have.
func (s *self) appendCommon(b []byte) []byte {
	const igp, sequence, preference = 0, 2, 100 // the preference is the usual one
	b = appendAttribute(b, attrOrigin, []byte{igp})
	if s.external {
		return appendAttribute(b, attrASPath, binary.BigEndian.AppendUint32([]byte{sequence, 1}, s.asn))
	}
	b = appendAttribute(b, attrASPath, nil)
	return appendAttribute(b, attrLocalPref, binary.BigEndian.AppendUint32(nil, preference))
}

// ingress asks for copies of frames to all (RFC 6514, section 5; RFC 8365, section 5.1.3).
func ingress(vni uint32, at netip.Addr) []byte {
	const noLeafInformation, ingressReplication = 0, 6
	b := appendUint24([]byte{noLeafInformation, ingressReplication}, vni)
	return append(b, at.AsSlice()...)
}
