package dns

import (
	"net"
	"net/netip"
	"slices"

	"github.com/miekg/dns"
)

// filter leaves the records out of r, the answer from outside to m, whose addresses Client.AllowAnswer does not let
// pass. What is left is an answer without them: the name is there, and has no such address. A client with EDNS is
// told why (RFC 8914, 4.18: filtered).
func (s *Server) filter(c Client, m, r *dns.Msg) {
	if c.AllowAnswer == nil {
		return
	}
	name := questionName(m)
	if s.splitOf(name) != nil {
		return // the user has named these servers for it
	}
	var refused error
	pass := func(rr dns.RR) bool {
		for _, addr := range addressesOf(rr) {
			if err := c.AllowAnswer(name, addr); err != nil {
				refused = err
				return false
			}
		}
		return true
	}
	r.Answer = slices.DeleteFunc(r.Answer, func(rr dns.RR) bool { return !pass(rr) })
	r.Extra = slices.DeleteFunc(r.Extra, func(rr dns.RR) bool { return !pass(rr) })
	if refused != nil {
		s.counters.filtered.Add(1)
		explain(r, m, dns.ExtendedErrorCodeFiltered, "egress policy: "+refused.Error())
	}
}

// addressesOf are the addresses that a record leads to: also those that it only hints at (RFC 9460, 7.3).
func addressesOf(rr dns.RR) []netip.Addr {
	var list []netip.Addr
	add := func(ips ...net.IP) {
		for _, ip := range ips {
			if a, ok := netip.AddrFromSlice(ip); ok {
				list = append(list, a.Unmap())
			}
		}
	}
	hints := func(values []dns.SVCBKeyValue) {
		for _, v := range values {
			switch v := v.(type) {
			case *dns.SVCBIPv4Hint:
				add(v.Hint...)
			case *dns.SVCBIPv6Hint:
				add(v.Hint...)
			}
		}
	}
	switch rr := rr.(type) {
	case *dns.A:
		add(rr.A)
	case *dns.AAAA:
		add(rr.AAAA)
	case *dns.SVCB:
		hints(rr.Value)
	case *dns.HTTPS:
		hints(rr.Value)
	}
	return list
}
