package daemon

import (
	"context"
	"net/netip"

	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
)

// overlayDriver is a switch with a gateway on each of several hosts, and a port to the others.
type overlayDriver struct {
	member membership // nil: this host is alone
}

var _ network.Allocator = overlayDriver{}

// errNoCluster is for networks that span hosts, on a host that is alone.
func errNoCluster() error {
	return errdefs.About(errdefs.TopicCluster, errdefs.Forbidden("a network that spans hosts needs a cluster: start the daemon with --cluster-store or "+
		"--cluster-join (docs/overlay.md), or beside Docker's daemons with --docker-store (docs/neighbours.md)"))
}

// Name implements Driver.
func (overlayDriver) Name() string { return network.DriverOverlay }

// Validate implements Driver.
func (d overlayDriver) Validate(n *network.Network) error {
	if d.member == nil {
		return errNoCluster()
	}
	if err := d.member.Validate(n); err != nil {
		return err
	}
	return bridgeDriver{}.Validate(n) // which has no routes to announce: its options know none
}

// Open implements Driver.
func (d overlayDriver) Open(_ context.Context, n *network.Network, env Env) (*engine.Network, error) {
	if d.member == nil {
		return nil, errNoCluster()
	}
	cfg, err := engineConfig(n, env)
	if err != nil {
		return nil, err
	}
	if cfg.MTU == 0 {
		cfg.MTU = d.member.DefaultMTU(n)
	}
	e, err := engine.New(cfg)
	if err != nil {
		return nil, err
	}
	if err := d.member.Join(n, e); err != nil {
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
	if d.member == nil {
		return netip.Addr{}, errNoCluster()
	}
	return d.member.Reserve(ctx, n, p, want, owner)
}

// Release implements network.Allocator.
func (d overlayDriver) Release(n *network.Network, a netip.Addr, owner string) {
	if d.member != nil {
		d.member.Release(n, a, owner)
	}
}
