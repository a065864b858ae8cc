package daemon

import (
	"context"
	"maps"
	"strings"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/policy"
)

// This file changes options of networks whose containers run. Those of a network that spans hosts are changed on all.

// Options that can be changed; policyOption is another one.
const (
	egressOption      = "usernet.egress"
	allowEgressOption = "usernet.allow_egress"
)

// optionUpdater is a membership whose networks can be changed.
type optionUpdater interface {
	UpdateNetwork(n *network.Network, change map[string]string) error
}

// UpdateNetwork implements api.Backend.
func (d *Daemon) UpdateNetwork(_ context.Context, ref string, q api.NetworkUpdate) error {
	change := map[string]string{}
	if q.Egress != nil {
		change[egressOption] = *q.Egress
	}
	if q.AllowEgress != nil {
		change[allowEgressOption] = strings.Join(*q.AllowEgress, ",")
	}
	return d.changeOptions(ref, change)
}

// changeOptions gives a network other options, "" being none, and has it work by them.
func (d *Daemon) changeOptions(ref string, change map[string]string) error {
	d.importing.Lock()
	defer d.importing.Unlock()
	n, err := d.model.Network(ref)
	if err != nil {
		return err
	}
	changed := *n
	if changed.Options = maps.Clone(n.Options); changed.Options == nil {
		changed.Options = map[string]string{}
	}
	for option, value := range change {
		if changed.Options[option] = value; value == "" {
			delete(changed.Options, option)
		}
	}
	if err := d.checkOptions(&changed); err != nil {
		return err
	}
	if n.SpansHosts() {
		u, is := d.member.(optionUpdater)
		if !is {
			return errdefs.Forbidden("the options of network %s are not this host's to change", n.Name)
		}
		if err := u.UpdateNetwork(n, change); err != nil {
			return err
		}
	}
	if err := d.model.ImportNetwork(&changed); err != nil {
		return err
	}
	d.optionsChanged(n, &changed)
	return nil
}

// checkOptions says why a network cannot have the options that it has, with the containers that are on it.
func (d *Daemon) checkOptions(n *network.Network) error {
	if err := n.CheckOptions(); err != nil {
		return err
	}
	if _, err := egress(n, "", nil); err != nil {
		return err
	}
	for _, c := range d.model.Find(network.OnNetwork(n.ID)) {
		if _, err := egress(n, c.Egress, c.AllowEgress); err != nil {
			return errdefs.Invalid("container %s: %w", c.Name, err)
		}
	}
	return nil
}

// optionsChanged has a network work by the options that it has now.
func (d *Daemon) optionsChanged(before, now *network.Network) {
	if before.Options[policyOption] != now.Options[policyOption] {
		d.policyChanged(now.ID)
	}
	if sameEgress(before, now) {
		return
	}
	if b := d.bridge(now.ID); b != nil {
		d.updateEgress(b)
	}
	d.namesMu.Lock()
	defer d.namesMu.Unlock()
	for _, c := range d.model.Find(network.OnNetwork(now.ID)) {
		d.nameContainer(c.ID) // which names it may ask for
	}
}

// sameEgress says whether a network's record lets its containers connect to the same outside as another record of it.
func sameEgress(a, b *network.Network) bool {
	return a.Options[egressOption] == b.Options[egressOption] &&
		a.Options[allowEgressOption] == b.Options[allowEgressOption]
}

// updateEgress brings where the containers of a network may connect to outside in line with the model.
func (d *Daemon) updateEgress(b *bridge) {
	d.policyMu.Lock()
	defer d.policyMu.Unlock()
	n := d.networkByID(b.record.ID)
	if n == nil {
		return
	}
	b.egress.Store(n) // first: who is attached meanwhile asks for it afterwards
	b.SetPolicy("", d.egressOf(n, &network.Container{}))
	for _, c := range d.model.Find(network.OnNetwork(n.ID)) {
		b.SetPolicy(c.ID, d.egressOf(n, c))
	}
}

// updateEgressOf does so for one container.
func (d *Daemon) updateEgressOf(b *bridge, id string) {
	d.policyMu.Lock()
	defer d.policyMu.Unlock()
	if c, err := d.model.Container(id); err == nil {
		b.SetPolicy(id, d.egressOf(b.egress.Load(), c))
	}
}

// changeEgress changes where one container may connect to outside. The caller holds the runtime's mu.
func (d *Daemon) changeEgress(c *network.Container, q api.UpdateRequest) (*network.Container, error) {
	changed := *c
	if q.Egress != nil {
		changed.Egress = *q.Egress
	}
	if q.AllowEgress != nil {
		changed.AllowEgress = *q.AllowEgress
	}
	if err := checkEgress(changed.Egress, changed.AllowEgress); err != nil {
		return nil, err
	}
	for _, e := range c.Endpoints {
		n := d.networkByID(e.NetworkID)
		if n == nil {
			continue
		}
		if err := n.HoldsEgress(&changed); err != nil {
			return nil, err
		}
		if _, err := egress(n, changed.Egress, changed.AllowEgress); err != nil {
			return nil, errdefs.Invalid("network %s: %w", n.Name, err)
		}
	}
	now, err := d.model.UpdateContainer(c.ID, func(c *network.Container) error {
		c.Egress, c.AllowEgress = changed.Egress, changed.AllowEgress
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, e := range now.Endpoints {
		if b := d.bridge(e.NetworkID); b != nil {
			d.updateEgressOf(b, now.ID)
		}
	}
	d.updateNames(c.ID) // which names it may ask for
	return now, nil
}

// egressOf is a container's policy on a network. Where rules make no sense nothing is allowed: they are a newer
// usernet's, on another host, or more than there may be with the container's own.
func (d *Daemon) egressOf(n *network.Network, c *network.Container) *policy.Policy {
	p, err := egress(n, c.Egress, c.AllowEgress)
	if err != nil {
		d.log.Warn("egress rules make no sense: a container reaches nothing outside", "network", n.Name, "container",
			c.Name, "error", err)
		p, _ = policy.New(policy.Deny, nil)
	}
	return p
}

// catchUpNetwork is for a bridge that was made while the network's options may have been changed.
func (d *Daemon) catchUpNetwork(b *bridge) {
	if now := d.networkByID(b.record.ID); now != nil && !sameEgress(b.record, now) {
		d.updateEgress(b)
	}
}

// catchUp is for a container that was attached with a policy by n, where the network's options may have been changed
// meanwhile.
func (d *Daemon) catchUp(b *bridge, n *network.Network, id string) {
	if b.egress.Load() != n {
		d.updateEgressOf(b, id)
	}
}
