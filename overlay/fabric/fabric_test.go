package fabric

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/usernet/usernet/overlay/seal"
	vswitch "github.com/usernet/usernet/switch"
)

func TestAFrameCrosses(t *testing.T) {
	a, b := newSide(t, hostA, 2), newSide(t, hostB, 3)
	meet(t, a, b)
	data := pattern(700)
	p := tcp4(a.guest.ip4, b.guest.ip4, 1, data)
	a.guest.port.Receive(frame(b.guest.mac, a.guest.mac, vswitch.EtherTypeIPv4, p))
	got := b.guest.await(t, 1)
	if !bytes.Equal(got[0].payload, p) {
		t.Errorf("another packet arrived: %x", got[0].payload)
	}
	back := tcp4(b.guest.ip4, a.guest.ip4, 1, nil)
	b.guest.port.Receive(frame(a.guest.mac, b.guest.mac, vswitch.EtherTypeIPv4, back))
	if got := a.guest.await(t, 1); !bytes.Equal(got[0].payload, back) {
		t.Errorf("another packet came back: %x", got[0].payload)
	}
}

// segmentsOf puts what came of a stream together again, and says into how many pieces it was cut on the way.
func reassemble(t *testing.T, got []received, etherType uint16) (data []byte) {
	t.Helper()
	for _, r := range got {
		h, ok := parseInner(etherType, r.payload)
		if !ok {
			t.Fatalf("no packet: %x", r.payload)
		}
		if !intact(&h, r.payload[:h.length]) {
			t.Errorf("a wrong checksum")
		}
		data = append(data, r.payload[h.data:h.length]...)
	}
	return data
}

func TestSuperFrames(t *testing.T) {
	jumbo := func(c *NetworkConfig) { c.MTU = 9000 }
	a, b := newSide(t, hostA, 2, jumbo), newSide(t, hostB, 3, jumbo)
	meet(t, a, b)
	peerOfB := a.fabric.hosts[hostB]
	data := pattern(60000)
	for _, test := range []struct {
		name    string
		v6, udp bool
		size    int // of a segment
		mtu     int // of the path
	}{
		{"TCP over IPv4", false, false, 1400, 1500},
		{"TCP over IPv6", true, false, 1380, 1500},
		{"TCP over IPv4 with segments that are larger than the path", false, false, 8000, 1300},
		{"TCP over IPv6 with segments that are larger than the path", true, false, 8000, 1400},
		{"TCP in jumbo frames", false, false, 8900, 9000},
		{"datagrams over IPv4", false, true, 1200, 1500},
		{"datagrams over IPv6", true, true, 1200, 1500},
		{"TCP with checksums that are left to be done", false, false, 1400, 1500},
		{"datagrams with checksums that are left to be done", true, true, 1200, 1500},
	} {
		t.Run(test.name, func(t *testing.T) {
			peerOfB.pathMTU.Store(int32(test.mtu))
			peerOfB.partial.Store(strings.Contains(test.name, "left to be done"))
			src, dst, et := a.guest.ip4, b.guest.ip4, uint16(vswitch.EtherTypeIPv4)
			if test.v6 {
				src, dst, et = a.guest.ip6, b.guest.ip6, vswitch.EtherTypeIPv6
			}
			l4, proto := tcpSegment(77, data), byte(6)
			if test.udp {
				l4, proto = udpDatagram(data), 17
			}
			a.guest.port.Receive(super(frame(b.guest.mac, a.guest.mac, et, ipPacket(src, dst, proto, l4)), test.size))
			var got []received
			n := 0
			waitFor(t, "all data", func() bool {
				for _, r := range b.guest.take() {
					h, _ := parseInner(et, r.payload)
					n += h.length - h.data
					if v := r.virtio; v.GSO != vswitch.GSONone && h.data+int(v.GSOSize)+encapLen+28 > test.mtu {
						t.Errorf("segments of %d bytes on a path of %d", v.GSOSize, test.mtu)
					}
					got = append(got, r)
				}
				return n >= len(data)
			})
			if !bytes.Equal(reassemble(t, got, et), data) {
				t.Error("other data arrived")
			}
			if len(got) > 6 {
				t.Errorf("it came in %d frames: they were not put together", len(got))
			}
		})
	}
	if d := b.link.Drops(); len(d) > 0 {
		t.Errorf("dropped: %v", d)
	}
}

// TestCloseLeavesNothing: neither goroutines nor descriptors, with sessions and without.
func TestCloseLeavesNothing(t *testing.T) {
	count := func() (goroutines, descriptors int) {
		list, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return runtime.NumGoroutine(), len(list)
	}
	goroutines, descriptors := count()
	for range 3 {
		a, err := New(Config{Host: hostA, Key: seal.NewKey()})
		must(t, err)
		b, err := New(Config{Host: hostB, Key: seal.NewKey(), Listen: netip.MustParseAddrPort("127.0.0.1:0")})
		must(t, err)
		_, err = a.Open(NetworkConfig{Name: "ov", VNI: testVNI, Sealed: true})
		must(t, err)
		at := []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), a.Addrs()[0].Port())}
		must(t, a.SetPeers([]Peer{{Host: hostB, Addrs: b.Addrs(), Key: b.PublicKey()}}))
		must(t, b.SetPeers([]Peer{{Host: hostA, Addrs: at, Key: a.PublicKey()}}))
		waitFor(t, "answer", func() bool { return a.Peers()[0].Alive })
		must(t, a.Close())
		must(t, a.Close()) // again does nothing
		must(t, b.Close())
		if _, err := a.Open(NetworkConfig{Name: "ov", VNI: testVNI}); !errors.Is(err, ErrClosed) {
			t.Errorf("a closed fabric opens a network: %v", err)
		}
		if err := a.SetPeers(nil); !errors.Is(err, ErrClosed) {
			t.Errorf("a closed fabric takes peers: %v", err)
		}
	}
	waitFor(t, "end of all goroutines and descriptors", func() bool {
		g, d := count()
		return g <= goroutines && d <= descriptors
	})
}

func TestNetworksThatCannotBe(t *testing.T) {
	a := newSide(t, hostA, 2)
	foreign := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.2:4789")}
	for name, c := range map[string]NetworkConfig{
		"without a VNI":                    {},
		"with the VNI of hosts' own words": {VNI: controlVNI},
		"with a VNI that is in use":        {VNI: testVNI},
		"sealed, with foreign peers":       {VNI: 5, Sealed: true, Foreign: foreign},
		"with a foreign peer at a group": {VNI: 5,
			Foreign: []netip.AddrPort{netip.MustParseAddrPort("239.1.1.1:4789")}},
		"with a foreign peer that no socket reaches": {VNI: 5,
			Foreign: []netip.AddrPort{netip.MustParseAddrPort("[::1]:4789")}},
	} {
		if l, err := a.fabric.Open(c); err == nil {
			t.Errorf("a network %s is opened", name)
			_ = l.Close()
		}
	}
	l, err := a.fabric.Open(NetworkConfig{VNI: 5, Foreign: foreign})
	must(t, err)
	must(t, l.Close())
	l, err = a.fabric.Open(NetworkConfig{VNI: 5}) // the number is free again
	must(t, err)
	must(t, l.Close())
}
