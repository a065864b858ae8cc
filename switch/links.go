package vswitch

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/usernet/usernet/internal/packet"
)

// ICMP errors, which cite the packet that they are about from their eighth byte on (RFC 792, RFC 4443).
const (
	icmpUnreachable, icmpTimeExceeded, icmpParameter = 3, 11, 12
	icmp6FirstError, icmp6LastError                  = 1, 4
	icmpErrorLen                                     = 8

	tcpSYN, tcpACK = 0x02, 0x10
)

// PortRange is a row of transport ports, both ends included.
type PortRange struct {
	Proto       uint8 // 6 for TCP, 17 for UDP (IANA)
	First, Last uint16
}

// Link is an exception for two isolated ports: From may reach the given transport ports of To, and To may answer from
// them.
type Link struct {
	From, To *Port
	Ports    []PortRange
}

// access is what an isolated port may send to one other.
type access struct {
	reach portSet // the other's transport ports
	serve portSet // its own, from which it answers
}

// portSet is sorted and without overlaps.
type portSet []portSpan

// portSpan is a row of numbers protocol<<16 | port, both ends included.
type portSpan struct{ lo, hi uint32 }

func serviceNumber(proto uint8, port uint16) uint32 { return uint32(proto)<<16 | uint32(port) }

// has says whether port n of the protocol is in the set.
func (s portSet) has(proto uint8, n uint16) bool {
	want := serviceNumber(proto, n)
	for len(s) > 0 {
		switch mid := len(s) / 2; {
		case want < s[mid].lo:
			s = s[:mid]
		case want > s[mid].hi:
			s = s[mid+1:]
		default:
			return true
		}
	}
	return false
}

func newPortSet(spans []portSpan) portSet {
	slices.SortFunc(spans, func(a, b portSpan) int { return cmp.Compare(a.lo, b.lo) })
	var set portSet
	for _, s := range spans {
		if n := len(set); n > 0 && s.lo <= set[n-1].hi+1 {
			set[n-1].hi = max(set[n-1].hi, s.hi)
		} else {
			set = append(set, s)
		}
	}
	return set
}

// SetLinks replaces all exceptions between isolated ports. Frames that are on their way see either the old ones of
// their port or the new. A port that was closed is passed over; one that takes its place starts without.
func (s *Switch) SetLinks(links []Link) {
	type pair struct{ from, to *Port }
	spans := map[pair][]portSpan{}
	for _, l := range links {
		for _, r := range l.Ports {
			if (r.Proto == packet.ProtoTCP || r.Proto == packet.ProtoUDP) && r.First <= r.Last && l.From != l.To {
				at := pair{l.From, l.To}
				spans[at] = append(spans[at], portSpan{serviceNumber(r.Proto, r.First), serviceNumber(r.Proto, r.Last)})
			}
		}
	}
	next := map[*Port]map[*Port]access{}
	grant := func(from, to *Port, add access) {
		if next[from] == nil {
			next[from] = map[*Port]access{}
		}
		a := next[from][to]
		if add.reach != nil {
			a.reach = add.reach
		}
		if add.serve != nil {
			a.serve = add.serve
		}
		next[from][to] = a
	}
	for at, list := range spans {
		set := newPortSet(list)
		grant(at.from, at.to, access{reach: set})
		grant(at.to, at.from, access{serve: set})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.table.Load().ports {
		m := next[p]
		p.links.Store(&m)
	}
}

// linked says whether a frame may pass from p to q, which are kept apart, because of a link. Only ARP and neighbour
// discovery between the two, the linked ports' TCP and UDP, and ICMP errors about these do; all of it from p's own
// addresses to q's. Frames of ports without guard have to pass the guard here.
func (p *Port) linked(r *portState, q *Port, rq *portState, f *Frame) bool {
	links := p.links.Load()
	if links == nil {
		return false
	}
	a, ok := (*links)[q]
	if !ok || len(f.Payload) == 0 || r.cfg.Role != Guest && p.guard(r, f) != verdictPass {
		return false
	}
	dst := f.dst()
	direct := dst == rq.mac
	if !direct && dst&groupBit == 0 {
		return false // to what q learned from its device
	}
	b, t := f.Payload[0], f.EtherType()
	if t == EtherTypeARP {
		return rq.has4(b[24:28]) || r.has4(b[24:28]) // asks or tells q, or announces itself
	}
	h, ok := parseIP(t, b)
	if !ok {
		return false
	}
	if h.V6 && h.Proto == packet.ProtoICMPv6 && !h.Fragment && isSolicitation(b[h.Transport:]) {
		return solicits(r, rq, b, b[h.Transport:])
	}
	if src, dst := h.Addrs(b); !direct || !r.has(src) || !rq.has(dst) {
		return false
	}
	switch {
	case h.Later:
		return p.firstPassed(fragmentKey(h, b))
	case h.MoreFragments:
		ok = a.allows(h, b)
		p.noteFirst(fragmentKey(h, b), ok)
		return ok
	}
	return a.allows(h, b) || a.allowsError(r, rq, h, b)
}

// isSolicitation says whether an ICMPv6 message asks for, or tells, a link-layer address.
func isSolicitation(t []byte) bool {
	return len(t) >= 24 && (t[0] == ndNeighbourSolicitation || t[0] == ndNeighbourAdvert)
}

// solicits says whether a neighbour discovery message t in packet b is for the port of rq: it asks for one of its
// addresses, or tells the sender's own, which the guard has seen to.
func solicits(r, rq *portState, b, t []byte) bool {
	const multicast = 0xff // the first byte of ff00::/8 (RFC 4291, 2.7)
	src, dst := b[8:24], b[24:40]
	return r.has6(src) && (dst[0] == multicast || rq.has6(dst)) && (t[0] == ndNeighbourAdvert || rq.has6(t[8:24]))
}

// allows says whether a TCP segment or UDP datagram is for a linked port, or an answer from one. A server that answers
// never starts a TCP connection, which is what SYN without ACK does (RFC 9293, 3.5).
func (a access) allows(h packet.Headers, b []byte) bool {
	if h.Proto != packet.ProtoTCP && h.Proto != packet.ProtoUDP {
		return false
	}
	t := b[h.Transport:]
	if a.reach.has(h.Proto, binary.BigEndian.Uint16(t[2:])) {
		return true
	}
	return a.serve.has(h.Proto, binary.BigEndian.Uint16(t)) &&
		(h.Proto == packet.ProtoUDP || t[tcpFlags]&(tcpSYN|tcpACK) != tcpSYN)
}

// allowsError says whether a packet is an ICMP error about one that the link lets the other side send: a closed port,
// or a packet that was too big.
func (a access) allowsError(r, rq *portState, h packet.Headers, b []byte) bool {
	t := b[h.Transport:min(h.Length, len(b))]
	if len(t) < icmpErrorLen {
		return false
	}
	var cited packet.Headers
	var ok bool
	p := t[icmpErrorLen:]
	switch kind := t[0]; {
	case h.Proto == packet.ProtoICMP && !h.V6 &&
		(kind == icmpUnreachable || kind == icmpTimeExceeded || kind == icmpParameter):
		cited, ok = packet.ParseIPv4(p)
	case h.Proto == packet.ProtoICMPv6 && h.V6 && icmp6FirstError <= kind && kind <= icmp6LastError:
		cited, ok = packet.ParseIPv6(p)
	}
	if !ok || cited.Later || cited.Proto != packet.ProtoTCP && cited.Proto != packet.ProtoUDP {
		return false
	}
	if src, dst := cited.Addrs(p); !rq.has(src) || !r.has(dst) {
		return false
	}
	if p = p[cited.Transport:]; len(p) < 4 {
		return false
	}
	return a.serve.has(cited.Proto, binary.BigEndian.Uint16(p[2:])) ||
		a.reach.has(cited.Proto, binary.BigEndian.Uint16(p))
}

// has says whether an address of either family is the port's.
func (r *portState) has(a []byte) bool {
	if len(a) == 4 {
		return r.has4(a)
	}
	return r.has6(a)
}
