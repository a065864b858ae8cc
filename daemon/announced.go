package daemon

import (
	"net/netip"

	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay/uplink"
)

// Name servers of physical networks: those that a DHCP server gives to a container, or where it gives none, those that
// routers announce to all stations (RFC 8106). They are looked up with each question, since they change while the
// container runs. The daemon asks them as all others, by the host's sockets.

// maxAnnounced is how many of them are asked, before the host's own: of three (resolv.conf(5)) one is left for it.
const maxAnnounced = 2

// announced is where an endpoint of a container hears of name servers.
type announced struct {
	endpoint string
	at       uplink.Config
	routers  bool // its addresses follow from what routers announce
}

// noteAnnounced notes where a container that runs hears of name servers; a nil one hears of none.
func (d *Daemon) noteAnnounced(id string, c *network.Container, nets map[string]*network.Network) {
	var list []announced
	if c != nil {
		for _, e := range c.Endpoints {
			n := nets[e.NetworkID]
			if n == nil || !e.DHCP && !e.Autoconf {
				continue
			}
			if at, err := placeOf(n, e.VLAN); err == nil {
				list = append(list, announced{e.ID, at, e.Autoconf})
			}
		}
	}
	if list == nil {
		d.announced.Delete(id)
	} else {
		d.announced.Store(id, list)
	}
}

// announcedServers are the name servers that a container has from its physical networks, and the host's behind them, in
// case that the host does not reach the others; none: it has none.
func (d *Daemon) announcedServers(id string) []string {
	list, ok := d.announced.Load(id)
	if !ok {
		return nil
	}
	var given, told []netip.Addr
	for _, a := range list.([]announced) {
		given = append(given, d.uplinks.NameServers(a.endpoint)...)
		if a.routers {
			told = append(told, d.uplinks.Routers(a.at).DNS...)
		}
	}
	if len(given) == 0 {
		given = told
	}
	var servers []string
	for _, a := range given {
		if !a.IsLinkLocalUnicast() && len(servers) < maxAnnounced { // the host has another link, or none
			servers = append(servers, a.String())
		}
	}
	if len(servers) > 0 {
		servers = append(servers, d.upstream.Servers()...)
	}
	return servers
}
