package vswitch

import (
	"encoding/binary"

	"github.com/usernet/usernet/internal/packet"
)

// ICMPv6 types (RFC 4443, RFC 4861, RFC 2894).
const (
	ndRouterSolicitation    = 133
	ndRouterAdvertisement   = 134
	ndNeighbourSolicitation = 135
	ndNeighbourAdvert       = 136
	ndRedirect              = 137
	icmpRouterRenumbering   = 138
	mldReport1, mldDone     = 131, 132
	mldReport2              = 143

	optSourceLinkAddr = 1
	optTargetLinkAddr = 2
)

func (p *Port) guardIPv6(r *portState, f *Frame, b []byte) Reason {
	h, ok := parseIP(EtherTypeIPv6, b)
	unspecified := false
	if len(b) >= packet.IPv6HeaderLen && b[0]>>4 == 6 && !r.has6(b[8:24]) {
		// :: asks whether an address is free, and reports multicast groups before it has one.
		if unspecified = isZero(b[8:24]) && ok && !h.Fragment && h.Proto == packet.ProtoICMPv6; !unspecified {
			return DropIPv6
		}
	}
	if h.Fragment && !h.Later && !ok {
		return DropFragment // a first fragment without all headers (RFC 7112)
	}
	if !ok || h.Length > f.PayloadLen() {
		return DropMalformed
	}
	if h.Routing {
		return DropOptions
	}
	if h.Fragment && !p.fragmentOK(b, h) {
		return DropFragment
	}
	if h.Later {
		return verdictPass
	}
	t := b[h.Transport:min(h.Length, len(b))]
	switch h.Proto {
	case packet.ProtoUDP:
		if binary.BigEndian.Uint16(t) == dhcp6Server {
			return DropDHCP
		}
	case packet.ProtoICMPv6:
		return r.guardICMPv6(t, h, unspecified)
	}
	return verdictPass
}

func (r *portState) guardICMPv6(t []byte, h packet.Headers, unspecified bool) Reason {
	if len(t) < 4 {
		if h.Fragment {
			return DropFragment
		}
		return DropMalformed
	}
	switch t[0] {
	case ndRouterAdvertisement, icmpRouterRenumbering:
		return DropRouter
	case ndRedirect:
		return DropRedirect
	case ndRouterSolicitation, ndNeighbourSolicitation, ndNeighbourAdvert:
		if h.Fragment {
			return DropFragment // RFC 6980
		}
		return r.guardND(t, unspecified)
	case mldReport1, mldDone, mldReport2:
		return verdictPass
	}
	if unspecified {
		return DropIPv6
	}
	return verdictPass
}

// guardND checks what a neighbour discovery message says about its sender (RFC 4861 section 4).
func (r *portState) guardND(t []byte, unspecified bool) Reason {
	options := 8 // router solicitations: type, code, checksum, reserved
	if t[0] != ndRouterSolicitation {
		options = 24 // and a target
	}
	if len(t) < options {
		return DropMalformed
	}
	mine := t[0] == ndRouterSolicitation || r.has6(t[8:24])
	switch t[0] {
	case ndNeighbourAdvert:
		if !mine || unspecified {
			return DropNeighbour
		}
	case ndNeighbourSolicitation:
		// From ::, it says that the target is about to be the sender's: another that tries it would give up (RFC 4862).
		if unspecified && !mine {
			return DropNeighbour
		}
	}
	for o := t[options:]; len(o) > 0; {
		if len(o) < 8 || o[1] == 0 || int(o[1])*8 > len(o) {
			return DropMalformed
		}
		if kind := o[0]; (kind == optSourceLinkAddr || kind == optTargetLinkAddr) &&
			(keyOf(o[2:8]) != r.mac || unspecified) {
			return DropNeighbour
		}
		o = o[int(o[1])*8:]
	}
	return verdictPass
}
