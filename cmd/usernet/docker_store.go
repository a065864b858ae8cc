package main

import (
	"fmt"

	"github.com/usernet/usernet/overlay/cluster"
	"github.com/usernet/usernet/overlay/libnetwork"
)

// dockerConfig is how a daemon with these flags is beside Docker's; nil: it is not.
func (o *clusterOptions) dockerConfig() (*libnetwork.Config, error) {
	if o.docker == "" {
		return nil, nil
	}
	advertise, err := cluster.ParseAdvertise(o.advertise)
	if err != nil {
		return nil, fmt.Errorf("--cluster-advertise: %w", err)
	}
	options, err := storeOptions("cluster-store-opt", o.storeOpts)
	if err != nil {
		return nil, err
	}
	location, err := libnetwork.ParseStore(o.docker, options)
	if err != nil {
		return nil, err
	}
	addrs, err := advertise.Resolve(location.Hosts)
	if err != nil {
		return nil, err
	}
	return &libnetwork.Config{
		Store: func() (libnetwork.Store, error) { return libnetwork.OpenStore(location) },
		Addr:  addrs[0],
		Port:  advertise.Port(),
	}, nil
}
