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

// routeMarked has the network namespace this process is in take packets with directMark as its own, whatever their
// destination. Doing it again changes nothing.
func routeMarked() error {
	sysctls, families := markSysctls, []int{netlink.FAMILY_V4}
	if _, err := os.Stat("/proc/sys/net/ipv6"); err == nil {
		sysctls, families = append(sysctls, "net/ipv6/fwmark_reflect"), append(families, netlink.FAMILY_V6)
	}
	for _, name := range sysctls {
		if err := os.WriteFile("/proc/sys/"+name, []byte("1"), 0o644); err != nil {
			return fmt.Errorf("sysctl %s: %w", strings.ReplaceAll(name, "/", "."), err)
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("loopback interface: %w", err)
	}
	for _, family := range families {
		bits := 8 * net.IPv4len
		if family == netlink.FAMILY_V6 {
			bits = 8 * net.IPv6len
		}
		err := netlink.RouteReplace(&netlink.Route{
			LinkIndex: lo.Attrs().Index, Table: directTable, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST, Family: family,
			Dst: &net.IPNet{IP: make(net.IP, bits/8), Mask: net.CIDRMask(0, bits)},
		})
		if err != nil {
			return fmt.Errorf("route of marked packets: %w", err)
		}
		rule := netlink.NewRule()
		rule.Family, rule.Mark, rule.Table, rule.Priority = family, directMark, directTable, directRule
		if err := netlink.RuleAdd(rule); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("rule for marked packets: %w", err)
		}
	}
	return nil
}
