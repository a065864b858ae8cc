package fabric

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/usernet/usernet/internal/packet"
	"github.com/usernet/usernet/overlay"
	vswitch "github.com/usernet/usernet/switch"
)

// routedSide is a host of a routed network, with one container of its subnet 10.9.NUMBER.0/24.
func routedSide(t *testing.T, encap Encap, host overlay.HostID, number byte) *side {
	t.Helper()
	var s *side
	s = newSideAt(t, Config{Host: host, Encap: encap, Listen: netip.MustParseAddrPort("127.0.0.1:0")}, number,
		func(c *NetworkConfig) {
			c.VNI, c.MTU = 1, 1450
			c.Gateways = []netip.Addr{netip.AddrFrom4([4]byte{10, 9, number, 1})}
			c.Routed = &Routed{
				MAC:   routerMAC(number),
				Local: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, number}), 24),
				Find:  func(a netip.Addr) (overlay.MAC, bool) { m, ok := s.sw.Find(a); return m, ok },
			}
		})
	s.guest.ip4 = netip.AddrFrom4([4]byte{10, 9, number, 7})
	if err := s.guest.port.Update(vswitch.PortConfig{
		Name: "c", MAC: s.guest.mac[:], Addrs: []netip.Addr{s.guest.ip4},
	}); err != nil {
		t.Fatal(err)
	}
	return s
}

func routerMAC(number byte) overlay.MAC { return overlay.MAC{2, 0xff, 0, 0, 0, number} }

func (s *side) route() Route {
	return Route{Subnet: s.link.cfg.Routed.Local, Via: s.fabric.Addrs()[0], MAC: s.link.cfg.Routed.MAC}
}

func (s *side) routes(t *testing.T, list ...Route) {
	t.Helper()
	if err := s.link.SetRoutes(list); err != nil {
		t.Fatal(err)
	}
}

// TestRoutedNetworks: a container finds the router by ARP, and packets get to the other's, whole, also where they were
// super-frames.
func TestRoutedNetworks(t *testing.T) {
	for _, encap := range []Encap{VXLAN, BareIP} {
		t.Run(encap.String(), func(t *testing.T) {
			a, b := routedSide(t, encap, hostA, 2), routedSide(t, encap, hostB, 3)
			a.routes(t, b.route())
			b.routes(t, a.route())
			all := overlay.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
			a.guest.port.Receive(frame(all, a.guest.mac, vswitch.EtherTypeARP,
				arp(arpRequest, a.guest.mac, a.guest.ip4, b.guest.ip4)))
			reply := a.guest.await(t, 1)[0]
			if got := overlay.MAC(reply.payload[8:14]); got != a.link.mac {
				t.Fatalf("%v answers for the other subnet, and not the router %v", got, a.link.mac)
			}
			small := tcp4(a.guest.ip4, b.guest.ip4, 1, []byte("hello"))
			a.guest.port.Receive(frame(a.link.mac, a.guest.mac, vswitch.EtherTypeIPv4, bytes.Clone(small)))
			got := b.guest.await(t, 1)[0]
			if !bytes.Equal(got.payload, small) || overlay.MAC(got.eth[:6]) != b.guest.mac ||
				overlay.MAC(got.eth[6:12]) != b.link.mac {
				t.Errorf("got % x, % x", got.eth, got.payload)
			}
			data := pattern(20000)
			a.guest.port.Receive(super(frame(a.link.mac, a.guest.mac, vswitch.EtherTypeIPv4,
				tcp4(a.guest.ip4, b.guest.ip4, 1, data)), 1400))
			var stream []byte
			waitFor(t, "data", func() bool {
				for _, f := range b.guest.take() {
					stream = append(stream, f.payload[packet.IPv4HeaderLen+tcpHeaderLen:]...)
				}
				return len(stream) >= len(data)
			})
			if !bytes.Equal(stream, data) {
				t.Error("the super-frame's data came changed")
			}
			one := frame(a.link.mac, a.guest.mac, vswitch.EtherTypeIPv4, bytes.Clone(small))
			if n := testing.AllocsPerRun(100, func() { _ = a.link.WriteFrame(one) }); n > 0 && !raceEnabled {
				t.Errorf("sending a packet allocates %v times", n)
			}
			// A packet to a subnet that nobody has is refused.
			a.routes(t)
			a.guest.port.Receive(frame(a.link.mac, a.guest.mac, vswitch.EtherTypeIPv4, bytes.Clone(small)))
			refusal := a.guest.await(t, 1)[0].payload
			if h, ok := parseInner(vswitch.EtherTypeIPv4, refusal); !ok || h.proto != packet.ProtoICMP ||
				refusal[h.l4] != 3 || refusal[h.l4+1] != 0 {
				t.Errorf("without a route: % x", refusal)
			}
			if n := a.link.Drops()[DropNoRoute]; n != 1 {
				t.Errorf("%d packets without a route", n)
			}
		})
	}
}

// TestPacketsOfARouterCountOnlyFromItsSubnet is what a hostile node may try.
func TestPacketsOfARouterCountOnlyFromItsSubnet(t *testing.T) {
	a, b := routedSide(t, VXLAN, hostA, 2), routedSide(t, VXLAN, hostB, 3)
	bare := routedSide(t, BareIP, hostC, 4)
	other := netip.MustParsePrefix("10.9.9.0/24")
	third := Route{Subnet: other, Via: netip.MustParseAddrPort("127.0.0.9:9"), MAC: routerMAC(9)}
	a.routes(t, b.route(), third)
	bare.routes(t, b.route(), third)
	ours, theirs, us, them := routerMAC(2), routerMAC(3), a.guest.ip4, b.guest.ip4
	data := udpDatagram([]byte("x"))
	dhcp := udpDatagram([]byte("x"))
	binary.BigEndian.PutUint16(dhcp[2:], 68)
	for _, test := range []struct {
		name     string
		dst, src overlay.MAC
		kind     uint16
		packet   []byte
		want     Reason
	}{
		{"what it may send", ours, theirs, vswitch.EtherTypeIPv4, ipPacket(them, us, 17, data), pass},
		{"from another node's subnet", ours, theirs, vswitch.EtherTypeIPv4,
			ipPacket(other.Addr().Next(), us, 17, data), DropSourceAddr},
		{"from this host's subnet", ours, theirs, vswitch.EtherTypeIPv4,
			ipPacket(us.Next(), us, 17, data), DropSourceAddr},
		{"from outside", ours, theirs, vswitch.EtherTypeIPv4,
			ipPacket(netip.MustParseAddr("8.8.8.8"), us, 17, data), DropSourceAddr},
		{"from another router's MAC", ours, routerMAC(9), vswitch.EtherTypeIPv4, ipPacket(them, us, 17, data),
			DropSourceMAC},
		{"to another MAC", a.guest.mac, theirs, vswitch.EtherTypeIPv4, ipPacket(them, us, 17, data), DropNoPeer},
		{"to all", overlay.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, theirs, vswitch.EtherTypeARP,
			arp(arpRequest, theirs, them, us), DropNoPeer},
		{"ARP", ours, theirs, vswitch.EtherTypeARP, arp(arpRequest, theirs, them, us), DropNoRoute},
		{"to another subnet", ours, theirs, vswitch.EtherTypeIPv4, ipPacket(them, other.Addr().Next(), 17, data),
			DropNoRoute},
		{"to the gateway", ours, theirs, vswitch.EtherTypeIPv4, ipPacket(them, a.link.cfg.Gateways[0], 17, data),
			DropGateway},
		{"to nobody", ours, theirs, vswitch.EtherTypeIPv4, ipPacket(them, us.Next(), 17, data), DropNoPeer},
		{"DHCP", ours, theirs, vswitch.EtherTypeIPv4, ipPacket(them, us, 17, dhcp), DropConfiguration},
		{"half a header", ours, theirs, vswitch.EtherTypeIPv4, ipPacket(them, us, 17, data)[:19], DropMalformed},
		{"a length that is not there", ours, theirs, vswitch.EtherTypeIPv4, ipPacket(them, us, 17, data)[:25],
			DropMalformed},
	} {
		var h inner
		t1 := a.link.table.Load()
		p := t1.routes.find(them).peer
		if _, to, why := a.link.checkRouted(t1, p, ethernet(test.dst, test.src, test.kind, test.packet), &h); why !=
			test.want || why == pass && to != a.guest.mac {
			t.Errorf("%s: %v, want %v", test.name, why, test.want)
		}
	}
	var h inner
	t2 := bare.link.table.Load()
	p := t2.routes.find(them).peer
	for _, test := range []struct {
		packet []byte
		want   Reason
	}{
		{ipPacket(them, bare.guest.ip4, 17, data), pass},
		{ipPacket(other.Addr().Next(), bare.guest.ip4, 17, data), DropSourceAddr},
		{[]byte{0x45}, DropMalformed},
		{icmp6(gateway6, gateway6, 128), DropMalformed},
	} {
		if _, _, why := bare.link.checkRouted(t2, p, test.packet, &h); why != test.want {
			t.Errorf("bare % x: %v, want %v", test.packet, why, test.want)
		}
	}
	if allocated := testing.AllocsPerRun(100, func() {
		_, _, _ = a.link.checkRouted(a.link.table.Load(), a.link.table.Load().routes.find(them).peer,
			ethernetOnce, &h)
	}); allocated > 0 {
		t.Errorf("checking a packet allocates %v times", allocated)
	}
}

var ethernetOnce = ethernet(routerMAC(2), routerMAC(3), vswitch.EtherTypeIPv4,
	ipPacket(netip.MustParseAddr("10.9.3.7"), netip.MustParseAddr("10.9.2.7"), 17, udpDatagram([]byte("x"))))

// TestRoutesThatMakeNoSense are left out, and the longest prefix counts.
func TestRoutesThatMakeNoSense(t *testing.T) {
	a := routedSide(t, VXLAN, hostA, 2)
	via := netip.MustParseAddrPort
	p := netip.MustParsePrefix
	a.routes(t,
		Route{p("10.9.2.0/25"), via("192.0.2.9:1"), routerMAC(9)}, // of this host's own
		Route{p("fd00::/64"), via("192.0.2.9:1"), routerMAC(9)},
		Route{p("10.9.4.0/24"), via("0.0.0.0:1"), routerMAC(4)},
		Route{p("10.9.5.0/24"), via("192.0.2.5:1"), routerMAC(5)},
		Route{p("10.9.5.0/24"), via("192.0.2.6:1"), routerMAC(6)}, // the second of one subnet
		Route{p("10.9.5.128/25"), via("192.0.2.7:1"), routerMAC(7)},
	)
	for address, want := range map[string]overlay.MAC{
		"10.9.2.1": {}, "10.9.4.1": {}, "10.9.5.1": routerMAC(5), "10.9.5.129": routerMAC(7), "10.9.6.1": {},
	} {
		var got overlay.MAC
		if h := a.link.table.Load().routes.find(netip.MustParseAddr(address)); h != nil {
			got = h.mac
		}
		if got != want {
			t.Errorf("%s is behind %v, want %v", address, got, want)
		}
	}
	if err := a.link.SetRoutes(make([]Route, maxRoutes+1)); err == nil {
		t.Error("there is no bound on routes")
	}
	if err := a.link.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.link.SetRoutes(nil); err == nil {
		t.Error("a closed link takes routes")
	}
}
