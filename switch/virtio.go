package vswitch

import (
	"encoding/binary"

	"github.com/usernet/usernet/internal/packet"
)

// GSOType says how a super-frame is to be cut: gso_type of struct virtio_net_hdr.
type GSOType uint8

// The kinds of super-frames; <linux/virtio_net.h> has them as VIRTIO_NET_HDR_GSO_*.
const (
	GSONone  GSOType = 0
	GSOTCPv4 GSOType = 1
	GSOTCPv6 GSOType = 4
	GSOUDP   GSOType = 5 // VIRTIO_NET_HDR_GSO_UDP_L4: one datagram per segment, not IP fragments

	gsoECN = 0x80 // VIRTIO_NET_HDR_GSO_ECN: CWR belongs on the first segment only
)

const (
	virtioNeedsChecksum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	virtioDataValid     = 2 // VIRTIO_NET_HDR_F_DATA_VALID
)

// Virtio is struct virtio_net_hdr: what has been left for the receiver of a frame to do.
type Virtio struct {
	NeedsChecksum  bool
	DataValid      bool    // the sender vouches for the checksum
	ECN            bool    // a TCP super-frame whose first segment only carries CWR
	GSO            GSOType // GSONone: an ordinary frame
	HeaderLen      uint16  // Ethernet to transport header, a hint
	GSOSize        uint16  // transport payload of each segment
	ChecksumStart  uint16  // from the start of the Ethernet header
	ChecksumOffset uint16  // from ChecksumStart
}

// How many segments a super-frame may stand for. Cutting it up in software must not let one frame cost more than the
// kernel's own senders would: UDP_MAX_SEGMENTS in <linux/udp.h>, and 64 KiB at Linux's smallest TCP segment of 36 bytes
// (TCP_MIN_SND_MSS less the timestamp option).
const (
	maxDatagramsInFrame = 128
	maxSegmentsInFrame  = 64 << 10 / 36
)

// PutVirtio writes v into the frame's header.
func (f *Frame) PutVirtio(v Virtio) {
	h := f.Header[:VirtioHeaderLen]
	h[0], h[1] = 0, byte(v.GSO)
	if v.NeedsChecksum {
		h[0] |= virtioNeedsChecksum
	}
	if v.DataValid {
		h[0] |= virtioDataValid
	}
	if v.ECN {
		h[1] |= gsoECN
	}
	binary.LittleEndian.PutUint16(h[2:], v.HeaderLen)
	binary.LittleEndian.PutUint16(h[4:], v.GSOSize)
	binary.LittleEndian.PutUint16(h[6:], v.ChecksumStart)
	binary.LittleEndian.PutUint16(h[8:], v.ChecksumOffset)
}

// Virtio reads the frame's virtio header, as it is: the guard has checked it only on guarded ports.
func (f *Frame) Virtio() Virtio {
	h := f.Header[:VirtioHeaderLen]
	return Virtio{
		NeedsChecksum:  h[0]&virtioNeedsChecksum != 0,
		DataValid:      h[0]&virtioDataValid != 0,
		ECN:            h[1]&gsoECN != 0,
		GSO:            GSOType(h[1] &^ gsoECN),
		HeaderLen:      binary.LittleEndian.Uint16(h[2:]),
		GSOSize:        binary.LittleEndian.Uint16(h[4:]),
		ChecksumStart:  binary.LittleEndian.Uint16(h[6:]),
		ChecksumOffset: binary.LittleEndian.Uint16(h[8:]),
	}
}

// virtioOK says whether the virtio header tells the truth about a frame: what it points to is inside the frame, and
// what it calls TCP or UDP is. Applied to every untrusted port, guarded or not, since devices act on it.
func (f *Frame) virtioOK() bool {
	h := f.Header[:VirtioHeaderLen]
	if h[0] == 0 && h[1] == 0 {
		return true
	}
	if h[0]&^(virtioNeedsChecksum|virtioDataValid) != 0 {
		return false
	}
	v := f.Virtio()
	if v.NeedsChecksum && (v.ChecksumStart < EthernetHeaderLen || len(f.Payload) == 0 ||
		int(v.ChecksumStart)+int(v.ChecksumOffset)+2 > EthernetHeaderLen+len(f.Payload[0])) {
		return false
	}
	if v.GSO == GSONone {
		return !v.ECN
	}
	p, ok := f.superFrame(v)
	return ok && int(v.HeaderLen) <= f.Len() && p.Payload < f.PayloadLen()
}

// superFrame finds the headers of a super-frame; false where they do not fit the virtio header.
func (f *Frame) superFrame(v Virtio) (packet.Headers, bool) {
	if !v.NeedsChecksum || v.GSOSize == 0 || len(f.Payload) == 0 {
		return packet.Headers{}, false
	}
	h, ok := parseIP(f.EtherType(), f.Payload[0])
	if !ok || h.Fragment || int(v.ChecksumStart) != EthernetHeaderLen+h.Transport {
		return packet.Headers{}, false
	}
	var want GSOType
	switch {
	case h.Proto == packet.ProtoTCP && h.V6:
		want = GSOTCPv6
	case h.Proto == packet.ProtoTCP:
		want = GSOTCPv4
	case h.Proto == packet.ProtoUDP:
		want = GSOUDP
	}
	if want != v.GSO || v.ECN && v.GSO == GSOUDP || int(v.ChecksumOffset) != h.ChecksumOffset() {
		return packet.Headers{}, false
	}
	limit := maxSegmentsInFrame
	if v.GSO == GSOUDP {
		limit = maxDatagramsInFrame
	}
	return h, f.PayloadLen()-h.Payload <= limit*int(v.GSOSize)
}
