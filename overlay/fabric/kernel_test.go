package fabric

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	vswitch "github.com/usernet/usernet/switch"
)

// kernelWorld is a fabric in the test's namespace with one container, and a kernel's VXLAN device in another.
type kernelWorld struct {
	fabric    *Fabric
	link      *Link
	container *station
	kernel    *netns
	kernel4   netip.Addr // of the VXLAN device
	kernel6   netip.Addr
}

func newKernelWorld(t testing.TB, v6 bool, mtu int) *kernelWorld {
	t.Helper()
	w := &kernelWorld{kernel: newNetns(t), kernel4: netip.MustParseAddr("10.9.0.99"),
		kernel6: netip.MustParseAddr("fd09::99")}
	var own *netns
	veth(t, own, w.kernel, "u0", "u1", mtu)
	t.Cleanup(func() { own.ip(t, "link del u0") })
	own.ip(t, "addr add 10.99.0.1/24 dev u0", "addr add fd99::1/64 dev u0 nodad")
	w.kernel.ip(t, "addr add 10.99.0.2/24 dev u1", "addr add fd99::2/64 dev u1 nodad")
	local, remote, overhead := "10.99.0.2", "10.99.0.1", 50
	if v6 {
		local, remote, overhead = "fd99::2", "fd99::1", 70
	}
	w.kernel.ip(t,
		fmt.Sprintf("link add vx0 mtu %d type vxlan id %d local %s remote %s dstport %d", mtu-overhead, testVNI, local, remote, DefaultPort),
		fmt.Sprintf("addr add %v/24 dev vx0", w.kernel4), fmt.Sprintf("addr add %v/64 dev vx0 nodad", w.kernel6),
		"link set vx0 up")

	var err error
	w.fabric, err = New(Config{Host: hostA, Listen: netip.AddrPortFrom(netip.IPv6Unspecified(), DefaultPort)})
	must(t, err)
	t.Cleanup(func() { must(t, w.fabric.Close()) })
	sw := vswitch.New(vswitch.Config{Name: "ov", MTU: mtu - overhead})
	t.Cleanup(func() { _ = sw.Close() })
	w.link = plug(t, w.fabric, sw, NetworkConfig{
		Name:       "ov",
		VNI:        testVNI,
		MTU:        mtu - overhead,
		GatewayMAC: gatewayMAC,
		Gateways:   []netip.Addr{gatewayAddr, gateway6},
		Foreign:    []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(local), 0)},
	})
	w.container = newStation(t, sw, 2, mtu-overhead)
	return w
}

func (w *kernelWorld) report(t testing.TB) {
	t.Logf("link drops %v, fabric drops %v, peers %+v", w.link.Drops(), w.fabric.Drops(), w.fabric.Peers())
}

func TestKernelPeer(t *testing.T) {
	for _, test := range []struct {
		name   string
		v6     bool
		tx     string // checksum offload of the veth
		mtu    int
		number int
	}{
		{"over IPv4", false, "on", 1500, 0},
		{"over IPv4 with checksums made by the kernel", false, "off", 1500, 1},
		{"over IPv6", true, "on", 1500, 2},
		{"in jumbo frames", false, "on", 9000, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newKernelWorld(t, test.v6, test.mtu)
			if test.tx == "off" {
				w.kernel.run(t, "ethtool", "-K", "u1", "tx", "off")
				(*netns)(nil).run(t, "ethtool", "-K", "u0", "tx", "off")
			}
			defer w.report(t)
			for _, family := range []struct {
				name              string
				container, kernel netip.Addr
			}{{"IPv4", w.container.addrs[0], w.kernel4}, {"IPv6", w.container.addrs[1], w.kernel6}} {
				t.Run("streams over "+family.name, func(t *testing.T) {
					stream(t, w.container.netns, w.kernel, family.kernel, 4<<20)
					stream(t, w.kernel, w.container.netns, family.container, 4<<20)
				})
			}
			t.Run("datagrams in super-frames", func(t *testing.T) {
				burstOfDatagrams(t, w.container.netns, w.kernel, w.kernel4)
				burstOfDatagrams(t, w.kernel, w.container.netns, w.container.addrs[0])
				burstOfDatagrams(t, w.container.netns, w.kernel, w.kernel6)
				burstOfDatagrams(t, w.kernel, w.container.netns, w.container.addrs[1])
			})
			t.Run("datagrams of 64 KiB and broadcast", func(t *testing.T) {
				datagrams(t, w.container.netns, w.kernel, w.kernel4, w.kernel4, 60000)
				datagrams(t, w.kernel, w.container.netns, w.container.addrs[0], w.container.addrs[0], 60000)
				everyone := netip.MustParseAddr("10.9.0.255")
				datagrams(t, w.container.netns, w.kernel, everyone, netip.IPv4Unspecified(), 100)
				datagrams(t, w.kernel, w.container.netns, everyone, netip.IPv4Unspecified(), 100)
			})
		})
	}
}

// datagrams sends datagrams of size bytes until one arrives as it was sent.
func datagrams(t testing.TB, from, to *netns, addr, bind netip.Addr, size int) {
	t.Helper()
	var c net.PacketConn
	must(t, to.in(func() (err error) {
		c, err = net.ListenPacket("udp4", netip.AddrPortFrom(bind, 7777).String())
		return err
	}))
	defer c.Close()
	var s net.Conn
	must(t, from.in(func() (err error) {
		s, err = net.Dial("udp4", netip.AddrPortFrom(addr, 7777).String())
		return err
	}))
	defer s.Close()
	sent := pattern(size)
	buf := make([]byte, 1<<16)
	for range 50 {
		_, err := s.Write(sent)
		must(t, err)
		_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if n, _, err := c.ReadFrom(buf); err == nil {
			if n != size || string(buf[:n]) != string(sent) {
				t.Fatalf("%d bytes arrived, other than were sent", n)
			}
			return
		}
	}
	t.Fatalf("no datagram of %d bytes from %v arrived", size, addr)
}

// burstOfDatagrams sends datagrams with UDP_SEGMENT, as QUIC does, until all of one burst have arrived, each as it was.
func burstOfDatagrams(t testing.TB, from, to *netns, addr netip.Addr) {
	t.Helper()
	const size, count = 1200, 20
	var c net.PacketConn
	must(t, to.in(func() (err error) {
		c, err = net.ListenPacket("udp", netip.AddrPortFrom(addr, 7778).String())
		return err
	}))
	defer c.Close()
	var s net.Conn
	must(t, from.in(func() (err error) {
		s, err = net.Dial("udp", netip.AddrPortFrom(addr, 7778).String())
		return err
	}))
	defer s.Close()
	raw, err := s.(*net.UDPConn).SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT,
			size)
	}))
	must(t, err)
	buf := make([]byte, 1<<16)
	for round := range 50 {
		sent := pattern(size * count)
		for i := range count {
			sent[i*size] = byte(round)
		}
		_, err := s.Write(sent)
		must(t, err)
		good := 0
		for good < count {
			_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			n, _, err := c.ReadFrom(buf)
			if err != nil {
				break
			}
			if n != size {
				t.Fatalf("a datagram of %d bytes arrived, and %d were sent", n, size)
			}
			if buf[0] == byte(round) && string(buf[:n]) == string(sent[good*size:(good+1)*size]) {
				good++
			}
		}
		if good == count {
			return
		}
	}
	t.Fatal("no burst arrived whole")
}
