package fabric

import (
	"encoding/binary"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"

	"github.com/usernet/usernet/internal/packet"
	"github.com/usernet/usernet/overlay"
	vswitch "github.com/usernet/usernet/switch"
)

const (
	protoICMPv6 = packet.ProtoICMPv6

	// How long ICMP errors may be: RFC 1812, 4.3.2.3 and RFC 4443, 2.4(c).
	icmpError4Len, icmpError6Len = 576, 1280

	minMTU4, minMTU6 = 576, 1280 // RFC 791 (what each host takes), RFC 8200, section 5
)

// tooBig tells the sender of a packet how large it may be: "fragmentation needed" or "packet too big", as a router
// would.
func (l *Link) tooBig(f *vswitch.Frame, h *inner, payload []byte, mtu int) {
	l.drop(DropTooBig)
	l.tell(f, h, payload, packet.TooBig, mtu)
}

// tell tells the sender of a packet of a problem with it, as a router would.
func (l *Link) tell(f *vswitch.Frame, h *inner, payload []byte, what packet.Problem, mtu int) {
	l.limits.Lock()
	ok := l.limits.icmp.Allow(time.Now(), 1)
	l.limits.Unlock()
	if !ok || isICMPError(h, payload) || f.Ethernet()[0]&1 != 0 {
		return // RFC 1122, 3.2.2: not about errors, not about what went to a group
	}
	src, dst := h.ends(payload)
	from := dst
	for _, g := range l.cfg.Gateways {
		if g.Is6() == h.v6 {
			from = g
		}
	}
	to := overlay.MAC(f.Ethernet()[6:12])
	if r := l.cfg.Routed; r != nil { // the frame is from this host's router by now
		if to, ok = r.Find(src); !ok {
			return
		}
	}
	l.inject(to, from, src, what, mtu, payload[:h.length])
}

// ends are the addresses of a packet.
func (h *inner) ends(p []byte) (src, dst netip.Addr) {
	if h.v6 {
		return netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40]))
	}
	return netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20]))
}

// isICMPError says whether a packet is an ICMP error, or a fragment whose header cannot be seen.
func isICMPError(h *inner, p []byte) bool {
	switch {
	case h.proto == protoICMPv6:
		return h.fragment || h.l4 >= h.length || p[h.l4] < 128
	case h.proto == packet.ProtoICMP:
		return h.fragment || h.l4 >= h.length || p[h.l4] != 8 && p[h.l4] != 0 // anything but echo
	}
	return false
}

// inject sends an ICMP error to a container of this host.
func (l *Link) inject(to overlay.MAC, src, dst netip.Addr, what packet.Problem, mtu int, original []byte) {
	v6 := dst.Is6()
	limit, proto, header := icmpError4Len, byte(packet.ProtoICMP), packet.IPv4HeaderLen
	if v6 {
		limit, proto, header = icmpError6Len, protoICMPv6, packet.IPv6HeaderLen
	}
	original = original[:min(len(original), limit-header-packet.ErrorHeaderLen)]
	m := packet.ICMPError(what, dst, original)
	if v6 {
		binary.BigEndian.PutUint32(m[4:], uint32(mtu))
	} else {
		binary.BigEndian.PutUint16(m[6:], uint16(mtu)) // RFC 1191, section 4
	}
	ip := packet.QuoteIP(src, dst, proto, len(m))
	sum := uint16(0)
	if v6 {
		sum = checksum.Combine(checksum.Checksum(ip[8:40], 0), checksum.Combine(uint16(proto), uint16(len(m))))
	} else {
		sumIPv4(ip)
	}
	checksum.Put(m[2:], ^checksum.Checksum(m, sum))
	et := uint16(vswitch.EtherTypeIPv4)
	if v6 {
		et = vswitch.EtherTypeIPv6
	}
	l.receiveOwn(to, l.mac, et, append(ip, m...))
}

// receiveOwn gives the switch a frame that the link made.
func (l *Link) receiveOwn(dst, src overlay.MAC, etherType uint16, payload []byte) {
	port := l.port.Load()
	if port == nil {
		return
	}
	var f vswitch.Frame
	eth := f.Ethernet()
	copy(eth, dst[:])
	copy(eth[6:], src[:])
	binary.BigEndian.PutUint16(eth[12:], etherType)
	f.Payload = [][]byte{payload}
	port.Receive(&f)
}

// sendFragments fragments an IPv4 packet that may be (RFC 791, section 3.2).
func (l *Link) sendFragments(p *peer, f *vswitch.Frame, h *inner, payload []byte, v vswitch.Virtio, mtu int) {
	n := (mtu - h.l4) &^ 7
	if n <= 0 || h.l4 > headerSpace-encapLen {
		l.drop(DropTooBig)
		return
	}
	buf := flats.Get().(*[vswitch.MaxPayload]byte)
	defer flats.Put(buf)
	whole := buf[:copy(buf[:], payload[:h.length])]
	if v.NeedsChecksum && finishChecksum(whole, payload[:h.length], v) < 0 {
		l.drop(DropMalformed)
		return
	}
	const moreFragments = 0x2000
	field := binary.BigEndian.Uint16(whole[6:])
	b := bursts.Get().(*burst)
	body := whole[h.l4:]
	for at := 0; at < len(body); at += n {
		data := body[at:min(at+n, len(body))]
		if !b.fits(l.overhead + h.l4 + len(data)) {
			b.send(l, p)
		}
		to := b.start(l, f)
		copy(to, whole[:h.l4])
		flags := field + uint16(at/8)
		if at+len(data) < len(body) {
			flags |= moreFragments
		}
		binary.BigEndian.PutUint16(to[6:], flags)
		h.setLength(to, h.l4+len(data))
		b.add(l.overhead+h.l4, data)
	}
	b.send(l, p)
	b.release()
}
