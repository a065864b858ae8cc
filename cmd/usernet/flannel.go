package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/usernet/usernet/overlay/cluster"
	"github.com/usernet/usernet/overlay/flannel"
	"github.com/usernet/usernet/overlay/kv"
	"github.com/usernet/usernet/overlay/kv/stores"
)

// flannelOptions are the flags of serve that make the host a flannel node.
type flannelOptions struct {
	store     string
	prefix    string
	storeOpts []string
	advertise string
	lease     time.Duration
}

// flannelPrefix is where flanneld looks for its configuration unless it is told otherwise (-etcd-prefix).
const flannelPrefix = "/coreos.com/network"

func (o *flannelOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.store, "flannel", "", "be a node of the flannel network in this store: etcd://HOST[:PORT][,HOST...]")
	f.StringVar(&o.prefix, "flannel-prefix", flannelPrefix, "where flannel's keys are in the store")
	f.StringArrayVar(
		&o.storeOpts,
		"flannel-opt",
		nil,
		"option of flannel's store, such as kv.cacertfile: KEY=VALUE (repeatable)",
	)
	f.StringVar(&o.advertise, "flannel-advertise", "", "where other flannel nodes reach this one: ADDRESS or INTERFACE")
	f.DurationVar(
		&o.lease,
		"flannel-lease",
		flannel.DefaultTTL,
		"for how long this host's subnet stays its own while no daemon runs",
	)
	timeBetween(f, "flannel-lease", flannel.MinTTL, aYear, "")
}

// config is how a daemon with these flags is a node; nil: it is none.
func (o *flannelOptions) config() (*flannel.Options, error) {
	if o.store == "" {
		if len(o.storeOpts) > 0 || o.advertise != "" || o.prefix != flannelPrefix || o.lease != flannel.DefaultTTL {
			return nil, errors.New("--flannel-prefix, -opt, -advertise and -lease need --flannel")
		}
		return nil, nil
	}
	options, err := storeOptions("flannel-opt", o.storeOpts)
	if err != nil {
		return nil, err
	}
	if options["kv.path"] == "" {
		options["kv.path"] = o.prefix
	}
	location, err := kv.Parse(o.store, options)
	if err != nil {
		return nil, fmt.Errorf("--flannel: %w", err)
	}
	if location.Scheme != "etcd" {
		return nil, fmt.Errorf("--flannel %s: flannel's store is etcd: give etcd://HOST", location)
	}
	if strings.Contains(o.advertise, ":") {
		return nil, fmt.Errorf("--flannel-advertise %q: give an IPv4 address or an interface; the port is that of "+
			"flannel's configuration", o.advertise)
	}
	advertise, err := cluster.ParseAdvertise(o.advertise)
	if err != nil {
		return nil, fmt.Errorf("--flannel-advertise: %w", err)
	}
	return &flannel.Options{
		Open:      func() (kv.Store, error) { return stores.Open(location) },
		URL:       location.String(),
		Advertise: advertise,
		Towards:   location.Hosts,
		TTL:       o.lease,
	}, nil
}

// storeOptions reads KEY=VALUE of a flag.
func storeOptions(flag string, list []string) (map[string]string, error) {
	options := map[string]string{}
	for _, s := range list {
		k, v, ok := strings.Cut(s, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("--%s %q: give KEY=VALUE", flag, s)
		}
		options[k] = v
	}
	return options, nil
}
