package client

import (
	"context"

	"github.com/containerd/errdefs"
	dockernet "github.com/moby/moby/api/types/network"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
)

// NameServer is where attached containers ask for names: usernet listens there, in their namespaces.
const NameServer = "127.0.0.11"

// Networks is what EnsureNetwork needs of the daemon; *api.Client has it.
type Networks interface {
	Network(ctx context.Context, ref string) (dockernet.Inspect, error)
	NetworkCreate(ctx context.Context, spec network.NetworkSpec) (api.CreatedNetwork, error)
}

// HasInterfaces says whether endpoints of one of the daemon's networks are interfaces. Those of a driver that this
// program does not know are taken for such.
func HasInterfaces(n dockernet.Inspect) bool {
	d, known := network.DriverOf(n.Driver)
	return d.Interfaces || !known
}

// EnsureNetwork returns the network of a name. Where there is none, it makes the one that spec returns, which is given
// the daemon's words for that. Two calls may make it at once.
func EnsureNetwork(
	ctx context.Context, d Networks, name string, spec func(missing error) (network.NetworkSpec, error),
) (dockernet.Inspect, error) {
	have, err := d.Network(ctx, name)
	if !errdefs.IsNotFound(err) {
		return have, err
	}
	wanted, err := spec(err)
	if err != nil {
		return have, err
	}
	if _, err := d.NetworkCreate(ctx, wanted); err != nil && !errdefs.IsConflict(err) {
		return have, err
	}
	return d.Network(ctx, name)
}
