package cluster

import (
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay"
)

// What follows is how the daemon sees any membership.

// Validate refuses networks that cannot be between hosts of a cluster.
func (c *Cluster) Validate(n *network.Network) error {
	if s := n.Settings(); s.Encrypted && len(s.Peers) > 0 {
		return errdefs.Invalid(
			"peers that are no hosts of the cluster take frames as they are: give encrypted=false with usernet.peers",
		)
	}
	return nil
}

// Networks are all networks between hosts, by name and id.
func (c *Cluster) Networks() []*network.Network {
	var list []*network.Network
	for _, r := range c.Table().Networks() {
		list = append(list, NetworkOf(r))
	}
	return list
}

// Synced says whether Networks are all that there are.
func (c *Cluster) Synced() bool { return c.Table().Status().Synced }

// Elsewhere are the endpoints that other hosts have on a network, in order of their addresses. One without a name is
// only an address that is taken.
func (c *Cluster) Elsewhere(id string) []overlay.Elsewhere {
	self := c.Identity().ID
	var list []overlay.Elsewhere
	for _, e := range c.Table().Endpoints(id) {
		if e.Host == self {
			continue
		}
		list = append(list, overlay.Elsewhere{
			Endpoint: e.Endpoint,
			DNSNames: append([]string{e.Name, e.Container[:min(12, len(e.Container))]}, e.Names...),
			Down:     e.Down && !c.Reaches(e.Host),
		})
	}
	return list
}
