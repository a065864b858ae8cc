package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/overlay/gossip"
)

func clusterCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "cluster",
		Short: "Manage the cluster of hosts",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(clusterLs(), clusterInspect(), clusterLeave(), clusterKey(), clusterExpose(), clusterUnexpose())
	return c
}

func clusterExpose() *cobra.Command {
	return &cobra.Command{
		Use:   "expose SUBNET",
		Short: "Have containers of other hosts reach a subnet through this host",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := client()
			if err != nil {
				return err
			}
			return cl.ExposeSubnet(c.Context(), args[0])
		},
	}
}

func clusterUnexpose() *cobra.Command {
	return &cobra.Command{
		Use:   "unexpose SUBNET",
		Short: "End that a subnet is reached through this host",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := client()
			if err != nil {
				return err
			}
			return cl.UnexposeSubnet(c.Context(), args[0])
		},
	}
}

func clusterKey() *cobra.Command {
	return &cobra.Command{
		Use:   "key",
		Short: "Print a new key for the hosts of a cluster without a store",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprint(c.OutOrStdout(), gossip.NewKey())
			return err
		},
	}
}

func clusterLs() *cobra.Command {
	var asJSON, quiet bool
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the hosts of the cluster",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			v, err := describeCluster(c.Context())
			if err != nil {
				return err
			}
			switch {
			case asJSON:
				return printJSON(v.Hosts)
			case quiet:
				for _, h := range v.Hosts {
					fmt.Println(h.ID)
				}
				return nil
			}
			return writeHosts(os.Stdout, v.Hosts, v.Routes)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "show ids only")
	return c
}

func describeCluster(ctx context.Context) (api.Cluster, error) {
	cl, err := client()
	if err != nil {
		return api.Cluster{}, err
	}
	return cl.Cluster(ctx)
}

// writeHosts writes a table of hosts, with the subnets behind them; those that are not used have a mark.
func writeHosts(to io.Writer, hosts []api.ClusterHost, routes []api.ClusterRoute) error {
	exposed := map[string][]string{}
	for _, r := range routes {
		s := r.Subnet
		if r.Unused != "" {
			s += "!"
		}
		exposed[r.Host] = append(exposed[r.Host], s)
	}
	w := tabwriter.NewWriter(to, 6, 1, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tNAME\tADDRESS\tSTATE\tPATH\tMTU\tRTT\tIN\tOUT\tINTERFACES\tEXPOSES")
	for _, h := range hosts {
		id, address, path, mtu, rtt := h.ID[:min(len(h.ID), 12)], "-", cmp.Or(h.Path, "-"), "-", "-"
		if h.Self {
			id += "*"
		}
		if len(h.Addrs) > 0 {
			address = h.Addrs[0]
		}
		if h.PathMTU > 0 {
			mtu = fmt.Sprint(h.PathMTU)
		}
		if h.RTT > 0 {
			rtt = h.RTT.Round(10 * time.Microsecond).String()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", id, h.Name, address, hostState(h), path, mtu,
			rtt, units.BytesSize(float64(h.BytesIn)), units.BytesSize(float64(h.BytesOut)), h.Endpoints,
			cmp.Or(strings.Join(exposed[h.ID], ","), "-"))
	}
	return w.Flush()
}

// hostState is a state with for how long a host is down, and that its key is refused.
func hostState(h api.ClusterHost) string {
	state := h.State
	if !h.Since.IsZero() {
		state += " " + units.HumanDuration(time.Since(h.Since))
	}
	if h.KeyRefused {
		state += ", key refused"
	}
	return state
}

func clusterInspect() *cobra.Command {
	var format string
	var asJSON bool
	c := &cobra.Command{
		Use:   "inspect [HOST...]",
		Short: "Show the cluster, or hosts of it, in full",
		RunE: func(c *cobra.Command, args []string) error {
			v, err := describeCluster(c.Context())
			if err != nil {
				return err
			}
			if asJSON {
				format = "json"
			}
			if len(args) == 0 {
				return inspect([]string{""}, format, func(*api.Client, string) (any, error) { return v, nil })
			}
			return inspect(
				args,
				format,
				func(_ *api.Client, name string) (any, error) { return findHost(v.Hosts, name) },
			)
		},
	}
	c.Flags().StringVarP(&format, "format", "f", "", "json or TEMPLATE")
	c.Flags().BoolVar(&asJSON, "json", false, "as --format json")
	return c
}

// findHost finds one by name, id or the beginning of an id.
func findHost(hosts []api.ClusterHost, name string) (any, error) {
	i := slices.IndexFunc(hosts, func(h api.ClusterHost) bool {
		return h.Name == name || len(name) >= 4 && strings.HasPrefix(h.ID, name)
	})
	if i < 0 {
		return nil, errdefs.NotFound("host %s is not in the cluster", name)
	}
	return hosts[i], nil
}

func clusterLeave() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "leave [HOST]",
		Short: "Take this host's records, or those of one that is gone, out of the cluster",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := client()
			if err != nil {
				return err
			}
			q := api.LeaveRequest{Force: force}
			if len(args) > 0 {
				q.Host = args[0]
			}
			return cl.LeaveCluster(c.Context(), q)
		},
	}
	c.Flags().BoolVarP(
		&force,
		"force",
		"f",
		false,
		"even where containers of this host are on networks that span hosts, or the other host is heard of",
	)
	return c
}

// clusterOptions are the flags of serve that have to do with a cluster.
type clusterOptions struct {
	store     string
	storeOpts []string
	join      []string
	key       string
	advertise string
	docker    string
	accept    []string
}

func (o *clusterOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(
		&o.store,
		"cluster-store",
		"",
		"join the hosts that use this store: etcd://HOST[:PORT][,HOST...][/PREFIX], consul://, zk://",
	)
	f.StringArrayVar(
		&o.storeOpts,
		"cluster-store-opt",
		nil,
		"option of the store, such as kv.cacertfile: KEY=VALUE (repeatable)",
	)
	f.StringSliceVar(&o.join, "cluster-join", nil, "join these hosts without a store: HOST[:PORT] (repeatable)")
	f.StringVar(&o.key, "cluster-key", "", "file with the key of a cluster without a store (usernet cluster key)")
	f.StringVar(
		&o.advertise,
		"cluster-advertise",
		"",
		"where other hosts reach this one: ADDRESS or INTERFACE, with :PORT for the fabric's",
	)
	f.StringSliceVar(
		&o.accept,
		"cluster-accept-routes",
		nil,
		"reach subnets within this one through hosts that expose them: SUBNET[@HOST] (repeatable)",
	)
	f.StringVar(
		&o.docker,
		"docker-store",
		"",
		"be a host beside Docker's daemons with this --cluster-store: etcd://HOST[:PORT][,HOST...][/PREFIX], zk://",
	)
}

// check refuses combinations that make no sense.
func (o *clusterOptions) check() error {
	switch {
	case o.store != "" && len(o.join) > 0:
		return errors.New("--cluster-store and --cluster-join are two ways to the same: give one")
	case o.docker != "" && (o.store != "" || len(o.join) > 0):
		return errors.New("--docker-store is for a host that is in no cluster: leave out --cluster-store and --cluster-join")
	case len(o.join) > 0 && o.key == "":
		return errors.New(
			"--cluster-join needs --cluster-key FILE, with the same key on all hosts: usernet cluster key makes one",
		)
	case o.store == "" && o.docker == "" && len(o.storeOpts) > 0:
		return errors.New("--cluster-store-opt needs --cluster-store or --docker-store")
	case len(o.join) == 0 && o.key != "":
		return errors.New("--cluster-key needs --cluster-join")
	case o.store == "" && len(o.join) == 0 && len(o.accept) > 0:
		return errors.New("--cluster-accept-routes needs --cluster-store or --cluster-join")
	case o.store == "" && len(o.join) == 0 && o.docker == "" && o.advertise != "":
		return errors.New("--cluster-advertise needs --cluster-store or --cluster-join, or --docker-store")
	}
	return nil
}
