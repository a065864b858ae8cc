package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/usernet/usernet/network"
)

// networkFlags are the flags of network create.
type networkFlags struct {
	spec                network.NetworkSpec
	pools               poolFlags
	options, labels     []string
	servers             []string
	egress              string
	allowEgress         []string
	ipam                string
	ipamOptions         []string
	ipv4, ipv6, ingress bool
}

func networkCreate() *cobra.Command {
	var n networkFlags
	c := &cobra.Command{
		Use:   "create [flags] NETWORK",
		Short: "Create a network",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := n.complete(c.Flags(), args[0]); err != nil {
				return err
			}
			cl, err := startedClient(c.Context())
			if err != nil {
				return err
			}
			made, err := cl.NetworkCreate(c.Context(), n.spec)
			if err != nil {
				return err
			}
			if made.Warning != "" {
				fmt.Fprintln(os.Stderr, "WARNING:", made.Warning)
			}
			fmt.Println(made.ID)
			return nil
		}}
	n.add(c.Flags())
	return c
}

// add defines the flags.
func (n *networkFlags) add(f *pflag.FlagSet) {
	f.StringVarP(&n.spec.Driver, "driver", "d", "bridge", "driver")
	f.StringSliceVar(&n.pools.subnets, "subnet", nil, "subnet in CIDR form")
	f.StringSliceVar(&n.pools.gateways, "gateway", nil, "gateway's address in its subnet")
	f.StringSliceVar(&n.pools.ranges, "ip-range", nil, "part of the subnet to give addresses from")
	f.StringArrayVar(&n.pools.aux, "aux-address", nil, "address that no container gets: NAME=ADDRESS")
	f.StringArrayVarP(&n.options, "opt", "o", nil, "option: KEY=VALUE")
	n.addOptions(f)
	f.StringArrayVar(&n.labels, "label", nil, "label: KEY=VALUE")
	f.BoolVar(&n.spec.Internal, "internal", false, "no way out of the network")
	f.BoolVar(&n.spec.Attachable, "attachable", false, "shown by inspect; every network can be attached to")
	f.BoolVar(&n.ipv4, "ipv4", true, "give it IPv4")
	f.BoolVar(&n.ipv6, "ipv6", false, "give it IPv6")
	f.StringVar((*string)(&n.spec.Scope), "scope", "", "local, which is the only one")
	f.BoolVar(&n.spec.ConfigOnly, "config-only", false, "only keep the settings, for --config-from")
	f.StringVar(&n.spec.ConfigFrom, "config-from", "", "network made with --config-only whose settings to take")
	f.StringVar(&n.ipam, "ipam-driver", "default", "default, which is the only one")
	f.StringArrayVar(&n.ipamOptions, "ipam-opt", nil, "option of the IPAM driver: KEY=VALUE")
	f.BoolVar(&n.ingress, "ingress", false, "not possible here")
}

// addOptions defines the flags that are short for options of usernet's drivers.
func (n *networkFlags) addOptions(f *pflag.FlagSet) {
	for _, o := range []struct{ flag, option, usage string }{
		{"outbound-addr", "usernet.outbound_addr", "the host's IPv4 address that connections to the outside come from"},
		{"outbound-addr6", "usernet.outbound_addr6", "the host's IPv6 address that connections to the outside come from"},
		{"outbound-interface", "usernet.outbound_interface", "the host's interface that they leave by"},
	} {
		f.Func(o.flag, o.usage, func(v string) error {
			n.options = append(n.options, o.option+"="+v)
			return nil
		})
	}
	f.StringSliceVar(&n.servers, "dns", nil, "resolvers of its containers for names that are no containers'")
	f.BoolFunc("host-loopback", "let its containers reach the host's loopback at the gateway", func(v string) error {
		n.options = append(n.options, "usernet.host_loopback="+v)
		return nil
	})
	f.StringVar(
		&n.egress,
		"egress",
		"",
		"destinations outside that --allow-egress does not name: allow (unless told otherwise) or deny; no-rebind, also behind one of them with a comma: public names may not have private addresses",
	)
	f.StringArrayVar(
		&n.allowEgress,
		"allow-egress",
		nil,
		"allow a destination, repeatable: a RULE is CIDR|NAME[:PORT[/PROTO]]; under --egress deny no other names are looked up, unless one RULE is dns",
	)
}

// complete makes the specification of the network called name from the flags, which were read from f.
func (n *networkFlags) complete(f *pflag.FlagSet, name string) (err error) {
	if n.egress != "" {
		n.options = append(n.options, "usernet.egress="+n.egress)
	}
	if len(n.allowEgress) > 0 {
		n.options = append(n.options, "usernet.allow_egress="+strings.Join(n.allowEgress, ","))
	}
	if len(n.servers) > 0 {
		n.options = append(n.options, "usernet.dns="+strings.Join(n.servers, ","))
	}
	n.spec.Name, n.spec.Options, n.spec.Labels = name, keyValues(n.options), keyValues(n.labels)
	n.spec.IPAMOptions = map[string]string{} // as docker shows it
	if f.Changed("ipv4") {
		n.spec.EnableIPv4 = &n.ipv4
	}
	if f.Changed("ipv6") {
		n.spec.EnableIPv6 = &n.ipv6
	}
	switch {
	case n.ingress:
		return errors.New("ingress networks belong to swarms, which usernet does not have")
	case n.ipam != "default":
		return fmt.Errorf("IPAM driver %q is not there: usernet hands out addresses itself (default)", n.ipam)
	case len(n.ipamOptions) > 0:
		return errors.New("the default IPAM driver has no options")
	}
	n.spec.Pools, err = n.pools.pools()
	return err
}

// poolFlags say which addresses a network has.
type poolFlags struct {
	subnets, gateways, ranges, aux []string
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
		if err := setRange(list, s); err != nil {
			return nil, err
		}
	}
	for _, s := range f.gateways {
		if err := setGateway(list, s); err != nil {
			return nil, err
		}
	}
	for name, s := range keyValues(f.aux) {
		if err := setAux(list, name, s); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// setRange limits the addresses of the pool that contains the range s.
func setRange(list []network.Pool, s string) error {
	r, err := netip.ParsePrefix(s)
	if err != nil {
		return fmt.Errorf("invalid ip-range %s: give it in CIDR form, such as 10.1.2.0/24", s)
	}
	p := poolOf(list, r.Addr())
	if p == nil {
		return fmt.Errorf("no matching subnet for range %s", s)
	}
	if p.Range.IsValid() {
		return fmt.Errorf("cannot configure multiple ranges (%s, %s) on the same subnet (%s)", r, p.Range, p.Subnet)
	}
	p.Range = r
	return nil
}

// setGateway gives the pool that contains the address s its gateway.
func setGateway(list []network.Pool, s string) error {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return fmt.Errorf("invalid gateway address: %s", s)
	}
	p := poolOf(list, a)
	if p == nil {
		return fmt.Errorf("no matching subnet for gateway %s", s)
	}
	if p.Gateway.IsValid() {
		return fmt.Errorf("cannot configure multiple gateways (%s, %s) for the same subnet (%s)", a, p.Gateway, p.Subnet)
	}
	p.Gateway = a
	return nil
}

// setAux reserves the address s of the pool that contains it.
func setAux(list []network.Pool, name, s string) error {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return fmt.Errorf("invalid aux-address %s=%s: give NAME=ADDRESS", name, s)
	}
	p := poolOf(list, a)
	if p == nil {
		return fmt.Errorf("no matching subnet for aux-address %s", s)
	}
	if p.Aux == nil {
		p.Aux = map[string]netip.Addr{}
	}
	p.Aux[name] = a
	return nil
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
