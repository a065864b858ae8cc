package vswitch

import (
	"net"
	"net/netip"
	"testing"

	"github.com/usernet/usernet/internal/packet"
)

// The attacker is station 2, its victim station 3, the gateway station 1.
var (
	me, victim, gateway    = mac(2), mac(3), mac(1)
	me4, victim4, gateway4 = ip4(2), ip4(3), ip4(1)
	me6, victim6, gateway6 = ip6(2), ip6(3), ip6(1)
	zero4, zero6           = netip.IPv4Unspecified(), netip.IPv6Unspecified()
	allNodes               = netip.MustParseAddr("ff02::1")
	allNodesMAC            = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
)

type guardCase struct {
	name  string
	frame *Frame
	want  Reason
}

func guardCases() []guardCase {
	echo4 := []byte{8, 0, 0, 0, 0, 0, 0, 0}
	echo6 := []byte{128, 0, 0, 0, 0, 0, 0, 0}
	v4 := func(p []byte) *Frame { return frame(victim, me, EtherTypeIPv4, p) }
	v6 := func(p []byte) *Frame { return frame(victim, me, EtherTypeIPv6, p) }
	icmp6 := func(src netip.Addr, p []byte) *Frame { return v6(ipPacket(src, allNodes, packet.ProtoICMPv6, p)) }
	cut := func(f *Frame, n int) *Frame { f.Fill(n); return f }
	return []guardCase{
		// What honest containers send.
		{"own IPv4", v4(ipPacket(me4, victim4, packet.ProtoICMP, echo4)), verdictPass},
		{"own IPv6", v6(ipPacket(me6, victim6, packet.ProtoICMPv6, echo6)), verdictPass},
		{"link-local from the MAC", v6(ipPacket(LinkLocal(me), victim6, packet.ProtoICMPv6, echo6)), verdictPass},
		{"padded to Ethernet's minimum",
			v4(append(ipPacket(me4, victim4, packet.ProtoICMP, echo4), make([]byte, 18)...)), verdictPass},
		{"unknown EtherType", frame(broadcast, me, 0x88b5, []byte("hello")), verdictPass},
		{"IEEE 802.3 length", frame(broadcast, me, 5, []byte("hello")), verdictPass},
		{"empty payload of an unknown EtherType", frame(broadcast, me, 0x88b5, nil), verdictPass},
		{"ARP request", frame(broadcast, me, EtherTypeARP, arp(1, me, me4, victim4)), verdictPass},
		{"ARP reply", frame(victim, me, EtherTypeARP, arp(2, me, me4, victim4)), verdictPass},
		{"ARP probe", frame(broadcast, me, EtherTypeARP, arp(1, me, zero4, me4)), verdictPass},
		{"gratuitous ARP", frame(broadcast, me, EtherTypeARP, arp(1, me, me4, me4)), verdictPass},
		{"neighbour solicitation", icmp6(me6, nd(135, victim6, linkOpt(1, me))), verdictPass},
		{"neighbour advertisement", icmp6(me6, nd(136, me6, linkOpt(2, me))), verdictPass},
		{"duplicate address detection", icmp6(zero6, nd(135, me6)), verdictPass},
		{"duplicate address detection with a nonce",
			icmp6(zero6, nd(135, LinkLocal(me), []byte{14, 1, 1, 2, 3, 4, 5, 6})), verdictPass},
		{"router solicitation", icmp6(LinkLocal(me), nd(133, netip.Addr{}, linkOpt(1, me))), verdictPass},
		{"router solicitation from ::", icmp6(zero6, nd(133, netip.Addr{})), verdictPass},
		{"MLDv2 report", v6(ipPacket(LinkLocal(me), allNodes, packet.ProtoHopByHop,
			extension(packet.ProtoICMPv6, [6]byte{5, 2}, []byte{143, 0, 0, 0, 0, 0, 0, 0}))), verdictPass},
		{"MLDv2 report from ::", v6(ipPacket(zero6, allNodes, packet.ProtoHopByHop,
			extension(packet.ProtoICMPv6, [6]byte{5, 2}, []byte{143, 0, 0, 0, 0, 0, 0, 0}))), verdictPass},
		{"IGMP report with router alert",
			v4(withOptions(ipPacket(me4, victim4, packet.ProtoIGMP, make([]byte, 8)), []byte{148, 4, 0, 0})),
			verdictPass},
		{"IGMP report before an address",
			v4(withOptions(ipPacket(zero4, victim4, packet.ProtoIGMP, make([]byte, 8)), []byte{148, 4, 0, 0})),
			verdictPass},
		{"DHCP client before an address",
			frame(broadcast, me, EtherTypeIPv4,
				ipPacket(zero4, netip.AddrFrom4([4]byte{255, 255, 255, 255}), packet.ProtoUDP,
					udp(68, 67, make([]byte, 240)))), verdictPass},
		{"DHCPv6 client", v6(ipPacket(LinkLocal(me), allNodes, packet.ProtoUDP, udp(546, 547, nil))), verdictPass},
		{"destination options", v6(ipPacket(me6, victim6, packet.ProtoDstOpts,
			extension(packet.ProtoUDP, [6]byte{1, 4}, udp(1, 2, nil)))), verdictPass},
		{"first fragment", v4(fragment4(ipPacket(me4, victim4, packet.ProtoUDP, udp(1, 2, make([]byte, 16))), 0, true)),
			verdictPass},
		{"last fragment of another datagram",
			v6(ipPacket(me6, victim6, packet.ProtoFragment, fragment6(packet.ProtoUDP, 800, false, make([]byte, 5)))),
			verdictPass},
		{"atomic fragment", v6(ipPacket(me6, victim6, packet.ProtoFragment,
			fragment6(packet.ProtoUDP, 0, false, udp(1, 2, nil)))), verdictPass},

		// Layer 2.
		{"somebody else's MAC", frame(victim, gateway, 0x88b5, nil), DropMAC},
		{"nobody's MAC", frame(victim, mac(99), 0x88b5, nil), DropMAC},
		{"multicast source", frame(victim, allNodesMAC, 0x88b5, nil), DropMulticast},
		{"broadcast source", frame(victim, broadcast, 0x88b5, nil), DropMulticast},
		{"spanning tree", frame(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 0}, me, 38, make([]byte, 38)), DropReserved},
		{"pause", frame(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 1}, me, 0x8808, make([]byte, 46)), DropReserved},
		{"LLDP", frame(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 0xe}, me, 0x88cc, make([]byte, 46)), DropReserved},
		{"VLAN tag", frame(victim, me, 0x8100,
			append([]byte{0, 1, 8, 0}, ipPacket(victim4, gateway4, packet.ProtoICMP, echo4)...)), DropVLAN},
		{"double tag", frame(victim, me, 0x88a8,
			append([]byte{0, 1, 0x81, 0, 0, 2, 8, 0}, ipPacket(victim4, gateway4, packet.ProtoICMP, echo4)...)),
			DropVLAN},

		// ARP.
		{"ARP reply for the gateway", frame(victim, me, EtherTypeARP, arp(2, me, gateway4, victim4)), DropARP},
		{"ARP request as the gateway", frame(broadcast, me, EtherTypeARP, arp(1, me, gateway4, victim4)), DropARP},
		{"ARP with the gateway's MAC inside", frame(victim, me, EtherTypeARP, arp(2, gateway, me4, victim4)), DropARP},
		{"ARP reply from 0.0.0.0", frame(victim, me, EtherTypeARP, arp(2, me, zero4, victim4)), DropARP},
		{"ARP operation that nobody needs", frame(victim, me, EtherTypeARP, arp(3, me, me4, victim4)), DropARP},
		{"ARP cut short", frame(victim, me, EtherTypeARP, arp(1, me, me4, victim4)[:27]), DropMalformed},

		// IPv4.
		{"somebody else's IPv4", v4(ipPacket(victim4, gateway4, packet.ProtoICMP, echo4)), DropIPv4},
		{"IPv4 from 0.0.0.0", v4(ipPacket(zero4, gateway4, packet.ProtoICMP, echo4)), DropIPv4},
		{"DHCP from 0.0.0.0 the wrong way", v4(ipPacket(zero4, gateway4, packet.ProtoUDP, udp(67, 68, nil))), DropIPv4},
		{"DHCP server", frame(broadcast, me, EtherTypeIPv4, ipPacket(me4, victim4, packet.ProtoUDP, udp(67, 68, nil))),
			DropDHCP},
		{"ICMP redirect", v4(ipPacket(me4, victim4, packet.ProtoICMP, []byte{5, 1, 0, 0, 0, 0, 0, 0})), DropRedirect},
		{"source route", v4(withOptions(ipPacket(me4, victim4, packet.ProtoICMP, echo4),
			[]byte{131, 7, 4, 172, 18, 0, 3, 0})), DropOptions},
		{"source route behind a no-op",
			v4(withOptions(ipPacket(me4, victim4, packet.ProtoICMP, echo4), []byte{1, 137, 7, 4, 172, 18, 0, 3})),
			DropOptions},
		{"record route", v4(withOptions(ipPacket(me4, victim4, packet.ProtoICMP, echo4),
			[]byte{7, 7, 4, 0, 0, 0, 0, 0})), DropOptions},
		{"IPv4 cut short", cut(v4(ipPacket(me4, victim4, packet.ProtoICMP, echo4)), 19), DropMalformed},
		{"IPv4 shorter than it says", cut(v4(ipPacket(me4, victim4, packet.ProtoICMP, echo4)), 24), DropMalformed},
		{"IPv4 header longer than the packet",
			v4([]byte{0x4f, 0, 0, 20, 0, 0, 0, 0, 64, 1, 0, 0, 172, 18, 0, 2, 172, 18, 0, 3}), DropMalformed},
		{"IPv6 by IPv4's EtherType", v4(ipPacket(me6, victim6, packet.ProtoICMPv6, echo6)), DropMalformed},
		{"empty IPv4", v4(nil), DropMalformed},
		{"tiny first fragment", v4(fragment4(ipPacket(me4, victim4, packet.ProtoTCP, make([]byte, 8)), 0, true)),
			DropFragment},
		{"fragment past the end of the largest packet",
			v4(fragment4(ipPacket(me4, victim4, packet.ProtoUDP, make([]byte, 64)), 65528, false)), DropFragment},

		// IPv6.
		{"somebody else's IPv6", v6(ipPacket(victim6, gateway6, packet.ProtoICMPv6, echo6)), DropIPv6},
		{"somebody else's link-local", v6(ipPacket(LinkLocal(victim), gateway6, packet.ProtoICMPv6, echo6)), DropIPv6},
		{"IPv6 from ::", icmp6(zero6, echo6), DropIPv6},
		{"UDP from ::", v6(ipPacket(zero6, victim6, packet.ProtoUDP, udp(1, 2, nil))), DropIPv6},
		{"DHCPv6 server", v6(ipPacket(me6, victim6, packet.ProtoUDP, udp(547, 546, nil))), DropDHCP},
		{"DHCPv6 server behind options",
			v6(ipPacket(me6, victim6, packet.ProtoDstOpts,
				extension(packet.ProtoUDP, [6]byte{1, 4}, udp(547, 546, nil)))), DropDHCP},
		{"routing header", v6(ipPacket(me6, victim6, packet.ProtoRouting,
			extension(packet.ProtoUDP, [6]byte{0, 1}, udp(1, 2, nil)))), DropOptions},
		{"IPv6 cut short", cut(v6(ipPacket(me6, victim6, packet.ProtoICMPv6, echo6)), 39), DropMalformed},
		{"IPv6 shorter than it says", cut(v6(ipPacket(me6, victim6, packet.ProtoICMPv6, echo6)), 44), DropMalformed},
		{"endless extension headers", v6(ipPacket(me6, victim6, packet.ProtoDstOpts, extensions(9))), DropMalformed},
		{"first fragment without all headers",
			v6(ipPacket(me6, victim6, packet.ProtoFragment, fragment6(packet.ProtoTCP, 0, true, make([]byte, 8)))),
			DropFragment},

		// Neighbour discovery.
		{"router advertisement", icmp6(LinkLocal(me), nd(134, netip.Addr{}, make([]byte, 8))), DropRouter},
		{"router advertisement behind options",
			v6(ipPacket(LinkLocal(me), allNodes, packet.ProtoDstOpts,
				extension(packet.ProtoICMPv6, [6]byte{1, 4}, nd(134, netip.Addr{}, make([]byte, 8))))), DropRouter},
		{"router advertisement in a fragment",
			v6(ipPacket(LinkLocal(me), allNodes, packet.ProtoFragment,
				fragment6(packet.ProtoICMPv6, 0, true, nd(134, netip.Addr{}, make([]byte, 8))))), DropRouter},
		{"redirect", icmp6(LinkLocal(me), nd(137, victim6, make([]byte, 16))), DropRedirect},
		{"advertisement for the victim", icmp6(me6, nd(136, victim6, linkOpt(2, me))), DropNeighbour},
		{"advertisement with another MAC", icmp6(me6, nd(136, me6, linkOpt(2, victim))), DropNeighbour},
		{"advertisement with another MAC in a second option",
			icmp6(me6, nd(136, me6, linkOpt(2, me), linkOpt(2, victim))), DropNeighbour},
		{"solicitation with another MAC", icmp6(me6, nd(135, victim6, linkOpt(1, gateway))), DropNeighbour},
		{"duplicate detection of the victim's address", icmp6(zero6, nd(135, victim6)), DropNeighbour},
		{"solicitation from :: with a MAC", icmp6(zero6, nd(135, me6, linkOpt(1, me))), DropNeighbour},
		{"advertisement in a fragment",
			v6(ipPacket(me6, allNodes, packet.ProtoFragment,
				fragment6(packet.ProtoICMPv6, 0, true, nd(136, victim6, linkOpt(2, me))))), DropFragment},
		{"advertisement cut short", icmp6(me6, nd(136, me6)[:20]), DropMalformed},
		{"option of length 0", icmp6(me6, nd(136, me6, make([]byte, 8))), DropMalformed},
		{"option longer than the message", icmp6(me6, nd(136, me6, []byte{2, 2, 0, 0, 0, 0, 0, 0})), DropMalformed},
		{"empty ICMPv6", icmp6(me6, nil), DropMalformed},
	}
}

// extensions makes n destination options headers in a row.
func extensions(n int) []byte {
	p := udp(1, 2, nil)
	for i := range n {
		next := byte(packet.ProtoDstOpts)
		if i == 0 {
			next = packet.ProtoUDP
		}
		p = extension(next, [6]byte{1, 4}, p)
	}
	return p
}

func TestGuardLetsContainersSpeakForThemselvesOnly(t *testing.T) {
	for _, c := range guardCases() {
		t.Run(c.name, func(t *testing.T) {
			sw := New(Config{})
			_, gatewayDev := connect(t, sw, PortConfig{MAC: gateway, Role: Gateway})
			port, _ := connect(t, sw, guarded(2))
			_, victimDev := connect(t, sw, guarded(3))
			port.Receive(c.frame)
			drops, reached := port.Stats().Drops, gatewayDev.got()+victimDev.got() > 0
			switch {
			case c.want == verdictPass && (len(drops) > 0 || !reached):
				t.Errorf("dropped (%v), want it to pass", drops)
			case c.want != verdictPass && (len(drops) != 1 || drops[c.want] != 1):
				t.Errorf("counted %v, want one drop for %v", drops, c.want)
			case c.want != verdictPass && reached:
				t.Errorf("counted as %v, and delivered", c.want)
			}
		})
	}
}

func TestOverlappingFragmentsAreDropped(t *testing.T) {
	type piece struct {
		offset, size int
		more         bool
		want         Reason
	}
	for name, pieces := range map[string][]piece{
		"in order": {{0, 64, true, verdictPass}, {64, 64, true, verdictPass},
			{128, 10, false, verdictPass}},
		"in reverse": {{128, 10, false, verdictPass}, {64, 64, true, verdictPass},
			{0, 64, true, verdictPass}},
		"identification reused": {{0, 64, true, verdictPass}, {64, 10, false, verdictPass},
			{0, 64, true, verdictPass}, {64, 10, false, verdictPass}},
		"twice the same":  {{0, 64, true, verdictPass}, {0, 64, true, DropFragment}},
		"over the header": {{0, 64, true, verdictPass}, {8, 64, true, DropFragment}},
		"over the seam": {{0, 64, true, verdictPass}, {64, 64, true, verdictPass},
			{56, 16, true, DropFragment}},
		"past the end": {{0, 64, true, verdictPass}, {128, 8, false, verdictPass},
			{136, 8, true, DropFragment}},
		"two ends": {{0, 64, true, verdictPass}, {128, 8, false, verdictPass},
			{72, 8, false, DropFragment}},
		"end before what passed":   {{64, 64, true, verdictPass}, {8, 8, false, DropFragment}},
		"length not in units of 8": {{0, 63, true, DropFragment}},
		"too many holes": {
			{0, 8, true, verdictPass}, {16, 8, true, verdictPass}, {32, 8, true, verdictPass},
			{48, 8, true, verdictPass}, {64, 8, true, verdictPass},
			{80, 8, true, verdictPass}, {96, 8, true, verdictPass}, {112, 8, true, verdictPass},
			{128, 8, true, DropFragment},
		},
	} {
		for family, make := range map[string]func(piece) *Frame{
			"IPv4": func(c piece) *Frame {
				return frame(victim, me, EtherTypeIPv4,
					fragment4(ipPacket(me4, victim4, packet.ProtoUDP, make([]byte, c.size)), c.offset, c.more))
			},
			"IPv6": func(c piece) *Frame {
				return frame(victim, me, EtherTypeIPv6,
					ipPacket(me6, victim6, packet.ProtoFragment,
						fragment6(packet.ProtoUDP, c.offset, c.more, make([]byte, c.size))))
			},
		} {
			t.Run(name+" "+family, func(t *testing.T) {
				sw := New(Config{})
				port, _ := connect(t, sw, guarded(2))
				_, dev := connect(t, sw, guarded(3))
				for i, c := range pieces {
					before := dev.got()
					port.Receive(make(c))
					if got := dev.got() > before; got != (c.want == verdictPass) {
						t.Fatalf("fragment %d: passed is %v, want %v (%v)", i, got, !got, port.Stats().Drops)
					}
				}
			})
		}
	}
}

func TestManyFragmentedDatagramsAreFollowedInBoundedMemory(t *testing.T) {
	sw := New(Config{})
	port, _ := connect(t, sw, guarded(2))
	_, dev := connect(t, sw, guarded(3))
	for i := range 10 * maxDatagrams {
		p := fragment4(ipPacket(me4, victim4, packet.ProtoUDP, make([]byte, 64)), 0, true)
		p[4], p[5] = byte(i>>8), byte(i)
		port.Receive(frame(victim, me, EtherTypeIPv4, p))
	}
	if got := dev.got(); got != 10*maxDatagrams {
		t.Errorf("%d of %d first fragments passed", got, 10*maxDatagrams)
	}
}
