package sandbox

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/bypass/fwmark"
	"github.com/usernet/usernet/internal/sockio"
	"github.com/usernet/usernet/switch/tap"
)

func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("loopback interface: %w", err)
	}
	if lo.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("loopback interface: %w", err)
	}
	return nil
}

// localAddresses gives the loopback interface addresses and takes others from it. Their scope is the host, so that
// nothing that leaves has them as its source.
func localAddresses(add, remove []netip.Addr) error {
	if len(add) == 0 && len(remove) == 0 {
		return nil
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("loopback interface: %w", err)
	}
	local := func(a netip.Addr) *netlink.Addr {
		return &netlink.Addr{
			IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())},
			Scope: unix.RT_SCOPE_HOST,
		}
	}
	for _, a := range remove {
		if err := netlink.AddrDel(lo, local(a)); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("loopback interface: address %s: %w", a, err)
		}
	}
	for _, a := range add {
		if err := netlink.AddrReplace(lo, local(a)); err != nil {
			return fmt.Errorf("loopback interface: address %s: %w", a, err)
		}
	}
	return nil
}

// setUp gives a TAP its address, MTU and MAC, and brings it up.
func setUp(i Interface) error {
	link, err := netlink.LinkByName(i.Name)
	if err != nil {
		return err
	}
	if i.MAC != nil && link.Attrs().HardwareAddr.String() != i.MAC.String() {
		if err := netlink.LinkSetHardwareAddr(link, i.MAC); err != nil {
			return fmt.Errorf("MAC %s: %w", i.MAC, err)
		}
	}
	if err := netlink.LinkSetMTU(link, i.MTU); err != nil {
		return fmt.Errorf("MTU %d: %w", i.MTU, err)
	}
	ipv6Sysctls(i)
	for _, p := range i.Addrs {
		a := address(p)
		if p.Addr().Is6() && i.Valid > 0 {
			a.ValidLft, a.PreferedLft = int(i.Valid.Seconds()), int(i.Preferred.Seconds())
		}
		if err := addAddress(link, a); err != nil {
			return err
		}
	}
	for _, a := range i.LinkLocal {
		local := address(netip.PrefixFrom(a, 16))
		local.Scope = unix.RT_SCOPE_LINK
		if err := addAddress(link, local); err != nil {
			return err
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("up: %w", err)
	}
	if err := fwmark.RouteBack(link, netlink.FAMILY_V4); err != nil {
		return err
	}
	if i.IPv6 {
		return fwmark.RouteBack(link, netlink.FAMILY_V6)
	}
	return nil
}

// set does what c says, where made are the interfaces that were made.
func (c Congestion) set(made []string) {
	if !c.Local {
		sockio.ReplaceCongestion(sockio.LocalCongestion, c.Host)
		return
	}
	links, err := netlink.LinkList()
	if err != nil {
		return
	}
	ours := map[int]bool{}
	for _, l := range links {
		if slices.Contains(made, l.Attrs().Name) {
			ours[l.Attrs().Index] = true
		}
	}
	for _, l := range links {
		a := l.Attrs()
		pair := ours[a.ParentIndex] && a.NetNsID < 0 // the other end of one of ours, which is in this namespace
		if a.Flags&net.FlagUp != 0 && a.Flags&net.FlagLoopback == 0 && !ours[a.Index] && !pair {
			return
		}
	}
	sockio.ReplaceCongestion(c.Host, sockio.LocalCongestion)
}

// isTAP says whether a link may be one of usernet's.
func isTAP(link netlink.Link) bool { return tap.IsLink(link) }

func address(p netip.Prefix) *netlink.Addr {
	bits := p.Addr().BitLen()
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), bits)}}
	if p.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD // the daemon gives each address once
	}
	return addr
}

func addAddress(link netlink.Link, addr *netlink.Addr) error {
	if err := netlink.AddrReplace(link, addr); err != nil {
		return fmt.Errorf("address %s: %w", addr.IPNet, err)
	}
	return nil
}

// ipv6Sysctls keeps the interface to the addresses that it was given (Documentation/networking/ip-sysctl.rst). A kernel
// without IPv6 has none of the files, and /proc may be read-only in nested containers, where the defaults do.
func ipv6Sysctls(i Interface) {
	dir := "/proc/sys/net/ipv6/conf/" + i.Name + "/"
	values := map[string]string{
		"accept_ra":     "0",
		"autoconf":      "0",
		"addr_gen_mode": "0",
		"accept_dad":    "0",
		"disable_ipv6":  "0",
	}
	if i.Autoconf {
		values["accept_ra"], values["autoconf"], values["use_tempaddr"] = "1", "1", "0"
	}
	if i.OwnRoutes {
		values["accept_ra_defrtr"], values["accept_dad"] = "0", "1"
	}
	if !i.IPv6 {
		values["disable_ipv6"] = "1"
	}
	for name, v := range values {
		_ = os.WriteFile(dir+name, []byte(v), 0o644)
	}
}

// setDefaultRoutes replaces the default routes; those over interfaces that are no TAPs stay.
func setDefaultRoutes(want []Route) error {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst != nil {
			if ones, _ := r.Dst.Mask.Size(); ones > 0 {
				continue
			}
		}
		link, err := netlink.LinkByIndex(r.LinkIndex)
		if err != nil || r.Table == fwmark.Table || !isTAP(link) {
			continue
		}
		if err := netlink.RouteDel(&r); err != nil {
			return fmt.Errorf("default route over %s: %w", link.Attrs().Name, err)
		}
	}
	return setRoutes(want)
}

func setRoutes(want []Route) error {
	for _, w := range want {
		link, err := netlink.LinkByName(w.Interface)
		if err != nil {
			return fmt.Errorf("route to %s over %s: %w", w.Dst, w.Interface, err)
		}
		r := &netlink.Route{
			LinkIndex: link.Attrs().Index,
			Dst:       &net.IPNet{IP: w.Dst.Addr().AsSlice(), Mask: net.CIDRMask(w.Dst.Bits(), w.Dst.Addr().BitLen())},
		}
		if w.Via.IsValid() {
			r.Gw = w.Via.AsSlice()
		} else {
			r.Scope = netlink.SCOPE_LINK
		}
		if err := netlink.RouteReplace(r); err != nil {
			if w.Dst.Bits() == 0 {
				return fmt.Errorf("default route via %s over %s: %w", w.Via, w.Interface, err)
			}
			return fmt.Errorf("route to %s over %s: %w", w.Dst, w.Interface, err)
		}
	}
	return nil
}

// cannotHave says whether an address is in use, or of a family that the sandbox lacks.
func cannotHave(err error) bool {
	return errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT)
}
