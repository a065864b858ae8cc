package stack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/usernet/usernet/internal/packet"
	"github.com/usernet/usernet/internal/watchdog"
	vswitch "github.com/usernet/usernet/switch"
)

// nic is the gateway's only interface.
const nic tcpip.NICID = 1

// Handler takes what containers send beyond their network. Calls come from the goroutine that carries the container's
// frames, except HandleTCP, which has one of its own.
type Handler interface {
	// HandleTCP decides about a new connection.
	HandleTCP(r *TCPRequest)
	// HandleUDP takes a datagram; payload is only valid during the call. False: there is no such port.
	HandleUDP(p packet.Datagram) bool
	// HandleEcho takes an ICMP echo request; Payload begins with the ICMP header.
	HandleEcho(p packet.Datagram) bool
	// Flush sends what was kept of packets with MorePending set.
	Flush()
}

// Config says how a gateway is to be.
type Config struct {
	MAC       net.HardwareAddr
	MTU       uint32 // bytes, of layer 3
	Addresses []netip.Prefix
	// ProxyAllBut has the gateway answer address resolution (ARP, RFC 826; NDP, RFC 4861) for all addresses but these
	// and link-local ones; nil: for its own only.
	ProxyAllBut []netip.Addr
	Switch      *vswitch.Switch
	Logger      *slog.Logger
}

// Gateway is a running gateway. Make it with New, end it with Close.
type Gateway struct {
	s       *stack.Stack
	link    *linkEndpoint
	handler atomic.Pointer[Handler]
	own     map[netip.Addr]bool
	subnets []netip.Prefix
	tcp     *tcp.Forwarder

	// served is where ListenUDP listens; copied on change, under neighborMu.
	served     atomic.Pointer[map[netip.AddrPort]struct{}]
	neighborMu sync.RWMutex // guards neighbors, and changes of served
	neighbors  map[netip.Addr][6]byte

	syns   *pendingSYNs
	errors *errorRate // of ICMP
}

// Buffers of a connection in bytes: they begin small and grow to 4 MiB with the connection.
const (
	bufferMin, bufferDefault, bufferMax = 4 << 10, 256 << 10, 4 << 20
)

// New makes a gateway and plugs it into the switch.
func New(cfg Config) (*Gateway, error) {
	g := &Gateway{
		own:       map[netip.Addr]bool{},
		syns:      newPendingSYNs(maxHandshakes, maxHandshakesEach),
		errors:    newErrorRate(),
		neighbors: map[netip.Addr][6]byte{},
	}
	g.served.Store(&map[netip.AddrPort]struct{}{})
	g.s = stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{
			tcp.NewProtocol,
			udp.NewProtocol,
			icmp.NewProtocol4,
			icmp.NewProtocol6,
		},
		HandleLocal: false,
	})
	if err := g.tune(); err != nil {
		return nil, err
	}
	var own []netip.Addr
	for _, p := range cfg.Addresses {
		g.own[p.Addr()] = true
		g.subnets = append(g.subnets, p.Masked())
		own = append(own, p.Addr())
	}
	g.link = newLinkEndpoint(tcpip.LinkAddress(cfg.MAC), cfg.MTU)
	g.link.proxyAllBut = cfg.ProxyAllBut
	g.link.log = cfg.Logger
	if err := g.s.CreateNIC(nic, g.link); err != nil {
		return nil, errors.New(err.String())
	}
	for _, p := range cfg.Addresses {
		pa := tcpip.ProtocolAddress{
			Protocol:          protoOf(p.Addr()),
			AddressWithPrefix: tcpip.AddressWithPrefix{Address: addressOf(p.Addr()), PrefixLen: p.Bits()},
		}
		if err := g.s.AddProtocolAddress(nic, pa, stack.AddressProperties{}); err != nil {
			return nil, fmt.Errorf("address %s: %s", p, err)
		}
	}
	g.s.SetPromiscuousMode(nic, true)
	g.s.SetSpoofing(nic, true)
	g.s.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: nic},
		{Destination: header.IPv6EmptySubnet, NIC: nic},
	})
	g.tcp = tcp.NewForwarder(g.s, 0, maxHandshakes, g.handleTCP)
	g.s.SetTransportProtocolHandler(tcp.ProtocolNumber, g.takeTCP)
	g.s.SetTransportProtocolHandler(udp.ProtocolNumber, g.handleUDP)
	g.s.SetTransportProtocolHandler(icmp.ProtocolNumber4, g.handleICMP)
	g.s.SetTransportProtocolHandler(icmp.ProtocolNumber6, g.handleICMP)
	g.link.gateway.Store(g)
	port := vswitch.PortConfig{Name: "gateway", MAC: cfg.MAC, Addrs: own, Role: vswitch.Gateway}
	if err := g.link.connect(cfg.Switch, port); err != nil {
		_ = g.Close()
		return nil, err
	}
	return g, nil
}

func (g *Gateway) tune() error {
	sack := tcpip.TCPSACKEnabled(true)
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	rcv := tcpip.TCPReceiveBufferSizeRangeOption{Min: bufferMin, Default: bufferDefault, Max: bufferMax}
	snd := tcpip.TCPSendBufferSizeRangeOption{Min: bufferMin, Default: bufferDefault, Max: bufferMax}
	// TIME_WAIT is there for segments that the network has delayed (RFC 9293, 3.4.1): a switch port delays none. With
	// it a container could not use a port again for a minute where the other side had closed first, as netstack knows
	// no other way to reopen a connection than a listener's.
	wait := tcpip.TCPTimeWaitTimeoutOption(0)
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &moderate, &rcv, &snd, &wait} {
		if err := g.s.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("TCP option: %s", err)
		}
	}
	return nil
}

// SetHandler says who takes what containers send beyond their network.
func (g *Gateway) SetHandler(h Handler) { g.handler.Store(&h) }

// Close ends the gateway and all connections through it.
func (g *Gateway) Close() error {
	g.link.Close()
	g.s.RemoveNIC(nic)
	g.s.Close()
	g.s.Wait()
	return nil
}

// LimitedSYNs is how many SYNs were dropped since their senders had too many connections refused, or not answered.
func (g *Gateway) LimitedSYNs() uint64 { return g.syns.limited.Load() }

// Locks are what has to be watched for hanging.
func (g *Gateway) Locks() []watchdog.Lock {
	return []watchdog.Lock{
		watchdog.RWMutex("gateway's neighbours", &g.neighborMu, 0),
		watchdog.Mutex("gateway's handshakes", &g.syns.mu, 0),
	}
}

// Owns says whether a is one of the gateway's own addresses.
func (g *Gateway) Owns(a netip.Addr) bool { return g.own[a] }

// Contains says whether a is in one of the network's subnets: containers look for it with ARP, not at the gateway.
func (g *Gateway) Contains(a netip.Addr) bool {
	for _, p := range g.subnets {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func protoOf(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

func fullAddr(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFromSlice(a.Addr().AsSlice()), Port: a.Port()}
}

// addressOf is an address as netstack has it.
func addressOf(a netip.Addr) tcpip.Address { return tcpip.AddrFromSlice(a.AsSlice()) }

func addrOf(a tcpip.Address) netip.Addr {
	addr, _ := netip.AddrFromSlice(a.AsSlice())
	return addr
}

// ListenTCP listens inside the network, at one of the gateway's addresses or at any other that containers send there.
func (g *Gateway) ListenTCP(at netip.AddrPort) (net.Listener, error) {
	return gonet.ListenTCP(g.s, fullAddr(at), protoOf(at.Addr()))
}

// ListenUDP does the same for datagrams.
func (g *Gateway) ListenUDP(at netip.AddrPort) (net.PacketConn, error) {
	local := fullAddr(at)
	c, err := gonet.DialUDP(g.s, &local, nil, protoOf(at.Addr()))
	if err != nil {
		return nil, err
	}
	g.neighborMu.Lock()
	defer g.neighborMu.Unlock()
	served := map[netip.AddrPort]struct{}{at: {}}
	maps.Copy(served, *g.served.Load())
	g.served.Store(&served)
	return c, nil
}

// DialTCP connects to a container at dst in the name of src. Port 0 of src is any. The error is EADDRINUSE where a
// connection between the same two ends is still there.
func (g *Gateway) DialTCP(ctx context.Context, src, dst netip.AddrPort) (*Conn, error) {
	var queue waiter.Queue
	ep, terr := g.s.NewEndpoint(tcp.ProtocolNumber, protoOf(dst.Addr()), &queue)
	if terr != nil {
		return nil, &tcpipError{terr}
	}
	entry, writable := waiter.NewChannelEntry(waiter.WritableEvents)
	queue.EventRegister(&entry)
	defer queue.EventUnregister(&entry)
	terr = ep.Bind(fullAddr(src))
	if terr == nil {
		terr = ep.Connect(fullAddr(dst))
	}
	if _, started := terr.(*tcpip.ErrConnectStarted); started {
		select {
		case <-writable:
			terr = ep.LastError()
		case <-ctx.Done():
			ep.Abort()
			return nil, ctx.Err()
		}
	}
	if terr != nil {
		ep.Close()
		if _, inUse := terr.(*tcpip.ErrPortInUse); inUse {
			return nil, unix.EADDRINUSE
		}
		return nil, &tcpipError{terr}
	}
	ep.SocketOptions().SetKeepAlive(true)
	return newConn(&queue, ep), nil
}

// SetDetour has f see each frame for the gateway first; nil: nobody does. It takes those that are not the gateway's,
// and must neither wait nor keep them.
func (g *Gateway) SetDetour(f func(*vswitch.Frame) bool) {
	if f == nil {
		g.link.detour.Store(nil)
		return
	}
	g.link.detour.Store(&f)
}
