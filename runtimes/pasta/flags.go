package pasta

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
)

// passtOnly are options that pasta's manual has for passt alone.
var passtOnly = map[string]string{
	"socket-path":        "serves a virtual machine",
	"socket":             "serves a virtual machine",
	"vhost-user":         "serves a virtual machine",
	"print-capabilities": "belongs to vhost-user",
	"repair-path":        "belongs to the migration of virtual machines",
	"fd":                 "serves a virtual machine",
	"one-off":            "serves a virtual machine",
	"no-dhcp-dns":        "is passt's, and pasta assigns none unless --dhcp-dns is given",
	"no-dhcp-search":     "is passt's, and pasta assigns none unless --dhcp-search is given",
}

// values are flags that are checked once all are read.
type values struct {
	networks, name string

	addrs, gateways, outbound, dns, search, dnsForward, dnsHost []string
	mapLoopback, mapGuest                                       []string
	netmask, mac, nsMAC, mtu                                    string
	only4, only6                                                bool
}

// flags are pasta's options, in the order of --help.
func flags(o *Options, v *values) *pflag.FlagSet {
	f := pflag.NewFlagSet("pasta", pflag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.SetInterspersed(false) // what follows the command is the command's
	f.SortFlags = false
	o.processFlags(f)
	v.addressFlags(o, f)
	v.nameServerFlags(o, f)
	o.protocolFlags(f)
	v.mappingFlags(o, f)
	o.portFlags(f)
	v.namespaceFlags(o, f)
	refusePasstOnly(f)
	return f
}

// processFlags are about the process itself.
func (o *Options) processFlags(f *pflag.FlagSet) {
	f.BoolVarP(&o.Debug, "debug", "d", false, "be verbose")
	f.BoolVar(&o.Trace, "trace", false, "be extra verbose; implies --debug")
	f.BoolVarP(&o.Quiet, "quiet", "q", false, "print no informational messages")
	f.BoolVarP(&o.Foreground, "foreground", "f", false, "do not go into the background")
	f.BoolP("stderr", "e", false, "has no effect; pasta withdrew it")
	f.StringVarP(&o.LogFile, "log-file", "l", "", "log to this file")
	f.Int64Var(&o.LogSize, "log-size", 1<<20, "size of the log file in bytes, at most")
	f.StringVar(&o.RunAs, "runas", "", "UID, UID:GID, LOGIN or LOGIN:GROUP to run as, when started as root")
	f.BoolVarP(&o.Help, "help", "h", false, "show this text")
	f.BoolVar(&o.Version, "version", false, "show the version")
	f.StringVarP(&o.PCAP, "pcap", "p", "", "capture the namespace's packets to this file")
	f.StringVarP(&o.PIDFile, "pid", "P", "", "write the process id to this file")
}

// addressFlags are about the interface, its addresses and routes.
func (v *values) addressFlags(o *Options, f *pflag.FlagSet) {
	f.StringVarP(&v.mtu, "mtu", "m", "", "MTU in bytes; 0 assigns none (default 65520)")
	f.StringArrayVarP(&v.addrs, "address", "a", nil, "address of the namespace, once for each family")
	f.StringVarP(&v.netmask, "netmask", "n", "", "IPv4 mask, dotted or as bits")
	f.StringVarP(&v.mac, "mac-addr", "M", "", "MAC address of the gateway")
	f.StringArrayVarP(&v.gateways, "gateway", "g", nil, "default gateway, once for each family")
	f.StringVarP(
		&o.HostInterface,
		"interface",
		"i",
		"",
		"the host's interface that addresses and routes are taken from",
	)
	f.StringArrayVarP(&v.outbound, "outbound", "o", nil, "source address of connections, once for each family")
	f.StringVar(&o.OutboundIf[v4], "outbound-if4", "", "the interface that IPv4 leaves by")
	f.StringVar(&o.OutboundIf[v6], "outbound-if6", "", "the interface that IPv6 leaves by")
}

// nameServerFlags are about DNS.
func (v *values) nameServerFlags(o *Options, f *pflag.FlagSet) {
	f.StringArrayVarP(&v.dns, "dns", "D", nil, "name server that the namespace is told, or none")
	f.StringArrayVar(&v.dnsForward, "dns-forward", nil, "address whose DNS questions go to the host's name server")
	f.StringArrayVar(&v.dnsHost, "dns-host", nil, "the name server that --dns-forward leads to")
	f.StringArrayVarP(&v.search, "search", "S", nil, "search domains that the namespace is told, or none")
	f.BoolVar(&o.DHCPDNS, "dhcp-dns", false, "tell name servers by DHCP, DHCPv6 and NDP")
	f.BoolVar(&o.DHCPSearch, "dhcp-search", false, "tell search domains by DHCP, DHCPv6 and NDP")
}

// protocolFlags leave protocols out.
func (o *Options) protocolFlags(f *pflag.FlagSet) {
	f.BoolVar(&o.NoTCP, "no-tcp", false, "no TCP")
	f.BoolVar(&o.NoUDP, "no-udp", false, "no UDP")
	f.BoolVar(&o.NoICMP, "no-icmp", false, "no ICMP echo")
	f.BoolVar(&o.NoDHCP, "no-dhcp", false, "no DHCP server")
	f.BoolVar(&o.NoNDP, "no-ndp", false, "no answers to neighbour discovery")
	f.BoolVar(&o.NoDHCPv6, "no-dhcpv6", false, "no DHCPv6 server")
	f.BoolVar(&o.NoRA, "no-ra", false, "no router advertisements")
	f.BoolVar(&o.FreeBind, "freebind", false, "bind to addresses that the host does not have yet")
}

// mappingFlags are about addresses that lead to the host, address families and names.
func (v *values) mappingFlags(o *Options, f *pflag.FlagSet) {
	f.StringArrayVar(&v.mapLoopback, "map-host-loopback", nil, "address that leads to the host's loopback, or none")
	f.BoolVar(&o.NoMapGateway, "no-map-gw", false, "the gateway's address does not lead to the host")
	f.StringArrayVar(&v.mapGuest, "map-guest-addr", nil, "address that leads to the host at the address that both have")
	f.BoolFuncP("ipv4-only", "4", "no IPv6", v.only(v4))
	f.BoolFuncP("ipv6-only", "6", "no IPv4", v.only(v6))
	f.StringVarP(&o.Hostname, "hostname", "H", "", "host name that DHCP tells")
	f.StringVar(&o.FQDN, "fqdn", "", "full name that DHCP tells")
	f.StringVarP(&o.Interface, "ns-ifname", "I", "", "name of the interface in the namespace")
}

// only has one family and not the other: the last of both options counts.
func (v *values) only(family int) func(string) error {
	return func(string) error {
		v.only4, v.only6 = family == v4, family == v6
		return nil
	}
}

// portFlags are about forwarded ports.
func (o *Options) portFlags(f *pflag.FlagSet) {
	f.VarP(portFlag{&o.TCP}, "tcp-ports", "t", "TCP ports of the host that lead to the namespace")
	f.VarP(portFlag{&o.UDP}, "udp-ports", "u", "UDP ports of the host that lead to the namespace")
	f.VarP(portFlag{&o.TCPNS}, "tcp-ns", "T", "TCP ports of the namespace that lead to the host")
	f.VarP(portFlag{&o.UDPNS}, "udp-ns", "U", "UDP ports of the namespace that lead to the host")
	f.BoolVar(
		&o.HostLoToNSLo,
		"host-lo-to-ns-lo",
		false,
		"connections of the host's loopback arrive on the namespace's",
	)
}

// namespaceFlags are about the namespace that is joined, and how it is set up.
func (v *values) namespaceFlags(o *Options, f *pflag.FlagSet) {
	f.StringVar(&o.UserNS, "userns", "", "path of the user namespace to join")
	f.StringVar(&o.NetNS, "netns", "", "path or name of the network namespace to join")
	f.BoolVar(&o.NetNSOnly, "netns-only", false, "join no user namespace")
	f.BoolVar(&o.QuitNever, "no-netns-quit", false, "do not end when the namespace's path is gone")
	f.BoolVar(&o.ConfigNet, "config-net", false, "configure the interface in the namespace")
	f.BoolVar(&o.NoCopyRoutes, "no-copy-routes", false, "set a default route only (pasta withdraws this option)")
	f.BoolVar(&o.NoCopyAddrs, "no-copy-addrs", false, "set one address only (pasta withdraws this option)")
	f.StringVar(
		&v.networks,
		"usernet-network",
		"",
		"join these networks of usernet's daemon instead: NAME[,NAME] (or $USERNET_NETWORK)",
	)
	f.StringVar(&v.name, "usernet-name", "", "the container's name there (or $USERNET_NAME)")
	f.StringVar(&v.nsMAC, "ns-mac-addr", "", "MAC address of the interface in the namespace")
	f.BoolVar(&o.NoSplice, "no-splice", false, "all traffic crosses the interface")
}

// refusePasstOnly defines the options that are passt's alone, so that they are refused by name.
func refusePasstOnly(f *pflag.FlagSet) {
	for name, short := range map[string]string{
		"socket-path":        "s",
		"socket":             "",
		"vhost-user":         "",
		"print-capabilities": "",
		"repair-path":        "",
		"fd":                 "F",
		"one-off":            "1",
		"no-dhcp-dns":        "",
		"no-dhcp-search":     "",
	} {
		f.VarPF(refused(name), name, short, "").NoOptDefVal = " "
		_ = f.MarkHidden(name) // it is defined
	}
}

// portFlag makes Ports a flag that adds up.
type portFlag struct{ *Ports }

func (portFlag) String() string { return "" }
func (portFlag) Type() string   { return "spec" }

// refused is the name of an option that is not pasta's.
type refused string

func (refused) String() string { return "" }
func (refused) Type() string   { return "" }
func (r refused) Set(string) error {
	return refusal("--" + string(r) + " " + passtOnly[string(r)] + "; usernet takes pasta's place, not passt's")
}

// refusal says why an option of passt's is refused. It names the option by itself.
type refusal string

func (r refusal) Error() string { return string(r) }

// Usage is the text of --help.
func Usage(program string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: %[1]s [OPTION]... [COMMAND] [ARGS]...\n       %[1]s [OPTION]... PID\n"+
		"       %[1]s [OPTION]... --netns [PATH|NAME]\n\n", program)
	b.WriteString(
		"Connects a network namespace to the host's network, by usernet. Without PID and --netns the command, or\n" +
			"a shell, runs in new user and network namespaces.\n\n",
	)
	b.WriteString(flags(&Options{}, &values{}).FlagUsages())
	return b.String()
}
