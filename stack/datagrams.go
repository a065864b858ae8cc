package stack

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"

	"github.com/usernet/usernet/internal/packet"
	vswitch "github.com/usernet/usernet/switch"
)

// A datagram needs no netstack to be translated: what is whole, has no options and is for the outside goes from the
// frame to the Handler, and what fits a frame goes from the Handler to the switch. All else takes netstack's way, which
// also reassembles, fragments and resolves addresses.

// SetNeighbor tells the gateway the MAC address of a container's address, so that datagrams for it need no resolution.
func (g *Gateway) SetNeighbor(a netip.Addr, mac net.HardwareAddr) {
	if len(mac) != 6 {
		return
	}
	g.neighborMu.Lock()
	defer g.neighborMu.Unlock()
	g.neighbors[a] = [6]byte(mac)
}

// RemoveNeighbor forgets it.
func (g *Gateway) RemoveNeighbor(a netip.Addr) {
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

// takeDatagram gives a frame's datagram, or those of a super-frame, to the Handler. False: netstack is to have it.
func (g *Gateway) takeDatagram(f *vswitch.Frame) bool {
	t := f.EtherType()
	if len(f.Payload) != 1 || f.Ethernet()[0]&1 != 0 { // in pieces, or for a group
		return false
	}
	if t != vswitch.EtherTypeIPv4 && t != vswitch.EtherTypeIPv6 {
		return false
	}
	segment := 0
	if v := f.Virtio(); v.GSO == vswitch.GSOUDP {
		segment = int(v.GSOSize)
	}
	p := packet.Datagram{MorePending: f.MorePending}
	if !p.ParseUDP(t == vswitch.EtherTypeIPv6, f.Payload[0], segment) {
		return false
	}
	dst := p.Dst.Addr()
	if dst.IsMulticast() || dst.IsUnspecified() || dst.IsLinkLocalUnicast() || p.Src.Addr().IsUnspecified() {
		return false
	}
	h := g.handler.Load()
	if h == nil {
		return false
	}
	if _, served := (*g.served.Load())[p.Dst]; served {
		return false
	}
	return (*h).HandleUDP(p)
}

// datagramFrame is a frame that carries datagrams to a container.
type datagramFrame struct {
	vswitch.Frame
	head   [packet.MaxUDPHeaders]byte
	pieces [][]byte // the headers, then the payload; its room is used again
}

var datagramFrames = sync.Pool{New: func() any { return new(datagramFrame) }}

// WriteUDP sends a datagram into the network in the name of src. Its payload may be in pieces. A segment that is not 0
// makes it several: each piece holds datagrams of that many bytes, the last of all may be shorter.
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
	head := packet.IPHeaderLen(dst.Addr()) + packet.UDPHeaderLen
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

// udpChecksum is where the checksum is in the UDP header (RFC 768).
const udpChecksum = 6

// load builds the headers before size bytes. The UDP checksum is left to the receiver, who is on this machine and needs
// none.
func (f *datagramFrame) load(from tcpip.LinkAddress, to [6]byte, src, dst netip.AddrPort, size, segment int) {
	eth := f.Ethernet()
	copy(eth, to[:])
	copy(eth[6:], from)
	etherType := uint16(vswitch.EtherTypeIPv4)
	if dst.Addr().Is6() {
		etherType = vswitch.EtherTypeIPv6
	}
	binary.BigEndian.PutUint16(eth[12:], etherType)
	head := packet.PutUDP(f.head[:], src, dst, size)
	v := vswitch.Virtio{
		NeedsChecksum:  true,
		ChecksumStart:  uint16(vswitch.EthernetHeaderLen + head - packet.UDPHeaderLen),
		ChecksumOffset: udpChecksum,
		HeaderLen:      uint16(vswitch.EthernetHeaderLen + head),
	}
	if segment > 0 {
		v.GSO, v.GSOSize = vswitch.GSOUDP, uint16(segment)
	}
	f.PutVirtio(v)
}
