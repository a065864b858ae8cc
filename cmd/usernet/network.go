package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	dockernet "github.com/moby/moby/api/types/network"
	"github.com/spf13/cobra"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/network"
)

func networkCommand() *cobra.Command {
	c := &cobra.Command{Use: "network", Short: "Manage networks"}
	c.AddCommand(networkCreate(), networkLs(), networkInspect(), networkRm(), networkPrune(), networkConnect(), networkDisconnect())
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

// networkRow is a line of network ls; its fields are Docker's.
type networkRow struct {
	ID, Name, Driver, Scope, CreatedAt, IPv4, IPv6, Internal, Labels string
	labels                                                           map[string]string
}

// Label is the value of one label.
func (r networkRow) Label(name string) string { return r.labels[name] }

var networkTable = table{
	columns: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
	header: map[string]string{"ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE", "CreatedAt": "CREATED AT",
		"IPv4": "IPV4", "IPv6": "IPV6", "Internal": "INTERNAL", "Labels": "LABELS"},
}

func networkLs() *cobra.Command {
	var quiet, noTrunc bool
	var format string
	var filter []string
	c := &cobra.Command{Use: "ls", Aliases: []string{"list"}, Short: "List networks", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		cl, err := client()
		if err != nil {
			return err
		}
		q, err := filterQuery(filter)
		if err != nil {
			return err
		}
		var list []dockernet.Summary
		if err := cl.Do(c.Context(), "GET", "/networks?"+q.Encode(), nil, &list); err != nil {
			return err
		}
		var rows []any
		for _, n := range list {
			r := networkRow{
				ID: n.ID, Name: n.Name, Driver: n.Driver, Scope: n.Scope, CreatedAt: n.Created.String(), IPv4: fmt.Sprint(n.EnableIPv4),
				IPv6: fmt.Sprint(n.EnableIPv6), Internal: fmt.Sprint(n.Internal), labels: n.Labels,
			}
			if !noTrunc {
				r.ID = r.ID[:12]
			}
			var labels []string
			for k, v := range n.Labels {
				labels = append(labels, k+"="+v)
			}
			slices.Sort(labels)
			r.Labels = strings.Join(labels, ",")
			rows = append(rows, r)
		}
		if quiet {
			format = "{{.ID}}"
		}
		return networkTable.print(format, rows)
	}}
	f := c.Flags()
	f.BoolVarP(&quiet, "quiet", "q", false, "show ids only")
	f.BoolVar(&noTrunc, "no-trunc", false, "show ids in full")
	f.StringVar(&format, "format", "", "json, table, table TEMPLATE or TEMPLATE")
	f.StringArrayVarP(&filter, "filter", "f", nil, "show those that match: KEY=VALUE")
	return c
}

func networkInspect() *cobra.Command {
	var format string
	var verbose bool
	c := &cobra.Command{Use: "inspect NETWORK...", Short: "Show networks in full", Args: cobra.MinimumNArgs(1), RunE: func(c *cobra.Command, args []string) error {
		cl, err := client()
		if err != nil {
			return err
		}
		list := []any{}
		var errs []error
		for _, a := range args {
			var n dockernet.Inspect
			if err := cl.Do(c.Context(), "GET", "/networks/"+a, nil, &n); err != nil {
				errs = append(errs, err)
				continue
			}
			if !verbose {
				list = append(list, n)
				continue
			}
			v := struct {
				dockernet.Inspect
				Usernet any
			}{Inspect: n}
			if err := cl.Do(c.Context(), "GET", "/usernet/networks/"+a+"/details", nil, &v.Usernet); err != nil {
				errs = append(errs, err)
			}
			list = append(list, v)
		}
		return errors.Join(append(errs, printObjects(format, list))...)
	}}
	c.Flags().StringVarP(&format, "format", "f", "", "json or TEMPLATE")
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "with the switch's ports and what was dropped, by reason")
	return c
}

func networkPrune() *cobra.Command {
	var force bool
	var filter []string
	c := &cobra.Command{Use: "prune", Short: "Remove all unused networks", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		cl, err := client()
		if err != nil {
			return err
		}
		if !force {
			fmt.Print("WARNING! This will remove all custom networks not used by at least one container.\nAre you sure you want to continue? [y/N] ")
			var answer string
			if _, err := fmt.Scanln(&answer); err != nil || strings.ToLower(answer) != "y" {
				return nil
			}
		}
		q, err := filterQuery(filter)
		if err != nil {
			return err
		}
		var r struct{ NetworksDeleted []string }
		if err := cl.Do(c.Context(), "POST", "/networks/prune?"+q.Encode(), nil, &r); err != nil {
			return err
		}
		if len(r.NetworksDeleted) > 0 {
			fmt.Println("Deleted Networks:\n" + strings.Join(r.NetworksDeleted, "\n"))
		}
		return nil
	}}
	c.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	c.Flags().StringArrayVar(&filter, "filter", nil, "remove those that match: KEY=VALUE")
	return c
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
