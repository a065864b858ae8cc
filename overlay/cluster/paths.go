package cluster

import (
	"net/netip"

	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/fabric"
	"github.com/usernet/usernet/overlay/gossip"
	"github.com/usernet/usernet/overlay/mesh"
)

// paths are the ways that frames take, for what spreads records.
type paths struct {
	*mesh.Mesh
	c *Cluster
	f *fabric.Fabric
}

var _ gossip.Paths = (*paths)(nil)

// openPaths makes them on a fabric.
func (c *Cluster) openPaths(f *fabric.Fabric) (*paths, error) {
	m, err := mesh.New(mesh.Config{Send: f.TellHost})
	if err != nil {
		return nil, err
	}
	return &paths{m, c, f}, nil
}

// Detour implements gossip.Paths.
func (p *paths) Detour(host overlay.HostID) bool {
	path, alive := p.f.PathTo(host)
	return alive && path != fabric.Direct
}

// Reached implements gossip.Paths.
func (p *paths) Reached() map[overlay.HostID]netip.Addr {
	list := map[overlay.HostID]netip.Addr{}
	t := p.c.Table()
	if t == nil { // it is being opened
		return list
	}
	for _, h := range t.Hosts() {
		if _, alive := p.f.PathTo(h.ID); alive && len(h.Addrs) > 0 {
			list[h.ID] = h.Addrs[0].Addr()
		}
	}
	return list
}
