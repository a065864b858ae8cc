package dns

import (
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// learn tells Config.Learn which addresses an answer from outside has for the name that was asked for, before the client
// has the answer. Aliases on the way (CNAME) do not matter: the addresses are those of the name.
func (s *Server) learn(c Client, r *dns.Msg) {
	if s.cfg.Learn == nil || r == nil || r.Rcode != dns.RcodeSuccess || len(r.Question) != 1 {
		return
	}
	var addrs []netip.Addr
	shortest := uint32(1<<31 - 1)
	for _, rr := range r.Answer {
		var ip []byte
		switch rr := rr.(type) {
		case *dns.A:
			ip = rr.A.To4()
		case *dns.AAAA:
			ip = rr.AAAA
		}
		if a, ok := netip.AddrFromSlice(ip); ok {
			addrs = append(addrs, a.Unmap())
		}
		shortest = min(shortest, rr.Header().Ttl)
	}
	if len(addrs) > 0 {
		s.cfg.Learn(c.ID, r.Question[0].Name, addrs, time.Duration(shortest)*time.Second)
	}
}
