package pasta

import (
	"net/netip"

	"github.com/miekg/dns"
)

// resolvConf is where the host's name servers and search domains are.
const resolvConf = "/etc/resolv.conf"

// told are the name servers and search domains that guests are told by DHCP, DHCPv6 and router advertisements: those of
// the options, else the host's, of which those on its loopback stand behind an address that leads there.
func (o *Options) told(gateways [2]netip.Addr) (servers []netip.Addr, search []string) {
	if o.DHCPDNS {
		servers = o.DNS
	}
	if o.DHCPSearch {
		search = o.Search
	}
	host, err := dns.ClientConfigFromFile(resolvConf)
	if err != nil {
		return servers, search
	}
	if o.DHCPSearch && search == nil && !o.NoSearch {
		search = host.Search
	}
	if !o.DHCPDNS || servers != nil || o.NoDNS {
		return servers, search
	}
	for _, s := range host.Servers {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			continue // of a link that guests are not on
		}
		if a.IsLoopback() {
			a = o.leadsToLoopback(a.Is6(), gateways)
		}
		if a.IsValid() {
			servers = append(servers, a)
		}
	}
	return servers, search
}

// leadsToLoopback is an address by which guests reach the host's name server at its loopback; invalid: there is none.
func (o *Options) leadsToLoopback(ipv6 bool, gateways [2]netip.Addr) netip.Addr {
	family := v4
	if ipv6 {
		family = v6
	}
	switch {
	case o.DNSForward[family].IsValid():
		return o.DNSForward[family]
	case o.MapHostLoopback[family].IsValid():
		return o.MapHostLoopback[family]
	case !o.NoMapGateway:
		return gateways[family]
	}
	return netip.Addr{}
}
