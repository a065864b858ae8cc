package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay"
	"github.com/usernet/usernet/overlay/table"
)

// firstVNI is the lowest number of a network that is drawn: those below are left to people, as Docker's swarms do.
const firstVNI = 4096

// CreateNetwork has all hosts know a network: its name, subnets and number are claimed first. Where the backend cannot
// be reached it fails within table.CallTimeout, with the reason. Another number that is drawn, as the first is taken,
// has time of its own.
func (c *Cluster) CreateNetwork(ctx context.Context, n *network.Network) error {
	t := c.Table()
	record := c.recordOf(n)
	if other, taken := t.Claimed(overlay.NameKey(n.Name)); taken && other != n.ID {
		return errdefs.Conflict("network with name %s already exists", n.Name)
	}
	drawn := record.VNI == 0
	for try := 0; ; try++ {
		if drawn {
			record.VNI = firstVNI + rand.Uint32N(overlay.MaxVNI-firstVNI)
		}
		value, err := overlay.Encode(record)
		if err != nil {
			return errdefs.Invalid("network %s: %w", n.Name, err)
		}
		err = c.claimAll(ctx, t, record)
		if err == nil {
			return t.Put(overlay.NetworkKey(n.ID), value)
		}
		var taken *table.TakenError
		if !errors.As(err, &taken) {
			return errdefs.Unavailable("network %s was not made: %w", n.Name, err)
		}
		switch kind, _, _ := strings.Cut(taken.Row.Key, "/"); overlay.Kind(kind) {
		case overlay.KindName:
			return errdefs.Conflict("network with name %s already exists", n.Name)
		case overlay.KindPool:
			return errdefs.Forbidden(
				"invalid pool request: Pool overlaps with other one on this address space: %w",
				overlay.ErrPoolTaken,
			)
		}
		if !drawn || try == 3 {
			return errdefs.Conflict("network number %d on the wire (VXLAN) is another network's", record.VNI)
		}
	}
}

// claimAll claims what only one network may have, at the same time: without a store each claim waits for objections. On
// an error nothing stays claimed.
func (c *Cluster) claimAll(ctx context.Context, t *table.Table, n overlay.Network) error {
	value, err := overlay.Encode(overlay.Name{Network: n.ID})
	if err != nil {
		return err
	}
	keys := claimsOf(n)
	errs := make([]error, len(keys))
	var group sync.WaitGroup
	for i, key := range keys {
		group.Go(func() { errs[i] = t.Claim(ctx, key, value) })
	}
	group.Wait()
	for i := range keys {
		if errs[i] != nil {
			for j, key := range keys {
				if errs[j] == nil {
					t.Drop(key)
				}
			}
			return errs[i]
		}
	}
	return nil
}

// claimsOf are the keys that belong to one network only, the name first.
func claimsOf(n overlay.Network) []string {
	keys := []string{overlay.NameKey(n.Name)}
	for _, s := range n.Subnets {
		keys = append(keys, overlay.PoolKey(s.Subnet))
	}
	return append(keys, overlay.VNIKey(n.VNI))
}

// RemoveNetwork has all hosts forget a network. It is refused while a container of another host is on it.
func (c *Cluster) RemoveNetwork(ctx context.Context, id string) error {
	t := c.Table()
	n, is := t.Network(id)
	if !is {
		return nil
	}
	var active []string
	for _, e := range t.Endpoints(id) {
		if e.Host != c.Identity().ID {
			active = append(active, fmt.Sprintf("name:%q id:%q host:%q", e.Name, e.EndpointID[:12], c.hostName(e.Host)))
		}
	}
	if len(active) > 0 {
		const most = 8
		if len(active) > most {
			active = append(active[:most], fmt.Sprintf("and %d more", len(active)-most))
		}
		return errdefs.Forbidden(
			"error while removing network: network %s has active endpoints (%s)",
			n.Name,
			strings.Join(active, ", "),
		)
	}
	if err := t.Delete(ctx, overlay.NetworkKey(id)); err != nil {
		return errdefs.Unavailable("network %s was not removed: %w", n.Name, err)
	}
	for _, key := range claimsOf(n) {
		if owner, is := t.Claimed(key); is && owner == id {
			if err := t.Delete(ctx, key); err != nil {
				c.log.Warn("a claim of a removed network is left", "network", n.Name, "key", key, "error", err)
			}
		}
	}
	c.networkGone(t, id)
	return nil
}

// PutAgain has others know a network that they removed while a container of this host came to it.
func (c *Cluster) PutAgain(n *network.Network) error {
	record := c.recordOf(n)
	value, err := overlay.Encode(record)
	if err != nil {
		return err
	}
	name, err := overlay.Encode(overlay.Name{Network: n.ID})
	if err != nil {
		return err
	}
	t := c.Table()
	errs := []error{t.Put(overlay.NetworkKey(n.ID), value)}
	for _, key := range claimsOf(record) {
		if _, taken := t.Claimed(key); !taken {
			errs = append(errs, t.Put(key, name))
		}
	}
	return errors.Join(errs...)
}

// UpdateNetwork has all hosts know other options of a network, "" being none. Any host may do so, as any may remove it:
// the one that has made it may be gone for good. Of two changes of one option at one time one counts, on all hosts;
// changes of different ones both do.
func (c *Cluster) UpdateNetwork(n *network.Network, change map[string]string) error {
	err := c.Table().EditNetwork(n.ID, func(options map[string]string) {
		for option, value := range change {
			if options[option] = value; value == "" {
				delete(options, option)
			}
		}
	})
	switch {
	case errors.Is(err, table.ErrUnknownNetwork):
		return errdefs.NotFound("network %s is not known in the cluster", n.Name)
	case err != nil:
		return errdefs.Invalid("network %s: %w", n.Name, err)
	}
	return nil
}

// hostName is what people call a host.
func (c *Cluster) hostName(id overlay.HostID) string {
	for _, h := range c.Table().Hosts() {
		if h.ID == id && h.Name != "" {
			return h.Name
		}
	}
	return id.Short()
}

// recordOf is what other hosts know of a network. The number is 0 where none was asked for and none is known.
func (c *Cluster) recordOf(n *network.Network) overlay.Network {
	s := n.Settings()
	r := overlay.Network{
		ID: n.ID, Name: n.Name, Created: n.Created, VNI: s.VNI, Sealed: s.Encrypted, IPv4: n.EnableIPv4,
		IPv6: n.EnableIPv6, Internal: n.Internal,
		Attachable: n.Attachable,
		Options:    maps.Clone(n.Options),
		Labels:     maps.Clone(n.Labels),
		Creator:    c.Identity().ID,
	}
	if n.VNI != 0 {
		r.VNI = n.VNI
	}
	for _, p := range n.Pools {
		r.Subnets = append(
			r.Subnets,
			overlay.Subnet{
				Subnet:     p.Subnet,
				Gateway:    p.Gateway,
				Range:      p.Range,
				Aux:        maps.Clone(p.Aux),
				Configured: p.Configured,
			},
		)
	}
	return r
}

// NetworkOf is a network of the cluster as this host's model has it.
func NetworkOf(r overlay.Network) *network.Network {
	n := &network.Network{
		ID: r.ID, Name: r.Name, Created: r.Created, Driver: network.DriverOverlay, Scope: network.ScopeGlobal,
		EnableIPv4: r.IPv4, EnableIPv6: r.IPv6,
		Internal:   r.Internal,
		Attachable: r.Attachable,
		Options:    maps.Clone(r.Options),
		Labels:     maps.Clone(r.Labels),
		VNI:        r.VNI,
	}
	for _, s := range r.Subnets {
		n.Pools = append(
			n.Pools,
			network.Pool{
				Subnet:     s.Subnet,
				Gateway:    s.Gateway,
				Range:      s.Range,
				Aux:        maps.Clone(s.Aux),
				Configured: s.Configured,
			},
		)
	}
	slices.SortStableFunc(
		n.Pools,
		func(a, b network.Pool) int { return a.Subnet.Addr().BitLen() - b.Subnet.Addr().BitLen() },
	)
	return n
}

// Pools are the subnets of all networks of the cluster.
func (c *Cluster) Pools() []netip.Prefix { return c.Table().Pools() }
