package network

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/usernet/usernet/internal/errdefs"
)

// Option is an option of a network (`network create --opt`) or of an endpoint (`network connect --driver-opt`).
//
// NetworkOptions and EndpointOptions list the ones that usernet acts on. Every other name is refused, because an option
// that is accepted and does nothing misleads the one who gave it.
type Option struct {
	Name   string
	Doc    string                                // one line for docs and completion
	Values []string                              // the possible values, where they are few; for completion
	set    func(s *Settings, value string) error // what the value means; an error: it cannot be one
}

// ifacePrefix leaves room for three digits: an interface's name has 15 bytes at most (IFNAMSIZ in linux/if.h).
var ifacePrefix = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_-]{0,10}[a-zA-Z_-]$|^[a-zA-Z]$`)
})

var truth = []string{"true", "false"}

// NetworkOptions are the options of networks.
var NetworkOptions = []Option{
	{
		"com.docker.network.driver.mtu", "MTU of the interfaces, 68 (1280 with IPv6) to 65520 bytes", nil,
		func(s *Settings, v string) error { return setMTU(&s.MTU, v) },
	},
	{
		"com.docker.network.bridge.enable_icc", "whether containers of the network reach each other", truth,
		func(s *Settings, v string) error { return setBool(&s.ICC, v) },
	},
	{
		"com.docker.network.bridge.enable_ip_masquerade", "false: no way out, as of an internal network", truth,
		func(s *Settings, v string) error { return setBool(&s.Masquerade, v) },
	},
	{
		"com.docker.network.bridge.host_binding_ipv4", "host address of ports published without one", nil,
		func(s *Settings, v string) error { return setIPv4(&s.HostBinding4, v) },
	},
	{
		"com.docker.network.bridge.gateway_mode_ipv4", "nat, or isolated on an internal network",
		[]string{"nat", "isolated"},
		func(s *Settings, v string) error { return setGatewayMode(&s.isolated, v) },
	},
	{
		"com.docker.network.bridge.gateway_mode_ipv6", "nat, or isolated on an internal network",
		[]string{"nat", "isolated"},
		func(s *Settings, v string) error { return setGatewayMode(&s.isolated, v) },
	},
	{
		"com.docker.network.bridge.inhibit_ipv4", "false is the only value", []string{"false"},
		func(_ *Settings, v string) error { return checkInhibit(v) },
	},
	{
		"com.docker.network.container_iface_prefix", "what interface names begin with (eth)", nil,
		func(s *Settings, v string) error { return setInterfacePrefix(&s.InterfacePrefix, v) },
	},
	{
		"com.docker.network.enable_ipv4", "as --ipv4, which goes before it", truth,
		func(s *Settings, v string) error { return setDriverBool(&s.IPv4, v) },
	},
	{
		"com.docker.network.enable_ipv6", "as --ipv6, which goes before it", truth,
		func(s *Settings, v string) error { return setDriverBool(&s.IPv6, v) },
	},
	{
		"com.docker.network.host_ipv4", "as usernet.outbound_addr, which goes before it", nil,
		func(s *Settings, v string) error { return setIPv4(&s.hostIPv4, v) },
	},
	{
		"com.docker.network.host_ipv6", "as usernet.outbound_addr6, which goes before it", nil,
		func(s *Settings, v string) error { return setIPv6(&s.hostIPv6, v) },
	},
	{
		"usernet.allow_egress", "destinations outside that are allowed, separated by commas", nil,
		func(s *Settings, v string) error { return setList(&s.AllowEgress, v) }, // each is the driver's to check
	},
	routesOption,
	nextHopOption,
	{
		"usernet.bypass_inbound", "false: connections to published ports always pass the gateway", truth,
		func(s *Settings, v string) error { return setOptional(&s.BypassInbound, v) },
	},
	{
		"usernet.dns", "resolvers of its containers, separated by commas", nil,
		func(s *Settings, v string) error { return setList(&s.DNS, v) }, // each is the driver's to check
	},
	{
		"usernet.egress", "what happens to other destinations outside", []string{"allow", "deny", "no-rebind",
			"allow,no-rebind", "deny,no-rebind"},
		func(s *Settings, v string) error { s.Egress = v; return nil }, // likewise
	},
	{
		"usernet.bypass_outbound", "false: connections to the outside always pass the gateway", truth,
		func(s *Settings, v string) error { return setOptional(&s.BypassOutbound, v) },
	},
	{
		"usernet.host_loopback", "whether containers reach the host's loopback at the gateway", truth,
		func(s *Settings, v string) error { return setBool(&s.HostLoopback, v) },
	},
	{
		"usernet.policy", "which of its containers reach each other (docs/policy.md); by default all do", nil,
		func(s *Settings, v string) error { s.Policy = v; return nil }, // the driver's to check
	},
	{
		"usernet.outbound_addr", "host address that IPv4 connections to the outside come from", nil,
		func(s *Settings, v string) error { return setIPv4(&s.Outbound4, v) },
	},
	{
		"usernet.outbound_addr6", "host address that IPv6 connections to the outside come from", nil,
		func(s *Settings, v string) error { return setIPv6(&s.Outbound6, v) },
	},
	{
		"usernet.outbound_interface", "host interface that connections to the outside leave by", nil,
		func(s *Settings, v string) error { s.OutboundInterface = v; return nil },
	},
}

// Options of networks that routers know routes to: those whose addresses are this host's to announce.
var (
	routesOption = Option{
		"usernet.bgp", "what BGP neighbours of the daemon are told: routes to its containers, or to its subnets",
		[]string{BGPEndpoints, BGPSubnets},
		func(s *Settings, v string) error { return setOneOf(&s.BGP, v, BGPEndpoints, BGPSubnets) },
	}
	nextHopOption = Option{
		"usernet.bgp_next_hop", "address that these routes lead to, of each family; the daemon's by default", nil,
		func(s *Settings, v string) error { return setAddrs(&s.BGPNextHop, v) },
	}
)

// Values of usernet.bgp.
const (
	BGPEndpoints = "endpoints"
	BGPSubnets   = "subnets"
)

// Values of usernet.tcp.
const (
	TCPFrames  = "frames"
	TCPSockets = "sockets"
)

// switchOptions are those of all networks with a switch and a gateway: a bridge's, but for its own.
func switchOptions(more ...Option) []Option {
	return append(slices.DeleteFunc(slices.Clone(NetworkOptions), func(o Option) bool {
		return strings.HasPrefix(o.Name, "com.docker.network.bridge.gateway_mode") ||
			o.Name == "com.docker.network.bridge.inhibit_ipv4" || strings.HasPrefix(o.Name, routesOption.Name)
	}), more...)
}

// OverlayOptions are the options of networks that span hosts.
var OverlayOptions = switchOptions([]Option{
	{
		"com.docker.network.driver.overlay.vxlanid_list", "number of the network on the wire, 1 to 16777214", nil,
		func(s *Settings, v string) error { return setVNI(&s.VNI, v) },
	},
	{
		"encrypted", "whether frames between hosts are sealed, and others refused", truth,
		func(s *Settings, v string) error { return setEncrypted(&s.Encrypted, v) },
	},
	{
		"usernet.peers", "VXLAN devices that are no hosts of the cluster: ADDRESS[:PORT], separated by commas", nil,
		func(s *Settings, v string) error { return setPeers(&s.Peers, v) },
	},
	{
		"usernet.tcp", "how TCP goes between containers of two hosts: in frames (the default), or from socket to socket",
		[]string{TCPFrames, TCPSockets},
		func(s *Settings, v string) error { return setOneOf(&s.TCP, v, TCPFrames, TCPSockets) },
	},
}...)

// VXLANOptions are the options of networks that lead to VXLAN devices of others.
var VXLANOptions = switchOptions([]Option{
	routesOption,
	nextHopOption,
	{
		"usernet.encap", "how frames are carried", []string{"vxlan", "geneve", "gre-in-udp"},
		func(s *Settings, v string) error { s.Encap = v; return nil }, // the driver's to check
	},
	{
		"usernet.evpn", "whether the other ends, and what is behind them, come from the daemon's BGP neighbours", truth,
		func(s *Settings, v string) error { return setBool(&s.EVPN, v) },
	},
	{
		"usernet.peers", "the other ends: ADDRESS[:PORT], separated by commas", nil,
		func(s *Settings, v string) error { return setPeers(&s.Peers, v) },
	},
	{
		"usernet.port", "UDP port that frames come in at, and go to where a peer has none; the encapsulation's by default",
		nil,
		func(s *Settings, v string) error { return setPort(&s.Port, v) },
	},
	{
		"usernet.route_targets", "of EVPN routes: ASN:NUMBER or ADDRESS:NUMBER, separated by commas; those of the VNI by " +
			"default", nil,
		func(s *Settings, v string) error { return setList(&s.RouteTargets, v) }, // each is the driver's to check
	},
	{
		"usernet.vni", "number of the network on the wire, 1 to 16777214", nil,
		func(s *Settings, v string) error { return setVNI(&s.VNI, v) },
	},
}...)

// FlannelOptions are the options of the network of flannel's nodes.
var FlannelOptions = switchOptions()

// MacvlanOptions are the options of physical networks. What a gateway does for containers is not among them: they do
// not go through it.
var MacvlanOptions = append([]Option{
	{
		"parent", "device that the administrator has given, and a VLAN: DEVICE[.VLAN]", nil,
		func(s *Settings, v string) error { s.Parent = v; return nil }, // the driver's to check
	},
	{
		"macvlan_mode", "bridge is the only value", []string{"bridge"},
		func(_ *Settings, v string) error { return setMode(v) },
	},
	{
		"usernet.dhcp", "true: a DHCP server there gives addresses; without --subnet it is asked for them", truth,
		func(s *Settings, v string) error { return setBool(&s.DHCP, v) },
	},
	{
		"usernet.autoconf", "true: IPv6 addresses follow from what routers there announce, or are a DHCPv6 server's; " +
			"without --subnet they are asked for the prefix", truth,
		func(s *Settings, v string) error { return setBool(&s.Autoconf, v) },
	},
	{
		"usernet.mac", "the only MAC address that the device takes; it is asked", nil,
		func(s *Settings, v string) error { return setMAC(&s.OneMAC, v) },
	},
	routesOption,
	nextHopOption,
}, slices.DeleteFunc(slices.Clone(NetworkOptions), func(o Option) bool {
	return !slices.Contains([]string{"com.docker.network.driver.mtu", "com.docker.network.container_iface_prefix",
		"com.docker.network.enable_ipv4", "com.docker.network.enable_ipv6", "usernet.dns",
		"usernet.host_loopback"}, o.Name)
})...)

// EndpointOptions are the options of endpoints.
var EndpointOptions = []Option{
	{
		"com.docker.network.endpoint.ifname", "the interface's name, as --interface", nil,
		func(s *Settings, v string) error { s.Interface = v; return checkInterface(v) },
	},
	{
		"usernet.port_guard", "false: a nested bridge or VM may send from other addresses", truth,
		func(s *Settings, v string) error { return setBool(&s.PortGuard, v) },
	},
	{
		"usernet.offload", "false: a TAP without segmentation offload", truth,
		func(s *Settings, v string) error { return setBool(&s.Offload, v) },
	},
}

// impossible says why Docker's other options of bridge networks cannot be had.
var impossible = map[string]string{
	"com.docker.network.bridge.name":           "a network has no interface on the host that could be named",
	"com.docker.network.bridge.default_bridge": "the default bridge is always the network \"bridge\"",
	"com.docker.network.bridge.trusted_host_interfaces": "no interface of the host leads to containers except by " +
		"published ports",
	"com.docker.network.endpoint.sysctls": "set them in the container, which owns its network namespace",
}

// CheckOptions refuses options that the network's driver does not know, and values that cannot be.
func (n *Network) CheckOptions() error { return checkOptions(n.Options, n.driver().Options, "option") }

// checkOptions refuses what none of known has, and values that the daemon could not act on. what is "option" or "driver
// option".
func checkOptions(options map[string]string, known []Option, what string) error {
	for name, value := range options {
		i := slices.IndexFunc(known, func(o Option) bool { return o.Name == name })
		if i < 0 {
			if why, is := impossible[name]; is {
				return errdefs.Invalid("%s %s is not possible: %s", what, name, why)
			}
			if takers := driversWith(name); what == "option" && len(takers) > 0 {
				return errdefs.Invalid("unknown option %s for this driver: networks of driver %s have it", name,
					strings.Join(takers, ", "))
			}
			return errdefs.Invalid("unknown %s %s: docs/networks.md lists the options", what, name)
		}
		if err := known[i].set(new(Settings), value); err != nil {
			return errdefs.Invalid("invalid value %q for %s: %w", value, name, err)
		}
	}
	return nil
}

// driversWith lists the drivers whose networks have an option.
func driversWith(option string) (names []string) {
	for _, d := range Drivers {
		if slices.ContainsFunc(d.Options, func(o Option) bool { return o.Name == option }) {
			names = append(names, d.Name)
		}
	}
	return names
}

func checkInhibit(v string) error {
	switch on, err := strconv.ParseBool(v); {
	case err != nil:
		return errdefs.Invalid("give true or false")
	case on:
		return errdefs.Invalid("the gateway has its address always; an --internal network has no way out by it")
	}
	return nil
}

// checkIsolated refuses mode isolated on a network that leads outside, with Docker's text.
func checkIsolated(n *Network) error {
	if n.Settings().isolated && !n.Internal {
		return errdefs.Invalid("gateway mode 'isolated' can only be used for an internal network")
	}
	return nil
}
