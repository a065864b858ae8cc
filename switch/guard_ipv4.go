package vswitch

import "encoding/binary"

const (
	dhcp4Server, dhcp4Client = 67, 68    // RFC 2131
	dhcp6Server              = 547       // RFC 8415
	icmpRedirect             = 5         // RFC 792
	optEnd, optNop           = 0, 1      // RFC 791
	optRouterAlert           = 20 | 0x80 // RFC 2113, on every IGMP report
)

func (p *Port) guardIPv4(r *portState, f *Frame, b []byte) Reason {
	h, ok := parseTransport(EtherTypeIPv4, b)
	if len(b) >= ipv4HeaderLen && b[0]>>4 == 4 && !r.has4(b[12:16]) && !(isZero(b[12:16]) && unaddressed4(b, h, ok)) {
		return DropIPv4
	}
	if h.fragment && !h.later && !ok {
		return DropFragment // a first fragment without its transport header (RFC 1858)
	}
	if !ok || h.length > f.PayloadLen() {
		return DropMalformed
	}
	if h.transport > ipv4HeaderLen && !harmlessOptions(b[ipv4HeaderLen:h.transport]) {
		return DropOptions
	}
	if h.fragment && !p.fragmentOK(b, h) {
		return DropFragment
	}
	if h.later {
		return verdictPass
	}
	t := b[h.transport:min(h.length, len(b))]
	switch h.proto {
	case protoUDP:
		if binary.BigEndian.Uint16(t) == dhcp4Server {
			return DropDHCP
		}
	case protoICMP:
		if len(t) == 0 {
			return DropMalformed
		}
		if t[0] == icmpRedirect {
			return DropRedirect
		}
	}
	return verdictPass
}

// unaddressed4 says whether a packet may come from 0.0.0.0: a DHCP client asks, or IGMP reports.
func unaddressed4(b []byte, h headers, ok bool) bool {
	if !ok || h.fragment {
		return false
	}
	switch h.proto {
	case protoIGMP:
		return true
	case protoUDP:
		t := b[h.transport:]
		return len(t) >= udpHeaderLen && binary.BigEndian.Uint16(t) == dhcp4Client && binary.BigEndian.Uint16(t[2:]) == dhcp4Server
	}
	return false
}

// harmlessOptions lets only router alert through. The rest steer packets (source routes) or record what they meet,
// and the open Internet drops them.
func harmlessOptions(o []byte) bool {
	for len(o) > 0 {
		switch o[0] {
		case optEnd:
			return true
		case optNop:
			o = o[1:]
		case optRouterAlert:
			if len(o) < 4 || o[1] != 4 {
				return false
			}
			o = o[4:]
		default:
			return false
		}
	}
	return true
}
