package stack

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/usernet/usernet/internal/packet"
	vswitch "github.com/usernet/usernet/switch"
)

// Most connections are made past the gateway, and netstack has nothing to do for them. So a plain SYN that leads to
// none of its endpoints goes from the frame to the Handler. Netstack gets the packet when the decision needs it: to
// complete the handshake, or to reset.

// takeSYN gives a frame's SYN to the Handler. False: netstack is to have it.
func (g *Gateway) takeSYN(f *vswitch.Frame) bool {
	h := g.handler.Load()
	if h == nil || len(f.Payload) != 1 || f.Ethernet()[0]&1 != 0 || f.Virtio().GSO != vswitch.GSONone {
		return false
	}
	p := f.Payload[0]
	at, ok := plainSYN(f.EtherType() == vswitch.EtherTypeIPv6, p)
	if !ok {
		return false
	}
	t := &TCPRequest{Plain: true, seq: header.TCP(p[at:]).SequenceNumber(), g: g}
	hops := byte(0)
	if at == packet.IPv4HeaderLen {
		ip := header.IPv4(p)
		t.id.RemoteAddress, t.id.LocalAddress, hops = ip.SourceAddress(), ip.DestinationAddress(), ip.TTL()
	} else {
		ip := header.IPv6(p)
		t.id.RemoteAddress, t.id.LocalAddress, hops = ip.SourceAddress(), ip.DestinationAddress(), ip.HopLimit()
	}
	t.id.RemotePort, t.id.LocalPort = header.TCP(p[at:]).SourcePort(), header.TCP(p[at:]).DestinationPort()
	t.Src = netip.AddrPortFrom(addrOf(t.id.RemoteAddress), t.id.RemotePort)
	t.Dst = netip.AddrPortFrom(addrOf(t.id.LocalAddress), t.id.LocalPort)
	own := g.Owns(t.Dst.Addr())
	if !mayConnect(t.Src) || !mayConnect(t.Dst) || !own && (hops <= 1 || g.Contains(t.Dst.Addr())) {
		return false
	}
	if g.s.FindTransportEndpoint(protoOf(t.Dst.Addr()), tcp.ProtocolNumber, t.id, nic) != nil {
		return false
	}
	t.whole = bytes.Clone(p)
	t.quote = t.whole[:at+quoted]
	if g.syns.add(t.id, syn{direct: t}) {
		go t.decide(*h)
	}
	return true
}

// dontFragment is the only bit that may be set of IPv4's flags and fragment offset (RFC 791, 3.1).
const dontFragment = 0x4000

// plainSYN says where the TCP header of a packet is that is nothing but a plain SYN (TCPRequest.Plain), whole and not
// fragmented, without options of IP.
func plainSYN(v6 bool, p []byte) (at int, ok bool) {
	switch {
	case !v6 && len(p) >= packet.IPv4HeaderLen && p[0] == 0x45 && p[9] == packet.ProtoTCP &&
		binary.BigEndian.Uint16(p[6:])&^dontFragment == 0:
		at, ok = packet.IPv4HeaderLen, int(binary.BigEndian.Uint16(p[2:])) == len(p)
	case v6 && len(p) >= packet.IPv6HeaderLen && p[0]>>4 == 6 && p[6] == packet.ProtoTCP:
		at, ok = packet.IPv6HeaderLen, int(binary.BigEndian.Uint16(p[4:]))+packet.IPv6HeaderLen == len(p)
	}
	if !ok || len(p) < at+packet.TCPHeaderLen {
		return 0, false
	}
	th := header.TCP(p[at:])
	return at, th.Flags()&^(header.TCPFlagEce|header.TCPFlagCwr) == header.TCPFlagSyn &&
		int(th.DataOffset()) == len(th) && packet.PlainSYN(th)
}

// mayConnect says whether an address is one that TCP connections have; of the others netstack makes what it has to.
func mayConnect(a netip.AddrPort) bool {
	addr := a.Addr()
	return a.Port() != 0 && !addr.IsUnspecified() && !addr.IsMulticast() && !addr.IsLoopback() &&
		!addr.IsLinkLocalUnicast() && !addr.Is4In6() && addr != limitedBroadcast
}

var limitedBroadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// request has netstack take a SYN that went past it, and returns its request; nil: it has not taken it, as when it
// ends.
func (t *TCPRequest) request() *tcp.ForwarderRequest {
	if t.whole == nil {
		return t.r
	}
	whole := t.whole
	t.whole = nil // once, also where netstack panics
	d := t.g.link.dispatcher.Load()
	if d == nil {
		return nil
	}
	t.forwarded = make(chan *tcp.ForwarderRequest, 1)
	t.g.syns.hand(t.id)
	deliver(*d, protoOf(t.Dst.Addr()), tcpip.PacketHost, buffer.NewViewWithData(whole))
	if t.g.syns.handed(t.id) {
		t.r = <-t.forwarded // at once: the goroutine has been started
	}
	return t.r
}

// handing is where a SYN that went past netstack is.
type handing int

// The places.
const (
	notHanded handing = iota
	toHand            // on the way to netstack
	handed            // netstack's forwarder has it
)

// hand has the next packet of a pending SYN go to netstack's forwarder.
func (p *pendingSYNs) hand(id stack.TransportEndpointID) { p.setHanding(id, notHanded, toHand) }

// take says whether a packet of a pending SYN is to go to netstack's forwarder.
func (p *pendingSYNs) take(id stack.TransportEndpointID) bool {
	return p.setHanding(id, toHand, handed)
}

// giveBack says that netstack's forwarder has not taken one.
func (p *pendingSYNs) giveBack(id stack.TransportEndpointID) { p.setHanding(id, handed, notHanded) }

// handed says whether netstack's forwarder has got it.
func (p *pendingSYNs) handed(id stack.TransportEndpointID) bool {
	return p.setHanding(id, handed, handed)
}

func (p *pendingSYNs) setHanding(id stack.TransportEndpointID, from, to handing) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, ok := p.byID[id]
	if !ok || s.direct == nil || s.handing != from {
		return false
	}
	s.handing = to
	p.byID[id] = s
	return true
}
