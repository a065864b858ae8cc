// Package fwmark has the marks of the bypass's sockets, and the routes and the rule that bring marked packets back to
// the network namespace they came from. It is apart from package bypass since the agent that makes a TAP adds a route
// for it.
package fwmark

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/switch/tap"
)

// The marks of sockets, and the routing table and rule of their packets. The numbers have no meaning; no other program
// is likely to use them.
const (
	Inbound  = 0x75736e74  // connections to the container
	Outbound = Inbound | 1 // connections that the container opened
	mask     = ^uint32(1)  // what the two have in common
	Table    = 0x75736e74  // of routes
	priority = 30067       // of the rule: before those of the main table, 32766
	loopback = "lo"
)

// sysctls let a connection's packets keep the mark of its first, refusals too (Documentation/networking/ip-sysctl.rst).
var sysctls = []string{"net/ipv4/tcp_fwmark_accept", "net/ipv4/fwmark_reflect"}

// Prepare has the network namespace this process is in take marked packets as its own, whatever their destination, and
// says whether it has IPv6. Doing it again changes nothing.
func Prepare() (ipv6 bool, err error) {
	settings, families := sysctls, []int{netlink.FAMILY_V4}
	if _, err := os.Stat("/proc/sys/net/ipv6"); err == nil {
		ipv6 = true
		settings, families = append(settings, "net/ipv6/fwmark_reflect"), append(families, netlink.FAMILY_V6)
	}
	for _, name := range settings {
		if err := os.WriteFile("/proc/sys/"+name, []byte("1"), 0o644); err != nil {
			return ipv6, fmt.Errorf("sysctl %s: %w", strings.ReplaceAll(name, "/", "."), err)
		}
	}
	links, err := netlink.LinkList()
	if err != nil {
		return ipv6, fmt.Errorf("interfaces: %w", err)
	}
	for _, family := range families {
		for _, link := range links {
			if err := prepareLink(link, family); err != nil {
				return ipv6, err
			}
		}
		rule, bits := netlink.NewRule(), mask
		rule.Family, rule.Mark, rule.Mask, rule.Table, rule.Priority = family, Inbound, &bits, Table, priority
		if err := netlink.RuleAdd(rule); err != nil && !errors.Is(err, unix.EEXIST) {
			return ipv6, fmt.Errorf("rule for marked packets: %w", err)
		}
	}
	return ipv6, nil
}

// prepareLink adds the route of one interface, where it may be one of usernet's. Those of the container's own may be in
// any state, and are left alone: of its TUNs and TAPs that are down, the kernel takes no route.
func prepareLink(link netlink.Link, family int) error {
	if link.Attrs().Name != loopback && !tap.IsLink(link) {
		return nil
	}
	if link.Attrs().Name != loopback && link.Attrs().Flags&net.FlagUp == 0 {
		return nil
	}
	err := RouteBack(link, family)
	if errors.Is(err, unix.ENETDOWN) || errors.Is(err, unix.ENODEV) {
		return nil // it went down, or away, in the meantime
	}
	return err
}

// RouteBack takes marked packets back that leave by link: by that of TAPs, those of sockets that are bound to one.
func RouteBack(link netlink.Link, family int) error {
	bits := 8 * net.IPv4len
	if family == netlink.FAMILY_V6 {
		bits = 8 * net.IPv6len
	}
	metric := link.Attrs().Index // one route for each interface: without it they would replace each other
	if link.Attrs().Name == loopback {
		metric = 0
	}
	err := netlink.RouteReplace(&netlink.Route{
		LinkIndex: link.Attrs().Index,
		Table:     Table,
		Type:      unix.RTN_LOCAL,
		Scope:     netlink.SCOPE_HOST,
		Family:    family,
		Priority:  metric,
		Dst:       &net.IPNet{IP: make(net.IP, bits/8), Mask: net.CIDRMask(0, bits)},
	})
	if errors.Is(err, unix.EACCES) && family == netlink.FAMILY_V6 {
		return nil // IPv6 is switched off on it
	}
	if err != nil {
		return fmt.Errorf("route of marked packets over %s: %w", link.Attrs().Name, err)
	}
	return nil
}
