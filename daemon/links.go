package daemon

import (
	"strings"
	"syscall"

	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/network"
	vswitch "github.com/usernet/usernet/switch"
)

// relink tells the switches of networks without inter-container connectivity which ports of which containers the running
// ones may reach by their links. It is a part of rename: links lead where their aliases resolve to.
func (d *Daemon) relink(running []*network.Container) {
	for _, b := range d.bridgeList() {
		if b.Isolated() {
			b.SetLinks(d.linksOn(b.record, running))
		}
	}
}

// linksOn finds the links between containers that have an endpoint on n.
func (d *Daemon) linksOn(n *network.Network, running []*network.Container) []engine.LinkRule {
	named := map[string][]*network.Container{} // as the network's DNS names are
	for _, c := range running {
		for _, e := range c.Endpoints {
			if e.NetworkID != n.ID {
				continue
			}
			for _, name := range network.DNSNames(c, e) {
				for _, full := range []string{strings.ToLower(name), strings.ToLower(name + "." + e.Network)} {
					named[full] = append(named[full], c)
				}
			}
		}
	}
	var links []engine.LinkRule
	add := func(from, to *network.Container) {
		links = append(links, engine.LinkRule{From: from.ID, To: to.ID, Ports: reachable(to)})
	}
	for _, c := range running {
		for _, e := range c.Endpoints {
			switch {
			case e.NetworkID != n.ID:
			case e.Network == network.BridgeName:
				for _, t := range d.linkTargets(c) {
					add(c, t.c)
				}
			default:
				for _, link := range e.Links {
					target, _, _ := strings.Cut(link, ":")
					for _, t := range named[strings.ToLower(target)] {
						add(c, t)
					}
				}
			}
		}
	}
	return links
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
