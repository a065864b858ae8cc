package evpn

import (
	"bytes"
	"net/netip"
	"slices"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/bgp"
	"github.com/usernet/usernet/overlay/fabric"
)

// view is what the routes of others say of a network.
type view struct {
	vteps []netip.AddrPort // that frames to all go to
	macs  map[overlay.MAC]*remoteMAC
}

// remoteMAC is a MAC with the claim that counts, and the addresses that come with it.
type remoteMAC struct {
	claim
	addrs []netip.Addr // entries puts them in order
}

// views sorts the routes by networks. The caller holds mu.
func (s *Set) views() map[*member]*view {
	all := map[*member]*view{}
	byVNI := map[uint32][]*member{}
	for _, m := range s.networks {
		all[m] = &view{macs: map[overlay.MAC]*remoteMAC{}}
		byVNI[m.VNI] = append(byVNI[m.VNI], m)
	}
	self := s.speaker.Addr()
	for _, r := range s.speaker.Learned() {
		if !r.Path.VXLAN || r.NLRI.EVPN.Tag != 0 || r.Path.NextHop == self || !overlay.CanBeHost(r.Path.NextHop) {
			continue // of this host, come back by a second reflector; or for a service of another kind; or nonsense
		}
		for _, m := range byVNI[r.Path.Label] {
			if m.imports(r.Path.Targets) {
				all[m].add(r)
			}
		}
	}
	for _, v := range all {
		slices.SortFunc(v.vteps, netip.AddrPort.Compare)
		v.vteps = slices.Compact(v.vteps)
	}
	return all
}

// imports says whether one of a route's targets is the network's.
func (m *member) imports(targets []bgp.Target) bool {
	return slices.ContainsFunc(targets, func(t bgp.Target) bool {
		return slices.Contains(m.Targets, t) || len(m.Targets) == 0 && t.IsAutoOf(m.VNI)
	})
}

// add takes a route.
func (v *view) add(r bgp.Route) {
	e, at := r.NLRI.EVPN, r.Path.NextHop
	if e.Type == bgp.Multicast {
		if r.Path.Ingress {
			v.vteps = append(v.vteps, netip.AddrPortFrom(at, 0))
		}
		return
	}
	c := claim{sequence: r.Path.Sequence, sticky: r.Path.Sticky, at: at}
	mac := overlay.MAC(e.MAC)
	old := v.macs[mac]
	switch {
	case old == nil || c.beats(old.claim):
		old = &remoteMAC{claim: c}
		v.macs[mac] = old
	case old.claim != c:
		return
	}
	if e.IP.IsValid() {
		old.addrs = append(old.addrs, e.IP)
	}
}

// maxAddrs is how many addresses of a MAC are taken: they are looked through for each of its frames.
const maxAddrs = 256

// claim is the best one of the others for a MAC, or nil.
func (v *view) claim(mac overlay.MAC) *claim {
	if r := v.macs[mac]; r != nil {
		return &r.claim
	}
	return nil
}

// entries are the MACs in the order of their numbers, so that of two with one address it is always the same that has
// it.
func (v *view) entries() []fabric.ForeignEntry {
	list := make([]fabric.ForeignEntry, 0, len(v.macs))
	for mac, r := range v.macs {
		slices.SortFunc(r.addrs, netip.Addr.Compare)
		r.addrs = slices.Compact(r.addrs) // several routers tell of one
		addrs := r.addrs[:min(len(r.addrs), maxAddrs)]
		list = append(list, fabric.ForeignEntry{MAC: mac, Addrs: addrs, Peer: netip.AddrPortFrom(r.at, 0)})
	}
	slices.SortFunc(list, func(a, b fabric.ForeignEntry) int { return bytes.Compare(a.MAC[:], b.MAC[:]) })
	return list
}
