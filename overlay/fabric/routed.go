package fabric

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/usernet/usernet/internal/packet"
	"github.com/usernet/usernet/overlay"
	vswitch "github.com/usernet/usernet/switch"
)

// Routed says how a link is a router among those of other hosts: each host has a subnet, and what crosses are IPv4
// packets between two subnets, in frames from one router's MAC to the other's, or without frames (BareIP). ARP and
// frames to groups never cross.
//
// Containers have the whole network as their subnet: the link answers their ARP requests for addresses of other hosts'
// subnets with its own MAC, and takes what they then send it.
type Routed struct {
	// MAC is that of this host's router in frames to others; BareIP has no use for it.
	MAC overlay.MAC
	// Local is this host's subnet.
	Local netip.Prefix
	// Find returns the MAC of the container of this host that has an address. It is called for each packet that comes
	// in: it must neither wait nor allocate.
	Find func(netip.Addr) (overlay.MAC, bool)
}

// Route is the subnet of another host.
type Route struct {
	Subnet netip.Prefix   // IPv4
	Via    netip.AddrPort // where datagrams for it go, and from whose address they come; port 0: the encapsulation's
	MAC    overlay.MAC    // of its router; BareIP has no use for it
}

// maxRoutes is how many subnets of other hosts a network has.
const maxRoutes = maxPeers

// routes says where subnets are. The zero value is empty; it never changes once it is stored.
type routes struct {
	bySubnet map[netip.Prefix]*hop
	lengths  []int // of the prefixes that there are, the longest first
}

// hop is a Route with its peer.
type hop struct {
	peer *peer
	mac  overlay.MAC
}

// find is the router of an address's subnet; nil where there is none.
func (r *routes) find(a netip.Addr) *hop {
	for _, n := range r.lengths {
		p, err := a.Prefix(n)
		if err != nil {
			continue // of the other address family
		}
		if h := r.bySubnet[p]; h != nil {
			return h
		}
	}
	return nil
}

// SetRoutes says which subnets other hosts have, in the place of what was said before. Routes that make no sense are
// left out: without an address that can be reached, or overlapping this host's subnet. Of two for one subnet the first
// counts.
func (l *Link) SetRoutes(list []Route) error {
	if l.cfg.Routed == nil {
		return fmt.Errorf("network %s is not routed", l.cfg.Name)
	}
	if len(list) > maxRoutes {
		return fmt.Errorf("network %s: %d subnets of other hosts, and there may be %d", l.cfg.Name, len(list), maxRoutes)
	}
	f := l.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed.Load() || f.state.Load().byVNI[l.cfg.VNI] != l {
		return ErrClosed
	}
	t := &table{routes: routes{bySubnet: make(map[netip.Prefix]*hop, len(list))}}
	peers := map[netip.Addr]*peer{}
	for _, r := range list {
		subnet := r.Subnet.Masked()
		if !subnet.IsValid() || !subnet.Addr().Is4() || subnet.Overlaps(l.cfg.Routed.Local) ||
			t.routes.bySubnet[subnet] != nil {
			continue
		}
		p := peers[r.Via.Addr()]
		if p == nil {
			var err error
			if p, err = f.foreignPeer(r.Via); err != nil {
				continue
			}
			peers[r.Via.Addr()] = p
			t.foreign = append(t.foreign, p)
		}
		t.routes.bySubnet[subnet] = &hop{peer: p, mac: r.MAC}
		if n := subnet.Bits(); !slices.Contains(t.routes.lengths, n) {
			t.routes.lengths = append(t.routes.lengths, n)
		}
	}
	slices.SortFunc(t.routes.lengths, func(a, b int) int { return b - a })
	l.table.Store(t)
	f.setLinks(func(map[uint32]*Link) {}) // for the peers' addresses
	return nil
}

// routedFrames has frames to send on: those of the switch must not be changed.
var routedFrames = sync.Pool{New: func() any { return new(vswitch.Frame) }}

// writeRouted sends a packet of a container to the router of its destination's subnet.
func (l *Link) writeRouted(t *table, f *vswitch.Frame, payload []byte) {
	switch f.EtherType() {
	case vswitch.EtherTypeARP:
		l.routedARP(t, payload)
		return
	case vswitch.EtherTypeIPv4:
	default:
		l.drop(DropNoRoute)
		return
	}
	if overlay.MAC(f.Ethernet()[:6]) != l.mac { // to a group
		l.drop(DropNoRoute)
		return
	}
	h, ok := parseInner(vswitch.EtherTypeIPv4, payload)
	if !ok {
		l.drop(DropMalformed)
		return
	}
	if why := configuration(&h, payload, false); why != pass {
		l.drop(why)
		return
	}
	_, dst := h.ends(payload)
	to := t.routes.find(dst)
	if to == nil {
		l.drop(DropNoRoute)
		l.tell(f, &h, payload, packet.NetUnreachable, 0)
		return
	}
	out := routedFrames.Get().(*vswitch.Frame)
	out.Header, out.Payload, out.MorePending = f.Header, f.Payload, f.MorePending
	copy(out.Ethernet(), to.mac[:])
	copy(out.Ethernet()[6:], l.cfg.Routed.MAC[:])
	l.sendTo(to.peer, out, &h, payload)
	out.Payload = nil
	routedFrames.Put(out)
}

// routedARP answers a container's request for an address of another host's subnet.
func (l *Link) routedARP(t *table, p []byte) {
	if len(p) < arpLen || [6]byte(p[:6]) != arpWords {
		l.drop(DropMalformed)
		return
	}
	target := netip.AddrFrom4([4]byte(p[24:28]))
	if binary.BigEndian.Uint16(p[6:]) == arpRequest && t.routes.find(target) != nil {
		l.answerARP(l.mac, p, target)
	}
	l.drop(DropKnown)
}

// deliverRouted checks a packet of another router, in a frame or without one, and takes it to its container.
func (j *joiner) deliverRouted(l *Link, p *peer, data []byte, segment int) {
	p.in.add(1, len(data))
	port := l.port.Load()
	if port == nil {
		l.drop(DropNotReady)
		return
	}
	t := l.table.Load()
	var h inner
	payload, to, why := l.checkRouted(t, p, data, &h)
	if why != pass {
		l.drop(why)
		return
	}
	var frame [vswitch.EthernetHeaderLen]byte
	copy(frame[:], to[:])
	copy(frame[6:], l.mac[:])
	binary.BigEndian.PutUint16(frame[12:], vswitch.EtherTypeIPv4)
	j.take(l, port, frame[:], &h, payload, segment)
}

// checkRouted is all that a packet of another router must pass; it parses the packet into h. A packet counts only from
// the subnet of the host that sent it, and to a container of this host.
func (l *Link) checkRouted(t *table, p *peer, data []byte, h *inner) (payload []byte, to overlay.MAC, why Reason) {
	payload = data
	if l.overhead > 0 {
		payload = data[vswitch.EthernetHeaderLen:]
		switch et := binary.BigEndian.Uint16(data[12:]); {
		case overlay.MAC(data[:6]) != l.cfg.Routed.MAC:
			return nil, to, DropNoPeer
		case et != vswitch.EtherTypeIPv4:
			return nil, to, DropNoRoute
		}
	}
	var ok bool
	if *h, ok = parseInner(vswitch.EtherTypeIPv4, payload); !ok {
		return nil, to, DropMalformed
	}
	if why := configuration(h, payload, true); why != pass {
		return nil, to, why
	}
	src, dst := h.ends(payload)
	from := t.routes.find(src)
	switch {
	case from == nil || from.peer != p:
		return nil, to, DropSourceAddr
	case l.overhead > 0 && overlay.MAC(data[6:12]) != from.mac:
		return nil, to, DropSourceMAC
	case !l.cfg.Routed.Local.Contains(dst):
		return nil, to, DropNoRoute
	case l.isGateway(dst):
		return nil, to, DropGateway
	}
	if to, ok = l.cfg.Routed.Find(dst); !ok {
		return nil, to, DropNoPeer
	}
	return payload, to, pass
}
