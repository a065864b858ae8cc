package fabric

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"

	"github.com/usernet/usernet/internal/packet"
	"github.com/usernet/usernet/overlay"
	vswitch "github.com/usernet/usernet/switch"
)

// ARP for IPv4 over Ethernet (RFC 826) and neighbour discovery (RFC 4861).
const (
	arpLen               = 28
	arpRequest, arpReply = 1, 2

	ndRouterSolicitation, ndRouterAdvert       = 133, 134
	ndNeighbourSolicitation, ndNeighbourAdvert = 135, 136
	ndRedirect                                 = 137

	ndLen      = 24 // of a neighbour message without options
	ndHopLimit = 255

	ndSolicited, ndOverride = 0x40, 0x20 // flags of an advertisement
	ndTargetLinkAddr        = 2          // option: target link-layer address
)

// arpWords is what an ARP packet for IPv4 over Ethernet begins with.
var arpWords = [6]byte{0, 1, 8, 0, 6, 4}

// outwardARP handles an ARP packet of a container to all. What the entries know is answered here; the gateway's address
// is answered by the gateway of this host; only foreign peers are asked for the rest.
func (l *Link) outwardARP(t *table, f *vswitch.Frame, p []byte) error {
	if len(p) < arpLen || [6]byte(p[:6]) != arpWords {
		l.drop(DropMalformed)
		return nil
	}
	target := netip.AddrFrom4([4]byte(p[24:28]))
	if binary.BigEndian.Uint16(p[6:]) == arpRequest {
		if e := t.byAddr[target]; e != nil {
			l.answerARP(e.MAC, p, target)
			l.drop(DropKnown)
			return nil
		}
	}
	if l.isGateway(target) {
		l.drop(DropGateway)
		return nil
	}
	l.floodForeign(t, f, &inner{}, p, DropKnown)
	return nil
}

// answerARP answers a request in the name of who has a MAC.
func (l *Link) answerARP(mac overlay.MAC, request []byte, target netip.Addr) {
	reply := make([]byte, arpLen)
	copy(reply, arpWords[:])
	binary.BigEndian.PutUint16(reply[6:], arpReply)
	copy(reply[8:14], mac[:])
	ip := target.As4()
	copy(reply[14:18], ip[:])
	copy(reply[18:28], request[8:18])
	l.receiveOwn(overlay.MAC(request[8:14]), mac, vswitch.EtherTypeARP, reply)
}

func (l *Link) isGateway(a netip.Addr) bool {
	for _, g := range l.cfg.Gateways {
		if g == a {
			return true
		}
	}
	return false
}

// outwardND handles a neighbour discovery message of a container. It says whether that was all that there is to do with
// it.
func (l *Link) outwardND(t *table, f *vswitch.Frame, h *inner, p []byte) bool {
	m := p[h.l4:h.length]
	if len(m) < ndLen || m[0] != ndNeighbourSolicitation && m[0] != ndNeighbourAdvert {
		return false
	}
	target := netip.AddrFrom16([16]byte(m[8:24]))
	if m[0] == ndNeighbourSolicitation {
		if e := t.byAddr[target]; e != nil {
			l.answerND(e, f, p, target)
			l.drop(DropKnown)
			return true
		}
		// A link-local address follows from a MAC (RFC 4291, appendix A).
		if e := t.byMAC[macOf(target)]; e != nil {
			l.answerND(e, f, p, target)
			l.drop(DropKnown)
			return true
		}
	}
	if f.Ethernet()[0]&1 == 0 {
		return false
	}
	if l.isGateway(target) || l.gate != (overlay.MAC{}) && target == vswitch.LinkLocal(l.gate[:]) {
		l.drop(DropGateway)
		return true
	}
	l.floodForeign(t, f, h, p, DropKnown)
	return true
}

// macOf is the MAC from which a link-local address follows, or zero.
func macOf(a netip.Addr) (m overlay.MAC) {
	b := a.As16()
	if a.IsLinkLocalUnicast() && b[11] == 0xff && b[12] == 0xfe {
		m = overlay.MAC{b[8] ^ 2, b[9], b[10], b[13], b[14], b[15]}
	}
	return m
}

// answerND answers a solicitation in the name of an endpoint. One without a source address asks whether the address is
// free (RFC 4862, 5.4): the answer goes to all nodes.
func (l *Link) answerND(e *place, f *vswitch.Frame, request []byte, target netip.Addr) {
	asker := netip.AddrFrom16([16]byte(request[8:24]))
	to, flags := overlay.MAC(f.Ethernet()[6:12]), byte(ndSolicited|ndOverride)
	if asker.IsUnspecified() {
		asker, to, flags = netip.IPv6LinkLocalAllNodes(), overlay.MAC{0x33, 0x33, 0, 0, 0, 1}, ndOverride
	}
	m := make([]byte, ndLen+8)
	m[0], m[4] = ndNeighbourAdvert, flags
	ip := target.As16()
	copy(m[8:], ip[:])
	m[ndLen], m[ndLen+1] = ndTargetLinkAddr, 1
	copy(m[ndLen+2:], e.MAC[:])
	head := packet.QuoteIP(target, asker, protoICMPv6, len(m))
	head[7] = ndHopLimit
	sum := checksum.Combine(checksum.Checksum(head[8:40], 0), checksum.Combine(protoICMPv6, uint16(len(m))))
	checksum.Put(m[2:], ^checksum.Checksum(m, sum))
	l.receiveOwn(to, e.MAC, vswitch.EtherTypeIPv6, append(head, m...))
}

// configuration says whether a packet is of those that configure hosts: router discovery, redirects, DHCP. Each host's
// gateway has its own. inward has those looked for as well that only come from outside.
func configuration(h *inner, p []byte, inward bool) Reason {
	if h.fragment || h.l4 >= h.length {
		return pass
	}
	t := p[h.l4:h.length]
	switch h.proto {
	case protoICMPv6:
		if t[0] == ndRouterSolicitation || t[0] == ndRouterAdvert || t[0] == ndRedirect {
			return DropConfiguration
		}
	case packet.ProtoICMP:
		if inward && t[0] == 5 { // redirect
			return DropConfiguration
		}
	case packet.ProtoUDP:
		if len(t) < packet.UDPHeaderLen {
			return pass
		}
		switch binary.BigEndian.Uint16(t[2:]) {
		case 67, 547: // DHCP servers (RFC 2131, RFC 8415)
			return DropConfiguration
		case 68, 546: // DHCP clients
			if inward {
				return DropConfiguration
			}
		}
	}
	return pass
}
