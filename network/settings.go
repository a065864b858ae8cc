package network

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/usernet/usernet/internal/errdefs"
	"github.com/usernet/usernet/internal/hostaddr"
)

// Settings are the options of a network or an endpoint as the rest of the program uses them: read once, with their
// types and defaults. Options that were not given, and such of a damaged store that cannot be read, have the default.
type Settings struct {
	MTU             int  // bytes; 0: the default
	ICC             bool // containers of the network reach each other; true by default
	Masquerade      bool // there is a way out; true by default
	HostLoopback    bool
	HostBinding4    netip.Addr // invalid: all
	InterfacePrefix string     // "eth" by default
	IPv4, IPv6      *bool      // nil: not said

	Outbound4, Outbound6 netip.Addr // invalid: the kernel's choice
	OutboundInterface    string

	Egress      string
	AllowEgress []string
	Policy      string // which containers of the network reach each other; "": all do
	DNS         []string

	BypassInbound, BypassOutbound *bool // nil: as the daemon does

	// Of networks that span hosts.
	Encrypted bool             // frames between hosts are sealed
	VNI       uint32           // number on the wire (VXLAN); 0: drawn
	Peers     []netip.AddrPort // VXLAN devices that are no hosts of the cluster; port 0 means VXLAN's

	// TCP is how connections between containers of two hosts go: TCPSockets, or TCPFrames as by default ("").
	TCP string

	// Of networks that lead to VXLAN devices of others, with VNI and Peers.
	Encap string // how frames are carried; "": VXLAN
	Port  uint16 // that frames come in at; 0: the encapsulation's
	// EVPN says that peers and what is behind them come from BGP; RouteTargets by which routes. None: the VNI's.
	EVPN         bool
	RouteTargets []string

	// BGP is what neighbours are told of the network: BGPEndpoints, BGPSubnets, or nothing. The routes lead to
	// BGPNextHop, one of each family at most; none: to this host.
	BGP        string
	BGPNextHop []netip.Addr

	// Of physical networks.
	Parent string // DEVICE[.VLAN]
	DHCP   bool   // addresses are those that a server there gives
	// Autoconf: IPv6 addresses follow from what routers there announce, or are a DHCPv6 server's where they say so.
	Autoconf bool
	OneMAC   MAC // the only one that the device takes; zero: it takes many

	PortGuard bool   // of an endpoint; true by default
	Offload   bool   // likewise
	Interface string // likewise; "": chosen

	hostIPv4, hostIPv6 netip.Addr // Docker's names for the outbound addresses
	isolated           bool
}

// read makes settings of options.
func read(options map[string]string, known []Option) Settings {
	s := Settings{
		ICC:             true,
		Masquerade:      true,
		InterfacePrefix: "eth",
		PortGuard:       true,
		Offload:         true,
		Encrypted:       sealedByDefault,
	}
	for _, o := range known {
		value, given := options[o.Name]
		if next := s; given && o.set(&next, value) == nil {
			s = next
		}
	}
	if !s.Outbound4.IsValid() {
		s.Outbound4 = s.hostIPv4
	}
	if !s.Outbound6.IsValid() {
		s.Outbound6 = s.hostIPv6
	}
	return s
}

// Settings are the network's options, read.
func (n *Network) Settings() Settings {
	known := n.driver().Options
	if known == nil {
		known = NetworkOptions
	}
	return read(n.Options, known)
}

// Settings are the endpoint's options, read.
func (e *Endpoint) Settings() Settings { return read(e.DriverOpts, EndpointOptions) }

func setBool(to *bool, v string) (err error) {
	if *to, err = strconv.ParseBool(v); err != nil {
		return errdefs.Invalid("give true or false")
	}
	return nil
}

func setOptional(to **bool, v string) error {
	*to = new(bool)
	return setBool(*to, v)
}

// setDriverBool has Docker's text.
func setDriverBool(to **bool, v string) error {
	if err := setOptional(to, v); err != nil {
		return errdefs.Invalid("driver-opt is not a valid bool")
	}
	return nil
}

func setMTU(to *int, v string) (err error) {
	if *to, err = strconv.Atoi(v); err != nil || *to < 68 || *to > 65520 {
		return errdefs.Invalid("invalid MTU: give a number from 68 (1280 with IPv6) to 65520")
	}
	return nil
}

func setIPv4(to *netip.Addr, v string) (err error) {
	if *to, err = netip.ParseAddr(v); err != nil || !to.Is4() {
		return errdefs.Invalid("give an IPv4 address of the host")
	}
	return nil
}

func setIPv6(to *netip.Addr, v string) (err error) {
	if *to, err = netip.ParseAddr(v); err != nil || !to.Is6() || to.Is4In6() {
		return errdefs.Invalid("give an IPv6 address of the host")
	}
	return nil
}

func setList(to *[]string, v string) error {
	if v != "" {
		*to = strings.Split(v, ",")
	}
	return nil
}

func setInterfacePrefix(to *string, v string) error {
	if !ifacePrefix().MatchString(v) {
		return errdefs.Invalid("give up to 12 letters, digits, - or _ that do not end in a digit")
	}
	*to = v
	return nil
}

// sealedByDefault says whether networks between hosts are sealed unless they say otherwise.
const sealedByDefault = true

// setEncrypted knows that Docker's option has no value where it is switched on.
func setEncrypted(to *bool, v string) error {
	if v == "" {
		*to = true
		return nil
	}
	return setBool(to, v)
}

// MaxVNI is the largest number of a network on the wire. A VNI has 24 bits (RFC 7348, section 5), and the largest
// value, 16777215, is kept back for what usernet's hosts say to each other.
const MaxVNI = 1<<24 - 2

func setVNI(to *uint32, v string) error {
	n, err := strconv.ParseUint(v, 10, 32)
	switch {
	case err == nil && n == MaxVNI+1:
		return errdefs.Invalid("%d is in use between usernet's hosts: give one number from 1 to %d", n, MaxVNI)
	case err != nil || n == 0 || n > MaxVNI:
		return errdefs.Invalid("give one number from 1 to %d", MaxVNI)
	}
	*to = uint32(n)
	return nil
}

func setPort(to *uint16, v string) error {
	n, err := strconv.ParseUint(v, 10, 16)
	if err != nil || n == 0 {
		return errdefs.Invalid("give one UDP port from 1 to 65535")
	}
	*to = uint16(n)
	return nil
}

func setMAC(to *MAC, v string) (err error) {
	*to, err = ParseMAC(v)
	return err
}

// setMode knows Docker's modes of macvlan: only one of them is what a switch does.
func setMode(v string) error {
	if v != "" && v != "bridge" {
		return errdefs.Invalid("containers of the network reach each other, which is mode bridge")
	}
	return nil
}

func setAddrs(to *[]netip.Addr, v string) error {
	*to = nil
	for _, s := range strings.Split(v, ",") {
		a, err := netip.ParseAddr(s)
		if a = a.Unmap(); err != nil || !hostaddr.Possible(a) || a.Zone() != "" {
			return errdefs.Invalid("%q is no address of a host: give one of each family at most, separated by a comma", s)
		}
		for _, b := range *to {
			if a.Is4() == b.Is4() {
				return errdefs.Invalid("two addresses of one family: give one of each at most")
			}
		}
		*to = append(*to, a)
	}
	return nil
}

func setOneOf(to *string, v string, values ...string) error {
	if !slices.Contains(values, v) {
		return errdefs.Invalid("give %s", strings.Join(values, " or "))
	}
	*to = v
	return nil
}

func setPeers(to *[]netip.AddrPort, v string) error {
	*to = nil
	for _, s := range strings.Split(v, ",") {
		peer, err := netip.ParseAddrPort(s)
		if err == nil && peer.Port() == 0 {
			return errdefs.Invalid("%q is no peer: ports are from 1 to 65535", s)
		}
		if a, bare := netip.ParseAddr(strings.Trim(s, "[]")); err != nil && bare == nil {
			peer, err = netip.AddrPortFrom(a, 0), nil
		}
		peer = netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port())
		if a := peer.Addr(); err != nil || !hostaddr.Possible(a) || a.Zone() != "" {
			return errdefs.Invalid("%q is no peer: give the ADDRESS[:PORT] of each, separated by commas", s)
		}
		if !slices.Contains(*to, peer) { // to one that is named twice frames to all would go twice
			*to = append(*to, peer)
		}
	}
	return nil
}

// setGatewayMode knows Docker's modes. With isolated the host has no address on the network, which is always so here;
// routed and nat-unprotected would need routes on the host to containers' addresses.
func setGatewayMode(isolated *bool, v string) error {
	switch v {
	case "", "nat":
		return nil
	case "isolated":
		*isolated = true
		return nil
	case "routed", "nat-unprotected":
		return errdefs.Invalid("the host has no route to containers, which are reached by published ports: give nat")
	}
	return errdefs.Invalid("unknown gateway mode %s", v)
}
