package pasta

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/spf13/pflag"

	"github.com/usernet/usernet/api"
	"github.com/usernet/usernet/runtimes/getopt"
)

// defaultMTU is pasta's: the largest payload of 802.3, rounded down to words of IPv4.
const defaultMTU = 65520

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

// Parse reads the arguments behind the program's name.
func Parse(args []string) (*Options, error) {
	o, v := &Options{}, &values{}
	f := flags(o, v)
	args, err := getopt.Expand(f, args, false)
	if err != nil {
		return nil, err
	}
	if err := f.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return &Options{Help: true}, nil
		}
		if r, ok := errors.AsType[refusal](err); ok {
			return nil, r
		}
		return nil, getopt.Error(err)
	}
	if o.Help || o.Version {
		return o, nil
	}
	if err := o.resolve(v); err != nil {
		return nil, err
	}
	return o, o.positional(f.Args())
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
