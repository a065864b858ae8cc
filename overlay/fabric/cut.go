package fabric

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"

	"github.com/usernet/usernet/internal/packet"
	vswitch "github.com/usernet/usernet/switch"
)

// finishChecksum copies the beginning of a packet to head and writes the checksum there that was left to be done. It
// returns how many bytes it copied; -1 where the virtio header contradicts the packet.
func finishChecksum(head, payload []byte, v vswitch.Virtio) int {
	start := int(v.ChecksumStart) - vswitch.EthernetHeaderLen
	at := start + int(v.ChecksumOffset)
	if start < 0 || at+2 > len(payload) || at+2 > len(head) {
		return -1
	}
	copy(head[:at+2], payload)
	checksum.Put(head[at:], nonZero(^checksum.Checksum(payload[start:], 0)))
	return at + 2
}

// sendSuper cuts a super-frame in segments that fit the path and sends them; leave: with checksums that are still to be
// done.
func (l *Link) sendSuper(p *peer, f *vswitch.Frame, h *inner, payload []byte, v vswitch.Virtio, mtu int, leave bool) {
	size := int(v.GSOSize)
	if !h.transport() || h.data > headerSpace-encapLen || size == 0 || h.data >= h.length {
		l.drop(DropMalformed)
		return
	}
	if h.data+size > mtu {
		if h.proto == packet.ProtoUDP { // a datagram is not cut in several: its sender has to know
			l.tooBig(f, h, payload, mtu)
			return
		}
		size = mtu - h.data
	}
	if size <= 0 {
		l.drop(DropTooBig)
		return
	}
	b := bursts.Get().(*burst)
	c := newCutter(h, payload)
	c.leave = leave
	for at := 0; at < len(c.body); at += size {
		data := c.body[at:min(at+size, len(c.body))]
		if !b.fits(l.overhead + h.data + len(data)) {
			b.send(l, p)
		}
		c.header(b.start(l, f), data, at)
		b.add(l.overhead+h.data, data)
	}
	b.send(l, p)
	b.release()
}

// sendLarge sends a single packet that does not fit the path. TCP is cut: a sender that never hears of the path's MTU
// must not hang. Other packets are fragmented where they may be, or their sender is told.
func (l *Link) sendLarge(p *peer, f *vswitch.Frame, h *inner, payload []byte, v vswitch.Virtio, mtu int) {
	switch {
	case h.length == 0: // no IP
		l.drop(DropTooBig)
	case h.transport() && h.proto == packet.ProtoTCP &&
		h.data < h.length && h.data < mtu && h.data <= headerSpace-encapLen &&
		payload[h.l4+tcpFlags]&tcpSYN == 0:
		v.GSOSize = uint16(mtu - h.data)
		l.sendSuper(p, f, h, payload, v, mtu, p.leavesChecksum(h, v))
	case !h.df && h.length > mtu:
		l.sendFragments(p, f, h, payload, v, mtu)
	default:
		l.tooBig(f, h, payload, mtu)
	}
}

// cutter makes the headers of segments.
type cutter struct {
	h      inner
	head   []byte // the headers of the whole
	body   []byte
	pseudo uint16
	seq    uint32
	id     uint16
	flags  byte
	leave  bool // the checksum of each segment is left to be done
}

func newCutter(h *inner, payload []byte) cutter {
	c := cutter{h: *h, head: payload[:h.data], body: payload[h.data:h.length], pseudo: h.pseudo(payload)}
	if h.proto == packet.ProtoTCP {
		c.seq = binary.BigEndian.Uint32(payload[h.l4+tcpSeq:])
		c.flags = payload[h.l4+tcpFlags]
	}
	c.id = binary.BigEndian.Uint16(payload[4:]) // IPv4 only
	return c
}

// header writes the headers of the segment with data, which begins at byte at of the whole's body.
func (c *cutter) header(to, data []byte, at int) {
	h := &c.h
	copy(to, c.head)
	if !h.v6 {
		binary.BigEndian.PutUint16(to[4:], c.id)
		c.id++
	}
	h.setLength(to, h.data+len(data))
	t := to[h.l4:h.data]
	if h.proto == packet.ProtoTCP {
		binary.BigEndian.PutUint32(t[tcpSeq:], c.seq+uint32(at))
		flags := c.flags
		if at+len(data) < len(c.body) {
			flags &^= tcpFIN | tcpPSH
		}
		if at > 0 {
			flags &^= tcpCWR // RFC 3168, 6.1.2: once per window
		}
		t[tcpFlags] = flags
	} else {
		binary.BigEndian.PutUint16(t[udpLength:], uint16(len(t)+len(data)))
	}
	check := h.check()
	pseudo := checksum.Combine(c.pseudo, uint16(len(t)+len(data)))
	if c.leave {
		checksum.Put(t[check:], pseudo)
		return
	}
	checksum.Put(t[check:], 0)
	sum := checksum.Checksum(t, pseudo)
	checksum.Put(t[check:], nonZero(^checksum.Checksum(data, sum)))
}
