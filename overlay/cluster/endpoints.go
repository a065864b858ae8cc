package cluster

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/fabric"
)

// SetContainer has all hosts know the endpoints of a container on networks that span hosts, in the place of what they
// knew. None: it has ended, or is on no such network. Host and incarnation are filled in.
func (c *Cluster) SetContainer(id string, endpoints []overlay.Endpoint) {
	c.mu.Lock()
	before := c.mu.own[id]
	next := slices.Clone(endpoints)
	for i := range next {
		next[i].Host, next[i].Incarnation = c.mu.id.ID, c.mu.id.Incarnation
	}
	if len(next) == 0 {
		delete(c.mu.own, id)
	} else {
		c.mu.own[id] = next
	}
	t := c.mu.table
	c.mu.Unlock()
	stays := map[string]bool{}
	for _, e := range next {
		for _, a := range e.Addrs {
			stays[overlay.EndpointKey(e.Network, a)] = true
		}
	}
	for _, e := range before {
		for _, a := range e.Addrs {
			if key := overlay.EndpointKey(e.Network, a); !stays[key] {
				t.Drop(key)
			}
		}
	}
	for _, e := range next {
		c.putEndpoint(e)
	}
}

// putEndpoint has others know an endpoint, by each of its addresses.
func (c *Cluster) putEndpoint(e overlay.Endpoint) {
	t := c.Table()
	value, err := overlay.Encode(e)
	for len(e.Names) > 0 && err != nil {
		e.Names = e.Names[:len(e.Names)/2] // a record has room for so many
		value, err = overlay.Encode(e)
	}
	for _, a := range e.Addrs {
		if err == nil {
			err = t.PutClaimed(overlay.EndpointKey(e.Network, a), value)
		}
	}
	if err != nil {
		c.log.Error("other hosts are not told of a container", "container", e.Name, "error", err)
	}
}

// putEndpoints does so for all.
func (c *Cluster) putEndpoints() {
	c.mu.Lock()
	var all []overlay.Endpoint
	for _, list := range c.mu.own {
		all = append(all, list...)
	}
	c.mu.Unlock()
	for _, e := range all {
		c.putEndpoint(e)
	}
}

// forgetEndpoints takes back what others know of containers that are not there any more.
func (c *Cluster) forgetEndpoints() {
	c.mu.Lock()
	t := c.mu.table
	stays := map[string]bool{}
	for _, list := range c.mu.own {
		for _, e := range list {
			for _, a := range e.Addrs {
				stays[overlay.EndpointKey(e.Network, a)] = true
			}
		}
	}
	c.mu.Unlock()
	for _, key := range t.OwnEndpoints() {
		if !stays[key] {
			t.Drop(key)
		}
	}
}

// inUse says whether a container of this host is on a network.
func (c *Cluster) inUse(network string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, list := range c.mu.own {
		for _, e := range list {
			if e.Network == network {
				return true
			}
		}
	}
	return false
}

// joined is a network that runs here and reaches other hosts.
type joined struct {
	network *network.Network
	engine  *engine.Network
	link    *fabric.Link
	trunk   *engine.Trunk
}

// Overheads are what the encapsulation adds to a packet, in bytes: of a path of 1500 bytes the rest is a network's
// default MTU.
const (
	plainMTU  = 1450 // IPv4, UDP, VXLAN and Ethernet headers: 20+8+8+14 (RFC 7348)
	sealedMTU = 1370 // WireGuard in IPv4 (60), and IPv6, UDP, VXLAN and Ethernet inside of it, in multiples of 16
)

// DefaultMTU is that of a network's interfaces where none was asked for. TCP does not depend on it.
func (*Cluster) DefaultMTU(n *network.Network) int {
	if n.Settings().Encrypted {
		return sealedMTU
	}
	return plainMTU
}

// Join connects a network that runs here to the other hosts. It ends with the engine's network.
func (c *Cluster) Join(n *network.Network, e *engine.Network) error {
	r, is := c.Table().Network(n.ID)
	if !is {
		r = c.recordOf(n)
	}
	if r.VNI == 0 {
		return fmt.Errorf("network %s is not known in the cluster (yet)", n.Name)
	}
	cfg := fabric.NetworkConfig{
		Name:       n.Name,
		VNI:        r.VNI,
		Sealed:     r.Sealed,
		MTU:        e.MTU(),
		GatewayMAC: e.GatewayMAC(),
		Foreign:    n.Settings().Peers,
	}
	for _, p := range n.Pools {
		if p.Gateway.IsValid() {
			cfg.Gateways = append(cfg.Gateways, p.Gateway)
		}
	}
	c.mu.Lock()
	f := c.mu.fabric
	c.mu.Unlock()
	link, err := f.Open(cfg)
	if err != nil {
		return err
	}
	if n.Settings().TCP == network.TCPSockets {
		link.SetSockets(sockets{e})
	}
	trunk, err := e.AttachTrunk(link.PortConfig(), link)
	if err != nil {
		return errors.Join(err, link.Close())
	}
	c.mu.Lock()
	c.mu.joined[n.ID] = &joined{network: n, engine: e, link: link, trunk: trunk}
	c.mu.Unlock()
	c.setEntries(n.ID)
	c.applyRoutesTo(n.ID)
	return nil
}

// Unjoin notes that a network does not run here any more.
func (c *Cluster) Unjoin(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.mu.joined, id)
}

func (c *Cluster) joinedNetworks() map[string]*joined {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make(map[string]*joined, len(c.mu.joined))
	for id, j := range c.mu.joined {
		all[id] = j
	}
	return all
}

// setEntries tells a running network where the endpoints of other hosts are.
func (c *Cluster) setEntries(id string) {
	j := c.joinedNetworks()[id]
	if j == nil {
		return
	}
	var entries []fabric.Entry
	for _, e := range c.Table().Endpoints(id) {
		if e.Name != "" { // else only claimed
			entries = append(entries, fabric.Entry{MAC: e.MAC, Addrs: slices.Clone(e.Addrs), Host: e.Host})
		}
	}
	macs, err := j.link.SetEntries(entries)
	if err != nil {
		c.log.Error("containers of other hosts are not reached", "network", j.network.Name, "error", err)
		return
	}
	j.trunk.SetStatic(macs)
	if j.network.Settings().TCP == network.TCPSockets {
		j.endPeers(entries)
	}
}

// LinkDrops are the counts of what a network's fabric port dropped, by reason.
func (c *Cluster) LinkDrops(id string) map[string]uint64 {
	j := c.joinedNetworks()[id]
	if j == nil {
		return nil
	}
	drops := map[string]uint64{}
	for reason, n := range j.link.Drops() {
		drops[fmt.Sprint(reason)] = n
	}
	return drops
}

// AddrsOf are the addresses of an endpoint of the model, for its record.
func AddrsOf(e *network.Endpoint) []netip.Addr {
	var list []netip.Addr
	for _, p := range []netip.Prefix{e.IPv4, e.IPv6} {
		if p.IsValid() {
			list = append(list, p.Addr())
		}
	}
	return list
}
