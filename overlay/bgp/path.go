package bgp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Route is an NLRI with what is said of it.
type Route struct {
	NLRI NLRI
	Path Path
}

// Path is what a speaker says of an NLRI, as far as it is used here.
type Path struct {
	NextHop netip.Addr // where frames or packets go; invalid in what is announced: the speaker's address
	Label   uint32     // of a MAC/IP route, and of a multicast route's tunnel: the VNI (RFC 8365, section 5.1.3)
	Targets []Target
	// Sequence counts the moves of a MAC, Sticky says that it does not move (RFC 7432, section 15).
	Sequence uint32
	Sticky   bool
	// Ingress says that a multicast route asks for copies, one for each router (ingress replication).
	Ingress bool
	// VXLAN says that the route is for VXLAN, or does not say what for.
	VXLAN bool
}

// equal says whether two paths are announced by the same words.
func (p Path) equal(q Path) bool {
	targets := slices.Equal(p.Targets, q.Targets)
	p.Targets, q.Targets = nil, nil
	type plain struct {
		hop                  netip.Addr
		label, sequence      uint32
		sticky, in, forVXLAN bool
	}
	of := func(p Path) plain { return plain{p.NextHop, p.Label, p.Sequence, p.Sticky, p.Ingress, p.VXLAN} }
	return targets && of(p) == of(q)
}

// Target is a route target: an extended community by which routers choose which routes are theirs (RFC 4360, section
// 4).
type Target [8]byte

// Parts of extended communities (RFC 4360; IANA, BGP Extended Communities).
const (
	typeTwoOctetAS  = 0x00
	typeIPv4        = 0x01
	typeFourOctetAS = 0x02
	typeOpaque      = 0x03
	typeEVPN        = 0x06

	subRouteTarget   = 0x02
	subEncapsulation = 0x0c // RFC 9012
	subMACMobility   = 0x00 // RFC 7432, section 7.7

	mobilitySticky  = 0x01
	tunnelVXLAN     = 8 // RFC 8365, section 11
	extendedLen     = 8
	maxCommunities  = 64 // of one route that are looked at; the rest is ignored
	maxAutoTargetAS = 1<<16 - 1
)

// AutoTarget is the route target of a network that names none, as FRR derives it: the AS number's lower 16 bits, and
// the VNI.
func AutoTarget(asn, vni uint32) (t Target) {
	t[1] = subRouteTarget
	binary.BigEndian.PutUint16(t[2:], uint16(asn&maxAutoTargetAS))
	binary.BigEndian.PutUint32(t[4:], vni)
	return t
}

// IsAutoOf says whether a target is one that some AS derives for a VNI, as FRR does or as RFC 8365, section 5.1.2.1,
// says (a zero bit, the type VXLAN in three, a domain in four, the VNI).
func (t Target) IsAutoOf(vni uint32) bool {
	const rfc8365VXLAN = 1 << 28
	n := binary.BigEndian.Uint32(t[4:])
	return t[0] == typeTwoOctetAS && t[1] == subRouteTarget && (n == vni || n&^(0xf<<24) == rfc8365VXLAN|vni)
}

// ParseTarget reads ASN:NUMBER or ADDRESS:NUMBER.
func ParseTarget(s string) (t Target, err error) {
	admin, number, ok := strings.Cut(s, ":")
	n, err := strconv.ParseUint(number, 10, 32)
	if !ok || err != nil {
		return t, fmt.Errorf("%q is no route target: give ASN:NUMBER or ADDRESS:NUMBER", s)
	}
	t[1] = subRouteTarget
	if a, err := netip.ParseAddr(admin); err == nil && a.Is4() && n <= 0xffff {
		t[0] = typeIPv4
		raw := a.As4()
		copy(t[2:], raw[:])
		binary.BigEndian.PutUint16(t[6:], uint16(n))
		return t, nil
	}
	asn, err := strconv.ParseUint(admin, 10, 32)
	switch {
	case err != nil || asn > 0xffff && n > 0xffff:
		return t, fmt.Errorf("%q is no route target: the parts have 16 and 32 bits, or 32 and 16", s)
	case asn > 0xffff:
		t[0] = typeFourOctetAS
		binary.BigEndian.PutUint32(t[2:], uint32(asn))
		binary.BigEndian.PutUint16(t[6:], uint16(n))
	default:
		binary.BigEndian.PutUint16(t[2:], uint16(asn))
		binary.BigEndian.PutUint32(t[4:], uint32(n))
	}
	return t, nil
}

func (t Target) String() string {
	switch t[0] {
	case typeIPv4:
		return fmt.Sprintf("%v:%d", netip.AddrFrom4([4]byte(t[2:6])), binary.BigEndian.Uint16(t[6:]))
	case typeFourOctetAS:
		return fmt.Sprintf("%d:%d", binary.BigEndian.Uint32(t[2:]), binary.BigEndian.Uint16(t[6:]))
	}
	return fmt.Sprintf("%d:%d", binary.BigEndian.Uint16(t[2:]), binary.BigEndian.Uint32(t[4:]))
}

// appendCommunities writes the extended communities of an EVPN route.
func appendCommunities(b []byte, p Path) []byte {
	for _, t := range p.Targets {
		b = append(b, t[:]...)
	}
	b = append(b, typeOpaque, subEncapsulation, 0, 0, 0, 0, 0, tunnelVXLAN)
	if p.Sequence > 0 || p.Sticky {
		var flags byte
		if p.Sticky {
			flags = mobilitySticky
		}
		b = append(b, typeEVPN, subMACMobility, flags, 0)
		b = binary.BigEndian.AppendUint32(b, p.Sequence)
	}
	return b
}

// readCommunities reads what is known of extended communities; their length is right.
func (p *Path) readCommunities(b []byte) {
	p.VXLAN = true
	encaps := 0
	for i := 0; len(b) >= extendedLen && i < maxCommunities; i++ {
		c := Target(b)
		b = b[extendedLen:]
		switch {
		case c[0] <= typeFourOctetAS && c[1] == subRouteTarget:
			p.Targets = append(p.Targets, c)
		case c[0] == typeOpaque && c[1] == subEncapsulation:
			if is := binary.BigEndian.Uint16(c[6:]) == tunnelVXLAN; encaps == 0 || is {
				p.VXLAN = is
			}
			encaps++
		case c[0] == typeEVPN && c[1] == subMACMobility:
			p.Sticky = c[2]&mobilitySticky != 0
			p.Sequence = binary.BigEndian.Uint32(c[4:])
		}
	}
}
