package stack

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	vswitch "github.com/usernet/usernet/switch"
)

// linkHost is a netstack on a switch through a linkEndpoint.
type linkHost struct {
	stack *stack.Stack
	link  *linkEndpoint
	addrs []netip.Addr
}

func linkMAC(n byte) net.HardwareAddr { return net.HardwareAddr{2, 0x42, 10, 9, 0, n} }

// newLinkHost makes host n, with addresses 10.9.0.n and fd09::n. A promiscuous one is as the gateway is.
func newLinkHost(t *testing.T, sw *vswitch.Switch, n byte, promiscuous bool) *linkHost {
	t.Helper()
	h := &linkHost{
		stack: stack.New(stack.Options{
			NetworkProtocols:   []stack.NetworkProtocolFactory{arp.NewProtocol, ipv4.NewProtocol, ipv6.NewProtocol},
			TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
		}),
		link:  newLinkEndpoint(tcpip.LinkAddress(linkMAC(n)), 1500),
		addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 9, 0, n}), netip.AddrFrom16([16]byte{0: 0xfd, 1: 9, 15: n})},
	}
	must := func(err tcpip.Error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(h.stack.CreateNIC(1, h.link))
	for i, bits := range []int{24, 64} {
		must(h.stack.AddProtocolAddress(1, tcpip.ProtocolAddress{
			Protocol: linkProto(h.addrs[i]),
			AddressWithPrefix: tcpip.AddressWithPrefix{Address: tcpip.AddrFromSlice(h.addrs[i].AsSlice()),
				PrefixLen: bits},
		}, stack.AddressProperties{}))
	}
	h.stack.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: 1},
		{Destination: header.IPv6EmptySubnet, NIC: 1}})
	if promiscuous {
		must(h.stack.SetPromiscuousMode(1, true))
		must(h.stack.SetSpoofing(1, true))
	}
	role := vswitch.Guest
	if promiscuous {
		role = vswitch.Gateway
	}
	if err := h.link.connect(sw, vswitch.PortConfig{Addrs: h.addrs, Role: role}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.link.Close()
		h.stack.Destroy()
	})
	return h
}

func linkProto(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return header.IPv4ProtocolNumber
	}
	return header.IPv6ProtocolNumber
}

func linkAddr(a netip.Addr, port uint16) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: 1, Addr: tcpip.AddrFromSlice(a.AsSlice()), Port: port}
}

// tapLike is a device that only counts.
type tapLike struct{ frames, super atomic.Int64 }

func (d *tapLike) WriteFrame(f *vswitch.Frame) error {
	d.frames.Add(1)
	if f.Virtio().GSO != vswitch.GSONone {
		d.super.Add(1)
	}
	return nil
}

func TestLinkCarriesStreamsAsSuperFrames(t *testing.T) {
	for i, family := range []string{"IPv4", "IPv6"} {
		t.Run(family, func(t *testing.T) {
			sw := vswitch.New(vswitch.Config{MTU: 1500})
			gw, host := newLinkHost(t, sw, 1, true), newLinkHost(t, sw, 2, false)
			l, err := gonet.ListenTCP(host.stack, linkAddr(host.addrs[i], 80), linkProto(host.addrs[i]))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			c, err := gonet.DialContextTCP(ctx, gw.stack, linkAddr(host.addrs[i], 80), linkProto(host.addrs[i]))
			if err != nil {
				t.Fatal(err)
			}
			data := make([]byte, 16<<20)
			_, _ = rand.NewChaCha8([32]byte{1}).Read(data) // it never fails
			sent := make(chan error, 1)
			go func() {
				if _, err := c.Write(data); err != nil {
					sent <- err
					return
				}
				sent <- c.Close()
			}()
			peer, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(peer)
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%d bytes arrived, or others than the %d that were sent (%v)", len(got), len(data), err)
			}
			if err := <-sent; err != nil {
				t.Error(err)
			}
			stats := sw.Ports()[0].Stats // the gateway's
			if mean := stats.BytesIn / stats.FramesIn; mean < 4000 {
				t.Errorf("frames of %d bytes on average: netstack hands over no super-frames", mean)
			}
			for _, p := range sw.Ports() {
				if len(p.Stats.Drops) > 0 {
					t.Errorf("port %v dropped %v", p.MAC, p.Stats.Drops)
				}
			}
		})
	}
}

func TestGatewayAnswersAddressResolutionForItselfOnly(t *testing.T) {
	request := func(sender, target netip.Addr) (uint16, []byte) {
		p := header.ARP(make([]byte, header.ARPSize))
		p.SetIPv4OverEthernet()
		p.SetOp(header.ARPRequest)
		copy(p.HardwareAddressSender(), linkMAC(7))
		copy(p.ProtocolAddressSender(), sender.AsSlice())
		copy(p.ProtocolAddressTarget(), target.AsSlice())
		return vswitch.EtherTypeARP, p
	}
	solicit := func(sender, target netip.Addr) (uint16, []byte) {
		return vswitch.EtherTypeIPv6, solicitation(sender, target)
	}
	behindOptions := func(sender, target netip.Addr) (uint16, []byte) {
		p := solicitation(sender, target)
		q := append(append(append([]byte(nil), p[:40]...), p[6], 0, 1, 4, 0, 0, 0, 0), p[40:]...)
		q[6] = 60
		binary.BigEndian.PutUint16(q[4:], uint16(len(q)-40))
		return vswitch.EtherTypeIPv6, q
	}
	addr := netip.MustParseAddr
	for _, tc := range []struct {
		name           string
		make           func(sender, target netip.Addr) (uint16, []byte)
		sender, target netip.Addr
		want           bool
	}{
		{"ARP for the gateway", request, addr("10.9.0.7"), addr("10.9.0.1"), true},
		{"ARP for another container", request, addr("10.9.0.7"), addr("10.9.0.3"), false},
		{"ARP probe", request, addr("0.0.0.0"), addr("10.9.0.7"), false},
		{"gratuitous ARP", request, addr("10.9.0.7"), addr("10.9.0.7"), false},
		{"solicitation for the gateway", solicit, addr("fd09::7"), addr("fd09::1"), true},
		{"solicitation for another container", solicit, addr("fd09::7"), addr("fd09::3"), false},
		{"duplicate address detection", solicit, addr("::"), addr("fd09::7"), false},
		{"solicitation for another container behind options", behindOptions, addr("fd09::7"), addr("fd09::3"), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sw := vswitch.New(vswitch.Config{})
			newLinkHost(t, sw, 1, true)
			dev := new(tapLike)
			port, err := sw.Connect(vswitch.PortConfig{
				MAC: linkMAC(7), Addrs: []netip.Addr{addr("10.9.0.7"), addr("fd09::7")},
			}, dev)
			if err != nil {
				t.Fatal(err)
			}
			etherType, p := tc.make(tc.sender, tc.target)
			send := func() { port.Receive(linkFrame(header.EthernetBroadcastAddress, linkMAC(7), etherType, p)) }
			before := dev.frames.Load()
			send()
			// Netstack answers on the goroutine that asks, or after it has asked back who asks.
			deadline := time.Now().Add(30 * time.Second)
			for tc.want && dev.frames.Load() == before {
				if time.Now().After(deadline) {
					t.Fatalf("no answer; the guard dropped %v", port.Stats().Drops)
				}
				time.Sleep(time.Millisecond)
			}
			if !tc.want && dev.frames.Load() != before {
				t.Error("netstack answered")
			}
			if drops := port.Stats().Drops; len(drops) > 0 {
				t.Errorf("the guard dropped it: %v", drops)
			}
		})
	}
}

// solicitation is a neighbour solicitation with the asker's MAC, as hosts send it.
func solicitation(sender, target netip.Addr) []byte {
	var opts []byte
	if !sender.IsUnspecified() {
		opts = append([]byte{1, 1}, linkMAC(7)...)
	}
	src := tcpip.AddrFromSlice(sender.AsSlice())
	dst := header.SolicitedNodeAddr(tcpip.AddrFromSlice(target.AsSlice()))
	n := header.ICMPv6NeighborSolicitMinimumSize + len(opts)
	p := make([]byte, header.IPv6MinimumSize+n)
	header.IPv6(p).Encode(&header.IPv6Fields{PayloadLength: uint16(n), TransportProtocol: header.ICMPv6ProtocolNumber,
		HopLimit: 255, SrcAddr: src, DstAddr: dst})
	m := header.ICMPv6(p[header.IPv6MinimumSize:])
	m.SetType(header.ICMPv6NeighborSolicit)
	copy(m[8:], target.AsSlice())
	copy(m[24:], opts)
	m.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: m, Src: src, Dst: dst}))
	return p
}

func linkFrame(dst tcpip.LinkAddress, src net.HardwareAddr, etherType uint16, payload []byte) *vswitch.Frame {
	f := new(vswitch.Frame)
	copy(f.Ethernet(), dst)
	copy(f.Ethernet()[6:], src)
	binary.BigEndian.PutUint16(f.Ethernet()[12:], etherType)
	f.Fill(copy(f.Buffer(), payload))
	return f
}

func TestDatagramSuperFrameReachesNetstackAsDatagrams(t *testing.T) {
	sw := vswitch.New(vswitch.Config{MTU: 1500})
	gw := newLinkHost(t, sw, 1, true)
	port, err := sw.Connect(vswitch.PortConfig{MAC: linkMAC(7), Addrs: []netip.Addr{netip.MustParseAddr("10.9.0.7")}},
		new(tapLike))
	if err != nil {
		t.Fatal(err)
	}
	at := linkAddr(gw.addrs[0], 53)
	c, err := gonet.DialUDP(gw.stack, &at, nil, header.IPv4ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	const size, count = 100, 7
	p := make([]byte, header.IPv4MinimumSize+header.UDPMinimumSize+size*count)
	header.IPv4(p).Encode(&header.IPv4Fields{
		TotalLength: uint16(len(p)), TTL: 64, Protocol: uint8(header.UDPProtocolNumber),
		SrcAddr: tcpip.AddrFrom4([4]byte{10, 9, 0, 7}), DstAddr: tcpip.AddrFrom4([4]byte{10, 9, 0, 1}),
	})
	header.UDP(p[20:]).Encode(&header.UDPFields{SrcPort: 1000, DstPort: 53, Length: uint16(len(p) - 20)})
	for i := range size * count {
		p[28+i] = byte(i / size)
	}
	f := linkFrame(tcpip.LinkAddress(linkMAC(1)), linkMAC(7), vswitch.EtherTypeIPv4, p)
	f.PutVirtio(vswitch.Virtio{NeedsChecksum: true, GSO: vswitch.GSOUDP, GSOSize: size, ChecksumStart: 34,
		ChecksumOffset: 6})
	port.Receive(f)
	if err := c.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2000)
	for i := range count {
		n, _, err := c.ReadFrom(buf)
		if err != nil || n != size || bytes.Count(buf[:n], []byte{byte(i)}) != size {
			t.Fatalf("datagram %d: %d bytes, or others than were sent (%v); drops %v", i, n, err, port.Stats().Drops)
		}
	}
}

func TestClosedLinkMovesNothing(t *testing.T) {
	sw := vswitch.New(vswitch.Config{})
	h := newLinkHost(t, sw, 1, true)
	h.link.Close()
	h.link.Close()
	if n := len(sw.Ports()); n != 0 {
		t.Errorf("%d ports are left after Close", n)
	}
	if n, err := h.link.WritePackets(stack.PacketBufferList{}); n != 0 || err == nil {
		t.Errorf("WritePackets on a closed link returned %d, %v", n, err)
	}
	h.stack.RemoveNIC(1)
	if err := h.link.WriteFrame(linkFrame(tcpip.LinkAddress(linkMAC(1)), linkMAC(7), vswitch.EtherTypeIPv4,
		nil)); err == nil {
		t.Error("a frame was taken without a NIC")
	}
}

func FuzzLinkFilter(f *testing.F) {
	f.Add(uint16(vswitch.EtherTypeIPv6), solicitation(netip.MustParseAddr("fd09::7"), netip.MustParseAddr("fd09::3")))
	f.Add(uint16(vswitch.EtherTypeARP), make([]byte, 28))
	own := newOwnAddresses(tcpip.LinkAddress(linkMAC(1)),
		[]netip.Addr{netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("fd09::1")})
	f.Fuzz(func(_ *testing.T, etherType uint16, p []byte) {
		if len(p) <= vswitch.MaxPayload {
			own.wants(linkFrame(header.EthernetBroadcastAddress, linkMAC(7), etherType, p))
		}
	})
}

// TestAProxyAnswersForAllButOthers: the gateway of a namespace that looks like the host stands for everybody on its
// link except the namespace itself, and for nobody's link-local address but its own.
func TestAProxyAnswersForAllButOthers(t *testing.T) {
	own := newOwnAddresses(tcpip.LinkAddress(linkMAC(1)),
		[]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fe80::1")})
	own.answerAllBut([]netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")})
	for addr, want := range map[string]bool{
		"192.0.2.1": true, "192.0.2.2": false, "192.0.2.99": true, "0.0.0.0": false,
		"2001:db8::1": true, "2001:db8::2": false, "fe80::1": true, "fe80::2": false,
	} {
		a := netip.MustParseAddr(addr)
		got := a.Is4() && own.answers4(a.As4()) || a.Is6() && own.answers6(a.As16())
		if got != want {
			t.Errorf("%s is answered for: %v, want %v", addr, got, want)
		}
	}
}
