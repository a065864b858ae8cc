package fabric

import (
	"net"
	"net/netip"
	"testing"

	vswitch "github.com/usernet/usernet/switch"
)

// TestHostsThatAreVXLANDevices has frames come from the address of a host and any port, as the kernel sends them, and
// count only from the host that the entries name.
func TestHostsThatAreVXLANDevices(t *testing.T) {
	s := newSideAt(t, Config{Host: hostA, Listen: netip.MustParseAddrPort("127.0.0.1:0"), Devices: true}, 2)
	b := &guest{mac: [6]byte{2, 0x42, 10, 9, 0, 3}, ip4: netip.MustParseAddr("10.9.0.3")}
	c := &guest{mac: [6]byte{2, 0x42, 10, 9, 0, 4}, ip4: netip.MustParseAddr("10.9.0.4")}
	device, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.2:0")))
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	err = s.fabric.SetPeers([]Peer{
		{Host: hostB, Addrs: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), 4789)}},
		{Host: hostC, Addrs: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.3"), 4789)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.entries(t, Entry{MAC: b.mac, Addrs: []netip.Addr{b.ip4}, Host: hostB},
		Entry{MAC: c.mac, Addrs: []netip.Addr{c.ip4}, Host: hostC})
	send := func(from *guest) {
		t.Helper()
		f := frame(s.guest.mac, from.mac, vswitch.EtherTypeIPv4, tcp4(from.ip4, s.guest.ip4, 1, []byte("x")))
		datagram := append([]byte{8, 0, 0, 0, testVNI >> 16, testVNI >> 8 & 0xff, testVNI & 0xff, 0}, f.Ethernet()...)
		datagram = append(datagram, f.Payload[0]...)
		if _, err := device.WriteToUDPAddrPort(datagram, s.fabric.Addrs()[0]); err != nil {
			t.Fatal(err)
		}
	}
	send(c) // which is at another host
	send(b)
	if got := s.guest.await(t, 1); len(got) != 1 || [6]byte(got[0].eth[6:12]) != b.mac {
		t.Errorf("the container got %+v", got)
	}
	if n := s.link.Drops()[DropSourceMAC]; n != 1 {
		t.Errorf("%d frames of another host's endpoint are dropped: %v", n, s.link.Drops())
	}
}
