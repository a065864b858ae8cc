package uplink

import (
	"encoding/binary"
	"sync"

	vswitch "github.com/usernet/usernet/switch"
)

// A tag (IEEE 802.1Q, 9.6) follows the MAC addresses: the EtherType 0x8100, priority and VLAN id, and then the frame's
// own EtherType.
const (
	tagType  = 0x8100
	tagLen   = 4
	vlanMask = 0xfff
	macsLen  = 12
)

// virtio_net_hdr: where hdr_len and csum_start are, which count from the beginning of the frame with its tag
// (tap_put_user in drivers/net/tap.c).
const (
	virtioHeaderLenAt = 2
	virtioChecksumAt  = 6
)

// untag takes the tag off a frame and returns its VLAN: 0 for one without a tag, or with a priority alone. It is false
// for a frame that ends within its tag.
func untag(f *vswitch.Frame) (vlan uint16, ok bool) {
	if f.EtherType() != tagType {
		return 0, true
	}
	if len(f.Payload) == 0 || len(f.Payload[0]) < tagLen {
		return 0, false
	}
	p := f.Payload[0]
	vlan = binary.BigEndian.Uint16(p) & vlanMask
	copy(f.Ethernet()[macsLen:], p[2:tagLen])
	f.Payload[0] = p[tagLen:]
	for _, at := range []int{virtioHeaderLenAt, virtioChecksumAt} {
		if n := binary.LittleEndian.Uint16(f.Header[at:]); n >= vswitch.EthernetHeaderLen+tagLen {
			binary.LittleEndian.PutUint16(f.Header[at:], n-tagLen)
		}
	}
	return vlan, true
}

// tagged is a frame that is put together with a tag.
type tagged struct {
	frame  vswitch.Frame
	tag    [tagLen]byte
	pieces [2][]byte
}

var taggedPool = sync.Pool{New: func() any { return new(tagged) }}

// writeTagged writes a frame with a tag, in complete segments: whether a device cuts tagged super-frames is not known.
func writeTagged(to vswitch.Device, vlan uint16, f *vswitch.Frame) error {
	t := taggedPool.Get().(*tagged)
	defer taggedPool.Put(t)
	return f.Segments(func(frame []byte) error {
		clear(t.frame.Header[:vswitch.VirtioHeaderLen])
		copy(t.frame.Ethernet(), frame[:macsLen])
		binary.BigEndian.PutUint16(t.frame.Ethernet()[macsLen:], tagType)
		binary.BigEndian.PutUint16(t.tag[:], vlan)
		copy(t.tag[2:], frame[macsLen:vswitch.EthernetHeaderLen])
		t.pieces = [2][]byte{t.tag[:], frame[vswitch.EthernetHeaderLen:]}
		t.frame.Payload = t.pieces[:]
		return to.WriteFrame(&t.frame)
	})
}
