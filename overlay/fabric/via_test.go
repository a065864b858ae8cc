package fabric

import (
	"net/netip"
	"testing"

	"github.com/usernet/usernet/overlay"
	vswitch "github.com/usernet/usernet/switch"
)

// TestFramesOfGatewaysCountOnlyWhereASubnetIsExposed is what a hostile host may try where this one exposes a subnet, or
// takes one that another exposes.
func TestFramesOfGatewaysCountOnlyWhereASubnetIsExposed(t *testing.T) {
	a, b, c := newSide(t, hostA, 2), newSide(t, hostB, 3), newSide(t, hostC, 4)
	meet(t, a, b, c)
	a.link.SetVia([]netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, []Via{
		{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Host: hostB},
		{Prefix: netip.MustParsePrefix("203.0.113.128/25"), Host: hostC},
		{Prefix: netip.MustParsePrefix("192.0.2.0/25"), Host: hostB, Down: true},
	})
	pb := a.fabric.hosts[hostB]
	me, own, other := a.guest, b.guest, c.guest
	gate, all := overlay.MAC(gatewayMAC), overlay.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	at := netip.MustParseAddr
	data := udpDatagram([]byte("x"))
	const ip4 = vswitch.EtherTypeIPv4
	for _, test := range []struct {
		name  string
		frame []byte
		want  Reason
	}{
		{"an answer from behind it", ethernet(me.mac, gate, ip4, ipPacket(at("203.0.113.7"), me.ip4, 17, data)), pass},
		{"from behind another host", ethernet(me.mac, gate, ip4, ipPacket(at("203.0.113.200"), me.ip4, 17, data)),
			DropGateway},
		{"from behind a host that is down", ethernet(me.mac, gate, ip4, ipPacket(at("192.0.2.1"), me.ip4, 17, data)),
			DropGateway},
		{"from elsewhere", ethernet(me.mac, gate, ip4, ipPacket(at("8.8.8.8"), me.ip4, 17, data)), DropGateway},
		{"as a container", ethernet(me.mac, gate, ip4, ipPacket(own.ip4, me.ip4, 17, data)), DropGateway},
		{"as the gateway", ethernet(me.mac, gate, ip4, ipPacket(gatewayAddr, me.ip4, 17, data)), DropGateway},
		{"to all", ethernet(all, gate, ip4, ipPacket(at("203.0.113.7"), me.ip4, 17, data)), DropGateway},
		{"ARP", ethernet(me.mac, gate, vswitch.EtherTypeARP, arp(2, gate, gatewayAddr, me.ip4)), DropGateway},
		{"from gateway to gateway",
			ethernet(gate, gate, ip4, ipPacket(at("203.0.113.7"), at("198.51.100.7"), 17, data)), DropGateway},
		{"a container's to elsewhere", ethernet(gate, own.mac, ip4, ipPacket(own.ip4, at("8.8.8.8"), 17, data)),
			DropGateway},
		{"a container's to the gateway", ethernet(gate, own.mac, ip4, ipPacket(own.ip4, gatewayAddr, 17, data)),
			DropGateway},
		{"a container's to another host's subnet",
			ethernet(gate, own.mac, ip4, ipPacket(own.ip4, at("203.0.113.200"), 17, data)), DropGateway},
		{"in another host's name", ethernet(gate, other.mac, ip4, ipPacket(other.ip4, at("198.51.100.7"), 17, data)),
			DropSourceMAC},
		{"from another address", ethernet(gate, own.mac, ip4, ipPacket(other.ip4, at("198.51.100.7"), 17, data)),
			DropSourceAddr},
		{"a packet that is cut", ethernet(gate, own.mac, ip4, ipPacket(own.ip4, at("198.51.100.7"), 17, data)[:24]),
			DropMalformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := a.link.Drops()
			var j joiner
			j.deliver(a.link, pb, test.frame, 0)
			j.flush()
			got, after := me.take(), a.link.Drops()
			if test.want == pass {
				if len(got) != 1 {
					t.Errorf("%d frames came in, drops %v", len(got), after)
				}
				return
			}
			if len(got) != 0 || after[test.want] != before[test.want]+1 {
				t.Errorf("%d frames came in; drops were %v and are %v", len(got), before, after)
			}
		})
	}
}

func TestWhatGoesByWayOfAnotherHost(t *testing.T) {
	a, b := newSide(t, hostA, 2), newSide(t, hostB, 3)
	meet(t, a, b)
	gate := overlay.MAC(gatewayMAC)
	data := udpDatagram([]byte("x"))
	to := func(dst string) *vswitch.Frame {
		p := ipPacket(a.guest.ip4, netip.MustParseAddr(dst), 17, data)
		return frame(gate, a.guest.mac, vswitch.EtherTypeIPv4, p)
	}
	var asked []netip.AddrPort
	answer := true
	allow := func(_ netip.Addr, _ uint8, dst netip.AddrPort) bool { asked = append(asked, dst); return answer }
	if a.link.SendVia(to("203.0.113.7"), allow) {
		t.Error("it went where no subnet is")
	}
	a.link.SetVia(nil, []Via{{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Host: hostB},
		{Prefix: netip.MustParsePrefix("2001:db8::/32"), Host: hostB}})
	if a.link.SendVia(to("8.8.8.8"), allow) || len(asked) > 0 {
		t.Error("it went elsewhere")
	}
	if !a.link.SendVia(to("203.0.113.7"), allow) || len(asked) != 1 || asked[0].Addr().String() != "203.0.113.7" {
		t.Errorf("it did not go: %v", asked)
	}
	answer = false
	if a.link.SendVia(to("203.0.113.7"), allow) {
		t.Error("it went where it may not")
	}
}
