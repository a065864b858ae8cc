package network

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
)

// Option is an option of a network (`network create --opt`) or of an endpoint (`network connect --driver-opt`).
//
// NetworkOptions and EndpointOptions list the ones that usernet acts on. Every other name is refused, because an option that is
// accepted and does nothing misleads the one who gave it.
type Option struct {
	Name   string
	Doc    string   // one line for docs and completion
	Values []string // the possible values, where they are few; for completion
	check  func(value string) error
}

// ifacePrefix leaves room for three digits: an interface's name has 15 bytes at most (IFNAMSIZ in linux/if.h).
var ifacePrefix = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_-]{0,10}[a-zA-Z_-]$|^[a-zA-Z]$`)

var truth = []string{"true", "false"}

// NetworkOptions are the options of networks.
var NetworkOptions = []Option{
	{"com.docker.network.driver.mtu", "MTU of the interfaces, 68 (1280 with IPv6) to 65520 bytes", nil, checkMTU},
	{"com.docker.network.bridge.enable_icc", "whether containers of the network reach each other", truth, checkBool},
	{"com.docker.network.bridge.enable_ip_masquerade", "false: no way out, as of an internal network", truth, checkBool},
	{"com.docker.network.bridge.host_binding_ipv4", "host address of ports published without one", nil, checkIPv4},
	{"com.docker.network.bridge.gateway_mode_ipv4", "nat, or isolated on an internal network", []string{"nat", "isolated"}, checkGatewayMode},
	{"com.docker.network.bridge.gateway_mode_ipv6", "nat, or isolated on an internal network", []string{"nat", "isolated"}, checkGatewayMode},
	{"com.docker.network.bridge.inhibit_ipv4", "false is the only value", []string{"false"}, checkInhibit},
	{"com.docker.network.container_iface_prefix", "what interface names begin with (eth)", nil, checkIfacePrefix},
	{"com.docker.network.enable_ipv4", "as --ipv4, which goes before it", truth, checkDriverBool},
	{"com.docker.network.enable_ipv6", "as --ipv6, which goes before it", truth, checkDriverBool},
	{"com.docker.network.host_ipv4", "as usernet.outbound_addr, which goes before it", nil, checkIPv4},
	{"com.docker.network.host_ipv6", "as usernet.outbound_addr6, which goes before it", nil, checkIPv6},
	{"usernet.allow_egress", "destinations outside that are allowed, separated by commas", nil, nil}, // checked by the daemon
	{"usernet.bypass_inbound", "false: connections to published ports always pass the gateway", truth, checkBool},
	{"usernet.dns", "resolvers of its containers, separated by commas", nil, nil}, // checked by the daemon
	{"usernet.egress", "what happens to other destinations outside", []string{"allow", "deny", "no-rebind", "allow,no-rebind", "deny,no-rebind"}, nil},
	{"usernet.bypass_outbound", "false: connections to the outside always pass the gateway", truth, checkBool},
	{"usernet.host_loopback", "whether containers reach the host's loopback at the gateway", truth, checkBool},
	{"usernet.outbound_addr", "host address that IPv4 connections to the outside come from", nil, checkIPv4},
	{"usernet.outbound_addr6", "host address that IPv6 connections to the outside come from", nil, checkIPv6},
	{"usernet.outbound_interface", "host interface that connections to the outside leave by", nil, nil},
}

// EndpointOptions are the options of endpoints.
var EndpointOptions = []Option{
	{"usernet.port_guard", "false: a nested bridge or VM may send from other addresses", truth, checkBool},
	{"usernet.offload", "false: a TAP without segmentation offload", truth, checkBool},
}

// impossible says why Docker's other options of bridge networks cannot be had.
var impossible = map[string]string{
	"com.docker.network.bridge.name":                    "a network has no interface on the host that could be named",
	"com.docker.network.bridge.default_bridge":          "the default bridge is always the network \"bridge\"",
	"com.docker.network.bridge.trusted_host_interfaces": "no interface of the host leads to containers except by published ports",
	"com.docker.network.endpoint.ifname":                "interfaces are named by com.docker.network.container_iface_prefix of their network",
	"com.docker.network.endpoint.sysctls":               "set them in the container, which owns its network namespace",
}

// checkOptions refuses what none of known has, and values that the daemon could not act on. what is "option" or "driver option".
func checkOptions(options map[string]string, known []Option, what string) error {
	for name, value := range options {
		i := slices.IndexFunc(known, func(o Option) bool { return o.Name == name })
		if i < 0 {
			if why, is := impossible[name]; is {
				return Errorf(Invalid, "%s %s is not possible: %s", what, name, why)
			}
			return Errorf(Invalid, "unknown %s %s: docs/networks.md lists the options", what, name)
		}
		if known[i].check == nil {
			continue
		}
		if err := known[i].check(value); err != nil {
			return Errorf(Invalid, "invalid value %q for %s: %w", value, name, err)
		}
	}
	return nil
}

func checkBool(v string) error {
	if _, err := strconv.ParseBool(v); err != nil {
		return Errorf(Invalid, "give true or false")
	}
	return nil
}

// checkDriverBool has Docker's text.
func checkDriverBool(v string) error {
	if _, err := strconv.ParseBool(v); err != nil {
		return Errorf(Invalid, "driver-opt is not a valid bool")
	}
	return nil
}

func checkMTU(v string) error {
	if n, err := strconv.Atoi(v); err != nil || n < 68 || n > 65520 {
		return Errorf(Invalid, "invalid MTU: give a number from 68 (1280 with IPv6) to 65520")
	}
	return nil
}

func checkIPv4(v string) error {
	if a, err := netip.ParseAddr(v); err != nil || !a.Is4() {
		return Errorf(Invalid, "give an IPv4 address of the host")
	}
	return nil
}

func checkIPv6(v string) error {
	if a, err := netip.ParseAddr(v); err != nil || !a.Is6() || a.Is4In6() {
		return Errorf(Invalid, "give an IPv6 address of the host")
	}
	return nil
}

func checkIfacePrefix(v string) error {
	if !ifacePrefix.MatchString(v) {
		return Errorf(Invalid, "give up to 12 letters, digits, - or _ that do not end in a digit")
	}
	return nil
}

// checkGatewayMode knows Docker's modes. With isolated the host has no address on the network, which is always so here;
// routed and nat-unprotected would need routes on the host to containers' addresses.
func checkGatewayMode(v string) error {
	switch v {
	case "", "nat", "isolated":
		return nil
	case "routed", "nat-unprotected":
		return Errorf(Invalid, "the host has no route to containers, which are reached by published ports: give nat")
	}
	return Errorf(Invalid, "unknown gateway mode %s", v)
}

func checkInhibit(v string) error {
	switch on, err := strconv.ParseBool(v); {
	case err != nil:
		return Errorf(Invalid, "give true or false")
	case on:
		return Errorf(Invalid, "the gateway has its address always; an --internal network has no way out by it")
	}
	return nil
}

// checkIsolated refuses mode isolated on a network that leads outside, with Docker's text.
func checkIsolated(n *Network) error {
	for _, name := range []string{"com.docker.network.bridge.gateway_mode_ipv4", "com.docker.network.bridge.gateway_mode_ipv6"} {
		if n.Options[name] == "isolated" && !n.Internal {
			return Errorf(Invalid, "gateway mode 'isolated' can only be used for an internal network")
		}
	}
	return nil
}
