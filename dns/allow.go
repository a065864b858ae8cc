package dns

import (
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// prohibited is the answer to a question that Client.Allow does not let outside; nil where it may go.
//
// It is "no such name", the one answer that every resolver takes at once as the last word: for REFUSED glibc reports a
// temporary failure, which programs try again, and musl drops it and waits 5 seconds. Without an SOA record nobody keeps it
// (RFC 2308, 5). Who asks with EDNS is told why (RFC 8914, 4.16: blocked by a policy of the server's operator).
func (s *Server) prohibited(c Client, m *dns.Msg) *dns.Msg {
	if c.Allow == nil {
		return nil
	}
	q := m.Question[0]
	name := strings.ToLower(strings.TrimSuffix(q.Name, "."))
	var addr netip.Addr
	if q.Qtype == dns.TypePTR && q.Qclass == dns.ClassINET {
		addr, _ = reverse(name)
	}
	err := c.Allow(name, addr)
	if err == nil {
		return nil
	}
	s.refused.Add(1)
	r := new(dns.Msg)
	r.SetRcode(m, dns.RcodeNameError)
	r.RecursionAvailable = true
	if o := m.IsEdns0(); o != nil {
		r.SetEdns0(ednsSize, o.Do())
		own := r.IsEdns0()
		own.Option = append(own.Option, &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeBlocked, ExtraText: "egress policy: " + err.Error()})
	}
	return r
}
