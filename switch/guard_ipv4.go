package vswitch

import (
	"encoding/binary"

	"github.com/usernet/usernet/internal/packet"
)

const (
	dhcp4Server, dhcp4Client = 67, 68    // RFC 2131
	dhcp6Server              = 547       // RFC 8415
	icmpRedirect             = 5         // RFC 792
	optEnd, optNop           = 0, 1      // RFC 791
	optRouterAlert           = 20 | 0x80 // RFC 2113, on every IGMP report
)

func (p *Port) guardIPv4(r *portState, f *Frame, b []byte) Reason {
	h, ok := parseIP(EtherTypeIPv4, b)
	if len(b) >= packet.IPv4HeaderLen && b[0]>>4 == 4 && !r.has4(b[12:16]) &&
		!(isZero(b[12:16]) && unaddressed4(b, h, ok)) {
		return DropIPv4
	}
	if h.Fragment && !h.Later && !ok {
		return DropFragment // a first fragment without its transport header (RFC 1858)
	}
	if !ok || h.Length > f.PayloadLen() {
		return DropMalformed
	}
	if h.Transport > packet.IPv4HeaderLen && !harmlessOptions(b[packet.IPv4HeaderLen:h.Transport]) {
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
		if binary.BigEndian.Uint16(t) == dhcp4Server {
			return DropDHCP
		}
	case packet.ProtoICMP:
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
func unaddressed4(b []byte, h packet.Headers, ok bool) bool {
	if !ok || h.Fragment {
		return false
	}
	switch h.Proto {
	case packet.ProtoIGMP:
		return true
	case packet.ProtoUDP:
		t := b[h.Transport:]
		return len(t) >= packet.UDPHeaderLen && binary.BigEndian.Uint16(t) == dhcp4Client &&
			binary.BigEndian.Uint16(t[2:]) == dhcp4Server
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
