package daemon

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	arpproto "gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	vswitch "github.com/usernet/usernet/switch"
	"github.com/usernet/usernet/switch/vmlink/vmlinktest"
)

// vmGuest is a virtual machine without the machine: a program that speaks as qemu's -netdev stream does.
type vmGuest struct {
	t    *testing.T
	conn net.Conn
	mac  net.HardwareAddr
	s    *stack.Stack // once it has an address
}

// startGuest connects to a socket, which a daemon that has just started makes.
func startGuest(t *testing.T, path string, mac net.HardwareAddr) *vmGuest {
	t.Helper()
	g := &vmGuest{t: t, mac: mac}
	eventually(t, "the socket is there", func() bool {
		var err error
		g.conn, err = net.Dial("unix", path)
		return err == nil
	})
	t.Cleanup(func() { _ = g.conn.Close() })
	return g
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func (g *vmGuest) send(frame []byte) error { return vmlinktest.WriteFrame(g.conn, frame) }

func (g *vmGuest) receive() ([]byte, error) {
	return vmlinktest.ReadFrame(g.conn, make([]byte, vswitch.MaxPayload))
}

// next returns the payload of the next frame that want lets pass.
func (g *vmGuest) next(what string, want func(frame []byte) bool) []byte {
	g.t.Helper()
	_ = g.conn.SetReadDeadline(time.Now().Add(patience))
	defer func() { _ = g.conn.SetReadDeadline(time.Time{}) }()
	for {
		frame, err := g.receive()
		if err != nil {
			g.t.Fatalf("%s: %v", what, err)
		}
		if want(frame) {
			return frame[14:]
		}
	}
}

// dhcp asks for an address, as a client that has none does.
func (g *vmGuest) dhcp() *dhcpv4.DHCPv4 {
	g.t.Helper()
	discover, err := dhcpv4.NewDiscovery(g.mac)
	if err != nil {
		g.t.Fatal(err)
	}
	offer := g.exchange(discover)
	request, err := dhcpv4.NewRequestFromOffer(offer)
	if err != nil {
		g.t.Fatal(err)
	}
	return g.exchange(request)
}

func (g *vmGuest) exchange(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	g.t.Helper()
	payload := m.ToBytes()
	b := make([]byte, header.IPv4MinimumSize+header.UDPMinimumSize+len(payload))
	ip, u := header.IPv4(b), header.UDP(b[header.IPv4MinimumSize:])
	ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(b)), TTL: 64, Protocol: 17,
		DstAddr: tcpip.AddrFrom4([4]byte{255, 255, 255, 255})})
	ip.SetChecksum(^ip.CalculateChecksum())
	u.Encode(&header.UDPFields{SrcPort: 68, DstPort: 67, Length: uint16(8 + len(payload))})
	copy(u.Payload(), payload)
	frame := append(append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, g.mac...), 8, 0)
	if err := g.send(append(frame, b...)); err != nil {
		g.t.Fatal(err)
	}
	reply := g.next("DHCP", func(f []byte) bool {
		return len(f) > 42 && f[12] == 8 && f[13] == 0 && f[23] == 17 && f[37] == 68
	})
	parsed, err := dhcpv4.FromBytes(reply[28:])
	if err != nil {
		g.t.Fatal(err)
	}
	return parsed
}

// configure gives the guest a TCP/IP stack with an address, which sends and receives from then on.
func (g *vmGuest) configure(at netip.Prefix, gateway netip.Addr) {
	g.t.Helper()
	link := channel.New(256, 1500, tcpip.LinkAddress(g.mac))
	g.s = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{arpproto.NewProtocol, ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
	})
	own := tcpip.AddressWithPrefix{Address: tcpip.AddrFromSlice(at.Addr().AsSlice()), PrefixLen: at.Bits()}
	if err := g.s.CreateNIC(1, ethernet.New(link)); err != nil {
		g.t.Fatal(err)
	}
	if err := g.s.AddProtocolAddress(1, tcpip.ProtocolAddress{Protocol: header.IPv4ProtocolNumber,
		AddressWithPrefix: own}, stack.AddressProperties{}); err != nil {
		g.t.Fatal(err)
	}
	g.s.SetRouteTable([]tcpip.Route{{Destination: own.Subnet(), NIC: 1},
		{Destination: header.IPv4EmptySubnet, Gateway: tcpip.AddrFromSlice(gateway.AsSlice()), NIC: 1}})
	ctx, cancel := context.WithCancel(context.Background())
	var loops sync.WaitGroup
	loops.Go(func() { // out of the machine
		for p := link.ReadContext(ctx); p != nil; p = link.ReadContext(ctx) {
			_ = g.send(p.ToView().AsSlice())
			p.DecRef()
		}
	})
	loops.Go(func() { // into it
		for {
			frame, err := g.receive()
			if err != nil {
				return
			}
			p := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame)})
			link.InjectInbound(0, p)
			p.DecRef()
		}
	})
	g.t.Cleanup(func() {
		cancel()
		_ = g.conn.Close()
		loops.Wait()
		g.s.Destroy()
	})
}

// serve answers each connection to a port with a text and the client's address.
func (g *vmGuest) serve(at netip.AddrPort) {
	g.t.Helper()
	l, err := gonet.ListenTCP(g.s, tcpip.FullAddress{NIC: 1, Addr: tcpip.AddrFromSlice(at.Addr().AsSlice()),
		Port: at.Port()}, header.IPv4ProtocolNumber)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "from the guest to "+c.RemoteAddr().String())
			_ = c.Close()
		}
	}()
}
