package daemon

import (
	"cmp"
	"context"
	"net/netip"
	"time"

	"github.com/usernet/usernet/network"
)

// agentTimeout bounds one entry into a sandbox's namespaces.
const agentTimeout = 10 * time.Second

// Networks returns all networks.
func (d *Daemon) Networks() []*network.Network { return d.model.Networks() }

// tellSubnets has the forwarders know the subnets of all networks, which lead nowhere outside.
func (d *Daemon) tellSubnets() {
	d.shared.SetNetworks(func() (list []netip.Prefix) {
		for _, n := range d.model.Networks() {
			if n.ConfigOnly {
				continue
			}
			for _, s := range n.Pools {
				if s.Gateway.IsValid() {
					list = append(list, netip.PrefixFrom(s.Gateway, s.Subnet.Bits()))
				} else {
					list = append(list, s.Subnet)
				}
			}
		}
		return list
	})
}

// Network finds one by id, name or unique id prefix.
func (d *Daemon) Network(ref string) (*network.Network, error) { return d.model.Network(ref) }

// CreateNetwork makes a network. Its switch and gateway start with its first endpoint.
func (d *Daemon) CreateNetwork(ctx context.Context, spec network.NetworkSpec) (*network.Network, string, error) {
	if driver, err := d.driverOf(cmp.Or(spec.Driver, network.Drivers[0].Name)); err == nil {
		// else the model has Docker's text
		n := &network.Network{
			Name: spec.Name, Driver: driver.Name(), Internal: spec.Internal, Options: spec.Options,
		}
		if from, err := d.model.Network(spec.ConfigFrom); err == nil && spec.ConfigFrom != "" {
			n.Options = from.Options
		}
		if err := driver.Validate(n); err != nil {
			return nil, "", err
		}
	}
	if driver, known := network.DriverOf(spec.Driver); known && driver.Scope == network.ScopeGlobal &&
		!spec.ConfigOnly && d.cluster != nil {
		return d.createGlobal(ctx, spec)
	}
	n, warning, err := d.model.CreateNetwork(spec)
	if err != nil {
		return nil, "", err
	}
	d.tellSubnets()
	d.nameNetwork(n)
	d.networkEvent("create", n.ID, n.Name, map[string]string{"type": n.Driver})
	return n, warning, nil
}

// RemoveNetwork removes a network without endpoints.
func (d *Daemon) RemoveNetwork(ctx context.Context, ref string) error {
	n, err := d.model.Network(ref)
	if err != nil {
		return err
	}
	if n.Scope == network.ScopeGlobal && d.cluster != nil {
		d.importing.Lock() // until the model agrees with the cluster again
		defer d.importing.Unlock()
		if !n.InUse(d.model.Containers()) { // else the model says so
			if err := d.cluster.RemoveNetwork(ctx, n.ID); err != nil {
				return err
			}
		}
	}
	if err := d.model.RemoveNetwork(n.ID); err != nil {
		return err
	}
	d.forgetNetwork(n)
	return nil
}

// PruneNetworks removes the user-defined networks that nothing uses and that match lets pass, and returns their names.
func (d *Daemon) PruneNetworks(ctx context.Context, match func(*network.Network) bool) ([]string, error) {
	var removed []string
	containers := d.model.Containers()
	for _, n := range d.model.Networks() {
		if n.Predefined() || n.ConfigOnly || n.InUse(containers) || !match(n) {
			continue
		}
		if d.RemoveNetwork(ctx, n.ID) == nil { // it fails where somebody has connected meanwhile
			removed = append(removed, n.Name)
		}
	}
	d.events.add("network", "prune", "", map[string]string{"reclaimed": "0"}) // bytes, as of Docker's other kinds
	return removed, nil
}

// Connect gives a container an interface on one more network, at once where it runs.
func (d *Daemon) Connect(ctx context.Context, networkRef, containerRef string, spec network.EndpointSpec) error {
	c, err := d.model.Container(containerRef)
	if err != nil {
		return err
	}
	if c.Moves {
		return errMoves(c)
	}
	s := d.runtime(c.ID)
	defer d.updateFiles(c.ID) // after the unlocking
	s.mu.Lock()
	defer s.mu.Unlock()
	c, e, err := d.model.Connect(networkRef, c.ID, spec)
	if err != nil {
		return err
	}
	if c.Status == network.Running {
		ctx, cancel := context.WithTimeout(ctx, agentTimeout)
		defer cancel()
		if err := d.attachEndpoints(ctx, s, c, []*network.Endpoint{e}, nil); err != nil {
			s.detachEndpoint(e.ID)
			if _, _, undo := d.model.Disconnect(e.NetworkID, c.ID, true); undo != nil {
				d.log.Error("endpoint left in the store", "container", c.Name, "network", e.Network, "error", undo)
			}
			return err
		}
	}
	d.afterEndpointChange(ctx, s, c)
	d.endpointEvent("connect", c, e)
	return nil
}

// Disconnect takes a container's interface on a network away.
func (d *Daemon) Disconnect(ctx context.Context, networkRef, containerRef string, force bool) error {
	c, err := d.model.Container(containerRef)
	if err != nil {
		return err
	}
	if c.Moves {
		return errMoves(c)
	}
	s := d.runtime(c.ID)
	defer d.updateFiles(c.ID) // after the unlocking
	s.mu.Lock()
	defer s.mu.Unlock()
	c, e, err := d.model.Disconnect(networkRef, c.ID, force)
	if err != nil {
		return err
	}
	s.detachEndpoint(e.ID)
	if c.Status == network.Running {
		ctx, cancel := context.WithTimeout(ctx, agentTimeout)
		defer cancel()
		if err := d.attachEndpoints(ctx, s, c, nil, []string{e.Interface}); err != nil {
			// The switch port is closed and the store agrees; a sandbox that cannot be entered is about to end.
			d.log.Warn("interface left in the sandbox", "container", c.Name, "interface", e.Interface, "error", err)
		}
	}
	d.afterEndpointChange(ctx, s, c)
	d.endpointEvent("disconnect", c, e)
	return nil
}

// afterEndpointChange brings names and published ports in line after an endpoint came or went. The caller holds s.mu.
func (d *Daemon) afterEndpointChange(ctx context.Context, s *containerRuntime, c *network.Container) {
	d.updateNames(c.ID)
	d.refreshLinkedHosts(c.Name)
	if c.Status != network.Running {
		return
	}
	if d.portsMoved(s, c) {
		d.unpublishAll(s)
		if err := d.publishAll(ctx, s, c); err != nil {
			d.log.Error("published ports lost", "container", c.Name, "error", err)
		}
	}
}

// portsMoved says whether the container's published ports are bound on a network that is no longer the right one.
func (d *Daemon) portsMoved(s *containerRuntime, c *network.Container) bool {
	e4, e6 := network.DefaultRouteEndpoint(c, d.networkByID)
	e := e4
	if e == nil {
		e = e6
	}
	if e == nil || s.attachments[e.ID] == nil {
		return len(s.bound) > 0
	}
	if len(s.bound) == 0 {
		return len(c.Ports) > 0 || c.PublishAll
	}
	return s.bound[0].bridge != s.attachments[e.ID].bridge
}

func (d *Daemon) networkEvent(action, id, name string, attributes map[string]string) {
	attributes["name"] = name
	d.events.add("network", action, id, attributes)
}

// endpointEvent tells that c came to a network or left it.
func (d *Daemon) endpointEvent(action string, c *network.Container, e *network.Endpoint) {
	driver := network.Drivers[0].Name
	if n := d.networkByID(e.NetworkID); n != nil {
		driver = n.Driver
	}
	d.networkEvent(action, e.NetworkID, e.Network, map[string]string{"container": c.ID, "type": driver})
}
