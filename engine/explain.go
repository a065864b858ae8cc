package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"

	"github.com/usernet/usernet/forwarder"
	"github.com/usernet/usernet/internal/packet"
	"github.com/usernet/usernet/policy"
	vswitch "github.com/usernet/usernet/switch"
)

// This file says what would become of an attachment's packets. The code that decides about packets is asked, with
// nothing sent, counted or logged.

// Explanation is what becomes of packets that leave a network by its gateway.
type Explanation struct {
	forwarder.Explanation
	Policy  policy.Verdict // where it was asked
	Asked   bool
	Remedy  string // the flag that would allow what the policy refuses
	Bypass  bool   // a TCP connection would bypass the link and the gateway
	Through string // why it would not
}

// Explain says what becomes of packets that an attachment sends through the gateway, from one of its addresses. name is
// what it was given the destination for; "": it has it from elsewhere.
func (a *Attachment) Explain(src netip.Addr, proto uint8, dst netip.AddrPort, name string) Explanation {
	n := a.n
	var e Explanation
	e.Explanation = n.fwd.Explain(src, proto, dst, func(inside netip.Addr, proto uint8, dst netip.AddrPort) error {
		p := n.policyOf(inside, dst.Addr())
		if p == nil {
			return nil
		}
		v := p.Explain(proto, dst, name)
		if !e.Asked || v.Refusal == nil {
			e.Policy, e.Asked, e.Remedy = v, true, v.Remedy(dst, name)
		}
		if v.Refusal != nil {
			return v.Refusal
		}
		return nil
	})
	if e.Err != nil || proto != packet.ProtoTCP {
		return e
	}
	e.Through = n.bypassBar(n.byAddr(src), true)
	if r, ok := a.cfg.Sockets.(interface {
		Refuses(outside netip.AddrPort) error
	}); ok && e.Through == "" {
		if err := r.Refuses(dst); err != nil {
			e.Through = err.Error()
		}
	}
	e.Bypass = e.Through == ""
	return e
}

// Deliver says what the switch does with a packet to a station: to whom it goes, and whether that is the gateway; or
// the reason why it is dropped.
func (a *Attachment) Deliver(to net.HardwareAddr, src netip.Addr, proto uint8, dst netip.AddrPort) Delivery {
	var f vswitch.Frame
	eth := f.Ethernet()
	copy(eth, to)
	copy(eth[6:], a.cfg.MAC)
	etherType := uint16(vswitch.EtherTypeIPv4)
	if dst.Addr().Is6() {
		etherType = vswitch.EtherTypeIPv6
	}
	binary.BigEndian.PutUint16(eth[12:], etherType)
	f.Payload = [][]byte{firstPacket(netip.AddrPortFrom(src, explainPort), dst, proto)}
	port, why, ok := a.port.Judge(&f)
	d := Delivery{Passes: ok}
	if !ok {
		d.Reason = why.String()
		return d
	}
	if rules := a.n.neighbours.Load(); rules != nil && !bytes.Equal(to, a.n.cfg.MAC) {
		if err := rules.Opening(netip.AddrPortFrom(src, explainPort), dst, proto); err != nil {
			return Delivery{Reason: vswitch.DropPolicy.String(), Rule: err.Error()}
		}
	}
	d.To, _ = port.Owner().(*Attachment)
	return d
}

// Delivery is what the switch does with a packet.
type Delivery struct {
	Passes bool
	Reason string      // why it is dropped
	Rule   string      // the network's, where that is why
	To     *Attachment // who gets it; nil: the gateway, or another host
}

// explainPort is a port of which clients' connections come, for packets that are not sent.
const explainPort = 49152

// firstPacket is the first packet of a flow: a SYN, an empty datagram or an echo request.
func firstPacket(src, dst netip.AddrPort, proto uint8) []byte {
	size := map[uint8]int{packet.ProtoTCP: 20, packet.ProtoUDP: packet.UDPHeaderLen}[proto]
	if size == 0 {
		size = 8 // an echo request
	}
	b := make([]byte, packet.IPHeaderLen(dst.Addr())+size)
	h := b[packet.PutIP(b, src.Addr(), dst.Addr(), proto, size):]
	switch proto {
	case packet.ProtoTCP:
		binary.BigEndian.PutUint16(h, src.Port())
		binary.BigEndian.PutUint16(h[2:], dst.Port())
		h[12], h[13] = 5<<4, 0x02 // five words, SYN (RFC 9293, 3.1)
	case packet.ProtoUDP:
		packet.PutUDP(b, src, dst, 0)
	case packet.ProtoICMPv6:
		h[0] = 128 // echo request (RFC 4443, 4.1)
	default:
		h[0] = 8 // the same (RFC 792)
	}
	return b
}

// Station returns the MAC address at which one of the network's addresses is found; nil: nobody has it here.
func (n *Network) Station(addr netip.Addr) (mac net.HardwareAddr, to *Attachment) {
	if n.gw.Owns(addr) {
		return n.cfg.MAC, nil
	}
	if a := n.byAddr(addr); a != nil {
		return a.cfg.MAC, a
	}
	return nil, nil
}

// AnswersNames says whether questions for names are answered at port 53 of an address by the network itself.
func (n *Network) AnswersNames(at netip.Addr) bool {
	return n.cfg.Names != nil && (n.gw.Owns(at) || slices.Contains(n.cfg.NameServers, at))
}

// DialHost connects to where a destination of a container leads, as a connection of the container does, and closes it
// again.
func (n *Network) DialHost(ctx context.Context, inside netip.Addr, to netip.AddrPort) error {
	return n.fwd.DialHost(ctx, inside, to)
}
