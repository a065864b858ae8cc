package main

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/hostaddr"
	"github.com/usernet/usernet/overlay/bgp"
)

// bgpOptions are the flags of serve that have to do with routers.
type bgpOptions struct {
	neighbors []string
	asn       uint32
	routerID  string
	addrs     []string
	password  string
	hold      time.Duration
}

func (o *bgpOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringSliceVar(
		&o.neighbors,
		"bgp-neighbor",
		nil,
		"speak BGP to this router: ADDRESS[:PORT][@ASN], in the same AS where none is given (repeatable)",
	)
	f.Uint32Var(&o.asn, "bgp-asn", 0, "number of the autonomous system that this host is in")
	countBetween(f, "bgp-asn", 1, math.MaxUint32, "")
	f.StringVar(&o.routerID, "bgp-router-id", "", "router id (the first IPv4 address of --bgp-address)")
	f.StringSliceVar(
		&o.addrs,
		"bgp-address",
		nil,
		"addresses of this host that routes lead to, one of each family (those that lead to the routers, and of a family "+
			"without routers one of the same interface)",
	)
	f.StringVar(&o.password, "bgp-password-file", "", "file with the password of all sessions (TCP MD5)")
	f.DurationVar(
		&o.hold,
		"bgp-hold-time",
		bgp.DefaultHold,
		"how long a router may be silent before its session is lost, in whole seconds",
	)
	timeBetween(f, "bgp-hold-time", bgp.MinHold, bgp.MaxHold, "")
}

// config is how a daemon with these flags speaks to routers; nil: it speaks to none.
func (o *bgpOptions) config() (*bgp.Config, error) {
	if len(o.neighbors) == 0 {
		if o.asn != 0 || o.routerID != "" || len(o.addrs) > 0 || o.password != "" {
			return nil, errors.New("--bgp-asn, --bgp-router-id, --bgp-address and --bgp-password-file need --bgp-neighbor")
		}
		return nil, nil
	}
	if o.asn == 0 {
		return nil, errors.New("--bgp-neighbor needs --bgp-asn")
	}
	cfg := &bgp.Config{ASN: o.asn, Hold: o.hold.Truncate(time.Second)}
	password, err := o.readPassword()
	if err != nil {
		return nil, err
	}
	own := hostaddr.Watch()
	defer own.Close()
	for _, s := range o.neighbors {
		n, err := parseNeighbor(s)
		if err == nil {
			err = checkOther(n.Addr.Addr(), own.Has)
		}
		if err != nil {
			return nil, err
		}
		n.Password = password
		cfg.Neighbors = append(cfg.Neighbors, n)
	}
	if err := o.addresses(cfg); err != nil {
		return nil, err
	}
	return cfg, nil
}

// parseNeighbor reads ADDRESS[:PORT][@ASN].
func parseNeighbor(s string) (n bgp.Neighbor, err error) {
	where, as, other := strings.Cut(s, "@")
	if n.Addr, err = netip.ParseAddrPort(where); err != nil {
		var a netip.Addr
		a, err = netip.ParseAddr(strings.Trim(where, "[]"))
		n.Addr = netip.AddrPortFrom(a, 0)
	}
	if err == nil && other {
		var asn uint64
		asn, err = strconv.ParseUint(as, 10, 32)
		n.ASN = uint32(asn)
	}
	if err != nil || n.Addr.Addr().Is4In6() || !hostaddr.Possible(n.Addr.Addr()) {
		return n, fmt.Errorf("--bgp-neighbor %q: give ADDRESS[:PORT][@ASN]", s)
	}
	return n, nil
}

// checkOther refuses a router at an address that this host itself has: no route may lead to an address of the router
// that is told of it (RFC 4271, section 5.1.3), and all addresses of this host would be. An address of a link is not
// looked at: several hosts, and several interfaces of this one, may have the same.
func checkOther(router netip.Addr, own func(netip.Addr) bool) error {
	if !router.IsLinkLocalUnicast() && own(router) {
		return fmt.Errorf("--bgp-neighbor %v is this host itself: give the address of a router on another host", router)
	}
	return nil
}

// addresses fills in what routes lead to, and the router id.
func (o *bgpOptions) addresses(cfg *bgp.Config) error {
	for _, s := range o.addrs {
		a, err := netip.ParseAddr(s)
		if err != nil || !hostaddr.Possible(a) {
			return fmt.Errorf("--bgp-address %q is no address of a host", s)
		}
		cfg.Addrs = append(cfg.Addrs, a.Unmap())
	}
	if len(cfg.Addrs) == 0 {
		var err error
		if cfg.Addrs, err = ownAddresses(cfg.Neighbors); err != nil {
			return err
		}
		cfg.VTEP = cfg.Addrs[0] // a fabric is of the family of its sessions
	}
	if o.routerID != "" {
		id, err := netip.ParseAddr(o.routerID)
		if err != nil || !id.Is4() {
			return fmt.Errorf("--bgp-router-id %q: give one that looks like an IPv4 address", o.routerID)
		}
		cfg.RouterID = id
		return nil
	}
	for _, a := range cfg.Addrs {
		if a.Is4() {
			cfg.RouterID = a
			return nil
		}
	}
	return errors.New("no address is IPv4: give --bgp-router-id")
}

// ownAddresses are what routes lead to where nothing else is said: of each family the address from which its first
// router is reached, and of a family without routers one of the same interface, as FRR has it. So an IPv4 session leads
// to IPv6 routes that the router can use.
func ownAddresses(routers []bgp.Neighbor) ([]netip.Addr, error) {
	first := routers[0].Addr.Addr()
	a, err := towards(first)
	if err != nil {
		return nil, fmt.Errorf("no address leads to the router %v: %w; give this host's with --bgp-address", first, err)
	}
	var list []netip.Addr
	if !a.IsLinkLocalUnicast() {
		list = append(list, a)
	}
	for _, v6 := range []bool{false, true} {
		if slices.ContainsFunc(list, func(have netip.Addr) bool { return have.Is6() == v6 }) {
			continue
		}
		of := func(n bgp.Neighbor) bool {
			to := n.Addr.Addr()
			return to.Is6() == v6 && !to.IsLinkLocalUnicast()
		}
		if i := slices.IndexFunc(routers, of); i >= 0 {
			if other, err := towards(routers[i].Addr.Addr()); err == nil {
				list = append(list, other)
				continue
			}
		}
		if beside, is := addressBeside(a, v6); is {
			list = append(list, beside)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("no address of the interface with %v is one that routes can lead to: give --bgp-address", a)
	}
	return list, nil
}

// addressBeside is an address of a family that the interface with the address a has; of several one that stays.
func addressBeside(a netip.Addr, v6 bool) (netip.Addr, bool) {
	all, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return netip.Addr{}, false
	}
	at := slices.IndexFunc(all, func(x netlink.Addr) bool { return x.IP.Equal(a.AsSlice()) })
	if at < 0 {
		return netip.Addr{}, false
	}
	const unusable, passing = unix.IFA_F_DADFAILED, unix.IFA_F_TEMPORARY | unix.IFA_F_DEPRECATED
	var found netip.Addr
	for _, x := range all {
		b, _ := netip.AddrFromSlice(x.IP)
		b = b.Unmap()
		if x.LinkIndex != all[at].LinkIndex || b.Is6() != v6 || !b.IsGlobalUnicast() || x.Flags&unusable != 0 {
			continue
		}
		if x.Flags&passing == 0 {
			return b, true
		}
		if !found.IsValid() {
			found = b
		}
	}
	return found, found.IsValid()
}

// towards is the address of this host from which another is reached. Nothing is sent.
func towards(to netip.Addr) (netip.Addr, error) {
	c, err := net.Dial("udp", netip.AddrPortFrom(to, bgp.DefaultPort).String())
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap().WithZone(""), nil
}

func (o *bgpOptions) readPassword() (string, error) {
	if o.password == "" {
		return "", nil
	}
	b, err := os.ReadFile(o.password)
	if err != nil {
		return "", fmt.Errorf("--bgp-password-file: %w", err)
	}
	s := strings.TrimRight(string(b), "\r\n")
	if s == "" || len(s) > bgp.MaxPassword {
		return "", fmt.Errorf("--bgp-password-file %s: it has %d bytes, and a password has 1 to %d", o.password, len(s),
			bgp.MaxPassword)
	}
	return s, nil
}
