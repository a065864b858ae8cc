package network

import (
	"maps"
	"slices"
)

// What the model hands out and what it keeps share nothing, so that a caller may change what it got. A test fills every
// field and finds what is shared.

// clone returns a copy of its own.
func (n *Network) clone() *Network {
	c := *n
	c.Options, c.Labels, c.IPAMOptions = maps.Clone(n.Options), maps.Clone(n.Labels), maps.Clone(n.IPAMOptions)
	c.Pools = slices.Clone(n.Pools)
	for i := range c.Pools {
		c.Pools[i].Aux = maps.Clone(c.Pools[i].Aux)
	}
	return &c
}

// clone returns a copy of its own.
func (c *Container) clone() *Container {
	o := *c
	o.Labels = maps.Clone(c.Labels)
	for _, list := range []*[]string{
		&o.Command, &o.Env, &o.CapAdd, &o.CapDrop, &o.SecurityOpt, &o.DNS, &o.DNSSearch, &o.DNSOptions, &o.ExtraHosts,
		&o.Links,
		&o.AllowEgress,
	} {
		*list = slices.Clone(*list)
	}
	o.LocalAddrs, o.StopTimeout = slices.Clone(c.LocalAddrs), clonePointer(c.StopTimeout)
	o.Mounts = slices.Clone(c.Mounts)
	o.Ports, o.Exposed, o.Bound = slices.Clone(c.Ports), slices.Clone(c.Exposed), slices.Clone(c.Bound)
	o.Endpoints = slices.Clone(c.Endpoints)
	for i, e := range o.Endpoints {
		o.Endpoints[i] = e.clone()
	}
	return &o
}

// clone returns a copy of its own.
func (e *Endpoint) clone() *Endpoint {
	c := *e
	c.LinkLocal, c.Aliases, c.Links = slices.Clone(e.LinkLocal), slices.Clone(e.Aliases), slices.Clone(e.Links)
	c.DriverOpts, c.Routes = maps.Clone(e.DriverOpts), slices.Clone(e.Routes)
	return &c
}

// clonePointer returns a pointer to a copy of what p points to.
func clonePointer[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}
