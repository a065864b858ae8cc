package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
)

func networkCommand() *cobra.Command {
	c := &cobra.Command{Use: "network", Short: "Manage networks"}
	c.AddCommand(networkCreate(), networkLs(), networkInspect(), networkRm(), networkConnect(), networkDisconnect())
	return c
}

func networkCreate() *cobra.Command {
	var spec network.NetworkSpec
	var subnets, gateways, ranges, options, labels []string
	var ipv6 bool
	c := &cobra.Command{Use: "create [flags] NETWORK", Short: "Create a network", Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
		spec.Name, spec.Options, spec.Labels = args[0], keyValues(options), keyValues(labels)
		if c.Flags().Changed("ipv6") {
			spec.EnableIPv6 = &ipv6
		}
		var err error
		if spec.Pools, err = pools(subnets, gateways, ranges); err != nil {
			return err
		}
		cl, err := startedClient(c.Context())
		if err != nil {
			return err
		}
		var n network.Network
		if err := cl.Do(c.Context(), "POST", "/usernet/networks", spec, &n); err != nil {
			return err
		}
		fmt.Println(n.ID)
		return nil
	}}
	f := c.Flags()
	f.StringVarP(&spec.Driver, "driver", "d", "bridge", "driver")
	f.StringSliceVar(&subnets, "subnet", nil, "subnet in CIDR form")
	f.StringSliceVar(&gateways, "gateway", nil, "gateway's address in its subnet")
	f.StringSliceVar(&ranges, "ip-range", nil, "part of the subnet to give addresses from")
	f.StringArrayVarP(&options, "opt", "o", nil, "option: KEY=VALUE")
	f.StringArrayVar(&labels, "label", nil, "label: KEY=VALUE")
	f.BoolVar(&spec.Internal, "internal", false, "no way out of the network")
	f.BoolVar(&spec.Attachable, "attachable", false, "as in Docker")
	f.BoolVar(&ipv6, "ipv6", false, "give it IPv6 too")
	return c
}

// pools puts each gateway and range to the subnet that contains it.
func pools(subnets, gateways, ranges []string) ([]network.Pool, error) {
	var list []network.Pool
	for _, s := range subnets {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("invalid subnet %s: give it in CIDR form, such as 10.1.0.0/16", s)
		}
		list = append(list, network.Pool{Subnet: p})
	}
	in := func(a netip.Addr) *network.Pool {
		for i := range list {
			if list[i].Subnet.Contains(a) {
				return &list[i]
			}
		}
		return nil
	}
	for _, s := range gateways {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("invalid gateway address: %s", s)
		}
		p := in(a)
		if p == nil {
			return nil, fmt.Errorf("no matching subnet for gateway %s", s)
		}
		p.Gateway = a
	}
	for _, s := range ranges {
		r, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("invalid ip-range: %s", s)
		}
		p := in(r.Addr())
		if p == nil {
			return nil, fmt.Errorf("no matching subnet for range %s", s)
		}
		p.Range = r
	}
	return list, nil
}

func networkLs() *cobra.Command {
	var quiet, noTrunc bool
	c := &cobra.Command{Use: "ls", Aliases: []string{"list"}, Short: "List networks", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		cl, err := client()
		if err != nil {
			return err
		}
		var list []*network.Network
		if err := cl.Do(c.Context(), "GET", "/usernet/networks", nil, &list); err != nil {
			return err
		}
		w := tabwriter.NewWriter(os.Stdout, 10, 1, 3, ' ', 0)
		if !quiet {
			fmt.Fprintln(w, "NETWORK ID\tNAME\tDRIVER\tSCOPE")
		}
		for _, n := range list {
			id := n.ID
			if !noTrunc {
				id = id[:12]
			}
			if quiet {
				fmt.Fprintln(w, id)
			} else {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", id, n.Name, n.Driver, n.Scope)
			}
		}
		return w.Flush()
	}}
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "show ids only")
	c.Flags().BoolVar(&noTrunc, "no-trunc", false, "show ids in full")
	return c
}

func networkInspect() *cobra.Command {
	return &cobra.Command{Use: "inspect NETWORK...", Short: "Show networks in full", Args: cobra.MinimumNArgs(1), RunE: func(c *cobra.Command, args []string) error {
		cl, err := client()
		if err != nil {
			return err
		}
		list := []*network.Network{}
		var errs []error
		for _, a := range args {
			var n network.Network
			if err := cl.Do(c.Context(), "GET", "/usernet/networks/"+a, nil, &n); err != nil {
				errs = append(errs, err)
				continue
			}
			list = append(list, &n)
		}
		return errors.Join(append(errs, printJSON(list))...)
	}}
}

func networkRm() *cobra.Command {
	return each("rm NETWORK...", "Remove networks", func(c *cobra.Command, cl *api.Client, ref string) error {
		return cl.Do(c.Context(), "DELETE", "/usernet/networks/"+ref, nil, nil)
	})
}

func networkConnect() *cobra.Command {
	var e network.EndpointSpec
	var ip string
	c := &cobra.Command{Use: "connect [flags] NETWORK CONTAINER", Short: "Connect a container to a network", Args: cobra.ExactArgs(2), RunE: func(c *cobra.Command, args []string) error {
		cl, err := client()
		if err != nil {
			return err
		}
		if ip != "" {
			if e.IPv4, err = netip.ParseAddr(ip); err != nil {
				return err
			}
		}
		return cl.Do(c.Context(), "POST", "/usernet/networks/"+args[0]+"/connect", api.Attachment{Container: args[1], Endpoint: e}, nil)
	}}
	c.Flags().StringVar(&ip, "ip", "", "IPv4 address")
	c.Flags().StringArrayVar(&e.Aliases, "alias", nil, "another name on the network")
	c.Flags().IntVar(&e.GwPriority, "gw-priority", 0, "the network with the highest has the default route")
	return c
}

func networkDisconnect() *cobra.Command {
	var force bool
	c := &cobra.Command{Use: "disconnect [flags] NETWORK CONTAINER", Short: "Disconnect a container from a network", Args: cobra.ExactArgs(2), RunE: func(c *cobra.Command, args []string) error {
		cl, err := client()
		if err != nil {
			return err
		}
		return cl.Do(c.Context(), "POST", "/usernet/networks/"+args[0]+"/disconnect", api.Attachment{Container: args[1], Force: force}, nil)
	}}
	c.Flags().BoolVarP(&force, "force", "f", false, "even if the container cannot be entered")
	return c
}
