package daemon

import (
	"context"
	"net/netip"

	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay/cluster"
)

// overlayDriver is a switch with a gateway on each host of a cluster, and a port to the other hosts.
type overlayDriver struct {
	cluster *cluster.Cluster // nil: this daemon is in none
}

var _ network.Allocator = overlayDriver{}

// errNoCluster is for networks that span hosts, on a host that is alone.
func errNoCluster() error {
	return errdefs.Forbidden(
		"a network that spans hosts needs a cluster: start the daemon with --cluster-store or --cluster-join (docs/overlay.md)",
	)
}

// Name implements Driver.
func (overlayDriver) Name() string { return network.DriverOverlay }

// Validate implements Driver.
func (d overlayDriver) Validate(n *network.Network) error {
	if d.cluster == nil {
		return errNoCluster()
	}
	s := n.Settings()
	if s.Encrypted && len(s.Peers) > 0 {
		return errdefs.Invalid(
			"peers that are no hosts of the cluster take frames as they are: give encrypted=false with usernet.peers",
		)
	}
	return bridgeDriver{}.Validate(n)
}

// Open implements Driver.
func (d overlayDriver) Open(_ context.Context, n *network.Network, env Env) (*engine.Network, error) {
	if d.cluster == nil {
		return nil, errNoCluster()
	}
	cfg, err := engineConfig(n, env)
	if err != nil {
		return nil, err
	}
	if cfg.MTU == 0 {
		cfg.MTU = cluster.DefaultMTU(n)
	}
	e, err := engine.New(cfg)
	if err != nil {
		return nil, err
	}
	if err := d.cluster.Join(n, e); err != nil {
		_ = e.Close()
		return nil, err
	}
	return e, nil
}

// Reserve implements network.Allocator.
func (d overlayDriver) Reserve(
	ctx context.Context,
	n *network.Network,
	p network.Pool,
	want netip.Addr,
	owner string,
) (netip.Addr, error) {
	if d.cluster == nil {
		return netip.Addr{}, errNoCluster()
	}
	return d.cluster.Reserve(ctx, n, p, want, owner)
}

// Release implements network.Allocator.
func (d overlayDriver) Release(n *network.Network, a netip.Addr, owner string) {
	if d.cluster != nil {
		d.cluster.Release(n, a, owner)
	}
}
