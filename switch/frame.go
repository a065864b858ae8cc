package vswitch

import (
	"encoding/binary"

	"github.com/usernet/usernet/internal/block"
)

const (
	// VirtioHeaderLen is the length of struct virtio_net_hdr in <linux/virtio_net.h>, without the buffer count.
	VirtioHeaderLen = 10
	// EthernetHeaderLen is two MAC addresses and the EtherType.
	EthernetHeaderLen = 14
	// HeaderLen is the length of Frame.Header.
	HeaderLen = VirtioHeaderLen + EthernetHeaderLen
	// MaxPayload is the size of a frame's buffer. The largest IP packet has 65535 bytes; 64 KiB is also the largest
	// block that gVisor pools.
	MaxPayload = block.Size

	// giveAwayLen is the payload from which on a copy would need a block of the same 64 KiB.
	giveAwayLen = MaxPayload/2 + 1
)

// EtherTypes that the switch and its guard look at.
const (
	EtherTypeIPv4 = 0x0800
	EtherTypeARP  = 0x0806
	EtherTypeIPv6 = 0x86dd

	etherTypeVLAN       = 0x8100 // IEEE 802.1Q
	etherTypeQinQ       = 0x88a8 // IEEE 802.1ad
	etherTypeQinQLegacy = 0x9100
	etherTypeQinQOther  = 0x9200
)

// IsTag says whether an EtherType is that of a tag, with the frame's own EtherType behind it.
func IsTag(etherType uint16) bool {
	switch etherType {
	case etherTypeVLAN, etherTypeQinQ, etherTypeQinQLegacy, etherTypeQinQOther:
		return true
	}
	return false
}

// Frame is one Ethernet frame on its way through the switch. A device's reader owns it and uses it again for the next
// frame; a receiving Device may look at it only until its WriteFrame returns, and must not write to it.
type Frame struct {
	// Header is the virtio_net_hdr (little-endian on every machine we build for), then the Ethernet header.
	Header [HeaderLen]byte
	// Payload is what follows the Ethernet header, in pieces. The headers of a packet that a container sent are all in
	// the first piece.
	Payload [][]byte
	// MorePending is set by a reader that calls Port.Flush before it waits for the next frame, and after some dozens.
	MorePending bool

	block  block.Block // that Payload[0] is in, if Fill made it; zero once given away
	shared bool        // more than one device gets this frame
	// Of the frames that were read into this one since Pacer.Round: where the first went to, and whether others went
	// elsewhere.
	to      *Port
	several bool
	pieces  [1][]byte // what Payload points to after Fill
}

// Buffer returns the MaxPayload bytes for the next frame's payload. It is valid until Release, or until the frame has
// been received by a port.
func (f *Frame) Buffer() []byte {
	if f.block.IsZero() {
		f.block = block.New()
	}
	return f.block.Bytes()
}

// Fill makes the first n bytes of Buffer the payload.
func (f *Frame) Fill(n int) {
	f.pieces[0] = f.Buffer()[:n]
	f.Payload = f.pieces[:]
	f.shared = false
}

// Release gives the frame's buffer back to the pool: a reader that waits must not hold 64 KiB.
func (f *Frame) Release() {
	f.Payload, f.pieces[0] = nil, nil
	if !f.block.IsZero() {
		f.block.Recycle()
		f.block = block.Block{}
	}
}

// StealPayload returns the payload as a block that the caller owns. A large payload is given away as it is, if this is
// the only device that gets the frame; otherwise it is copied into a block of its size. Only a device in its WriteFrame
// may call it, once.
func (f *Frame) StealPayload() block.Block {
	n := f.PayloadLen()
	if n >= giveAwayLen && !f.block.IsZero() && !f.shared && len(f.Payload) == 1 {
		b := f.block
		f.block = block.Block{}
		b.Cut(n)
		return b
	}
	return block.Copy(f.Payload, n)
}

// firstPiece is the payload, or its first piece; nil where there is none.
func (f *Frame) firstPiece() []byte {
	if len(f.Payload) == 0 {
		return nil
	}
	return f.Payload[0]
}

// PayloadLen is the number of bytes after the Ethernet header.
func (f *Frame) PayloadLen() int {
	n := 0
	for _, p := range f.Payload {
		n += len(p)
	}
	return n
}

// Len is the length on the wire: Ethernet header and payload.
func (f *Frame) Len() int { return EthernetHeaderLen + f.PayloadLen() }

// Ethernet returns the Ethernet header.
func (f *Frame) Ethernet() []byte { return f.Header[VirtioHeaderLen:] }

// EtherType returns the type field; below 1536 it is an IEEE 802.3 length.
func (f *Frame) EtherType() uint16 { return binary.BigEndian.Uint16(f.Header[VirtioHeaderLen+12:]) }

// macKey is a MAC address as a number, first byte highest: a map key that hashes fast.
type macKey uint64

func keyOf(mac []byte) macKey {
	return macKey(mac[0])<<40 | macKey(mac[1])<<32 | macKey(binary.BigEndian.Uint32(mac[2:6]))
}

// mac is the address that a key was made of.
func (k macKey) mac() [6]byte {
	return [6]byte{byte(k >> 40), byte(k >> 32), byte(k >> 24), byte(k >> 16), byte(k >> 8), byte(k)}
}

const groupBit macKey = 1 << 40 // the I/G bit: multicast and broadcast

func (f *Frame) dst() macKey { return keyOf(f.Header[VirtioHeaderLen:]) }
func (f *Frame) src() macKey { return keyOf(f.Header[VirtioHeaderLen+6:]) }
