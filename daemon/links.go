package daemon

import (
	"syscall"

	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/names"
	"github.com/usernet/usernet/network"
	vswitch "github.com/usernet/usernet/switch"
)

// updateLinks tells the switch of a network without inter-container connectivity which ports of which containers the
// others may reach by their links. The caller holds d.namesMu.
func (d *Daemon) updateLinks(networkID string) {
	b := d.bridge(networkID)
	if b == nil || !b.Isolated() {
		return
	}
	pairs := d.names.Links(networkID)
	if b.record.Name == network.BridgeName {
		pairs = d.hostsLinks(networkID)
	}
	rules := make([]engine.LinkRule, 0, len(pairs))
	for _, p := range pairs {
		if to, err := d.model.Container(p.To); err == nil {
			rules = append(rules, engine.LinkRule{From: p.From, To: p.To, Ports: reachable(to)})
		}
	}
	b.SetLinks(rules)
}

// updateLinksTo does so on all networks of a container, whose ports have changed.
func (d *Daemon) updateLinksTo(c *network.Container) {
	d.namesMu.Lock()
	defer d.namesMu.Unlock()
	for _, e := range c.Endpoints {
		d.updateLinks(e.NetworkID)
	}
}

// hostsLinks are the links between containers on the default bridge, which are in their hosts files.
func (d *Daemon) hostsLinks(networkID string) []names.Pair {
	var pairs []names.Pair
	for _, id := range d.names.LinkersOn(networkID) {
		c, err := d.model.Container(id)
		if err != nil {
			continue
		}
		for _, t := range d.linkTargets(c) {
			pairs = append(pairs, names.Pair{From: c.ID, To: t.c.ID})
		}
	}
	return pairs
}

// reachable are the ports that a link opens: those that the container exposes, and those that it publishes.
func reachable(c *network.Container) []vswitch.PortRange {
	var list []vswitch.PortRange
	add := func(proto network.Protocol, first, last uint16) {
		switch proto {
		case network.TCP:
			list = append(list, vswitch.PortRange{Proto: syscall.IPPROTO_TCP, First: first, Last: last})
		case network.UDP:
			list = append(list, vswitch.PortRange{Proto: syscall.IPPROTO_UDP, First: first, Last: last})
		}
	}
	for _, x := range c.Exposed {
		add(x.Proto, x.Port, x.Port)
	}
	for _, b := range c.Ports {
		add(b.Proto, b.Port, max(b.Port, b.End))
	}
	return list
}
