package daemon

import (
	"maps"
	"strings"
	"syscall"

	"github.com/usernet/usernet/network"
	vswitch "github.com/usernet/usernet/switch"
)

// relink tells the switches of networks without inter-container connectivity which ports of which containers the running
// ones may reach by their links. It is a part of rename: links lead where their aliases resolve to.
func (d *Daemon) relink(running []*network.Container) {
	for _, g := range d.segmentList() {
		if !g.icc {
			g.sw.SetLinks(d.linksOn(g, running))
		}
	}
}

// linksOn finds the links between containers that are on the segment g.
func (d *Daemon) linksOn(g *segment, running []*network.Container) []vswitch.Link {
	ports := g.portsByContainer()
	named := map[string][]*network.Container{} // as the network's DNS names are
	for _, c := range running {
		for _, e := range c.Endpoints {
			if e.NetworkID != g.net.ID || ports[c.ID] == nil {
				continue
			}
			for _, name := range network.DNSNames(c, e) {
				for _, full := range []string{strings.ToLower(name), strings.ToLower(name + "." + e.Network)} {
					named[full] = append(named[full], c)
				}
			}
		}
	}
	var links []vswitch.Link
	add := func(from, to *network.Container) {
		if ports[from.ID] != nil && ports[to.ID] != nil && from.ID != to.ID {
			links = append(links, vswitch.Link{From: ports[from.ID], To: ports[to.ID], Ports: reachable(to)})
		}
	}
	for _, c := range running {
		for _, e := range c.Endpoints {
			switch {
			case e.NetworkID != g.net.ID:
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

// plugged notes which port of the switch is a container's; nil: it has none any more.
func (g *segment) plugged(id string, port *vswitch.Port) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if port == nil {
		delete(g.ports, id)
		return
	}
	g.ports[id] = port
}

func (g *segment) portsByContainer() map[string]*vswitch.Port {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return maps.Clone(g.ports)
}
