package fabric

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/usernet/usernet/overlay"
	vswitch "github.com/usernet/usernet/switch"
)

// TestForeignEntries: what a control plane tells of is not learned, counts from its peer only, is answered for, and is
// replaced by what is told next.
func TestForeignEntries(t *testing.T) {
	a := newSide(t, hostA, 2, func(c *NetworkConfig) { c.Told = true })
	one, two := netip.MustParseAddrPort("127.0.0.2:4789"), netip.MustParseAddrPort("127.0.0.3:4789")
	known, unknown := overlay.MAC{2, 0x42, 10, 9, 0, 7}, overlay.MAC{2, 9, 9, 9, 9, 9}
	addr, more := netip.MustParseAddr("10.9.0.7"), netip.MustParseAddr("10.9.0.8")
	tell := func(peers []netip.AddrPort, entries ...ForeignEntry) {
		t.Helper()
		macs, err := a.link.SetForeign(peers, entries)
		if err != nil {
			t.Fatal(err)
		}
		a.sw.SetStatic(a.link.port.Load(), macs)
	}
	tell([]netip.AddrPort{one}, ForeignEntry{MAC: known, Addrs: []netip.Addr{addr, gatewayAddr}, Peer: two},
		ForeignEntry{MAC: overlay.MAC(gatewayMAC), Peer: one})
	peer := func(p netip.AddrPort) *peer { return a.fabric.state.Load().byIP[p.Addr()] }
	data := udpDatagram([]byte("x"))
	from := func(mac overlay.MAC, ip netip.Addr) []byte {
		return ethernet(a.guest.mac, mac, vswitch.EtherTypeIPv4, ipPacket(ip, a.guest.ip4, 17, data))
	}
	for _, test := range []struct {
		name  string
		peer  netip.AddrPort
		frame []byte
		want  Reason
	}{
		{"known, from its peer", two, from(known, addr), pass},
		{"known, from an address that nobody told of", two, from(known, more), pass},
		{"known, from another peer", one, from(known, addr), DropSourceMAC},
		{"unknown, from a peer that takes frames to all", one, from(unknown, more), pass},
		{"unknown, from a peer that does not", two, from(unknown, more), DropSourceMAC},
		{"unknown, with an address that is known", one, from(unknown, addr), DropSourceAddr},
	} {
		p, before := peer(test.peer), a.link.Drops()
		if p == nil {
			t.Fatalf("%s: no peer %v", test.name, test.peer)
		}
		var j joiner
		j.deliver(a.link, p, test.frame, 0)
		j.flush()
		after := a.link.Drops()
		if passed := len(a.guest.take()) == 1; passed != (test.want == pass) ||
			test.want != pass && after[test.want] != before[test.want]+1 {
			t.Errorf("%s: passed %v, drops %v, want %v", test.name, passed, after, test.want)
		}
	}
	if a.link.learned.find(unknown) != peer(one) || a.link.learned.find(known) != nil {
		t.Error("what is unknown is not learned, or what is known is")
	}
	// A question for what is known is answered here.
	_ = a.link.WriteFrame(frame(overlay.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, a.guest.mac, vswitch.EtherTypeARP,
		arp(arpRequest, a.guest.mac, a.guest.ip4, addr)))
	got := a.guest.await(t, 1)
	if len(got[0].payload) < arpLen || binary.BigEndian.Uint16(got[0].payload[6:]) != arpReply ||
		overlay.MAC(got[0].payload[8:14]) != known {
		t.Errorf("the answer: % x", got[0].payload)
	}
	tell([]netip.AddrPort{two}, ForeignEntry{MAC: known, Peer: two})
	if peer(one) != nil || a.link.learned.find(unknown) != nil {
		t.Error("a peer that is told of no more is there, or what was learned behind it")
	}
	if _, err := a.link.SetForeign([]netip.AddrPort{netip.MustParseAddrPort("239.1.1.1:1"), one}, nil); err == nil ||
		peer(one) == nil {
		t.Errorf("a group as a peer: %v, or the others do not count", err)
	}
	if err := a.link.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.link.SetForeign(nil, nil); err == nil {
		t.Error("a closed link takes entries")
	}
}
