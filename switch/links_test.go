package vswitch

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/usernet/usernet/internal/packet"
)

// linkedPorts is a switch on which web (2) has a link to db (3), ports 80 and 81 of TCP and 53 of UDP, and none to
// other (4); all are kept apart.
type linkedPorts struct {
	sw             *Switch
	web, db, other *Port
	devs           map[*Port]*recorder
}

func newLinkedPorts(t testing.TB, guard bool) *linkedPorts {
	l := &linkedPorts{sw: New(Config{MTU: 1500}), devs: map[*Port]*recorder{}}
	for i, p := range []**Port{&l.web, &l.db, &l.other} {
		cfg := guarded(byte(2 + i))
		cfg.Isolated = true
		if !guard {
			cfg.Role = Learning
		}
		port, dev := connect(t, l.sw, cfg)
		*p, l.devs[port] = port, dev
	}
	l.sw.SetLinks(l.links())
	return l
}

func (l *linkedPorts) links() []Link {
	return []Link{{l.web, l.db, []PortRange{{packet.ProtoTCP, 80, 81}, {packet.ProtoUDP, 53, 53}}}}
}

// got says at whom a frame from p arrives.
func (l *linkedPorts) got(p *Port, f *Frame) (list []*Port) {
	for _, d := range l.devs {
		d.reset()
	}
	p.Receive(f)
	for _, q := range []*Port{l.web, l.db, l.other} {
		if l.devs[q].got() > 0 {
			list = append(list, q)
		}
	}
	return list
}

// segment is a TCP segment, with SYN, ACK or both.
func segment(from, to uint16, flags byte) []byte {
	s := tcp(flags, 1, nil)
	binary.BigEndian.PutUint16(s, from)
	binary.BigEndian.PutUint16(s[2:], to)
	return s
}

// icmpError cites a packet.
func icmpError(kind byte, cited []byte) []byte {
	return append([]byte{kind, 0, 0, 0, 0, 0, 0, 0}, cited...)
}

type linkCase struct {
	name     string
	from, to byte // whose frame to whom, by their numbers
	frame    *Frame
	pass     bool
}

// linkCases are for both families.
func linkCases() (list []linkCase) {
	for _, fam := range []struct {
		name       string
		etherType  uint16
		ip         func(byte) netip.Addr
		icmp       byte
		kind, echo byte // ICMP's "unreachable" and "echo request"
	}{{"IPv4 ", EtherTypeIPv4, ip4, packet.ProtoICMP, 3, 8},
		{"IPv6 ", EtherTypeIPv6, ip6, packet.ProtoICMPv6, 1, 128}} {
		packetOf := func(from, to byte, proto byte, payload []byte) []byte {
			return ipPacket(fam.ip(from), fam.ip(to), proto, payload)
		}
		add := func(name string, from, to byte, proto byte, payload []byte, pass bool) {
			list = append(list, linkCase{fam.name + name, from, to,
				frame(mac(to), mac(from), fam.etherType, packetOf(from, to, proto, payload)), pass})
		}
		add("SYN to a linked port", 2, 3, packet.ProtoTCP, segment(4000, 80, tcpSYN), true)
		add("SYN to the next one", 2, 3, packet.ProtoTCP, segment(4000, 81, tcpSYN), true)
		add("data to a linked port", 2, 3, packet.ProtoTCP, segment(4000, 80, tcpACK), true)
		add("SYN to a port beyond", 2, 3, packet.ProtoTCP, segment(4000, 82, tcpSYN), false)
		add("SYN to a port before", 2, 3, packet.ProtoTCP, segment(4000, 79, tcpSYN), false)
		add("TCP to UDP's port", 2, 3, packet.ProtoTCP, segment(4000, 53, tcpSYN), false)
		add("UDP to TCP's port", 2, 3, packet.ProtoUDP, udp(4000, 80, nil), false)
		add("UDP to a linked port", 2, 3, packet.ProtoUDP, udp(4000, 53, nil), true)
		add("from a port of the same number", 2, 3, packet.ProtoTCP, segment(80, 4000, tcpACK), false)
		add("answer with SYN and ACK", 3, 2, packet.ProtoTCP, segment(80, 4000, tcpSYN|tcpACK), true)
		add("answer with data", 3, 2, packet.ProtoTCP, segment(80, 4000, tcpACK), true)
		add("reset", 3, 2, packet.ProtoTCP, segment(80, 4000, 4), true)
		add("SYN from a linked port", 3, 2, packet.ProtoTCP, segment(80, 4000, tcpSYN), false)
		add("SYN and FIN from a linked port", 3, 2, packet.ProtoTCP, segment(80, 4000, tcpSYN|tcpFIN), false)
		add("UDP answer", 3, 2, packet.ProtoUDP, udp(53, 4000, nil), true)
		add("UDP from another port", 3, 2, packet.ProtoUDP, udp(54, 4000, nil), false)
		add("TCP from another port", 3, 2, packet.ProtoTCP, segment(82, 4000, tcpACK), false)
		add("backwards to a linked port", 3, 2, packet.ProtoTCP, segment(4000, 80, tcpSYN), false)
		add("to whom no link leads", 2, 4, packet.ProtoTCP, segment(4000, 80, tcpSYN), false)
		add("from who has no link", 4, 3, packet.ProtoTCP, segment(4000, 80, tcpSYN), false)
		add("ping", 2, 3, fam.icmp, []byte{fam.echo, 0, 0, 0, 0, 1, 0, 1}, false)
		add("another protocol", 2, 3, 47, segment(4000, 80, tcpSYN), false)
		add("a header cut short", 2, 3, packet.ProtoTCP, segment(4000, 80, tcpSYN)[:16], false)
		add("ICMP error about a datagram", 3, 2, fam.icmp,
			icmpError(fam.kind, packetOf(2, 3, packet.ProtoUDP, udp(4000, 53, nil))), true)
		add("ICMP error about an answer", 2, 3, fam.icmp,
			icmpError(fam.kind, packetOf(3, 2, packet.ProtoUDP, udp(53, 4000, nil))), true)
		add("ICMP error about another port", 3, 2, fam.icmp,
			icmpError(fam.kind, packetOf(2, 3, packet.ProtoUDP, udp(4000, 54, nil))), false)
		add("ICMP error about one's own datagram", 2, 3, fam.icmp,
			icmpError(fam.kind, packetOf(2, 3, packet.ProtoUDP, udp(4000, 53, nil))), false)
		add("ICMP error about someone else's", 3, 2, fam.icmp,
			icmpError(fam.kind, packetOf(2, 4, packet.ProtoUDP, udp(4000, 53, nil))), false)
		add("ICMP error about a ping", 3, 2, fam.icmp, icmpError(fam.kind, packetOf(2, 3, fam.icmp, make([]byte, 8))),
			false)
		add("ICMP error about a scrap", 3, 2, fam.icmp,
			icmpError(fam.kind, packetOf(2, 3, packet.ProtoUDP, udp(4000, 53, nil))[:18]), false)
		add("ICMP error about nothing", 3, 2, fam.icmp, icmpError(fam.kind, nil), false)
		forged := func(name string, f *Frame) { list = append(list, linkCase{fam.name + name, 2, 3, f, false}) }
		syn := segment(4000, 80, tcpSYN)
		forged("from an address of the third",
			frame(mac(3), mac(2), fam.etherType, ipPacket(fam.ip(4), fam.ip(3), packet.ProtoTCP, syn)))
		forged("to an address behind",
			frame(mac(3), mac(2), fam.etherType, ipPacket(fam.ip(2), fam.ip(9), packet.ProtoTCP, syn)))
		forged("from the third's MAC", frame(mac(3), mac(4), fam.etherType, packetOf(2, 3, packet.ProtoTCP, syn)))
		forged("by broadcast", frame(broadcast, mac(2), fam.etherType, packetOf(2, 3, packet.ProtoTCP, syn)))
		forged("by multicast", frame(allNodesMAC, mac(2), fam.etherType,
			packetOf(2, 3, packet.ProtoUDP, udp(4000, 53, nil))))
	}
	both := func(name string, from, to byte, f func(dst net.HardwareAddr) *Frame, pass bool) {
		list = append(list, linkCase{name, from, to, f(mac(to)), pass},
			linkCase{name + " by broadcast", from, to, f(broadcast), pass})
	}
	arpOf := func(op uint16, from byte, sender, target netip.Addr) func(net.HardwareAddr) *Frame {
		return func(dst net.HardwareAddr) *Frame {
			return frame(dst, mac(from), EtherTypeARP, arp(op, mac(from), sender, target))
		}
	}
	both("ARP request", 2, 3, arpOf(1, 2, ip4(2), ip4(3)), true)
	both("ARP reply", 3, 2, arpOf(2, 3, ip4(3), ip4(2)), true)
	both("ARP request backwards", 3, 2, arpOf(1, 3, ip4(3), ip4(2)), true)
	both("ARP announcement", 3, 2, arpOf(1, 3, ip4(3), ip4(3)), true)
	both("ARP request for the third", 2, 3, arpOf(1, 2, ip4(2), ip4(4)), false)
	both("ARP request of the third", 4, 3, arpOf(1, 4, ip4(4), ip4(3)), false)
	both("ARP request to the third", 2, 4, arpOf(1, 2, ip4(2), ip4(4)), false)
	both("ARP with another's address", 2, 3, arpOf(2, 2, ip4(4), ip4(3)), false)
	ndOf := func(from byte, src, dst netip.Addr, message []byte) func(net.HardwareAddr) *Frame {
		return func(to net.HardwareAddr) *Frame {
			return frame(to, mac(from), EtherTypeIPv6, ipPacket(src, dst, packet.ProtoICMPv6, message))
		}
	}
	solicited := netip.MustParseAddr("ff02::1:ff00:3")
	link := LinkLocal(mac(2))
	both("ND solicitation", 2, 3, ndOf(2, ip6(2), solicited, nd(ndNeighbourSolicitation, ip6(3), linkOpt(1, mac(2)))),
		true)
	both("ND solicitation from the link-local address", 2, 3,
		ndOf(2, link, solicited, nd(ndNeighbourSolicitation, LinkLocal(mac(3)), linkOpt(1, mac(2)))), true)
	both("ND probe", 3, 2, ndOf(3, ip6(3), ip6(2), nd(ndNeighbourSolicitation, ip6(2))), true)
	both("ND advertisement", 3, 2, ndOf(3, ip6(3), ip6(2), nd(ndNeighbourAdvert, ip6(3), linkOpt(2, mac(3)))), true)
	both("ND solicitation for the third", 2, 3, ndOf(2, ip6(2), solicited, nd(ndNeighbourSolicitation, ip6(4))), false)
	both("ND solicitation of the third", 4, 3, ndOf(4, ip6(4), solicited, nd(ndNeighbourSolicitation, ip6(3))), false)
	both("ND advertisement of the third's address", 2, 3,
		ndOf(2, ip6(2), ip6(3), nd(ndNeighbourAdvert, ip6(4), linkOpt(2, mac(2)))), false)
	both("router solicitation", 2, 3, ndOf(2, ip6(2), solicited, nd(ndRouterSolicitation, netip.Addr{})), false)
	both("router advertisement", 3, 2, ndOf(3, ip6(3), ip6(2), nd(ndRouterAdvertisement, ip6(3))), false)
	both("multicast report", 2, 3, ndOf(2, ip6(2), solicited, nd(mldReport2, ip6(3))), false)
	both("neighbour discovery in IPv4", 2, 3, func(dst net.HardwareAddr) *Frame {
		return frame(dst, mac(2), EtherTypeIPv4,
			ipPacket(ip4(2), ip4(3), packet.ProtoICMPv6, nd(ndNeighbourSolicitation, ip6(3))))
	}, false)
	both("another EtherType", 2, 3,
		func(dst net.HardwareAddr) *Frame { return frame(dst, mac(2), 0x88b5, []byte("anything")) }, false)
	both("nothing", 2, 3, func(dst net.HardwareAddr) *Frame { return frame(dst, mac(2), EtherTypeIPv4, nil) }, false)
	return list
}

func TestLinkedPortsAreReachedAndNothingElse(t *testing.T) {
	for name, guard := range map[string]bool{"guarded": true, "without guard": false} {
		l := newLinkedPorts(t, guard)
		ports := map[byte]*Port{2: l.web, 3: l.db, 4: l.other}
		for _, tc := range linkCases() {
			var want []*Port
			if tc.pass {
				want = []*Port{ports[tc.to]}
			}
			if got := l.got(ports[tc.from], tc.frame); !slices.Equal(got, want) {
				t.Errorf("%s: %s: reached %d ports, want %d", name, tc.name, len(got), len(want))
			}
		}
	}
}

func TestWhatALinkDoesNotCoverIsCounted(t *testing.T) {
	l := newLinkedPorts(t, true)
	l.web.Receive(frame(mac(3), mac(2), EtherTypeIPv4,
		ipPacket(ip4(2), ip4(3), packet.ProtoTCP, segment(4000, 22, tcpSYN))))
	l.web.Receive(frame(mac(3), mac(2), EtherTypeIPv4,
		ipPacket(ip4(2), ip4(3), packet.ProtoTCP, segment(4000, 80, tcpSYN))))
	if drops := l.web.Stats().Drops; drops[DropIsolated] != 1 || len(drops) != 1 {
		t.Errorf("counted %v, want one isolated", drops)
	}
}

func TestLinksAreReplacedWhole(t *testing.T) {
	l := newLinkedPorts(t, true)
	to := func(n uint16) *Frame {
		return frame(mac(3), mac(2), EtherTypeIPv4, ipPacket(ip4(2), ip4(3), packet.ProtoTCP, segment(4000, n, tcpSYN)))
	}
	back := frame(mac(2), mac(3), EtherTypeIPv4, ipPacket(ip4(3), ip4(2), packet.ProtoTCP, segment(4000, 22, tcpSYN)))
	l.sw.SetLinks(append(l.links(), Link{l.web, l.db, []PortRange{{packet.ProtoTCP, 8080, 8080}, {99, 1, 65535}}},
		Link{l.db, l.web, []PortRange{{packet.ProtoTCP, 22, 22}}}))
	for n, want := range map[uint16]bool{80: true, 8080: true, 22: false, 443: false} {
		if got := len(l.got(l.web, to(n))) > 0; got != want {
			t.Errorf("two links: port %d is reached: %v", n, got)
		}
	}
	if len(l.got(l.db, back)) != 1 {
		t.Error("a link in each direction: one is not there")
	}
	l.sw.SetLinks(nil)
	if len(l.got(l.web, to(80)))+len(l.got(l.db, back)) != 0 {
		t.Error("without links ports are still reached")
	}
	l.sw.SetLinks(l.links())
	if err := l.db.Close(); err != nil {
		t.Fatal(err)
	}
	cfg := guarded(3)
	cfg.Isolated = true
	p, dev := connect(t, l.sw, cfg)
	l.web.Receive(to(80))
	p.Receive(frame(mac(2), mac(3), EtherTypeIPv4,
		ipPacket(ip4(3), ip4(2), packet.ProtoTCP, segment(80, 4000, tcpACK))))
	if dev.got() != 0 || l.devs[l.web].got() != 0 {
		t.Error("a port that took another's place has its links")
	}
}

func TestFragmentsPassALinkBehindTheirFirst(t *testing.T) {
	four := func(id byte, to uint16, offset int, more bool) *Frame {
		payload := make([]byte, 64)
		if offset == 0 {
			payload = udp(4000, to, payload)
		}
		p := fragment4(ipPacket(ip4(2), ip4(3), packet.ProtoUDP, payload), offset, more)
		p[5] = id
		return frame(mac(3), mac(2), EtherTypeIPv4, p)
	}
	six := func(id byte, to uint16, offset int, more bool) *Frame {
		payload := make([]byte, 64)
		if offset == 0 {
			payload = udp(4000, to, payload)
		}
		p := ipPacket(ip6(2), ip6(3), packet.ProtoFragment, fragment6(packet.ProtoUDP, offset, more, payload))
		p[packet.IPv6HeaderLen+7] = id
		return frame(mac(3), mac(2), EtherTypeIPv6, p)
	}
	for name, fragment := range map[string]func(byte, uint16, int, bool) *Frame{"IPv4": four, "IPv6": six} {
		l := newLinkedPorts(t, true)
		for _, tc := range []struct {
			name   string
			id     byte
			to     uint16
			offset int
			more   bool
			want   bool
		}{
			{"first one to a linked port", 1, 53, 0, true, true},
			{"second", 1, 53, 72, true, true},
			{"of another datagram without its first", 2, 53, 72, true, false},
			{"last", 1, 53, 136, false, true},
			{"first one to another port", 3, 54, 0, true, false},
			{"second behind it", 3, 53, 72, false, false},
			{"first one to another port, with the number of one that passed", 1, 54, 0, true, false},
			{"second behind it", 1, 54, 72, false, false},
		} {
			if got := len(l.got(l.web, fragment(tc.id, tc.to, tc.offset, tc.more))) > 0; got != tc.want {
				t.Errorf("%s: %s: passed is %v, want %v", name, tc.name, got, tc.want)
			}
		}
		l.sw.SetLinks(nil)
		if len(l.got(l.web, fragment(1, 53, 144, false))) > 0 {
			t.Errorf("%s: a fragment passes without a link", name)
		}
	}
}

// TestPortSetsAgreeWithAList holds the search to the obvious one.
func TestPortSetsAgreeWithAList(t *testing.T) {
	for range 200 {
		var spans []portSpan
		for range rand.IntN(8) {
			lo := serviceNumber(packet.ProtoTCP, uint16(rand.IntN(60)))
			spans = append(spans, portSpan{lo, lo + uint32(rand.IntN(6))})
		}
		set := newPortSet(slices.Clone(spans))
		for n := uint16(0); n < 70; n++ {
			want := slices.ContainsFunc(spans, func(s portSpan) bool {
				return s.lo <= serviceNumber(packet.ProtoTCP, n) && serviceNumber(packet.ProtoTCP, n) <= s.hi
			})
			if set.has(packet.ProtoTCP, n) != want || set.has(packet.ProtoUDP, n) {
				t.Fatalf("%d in %v: not %v", n, spans, want)
			}
		}
	}
}

func TestLinksAllocateNothing(t *testing.T) {
	l := newLinkedPorts(t, true)
	ports := map[byte]*Port{2: l.web, 3: l.db, 4: l.other}
	for _, d := range l.devs {
		d.err = errBroken // it keeps nothing
	}
	for _, tc := range linkCases() {
		p := ports[tc.from]
		if n := testing.AllocsPerRun(10, func() { p.Receive(tc.frame) }); n != 0 {
			t.Errorf("%s: %v allocations for a frame, want none", tc.name, n)
		}
	}
}

// FuzzLinks holds what passes between two linked ports to what the link allows.
func FuzzLinks(f *testing.F) {
	seed(f)
	for _, c := range linkCases() {
		f.Add(append(append([]byte(nil), c.frame.Header[:]...), c.frame.Payload[0]...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		fr := parse(b)
		if fr == nil {
			return
		}
		l := newLinkedPorts(t, len(b)%2 == 0)
		reached := l.got(l.web, fr)
		if slices.Contains(reached, l.other) {
			t.Fatal("passed to one that no link leads to")
		}
		if len(reached) == 0 || fr.EtherType() == EtherTypeARP {
			return
		}
		h, ok := parseIP(fr.EtherType(), fr.Payload[0])
		p := fr.Payload[0][min(h.Transport, len(fr.Payload[0])):]
		switch {
		case !ok || h.Later:
			t.Fatal("passed without ports to go by")
		case h.Proto == packet.ProtoTCP &&
			(binary.BigEndian.Uint16(p[2:]) == 80 || binary.BigEndian.Uint16(p[2:]) == 81):
		case h.Proto == packet.ProtoUDP && binary.BigEndian.Uint16(p[2:]) == 53:
		case h.Proto == packet.ProtoICMP && !h.V6 && slices.Contains([]byte{3, 11, 12}, p[0]):
		case h.Proto == packet.ProtoICMPv6 && h.V6 &&
			(p[0] >= 1 && p[0] <= 4 || p[0] == ndNeighbourSolicitation || p[0] == ndNeighbourAdvert):
		default:
			t.Fatalf("verdictPass: protocol %d, %x", h.Proto, p)
		}
	})
}
