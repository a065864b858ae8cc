package daemon

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/names"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/cluster"
	"github.com/usernet/usernet/overlay/table"
)

// openCluster becomes a member, where the daemon is to be in a cluster. Nothing is told to others before startCluster.
func (d *Daemon) openCluster() (*cluster.Cluster, error) {
	if d.cfg.Cluster == nil {
		return nil, nil
	}
	cfg := *d.cfg.Cluster
	cfg.Dir, cfg.Logger, cfg.Version = filepath.Join(d.cfg.StateDir, "cluster"), d.log, d.cfg.Version
	cfg.Changed = d.clusterChanged
	cfg.Event = func(action string, attributes map[string]string) { d.events.add("cluster", action, "", attributes) }
	return cluster.Open(cfg)
}

// closeCluster ends the membership of this life.
func (d *Daemon) closeCluster() error {
	if d.cluster == nil {
		return nil
	}
	return d.cluster.Close()
}

// adoptAddresses tells the cluster which addresses endpoints of this host have.
func (d *Daemon) adoptAddresses() {
	if d.cluster == nil {
		return
	}
	for _, c := range d.model.Containers() {
		for _, e := range c.Endpoints {
			if n := d.networkByID(e.NetworkID); n != nil && n.Driver == network.DriverOverlay {
				for _, a := range endpointAddrs(e) {
					d.cluster.Adopt(n.ID, a, e.ID)
				}
			}
		}
	}
}

// startCluster begins to follow the others, once what ran before is known again.
func (d *Daemon) startCluster() {
	if d.cluster == nil {
		return
	}
	d.importNetworks(false)
	for _, n := range d.model.Networks() {
		d.nameElsewhere(n.ID)
	}
	d.cluster.Start()
}

// clusterChanged brings the model and the names in line with what other hosts say.
func (d *Daemon) clusterChanged(c table.Changes) {
	if len(c.Networks) > 0 || c.Synced {
		d.importNetworks(c.Synced || d.cluster.Table().Status().Synced)
		for id := range c.Networks {
			c.Endpoints[id] = true
		}
	}
	for id := range c.Endpoints {
		d.nameElsewhere(id)
	}
}

// importNetworks makes the model's networks that span hosts equal to the cluster's. Those that the cluster does not
// have are removed where its list is whole; one with containers of this host is put again.
func (d *Daemon) importNetworks(whole bool) {
	d.importing.Lock()
	defer d.importing.Unlock()
	have := map[string]bool{}
	for _, r := range d.cluster.Table().Networks() {
		have[r.ID] = true
		n := cluster.NetworkOf(r)
		old := d.networkByID(n.ID)
		if old != nil && old.VNI == n.VNI && old.Name == n.Name {
			continue
		}
		if err := d.model.ImportNetwork(n); err != nil {
			d.log.Warn("a network of the cluster cannot be used here", "network", n.Name, "error", err)
			continue
		}
		d.tellSubnets()
		d.nameNetwork(n)
		if old == nil {
			d.warnOfOverlap(n)
			d.networkEvent("create", n.ID, n.Name, map[string]string{"type": n.Driver})
		}
	}
	if !whole {
		return
	}
	for _, n := range d.model.Networks() {
		if n.Driver != network.DriverOverlay || have[n.ID] {
			continue
		}
		if n.InUse(d.model.Containers()) {
			d.log.Warn(
				"a network was removed by another host while containers of this one are on it: it is there again",
				"network",
				n.Name,
			)
			if err := d.cluster.PutAgain(n); err != nil {
				d.log.Error("the network is not known to other hosts", "network", n.Name, "error", err)
			}
			continue
		}
		if err := d.model.RemoveNetwork(n.ID); err == nil {
			d.forgetNetwork(n)
		}
	}
}

// warnOfOverlap says that a network of the cluster has addresses that mean something else here.
func (d *Daemon) warnOfOverlap(n *network.Network) {
	for _, p := range n.Pools {
		for _, o := range d.model.Networks() {
			if o.ID == n.ID || o.ConfigOnly {
				continue
			}
			for _, q := range o.Pools {
				if p.Subnet.Overlaps(q.Subnet) {
					d.log.Warn("a network of the cluster overlaps one of this host: no container can be on both",
						"network", n.Name, "subnet", p.Subnet, "other", o.Name, "other subnet", q.Subnet)
				}
			}
		}
	}
}

// forgetNetwork ends what runs behind a network that the model has no more.
func (d *Daemon) forgetNetwork(n *network.Network) {
	d.dropBridge(n.ID)
	d.tellSubnets()
	for _, c := range d.names.OfNetwork(n.ID) {
		if strings.Contains(c, elsewhereMark) {
			d.names.RemoveContainer(c)
		}
	}
	d.names.RemoveNetwork(n.ID)
	d.networkEvent("destroy", n.ID, n.Name, map[string]string{"type": n.Driver})
}

// maxPoolTries bounds how often another subnet is drawn because a host elsewhere was faster.
const maxPoolTries = 8

// createGlobal makes a network that all hosts of the cluster see. Without an answer of the cluster's store it is not
// made.
func (d *Daemon) createGlobal(ctx context.Context, spec network.NetworkSpec) (*network.Network, string, error) {
	spec.Avoid = append(spec.Avoid, d.cluster.Pools()...)
	for try := 0; ; try++ {
		n, warning, err := d.model.PrepareNetwork(spec)
		if err != nil {
			return nil, "", err
		}
		err = d.cluster.CreateNetwork(ctx, n)
		if errors.Is(err, cluster.ErrPoolTaken) && try < maxPoolTries &&
			!slices.ContainsFunc(n.Pools, func(p network.Pool) bool { return p.Configured }) {
			for _, p := range n.Pools {
				spec.Avoid = append(spec.Avoid, p.Subnet)
			}
			continue
		}
		if err != nil {
			return nil, "", err
		}
		d.importNetworks(false)
		n, err = d.model.Network(n.ID)
		return n, warning, err
	}
}

// elsewhereMark is in the ids that containers of other hosts have in the table of names, in front of the network's.
const elsewhereMark = "@"

// nameElsewhere has the table of names know the containers that other hosts have on a network.
func (d *Daemon) nameElsewhere(id string) {
	n := d.networkByID(id)
	if d.cluster == nil || n == nil || n.Driver != network.DriverOverlay {
		return
	}
	d.namesMu.Lock()
	defer d.namesMu.Unlock()
	self := d.cluster.Identity().ID
	stays := map[string]bool{}
	for _, e := range d.cluster.Table().Endpoints(id) {
		if e.Host == self || !e.Running {
			continue
		}
		key := e.Container + elsewhereMark + id
		stays[key] = true
		all := append([]string{e.Name, e.Container[:12]}, e.Names...)
		d.names.SetContainer(names.Container{ID: key, Endpoints: []names.Endpoint{{
			Network: id, Suffix: n.Name, Names: all, Addrs: e.Addrs, Down: e.Down && !d.cluster.Reaches(e.Host),
		}}})
	}
	for _, key := range d.names.OfNetwork(id) {
		if strings.Contains(key, elsewhereMark) && !stays[key] {
			d.names.RemoveContainer(key)
		}
	}
}

// tellCluster has other hosts know what they have to of a container.
func (d *Daemon) tellCluster(id string) {
	if d.cluster == nil {
		return
	}
	c, err := d.model.Container(id)
	if err != nil || c.ID != id || c.Status != network.Running {
		d.cluster.SetContainer(id, nil)
		return
	}
	var list []overlay.Endpoint
	for _, e := range c.Endpoints {
		n := d.networkByID(e.NetworkID)
		addrs := endpointAddrs(e)
		if n == nil || n.Driver != network.DriverOverlay || len(addrs) == 0 {
			continue
		}
		others := slices.DeleteFunc(
			network.DNSNames(c, e),
			func(s string) bool { return s == c.Name || s == c.ID[:12] },
		)
		list = append(list, overlay.Endpoint{
			Network:    n.ID,
			Addrs:      addrs,
			MAC:        overlay.MAC(e.MAC),
			EndpointID: e.ID,
			Container:  c.ID,
			Name:       c.Name,
			Names:      others,
			Running:    true,
		})
	}
	d.cluster.SetContainer(id, list)
}

// ContainersElsewhere implements api.Backend: the containers that other hosts have on a network, with that endpoint
// only.
func (d *Daemon) ContainersElsewhere(networkID string) []*network.Container {
	if d.cluster == nil {
		return nil
	}
	n := d.networkByID(networkID)
	if n == nil || n.Driver != network.DriverOverlay {
		return nil
	}
	self := d.cluster.Identity().ID
	var list []*network.Container
	for _, e := range d.cluster.Table().Endpoints(networkID) {
		if e.Host == self || e.Name == "" {
			continue
		}
		one := &network.Endpoint{
			ID:        e.EndpointID,
			NetworkID: n.ID,
			Network:   n.Name,
			MAC:       network.MAC(e.MAC),
			Aliases:   e.Names,
		}
		for _, a := range e.Addrs {
			for _, p := range n.Pools {
				switch {
				case !p.Subnet.Contains(a):
				case a.Is4():
					one.IPv4, one.Gateway4 = netip.PrefixFrom(a, p.Subnet.Bits()), p.Gateway
				default:
					one.IPv6, one.Gateway6 = netip.PrefixFrom(a, p.Subnet.Bits()), p.Gateway
				}
			}
		}
		list = append(
			list,
			&network.Container{
				ID:          e.Container,
				Name:        e.Name,
				Status:      network.Running,
				NetworkMode: n.Name,
				Endpoints:   []*network.Endpoint{one},
			},
		)
	}
	return list
}

// Cluster implements api.Backend.
func (d *Daemon) Cluster() (api.Cluster, error) {
	if d.cluster == nil {
		return api.Cluster{}, errdefs.Unavailable(
			"this daemon is in no cluster: start it with --cluster-store or --cluster-join (docs/overlay.md)",
		)
	}
	s := d.cluster.Status()
	out := api.Cluster{
		Host:      string(s.Identity.ID),
		PublicKey: s.Identity.PublicKey().String(),
		Store:     s.Table.URL,
		Connected: s.Table.Connected && s.Table.Synced,
		Since:     s.Table.Since,
		Records:   s.Table.Rows,
		Unsent:    s.Table.Unsent,
		Skew:      s.Table.Skew,
		Notes:     s.Notes,
		Drops:     s.Drops,
	}
	if s.Table.Err != nil && !out.Connected {
		out.Error = s.Table.Err.Error()
	}
	for _, h := range s.Hosts {
		out.Hosts = append(out.Hosts, api.ClusterHost(h))
	}
	return out, nil
}

// LeaveCluster implements api.Backend.
func (d *Daemon) LeaveCluster(ctx context.Context, host string, force bool) error {
	if d.cluster == nil {
		return errNoCluster()
	}
	return d.cluster.Leave(ctx, host, force)
}
