package sandbox

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// markSysctls let a connection's packets keep the mark of its first, refusals too (Documentation/networking/ip-sysctl.rst).
var markSysctls = []string{"net/ipv4/tcp_fwmark_accept", "net/ipv4/fwmark_reflect"}

// routeMarked has the network namespace this process is in take packets with directMark or divertMark as its own, whatever
// their destination, and says whether it has IPv6. Doing it again changes nothing.
func routeMarked() (ipv6 bool, err error) {
	sysctls, families := markSysctls, []int{netlink.FAMILY_V4}
	if _, err := os.Stat("/proc/sys/net/ipv6"); err == nil {
		ipv6 = true
		sysctls, families = append(sysctls, "net/ipv6/fwmark_reflect"), append(families, netlink.FAMILY_V6)
	}
	for _, name := range sysctls {
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
			if link.Attrs().Name != "lo" && !isTAP(link) {
				continue
			}
			if err := routeHere(link, family); err != nil {
				return ipv6, err
			}
		}
		rule := netlink.NewRule()
		mask := ^uint32(directMark ^ divertMark)
		rule.Family, rule.Mark, rule.Mask, rule.Table, rule.Priority = family, directMark, &mask, directTable, directRule
		if err := netlink.RuleAdd(rule); err != nil && !errors.Is(err, unix.EEXIST) {
			return ipv6, fmt.Errorf("rule for marked packets: %w", err)
		}
	}
	return ipv6, nil
}

// routeHere takes marked packets back that leave by link: by that of TAPs, those of sockets that are bound to one.
func routeHere(link netlink.Link, family int) error {
	bits := 8 * net.IPv4len
	if family == netlink.FAMILY_V6 {
		bits = 8 * net.IPv6len
	}
	metric := link.Attrs().Index // one route for each interface: without it they would replace each other
	if link.Attrs().Name == "lo" {
		metric = 0
	}
	err := netlink.RouteReplace(&netlink.Route{
		LinkIndex: link.Attrs().Index, Table: directTable, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST, Family: family, Priority: metric,
		Dst: &net.IPNet{IP: make(net.IP, bits/8), Mask: net.CIDRMask(0, bits)},
	})
	if errors.Is(err, unix.EACCES) && family == netlink.FAMILY_V6 {
		return nil // IPv6 is switched off on it
	}
	if err != nil {
		return fmt.Errorf("route of marked packets over %s: %w", link.Attrs().Name, err)
	}
	return nil
}
