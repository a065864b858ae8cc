package fabric

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"

	vswitch "github.com/usernet/usernet/switch"
)

// TestChecksumsLeftToBeDone: a frame's checksum is not done for a host that takes it so, and for no other.
func TestChecksumsLeftToBeDone(t *testing.T) {
	a, b := newSide(t, hostA, 2), newSide(t, hostB, 3)
	meet(t, a, b)
	p := a.fabric.hosts[hostB]
	for _, test := range []struct {
		name              string
		src, dst          netip.Addr
		l4                []byte
		proto             byte
		partial, sumsElse bool
		left              bool
	}{
		{"TCP over IPv4", a.guest.ip4, b.guest.ip4, tcpSegment(1, pattern(100)), 6, true, false, true},
		{"TCP over IPv6", a.guest.ip6, b.guest.ip6, tcpSegment(1, pattern(100)), 6, true, false, true},
		{"a datagram", a.guest.ip4, b.guest.ip4, udpDatagram(pattern(101)), 17, true, false, true},
		{"to a host of older version", a.guest.ip4, b.guest.ip4, tcpSegment(1, pattern(100)), 6, false, false, false},
		// as of a tunnel inside the container: the sum is further inside
		{"not the transport header's", a.guest.ip4, b.guest.ip4, tcpSegment(1, pattern(100)), 6, true, true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			p.partial.Store(test.partial)
			et := uint16(vswitch.EtherTypeIPv6)
			if test.src.Is4() {
				et = vswitch.EtherTypeIPv4
			}
			packet := ipPacket(test.src, test.dst, test.proto, test.l4)
			h, _ := parseInner(et, packet)
			f := super(frame(b.guest.mac, a.guest.mac, et, packet), 1)
			v := f.Virtio()
			v.GSO, v.GSOSize = vswitch.GSONone, 0
			at := h.l4 + h.check()
			if test.sumsElse {
				v.ChecksumStart += 40
				at += 40
			}
			f.PutVirtio(v)
			a.guest.port.Receive(f)
			got := b.guest.await(t, 1)[0]
			pseudo := checksum.Combine(h.pseudo(packet), uint16(h.length-h.l4))
			if left := got.virtio.NeedsChecksum; left != test.left && !test.sumsElse {
				t.Errorf("the checksum is left to be done: %v", left)
			}
			if left := binary.BigEndian.Uint16(got.payload[at:]) == pseudo; left != test.left {
				t.Errorf("it is the sum of the pseudo header alone: %v", left)
			}
		})
	}
}
