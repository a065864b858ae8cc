package test

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// portDrops are what the switch port of a container dropped, by reason, as inspect --verbose shows it.
func (d *daemon) portDrops(network, container string) map[string]uint64 {
	d.t.Helper()
	var list []struct {
		Usernet struct {
			Ports []struct {
				Name  string
				Stats struct{ Drops map[string]uint64 }
			}
		}
	}
	out := d.ok("network", "inspect", "--verbose", network)
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 {
		d.t.Fatalf("%v: %s", err, out)
	}
	for _, p := range list[0].Usernet.Ports {
		if p.Name == container {
			return p.Stats.Drops
		}
	}
	d.t.Fatalf("no port of %s in %s", container, out)
	return nil
}

// A station is who a forged frame is from, or pretends to be from.
type station struct {
	mac    net.HardwareAddr
	v4, v6 netip.Addr
}

func (d *daemon) station(name string) station {
	mac, err := net.ParseMAC(d.mac(name))
	if err != nil {
		d.t.Fatal(err)
	}
	return station{mac, netip.MustParseAddr(d.address(name)), netip.MustParseAddr(d.address6(name))}
}

var (
	broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	stranger  = station{net.HardwareAddr{2, 0, 0, 0, 0, 0x99}, netip.MustParseAddr("172.31.0.99"),
		netip.MustParseAddr("fd99::99")}
	allNodes = netip.MustParseAddr("ff02::1")
)

// mark is in every forged frame.
const mark = "FORGED-FRAME"

func frameOf(dst, src net.HardwareAddr, etherType uint16, payload []byte) []byte {
	f := binary.BigEndian.AppendUint16(slices.Concat(dst, src), etherType)
	f = append(f, payload...)
	for len(f) < 60 { // shortest frame without its check sequence (IEEE 802.3)
		f = append(f, 0)
	}
	return f
}

// ip4 is an IPv4 packet. The checksums are left out: a switch does not look at them.
func ip4(src, dst netip.Addr, proto byte, flags uint16, options, payload []byte) []byte {
	h := make([]byte, 20, 20+len(options)+len(payload))
	h[0], h[8], h[9] = 0x40|byte(5+len(options)/4), 64, proto
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(options)+len(payload)))
	binary.BigEndian.PutUint16(h[4:], 7) // identification
	binary.BigEndian.PutUint16(h[6:], flags)
	copy(h[12:], src.AsSlice())
	copy(h[16:], dst.AsSlice())
	return slices.Concat(h, options, payload)
}

func ip6(src, dst netip.Addr, next byte, payload []byte) []byte {
	h := make([]byte, 40, 40+len(payload))
	h[0], h[6], h[7] = 0x60, next, 255
	binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
	copy(h[8:], src.AsSlice())
	copy(h[24:], dst.AsSlice())
	return append(h, payload...)
}

func udpOf(from, to uint16) []byte {
	u := binary.BigEndian.AppendUint16(nil, from)
	u = binary.BigEndian.AppendUint16(u, to)
	u = binary.BigEndian.AppendUint16(u, uint16(8+len(mark)))
	return append(append(u, 0, 0), mark...)
}

func arpOf(op byte, mac net.HardwareAddr, sender, target netip.Addr) []byte {
	return slices.Concat([]byte{0, 1, 8, 0, 6, 4, 0, op}, mac, sender.AsSlice(), make([]byte, 6), target.AsSlice(),
		[]byte(mark))
}

// nd is a neighbour discovery message with a target and a link-layer address option; mark does not fit into one, so its
// frames are told by the padding behind the packet.
func nd(kind byte, target netip.Addr, option byte, mac net.HardwareAddr) []byte {
	m := append([]byte{kind, 0, 0, 0, 0x60, 0, 0, 0}, target.AsSlice()...)
	if kind == 134 { // a router advertisement has no target
		m = []byte{kind, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0}
	}
	if kind == 137 { // a redirect has two
		m = append(m, target.AsSlice()...)
	}
	return append(append(m, option, 1), mac...)
}

// TestForgedFramesReachNobody sends what a malicious container would, with root in its sandbox, and has its neighbour
// watch.
func TestForgedFramesReachNobody(t *testing.T) {
	t.Parallel()
	const copies = 10
	d := startDaemon(t)
	d.ok("network", "create", "--ipv6", "lan")
	d.idle("lan-a", "--network", "lan")
	d.idle("lan-b", "--network", "lan")
	a, b := d.station("lan-a"), d.station("lan-b")
	gateway := netip.MustParseAddr(d.gateway("lan-a"))
	text := []byte(mark)
	v4 := func(src netip.Addr, payload []byte) []byte { return ip4(src, b.v4, 17, 0, nil, payload) }
	forgeries := []struct {
		name, reason string
		frame        []byte
	}{
		{"MAC of nobody", "mac", frameOf(broadcast, stranger.mac, 0x88b5, text)},
		{"MAC of the neighbour", "mac", frameOf(broadcast, b.mac, 0x88b5, text)},
		{"group address as source", "multicast-source",
			frameOf(broadcast, net.HardwareAddr{3, 0, 0, 0, 0, 1}, 0x88b5, text)},
		{"broadcast as source", "multicast-source", frameOf(broadcast, broadcast, 0x88b5, text)},
		{"IPv4 of nobody", "ipv4-source", frameOf(broadcast, a.mac, 0x0800, v4(stranger.v4, udpOf(1, 2)))},
		{"IPv4 of the neighbour", "ipv4-source", frameOf(broadcast, a.mac, 0x0800, v4(b.v4, udpOf(1, 2)))},
		{"IPv4 of the gateway", "ipv4-source", frameOf(broadcast, a.mac, 0x0800, v4(gateway, udpOf(1, 2)))},
		{"IPv6 of nobody", "ipv6-source", frameOf(broadcast, a.mac, 0x86dd, ip6(stranger.v6, b.v6, 17, udpOf(1, 2)))},
		{"IPv6 of the neighbour", "ipv6-source",
			frameOf(broadcast, a.mac, 0x86dd, ip6(b.v6, allNodes, 17, udpOf(1, 2)))},
		{"ARP request for the gateway's address", "arp",
			frameOf(broadcast, a.mac, 0x0806, arpOf(1, a.mac, gateway, b.v4))},
		{"ARP reply with the gateway's address", "arp", frameOf(b.mac, a.mac, 0x0806, arpOf(2, a.mac, gateway, b.v4))},
		{"ARP reply with another MAC", "arp", frameOf(b.mac, a.mac, 0x0806, arpOf(2, stranger.mac, a.v4, b.v4))},
		{"neighbour solicitation with another MAC", "neighbour-discovery",
			frameOf(broadcast, a.mac, 0x86dd,
				append(ip6(a.v6, allNodes, 58, nd(135, b.v6, 1, stranger.mac)), mark...))},
		{"neighbour advertisement of the neighbour", "neighbour-discovery",
			frameOf(broadcast, a.mac, 0x86dd, append(ip6(a.v6, allNodes, 58, nd(136, b.v6, 2, a.mac)), mark...))},
		{"duplicate address claim of the neighbour's", "neighbour-discovery",
			frameOf(broadcast, a.mac, 0x86dd,
				append(ip6(netip.IPv6Unspecified(), allNodes, 58, nd(135, b.v6, 1, a.mac)), mark...))},
		{"router advertisement", "router-advertisement",
			frameOf(broadcast, a.mac, 0x86dd, append(ip6(a.v6, allNodes, 58, nd(134, b.v6, 1, a.mac)), mark...))},
		{"ICMPv6 redirect", "redirect",
			frameOf(broadcast, a.mac, 0x86dd, append(ip6(a.v6, b.v6, 58, nd(137, b.v6, 2, a.mac)), mark...))},
		{"ICMP redirect", "redirect", frameOf(broadcast, a.mac, 0x0800,
			ip4(a.v4, b.v4, 1, 0, nil, append([]byte{5, 1, 0, 0, 0, 0, 0, 0}, mark...)))},
		{"DHCP offer", "dhcp-server", frameOf(broadcast, a.mac, 0x0800, v4(a.v4, udpOf(67, 68)))},
		{"DHCPv6 advertise", "dhcp-server", frameOf(broadcast, a.mac, 0x86dd, ip6(a.v6, b.v6, 17, udpOf(547, 546)))},
		{"VLAN tag", "vlan", frameOf(broadcast, a.mac, 0x8100, append([]byte{0, 5, 0x88, 0xb5}, mark...))},
		{"two VLAN tags", "vlan", frameOf(broadcast, a.mac, 0x88a8,
			append([]byte{0, 5, 0x81, 0, 0, 6, 0x88, 0xb5}, mark...))},
		{"spanning tree", "reserved-group",
			frameOf(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 0}, a.mac, uint16(len(mark)+3),
				append([]byte{0x42, 0x42, 3}, mark...))},
		{"pause", "reserved-group", frameOf(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 1}, a.mac, 0x8808, text)},
		{"loose source route", "ip-options",
			frameOf(broadcast, a.mac, 0x0800, ip4(a.v4, b.v4, 17, 0, []byte{131, 7, 4, 10, 0, 0, 1, 0}, udpOf(1, 2)))},
		{"IPv6 routing header", "ip-options",
			frameOf(broadcast, a.mac, 0x86dd,
				ip6(a.v6, b.v6, 43, slices.Concat([]byte{17, 2, 0, 1, 0, 0, 0, 0}, b.v6.AsSlice(), udpOf(1, 2))))},
		{"a first fragment without its header", "fragment",
			frameOf(broadcast, a.mac, 0x0800, ip4(a.v4, b.v4, 17, 0x2000, nil, []byte{1, 2, 3, 4}))},
		{"a length that is too long", "malformed", frameOf(broadcast, a.mac, 0x0800, func() []byte {
			p := v4(a.v4, udpOf(1, 2))
			binary.BigEndian.PutUint16(p[2:], 1400)
			return p
		}())},
	}
	seen := d.background("lan-b", helper, "l2watch", "eth0", "60", mark, "HONEST-FRAME")
	tried := 0
	for _, f := range forgeries {
		before := d.portDrops("lan", "lan-a")[f.reason]
		d.ok("exec", "lan-a", helper, "l2raw", "eth0", fmt.Sprint(copies), hex.EncodeToString(f.frame))
		eventually(t, func() error {
			if got := d.portDrops("lan", "lan-a")[f.reason] - before; got < copies {
				return fmt.Errorf("%s: %d of %d frames are counted as %s: %v", f.name, got, copies, f.reason,
					d.portDrops("lan", "lan-a"))
			}
			return nil
		})
		tried += copies
	}
	// The second of two fragments covers a part of the first, which is harmless.
	fragments := []string{
		hex.EncodeToString(frameOf(b.mac, a.mac, 0x0800,
			ip4(a.v4, b.v4, 17, 0x2000, nil, append([]byte{0, 1, 0, 2, 0, 40, 0, 0}, make([]byte, 24)...)))),
		hex.EncodeToString(frameOf(b.mac, a.mac, 0x0800, ip4(a.v4, b.v4, 17, 2, nil, []byte(mark)))),
	}
	before := d.portDrops("lan", "lan-a")["fragment"]
	d.ok(append([]string{"exec", "lan-a", helper, "l2raw", "eth0", "1"}, fragments...)...)
	eventually(t, func() error {
		if got := d.portDrops("lan", "lan-a")["fragment"] - before; got != 1 {
			return fmt.Errorf("of two fragments that overlap %d are dropped", got)
		}
		return nil
	})
	d.ok("exec", "lan-a", helper, "l2send", "eth0", "0x88b5", "ff:ff:ff:ff:ff:ff", "HONEST-FRAME")
	if out := seen(); !strings.Contains(out, "seen 0") {
		t.Errorf("forged frames reached the neighbour:\n%s", out)
	}
	d.says(" 0% packet loss", "lan-b", "ping", "-c1", "-W5", "lan-a")
	t.Logf("%d kinds, %d forged frames, none reached the neighbour", len(forgeries), tried)
}

// TestNoPortGuard lets a nested bridge send from addresses of its own, where that was asked for.
func TestNoPortGuard(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.ok("network", "create", "lan")
	d.idle("vm", "--network", "name=lan,driver-opt=usernet.port_guard=false")
	d.idle("vm2", "--network", "lan", "--no-port-guard")
	d.idle("box", "--network", "lan")
	for _, name := range []string{"vm", "vm2"} {
		got := d.background("box", helper, "l2recv", "eth0", "0x88b5", "20")
		d.ok("exec", name, helper, "l2send", "eth0", "0x88b5", "ff:ff:ff:ff:ff:ff", "nested", "02:00:00:00:00:99")
		if out := got(); !strings.Contains(out, "02:00:00:00:00:99 nested") {
			t.Errorf("%s: %s", name, out)
		}
	}
	// Another container's MAC stays its own.
	got := d.background("vm2", helper, "l2recv", "eth0", "0x88b5", "20")
	d.ok("exec", "vm", helper, "l2send", "eth0", "0x88b5", "ff:ff:ff:ff:ff:ff", "stolen", d.mac("box"))
	d.ok("exec", "vm", helper, "l2send", "eth0", "0x88b5", "ff:ff:ff:ff:ff:ff", "honest")
	if out := got(); !strings.Contains(out, "honest") {
		t.Errorf("a neighbour's MAC was taken over: %s", out)
	}
}

func TestOddDatagramsHarmNobody(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	port := freePort()
	address := net.JoinHostPort(host4, fmt.Sprint(port))
	listenUDP(t, address)
	d.idle("box")
	d.says("got 0", "box", helper, "udpempty", address)
	d.exec("box", "ping", "-c1", "-W1", "-s", "0", peer4)
	d.says(" 0% packet loss", "box", "ping", "-c1", "-W5", peer4)
}
