package slirp4netns

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/usernet/usernet/runtimes/getopt"
	"github.com/usernet/usernet/runtimes/joined"
)

// Kinds of what a TAP is made in, for --netns-type and --target-type.
const (
	netnsPID  = "pid"
	netnsPath = "path"
	netnsTAP  = "tapfd" // slirp4netns 1.3.3: a descriptor of the TAP itself

	targetNetNS = "netns"
	targetBESS  = "bess"
)

const (
	defaultMTU = 1500
	minMTU     = 68    // IPv4's (RFC 791), and libslirp's IF_MTU_MIN
	maxMTU     = 65521 // slirp4netns's own limit
)

// Options is a command line of slirp4netns.
type Options struct {
	Configure           bool // give the interface its address, and bring it up
	ExitFD, ReadyFD     int  // -1: none
	MTU                 int
	IPv6                bool
	APISocket           string // "": none
	Plan                Plan
	DisableHostLoopback bool
	NetNSType           string
	UserNSPath          string // "": the owner of the network namespace
	Sandbox             bool
	Seccomp             bool
	Outbound4           netip.Addr // source of connections to the outside; invalid: the kernel's choice
	Outbound6           netip.Addr
	DisableDNS          bool
	MAC                 net.HardwareAddr // of the TAP; nil: the kernel's choice
	TargetType          string
	Target              string // PID, path, or descriptor, as NetNSType and TargetType say
	TAP                 string // name of the interface
	// Networks are those of the user's daemon that are joined instead; none: the process forwards itself.
	Networks []string
	Name     string // of the container there; "": one is drawn
	Warnings []string

	Help    bool
	Version bool
}

// UsageError is a command line that cannot be carried out: the usage text belongs behind it.
type UsageError struct{ error }

func usageErrorf(format string, args ...any) error { return UsageError{fmt.Errorf(format, args...)} }

// raw are the flags as they were written.
type raw struct {
	exitFD, readyFD, mtu, cidr, mac, outbound4, outbound6, networks, name string
	oldLoopback, oldSandbox                                               bool
}

func flags(o *Options, r *raw) *pflag.FlagSet {
	f := pflag.NewFlagSet("slirp4netns", pflag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.SortFlags = false
	f.BoolVarP(&o.Configure, "configure", "c", false, "bring the interface up, with its address and routes")
	f.StringVarP(&r.exitFD, "exit-fd", "e", "", "end when this descriptor is closed at its other end")
	f.StringVarP(&r.readyFD, "ready-fd", "r", "", "write \"1\" to this descriptor once the network works")
	f.StringVarP(&r.mtu, "mtu", "m", strconv.Itoa(defaultMTU), "MTU in bytes, 65521 at most")
	f.BoolVarP(&o.IPv6, "enable-ipv6", "6", false, "IPv6 by router advertisements, fd00::/64")
	f.StringVarP(&o.APISocket, "api-socket", "a", "", "listen here for requests to publish ports")
	f.StringVar(&r.cidr, "cidr", defaultCIDR, "the network, with a prefix of 1 to 25 bits")
	f.BoolVar(
		&o.DisableHostLoopback,
		"disable-host-loopback",
		false,
		"the gateway does not lead to the host's 127.0.0.1",
	)
	f.BoolVar(&r.oldLoopback, "no-host-loopback", false, "")
	f.StringVar(&o.NetNSType, "netns-type", netnsPID, "what names the network namespace: pid, path or tapfd")
	f.StringVar(&o.UserNSPath, "userns-path", "", "the user namespace to enter, if not the network namespace's owner")
	f.BoolVar(&o.Sandbox, "enable-sandbox", false, "confine the process: files, programs, privileges")
	f.BoolVar(&r.oldSandbox, "create-sandbox", false, "")
	f.BoolVar(&o.Seccomp, "enable-seccomp", false, "confine the process: system calls")
	f.StringVar(&r.outbound4, "outbound-addr", "", "source of IPv4 connections: an address or an interface")
	f.StringVar(&r.outbound6, "outbound-addr6", "", "source of IPv6 connections: an address or an interface")
	f.BoolVar(&o.DisableDNS, "disable-dns", false, "answer no names at the third address of the network")
	f.StringVar(&r.mac, "macaddress", "", "MAC address of the interface (with -c)")
	f.StringVar(&o.TargetType, "target-type", targetNetNS, "what the frames come from: netns, or bess for a socket")
	f.StringVar(
		&r.networks,
		"usernet-network",
		"",
		"join these networks of usernet's daemon instead: NAME[,NAME] (or $USERNET_NETWORK)",
	)
	f.StringVar(&r.name, "usernet-name", "", "the container's name there (or $USERNET_NAME)")
	f.BoolVarP(&o.Help, "help", "h", false, "show this text")
	f.BoolVarP(&o.Version, "version", "v", false, "show the version")
	for _, name := range []string{"no-host-loopback", "create-sandbox"} {
		_ = f.MarkHidden(name) // it is defined
	}
	return f
}

// Parse reads the arguments behind the program's name. An error of type UsageError wants the usage text behind it.
func Parse(args []string) (*Options, error) {
	o, r := &Options{ExitFD: -1, ReadyFD: -1}, &raw{}
	f := flags(o, r)
	args, err := getopt.Expand(f, args, true)
	if err != nil {
		return nil, UsageError{err}
	}
	if err := f.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			o.Help = true
			return o, nil
		}
		return nil, UsageError{getopt.Error(err)}
	}
	if o.Help || o.Version {
		return o, nil
	}
	if err := o.resolve(f, r); err != nil {
		return nil, err
	}
	return o, o.positional(f)
}

// resolve checks the flags that have a value.
func (o *Options) resolve(f *pflag.FlagSet, r *raw) (err error) {
	if r.oldLoopback {
		o.warn("--no-host-loopback is now called --disable-host-loopback")
	}
	if r.oldSandbox {
		o.warn("--create-sandbox is now called --enable-sandbox")
	}
	o.DisableHostLoopback = o.DisableHostLoopback || r.oldLoopback
	o.Sandbox = o.Sandbox || r.oldSandbox
	if err := o.resolveDescriptors(f, r); err != nil {
		return err
	}
	o.Networks, o.Name = joined.Networks(r.networks), joined.Name(r.name)
	if o.MTU, err = strconv.Atoi(r.mtu); err != nil || o.MTU <= 0 || o.MTU > maxMTU {
		return usageErrorf("MTU must be a positive integer (< %d)", maxMTU+1)
	}
	if o.MTU < minMTU {
		return usageErrorf("MTU must be %d at least, which IPv4 needs, not %d", minMTU, o.MTU)
	}
	if o.Plan, err = newPlan(r.cidr); err != nil {
		return err
	}
	if o.UserNSPath != "" {
		if _, err := os.Stat(o.UserNSPath); err != nil {
			return usageErrorf("userns path doesn't exist: %s", o.UserNSPath)
		}
	}
	if err := o.resolveMAC(r); err != nil {
		return err
	}
	if o.Outbound4, err = outbound(r.outbound4, "outbound-addr", "ipv4", netip.Addr.Is4); err != nil {
		return err
	}
	o.Outbound6, err = outbound(
		r.outbound6,
		"outbound-addr6",
		"ipv6",
		func(a netip.Addr) bool { return a.Is6() && !a.IsLinkLocalUnicast() },
	)
	return err
}

// resolveDescriptors reads the numbers of the descriptors that tell of readiness and of the end.
func (o *Options) resolveDescriptors(f *pflag.FlagSet, r *raw) (err error) {
	for _, d := range []struct {
		name, value string
		fd          *int
	}{{"exit-fd", r.exitFD, &o.ExitFD}, {"ready-fd", r.readyFD, &o.ReadyFD}} {
		if !f.Changed(d.name) {
			continue
		}
		if *d.fd, err = strconv.Atoi(d.value); err != nil || *d.fd < 0 {
			return usageErrorf("%s must be a non-negative integer", d.name)
		}
	}
	return nil
}

// resolveMAC reads the MAC address of the interface.
func (o *Options) resolveMAC(r *raw) (err error) {
	if r.mac != "" {
		if !o.Configure {
			return usageErrorf("--macaddress cannot be specified when --configure or -c is not specified")
		}
		if o.MAC, err = net.ParseMAC(r.mac); err != nil || len(o.MAC) != 6 || o.MAC[0]&1 != 0 {
			return fmt.Errorf(
				"%q is an invalid MAC address: macaddress has to be 6 hexadecimal bytes separated by ':', of one station",
				r.mac,
			)
		}
	}
	return nil
}

func (o *Options) warn(text string) { o.Warnings = append(o.Warnings, text) }

// positional reads PID|PATH|FD and TAPNAME.
func (o *Options) positional(f *pflag.FlagSet) error {
	args := f.Args()
	if len(args) == 0 {
		return usageErrorf(
			"nothing to join: give a process id, or with --netns-type=path a path, and the interface's name",
		)
	}
	o.Target = args[0]
	switch o.TargetType {
	case targetBESS:
		return o.checkBESS(f, len(args))
	case targetNetNS:
	default:
		return usageErrorf("--target-type must be either %q or %q", targetNetNS, targetBESS)
	}
	names := 2
	switch o.NetNSType {
	case netnsPID:
		if pid, err := strconv.Atoi(o.Target); err != nil || pid <= 0 {
			return usageErrorf("PID must be a positive integer")
		}
	case netnsTAP:
		names = 1
		if fd, err := strconv.Atoi(o.Target); err != nil || fd < 0 {
			return usageErrorf("TAPFD must be a file descriptor")
		}
	default: // slirp4netns takes any other word for "path"
		o.NetNSType = netnsPath
		if _, err := os.Stat(o.Target); err != nil {
			return usageErrorf("existing path expected when --netns-type=path: %w", err)
		}
	}
	if len(args) < names {
		return usageErrorf("the name of the interface is missing behind %s", o.Target)
	}
	if len(args) > names {
		o.warn("too many arguments") // slirp4netns accepts them too
	}
	if names == 2 {
		o.TAP = args[1]
	}
	return nil
}

func (o *Options) checkBESS(f *pflag.FlagSet, args int) error {
	if args > 1 {
		return usageErrorf("too many arguments")
	}
	for _, name := range []string{"configure", "netns-type", "userns-path"} {
		if f.Changed(name) {
			return usageErrorf("--%s conflicts with --target-type=bess", name)
		}
	}
	return nil
}

// outbound is an address, or the first of an interface's that fits.
func outbound(value, flag, family string, fits func(netip.Addr) bool) (netip.Addr, error) {
	if value == "" {
		return netip.Addr{}, nil
	}
	if a, err := netip.ParseAddr(value); err == nil && fits(a) {
		return a, nil
	}
	if ifc, err := net.InterfaceByName(value); err == nil {
		addrs, err := ifc.Addrs()
		if err != nil {
			return netip.Addr{}, fmt.Errorf("%s %s: %w", flag, value, err)
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && fits(p.Addr()) {
				return p.Addr(), nil
			}
		}
	}
	return netip.Addr{}, fmt.Errorf("%s has to be valid %s address or interface name, not %q", flag, family, value)
}

// Usage is the text of --help. Podman and RootlessKit look for the options' names in it.
func Usage(program string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: %s [OPTION]... PID|PATH|FD [TAPNAME]\n", program)
	b.WriteString("User-mode networking for an unprivileged network namespace, by usernet.\n\n")
	b.WriteString(flags(&Options{}, &raw{}).FlagUsages())
	return b.String()
}
