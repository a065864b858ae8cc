package daemon

import (
	"context"
	"errors"
	"net/netip"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay/uplink/dhcp"
)

// resumer is a network.Leaser whose leases outlive the daemon.
type resumer interface {
	network.Leaser
	Resume(n *network.Network, c network.Claim) error
}

// resumeLeases has addresses renewed that DHCP servers gave to containers which run.
func (d *Daemon) resumeLeases() {
	for _, c := range d.model.Containers() {
		for _, e := range c.Endpoints {
			n := d.networkByID(e.NetworkID)
			if n == nil || c.Status != network.Running {
				continue
			}
			driver, err := d.driverOf(n.Driver)
			r, is := driver.(resumer)
			if err != nil || !is {
				continue
			}
			claim := network.Claim{Owner: e.ID, MAC: e.MAC, Hostname: c.NameOutside(), VLAN: e.VLAN}
			if claim.Want = e.IPv4.Addr(); e.DHCP && claim.Want.IsValid() {
				err = r.Resume(n, claim)
			}
			if claim.Want = e.IPv6.Addr(); e.Autoconf && claim.Want.IsValid() && !madeOfMAC(e) {
				err = errors.Join(err, r.Resume(n, claim))
			}
			if err != nil {
				d.log.Error("the address of a container is not renewed", "container", c.Name, "network", n.Name,
					"error", err)
			}
		}
	}
}

// renumber gives an endpoint the address that its DHCP server gives it now: its interface is made anew.
func (d *Daemon) renumber(endpoint string, l dhcp.Lease) {
	list := d.model.Find(network.WithEndpoint(endpoint))
	if len(list) == 0 || list[0].Status != network.Running {
		return
	}
	s := d.runtime(list[0].ID)
	defer d.updateFiles(s.id) // after the unlocking
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := d.model.UpdateContainer(s.id, func(c *network.Container) error {
		for _, e := range c.Endpoints {
			if n := d.networkByID(e.NetworkID); e.ID == endpoint && n != nil {
				return readdress(n, e, l.Addr.Addr())
			}
		}
		return nil
	})
	if err == nil {
		d.log.Warn("the DHCP server gives a container another address", "container", c.Name, "address", l.Addr)
		err = d.remake(s, c, endpoint)
	}
	if err != nil {
		d.log.Error("a container has lost its address", "container", list[0].Name, "offered", l.Addr, "error", err)
	}
}

// remake makes an endpoint's interface anew. The caller holds s.mu.
func (d *Daemon) remake(s *containerRuntime, c *network.Container, endpoint string) error {
	ctx, cancel := context.WithTimeout(d.ctx, agentTimeout)
	defer cancel()
	for _, e := range c.Endpoints {
		if e.ID != endpoint {
			continue
		}
		s.detachEndpoint(e.ID)
		d.unpublishAll(s)
		if err := d.attachEndpoints(ctx, s, c, []*network.Endpoint{e}, []string{e.Interface}); err != nil {
			return err
		}
	}
	d.afterEndpointChange(ctx, s, c)
	return nil
}

// readdress gives an endpoint another address of its network.
func readdress(n *network.Network, e *network.Endpoint, a netip.Addr) error {
	for _, p := range n.Pools {
		if p.Subnet.Contains(a) && a.Is6() { // the gateway is what routers say
			e.IPv6 = netip.PrefixFrom(a, p.Subnet.Bits())
			return nil
		}
		if p.Subnet.Contains(a) {
			e.IPv4, e.Gateway4 = netip.PrefixFrom(a, p.Subnet.Bits()), p.Gateway
			if n.Internal {
				e.Gateway4 = netip.Addr{}
			}
			return nil
		}
	}
	return errdefs.Unavailable("%s is in no subnet of network %s: make the network anew", a, n.Name)
}
