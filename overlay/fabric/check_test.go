package fabric

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/usernet/usernet/internal/packet"
	"github.com/usernet/usernet/overlay"
	vswitch "github.com/usernet/usernet/switch"
)

// ethernet is a frame's bytes.
func ethernet(dst, src overlay.MAC, etherType uint16, payload []byte) []byte {
	f := frame(dst, src, etherType, payload)
	return append(bytes.Clone(f.Ethernet()), payload...)
}

func icmp6(src, dst netip.Addr, kind byte, rest ...byte) []byte {
	return ipPacket(src, dst, protoICMPv6, append([]byte{kind, 0, 0, 0, 0, 0, 0, 0}, rest...))
}

func arp(op uint16, senderMAC overlay.MAC, sender netip.Addr, target netip.Addr) []byte {
	p := make([]byte, arpLen)
	copy(p, arpWords[:])
	binary.BigEndian.PutUint16(p[6:], op)
	copy(p[8:], senderMAC[:])
	s, d := sender.As4(), target.As4()
	copy(p[14:], s[:])
	copy(p[24:], d[:])
	return p
}

// TestFramesOfAPeerCountOnlyFromItsEndpoints is what a hostile host may try: each frame is dropped, and counted with
// its reason.
func TestFramesOfAPeerCountOnlyFromItsEndpoints(t *testing.T) {
	subnets := func(c *NetworkConfig) { c.Subnets = []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24")} }
	a, b, c := newSide(t, hostA, 2, subnets), newSide(t, hostB, 3), newSide(t, hostC, 4)
	meet(t, a, b, c)
	pb := a.fabric.hosts[hostB]
	me, own, other := a.guest, b.guest, c.guest
	gate, all := overlay.MAC(gatewayMAC), overlay.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	const ip4, ip6 = vswitch.EtherTypeIPv4, vswitch.EtherTypeIPv6
	data := udpDatagram([]byte("x"))
	dhcp := udpDatagram([]byte("x"))
	binary.BigEndian.PutUint16(dhcp[2:], 68)
	own6 := own.ip6.As16()
	other6 := other.ip6.As16()
	for _, test := range []struct {
		name  string
		frame []byte
		want  Reason
	}{
		{"what it may send", ethernet(me.mac, own.mac, ip4, ipPacket(own.ip4, me.ip4, 17, data)), pass},
		{"over IPv6", ethernet(me.mac, own.mac, ip6, ipPacket(own.ip6, me.ip6, 17, data)), pass},
		{"from its link-local address",
			ethernet(me.mac, own.mac, ip6, ipPacket(vswitch.LinkLocal(own.mac[:]), me.ip6, 17, data)), pass},
		{"an ARP probe", ethernet(me.mac, own.mac, vswitch.EtherTypeARP,
			arp(1, own.mac, netip.IPv4Unspecified(), own.ip4)), pass},
		{"its advertisement", ethernet(me.mac, own.mac, ip6, icmp6(own.ip6, me.ip6, ndNeighbourAdvert, own6[:]...)),
			pass},
		{"another protocol", ethernet(me.mac, own.mac, 0x88b5, []byte("x")), pass},
		{"from another host's MAC", ethernet(me.mac, other.mac, ip4, ipPacket(other.ip4, me.ip4, 17, data)),
			DropSourceMAC},
		{"from this host's MAC", ethernet(me.mac, me.mac, ip4, ipPacket(me.ip4, me.ip4, 17, data)), DropSourceMAC},
		{"from an unknown MAC", ethernet(me.mac, overlay.MAC{2, 9, 9, 9, 9, 9}, ip4,
			ipPacket(own.ip4, me.ip4, 17, data)), DropSourceMAC},
		{"from a group", ethernet(me.mac, overlay.MAC{3, 9, 9, 9, 9, 9}, ip4, ipPacket(own.ip4, me.ip4, 17, data)),
			DropSourceMAC},
		{"from another address", ethernet(me.mac, own.mac, ip4, ipPacket(other.ip4, me.ip4, 17, data)), DropSourceAddr},
		{"from another address over IPv6", ethernet(me.mac, own.mac, ip6, ipPacket(other.ip6, me.ip6, 17, data)),
			DropSourceAddr},
		{"from outside", ethernet(me.mac, own.mac, ip4, ipPacket(netip.MustParseAddr("8.8.8.8"), me.ip4, 17, data)),
			DropSourceAddr},
		{"from the gateway's MAC", ethernet(me.mac, gate, ip4, ipPacket(gatewayAddr, me.ip4, 17, data)), DropGateway},
		{"to the gateway", ethernet(gate, own.mac, ip4, ipPacket(own.ip4, netip.MustParseAddr("8.8.8.8"), 17, data)),
			DropGateway},
		{"from the gateway's address", ethernet(me.mac, own.mac, ip4, ipPacket(gatewayAddr, me.ip4, 17, data)),
			DropGateway},
		{"to all", ethernet(all, own.mac, ip4, ipPacket(own.ip4, netip.MustParseAddr("10.9.0.255"), 17, data)), pass},
		{"to a group", ethernet(overlay.MAC{1, 0, 0x5e, 0, 0, 9}, own.mac, ip4,
			ipPacket(own.ip4, netip.MustParseAddr("224.0.0.9"), 17, data)), pass},
		{"outside, by way of all", ethernet(all, own.mac, ip4,
			ipPacket(own.ip4, netip.MustParseAddr("8.8.8.255"), 17, data)), DropGateway},
		{"outside over IPv6, by way of all",
			ethernet(all, own.mac, ip6, ipPacket(own.ip6, netip.MustParseAddr("2001:db8::1"), 17, data)), DropGateway},
		{"ARP for the gateway", ethernet(me.mac, own.mac, vswitch.EtherTypeARP, arp(2, own.mac, gatewayAddr, me.ip4)),
			DropGateway},
		{"ARP for another", ethernet(me.mac, own.mac, vswitch.EtherTypeARP, arp(2, own.mac, other.ip4, me.ip4)),
			DropSourceAddr},
		{"ARP with another MAC", ethernet(me.mac, own.mac, vswitch.EtherTypeARP, arp(2, other.mac, own.ip4, me.ip4)),
			DropSourceMAC},
		{"ARP that is cut", ethernet(me.mac, own.mac, vswitch.EtherTypeARP, arp(2, own.mac, own.ip4, me.ip4)[:20]),
			DropMalformed},
		{"an advertisement for another",
			ethernet(me.mac, own.mac, ip6, icmp6(own.ip6, me.ip6, ndNeighbourAdvert, other6[:]...)), DropSourceAddr},
		{"a router advertisement", ethernet(me.mac, own.mac, ip6, icmp6(own.ip6, me.ip6, ndRouterAdvert)),
			DropConfiguration},
		{"a redirect", ethernet(me.mac, own.mac, ip6, icmp6(own.ip6, me.ip6, ndRedirect)), DropConfiguration},
		{"a redirect over IPv4", ethernet(me.mac, own.mac, ip4,
			ipPacket(own.ip4, me.ip4, packet.ProtoICMP, []byte{5, 0, 0, 0})), DropConfiguration},
		{"a DHCP server's message", ethernet(me.mac, own.mac, ip4, ipPacket(own.ip4, me.ip4, 17, dhcp)),
			DropConfiguration},
		{"a tag", ethernet(me.mac, own.mac, 0x8100, []byte{0, 1, 8, 0}), DropVLAN},
		{"a packet that is cut", ethernet(me.mac, own.mac, ip4, ipPacket(own.ip4, me.ip4, 17, data)[:24]),
			DropMalformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := a.link.Drops()
			var j joiner
			j.deliver(a.link, pb, test.frame, 0)
			j.flush()
			got, after := me.take(), a.link.Drops()
			if test.want == pass {
				if len(got) != 1 || !bytes.HasPrefix(test.frame[14:], got[0].payload) {
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

func TestDatagramsThatAreNoFrames(t *testing.T) {
	a, b := newSide(t, hostA, 2), newSide(t, hostB, 3)
	meet(t, a, b)
	send := func(b2 []byte) {
		if _, err := b.fabric.sockets[0].conn.WriteToUDPAddrPort(b2, a.fabric.Addrs()[0]); err != nil {
			t.Fatal(err)
		}
	}
	vx := func(vni uint32, rest int) []byte {
		p := make([]byte, vxlanHeaderLen+rest)
		putVXLAN(p, vni)
		return p
	}
	gbp := vx(testVNI, 60)
	gbp[0] |= 0x80
	for _, test := range []struct {
		name string
		b    []byte
		want Reason
	}{
		{"one byte", []byte{8}, DropNotVXLAN},
		{"a header without a frame", vx(testVNI, 13), DropNotVXLAN},
		{"an extension", gbp, DropNotVXLAN},
		{"a handshake without a key here", append([]byte{1, 0, 0, 0}, make([]byte, 144)...), DropNotVXLAN},
		{"of no network", vx(testVNI+1, 60), DropUnknownVNI},
		{"a control message of no kind", vx(controlVNI, 60), DropMalformed},
	} {
		before := a.fabric.Drops()[test.want]
		send(test.b)
		waitFor(t, "count for "+test.name, func() bool { return a.fabric.Drops()[test.want] == before+1 })
	}
	c := newSide(t, hostC, 4) // nobody has told a of it
	if err := c.fabric.SetPeers([]Peer{a.peer()}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "count for a stranger", func() bool { return a.fabric.Drops()[DropUnknownPeer] > 0 })
}

// TestAddressResolutionIsAnsweredFromTheEntries asks for a container on another host: the answer comes from this one.
func TestAddressResolutionIsAnsweredFromTheEntries(t *testing.T) {
	a, b := newSide(t, hostA, 2), newSide(t, hostB, 3)
	meet(t, a, b)
	everyone := overlay.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	a.guest.port.Receive(frame(everyone, a.guest.mac, vswitch.EtherTypeARP,
		arp(1, a.guest.mac, a.guest.ip4, b.guest.ip4)))
	got := a.guest.take()
	want := arp(2, b.guest.mac, b.guest.ip4, a.guest.ip4)
	copy(want[18:], a.guest.mac[:])
	if len(got) != 1 || !bytes.Equal(got[0].payload, want) || overlay.MAC(got[0].eth[:6]) != a.guest.mac {
		t.Fatalf("the answer is %v", got)
	}
	target := b.guest.ip6.As16()
	group := netip.MustParseAddr("ff02::1:ff00:3")
	solicitation := icmp6(a.guest.ip6, group, ndNeighbourSolicitation, target[:]...)
	solicitation[7] = ndHopLimit
	a.guest.port.Receive(frame(overlay.MAC{0x33, 0x33, 0xff, 0, 0, 3}, a.guest.mac, vswitch.EtherTypeIPv6,
		solicitation))
	got = a.guest.take()
	if len(got) != 1 {
		t.Fatalf("%d answers", len(got))
	}
	p := got[0].payload
	h, ok := parseInner(vswitch.EtherTypeIPv6, p)
	if !ok || p[h.l4] != ndNeighbourAdvert || p[7] != ndHopLimit || !bytes.Equal(p[h.l4+8:h.l4+24], target[:]) ||
		!bytes.Equal(p[h.l4+26:h.l4+32], b.guest.mac[:]) {
		t.Errorf("the answer is %x", p)
	}
	// A request for the gateway, for an unknown address, and router solicitations go nowhere.
	unknown := netip.MustParseAddr("10.9.0.77")
	for _, f := range []*vswitch.Frame{
		frame(everyone, a.guest.mac, vswitch.EtherTypeARP, arp(1, a.guest.mac, a.guest.ip4, gatewayAddr)),
		frame(everyone, a.guest.mac, vswitch.EtherTypeARP, arp(1, a.guest.mac, a.guest.ip4, unknown)),
		frame(overlay.MAC{0x33, 0x33, 0, 0, 0, 2}, a.guest.mac, vswitch.EtherTypeIPv6,
			icmp6(a.guest.ip6, netip.MustParseAddr("ff02::2"), ndRouterSolicitation)),
	} {
		a.guest.port.Receive(f)
	}
	if n := a.fabric.hosts[hostB].out.frames.Load(); n != 0 {
		t.Errorf("%d frames crossed", n)
	}
	if got := b.guest.take(); len(got) != 0 {
		t.Errorf("%d frames arrived", len(got))
	}
}

// TestBroadcastGoesToTheHostsOfTheNetwork sends to all: each other host gets it once, and none sends it on.
func TestBroadcastGoesToTheHostsOfTheNetwork(t *testing.T) {
	a, b, c := newSide(t, hostA, 2), newSide(t, hostB, 3), newSide(t, hostC, 4)
	meet(t, a, b, c)
	a.entries(t, b.entry()) // c has no endpoint, and is no member
	p := ipPacket(a.guest.ip4, netip.MustParseAddr("10.9.0.255"), 17, udpDatagram([]byte("all")))
	everyone := overlay.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	a.guest.port.Receive(frame(everyone, a.guest.mac, vswitch.EtherTypeIPv4, p))
	if got := b.guest.await(t, 1); len(got) != 1 || !bytes.Equal(got[0].payload, p) {
		t.Errorf("%v arrived", got)
	}
	if n := a.fabric.hosts[hostC].out.frames.Load(); n != 0 {
		t.Errorf("%d frames went to a host that is not in the network", n)
	}
	if b.fabric.hosts[hostC].out.frames.Load()+b.fabric.hosts[hostA].out.frames.Load() != 0 {
		t.Error("it was sent on")
	}
}

// staysAt has a path MTU be known, and no larger one tried.
func (p *peer) staysAt(t *testing.T, mtu int32) {
	t.Helper()
	waitFor(t, "answer of the other host", func() bool { return p.isAlive(time.Now()) })
	p.probing.Lock()
	defer p.probing.Unlock()
	p.probes.mtu.forget()
	p.probes.mtu.raise = time.Now().Add(time.Hour)
	p.pathMTU.Store(mtu)
}

// TestWhatDoesNotFitThePath is about packets that are larger than a peer's path.
func TestWhatDoesNotFitThePath(t *testing.T) {
	a, b := newSide(t, hostA, 2), newSide(t, hostB, 3)
	meet(t, a, b)
	a.fabric.hosts[hostB].staysAt(t, 1000)
	const inside = 1000 - 28 - encapLen
	big := pattern(1400)
	send := func(et uint16, p []byte) {
		a.guest.port.Receive(frame(b.guest.mac, a.guest.mac, et, p))
	}
	t.Run("a datagram with DF: the sender is told", func(t *testing.T) {
		p := ipPacket(a.guest.ip4, b.guest.ip4, 17, udpDatagram(big))
		send(vswitch.EtherTypeIPv4, p)
		got := a.guest.take()
		if len(got) != 1 {
			t.Fatalf("%d answers", len(got))
		}
		m := got[0].payload
		if m[9] != packet.ProtoICMP || m[20] != 3 || m[21] != 4 || int(binary.BigEndian.Uint16(m[26:])) != inside {
			t.Errorf("the answer is %x", m)
		}
		if netip.AddrFrom4([4]byte(m[12:16])) != gatewayAddr || !bytes.HasPrefix(p, m[28:]) {
			t.Errorf("from %v, about %x", m[12:16], m[28:])
		}
	})
	t.Run("one over IPv6: likewise", func(t *testing.T) {
		p := ipPacket(a.guest.ip6, b.guest.ip6, 17, udpDatagram(big))
		send(vswitch.EtherTypeIPv6, p)
		got := a.guest.take()
		if len(got) != 1 || got[0].payload[40] != 2 || int(binary.BigEndian.Uint32(got[0].payload[44:])) != inside {
			t.Fatalf("the answer is %v", got)
		}
	})
	t.Run("one without DF: it is fragmented", func(t *testing.T) {
		p := ipPacket(a.guest.ip4, b.guest.ip4, 17, udpDatagram(big))
		p[6] = 0
		sumIPv4(p[:20])
		send(vswitch.EtherTypeIPv4, p)
		got := b.guest.await(t, 2)
		body := make([]byte, 8+len(big))
		for _, r := range got {
			at := int(binary.BigEndian.Uint16(r.payload[6:])&0x1fff) * 8
			copy(body[at:], r.payload[20:])
			if len(r.payload) > inside {
				t.Errorf("a fragment of %d bytes", len(r.payload))
			}
		}
		if !bytes.Equal(body, p[20:]) {
			t.Error("the fragments are another datagram")
		}
	})
	t.Run("TCP: it is cut", func(t *testing.T) {
		send(vswitch.EtherTypeIPv4, tcp4(a.guest.ip4, b.guest.ip4, 9, big))
		var got []received
		n := 0
		waitFor(t, "data", func() bool {
			for _, r := range b.guest.take() {
				got = append(got, r)
				n += len(r.payload) - 40
			}
			return n == len(big)
		})
		if !bytes.Equal(reassemble(t, got, vswitch.EtherTypeIPv4), big) {
			t.Error("other data arrived")
		}
	})
}

// TestUnfinishedChecksums is about frames of a kernel whose network card was to make the checksum.
func TestUnfinishedChecksums(t *testing.T) {
	a, b := newSide(t, hostA, 2), newSide(t, hostB, 3)
	meet(t, a, b)
	pb := a.fabric.hosts[hostB]
	p := tcp4(b.guest.ip4, a.guest.ip4, 1, []byte("data"))
	h, _ := parseInner(vswitch.EtherTypeIPv4, p)
	super(frame(a.guest.mac, b.guest.mac, vswitch.EtherTypeIPv4, p), 100) // leaves the sum of the pseudo header
	var j joiner
	j.deliver(a.link, pb, ethernet(a.guest.mac, b.guest.mac, vswitch.EtherTypeIPv4, p), 0)
	j.flush()
	got := a.guest.take()
	if len(got) != 1 || !got[0].virtio.NeedsChecksum || int(got[0].virtio.ChecksumStart) != 14+h.l4 ||
		got[0].virtio.ChecksumOffset != tcpCheck {
		t.Errorf("%+v", got)
	}
	// One that is wrong stays wrong: it is not joined, nor made good.
	first, second := tcp4(b.guest.ip4, a.guest.ip4, 1, pattern(100)), tcp4(b.guest.ip4, a.guest.ip4, 101, pattern(100))
	second[h.l4+tcpCheck] ^= 0x55
	for _, p := range [][]byte{first, second} {
		j.deliver(a.link, pb, ethernet(a.guest.mac, b.guest.mac, vswitch.EtherTypeIPv4, p), 0)
	}
	j.flush()
	got = a.guest.take()
	if len(got) != 2 || got[1].virtio.NeedsChecksum || !bytes.Equal(got[1].payload, second) {
		t.Errorf("%+v", got)
	}
}

// TestTheHotPathsAllocateNothing: a super-frame out, and segments in.
func TestTheHotPathsAllocateNothing(t *testing.T) {
	a, b := newSide(t, hostA, 2), newSide(t, hostB, 3)
	meet(t, a, b)
	out := super(frame(b.guest.mac, a.guest.mac, vswitch.EtherTypeIPv4,
		tcp4(a.guest.ip4, b.guest.ip4, 1, pattern(60000))), 1400)
	small := frame(b.guest.mac, a.guest.mac, vswitch.EtherTypeIPv4, tcp4(a.guest.ip4, b.guest.ip4, 1, nil))
	small.MorePending = true
	b.link.Stop() // counts what comes, and does no more
	if n := testing.AllocsPerRun(200, func() {
		_ = a.link.WriteFrame(out)
		_ = a.link.WriteFrame(small)
		a.link.Flush()
	}); n > 0.5 && !raceEnabled {
		t.Errorf("a frame out allocates %v times", n)
	}
	var segments [][]byte
	data := pattern(1400)
	for i := range 20 {
		p := tcp4(b.guest.ip4, a.guest.ip4, uint32(1+i*len(data)), data)
		segments = append(segments, ethernet(a.guest.mac, b.guest.mac, vswitch.EtherTypeIPv4, p))
	}
	pb := a.fabric.hosts[hostB]
	a.guest.port.Close()
	var j joiner
	work := make([]byte, 1<<16)
	if n := testing.AllocsPerRun(200, func() {
		at := 0
		for _, s := range segments {
			c := work[at : at+copy(work[at:], s)]
			at += len(c)
			j.deliver(a.link, pb, c, 0)
		}
		j.flush()
	}); n > 0.5 && !raceEnabled {
		t.Errorf("frames in allocate %v times", n)
	}
}

// FuzzInward gives the receiving side what a hostile host may send: it neither panics, nor does anything but frames
// from the host's own endpoint reach the container.
func FuzzInward(f *testing.F) {
	a := &Fabric{hosts: map[overlay.HostID]*peer{}}
	a.state.Store(&state{})
	a.cfg.Host = hostA
	l, err := a.Open(NetworkConfig{Name: "ov", VNI: testVNI, GatewayMAC: gatewayMAC,
		Gateways: []netip.Addr{gatewayAddr, gateway6}})
	if err != nil {
		f.Fatal(err)
	}
	sw := vswitch.New(vswitch.Config{})
	port, err := sw.Connect(l.PortConfig(), l)
	if err != nil {
		f.Fatal(err)
	}
	l.port.Store(port)
	me := &guest{mac: overlay.MAC{2, 0x42, 10, 9, 0, 2}}
	if _, err = sw.Connect(vswitch.PortConfig{Name: "c", MAC: me.mac[:]}, me); err != nil {
		f.Fatal(err)
	}
	own := Entry{MAC: overlay.MAC{2, 0x42, 10, 9, 0, 3},
		Addrs: []netip.Addr{netip.MustParseAddr("10.9.0.3"), netip.MustParseAddr("fd09::3")}, Host: hostB}
	if _, err := l.SetEntries([]Entry{own}); err != nil {
		f.Fatal(err)
	}
	src, dst := own.Addrs[0], netip.MustParseAddr("10.9.0.2")
	f.Add(ethernet(me.mac, own.MAC, vswitch.EtherTypeIPv4, tcp4(src, dst, 1, []byte("data"))), uint16(0))
	f.Add(ethernet(me.mac, own.MAC, vswitch.EtherTypeIPv4, ipPacket(src, dst, 17, udpDatagram(pattern(100)))),
		uint16(20))
	f.Add(ethernet(me.mac, own.MAC, vswitch.EtherTypeARP, arp(1, own.MAC, src, dst)), uint16(0))
	f.Add(ethernet(me.mac, own.MAC, vswitch.EtherTypeIPv6, icmp6(own.Addrs[1], own.Addrs[1], 135)), uint16(0))
	pb := a.hosts[hostB]
	f.Fuzz(func(t *testing.T, b []byte, segment uint16) {
		datagram := append(make([]byte, vxlanHeaderLen), b...)
		putVXLAN(datagram, testVNI)
		_ = VXLAN.tunnelled(datagram, int(segment))
		_, fr, ok := parseVXLAN(datagram)
		if !ok {
			return
		}
		second := bytes.Clone(fr)
		var j joiner
		j.deliver(l, pb, fr, int(segment))
		j.deliver(l, pb, second, 0)
		j.flush()
		for _, r := range me.take() {
			if overlay.MAC(r.eth[6:12]) != own.MAC {
				t.Errorf("a frame from %x came in", r.eth[6:12])
			}
		}
	})
}

// TestThePathOfARelayedPeer is that to the relay, whatever the kernel knows of the peer's own address: behind two NATs
// with the same inside, that is this host's.
func TestThePathOfARelayedPeer(t *testing.T) {
	a, b, c := newSide(t, hostA, 2), newSide(t, hostB, 3), newSide(t, hostC, 4)
	meet(t, a, b, c)
	peer, relay := a.fabric.hosts[hostB], a.fabric.hosts[hostC]
	peer.pathMTU.Store(1<<16 - 1) // of lo
	relay.pathMTU.Store(1400)
	peer.via.Store(relay)
	if s := peer.describe(); s.Path != Relayed || s.Relay != hostC || s.PathMTU != 1400 {
		t.Errorf("path %v by %s with an MTU of %d", s.Path, s.Relay, s.PathMTU)
	}
}
