package daemon

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/names"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/table"
)

// membersChanged brings the model and the names in line with what other hosts say.
func (d *Daemon) membersChanged(c table.Changes) {
	if len(c.Networks) > 0 || c.Synced {
		d.importNetworks(c.Synced || d.member.Synced())
		for id := range c.Networks {
			c.Endpoints[id] = true
		}
	}
	for id := range c.Endpoints {
		d.nameElsewhere(id)
	}
	if len(c.Networks) > 0 || c.Synced {
		d.runExposing()
	}
}

// importNetworks makes the model's networks that span hosts equal to the cluster's. Those that the cluster does not
// have are removed where its list is whole; one with containers of this host is put again.
func (d *Daemon) importNetworks(whole bool) {
	d.importing.Lock()
	defer d.importing.Unlock()
	have := map[string]bool{}
	for _, n := range d.member.Networks() {
		have[n.ID] = true
		old := d.networkByID(n.ID)
		if old != nil && old.VNI == n.VNI && old.Name == n.Name && maps.Equal(old.Options, n.Options) {
			continue
		}
		if err := d.model.ImportNetwork(n); err != nil {
			d.log.Warn("a network of the cluster cannot be used here", "network", n.Name, "error", err)
			continue
		}
		d.updateSubnets()
		d.nameNetwork(n)
		if old != nil {
			d.optionsChanged(old, n)
		}
		if old == nil {
			d.warnOfOverlap(n)
			d.networkEvent("create", n.ID, n.Name, map[string]string{"type": n.Driver})
		}
	}
	if !whole {
		return
	}
	for _, n := range d.model.Networks() {
		if !n.SpansHosts() || have[n.ID] {
			continue
		}
		if n.InUse(d.model.Find(network.OnNetwork(n.ID))) {
			d.log.Warn(
				"a network was removed by another host while containers of this one are on it: it is there again",
				"network",
				n.Name,
			)
			if err := d.member.PutAgain(n); err != nil {
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
	d.updateSubnets()
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
	spec.Avoid = append(spec.Avoid, d.member.Pools()...)
	for try := 0; ; try++ {
		n, warning, err := d.model.PrepareNetwork(spec)
		if err != nil {
			return nil, "", err
		}
		err = d.member.CreateNetwork(ctx, n)
		if errors.Is(err, overlay.ErrPoolTaken) && try < maxPoolTries &&
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
	if d.member == nil || n == nil || !n.SpansHosts() {
		return
	}
	if b := d.bridge(id); b != nil {
		d.updatePolicy(b)
	}
	d.namesMu.Lock()
	defer d.namesMu.Unlock()
	stays := map[string]bool{}
	for _, e := range d.member.Elsewhere(id) {
		if !e.Running {
			continue
		}
		key := e.Container + elsewhereMark + id
		stays[key] = true
		d.names.SetContainer(names.Container{ID: key, Endpoints: []names.Endpoint{{
			Network: id, Suffix: n.Name, Names: e.DNSNames, Addrs: e.Addrs, Down: e.Down,
		}}})
	}
	for _, key := range d.names.OfNetwork(id) {
		if strings.Contains(key, elsewhereMark) && !stays[key] {
			d.names.RemoveContainer(key)
		}
	}
}

// tellMembers has other hosts know what they have to of a container.
func (d *Daemon) tellMembers(id string) {
	if d.member == nil {
		return
	}
	c, err := d.model.ContainerWithoutPorts(id)
	if err != nil || c.ID != id || c.Status != network.Running {
		d.member.SetContainer(id, nil)
		return
	}
	var list []overlay.Endpoint
	for _, e := range c.Endpoints {
		n := d.networkByID(e.NetworkID)
		addrs := endpointAddrs(e)
		if n == nil || !n.SpansHosts() || len(addrs) == 0 {
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
			Tags:       d.tagsOf(c, n),
			Running:    true,
		})
	}
	d.member.SetContainer(id, list)
}

// ContainersElsewhere implements api.Backend: the containers that other hosts have on a network, with that endpoint
// only.
func (d *Daemon) ContainersElsewhere(networkID string) []*network.Container {
	if d.member == nil {
		return nil
	}
	n := d.networkByID(networkID)
	if n == nil || !n.SpansHosts() {
		return nil
	}
	var list []*network.Container
	for _, e := range d.member.Elsewhere(networkID) {
		if e.Name == "" {
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
		return api.Cluster{}, errdefs.About(errdefs.TopicCluster, errdefs.Unavailable(
			"this daemon is in no cluster: start it with --cluster-store or --cluster-join (docs/overlay.md)",
		))
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
		Skew:      s.Skew,
		Notes:     s.Notes,
		Drops:     s.Drops,
	}
	if s.Table.Err != nil && !out.Connected {
		out.Error = s.Table.Err.Error()
	}
	for _, h := range s.Hosts {
		out.Hosts = append(out.Hosts, api.ClusterHost(h))
	}
	for _, r := range s.Routes {
		one := api.ClusterRoute{Subnet: r.Prefix.String(), Host: string(r.Host), Unused: r.Unused}
		out.Routes = append(out.Routes, one)
	}
	return out, nil
}

// ExposeSubnet implements api.Backend.
func (d *Daemon) ExposeSubnet(ctx context.Context, subnet string) error {
	p, err := d.parseExposed(subnet)
	if err != nil {
		return err
	}
	for _, n := range d.model.Networks() {
		for _, q := range n.Pools {
			// A physical network is outside, and reached as any other.
			if q.Subnet.Overlaps(p) && !n.ConfigOnly && !n.IsDirect() {
				return errdefs.Conflict("%s overlaps %s, which is network %s of this host", p, q.Subnet, n.Name)
			}
		}
	}
	if err := d.cluster.Expose(ctx, p); err != nil {
		return err
	}
	d.runExposing()
	return nil
}

// UnexposeSubnet implements api.Backend.
func (d *Daemon) UnexposeSubnet(subnet string) error {
	p, err := d.parseExposed(subnet)
	if err != nil {
		return err
	}
	return d.cluster.Unexpose(p)
}

func (d *Daemon) parseExposed(subnet string) (netip.Prefix, error) {
	if d.cluster == nil {
		return netip.Prefix{}, errNoCluster()
	}
	p, err := netip.ParsePrefix(subnet)
	if err != nil || p != p.Masked() {
		return netip.Prefix{}, errdefs.Invalid("%q is no subnet: give one such as 10.9.0.0/24", subnet)
	}
	if err := overlay.CheckRoute(p); err != nil {
		return netip.Prefix{}, errdefs.Invalid("%w", err)
	}
	return p, nil
}

// runExposing has all networks that span hosts run here, as the gateway that others reach a subnet through has to be
// there, also where no container of this host is.
func (d *Daemon) runExposing() {
	if d.cluster == nil || len(d.cluster.Exposed()) == 0 {
		return
	}
	for _, n := range d.model.Networks() {
		if !n.SpansHosts() || n.Internal {
			continue
		}
		if _, err := d.bridgeFor(n); err != nil {
			d.log.Warn("what this host exposes is not reached from a network", "network", n.Name, "error", err)
		}
	}
}

// LeaveCluster implements api.Backend.
func (d *Daemon) LeaveCluster(ctx context.Context, host string, force bool) error {
	if d.cluster == nil {
		return errNoCluster()
	}
	return d.cluster.Leave(ctx, host, force)
}
