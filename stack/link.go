package stack

import (
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/usernet/usernet/internal/faults"
	"github.com/usernet/usernet/internal/isolate"
	vswitch "github.com/usernet/usernet/switch"
)

// maxGSO is the largest super-frame that netstack may build, headers included. TCP leaves room for them below it.
const maxGSO = 64 << 10

// linkEndpoint is the gateway's network card: netstack's link endpoint and the switch port's device in one. Packets
// cross it on the goroutine that brings them, without a queue.
type linkEndpoint struct {
	mac tcpip.LinkAddress
	mtu atomic.Uint32
	log *slog.Logger // nil: slog's default

	dispatcher atomic.Pointer[stack.NetworkDispatcher] // nil while no NIC is attached
	port       atomic.Pointer[vswitch.Port]            // nil until connected, and after Close
	own        atomic.Pointer[ownAddresses]            // what the gateway answers ARP and NDP for
	gateway    atomic.Pointer[Gateway]                 // handles datagrams and SYNs past netstack; nil: nobody
	detour     atomic.Pointer[func(*vswitch.Frame) bool]

	proxyAllBut []netip.Addr // see Config; set before connect

	mu      sync.Mutex // guards onClose
	onClose func()
}

var (
	_ stack.LinkEndpoint = (*linkEndpoint)(nil)
	_ stack.GSOEndpoint  = (*linkEndpoint)(nil)
	_ vswitch.Flusher    = (*linkEndpoint)(nil)
)

// newLinkEndpoint returns an endpoint that drops everything until it is connected. mtu is that of IP packets.
func newLinkEndpoint(mac tcpip.LinkAddress, mtu uint32) *linkEndpoint {
	e := &linkEndpoint{mac: mac}
	e.mtu.Store(mtu)
	e.own.Store(newOwnAddresses(mac, nil))
	return e
}

// connect plugs the endpoint into a switch. cfg.Addrs are the gateway's addresses: netstack, which is promiscuous and
// would answer for everyone, sees ARP and neighbour requests for these alone.
func (e *linkEndpoint) connect(sw *vswitch.Switch, cfg vswitch.PortConfig) error {
	if len(cfg.MAC) == 0 {
		cfg.MAC = net.HardwareAddr(e.mac)
	}
	own := newOwnAddresses(e.mac, cfg.Addrs)
	if e.proxyAllBut != nil {
		own.answerAllBut(e.proxyAllBut)
	}
	e.own.Store(own)
	p, err := sw.Connect(cfg, e)
	if err != nil {
		return err
	}
	e.port.Store(p)
	return nil
}

// WritePackets implements stack.LinkWriter: packets from netstack into the switch.
func (e *linkEndpoint) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	port := e.port.Load()
	if port == nil {
		return 0, &tcpip.ErrClosedForSend{}
	}
	// Netstack also calls from its own goroutines, where a panic could not be recovered elsewhere.
	isolate.Do(e.log, "sending a gateway's frames", func() {
		f := framePool.Get().(*outFrame)
		for _, pkt := range pkts.AsSlice() {
			f.load(pkt)
			port.Receive(&f.Frame)
		}
		f.unload()
		framePool.Put(f)
	})
	return pkts.Len(), nil
}

// outFrame is a frame on its way from netstack, whose pieces are the packet's own memory.
type outFrame struct {
	vswitch.Frame
	space [8][]byte // for the pieces of most packets: headers, and what one Write or a few brought
}

var framePool = sync.Pool{New: func() any { return new(outFrame) }}

// load makes f the frame of pkt, whose Ethernet header AddHeader has put in front.
func (f *outFrame) load(pkt *stack.PacketBuffer) {
	f.PutVirtio(virtioOf(pkt))
	copy(f.Ethernet(), pkt.LinkHeader().Slice())
	views, skip := pkt.AsViewList()
	skip += len(pkt.LinkHeader().Slice())
	if f.Payload == nil {
		f.Payload = f.space[:0]
	}
	f.Payload = f.Payload[:0]
	for v := views.Front(); v != nil; v = v.Next() {
		b := v.AsSlice()
		if skip >= len(b) {
			skip -= len(b)
			continue
		}
		f.Payload = append(f.Payload, b[skip:])
		skip = 0
	}
}

// unload forgets the last packet's memory, and keeps the room for pieces.
func (f *outFrame) unload() {
	clear(f.Payload[:cap(f.Payload)])
	f.Payload = f.Payload[:0]
}

// virtioOf says what netstack has left for the receiver to do.
func virtioOf(pkt *stack.PacketBuffer) vswitch.Virtio {
	g := &pkt.GSOOptions
	var v vswitch.Virtio
	if g.Type == stack.GSONone || g.Type == stack.GSOGvisor {
		return v
	}
	v.HeaderLen = uint16(pkt.HeaderSize())
	if g.NeedsCsum {
		v.NeedsChecksum = true
		v.ChecksumStart = header.EthernetMinimumSize + uint16(len(pkt.NetworkHeader().Slice()))
		v.ChecksumOffset = g.CsumOffset
	}
	if pkt.Data().Size() > int(g.MSS) {
		v.GSOSize = g.MSS
		v.GSO = vswitch.GSOTCPv4
		if g.Type == stack.GSOTCPv6 {
			v.GSO = vswitch.GSOTCPv6
		}
	}
	return v
}

// WriteFrame implements vswitch.Device: frames from the switch into netstack.
func (e *linkEndpoint) WriteFrame(f *vswitch.Frame) error {
	d := e.dispatcher.Load()
	if d == nil {
		return net.ErrClosed
	}
	if faults.Enabled && len(f.Payload) > 0 {
		faults.Check(faults.Gateway, f.Payload[0])
	}
	if detour := e.detour.Load(); detour != nil && (*detour)(f) {
		return nil
	}
	wanted, udp := e.own.Load().wants(f)
	if !wanted {
		return nil
	}
	g := e.gateway.Load()
	if udp && g != nil && g.takeDatagram(f) {
		return nil
	}
	if g != nil && !udp && g.takeSYN(f) {
		return nil
	}
	if f.Virtio().GSO == vswitch.GSOUDP {
		// To netstack, a datagram super-frame would be one datagram.
		kind, proto := packetType(f.Ethernet()), tcpip.NetworkProtocolNumber(f.EtherType())
		return f.Segments(func(frame []byte) error {
			deliver(*d, proto, kind, buffer.NewViewWithData(frame[vswitch.EthernetHeaderLen:]))
			return nil
		})
	}
	deliver(*d, tcpip.NetworkProtocolNumber(f.EtherType()), packetType(f.Ethernet()), f.StealPayload().View())
	return nil
}

// Flush implements vswitch.Flusher.
func (e *linkEndpoint) Flush() {
	g := e.gateway.Load()
	if g == nil {
		return
	}
	if h := g.handler.Load(); h != nil {
		(*h).Flush()
	}
}

// deliver passes a packet to netstack, which owns v from then on. Packets from a TAP have no checksum yet, so there is
// none to verify.
func deliver(d stack.NetworkDispatcher, proto tcpip.NetworkProtocolNumber, kind tcpip.PacketType, v *buffer.View) {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(v)})
	pkt.NetworkProtocolNumber = proto
	pkt.PktType = kind
	pkt.RXChecksumValidated = true
	d.DeliverNetworkPacket(proto, pkt)
	pkt.DecRef()
}

// packetType tells group addresses from our own; the switch brings no others.
func packetType(eth []byte) tcpip.PacketType {
	switch {
	case eth[0]&1 == 0:
		return tcpip.PacketHost
	case tcpip.LinkAddress(eth[:6]) == header.EthernetBroadcastAddress:
		return tcpip.PacketBroadcast
	default:
		return tcpip.PacketMulticast
	}
}

// Attach implements stack.NetworkLinkEndpoint.
func (e *linkEndpoint) Attach(d stack.NetworkDispatcher) {
	if d == nil {
		e.dispatcher.Store(nil)
		return
	}
	e.dispatcher.Store(&d)
}

// IsAttached implements stack.NetworkLinkEndpoint.
func (e *linkEndpoint) IsAttached() bool { return e.dispatcher.Load() != nil }

// Capabilities implements stack.NetworkLinkEndpoint. CapabilityTXChecksumOffload must not be among them: segments
// without GSO options (a TCP handshake's) would leave with no checksum at all.
func (e *linkEndpoint) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityResolutionRequired | stack.CapabilityRXChecksumOffload
}

// SupportedGSO implements stack.GSOEndpoint: TAPs take super-frames.
func (e *linkEndpoint) SupportedGSO() stack.SupportedGSO { return stack.HostGSOSupported }

// GSOMaxSize implements stack.GSOEndpoint.
func (e *linkEndpoint) GSOMaxSize() uint32 { return maxGSO }

// MTU implements stack.NetworkLinkEndpoint.
func (e *linkEndpoint) MTU() uint32 { return e.mtu.Load() }

// SetMTU implements stack.NetworkLinkEndpoint.
func (e *linkEndpoint) SetMTU(mtu uint32) { e.mtu.Store(mtu) }

// MaxHeaderLength implements stack.NetworkLinkEndpoint.
func (e *linkEndpoint) MaxHeaderLength() uint16 { return header.EthernetMinimumSize }

// LinkAddress implements stack.NetworkLinkEndpoint.
func (e *linkEndpoint) LinkAddress() tcpip.LinkAddress { return e.mac }

// SetLinkAddress implements stack.NetworkLinkEndpoint. The gateway keeps the MAC that its port was connected with.
func (e *linkEndpoint) SetLinkAddress(tcpip.LinkAddress) {}

// ARPHardwareType implements stack.NetworkLinkEndpoint.
func (e *linkEndpoint) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareEther }

// AddHeader implements stack.NetworkLinkEndpoint.
func (e *linkEndpoint) AddHeader(pkt *stack.PacketBuffer) {
	eth := header.Ethernet(pkt.LinkHeader().Push(header.EthernetMinimumSize))
	eth.Encode(&header.EthernetFields{
		SrcAddr: e.mac,
		DstAddr: pkt.EgressRoute.RemoteLinkAddress,
		Type:    pkt.NetworkProtocolNumber,
	})
}

// ParseHeader implements stack.NetworkLinkEndpoint. The Ethernet header stays with the frame.
func (e *linkEndpoint) ParseHeader(*stack.PacketBuffer) bool { return true }

// Wait implements stack.NetworkLinkEndpoint: there are no goroutines to wait for.
func (e *linkEndpoint) Wait() {}

// SetOnCloseAction implements stack.NetworkLinkEndpoint.
func (e *linkEndpoint) SetOnCloseAction(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.onClose = f
}

// Close unplugs the endpoint. Closing it again does nothing.
func (e *linkEndpoint) Close() {
	e.mu.Lock()
	f := e.onClose
	e.onClose = nil
	e.mu.Unlock()
	if f != nil {
		f()
	}
	if p := e.port.Swap(nil); p != nil {
		_ = p.Close() // it never fails
	}
}
