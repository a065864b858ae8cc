package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/usernet/usernet/network"
)

// netFlags are the flags that say how a container is connected; run and attach share them.
type netFlags struct {
	networks, publish, expose, aliases, links, addHost, linkLocal []string
	dns, dnsSearch, dnsOption, labels, labelFiles                 []string
	allowEgress                                                   []string
	ip, ip6, mac, egress                                          string
	publishAll, hostLoopback, noPortGuard                         bool
}

func (n *netFlags) add(f *pflag.FlagSet) {
	f.StringArrayVar(
		&n.networks,
		"network",
		nil,
		"network to connect to, repeatable: NAME, or name=NAME,ip=...,alias=...,interface=...,route=...,vlan=...",
	)
	f.StringArrayVar(&n.networks, "net", nil, "")
	_ = f.MarkHidden("net")
	f.StringArrayVarP(&n.publish, "publish", "p", nil, "publish a port: [HOSTIP:][HOSTPORT:]PORT[/PROTO]")
	f.StringArrayVar(&n.expose, "expose", nil, "expose a port or a range: PORT[-PORT][/PROTO]")
	f.BoolVarP(&n.publishAll, "publish-all", "P", false, "publish all exposed ports to random ports")
	f.StringArrayVar(&n.aliases, "network-alias", nil, "another name on the network")
	f.StringArrayVar(&n.links, "link", nil, "add a link to another container: NAME[:ALIAS]")
	f.StringArrayVar(&n.addHost, "add-host", nil, "add a line to /etc/hosts: NAME:IP or NAME:host-gateway")
	f.StringArrayVar(&n.dns, "dns", nil, "resolver for names that are no containers'")
	f.StringArrayVar(&n.dnsSearch, "dns-search", nil, "search domain")
	f.StringArrayVar(&n.dnsOption, "dns-option", nil, "resolver option")
	f.StringArrayVar(&n.dnsOption, "dns-opt", nil, "")
	_ = f.MarkHidden("dns-opt")
	f.StringArrayVarP(&n.labels, "label", "l", nil, "label: KEY=VALUE")
	f.StringArrayVar(&n.labelFiles, "label-file", nil, "file with a label on each line")
	f.StringVar(&n.ip, "ip", "", "IPv4 address")
	f.StringVar(&n.ip6, "ip6", "", "IPv6 address")
	f.StringArrayVar(&n.linkLocal, "link-local-ip", nil, "further link-local address")
	f.StringVar(&n.mac, "mac-address", "", "MAC address")
	f.BoolVar(
		&n.noPortGuard,
		"no-port-guard",
		false,
		"let a nested bridge or VM send from other addresses, on the first network",
	)
	f.StringVar(
		&n.egress,
		"egress",
		"",
		"destinations outside that --allow-egress does not name: allow or deny (the network's); no-rebind, also behind one of them with a comma: public names may not have private addresses",
	)
	f.StringArrayVar(
		&n.allowEgress,
		"allow-egress",
		nil,
		"allow a destination, repeatable: a RULE is CIDR|NAME[:PORT[/PROTO]]; under --egress deny no other names are looked up, unless one RULE is dns",
	)
	f.BoolVar(&n.hostLoopback, "host-loopback", false, "let the container reach the host's loopback at the gateway")
}

// apply writes the flags into spec.
func (n *netFlags) apply(spec *network.ContainerSpec) error {
	var err error
	if spec.Ports, err = network.ParsePorts(n.publish); err != nil {
		return err
	}
	if spec.Exposed, err = network.ParseExpose(n.expose); err != nil {
		return err
	}
	for _, h := range n.addHost {
		line, err := network.ParseExtraHost(h)
		if err != nil {
			return err
		}
		spec.ExtraHosts = append(spec.ExtraHosts, line)
	}
	labels, err := readKeyValues(n.labelFiles, n.labels)
	if err != nil {
		return err
	}
	spec.Labels = keyValues(labels)
	spec.DNS, spec.DNSSearch, spec.DNSOptions = n.dns, n.dnsSearch, n.dnsOption
	spec.PublishAll, spec.HostLoopback = n.publishAll, n.hostLoopback
	spec.Egress, spec.AllowEgress = n.egress, n.allowEgress
	return n.applyNetworks(spec)
}

// applyNetworks makes the endpoints: the flags without a network belong to the first one.
func (n *netFlags) applyNetworks(spec *network.ContainerSpec) error {
	first, err := parseEndpoint(n.ip, n.ip6, n.mac, n.linkLocal, n.links)
	if err != nil {
		return err
	}
	first.Aliases = n.aliases
	names := n.networks
	if len(names) == 0 {
		names = []string{network.BridgeName}
	}
	for i, name := range names {
		a, err := network.ParseAttachment(name)
		if err != nil {
			return err
		}
		if a.Network == "default" {
			a.Network = network.BridgeName
		}
		if slices.ContainsFunc(
			spec.Networks,
			func(o network.NamedEndpointSpec) bool { return o.Network == a.Network },
		) {
			return fmt.Errorf("network %q is specified multiple times", a.Network)
		}
		if i == 0 {
			if err := merge(&a.EndpointSpec, first); err != nil {
				return err
			}
			if n.noPortGuard {
				if a.DriverOpts == nil {
					a.DriverOpts = map[string]string{}
				}
				a.DriverOpts["usernet.port_guard"] = "false"
			}
		}
		if len(names) > 1 && !userDefined(a.Network) {
			return errors.New("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
		}
		spec.Networks = append(spec.Networks, a)
	}
	spec.NetworkMode = spec.Networks[0].Network
	if !userDefined(spec.NetworkMode) {
		spec.Links, spec.Networks[0].Links = first.Links, nil
	}
	return nil
}

func userDefined(mode string) bool {
	return mode != network.BridgeName && mode != network.HostName && mode != network.NoneName &&
		!strings.HasPrefix(mode, "container:")
}

// merge adds the flags that stand beside --network to what --network itself says; the same thing twice is refused.
func merge(a *network.EndpointSpec, flags network.EndpointSpec) error {
	for _, x := range []struct {
		both bool
		text string
	}{
		{len(a.Aliases) > 0 && len(flags.Aliases) > 0, "--network-alias and per-network alias"},
		{a.IPv4.IsValid() && flags.IPv4.IsValid(), "--ip and per-network IPv4 address"},
		{a.IPv6.IsValid() && flags.IPv6.IsValid(), "--ip6 and per-network IPv6 address"},
		{a.MAC != (network.MAC{}) && flags.MAC != (network.MAC{}), "--mac-address and per-network MAC address"},
		{len(a.LinkLocal) > 0 && len(flags.LinkLocal) > 0, "--link-local-ip and per-network link-local IP addresses"},
	} {
		if x.both {
			return errors.New("conflicting options: cannot specify both " + x.text)
		}
	}
	a.Aliases, a.LinkLocal, a.Links = append(
		a.Aliases,
		flags.Aliases...), append(
		a.LinkLocal,
		flags.LinkLocal...), flags.Links
	if flags.IPv4.IsValid() {
		a.IPv4 = flags.IPv4
	}
	if flags.IPv6.IsValid() {
		a.IPv6 = flags.IPv6
	}
	if flags.MAC != (network.MAC{}) {
		a.MAC = flags.MAC
	}
	return nil
}

// parseEndpoint reads the flags that run and network connect have in common; "" stands for a flag that was not given.
func parseEndpoint(ip, ip6, mac string, linkLocal, links []string) (e network.EndpointSpec, err error) {
	if ip != "" {
		if e.IPv4, err = network.ParseIPv4(ip); err != nil {
			return e, err
		}
	}
	if ip6 != "" {
		if e.IPv6, err = network.ParseIPv6(ip6); err != nil {
			return e, err
		}
	}
	if mac != "" {
		if e.MAC, err = network.ParseMAC(mac); err != nil {
			return e, err
		}
	}
	for _, s := range linkLocal {
		a, err := network.ParseLinkLocal(s)
		if err != nil {
			return e, err
		}
		e.LinkLocal = append(e.LinkLocal, a)
	}
	for _, l := range links {
		link, err := network.ParseLink(l)
		if err != nil {
			return e, err
		}
		e.Links = append(e.Links, link.String())
	}
	return e, nil
}
