package engine

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// Addresses of the tests' network.
var (
	gateway = netip.MustParsePrefix("10.9.0.1/24")
	aAddr   = netip.MustParseAddr("10.9.0.2")
	bAddr   = netip.MustParseAddr("10.9.0.3")
)

func macOf(a netip.Addr) net.HardwareAddr {
	b := a.As4()
	return net.HardwareAddr{2, 0x42, b[0], b[1], b[2], b[3]}
}

// newNetwork makes a network for the length of a test.
func newNetwork(t testing.TB, change func(*Config)) *Network {
	t.Helper()
	cfg := Config{Name: "test", Gateways: []netip.Prefix{gateway}, HostLoopback: true}
	if change != nil {
		change(&cfg)
	}
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// guest is a machine on a network: a netstack behind a Pipe.
type guest struct {
	*stack.Stack
	addr netip.Addr
	at   *Attachment
}

// attachGuest starts one at addr.
func attachGuest(t testing.TB, n *Network, addr netip.Addr, change func(*AttachConfig)) *guest {
	t.Helper()
	pipe := NewPipe(256)
	cfg := AttachConfig{ID: addr.String(), Name: "guest-" + addr.String(), MAC: macOf(addr), Addrs: []netip.Addr{addr}}
	if change != nil {
		change(&cfg)
	}
	at, err := n.Attach(cfg, pipe)
	if err != nil {
		t.Fatal(err)
	}
	link := channel.New(256, 1500, tcpip.LinkAddress(macOf(addr)))
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{arp.NewProtocol, ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
	})
	must := func(err tcpip.Error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.CreateNIC(1, ethernet.New(link)))
	must(s.AddProtocolAddress(1, tcpip.ProtocolAddress{
		Protocol:          header.IPv4ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: tcpip.AddrFromSlice(addr.AsSlice()), PrefixLen: 24},
	}, stack.AddressProperties{}))
	subnet := tcpip.AddressWithPrefix{Address: tcpip.AddrFromSlice(addr.AsSlice()), PrefixLen: 24}.Subnet()
	s.SetRouteTable([]tcpip.Route{
		{Destination: subnet, NIC: 1},
		{Destination: header.IPv4EmptySubnet, Gateway: tcpip.AddrFromSlice(gateway.Addr().AsSlice()), NIC: 1},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var loops sync.WaitGroup
	loops.Go(func() { // out of the machine
		for {
			p := link.ReadContext(ctx)
			if p == nil {
				return
			}
			frame := p.ToView().AsSlice()
			err := pipe.Send(ctx, frame)
			p.DecRef()
			if err != nil {
				return
			}
		}
	})
	loops.Go(func() { // into it
		for {
			frame, err := pipe.Receive(ctx)
			if err != nil {
				return
			}
			p := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame)})
			link.InjectInbound(0, p)
			p.DecRef()
		}
	})
	t.Cleanup(func() {
		cancel()
		loops.Wait()
		s.Destroy()
	})
	return &guest{Stack: s, addr: addr, at: at}
}

func fullAddress(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: 1, Addr: tcpip.AddrFromSlice(a.Addr().AsSlice()), Port: a.Port()}
}

// dial connects to an address over TCP.
func (g *guest) dial(t testing.TB, to netip.AddrPort) (net.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return gonet.DialContextTCP(ctx, g.Stack, fullAddress(to), header.IPv4ProtocolNumber)
}

// listen listens on a TCP port.
func (g *guest) listen(t testing.TB, port uint16) net.Listener {
	t.Helper()
	l, err := gonet.ListenTCP(g.Stack, fullAddress(netip.AddrPortFrom(g.addr, port)), header.IPv4ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// patience is how long a test waits for what happens at once on a machine with nothing else to do.
const patience = 30 * time.Second
