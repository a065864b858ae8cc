package cni

import (
	"context"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
)

// status says whether ADD can work. A daemon that does not answer in statusLimit hangs, or is gone: no container has a
// gateway and names then, which is what code 51 is for. Code 50 is a daemon that works for the containers that it has,
// and a network that none can be added to.
func (p plugin) status(args *skel.CmdArgs) error {
	c, d, ctx, cancel, err := p.begin(args)
	if err != nil {
		return err
	}
	defer cancel()
	ctx, stop := context.WithTimeout(ctx, statusLimit)
	defer stop()
	if err := d.Ping(ctx); err != nil {
		return unreached(ctx, err)
	}
	n, err := d.Network(ctx, c.Network)
	switch {
	case errdefs.IsNotFound(err):
		if err = c.mayCreate(err); err == nil {
			_, err = c.networkSpec()
		}
	case err == nil:
		err = c.fits(n)
	}
	if ctx.Err() != nil {
		return unreached(ctx, err)
	}
	if err != nil {
		return types.NewError(types.ErrPluginNotAvailable, err.Error(), "")
	}
	return nil
}

// unreached is the error of a daemon that is not there or does not answer.
func unreached(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return types.NewError(types.ErrLimitedConnectivity,
			"the usernet daemon has not answered for "+statusLimit.String(), err.Error())
	}
	return types.NewError(types.ErrLimitedConnectivity, err.Error(), "")
}
