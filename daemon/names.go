package daemon

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/usernet/usernet/dns"
	"github.com/usernet/usernet/names"
	"github.com/usernet/usernet/network"
)

// hostNames resolve in every container to the gateway, where the host's services are reached.
var hostNames = []string{"host.docker.internal", "host.containers.internal", "host.usernet.internal"}

// updateNames brings the names of one container in line with its record, and on the networks that it was on or is on
// what links open and whom their policies are about. It is called after each change of a container or of one of its
// endpoints, and costs nothing on other networks.
func (d *Daemon) updateNames(id string) {
	d.namesMu.Lock()
	defer d.namesMu.Unlock()
	for _, on := range d.nameContainer(id) {
		d.updateLinks(on)
		if b := d.bridge(on); b != nil {
			d.updatePolicy(b)
		}
	}
	d.tellMembers(id)
	d.tellRouters(id)
}

// updateAllNames does so for all containers and networks.
func (d *Daemon) updateAllNames() {
	d.namesMu.Lock()
	defer d.namesMu.Unlock()
	for _, n := range d.model.Networks() {
		d.nameNetwork(n)
	}
	for _, c := range d.model.Containers() {
		d.nameContainer(c.ID)
		d.tellMembers(c.ID)
		d.tellRouters(c.ID)
	}
	for _, b := range d.bridgeList() {
		d.updateLinks(b.record.ID)
		d.updatePolicy(b)
	}
}

// nameNetwork adds a network to the table of names.
func (d *Daemon) nameNetwork(n *network.Network) {
	one := names.Network{ID: n.ID, Resolves: n.HasInterfaces() && !n.IsPredefined()}
	for _, p := range n.Pools {
		one.Subnets = append(one.Subnets, p.Subnet)
	}
	d.names.SetNetwork(one)
}

// nameContainer reads the record of a container and has the table of names say what it says. It returns the networks
// that this is about. The caller holds d.namesMu, so that what is read last is stored last.
func (d *Daemon) nameContainer(id string) (networks []string) {
	c, err := d.model.ContainerWithoutPorts(id)
	if err != nil || c.ID != id || c.Status != network.Running {
		d.noteAnnounced(id, nil, nil)
		return d.names.RemoveContainer(id)
	}
	nets := d.networksOf(c)
	d.noteAnnounced(id, c, nets)
	named := namesOf(c, nets, d.cfg.DNS)
	named.DNS.AllowQuery = d.allowQuery(c, nets)
	named.DNS.AllowAnswer = d.allowAnswer(c, nets)
	return d.names.SetContainer(named)
}

// networksOf are the networks that a container is on, by id.
func (d *Daemon) networksOf(c *network.Container) map[string]*network.Network {
	nets := map[string]*network.Network{}
	for _, e := range c.Endpoints {
		if n := d.networkByID(e.NetworkID); n != nil {
			nets[n.ID] = n
		}
	}
	return nets
}

// namesOf returns the names of a running container, as the table of names has them. nets are the networks that it is
// on, by id; upstreams the servers that its other names are asked of, unless it or one of its networks has others.
func namesOf(c *network.Container, nets map[string]*network.Network, upstreams []string) names.Container {
	one := names.Container{ID: c.ID, Hosts: map[string][]netip.Addr{}, Links: network.ParseLinks(c.Links)}
	one.DNS = dns.Client{ID: c.ID, Upstreams: upstreams, NoShort: setsNdots(c.DNSOptions)}
	if len(c.DNS) > 0 {
		one.DNS.Upstreams = c.DNS
	}
	aliases := map[string]bool{}
	for _, e := range c.Endpoints {
		n := nets[e.NetworkID]
		if n == nil {
			continue
		}
		one.DNS.Forward = one.DNS.Forward || !n.Internal
		if servers := n.Settings().DNS; len(servers) > 0 && len(c.DNS) == 0 {
			one.DNS.Upstreams = servers
		}
		seat := names.Endpoint{
			Network: e.NetworkID,
			Suffix:  e.Network,
			Names:   network.DNSNames(c, e),
			Addrs:   endpointAddrs(e),
			Links:   network.ParseLinks(e.Links),
		}
		for _, x := range c.Exposed {
			seat.Services = append(seat.Services, names.Service{Port: x.Port, Proto: string(x.Proto)})
		}
		for _, l := range seat.Links {
			aliases[strings.ToLower(l.Alias)] = true
		}
		one.Endpoints = append(one.Endpoints, seat)
	}
	for _, h := range c.ExtraHosts {
		if name, addrs, ok := extraHost(h, c, nets); ok {
			name = strings.ToLower(name)
			one.Hosts[name] = append(slices.Clip(one.Hosts[name]), addrs...)
		}
	}
	for _, name := range hostNames {
		if gateways := hostGateways(c, nets); len(gateways) > 0 && one.Hosts[name] == nil && !aliases[name] {
			one.Hosts[name] = gateways
		}
	}
	return one
}

// dnsClient says how the container id is to be answered.
func (d *Daemon) dnsClient(id string) dns.Client {
	c, _ := d.names.Client(id)
	if len(c.Upstreams) == 0 {
		c.Upstreams = d.announcedServers(id)
	}
	return c
}

// hostClient sees what is outside, and no names of containers.
func (d *Daemon) hostClient() dns.Client { return dns.Client{Forward: true, Upstreams: d.cfg.DNS} }

// stubClient is dnsClient for a stub, which belongs to one container.
func (d *Daemon) stubClient(id string) func() dns.Client {
	return func() dns.Client { return d.dnsClient(id) }
}

// endpointAddrs are the addresses at which e is reached, IPv4 first.
func endpointAddrs(e *network.Endpoint) []netip.Addr {
	var list []netip.Addr
	for _, p := range []netip.Prefix{e.IPv4, e.IPv6} {
		if p.IsValid() {
			list = append(list, p.Addr())
		}
	}
	return list
}

// hostGateways are the addresses at which c reaches the host: the gateways of its default routes' networks,
// or where it has none (internal networks) nothing.
func hostGateways(c *network.Container, nets map[string]*network.Network) []netip.Addr {
	e4, e6 := network.DefaultRouteEndpoint(c, func(id string) *network.Network { return nets[id] })
	var list []netip.Addr
	if e4 != nil && e4.Gateway4.IsValid() {
		list = append(list, hostFrom(e4.Gateway4, nets[e4.NetworkID])...)
	}
	if e6 != nil && e6.Gateway6.IsValid() {
		list = append(list, hostFrom(e6.Gateway6, nets[e6.NetworkID])...)
	}
	return list
}

// hostFrom is the host where a network leads outside by a gateway: on a physical network that is another machine.
func hostFrom(gateway netip.Addr, n *network.Network) (list []netip.Addr) {
	if n == nil || !n.IsDirect() {
		return []netip.Addr{gateway}
	}
	for _, p := range n.HostAddrs() {
		if p.Addr().Is4() == gateway.Is4() {
			list = append(list, p.Addr())
		}
	}
	return list
}

// extraHost reads one --add-host value.
func extraHost(spec string, c *network.Container, nets map[string]*network.Network) (string, []netip.Addr, bool) {
	name, ip, ok := strings.Cut(spec, ":")
	if !ok {
		return "", nil, false
	}
	if ip == "host-gateway" {
		gw := hostGateways(c, nets)
		return name, gw, len(gw) > 0
	}
	addr, err := netip.ParseAddr(strings.Trim(ip, "[]"))
	if err != nil {
		return "", nil, false
	}
	return name, []netip.Addr{addr}, true
}
