package fabric

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/seal"
	vswitch "github.com/usernet/usernet/switch"
)

// TestWireguardPeer is a host that has nothing of usernet: wireguard-go, and over it a kernel's VXLAN device. What is
// sealed is WireGuard, and what is in it is VXLAN.
func TestWireguardPeer(t *testing.T) {
	var own *netns
	there := newNetns(t)
	veth(t, own, there, "u0", "u1", 1500)
	t.Cleanup(func() { own.ip(t, "link del u0") })
	own.ip(t, "addr add 10.99.0.1/24 dev u0")
	there.ip(t, "addr add 10.99.0.2/24 dev u1")

	key, theirs := seal.NewKey(), seal.NewKey()
	inside, insideThere := seal.Addr(key.Public()), seal.Addr(theirs.Public())
	f, err := New(Config{Host: hostA, Listen: netip.AddrPortFrom(netip.IPv4Unspecified(), DefaultPort), Key: key})
	must(t, err)
	t.Cleanup(func() { must(t, f.Close()) })
	startWireguard(t, there, "wireguard-go", base64.StdEncoding.EncodeToString(theirs[:]),
		fmt.Sprintf("peer %v allowed-ips %v/128 endpoint 10.99.0.1:%d", key.Public(), inside, DefaultPort))
	there.ip(t,
		fmt.Sprintf("addr add %v/128 dev wg0 nodad", insideThere), "link set wg0 mtu 1440 up",
		fmt.Sprintf("route add %v/128 dev wg0", inside),
		fmt.Sprintf("link add vx0 mtu 1370 type vxlan id %d local %v remote %v dstport %d udp6zerocsumrx", testVNI, insideThere, inside, DefaultPort),
		"addr add 10.9.0.99/24 dev vx0", "addr add fd09::99/64 dev vx0 nodad", "link set vx0 up")
	var mac overlay.MAC
	_, text, _ := strings.Cut(there.run(t, "ip", "-o", "link", "show", "vx0"), "link/ether ")
	must(t, mac.UnmarshalText([]byte(strings.Fields(text)[0])))

	mtu := InnerMTU(1500, false, true)
	if mtu != 1370 {
		t.Errorf("the MTU inside is %d", mtu)
	}
	sw := vswitch.New(vswitch.Config{Name: "ov", MTU: mtu})
	t.Cleanup(func() { _ = sw.Close() })
	l := plug(t, f, sw, NetworkConfig{Name: "ov", VNI: testVNI, MTU: mtu, Sealed: true, GatewayMAC: gatewayMAC,
		Gateways: []netip.Addr{gatewayAddr}})
	must(t, f.SetPeers([]Peer{{Host: hostB, Addrs: []netip.AddrPort{netip.MustParseAddrPort("10.99.0.2:51820")},
		Key: theirs.Public()}}))
	addrs := []netip.Addr{netip.MustParseAddr("10.9.0.99"), netip.MustParseAddr("fd09::99")}
	macs, err := l.SetEntries([]Entry{{MAC: mac, Addrs: addrs, Host: hostB}})
	must(t, err)
	waitFor(t, "port", func() bool { return l.port.Load() != nil })
	sw.SetStatic(l.port.Load(), macs)
	c := newStation(t, sw, 2, mtu)
	defer func() { t.Logf("link drops %v, fabric drops %v, peers %+v", l.Drops(), f.Drops(), f.Peers()) }()
	for i := range addrs {
		stream(t, c.netns, there, addrs[i], 4<<20)
		stream(t, there, c.netns, c.addrs[i], 4<<20)
	}
}

// TestRelay has two hosts that know only dead addresses of each other, and a third that reaches both.
func TestRelay(t *testing.T) {
	t.Parallel()
	a, b, r := newSealedSide(t, hostA, 2), newSealedSide(t, hostB, 3), newSealedSide(t, hostC, 4)
	dead := func(s *side) Peer {
		p := s.peer()
		p.Addrs = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9")}
		return p
	}
	entries := []Entry{a.entry(), b.entry(), r.entry()}
	must(t, r.fabric.SetPeers([]Peer{a.peer(), b.peer()}))
	must(t, a.fabric.SetPeers([]Peer{dead(b), r.peer()}))
	must(t, b.fabric.SetPeers([]Peer{dead(a), r.peer()}))
	for _, s := range []*side{a, b, r} {
		s.entries(t, entries...)
	}
	relayed := func(s *side, other overlay.HostID) bool {
		for _, p := range s.fabric.Peers() {
			if p.Host == other {
				return p.Alive && p.Path == Relayed && p.Relay == hostC
			}
		}
		return false
	}
	waitFor(t, "relay", func() bool { return relayed(a, hostB) && relayed(b, hostA) })
	data := pattern(30000)
	a.guest.port.Receive(super(frame(b.guest.mac, a.guest.mac, vswitch.EtherTypeIPv4,
		tcp4(a.guest.ip4, b.guest.ip4, 5, data)), 1300))
	var got []received
	waitFor(t, "all data", func() bool {
		got = append(got, b.guest.take()...)
		n := 0
		for _, f := range got {
			n += len(f.payload) - 40
		}
		return n == len(data)
	})
	if string(reassemble(t, got, vswitch.EtherTypeIPv4)) != string(data) {
		t.Error("other data arrived")
	}
	if n := len(r.guest.take()); n > 0 {
		t.Errorf("the relay's container got %d frames", n)
	}
	// Once there is a way of their own they take it.
	must(t, a.fabric.SetPeers([]Peer{b.peer(), r.peer()}))
	must(t, b.fabric.SetPeers([]Peer{a.peer(), r.peer()}))
	waitFor(t, "direct way", func() bool {
		for _, p := range a.fabric.Peers() {
			if p.Host == hostB {
				return p.Alive && p.Path == Direct
			}
		}
		return false
	})
	// The relay has not the key of what it passes on: to its network nothing came.
	if n := r.link.Drops()[DropSourceMAC]; n > 0 {
		t.Errorf("the relay opened %d frames", n)
	}
}

// TestRelayThatEnds has a pair without a way of its own and two hosts that pass messages on for it. The pair goes on by
// the second when the first has ended, long before it tries the direct way again.
func TestRelayThatEnds(t *testing.T) {
	t.Parallel()
	a, b := newSealedSide(t, hostA, 2), newSealedSide(t, hostB, 3)
	relays := map[overlay.HostID]*side{hostC: newSealedSide(t, hostC, 4), hostD: newSealedSide(t, hostD, 5)}
	dead := func(s *side) Peer {
		p := s.peer()
		p.Addrs = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9")}
		return p
	}
	all := []Peer{relays[hostC].peer(), relays[hostD].peer()}
	for _, r := range relays {
		must(t, r.fabric.SetPeers([]Peer{a.peer(), b.peer()}))
	}
	must(t, a.fabric.SetPeers(append(all, dead(b))))
	must(t, b.fabric.SetPeers(append(all, dead(a))))
	// by is the relay that a side reaches the other one by; "": by none.
	by := func(s *side, other overlay.HostID) overlay.HostID {
		for _, p := range s.fabric.Peers() {
			if p.Host == other && p.Alive && p.Path == Relayed && time.Since(p.Answered) < 2*probeEvery {
				return p.Relay
			}
		}
		return ""
	}
	waitFor(t, "relay", func() bool { return by(a, hostB) != "" && by(b, hostA) != "" })
	waitFor(t, "way back by the same relay", func() bool { return by(a, hostB) == by(b, hostA) })
	first := by(a, hostB)
	for s, other := range map[*side]overlay.HostID{a: hostB, b: hostA} {
		p := s.fabric.state.Load().byHost[other]
		p.probing.Lock()
		p.probes.directAt = time.Now().Add(time.Hour)
		p.probing.Unlock()
	}
	must(t, relays[first].fabric.Close())
	ended := time.Now()
	waitFor(t, "another relay", func() bool {
		ra, rb := by(a, hostB), by(b, hostA)
		return ra != "" && ra != first && rb != "" && rb != first
	})
	t.Logf("another one after %v", time.Since(ended))
}

// translator is a NAT with one host behind it: what the host sends to front leaves from back, to the address of another
// host.
func translator(t *testing.T, to netip.AddrPort) (front, back netip.AddrPort) {
	t.Helper()
	var sockets [2]*net.UDPConn
	for i := range sockets {
		var err error
		sockets[i], err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		must(t, err)
	}
	var behind atomic.Pointer[netip.AddrPort]
	var wg sync.WaitGroup
	pump := func(from, out *net.UDPConn, dst func(netip.AddrPort) *netip.AddrPort) {
		buf := make([]byte, 1<<16)
		for {
			n, src, err := from.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if d := dst(src); d != nil {
				_, _ = out.WriteToUDPAddrPort(buf[:n], *d)
			}
		}
	}
	wg.Go(func() {
		pump(sockets[0], sockets[1], func(src netip.AddrPort) *netip.AddrPort { behind.Store(&src); return &to })
	})
	wg.Go(func() { pump(sockets[1], sockets[0], func(netip.AddrPort) *netip.AddrPort { return behind.Load() }) })
	t.Cleanup(func() {
		_ = sockets[0].Close()
		_ = sockets[1].Close()
		wg.Wait()
	})
	return sockets[0].LocalAddr().(*net.UDPAddr).AddrPort(), sockets[1].LocalAddr().(*net.UDPAddr).AddrPort()
}

// TestAHostBehindNAT is known by an address that leads nowhere, and reaches the other one itself: that one answers
// where it sees the host, and tells it.
func TestAHostBehindNAT(t *testing.T) {
	a, b := newSealedSide(t, hostA, 2), newSealedSide(t, hostB, 3)
	front, back := translator(t, b.fabric.Addrs()[0])
	pa, pb := a.peer(), b.peer()
	pa.Addrs = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9")}
	pb.Addrs = []netip.AddrPort{front}
	must(t, b.fabric.SetPeers([]Peer{pa}))
	must(t, a.fabric.SetPeers([]Peer{pb}))
	a.entries(t, b.entry())
	b.entries(t, a.entry())
	waitFor(t, "way through the NAT", func() bool {
		p, q := a.fabric.Peers()[0], b.fabric.Peers()[0]
		return p.Alive && q.Alive && q.Path == Punched && q.Addr == back && p.SeenAs == back
	})
	p := tcp4(b.guest.ip4, a.guest.ip4, 1, []byte("through"))
	b.guest.port.Receive(frame(a.guest.mac, b.guest.mac, vswitch.EtherTypeIPv4, p))
	if got := a.guest.await(t, 1); string(got[0].payload) != string(p) {
		t.Errorf("%x arrived", got[0].payload)
	}
}
