package daemon

import (
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/usernet/usernet/internal/errdefs"

	"github.com/usernet/usernet/dns"
)

// hostRoutes returns the subnets the host itself routes, which default address pools must not shadow. The default
// route is not among them. Reading routes needs no privilege; where it fails, nothing is avoided.
func hostRoutes() []netip.Prefix {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil
	}
	var list []netip.Prefix
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		addr, ok := netip.AddrFromSlice(r.Dst.IP)
		ones, _ := r.Dst.Mask.Size()
		if ok && ones > 0 {
			list = append(list, netip.PrefixFrom(addr.Unmap(), ones))
		}
	}
	return list
}

// startDNS makes the server that all stubs and gateways share, and the host's resolvers it forwards to.
func (d *Daemon) startDNS() {
	d.upstream = dns.NewUpstreams(d.cfg.ResolvConf, d.log)
	d.updateAllNames()
	d.dns = dns.NewServer(dns.Config{
		Directory:      d.names,
		Logger:         d.log,
		Upstreams:      d.upstream,
		CacheSize:      d.cfg.DNSCache,
		Split:          d.cfg.DNSSplit,
		Questions:      d.cfg.DNSQuestions,
		TotalQuestions: totalQuestions(),
		Pin:            d.pinAnswer,
	})
}

// totalQuestions bounds the questions that are being asked outside: each holds a socket, and an eighth of the
// descriptors that the daemon may have are for them.
func totalQuestions() int {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0
	}
	return int(min(r.Cur/8, dns.DefaultTotalQuestions))
}

// checkServers refuses what is no DNS server.
func checkServers(servers []string) error {
	for _, server := range servers {
		if _, err := dns.ParseUpstream(server); err != nil {
			return errdefs.Invalid("%w", err)
		}
	}
	return nil
}
