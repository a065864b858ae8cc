package daemon

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
)

// agentTimeout bounds one entry into a sandbox's namespaces.
const agentTimeout = 10 * time.Second

// Networks returns all networks.
func (d *Daemon) Networks() []*network.Network { return d.model.Networks() }

// updateSubnets tells the forwarders the subnets of all networks, which lead nowhere outside.
func (d *Daemon) updateSubnets() {
	d.shared.SetNetworks(func() (list []netip.Prefix) {
		for _, n := range d.model.Networks() {
			if n.ConfigOnly {
				continue
			}
			list = append(list, n.HostAddrs()...)
			for _, s := range n.Pools {
				if !s.Gateway.IsValid() && !n.IsDirect() {
					list = append(list, s.Subnet)
				}
			}
		}
		return list
	})
}

// Network finds one by id, name or unique id prefix.
func (d *Daemon) Network(ref string) (*network.Network, error) { return d.model.Network(ref) }

// CheckOptions refuses options that networks of a driver cannot have, by their names and values alone.
func CheckOptions(driver string, options map[string]string) error {
	if _, known := network.DriverOf(driver); !known {
		return errdefs.NotFound("there is no network driver %q", driver)
	}
	n := &network.Network{Driver: driver, Options: options}
	if err := n.CheckOptions(); err != nil {
		return err
	}
	_, err := egress(n, "", nil)
	return err
}

// CreateNetwork makes a network. Its switch and gateway start with its first endpoint.
func (d *Daemon) CreateNetwork(ctx context.Context, spec network.NetworkSpec) (*network.Network, string, error) {
	if spec.ConfigFrom == "" && len(d.cfg.NetworkOptions) > 0 {
		options := maps.Clone(d.cfg.NetworkOptions)
		maps.Copy(options, spec.Options)
		spec.Options = options
	}
	if driver, err := d.driverOf(cmp.Or(spec.Driver, network.Drivers[0].Name)); err == nil {
		// else the model has Docker's text
		if p, is := driver.(preparer); is {
			if err := p.Prepare(ctx, &spec); err != nil {
				return nil, "", err
			}
		}
		n := &network.Network{
			Name: spec.Name, Driver: driver.Name(), Internal: spec.Internal, Options: spec.Options,
		}
		if from, err := d.model.Network(spec.ConfigFrom); err == nil && spec.ConfigFrom != "" {
			n.Options = from.Options
		}
		if err := driver.Validate(n); err != nil {
			return nil, "", err
		}
		if s, is := driver.(Subnetter); is && !spec.ConfigOnly {
			if slices.ContainsFunc(spec.Pools, func(p network.Pool) bool { return p.Subnet.IsValid() }) {
				return nil, "", errdefs.Invalid("the subnet of a %s network is that of its lease: give none", driver.Name())
			}
			if spec.Pools, err = s.Pools(ctx); err != nil {
				return nil, "", err
			}
		}
	}
	if driver, known := network.DriverOf(spec.Driver); known && driver.Scope == network.ScopeGlobal &&
		!spec.ConfigOnly && d.member != nil {
		return d.createGlobal(ctx, spec)
	}
	n, warning, err := d.model.CreateNetwork(spec)
	if err != nil {
		return nil, "", err
	}
	d.updateSubnets()
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
	if n.Scope == network.ScopeGlobal && d.member != nil {
		d.importing.Lock() // until the model agrees with the cluster again
		defer d.importing.Unlock()
		if !n.InUse(d.model.Find(network.OnNetwork(n.ID))) { // else the model says so
			if err := d.member.RemoveNetwork(ctx, n.ID); err != nil {
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
