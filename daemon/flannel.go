package daemon

import (
	"context"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/usernet/usernet/engine"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/network"
	"github.com/usernet/usernet/overlay/flannel"
)

// leaseWait is how long a new network waits for a lease of flannel's. A daemon that just started needs a part of it.
const leaseWait = 8 * time.Second

// openFlannel becomes a flannel node, where the daemon is to be one.
func (d *Daemon) openFlannel() (*flannel.Node, error) {
	if d.cfg.Flannel == nil {
		return nil, nil
	}
	opts := *d.cfg.Flannel
	opts.Dir, opts.Logger = filepath.Join(d.cfg.StateDir, "flannel"), d.log
	return flannel.Open(opts)
}

// closeFlannel ends the node's life; its lease stays.
func (d *Daemon) closeFlannel() error {
	if d.flannel == nil {
		return nil
	}
	return d.flannel.Close()
}

// flannelDriver is a switch with a gateway on this machine, and a port to the subnets of flannel's other nodes.
type flannelDriver struct {
	node   *flannel.Node             // nil: this daemon is none
	others func() []*network.Network // all networks of the model
}

var _ Subnetter = flannelDriver{}

func errNoFlannel() error {
	return errdefs.Forbidden("a flannel network needs flannel's store: start the daemon with " +
		"--flannel etcd://HOST (docs/neighbours.md)")
}

// Name implements Driver.
func (flannelDriver) Name() string { return network.DriverFlannel }

// Validate implements Driver.
func (d flannelDriver) Validate(n *network.Network) error {
	if d.node == nil {
		return errNoFlannel()
	}
	for _, o := range d.others() {
		if o.Driver == n.Driver && o.Name != n.Name && !o.ConfigOnly {
			return errdefs.Conflict("a host has one lease of flannel's, and network %s has it", o.Name)
		}
	}
	return bridgeDriver{}.Validate(n)
}

// Pools implements Subnetter: containers have the whole network as their subnet, and addresses of this host's part. Its
// first address is what other nodes take for the host's own, the second is the gateway's, as in Docker with flannel.
func (d flannelDriver) Pools(ctx context.Context) ([]network.Pool, error) {
	ctx, cancel := context.WithTimeout(ctx, leaseWait)
	defer cancel()
	config, subnet, err := d.node.LeaseNow(ctx)
	if err != nil {
		return nil, errdefs.Unavailable("%w", err)
	}
	if err := d.node.Probe(config); err != nil {
		return nil, errdefs.Unavailable("%w", err)
	}
	return []network.Pool{{
		Subnet:  config.Network,
		Range:   subnet,
		Gateway: subnet.Addr().Next(),
		Aux:     map[string]netip.Addr{"flannel": subnet.Addr(), "flannel-broadcast": flannel.Last(subnet)},
	}}, nil
}

// Open implements Driver.
func (d flannelDriver) Open(ctx context.Context, n *network.Network, env Env) (*engine.Network, error) {
	if d.node == nil {
		return nil, errNoFlannel()
	}
	ctx, cancel := context.WithTimeout(ctx, leaseWait)
	defer cancel()
	if _, _, err := d.node.Lease(ctx); err != nil {
		return nil, errdefs.Unavailable("%w", err)
	}
	cfg, err := engineConfig(n, env)
	if err != nil {
		return nil, err
	}
	if cfg.MTU == 0 {
		cfg.MTU = d.node.MTU()
	}
	link := flannel.Network{ID: n.ID, Name: n.Name}
	for _, p := range n.Pools {
		if p.Gateway.IsValid() {
			link.Gateways = append(link.Gateways, p.Gateway)
		}
		if p.Range.IsValid() {
			link.Subnet = p.Range
		}
	}
	e, err := engine.New(cfg)
	if err != nil {
		return nil, err
	}
	if err := d.node.Join(link, e); err != nil {
		_ = e.Close()
		return nil, errdefs.Unavailable("%w", err)
	}
	return e, nil
}
