package engine

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/packet"
	"github.com/usernet/usernet/policy"
	vswitch "github.com/usernet/usernet/switch"
)

// SetNeighbours has p decide which attachments reach each other, and those of other hosts; nil: all do. What comes from
// the gateway or is for it is not asked about.
func (n *Network) SetNeighbours(p *policy.Neighbours) {
	n.neighbours.Store(p)
	if p == nil {
		n.sw.SetPolicy(nil)
		return
	}
	n.sw.SetPolicy(func(f *vswitch.Frame) bool { return n.mayPass(p, f) })
}

// Neighbours is what SetNeighbours was told.
func (n *Network) Neighbours() *policy.Neighbours { return n.neighbours.Load() }

// mayPass decides about a frame between attachments.
func (n *Network) mayPass(rules *policy.Neighbours, f *vswitch.Frame) bool {
	et, b, ok := untag(f)
	switch {
	case !ok:
		return false
	case et == vswitch.EtherTypeARP:
		return true // addresses are no secret, and the guard holds them to their owners
	case et != vswitch.EtherTypeIPv4 && et != vswitch.EtherTypeIPv6:
		return !rules.Rules().Denies()
	}
	p, resolves, ok := describe(et == vswitch.EtherTypeIPv6, b)
	if resolves {
		return true
	}
	if !ok {
		return false // a receiver may make more of it, as of a TCP header that is cut into fragments (RFC 1858)
	}
	err := rules.Decide(&p)
	if err != nil && n.refusalLog.next() {
		_, from := n.Owner(p.Src.Addr())
		_, to := n.Owner(p.Dst.Addr())
		n.log.Info("neighbour refused", "container", from, "inside", p.Src, "protocol", p.Proto, "to", to,
			"destination", p.Dst, "rule", err)
	}
	return err == nil
}

// untag is what is in a frame, behind its tags: receivers take a priority tag off (IEEE 802.1Q, VLAN 0), and the switch
// does not know what they do with others. It is false for a frame that ends within them, or has more than two.
func untag(f *vswitch.Frame) (etherType uint16, payload []byte, ok bool) {
	const tagLen, maxTags = 4, 2
	etherType = f.EtherType()
	if len(f.Payload) > 0 {
		payload = f.Payload[0]
	}
	for range maxTags {
		if !vswitch.IsTag(etherType) {
			return etherType, payload, true
		}
		if len(payload) < tagLen {
			return 0, nil, false
		}
		etherType, payload = binary.BigEndian.Uint16(payload[2:]), payload[tagLen:]
	}
	return etherType, payload, !vswitch.IsTag(etherType)
}

// describe says what a decision about a packet needs. resolves says that it is neighbour discovery.
func describe(v6 bool, b []byte) (p policy.Packet, resolves, ok bool) {
	h, ok := packet.Parse(v6, b)
	if !ok {
		return p, false, false
	}
	src, dst := h.Addrs(b)
	from, _ := netip.AddrFromSlice(src)
	to, _ := netip.AddrFromSlice(dst)
	p.Proto = h.Proto
	var a, c uint16
	t := b[min(h.Transport, len(b)):]
	switch {
	case h.Later:
		p.Part = true
	case h.Proto == unix.IPPROTO_TCP && len(t) >= packet.TCPHeaderLen:
		const syn, ack = 0x02, 0x10
		a, c = binary.BigEndian.Uint16(t), binary.BigEndian.Uint16(t[2:])
		p.Opens = t[13]&(syn|ack) == syn
	case h.Proto == unix.IPPROTO_UDP && len(t) >= packet.UDPHeaderLen:
		a, c = binary.BigEndian.Uint16(t), binary.BigEndian.Uint16(t[2:])
		p.Opens = true
	case (h.Proto == unix.IPPROTO_ICMP || h.Proto == unix.IPPROTO_ICMPV6) && len(t) >= 8:
		if h.V6 && t[0] >= 133 && t[0] <= 136 { // router and neighbour discovery (RFC 4861); the guard knows the rest
			return p, true, true
		}
		a, p.Opens, p.Part = message(h.V6, t)
		c = a
	default:
		p.Opens = true
	}
	p.Src, p.Dst = netip.AddrPortFrom(from, a), netip.AddrPortFrom(to, c)
	return p, false, true
}

// message says of an ICMP message which number a ping has, whether it asks, and whether it is an error.
func message(v6 bool, t []byte) (number uint16, asks, isError bool) {
	number = binary.BigEndian.Uint16(t[4:])
	if v6 {
		return number, t[0] != 129, t[0] < 128 // 129: echo reply (RFC 4443)
	}
	switch t[0] {
	case 0: // echo reply (RFC 792)
		return number, false, false
	case 3, 11, 12:
		return 0, false, true
	}
	return number, true, false
}
