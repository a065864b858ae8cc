package daemon

import (
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"

	"github.com/usernet/usernet/dns"
	"github.com/usernet/usernet/network"
)

var _ dns.Directory = (*directory)(nil)

// hostNames resolve in every container to the gateway, where the host's services are reached.
var hostNames = []string{"host.docker.internal", "host.containers.internal", "host.usernet.internal"}

// directory answers which names each container may see. It is rebuilt whole at each change and read without a lock.
type directory struct {
	now atomic.Pointer[view]
}

// view is one state of all names.
type view struct {
	clients  map[string]*clientView  // by container id
	networks map[string]*networkView // by network id
	subnets  []netip.Prefix          // of all networks: their reverse zones never leave
}

// clientView is what one container sees.
type clientView struct {
	dns      dns.Client
	networks []*networkView          // those it is on that resolve names
	own      map[string][]netip.Addr // its links and the host's names
}

// networkView holds the names of one user-defined network.
type networkView struct {
	names    map[string][]netip.Addr
	reverse  map[netip.Addr]string
	services map[string][]dns.Service // by _port._proto.name
}

// LookupName returns the addresses of a name as the container client sees it.
func (d *directory) LookupName(client, name string) ([]netip.Addr, bool) {
	v := d.now.Load()
	c := v.clients[client]
	if c == nil {
		return nil, false
	}
	if addrs, ok := c.own[name]; ok {
		return addrs, true
	}
	var all []netip.Addr
	found := false
	for _, n := range c.networks {
		if addrs, ok := n.names[name]; ok {
			if !found {
				all, found = addrs, true
			} else {
				all = append(all[:len(all):len(all)], addrs...)
			}
		}
	}
	return all, found
}

// LookupAddr returns the name behind an address, and whether the address is one of usernet's at all.
func (d *directory) LookupAddr(client string, addr netip.Addr) (string, bool) {
	v := d.now.Load()
	if c := v.clients[client]; c != nil {
		for _, n := range c.networks {
			if name, ok := n.reverse[addr]; ok {
				return name, true
			}
		}
	}
	for _, s := range v.subnets {
		if s.Contains(addr) {
			return "", true
		}
	}
	return "", false
}

// LookupService returns the exposed port called service (a number) of a name.
func (d *directory) LookupService(client, service, proto, name string) ([]dns.Service, bool) {
	c := d.now.Load().clients[client]
	if c == nil {
		return nil, false
	}
	for _, n := range c.networks {
		if s, ok := n.services[serviceKey(service, proto, name)]; ok {
			return s, true
		}
	}
	return nil, false
}

func serviceKey(service, proto, name string) string {
	return service + "." + proto + "." + name
}

// rename rebuilds the directory from the model, and what links open; it is called after every change of an endpoint.
func (d *Daemon) rename() {
	d.naming.Lock()
	defer d.naming.Unlock()
	v := &view{clients: map[string]*clientView{}, networks: map[string]*networkView{}}
	nets := map[string]*network.Network{}
	for _, n := range d.model.Networks() {
		nets[n.ID] = n
		for _, p := range n.Pools {
			v.subnets = append(v.subnets, p.Subnet)
		}
		if n.Driver == network.DriverBridge && n.Name != network.BridgeName {
			v.networks[n.ID] = &networkView{names: map[string][]netip.Addr{}, reverse: map[netip.Addr]string{}, services: map[string][]dns.Service{}}
		}
	}
	var running []*network.Container
	for _, c := range d.model.Containers() {
		if c.Status == network.Running {
			running = append(running, c)
		}
	}
	for _, c := range running {
		for _, e := range c.Endpoints {
			if n := v.networks[e.NetworkID]; n != nil {
				n.add(c, e)
			}
		}
	}
	for _, c := range running {
		v.clients[c.ID] = v.client(c, nets, d.cfg.DNS)
		v.clients[c.ID].dns.Allow = d.allowName(c, nets)
		v.clients[c.ID].dns.Answer = d.answerName(c, nets, d.searchDomains(c))
	}
	d.names.now.Store(v)
	d.relink(running)
}

func (n *networkView) add(c *network.Container, e *network.Endpoint) {
	addrs := endpointAddrs(e)
	for _, name := range network.DNSNames(c, e) {
		for _, full := range []string{strings.ToLower(name), strings.ToLower(name + "." + e.Network)} {
			n.names[full] = append(n.names[full], addrs...)
			for _, x := range c.Exposed {
				key := serviceKey(fmt.Sprint(x.Port), string(x.Proto), full)
				n.services[key] = append(n.services[key], dns.Service{Target: c.Name + "." + e.Network, Port: x.Port})
			}
		}
	}
	for _, a := range addrs {
		n.reverse[a] = c.Name + "." + e.Network
	}
}

func (v *view) client(c *network.Container, nets map[string]*network.Network, upstreams []string) *clientView {
	cv := &clientView{own: map[string][]netip.Addr{}}
	cv.dns = dns.Client{ID: c.ID, Upstreams: upstreams, NoShort: setsNdots(c.DNSOptions)}
	if len(c.DNS) > 0 {
		cv.dns.Upstreams = c.DNS
	}
	for _, e := range c.Endpoints {
		n := nets[e.NetworkID]
		if n == nil {
			continue
		}
		cv.dns.Forward = cv.dns.Forward || !n.Internal
		if text := n.Options[optDNS]; text != "" && len(c.DNS) == 0 {
			cv.dns.Upstreams = strings.Split(text, ",")
		}
		if nv := v.networks[e.NetworkID]; nv != nil {
			cv.networks = append(cv.networks, nv)
			for _, link := range e.Links {
				target, alias, _ := strings.Cut(link, ":")
				for _, name := range []string{alias, alias + "." + e.Network} {
					if addrs := nv.names[strings.ToLower(target)]; alias != "" && len(addrs) > 0 {
						cv.own[strings.ToLower(name)] = addrs
					}
				}
			}
		}
	}
	for _, h := range c.ExtraHosts {
		if name, addrs, ok := extraHost(h, c, nets); ok {
			cv.own[strings.ToLower(name)] = append(cv.own[strings.ToLower(name)], addrs...)
		}
	}
	for _, name := range hostNames {
		if gw := hostGateways(c, nets); len(gw) > 0 && cv.own[name] == nil {
			cv.own[name] = gw
		}
	}
	return cv
}

// dnsClient says how the container id is to be answered.
func (d *Daemon) dnsClient(id string) dns.Client {
	if c := d.names.now.Load().clients[id]; c != nil {
		return c.dns
	}
	return dns.Client{ID: id}
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
		list = append(list, e4.Gateway4)
	}
	if e6 != nil && e6.Gateway6.IsValid() {
		list = append(list, e6.Gateway6)
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
