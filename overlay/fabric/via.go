package fabric

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/usernet/usernet/internal/packet"
	"github.com/usernet/usernet/overlay"
	vswitch "github.com/usernet/usernet/switch"
)

// Subnets outside of the cluster's networks may be behind a host that exposes them: what containers of other hosts send
// there goes to that host's gateway, in frames to the gateway's MAC, and its answers come from that MAC. These are the
// only frames to and from gateways that cross.
//
//	container -> gateway here: is the destination behind a host? -> Link.SendVia -> its gateway -> its sockets
//	its gateway -> its Link: is the source in a subnet that it exposes? -> Link here -> container
//
// Which subnets this host exposes, and which of others it takes, each host decides for itself (package cluster).

// Via is a subnet behind another host.
type Via struct {
	Prefix netip.Prefix
	Host   overlay.HostID
	Down   bool // the host is not heard of: senders are told that the subnet is not reached
}

// via is what SetVia said. It never changes once it is stored.
type via struct {
	exposed routes // by this host
	others  routes // hops without a peer are down
}

func (r *routes) add(p netip.Prefix, h *hop) {
	if r.bySubnet == nil {
		r.bySubnet = map[netip.Prefix]*hop{}
	}
	if r.bySubnet[p] != nil {
		return
	}
	r.bySubnet[p] = h
	if n := p.Bits(); !slices.Contains(r.lengths, n) {
		r.lengths = append(r.lengths, n)
		slices.SortFunc(r.lengths, func(a, b int) int { return cmp.Compare(b, a) })
	}
}

// SetVia says which subnets this host exposes to the others, and which are behind others, in the place of what was said
// before.
func (l *Link) SetVia(exposed []netip.Prefix, others []Via) {
	if len(exposed) == 0 && len(others) == 0 || l.cfg.Routed != nil {
		l.via.Store(nil)
		return
	}
	v := &via{}
	for _, p := range exposed {
		v.exposed.add(p.Masked(), &hop{})
	}
	l.f.mu.Lock()
	defer l.f.mu.Unlock()
	for _, o := range others {
		if o.Host == l.f.cfg.Host || o.Host == "" {
			continue
		}
		h := &hop{}
		if !o.Down {
			h.peer = l.f.hostPeer(o.Host)
		}
		v.others.add(o.Prefix.Masked(), h)
	}
	l.via.Store(v)
}

// SendVia sends a container's frame for its gateway to the host that the destination is behind. False: it is behind
// none, or allow does not let it go there. It does not keep the frame.
func (l *Link) SendVia(f *vswitch.Frame, allow func(src netip.Addr, proto uint8, dst netip.AddrPort) bool) bool {
	v := l.via.Load()
	if v == nil || len(f.Payload) != 1 {
		return false
	}
	payload := f.Payload[0]
	h, ok := parseInner(f.EtherType(), payload)
	if !ok {
		return false
	}
	src, dst := h.ends(payload)
	to := v.others.find(dst)
	if to == nil || configuration(&h, payload, false) != pass {
		return false
	}
	var port uint16
	if h.transport() {
		port = binary.BigEndian.Uint16(payload[h.l4+2:])
	}
	if !allow(src, h.proto, netip.AddrPortFrom(dst, port)) {
		return false
	}
	if to.peer == nil {
		l.drop(DropNoRoute)
		l.tell(f, &h, payload, packet.NetUnreachable, 0)
		return true
	}
	l.sendTo(to.peer, f, &h, payload)
	return true
}

// fromGateway sends a frame of this host's gateway to a container of another host: an answer from a subnet that this
// host exposes. It resolves the containers' addresses for the gateway.
func (l *Link) fromGateway(t *table, f *vswitch.Frame, payload []byte) {
	v := l.via.Load()
	if v == nil || len(v.exposed.lengths) == 0 {
		l.drop(DropGateway)
		return
	}
	et := f.EtherType()
	if et == vswitch.EtherTypeARP {
		if len(payload) >= arpLen && [6]byte(payload[:6]) == arpWords &&
			binary.BigEndian.Uint16(payload[6:]) == arpRequest {
			target := netip.AddrFrom4([4]byte(payload[24:28]))
			if e := t.byAddr[target]; e != nil {
				l.answerARP(e.MAC, payload, target)
			}
		}
		l.drop(DropGateway)
		return
	}
	h, ok := parseInner(et, payload)
	if !ok {
		l.drop(DropGateway)
		return
	}
	if h.v6 && h.proto == protoICMPv6 && !h.fragment && f.Ethernet()[0]&1 != 0 {
		l.answerSolicitation(t, f, payload[h.l4:h.length], payload)
		l.drop(DropGateway)
		return
	}
	src, _ := h.ends(payload)
	e := t.byMAC[overlay.MAC(f.Ethernet()[:6])]
	if e == nil || v.exposed.find(src) == nil {
		l.drop(DropGateway)
		return
	}
	l.sendTo(e.peer, f, &h, payload)
}

// answerSolicitation answers the gateway's question for the MAC of a container of another host.
func (l *Link) answerSolicitation(t *table, f *vswitch.Frame, m, packet []byte) {
	if len(m) < ndLen || m[0] != ndNeighbourSolicitation {
		return
	}
	target := netip.AddrFrom16([16]byte(m[8:24]))
	if e := t.byAddr[target]; e != nil {
		l.answerND(e, f, packet, target)
	}
}

// checkVia is all that a frame of a host to or from a gateway must pass; it parses the packet in it into h. One from
// the other gateway is made one of this link's own: its MAC is that of the gateway here.
func (l *Link) checkVia(v *via, t *table, p *peer, frame []byte, etherType uint16, payload []byte, h *inner) Reason {
	if etherType != vswitch.EtherTypeIPv4 && etherType != vswitch.EtherTypeIPv6 {
		return DropGateway
	}
	var ok bool
	if *h, ok = parseInner(etherType, payload); !ok {
		return DropMalformed
	}
	if why := configuration(h, payload, true); why != pass {
		return why
	}
	src, dst := h.ends(payload)
	if overlay.MAC(frame[:6]) == l.gate { // a container's, to what this host exposes
		e := t.byMAC[overlay.MAC(frame[6:12])]
		switch {
		case e == nil || e.peer != p:
			return DropSourceMAC
		case !e.has(src):
			return DropSourceAddr
		case v.exposed.find(dst) == nil:
			return DropGateway
		}
		return pass
	}
	from := v.others.find(src)
	if from == nil || from.peer != p || frame[0]&1 != 0 {
		return DropGateway
	}
	copy(frame[6:12], l.mac[:])
	return pass
}
