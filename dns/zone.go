package dns

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// TTL of answers from the directory, in seconds: short, since containers come and go.
const ttl = 5

// fromDirectory answers what must not go upstream; nil where the name is not ours.
func (s *Server) fromDirectory(c Client, m *dns.Msg) *dns.Msg {
	q := m.Question[0]
	name := strings.ToLower(strings.TrimSuffix(q.Name, "."))
	r := new(dns.Msg)
	r.SetReply(m)
	r.RecursionAvailable = true
	if q.Qclass != dns.ClassINET {
		return nil
	}
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return addresses(r, q, []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, 0)
	}
	if addr, ok := reverse(name); ok {
		host, ours := s.cfg.Directory.LookupAddr(c.ID, addr)
		switch {
		case !ours:
			return nil
		case host == "":
			return r.SetRcode(m, dns.RcodeNameError)
		case q.Qtype == dns.TypePTR:
			r.Answer = append(r.Answer, &dns.PTR{Hdr: header(q, dns.TypePTR), Ptr: dns.Fqdn(host)})
		}
		return r
	}
	if labels := strings.SplitN(name, ".", 3); len(labels) == 3 && strings.HasPrefix(labels[0], "_") &&
		strings.HasPrefix(labels[1], "_") {
		list, ok := s.cfg.Directory.LookupService(c.ID, labels[0][1:], labels[1][1:], labels[2])
		if !ok {
			return nil
		}
		if q.Qtype == dns.TypeSRV {
			for _, x := range list {
				r.Answer = append(
					r.Answer,
					&dns.SRV{Hdr: header(q, dns.TypeSRV), Port: x.Port, Target: dns.Fqdn(x.Target)},
				)
			}
		}
		return r
	}
	if addrs, last, ok := s.cfg.Directory.LookupName(c.ID, name); ok {
		return addresses(r, q, addrs, last)
	}
	if c.NoShort && ofHost(q.Qtype) && name != "" && !strings.Contains(name, ".") {
		return r.SetRcode(m, dns.RcodeNameError)
	}
	return nil
}

// ofHost says whether a type of record is one that hosts have. The others are those of top-level domains.
func ofHost(qtype uint16) bool {
	switch qtype {
	case dns.TypeNS, dns.TypeSOA, dns.TypeDS, dns.TypeDNSKEY:
		return false
	}
	return true
}

func header(q dns.Question, t uint16) dns.RR_Header {
	return dns.RR_Header{Name: q.Name, Rrtype: t, Class: dns.ClassINET, Ttl: ttl}
}

// addresses answers with those of the asked family, beginning anywhere in the list: in the part before the last ones,
// and in that again.
func addresses(r *dns.Msg, q dns.Question, addrs []netip.Addr, last int) *dns.Msg {
	at := len(addrs) - last
	for _, a := range slices.Concat(turned(addrs[:at]), turned(addrs[at:])) {
		switch {
		case q.Qtype == dns.TypeA && a.Is4():
			r.Answer = append(r.Answer, &dns.A{Hdr: header(q, dns.TypeA), A: a.AsSlice()})
		case q.Qtype == dns.TypeAAAA && a.Is6():
			r.Answer = append(r.Answer, &dns.AAAA{Hdr: header(q, dns.TypeAAAA), AAAA: a.AsSlice()})
		}
	}
	return r
}

// turned is a list that begins at any of its elements and goes round.
func turned(addrs []netip.Addr) []netip.Addr {
	if len(addrs) < 2 {
		return addrs
	}
	start := rand.IntN(len(addrs))
	return slices.Concat(addrs[start:], addrs[:start])
}

// reverse reads an in-addr.arpa or ip6.arpa name.
func reverse(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		l := strings.Split(rest, ".")
		if len(l) != 4 {
			return netip.Addr{}, false
		}
		a, err := netip.ParseAddr(l[3] + "." + l[2] + "." + l[1] + "." + l[0])
		return a, err == nil
	}
	if rest, ok := strings.CutSuffix(name, ".ip6.arpa"); ok {
		l := strings.Split(rest, ".")
		if len(l) != 32 {
			return netip.Addr{}, false
		}
		var b strings.Builder
		for i := 31; i >= 0; i-- {
			if len(l[i]) != 1 {
				return netip.Addr{}, false
			}
			b.WriteString(l[i])
			if i%4 == 0 && i > 0 {
				b.WriteByte(':')
			}
		}
		a, err := netip.ParseAddr(b.String())
		return a, err == nil
	}
	return netip.Addr{}, false
}
