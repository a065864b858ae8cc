package bgp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// Family is an address family identifier with a subsequent one (RFC 4760), as AFI<<16 | SAFI.
type Family uint32

// The families (IANA, Address Family Numbers and SAFI Parameters).
const (
	IPv4Unicast Family = 1<<16 | 1
	IPv6Unicast Family = 2<<16 | 1
	EVPN        Family = 25<<16 | 70
)

// families are those that a session is offered.
var families = [...]Family{IPv4Unicast, IPv6Unicast, EVPN}

func (f Family) String() string {
	switch f {
	case IPv4Unicast:
		return "ipv4-unicast"
	case IPv6Unicast:
		return "ipv6-unicast"
	case EVPN:
		return "l2vpn-evpn"
	}
	return fmt.Sprintf("%d/%d", f>>16, f&0xffff)
}

// Types of EVPN routes (RFC 7432, section 7). Others are passed over (RFC 7606, section 5.4).
const (
	MACIP     = 2 // MAC/IP Advertisement
	Multicast = 3 // Inclusive Multicast Ethernet Tag
)

// NLRI is what a route is about. It is a key: two routes with the same NLRI of one neighbour replace each other.
type NLRI struct {
	Family Family
	Prefix netip.Prefix // unicast
	EVPN   EVPNRoute
}

// EVPNRoute is the part of an EVPN route that identifies it (RFC 7432, sections 7.2 and 7.3).
type EVPNRoute struct {
	Type uint8 // MACIP or Multicast
	RD   RD
	Tag  uint32 // Ethernet tag
	MAC  [6]byte
	IP   netip.Addr // of the endpoint, or invalid; of Multicast that of the router
}

// RD is a route distinguisher (RFC 4364, section 4.2).
type RD [8]byte

// IPv4RD is one of type 1: an address of the router, with a number that is unique there (RFC 7432, section 7.9).
func IPv4RD(router netip.Addr, number uint16) (rd RD) {
	rd[1] = 1
	a := router.As4()
	copy(rd[2:], a[:])
	binary.BigEndian.PutUint16(rd[6:], number)
	return rd
}

func (n NLRI) String() string {
	if n.Family != EVPN {
		return n.Prefix.String()
	}
	if n.EVPN.Type == Multicast {
		return fmt.Sprintf("[3]:[%d]:[%v] rd %x", n.EVPN.Tag, n.EVPN.IP, n.EVPN.RD)
	}
	return fmt.Sprintf("[2]:[%d]:[%v]:[%v] rd %x", n.EVPN.Tag, net.HardwareAddr(n.EVPN.MAC[:]), n.EVPN.IP, n.EVPN.RD)
}

// Lengths in EVPN routes, in bytes (RFC 7432, sections 7.2 and 7.3).
const (
	rdLen    = 8
	esiLen   = 10
	tagLen   = 4
	macLen   = 6
	labelLen = 3
	// macIPLen is a MAC/IP route with one label and no address.
	macIPLen     = rdLen + esiLen + tagLen + 1 + macLen + 1 + labelLen
	multicastLen = rdLen + tagLen + 1
)

// errNLRI says that a list of routes cannot be told apart into routes (RFC 7606, section 5.3).
var errNLRI = errors.New("routes that are cut short or longer than they can be")

// appendPrefix writes a unicast route (RFC 4271, section 4.3).
func appendPrefix(b []byte, p netip.Prefix) []byte {
	b = append(b, byte(p.Bits()))
	return append(b, p.Masked().Addr().AsSlice()[:(p.Bits()+7)/8]...)
}

// eachPrefix calls f for the unicast routes in b.
func eachPrefix(b []byte, v6 bool, f func(netip.Prefix)) error {
	for len(b) > 0 {
		bits := int(b[0])
		n := (bits + 7) / 8
		if bits > 32 && !v6 || bits > 128 || len(b) < 1+n {
			return errNLRI
		}
		var raw [16]byte
		copy(raw[:], b[1:1+n])
		a := netip.AddrFrom16(raw)
		if !v6 {
			a = netip.AddrFrom4([4]byte(raw[:4]))
		}
		f(netip.PrefixFrom(a, bits).Masked())
		b = b[1+n:]
	}
	return nil
}

// appendEVPN writes a route; label is that of a MAC/IP route.
func appendEVPN(b []byte, e EVPNRoute, label uint32) []byte {
	var ip []byte
	if e.IP.IsValid() {
		ip = e.IP.AsSlice()
	}
	if e.Type == Multicast {
		b = append(b, Multicast, byte(multicastLen+len(ip)))
		b = append(b, e.RD[:]...)
		b = binary.BigEndian.AppendUint32(b, e.Tag)
		return append(append(b, byte(len(ip)*8)), ip...)
	}
	b = append(b, MACIP, byte(macIPLen+len(ip)))
	b = append(b, e.RD[:]...)
	b = append(b, make([]byte, esiLen)...) // single-homed
	b = binary.BigEndian.AppendUint32(b, e.Tag)
	b = append(append(b, macLen*8), e.MAC[:]...)
	b = append(append(b, byte(len(ip)*8)), ip...)
	return appendUint24(b, label)
}

// eachEVPN calls f for the routes in b of types 2 and 3, with the first label of a MAC/IP route. Routes of other types,
// and those that say nothing that can be used, are passed over and counted.
func eachEVPN(b []byte, f func(e EVPNRoute, label uint32)) (passedOver int, err error) {
	for len(b) > 0 {
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return passedOver, errNLRI
		}
		kind, value := b[0], b[2:2+int(b[1])]
		b = b[2+int(b[1]):]
		var e EVPNRoute
		var label uint32
		ok := false
		switch kind {
		case MACIP:
			e, label, ok, err = parseMACIP(value)
		case Multicast:
			e, ok, err = parseMulticast(value)
		}
		if err != nil {
			return passedOver, err
		}
		if !ok {
			passedOver++
			continue
		}
		f(e, label)
	}
	return passedOver, nil
}

// parseMACIP is not ok for a route whose address is of an unknown kind.
func parseMACIP(b []byte) (e EVPNRoute, label uint32, ok bool, err error) {
	if len(b) < macIPLen {
		return e, 0, false, errNLRI
	}
	e.Type, e.RD = MACIP, RD(b[:rdLen])
	b = b[rdLen+esiLen:]
	e.Tag = binary.BigEndian.Uint32(b)
	b = b[tagLen:]
	if b[0] != macLen*8 {
		return e, 0, false, nil
	}
	e.MAC = [6]byte(b[1:])
	b = b[1+macLen:]
	bits := int(b[0])
	if b = b[1:]; len(b) < bits/8+labelLen || len(b) > bits/8+2*labelLen {
		return e, 0, false, errNLRI
	}
	if bits > 0 {
		if e.IP, ok = netip.AddrFromSlice(b[:bits/8]); !ok || bits%8 != 0 {
			return e, 0, false, nil
		}
	}
	b = b[bits/8:]
	return e, uint24(b), true, nil
}

func parseMulticast(b []byte) (e EVPNRoute, ok bool, err error) {
	if len(b) < multicastLen {
		return e, false, errNLRI
	}
	e.Type, e.RD, e.Tag = Multicast, RD(b[:rdLen]), binary.BigEndian.Uint32(b[rdLen:])
	bits, b := int(b[rdLen+tagLen]), b[multicastLen:]
	if len(b) != bits/8 {
		return e, false, errNLRI
	}
	e.IP, ok = netip.AddrFromSlice(b)
	return e, ok, nil
}

func appendUint24(b []byte, n uint32) []byte { return append(b, byte(n>>16), byte(n>>8), byte(n)) }

func uint24(b []byte) uint32 { return uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2]) }
