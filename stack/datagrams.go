package stack

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/usernet/usernet/internal/packet"
	vswitch "github.com/usernet/usernet/switch"
)

// A datagram needs no netstack to be translated: what is whole, has no options and is for the outside goes from the frame
// to the Handler, and what fits a frame goes from the Handler to the switch. All else takes netstack's way, which also
// reassembles, fragments and resolves addresses.

// SetNeighbor tells the gateway the MAC address of a container's address, so that datagrams for it need no resolution.
func (g *Gateway) SetNeighbor(a netip.Addr, mac net.HardwareAddr) {
	if len(mac) != 6 {
		return
	}
	g.neighborMu.Lock()
	defer g.neighborMu.Unlock()
	g.neighbors[a] = [6]byte(mac)
}

// DropNeighbor forgets it.
func (g *Gateway) DropNeighbor(a netip.Addr) {
	g.neighborMu.Lock()
	defer g.neighborMu.Unlock()
	delete(g.neighbors, a)
}

func (g *Gateway) neighbor(a netip.Addr) ([6]byte, bool) {
	g.neighborMu.RLock()
	defer g.neighborMu.RUnlock()
	mac, ok := g.neighbors[a]
	return mac, ok
}

const (
	udpHeader4 = header.IPv4MinimumSize + header.UDPMinimumSize
	udpHeader6 = header.IPv6MinimumSize + header.UDPMinimumSize

	udpChecksum = 6 // where in the UDP header (RFC 768)
)

// takeDatagram gives a frame's datagram, or those of a super-frame, to the Handler. False: netstack is to have it.
func (g *Gateway) takeDatagram(f *vswitch.Frame) bool {
	if len(f.Payload) != 1 || f.Ethernet()[0]&1 != 0 { // in pieces, or for a group
		return false
	}
	p := packet.Datagram{More: f.More}
	b := f.Payload[0]
	head := 0
	switch f.EtherType() {
	case vswitch.EtherTypeIPv4:
		// Version 4 without options; no fragment: only "don't fragment" may be set.
		if len(b) < udpHeader4 || b[0] != 0x45 || b[9] != byte(header.UDPProtocolNumber) || binary.BigEndian.Uint16(b[6:])&^0x4000 != 0 {
			return false
		}
		length := int(binary.BigEndian.Uint16(b[2:]))
		if length < udpHeader4 || length > len(b) {
			return false
		}
		b, head = b[:length], header.IPv4MinimumSize
		p.TTL, p.DontFragment = b[8], b[6]&0x40 != 0
		p.Src, p.Dst = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[12:])), 0), netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[16:])), 0)
	case vswitch.EtherTypeIPv6:
		if len(b) < udpHeader6 || b[0]>>4 != 6 || b[6] != byte(header.UDPProtocolNumber) {
			return false
		}
		length := header.IPv6MinimumSize + int(binary.BigEndian.Uint16(b[4:]))
		if length < udpHeader6 || length > len(b) {
			return false
		}
		b, head = b[:length], header.IPv6MinimumSize
		p.TTL, p.DontFragment = b[7], true
		p.Src, p.Dst = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:])), 0), netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[24:])), 0)
	default:
		return false
	}
	udp := b[head:]
	size := int(binary.BigEndian.Uint16(udp[4:]))
	if v := f.Virtio(); v.GSO == vswitch.GSOUDP {
		size, p.Segment = len(udp), int(v.GSOSize) // the header of a super-frame tells nothing
	}
	dst := p.Dst.Addr()
	if size < header.UDPMinimumSize || size > len(udp) || dst.IsMulticast() || dst.IsUnspecified() || dst.IsLinkLocalUnicast() || p.Src.Addr().IsUnspecified() {
		return false
	}
	p.Src = netip.AddrPortFrom(p.Src.Addr(), binary.BigEndian.Uint16(udp))
	p.Dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(udp[2:]))
	h := g.handler.Load()
	if h == nil {
		return false
	}
	if _, served := (*g.served.Load())[p.Dst]; served {
		return false
	}
	p.Payload, p.Original = udp[header.UDPMinimumSize:size], b[:head+header.UDPMinimumSize]
	return (*h).HandleUDP(p)
}

// datagramFrame is a frame that carries datagrams to a container.
type datagramFrame struct {
	vswitch.Frame
	head   [udpHeader6]byte
	pieces [][]byte // the headers, then the payload; its room is used again
}

var datagramFrames = sync.Pool{New: func() any { return new(datagramFrame) }}

// WriteUDP sends a datagram into the network in the name of src. Its payload may be in pieces. A segment that is not 0 makes
// it several: each piece holds datagrams of that many bytes, the last of all may be shorter.
func (g *Gateway) WriteUDP(src, dst netip.AddrPort, payload [][]byte, segment int) error {
	size := 0
	for _, p := range payload {
		size += len(p)
	}
	if segment >= size {
		segment = 0
	}
	one := size
	if segment > 0 {
		one = segment
	}
	mac, known := g.neighbor(dst.Addr())
	port := g.link.port.Load()
	head := udpHeader4
	if dst.Addr().Is6() {
		head = udpHeader6
	}
	if !known || port == nil || head+one > int(g.link.MTU()) || head+size > 0xffff {
		return g.writeSlowly(src, dst, slices.Concat(payload...), one)
	}
	f := datagramFrames.Get().(*datagramFrame)
	f.load(g.link.mac, mac, src, dst, size, segment)
	f.pieces = append(f.pieces[:0], f.head[:head])
	for _, p := range payload {
		if len(p) > 0 {
			f.pieces = append(f.pieces, p)
		}
	}
	f.Payload = f.pieces
	port.Receive(&f.Frame)
	clear(f.pieces)
	datagramFrames.Put(f)
	return nil
}

func (g *Gateway) writeSlowly(src, dst netip.AddrPort, payload []byte, one int) error {
	for {
		n := min(one, len(payload))
		if err := g.writeUDP(src, dst, payload[:n]); err != nil {
			return err
		}
		if payload = payload[n:]; len(payload) == 0 {
			return nil
		}
	}
}

// load builds the headers before size bytes. The UDP checksum is left to the receiver, who is on this machine and needs none.
func (f *datagramFrame) load(from tcpip.LinkAddress, to [6]byte, src, dst netip.AddrPort, size, segment int) {
	v := vswitch.Virtio{NeedsChecksum: true, ChecksumOffset: udpChecksum}
	head, length := udpHeader4, header.UDPMinimumSize+size
	eth := f.Ethernet()
	copy(eth, to[:])
	copy(eth[6:], from)
	if dst.Addr().Is4() {
		binary.BigEndian.PutUint16(eth[12:], vswitch.EtherTypeIPv4)
		b := f.head[:]
		s, d := src.Addr().As4(), dst.Addr().As4()
		*(*[header.IPv4MinimumSize]byte)(b) = [header.IPv4MinimumSize]byte{0: 0x45, 8: packet.DefaultTTL, 9: byte(header.UDPProtocolNumber)}
		binary.BigEndian.PutUint16(b[2:], uint16(head+size))
		b[6] = 0x40 // don't fragment: no identification is needed (RFC 6864, section 4.1)
		copy(b[12:], s[:])
		copy(b[16:], d[:])
		binary.BigEndian.PutUint16(b[10:], ^checksum.Checksum(b[:header.IPv4MinimumSize], 0))
	} else {
		head = udpHeader6
		binary.BigEndian.PutUint16(eth[12:], vswitch.EtherTypeIPv6)
		b := f.head[:]
		s, d := src.Addr().As16(), dst.Addr().As16()
		*(*[8]byte)(b) = [8]byte{0: 0x60, 6: byte(header.UDPProtocolNumber), 7: packet.DefaultTTL}
		binary.BigEndian.PutUint16(b[4:], uint16(length))
		copy(b[8:], s[:])
		copy(b[24:], d[:])
	}
	ip := head - header.UDPMinimumSize
	udp := f.head[ip:head]
	binary.BigEndian.PutUint16(udp, src.Port())
	binary.BigEndian.PutUint16(udp[2:], dst.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(length))
	// Of the pseudo-header alone: what is to be completed (CHECKSUM_PARTIAL, include/linux/skbuff.h).
	addrs := f.head[12:ip]
	if dst.Addr().Is6() {
		addrs = f.head[8:ip]
	}
	sum := checksum.Combine(checksum.Checksum(addrs, uint16(header.UDPProtocolNumber)), uint16(length))
	binary.BigEndian.PutUint16(udp[6:], sum)
	v.ChecksumStart = uint16(header.EthernetMinimumSize + ip)
	v.HeaderLen = uint16(header.EthernetMinimumSize + head)
	if segment > 0 {
		v.GSO, v.GSOSize = vswitch.GSOUDP, uint16(segment)
	}
	f.PutVirtio(v)
}
