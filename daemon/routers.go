package daemon

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay/uplink"
	"github.com/usernet/usernet/overlay/uplink/routers"
	"github.com/usernet/usernet/sandbox"
)

// IPv6 on physical networks with usernet.autoconf: routers announce prefixes, of which a container has the address that
// follows from its MAC, or they leave addresses to a DHCPv6 server. The container's kernel follows the prefixes'
// lifetimes; here is what the kernel does not do, or what has to be known of it: the address before the start, the
// default route, and the addresses that the switch lets the container send from.

// follow has a network hear of the routers on its VLAN, or on another one.
func (d *macvlanDriver) follow(at uplink.Config, n *network.Network, vlan uint16) uplink.Config {
	if n.Settings().Autoconf {
		at.Routers = func(routers.View) { d.routed(n.ID, vlan) }
	}
	return at
}

// askRouters asks which prefix is there.
func (d *macvlanDriver) askRouters(
	ctx context.Context, spec *network.NetworkSpec, at uplink.Config, mac network.MAC,
) error {
	ctx, cancel := context.WithTimeout(ctx, agentTimeout)
	defer cancel()
	view, err := d.uplinks.Solicit(ctx, at, net.HardwareAddr(mac[:]))
	if err != nil {
		return errNoPrefix(spec.Options["parent"], err)
	}
	for _, p := range view.Prefixes {
		if p.OnLink && (view.Managed || p.Autonomous) {
			spec.Options["usernet.autoconf"] = strconv.FormatBool(true)
			spec.Pools = append(spec.Pools, network.Pool{Subnet: p.Prefix, Gateway: view.Router})
			return nil
		}
	}
	return errNoPrefix(spec.Options["parent"], uplink.ErrNoRouter)
}

func errNoPrefix(parent string, err error) error {
	const advice = "where there is none, give the network's prefix with --subnet, and its router with --gateway"
	if errors.Is(err, uplink.ErrNoRouter) {
		return errdefs.Unavailable("parent %s: %w: %s", parent, err, advice)
	}
	return errdefs.Unavailable("parent %s: %w", parent, err)
}

// ownAddress is the address that a container makes itself of a prefix; managed: a DHCPv6 server is to be asked instead.
func (d *macvlanDriver) ownAddress(
	ctx context.Context, n *network.Network, p network.Pool, c network.Claim, at uplink.Config,
) (a netip.Addr, managed bool, err error) {
	mac := net.HardwareAddr(c.MAC[:])
	view, err := d.uplinks.Solicit(ctx, at, mac)
	if err != nil {
		return a, false, errNoPrefix(n.Settings().Parent, err)
	}
	prefix, ok := view.Of(p.Subnet)
	if a = prefix.Address(mac); ok && view.Managed {
		return a, true, nil
	}
	switch {
	case !ok:
		return a, false, errdefs.Unavailable("network %s: the routers announce %s, and the network was made for %s: "+
			"make it anew", n.Name, view.Prefixes[0].Prefix, p.Subnet)
	case !a.IsValid():
		return a, false, errdefs.Unavailable("network %s: the routers announce %s for other ways to have an address: give "+
			"the network's prefix with --subnet", n.Name, p.Subnet)
	case c.Want.IsValid() && c.Want != a:
		return a, false, errdefs.Invalid("network %s: the address follows from the MAC address: give --mac-address in the "+
			"place of --ip6", n.Name)
	}
	other, err := d.uplinks.Taken(ctx, at, mac, a)
	if err == nil && other != nil {
		err = errdefs.Forbidden("network %s: address %s, which follows from the MAC address %s, is that of another "+
			"station, %s: give another --mac-address", n.Name, a, mac, other)
	}
	return a, false, err
}

// madeOfMAC says whether an endpoint's IPv6 address is one that follows from its MAC, and not a server's.
func madeOfMAC(e *network.Endpoint) bool {
	p := routers.Prefix{Prefix: e.IPv6.Masked(), Autonomous: true}
	return e.Autoconf && p.Address(net.HardwareAddr(e.MAC[:])) == e.IPv6.Addr()
}

// routersOf is what the routers of an endpoint's place announce.
func (d *Daemon) routersOf(n *network.Network, e *network.Endpoint) routers.View {
	at, err := placeOf(n, e.VLAN)
	if err != nil || !e.Autoconf {
		return routers.View{}
	}
	return d.uplinks.Routers(at)
}

// autoconfigure has an interface follow the routers of its network.
func (d *Daemon) autoconfigure(i *sandbox.Interface, n *network.Network, e *network.Endpoint) {
	if !e.Autoconf || e.Unconfigured {
		return
	}
	i.Autoconf, i.OwnRoutes = true, true
	view := d.routersOf(n, e)
	if p, ok := view.Of(e.IPv6.Masked()); ok && madeOfMAC(e) {
		i.Valid, i.Preferred = max(time.Until(p.Valid), time.Second), max(time.Until(p.Preferred), 0)
	}
}

// allAddrs are the addresses that an endpoint may send from.
func (d *Daemon) allAddrs(n *network.Network, e *network.Endpoint) []netip.Addr {
	list := append(endpointAddrs(e), e.LinkLocal...)
	view := d.routersOf(n, e)
	for _, a := range view.Addresses(net.HardwareAddr(e.MAC[:])) {
		if !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	return list
}

// announce tells the stations of a physical network which addresses an endpoint has.
func (d *Daemon) announce(n *network.Network, e *network.Endpoint) {
	if at, err := placeOf(n, e.VLAN); err == nil && n.IsDirect() {
		d.uplinks.Announce(at, net.HardwareAddr(e.MAC[:]), endpointAddrs(e))
	}
}

// followRouters has the containers of a physical network do what its routers announce now.
func (d *Daemon) followRouters(networkID string, vlan uint16) {
	n := d.networkByID(networkID)
	if n == nil {
		return
	}
	on := func(e *network.Endpoint) bool { return e.NetworkID == networkID && e.VLAN == vlan && e.Autoconf }
	for _, c := range d.model.Find(network.OnNetwork(networkID)) {
		for _, e := range c.Endpoints {
			if c.Status == network.Running && on(e) {
				d.followFor(n, c.ID, e.ID)
			}
		}
	}
}

// followFor does it for one endpoint.
func (d *Daemon) followFor(n *network.Network, container, endpoint string) {
	ctx, cancel := context.WithTimeout(d.ctx, agentTimeout)
	defer cancel()
	s := d.runtime(container)
	defer d.updateFiles(container) // after the unlocking
	s.mu.Lock()
	defer s.mu.Unlock()
	var was, now *network.Endpoint
	c, err := d.model.UpdateContainer(container, func(c *network.Container) error {
		for _, e := range c.Endpoints {
			if e.ID == endpoint {
				copied := *e
				was, now = &copied, e
				d.readvertised(n, e)
			}
		}
		return nil
	})
	p := s.attachments[endpoint]
	if err != nil || now == nil || p == nil {
		return // it has gone meanwhile
	}
	err = p.port.SetAddrs(d.allAddrs(n, now))
	if err == nil && (was.Gateway6 != now.Gateway6 || was.IPv6 != now.IPv6) {
		d.log.Info("a physical network's routers announce something else to a container", "container", c.Name,
			"network", n.Name, "router", now.Gateway6, "address", now.IPv6)
		err = d.attachEndpoints(ctx, s, c, nil, nil) // the default routes
		d.afterEndpointChange(ctx, s, c)
	}
	if err != nil {
		d.log.Warn("a container does not follow its routers", "container", c.Name, "network", n.Name, "error", err)
	}
}

// readvertised is an endpoint after what its routers announce now: its default route, and the address that it is known
// by, which its kernel has made.
func (d *Daemon) readvertised(n *network.Network, e *network.Endpoint) {
	view := d.routersOf(n, e)
	if !n.Internal {
		e.Gateway6 = view.Router
	}
	if p, ok := view.Of(e.IPv6.Masked()); !madeOfMAC(e) || len(view.Prefixes) == 0 ||
		ok && p.Preferred.After(time.Now()) {
		return
	}
	for _, p := range view.Prefixes {
		if a := p.Address(net.HardwareAddr(e.MAC[:])); a.IsValid() && p.Preferred.After(time.Now()) {
			e.IPv6 = netip.PrefixFrom(a, p.Bits())
			return
		}
	}
}
