package stack

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/usernet/usernet/internal/packet"
)

// errorSource is the gateway's address of the same family as to.
func (g *Gateway) errorSource(to netip.Addr) netip.Addr {
	for a := range g.own {
		if a.Is4() == to.Is4() {
			return a
		}
	}
	return to
}

type tcpipError struct{ e tcpip.Error }

func (e *tcpipError) Error() string { return e.e.String() }

func (g *Gateway) handleUDP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	h := g.handler.Load()
	th := pkt.TransportHeader().Slice()
	if h == nil || len(th) < header.UDPMinimumSize {
		return false
	}
	data := pkt.Data().AsRange().ToView()
	if data != nil { // an empty payload has no view
		defer data.Release()
	}
	size := int(header.UDP(th).Length()) - header.UDPMinimumSize
	if size < 0 || size > pkt.Data().Size() {
		return true // it lies about its length: dropped, as kernels do
	}
	return (*h).HandleUDP(packetOf(id, pkt, data.AsSlice()[:size]))
}

// quoted is how many bytes behind the IP header an ICMP error repeats: enough to find the sender's socket (RFC 792).
const quoted = 8

func packetOf(id stack.TransportEndpointID, pkt *stack.PacketBuffer, payload []byte) packet.Datagram {
	p := packet.Datagram{
		Src:     netip.AddrPortFrom(addrOf(id.RemoteAddress), id.RemotePort),
		Dst:     netip.AddrPortFrom(addrOf(id.LocalAddress), id.LocalPort),
		Payload: payload,
	}
	nh := pkt.NetworkHeader().Slice()
	whole := 0 // the length in bytes by the IP header; in a reassembled packet it is a fragment's
	if pkt.NetworkProtocolNumber == header.IPv4ProtocolNumber {
		ip := header.IPv4(nh)
		p.TTL, p.DontFragment = ip.TTL(), ip.Flags()&header.IPv4FlagDontFragment != 0
		whole = int(ip.TotalLength()) - len(nh)
	} else {
		ip := header.IPv6(nh)
		p.TTL, p.DontFragment = ip.HopLimit(), true
		whole = int(ip.PayloadLength()) - (len(nh) - header.IPv6MinimumSize)
	}
	th := pkt.TransportHeader().Slice()
	p.DontFragment = p.DontFragment && whole == len(th)+pkt.Data().Size()
	p.Original = append(append(make([]byte, 0, len(nh)+quoted), nh...), th[:min(len(th), quoted)]...)
	return p
}

func (g *Gateway) handleICMP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	h := g.handler.Load()
	th := pkt.TransportHeader().Slice()
	if h == nil || len(th) < 8 || g.Owns(addrOf(id.LocalAddress)) {
		return false
	}
	v4 := pkt.NetworkProtocolNumber == header.IPv4ProtocolNumber
	if v4 && header.ICMPv4(th).Type() != header.ICMPv4Echo ||
		!v4 && header.ICMPv6(th).Type() != header.ICMPv6EchoRequest {
		return false
	}
	data := pkt.Data().AsRange().ToView()
	if data != nil { // an empty payload has no view
		defer data.Release()
	}
	return (*h).HandleEcho(packetOf(id, pkt, append(append([]byte(nil), th...), data.AsSlice()...)))
}

// writeUDP sends a datagram by way of netstack.
func (g *Gateway) writeUDP(src, dst netip.AddrPort, payload []byte) error {
	v := buffer.NewViewSize(header.UDPMinimumSize + len(payload))
	b := v.AsSlice()
	u := header.UDP(b)
	u.Encode(&header.UDPFields{SrcPort: src.Port(), DstPort: dst.Port(), Length: uint16(len(b))})
	copy(b[header.UDPMinimumSize:], payload)
	from, to := addressOf(src.Addr()), addressOf(dst.Addr())
	xsum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, from, to, uint16(len(b)))
	xsum = checksum.Checksum(b, xsum)
	if xsum != 0xffff {
		xsum = ^xsum
	}
	u.SetChecksum(xsum)
	return g.write(src.Addr(), dst.Addr(), header.UDPProtocolNumber, v)
}

func (g *Gateway) write(src, dst netip.Addr, proto tcpip.TransportProtocolNumber, v *buffer.View) error {
	route, err := g.s.FindRoute(nic, addressOf(src), addressOf(dst), protoOf(dst), false)
	if err != nil {
		v.Release()
		return &tcpipError{err}
	}
	defer route.Release()
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: int(route.MaxHeaderLength()),
		Payload:            buffer.MakeWithView(v),
	})
	defer pkt.DecRef()
	if err := route.WritePacket(stack.NetworkHeaderParams{Protocol: proto, TTL: packet.DefaultTTL}, pkt); err != nil {
		return &tcpipError{err}
	}
	return nil
}
