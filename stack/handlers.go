package stack

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/usernet/usernet/internal/isolate"
)

// TCPRequest is a connection that a container wants. Exactly one of its methods is called once.
type TCPRequest struct {
	Src, Dst netip.AddrPort
	// Plain says that the SYN has no data, and no options but those that all kernels know: maximum segment size, window
	// scale, selective acknowledgements and timestamps (RFC 9293, 3.2; RFC 7323; RFC 2018).
	Plain bool
	g     *Gateway
	r     *tcp.ForwarderRequest
}

// syn is what is remembered of a SYN until it is answered.
type syn struct {
	quote []byte // what an ICMP error says of it (RFC 792: the IP header and 8 bytes)
	plain bool
}

func (g *Gateway) handleTCP(r *tcp.ForwarderRequest) {
	id := r.ID()
	h := g.handler.Load()
	if h == nil {
		r.Complete(true)
		return
	}
	t := &TCPRequest{
		Src:   netip.AddrPortFrom(addrOf(id.RemoteAddress), id.RemotePort),
		Dst:   netip.AddrPortFrom(addrOf(id.LocalAddress), id.LocalPort),
		Plain: g.asked(id).plain,
		g:     g, r: r,
	}
	if !isolate.Do(g.link.log, "deciding about a connection", func() { (*h).HandleTCP(t) }, "from", t.Src, "to", t.Dst) {
		isolate.Do(g.link.log, "refusing a connection", t.Refuse) // a second panic if it was answered before the first
	}
}

// Accept completes the handshake.
func (t *TCPRequest) Accept() (*Conn, error) {
	var queue waiter.Queue
	ep, err := t.r.CreateEndpoint(&queue)
	t.g.forget(t.r.ID())
	if err != nil {
		t.r.Complete(true)
		return nil, &tcpipError{err}
	}
	t.r.Complete(false)
	ep.SocketOptions().SetKeepAlive(true)
	return newConn(&queue, ep), nil
}

// Unreachable answers with ICMP destination unreachable: the host's, or its network's.
func (t *TCPRequest) Unreachable(host bool) {
	quote := t.g.forget(t.r.ID())
	if quote != nil {
		code := byte(0)
		if host {
			code = 1
		}
		if t.Src.Addr().Is4() {
			_ = t.g.WriteICMP(t.g.errorSource(t.Src.Addr()), t.Src.Addr(), append([]byte{3, code, 0, 0, 0, 0, 0, 0}, quote...))
		} else {
			if host {
				code = 3
			}
			_ = t.g.WriteICMP(t.g.errorSource(t.Src.Addr()), t.Src.Addr(), append([]byte{1, code, 0, 0, 0, 0, 0, 0}, quote...))
		}
	}
	t.r.Complete(quote == nil)
}

// errorSource is the gateway's address of the same family as to.
func (g *Gateway) errorSource(to netip.Addr) netip.Addr {
	for a := range g.own {
		if a.Is4() == to.Is4() {
			return a
		}
	}
	return to
}

// takeTCP remembers what an ICMP error would have to quote, then lets the forwarder have the segment.
func (g *Gateway) takeTCP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	th := header.TCP(pkt.TransportHeader().Slice())
	if len(th) >= header.TCPMinimumSize && th.Flags()&(header.TCPFlagSyn|header.TCPFlagAck) == header.TCPFlagSyn {
		g.synMu.Lock()
		if len(g.syns) < maxHandshakes {
			g.syns[id] = syn{append(append([]byte(nil), pkt.NetworkHeader().Slice()...), th[:8]...), plain(th) && pkt.Data().Size() == 0}
		}
		g.synMu.Unlock()
	}
	return g.tcp.HandlePacket(id, pkt)
}

// plain says whether a SYN has only options that all kernels know.
func plain(th header.TCP) bool {
	for opts := th.Options(); len(opts) > 0; {
		switch opts[0] {
		case header.TCPOptionEOL:
			return true
		case header.TCPOptionNOP:
			opts = opts[1:]
			continue
		case header.TCPOptionMSS, header.TCPOptionWS, header.TCPOptionTS, header.TCPOptionSACKPermitted:
		default:
			return false
		}
		if len(opts) < 2 || opts[1] < 2 || int(opts[1]) > len(opts) {
			return false
		}
		opts = opts[opts[1]:]
	}
	return true
}

// asked is what is remembered of a SYN.
func (g *Gateway) asked(id stack.TransportEndpointID) syn {
	g.synMu.Lock()
	defer g.synMu.Unlock()
	return g.syns[id]
}

// forget returns what an ICMP error about a SYN has to quote, and forgets it.
func (g *Gateway) forget(id stack.TransportEndpointID) []byte {
	g.synMu.Lock()
	defer g.synMu.Unlock()
	q := g.syns[id].quote
	delete(g.syns, id)
	return q
}

type tcpipError struct{ e tcpip.Error }

func (e *tcpipError) Error() string { return e.e.String() }

// Refuse answers with a reset: connection refused.
func (t *TCPRequest) Refuse() { t.g.forget(t.r.ID()); t.r.Complete(true) }

// Drop answers nothing: the container times out, as it would on a real network.
func (t *TCPRequest) Drop() { t.g.forget(t.r.ID()); t.r.Complete(false) }

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

// defaultTTL is what the gateway sends with, as kernels do (net.ipv4.ip_default_ttl).
const defaultTTL = 64

// quoted is how many bytes behind the IP header an ICMP error repeats: enough to find the sender's socket (RFC 792).
const quoted = 8

func packetOf(id stack.TransportEndpointID, pkt *stack.PacketBuffer, payload []byte) Packet {
	p := Packet{
		Src:     netip.AddrPortFrom(addrOf(id.RemoteAddress), id.RemotePort),
		Dst:     netip.AddrPortFrom(addrOf(id.LocalAddress), id.LocalPort),
		Payload: payload,
	}
	nh := pkt.NetworkHeader().Slice()
	whole := 0 // length in bytes that the IP header tells: of a reassembled packet, that of a fragment
	if pkt.NetworkProtocolNumber == header.IPv4ProtocolNumber {
		ip := header.IPv4(nh)
		p.TTL, p.DontFragment, whole = ip.TTL(), ip.Flags()&header.IPv4FlagDontFragment != 0, int(ip.TotalLength())-len(nh)
	} else {
		ip := header.IPv6(nh)
		p.TTL, p.DontFragment, whole = ip.HopLimit(), true, int(ip.PayloadLength())-(len(nh)-header.IPv6MinimumSize)
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
	if v4 && header.ICMPv4(th).Type() != header.ICMPv4Echo || !v4 && header.ICMPv6(th).Type() != header.ICMPv6EchoRequest {
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
	xsum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, tcpip.AddrFromSlice(src.Addr().AsSlice()), tcpip.AddrFromSlice(dst.Addr().AsSlice()), uint16(len(b)))
	xsum = checksum.Checksum(b, xsum)
	if xsum != 0xffff {
		xsum = ^xsum
	}
	u.SetChecksum(xsum)
	return g.write(src.Addr(), dst.Addr(), header.UDPProtocolNumber, v)
}

// WriteICMP sends an ICMP message into the network in the name of src; its checksum is completed here.
func (g *Gateway) WriteICMP(src, dst netip.Addr, message []byte) error {
	v := buffer.NewViewWithData(message)
	b := v.AsSlice()
	b[2], b[3] = 0, 0
	proto := header.ICMPv4ProtocolNumber
	initial := uint16(0)
	if src.Is6() {
		proto = header.ICMPv6ProtocolNumber
		initial = header.PseudoHeaderChecksum(proto, tcpip.AddrFromSlice(src.AsSlice()), tcpip.AddrFromSlice(dst.AsSlice()), uint16(len(b)))
	}
	binary.BigEndian.PutUint16(b[2:], ^checksum.Checksum(b, initial))
	return g.write(src, dst, proto, v)
}

func (g *Gateway) write(src, dst netip.Addr, proto tcpip.TransportProtocolNumber, v *buffer.View) error {
	route, err := g.s.FindRoute(nic, tcpip.AddrFromSlice(src.AsSlice()), tcpip.AddrFromSlice(dst.AsSlice()), protoOf(dst), false)
	if err != nil {
		v.Release()
		return &tcpipError{err}
	}
	defer route.Release()
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: int(route.MaxHeaderLength()), Payload: buffer.MakeWithView(v)})
	defer pkt.DecRef()
	if err := route.WritePacket(stack.NetworkHeaderParams{Protocol: proto, TTL: defaultTTL}, pkt); err != nil {
		return &tcpipError{err}
	}
	return nil
}
