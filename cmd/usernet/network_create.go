package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/usernet/usernet/network"
)

// poolFlags say which addresses a network has.
type poolFlags struct {
	subnets, gateways, ranges, aux []string
}

func networkCreate() *cobra.Command {
	var spec network.NetworkSpec
	var p poolFlags
	var options, labels, ipamOptions, servers []string
	var ipv4, ipv6, ingress bool
	var egress string
	var allowEgress []string
	var ipam string
	c := &cobra.Command{
		Use:   "create [flags] NETWORK",
		Short: "Create a network",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if egress != "" {
				options = append(options, "usernet.egress="+egress)
			}
			if len(allowEgress) > 0 {
				options = append(options, "usernet.allow_egress="+strings.Join(allowEgress, ","))
			}
			if len(servers) > 0 {
				options = append(options, "usernet.dns="+strings.Join(servers, ","))
			}
			spec.Name, spec.Options, spec.Labels = args[0], keyValues(options), keyValues(labels)
			spec.IPAMOptions = map[string]string{} // as docker shows it
			if c.Flags().Changed("ipv4") {
				spec.EnableIPv4 = &ipv4
			}
			if c.Flags().Changed("ipv6") {
				spec.EnableIPv6 = &ipv6
			}
			switch {
			case ingress:
				return errors.New("ingress networks belong to swarms, which usernet does not have")
			case ipam != "default":
				return fmt.Errorf("IPAM driver %q is not there: usernet hands out addresses itself (default)", ipam)
			case len(ipamOptions) > 0:
				return errors.New("the default IPAM driver has no options")
			}
			var err error
			if spec.Pools, err = p.pools(); err != nil {
				return err
			}
			cl, err := startedClient(c.Context())
			if err != nil {
				return err
			}
			n, err := cl.NetworkCreate(c.Context(), spec)
			if err != nil {
				return err
			}
			if n.Warning != "" {
				fmt.Fprintln(os.Stderr, "WARNING:", n.Warning)
			}
			fmt.Println(n.ID)
			return nil
		}}
	f := c.Flags()
	f.StringVarP(&spec.Driver, "driver", "d", "bridge", "driver")
	f.StringSliceVar(&p.subnets, "subnet", nil, "subnet in CIDR form")
	f.StringSliceVar(&p.gateways, "gateway", nil, "gateway's address in its subnet")
	f.StringSliceVar(&p.ranges, "ip-range", nil, "part of the subnet to give addresses from")
	f.StringArrayVar(&p.aux, "aux-address", nil, "address that no container gets: NAME=ADDRESS")
	f.StringArrayVarP(&options, "opt", "o", nil, "option: KEY=VALUE")
	for _, o := range []struct{ flag, option, usage string }{
		{"outbound-addr", "usernet.outbound_addr", "the host's IPv4 address that connections to the outside come from"},
		{"outbound-addr6", "usernet.outbound_addr6", "the host's IPv6 address that connections to the outside come from"},
		{"outbound-interface", "usernet.outbound_interface", "the host's interface that they leave by"},
	} {
		f.Func(o.flag, o.usage, func(v string) error {
			options = append(options, o.option+"="+v)
			return nil
		})
	}
	f.StringSliceVar(&servers, "dns", nil, "resolvers of its containers for names that are no containers'")
	f.BoolFunc("host-loopback", "let its containers reach the host's loopback at the gateway", func(v string) error {
		options = append(options, "usernet.host_loopback="+v)
		return nil
	})
	f.StringVar(
		&egress,
		"egress",
		"",
		"destinations outside that --allow-egress does not name: allow (unless told otherwise) or deny; no-rebind, also behind one of them with a comma: public names may not have private addresses",
	)
	f.StringArrayVar(
		&allowEgress,
		"allow-egress",
		nil,
		"allow a destination, repeatable: a RULE is CIDR|NAME[:PORT[/PROTO]]; under --egress deny no other names are looked up, unless one RULE is dns",
	)
	f.StringArrayVar(&labels, "label", nil, "label: KEY=VALUE")
	f.BoolVar(&spec.Internal, "internal", false, "no way out of the network")
	f.BoolVar(&spec.Attachable, "attachable", false, "shown by inspect; every network can be attached to")
	f.BoolVar(&ipv4, "ipv4", true, "give it IPv4")
	f.BoolVar(&ipv6, "ipv6", false, "give it IPv6")
	f.StringVar((*string)(&spec.Scope), "scope", "", "local, which is the only one")
	f.BoolVar(&spec.ConfigOnly, "config-only", false, "only keep the settings, for --config-from")
	f.StringVar(&spec.ConfigFrom, "config-from", "", "network made with --config-only whose settings to take")
	f.StringVar(&ipam, "ipam-driver", "default", "default, which is the only one")
	f.StringArrayVar(&ipamOptions, "ipam-opt", nil, "option of the IPAM driver: KEY=VALUE")
	f.BoolVar(&ingress, "ingress", false, "not possible here")
	return c
}

// pools puts each gateway, range and auxiliary address to the subnet that contains it. Texts are Docker's.
func (f *poolFlags) pools() ([]network.Pool, error) {
	if len(f.subnets) < len(f.ranges) || len(f.subnets) < len(f.gateways) {
		return nil, errors.New("every ip-range or gateway must have a corresponding subnet")
	}
	var list []network.Pool
	for _, s := range f.subnets {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("invalid subnet %s: invalid CIDR block notation: give it such as 10.1.0.0/16", s)
		}
		for i := range list {
			if list[i].Subnet.Overlaps(p) {
				return nil, errors.New("multiple overlapping subnet configuration is not supported")
			}
		}
		list = append(list, network.Pool{Subnet: p})
	}
	for _, s := range f.ranges {
		r, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("invalid ip-range %s: give it in CIDR form, such as 10.1.2.0/24", s)
		}
		p := poolOf(list, r.Addr())
		if p == nil {
			return nil, fmt.Errorf("no matching subnet for range %s", s)
		}
		if p.Range.IsValid() {
			return nil, fmt.Errorf(
				"cannot configure multiple ranges (%s, %s) on the same subnet (%s)",
				r,
				p.Range,
				p.Subnet,
			)
		}
		p.Range = r
	}
	for _, s := range f.gateways {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("invalid gateway address: %s", s)
		}
		p := poolOf(list, a)
		if p == nil {
			return nil, fmt.Errorf("no matching subnet for gateway %s", s)
		}
		if p.Gateway.IsValid() {
			return nil, fmt.Errorf(
				"cannot configure multiple gateways (%s, %s) for the same subnet (%s)",
				a,
				p.Gateway,
				p.Subnet,
			)
		}
		p.Gateway = a
	}
	for name, s := range keyValues(f.aux) {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("invalid aux-address %s=%s: give NAME=ADDRESS", name, s)
		}
		p := poolOf(list, a)
		if p == nil {
			return nil, fmt.Errorf("no matching subnet for aux-address %s", s)
		}
		if p.Aux == nil {
			p.Aux = map[string]netip.Addr{}
		}
		p.Aux[name] = a
	}
	return list, nil
}

// poolOf is the pool whose subnet contains a, or nil.
func poolOf(list []network.Pool, a netip.Addr) *network.Pool {
	for i := range list {
		if list[i].Subnet.Contains(a) {
			return &list[i]
		}
	}
	return nil
}
