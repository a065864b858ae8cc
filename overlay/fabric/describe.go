package fabric

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// Peers describes the hosts, by their ids, then the foreign peers by their addresses.
func (f *Fabric) Peers() []PeerState {
	f.mu.Lock()
	var all []*peer
	for _, p := range f.hosts {
		all = append(all, p)
	}
	f.mu.Unlock()
	for _, p := range f.state.Load().byIP {
		all = append(all, p)
	}
	list := make([]PeerState, 0, len(all))
	for _, p := range all {
		list = append(list, p.describe())
	}
	slices.SortFunc(list, func(a, b PeerState) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), a.Addr.Compare(b.Addr))
	})
	return list
}

func (p *peer) describe() PeerState {
	s := PeerState{
		Host:      p.host,
		PathMTU:   int(p.pathMTU.Load()),
		FramesIn:  p.in.frames.Load(),
		BytesIn:   p.in.bytes.Load(),
		FramesOut: p.out.frames.Load(),
		BytesOut:  p.out.bytes.Load(),
	}
	d := p.dest.Load()
	if d == nil {
		return s
	}
	s.Addr, s.Sealed = d.addr, p.key.Load() != nil
	s.Alive = p.isAlive(time.Now())
	p.probing.Lock()
	s.Answered, s.RTT, s.SeenAs, s.Ahead = p.probes.answered, p.probes.rtt, p.probes.seenAs, p.probes.ahead
	p.probing.Unlock()
	if via := p.via.Load(); via != nil {
		s.Path, s.Relay = Relayed, via.host
		// No datagram goes to the peer's own address, which may be this host's as well behind another NAT.
		s.PathMTU = int(via.pathMTU.Load())
	} else if c := p.carrier.Load(); c != nil {
		s.Path, s.Addr = TCP, c.from
	} else if !p.foreign && (!p.named(d.addr)) {
		s.Path = Punched
	}
	return s
}

// named says whether an address is one that the host itself has named.
func (p *peer) named(a netip.AddrPort) bool {
	list := *p.candidates.Load()
	return slices.ContainsFunc(list, func(d *destination) bool { return d.addr == a && !d.seen })
}

// Path is how a peer is reached.
type Path uint8

// The paths.
const (
	Direct  Path = iota // at an address that the host has named
	Punched             // at an address that others have seen it at
	Relayed             // through another host
	TCP                 // by a TCP connection: no UDP gets through
)

func (p Path) String() string {
	return [...]string{Direct: "direct", Punched: "punched", Relayed: "relayed", TCP: "tcp"}[p]
}

// MarshalText makes a Path a word in JSON.
func (p Path) MarshalText() ([]byte, error) { return []byte(p.String()), nil }
