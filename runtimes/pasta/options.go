package pasta

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/runtimes/joined"
)

// defaultMTU is pasta's: the largest payload of 802.3, rounded down to words of IPv4.
const defaultMTU = 65520

// maxName is the longest name in the DNS, in characters (RFC 1035 section 3.1, written without the root's dot).
const maxName = 253

// minLog is the smallest log file that makes sense, in bytes.
const minLog = 4096

// Options is a command line of pasta.
type Options struct {
	// What to join: a process, or namespaces at paths; or a command to start in new namespaces.
	PID       int
	NetNS     string
	UserNS    string
	NetNSOnly bool
	Command   []string
	QuitNever bool // --no-netns-quit: the namespace's path may go

	// How the process runs.
	Debug, Trace, Quiet, Foreground bool
	LogFile                         string
	LogSize                         int64
	RunAs                           string
	PIDFile                         string
	PCAP                            string

	// The interface in the namespace.
	ConfigNet      bool
	Interface      string // "": the host's interface's name, else tap0
	MAC            net.HardwareAddr
	MTU            int // 0: not assigned
	Addrs          [2]netip.Addr
	Netmask        int // bits; 0: the host's
	Gateways       [2]netip.Addr
	RouterMAC      net.HardwareAddr
	NoCopyRoutes   bool
	NoCopyAddrs    bool
	HostInterface  string
	IPv4, IPv6     bool
	Hostname, FQDN string

	// Names.
	DNS         []netip.Addr // nil: the host's resolv.conf
	NoDNS       bool
	Search      []string
	NoSearch    bool
	DHCPDNS     bool
	DHCPSearch  bool
	DNSForward  [2]netip.Addr
	DNSHost     [2]netip.Addr
	NoTCP       bool
	NoUDP       bool
	NoICMP      bool
	NoDHCP      bool
	NoDHCPv6    bool
	NoNDP, NoRA bool

	// Where connections lead.
	Outbound        [2]netip.Addr
	OutboundIf      [2]string
	MapHostLoopback [2]netip.Addr
	NoMapLoopback   bool // --map-host-loopback none
	NoMapGateway    bool
	MapGuestAddr    [2]netip.Addr
	HostLoToNSLo    bool
	NoSplice        bool
	FreeBind        bool
	TCP, UDP        Ports // from the host to the namespace
	TCPNS, UDPNS    Ports // from the namespace to the host's loopback

	// Networks are those of the user's daemon that are joined instead; none: the process forwards itself.
	Networks []string
	Name     string // of the container there; "": one is drawn

	daemon func() (*api.Client, error) // finds the user's daemon

	Help, Version bool
}

// Index of a family in the fields that have one value for each.
const (
	v4 = 0
	v6 = 1
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
	"no-dhcp-dns":        "is passt's; pasta assigns none unless --dhcp-dns is given",
	"no-dhcp-search":     "is passt's; pasta assigns none unless --dhcp-search is given",
}

// values are flags that are checked once all are read.
type values struct {
	networks, name string

	addrs, gateways, outbound, dns, search, dnsForward, dnsHost []string
	mapLoopback, mapGuest                                       []string
	netmask, mac, nsMAC, mtu                                    string
	only4, only6                                                bool
}

func flags(o *Options, v *values) *pflag.FlagSet {
	f := pflag.NewFlagSet("pasta", pflag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.SetInterspersed(false) // what follows the command is the command's
	f.SortFlags = false
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
	f.StringArrayVarP(&v.dns, "dns", "D", nil, "name server that the namespace is told, or none")
	f.StringArrayVar(&v.dnsForward, "dns-forward", nil, "address whose DNS questions go to the host's name server")
	f.StringArrayVar(&v.dnsHost, "dns-host", nil, "the name server that --dns-forward leads to")
	f.StringArrayVarP(&v.search, "search", "S", nil, "search domains that the namespace is told, or none")
	f.BoolVar(&o.DHCPDNS, "dhcp-dns", false, "tell name servers by DHCP, DHCPv6 and NDP")
	f.BoolVar(&o.DHCPSearch, "dhcp-search", false, "tell search domains by DHCP, DHCPv6 and NDP")
	f.BoolVar(&o.NoTCP, "no-tcp", false, "no TCP")
	f.BoolVar(&o.NoUDP, "no-udp", false, "no UDP")
	f.BoolVar(&o.NoICMP, "no-icmp", false, "no ICMP echo")
	f.BoolVar(&o.NoDHCP, "no-dhcp", false, "no DHCP server")
	f.BoolVar(&o.NoNDP, "no-ndp", false, "no answers to neighbour discovery")
	f.BoolVar(&o.NoDHCPv6, "no-dhcpv6", false, "no DHCPv6 server")
	f.BoolVar(&o.NoRA, "no-ra", false, "no router advertisements")
	f.BoolVar(&o.FreeBind, "freebind", false, "bind to addresses that the host does not have yet")
	f.StringArrayVar(&v.mapLoopback, "map-host-loopback", nil, "address that leads to the host's loopback, or none")
	f.BoolVar(&o.NoMapGateway, "no-map-gw", false, "the gateway's address does not lead to the host")
	f.StringArrayVar(&v.mapGuest, "map-guest-addr", nil, "address that leads to the host at the address that both have")
	f.BoolVarP(&v.only4, "ipv4-only", "4", false, "no IPv6")
	f.BoolVarP(&v.only6, "ipv6-only", "6", false, "no IPv4")
	f.StringVarP(&o.Hostname, "hostname", "H", "", "host name that DHCP tells")
	f.StringVar(&o.FQDN, "fqdn", "", "full name that DHCP tells")
	f.StringVarP(&o.Interface, "ns-ifname", "I", "", "name of the interface in the namespace")
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
	return f
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
	return fmt.Errorf("--%s %s: usernet takes pasta's place, not passt's", string(r), passtOnly[string(r)])
}

// Parse reads the arguments behind the program's name.
func Parse(args []string) (*Options, error) {
	o, v := &Options{}, &values{}
	f := flags(o, v)
	if err := f.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return &Options{Help: true}, nil
		}
		return nil, asGetopt(err)
	}
	if o.Help || o.Version {
		return o, nil
	}
	if err := o.resolve(v); err != nil {
		return nil, err
	}
	return o, o.positional(f.Args())
}

// asGetopt says what is unknown in getopt_long(3)'s words: Podman looks for "unrecognized option '--NAME".
func asGetopt(err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		if unknown.GetSpecifiedShortnames() == "" {
			return fmt.Errorf("unrecognized option '--%s'", unknown.GetSpecifiedName())
		}
		return fmt.Errorf("invalid option -- '%s'", unknown.GetSpecifiedName())
	}
	return err
}

func (o *Options) resolve(v *values) (err error) {
	o.Debug = o.Debug || o.Trace
	o.Networks, o.Name = joined.Networks(v.networks), joined.Name(v.name)
	if v.only4 && v.only6 {
		return errors.New("options ipv4-only and ipv6-only are mutually exclusive")
	}
	o.IPv4, o.IPv6 = !v.only6, !v.only4
	o.MTU = defaultMTU
	if v.mtu != "" {
		if o.MTU, err = strconv.Atoi(v.mtu); err != nil || o.MTU < 0 || o.MTU > 65535 || o.MTU > 0 && o.MTU < 68 {
			return fmt.Errorf("invalid MTU: %s: give 68 to 65535 bytes, or 0 to assign none (RFC 791)", v.mtu)
		}
	}
	for _, p := range []struct {
		name   string
		values []string
		to     *[2]netip.Addr
		none   *bool
	}{
		{"address", v.addrs, &o.Addrs, nil},
		{"gateway", v.gateways, &o.Gateways, nil},
		{"outbound", v.outbound, &o.Outbound, nil},
		{"dns-forward", v.dnsForward, &o.DNSForward, nil},
		{"dns-host", v.dnsHost, &o.DNSHost, nil},
		{"map-host-loopback", v.mapLoopback, &o.MapHostLoopback, &o.NoMapLoopback},
		{"map-guest-addr", v.mapGuest, &o.MapGuestAddr, new(bool)},
	} {
		if err := families(p.name, p.values, p.to, p.none); err != nil {
			return err
		}
	}
	if o.NoMapLoopback {
		o.NoMapGateway = true
	}
	if o.Netmask, err = netmask(v.netmask); err != nil {
		return err
	}
	if o.RouterMAC, err = mac("mac-addr", v.mac); err != nil {
		return err
	}
	if o.MAC, err = mac("ns-mac-addr", v.nsMAC); err != nil {
		return err
	}
	for _, p := range []struct {
		name  string
		ports *Ports
		ns    bool
	}{
		{"tcp-ports", &o.TCP, false},
		{"udp-ports", &o.UDP, false},
		{"tcp-ns", &o.TCPNS, true},
		{"udp-ns", &o.UDPNS, true},
	} {
		if p.ports.Mode == ModeUnset {
			p.ports.Mode = ModeAuto
		}
		for _, r := range p.ports.Ranges {
			if p.ns && (r.Addr.IsValid() || r.Interface != "") {
				return fmt.Errorf(
					"invalid port specifier of --%s: ports of the namespace are its loopback's; give no address and no interface",
					p.name,
				)
			}
		}
	}
	for _, p := range []struct{ name, value string }{{"hostname", o.Hostname}, {"fqdn", o.FQDN}} {
		if len(p.value) > maxName {
			return fmt.Errorf("invalid %s: %s: %d characters at most", p.name, p.value, maxName)
		}
	}
	if o.LogSize < minLog {
		return fmt.Errorf("invalid log-size: %d: %d bytes at least", o.LogSize, minLog)
	}
	if len(o.Interface) > 15 { // IFNAMSIZ in <linux/if.h>
		return fmt.Errorf("invalid interface name: %s: 15 characters at most", o.Interface)
	}
	return o.resolveNames(v)
}

func (o *Options) resolveNames(v *values) error {
	for _, s := range v.dns {
		if s == "none" || s == "" {
			o.DNS, o.NoDNS = nil, true
			continue
		}
		a, err := netip.ParseAddr(s)
		if err != nil {
			return fmt.Errorf("cannot parse DNS address %s", s)
		}
		o.DNS, o.NoDNS = append(o.DNS, a), false
	}
	for _, s := range v.search {
		if s == "none" || s == "" {
			o.Search, o.NoSearch = nil, true
			continue
		}
		o.Search, o.NoSearch = append(o.Search, strings.Fields(s)...), false
	}
	return nil
}

// families sorts addresses by family; the last one of each counts.
func families(name string, list []string, to *[2]netip.Addr, none *bool) error {
	for _, s := range list {
		if s == "none" && none != nil {
			*to, *none = [2]netip.Addr{}, true
			continue
		}
		a, err := netip.ParseAddr(s)
		if err != nil || a.Is4In6() || a.Zone() != "" {
			return fmt.Errorf("invalid %s: %s: give an IPv4 or an IPv6 address", name, s)
		}
		if name != "map-host-loopback" && (a.IsUnspecified() || a.IsMulticast()) {
			return fmt.Errorf("invalid %s: %s: this address is no host's", name, s)
		}
		if a.Is4() {
			to[v4] = a
		} else {
			to[v6] = a
		}
	}
	return nil
}

func netmask(s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	if bits, err := strconv.Atoi(s); err == nil && bits >= 0 && bits <= 32 {
		return bits, nil
	}
	if ip := net.ParseIP(s).To4(); ip != nil {
		if ones, size := net.IPMask(ip).Size(); size == 32 {
			return ones, nil
		}
	}
	return 0, fmt.Errorf("invalid netmask: %s: give the number of bits, or a mask like 255.255.255.0", s)
}

func mac(name, s string) (net.HardwareAddr, error) {
	if s == "" {
		return nil, nil
	}
	m, err := net.ParseMAC(s)
	if err != nil || len(m) != 6 || m[0]&1 != 0 {
		return nil, fmt.Errorf("invalid %s: %s: give the MAC address of one station, like 02:00:00:00:00:01", name, s)
	}
	return m, nil
}

// positional reads [PID] or [COMMAND [ARG]...].
func (o *Options) positional(args []string) error {
	if len(args) == 0 {
		return nil
	}
	if pid, err := strconv.Atoi(args[0]); err == nil && len(args) == 1 {
		switch {
		case pid <= 0:
			return fmt.Errorf("invalid PID: %s", args[0])
		case o.NetNS != "":
			return errors.New("both --netns and PID given: they name the same thing")
		}
		o.PID = pid
		return nil
	}
	if o.NetNS != "" || o.UserNS != "" {
		return errors.New("a command starts in namespaces of its own: give it without --netns and --userns")
	}
	o.Command = args
	return nil
}

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
