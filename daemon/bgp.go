package daemon

import (
	"log/slog"
	"net/netip"
	"slices"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/bgp"
	"github.com/usernet/usernet/overlay/evpn"
	"github.com/usernet/usernet/overlay/fabric"
	"github.com/usernet/usernet/overlay/static"
	"github.com/usernet/usernet/overlay/uplink"
)

// routing is what the daemon has to do with routers: it announces where its containers are, and hears of VTEPs.
type routing struct {
	speaker *bgp.Speaker
	evpn    *evpn.Set
}

// openRouting starts to speak to the routers of a configuration; nil: there are none.
func openRouting(cfg *bgp.Config, log *slog.Logger) (*routing, error) {
	if cfg == nil {
		return nil, nil
	}
	r := &routing{evpn: evpn.New(log)}
	own := *cfg
	own.Logger, own.Changed = log, r.evpn.Wake
	var err error
	if r.speaker, err = bgp.New(own); err != nil {
		return nil, err
	}
	r.evpn.Start(r.speaker)
	return r, nil
}

// close ends it; neighbours withdraw what was announced. A nil one is closed.
func (r *routing) close() {
	if r != nil {
		r.evpn.Close()
		r.speaker.Close()
	}
}

// errNoRouter is for options that need a router.
func errNoRouter(option string) error {
	return errdefs.Invalid("%s needs routers: start the daemon with --bgp-neighbor (docs/neighbours.md)", option)
}

// report describes the neighbours for people; a nil one has none.
func (r *routing) report() (list []api.BGPNeighbor) {
	if r == nil {
		return nil
	}
	for _, n := range r.speaker.States() {
		one := api.BGPNeighbor{
			Addr:        n.Addr.String(),
			ASN:         n.ASN,
			Established: n.Established,
			Since:       n.Since,
			Error:       n.Error,
			Learned:     n.Learned,
			Announced:   n.Announced,
			Withheld:    n.Withheld,
			Ignored:     n.Ignored,
			Malformed:   n.Malformed,
		}
		for _, f := range n.Families {
			one.Families = append(one.Families, f.String())
		}
		list = append(list, one)
	}
	return list
}

// checkEVPN says why a network cannot be part of a fabric, where it is to be.
func (d vxlanDriver) checkEVPN(s network.Settings, encap fabric.Encap) error {
	switch {
	case !s.EVPN && len(s.RouteTargets) > 0:
		return errdefs.Invalid("usernet.route_targets are those of -o usernet.evpn=true")
	case !s.EVPN:
		return nil
	case d.bgp == nil:
		return errNoRouter("usernet.evpn")
	case encap != fabric.VXLAN:
		return errdefs.Invalid("usernet.evpn is for VXLAN, and usernet.encap is %v", encap)
	}
	_, err := targetsOf(s)
	return err
}

// maxTargets bounds the route targets of a network.
const maxTargets = 16

// checkRoutes says why routers cannot be told of routes to a network on a device, where they are to be. This host's
// kernel routes to a TAP that it has an address on; the stations of any other device, and of a VLAN, are on a network
// that no route by this host leads to.
func (d *macvlanDriver) checkRoutes(s network.Settings, at uplink.Config, info uplink.Info) error {
	switch {
	case s.BGP == "":
		return nil
	case d.bgp == nil:
		return errNoRouter("usernet.bgp")
	case len(s.BGPNextHop) == 0 && (!info.Routed() || at.VLAN != 0):
		return errdefs.Invalid("usernet.bgp: %s is %s, and this host is no router for parent=%s: give "+
			"-o usernet.bgp_next_hop=ADDRESS of one that is, or have the host route to a TAP (`usernet uplink check`)",
			info.Name, info.String(), s.Parent)
	}
	return nil
}

// targetsOf are the route targets of a network.
func targetsOf(s network.Settings) (list []bgp.Target, err error) {
	if len(s.RouteTargets) > maxTargets {
		return nil, errdefs.Invalid("usernet.route_targets: %d, and there may be %d", len(s.RouteTargets), maxTargets)
	}
	for _, text := range s.RouteTargets {
		t, err := bgp.ParseTarget(text)
		if err != nil {
			return nil, errdefs.Invalid("usernet.route_targets: %w", err)
		}
		list = append(list, t)
	}
	return list, nil
}

// follow is how a network hears of its peers.
func (d vxlanDriver) follow(n *network.Network, s network.Settings) (func(static.Tell) func(), error) {
	if d.bgp == nil { // it was made by a daemon that was started in another way
		return nil, errdefs.Unavailable("network %s is part of a fabric: start the daemon with --bgp-neighbor", n.Name)
	}
	targets, err := targetsOf(s)
	if err != nil {
		return nil, err
	}
	cfg := evpn.Config{ID: n.ID, Name: n.Name, VNI: s.VNI, Targets: targets}
	return func(tell static.Tell) func() { return d.bgp.evpn.Join(cfg, evpn.Tell(tell)) }, nil
}

// tellRouters has routers know what they have to of a container.
func (d *Daemon) tellRouters(id string) {
	if d.bgp == nil {
		return
	}
	name := "container/" + id
	c, err := d.model.ContainerWithoutPorts(id)
	if err != nil || c.ID != id || c.Status != network.Running {
		d.bgp.evpn.SetContainer(id, nil)
		d.bgp.speaker.Set(name, nil)
		return
	}
	var endpoints []evpn.Endpoint
	var routes []bgp.Route
	for _, e := range c.Endpoints {
		n := d.networkByID(e.NetworkID)
		if n == nil {
			continue
		}
		s, addrs := n.Settings(), endpointAddrs(e)
		if s.EVPN {
			endpoints = append(endpoints, evpn.Endpoint{Network: n.ID, MAC: overlay.MAC(e.MAC), Addrs: addrs})
		}
		routes = append(routes, routesTo(n, s, addrs)...)
	}
	d.bgp.evpn.SetContainer(id, endpoints)
	d.bgp.speaker.Set(name, routes)
}

// routesTo are the unicast routes that lead to an endpoint of a network, as its option says.
func routesTo(n *network.Network, s network.Settings, addrs []netip.Addr) (list []bgp.Route) {
	var prefixes []netip.Prefix
	switch s.BGP {
	case network.BGPEndpoints:
		for _, a := range addrs {
			prefixes = append(prefixes, netip.PrefixFrom(a, a.BitLen()))
		}
	case network.BGPSubnets:
		for _, p := range n.Pools {
			if p.Range.IsValid() { // the rest of the subnet is on other hosts
				prefixes = append(prefixes, p.Range)
			} else {
				prefixes = append(prefixes, p.Subnet)
			}
		}
	}
	for _, p := range prefixes {
		r := bgp.Route{NLRI: bgp.NLRI{Family: bgp.IPv4Unicast, Prefix: p.Masked()}}
		if p.Addr().Is6() {
			r.NLRI.Family = bgp.IPv6Unicast
		}
		i := slices.IndexFunc(s.BGPNextHop, func(a netip.Addr) bool { return a.Is4() == p.Addr().Is4() })
		if i >= 0 {
			r.Path.NextHop = s.BGPNextHop[i]
		}
		list = append(list, r)
	}
	return list
}
